"""How many calls of a policy ended how. Counted by atomic increments, read now and then."""

from itertools import count
from typing import Final

_NAMES: Final = (
    "succeeded", "failed", "rejected", "cancelled", "retried", "fell_back", "timed_out",
)  # fmt: skip


class Tally:
    """Counters of one policy. Each attribute is called to count one.

    Attributes:
        succeeded: Calls that returned.
        failed: Calls whose exception came through.
        rejected: Calls that a part refused.
        cancelled: Calls that were cancelled from outside, or ended with their program.
        fell_back: Calls that a fallback answered.
        retried: Attempts after the first.
        timed_out: Attempts and calls that a limit of time ended.

    Each call is counted under one of the first five; the last two are counted besides.
    """

    __slots__ = (*_NAMES, "_marks")

    def __init__(self) -> None:
        self._marks = dict.fromkeys(_NAMES, 0)
        self.succeeded = count().__next__
        self.failed = count().__next__
        self.rejected = count().__next__
        self.cancelled = count().__next__
        self.retried = count().__next__
        self.fell_back = count().__next__
        self.timed_out = count().__next__

    def inner(self) -> "Tally":
        """Return what an inner frame of the same policy counts in.

        Its retries and the limits of time that end something are those of the policy; how its
        calls end is the business of the outermost frame.
        """
        inside = Tally()
        inside.retried, inside.timed_out = self.retried, self.timed_out
        return inside

    def begin_anew(self) -> None:
        """Count from nothing; the caller holds a lock."""
        for name in _NAMES:
            self._marks[name] = getattr(self, name)() + 1

    def read(self) -> dict[str, int]:
        """Return all counts. Not thread-safe against itself: the caller holds a lock."""
        marks, counts = self._marks, {}
        for name in _NAMES:
            # Reading counts one, too: as many as were read before are taken off.
            counts[name] = getattr(self, name)() - marks[name]
            marks[name] += 1
        return counts
