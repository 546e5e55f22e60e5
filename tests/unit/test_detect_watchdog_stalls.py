"""A stall may strike while the watcher looks, acts or reads: it is noticed all the same."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from outlast.detect.core.resource import DiskLimit, FdLimit
from outlast.detect.watchdog import Watchdog, Watchdogs
from outlast.detect.watchdog_act import Actor
from outlast.detect.watchdog_events import ProcessStalled, ResourceNearLimit, WatchdogFailed
from outlast.detect.watchdog_loop import ProcessWatchdog, kept_from_running
from outlast.detect.watchdog_resource import ResourceWatchdog
from outlast.detect.watchdog_stack import bounded
from outlast.host import make_world
from outlast.kernel import Event, World
from tests.support.watchdog_hands import NS, HandClock, Readings


class Slow(Watchdog):
    """Takes ``seconds`` for a look, if it is not kept from running in the middle of it."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__("slow")
        self.clock, self.seconds = clock, 0.0

    def look(self, engine: Watchdogs, now_ns: int) -> int:
        self.clock.pause(self.seconds)
        return now_ns + NS // 10


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


def started(world: World, clock: HandClock) -> tuple[Watchdogs, Slow]:
    slow, watchdog = Slow(clock), ProcessWatchdog(0.5, dump=False)
    engine = Watchdogs(watchdog, slow, world=world).start()
    watchdog.off = ""
    return engine, slow


@pytest.mark.parametrize("rests", [0.02, 0.2])
def test_a_stall_in_the_middle_of_a_look_is_told_by_the_next_one(
    world: World, clock: HandClock, told: list[Event], rests: float
) -> None:
    engine, slow = started(world, clock)
    engine.look()
    slow.seconds = 0.9
    clock.pause(0.2)
    engine.look()
    slow.seconds = 0.0
    assert told == []
    clock.pause(rests)
    for _ in range(20):
        engine.look()
        clock.pause(0.02)
    (event,) = told
    assert isinstance(event, ProcessStalled)
    assert event.seconds == pytest.approx(0.9)


def test_many_short_looks_are_no_stall(world: World, clock: HandClock, told: list[Event]) -> None:
    engine, slow = started(world, clock)
    slow.seconds = 0.3
    for _ in range(20):
        engine.look()
        clock.pause(0.2)
    assert told == []


def test_an_action_that_takes_its_time_is_no_stall() -> None:
    """The watcher waits for it and could run: it gives signs of life meanwhile."""
    signs: list[bool] = []
    over = threading.Event()
    wrong = bounded(over.wait, 0.35, "x", lambda: signs.append(True))
    over.set()
    assert wrong == "took longer than 0.35 s"
    assert len(signs) == 4


def test_the_engine_hears_the_signs_of_life_of_its_actions(
    world: World, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("outlast.detect.watchdog_act.bounded", lambda *all_: given.append(all_))
    engine = Watchdogs(Slow(clock), world=world)
    actor: Actor = engine._actor
    actor.emit(WatchdogFailed(watchdog="x", reason="y"))
    assert given[0][3] == engine.alive


def test_a_disk_that_never_answers_blinds_no_other_watchdog(
    world: World, clock: HandClock, told: list[Event]
) -> None:
    asked: list[str] = []
    over = threading.Event()

    class Hanging(Readings):
        def disk_bytes(self, path: str) -> tuple[int, int] | None:
            asked.append(path)
            if path == "/net":
                over.wait()
            return self.disk, 100

    watchdog = ResourceWatchdog(
        memory=None, fds=FdLimit(), threads=None, cpu=None, clock_jump=None,
        disks=(DiskLimit(path="/net"), DiskLimit(path="/here")),
    )  # fmt: skip
    engine = Watchdogs(watchdog, world=world).start()
    readings = Hanging()
    watchdog.off, watchdog._vitals = "", readings
    try:
        engine.look()
        readings.fds = 99
        for _ in range(3):
            clock.pause(0.5)
            engine.look()
    finally:
        over.set()
    failed, near = told
    assert failed == WatchdogFailed(
        watchdog="resources", reason="disk /net took longer than 0.25 s"
    )
    assert isinstance(near, ResourceNearLimit)
    assert asked.count("/net") == 1, "it is not asked again before it has answered"
    assert asked.count("/here") == 4


@pytest.mark.parametrize(
    ("late", "used", "turns", "held"),
    [
        (0.5, 0.5, 101, True),
        (0.5, 0.05, 14, True),  # too much to do: the lock is kept by a thread with a tenth
        (0.5, 0.25, 3, False),  # stopped after a busy rest
        (0.5, 0.0, 101, False),
        (0.5, 0.3, None, True),
        (0.5, 0.1, None, False),
    ],
)
def test_a_watcher_that_kept_asking_for_the_lock_could_not_run_python(
    late: float, used: float, turns: int | None, held: bool
) -> None:
    assert kept_from_running(round(late * NS), round(used * NS), turns) is held
