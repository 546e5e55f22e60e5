"""``check_machine`` passes machines that replicas can run and names what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from outlast.kernel import CommandError, ConfigError, Prng
from outlast.state import StateMachine, Table, command, query
from outlast.state.ready.kv import Kv
from outlast.testing.broken.machine import BROKEN
from outlast.testing.machine import MachineCheckError, check_machine


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_machine_is_named_with_its_command(cls: type[StateMachine]) -> None:
    with pytest.raises(MachineCheckError) as caught:
        check_machine(cls, commands=30)
    assert str(caught.value).startswith("machine.py:" + BROKEN[cls])
    assert "\n" not in str(caught.value)


def test_the_order_of_a_set_is_found_by_the_other_hash_seed() -> None:
    broken = {cls.__name__: cls for cls in BROKEN}
    with pytest.raises(MachineCheckError, match="under another PYTHONHASHSEED: does it iterate"):
        check_machine(broken["SetOrder"], commands=30)


@dataclass(frozen=True)
class Job:
    name: str
    tags: tuple[str, ...] = ()


@dataclass
class Queue(StateMachine):
    """Order, deletion, records, randomness, time, plain fields, derived fields, versions."""

    version = 2
    jobs: Table[int, Job] = field(default_factory=Table)
    taken: dict[str, list[int]] = field(default_factory=dict)
    next_id: int = 1
    _names: Table[str, int] = field(default_factory=Table, init=False)

    def __post_init__(self) -> None:
        for number, job in self.jobs.items():
            self._names[job.name] = number

    @command
    def put(self, job: Job, urgent: bool = False) -> int:
        if job.name in self._names:
            raise CommandError("twice", job.name)
        number = self.next_id
        self.jobs[number] = job
        self._names[job.name] = number
        self.next_id += 1
        return number

    @command
    def take(self, worker: str) -> Job | None:
        for number in self.jobs:
            job = self.jobs.pop(number)
            del self._names[job.name]
            if not worker:
                raise CommandError("who?")
            self.taken.setdefault(worker, []).append(number)
            return job
        return None

    @command
    def drop_one(self) -> float:
        if self.jobs:
            number = self.ctx.random.choice(list(self.jobs))
            del self._names[self.jobs.pop(number).name]
        return self.ctx.now.timestamp()

    @command(since=2)
    def clear(self) -> None:
        self.jobs.clear()
        self._names.clear()

    @query
    def names(self) -> list[str]:
        return [job.name for job in self.jobs.values()]


def test_a_machine_that_keeps_the_rules_passes() -> None:
    report = check_machine(Queue, commands=150)
    assert report.commands == 150
    assert 5 < report.raised < 145
    assert report.checkpoints == 22
    assert report.other_hash_seed


def test_the_ready_map_passes() -> None:
    assert check_machine(Kv).raised < 200


def test_a_check_is_repeatable_and_takes_a_start_and_draws() -> None:
    seen: list[int] = []

    def amount(prng: Prng) -> int:
        seen.append(prng.below(5))
        return seen[-1]

    def start() -> StateMachine:
        return Capped(Table(a=3))

    first = check_machine(Capped, commands=40, start=start, draw={"add.amount": amount})
    drawn = list(seen)
    seen.clear()
    assert check_machine(Capped, commands=40, start=start, draw={"amount": amount}) == first
    assert seen == drawn
    assert set(seen) == set(range(5))


@dataclass
class Capped(StateMachine):
    totals: Table[str, int] = field(default_factory=Table)

    @command
    def add(self, amount: int) -> int:
        self.totals["a"] += amount
        return self.totals["a"]


def test_a_class_in_a_function_is_checked_without_the_other_process() -> None:
    @dataclass
    class Local(StateMachine):
        count: int = 0

        @command
        def add(self) -> int:
            self.count += 1
            return self.count

    assert not check_machine(Local, commands=20).other_hash_seed


def test_a_rollback_that_does_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from outlast.state import runner

    forgets: Callable[[Any], None] = lambda undo: undo.clear()  # noqa: E731
    monkeypatch.setattr(runner, "roll_back", forgets)
    with pytest.raises(MachineCheckError, match="after changing Table"):
        check_machine(Kv_raises, commands=50)


@dataclass
class Kv_raises(StateMachine):
    items: Table[str, int] = field(default_factory=Table)

    @command
    def put(self, key: str, value: int) -> None:
        self.items[key] = value
        if value < 0:
            raise CommandError(key)


def test_a_checkpoint_that_sees_later_commands_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from outlast.state.table import Table as Real

    plain = Real.__setitem__

    def blind(self: Any, key: Any, value: Any) -> None:
        shadow, self._shadow = self._shadow, None
        plain(self, key, value)
        self._shadow = shadow

    monkeypatch.setattr(Real, "__setitem__", blind)
    with pytest.raises(MachineCheckError, match="changed a checkpoint that was being written"):
        check_machine(Kv_raises, commands=50)


def test_an_argument_that_cannot_be_drawn_asks_for_a_draw() -> None:
    from typing import Annotated

    from msgspec import Meta

    @dataclass
    class Coded(StateMachine):
        @command
        def put(self, code: Annotated[str, Meta(pattern="^[A-Z]{7}$")]) -> None: ...

    Coded.put.function.__annotations__["code"] = Annotated[str, Meta(pattern="^[A-Z]{7}$")]
    with pytest.raises(ConfigError, match="pass draw="):
        check_machine(Coded)
    check_machine(Coded, draw={"code": lambda prng: "ABCDEFG"}, commands=5)
