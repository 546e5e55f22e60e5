"""``PhiAccrual``: how unlikely is it, from the intervals so far, that a beat is still to come?

Hayashibara, Defago, Yared and Katayama, SRDS 2004: take the intervals of the last beats for draws
from a normal distribution; the suspicion after a silence ``t`` is ``-log10`` of the chance that an
interval exceeds ``t``. Regular beats make it strict by itself, irregular ones patient.

Three things that the paper leaves open are what makes it usable, and all are bounds on what may be
learnt: a deviation of nothing would call a hiccup a crash (``floor``), pauses are no part of a
normal distribution (``pause``), and freezes must not make it blind (``learn``, ``cap``).
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, get_args

from outlast.detect.core.learning import Learn, Learning
from outlast.detect.core.scale import NS, nanoseconds, normal_phi, normal_z
from outlast.kernel import ConfigError

Shape = Literal["normal", "exponential"]

_LN10 = math.log(10.0)
_z_of = lru_cache(maxsize=64)(normal_z)


class PhiAccrual(Learning):
    """The accrual detector of Hayashibara et al., with bounds on what it may learn.

    With the defaults a sender of regular beats every 0.1 s that stops is at ``watch`` after
    0.41 s, at ``avoid`` after 0.43 s and at ``evict`` after 0.46 s. In each, 0.3 s are ``pause``;
    less of it is quicker and accuses frozen senders.

    Args:
        interval: Seconds between beats at the sender: what is expected before anything is learnt.
        pause: A stillness that is no sign of failure, in seconds: added to the mean.
        floor: The least standard deviation, in seconds. Above 0.
        window: Intervals that are remembered.
        first: What the first intervals are taken to be, in seconds; ``interval`` by default. With
            a quarter of it as their deviation, until the window has gone round once.
        learn: ``"trusted"``: intervals that ended a suspicion of ``learn_level`` or more are not
            learnt, unless ten come in a row. ``"all"``: as in the paper.
        learn_level: The suspicion from which an interval is not learnt; that of ``avoid``.
        cap: Silence in seconds at which ``evict`` (8) is reached whatever was learnt. By default
            ``interval + pause + 10 * floor``, and five intervals at least: 0.5 s. Give more
            where jitter is large beside ``pause``; a sender that is slower is suspected for good.
        shape: ``"exponential"`` takes the intervals for exponentially distributed, as Cassandra
            does: ``phi = (t - pause) / (mean * ln 10)``. It does not see how regular beats are;
            the default ``cap`` is twenty intervals then, and ``pause``.

    Raises:
        ConfigError: Definite. A value is out of range.

    >>> phi = PhiAccrual()
    >>> for n in range(300):
    ...     phi.beat(n, n * 100_000_000)
    >>> phi.detection_ns(8.0) // 1_000_000
    456
    """

    kind = "PhiAccrual"
    __slots__ = ("_first_ns", "_floor_ns", "_mean_ns", "_pause_ns", "_shape", "_spread_ns")

    def __init__(
        self,
        *,
        interval: float = 0.1,
        pause: float = 0.3,
        floor: float = 0.01,
        window: int = 200,
        first: float | None = None,
        learn: Learn = "trusted",
        learn_level: float = 3.0,
        cap: float | None = None,
        shape: Shape = "normal",
    ) -> None:
        self._pause_ns = nanoseconds("PhiAccrual", "pause", pause, 0.0)
        self._floor_ns = nanoseconds("PhiAccrual", "floor", floor, 1e-6)
        if shape not in get_args(Shape):
            message = f"PhiAccrual: shape is {shape!r}; 'normal' or 'exponential' would be right"
            raise ConfigError(message)
        self._shape: Shape = shape
        super().__init__(
            interval=interval, window=window, learn=learn, learn_level=learn_level, cap=cap
        )
        self._first_ns = (
            self._interval_ns if first is None else nanoseconds("PhiAccrual", "first", first, 1e-3)
        )
        self._restart(None)

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {
            **super().describe(),
            "pause": self._pause_ns / NS,
            "floor": self._floor_ns / NS,
            "first": self._first_ns / NS,
            "shape": self._shape,
        }

    def snapshot(self) -> Mapping[str, Any]:
        """Return the live state, with the mean and the deviation that count, in seconds."""
        return {
            **super().snapshot(),
            "mean": (self._mean_ns - self._pause_ns) / NS,
            "deviation": self._spread_ns / NS,
        }

    def _cap_default_ns(self) -> int:
        if self._shape == "exponential":
            return 20 * self._interval_ns + self._pause_ns
        return max(5 * self._interval_ns, self._interval_ns + self._pause_ns + 10 * self._floor_ns)

    def _add(self, interval_ns: int) -> None:
        self.intervals.add(interval_ns)
        self._fit()

    def _restart(self, pace_ns: int | None) -> None:
        first_ns = self._first_ns if pace_ns is None else pace_ns
        self.intervals.clear()
        self.intervals.add(first_ns - first_ns // 4)
        self.intervals.add(first_ns + first_ns // 4)
        self._fit()

    def _fit(self) -> None:
        self._mean_ns = self.intervals.mean() + self._pause_ns
        self._spread_ns = max(self._floor_ns, self.intervals.deviation())

    def _raw(self, silence_ns: int) -> float:
        if self._shape == "normal":
            return normal_phi((silence_ns - self._mean_ns) / self._spread_ns)
        mean_ns = max(1, self._mean_ns - self._pause_ns)
        return max(0, silence_ns - self._pause_ns) / (mean_ns * _LN10)

    def _raw_guess(self, level: float) -> int:
        if self._shape == "normal":
            return self._mean_ns + round(_z_of(level) * self._spread_ns)
        return self._pause_ns + round((self._mean_ns - self._pause_ns) * level * _LN10)
