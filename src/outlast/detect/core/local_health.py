"""Is it them, or is it us? An observer that was starved hears nobody and must accuse nobody.

Lifeguard (Dadgar, Phillips and Currey, 2017) *infers* its own state from probes that failed. Here
it is *measured*, by what the machine says of the very thread that would accuse: how late its own
tick came, how long it waited for a processor, whether its control group was throttled, how long
the collector stopped it, whether the machine slept. Each gives a part from 0 to 1; the score is
the worst.

States: *clean*; *paused* (a tick is overdue by more than an interval, or was, and less than
``3 * interval`` of clean time have passed since); *excused* (the program said so itself).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from outlast.detect.core.scale import NS, nanoseconds, number
from outlast.kernel import ConfigError

MULTIPLIER_MAX: Final = 8.0
"""Of Lifeguard, section 4.1: timeouts grow up to eightfold."""

PRESSURE_WEIGHT: Final = 0.25
"""Pressure is of the whole machine: others may wait while we do not. It alone stops nobody."""

EXCUSES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Readings:
    """Counters of the machine at one tick, in nanoseconds; ``None``: not to be had here."""

    run_delay_ns: int | None = None
    """How long the ticking thread has been ready and waited for a processor."""
    throttled_ns: int | None = None
    """How long our control group was stopped for having used up its quota."""
    pressure_ns: int | None = None
    """How long some task of the machine waited for a processor (PSI)."""
    asleep_ns: int | None = None
    """How long the machine has slept since it started (boottime less monotonic)."""


class LocalHealthCore:
    """Decides from ticks how well *we* are. Pure; not thread-safe.

    Args:
        interval_ns: Between ticks.
        clean_ns: Clean time after a pause before anybody may be accused.
        bound: The score above which nobody may be.
    """

    __slots__ = (
        "_bound", "_clean_ns", "_gc_ns", "_interval_ns", "_lag_ns", "_last_ns", "_readings",
        "clean_from_ns", "excuses", "parts", "pause_longest_ns", "pauses", "ticks",
    )  # fmt: skip

    def __init__(self, interval_ns: int, clean_ns: int, bound: float) -> None:
        self._interval_ns = interval_ns
        self._clean_ns = clean_ns
        self._bound = bound
        self._last_ns: int | None = None
        self._lag_ns = 0.0
        self._gc_ns = 0
        self._readings = Readings()
        self.clean_from_ns = 0
        """From when on accusing is allowed, as far as pauses go."""
        self.excuses: list[str] = []
        self.parts: dict[str, float] = {}
        self.pauses = 0
        self.pause_longest_ns = 0
        self.ticks = 0

    def begin(self, now_ns: int, readings: Readings) -> None:
        """Ticking begins. What was before is unknown, so it counts as clean."""
        self._last_ns = now_ns
        self._lag_ns = 0.0
        self._readings = readings
        self.parts = {}

    def end(self) -> None:
        """Ticking has ended: nothing is known any more, and nobody is stopped by it."""
        self._last_ns = None
        self.parts = {}

    def gc_pause(self, length_ns: int) -> None:
        """The collector has just stopped this process for ``length_ns``."""
        self._gc_ns = max(self._gc_ns, length_ns)

    def tick(self, now_ns: int, readings: Readings) -> int:
        """A tick has come; return the length of the pause that it ended, 0 for none.

        Lateness fades by half with each tick in time, so that one hiccup is remembered for some.
        """
        last_ns = self._last_ns
        if last_ns is None:
            self.begin(now_ns, readings)
            return 0
        interval_ns = self._interval_ns
        gap_ns = max(1, now_ns - last_ns)
        late_ns = max(0, gap_ns - interval_ns)
        # What is beyond the worst score is not remembered: clean time follows a long stop anyway.
        self._lag_ns = max(float(min(late_ns, 2 * interval_ns)), self._lag_ns / 2)
        before = self._readings
        asleep_ns = _grown(before.asleep_ns, readings.asleep_ns)
        self.parts = {
            "lag": self._lag_ns / (2 * interval_ns),
            "delay": _share(before.run_delay_ns, readings.run_delay_ns, gap_ns),
            "throttled": _share(before.throttled_ns, readings.throttled_ns, gap_ns),
            "pressure": PRESSURE_WEIGHT * _share(before.pressure_ns, readings.pressure_ns, gap_ns),
            "gc": min(1.0, self._gc_ns / (2 * interval_ns)),
        }
        self._gc_ns = 0
        self._readings = readings
        self._last_ns = now_ns
        self.ticks += 1
        pause_ns = max(late_ns, asleep_ns)
        if pause_ns <= interval_ns:
            return 0
        self.pauses += 1
        self.pause_longest_ns = max(self.pause_longest_ns, pause_ns)
        self._dirty(now_ns)
        return pause_ns

    def excuse(self, reason: str) -> None:
        """From now on we are slow, and know why.

        Raises:
            ConfigError: Definite. So many are excused already that somebody must have forgotten
                to end them.
        """
        if len(self.excuses) >= EXCUSES_MAX:
            message = f"LocalHealth: {EXCUSES_MAX} excuses at a time; end one before another"
            raise ConfigError(message)
        self.excuses.append(reason)

    def end_excuse(self, reason: str, now_ns: int) -> None:
        """We are no longer slow for ``reason``; clean time begins."""
        self.excuses.remove(reason)
        self._dirty(now_ns)

    def _dirty(self, now_ns: int) -> None:
        self.clean_from_ns = max(self.clean_from_ns, now_ns + self._clean_ns)

    def score(self, now_ns: int) -> float:
        """Return how unwell we are: 0 healthy, 1 at worst. A tick that is overdue counts."""
        if self._last_ns is None:
            return 0.0
        if self.excuses:
            return 1.0
        overdue_ns = now_ns - self._last_ns - self._interval_ns
        overdue = min(1.0, max(0, overdue_ns) / (2 * self._interval_ns))
        return max(overdue, *self.parts.values()) if self.parts else overdue

    def multiplier(self, now_ns: int) -> float:
        """Return by how much timeouts had better be longer: 1 to 8."""
        return 1.0 + (MULTIPLIER_MAX - 1.0) * self.score(now_ns)

    def may_accuse(self, now_ns: int) -> bool:
        """Whether silence may be blamed on others now. Without ticks nothing speaks against it."""
        if self.excuses:
            return False
        if self._last_ns is None:
            return True
        return now_ns >= self.clean_from_ns and self.score(now_ns) <= self._bound

    def retry_ns(self, now_ns: int) -> int:
        """Return when to ask again after ``may_accuse`` said no: later than ``now_ns``.

        Not before the next tick has had its time, since only a tick can show that all is well.
        """
        return max(self.clean_from_ns, now_ns + self._interval_ns)

    def snapshot(self, now_ns: int) -> Mapping[str, Any]:
        """Return the live state, as values that JSON knows."""
        return {
            "score": self.score(now_ns),
            "parts": dict(self.parts),
            "may_accuse": self.may_accuse(now_ns),
            "multiplier": self.multiplier(now_ns),
            "pauses": self.pauses,
            "longest_pause": self.pause_longest_ns / NS,
            "excuses": list(self.excuses),
            "ticks": self.ticks,
        }


def _grown(before: int | None, after: int | None) -> int:
    if before is None or after is None:
        return 0
    return max(0, after - before)


def _share(before: int | None, after: int | None, gap_ns: int) -> float:
    return min(1.0, _grown(before, after) / gap_ns)


def check_settings(interval: Any, clean: Any, bound: Any) -> tuple[int, int, float]:
    """Return interval and clean time in nanoseconds, and the bound.

    Raises:
        ConfigError: Definite. One is out of range.
    """
    interval_ns = nanoseconds("LocalHealth", "interval", interval, 0.001, 60.0)
    clean_ns = (
        3 * interval_ns if clean is None else nanoseconds("LocalHealth", "clean", clean, 0.0)
    )
    return interval_ns, clean_ns, number("LocalHealth", "bound", bound, 0.0, 1.0)
