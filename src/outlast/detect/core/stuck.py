"""What has not moved for a while.

Whoever is looked at has a *mark*: something that changes when it does anything at all (a count of
time slices, a place in the code, the thing it waits for). A mark that stays for long enough is
stuck. Nothing is kept of those that were not seen in the last look.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stuck:
    """``who`` has had the same mark for ``for_ns``."""

    who: Hashable
    for_ns: int


class StuckTracker:
    """Since when everyone has the mark that it has. Not thread-safe.

    Args:
        keep_max: Marks that are kept; further ones are not looked at in that round.
    """

    __slots__ = ("_keep_max", "_marks")

    def __init__(self, keep_max: int = 10_000) -> None:
        self._keep_max = keep_max
        self._marks: dict[Hashable, tuple[Hashable, int]] = {}

    def __len__(self) -> int:
        return len(self._marks)

    def look(self, now_ns: int, marks: Mapping[Hashable, Hashable], after_ns: int) -> list[Stuck]:
        """Take the marks of all who could be stuck; return those that are, longest first."""
        kept: dict[Hashable, tuple[Hashable, int]] = {}
        for who, mark in marks.items():
            if len(kept) >= self._keep_max:
                break
            known = self._marks.get(who)
            kept[who] = known if known is not None and known[0] == mark else (mark, now_ns)
        self._marks = kept
        found = [
            Stuck(who, now_ns - since_ns)
            for who, (_, since_ns) in kept.items()
            if now_ns - since_ns >= after_ns
        ]
        return sorted(found, key=lambda one: -one.for_ns)

    def forget(self) -> None:
        """Begin anew, as after a pause in which nothing could move."""
        self._marks.clear()
