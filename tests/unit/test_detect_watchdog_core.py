"""What watchdogs decide: ladders, trends, limits, and who is stuck."""

from collections.abc import Callable, Sequence

import pytest

from outlast.detect.core.ladder import Ladder, LadderState, make_ladder
from outlast.detect.core.resource import (
    ClockWatch,
    CpuLimit,
    MemoryLimit,
    ResourceJudge,
    ResourceLimit,
    ShareMeter,
)
from outlast.detect.core.stuck import StuckTracker
from outlast.detect.core.trend import Growing, Growth, Trend
from outlast.kernel import ConfigError, Prng

NS = 1_000_000_000
MIB = 1 << 20


# --- ladder ------------------------------------------------------------------------------------


def test_each_action_is_due_once_and_at_its_time() -> None:
    state = LadderState(Ladder(("event", "not_ready", "restart"), after=(0, 5, 30)))
    assert state.on_bad(100 * NS) == ("event",)
    assert state.on_bad(104 * NS) == ()
    assert state.deadline_ns() == 105 * NS
    assert state.on_bad(105 * NS) == ("not_ready",)
    assert state.on_bad(200 * NS) == ("restart",)
    assert state.on_bad(300 * NS) == ()
    assert state.deadline_ns() is None


def test_a_condition_that_is_over_says_what_had_been_done_and_begins_anew() -> None:
    state = LadderState(Ladder(("event", "dump"), after=(0, 5)))
    state.on_bad(0)
    assert state.bad
    assert state.on_good(NS) == ("event",)
    assert state.over
    assert not state.bad
    assert state.on_bad(2 * NS) == ("event",)
    assert state.deadline_ns() == 7 * NS


def test_a_condition_that_flickers_within_the_calm_is_one_condition() -> None:
    state = LadderState(Ladder(("event", "dump"), after=(0, 3), calm=5.0))
    assert state.on_bad(0) == ("event",)
    assert state.on_good(NS) == ()
    assert state.deadline_ns() is None
    assert not state.over
    assert state.on_bad(2 * NS) == ()
    assert state.on_bad(3 * NS) == ("dump",)
    assert state.on_good(4 * NS) == ()
    assert state.on_good(9 * NS) == ("event", "dump")


def test_what_was_never_bad_has_nothing_to_undo() -> None:
    state = LadderState(Ladder())
    assert state.on_good(5) == ()
    assert state.deadline_ns() is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Ladder(("shout",)), "each at most once of"),  # type: ignore[arg-type]
        (lambda: Ladder(("event", "event")), "at most once"),
        (lambda: Ladder(("event", "dump"), after=(1.0,)), "1 times and act 2 actions"),
        (lambda: Ladder(("event", "dump"), after=(2.0, 1.0)), "never falling"),
        (lambda: Ladder(after=-1.0), "0 or more"),
        (lambda: Ladder(calm=-1.0), "calm is -1.0"),
        (lambda: ResourceLimit(share=1.5), "share is 1.5"),
        (lambda: ResourceLimit(within=0.0), "within is 0.0; above 0"),
        (lambda: MemoryLimit(soon=-1.0), "MemoryLimit: soon is -1.0; 0 or more"),
        (lambda: CpuLimit(share=0.0), "share is 0.0"),
        (lambda: CpuLimit(lasting=0.0), "lasting 0.0"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_with_its_value(
    make: Callable[[], object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def test_a_sequence_of_actions_is_a_ladder_whose_actions_come_at_once() -> None:
    ladder = make_ladder(["event", "stacks"])
    assert ladder.due(0) == 2
    assert make_ladder(ladder) is ladder


# --- trend -------------------------------------------------------------------------------------


def grow(growth: Growth, values: Sequence[float], limit: float | None = None) -> list[int]:
    """Feed samples half a second apart; return the numbers of those at which it grows."""
    step = NS // 2
    return [
        number
        for number, value in enumerate(values)
        if growth.add(number * step, value, limit) is not None
    ]


def leak_rules(bucket: float = 15.0) -> Growth:
    rules = MemoryLimit(bucket=bucket)
    return Growth(
        round(rules.within * NS), rules.growth, round(rules.soon * NS), round(rules.horizon * NS),
        round(rules.bucket * NS),
    )  # fmt: skip


def test_one_wild_sample_does_not_move_the_slope() -> None:
    trend = Trend(100 * NS)
    for second in range(9):
        trend.add(second * NS, 1e9 if second == 4 else 2.0 * second)
    assert trend.slope() == pytest.approx(2.0)


def test_the_slope_of_fewer_than_two_samples_is_unknown() -> None:
    trend = Trend(NS)
    assert (trend.slope(), trend.span_ns, trend.rising(), len(trend)) == (None, 0, 0.0, 0)
    trend.add(0, 1.0)
    trend.add(0, 3.0)
    assert (trend.slope(), len(trend)) == (None, 1)


def test_old_samples_and_more_than_enough_are_forgotten() -> None:
    trend = Trend(3 * NS, samples_max=100)
    for second in range(10):
        trend.add(second * NS, 0.0)
    assert (len(trend), trend.span_ns) == (4, 3 * NS)
    small = Trend(100 * NS, samples_max=5)
    for second in range(10):
        small.add(second * NS, 0.0)
    assert len(small) == 5
    small.clear()
    assert len(small) == 0


def test_a_leak_of_ten_megabytes_a_second_is_noticed_within_five_seconds() -> None:
    found = grow(leak_rules(), [100 * MIB + n * 5 * MIB for n in range(12)])
    assert found
    assert found[0] * 0.5 < 4.5


def test_a_leak_among_noise_is_noticed_too() -> None:
    prng = Prng(3)
    values = [100 * MIB + n * 5 * MIB + prng.below(2 * MIB) for n in range(12)]
    assert grow(leak_rules(), values)


@pytest.mark.parametrize("at", range(1, 20))
def test_one_large_allocation_is_no_leak_wherever_it_falls_in_the_window(at: int) -> None:
    assert grow(leak_rules(), [(50 if n < at else 800) * MIB for n in range(30)]) == []


@pytest.mark.parametrize("period", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("step", [8, 40, 200])
def test_a_saw_tooth_that_fits_into_the_window_is_no_leak(period: int, step: int) -> None:
    assert grow(leak_rules(), [100 * MIB + n % period * step * MIB for n in range(80)]) == []


def test_a_saw_tooth_longer_than_the_window_is_taken_for_a_leak_on_its_first_rise_at_most() -> (
    None
):
    found = grow(leak_rules(), [100 * MIB + n % 20 * 10 * MIB for n in range(400)])
    assert all(number < 20 for number in found)


@pytest.mark.parametrize("seed", range(20))
def test_noise_around_one_value_is_no_leak(seed: int) -> None:
    prng = Prng(seed)
    values = [500 * MIB + prng.below(60 * MIB) for _ in range(100)]
    assert grow(leak_rules(), values, 600 * MIB) == []


def test_a_large_allocation_of_what_grows_a_little_is_no_leak() -> None:
    values = [100 * MIB + n * 4096 + (500 * MIB if n > 10 else 0) for n in range(30)]
    assert grow(leak_rules(), values) == []


def test_growth_below_the_rate_counts_if_it_leads_to_the_limit_soon() -> None:
    values = [100.0 + n for n in range(12)]  # two a second
    assert grow(Growth(4 * NS, None, 30 * NS, 0, 60 * NS), values, 150.0)
    assert grow(Growth(4 * NS, None, 10 * NS, 0, 60 * NS), values, 150.0) == []
    assert grow(Growth(4 * NS, None, 30 * NS, 0, 60 * NS), values, None) == []


def test_slow_growth_under_a_saw_tooth_is_noticed_by_its_low_waters() -> None:
    def rules() -> Growth:
        return Growth(4 * NS, None, 0, 900 * NS, 5 * NS)

    values = [100.0 + n * 0.05 + n % 7 * 5 for n in range(240)]
    found = grow(rules(), values, 180.0)
    assert found
    assert found[0] >= 80
    flat = [100.0 + n % 7 * 5 for n in range(240)]
    assert grow(rules(), flat, 180.0) == []
    peaks = [100.0 + n % 7 * n * 0.04 for n in range(240)]
    assert grow(rules(), peaks, 180.0) == []
    stepped = [100.0 + (20 if n > 100 else 0) + n % 7 for n in range(240)]
    assert grow(rules(), stepped, 180.0) == []
    assert grow(rules(), values, 100_000.0) == []


def test_growth_is_told_with_its_slope_and_the_time_that_is_left() -> None:
    growth = Growth(4 * NS, 1.0, 0, 0, 60 * NS)
    found = [growth.add(n * NS // 2, 10.0 * n, 400.0) for n in range(10)]
    assert found[-1] == Growing(20.0, 15.5)
    assert found.count(None) == 7


# --- limits ------------------------------------------------------------------------------------


def test_a_resource_is_near_its_limit_from_its_share_of_it() -> None:
    judge = ResourceJudge(ResourceLimit(share=0.9))
    assert not judge.add(0, 89.0, 100.0).near
    assert judge.add(NS, 90.0, 100.0).near
    assert not judge.add(2 * NS, 90.0, None).near


def test_the_limit_of_the_rules_comes_before_that_of_the_system() -> None:
    judge = ResourceJudge(ResourceLimit(limit=50.0, share=1.0))
    verdict = judge.add(0, 50.0, 100.0)
    assert (verdict.near, verdict.limit) == (True, 50.0)
    assert judge.last == verdict


def test_a_share_of_the_time_is_known_once_the_time_has_passed() -> None:
    meter = ShareMeter(4 * NS)
    shares = [meter.add(n * NS, n * NS // 2) for n in range(8)]
    assert shares[:4] == [None] * 4
    assert shares[4:] == [0.5] * 4


def test_a_share_is_that_of_the_last_while_only() -> None:
    meter = ShareMeter(2 * NS)
    for n in range(10):
        meter.add(n * NS, 0)
    assert meter.add(10 * NS, NS) == 0.5
    assert meter.add(11 * NS, 2 * NS) == 1.0


def test_a_counter_that_begins_again_is_measured_anew_and_samples_are_bounded() -> None:
    meter = ShareMeter(NS)
    meter.add(0, 5 * NS)
    meter.add(2 * NS, 6 * NS)
    assert meter.add(3 * NS, 0) is None
    for n in range(1000):
        meter.add(3 * NS + n * 1000, n)
    assert len(meter._samples) <= 256


@pytest.mark.parametrize(("moved", "told"), [(0.4, 0), (-0.4, 0), (0.6, 0.6), (-3600.0, -3600.0)])
def test_a_clock_has_jumped_when_it_moved_by_the_jump_or_more(moved: float, told: float) -> None:
    watch = ClockWatch(NS // 2)
    assert watch.add(10 * NS, 1000 * NS) == 0
    assert watch.add(11 * NS, 1001 * NS + round(moved * NS)) == round(told * NS)
    assert watch.add(12 * NS, 1002 * NS + round(moved * NS)) == 0


# --- stuck -------------------------------------------------------------------------------------


def test_whoever_keeps_its_mark_is_stuck_after_the_time_and_the_longest_comes_first() -> None:
    tracker = StuckTracker()
    assert tracker.look(0, {"a": 1}, 2 * NS) == []
    assert tracker.look(NS, {"a": 1, "b": 1}, 2 * NS) == []
    found = tracker.look(3 * NS, {"b": 1, "a": 1, "c": 1}, 2 * NS)
    assert [(one.who, one.for_ns) for one in found] == [("a", 3 * NS), ("b", 2 * NS)]


def test_a_mark_that_changes_or_is_missing_once_begins_anew() -> None:
    tracker = StuckTracker()
    tracker.look(0, {"a": 1, "b": 1}, NS)
    tracker.look(NS, {"a": 2}, NS)
    assert tracker.look(NS + NS // 2, {"a": 2, "b": 1}, NS) == []
    tracker.forget()
    assert len(tracker) == 0


def test_no_more_marks_are_kept_than_allowed() -> None:
    tracker = StuckTracker(keep_max=3)
    tracker.look(0, {number: 0 for number in range(10)}, NS)
    assert len(tracker) == 3
