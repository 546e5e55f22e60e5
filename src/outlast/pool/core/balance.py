"""Choosing one of several instances: round robin, least load, the better of two.

Shares decide how often an instance is drawn, load which of those drawn is taken. Between equals
the one drawn first is taken, so that with nothing under way calls follow the shares exactly.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

from outlast.kernel import Prng
from outlast.pool.core.member import NS, Member
from outlast.pool.core.settings import Pick

_UNITS: Final = 1 << 20
_REDRAWS: Final = 3


class Table:
    """Instances among which to choose, with their shares as they are now.

    Args:
        members: At least one.
    """

    __slots__ = ("members", "sums")

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        first = members[0].share
        self.sums: list[int] | None = None
        if any(member.share != first for member in members):
            # Integers, so that a draw is the same everywhere.
            parts = (max(round(member.share * _UNITS), 1) for member in members)
            self.sums = list(accumulate(parts))

    def draw(self, prng: Prng) -> int:
        """Return the place of one, drawn by its share."""
        sums = self.sums
        if sums is None:
            return prng.below(len(self.members))
        return bisect_right(sums, prng.below(sums[-1]))

    def other(self, first: int, prng: Prng) -> int:
        """Return the place of another one than ``first``, drawn by its share."""
        count = len(self.members)
        if self.sums is None:
            second = prng.below(count - 1)
            return second + (second >= first)
        for _ in range(_REDRAWS):
            second = self.draw(prng)
            if second != first:
                return second
        return (first + 1) % count


Chooser = Callable[[Table, int], Member]
"""Chooses one at a time, given as monotonic nanoseconds."""


def chooser(pick: Pick, prng: Prng) -> Chooser:
    """Return what chooses as ``pick`` says, with draws from ``prng``."""
    decay_ns = pick.load.decay * NS
    peak = pick.load.kind == "peak_ewma"

    def load(member: Member, now_ns: int) -> float:
        return member.cost(now_ns, decay_ns) if peak else member.load(now_ns)

    if pick.kind == "round_robin":
        return RoundRobin().choose
    if pick.kind == "least":
        return Least(load).choose

    def two(table: Table, now_ns: int) -> Member:
        members = table.members
        place = table.draw(prng)
        first = members[place]
        if len(members) == 1:
            return first
        second = members[table.other(place, prng)]
        return second if load(second, now_ns) < load(first, now_ns) else first

    return two


class RoundRobin:
    """One after another; with shares that differ, smoothly interleaved (nginx's rule)."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = -1

    def choose(self, table: Table, now_ns: int) -> Member:
        """Return the next. Constant time, or one pass where shares differ."""
        members = table.members
        if table.sums is None:
            self._turn = (self._turn + 1) % len(members)
            return members[self._turn]
        total, best = 0.0, members[0]
        for member in members:
            member.credit += member.share
            total += member.share
            if member.credit > best.credit:
                best = member
        best.credit -= total
        return best


class Least:
    """The one with the least load; among equals one after another. One pass over all."""

    __slots__ = ("_load", "_turn")

    def __init__(self, load: Callable[[Member, int], float]) -> None:
        self._load = load
        self._turn = -1

    def choose(self, table: Table, now_ns: int) -> Member:
        """Return the one with the least load."""
        members = table.members
        count = len(members)
        self._turn = start = (self._turn + 1) % count
        best = members[start]
        least = self._load(best, now_ns)
        for step in range(1, count):
            member = members[(start + step) % count]
            load = self._load(member, now_ns)
            if load < least:
                best, least = member, load
        return best
