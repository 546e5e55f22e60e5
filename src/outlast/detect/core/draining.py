"""A drain: how a process leaves without dropping what it has begun.

Load balancers learn of a stop by asking, so there is a time in which they still send work to an
instance that is about to go. Refusing that work is an error for somebody; so is exiting under
work that runs. Hence an order, which only goes forward:

* *serving*: ready, takes work;
* *leaving*: not ready, still takes work, for ``delay``: long enough to be noticed;
* *refusing*: takes no new work, waits for what runs, up to ``within`` after the beginning;
* *ended*.

The same order as in Kubernetes with a ``preStop`` pause before SIGTERM, only that the process
does it by itself and knows what it still has to finish.
"""

from dataclasses import dataclass
from typing import Final, Literal

from outlast.kernel import ConfigError

Phase = Literal["serving", "leaving", "refusing", "ended"]
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class DrainSettings:
    """How long the phases last, in nanoseconds from the beginning."""

    delay_ns: int
    within_ns: int

    @classmethod
    def of(cls, delay: float, within: float) -> "DrainSettings":
        """Return the settings of two times in seconds.

        Raises:
            ConfigError: Definite. ``delay`` negative, or ``within`` below it or not positive.
        """
        if not (0 <= delay <= within and 0 < within < float("inf")):
            raise ConfigError(
                f"Drain: delay is {delay:g}, within {within:g}; 0 <= delay <= within, and within"
                " above 0 would be right"
            )
        return cls(round(delay * _NS), round(within * _NS))


class DrainDecider:
    """Decides in which phase a drain is. Not thread-safe: its driver holds a lock.

    Args:
        settings: How long the phases last.
    """

    __slots__ = ("_hurried", "_settings", "began_ns", "in_flight", "phase")

    def __init__(self, settings: DrainSettings) -> None:
        self._settings = settings
        self._hurried = False
        self.began_ns: int | None = None
        self.in_flight = 0
        self.phase: Phase = "serving"

    def enter(self) -> bool:
        """Take on one piece of work; ``False`` if no more is taken."""
        if self.phase in {"refusing", "ended"}:
            return False
        self.in_flight += 1
        return True

    def leave(self) -> bool:
        """One piece of work is over; whether that may end the drain."""
        self.in_flight -= 1
        return self.in_flight == 0 and self.phase == "refusing"

    def begin(self, now_ns: int) -> bool:
        """Begin; ``False`` if it has begun before: nothing leads back."""
        if self.phase != "serving":
            return False
        self.phase, self.began_ns = "leaving", now_ns
        return True

    def hurry(self) -> None:
        """End at the next :meth:`advance`, whatever runs; no effect before the beginning."""
        self._hurried = self.began_ns is not None

    def advance(self, now_ns: int) -> int | None:
        """Go as far as it is time for; return when to ask again, ``None`` for never.

        While refusing, the last piece of work that leaves is a reason to ask, too.
        """
        if self.began_ns is None or self.phase == "ended":
            return None
        refuse_ns = self.began_ns + self._settings.delay_ns
        end_ns = self.began_ns + self._settings.within_ns
        if self._hurried or now_ns >= end_ns:
            self.phase = "ended"
            return None
        if now_ns < refuse_ns:
            return refuse_ns
        if self.in_flight == 0:
            self.phase = "ended"
            return None
        self.phase = "refusing"
        return end_ns
