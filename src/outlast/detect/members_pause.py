"""Whether this process itself stood still: a member that was frozen must not accuse others.

Used where no :class:`~outlast.detect.LocalHealth` is given. It sees only what the membership's own
timer sees: that it came late.
"""

from typing import Final, Protocol

LATE_NS: Final = 50_000_000
"""A timer so late means that answers may lie unread in the socket: they are read first."""
PAUSE_NS: Final = 300_000_000
"""A timer so late means that this process stood still."""
CLEAN_NS: Final = 1_000_000_000
"""So long without a pause, and others may be accused again."""


class Fitness(Protocol):
    """What :class:`~outlast.detect.LocalHealth` tells."""

    @property
    def score(self) -> float:
        """How bad this process is doing, 0 to 1."""
        ...

    def may_accuse(self, now_ns: int) -> bool:
        """Whether it is fit to accuse others."""
        ...


class OwnPauses:
    """Judges this process by how late its own timer comes."""

    __slots__ = ("_clean_ns", "_late_ns")

    def __init__(self) -> None:
        self._late_ns = 0
        self._clean_ns = 0

    @property
    def score(self) -> float:
        """How late the timer has lately been: 1 for a second or more."""
        return min(self._late_ns / 1e9, 1.0)

    def may_accuse(self, now_ns: int) -> bool:
        """Whether there was no pause for a while."""
        return now_ns >= self._clean_ns

    def timer(self, late_ns: int, now_ns: int) -> None:
        """The timer has come, ``late_ns`` after its time."""
        # Falls by a quarter at each timer in time, so that one pause is soon forgiven.
        self._late_ns = max(late_ns if late_ns > LATE_NS else 0, self._late_ns * 3 // 4)
        if late_ns >= PAUSE_NS:
            self._clean_ns = now_ns + CLEAN_NS
