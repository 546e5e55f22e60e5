"""The rules of rates: debt, log, and what moves a rate."""

from contextlib import nullcontext

from outlast.protect.core.rate import MICRO, NS, Aimd, Gcra, SlidingLog

FOREVER = 1 << 62


def gcra(rate: float = 10, per: float = 1.0, burst: int = 1) -> Gcra:
    return Gcra(nullcontext(), round(rate * MICRO), round(per * NS), burst)


def log(limit: int = 2, per: int = 100) -> SlidingLog:
    return SlidingLog(nullcontext(), limit, per)


# --- GCRA -------------------------------------------------------------------------------------


def test_a_burst_passes_at_once_and_the_next_call_waits_one_interval() -> None:
    rule = gcra(10, burst=3)
    assert [rule.reserve(0, FOREVER) for _ in range(5)] == [0, 0, 0, NS // 10, NS // 5]


def test_a_refusal_takes_nothing_and_tells_the_wait() -> None:
    rule = gcra(10)
    assert rule.reserve(0, 0) == 0
    assert rule.reserve(0, NS // 10 - 1) == -NS // 10
    assert rule.reserve(0, NS // 10) == NS // 10


def test_a_call_that_comes_after_the_wait_it_was_told_passes() -> None:
    rule = gcra(3, burst=1)
    rule.reserve(5, 0)
    wait = -rule.reserve(5, 0)
    assert rule.reserve(5 + wait - 1, 0) < 0
    assert rule.reserve(5 + wait, 0) == 0


def test_three_per_second_are_three_in_each_second_without_rounding() -> None:
    rule = gcra(3, burst=3)
    for second in range(1000):
        assert [rule.reserve(second * NS, 0) for _ in range(3)] == [0, 0, 0]
        assert rule.reserve(second * NS, 0) < 0


def test_a_rate_below_one_and_one_of_millions_are_exact() -> None:
    slow = gcra(0.1, burst=1)
    assert [slow.reserve(0, FOREVER) for _ in range(3)] == [0, 10 * NS, 20 * NS]
    fast = gcra(3_000_000, burst=1)
    waits = [fast.reserve(0, FOREVER) for _ in range(7)]
    assert waits == [0, 334, 667, 1000, 1334, 1667, 2000]


def test_a_pause_earns_no_more_than_the_burst() -> None:
    rule = gcra(10, burst=2)
    assert rule.free(3600 * NS) == 2
    assert [rule.reserve(3600 * NS, 0) for _ in range(2)] == [0, 0]
    assert rule.reserve(3600 * NS, 0) < 0
    assert rule.free(3600 * NS) == 0


def test_cost_takes_so_many_slots() -> None:
    rule = gcra(10, burst=5)
    assert rule.reserve(0, 0, cost=4) == 0
    assert rule.free(0) == 1
    assert rule.reserve(0, FOREVER, cost=2) == NS // 10


def test_the_newest_slot_can_be_given_back_and_then_the_one_before_it() -> None:
    rule = gcra(10)
    rule.reserve(0, 0)
    first, second = rule.reserve(0, FOREVER), rule.reserve(0, FOREVER)
    assert not rule.give_back(first)
    assert rule.give_back(second)
    assert rule.give_back(first)
    assert rule.reserve(0, FOREVER) == first


def test_a_slot_with_a_cost_is_given_back_whole() -> None:
    rule = gcra(10, burst=3)
    rule.reserve(0, 0, cost=3)
    due = rule.reserve(0, FOREVER, cost=2)
    assert rule.give_back(due, cost=2)
    assert rule.reserve(0, FOREVER) == NS // 10


def test_a_change_of_rate_keeps_what_is_owed_in_calls() -> None:
    rule = gcra(10, burst=5)
    for _ in range(4):
        rule.reserve(0, 0)
    rule.change(0, 1 * MICRO, NS, 5)
    assert rule.free(0) == 1
    rule.reserve(0, 0)
    assert rule.reserve(0, FOREVER) == NS


def test_a_change_of_an_idle_limit_owes_nothing() -> None:
    rule = gcra(10)
    rule.reserve(0, 0)
    rule.change(7 * NS, 5 * MICRO, NS, 2)
    assert rule.free(7 * NS) == 2
    assert [rule.reserve(7 * NS, FOREVER) for _ in range(3)] == [0, 0, NS // 5]


def test_a_smaller_burst_leaves_nothing_free_until_the_debt_is_paid() -> None:
    rule = gcra(10, burst=10)
    for _ in range(8):
        rule.reserve(0, 0)
    rule.change(0, 10 * MICRO, NS, 2)
    assert rule.free(0) == 0
    assert rule.reserve(0, FOREVER) == 7 * NS // 10


def test_a_hold_lets_nothing_start_before_its_end_and_then_one_by_one() -> None:
    rule = gcra(10, burst=5)
    rule.hold(2 * NS)
    assert rule.reserve(0, 0) == -2 * NS
    assert [rule.reserve(2 * NS, FOREVER) for _ in range(2)] == [0, NS // 10]


def test_a_hold_does_not_shorten_a_longer_debt() -> None:
    rule = gcra(1)
    rule.reserve(0, 0)
    rule.reserve(0, FOREVER)
    rule.hold(NS)
    assert rule.reserve(0, FOREVER) == 2 * NS


def test_a_hold_lasts_as_long_after_a_change_of_rate() -> None:
    for rate in (1, 100):
        rule = gcra(10, burst=5)
        rule.hold(2 * NS)
        assert rule.reserve(0, FOREVER) == 2 * NS
        rule.change(NS, rate * MICRO, NS, 5)
        assert rule.reserve(NS, FOREVER) == NS + NS // rate


def test_a_hold_that_is_over_changes_nothing_more() -> None:
    rule = gcra(10, burst=5)
    rule.hold(2 * NS)
    rule.change(9 * NS, 1 * MICRO, NS, 3)
    assert rule.free(9 * NS) == 3


def test_reset_forgets_calls_and_holds() -> None:
    rule = gcra(1)
    rule.hold(9 * NS)
    rule.reset()
    assert rule.reserve(0, 0) == 0
    rule.change(0, MICRO, NS, 1)
    assert rule.reserve(0, FOREVER) == NS


# --- sliding log ------------------------------------------------------------------------------


def test_a_window_holds_no_more_than_the_limit() -> None:
    rule = log(2, 100)
    assert [rule.reserve(at, 0) for at in (0, 60, 70)] == [0, 0, -30]
    assert rule.reserve(99, 0) == -1
    assert rule.reserve(100, 0) == 0
    assert rule.reserve(101, 0) == -59


def test_waiters_get_the_slots_in_order() -> None:
    rule = log(2, 100)
    assert [rule.reserve(0, FOREVER) for _ in range(6)] == [0, 0, 100, 100, 200, 200]


def test_nobody_starts_before_who_asked_before() -> None:
    rule = log(3, 100)
    for at in (0, 10, 90):
        rule.reserve(at, 0)
    assert rule.reserve(95, FOREVER, cost=2) == 15  # at 110, when two are free
    assert rule.reserve(100, FOREVER) == 90  # one was free at 100, but that comes after
    assert rule.reserve(190, FOREVER) == 20


def test_a_larger_limit_lets_nobody_overtake_who_waits() -> None:
    rule = log(1, 100)
    assert [rule.reserve(0, FOREVER) for _ in range(2)] == [0, 100]
    rule.change(3, 100)
    assert [rule.reserve(0, FOREVER) for _ in range(2)] == [100, 100]


def test_a_slot_of_the_log_is_given_back_if_it_is_the_newest() -> None:
    rule = log(1, 100)
    rule.reserve(0, 0)
    first, second = rule.reserve(10, FOREVER) + 10, rule.reserve(10, FOREVER) + 10
    assert (first, second) == (100, 200)
    assert not rule.give_back(first)
    assert rule.give_back(second)
    assert rule.give_back(first)
    assert rule.reserve(10, FOREVER) == 90
    assert not rule.give_back(100, cost=2)
    rule.reset()
    assert not rule.give_back(100)


def test_a_given_back_slot_does_not_open_the_window() -> None:
    rule = log(1, 100)
    rule.reserve(0, 0)
    due = rule.reserve(10, FOREVER) + 10
    rule.give_back(due)
    assert rule.reserve(30, 0) == -70


def test_the_log_is_as_long_as_the_limit_and_what_waits() -> None:
    rule = log(5, 100)
    for at in range(0, 100_000, 7):
        rule.reserve(at, 0)
        assert len(rule) <= 6
    for _ in range(10):
        rule.reserve(100_000, FOREVER)
    assert len(rule) <= 17
    for at in range(200_000, 300_000, 7):
        rule.reserve(at, 0)
    assert len(rule) <= 6


def test_free_tells_what_could_start_now() -> None:
    rule = log(3, 100)
    assert rule.free(0) == 3
    rule.reserve(0, 0)
    rule.reserve(50, 0)
    assert [rule.free(at) for at in (50, 99, 100, 150)] == [1, 1, 2, 3]
    rule.reserve(50, 0)
    assert rule.free(60) == 0
    rule.reserve(60, FOREVER)
    assert rule.free(60) == 0


def test_a_smaller_limit_counts_what_has_started() -> None:
    rule = log(4, 100)
    for at in (0, 1, 2, 3):
        rule.reserve(at, 0)
    rule.change(2, 100)
    assert rule.free(10) == 0
    assert rule.reserve(10, FOREVER) == 92
    rule.change(6, 100)
    assert rule.free(103) == 5


# --- AIMD ------------------------------------------------------------------------------------


def aimd(start: int = 100) -> Aimd:
    return Aimd(
        start * MICRO, low=10 * MICRO, high=100 * MICRO, step=5 * MICRO, cut=MICRO // 2, per_ns=NS
    )


def test_one_overload_cuts_once() -> None:
    rule = aimd()
    assert rule.throttled(0)
    assert not rule.throttled(NS - 1)
    assert rule.rate == 50 * MICRO
    assert rule.throttled(NS)
    assert (rule.rate, rule.cuts) == (25 * MICRO, 2)


def test_answers_to_calls_from_before_the_cut_do_not_count() -> None:
    rule = aimd()
    assert rule.throttled(10 * NS, started_ns=NS)
    assert not rule.throttled(60 * NS, started_ns=10 * NS - 1)
    assert rule.throttled(10 * NS + 1, started_ns=10 * NS)


def test_a_rate_is_not_cut_below_the_floor() -> None:
    rule = aimd(12)
    assert rule.throttled(0)
    assert rule.rate == 10 * MICRO
    assert not rule.throttled(5 * NS)
    assert rule.rate == 10 * MICRO


def test_a_period_of_successes_raises_the_rate_by_a_step() -> None:
    rule = aimd()
    rule.throttled(0)
    assert not rule.succeeded(49)
    assert rule.succeeded(1)
    assert rule.rate == 55 * MICRO
    assert not rule.succeeded(54)


def test_many_successes_raise_it_many_times_but_not_above_the_ceiling() -> None:
    rule = aimd()
    rule.throttled(0)
    assert rule.succeeded(50 + 55 + 60)
    assert rule.rate == 65 * MICRO
    assert rule.succeeded(10_000)
    assert rule.rate == 100 * MICRO
    assert not rule.succeeded(10_000)
    rule.throttled(9 * NS)
    assert not rule.succeeded(49), "what was earned at the ceiling does not count later"


def test_a_cut_takes_back_what_was_earned() -> None:
    rule = aimd()
    rule.throttled(0)
    rule.succeeded(49)
    rule.throttled(2 * NS)
    assert not rule.succeeded(24)
    assert rule.succeeded(1)


def test_new_bounds_move_a_rate_that_lies_outside() -> None:
    rule = aimd()
    rule.change(low=1, high=20 * MICRO, step=MICRO, cut=MICRO // 4, per_ns=NS)
    assert rule.rate == 20 * MICRO
    rule.throttled(0)
    assert rule.rate == 5 * MICRO
    rule.change(low=8 * MICRO, high=20 * MICRO, step=MICRO, cut=MICRO // 4, per_ns=NS)
    assert rule.rate == 8 * MICRO
