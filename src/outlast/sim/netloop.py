"""What a simulated loop does where a real one would use sockets."""

import asyncio
import errno
import os
import socket
from asyncio import sslproto
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, cast

from outlast.kernel import EscapeError
from outlast.sim.datagram import UdpSocket, UdpTransport
from outlast.sim.dns import PORTS, Row
from outlast.sim.rawsock import RawMethods
from outlast.sim.segment import os_error
from outlast.sim.sockets import SimServer, SimSocket
from outlast.sim.stream import StreamTransport
from outlast.sim.tcp import End

if TYPE_CHECKING:
    from outlast.sim.loop import SimLoop
    from outlast.sim.ports import Address, Listener

_TLS: Any = sslproto.SSLProtocol
"""Its first arguments are the same from 3.11 to 3.14; it has no public name."""
Factory = Callable[[], asyncio.BaseProtocol]


class NetworkMethods(RawMethods):
    """The network methods of a loop, over the simulated network of ``self.sim``."""

    # --- names ---------------------------------------------------------------------------------

    async def getaddrinfo(  # type: ignore[override]
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0,
        flags: int = 0,
    ) -> list[Row]:  # fmt: skip
        """Look up a name among the hosts of the simulation."""
        dns = self.sim.network.dns
        return await dns.rows(host, port, family=family, type=type, proto=proto, flags=flags)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """Return the name of the host that has an address."""
        await asyncio.sleep(0)
        address, port = str(sockaddr[0]), int(sockaddr[1])
        host = self.sim.host_of(address)
        name = address if host is None or flags & socket.NI_NUMERICHOST else host.name
        if name == address and flags & socket.NI_NAMEREQD:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        names = {number: service for service, number in PORTS.items()}
        if flags & socket.NI_NUMERICSERV:
            return name, str(port)
        return name, names.get(port, str(port))

    # --- connections ---------------------------------------------------------------------------

    async def create_connection(
        self,
        protocol_factory: Factory,
        host: Any = None,
        port: Any = None,
        *,
        ssl: Any = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: Any = None,
        local_addr: Any = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> Any:
        """Connect to another host; see :meth:`asyncio.loop.create_connection`."""
        server_hostname = _check_ssl(
            ssl, server_hostname, host, (ssl_handshake_timeout, ssl_shutdown_timeout)
        )
        kept: socket.socket | None = None
        if sock is not None:
            if host is not None or port is not None:
                message = "host/port and sock can not be specified at the same time"
                raise ValueError(message)
            end = self._end_of(sock)
            kept = sock if isinstance(sock, socket.socket) else None
        elif host is None and port is None:
            message = "host and port was not specified and no sock specified"
            raise ValueError(message)
        else:
            rows = await self.getaddrinfo(
                host, port, family=family, type=socket.SOCK_STREAM, proto=proto, flags=flags
            )
            local = None
            if local_addr is not None:
                local = await self._local(local_addr, family)
            try:
                end = await self.sim.network.connect(rows[0][4], local)
            except OSError as error:
                if all_errors:
                    message = "create_connection failed"
                    raise ExceptionGroup(message, [error]) from None
                raise
        return await self._connected(
            end, protocol_factory, ssl, server_hostname, kept,
            ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout,
        )  # fmt: skip

    async def _local(self, local_addr: Any, family: int) -> "Address":
        """Return the address to connect from."""
        network = self.sim.network
        kernel = network.kernel_of(self.sim.life)
        rows = await self.getaddrinfo(
            local_addr[0], local_addr[1], family=family, type=socket.SOCK_STREAM
        )
        address = cast("str", rows[0][4][0])
        port = cast("int", rows[0][4][1])
        if network.reached(kernel.host, address) is not kernel.host:
            text = (
                f"error while attempting to bind on address {rows[0][4]!r}: "
                f"{os.strerror(errno.EADDRNOTAVAIL).lower()}"
            )
            raise os_error(errno.EADDRNOTAVAIL, text)
        return (address, port or kernel.free_port(), *rows[0][4][2:])

    async def _connected(
        self,
        end: End,
        protocol_factory: Factory,
        ssl: Any,
        server_hostname: str | None,
        kept: socket.socket | None,
        **timeouts: float | None,
    ) -> Any:
        """Return transport and protocol over a connection that was just made."""
        loop = cast("SimLoop", self)
        waiter: asyncio.Future[None] = loop.create_future()
        try:
            protocol = protocol_factory()
        except BaseException:
            end.close()
            raise
        transport: Any
        if ssl:
            context = None if isinstance(ssl, bool) else ssl
            secured: Any = _TLS(
                loop, protocol, context, waiter, False, server_hostname, **timeouts
            )
            StreamTransport(loop, end, secured, kept=kept)
            transport = secured._app_transport
        else:
            transport = StreamTransport(loop, end, protocol, waiter=waiter, kept=kept)
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    # --- servers -------------------------------------------------------------------------------

    async def create_server(
        self,
        protocol_factory: Factory,
        host: Any = None,
        port: Any = None,
        *,
        family: int = socket.AF_UNSPEC,
        flags: int = socket.AI_PASSIVE,
        sock: Any = None,
        backlog: int = 100,
        ssl: Any = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> Any:
        """Listen on this host; see :meth:`asyncio.loop.create_server`."""
        if isinstance(ssl, bool):
            message = "ssl argument must be an SSLContext or None"
            raise TypeError(message)
        _check_timeouts(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        if sock is not None:
            if host is not None or port is not None:
                message = "host/port and sock can not be specified at the same time"
                raise ValueError(message)
            if not isinstance(sock, SimSocket) or sock.listener is None:
                _refuse(
                    "a server on a socket object of its own",
                    "let the loop bind: create_server(host=…, port=…)",
                )
            sockets = [sock]
        elif host is None and port is None:
            message = "Neither host/port nor sock were specified"
            raise ValueError(message)
        else:
            hosts = [host] if host is None or isinstance(host, str) else list(host)
            sockets = await self._bind(hosts, port, family, flags, shared=bool(reuse_port))
        return self._serve(
            sockets, protocol_factory, ssl, backlog, start_serving,
            ssl_handshake_timeout, ssl_shutdown_timeout,
        )  # fmt: skip

    async def _bind(
        self, hosts: Iterable[Any], port: Any, family: int, flags: int, *, shared: bool
    ) -> list[SimSocket]:
        """Bind a socket for each of the addresses, or for none."""
        network = self.sim.network
        life = self.sim.life
        found: dict[tuple[Any, ...], None] = {}
        for host in hosts:
            rows = await self.getaddrinfo(
                host, port, family=family, type=socket.SOCK_STREAM, flags=flags
            )
            found.update((row[4], None) for row in rows)
        sockets: list[SimSocket] = []
        for address in found:
            try:
                listener = network.kernel_of(life).bind(
                    life, address[0], address[1], shared=shared
                )
            except OSError as error:
                for sock in sockets:
                    sock.close()
                text = (
                    f"error while attempting to bind on address {address!r}: "
                    f"{(error.strerror or '').lower()}"
                )
                raise os_error(error.errno or errno.EADDRINUSE, text) from None
            local = (address[0], listener.port, *address[2:])
            sockets.append(SimSocket(network, socket.SOCK_STREAM, local, listener=listener))
        return sockets

    def _serve(
        self,
        sockets: list[SimSocket],
        protocol_factory: Factory,
        ssl: Any,
        backlog: int,
        start: bool,
        *timeouts: float | None,
    ) -> SimServer:
        server = SimServer(self, sockets, protocol_factory, ssl, backlog, *timeouts)
        if start:
            server._start_serving()  # type: ignore[attr-defined]
        return server

    def _start_serving(  # noqa: PLR0917 - called by the base class
        self,
        protocol_factory: Factory,
        sock: SimSocket,
        sslcontext: Any = None,
        server: SimServer | None = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None:
        """Called by ``asyncio.Server`` for each of its sockets."""
        loop = cast("SimLoop", self)
        listener = cast("Listener", sock.listener)

        def accept(end: End) -> None:
            try:
                protocol = protocol_factory()
                if sslcontext is not None:
                    waiter: asyncio.Future[None] = loop.create_future()
                    protocol = _TLS(
                        loop, protocol, sslcontext, waiter, True,
                        ssl_handshake_timeout=ssl_handshake_timeout,
                        ssl_shutdown_timeout=ssl_shutdown_timeout,
                    )  # fmt: skip
                    transport = protocol._app_transport
                    waiter.add_done_callback(lambda done: _shaken(done, transport))
            except Exception as error:
                end.close()
                loop.call_exception_handler(
                    {"message": "Error on transport creation", "exception": error}
                )
                return
            StreamTransport(loop, end, protocol, server=server)

        listener.listen(backlog, accept)
        self.sim.note("listen", self.sim.here.name, listener.address, listener.port)

    def _stop_serving(self, sock: SimSocket) -> None:
        """Called by ``asyncio.Server`` for each of its sockets."""
        sock.close()

    async def connect_accepted_socket(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse.

        Raises:
            EscapeError: Definite. Connections are accepted by servers of the loop alone.
        """
        _refuse("a socket that was accepted elsewhere", "use create_server")

    # --- unix sockets --------------------------------------------------------------------------

    async def create_unix_connection(
        self,
        protocol_factory: Factory,
        path: Any = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Connect to a path of this host."""
        if ssl and server_hostname is None:
            message = "you have to pass server_hostname when using ssl"
            raise ValueError(message)
        if path is None or sock is not None:
            _refuse("a unix socket object", "connect by path")
        try:
            end = await self.sim.network.connect(os.fspath(path))
        except ConnectionRefusedError:
            raise FileNotFoundError(
                errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path)
            ) from None
        return await self._connected(
            end, protocol_factory, ssl, server_hostname, None,
            ssl_handshake_timeout=ssl_handshake_timeout, ssl_shutdown_timeout=ssl_shutdown_timeout,
        )  # fmt: skip

    async def create_unix_server(
        self,
        protocol_factory: Factory,
        path: Any = None,
        *,
        sock: Any = None,
        backlog: int = 100,
        ssl: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = True,
    ) -> Any:
        """Listen on a path of this host; other hosts do not see it."""
        if path is None or sock is not None:
            _refuse("a unix socket object", "listen by path")
        network, life = self.sim.network, self.sim.life
        path = os.fspath(path)
        listener = network.kernel_of(life).bind_path(life, path)
        return self._serve(
            [SimSocket(network, socket.SOCK_STREAM, path, listener=listener)],
            protocol_factory, ssl, backlog, start_serving,
            ssl_handshake_timeout, ssl_shutdown_timeout,
        )  # fmt: skip

    # --- datagrams -----------------------------------------------------------------------------

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.DatagramProtocol],
        local_addr: Any = None,
        remote_addr: Any = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: Any = None,
    ) -> Any:
        """Send and receive datagrams; see :meth:`asyncio.loop.create_datagram_endpoint`."""
        if sock is not None:
            _refuse("a datagram socket object", "pass local_addr or remote_addr")
        if allow_broadcast:
            _refuse("a broadcast", "send to each host by name")
        if local_addr is None and remote_addr is None and not family:
            message = "unexpected address family"
            raise ValueError(message)
        network, life = self.sim.network, self.sim.life
        remote: tuple[Any, ...] | None = None
        if remote_addr is not None:
            remote = await self._resolve(remote_addr, family, flags)
        address, port = "0.0.0.0", 0  # noqa: S104 - simulated
        if local_addr is not None:
            address, port = (await self._resolve(local_addr, family, flags))[:2]
        elif remote is not None:
            address = remote[0] if remote[0].startswith(("127.", "::1")) else life.host.address
        udp = UdpSocket(network, life, address, port, remote)
        protocol = protocol_factory()
        transport = UdpTransport(cast("SimLoop", self), udp, protocol)
        waiter: asyncio.Future[None] = self.create_future()
        self.call_soon(waiter.set_result, None)
        await waiter
        return transport, protocol

    async def _resolve(self, address: Any, family: int, flags: int) -> tuple[Any, ...]:
        rows = await self.getaddrinfo(
            address[0], address[1], family=family, type=socket.SOCK_DGRAM, flags=flags
        )
        return rows[0][4]


def _shaken(waiter: "asyncio.Future[None]", transport: asyncio.BaseTransport) -> None:
    """A handshake has ended, be it well or badly."""
    if waiter.cancelled() or waiter.exception() is not None:
        transport.close()


def _check_ssl(
    ssl: Any, server_hostname: str | None, host: Any, timeouts: tuple[float | None, ...]
) -> str | None:
    """Check the arguments that go with TLS and return the name to check."""
    if server_hostname is not None and not ssl:
        message = "server_hostname is only meaningful with ssl"
        raise ValueError(message)
    if server_hostname is None and ssl:
        if not host:
            message = "You must set server_hostname when using ssl without a host"
            raise ValueError(message)
        server_hostname = host
    _check_timeouts(ssl, *timeouts)
    return server_hostname


def _check_timeouts(ssl: Any, handshake: float | None, shutdown: float | None) -> None:
    for name, value in (("handshake", handshake), ("shutdown", shutdown)):
        if value is not None and not ssl:
            message = f"ssl_{name}_timeout is only meaningful with ssl"
            raise ValueError(message)


def _refuse(what: str, instead: str) -> NoReturn:
    from outlast.sim.escape import place

    message = f"{place()}: {what} cannot be simulated: {instead}"
    raise EscapeError(message)


__all__ = ["NetworkMethods"]
