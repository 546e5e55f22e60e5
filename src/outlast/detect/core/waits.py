"""Who waits for whom, and in which order locks are taken.

A *deadlock* is a circle: each in it waits for a lock whose owner is in it too. Everyone waits for
one lock at a time and a lock has one owner, so a circle can only be closed by whoever begins to
wait last, and looking for it is following one chain. A task that runs nothing because its thread
is blocked waits for what the thread waits for: the chain goes on with the owner's *carrier*.

A *reversal* is a deadlock that did not happen yet: somewhere A was held while B was taken, and
now B is held while A is taken. Only the order of names is kept, as in the lock validator of
Linux (lockdep, 2006): one run of each order is enough to find it, no unlucky timing is needed.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol

EDGES_MAX: Final = 4096


class Owned(Protocol):
    """A lock, as far as the graph must know it."""

    @property
    def name(self) -> str:
        """What it is called; locks of one name are ordered together."""
        ...

    @property
    def owner(self) -> Hashable | None:
        """The thread or task that holds it, if one does."""
        ...

    @property
    def carrier(self) -> Hashable | None:
        """The thread that the owner needs in order to go on, if the owner is a task."""
        ...


@dataclass(frozen=True, slots=True)
class Wait:
    """One edge of a circle: ``who`` waits for ``lock``."""

    who: Hashable
    lock: Owned


class WaitGraph:
    """Who waits for which lock at the moment. Not thread-safe."""

    __slots__ = ("_waits",)

    def __init__(self) -> None:
        self._waits: dict[Hashable, Owned] = {}

    def __len__(self) -> int:
        return len(self._waits)

    def begin(self, who: Hashable, lock: Owned) -> tuple[Wait, ...]:
        """Note that ``who`` begins to wait for ``lock``; return the circle that this closes."""
        self._waits[who] = lock
        return self.circle(who)

    def end(self, who: Hashable) -> None:
        """Note that ``who`` waits no longer; it got the lock, or gave up."""
        self._waits.pop(who, None)

    def circle(self, who: Hashable) -> tuple[Wait, ...]:
        """Return the circle in which ``who`` waits, beginning with it; empty if there is none."""
        found: list[Wait] = []
        seen: set[Hashable] = set()
        at: Hashable | None = who
        while at is not None and at not in seen:
            lock = self._waits.get(at)
            if lock is None:
                return ()
            seen.add(at)
            found.append(Wait(at, lock))
            at = self._next(lock)
            if at == who:
                return tuple(found)
        return ()

    def _next(self, lock: Owned) -> Hashable | None:
        owner = lock.owner
        if owner is None or owner in self._waits:
            return owner
        return lock.carrier


@dataclass(frozen=True, slots=True)
class Reversal:
    """``names`` is a way back: its first lock is taken while its last is held.

    ``places`` says where each lock was taken after the one before it: the first of them is
    where the circle was closed now.
    """

    names: tuple[str, ...]
    places: tuple[str, ...]


class LockOrder:
    """The order in which names were taken, and whether a new one turns it round. Not thread-safe.

    Args:
        edges_max: Pairs that are kept; what comes later is not judged, and counted in
            ``forgotten``.
    """

    __slots__ = ("_after", "_edges_max", "edges", "forgotten")

    def __init__(self, edges_max: int = EDGES_MAX) -> None:
        self._edges_max = edges_max
        self._after: dict[str, dict[str, str]] = {}
        self.edges: set[tuple[str, str]] = set()
        self.forgotten = 0

    def note(self, held: Sequence[str], name: str, place: str) -> Reversal | None:
        """Note that ``name`` is taken at ``place`` while ``held`` are held.

        Returns the reversal that this makes, for a pair of names once. Two locks of one name
        are not judged: nothing tells which of them comes first.
        """
        found = None
        for one in held:
            if one == name or (one, name) in self.edges:
                continue
            if len(self.edges) >= self._edges_max:
                self.forgotten += 1
                continue
            found = self._reversed(one, name, place) or found
            self.edges.add((one, name))
            self._after.setdefault(one, {})[name] = place
        return found

    def _reversed(self, held: str, name: str, place: str) -> Reversal | None:
        way = self._way(name, held)
        if not way:
            return None
        steps = [self._after[first][second] for first, second in pairwise(way)]
        return Reversal(tuple(way), (place, *steps))

    def _way(self, start: str, goal: str) -> list[str]:
        """Return the shortest chain of orders from ``start`` to ``goal``; empty without one."""
        before: dict[str, str] = {}
        ring = [start]
        while ring:
            further: list[str] = []
            for name in ring:
                for after in self._after.get(name, ()):
                    if after in before or after == start:
                        continue
                    before[after] = name
                    if after == goal:
                        return _back(before, start, goal)
                    further.append(after)
            ring = further
        return []


def _back(before: dict[str, str], start: str, goal: str) -> list[str]:
    way = [goal]
    while way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]


def circles(waits: "dict[Hashable, Hashable]") -> list[tuple[Hashable, ...]]:
    """Return the circles of ``waits``, in which each waits for one other; each circle once.

    >>> circles({"a": "b", "b": "a", "c": "a"})
    [('a', 'b')]
    """
    found: list[tuple[Hashable, ...]] = []
    done: set[Hashable] = set()
    for first in waits:
        path: dict[Hashable, int] = {}
        at: Hashable = first
        while at in waits and at not in done and at not in path:
            path[at] = len(path)
            at = waits[at]
        if at in path:
            found.append(tuple(path)[path[at] :])
        done.update(path)
    return found
