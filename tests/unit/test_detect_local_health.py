"""Our own health: what counts against us, and whom we accuse meanwhile."""

import gc
import os
import threading
from pathlib import Path

import pytest

import outlast.host
from outlast import sim
from outlast.detect import LocalExcused, LocalExcuseEnded, LocalHealth, LocalPaused
from outlast.detect.core.local_health import LocalHealthCore, Readings
from outlast.host import pressure
from outlast.kernel import ConfigError, Event, current_world
from outlast.kernel.registry import watched
from outlast.testing import virtual_time

MS = 1_000_000
STEP = 100 * MS
NONE = Readings()


def core(ticks: int = 0) -> LocalHealthCore:
    made = LocalHealthCore(STEP, 3 * STEP, 0.5)
    if ticks:
        made.begin(0, NONE)
    for n in range(1, ticks):
        assert made.tick(n * STEP, NONE) == 0
    return made


# --- the rules -----------------------------------------------------------------------------------


def test_without_ticks_nothing_speaks_against_accusing() -> None:
    made = core()
    assert made.may_accuse(10**18)
    assert (made.score(10**18), made.multiplier(10**18)) == (0.0, 1.0)


def test_ticks_in_time_are_health() -> None:
    made = core(10)
    now = 9 * STEP + STEP
    assert (made.score(now), made.multiplier(now), made.may_accuse(now)) == (0.0, 1.0, True)


def test_a_tick_that_is_overdue_counts_before_it_comes() -> None:
    made = core(10)
    assert made.score(9 * STEP + 200 * MS) == 0.5
    assert made.may_accuse(9 * STEP + 200 * MS)
    assert not made.may_accuse(9 * STEP + 201 * MS)
    assert made.multiplier(9 * STEP + 10 * STEP) == 8.0


def test_after_a_pause_three_intervals_of_clean_time_must_pass() -> None:
    made = core(10)
    now = 9 * STEP + 1000 * MS
    assert made.tick(now, NONE) == 900 * MS
    for n in range(1, 5):
        assert made.may_accuse(now + n * STEP) == (n >= 3)
        made.tick(now + n * STEP, NONE)
    assert (made.pauses, made.pause_longest_ns) == (1, 900 * MS)


def test_another_pause_begins_the_clean_time_anew() -> None:
    made = core(10)
    made.tick(19 * STEP, NONE)
    made.tick(21 * STEP + 1, NONE)
    assert made.clean_from_ns == 24 * STEP + 1


def test_a_small_lateness_is_no_pause_and_fades() -> None:
    made = core(10)
    now = 9 * STEP + 180 * MS
    assert made.tick(now, NONE) == 0
    assert made.score(now) == pytest.approx(0.4)
    assert made.may_accuse(now)
    made.tick(now + STEP, NONE)
    assert made.score(now + STEP) == pytest.approx(0.2)
    made.tick(now + 2 * STEP, NONE)
    assert made.score(now + 2 * STEP) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("part", "readings", "score"),
    [
        ("delay", Readings(run_delay_ns=160 * MS), 0.6),
        ("throttled", Readings(throttled_ns=170 * MS), 0.7),
        ("pressure", Readings(pressure_ns=500 * MS), 0.25),
    ],
)
def test_what_the_machine_says_counts(part: str, readings: Readings, score: float) -> None:
    made = LocalHealthCore(STEP, 3 * STEP, 0.5)
    made.begin(0, Readings(run_delay_ns=100 * MS, throttled_ns=100 * MS, pressure_ns=100 * MS))
    made.tick(STEP, readings)
    assert made.parts[part] == pytest.approx(score)
    assert made.score(STEP) == pytest.approx(score)
    assert made.may_accuse(STEP) == (score <= 0.5)


def test_a_counter_that_fell_or_came_late_counts_for_nothing() -> None:
    made = LocalHealthCore(STEP, 3 * STEP, 0.5)
    made.begin(0, Readings(run_delay_ns=900 * MS))
    made.tick(STEP, Readings(run_delay_ns=10 * MS, throttled_ns=900 * MS))
    assert made.score(STEP) == 0.0


def test_sleep_of_the_machine_is_a_pause() -> None:
    made = LocalHealthCore(STEP, 3 * STEP, 0.5)
    made.begin(0, Readings(asleep_ns=5))
    assert made.tick(STEP, Readings(asleep_ns=5 + 60_000 * MS)) == 60_000 * MS
    assert not made.may_accuse(2 * STEP)


def test_a_collection_counts_for_the_tick_after_it() -> None:
    made = core(5)
    made.gc_pause(120 * MS)
    made.gc_pause(20 * MS)
    made.tick(5 * STEP, NONE)
    assert made.score(5 * STEP) == pytest.approx(0.6)
    made.tick(6 * STEP, NONE)
    assert made.score(6 * STEP) == 0.0


def test_the_first_tick_is_a_beginning() -> None:
    made = core()
    assert made.tick(77 * STEP, NONE) == 0
    assert made.ticks == 0
    made.end()
    assert made.may_accuse(10**18)


def test_who_is_excused_accuses_nobody_and_needs_clean_time_after() -> None:
    made = core(10)
    made.excuse("compaction")
    made.excuse("compaction")
    assert (made.score(9 * STEP), made.may_accuse(9 * STEP)) == (1.0, False)
    made.end_excuse("compaction", 9 * STEP)
    assert not made.may_accuse(9 * STEP)
    made.end_excuse("compaction", 9 * STEP)
    for n in range(10, 13):
        assert made.may_accuse(n * STEP) == (n == 12)
        made.tick(n * STEP, NONE)


def test_excuses_are_bounded() -> None:
    made = core(2)
    for n in range(64):
        made.excuse(str(n))
    with pytest.raises(ConfigError, match="64 excuses"):
        made.excuse("one more")


def test_a_no_says_when_to_ask_again() -> None:
    made = core(10)
    assert made.retry_ns(9 * STEP) == 10 * STEP
    made.tick(29 * STEP, NONE)
    assert made.retry_ns(29 * STEP) == 32 * STEP


# --- on a loop, in virtual time ------------------------------------------------------------------


def heard() -> list[Event]:
    events: list[Event] = []
    current_world().events.subscribe(events.append)  # type: ignore[attr-defined]
    return events


def test_a_blocked_loop_is_a_pause() -> None:
    async def main() -> tuple[list[bool], list[Event], float]:
        world, events = current_world(), heard()
        async with LocalHealth(name="mine") as local:
            await world.timers.sleep(1.0)
            asked = [local.may_accuse()]
            world.clock.pause(0.75)
            asked.append(local.may_accuse())
            score = local.score
            await world.timers.sleep(0.15)
            asked.append(local.may_accuse())
            await world.timers.sleep(0.4)
            asked.append(local.may_accuse())
            return asked, [one for one in events if isinstance(one, LocalPaused)], score

    asked, events, score = sim.run(main, seed=1)
    assert asked == [True, False, False, True]
    assert score == 1.0
    assert [(one.local, round(one.seconds, 1), one.clean) for one in events] == [
        ("mine", 0.7, pytest.approx(0.3))
    ]


def test_an_excuse_is_told_and_ends() -> None:
    async def main() -> tuple[tuple[str, ...], bool, bool, list[Event]]:
        world, events = current_world(), heard()
        async with LocalHealth() as local:
            with local.excused("compaction"):
                await world.timers.sleep(2.0)
                inside, asked = local.excuses, local.may_accuse()
            await world.timers.sleep(0.31)
            return inside, asked, local.may_accuse(), events

    inside, asked, after, events = sim.run(main, seed=1)
    assert (inside, asked, after) == (("compaction",), False, True)
    assert [type(one) for one in events] == [LocalExcused, LocalExcuseEnded]
    assert isinstance(events[1], LocalExcuseEnded)
    assert events[1].seconds == pytest.approx(2.0, abs=0.01)


def test_under_virtual_time_nothing_of_the_machine_is_read() -> None:
    async def main() -> tuple[int, dict[str, float]]:
        before = len(gc.callbacks)
        async with LocalHealth() as local:
            await current_world().timers.sleep(0.5)
            snapshot = local.snapshot()
            assert local._pressure is None
            return len(gc.callbacks) - before, snapshot["parts"]

    callbacks, parts = sim.run(main, seed=1)
    assert callbacks == 0
    assert max(parts.values()) < 1e-6  # the tick itself


def test_it_is_found_by_name_and_tells_its_settings_and_state() -> None:
    with virtual_time():
        local = LocalHealth(0.2, name="found")
        assert local in watched()
        assert local.describe() == {
            "kind": "LocalHealth", "name": "found", "interval": 0.2,
            "clean": pytest.approx(0.6), "bound": 0.5,
        }  # fmt: skip
        assert local.snapshot()["running"] is False
        assert repr(local) == "<LocalHealth 'found' stopped>"
        assert local.multiplier() == 1.0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"interval": 0.0}, "interval is 0.0"), ({"clean": -1.0}, "clean is -1.0"),
     ({"bound": 1.5}, "bound is 1.5")],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_told(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        LocalHealth(**wrong)  # type: ignore[arg-type]


def test_it_ticks_once() -> None:
    async def main() -> None:
        async with LocalHealth() as local:
            with pytest.raises(ConfigError, match="it ticks already"):
                local.start()
        local.stop()
        async with local:
            assert local.running

    sim.run(main, seed=1)


# --- on the machine ------------------------------------------------------------------------------


def test_a_thread_ticks_where_there_is_no_loop() -> None:
    assert outlast.host
    with LocalHealth(0.005, machine=True) as local:
        while local.snapshot()["ticks"] < 1:
            threading.Event().wait(0.005)
        gc.collect()
        assert repr(local).startswith("<LocalHealth '' score=")
        snapshot = local.snapshot()
    assert snapshot["running"] is True
    assert local._on_gc not in gc.callbacks
    assert local._pressure is None
    assert not any(one.name == "outlast-local-health" for one in threading.enumerate())


def test_the_counters_of_this_machine_are_numbers_or_nothing() -> None:
    read = pressure.Pressure()
    first = read.read()
    second = read.read()
    for before, after in zip(first, second, strict=True):
        assert (before is None) == (after is None)
        assert before is None or after is None or after >= before - MS
    read.close()
    read.close()
    assert read.read()[:3] == (None, None, None)


def test_absent_and_odd_files_read_as_nothing(tmp_path: Path) -> None:
    assert pressure._Counter(str(tmp_path / "none"), pressure._word(1)).read() is None
    odd = tmp_path / "odd"
    odd.write_text("some text\n")
    assert pressure._Counter(str(odd), pressure._word(0)).read() is None
    assert pressure._Counter(str(odd), pressure._word(7)).read() is None
    assert pressure._Counter(str(odd), pressure._after(b"total=", 1)).read() is None
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    pressure._Counter(str(odd), pressure._word(0))
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_counter_is_read_again_from_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "cpu.stat"
    file.write_text("nr_periods 3\nthrottled_usec 25\n")
    counter = pressure._Counter(str(file), pressure._after(b"throttled_usec ", 1000))
    assert counter.read() == 25_000
    file.write_text("nr_periods 3\nthrottled_usec 26\n")
    assert counter.read() == 26_000
    counter.close()


def test_the_groups_of_both_versions_are_looked_for() -> None:
    two = list(pressure.cpu_stat_files("0::/user.slice/a\n", "/cg"))
    assert two == [
        ("/cg/user.slice/a/cpu.stat", b"throttled_usec ", 1000),
        ("/cg/cpu.stat", b"throttled_usec ", 1000),
    ]
    one = list(pressure.cpu_stat_files("4:memory:/x\n2:cpu,cpuacct:/\n", "/cg"))
    assert [path for path, _, _ in one] == [
        "/cg/cpu,cpuacct/cpu.stat", "/cg/cpu/cpu.stat",
    ]  # fmt: skip
    assert list(pressure.cpu_stat_files("nonsense\n\n")) == []
