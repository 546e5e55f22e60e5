"""What every detector promises, on any story; and phi against a naive second version."""

import math
import statistics
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.detect import Bertier, Chen, Fixed, PhiAccrual, Quantile
from outlast.detect.core.detector import Beats
from outlast.detect.core.heartbeat import Change, Watchlist
from outlast.detect.core.ring import Ring
from outlast.detect.core.scale import NEVER, Levels

MS = 1_000_000

KINDS: dict[str, Callable[[], Beats]] = {
    "fixed": lambda: Fixed(0.25, interval=0.1),
    "chen": lambda: Chen(0.05, window=5),
    "bertier": lambda: Bertier(window=5),
    "phi": lambda: PhiAccrual(pause=0.0, window=6, cap=0.9),
    "phi, all": lambda: PhiAccrual(pause=0.1, floor=1e-6, window=3, learn="all", cap=50.0),
    "exponential": lambda: PhiAccrual(shape="exponential", pause=0.05, window=5, cap=0.7),
    "quantile": lambda: Quantile(0.9, 2.0, window=5, cap=2.0),
}
each = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


class Kink(Beats):
    """A kind whose guesses are wild, and whose suspicion has a jump."""

    kind = "Kink"

    def __init__(self, guess_ms: int) -> None:
        super().__init__()
        self.guess_ms = guess_ms

    def describe(self) -> dict[str, int]:
        return {"guess_ms": self.guess_ms}

    def _learn(self, seq: int | None, at_ns: int, last_ns: int | None) -> None:
        """Nothing."""

    def _clear(self) -> None:
        """Nothing."""

    def _at(self, now_ns: int) -> float:
        silence_ms = (now_ns - (self.last_ns or 0)) / MS
        return silence_ms / 1000 + (5.0 if silence_ms >= 777 else 0.0)

    def _guess_ns(self, level: float) -> int:
        return (self.last_ns or 0) + self.guess_ms * MS


GAPS = st.one_of(st.integers(0, 300), st.integers(0, 3), st.integers(0, 20_000))
STEPS = st.tuples(GAPS, st.one_of(st.none(), st.integers(-3, 5)))
LEVELS = st.floats(1e-6, 1000.0, allow_nan=False)


def told(detector: Beats, steps: list[tuple[int, int | None]]) -> int:
    """Feed a story of gaps in milliseconds and steps of the number; return the last instant."""
    now, seq = 0, 10
    detector.beat(seq, now)
    for gap, step in steps:
        now += gap * MS
        if step is None:
            detector.beat(None, now)
        else:
            detector.beat(seq + step, now)
            seq = max(seq, seq + step)
    return now


@each
@settings(deadline=None, max_examples=40)
@given(steps=st.lists(STEPS, max_size=30), levels=st.lists(LEVELS, min_size=2, max_size=4))
def test_deadlines_are_exact_and_in_order(
    make: Callable[[], Beats], steps: list[tuple[int, int | None]], levels: list[float]
) -> None:
    detector = make()
    told(detector, steps)
    deadlines = []
    for level in sorted(levels):
        due = detector.deadline_ns(level)
        assert detector.suspicion(due) >= level
        assert detector.suspicion(due - 1) < level
        deadlines.append(due)
    assert deadlines == sorted(deadlines)


@settings(deadline=None, max_examples=60)
@given(guess=st.integers(-1000, 2_000_000), level=LEVELS)
def test_a_wild_guess_ends_at_the_exact_deadline(guess: int, level: float) -> None:
    detector = Kink(guess)
    detector.beat(None, 5 * MS)
    due = detector.deadline_ns(level)
    assert detector.suspicion(due - 1) < level <= detector.suspicion(due)


@each
@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(STEPS, max_size=30),
    instants=st.lists(st.integers(0, 60_000 * MS), min_size=2, max_size=20),
)
def test_suspicion_never_falls_while_nothing_comes(
    make: Callable[[], Beats], steps: list[tuple[int, int | None]], instants: list[int]
) -> None:
    detector = make()
    now = told(detector, steps)
    seen = [detector.suspicion(now + after) for after in sorted(instants)]
    # Floats may be off by their last digit: a thousand millionth of the scale is none of it.
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(seen))
    assert all(math.isfinite(one) and one >= 0 for one in seen)


@each
@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=20), gap=GAPS, back=st.integers(0, 10), level=LEVELS
)
def test_a_known_beat_moves_no_deadline(
    make: Callable[[], Beats],
    steps: list[tuple[int, int | None]],
    gap: int,
    back: int,
    level: float,
) -> None:
    detector = make()
    now = told(detector, steps)
    before = detector.deadline_ns(level)
    assert detector.last_seq is not None
    detector.beat(detector.last_seq - back, now + gap * MS)
    assert detector.deadline_ns(level) == before


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 5000), min_size=5, max_size=60), st.integers(1, 10_000))
def test_phi_is_that_of_a_naive_second_version(gaps: list[int], silence: int) -> None:
    window = 8
    phi = PhiAccrual(pause=0.2, floor=0.005, window=window, learn="all", cap=80_000.0)
    now = 0
    phi.beat(0, 0)
    for number, gap in enumerate(gaps, start=1):
        now += gap * MS
        phi.beat(number, now)
    kept = ([75, 125, *gaps])[-window:]
    normal = statistics.NormalDist(statistics.fmean(kept) + 200, max(5.0, statistics.pstdev(kept)))
    chance = 1.0 - normal.cdf(silence)
    mine = phi.suspicion(now + silence * MS)
    if chance > 1e-9:
        assert mine == pytest.approx(-math.log10(chance), abs=1e-4)
    else:
        assert mine > 8.9


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-(10**20), 10**20), max_size=40), st.integers(1, 12))
def test_the_ring_agrees_with_a_list(values: list[int], size: int) -> None:
    ring = Ring(size)
    for value in values:
        ring.add(value)
    kept = values[-size:]
    assert sorted(ring.values) == sorted(kept)
    assert ring.total == sum(kept)
    assert ring.squares == sum(value * value for value in kept)


PEERS = st.sampled_from(["a", "b", "c", "d"])
ACTS = st.one_of(
    st.tuples(st.just("beat"), PEERS, st.integers(0, 400)),
    st.tuples(st.just("forget"), PEERS, st.integers(0, 50)),
    st.tuples(st.just("watch"), PEERS, st.integers(0, 50)),
    st.tuples(st.just("due"), PEERS, st.integers(0, 900)),
    st.tuples(st.just("unwell"), PEERS, st.integers(0, 900)),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(ACTS, max_size=60))
def test_levels_after_looking_are_those_of_the_suspicion(acts: list[tuple[str, str, int]]) -> None:
    """Against the naive way: ask every peer each time. Levels only rise without a beat."""
    levels = Levels()
    made = Watchlist(lambda: PhiAccrual(pause=0.0, cap=2.0), levels, 3)
    now = 0
    seen: dict[str, str] = {}
    for act, name, gap in acts:
        now += (gap + 1) * MS  # what was put off by 1 ms is due
        if act == "beat":
            change = made.beat(name, None, now)
            known = name in made.names()
            assert (change is not None) == (known and seen.get(name, "trusted") != "trusted")
            if known:
                seen[name] = "trusted"
        elif act == "forget":
            assert made.forget(name) == (name in seen)
            seen.pop(name, None)
        elif act == "watch":
            if made.watch(name, now):
                seen.setdefault(name, "trusted")
        elif act == "unwell":
            assert not any(isinstance(one, Change) for one in made.due(now, False, now + MS))
        else:
            for one in made.due(now):
                assert isinstance(one, Change)
                assert (seen[one.peer], one.after != one.before) == (one.before, True)
                seen[one.peer] = one.after
            for peer in made.names():
                assert made.level(peer) == levels.name_of(made.suspicion(peer, now))
            assert made.next_ns() > now
        assert {peer: made.level(peer) for peer in made.names()} == seen
        assert len(made._heap) <= 2 * 3 + 16
    made.due(now + 10_000 * MS)
    assert made.next_ns() == NEVER
