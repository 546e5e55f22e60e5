"""The breaker's rules one by one; ``test_protect_breaker_model`` has them all at once."""

from typing import Any

import pytest

from outlast.kernel import ConfigError, Prng
from outlast.protect.core.breaker import BreakerCore, Probe, Refused, Round, Ticket
from outlast.protect.core.breaker_rules import Rules, read_rules
from outlast.protect.core.window import CountWindow, TimeWindow

NS = 1_000_000_000
PRNG = Prng(1)


def rules(**given: Any) -> Rules:
    known: dict[str, Any] = {
        "failure_threshold": None, "recovery_timeout": 10.0, "failure_rate": None,
        "slow_call": None, "slow_rate": None, "window": None, "min_calls": None, "probes": 1,
        "probes_concurrent": 1, "probe_timeout": 5.0, "recovery_cap": None,
    }  # fmt: skip
    return read_rules(**{**known, **given})


def core_of(**given: Any) -> BreakerCore:
    return BreakerCore(rules(**given))


def fail(core: BreakerCore, times: int = 1, now: float = 0, ticket: Ticket | None = None) -> Any:
    change = None
    for _ in range(times):
        change = core.failed(ticket or core.round, round(now * NS), PRNG, slow=False)
    return change


def opened(**given: Any) -> BreakerCore:
    """A breaker that opened at second 0 for ten."""
    core = core_of(**{"failure_threshold": 1, **given})
    fail(core)
    return core


def probe(core: BreakerCore, now: float) -> Probe:
    ticket = core.admit(round(now * NS))
    assert isinstance(ticket, Probe)
    return ticket


def refused(core: BreakerCore, now: float) -> Refused:
    answer = core.admit(round(now * NS))
    assert isinstance(answer, Refused)
    return answer


# --- closed ----------------------------------------------------------------------------------


def test_without_any_rule_five_failures_one_after_another_open_it() -> None:
    core = core_of()
    assert fail(core, 4) is None
    change = fail(core)
    assert (change.before, change.state, change.failures) == ("CLOSED", "OPEN", 5)
    assert change.reason == "5 failures one after another"
    assert change.open_ns == 10 * NS


def test_a_success_between_failures_begins_the_count_anew() -> None:
    core = core_of(failure_threshold=3)
    fail(core, 2)
    core.round.succeeded()
    assert core.failures() == 0
    fail(core, 2)
    assert (core.state, core.failures()) == ("CLOSED", 2)
    fail(core)
    assert (core.state, core.failures()) == ("OPEN", 3)


def test_looking_at_the_failures_changes_none_of_them() -> None:
    core = core_of(failure_threshold=3)
    for expected in (1, 2):
        fail(core)
        assert [core.failures() for _ in range(3)] == [expected] * 3
    assert fail(core).state == "OPEN"


def test_a_rate_opens_it_once_there_are_enough_calls() -> None:
    core = core_of(failure_rate=0.5, window=CountWindow(10), min_calls=4)
    fail(core, 3)
    assert core.state == "CLOSED"
    assert fail(core).reason == "4 of 4 calls failed"


def test_a_rate_is_of_the_calls_in_the_window_only() -> None:
    core = core_of(failure_rate=0.5, window=CountWindow(4), min_calls=4)
    fail(core, 2)
    for _ in range(3):
        core.round.succeeded()
    assert fail(core) is None  # one of the last four
    assert fail(core).reason == "2 of 4 calls failed"


def test_a_time_window_forgets_by_buckets() -> None:
    core = core_of(failure_rate=0.9, window=TimeWindow(10, buckets=2), min_calls=3)
    fail(core, 2, now=0)
    assert fail(core, now=10.1) is None  # the first two are older than both buckets
    assert fail(core, now=11) is None
    assert fail(core, now=14).reason == "3 of 3 calls failed"


def test_slow_calls_open_it_although_they_succeed() -> None:
    core = core_of(slow_call=2.0, slow_rate=0.5, min_calls=2, window=CountWindow(4))
    assert core.was_slow(core.round, 0, PRNG) is None
    change = core.was_slow(core.round, 0, PRNG)
    assert change is not None
    assert (change.reason, change.failures) == ("2 of 2 calls were slow", 0)


def test_a_slow_call_ends_a_streak_of_failures() -> None:
    core = core_of(failure_threshold=2, slow_call=2.0, slow_rate=1.0)
    fail(core)
    assert core.was_slow(core.round, 0, PRNG) is None
    assert fail(core) is None
    assert core.failures() == 1


def test_what_was_called_slow_before_that_rule_was_dropped_is_a_success() -> None:
    core = core_of(failure_threshold=2)
    fail(core)
    assert core.was_slow(core.round, 0, PRNG) is None
    assert core.failures() == 0


def test_both_rules_count_and_the_first_that_is_reached_opens() -> None:
    core = core_of(failure_threshold=3, failure_rate=0.5, window=CountWindow(10), min_calls=10)
    assert fail(core, 3).reason == "3 failures one after another"


def test_outcomes_of_calls_from_before_the_trip_change_nothing() -> None:
    core = core_of(failure_threshold=2, slow_call=1.0, slow_rate=1.0, min_calls=1)
    early = core.round
    fail(core, 2)
    assert fail(core, ticket=early) is None
    assert core.was_slow(early, 0, PRNG) is None
    early.succeeded()
    assert (core.state, core.failures()) == ("OPEN", 2)
    core.reset()
    assert fail(core, 5, ticket=early) is None
    assert (core.state, core.failures()) == ("CLOSED", 0)


def test_rounds_have_numbers_that_grow() -> None:
    core = core_of(failure_threshold=1)
    numbers = [core.round.number]
    fail(core)
    numbers.append(core.round.number)
    core.reset()
    numbers.append(core.round.number)
    assert numbers == sorted(set(numbers))


# --- open and half-open ------------------------------------------------------------------------


def test_it_stays_open_to_the_nanosecond() -> None:
    core = opened()
    assert core.state_at(10 * NS - 1) == "OPEN"
    assert core.open_left_ns(10 * NS - 1) == 1
    assert refused(core, 4).retry_after_ns == 6 * NS
    assert refused(core, 4).reason == "the circuit is open"
    assert core.state_at(10 * NS) == "HALF_OPEN"
    assert core.open_left_ns(10 * NS) == 0
    assert isinstance(core.admit(10 * NS), Probe)


def test_one_success_of_one_probe_closes_it() -> None:
    core = opened()
    change = core.probe_succeeded(probe(core, 10), 11 * NS)
    assert change is not None
    assert (change.before, change.state, change.reason) == (
        "HALF_OPEN", "CLOSED", "probes succeeded",
    )  # fmt: skip
    assert core.failures() == 0


def test_probes_are_capped_and_a_refusal_says_when_one_ends_at_the_latest() -> None:
    core = opened(probes=3, probes_concurrent=2)
    probe(core, 10)
    probe(core, 12)
    answer = refused(core, 13)
    assert answer.reason == "the circuit is half-open and its probes are under way"
    assert answer.retry_after_ns == 2 * NS
    assert core.probes_live == 2


def test_no_more_probes_are_let_through_than_are_still_needed() -> None:
    core = opened(probes=3, probes_concurrent=2)
    for _ in range(2):
        assert core.probe_succeeded(probe(core, 10), 10 * NS) is None
    probe(core, 11)
    refused(core, 11)


def test_a_failed_probe_opens_it_for_longer_each_time_up_to_the_cap() -> None:
    core = opened(recovery_cap=35.0)
    now, lengths = 10 * NS, []
    for _ in range(5):
        ticket = core.admit(now)
        change = core.failed(ticket, now, PRNG, slow=False)  # type: ignore[arg-type]
        assert change is not None
        assert (change.before, change.reason) == ("HALF_OPEN", "a probe failed")
        lengths.append(change.open_ns / NS)
        now += change.open_ns
    for length, (low, high) in zip(
        lengths, [(10, 20), (17.5, 35), (17.5, 35), (17.5, 35), (17.5, 35)], strict=True
    ):
        assert low <= length <= high
    assert len(set(lengths)) == 5  # drawn


def test_after_it_has_closed_the_time_open_is_the_first_one_again() -> None:
    core = opened()
    fail(core, now=10, ticket=probe(core, 10))
    core.probe_succeeded(probe(core, 40), 40 * NS)
    assert fail(core, now=41).open_ns == 10 * NS


def test_a_slow_probe_opens_it_again_where_slow_calls_count() -> None:
    core = opened(slow_call=1.0, slow_rate=0.5)
    change = core.was_slow(probe(core, 10), 12 * NS, PRNG)
    assert change is not None
    assert (change.state, change.reason) == ("OPEN", "a probe was slow")


def test_a_slow_probe_is_a_good_one_where_they_do_not() -> None:
    core = opened()
    change = core.was_slow(probe(core, 10), 12 * NS, PRNG)
    assert change is not None
    assert change.state == "CLOSED"


def test_a_probe_that_hangs_loses_its_place_and_its_say() -> None:
    core = opened()
    hung = probe(core, 10)
    refused(core, 14.9)
    other = probe(core, 15)
    assert core.probe_succeeded(hung, 15 * NS) is None
    assert fail(core, now=15, ticket=hung) is None
    assert core.was_slow(hung, 15 * NS, PRNG) is None
    assert core.state == "HALF_OPEN"
    assert core.probe_succeeded(other, 16 * NS) is not None


def test_an_outcome_that_comes_too_late_does_not_count_although_the_place_is_still_held() -> None:
    core = opened()
    late = probe(core, 10)
    assert core.probe_succeeded(late, 15 * NS) is None
    assert (core.state, core.probes_live) == ("HALF_OPEN", 0)


def test_a_cancelled_probe_gives_its_place_back_at_once() -> None:
    core = opened()
    gone = probe(core, 10)
    core.cancelled(gone)
    core.cancelled(gone)
    assert isinstance(core.admit(10 * NS), Probe)
    assert core.state == "HALF_OPEN"


def test_a_cancelled_call_of_a_closed_breaker_tells_nothing() -> None:
    core = core_of(failure_threshold=2)
    fail(core)
    core.cancelled(core.round)
    assert core.failures() == 1


def test_a_probe_of_an_earlier_round_tells_nothing() -> None:
    core = opened(probes=2, probes_concurrent=2)
    early = probe(core, 10)
    fail(core, now=10, ticket=probe(core, 10))
    assert core.state == "OPEN"
    probe(core, 100)
    assert core.probe_succeeded(early, 10 * NS) is None
    assert fail(core, now=100, ticket=early) is None
    assert core.state == "HALF_OPEN"


def test_a_probe_may_be_asked_for_although_fewer_are_needed_by_now() -> None:
    core = opened(probes=3)
    for _ in range(2):
        core.probe_succeeded(probe(core, 10), 10 * NS)
    core.rules = rules(failure_threshold=1, probes=1)
    change = core.probe_succeeded(probe(core, 10), 10 * NS)
    assert change is not None
    assert change.state == "CLOSED"


def test_a_call_that_finds_it_closed_again_gets_the_round() -> None:
    core = opened()
    core.close("the fleet")
    assert core.admit(1 * NS) is core.round
    assert isinstance(core.round, Round)


# --- modes -------------------------------------------------------------------------------------


def test_an_isolated_breaker_refuses_for_as_long_as_it_is() -> None:
    core = core_of()
    core.become("isolated")
    answer = refused(core, 1e6)
    assert (answer.reason, answer.retry_after_ns) == ("the breaker is isolated", None)
    assert core.state_at(0) == "OPEN"
    assert core.open(NS, 0, "by hand") is None
    core.become("normal")
    assert core.state_at(0) == "CLOSED"
    assert core.round.passes


def test_a_disabled_breaker_counts_nothing_and_opens_for_nothing() -> None:
    core = core_of(failure_threshold=2, slow_call=1.0, slow_rate=0.5, min_calls=1)
    core.become("disabled")
    fail(core, 10)
    core.was_slow(core.round, 0, PRNG)
    core.tick(0)
    assert (core.state, core.failures()) == ("CLOSED", 0)
    assert core.round.passes
    assert core.open(NS, 0, "by hand") is None
    core.become("normal")
    assert fail(core) is None  # nothing was kept


def test_a_shadow_counts_and_opens() -> None:
    core = core_of(failure_threshold=2)
    core.become("shadow")
    assert fail(core, 2).state == "OPEN"
    assert refused(core, 1).reason == "the circuit is open"
    assert isinstance(core.admit(10 * NS), Probe)


def test_going_to_the_same_mode_changes_nothing() -> None:
    core = opened()
    core.become("normal")
    assert core.state == "OPEN"


def test_reset_closes_and_is_told_only_where_it_was_not_closed() -> None:
    core = opened()
    change = core.reset()
    assert change is not None
    assert (change.before, change.state, change.reason) == ("OPEN", "CLOSED", "reset")
    assert core.reset() is None
    core.become("isolated")
    core.reset()
    assert core.mode == "normal"


def test_opening_by_hand_lasts_as_long_as_was_said_and_is_told_once() -> None:
    core = core_of(failure_threshold=3)
    fail(core, 2)
    change = core.open(4 * NS, 1 * NS, "by hand")
    assert change is not None
    assert (change.reason, change.failures, change.open_ns) == ("by hand", 2, 4 * NS)
    assert core.state_at(5 * NS - 1) == "OPEN"
    assert core.open(4 * NS, 3 * NS, "again") is None  # longer, but nothing new
    assert core.state_at(7 * NS - 1) == "OPEN"
    assert core.state_at(7 * NS) == "HALF_OPEN"


def test_a_success_before_it_is_opened_by_hand_ends_the_streak() -> None:
    core = core_of(failure_threshold=3)
    fail(core, 2)
    core.round.succeeded()
    change = core.open(4 * NS, 0, "by hand")
    assert change is not None
    assert (change.failures, core.failures()) == (0, 0)


def test_the_time_open_is_the_first_one_again_after_probes_succeeded() -> None:
    core = opened(probes=2)
    reopened = fail(core, now=10, ticket=probe(core, 10))
    for _ in range(2):
        core.probe_succeeded(probe(core, 50), 50 * NS)
    fail(core, now=50)
    again = fail(core, now=60, ticket=probe(core, 60))
    for change in (reopened, again):
        assert 10 * NS <= change.open_ns <= 20 * NS  # and not up to 40


def test_closing_what_is_closed_is_nothing() -> None:
    assert core_of().close("the fleet") is None


# --- settings ----------------------------------------------------------------------------------


def test_a_changed_window_begins_empty_and_the_streak_stays() -> None:
    core = core_of(failure_threshold=5, failure_rate=0.5, window=CountWindow(4), min_calls=2)
    core.round.succeeded()
    core.round.succeeded()
    core.round.succeeded()
    fail(core)
    core.rules = rules(failure_threshold=2, failure_rate=0.9, window=CountWindow(3), min_calls=3)
    core.rewindow()
    assert core.failures() == 1
    assert fail(core).reason == "2 failures one after another"


def test_successes_before_a_window_was_changed_are_not_of_the_new_one() -> None:
    core = core_of(failure_threshold=9, failure_rate=0.5, window=CountWindow(4), min_calls=2)
    for _ in range(4):
        core.round.succeeded()
    core.rules = rules(failure_threshold=9, failure_rate=0.5, window=CountWindow(5), min_calls=2)
    core.rewindow()
    fail(core)
    assert fail(core).reason == "2 of 2 calls failed"


def test_a_window_changed_while_it_is_open_begins_with_the_next_closed_round() -> None:
    core = opened()
    core.rules = rules(failure_threshold=5, failure_rate=0.5, window=CountWindow(2), min_calls=1)
    core.rewindow()
    core.reset()
    assert fail(core).reason == "1 of 1 calls failed"


def test_a_window_that_is_no_longer_asked_for_is_dropped() -> None:
    core = core_of(failure_rate=0.5, min_calls=1)
    core.rules = rules(failure_threshold=3)
    core.rewindow()
    core.tick(0)
    assert fail(core, 2) is None
    assert fail(core).reason == "3 failures one after another"


def test_times_open_are_half_random_and_never_huge() -> None:
    given = rules(recovery_timeout=1.0, recovery_cap=100.0)
    draws = [given.open_ns(3, PRNG) for _ in range(400)]
    assert 4 * NS <= min(draws) < 4.2 * NS
    assert 7.8 * NS < max(draws) <= 8 * NS
    assert 50 * NS <= given.open_ns(10_000, PRNG) <= 100 * NS
    assert given.open_ns(0, PRNG) == NS


def test_defaults_follow_from_what_is_given() -> None:
    given = rules()
    assert (given.threshold, given.recovery_cap_ns, given.min_calls) == (5, 100 * NS, 20)
    assert rules(failure_rate=0.5).threshold is None
    assert rules(failure_rate=0.5, window=CountWindow(7)).min_calls == 7
    assert rules(failure_rate=0.5, window=TimeWindow(7)).min_calls == 20
    assert not rules(failure_rate=0.5).timed
    assert rules(failure_rate=0.5, window=TimeWindow(7)).timed
    assert not rules(window=TimeWindow(7)).timed  # no rate of it is taken


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"failure_threshold": 0}, "failure_threshold is 0; 1 or more"),
        ({"failure_threshold": 2.5}, "failure_threshold is 2.5; a whole number"),
        ({"failure_threshold": True}, "failure_threshold is True; a whole number"),
        ({"min_calls": 0}, "min_calls is 0"),
        ({"probes": 0}, "probes is 0"),
        ({"probes_concurrent": -1}, "probes_concurrent is -1"),
        ({"failure_rate": 0}, "failure_rate is 0; a share"),
        ({"failure_rate": 1.1}, "failure_rate is 1.1; a share"),
        ({"failure_rate": "0.5"}, "failure_rate is '0.5'; a share"),
        ({"slow_rate": 2}, "slow_rate is 2; a share"),
        ({"recovery_timeout": 0}, "recovery_timeout is 0; seconds above 0 and finite"),
        ({"recovery_timeout": "60"}, "recovery_timeout is '60'; seconds"),
        ({"recovery_timeout": float("inf")}, "recovery_timeout is inf; seconds"),
        ({"recovery_timeout": float("nan")}, "recovery_timeout is nan; seconds"),
        ({"probe_timeout": 0}, "probe_timeout is 0; seconds"),
        ({"slow_call": -1, "slow_rate": 0.5}, "slow_call is -1; seconds"),
        ({"recovery_cap": 5}, r"recovery_cap \(5 s\) is below recovery_timeout \(10 s\)"),
        ({"slow_rate": 0.5}, "slow_rate needs slow_call"),
        ({"slow_call": 1.0}, "slow_call needs slow_rate"),
        (
            {"failure_rate": 0.5, "window": CountWindow(5), "min_calls": 6},
            r"min_calls \(6\) can never be reached in a window of 5 calls",
        ),
        ({"window": 30}, "window is 30; "),
    ],
)
def test_what_cannot_be_is_told_by_name_and_value(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=f"CircuitBreaker: {says}"):
        rules(**given)


def test_rules_that_open_for_nothing_are_refused() -> None:
    from outlast.protect.core.breaker_rules import check_rules

    given = rules()
    given.threshold = None
    with pytest.raises(ConfigError, match="nothing would open it"):
        check_rules(given)
