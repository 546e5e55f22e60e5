"""A checkpoint is the state at its cut, whatever commands run between any two of its chunks."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlast.kernel import CommandError
from outlast.state import Context, Runner, StateMachine, Table, command, machine_spec
from outlast.state import runner as runner_module

KEYS = st.integers(0, 9)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 99)),
        st.tuples(st.just("drop"), KEYS, st.just(0)),
        st.tuples(st.just("move"), KEYS, st.just(0)),
        st.tuples(st.just("empty"), KEYS, st.just(0)),
    ),
    max_size=4,
)
CALLS = st.lists(st.tuples(STEPS, st.booleans(), st.integers(0, 2)), max_size=12)


@dataclass
class Many(StateMachine):
    one: Table[int, int] = field(default_factory=Table)
    two: Table[int, int] = field(default_factory=Table)
    count: int = 0

    @command
    def act(self, steps: list[tuple[str, int, int]], fails: bool) -> int:
        for name, key, value in steps:
            table = self.two if key % 2 else self.one
            if name == "put":
                table[key] = value
            elif name == "drop":
                table.pop(key, None)
            elif name == "move" and key in table:
                table[key] = table.pop(key)
            elif name == "empty":
                table.clear()
        if fails:
            raise CommandError("as asked")
        self.count += 1
        return self.count


SPEC = machine_spec(Many)


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "SLICE_KEYS_MAX", 2)
    monkeypatch.setattr(runner_module, "slice_step", lambda step, size: 2)


def pairs(runner: Runner) -> Any:
    machine: Any = runner.machine
    return list(machine.one.items()), list(machine.two.items()), machine.count


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, KEYS), st.dictionaries(KEYS, KEYS), CALLS, st.integers(0, 5))
def test_chunks_taken_between_commands_restore_the_cut(
    one: dict[int, int], two: dict[int, int], calls: list[Any], begin: int
) -> None:
    runner = Runner(SPEC, Many(Table(one), Table(two)))
    held: Any = None
    chunks: list[bytes] = []
    cut, digest = pairs(runner), runner.digest()
    for number, (steps, fails, taken) in enumerate(calls):
        if number == begin:
            cut, digest, held = pairs(runner), runner.digest(), runner.checkpoint()
        before = pairs(runner)
        args = SPEC.encode_args("act", (steps, fails))
        status, _ = runner.execute("act", args, Context())
        assert status == fails
        if fails:
            assert pairs(runner) == before
        for _ in range(taken if held else 0):
            chunks.extend(chunk for chunk in [next(held, None)] if chunk is not None)
    if held is None:
        cut, digest, held = pairs(runner), runner.digest(), runner.checkpoint()
    chunks.extend(held)
    other = Runner(SPEC)
    other.restore(chunks, version=1, schema=SPEC.schema)
    assert pairs(other) == cut
    assert other.digest() == digest


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, KEYS), CALLS)
def test_changes_and_answers_are_equal_on_a_replica_restored_anywhere(
    one: dict[int, int], calls: list[Any]
) -> None:
    runner = Runner(SPEC, Many(Table(one)))
    for steps, fails, _ in calls:
        other = Runner(SPEC)
        other.restore(runner.checkpoint(), version=1, schema=SPEC.schema)
        args = SPEC.encode_args("act", (steps, fails))
        assert runner.execute("act", args, Context()) == other.execute("act", args, Context())
        assert runner.take_changes() == other.take_changes()
        assert pairs(runner) == pairs(other)


def replay(tables: dict[str, dict[int, int]], changes: bytes) -> int:
    """Apply changes to plain dicts; return the last count they hold."""
    count = 0
    for commit in msgspec.msgpack.decode(changes) if changes else []:
        if isinstance(commit, dict):
            count = commit["count"]
            continue
        sets, holes, tails = commit if isinstance(commit[0], list) else (commit, [], [])
        for at in range(0, len(sets), 3):
            tables[sets[at]][sets[at + 1]] = sets[at + 2]
        for at in range(0, len(holes), 2):
            del tables[holes[at]][holes[at + 1]]
        for at in range(0, len(tails), 3):
            tables[tails[at]][tails[at + 1]] = tails[at + 2]
    return count


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, KEYS), CALLS)
def test_changes_replayed_on_dicts_give_the_same_pairs_in_the_same_order(
    one: dict[int, int], calls: list[Any]
) -> None:
    runner = Runner(SPEC, Many(Table(one)))
    tables: dict[str, dict[int, int]] = {"one": dict(one), "two": {}}
    done = 0
    for steps, fails, _ in calls:
        runner.execute("act", SPEC.encode_args("act", (steps, fails)), Context())
        done += not fails
        count = replay(tables, runner.take_changes())
        assert count in {0, done}
        assert [list(table.items()) for table in tables.values()] == list(pairs(runner)[:2])
