"""What rates and budgets promise, checked against every window of drawn stories."""

from contextlib import nullcontext

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.protect.core.budget import MICRO, BudgetRules
from outlast.protect.core.rate import Gcra, SlidingLog

STEPS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 2), st.sampled_from([0, 0, 50, 500]),
              st.booleans()),
    max_size=60,
)  # fmt: skip
"""How long after the one before a call comes, its cost, its patience, whether it gives up."""


def starts(rule: Gcra | SlidingLog, steps: list[tuple[int, int, int, bool]]) -> list[int]:
    """Return when calls start, each as often as it costs, in the order in which they asked."""
    now, found = 0, list[int]()
    for gap, cost, patience, gives_up in steps:
        now += gap
        wait = rule.reserve(now, patience, cost)
        assert wait <= patience
        if wait < 0:
            assert -wait > patience
        elif not (wait and gives_up and rule.give_back(now + wait, cost)):
            found += [now + wait] * cost
    return found


@settings(deadline=None, max_examples=200)
@given(STEPS, st.integers(1, 5), st.integers(50, 300))
def test_no_window_of_a_log_holds_more_than_its_limit(
    steps: list[tuple[int, int, int, bool]], limit: int, per: int
) -> None:
    steps = [(gap, min(cost, limit), patience, up) for gap, cost, patience, up in steps]
    found = starts(SlidingLog(nullcontext(), limit, per), steps)
    assert found == sorted(found)
    for begin in found:
        assert sum(begin <= at < begin + per for at in found) <= limit


@settings(deadline=None, max_examples=200)
@given(STEPS, st.integers(1, 7), st.integers(2, 5), st.integers(20, 300))
def test_no_stretch_of_a_bucket_holds_more_than_burst_and_rate(
    steps: list[tuple[int, int, int, bool]], rate: int, burst: int, per: int
) -> None:
    rule = Gcra(nullcontext(), rate * MICRO, per, burst)
    found = starts(rule, steps)
    assert found == sorted(found)
    for first, begin in enumerate(found):
        for last in range(first, len(found)):
            # Starts are whole nanoseconds, rounded up: one more may come between.
            assert last - first + 1 <= burst + (found[last] - begin + 1) * rate / per


@settings(deadline=None, max_examples=100)
@given(STEPS, st.integers(1, 7), st.integers(2, 5), st.integers(20, 300))
def test_a_refused_call_that_waits_as_told_is_taken(
    steps: list[tuple[int, int, int, bool]], rate: int, burst: int, per: int
) -> None:
    for rule in (Gcra(nullcontext(), rate * MICRO, per, burst), SlidingLog(nullcontext(), 2, per)):
        found = starts(rule, steps)
        now = max(found, default=0)
        while (wait := rule.reserve(now, 0)) == 0:
            pass
        assert rule.reserve(now - wait - 1, 0) < 0
        assert rule.reserve(now - wait, 0) == 0


WINDOW = 6_400
STORY = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3), st.integers(0, 4)), max_size=80)
"""How long after the one before, how many calls begin, and how many extra attempts are asked."""


@settings(deadline=None, max_examples=200)
@given(STORY, st.sampled_from([0, 100_000, 500_000, MICRO]), st.integers(0, 4))
def test_a_budget_is_kept_in_every_window_that_ends_in_a_grant(
    story: list[tuple[int, int, int]], ratio: int, floor: int
) -> None:
    """Where each call comes with a question, calls are known exactly but for one short span."""
    budget = BudgetRules(nullcontext(), ratio, floor * MICRO, WINDOW)
    now, calls, grants = 0, list[int](), list[int]()
    budget.left(0)
    for gap, begun, asked in story:
        now += gap
        budget.left(now)
        for _ in range(begun):
            budget.deposit()
            calls.append(now)
        for _ in range(asked):
            if budget.ask(now):
                grants.append(now)
    for end in grants:
        # Calls are known by spans of up to max(gap, 1/64 of a window).
        since = end - WINDOW
        earned = sum(since - 300 <= at <= end for at in calls)
        assert sum(since < at <= end for at in grants) <= ratio * earned / MICRO + floor


@settings(deadline=None, max_examples=200)
@given(STORY, st.sampled_from([100_000, 500_000]), st.integers(0, 4))
def test_a_budget_over_any_window_is_what_two_windows_earn_and_one_span(
    story: list[tuple[int, int, int]], ratio: int, floor: int
) -> None:
    budget = BudgetRules(nullcontext(), ratio, floor * MICRO, WINDOW)
    now, calls, grants, questions = 0, list[int](), list[int](), [0]
    budget.left(0)
    for gap, begun, asked in story:
        now += gap
        for _ in range(begun):
            budget.deposit()
            calls.append(now)
        for _ in range(asked):
            questions.append(now)
            if budget.ask(now):
                grants.append(now)
    for begin in grants:
        end = begin + WINDOW
        # From the question before the earliest instant that counts.
        known = max((at for at in questions if at <= begin - WINDOW - WINDOW // 64), default=0)
        earned = sum(known <= at <= end for at in calls)
        assert sum(begin <= at < end for at in grants) <= ratio * earned / MICRO + floor


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 50), st.integers(1, 20))
def test_an_even_stream_earns_its_ratio_and_not_less(per_tick: int, every: int) -> None:
    """A budget that never says yes would keep every bound."""
    ratio = 200_000
    budget = BudgetRules(nullcontext(), ratio, 0, WINDOW)
    budget.left(0)
    granted = 0
    for tick in range(1, 201):
        for _ in range(per_tick):
            budget.deposit()
        if tick % every == 0:
            while budget.ask(tick * 100):
                granted += 1
    earned = per_tick * (200 // every * every) * ratio / MICRO
    assert granted <= earned
    # What a window cannot keep for later, and the fraction of an attempt per question, is lost.
    assert granted >= 0.8 * earned - 1 - 200 // every
