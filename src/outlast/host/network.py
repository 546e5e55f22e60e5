"""TCP through the running asyncio loop."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from outlast.kernel import ConnectionHandler

TLS_HANDSHAKE_SECONDS = 10.0
"""How long a caller may take for its side of TLS; asyncio's own default is a minute."""


def _tune(transport: Any) -> None:
    """Turn Nagle's algorithm off.

    Raises:
        ConnectionResetError: The other side has broken the connection already. uvloop says so
            by a ValueError, since the transport has no descriptor any more.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, ValueError) as error:
        message = "the other side broke the connection as soon as it was made"
        raise ConnectionResetError(message) from error


async def close_server(server: asyncio.Server) -> None:
    """Close ``server``; callers whose connection it has taken by now are served or refused.

    asyncio attaches a connection to its server a turn after it was taken. If the server is
    closed by then, that fails, and the socket stays open with nobody to close it.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):  # others take connections in another way
        for listening in server.sockets:
            loop.remove_reader(listening.fileno())
        try:
            await asyncio.sleep(0)
        finally:
            server.close()
        return
    server.close()


class HostListener:
    """A listening socket of the running loop."""

    __slots__ = ("_server",)

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @property
    def port(self) -> int:
        """The port in use."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening; connections already made stay."""
        await close_server(self._server)


class HostNetwork:
    """TCP connections with ``TCP_NODELAY``."""

    __slots__ = ()

    async def connect(
        self,
        handler: Callable[[], ConnectionHandler],
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        timeout: float,
    ) -> ConnectionHandler:
        """Open a connection and return its handler; see :class:`outlast.kernel.Network`."""
        loop = asyncio.get_running_loop()
        factory = cast("Callable[[], asyncio.Protocol]", handler)
        async with asyncio.timeout(timeout):
            transport, made = await loop.create_connection(
                factory,
                host,
                port,
                ssl=tls,
                server_hostname=server_hostname if tls is not None else None,
            )
        try:
            _tune(transport)
        except ConnectionResetError:
            transport.abort()
            raise
        return cast("ConnectionHandler", made)

    async def listen(
        self,
        handler: Callable[[], ConnectionHandler],
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> HostListener:
        """Accept connections; see :class:`outlast.kernel.Network`."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            cast("Callable[[], asyncio.Protocol]", handler),
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else TLS_HANDSHAKE_SECONDS,
            reuse_address=True,
            backlog=1024,
            start_serving=False,
        )
        try:
            await server.start_serving()
        except BaseException:
            # Cancelled while asyncio listens already; with nobody to close it, it would for ever.
            server.close()
            raise
        return HostListener(server)
