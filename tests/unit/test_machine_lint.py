"""What lint says about a class beside stored data, and about its source."""

from __future__ import annotations

import os
import random
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from random import choice
from typing import Any

import pytest

from outlast.state import StateMachine, Table, command, machine_spec
from outlast.state.lint import lint_machine


@dataclass
class Old(StateMachine):
    balances: Table[str, int] = field(default_factory=Table)

    @command
    def pay(self, source: str, amount: int = 1) -> int:
        return amount

    @command
    def drop(self) -> None: ...


SCHEMA = machine_spec(Old).schema


def findings(body: dict[str, Any], fields: dict[str, Any] | None = None) -> list[str]:
    kinds = {"balances": Table[str, int]} if fields is None else fields
    made = type("Old", (StateMachine,), {"__annotations__": kinds, **body})
    for name in kinds:
        setattr(made, name, field(default_factory=dict))
    return [
        f"{finding.text}; {finding.advice}" for finding in lint_machine(dataclass(made), SCHEMA)
    ]


def pay(self: Any, source: str, amount: int = 1) -> int:
    return amount


def drop(self: Any) -> None: ...


SAME = {"pay": command(pay), "drop": command(drop)}


def test_the_same_class_and_a_proper_new_version_have_no_findings() -> None:
    def extra(self: Any) -> None: ...
    def pay_more(self: Any, source: str, amount: int = 1, note: str = "") -> int:
        return amount

    assert lint_machine(Old, SCHEMA) == []
    better = {**SAME, "version": 2, "extra": command(since=2)(extra), "pay": command(pay_more)}
    kinds = {"balances": Table[str, int], "limit": int}
    assert findings(better, kinds) == []


@pytest.mark.parametrize(
    ("version", "kinds", "said"),
    [
        (
            1,
            {"balances": Table[str, int], "limit": int},
            "field 'limit' (int) was added; write version = 2, and migrate() unless fields were",
        ),
        (1, {}, "field 'balances' (Table[str, int]) was removed; write version = 2"),
        (
            2,
            {"balances": Table[str, str]},
            "field 'balances' was Table[str, int] and is Table[str, str]; write migrate(cls, ",
        ),
    ],
)
def test_changed_fields_ask_for_a_version_or_migrate(
    version: int, kinds: dict[str, Any], said: str
) -> None:
    (found,) = findings({**SAME, "version": version}, kinds)
    assert found.startswith(said)


def test_changed_commands_are_judged_by_what_the_log_and_clients_hold() -> None:
    def without(self: Any, source: str) -> int: ...  # type: ignore[empty-body]
    def retyped(self: Any, source: bytes, amount: int = 1) -> int: ...  # type: ignore[empty-body]
    def required(self: Any, source: str, note: str, amount: int = 1) -> int: ...  # type: ignore[empty-body]
    def other(self: Any, source: str, amount: int = 2) -> int: ...  # type: ignore[empty-body]
    def bare(self: Any, source: str, amount: int) -> int: ...  # type: ignore[empty-body]
    def answer(self: Any, source: str, amount: int = 1) -> str: ...  # type: ignore[empty-body]

    for method, said in [
        (without, "parameter 'amount' was removed; the log holds calls with it"),
        (retyped, "parameter 'source' was str and is bytes; the log holds calls with the old"),
        (required, "parameter 'note' was added without a default; calls in the log lack it"),
        (
            other,
            "the default of 'amount' was 1 and is 2; keep it and choose by self.ctx.version > 1",
        ),
        (bare, "parameter 'amount' lost its default 1; calls in the log lack it; keep it"),
        (answer, "returned int and returns str; clients of the old code decode the old type"),
    ]:
        (found,) = findings({**SAME, "pay": command(method)})
        assert found.startswith(said)
    (found,) = findings({"pay": command(pay)})
    assert found.startswith("was removed, and the log may still hold calls of it")
    (found,) = findings({**SAME, "fresh": command(drop)})
    assert found.startswith("is new, but since=1; write since=2: replicas of version 1 lack it")


def test_another_machine_and_older_code_are_refused() -> None:
    made = dataclass(type("New", (StateMachine,), {}))
    (finding,) = lint_machine(made, SCHEMA)
    assert "the data belongs to machine 'Old'" in str(finding)
    (found,) = [str(f) for f in lint_machine(Old, {**SCHEMA, "version": 3})]
    assert "version 1 is older than the data's 3; deploy the newer code" in found


@dataclass
class Suspicious(StateMachine):
    things: dict[str, str] = field(default_factory=dict)

    @command
    def direct(self) -> float:
        return time.time() + random.random()

    @command
    def imported(self) -> str:
        return choice("ab") + str(uuid.uuid4()) + os.environ.get("HOME", "") + str(hash("a"))

    @command
    def inside(self) -> int:
        from time import monotonic_ns

        return monotonic_ns()

    @command
    def behind(self) -> str:
        return self.helper()

    def helper(self) -> str:
        return datetime.now().isoformat()  # noqa: DTZ005 - what the lint is for

    @command
    def ordered(self) -> list[str]:
        return [name for name in set(self.things)]

    @command
    def fine(self) -> str:
        ages = {name: len(name) for name in sorted(set(self.things))}
        return f"{self.ctx.now} {self.ctx.random.random()} {uuid.UUID(int=5)} {ages}"


def test_the_source_of_commands_is_searched_for_what_differs_between_replicas() -> None:
    found = [
        (finding.where.rpartition(".")[2], finding.text.partition(" in line")[0])
        for finding in lint_machine(Suspicious)
    ]
    assert sorted(found) == [
        ("behind", "datetime.now()"),
        ("direct", "random.random()"),
        ("direct", "time.time()"),
        ("imported", "choice()"),
        ("imported", "hash()"),
        ("imported", "os.environ.get()"),
        ("imported", "uuid.uuid4()"),
        ("inside", "import of time"),
        ("ordered", "iteration over a set"),
    ]
    assert all(finding.level == "warning" for finding in lint_machine(Suspicious))
