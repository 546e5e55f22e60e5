"""What a pool promises, whatever its calls come to: bounds of ejection, no wedge, fair shares."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.kernel import Prng
from outlast.pool import Found, Instance, Outlier, ramp
from outlast.pool.core.pool import Picked, PoolCore, Rules
from outlast.pool.core.settings import pick_of

S = 1_000_000_000
MS = 1_000_000
PICKS = ["p2c", "round_robin", "least_loaded", "peak_ewma"]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 3)),
        st.tuples(
            st.just("end"),
            st.integers(0, 30),
            st.sampled_from(["ok", "failed", "late", "busy", "lied", "cut", "ours"]),
        ),
        st.tuples(st.just("storm"), st.integers(0, 8)),
        st.tuples(st.just("pass"), st.sampled_from([MS, S, 10 * S, 40 * S, 400 * S])),
        st.tuples(st.just("check"), st.integers(0, 8), st.booleans()),
        st.tuples(st.just("found"), st.sets(st.integers(0, 8), min_size=1), st.integers(0, 8)),
        st.tuples(st.just("drain"), st.integers(0, 8), st.booleans()),
    ),
    max_size=60,
)


class Story:
    """A pool to which anything happens."""

    def __init__(self, pick: str, rules: Outlier, panic: float, seed: int) -> None:
        self.rules = rules
        self.panic = panic
        made = Rules(pick=pick_of(pick), eject=rules, readmit=ramp(5), panic=panic)
        self.core = PoolCore("shop", made, Prng(seed))
        self.now = 0
        self.held: list[Picked] = []
        self.found({0, 1, 2, 3, 4, 5}, 99)

    def found(self, there: set[int], avoid: int) -> None:
        made = tuple(Instance(f"i{number}", 1 + number % 3) for number in sorted(there))
        self.core.found(Found(made, frozenset({f"i{avoid}"})), self.now)

    def take(self, tried: int = 0) -> None:
        picked = self.core.pick([f"i{number}" for number in range(tried)], self.now)
        if picked is not None:
            self.held.append(picked)
            self.judge(picked)

    def judge(self, picked: Picked) -> None:
        """Nobody gets a call who must get none."""
        member = picked.member
        assert not member.draining
        if picked.probe:
            assert member.standing == "half-open"
        elif not self.core.panic:
            assert member.usable

    def end(self, place: int, verdict: Any) -> None:
        if self.held:
            picked = self.held.pop(place % len(self.held))
            self.now += 10 * MS
            self.core.done(picked, verdict, 10 * MS, self.now)

    def storm(self, number: int) -> None:
        """Six calls of one instance fail."""
        others = [one.address for one in self.core.members if one.address != f"i{number}"]
        for _ in range(6):
            picked = self.core.pick(others, self.now)
            if picked is not None:
                self.core.done(picked, "failed", MS, self.now)

    def check(self) -> None:
        """The bounds hold."""
        staying = [one for one in self.core.members if not one.draining]
        out = sum(one.standing != "live" for one in staying)
        assert out <= self.rules.max_ejected * len(staying) + 1e-9
        assert out == 0 or len(staying) - out >= self.rules.min_left
        for member in self.core.members:
            holding = sum(picked.member is member for picked in self.held)
            assert member.in_flight == holding
            assert member.window.good >= 0 <= member.window.bad

    def play(self, step: Any) -> None:
        what, *rest = step
        if what == "take":
            self.take(*rest)
        elif what == "end":
            self.end(*rest)
        elif what == "storm":
            self.storm(*rest)
        elif what == "pass":
            self.now += rest[0]
            self.core.tend(self.now)
        elif what == "check":
            for _ in range(3):
                self.core.checked(f"i{rest[0]}", None if rest[1] else "down", self.now)
        elif what == "found":
            self.found(*rest)
        else:
            self.core.drain(f"i{rest[0]}", self.now, draining=rest[1])
        self.check()


outliers = st.builds(
    Outlier,
    max_ejected=st.sampled_from([0.0, 0.2, 0.34, 0.5, 1.0]),
    min_left=st.integers(0, 3),
    min_requests=st.integers(1, 20),
)


@settings(deadline=None, max_examples=150)
@given(steps, st.sampled_from(PICKS), outliers, st.sampled_from([0.0, 0.5]), st.integers(0, 99))
def test_the_bounds_hold_and_nobody_gets_calls_who_must_not(
    story: list[Any], pick: str, rules: Outlier, panic: float, seed: int
) -> None:
    made = Story(pick, rules, panic, seed)
    for step in story:
        made.play(step)


@settings(deadline=None, max_examples=80)
@given(steps, st.sampled_from(PICKS), outliers, st.integers(0, 99))
def test_once_all_is_well_every_instance_comes_back(
    story: list[Any], pick: str, rules: Outlier, seed: int
) -> None:
    made = Story(pick, rules, 0.5, seed)
    for step in story:
        made.play(step)
    there = {0, 1, 2, 3}
    made.found(there, 99)
    for number in there:
        made.core.drain(f"i{number}", made.now, draining=False)
        made.core.checked(f"i{number}", None, made.now)
        made.core.checked(f"i{number}", None, made.now)
    for _ in range(80):  # what was held is forgotten: a probe that nobody ends wedges nothing
        made.now += 10 * S
        picked = made.core.pick((), made.now)
        assert picked is not None
        made.core.done(picked, "ok", MS, made.now)
    assert [one["usable"] for one in made.core.snapshot(made.now)["instances"]] == [True] * 4
    assert not made.core.panic


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(["p2c", "round_robin"]),
    st.lists(st.integers(1, 8), min_size=2, max_size=6),
    st.integers(0, 999),
)
def test_calls_follow_the_weights(pick: str, weights: list[int], seed: int) -> None:
    core = PoolCore("shop", Rules(pick=pick_of(pick)), Prng(seed))
    made = tuple(Instance(f"i{place}", weight) for place, weight in enumerate(weights))
    core.found(Found(made), 0)
    counts: Counter[str] = Counter()
    total = 1500
    for _ in range(total):
        picked = core.pick((), 0)
        assert picked is not None
        core.done(picked, "ok", MS, 0)
        counts[picked.member.address] += 1
    for place, weight in enumerate(weights):
        share = total * weight / sum(weights)
        assert counts[f"i{place}"] == pytest.approx(share, abs=1 + 5 * share**0.5)


def worst_wait(pick: str, seed: int) -> float:
    """99th percentile of the time a call takes where one of four instances is ten times slower.

    Each instance handles one call at a time; calls come every 3 ms.
    """
    core = PoolCore("shop", Rules(pick=pick_of(pick), eject=None), Prng(seed))
    core.found(Found(tuple(Instance(f"i{number}") for number in range(4))), 0)
    free = [0] * 4
    under_way: list[tuple[int, int, Picked]] = []
    took = []
    for now in range(0, 6000 * MS, 3 * MS):
        for one in [one for one in under_way if one[0] <= now]:
            under_way.remove(one)
            core.done(one[2], "ok", one[0] - one[1], now)
        picked = core.pick((), now)
        assert picked is not None
        number = int(picked.member.address[1])
        free[number] = max(free[number], now) + (50 if number == 0 else 5) * MS
        under_way.append((free[number], now, picked))
        took.append(free[number] - now)
    return sorted(took)[len(took) * 99 // 100] / MS


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 999))
def test_the_better_of_two_beats_round_robin_where_one_instance_is_slow(seed: int) -> None:
    assert worst_wait("p2c", seed) * 5 < worst_wait("round_robin", seed)
    assert worst_wait("peak_ewma", seed) * 5 < worst_wait("round_robin", seed)
