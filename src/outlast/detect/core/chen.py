"""``Chen`` and ``Bertier``: when the next beat should come, from when the last ones should have.

Beat ``i`` leaves at about ``i`` times the interval. So each arrival, less ``i`` intervals, says
where the sender's clock began, plus one delay; the mean of the last ones plus ``i + 1`` intervals
is when the next one is to be expected (Chen, Toueg and Aguilera, IEEE Trans. Computers 51(5),
2002, section 6). A beat that was late does not make the next one late: this is what numbers buy.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from outlast.detect.core.detector import Slope
from outlast.detect.core.ring import Ring
from outlast.detect.core.scale import NS, nanoseconds, number, whole
from outlast.kernel import ConfigError

_JUMP = 1000
"""Intervals by which numbers and time may disagree before it must be another sender."""


class _Expected(Slope):
    """Estimates the arrival of the next beat. Beats without numbers are counted by their times."""

    __slots__ = ("_count", "_interval_ns", "_offsets", "_window")

    def __init__(self, interval: float, window: int) -> None:
        super().__init__()
        self._interval_ns = nanoseconds(self.kind, "interval", interval, 1e-3)
        self._window = whole(self.kind, "window", window, 1, 100_000)
        self._offsets = Ring(self._window)
        self._count = 0

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {"kind": self.kind, "interval": self._interval_ns / NS, "window": self._window}

    def expected_ns(self) -> int:
        """Return when the next beat is to be expected."""
        if not self._offsets:
            return (self.last_ns or 0) + self._interval_ns
        return self._offsets.mean() + (self._count + 1) * self._interval_ns

    def _learn(self, seq: int | None, at_ns: int, last_ns: int | None) -> None:
        interval_ns = self._interval_ns
        if last_ns is None:
            self._count = seq or 0
        elif seq is None:
            passed = round((at_ns - self._offsets.mean()) / interval_ns)
            self._count = max(self._count, passed)
        else:
            odd = seq - self._count - (at_ns - last_ns) // interval_ns
            if self.last_seq is None or abs(odd) > _JUMP:
                self._clear()  # it gives numbers from now on, or is another sender
            self._count = seq
        if self._offsets:
            self._late(at_ns - self._offsets.mean() - self._count * interval_ns)
        self._offsets.add(at_ns - self._count * interval_ns)

    def _late(self, error_ns: int) -> None:
        """A beat came ``error_ns`` after it was expected."""

    def _clear(self) -> None:
        self._offsets.clear()
        self._count = 0

    def _span(self) -> tuple[int, int]:
        # Not before the last beat: a window of stragglers may expect the next one in the past.
        zero_ns = max(self.expected_ns(), self.last_ns or 0)
        return zero_ns, zero_ns + self._margin()

    @abstractmethod
    def _margin(self) -> int:
        """Return how long after the expected arrival ``evict`` is."""


class Chen(_Expected):
    """Suspected ``margin`` seconds after the next beat was to be expected (NFD-E of the paper).

    Its detection time hardly varies, and with numbered beats it is the tightest there is for the
    mistakes that it makes. It takes the interval for granted: a sender whose pace drifts by a
    hundredth is expected too early or too late by half a window of that.

    On the scale: the expected arrival is 0 and the margin ends at ``evict`` (8), evenly in
    between; the paper knows only the latter. Without numbers a beat is taken for the one that was
    due nearest to it; numbers that leap away from the time begin anew.

    Args:
        margin: Seconds after the expected arrival; see :func:`~outlast.detect.for_goal`.
        interval: Seconds between beats at the sender.
        window: Beats over which the expectation is averaged.

    Raises:
        ConfigError: Definite. A value is out of range.
    """

    kind = "Chen"
    __slots__ = ("_margin_ns",)

    def __init__(self, margin: float = 0.4, *, interval: float = 0.1, window: int = 200) -> None:
        super().__init__(interval, window)
        self._margin_ns = nanoseconds("Chen", "margin", margin, 1e-6)

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {**super().describe(), "margin": self._margin_ns / NS}

    def _margin(self) -> int:
        return self._margin_ns


class Bertier(_Expected):
    """Chen's expectation with a margin that follows how wrong it was (Bertier et al., DSN 2002).

    The margin is ``beta`` times a moving mean of the error plus ``phi`` times its moving
    deviation, as TCP computes its retransmission timeout. It is the quickest of all and wrong
    often: good for ``watch`` (a hedge, a second look), too jumpy to remove anybody.

    On the scale: the expected arrival is 0, the margin ends at ``evict`` (8). We keep the margin
    at ``floor`` or above, where the paper lets it fall to nothing.

    Args:
        interval: Seconds between beats at the sender.
        beta: Weight of the mean error.
        phi: Weight of its deviation.
        gamma: How quickly both follow: the part that the newest beat has. Above 0, at most 1.
        floor: The least margin, in seconds.
        window: Beats over which the expectation is averaged.

    Raises:
        ConfigError: Definite. A value is out of range.
    """

    kind = "Bertier"
    __slots__ = ("_beta", "_delay_ns", "_deviation_ns", "_floor_ns", "_gamma", "_phi")

    def __init__(
        self,
        *,
        interval: float = 0.1,
        beta: float = 1.0,
        phi: float = 4.0,
        gamma: float = 0.1,
        floor: float = 0.001,
        window: int = 200,
    ) -> None:
        super().__init__(interval, window)
        self._beta = number("Bertier", "beta", beta, 0.0, 100.0)
        self._phi = number("Bertier", "phi", phi, 0.0, 100.0)
        self._gamma = number("Bertier", "gamma", gamma, 1e-6, 1.0)
        self._floor_ns = nanoseconds("Bertier", "floor", floor, 1e-6)
        if self._floor_ns > 1000 * self._interval_ns:
            message = f"Bertier: floor is {floor!r} s with an interval of {interval!r} s; less"
            raise ConfigError(message)
        self._delay_ns = 0.0
        self._deviation_ns = 0.0

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {
            **super().describe(),
            "beta": self._beta,
            "phi": self._phi,
            "gamma": self._gamma,
            "floor": self._floor_ns / NS,
        }

    def _late(self, error_ns: int) -> None:
        error = error_ns - self._delay_ns
        self._delay_ns += self._gamma * error
        self._deviation_ns += self._gamma * (abs(error) - self._deviation_ns)

    def _clear(self) -> None:
        super()._clear()
        self._delay_ns = self._deviation_ns = 0.0

    def _margin(self) -> int:
        margin = round(self._beta * self._delay_ns + self._phi * self._deviation_ns)
        return max(self._floor_ns, margin)
