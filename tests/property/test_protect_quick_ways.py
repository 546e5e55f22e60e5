"""The quick ways say the same as the plain ones: slots that are free now, samples at once."""

import threading
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.kernel import Prng
from outlast.protect.core.adaptive import AIMD, Gradient, Measuring, Vegas
from outlast.protect.core.rate import MICRO, Gcra, SlidingLog

MS = 1_000_000
steps = st.lists(st.tuples(st.integers(0, 400 * MS), st.booleans()), max_size=60)


class Plain:
    """The rule of ``Gcra`` as it stands in its docstring, in whole numbers and nothing else."""

    def __init__(self, rate_micro: int, per_ns: int, burst: int) -> None:
        self.interval, self.unit, self.burst = per_ns * MICRO, rate_micro, burst
        self.tat = -(1 << 200)

    def reserve(self, now_ns: int, max_wait_ns: int, cost: int = 1) -> int:
        now = now_ns * self.unit
        after = max(self.tat, now) + cost * self.interval
        wait_ns = max(0, -((self.burst * self.interval + now - after) // self.unit))
        if wait_ns > max_wait_ns:
            return -wait_ns
        self.tat = after
        return wait_ns


@given(
    steps, st.integers(1, 20 * MICRO), st.sampled_from([1, 7, 1_000_000_007]), st.integers(1, 4)
)
@settings(deadline=None, max_examples=150)
def test_a_bucket_gives_the_slots_of_its_plain_rule(
    story: list[tuple[int, bool]], rate_micro: int, per_ns: int, burst: int
) -> None:
    ours, plain, now_ns = Gcra(threading.Lock(), rate_micro, per_ns, burst), None, 0
    plain = Plain(rate_micro, per_ns, burst)
    for number, (pause_ns, patient) in enumerate(story):
        now_ns += pause_ns
        cost = 1 + number % burst
        if patient:
            assert ours.reserve(now_ns, per_ns, cost) == plain.reserve(now_ns, per_ns, cost)
        else:
            assert ours.quick(now_ns, 0) == plain.reserve(now_ns, 0)


@given(steps, st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_a_slot_that_is_free_is_taken_and_otherwise_nothing_is(
    story: list[tuple[int, bool]], size: int
) -> None:
    now_ns = 0
    rules: list[tuple[Any, Any]] = [
        (make(), make())
        for make in (
            lambda: Gcra(threading.Lock(), 3 * MICRO, 1000 * MS, size),
            lambda: SlidingLog(threading.Lock(), size, 500 * MS),
        )
    ]
    for pause_ns, patient in story:
        now_ns += pause_ns
        most_ns = 300 * MS if patient else 0
        for twice, once in rules:
            answer = twice.quick(now_ns, 0)
            if answer:
                answer = twice.reserve(now_ns, most_ns)
            assert answer == once.reserve(now_ns, most_ns)


def take(state: Any, rtt_ns: int, in_flight: int, ok: bool, now_ns: int) -> int:
    """Take one sample as the rule says it, looking everything up each time."""
    if state._drain and in_flight > int(state.limit):
        return int(state.limit)
    state._drain = False
    if state._skip:
        state._skip -= 1
        return int(state.limit)
    if not ok and rtt_ns < state.base:
        return int(state.limit)
    if state._count and now_ns - state._begun_ns > 10 * 1000 * MS + 10 * state.base:
        state._starved()
    if not state._count:
        state._begun_ns = now_ns
    clipped_ns = min(rtt_ns, int(10 * state.base)) if state.base else rtt_ns
    state._count += 1
    state._flights += in_flight
    state._total_ns += clipped_ns
    state._squares += clipped_ns * clipped_ns
    if state._count >= state._needed():
        state._close(now_ns)
    return int(state.limit)


@given(
    st.integers(0, 1 << 32),
    st.integers(1, 60),
    st.sampled_from([Gradient(probe_interval=0.5), Vegas(probe_interval=0.5)]),
)
@settings(deadline=None, max_examples=40)
def test_samples_at_once_are_samples_one_by_one(
    seed: int, size: int, kind: Gradient | Vegas
) -> None:
    ours, plain = (kind.begin(6, 1, 12, Prng(seed)) for _ in range(2))
    prng, now_ns, part = Prng(seed), 0, []
    for number in range(1500):
        long = 40 if number % 500 > 250 else 1  # at times slow: bases change, calls are clipped
        pause_ns = 25_000 * MS if prng.chance(1, 400) else prng.below(30 * MS)
        now_ns += pause_ns
        rtt_ns = 1 + prng.below(30 * MS) * (long if prng.chance(9, 10) else 300)
        part.append((rtt_ns, 1 + prng.below(12), prng.chance(9, 10), now_ns))
        if len(part) < size:
            continue
        limits = [take(plain, *sample) for sample in part]
        assert ours.on_samples(part) == limits[-1]  # type: ignore[attr-defined]
        for slot in Measuring.__slots__:
            assert slot == "_prng" or getattr(ours, slot) == getattr(plain, slot), slot
        part.clear()


def test_an_algorithm_need_not_take_several_at_once() -> None:
    assert not hasattr(AIMD().begin(5, 1, 10, Prng(1)), "on_samples")
