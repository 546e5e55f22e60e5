"""Whom to probe next: everybody in turn, in an order that is drawn anew each time round.

SWIM (section 4.3): each member is probed within two rounds, and not only sooner or later.
Who is new gets a place drawn at random.
"""

from outlast.detect.core.swim.peer import Peer
from outlast.kernel import Prng


class Ring:
    """Members that are not removed. Removed ones are taken out when they come up."""

    __slots__ = ("_at", "_order", "_prng")

    def __init__(self, prng: Prng) -> None:
        self._prng = prng
        self._order: list[Peer] = []
        self._at = 0

    def __len__(self) -> int:
        return len(self._order)

    def add(self, peer: Peer) -> None:
        """Give ``peer`` a place, unless it still has one."""
        if peer.in_ring:
            return
        peer.in_ring = True
        order = self._order
        order.append(peer)
        place = self._prng.below(len(order))
        order[place], order[-1] = order[-1], order[place]

    def next(self) -> Peer | None:
        """Return who is to be probed, ``None`` if nobody is left."""
        order = self._order
        while order:
            if self._at >= len(order):
                self._at = 0
                self._prng.shuffle(order)
            peer = order[self._at]
            if not peer.gone:
                self._at += 1
                return peer
            peer.in_ring = False
            order[self._at] = order[-1]
            order.pop()
        return None

    def sample(self, count: int, without: Peer | None = None, alive: bool = False) -> list[Peer]:
        """Return up to ``count`` different members by lot; ``alive``: none that is suspected."""
        order = self._order
        found: list[Peer] = []
        size = len(order)
        if size <= 2 * count:
            drawn = order.copy()
            self._prng.shuffle(drawn)
            tries = iter(drawn)
        else:
            tries = (order[self._prng.below(size)] for _ in range(4 * count))
        for peer in tries:
            if len(found) >= count:
                break
            if peer is without or peer.gone or peer in found:
                continue
            if alive and peer.suspicion is not None:
                continue
            found.append(peer)
        return found
