"""The learned percentile against the exact one, and the shelf against a plain model."""

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.protect.core.cache import Shelf
from outlast.protect.core.percentile import BUCKETS_MAX, Percentile, bucket_of, upper_ns

LATENCIES = st.one_of(
    st.integers(0, 5_000), st.integers(0, 10_000_000), st.integers(0, 3_000_000_000_000)
)


@settings(deadline=None)
@given(st.lists(LATENCIES, min_size=1, max_size=200), st.integers(1, 1_000_000))
def test_the_answer_is_within_a_thirty_second_above_the_exact_percentile(
    latencies: list[int], ppm: int
) -> None:
    percentile = Percentile(ppm, window_ns=1_000, min_samples=1)
    for latency in latencies:
        percentile.record(latency, 5)
    exact = sorted(latencies)[-(-len(latencies) * ppm // 1_000_000) - 1]
    value = percentile.value_ns()
    assert value is not None
    assert exact <= value <= exact + max(exact // 32, 1024)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 10**9)), max_size=60),
    st.integers(1, 8),
)
def test_what_is_kept_is_of_one_to_two_windows(
    steps: list[tuple[int, int]], min_samples: int
) -> None:
    window, now = 100, 0
    percentile = Percentile(500_000, window_ns=window, min_samples=min_samples)
    kept: list[int] = []
    for gap, latency in steps:
        now += gap
        percentile.record(latency, now)
        kept.append(now)
        must = sum(at > now - window for at in kept)
        may = sum(at > now - 2 * window for at in kept)
        assert must <= percentile.samples <= may
        assert (percentile.value_ns() is None) == (percentile.samples < min_samples)


def test_silence_of_two_windows_forgets_everything() -> None:
    percentile = Percentile(500_000, window_ns=100, min_samples=1)
    percentile.record(5, 0)
    percentile.turn(199)
    assert percentile.samples == 1
    percentile.turn(300)
    assert percentile.value_ns() is None


@settings(deadline=None)
@given(st.integers(-5, 1 << 60))
def test_buckets_are_bounded_and_hold_what_falls_into_them(ns: int) -> None:
    bucket = bucket_of(ns)
    assert 0 <= bucket < BUCKETS_MAX
    if 0 <= ns < 1 << 42:
        assert upper_ns(bucket - 1) < ns <= upper_ns(bucket) if bucket else ns <= upper_ns(0)
    assert bucket_of(upper_ns(bucket)) == bucket


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["put", "find", "drop"]), st.integers(0, 6)), max_size=80),
    st.integers(1, 4),
)
def test_a_shelf_is_bounded_and_tells_only_what_was_put_last(
    steps: list[tuple[str, int]], room: int
) -> None:
    shelf = Shelf(ttl_ns=1, stale_ns=1, ahead_ns=0, max_entries=room)
    last: dict[int, int] = {}
    for now, (step, key) in enumerate(steps):
        if step == "put":
            shelf.put(key, now, now)
            last[key] = now
        elif step == "drop":
            shelf.drop(key)
            last.pop(key, None)
        entry = shelf.find(key)
        assert len(shelf) <= room
        assert (entry is not None) or step != "put"
        if entry is not None:
            assert entry.value == last[key]
    assert set(shelf.keys()) <= set(last)
