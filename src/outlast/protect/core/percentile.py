"""Learning a percentile of latencies in bounded memory.

A latency falls into a bucket whose width is a fixed share of its value (logarithms by bit length,
each power of two cut into 32: the layout of HdrHistogram). Two windows of equal length are
kept, the present one and the one before; a question looks at both, so that the answer rests on
between one and two windows of time and old behaviour is forgotten. Nothing is ever scaled or
averaged: counts only.

States: *unlearned* (fewer than ``min_samples`` in both windows: the answer is ``None``),
*learned*.
"""

_UNIT_BITS = 10
"""Buckets start at 1024 ns: shorter differences do not matter to any wait."""
_SUB_BITS = 5
_SUB = 1 << _SUB_BITS
_VALUE_MAX = (1 << 32) - 1
"""In units; about 73 minutes. What is longer counts as that."""
_PPM = 1_000_000


def bucket_of(ns: int) -> int:
    """Return the number of the bucket into which ``ns`` falls."""
    value = min(max(ns, 0) >> _UNIT_BITS, _VALUE_MAX)
    shift = value.bit_length() - _SUB_BITS - 1
    return value if shift <= 0 else (shift << _SUB_BITS) + (value >> shift)


def upper_ns(bucket: int) -> int:
    """Return the longest latency, in nanoseconds, that falls into ``bucket``."""
    shift = max((bucket >> _SUB_BITS) - 1, 0)
    value = bucket - (shift << _SUB_BITS)
    return (((value + 1) << shift) << _UNIT_BITS) - 1


BUCKETS_MAX = bucket_of(_VALUE_MAX << _UNIT_BITS) + 1


class Percentile:
    """One percentile of the latencies of the last one to two windows.

    The answer is at least the exact percentile (nearest rank) of what is kept and at most
    1/32 above it, or 1024 ns if that is more; latencies above 73 minutes count as 73 minutes.

    Memory: at most ``BUCKETS_MAX`` (928) counts in each of two windows. Not thread-safe.

    Args:
        ppm: Which percentile, in millionths: 950 000 is the 95th. Above 0, at most a million.
        window_ns: Length of a window.
        min_samples: As long as fewer are kept, there is no answer.
    """

    __slots__ = ("_before", "_kept_before", "_kept_now", "_now", "_started_ns", "min_samples",
                 "ppm", "window_ns")  # fmt: skip

    def __init__(self, ppm: int, *, window_ns: int, min_samples: int) -> None:
        self.ppm = ppm
        self.window_ns = window_ns
        self.min_samples = min_samples
        self._now: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._kept_now = 0
        self._kept_before = 0
        self._started_ns: int | None = None

    @property
    def samples(self) -> int:
        """How many latencies are kept."""
        return self._kept_now + self._kept_before

    def record(self, latency_ns: int, now_ns: int) -> None:
        """Keep a latency that was measured at ``now_ns``."""
        self.turn(now_ns)
        bucket = bucket_of(latency_ns)
        self._now[bucket] = self._now.get(bucket, 0) + 1
        self._kept_now += 1

    def turn(self, now_ns: int) -> None:
        """Forget what is too old at ``now_ns``."""
        if self._started_ns is None:
            self._started_ns = now_ns
            return
        age_ns = now_ns - self._started_ns
        if age_ns < self.window_ns:
            return
        if age_ns < 2 * self.window_ns:
            self._before, self._kept_before = self._now, self._kept_now
            self._started_ns += self.window_ns
        else:
            self._before, self._kept_before = {}, 0
            self._started_ns = now_ns
        self._now, self._kept_now = {}, 0

    def value_ns(self) -> int | None:
        """Return the percentile in nanoseconds, ``None`` while unlearned."""
        total = self._kept_now + self._kept_before
        if total < self.min_samples or total == 0:
            return None
        rank = -(-total * self.ppm // _PPM)
        seen = 0
        bucket = 0
        for bucket in sorted(self._now.keys() | self._before.keys()):
            seen += self._now.get(bucket, 0) + self._before.get(bucket, 0)
            if seen >= rank:
                break
        return upper_ns(bucket)
