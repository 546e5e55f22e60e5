"""Where a quantity is going: a robust slope, and whether it really only ever grows.

A leak shows as a slope. One sample says nothing of it, and a least-squares line follows a single
large allocation; the median of the slopes between all pairs of samples (Theil 1950, Sen 1968)
does not mind up to 29 % of bad samples. Even that median rises when one step stands in the middle
of a short window, so growth is only called growth if *each third* of the window has its share.

Two windows look at once:

* *fast*: all samples of a few seconds, nearly all of them above all before. A drop inside of it
  (a saw-tooth's edge) ends it, and what was already reached before the window does not count: a
  saw-tooth that is longer than the window is taken for a leak at most on its first rise.
* *slow*: the lowest sample of each bucket. Garbage that is collected comes and goes between two
  low waters; what rises there stays.
"""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_NS: Final = 1_000_000_000
_SAMPLES_MIN: Final = 5
_PART: Final = 0.25
"""A third of the window must have at least this part of the growth that the slope promises."""
_BUCKETS: Final = 20
_BUCKETS_MIN: Final = 8
_RISING: Final = 0.8
_RISING_FAST: Final = 0.9
"""Share of pairs that must rise (Kendall 1938). Eight samples in any order have it 1 in 1,100."""


class Trend:
    """Theil-Sen slope over a bounded window of samples. Not thread-safe.

    Args:
        window_ns: Samples older than this are forgotten. Above 0.
        samples_max: And more than so many, the oldest first. At least 2; an update costs its
            square.

    >>> trend = Trend(window_ns=10_000_000_000)
    >>> for second, value in enumerate([5, 7, 9, 400, 13, 15]):
    ...     trend.add(second * 1_000_000_000, value)
    >>> trend.slope()
    2.0
    """

    __slots__ = ("_samples", "_window_ns")

    def __init__(self, window_ns: int, samples_max: int = 24) -> None:
        self._window_ns = window_ns
        self._samples: deque[tuple[int, float]] = deque(maxlen=max(samples_max, 2))

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, now_ns: int, value: float) -> None:
        """Take a sample. One that is not later than the last one replaces it."""
        samples = self._samples
        if samples and samples[-1][0] >= now_ns:
            samples.pop()
        samples.append((now_ns, value))
        while samples[0][0] < now_ns - self._window_ns:
            samples.popleft()

    def clear(self) -> None:
        """Forget all samples."""
        self._samples.clear()

    @property
    def span_ns(self) -> int:
        """Time between the first and the last sample."""
        return self._samples[-1][0] - self._samples[0][0] if self._samples else 0

    def slope(self) -> float | None:
        """Return the median slope in units per second; ``None`` below two samples."""
        slopes = sorted(
            (value - earlier) * _NS / (at_ns - before_ns)
            for index, (at_ns, value) in enumerate(self._samples)
            for before_ns, earlier in tuple(self._samples)[:index]
        )
        if not slopes:
            return None
        half = len(slopes) // 2
        return slopes[half] if len(slopes) % 2 else (slopes[half - 1] + slopes[half]) / 2

    def rising(self) -> float:
        """Return the share of pairs, 0 to 1, whose later sample is the higher one."""
        values = [value for _, value in self._samples]
        pairs = len(values) * (len(values) - 1) // 2
        up = sum(
            1
            for index, value in enumerate(values)
            for earlier in values[:index]
            if value > earlier
        )
        return up / pairs if pairs else 0.0

    def everywhere(self, slope: float) -> bool:
        """Whether each third of the window rose by its part of what ``slope`` promises."""
        samples = tuple(self._samples)
        begin_ns, span_ns = samples[0][0], self.span_ns
        edges = [begin_ns + span_ns * part // 3 for part in range(4)]
        values = [min(samples, key=lambda one: abs(one[0] - edge)) for edge in edges]
        return all(
            late > early and high - low >= _PART * slope * (late - early) / _NS
            for (early, low), (late, high) in pairwise(values)
        )


@dataclass(frozen=True, slots=True)
class Growing:
    """A quantity grows by ``slope`` a second; ``seconds_to_limit`` is ``None`` without a limit."""

    slope: float
    seconds_to_limit: float | None


class Growth:
    """Decides whether a quantity grows as a leak does. Not thread-safe.

    Args:
        within_ns: Width of the fast window.
        rate: Growth a second that counts in the fast window, whatever the limit; ``None``: none.
        soon_ns: Growth counts in the fast window if it would reach the limit within this.
        horizon_ns: And in the slow one, within this.
        bucket_ns: Width of a bucket of the slow window; eight are needed and twenty kept.
    """

    __slots__ = (
        "_before", "_bucket_ends_ns", "_bucket_ns", "_fast", "_horizon_ns", "_low", "_peak",
        "_pending", "_rate", "_slow", "_soon_ns", "_within_ns",
    )  # fmt: skip

    def __init__(
        self, within_ns: int, rate: float | None, soon_ns: int, horizon_ns: int, bucket_ns: int
    ) -> None:
        self._within_ns = within_ns
        self._rate = rate
        self._soon_ns = soon_ns
        self._horizon_ns = horizon_ns
        self._bucket_ns = bucket_ns
        self._fast = Trend(within_ns)
        self._slow = Trend(bucket_ns * (_BUCKETS + 1), _BUCKETS)
        self._pending: deque[tuple[int, float]] = deque(maxlen=64)
        self._peak: float | None = None
        self._low: float | None = None
        self._bucket_ends_ns = 0
        self._before = False

    def add(self, now_ns: int, value: float, limit: float | None) -> Growing | None:
        """Take a sample and say whether it grows, as the one before did, too.

        ``limit`` is where it must not get. Samples should not come at even times: one taken at
        about the pace of a saw-tooth sees it rise slowly, where there is no growth at all.
        """
        self._remember(now_ns, value)
        self._fast.add(now_ns, value)
        self._bucket(now_ns, value)
        found = self._grows_fast(value, limit) or self._grows_slowly(value, limit)
        before, self._before = self._before, found is not None
        return found if before else None

    def _remember(self, now_ns: int, value: float) -> None:
        """Keep the highest value from before the fast window."""
        pending = self._pending
        while pending and pending[0][0] < now_ns - self._within_ns:
            old = pending.popleft()[1]
            self._peak = old if self._peak is None else max(self._peak, old)
        if len(pending) == pending.maxlen:
            pending.popleft()
        pending.append((now_ns, value))

    def _bucket(self, now_ns: int, value: float) -> None:
        if self._low is None:
            self._bucket_ends_ns, self._low = now_ns + self._bucket_ns, value
        elif now_ns >= self._bucket_ends_ns:
            self._slow.add(self._bucket_ends_ns, self._low)
            self._bucket_ends_ns, self._low = now_ns + self._bucket_ns, value
        else:
            self._low = min(self._low, value)

    def _grows_fast(self, value: float, limit: float | None) -> Growing | None:
        fast = self._fast
        if len(fast) < _SAMPLES_MIN or fast.span_ns < self._within_ns * 3 // 4:
            return None
        slope = fast.slope()
        if slope is None or slope <= 0 or fast.rising() < _RISING_FAST:
            return None
        if not fast.everywhere(slope) or (self._peak is not None and value <= self._peak):
            return None
        left = _seconds_left(value, slope, limit)
        if self._rate is not None and slope >= self._rate:
            return Growing(slope, left)
        if left is not None and left <= self._soon_ns / _NS:
            return Growing(slope, left)
        return None

    def _grows_slowly(self, value: float, limit: float | None) -> Growing | None:
        slow = self._slow
        if len(slow) < _BUCKETS_MIN:
            return None
        slope = slow.slope()
        if slope is None or slope <= 0 or slow.rising() < _RISING:
            return None
        left = _seconds_left(value, slope, limit)
        if left is not None and left <= self._horizon_ns / _NS:
            return Growing(slope, left)
        return None


def _seconds_left(value: float, slope: float, limit: float | None) -> float | None:
    return None if limit is None else max(limit - value, 0.0) / slope
