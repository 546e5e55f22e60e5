"""Connections between the members: the Raft engine's transport over the wire.

Each member dials every other twice, for ``raft`` (urgent, small) and ``bulk`` (snapshot
chunks), and sends only on what it dialled; what it receives comes on connections that the
others dialled. So nobody needs to agree on who connects, and a one-way cut is just that.

A connection is taken for a replica only if the handshake named exactly that incarnation.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from outlast.cluster.comparison import DIGESTS
from outlast.kernel import (
    DefiniteError,
    IndefiniteError,
    NodeId,
    OutlastError,
    ReplicaId,
    TaskHandle,
    World,
    node_of,
    replica_id,
)
from outlast.log import Member
from outlast.log.engines.raft import BULK_CHANNEL, RAFT_CHANNEL, PeerHandler
from outlast.protect import Retry, attempts
from outlast.wire import Connection, Identity, Scope, Security, WireListener, dial, parse_address

_CHANNELS = (RAFT_CHANNEL, BULK_CHANNEL)
_DIAL_TIMEOUT = 1.0
_STRANGER_WAIT = 0.5
_REDIAL = Retry(
    on=(OSError, DefiniteError, IndefiniteError),
    attempts=None,
    base=0.02,
    cap=0.5,
    repeat_indefinite=True,
)
_BULK_BUFFER_MAX = 16 << 20


@dataclass(eq=False, slots=True)
class _Outgoing:
    """A connection that we dialled: we send on it, and hear who cannot dial us yet."""

    peers: "Peers"
    replica: ReplicaId
    channel: str
    connection: Connection | None = None
    lost: list[Callable[[], None]] = field(default_factory=list)

    def opened(self, connection: Connection) -> None:
        found = replica_id(NodeId(connection.peer.node), connection.peer.incarnation)
        if found != self.replica:
            message = f"{self.replica} was expected and {found} answered"
            self.peers.note(self.replica, message)
            connection.abort()
            return
        self.connection = connection
        self.peers.outgoing_up(self)

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        """An answer of a replica that does not know us yet, and so cannot dial."""
        self.peers.deliver(self.replica, self.channel, kind, body)

    def closed(self, error: BaseException | None) -> None:
        was_open = self.connection is not None
        self.connection = None
        for callback in self.lost:
            callback()
        if was_open:
            self.peers.outgoing_down(self)


@dataclass(eq=False, slots=True)
class _Incoming:
    """A connection that another member dialled: it sends, we receive.

    We answer on it only as long as our log does not name the member: then nobody told us where
    to dial.
    """

    peers: "Peers"
    channel: str
    replica: ReplicaId = field(default=ReplicaId(""))
    connection: Connection | None = None

    def opened(self, connection: Connection) -> None:
        self.connection = connection
        peer = connection.peer
        self.replica = replica_id(NodeId(peer.node), peer.incarnation)
        self.peers.incoming[self.replica, self.channel] = self

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        self.peers.deliver(self.replica, self.channel, kind, body)

    def closed(self, error: BaseException | None) -> None:
        """Say that the replica is lost, unless it has dialled again meanwhile."""
        self.connection = None
        key = (self.replica, self.channel)
        if self.peers.incoming.get(key) is not self:
            return
        del self.peers.incoming[key]
        handler = self.peers.handler
        if handler is not None:
            handler.lost(self.replica, self.channel)


class Peers:
    """The :class:`~outlast.log.engines.raft.PeerTransport` of one node.

    Args:
        world: Network, timers, tasks.
        listener: Where the other members dial; its peer channels are registered here.
        identity: This node's, shown in every handshake.
        security: TLS and tokens.
        routes: Addresses that override the members' own, by node.
    """

    def __init__(
        self,
        world: World,
        listener: WireListener,
        *,
        identity: Identity,
        security: Security,
        routes: Mapping[str, str] | None = None,
    ) -> None:
        self._world = world
        self._identity = identity
        self._security = security
        self._routes = dict(routes or {})
        self._me = replica_id(NodeId(identity.node), identity.incarnation)
        self._links: dict[tuple[ReplicaId, str], _Outgoing] = {}
        self._addresses: dict[ReplicaId, str] = {}
        self._introduced: tuple[Member, ...] = ()
        self._tasks: dict[tuple[ReplicaId, str], TaskHandle] = {}
        self.incoming: dict[tuple[ReplicaId, str], _Incoming] = {}
        self.handler: PeerHandler | None = None
        self.on_digests: Callable[[ReplicaId, bytes], None] | None = None
        self.problems: dict[str, str] = {}
        self._closed = False
        self._enabled = False
        for channel in _CHANNELS:
            listener.register(channel, self._accept(channel), scope=Scope.PEER)

    def _accept(self, channel: str) -> Callable[[Connection], _Incoming]:
        return lambda _: _Incoming(self, channel)

    # --- PeerTransport -----------------------------------------------------------------------

    def send(self, replica: ReplicaId, channel: str, kind: int, body: bytes) -> bool:
        """Queue a frame; ``False`` if it was dropped."""
        link: _Outgoing | _Incoming | None = self._links.get((replica, channel))
        if link is None:
            # A leader that was admitted while we were away: our log does not name it yet.
            link = self.incoming.get((replica, channel))
        connection = None if link is None else link.connection
        if connection is None:
            return False
        if channel == BULK_CHANNEL and connection.buffered_bytes > _BULK_BUFFER_MAX:
            return False
        connection.send(kind, 0, body)
        return True

    def set_handler(self, handler: PeerHandler | None) -> None:
        """Deliver what arrives to ``handler``."""
        self.handler = handler

    def introduce(self, members: Sequence[Member]) -> None:
        """Say whom to talk to while the log has not named any member yet.

        A node that was just admitted must answer the leader before it has read who that is.
        """
        self._introduced = tuple(members)
        if not self._addresses:
            self.update(())

    def update(self, members: Sequence[Member]) -> None:
        """Keep connections to ``members`` and drop those to others."""
        members = members or self._introduced
        wanted = {m.replica: m.address for m in members if m.replica != self._me}
        for key in list(self._tasks):
            if wanted.get(key[0]) != self._addresses.get(key[0]):
                self._drop(key)
        self._addresses = wanted
        for replica in wanted:
            for channel in _CHANNELS:
                if (replica, channel) not in self._tasks and not self._closed:
                    self._tasks[replica, channel] = self._world.spawn.task(
                        self._keep(replica, channel), name=f"peer {replica} {channel}"
                    )

    def enable(self) -> None:
        """Deliver what arrives from now on; before, it is dropped as if the network had."""
        self._enabled = True

    def deliver(self, sender: ReplicaId, channel: str, kind: int, body: bytes) -> None:
        """Hand a received frame to the engine, or to the comparison of digests."""
        if kind == DIGESTS:
            if self.on_digests is not None:
                self.on_digests(sender, body)
        elif self._enabled and self.handler is not None:
            self.handler.received(sender, channel, kind, body)

    def close(self) -> None:
        """Close all connections for good."""
        self._closed = True
        for key in list(self._tasks):
            self._drop(key)

    # --- links -------------------------------------------------------------------------------

    def outgoing_up(self, link: _Outgoing) -> None:
        """A dialled connection is ready."""
        self.problems.pop(link.replica, None)
        if self.handler is not None:
            self.handler.connected(link.replica, link.channel)

    def outgoing_down(self, link: _Outgoing) -> None:
        """A dialled connection broke."""
        self.note(link.replica, "connection lost")
        if self.handler is not None:
            self.handler.lost(link.replica, link.channel)

    def note(self, replica: ReplicaId, problem: str) -> None:
        """Remember why ``replica`` cannot be reached, for the status page."""
        self.problems[replica] = problem

    def connected(self, replica: ReplicaId) -> bool:
        """Whether messages can be sent to ``replica``."""
        link = self._links.get((replica, RAFT_CHANNEL))
        return link is not None and link.connection is not None

    def _drop(self, key: tuple[ReplicaId, str]) -> None:
        self._tasks.pop(key).cancel()
        link = self._links.pop(key, None)
        if link is not None and link.connection is not None:
            link.connection.abort()

    async def _keep(self, replica: ReplicaId, channel: str) -> None:
        """Hold a connection to ``replica`` open: dial, wait until it breaks, dial again."""
        while not self._closed:
            link = _Outgoing(self, replica, channel)
            ended = asyncio.Event()
            link.lost.append(ended.set)
            self._links[replica, channel] = link
            async for attempt in attempts(_REDIAL, name=f"dial {replica}", world=self._world):
                with attempt:
                    await self._dial(link)
            if link.connection is not None:
                await ended.wait()
            else:
                await self._world.timers.sleep(_STRANGER_WAIT)

    async def _dial(self, link: _Outgoing) -> None:
        node = node_of(link.replica)
        address = self._routes.get(node) or self._addresses.get(link.replica, "")
        where = parse_address(address)
        try:
            await dial(
                self._world,
                where.host,
                where.port,
                channel=link.channel,
                identity=self._identity,
                expect_cluster=self._identity.cluster,
                expect_node=node,
                security=self._security,
                handler=link,
                timeout=_DIAL_TIMEOUT,
            )
        except (OSError, OutlastError) as error:
            self.note(link.replica, f"{address}: {error}")
            raise
