"""Who of many peers is suspected, and when to look again.

One detector per peer, and one heap with the next instant at which anything can change: the
deadline of the level above the one a peer is at. A beat leaves the heap alone, as long as it makes
the deadline later; an entry whose time has come is looked at again and, as a rule, put back.

An observer that is unwell itself does not drop an accusation: it puts it off until it may judge,
and then looks at the suspicion of that moment.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any

from outlast.detect.core.detector import Detector
from outlast.detect.core.quality import Quality, Score
from outlast.detect.core.scale import NAMES, NEVER, NS, LevelName, Levels

_TOP = len(NAMES) - 1


@dataclass(frozen=True, slots=True)
class Change:
    """A peer is at another level than before."""

    peer: str
    before: LevelName
    after: LevelName
    suspicion: float
    silence_ns: int


@dataclass(frozen=True, slots=True)
class Postponed:
    """A peer is due to be accused and was not, for the observer's own sake."""

    peer: str
    suspicion: float


class _Peer:
    __slots__ = ("detector", "entry_ns", "heard_ns", "postponed", "quality", "rank")

    def __init__(self, detector: Detector, now_ns: int) -> None:
        self.detector = detector
        self.rank = 0
        self.heard_ns = now_ns
        self.entry_ns = NEVER
        """The one entry of the heap that counts for it; ``NEVER``: none does."""
        self.postponed = False
        self.quality = Quality(keep=16)
        self.quality.begin(now_ns)


class Watchlist:
    """Decides the level of each peer. Pure; not thread-safe.

    Args:
        make: Returns a new detector for a peer.
        levels: Where on the scale the levels are.
        peers_max: Peers at most; beats of others are counted and forgotten.
    """

    __slots__ = ("_bounds", "_heap", "_levels", "_make", "_peers", "_peers_max", "refused")

    def __init__(self, make: Callable[[], Detector], levels: Levels, peers_max: int) -> None:
        self._make = make
        self._levels = levels
        self._bounds = levels.bounds()
        self._peers_max = peers_max
        self._peers: dict[str, _Peer] = {}
        self._heap: list[tuple[int, str]] = []
        self.refused = 0

    def watch(self, name: str, now_ns: int) -> bool:
        """Wait for beats of a peer from now on; ``False`` if there are too many already."""
        peer = self._peers.get(name)
        if peer is not None:
            return True
        if len(self._peers) >= self._peers_max:
            self.refused += 1
            return False
        peer = self._peers[name] = _Peer(self._make(), now_ns)
        peer.detector.expect(now_ns)
        self._plan(name, peer)
        return True

    def forget(self, name: str) -> bool:
        """Wait for it no longer; ``False`` if it was not known."""
        return self._peers.pop(name, None) is not None

    def beat(self, name: str, seq: int | None, at_ns: int) -> Change | None:
        """A beat of ``name`` came at ``at_ns``; return the change to trust, if it is one."""
        peer = self._peers.get(name)
        if peer is None:
            if len(self._peers) >= self._peers_max:
                self.refused += 1
                return None
            peer = self._peers[name] = _Peer(self._make(), at_ns)
        detector = peer.detector
        detector.beat(seq, at_ns)
        if detector.suspicion(at_ns) > 0.0:
            return None  # an old beat: it proves nothing
        change = None
        peer.postponed = False
        if peer.rank:
            silence_ns = at_ns - peer.heard_ns
            change = Change(name, NAMES[peer.rank], "trusted", 0.0, silence_ns)
            if peer.rank == _TOP:
                peer.quality.trusted(at_ns)
            peer.rank = 0
        peer.heard_ns = at_ns
        self._plan(name, peer)
        return change

    def next_ns(self) -> int:
        """Return when :meth:`due` has something to look at; ``NEVER`` if nothing is waited for."""
        heap = self._heap
        while heap:
            entry_ns, name = heap[0]
            peer = self._peers.get(name)
            if peer is not None and peer.entry_ns == entry_ns:
                return entry_ns
            heappop(heap)
        return NEVER

    def due(
        self, now_ns: int, may_accuse: bool = True, retry_ns: int = 0
    ) -> list[Change | Postponed]:
        """Look at all whose time has come; return what changed, the earliest first.

        Args:
            now_ns: The time.
            may_accuse: Whether the observer is well enough to.
            retry_ns: When it may be again, if not: later than ``now_ns``.
        """
        made: list[Change | Postponed] = []
        while (entry_ns := self.next_ns()) <= now_ns and entry_ns != NEVER:
            _, name = heappop(self._heap)
            peer = self._peers[name]
            peer.entry_ns = NEVER
            suspicion = peer.detector.suspicion(now_ns)
            rank = self._levels.rank(suspicion)
            if rank <= peer.rank:
                self._plan(name, peer)
            elif may_accuse:
                silence_ns = now_ns - peer.heard_ns
                made.append(Change(name, NAMES[peer.rank], NAMES[rank], suspicion, silence_ns))
                peer.rank = rank
                peer.postponed = False
                if rank == _TOP:
                    peer.quality.suspected(now_ns)
                self._plan(name, peer)
            else:
                if not peer.postponed:
                    made.append(Postponed(name, suspicion))
                peer.postponed = True
                self._push(name, peer, max(retry_ns, now_ns + 1))
        return made

    def _plan(self, name: str, peer: _Peer) -> None:
        if peer.rank == _TOP:
            return
        due_ns = peer.detector.deadline_ns(self._bounds[peer.rank])
        if due_ns < peer.entry_ns:
            self._push(name, peer, due_ns)

    def _push(self, name: str, peer: _Peer, at_ns: int) -> None:
        peer.entry_ns = at_ns
        heap = self._heap
        heappush(heap, (at_ns, name))
        if len(heap) > 2 * len(self._peers) + 16:
            heap[:] = [(one.entry_ns, key) for key, one in self._peers.items()
                       if one.entry_ns != NEVER]  # fmt: skip
            heapify(heap)

    # --- being asked -------------------------------------------------------------------------

    def level(self, name: str) -> LevelName:
        """Return the level that was decided last.

        Raises:
            KeyError: It is not watched.
        """
        return NAMES[self._peers[name].rank]

    def suspicion(self, name: str, now_ns: int) -> float:
        """Return the suspicion of this moment, whoever may judge.

        Raises:
            KeyError: It is not watched.
        """
        return self._peers[name].detector.suspicion(now_ns)

    def names(self) -> list[str]:
        """Return who is watched, in the order of appearance."""
        return list(self._peers)

    def stopped(self, name: str, now_ns: int) -> None:
        """It has really stopped, by what somebody else knows: for the quality alone.

        Raises:
            KeyError: It is not watched.
        """
        self._peers[name].quality.stopped(now_ns)

    def quality(self, name: str, now_ns: int) -> Score:
        """Return how good its detector was, at the level ``evict``.

        Raises:
            KeyError: It is not watched.
        """
        return self._peers[name].quality.score(now_ns)

    def snapshot(self, now_ns: int) -> Mapping[str, Any]:
        """Return the state of every peer, as values that JSON knows."""
        return {
            name: {
                "level": NAMES[peer.rank],
                "suspicion": round(peer.detector.suspicion(now_ns), 3),
                "silence": max(0, now_ns - peer.heard_ns) / NS,
                "postponed": peer.postponed,
                **peer.detector.snapshot(),
                **peer.quality.snapshot(),
            }
            for name, peer in self._peers.items()
        }
