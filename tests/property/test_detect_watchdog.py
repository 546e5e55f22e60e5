"""Cores of watchdogs against naive second versions."""

from dataclasses import dataclass
from itertools import combinations
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.detect.core.guard_rules import (
    PAGE_BYTES,
    SLOTS_MAX,
    GuardJudge,
    Slot,
    read_slots,
    write_slot,
)
from outlast.detect.core.ladder import Ladder, LadderState
from outlast.detect.core.trend import Trend
from outlast.detect.core.waits import LockOrder, WaitGraph

NS = 1_000_000_000
STAMPS = st.integers(0, 1 << 62)
SLOTS = st.lists(
    st.tuples(st.integers(1, SLOTS_MAX), st.text(max_size=40), st.integers(1, 1 << 62), STAMPS),
    max_size=10,
)


@dataclass
class Lock:
    name: str
    owner: int | None = None
    carrier: int | None = None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(-1000, 1000)), min_size=2, max_size=20,
                unique_by=lambda one: one[0]))  # fmt: skip
def test_the_slope_is_the_median_of_all_pairs(samples: list[tuple[int, int]]) -> None:
    trend = Trend(1000 * NS)
    ordered = sorted(samples)
    for at, value in ordered:
        trend.add(at * NS, value)
    slopes = [(late[1] - early[1]) / (late[0] - early[0])
              for early, late in combinations(ordered, 2)]  # fmt: skip
    assert trend.slope() == pytest.approx(median(slopes))
    rising = sum(late[1] > early[1] for early, late in combinations(ordered, 2))
    assert trend.rising() == rising / len(slopes)


@settings(deadline=None)
@given(st.permutations(range(6)), st.lists(st.integers(0, 5), min_size=6, max_size=6))
def test_a_circle_is_found_exactly_when_following_the_owners_comes_back(
    order: list[int], wanted: list[int]
) -> None:
    # Thread n holds lock n and waits for lock wanted[n]; they begin to wait in any order.
    locks = [Lock(str(number), number) for number in range(6)]
    graph = WaitGraph()
    waiting: set[int] = set()
    for who in order:
        circle = graph.begin(who, locks[wanted[who]])
        waiting.add(who)
        at, steps = wanted[who], 1
        while at in waiting and at != who and steps <= 6:
            at, steps = wanted[at], steps + 1
        assert bool(circle) == (at == who)
        assert len(circle) == (steps if at == who else 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=30))
def test_a_reversal_is_told_only_if_there_was_a_way_back(pairs: list[tuple[int, int]]) -> None:
    order = LockOrder()
    seen: set[tuple[int, int]] = set()

    def leads(start: int, goal: int) -> bool:
        reached, edge = {start}, {start}
        while edge:
            edge = {b for a, b in seen if a in edge} - reached
            reached |= edge
        return goal in reached

    for held, name in pairs:
        back = held != name and (held, name) not in seen and leads(name, held)
        found = order.note([str(held)], str(name), "here")
        assert found is None or back
        if found is not None:
            assert (found.names[0], found.names[-1]) == (str(name), str(held))
            assert len(found.places) == len(found.names)
        if held != name:
            seen.add((held, name))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4 * NS)), max_size=40),
       st.lists(st.integers(0, 5), min_size=3, max_size=3), st.integers(0, 3))  # fmt: skip
def test_no_action_is_done_twice_or_early_within_one_condition(
    story: list[tuple[bool, int]], times: list[int], calm: int
) -> None:
    after = tuple(float(time) for time in sorted(times))
    state = LadderState(Ladder(("event", "stacks", "dump"), after=after, calm=float(calm)))
    now, since, done = 0, None, []  # type: ignore[var-annotated]
    for bad, passed in story:
        now += passed
        if bad:
            since = now if since is None else since
            acts = state.on_bad(now)
            done += acts
            assert done == ["event", "stacks", "dump"][: len(done)]
            assert all(time * NS <= now - since for time in after[: len(done)])
            deadline = state.deadline_ns()
            assert deadline is None or deadline > now
        else:
            ended = state.on_good(now)
            if state.over:
                assert list(ended) == done
                since, done = None, []


@settings(deadline=None)
@given(SLOTS)
def test_the_page_gives_back_the_last_that_was_written(
    writes: list[tuple[int, str, int, int]],
) -> None:
    page = memoryview(bytearray(PAGE_BYTES))
    expected = {}
    for number, name, limit, stamp in writes:
        write_slot(page, number, name, limit, stamp)
        expected[number] = (limit, stamp)
    assert {n: (one.limit_ns, one.stamp_ns) for n, one in read_slots(page).items()} == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2 * NS), st.booleans(), st.booleans()), max_size=40))
def test_a_guard_never_accuses_a_slot_younger_than_its_limit_and_always_looks_again(
    story: list[tuple[int, bool, bool]],
) -> None:
    judge, now, stamp = GuardJudge([(0, "event")]), NS, NS
    for passed, fresh, stopped in story:
        now += passed
        stamp = now if fresh else stamp
        orders, next_ns = judge.look(now, {1: Slot("one", stamp, NS // 2)}, stopped)
        assert next_ns > now
        if any(order.action == "event" for order in orders):
            assert now - stamp >= NS // 2
