"""A TCP proxy that breaks links on purpose, as long as it is told and no longer.

Every link between two parties is a listener of its own. Faults are leases: each ends at its
instant even if nobody heals. What a link does to bytes is told in
:mod:`outlast.inject.core.linkfault`.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, cast

from outlast.inject.core.linkfault import HEALTHY, Direction, LinkFault
from outlast.inject.relay import Connection, Side, Way, reset
from outlast.inject.tally import LinkMark, LinkTally
from outlast.kernel import ConfigError, ConnectionHandler, Listener, Prng, TaskHandle, World

_NS = 1_000_000_000
BUFFER_BYTES = 1 << 20
CONNECTIONS_MAX = 1024
_CLOSE_TURNS = 100


class Link:
    """One listener of a :class:`Proxy`: whoever connects is connected to ``upstream``.

    Made by :meth:`Proxy.link`. Belongs to the loop it was made on; not thread-safe.

    Attributes:
        name: Unique within its proxy.
        source: Who connects, by name.
        target: Who is connected to, by name.
        upstream: Host and port that are dialled. May be changed: new connections go there.
        port: Where the link listens.
        tally: Counts of the link as a whole.
        dialled: Sockets towards ``upstream``, from before they are dialled until they are closed,
            and the tasks that dialled them.
        connections_max: More connections than this at a time are reset at once.
    """

    def __init__(
        self,
        world: World,
        prng: Prng,
        name: str,
        *,
        source: str,
        target: str,
        host: str,
        upstream: tuple[str, int],
        buffer_bytes: int = BUFFER_BYTES,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self.world = world
        self.name = name
        self.source = source
        self.target = target
        self.upstream = upstream
        self.host = host
        self.port = 0
        self.tally = LinkTally()
        self.connections_max = connections_max
        self._buffer_bytes = buffer_bytes
        self._ways: dict[Direction, Way] = {
            "forward": Way(world, prng.fork()),
            "backward": Way(world, prng.fork()),
        }
        # A dict and not a set: its order does not depend on addresses in memory.
        self._connections: dict[Connection, None] = {}
        self.dialled: dict[Side, TaskHandle | None] = {}
        self._listener: Listener | None = None
        self._seat: socket.socket | None = None

    def __repr__(self) -> str:
        """Show where it leads and what is wrong with it."""
        wrong = [way for way in self._ways if not self._ways[way].fault.harmless]
        state = f"faulty {' and '.join(wrong)}" if wrong else "healthy"
        return (
            f"<Link {self.name} :{self.port} -> {self.upstream[0]}:{self.upstream[1]}"
            f" {state}, {len(self._connections)} connections>"
        )

    @property
    def connections(self) -> int:
        """How many connections there are, stalled ones included."""
        return len(self._connections)

    # --- faults ------------------------------------------------------------------------------

    def set(self, direction: Direction | Literal["both"], fault: LinkFault, until_ns: int) -> None:
        """Put ``fault`` in force; it replaces the one in force on that direction.

        Args:
            direction: ``forward`` is from ``source`` to ``target``.
            fault: What is wrong from now on.
            until_ns: Monotonic instant at which it ends by itself. One that has passed heals.
        """
        for way in self._chosen(direction):
            if way.expiry is not None:
                way.expiry.cancel()
                way.expiry = None
            if until_ns <= self.world.clock.monotonic_ns():
                self._change(way, HEALTHY)
                continue
            way.until_ns = until_ns
            way.tally.delay_max_ns = 0
            self._change(way, fault)
            if not fault.harmless:
                way.expiry = self.world.timers.call_at(until_ns, partial(self._expired, way))

    def clear(self, direction: Direction | Literal["both"] = "both") -> None:
        """Heal now. Bytes that were withheld or delayed come through at once, in order."""
        self.set(direction, HEALTHY, 0)

    def fault(self, direction: Direction) -> LinkFault:
        """Return the fault in force."""
        return self._ways[direction].fault

    def _chosen(self, direction: Direction | Literal["both"]) -> list[Way]:
        if direction == "both":
            return list(self._ways.values())
        if direction not in self._ways:
            raise ConfigError(
                f"link {self.name}: direction is '{direction}'; use forward, backward or both"
            )
        return [self._ways[direction]]

    def _expired(self, way: Way) -> None:
        way.expiry = None
        self._change(way, HEALTHY)

    def _change(self, way: Way, fault: LinkFault) -> None:
        before, way.fault = way.fault, fault
        if not fault.bytes_per_second:
            way.pace.reset()
        for connection in list(self._connections):
            if fault.reset or (before.drop and not fault.drop and connection.marked):
                self.tally.resets += 1
                connection.abort()
            else:
                connection.update(way, before)

    async def refuse(self, refused: bool) -> None:
        """Refuse connections as a dead process does, or accept them again on the same port.

        Connections that exist are left alone.
        """
        if refused and self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.close()
        elif not refused and self._listener is None:
            await self._listen()

    # --- evidence ----------------------------------------------------------------------------

    def mark(self) -> LinkMark:
        """Return the counts as they are now, for :meth:`evidence`."""
        forward, backward = self._ways["forward"].tally, self._ways["backward"].tally
        now = self.world.clock.monotonic_ns()
        return LinkMark(now, self.tally.copy(), forward.copy(), backward.copy())

    def evidence(self, since: LinkMark) -> dict[str, Any]:
        """Return what the link did since a mark; what a cut withholds right now is included.

        ``withheld_bytes`` are those that waited here and, unread, in the system's buffers, when
        a cut ended or at this moment. What still waits with the sender is not seen.
        """
        facts: dict[str, Any] = {
            "link": self.name,
            "source": self.source,
            "target": self.target,
            "seconds": round((self.world.clock.monotonic_ns() - since.at_ns) / _NS, 3),
            "connections": len(self._connections),
            **self.tally.since(since.link),
        }
        for direction, way in self._ways.items():
            then = since.forward if direction == "forward" else since.backward
            counted = way.tally.since(then)
            if way.fault.cut:
                counted["withheld_bytes"] += self._withheld(direction)
            facts[direction] = counted
        return facts

    def dialled_ports(self) -> list[int]:
        """Return the local ports of the connections to ``upstream``; 0 for one under way."""
        for side, task in list(self.dialled.items()):
            if side.transport is None and task is not None and task.done():
                del self.dialled[side]  # cancelled before it began
        return [side.port for side in self.dialled]

    def _withheld(self, direction: Direction) -> int:
        connections = self._connections
        flows = (c.forward if direction == "forward" else c.backward for c in connections)
        return sum(flow.withheld_bytes() for flow in flows)

    # --- connections -------------------------------------------------------------------------

    async def open(self, port: int = 0) -> None:
        """Begin to listen; :meth:`Proxy.link` does it.

        A second socket is bound to the port and never listens: it keeps the port ours while
        :meth:`refuse` has closed the listener.
        """
        seat = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            seat.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            seat.bind((self.host, port))
        except OSError:
            seat.close()
            raise
        self._seat = seat
        self.port = seat.getsockname()[1]
        await self._listen()

    async def _listen(self) -> None:
        self._listener = await self.world.network.listen(self._accept, self.host, self.port)

    def _accept(self) -> ConnectionHandler:
        connection = Connection(
            self, self._ways["forward"], self._ways["backward"], self._buffer_bytes
        )
        self.tally.attempts += 1
        if any(way.fault.reset for way in self._ways.values()):
            self.tally.resets += 1
            return cast("ConnectionHandler", _Rejected(connection, connection.forward))
        if len(self._connections) >= self.connections_max:
            self.tally.over_limit += 1
            return cast("ConnectionHandler", _Rejected(connection, connection.forward))
        if connection.blocked:
            self.tally.attempts_stalled += 1
        self._connections[connection] = None
        return cast("ConnectionHandler", connection.near)

    def ended(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        self._connections.pop(connection, None)

    async def close(self) -> None:
        """Stop listening and break what is connected."""
        for way in self._ways.values():
            if way.expiry is not None:
                way.expiry.cancel()
                way.expiry = None
        await self.refuse(True)
        for connection in list(self._connections):
            connection.abort()
        for _ in range(_CLOSE_TURNS):  # of the loop, until the sockets are closed
            await self.world.timers.sleep(0)
            if not self.dialled_ports():
                break
        if self._seat is not None:
            with suppress(OSError):
                self._seat.close()
            self._seat = None


class _Rejected(Side):
    """A connection that is reset as soon as it is there."""

    __slots__ = ()

    def connection_made(self, transport: Any) -> None:
        """Reset it."""
        reset(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to pass on."""


class Proxy:
    """Many links in one process, each with faults of its own.

    Belongs to one event loop; not thread-safe. When the process dies, its connections break and
    its ports are refused: no fault can outlive it.

    Args:
        world: Clock, timers, tasks and network.
        prng: Where jitter and losses are drawn from; each link forks its own.
        host: Where links listen.
        buffer_bytes: What may wait in each direction of a connection; the sender is not read
            while there is more. Default 1 MiB.
    """

    def __init__(
        self,
        world: World,
        prng: Prng,
        *,
        host: str = "127.0.0.1",
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self._world = world
        self._prng = prng
        self._host = host
        self._buffer_bytes = buffer_bytes
        self._links: dict[str, Link] = {}

    @property
    def pid(self) -> int:
        """The process whose sockets these are."""
        return os.getpid()

    @property
    def links(self) -> Mapping[str, Link]:
        """All links by name."""
        return MappingProxyType(self._links)

    async def link(
        self,
        name: str,
        *,
        source: str,
        target: str,
        upstream: tuple[str, int],
        listen_port: int = 0,
    ) -> Link:
        """Add a link and listen.

        Args:
            name: Unique, such as ``n1-n2``.
            source: Who connects to it.
            target: Who answers.
            upstream: Host and port of who answers.
            listen_port: 0 lets the system choose.

        Raises:
            ConfigError: The name is taken.
            OSError: The port is in use.
        """
        if name in self._links:
            raise ConfigError(f"link '{name}' exists already; link names are unique")
        link = Link(
            self._world,
            self._prng.fork(),
            name,
            source=source,
            target=target,
            host=self._host,
            upstream=upstream,
            buffer_bytes=self._buffer_bytes,
        )
        await link.open(listen_port)
        self._links[name] = link
        return link

    def between(self, source: str | None = None, target: str | None = None) -> list[Link]:
        """Return the links from ``source`` to ``target``; ``None`` stands for anyone."""
        return [
            link
            for link in self._links.values()
            if source in {None, link.source} and target in {None, link.target}
        ]

    def dialled_ports(self) -> frozenset[int] | None:
        """Return the local ports of all connections that the proxy dialled.

        ``None`` while one is being dialled: the system may know of it before we do.
        """
        ports = {port for link in self._links.values() for port in link.dialled_ports()}
        return None if 0 in ports else frozenset(ports)

    def clear(self) -> None:
        """Heal all links now."""
        for link in self._links.values():
            link.clear()

    async def close(self) -> None:
        """Close all links and break their connections."""
        for link in self._links.values():
            await link.close()
        self._links.clear()
