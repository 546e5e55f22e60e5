"""Watchdogs and their engine, with a clock that is set by hand or in the simulator."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from outlast import sim
from outlast.detect import watchdog_resource, watchdog_stuck
from outlast.detect.core.ladder import Ladder
from outlast.detect.core.resource import CpuLimit, DiskLimit, FdLimit, MemoryLimit, ThreadLimit
from outlast.detect.locks import WatchedAsyncLock
from outlast.detect.watchdog import Finding, Watchdog, Watchdogs
from outlast.detect.watchdog_events import (
    ClockJumped,
    CpuThrottled,
    DumpWritten,
    LoopRecovered,
    LoopStalled,
    MachineSuspended,
    ProcessStalled,
    ResourceGrew,
    ResourceNearLimit,
    ResourceRecovered,
    RestartForced,
    StacksTaken,
    TaskStuck,
    ThreadsStuck,
    WatchdogFailed,
)
from outlast.detect.watchdog_locks import LockWatchdog
from outlast.detect.watchdog_loop import LoopWatchdog, ProcessWatchdog
from outlast.detect.watchdog_resource import ResourceWatchdog
from outlast.detect.watchdog_stuck import TaskWatchdog, ThreadWatchdog
from outlast.host import make_world
from outlast.kernel import ConfigError, Event, World, current_world
from tests.support.watchdog_hands import HandClock, Readings

NS = 1_000_000_000
MIB = 1 << 20


class Odd(Watchdog):
    """Says what it is told to say."""

    def __init__(self, name: str = "odd", act: Any = None) -> None:
        super().__init__(name, act)
        self.bad = False
        self.fails = False
        self.looked = 0

    def look(self, engine: Watchdogs, now_ns: int) -> int:
        self.looked += 1
        if self.fails:
            raise ValueError("broken")
        finding = Finding(
            "is odd",
            lambda: StacksTaken(reason="odd", stacks=""),
            lambda seconds: LoopRecovered(loop="odd", seconds=seconds),
        )
        if self.bad:
            engine.bad(self, "", now_ns, finding)
        else:
            engine.good(self, "", now_ns, 3.0)
        return now_ns + NS


class Board:
    """Where readiness is reported."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def report(self, name: str, status: Any, detail: str, *, groups: Any) -> None:
        assert groups == ("readiness",)
        self.told.append((name, str(status)))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def world(clock: HandClock) -> World:
    return replace(make_world(), clock=clock)


@pytest.fixture
def told(world: World) -> list[Event]:
    found: list[Event] = []
    world.events.subscribe(found.append)  # type: ignore[attr-defined]
    return found


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def run(engine: Watchdogs, clock: HandClock, seconds: float) -> None:
    end_ns = clock.now_ns + round(seconds * NS)
    while (next_ns := engine.look()) <= end_ns:
        clock.now_ns = max(next_ns, clock.now_ns + 1)
    clock.now_ns = end_ns


# --- the engine --------------------------------------------------------------------------------


def test_actions_follow_the_ladder_and_are_undone_when_it_is_over(
    world: World, clock: HandClock, told: list[Event], tmp_path: Path
) -> None:
    odd, board = Odd(act=Ladder(("event", "not_ready", "dump"), after=(0, 2, 4))), Board()
    engine = Watchdogs(odd, health=board, dump_dir=str(tmp_path), world=world).start()
    odd.bad = True
    run(engine, clock, 1.5)
    assert (kinds(told), board.told) == ([StacksTaken], [])
    assert engine.snapshot()["bad"] == ["odd"]
    run(engine, clock, 4)
    assert kinds(told) == [StacksTaken, DumpWritten]
    assert isinstance(told[1], DumpWritten)
    assert "is odd" in Path(told[1].path).read_text(encoding="utf-8")
    assert board.told == [("watchdog odd", "failed")]
    odd.bad = False
    run(engine, clock, 2)
    assert board.told[-1] == ("watchdog odd", "ok")
    assert kinds(told)[2:] == [LoopRecovered]
    assert engine.snapshot()["bad"] == []


def test_readiness_is_given_back_when_the_watch_ends(
    world: World, clock: HandClock, told: list[Event]
) -> None:
    odd, board = Odd(act=("not_ready",)), Board()
    odd.bad = True
    with Watchdogs(odd, health=board, world=world) as engine:
        run(engine, clock, 1)
    assert [status for _, status in board.told] == ["failed", "ok"]


def test_a_restart_says_why_and_ends_the_process_with_its_code(
    world: World, clock: HandClock, told: list[Event]
) -> None:
    odd, codes = Odd(act=("stacks", "restart")), list[int]()
    engine = Watchdogs(odd, exit_code=99, world=world).start()
    engine._actor.exit = codes.append
    odd.bad = True
    engine.look()
    assert codes == [99]
    assert kinds(told) == [StacksTaken, RestartForced]
    assert told[1] == RestartForced(reason="odd: is odd", code=99)


def test_a_watchdog_that_raises_is_told_once_and_tried_again_later(
    world: World, clock: HandClock, told: list[Event]
) -> None:
    odd, other = Odd(), Odd("other")
    engine = Watchdogs(odd, other, world=world).start()
    odd.fails = True
    run(engine, clock, 25)
    assert kinds(told) == [WatchdogFailed]
    assert told[0] == WatchdogFailed(watchdog="odd", reason="ValueError: broken")
    assert odd.looked == 3
    assert other.looked > 20
    odd.fails = False
    run(engine, clock, 20)
    assert odd.looked > 10


def test_an_action_that_raises_is_told_and_harms_nothing(
    world: World, clock: HandClock, told: list[Event]
) -> None:
    odd = Odd(act=("dump",))
    engine = Watchdogs(odd, dump_dir="/nowhere/at/all", world=world).start()
    odd.bad = True
    run(engine, clock, 3)
    assert kinds(told) == [WatchdogFailed]
    assert isinstance(told[0], WatchdogFailed)
    assert "FileNotFoundError" in told[0].reason


def test_no_more_than_ten_dumps_are_written(
    world: World, clock: HandClock, tmp_path: Path
) -> None:
    odd = Odd(act=("dump",))
    engine = Watchdogs(odd, dump_dir=str(tmp_path), world=world).start()
    for _ in range(12):
        for odd.bad in (True, False):
            run(engine, clock, 1)
    assert len(list(tmp_path.iterdir())) == 10


def test_conditions_are_bounded(world: World, clock: HandClock) -> None:
    engine = Watchdogs(odd := Odd(), world=world).start()
    for number in range(1100):
        engine.bad(odd, str(number), clock.now_ns, Finding("x", None))
    assert len(engine._states) == 1000


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Watchdogs(Odd(), Odd()), "two are named 'odd'"),
        (lambda: Watchdogs(Odd(act=("not_ready",))), "health is None"),
        (lambda: Watchdogs(act=("not_ready",)), "health is None"),
        (lambda: Watchdogs(exit_code=0), "exit_code is 0"),
        (lambda: LoopWatchdog(0.01), r"stall is 0\.01 s"),
        (lambda: LoopWatchdog(1.0, every=0.6), r"every is 0\.6 s and stall 1\.0 s"),
        (lambda: ProcessWatchdog(0.0), r"stall is 0\.0 s"),
        (lambda: ThreadWatchdog(0.0), r"stuck is 0\.0 s"),
        (lambda: TaskWatchdog(0.0), r"stuck is 0\.0 s"),
        (lambda: TaskWatchdog(every=0.0), r"every 0\.0 s"),
        (lambda: LockWatchdog(every=0.0), r"every is 0\.0 s"),
        (lambda: ResourceWatchdog(every=0.0), r"every is 0\.0 s"),
        (lambda: ResourceWatchdog(clock_jump=0.0), r"clock_jump 0\.0 s"),
        (lambda: LoopWatchdog().start(), "no event loop is running here"),
        (lambda: TaskWatchdog().start(), "no event loop is running here"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def test_a_watchdog_that_cannot_begin_leaves_no_other_one_running(world: World) -> None:
    ended = []
    odd = Odd()
    odd.end = lambda: ended.append("odd")  # type: ignore[method-assign]
    engine = Watchdogs(LoopWatchdog(), odd, world=world)
    with pytest.raises(ConfigError):
        engine.start()
    assert ended == ["odd"]
    assert "stopped" in repr(engine)


def test_a_watchdog_and_its_engine_say_what_they_are(world: World) -> None:
    engine = Watchdogs(ProcessWatchdog(), LockWatchdog(), name="mine", world=world).start()
    assert engine.describe()["watchdogs"][0] == {"name": "process", "stall": 0.5, "dump": None}
    assert engine.snapshot()["watchdogs"][1]["deadlocks"] == []
    assert repr(engine._given[0]) == "<ProcessWatchdog process off: simulated time has one thread>"
    assert repr(engine) == "<Watchdogs mine running>"
    engine.stop()
    engine.stop()


# --- loops -------------------------------------------------------------------------------------


def simulated(story: Callable[[list[Event]], Any]) -> tuple[Any, list[Event]]:
    async def whole() -> tuple[Any, list[Event]]:
        found: list[Event] = []
        current_world().events.subscribe(found.append)  # type: ignore[attr-defined]
        return await story(found), found

    return sim.run(whole, seed=1)


def test_in_the_simulator_a_stall_is_told_when_it_is_over() -> None:
    async def story(found: list[Event]) -> Any:
        async with LoopWatchdog(0.5) as watchdog:
            await asyncio.sleep(1)
            time.sleep(2.0)  # noqa: ASYNC251 - the stall
            await asyncio.sleep(1)
            time.sleep(0.3)  # noqa: ASYNC251 - too short
            await asyncio.sleep(1)
            return watchdog.snapshot()

    snapshot, found = simulated(story)
    assert kinds(found) == [LoopStalled, LoopRecovered]
    assert isinstance(found[0], LoopStalled)
    assert found[0].seconds == pytest.approx(2.0, abs=0.2)
    assert snapshot["stalls"] == 1
    assert snapshot["worst"] == pytest.approx(2.0, abs=0.2)


def test_a_stall_that_lasts_is_told_while_it_lasts(
    world: World, clock: HandClock, told: list[Event]
) -> None:
    loop = asyncio.new_event_loop()
    watchdog = LoopWatchdog(0.5, loop=loop)
    engine = Watchdogs(watchdog, world=world).start()

    async def story() -> None:
        await asyncio.sleep(0)
        engine.look()
        clock.now_ns += NS // 4
        engine.look()
        assert told == []
        clock.now_ns += NS // 2
        engine.look()
        clock.now_ns += NS
        engine.look()
        await asyncio.sleep(0.12)  # the next stamp is one of the real loop
        clock.now_ns += NS // 10
        engine.look()

    loop.run_until_complete(story())
    assert kinds(told) == [LoopStalled, LoopRecovered]
    stalled, recovered = told
    assert isinstance(stalled, LoopStalled)
    assert (stalled.seconds, stalled.loop) == (0.75, "loop")
    assert "in test_a_stall_that_lasts_is_told_while_it_lasts" in stalled.stack
    assert stalled.task.startswith("Task-")
    assert isinstance(recovered, LoopRecovered)
    assert recovered.seconds == 1.75
    clock.now_ns += 100 * NS
    engine.look()
    assert len(told) == 2  # a loop that is not running does not stall
    engine.stop()
    loop.close()


def test_a_loop_that_is_closed_is_watched_no_longer(
    world: World, clock: HandClock, told: list[Event]
) -> None:
    loop = asyncio.new_event_loop()
    watchdog = LoopWatchdog(loop=loop)
    tasks = TaskWatchdog(loop=loop)
    engine = Watchdogs(watchdog, tasks, world=world).start()
    loop.close()
    run(engine, clock, 10)
    assert (watchdog.off, tasks.off) == ("the loop is closed", "the loop is closed")
    assert told == []
    engine.stop()


# --- the process -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slept", "cpu", "text", "cause"),
    [
        (0.6, 0.0, "", None),
        (0.7, 0.0, "", "not running"),
        (0.7, 0.6, "stack", "gil"),
        (0.55, 0.5, "stack", "gil"),
        (0.3, 0.3, "stack", None),
    ],
)
def test_a_watcher_that_comes_late_says_that_nothing_ran_and_why(
    world: World, clock: HandClock, told: list[Event], monkeypatch: pytest.MonkeyPatch,
    slept: float, cpu: float, text: str, cause: str | None,
) -> None:  # fmt: skip
    used = iter([0, round(cpu * NS)])
    monkeypatch.setattr("outlast.detect.watchdog_loop._cpu_ns", lambda: next(used))
    monkeypatch.setattr("outlast.detect.watchdog_loop._turns", lambda: 0)
    watchdog = ProcessWatchdog(0.5)
    engine = Watchdogs(watchdog, world=world).start()
    watchdog._pad = SimpleNamespace(take=lambda: text, arm=lambda _: True)  # type: ignore[assignment]
    engine.alive()
    clock.now_ns += round(slept * NS)
    watchdog.look(engine, engine.alive())
    if cause is None:
        assert told == []
    else:
        stack = text if cause == "gil" else ""
        assert told == [ProcessStalled(cause=cause, seconds=slept, stack=stack)]


# --- threads and tasks -------------------------------------------------------------------------


def test_threads_are_stuck_when_they_wait_for_a_lock_and_had_no_turn(
    world: World, clock: HandClock, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = [1]
    monkeypatch.setattr(watchdog_stuck, "_slices", lambda _: slices[0])
    watchdog = ThreadWatchdog(1.0)
    engine = Watchdogs(watchdog, world=world).start()
    watchdog.off = ""
    with waiting("stuck-for-ever"):
        for number in range(6):
            slices[0] = number
            watchdog.look(engine, clock.now_ns)
            clock.now_ns += NS // 2
        assert told == []
        for _ in range(3):
            watchdog.look(engine, clock.now_ns)
            clock.now_ns += NS // 2
        assert kinds(told) == [ThreadsStuck]
        assert isinstance(told[0], ThreadsStuck)
        assert "stuck-for-ever" in told[0].threads
        assert watchdog.snapshot()["stuck"] >= 1
        engine.slept_ns = 10 * NS
        watchdog.look(engine, clock.now_ns)
        assert watchdog.snapshot()["stuck"] == 0


@contextmanager
def waiting(name: str) -> Iterator[None]:
    """A thread that waits for a lock."""
    lock = threading.Lock()
    lock.acquire()

    def take() -> None:
        lock.acquire()

    thread = threading.Thread(target=take, name=name, daemon=True)
    thread.start()
    frame = None
    while frame is None or not watchdog_stuck.waits_for_lock(frame):
        frame = sys._current_frames().get(thread.ident or 0)
        time.sleep(0.001)
    try:
        yield
    finally:
        lock.release()
        thread.join()


def test_tasks_that_nobody_can_wake_are_told_once_and_others_are_not() -> None:
    async def orphan() -> None:
        await asyncio.get_running_loop().create_future()

    async def guarded() -> None:
        async with asyncio.timeout(1000):
            await asyncio.get_running_loop().create_future()

    async def story(found: list[Event]) -> Any:
        lock, queue = asyncio.Lock(), asyncio.Queue[int]()
        await lock.acquire()
        known = asyncio.get_running_loop().create_future()
        fine = [
            lock.acquire(),
            queue.get(),
            asyncio.sleep(999),
            guarded(),
            asyncio.wait_for(known, 999),
        ]
        more = [asyncio.create_task(one) for one in fine]
        more.append(asyncio.create_task(orphan(), name="orphan"))
        async with TaskWatchdog() as watchdog:
            await asyncio.sleep(10)
            stuck = watchdog.snapshot()["stuck"]
            more[-1].cancel()
            await asyncio.sleep(3)
            assert watchdog.snapshot()["stuck"] == stuck - 1
        for task in more:
            task.cancel()
        await asyncio.wait(more)
        return stuck

    stuck, found = simulated(story)
    assert stuck == 1
    (event,) = found
    assert isinstance(event, TaskStuck)
    assert (event.task, event.reason) == ("orphan", "orphaned")
    assert "<locals>.orphan" in event.stack


def test_tasks_that_await_each_other_are_each_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by real ones: asyncio cannot cancel such tasks, it recurses without end.
    async def story(found: list[Event]) -> None:
        tasks = [
            asyncio.create_task(asyncio.sleep(10), name=name) for name in ("one", "two", "three")
        ]
        others = {tasks[0]: tasks[1], tasks[1]: tasks[0], tasks[2]: tasks[0]}
        monkeypatch.setattr(watchdog_stuck, "awaits", others.get)
        async with TaskWatchdog():
            await asyncio.wait(tasks)

    _, found = simulated(story)
    told = [(event.task, event.reason) for event in found if isinstance(event, TaskStuck)]
    assert told == [("one", "circle"), ("two", "circle")]


def test_a_task_that_waits_for_long_is_told_if_that_was_asked_for() -> None:
    async def story(found: list[Event]) -> None:
        work = asyncio.Event()
        tasks = [asyncio.create_task(work.wait(), name=name) for name in ("worker", "job")]
        watchdog = TaskWatchdog(5.0, only=lambda task: task.get_name() == "job")
        async with Watchdogs(watchdog):
            await asyncio.sleep(20)
        work.set()
        await asyncio.wait(tasks)

    _, found = simulated(story)
    (event,) = found
    assert isinstance(event, TaskStuck)
    assert (event.task, event.reason) == ("job", "long")
    assert event.seconds >= 5.0
    assert "in Event.wait" in event.stack


def test_a_standing_deadlock_climbs_the_ladder_until_it_is_broken() -> None:
    async def story(found: list[Event]) -> list[tuple[str, str]]:
        a, b, board = WatchedAsyncLock(), WatchedAsyncLock(), Board()

        async def both(first: WatchedAsyncLock, second: WatchedAsyncLock) -> None:
            async with first:
                await asyncio.sleep(0.1)
                async with second:
                    pass

        tasks = [asyncio.create_task(both(a, b)), asyncio.create_task(both(b, a))]
        ladder = Ladder(("event", "not_ready"), after=(0, 2))
        async with Watchdogs(LockWatchdog(act=ladder), health=board):
            await asyncio.sleep(2)
            assert board.told == []
            await asyncio.sleep(2)
            tasks[0].cancel()
            await asyncio.wait(tasks)
            await asyncio.sleep(2)
        return board.told

    told, _ = simulated(story)
    assert [status for _, status in told] == ["failed", "ok"]
    assert "waits for lock made at" in told[0][0]


def test_all_usual_watchdogs_begin_in_the_simulator_and_say_what_is_off() -> None:
    async def story(found: list[Event]) -> Any:
        async with Watchdogs() as engine:
            await asyncio.sleep(30)
            return engine.snapshot()["watchdogs"]

    watchdogs, found = simulated(story)
    assert found == []
    off = {one["name"]: bool(one["off"]) for one in watchdogs}
    assert off == {
        "loop": False, "tasks": False, "process": True, "threads": True, "locks": False,
        "resources": True,
    }  # fmt: skip


# --- resources ---------------------------------------------------------------------------------


@pytest.fixture
def watched(world: World) -> tuple[Watchdogs, Readings]:
    watchdog = ResourceWatchdog(
        memory=MemoryLimit(), fds=FdLimit(), threads=ThreadLimit(limit=50.0),
        disks=(DiskLimit(), DiskLimit(path="/gone")), cpu=CpuLimit(lasting=2.0),
    )  # fmt: skip
    engine = Watchdogs(watchdog, world=world).start()
    readings = Readings()
    watchdog.off, watchdog._vitals = "", readings
    return engine, readings


def test_a_leak_is_told_with_its_slope_and_ends_when_it_is_over(
    watched: tuple[Watchdogs, Readings], clock: HandClock, told: list[Event]
) -> None:
    engine, readings = watched
    readings.boot = clock.now_ns
    for _ in range(12):
        step(watched, clock)
        readings.memory += 5 * MIB
    assert kinds(told) == [ResourceGrew]
    assert isinstance(told[0], ResourceGrew)
    assert (told[0].resource, told[0].slope) == ("memory", 10.0 * MIB)
    assert told[0].seconds_to_limit == pytest.approx(88, abs=3)
    for _ in range(30):
        step(watched, clock)
    assert kinds(told) == [ResourceGrew, ResourceRecovered]
    assert engine.snapshot()["watchdogs"][0]["private"] == 7


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("fds", 95, "fds"),
        ("thread_count", 49, "threads"),
        ("disk", 97, "disk ."),
        ("memory", 990.0 * MIB, "memory"),
    ],
)
def test_a_resource_of_which_most_is_gone_is_told_at_the_next_sample(
    watched: tuple[Watchdogs, Readings], clock: HandClock, told: list[Event],
    field: str, value: float, name: str,
) -> None:  # fmt: skip
    step(watched, clock)
    setattr(watched[1], field, value)
    step(watched, clock)
    step(watched, clock)
    (event,) = told
    assert isinstance(event, ResourceNearLimit)
    assert (event.resource, event.value) == (name, value)


def test_a_busy_and_a_throttled_processor_are_told_when_they_last(
    watched: tuple[Watchdogs, Readings], clock: HandClock, told: list[Event]
) -> None:
    _, readings = watched
    for _ in range(4):
        step(watched, clock)
        readings.cpu += NS
        readings.held += NS // 4
    assert told == []
    step(watched, clock)
    assert kinds(told) == [ResourceNearLimit, CpuThrottled]
    assert told[1] == CpuThrottled(share=0.5)
    for _ in range(20):
        step(watched, clock)
    assert kinds(told)[2:] == [ResourceRecovered]


def test_a_clock_that_was_set_and_a_suspended_machine_are_told_apart(
    watched: tuple[Watchdogs, Readings], clock: HandClock, told: list[Event]
) -> None:
    step(watched, clock)
    clock.ahead_ns += 60 * NS
    step(watched, clock)
    watched[1].boot += 30 * NS  # the wall clock goes on while the machine is suspended
    clock.ahead_ns += 30 * NS
    step(watched, clock)
    step(watched, clock)
    assert told == [ClockJumped(seconds=60.0), MachineSuspended(seconds=30.0)]


def step(watched: tuple[Watchdogs, Readings], clock: HandClock) -> None:
    engine, readings = watched
    engine.look()
    clock.now_ns += NS // 2
    readings.boot += NS // 2


def test_lines_that_hold_memory_are_in_the_event_if_they_are_traced() -> None:
    import tracemalloc

    assert watchdog_resource._top("memory") == ()
    tracemalloc.start()
    try:
        kept = bytearray(MIB)
        top = watchdog_resource._top("memory")
    finally:
        tracemalloc.stop()
    assert len(kept) == MIB
    assert any(__file__ in line for line in top)
    assert watchdog_resource._top("fds") == ()
