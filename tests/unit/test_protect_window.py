"""Windows of a breaker against a list of all calls."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.kernel import ConfigError
from outlast.protect.core.window import FOREVER_NS, CountWindow, TimeWindow, Window

NS = 1_000_000_000

CALLS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["good", "failed", "slow", "both"])), max_size=60
)


def put(window: Window, what: str) -> None:
    if what == "good":
        window.good(1)
    else:
        window.add(failed=what != "slow", slow=what != "failed")


def counts(seen: list[str]) -> tuple[int, int, int]:
    failed = sum(what in {"failed", "both"} for what in seen)
    slow = sum(what in {"slow", "both"} for what in seen)
    return len(seen), failed, slow


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 12), calls=CALLS)
def test_a_count_window_has_the_last_calls(size: int, calls: list[tuple[int, str]]) -> None:
    window, seen = CountWindow(size).begin(), []
    for _, what in calls:
        put(window, what)
        seen.append(what)
        assert (window.calls, window.failures, window.slow) == counts(seen[-size:])
    assert window.turn(5 * NS) == FOREVER_NS


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 12), numbers=st.lists(st.integers(0, 15), max_size=12))
def test_many_successes_at_once_are_as_many_one_by_one(size: int, numbers: list[int]) -> None:
    at_once, one_by_one = CountWindow(size).begin(), CountWindow(size).begin()
    for number in numbers:
        at_once.good(number)
        for _ in range(number):
            one_by_one.good(1)
        for window in (at_once, one_by_one):
            window.add(failed=True, slow=False)
        assert (at_once.calls, at_once.failures) == (one_by_one.calls, one_by_one.failures)


@settings(max_examples=100, deadline=None)
@given(buckets=st.integers(1, 5), calls=CALLS)
def test_a_time_window_has_the_calls_of_its_buckets(
    buckets: int, calls: list[tuple[int, str]]
) -> None:
    window: Any = TimeWindow(2.0 * buckets, buckets=buckets).begin()
    now, begun = 50 * NS, None
    seen: list[tuple[int, str]] = []
    for seconds, what in calls:
        now += seconds * NS
        begun = now if begun is None else begun
        ends = window.turn(now)
        bucket = (now - begun) // (2 * NS)
        assert ends == begun + (bucket + 1) * 2 * NS
        put(window, what)
        seen.append((bucket, what))
        recent = [kept for at, kept in seen if at > bucket - buckets]
        assert (window.calls, window.failures, window.slow) == counts(recent)


def test_a_window_of_time_never_has_a_bucket_of_no_length() -> None:
    window = TimeWindow(1e-9, buckets=10).begin()
    assert window.turn(7) == 8


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CountWindow(0), "CountWindow: size is 0; 1 to 100,000"),
        (lambda: CountWindow(100_001), "size is 100001"),
        (lambda: CountWindow(2.5), "size is 2.5"),
        (lambda: CountWindow("10"), "size is '10'"),
        (lambda: TimeWindow(0), "TimeWindow: seconds is 0; above 0"),
        (lambda: TimeWindow("30"), "seconds is '30'"),
        (lambda: TimeWindow(float("inf")), "seconds is inf"),
        (lambda: TimeWindow(float("nan")), "seconds is nan"),
        (lambda: TimeWindow(1, buckets=0), "buckets is 0; 1 to 1,000"),
        (lambda: TimeWindow(1, buckets=1.5), "buckets is 1.5"),
        (lambda: TimeWindow(1, buckets=1_001), "buckets is 1001"),
    ],
)
def test_windows_check_their_settings(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_windows_are_values() -> None:
    assert CountWindow(5) == CountWindow(5) != CountWindow(6)
    assert TimeWindow(5) == TimeWindow(5.0) != TimeWindow(5, buckets=3)
    assert CountWindow(5) != TimeWindow(5)
    assert TimeWindow(5) != 5
    assert len({CountWindow(5), CountWindow(5), TimeWindow(5), TimeWindow(5)}) == 2
    assert repr(CountWindow(5)) == "CountWindow(5)"
    assert repr(TimeWindow(2.5, buckets=5)) == "TimeWindow(2.5, buckets=5)"
