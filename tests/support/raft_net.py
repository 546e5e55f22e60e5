"""An in-memory PeerTransport between replicas of one process, with delays, loss and cuts.

Delivery is by the event loop only, never from inside ``send``; order per (sender, receiver,
channel) is kept. A cut may be one way. All draws come from one seeded Prng.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from outlast.kernel import Prng, ReplicaId
from outlast.log.api import Member
from outlast.log.engines.raft.transport import BULK_CHANNEL, RAFT_CHANNEL, PeerHandler

CHANNELS = (RAFT_CHANNEL, BULK_CHANNEL)


class RaftNet:
    """Connects :class:`NetEnd` objects by replica id."""

    def __init__(self, seed: int = 1) -> None:
        self.prng = Prng(seed)
        self.ends: dict[ReplicaId, NetEnd] = {}
        self.cuts: set[tuple[ReplicaId, ReplicaId]] = set()
        self.delay = 0.0
        self.loss_percent = 0
        self.drop: Callable[[ReplicaId, ReplicaId, str, int, bytes], bool] | None = None
        """Decides on each frame whether it is lost: (sender, receiver, channel, kind, body)."""
        self.sent: dict[str, int] = dict.fromkeys(CHANNELS, 0)

    def end(self, replica: ReplicaId) -> "NetEnd":
        """A new end for ``replica``; the old one, if any, is dead."""
        old = self.ends.get(replica)
        if old is not None:
            old.kill()
        made = self.ends[replica] = NetEnd(self, replica)
        return made

    def cut(self, a: ReplicaId, b: ReplicaId, *, both: bool = True) -> None:
        """Lose everything from ``a`` to ``b`` (and back)."""
        self.cuts.add((a, b))
        if both:
            self.cuts.add((b, a))
        self._tell(a, b, up=False)

    def isolate(self, replica: ReplicaId) -> None:
        """Cut ``replica`` off from all others."""
        for other in list(self.ends):
            if other != replica:
                self.cut(replica, other)

    def heal(self) -> None:
        """Undo every cut."""
        pairs = sorted({(min(a, b), max(a, b)) for a, b in self.cuts})
        self.cuts.clear()
        for a, b in pairs:
            self._tell(a, b, up=True)

    def _tell(self, a: ReplicaId, b: ReplicaId, *, up: bool) -> None:
        for one, other in ((a, b), (b, a)):
            end = self.ends.get(one)
            if end is not None and self.ends.get(other) is not None:
                end.notify(other, up=up)

    def open(self, a: ReplicaId, b: ReplicaId) -> bool:
        return (a, b) not in self.cuts


class NetEnd:
    """One replica's side of a :class:`RaftNet`; a ``PeerTransport``."""

    def __init__(self, net: RaftNet, me: ReplicaId) -> None:
        self.net = net
        self.me = me
        self.alive = True
        self.members: tuple[ReplicaId, ...] = ()
        self.handler: PeerHandler | None = None
        self._inbox: deque[tuple[ReplicaId, str, int, bytes]] = deque()
        self._scheduled = False

    def set_handler(self, handler: PeerHandler | None) -> None:
        self.handler = handler
        if handler is not None:
            for other, end in self.net.ends.items():
                if other != self.me and end.alive and end.handler is not None:
                    self.notify(other, up=True)
                    end.notify(self.me, up=True)

    def update(self, members: Sequence[Member]) -> None:
        self.members = tuple(member.replica for member in members)

    def kill(self) -> None:
        """Die without a word, as a process does; the others notice a broken connection."""
        if not self.alive:
            return
        self.alive = False
        self.handler = None
        self._inbox.clear()
        for end in self.net.ends.values():
            if end is not self:
                end.notify(self.me, up=False)

    def notify(self, other: ReplicaId, *, up: bool) -> None:
        if self.alive:
            asyncio.get_running_loop().call_soon(self._notify, other, up)

    def _notify(self, other: ReplicaId, up: bool) -> None:
        if self.handler is None or not self.alive:
            return
        for channel in CHANNELS:
            if up:
                self.handler.connected(other, channel)
            else:
                self.handler.lost(other, channel)

    def send(self, replica: ReplicaId, channel: str, kind: int, body: bytes) -> bool:
        net = self.net
        target = net.ends.get(replica)
        if not self.alive or target is None or target.handler is None:
            return False
        if (self.me, replica) in net.cuts:
            return True  # a cut network does not say so
        if net.loss_percent and net.prng.below(100) < net.loss_percent:
            return True
        if net.drop is not None and net.drop(self.me, replica, channel, kind, body):
            return True
        net.sent[channel] += 1
        if net.delay:
            asyncio.get_running_loop().call_later(
                net.delay, target.arrive, self.me, channel, kind, body
            )
        else:
            target.arrive(self.me, channel, kind, body)
        return True

    def arrive(self, sender: ReplicaId, channel: str, kind: int, body: bytes) -> None:
        if not self.alive:
            return
        self._inbox.append((sender, channel, kind, body))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        """Hand over what has arrived: as one read from a socket does, several at once."""
        self._scheduled = False
        inbox, self._inbox = self._inbox, deque()
        for sender, channel, kind, body in inbox:
            if self.handler is not None and (sender, self.me) not in self.net.cuts:
                self.handler.received(sender, channel, kind, body)


def members_of(names: Iterable[str]) -> tuple[Member, ...]:
    """Voters named ``names``, with addresses nobody uses."""
    return tuple(Member(ReplicaId(name), address=f"{name}:0") for name in names)
