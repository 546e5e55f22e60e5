"""``Quantile``: suspected after a multiple of an interval that few were longer than.

It assumes no distribution. The window holds all that it knows, so a quantile close to 1 needs a
window of many times ``1 / (1 - q)`` beats before it means what it says.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import Any

from outlast.detect.core.learning import Learn, Learning
from outlast.detect.core.scale import EVICT, NS, number


class Quantile(Learning):
    """Suspected after ``factor`` times the ``q`` quantile of the last intervals.

    On the scale: the quantile itself is 0, ``factor`` times of it is ``evict`` (8), evenly in
    between. Until two beats have come the interval stands for the quantile.

    Args:
        q: From 0 to 1; 0.99: one interval in a hundred was longer.
        factor: How many of them are suspicious. Above 1.
        interval: Seconds between beats at the sender: what is expected at first.
        window: Intervals that are remembered.
        learn: As for :class:`~outlast.detect.PhiAccrual`.
        learn_level: As for :class:`~outlast.detect.PhiAccrual`.
        cap: Silence in seconds at which ``evict`` (8) is reached whatever was learnt; ten
            intervals by default.

    Raises:
        ConfigError: Definite. A value is out of range.
    """

    kind = "Quantile"
    __slots__ = ("_factor", "_ordered", "_q", "_quantile_ns")

    def __init__(
        self,
        q: float = 0.99,
        factor: float = 3.0,
        *,
        interval: float = 0.1,
        window: int = 200,
        learn: Learn = "trusted",
        learn_level: float = EVICT,
        cap: float | None = None,
    ) -> None:
        super().__init__(
            interval=interval, window=window, learn=learn, learn_level=learn_level, cap=cap
        )
        self._q = number("Quantile", "q", q, 0.0, 1.0)
        self._factor = number("Quantile", "factor", factor, 1.001, 1000.0)
        self._ordered: list[int] = []
        self._quantile_ns = self._interval_ns

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {**super().describe(), "q": self._q, "factor": self._factor}

    def _add(self, interval_ns: int) -> None:
        gone = self.intervals.add(interval_ns)
        ordered = self._ordered
        if gone is not None:
            del ordered[bisect_left(ordered, gone)]
        insort(ordered, interval_ns)
        rank = -int(-self._q * len(ordered) // 1)  # ceiling
        self._quantile_ns = max(1, ordered[max(rank, 1) - 1])

    def _restart(self, pace_ns: int | None) -> None:
        super()._restart(pace_ns)
        self._ordered = []
        self._quantile_ns = self._interval_ns if pace_ns is None else pace_ns

    def _raw(self, silence_ns: int) -> float:
        late_ns = silence_ns - self._quantile_ns
        if late_ns <= 0:
            return 0.0
        return EVICT * late_ns / max(1.0, self._quantile_ns * (self._factor - 1.0))

    def _raw_guess(self, level: float) -> int:
        span = max(1.0, self._quantile_ns * (self._factor - 1.0))
        return self._quantile_ns + round(span * level / EVICT)

    def snapshot(self) -> Mapping[str, Any]:
        """Return the live state, with the quantile that counts, in seconds."""
        return {**super().snapshot(), "quantile": self._quantile_ns / NS}
