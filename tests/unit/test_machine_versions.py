"""New versions of a machine: fields, migration, refusals; derived fields; the context."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from outlast.kernel import DataError
from outlast.state import Context, Runner, StateMachine, Table, command, machine_spec


@dataclass(frozen=True)
class Account:
    owner: str
    amount: int


@dataclass
class One(StateMachine):
    amounts: Table[str, int] = field(default_factory=Table)
    pairs: Table[tuple[str, int], int] = field(default_factory=Table)
    old: str = "x"


def saved(machine: Any = None) -> tuple[list[bytes], dict[str, Any]]:
    spec = machine_spec(One)
    machine = machine or One(Table(a=1, b=2), Table({("k", 1): 5}))
    return list(Runner(spec, machine).checkpoint()), spec.schema


def restored(cls: Any, version: int = 1) -> Any:
    chunks, schema = saved()
    runner = Runner(machine_spec(cls))
    runner.restore(chunks, version=version, schema=schema)
    return runner.machine


def test_fields_that_change_without_a_new_version_are_refused_with_the_difference() -> None:
    @dataclass
    class Changed(StateMachine):
        amounts: Table[str, float] = field(default_factory=Table)
        pairs: Table[tuple[str, int], int] = field(default_factory=Table)
        new: int = 0

    with pytest.raises(DataError) as caught:
        restored(Changed)
    assert str(caught.value) == (
        "test_machine_versions.py:Changed: fields changed without a new version: "
        "field 'amounts' was Table[str, int] and is Table[str, float]; "
        "field 'old' (str) was removed; field 'new' (int) was added; "
        "write version = 2 and migrate()"
    )


def test_a_change_inside_a_record_is_seen() -> None:
    def machine(record: Any) -> Any:
        made = type(
            "M",
            (StateMachine,),
            {"__annotations__": {"t": Table[str, record]}, "t": field(default_factory=Table)},
        )
        return machine_spec(dataclass(made)).schema["fields"]

    @dataclass(frozen=True)
    class Wider:
        owner: str
        amount: int
        note: str = ""

    Wider.__name__ = "Account"
    assert machine(Account) == {"t": "Table[str, Account(owner: str, amount: int)]"}
    assert machine(Wider) == {"t": "Table[str, Account(owner: str, amount: int, note: str)]"}


def test_migrate_lifts_the_state_and_a_left_out_field_gets_its_default() -> None:
    @dataclass
    class Two(StateMachine):
        version = 2
        accounts: Table[str, Account] = field(default_factory=Table)
        pairs: Table[tuple[str, int], int] = field(default_factory=Table)
        limit: int = 7

        @classmethod
        def migrate(cls, state: dict[str, Any], version: int) -> dict[str, Any]:
            assert (version, state["old"]) == (1, "x")
            amounts = state["amounts"]
            accounts = {k: {"owner": k, "amount": v} for k, v in amounts.items()}
            return {"accounts": accounts, "pairs": state["pairs"]}

    machine = restored(Two)
    assert machine == Two(
        Table(a=Account("a", 1), b=Account("b", 2)), Table({("k", 1): 5}), limit=7
    )
    assert list(machine.accounts) == ["a", "b"]


def test_an_added_field_with_a_default_needs_no_migrate() -> None:
    @dataclass
    class Two(One):
        version = 2
        limit: int = 7

    assert restored(Two).limit == 7
    assert restored(Two).amounts == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (None, "returned NoneType; return the state dict"),
        ({"gone": 1}, "left field 'gone', which the class does not have"),
        ({"limit": "x"}, "gave field 'limit' a value that is not int"),
        ({"amounts": {"a": "x"}}, r"gave field 'amounts' a value that is not Table\[str, int\]"),
        ({"amounts": 3}, "gave field 'amounts' a value"),
    ],
)
def test_what_migrate_returns_is_checked(result: Any, line: str) -> None:
    @dataclass
    class Two(StateMachine):
        version = 2
        amounts: Table[str, int] = field(default_factory=Table)
        limit: int = 7

        @classmethod
        def migrate(cls, state: dict[str, Any], version: int) -> dict[str, Any]:
            return result  # type: ignore[no-any-return]

    with pytest.raises(DataError, match=rf"Two: migrate from version 1 {line}"):
        restored(Two)


def test_a_checkpoint_of_newer_code_is_refused() -> None:
    with pytest.raises(DataError, match=r"is of version 3, this code is version 1; start the new"):
        restored(One, version=3)


@dataclass
class Indexed(StateMachine):
    owners: Table[str, str] = field(default_factory=Table)
    _by_owner: Table[str, int] = field(default_factory=Table, init=False)
    _seen: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = set(self.owners.values())
        for owner in self.owners.values():
            self._by_owner[owner] = self._by_owner.get(owner, 0) + 1

    @command
    def own(self, thing: str, owner: str) -> int:
        self._by_owner[owner] = self._by_owner.get(owner, 0) + 1
        self.owners[thing] = owner
        self._seen.add(owner)
        if not thing:
            raise ValueError(owner)
        return self._by_owner[owner]


def test_derived_fields_are_not_saved_but_rebuilt_and_derived_tables_roll_back() -> None:
    spec = machine_spec(Indexed)
    runner = Runner(spec)
    assert spec.schema["fields"] == {"owners": "Table[str, str]"}
    assert runner.execute("own", spec.encode_args("own", ("t", "al")), Context()) == (0, b"\x01")
    assert runner.execute("own", spec.encode_args("own", ("", "al")), Context())[0] == 1
    assert runner.machine._by_owner == {"al": 1}  # type: ignore[attr-defined]
    assert b"_by_owner" not in runner.take_changes()
    other = Runner(spec)
    other.restore(runner.checkpoint(), version=1, schema=spec.schema)
    assert other.machine == runner.machine
    assert (other.machine._by_owner, other.machine._seen) == ({"al": 1}, {"al"})  # type: ignore[attr-defined]


@dataclass(slots=True)
class Slotted(StateMachine):
    count: int = 0
    totals: Table[str, int] = field(default_factory=Table)

    @command
    def add(self, key: str) -> int:
        self.count += 1
        self.totals[key] = self.count
        return self.ctx.index


def test_a_dataclass_with_slots_and_a_subclass_of_a_machine_run() -> None:
    @dataclass
    class Wider(Slotted):
        note: str = ""

        @command
        def write(self, note: str) -> None:
            self.note = note

    for cls, names in ((Slotted, ["add"]), (Wider, ["add", "write"])):
        spec = machine_spec(cls)
        runner, other = Runner(spec), Runner(spec)
        assert list(spec.commands) == names
        assert (
            runner.execute("add", spec.encode_args("add", ("k",)), Context(index=3))[1] == b"\x03"
        )
        other.restore(runner.checkpoint(), version=1, schema=spec.schema)
        assert other.machine == runner.machine == cls(1, Table(k=1))


@dataclass
class Clock(StateMachine):
    @command
    def tell(self) -> list[int]:
        return [self.ctx.index, self.ctx.version, self.ctx.now_ns, self.ctx.random.randint(1, 99)]


def test_a_command_sees_the_entry_and_nothing_else() -> None:
    spec = machine_spec(Clock)
    one, two = Runner(spec), Runner(spec)
    body = one.execute("tell", b"\x80", Context(1_500_000_000_123_456_789, 7, 42, 1))
    assert body == two.execute("tell", b"\x80", Context(1_500_000_000_123_456_789, 7, 42, 1))
    assert spec.decode_result("tell", body[1])[:3] == [7, 1, 1_500_000_000_123_456_789]
    draws = {one.execute("tell", b"\x80", Context(0, index, 42, 1))[1] for index in range(20)}
    assert len(draws) == 20


def test_outside_a_machine_the_context_is_at_rest() -> None:
    assert Clock().tell()[:3] == [0, 1, 0]
    assert Clock().ctx.now == datetime(1970, 1, 1, tzinfo=UTC)


def test_the_random_source_keeps_to_its_bounds() -> None:
    random = Context(seed=3).random
    assert all(0 <= random.random() < 1 for _ in range(200))
    assert all(2.0 <= random.uniform(2, 3) <= 3.0 for _ in range(50))
    assert {random.randrange(0, 10, 5) for _ in range(50)} == {0, 5}
    assert {random.choice("ab") for _ in range(50)} == {"a", "b"}
    assert sorted(random.sample(range(9), 9)) == list(range(9))
    assert (random.getrandbits(5) < 32, len(random.randbytes(5))) == (True, 5)
    items = list(range(20))
    random.shuffle(items)
    assert sorted(items) == list(range(20)) != items
    with pytest.raises(ValueError, match="randrange of an empty"):
        random.randrange(0)
    with pytest.raises(IndexError, match="empty sequence"):
        random.choice([])
    with pytest.raises(ValueError, match="sample of 1 out of 0 items"):
        random.sample([], 1)
