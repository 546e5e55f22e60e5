"""Classes whose replicas would differ are refused where they are written, with the reason."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from outlast.kernel import ConfigError
from outlast.state import StateMachine, Table, command, machine_spec, query

FILE = "test_machine_refusals.py"


@dataclass
class Open:
    x: int = 0


@dataclass(frozen=True)
class Closed:
    x: int = 0
    inner: tuple[int, ...] = ()


@dataclass(frozen=True)
class Leaky:
    items: list[int] = field(default_factory=list)


class Plain:
    pass


STATE: list[tuple[Any, str]] = [
    (
        set[str],
        "is set[str]; iteration order differs between nodes; use dict[str, None]",
    ),
    (frozenset[int], "field 'seen' is frozenset[int]; iteration order differs between nodes"),
    (dict[str, set[int]], "field 'seen' is dict[str, set[int]]; iteration order differs"),
    (Any, "field 'seen' is Any; it cannot be checked or restored to what it was; name the type"),
    (list[Any], "field 'seen' is list[Any]; it cannot be checked"),
    (object, "object cannot be encoded"),
    (Plain, "field 'seen' is Plain; Plain cannot be encoded; use a dataclass"),
    (Callable[[], int], "cannot be encoded"),
    (bytearray, "it cannot be restored to what it was; use bytes"),
    (dict[str, Table[str, int]], "a Table is the type of a whole field"),
    (Table, "field 'seen' is Table; write its types, as in Table[str, int]"),
    (Table[str, list[int]], "Table[str, list[int]]; a list that changes in place escapes"),
    (Table[str, dict[str, int]], "use a Table with a tuple of both keys as its key"),
    (Table[str, set[str]], "iteration order differs"),
    (Table[str, Open], "Open can change in place, which escapes rollback and checkpoints"),
    (Table[str, tuple[Leaky, ...]], "a list that changes in place"),
    (Table[str, Any], "name the type"),
    (dataclasses.InitVar[int], "a replica starts without arguments"),
]


@pytest.mark.parametrize(("kind", "line"), STATE, ids=lambda v: str(v)[:24])
def test_a_field_that_cannot_be_replicated_is_refused_when_the_class_is_made(
    kind: Any, line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        type("Bad", (StateMachine,), {"__annotations__": {"seen": kind}, "__module__": __name__})
    assert str(caught.value).startswith(f"{FILE}:Bad: field 'seen' ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kind",
    [
        Table[str, Closed],
        Table[tuple[str, int], int | None],
        dict[str, list[int]],
        list[Open],
        tuple[int, ...],
        str | None,
    ],
    ids=str,
)
def test_ordered_and_typed_state_is_taken(kind: Any) -> None:
    body = {"__annotations__": {"seen": kind}, "seen": field(default_factory=dict)}
    made = type("Good", (StateMachine,), body)
    assert machine_spec(dataclass(made)).state[0].type == kind


@pytest.mark.parametrize("value", [{}, [], set(), Table(), deque(), bytearray()], ids=repr)
def test_mutable_state_of_the_class_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"'cache' is a \w+ shared by the class; it would"):
        type("Bad", (StateMachine,), {"cache": value})


@pytest.mark.parametrize("version", [0, "2", True])
def test_a_version_is_a_whole_number(version: object) -> None:
    with pytest.raises(ConfigError, match=r"version is .*; write a whole number from 1"):
        type("Bad", (StateMachine,), {"version": version})


def test_an_annotated_version_would_be_state() -> None:
    with pytest.raises(ConfigError, match="'version' is annotated"):
        type("Bad", (StateMachine,), {"version": 2, "__annotations__": {"version": int}})


def test_a_class_variable_that_cannot_change_is_no_state() -> None:
    @dataclass
    class Good(StateMachine):
        LIMIT: ClassVar[int] = 5
        NAME = "x"
        _derived: set[str] = field(default_factory=set)

    assert machine_spec(Good).state == ()


def test_the_class_must_be_a_dataclass_with_defaults_and_not_frozen() -> None:
    class Bare(StateMachine):
        x: int = 0

    @dataclass
    class Needy(StateMachine):
        x: int

    @dataclass(frozen=True)
    class Cold(StateMachine):
        x: int = 0

    with pytest.raises(ConfigError, match="Bare is not a dataclass; write @dataclass"):
        machine_spec(Bare)
    with pytest.raises(ConfigError, match="'x' has no default; a replica starts empty"):
        machine_spec(Needy)
    with pytest.raises(ConfigError, match="Cold is frozen"):
        machine_spec(Cold)
    with pytest.raises(ConfigError, match="is not a StateMachine"):
        machine_spec(int)


def test_every_parameter_and_result_is_named_and_typed() -> None:
    def bare(self: Any, x) -> None: ...  # type: ignore[no-untyped-def]
    def quiet(self: Any, x: int): ...  # type: ignore[no-untyped-def]
    def many(self: Any, *xs: int) -> None: ...
    def named(self: Any, **xs: int) -> None: ...
    def unordered(self: Any, xs: set[str]) -> None: ...
    def answer(self: Any) -> set[str]: ...
    def alone() -> None: ...

    for method, line in [
        (bare, "command 'do': parameter 'x' has no annotation"),
        (quiet, "it has no return annotation; write -> None"),
        (many, r"\*xs: 'int' takes anything"),
        (named, r"\*\*xs: 'int' takes anything"),
        (unordered, r"parameter 'xs' is set\[str\]; iteration order differs"),
        (answer, r"it returns set\[str\]; iteration order differs"),
        (alone, "it has no self"),
    ]:
        made = dataclass(type("Bad", (StateMachine,), {"do": command(method)}))  # type: ignore[type-var]
        with pytest.raises(ConfigError, match=line):
            machine_spec(made)


def test_async_and_generators_are_refused_at_the_decorator() -> None:
    async def later(self: Any) -> None: ...
    def some(self: Any) -> Any:
        yield 1

    with pytest.raises(ConfigError, match="later is async; every replica runs it at once"):
        command(later)
    with pytest.raises(ConfigError, match="some is a generator"):
        query(some)
    with pytest.raises(ConfigError, match="since=0"):
        command(since=0)


def test_an_override_without_the_decorator_is_refused() -> None:
    @dataclass
    class Base(StateMachine):
        @command
        def do(self) -> int:
            return 1

    @dataclass
    class Child(Base):
        def do(self) -> int:  # type: ignore[override]
            return 2

    @dataclass
    class Good(Base):
        @command
        def do(self) -> int:
            return super().do() + 1

    with pytest.raises(ConfigError, match=r"Child.do overrides a command without @command"):
        machine_spec(Child)
    assert Good().do() == 2
    assert list(machine_spec(Good).commands) == ["do"]
