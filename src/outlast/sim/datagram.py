"""UDP: each datagram is on its own, and may be lost, doubled or overtaken.

A cut loses what is sent and what is under way. A datagram for a port that nobody has bound is
answered, and a sender that is connected to it learns so.
"""

import asyncio
import errno
import socket
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from outlast.sim.network import Network
from outlast.sim.ports import ANY, LOOPBACK, Kernel
from outlast.sim.segment import os_error
from outlast.sim.sockets import SimSocket
from outlast.sim.weather import MILLION

if TYPE_CHECKING:
    from outlast.sim.hosts import Life
    from outlast.sim.loop import SimLoop

DATAGRAM_MAX: Final = 65_507
QUEUE_BYTES: Final = 212_992
"""What waits for a program that does not read; more is lost."""
_REORDER_NS = (1_000_000, 20_000_000)
_BROADCAST = "255.255.255.255"


class UdpSocket:
    """A bound socket for datagrams.

    Args:
        network: To which it belongs.
        life: Whose it is.
        address: To which it is bound; ``0.0.0.0`` and ``::`` stand for all.
        port: To which it is bound; 0 for a free one.
        remote: The only address that it talks to, if any.

    Raises:
        OSError: The port is in use, or the address is not this host's.
    """

    __slots__ = (
        "address", "closed", "context", "kernel", "life", "local", "network", "port", "queued",
        "remote", "user",
    )  # fmt: skip

    def __init__(
        self,
        network: Network,
        life: "Life",
        address: str,
        port: int,
        remote: tuple[Any, ...] | None = None,
    ) -> None:
        kernel = network.kernel_of(life)
        if address not in ANY and address not in LOOPBACK and address != kernel.host.address:
            raise os_error(errno.EADDRNOTAVAIL)
        self.port = port or kernel.free_port()
        if self.port in kernel.datagrams:
            raise os_error(errno.EADDRINUSE)
        kernel.datagrams[self.port] = self
        self.network = network
        self.kernel: Kernel = kernel
        self.life = life
        self.context = copy_context()
        self.address = address
        self.local = (address, self.port, 0, 0) if ":" in address else (address, self.port)
        self.remote = remote
        self.queued = 0
        self.closed = False
        self.user: Any = None

    def send(self, data: bytes, remote: tuple[Any, ...]) -> None:
        """Send one datagram.

        Raises:
            OSError: It is too long, or a broadcast.
        """
        network, sim = self.network, self.network.sim
        size = len(data)
        if size > DATAGRAM_MAX:
            raise os_error(errno.EMSGSIZE)
        address, port = str(remote[0]), int(remote[1])
        if address == _BROADCAST or address.endswith(".255"):
            raise os_error(errno.EACCES)
        host = network.reached(self.life.host, address)
        if host is None:
            sim.note("datagram", self.life.host.name, address, "nowhere")
            return
        way = network.way(self.life.host.name, host.name)
        tally = way.tally
        tally.segments += 1
        tally.bytes += size
        if way.cut or way.drop or way.lost():
            tally.lost += not way.loss_ppm or way.cut or way.drop
            sim.note("lost datagram", way.source, way.target, size)
            return
        mine = address if address in LOOPBACK else self.life.host.address
        source = self.local if self.address not in ANY else (mine, self.port, *self.local[2:])
        kernel = network.endpoints[host.name]
        copies = 1
        if way.duplicate_ppm and way.prng.chance(way.duplicate_ppm, MILLION):
            copies = 2
            tally.duplicated += 1
            sim.count("datagram duplicated")
        for _ in range(copies):
            due_ns = way.sent_ns(sim.moment_ns, size) + way.draw_ns()
            if way.reorder_ppm and way.prng.chance(way.reorder_ppm, MILLION):
                tally.reordered += 1
                due_ns += way.prng.between(*_REORDER_NS)
            sim.at(due_ns, self._arrive, kernel, address, port, data, source, sim.moment_ns)

    def _arrive(  # noqa: PLR0917 - what a datagram carries
        self,
        kernel: Kernel,
        address: str,
        port: int,
        data: bytes,
        source: tuple[Any, ...],
        sent_ns: int,
    ) -> None:
        """A datagram has reached the machine."""
        network, sim = self.network, self.network.sim
        if not self.life.alive and sent_ns > self.life.ended_ns:
            return  # computed ahead of the crash: never sent
        way = network.way(self.life.host.name, kernel.host.name)
        if way.cut or not kernel.powered:
            way.tally.lost += 1
            sim.note("lost datagram", way.source, way.target, len(data))
            return
        found = kernel.datagrams.get(port)
        if found is not None and found.address not in ANY and found.address != address:
            found = None
        if found is None:
            if not (way.back.cut or self.closed) and self.remote is not None:
                way.tally.refused += 1
                error = os_error(errno.ECONNREFUSED)
                when_ns = sim.now_ns + way.back.draw_ns()
                sim.at_host(when_ns, self.life, self._refused, error, context=self.context)
            return
        if found.remote is not None and tuple(found.remote[:2]) != tuple(source[:2]):
            return
        if found.queued + len(data) > QUEUE_BYTES:
            way.tally.lost += 1
            sim.count("datagram queue full")
            return
        found.queued += len(data)
        sim.note("datagram", way.source, way.target, len(data))
        sim.at_host(sim.now_ns, found.life, found.receive, data, source, context=found.context)

    def receive(self, data: bytes, source: tuple[Any, ...]) -> None:
        """Hand a datagram to the program."""
        self.queued -= len(data)
        if self.user is not None and not self.closed:
            self.user.received(data, source)

    def _refused(self, error: OSError) -> None:
        if self.user is not None and not self.closed:
            self.user.refused(error)

    def close(self) -> None:
        """Let go of the port."""
        self.closed = True
        if self.kernel.datagrams.get(self.port) is self:
            del self.kernel.datagrams[self.port]


class UdpTransport(asyncio.DatagramTransport):
    """The transport of a datagram endpoint; it never waits to send."""

    def __init__(
        self, loop: "SimLoop", udp: UdpSocket, protocol: asyncio.DatagramProtocol
    ) -> None:
        sock = SimSocket(loop.sim.network, socket.SOCK_DGRAM, udp.local, udp.remote)
        extra = {"socket": sock, "sockname": udp.local, "peername": udp.remote}
        super().__init__(extra)
        self._loop = loop
        self._udp = udp
        self._sock = sock
        self._protocol: asyncio.DatagramProtocol | None = protocol
        self._closing = False
        self._made = False
        udp.user = self
        loop.call_soon(self._begin, context=udp.context)

    def __repr__(self) -> str:
        """Show the addresses."""
        state = "closing" if self._closing else "open"
        return f"<UdpTransport {state} {self._udp.local} to {self._udp.remote}>"

    def _begin(self) -> None:
        if self._protocol is not None:
            self._made = True
            self._protocol.connection_made(self)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram, to ``addr`` unless the endpoint is connected."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            message = f"data argument must be a bytes-like object, not {type(data).__name__!r}"
            raise TypeError(message)
        udp = self._udp
        if udp.remote is not None:
            if addr is not None and tuple(addr[:2]) != tuple(udp.remote[:2]):
                message = f"Invalid address: must be None or {udp.remote}"
                raise ValueError(message)
            addr = udp.remote
        if self._closing or self._protocol is None:
            return
        if addr is None:
            self._protocol.error_received(os_error(errno.EDESTADDRREQ))
            return
        try:
            udp.send(bytes(data), addr)
        except OSError as error:
            self._protocol.error_received(error)

    def received(self, data: bytes, source: tuple[Any, ...]) -> None:
        """Hand a datagram to the protocol."""
        if self._made and not self._closing and self._protocol is not None:
            self._protocol.datagram_received(data, source)

    def refused(self, error: OSError) -> None:
        """Tell the protocol that nobody listens."""
        if self._protocol is not None:
            self._protocol.error_received(error)

    def get_write_buffer_size(self) -> int:
        """Nothing ever waits."""
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the limits, which have no effect."""
        return (16 * 1024, 64 * 1024)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: nothing ever waits."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell ``protocol`` of everything from now on."""
        self._protocol = protocol  # type: ignore[assignment]

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that is told."""
        return self._protocol  # type: ignore[return-value]

    def is_closing(self) -> bool:
        """Tell whether it is closed, or its host has crashed."""
        return self._closing or not self._udp.life.alive

    def close(self) -> None:
        """Let go of the port."""
        if not self._closing and not self._loop.is_closed():
            self._closing = True
            self._udp.close()
            self._loop.call_soon(self._lost, None, context=self._udp.context)

    def abort(self) -> None:
        """Let go of the port."""
        self.close()

    def _lost(self, error: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        self._sock.close()
        if protocol is not None:
            protocol.connection_lost(error)
