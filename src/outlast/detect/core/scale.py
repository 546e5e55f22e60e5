"""One scale of suspicion for all detectors, and the levels on it at which somebody acts.

Suspicion is ``-log10`` of the chance that the next beat is still to come although it is that late
(phi, Hayashibara et al. 2004, section III): at 1 one accusation in ten would be wrong, at 8 one in
a hundred million, if beats came as independently as the model says. So one number serves several
decisions: route around a peer early, remove it late. The cheaper the mistake, the lower the level.

Detectors that compute no probability put their own times on the scale, so that ``evict`` is where
they would have said "suspected"; each says how.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

from outlast.kernel import ConfigError

NS: Final = 1_000_000_000
NEVER: Final = (1 << 63) - 1
"""The deadline of a detector that waits for nothing yet."""

EVICT: Final = 8.0
"""The standard level of ``evict``: detectors without a probability put their timeout there."""

LEVEL_MAX: Final = 1000.0
_DAY: Final = 86_400.0
_LN10: Final = math.log(10.0)
_SQRT2: Final = math.sqrt(2.0)
_ROOT_2PI_LOG: Final = 0.5 * math.log10(2.0 * math.pi)
_FAR: Final = 25.0

LevelName = Literal["trusted", "watch", "avoid", "evict"]
NAMES: Final[tuple[LevelName, ...]] = ("trusted", "watch", "avoid", "evict")


def number(kind: str, name: str, value: Any, low: float, high: float) -> float:
    """Return ``value`` if it is a number from ``low`` to ``high``.

    Raises:
        ConfigError: Definite. It is not.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not low <= value <= high:
        message = f"{kind}: {name} is {value!r}; from {low:g} to {high:g} would be right"
        raise ConfigError(message)
    return float(value)


def nanoseconds(kind: str, name: str, value: Any, low: float, high: float = _DAY) -> int:
    """Return seconds from ``low`` to ``high`` as nanoseconds.

    Raises:
        ConfigError: Definite. It is something else.
    """
    return round(number(kind, name, value, low, high) * NS)


def whole(kind: str, name: str, value: Any, low: int, high: int) -> int:
    """Return ``value`` if it is a whole number from ``low`` to ``high``.

    Raises:
        ConfigError: Definite. It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        message = f"{kind}: {name} is {value!r}; a whole number from {low} to {high}"
        raise ConfigError(message)
    return value


@dataclass(frozen=True, slots=True)
class Levels:
    """Where on the scale somebody acts.

    Args:
        watch: Look closer: send a probe, prefer others if that costs nothing. Above 0.
        avoid: Send no new work there. At least ``watch``.
        evict: Act as if it had failed: elect, replace, remove. At least ``avoid``; at most 1000.

    Raises:
        ConfigError: Definite. They are out of order or out of range.

    >>> Levels().name_of(3.5)
    'avoid'
    """

    watch: float = 1.0
    avoid: float = 3.0
    evict: float = EVICT

    def __post_init__(self) -> None:
        """Check the order."""
        for name in NAMES[1:]:
            number("Levels", name, getattr(self, name), 1e-3, LEVEL_MAX)
        if not self.watch <= self.avoid <= self.evict:
            message = (
                f"Levels: watch is {self.watch}, avoid is {self.avoid}, evict is {self.evict};"
                " each at least as high as the one before it would be right"
            )
            raise ConfigError(message)

    def bounds(self) -> tuple[float, float, float]:
        """Return the three levels, lowest first."""
        return (self.watch, self.avoid, self.evict)

    def rank(self, suspicion: float) -> int:
        """Return how many of the levels ``suspicion`` has reached: 0 to 3."""
        return (suspicion >= self.watch) + (suspicion >= self.avoid) + (suspicion >= self.evict)

    def name_of(self, suspicion: float) -> LevelName:
        """Return the highest level that ``suspicion`` has reached; ``trusted`` below them all."""
        return NAMES[self.rank(suspicion)]


def normal_phi(z: float) -> float:
    """Return ``-log10`` of the chance that a normal variable exceeds its mean by ``z`` deviations.

    Good to about twelve digits from -38 to any ``z``: where ``erfc`` would round to 0 or 1 the
    tail's asymptotic series, or the other tail, takes over. (Akka's logistic stand-in is off by
    up to a tenth of the chance itself and infinite soon after 38.)

    >>> round(normal_phi(0.0), 6), round(normal_phi(5.612), 3), round(normal_phi(100.0))
    (0.30103, 8.0, 2174)
    """
    if z < 0:
        return -math.log1p(-0.5 * math.erfc(-z / _SQRT2)) / _LN10
    if z <= _FAR:
        return max(0.0, -math.log10(0.5 * math.erfc(z / _SQRT2)))
    w = 1.0 / (z * z)
    series = 1.0 - w * (1.0 - w * (3.0 - w * (15.0 - w * 105.0)))
    return z * z / (2.0 * _LN10) + math.log10(z) + _ROOT_2PI_LOG - math.log10(series)


def normal_z(phi: float) -> float:
    """Return the ``z`` at which :func:`normal_phi` reaches ``phi``; its inverse, ``phi`` above 0.

    >>> round(normal_z(8.0), 3)
    5.612
    """
    low, high = -40.0, 40.0 + 3.0 * math.sqrt(phi)
    for _ in range(80):
        middle = (low + high) / 2
        if normal_phi(middle) < phi:
            low = middle
        else:
            high = middle
    return high
