"""What detectors learn from the intervals between beats, and what they had better not learn.

A sender that stood still for a second did not become one that beats every second. An interval that
ended a suspicion is therefore not learnt (Akka's rule), or one freeze would make every later
detection slower. But the pace may really have changed: ten such intervals in a row are the new
pace, and what was learnt before is forgotten.

And whatever was learnt, ``cap`` bounds how long a detection takes.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from outlast.detect.core.detector import Beats
from outlast.detect.core.ring import Ring
from outlast.detect.core.scale import EVICT, LEVEL_MAX, NS, nanoseconds, number, whole
from outlast.kernel import ConfigError

Learn = Literal["trusted", "all"]
"""Learn intervals that ended no suspicion, or all."""

NEW_PACE: Final = 10
"""So many intervals in a row that ended a suspicion are the sender's new pace."""

CAP_INTERVALS: Final = 10
"""The default ``cap`` of kinds that say nothing else."""


class Learning(Beats):
    """A detector with a window of intervals; kinds say what silence means (:meth:`_raw`)."""

    __slots__ = ("_cap_ns", "_interval_ns", "_learn_level", "_mode", "_window", "intervals", "odd")

    def __init__(
        self,
        *,
        interval: float,
        window: int,
        learn: Learn,
        learn_level: float,
        cap: float | None,
    ) -> None:
        super().__init__()
        self._interval_ns = nanoseconds(self.kind, "interval", interval, 1e-3)
        self._window = whole(self.kind, "window", window, 2, 100_000)
        if learn not in get_args(Learn):
            message = f"{self.kind}: learn is {learn!r}; 'trusted' or 'all' would be right"
            raise ConfigError(message)
        self._mode: Learn = learn
        self._learn_level = number(self.kind, "learn_level", learn_level, 1e-3, LEVEL_MAX)
        self._cap_ns = (
            self._cap_default_ns()
            if cap is None
            else nanoseconds(self.kind, "cap", cap, 1e-3, 1e6)
        )
        if self._cap_ns <= self._interval_ns:
            message = (
                f"{self.kind}: cap is {cap!r} s and interval is {interval!r} s;"
                " a cap above the interval would be right"
            )
            raise ConfigError(message)
        self.intervals = Ring(self._window)
        self.odd = 0
        """Intervals in a row that ended a suspicion."""

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {
            "kind": self.kind,
            "interval": self._interval_ns / NS,
            "window": self._window,
            "learn": self._mode,
            "learn_level": self._learn_level,
            "cap": self._cap_ns / NS,
        }

    def _learn(self, seq: int | None, at_ns: int, last_ns: int | None) -> None:
        if last_ns is None:
            return
        interval_ns = at_ns - last_ns
        if self._mode == "trusted" and self._at(at_ns) >= self._learn_level:
            self.odd += 1
            if self.odd < NEW_PACE:
                return
            self._restart(interval_ns)
        self.odd = 0
        self._add(interval_ns)

    def _at(self, now_ns: int) -> float:
        silence_ns = now_ns - (self.last_ns or 0)
        raw = self._raw(silence_ns)
        if silence_ns >= self._cap_ns:
            return max(raw, EVICT * silence_ns / self._cap_ns)
        return raw

    def _guess_ns(self, level: float) -> int:
        cap_ns = self._cap_ns if level <= EVICT else round(self._cap_ns * level / EVICT)
        return (self.last_ns or 0) + min(cap_ns, self._raw_guess(level))

    def _clear(self) -> None:
        self.odd = 0
        self._restart(None)

    # --- what a kind says ------------------------------------------------------------------

    def _cap_default_ns(self) -> int:
        """Return what ``cap`` is if nobody says."""
        return CAP_INTERVALS * self._interval_ns

    @abstractmethod
    def _add(self, interval_ns: int) -> None:
        """Learn an interval."""

    def _restart(self, pace_ns: int | None) -> None:
        """Forget the intervals; ``pace_ns`` is the new pace if one is known."""
        self.intervals.clear()

    @abstractmethod
    def _raw(self, silence_ns: int) -> float:
        """Return the suspicion of so long a silence, the cap aside."""

    @abstractmethod
    def _raw_guess(self, level: float) -> int:
        """Return about the silence at which :meth:`_raw` reaches ``level``."""
