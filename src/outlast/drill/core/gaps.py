"""When a service answered: gaps between acknowledgements and rates per second.

An acknowledgement some milliseconds after a kill was already in flight, so the figure that
counts is the *longest gap* between consecutive acknowledgements that touches the window
after the fault, not the first acknowledgement after it.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

_NS = 1_000_000_000


@dataclass(slots=True)
class AckTimes:
    """Instants of acknowledgements, in monotonic nanoseconds, in order."""

    times: list[int] = field(default_factory=list)

    def add(self, now_ns: int) -> None:
        """Record one acknowledgement."""
        self.times.append(now_ns)

    def longest_gap_ns(self, start_ns: int, end_ns: int) -> int:
        """Return the longest time without an acknowledgement that overlaps the window.

        A gap that began before the window counts whole, since what was acknowledged last was in
        flight; one that goes on after it counts up to ``end_ns``, where the next fault begins.
        """
        if not self.times:
            return end_ns - start_ns
        i = bisect_left(self.times, start_ns)
        previous = self.times[i - 1] if i > 0 else start_ns
        longest = 0
        while previous < end_ns:
            following = min(self.times[i], end_ns) if i < len(self.times) else end_ns
            longest = max(longest, following - previous)
            previous = following
            if i >= len(self.times):
                break
            i += 1
        return longest

    def rate(self, now_ns: int, window_ns: int = _NS) -> float:
        """Return acknowledgements per second over the last ``window_ns``."""
        count = len(self.times) - bisect_left(self.times, now_ns - window_ns)
        return count * _NS / window_ns

    def per_second(self, start_ns: int, end_ns: int) -> list[int]:
        """Return how many acknowledgements each whole second from ``start_ns`` saw."""
        seconds = max(0, -(-(end_ns - start_ns) // _NS))
        counts = [0] * seconds
        for at in self.times[bisect_left(self.times, start_ns) :]:
            if at >= end_ns:
                break
            counts[(at - start_ns) // _NS] += 1
        return counts


def percentile(values: list[int], percent: float) -> int:
    """Return the nearest-rank percentile of ``values``, 0 when empty.

    >>> percentile([30, 10, 20], 50)
    20
    """
    if not values:
        return 0
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]
