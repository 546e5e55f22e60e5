"""Watchdogs and the outside guard on real processes that get into real trouble."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast.detect import (
    Guard,
    LoopWatchdog,
    ProcessWatchdog,
    ThreadWatchdog,
    Watchdogs,
    WatchedLock,
    watchdog_act,
)
from outlast.detect.guard_main import Guarded
from outlast.detect.watchdog_events import (
    GuardLost,
    GuardStarted,
    StacksTaken,
    ThreadsStuck,
    WatchdogFailed,
)
from outlast.detect.watchdog_stack import DumpPad, all_text, bounded
from outlast.host import make_world
from outlast.host.vitals import Vitals, slices_of_thread, started_ticks
from outlast.kernel import ConfigError, Event, World

# How soon things are told is shown by benchmarks: here the machine may be busy.
pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
WAIT = 60.0


@contextlib.contextmanager
def victim(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.watchdog_victim", *arguments],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.communicate()


Stories = dict[str, list[dict[str, Any]]]
TROUBLES = (
    "sleep", "held_lock", "threads", "watched_threads", "leak", "saw_tooth", "descriptors",
    "regex", "busy",
)  # fmt: skip


def read(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(line) for line in process.stdout]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guard") / "guard.log"


@pytest.fixture(scope="module")
def stories(log: Path) -> Stories:
    """What each victim told; they run at the same time."""
    with contextlib.ExitStack() as stack:
        processes = {
            trouble: stack.enter_context(
                victim(trouble, *(("--guard", str(log)) if trouble == "regex" else ()))
            )
            for trouble in TROUBLES
        }
        return {trouble: read(process) for trouble, process in processes.items()}


def first(told: list[dict[str, Any]], kind: str, **fields: str) -> dict[str, Any]:
    """The first of a kind, whose ``fields`` contain those texts.

    A busy machine can hold up a process before its trouble begins; that is told, too.
    """
    return next(
        one
        for one in told
        if one["said"] == kind and all(text in one[name] for name, text in fields.items())
    )


@pytest.mark.parametrize(
    ("trouble", "place"),
    [("sleep", "in sleep"), ("busy", "in busy"), ("held_lock", "in held_lock")],
)
def test_a_stalled_loop_is_told_while_it_stalls_with_its_stack(
    stories: Stories, trouble: str, place: str
) -> None:
    told = stories[trouble]
    stalled = first(told, "LoopStalled", stack=place)
    assert stalled["seconds"] >= 0.5
    assert stalled["at"] < first(told, "over")["at"]
    assert [one for one in told if one["said"] == "LoopRecovered" and one["seconds"] >= 1.1]


def test_a_call_that_keeps_the_interpreter_lock_is_seen_from_outside_and_told_with_its_stack(
    stories: Stories, log: Path
) -> None:
    told = stories["regex"]
    text = log.read_text(encoding="utf-8")
    assert "process is frozen" in text or "loop is frozen" in text
    assert "in regex" in text
    stalled = first(told, "ProcessStalled", cause="gil")
    assert "in regex" in stalled["stack"]
    reports = [one for one in told if one["said"] == "GuardReported"]
    assert "frozen" in [report["kind"] for report in reports]


def test_a_stopped_process_is_seen_while_it_is_stopped(tmp_path: Path) -> None:
    log = tmp_path / "guard.log"
    with victim("stopped", "--guard", str(log)) as process:
        assert process.stdout is not None
        told = map(json.loads, process.stdout)
        assert next(one for one in told if one["said"] == "begun")
        os.kill(process.pid, signal.SIGSTOP)
        assert wait_for(lambda: "is stopped" in log.read_text(encoding="utf-8"))
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGCONT)
        expected = {"GuardReported", "not running"}
        while expected:
            one = next(told)
            expected -= {one["said"], one.get("cause", "")}


def test_threads_in_a_deadlock_over_plain_locks_are_named(stories: Stories) -> None:
    stuck = first(stories["threads"], "ThreadsStuck")
    assert set(stuck["threads"]) == {"cross-1", "cross-2"}
    assert "in threads.<locals>.cross" in stuck["stacks"]


def test_threads_in_a_deadlock_over_watched_locks_are_told(stories: Stories) -> None:
    circle = first(stories["watched_threads"], "DeadlockFound")["circle"]
    assert sorted(circle) == ["cross-1 waits for stock", "cross-2 waits for orders"]


def test_a_leak_of_ten_megabytes_a_second_is_named(stories: Stories) -> None:
    grew = first(stories["leak"], "ResourceGrew")
    assert grew["resource"] == "memory"
    assert 3e6 < grew["slope"] < 40e6


def test_memory_that_comes_and_goes_or_is_taken_once_is_no_leak(stories: Stories) -> None:
    assert not [one for one in stories["saw_tooth"] if one["said"].startswith("Resource")]


def test_descriptors_that_run_out_are_named(stories: Stories) -> None:
    near = first(stories["descriptors"], "ResourceNearLimit")
    assert near["resource"] == "fds"
    assert near["limit"] == 200


def test_a_ladder_that_ends_in_a_restart_ends_the_process_with_its_code() -> None:
    with victim("forever", "--restart") as process:
        out, _ = process.communicate(timeout=WAIT)
        assert process.returncode == 86
    told = [json.loads(line) for line in out.splitlines()]
    assert first(told, "RestartForced")["reason"].startswith("loop: the loop has not run for")


def test_the_guard_ends_when_the_guarded_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "guard.log"
    with victim("stopped", "--guard", str(log)) as process:
        assert process.stdout is not None
        begun = next(one for one in map(json.loads, process.stdout) if one["said"] == "begun")
        guard = begun["guard"]
        assert started_ticks(guard) is not None
        process.kill()
        process.wait()
    assert wait_for(lambda: "has ended" in log.read_text(encoding="utf-8"))
    assert wait_for(lambda: started_ticks(guard) is None)


def wait_for(condition: Any, seconds: float = WAIT) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            if condition():
                return True
        time.sleep(0.02)
    return False


# --- in this process ---------------------------------------------------------------------------


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def world(told: list[Event]) -> World:
    made = make_world()
    made.events.subscribe(told.append)  # type: ignore[attr-defined]
    return made


def test_a_guard_that_is_lost_is_replaced(world: World, told: list[Event], tmp_path: Path) -> None:
    guard = Guard(log=str(tmp_path / "log"))
    with Watchdogs(ProcessWatchdog(dump=False), guard=guard, world=world):
        lost = guard.pid
        assert lost is not None
        assert wait_for(lambda: any(isinstance(one, GuardStarted) for one in told))
        stamp = guard.slot("mine", 30.0)
        stamp(world.clock.monotonic_ns())
        os.kill(lost, signal.SIGKILL)
        assert wait_for(lambda: any(isinstance(one, GuardLost) for one in told))
        assert wait_for(lambda: sum(isinstance(one, GuardStarted) for one in told) == 2)
        assert guard.pid not in {None, lost}
        assert guard.snapshot()["restarts"] == 1
    stamp(1)  # the page has been given back
    assert guard.pid is None


def test_a_signal_that_is_used_already_is_not_taken(world: World) -> None:
    with pytest.raises(ConfigError, match="something else handles"):
        Watchdogs(ProcessWatchdog(), guard=Guard(signal=signal.SIGINT), world=world).start()


def test_a_listener_that_hangs_stops_neither_the_watch_nor_the_program(
    world: World, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog_act, "_ACTION_SECONDS", 0.1)
    hang = threading.Event()

    def listener(event: Event) -> None:
        hang.wait(WAIT)

    world.events.subscribe(listener)  # type: ignore[attr-defined]
    watchdogs = Watchdogs(ThreadWatchdog(0.1, every=0.1), act=("event", "stacks"), world=world)
    lock = threading.Lock()
    lock.acquire()
    thread = threading.Thread(target=lambda: lock.acquire(timeout=2 * WAIT), name="waits")
    thread.start()
    with watchdogs:
        assert wait_for(lambda: any(isinstance(one, StacksTaken) for one in told))
        looks = watchdogs.looks
        assert wait_for(lambda: watchdogs.looks > looks + 2)
        hang.set()
    lock.release()
    thread.join()
    assert isinstance(told[0], ThreadsStuck)
    assert any(isinstance(one, WatchdogFailed) for one in told)


def test_the_child_of_a_fork_is_not_watched_and_starts_its_own_watch(world: World) -> None:
    lock = WatchedLock("mine", world=world)
    guard = Guard(signal=None)
    with Watchdogs(ThreadWatchdog(), guard=guard, world=world) as watchdogs:
        child = os.fork()
        if child == 0:
            fine = False
            try:
                with lock:
                    fine = not watchdogs.snapshot()["running"] and guard.pid is None
                with Watchdogs(ThreadWatchdog(), world=world) as own:
                    fine = fine and own.snapshot()["running"]
            finally:
                os._exit(0 if fine else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert guard.pid is not None
        assert started_ticks(guard.pid) is not None


def test_a_loop_on_uvloop_or_asyncio_costs_ten_stamps_a_second_at_most(world: World) -> None:
    async def story() -> tuple[int, int, float]:
        watchdog = LoopWatchdog(0.5)
        stamps = 0
        beat = watchdog._beat

        def counted() -> None:
            nonlocal stamps
            stamps += 1
            beat()

        watchdog._beat = counted  # type: ignore[method-assign]
        begun = time.monotonic()
        async with Watchdogs(watchdog, world=world) as watchdogs:
            for _ in iter(lambda: stamps < 8, False):
                await asyncio.sleep(0.02)
            looks = watchdogs.looks
            return stamps, looks, time.monotonic() - begun

    stamps, looks, seconds = asyncio.run(story())
    assert stamps - 1 <= 10 * seconds
    assert looks <= 8 * seconds + 1


def test_the_timer_of_faulthandler_has_one_owner() -> None:
    one, other = DumpPad(), DumpPad()
    try:
        assert one.arm(60)
        assert one.arm(60)
        assert not other.arm(60)
        one.disarm()
        assert other.arm(0.02)
        assert wait_for(lambda: os.fstat(other.descriptor).st_size)
        other.disarm()  # waits for the end of it
        assert "most recent call first" in other.take()
        assert other.take() == ""
    finally:
        one.close()
        other.close()


def test_stacks_of_all_threads_are_bounded() -> None:
    def deep(depth: int) -> str:
        return deep(depth - 1) if depth else all_text()

    over = threading.Event()
    crowd = [threading.Thread(target=over.wait, daemon=True) for _ in range(120)]
    for one in crowd:
        one.start()
    try:
        text = deep(400)
    finally:
        over.set()
        for one in crowd:
            one.join()
    assert len(text) < 34_000
    assert "deep" in text, "the main thread comes first"


def test_a_call_that_takes_too_long_or_raises_is_told_in_words() -> None:
    hang = threading.Event()
    assert bounded(hang.wait, 0.05, "x") == "took longer than 0.05 s"
    hang.set()
    assert bounded(lambda: 1 / 0, WAIT, "x") == "ZeroDivisionError: division by zero"
    assert bounded(lambda: None, WAIT, "x") == ""


def test_readings_of_the_system_are_there_and_plausible() -> None:
    vitals = Vitals()
    try:
        before = vitals.descriptors()
        rss, limit = vitals.rss_bytes(), vitals.memory_limit_bytes()
        assert before is not None
        assert rss is not None
        assert limit is not None
        assert (vitals.uss_bytes() or 0) <= rss * 1.5
        assert 1 << 20 < rss < limit
        with open(os.devnull, "rb"):
            assert vitals.descriptors() == before + 1
        assert (vitals.threads() or 0) >= threading.active_count()
        used, whole = vitals.disk_bytes(".") or (0, 0)
        assert 0 < used <= whole
        assert vitals.disk_bytes("/nowhere/at/all") is None
        assert vitals.cpu_ns() > 0
        assert 0 < vitals.cpus() <= (os.cpu_count() or 1)
        assert (vitals.boot_ns() or 0) > 0
        assert slices_of_thread(threading.get_native_id()) is not None
        assert slices_of_thread(2**22 + 1) is None
        assert started_ticks(os.getpid()) is not None
        assert not Guarded(os.getpid()).stopped()
    finally:
        vitals.close()
