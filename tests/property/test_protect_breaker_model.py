"""The breaker's rules against a second version of them that keeps every outcome in a list."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from outlast.kernel import Prng
from outlast.protect.core.breaker import CLOSED, BreakerCore, Change, Probe, Refused, Round
from outlast.protect.core.breaker_rules import Rules, read_rules
from outlast.protect.core.window import CountWindow, TimeWindow

pytestmark = pytest.mark.timeout(120)

NS = 1_000_000_000
FAILED, SLOW, SLOWLY_FAILED, GOOD = "failed", "slow", "slowly failed", "good"

WINDOWS = st.one_of(
    st.builds(CountWindow, st.sampled_from([1, 3, 5])),
    st.builds(TimeWindow, st.sampled_from([4.0, 9.0]), buckets=st.sampled_from([1, 2, 4])),
)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    window = draw(WINDOWS)
    most = window.size if isinstance(window, CountWindow) else 5
    slow = draw(st.booleans())
    given: dict[str, Any] = {
        "failure_threshold": draw(st.sampled_from([None, 1, 2, 4])),
        "failure_rate": draw(st.sampled_from([None, 0.25, 0.5, 1.0])),
        "slow_call": 2.0 if slow else None,
        "slow_rate": draw(st.sampled_from([0.4, 1.0])) if slow else None,
        "min_calls": draw(st.integers(1, most)),
    }
    return read_rules(
        window=window,
        recovery_timeout=draw(st.sampled_from([3.0, 10.0])),
        recovery_cap=draw(st.sampled_from([10.0, 35.0])),
        probes=draw(st.integers(1, 3)),
        probes_concurrent=draw(st.integers(1, 2)),
        probe_timeout=draw(st.sampled_from([1.0, 5.0])),
        **given,
    )


class Naive:
    """The same promises, told plainly: nothing is counted, all is kept and looked through."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.mode = "normal"
        self.rounds_failed = 0
        self.kept_failures = 0
        self.begin("CLOSED")

    def begin(self, state: str) -> None:
        if state == "CLOSED":
            self.kept_failures = 0
        self.state = state
        self.outcomes: list[tuple[int, str]] = []  # all of this stay
        self.window_from = 0  # outcomes before are of a window that was changed
        self.anchor: int | None = None  # when the first bucket of time began
        self.probes: list[dict[str, Any]] = []
        self.rated = self.rules.rated
        self.window = self.rules.window

    # --- what it says ---------------------------------------------------------------------------

    def streak(self) -> int:
        number = 0
        for _, outcome in reversed(self.outcomes):
            if outcome not in {FAILED, SLOWLY_FAILED}:
                break
            number += 1
        return number

    def failures(self) -> int:
        return self.streak() if self.state == "CLOSED" else self.kept_failures

    def in_window(self, now: int) -> list[str]:
        recent = self.outcomes[self.window_from :]
        window = self.window
        if isinstance(window, CountWindow):
            return [outcome for _, outcome in recent[-window.size :]]
        assert self.anchor is not None
        length = round(window.seconds * NS) // window.buckets
        oldest = (now - self.anchor) // length - window.buckets + 1
        return [outcome for at, outcome in recent if (at - self.anchor) // length >= oldest]

    def must_open(self, now: int) -> bool:
        rules = self.rules
        if rules.threshold is not None and self.streak() >= rules.threshold:
            return True
        if not self.rated:
            return False
        seen = self.in_window(now)
        if len(seen) < rules.min_calls:
            return False
        failed = sum(outcome in {FAILED, SLOWLY_FAILED} for outcome in seen)
        slow = sum(outcome in {SLOW, SLOWLY_FAILED} for outcome in seen)
        too_many = rules.failure_rate is not None and failed / len(seen) >= rules.failure_rate
        return too_many or (rules.slow_rate is not None and slow / len(seen) >= rules.slow_rate)

    def may_probe(self, now: int) -> bool:
        live = [p for p in self.probes if p["live"] and p["until"] > now]
        good = sum(p["good"] for p in self.probes)
        return len(live) < min(self.rules.probes_concurrent, max(1, self.rules.probes - good))

    # --- what happens ---------------------------------------------------------------------------

    def saw(self, outcome: str, now: int) -> bool:
        """Whether it must open now."""
        if self.anchor is None:
            self.anchor = now
        self.outcomes.append((now, outcome))
        if outcome != GOOD and self.must_open(now):
            self.kept_failures = self.streak()
            self.begin("OPEN")
            return True
        return False


class Breaker(RuleBasedStateMachine):
    """Calls, outcomes in any order, modes by hand and settings, on both."""

    tickets = Bundle("tickets")

    @initialize(rules=rules(), seed=st.integers(0, 9))
    def make(self, rules: Rules, seed: int) -> None:
        self.core = BreakerCore(rules)
        self.naive = Naive(rules)
        self.now = 100 * NS
        self.prng = Prng(seed)
        self.open_until = 0

    # --- time and calls -------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.25, 1.0, 2.5, 5.0, 11.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += round(seconds * NS)

    @rule(target=tickets)
    def call(self) -> Any:
        naive, core = self.naive, self.core
        if core.round.passes:
            assert naive.mode != "isolated"
            assert naive.state == "CLOSED"
            return core.round, None
        answer = core.admit(self.now)
        if naive.mode == "isolated":
            assert isinstance(answer, Refused)
            assert answer.retry_after_ns is None
            return None
        if naive.state == "OPEN" and self.now >= self.open_until:
            naive.begin("HALF_OPEN")
        if naive.state == "OPEN":
            assert isinstance(answer, Refused)
            assert answer.retry_after_ns == self.open_until - self.now
            return None
        if not naive.may_probe(self.now):
            live = [p["until"] for p in naive.probes if p["live"] and p["until"] > self.now]
            assert isinstance(answer, Refused)
            assert answer.retry_after_ns == min(live) - self.now
            return None
        assert isinstance(answer, Probe)
        told = {"until": self.now + naive.rules.probe_ns, "live": True, "good": False}
        naive.probes.append(told)
        return answer, told

    @rule(
        given=consumes(tickets), outcome=st.sampled_from([GOOD, GOOD, FAILED, SLOW, SLOWLY_FAILED])
    )
    def end(self, given: Any, outcome: str) -> None:
        if given is None:
            return
        ticket, told = given
        if self.naive.rules.slow_ns is None:
            outcome = {SLOW: GOOD, SLOWLY_FAILED: FAILED}.get(outcome, outcome)
        before = self.naive.state
        change = self.settle(ticket, outcome)
        if told is not None:
            self.probe_ended(told, outcome, change)
        elif self.counts(ticket):
            opened = self.naive.saw(outcome, self.now)
            assert (change is not None) == opened
            if change is not None:
                assert (before, change.state) == ("CLOSED", "OPEN")
                assert change.failures == self.naive.kept_failures
                assert change.open_ns == self.naive.rules.recovery_ns  # the first time exactly
                self.open_until = self.now + change.open_ns
                self.naive.rounds_failed = 0
        else:
            assert change is None

    def counts(self, ticket: Any) -> bool:
        return (
            ticket is self.current
            and self.naive.state == "CLOSED"
            and self.naive.mode in {"normal", "shadow"}
        )

    def settle(self, ticket: Any, outcome: str) -> Change | None:
        """Do as the driver does."""
        core = self.core
        self.current = core.round
        if outcome in {FAILED, SLOWLY_FAILED}:
            return core.failed(ticket, self.now, self.prng, slow=outcome == SLOWLY_FAILED)
        if outcome == SLOW:
            return core.was_slow(ticket, self.now, self.prng)
        if isinstance(ticket, Probe):
            return core.probe_succeeded(ticket, self.now)
        if core.rules.timed and ticket is core.round and self.now >= ticket.until_ns:
            core.tick(self.now)
        ticket.succeeded()
        return None

    def probe_ended(self, told: dict[str, Any], outcome: str, change: Change | None) -> None:
        naive = self.naive
        counts = any(told is p for p in naive.probes) and told["live"] and self.now < told["until"]
        told["live"] = False
        if not counts:
            assert change is None
            return
        slow_is_bad = naive.rules.slow_rate is not None
        if outcome in {FAILED, SLOWLY_FAILED} or (outcome == SLOW and slow_is_bad):
            naive.rounds_failed += 1
            assert change is not None
            assert change.state == "OPEN"
            rules = naive.rules
            widest = min(rules.recovery_ns * 2**naive.rounds_failed, rules.recovery_cap_ns)
            assert widest // 2 <= change.open_ns <= widest
            self.open_until = self.now + change.open_ns
            naive.begin("OPEN")
            return
        told["good"] = True
        if sum(p["good"] for p in naive.probes) >= naive.rules.probes:
            assert change is not None
            assert change.state == "CLOSED"
            naive.rounds_failed = 0
            naive.begin("CLOSED")
        else:
            assert change is None

    @rule(given=consumes(tickets))
    def cancel(self, given: Any) -> None:
        if given is None:
            return
        ticket, told = given
        self.core.cancelled(ticket)
        if told is not None:
            told["live"] = False

    # --- by hand --------------------------------------------------------------------------------

    @rule(mode=st.sampled_from(["normal", "isolated", "disabled", "shadow"]))
    def become(self, mode: Any) -> None:
        self.core.become(mode)
        if mode != self.naive.mode:
            self.naive.mode = mode
            self.naive.rounds_failed = 0
            self.naive.begin("CLOSED")

    @rule()
    def reset(self) -> None:
        change = self.core.reset()
        assert (change is not None) == (self.naive.state != "CLOSED")
        self.naive.mode = "normal"
        self.naive.rounds_failed = 0
        self.naive.begin("CLOSED")

    @rule(seconds=st.sampled_from([2.0, 20.0]))
    def trip(self, seconds: float) -> None:
        naive, open_ns = self.naive, round(seconds * NS)
        change = self.core.open(open_ns, self.now, "by hand")
        if naive.mode not in {"normal", "shadow"}:
            assert change is None
            return
        assert (change is None) == (naive.state == "OPEN")
        if naive.state == "CLOSED":
            naive.kept_failures = naive.streak()
        if change is not None:
            assert change.failures == naive.kept_failures
        naive.begin("OPEN")
        self.open_until = self.now + open_ns

    @rule()
    def close(self) -> None:
        change = self.core.close("the fleet")
        assert (change is not None) == (self.naive.state != "CLOSED")
        if change is not None:
            self.naive.rounds_failed = 0
            self.naive.begin("CLOSED")

    @precondition(lambda self: self.naive.state == "CLOSED")
    @rule(rules=rules())
    def configure_closed(self, rules: Rules) -> None:
        self.configure(rules)

    @precondition(lambda self: self.naive.state != "CLOSED")
    @rule(rules=rules())
    def configure(self, rules: Rules) -> None:
        core, naive = self.core, self.naive
        anew = rules.window != core.rules.window or rules.rated != core.rules.rated
        core.rules = naive.rules = rules
        if not anew:
            return
        core.rewindow()
        if naive.state == "CLOSED":
            naive.window_from = len(naive.outcomes)
            naive.anchor = None
            naive.rated, naive.window = rules.rated, rules.window

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def same_state(self) -> None:
        if not hasattr(self, "core"):
            return
        core, naive = self.core, self.naive
        if naive.mode == "isolated":
            expected = "OPEN"
        elif naive.state == "OPEN" and self.now >= self.open_until:
            expected = "HALF_OPEN"
        else:
            expected = naive.state
        assert core.state_at(self.now) == expected
        left = max(self.open_until - self.now, 0) if naive.state == "OPEN" else 0
        assert core.open_left_ns(self.now) == left
        assert core.round.passes == (naive.state == "CLOSED" and naive.mode != "isolated")
        assert core.mode == naive.mode

    @rule()
    def look(self) -> None:
        """Looking must change nothing, at whatever moment."""
        assert self.core.failures() == self.naive.failures()

    @invariant()
    def probes_are_capped(self) -> None:
        if not hasattr(self, "core"):
            return
        live = [p for p in self.naive.probes if p["live"] and p["until"] > self.now]
        assert len(live) <= self.core.probes_live


def test_the_breaker_does_what_a_list_of_all_outcomes_says() -> None:
    run_state_machine_as_test(
        Breaker, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
    )


def test_a_round_counts_what_is_fresh() -> None:
    current = Round(CLOSED, 1, passes=True)
    counts = []
    for number in (0, 3, 1):
        for _ in range(number):
            current.succeeded()
        counts.append(current.fresh())
    assert counts == [0, 3, 1]
