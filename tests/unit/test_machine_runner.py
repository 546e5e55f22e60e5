"""The runner: results, errors, rollback, changes, checkpoint and restore of one machine."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest

from outlast.kernel import CommandError, CommandTypeError, DataError
from outlast.state import (
    Context,
    Runner,
    StateMachine,
    Table,
    command,
    decode_error,
    machine_spec,
    query,
)


class Overdrawn(CommandError): ...


class Short(CommandError):
    def __init__(self, account: str, missing: int) -> None:
        super().__init__(f"{account} lacks {missing}")
        self.account = account
        self.missing = missing


Anything = bool | int | str | list[int] | None


class Strange:
    pass


@dataclass
class Bank(StateMachine):
    balances: Table[str, int] = field(default_factory=Table)
    count: int = 0
    names: dict[str, list[str]] = field(default_factory=dict)

    @command
    def transfer(self, source: str, target: str, amount: int = 1) -> int:
        if self.balances.get(source, 0) < amount:
            raise Overdrawn(source)
        self.balances[source] -= amount
        self.balances[target] = self.balances.get(target, 0) + amount
        return self.balances[source]

    @command
    def shuffle_then_raise(self, *, how: str) -> None:
        first = next(iter(self.balances))
        self.balances["new"] = 7
        self.balances[first] = 99
        del self.balances[first]
        self.balances[first] = 5
        self.balances.popitem()
        self.balances.pop("new")
        if how == "clear":
            self.balances.clear()
            self.balances["x"] = 1
        if how == "short":
            raise Short("alice", 3)
        if how == "node":
            raise OSError("disk")
        if how == "strange":
            raise ValueError(Strange())
        if how == "replace":
            self.balances = Table()
            return
        if how == "replace and raise":
            self.balances = Table()
        raise KeyError(first)

    @command
    def echo(
        self, value: bool | int | str | list[int] | None
    ) -> bool | int | str | list[int] | None:
        return value

    @command
    def put(self, key: str, value: int) -> None:
        self.balances[key] = str(value) if key == "wrong" else value  # type: ignore[assignment]

    @command
    def move_to_end(self, key: str) -> dict[str, int]:
        self.balances[key] = self.balances.pop(key)
        return self.balances

    @command(since=2)
    def later(self) -> int:
        self.count += 1
        return self.ctx.version

    @query
    def total(self) -> int:
        return sum(self.balances.values())

    @query
    def sneaky(self) -> None:
        self.balances["sneak"] = 1


SPEC = machine_spec(Bank)


def make(**balances: int) -> Runner:
    return Runner(SPEC, Bank(Table(balances)))


def call(runner: Runner, name: str, *args: object, version: int = 1, **kwargs: object) -> object:
    status, body = runner.execute(
        name, SPEC.encode_args(name, args, kwargs), Context(version=version)
    )
    if status:
        raise decode_error(body, SPEC)
    return SPEC.decode_result(name, body)


def copy_of(runner: Runner) -> Runner:
    other = Runner(SPEC)
    other.restore(runner.checkpoint(), version=1, schema=SPEC.schema)
    return other


def test_a_command_answers_and_changes_its_tables() -> None:
    runner = make(alice=30)
    assert call(runner, "transfer", "alice", target="bob", amount=30) == 0
    assert runner.machine == Bank(Table(alice=0, bob=30))


def test_a_default_that_was_not_given_is_the_methods() -> None:
    assert call(make(a=2), "transfer", "a", "b") == 1


def test_a_declared_error_comes_back_as_its_class_with_args_and_fields() -> None:
    runner = make(alice=3)
    with pytest.raises(Overdrawn) as caught:
        call(runner, "transfer", "alice", "bob", 4)
    assert caught.value.args == ("alice",)
    with pytest.raises(Short) as short:
        call(runner, "shuffle_then_raise", how="short")
    assert (short.value.account, short.value.missing) == ("alice", 3)
    assert short.value.happened == "yes"


def test_an_undeclared_exception_is_a_command_error_with_its_type_name() -> None:
    with pytest.raises(CommandError) as caught:
        call(make(alice=1), "shuffle_then_raise", how="")
    assert (caught.value.type_name, caught.value.args) == ("KeyError", ("alice",))
    assert type(caught.value) is CommandError


def test_an_argument_of_an_error_that_cannot_be_encoded_shows_no_address() -> None:
    with pytest.raises(CommandError, match="<Strange>"):
        call(make(alice=1), "shuffle_then_raise", how="strange")


@pytest.mark.parametrize("how", ["", "clear", "short", "strange", "replace", "replace and raise"])
def test_a_raising_command_leaves_pairs_and_order_as_they_were(how: str) -> None:
    runner = make(alice=1, bob=2, carol=3)
    before, table = runner.digest(), runner.machine.balances  # type: ignore[attr-defined]
    with pytest.raises(CommandError):
        call(runner, "shuffle_then_raise", how=how)
    assert runner.machine.balances is table  # type: ignore[attr-defined]
    assert list(table.items()) == [("alice", 1), ("bob", 2), ("carol", 3)]
    assert type(table) is Table
    assert runner.digest() == before
    assert runner.take_changes() == b""


def test_a_node_failure_is_raised_and_is_no_result() -> None:
    runner = make(alice=1)
    with pytest.raises(OSError, match="disk"):
        call(runner, "shuffle_then_raise", how="node")
    assert runner.machine.balances == {"alice": 1}  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [None, False, 0, "", [], True, [0]])
def test_results_are_kept_exactly(value: object) -> None:
    found = call(make(), "echo", value)
    assert found == value
    assert type(found) is type(value)


def test_a_table_takes_only_its_types_and_the_command_is_undone() -> None:
    runner = make(a=1)
    with pytest.raises(CommandError, match=r"Table 'balances': str '7' is not int") as caught:
        call(runner, "put", "wrong", 7)
    assert caught.value.type_name == "MisuseError"
    assert runner.machine.balances == {"a": 1}  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Rate:
    value: float
    tags: tuple[str, ...] = ()


@dataclass
class Rates(StateMachine):
    rates: Table[str, float] = field(default_factory=Table)
    records: Table[int, Rate] = field(default_factory=Table)
    top: float = 0.0
    other: Table[str, float] = field(default_factory=Table)

    @command
    def put(self, value: int, how: str) -> None:
        self.rates["plain"] = value
        self.records[1] = Rate(value, ["a"])  # type: ignore[arg-type]
        self.top = value
        self.rates.pop("gone", None)
        if how == "tail":
            self.rates["x"] = 1.5
            del self.rates["x"]
            self.rates["gone"] = value
        if how == "key":
            self.records[True] = Rate(1.5)
        if how == "field":
            self.top = "high"  # type: ignore[assignment]
        if how == "record":
            self.records[2] = Rate("high")  # type: ignore[arg-type]


RATES = machine_spec(Rates)


def put_rates(runner: Runner, how: str) -> tuple[int, bytes]:
    return runner.execute("put", RATES.encode_args("put", (2, how)), Context())


@pytest.mark.parametrize("how", ["", "tail"])
def test_values_are_kept_as_a_restore_would_give_them(how: str) -> None:
    runner = Runner(RATES)
    assert put_rates(runner, how)[0] == 0
    other = Runner(RATES)
    other.restore(runner.checkpoint(), version=1, schema=RATES.schema)
    assert repr(other.machine) == repr(runner.machine)
    assert "tags=('a',)" in repr(runner.machine)
    assert "top=2.0" in repr(runner.machine)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("key", "Table 'records': key bool True is not int"),
        ("field", "field 'top': str 'high' is not float"),
        ("record", "Table 'records': Rate … is not Rate"),
    ],
)
def test_values_that_no_restore_would_take_undo_the_command(how: str, line: str) -> None:
    runner = Runner(RATES)
    status, body = put_rates(runner, how)
    assert status == 1
    assert str(decode_error(body, RATES)).startswith(line)
    assert (runner.machine.rates, runner.machine.records) == ({}, {})  # type: ignore[attr-defined]
    runner.digest()


def test_tables_that_are_equal_are_not_taken_for_one_another() -> None:
    runner = Runner(MOVES, Moves(Table(a=1), Table(a=1, b=2)))
    assert runner.execute("act", b"\x80", Context()) == (0, b"\xc0")
    assert runner.machine == Moves(Table(a=1), Table(a=1))


@dataclass
class Moves(StateMachine):
    one: Table[str, int] = field(default_factory=Table)
    two: Table[str, int] = field(default_factory=Table)

    @command
    def act(self) -> None:
        self.one["a"] = 1
        del self.two["b"]


MOVES = machine_spec(Moves)


def test_a_key_set_anew_after_deletion_stands_at_the_end_and_a_table_can_be_returned() -> None:
    runner = make(a=1, b=2)
    assert list(call(runner, "move_to_end", "a").items()) == [("b", 2), ("a", 1)]  # type: ignore[attr-defined]
    assert list(runner.machine.balances) == ["b", "a"]  # type: ignore[attr-defined]


def test_a_command_of_a_later_version_waits_until_it_is_in_force() -> None:
    runner = make()
    with pytest.raises(CommandTypeError, match=r"Bank.later needs version 2; version 1 is in"):
        call(runner, "later")
    assert call(runner, "later", version=2) == 2


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("a", "b", "x"), "Bank.transfer: argument 'amount' is str 'x'; expected int"),
        (("a", "b", True), "Bank.transfer: argument 'amount' is bool True; expected int"),
        (("a", "b", 1 << 64), "argument 'amount' is int 18446744073709551616; expected int"),
        (("a",), "Bank.transfer: argument 'target' (str) is missing"),
        (("a", "b", 1, 2), "Bank.transfer: takes 3 positional arguments; 4 were given"),
        (("a", Strange(), 1), "Bank.transfer: argument 'target' is Strange …; expected str"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_sent(
    args: tuple[object, ...], line: str
) -> None:
    with pytest.raises(CommandTypeError) as caught:
        SPEC.encode_args("transfer", args)
    assert line in str(caught.value)
    assert caught.value.happened == "no"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (msgspec.msgpack.encode({"source": "a", "target": 5}), "'target' is int 5; expected str"),
        (msgspec.msgpack.encode({"source": "a", "to": 5}), "has no argument 'to'; it takes (sour"),
        (msgspec.msgpack.encode({"source": "a", "target": "b", "x": 1}), "has no argument 'x'"),
        (msgspec.msgpack.encode(["a", "b"]), "expected a map by name"),
        (b"\xc1", "not a msgpack map"),
    ],
)
def test_wrong_encoded_arguments_are_an_answer_and_run_nothing(body: bytes, line: str) -> None:
    runner = make(a=5)
    status, answer = runner.execute("transfer", body, Context())
    error = decode_error(answer, SPEC)
    assert status == 1
    assert isinstance(error, CommandTypeError)
    assert line in str(error)
    with pytest.raises(CommandTypeError):
        SPEC.check_args("transfer", body)


def test_an_unknown_command_names_those_that_exist() -> None:
    status, body = make().execute("tranfser", b"\x80", Context())
    assert status == 1
    assert "Bank has no command 'tranfser'; it has: transfer," in str(decode_error(body, SPEC))


def test_a_query_reads_and_cannot_change() -> None:
    runner = make(a=1, b=2)
    assert runner.query("total", b"\x80", Context()) == (0, b"\x03")
    status, body = runner.query("sneaky", b"\x80", Context())
    assert (status, str(decode_error(body, SPEC))) == (
        1,
        "query Bank.sneaky changed Table 'balances'; make it a command",
    )
    assert runner.machine.balances == {"a": 1, "b": 2}  # type: ignore[attr-defined]
    _, body = runner.query("transfer", b"\x80", Context())
    assert "is a command; use call" in str(decode_error(body, SPEC))


def test_changes_are_taken_once_and_equal_on_a_restored_replica() -> None:
    first = make(a=5, b=5)
    second = copy_of(first)
    for runner in (first, second):
        call(runner, "transfer", "a", "b", 1)
        call(runner, "later", version=2)
    taken = first.take_changes()
    assert taken == second.take_changes() != b""
    assert msgspec.msgpack.decode(taken) == [
        ["balances", "a", 4, "balances", "b", 6],
        {"count": 1},
    ]
    assert first.take_changes() == b""


def test_a_checkpoint_is_the_state_at_its_cut_whatever_runs_meanwhile() -> None:
    runner = make(**{f"k{n}": n for n in range(3500)})
    before = copy_of(runner)
    chunks = runner.checkpoint()
    kept = [next(chunks), next(chunks)]
    call(runner, "move_to_end", "k3000")
    call(runner, "transfer", "k3400", "fresh", 2)
    with pytest.raises(CommandError):
        call(runner, "shuffle_then_raise", how="clear")
    runner.digest()  # reads everything and must not disturb the checkpoint under way
    call(runner, "put", "k2500", 0)
    kept.extend(chunks)
    restored = Runner(SPEC)
    restored.restore(kept, version=1, schema=SPEC.schema)
    assert restored.digest() == before.digest() != runner.digest()
    assert list(restored.machine.balances) == [f"k{n}" for n in range(3500)]  # type: ignore[attr-defined]
    assert runner.machine.balances._shadow is None  # type: ignore[attr-defined]


def test_a_second_checkpoint_abandons_the_first() -> None:
    runner = make(a=1)
    first = runner.checkpoint()
    next(first)
    second = list(runner.checkpoint())
    with pytest.raises(DataError, match="abandoned"):
        list(first)
    assert second == list(runner.checkpoint())


def test_large_values_are_cut_into_chunks_below_the_limit() -> None:
    runner = Runner(SPEC, Bank(names={"n": ["x" * 1000] * 3000}))
    chunks = list(runner.checkpoint())
    assert max(map(len, chunks)) <= 1 << 20
    other = Runner(SPEC)
    other.restore(chunks, version=1, schema=SPEC.schema)
    assert other.machine == runner.machine


@pytest.mark.parametrize("damage", ["cut", "missing", "flag", "bytes"])
def test_a_damaged_checkpoint_is_refused_and_the_state_stays(damage: str) -> None:
    runner = make(**{f"k{n}": n for n in range(2500)})
    chunks = list(runner.checkpoint())
    bad = {
        "cut": chunks[:-1],
        "missing": [*chunks[:1], *chunks[2:]],
        "flag": [b"\x07" + chunks[0][1:], *chunks[1:]],
        "bytes": [chunks[0], chunks[1][:50], *chunks[2:]],
    }[damage]
    other = make(z=1)
    with pytest.raises(DataError):
        other.restore(bad, version=1, schema=SPEC.schema)
    assert other.machine == Bank(Table(z=1))


def test_a_plain_field_of_the_wrong_type_stops_the_checkpoint_not_the_restore() -> None:
    runner = make()
    runner.machine.count = "many"  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"field 'count': str 'many' is not int"):
        runner.checkpoint()
