"""Loop methods for socket objects that the program made itself.

Some clients make a socket, connect it with ``loop.sock_connect`` and hand it to
``loop.create_connection``. The real socket is never connected: the simulated connection is kept
in a table beside it, for as long as the object lives.
"""

import asyncio
import errno
import socket
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from outlast.kernel import EscapeError
from outlast.sim.datagram import UdpSocket
from outlast.sim.segment import os_error
from outlast.sim.tcp import End

if TYPE_CHECKING:
    from outlast.sim.simulation import Simulation


class RawUser:
    """The program's side of an end that is read and written by calls."""

    __slots__ = ("_readers", "_writers", "end", "reading")

    def __init__(self, end: End) -> None:
        self.end = end
        self.reading = False
        self._readers: list[asyncio.Future[None]] = []
        self._writers: list[asyncio.Future[None]] = []
        end.user = self

    def received(self, data: bytes) -> None:
        """Never called: it does not read by itself."""

    def readable(self) -> None:
        """Wake who waits to read, and on an error who waits to write."""
        _wake(self._readers)
        if self.end.error is not None:
            _wake(self._writers)

    def writable(self) -> None:
        """Wake who waits to write."""
        _wake(self._writers)

    def gone(self) -> None:
        """The program has crashed: nobody waits."""

    async def wait(self, loop: asyncio.AbstractEventLoop, *, write: bool = False) -> None:
        """Wait until a call may succeed."""
        future: asyncio.Future[None] = loop.create_future()
        (self._writers if write else self._readers).append(future)
        await future


def _wake(futures: "list[asyncio.Future[None]]") -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
    futures.clear()


class _Datagrams:
    """What a datagram socket has received."""

    __slots__ = ("arrived", "udp", "waiting")

    def __init__(self, udp: UdpSocket) -> None:
        self.udp = udp
        self.arrived: list[tuple[bytes, tuple[Any, ...]]] = []
        self.waiting: list[asyncio.Future[None]] = []
        udp.user = self

    def received(self, data: bytes, source: tuple[Any, ...]) -> None:
        self.arrived.append((data, source))
        _wake(self.waiting)

    def refused(self, error: OSError) -> None:
        """The sender did not wait for an answer."""


class RawMethods(asyncio.AbstractEventLoop):
    """``sock_connect``, ``sock_recv`` and their like."""

    sim: "Simulation"
    _raw: "weakref.WeakKeyDictionary[Any, RawUser | _Datagrams]"

    def _table(self) -> "weakref.WeakKeyDictionary[Any, RawUser | _Datagrams]":
        table = self.__dict__.get("_raw")
        if table is None:
            table = self._raw = weakref.WeakKeyDictionary()
        return table

    def _user(self, sock: Any) -> RawUser:
        user = self._table().get(sock)
        if not isinstance(user, RawUser) or sock.fileno() == -1:
            raise os_error(errno.ENOTCONN if sock.fileno() != -1 else errno.EBADF)
        return user

    def _end_of(self, sock: Any) -> End:
        """Take over the connection of a socket object."""
        user = self._table().pop(sock, None)
        if isinstance(user, RawUser):
            return user.end
        _refuse("a socket that was connected elsewhere", "connect with loop.sock_connect")

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Connect the simulated twin of ``sock``."""
        if sock.type != socket.SOCK_STREAM:
            _refuse("sock_connect of a datagram socket", "use create_datagram_endpoint")
        if sock.family != socket.AF_UNIX:
            rows = await self.sim.network.dns.rows(
                address[0], address[1], family=sock.family, type=sock.type
            )
            address = rows[0][4]
        end = await self.sim.network.connect(address)
        if sock.fileno() == -1:
            end.close()
            raise os_error(errno.EBADF)
        self._table()[sock] = RawUser(end)
        weakref.finalize(sock, _closed, end).atexit = False

    async def sock_accept(self, sock: Any) -> NoReturn:
        """Refuse: a socket object cannot be bound in a simulation."""
        _refuse("sock_accept", "use loop.create_server or asyncio.start_server")

    async def sock_recv(self, sock: Any, nbytes: int) -> bytes:
        """Receive up to ``nbytes``; empty at the end of the stream."""
        user = self._user(sock)
        end = user.end
        while not end.arrived:
            if end.error is not None:
                raise end.error
            if end.eof:
                return b""
            await user.wait(self)
        return end.read(nbytes)

    async def sock_recv_into(self, sock: Any, buf: Any) -> int:
        """Receive into ``buf`` and return how many bytes."""
        view = memoryview(buf).cast("B")
        data = await self.sock_recv(sock, len(view))
        view[: len(data)] = data
        return len(data)

    async def sock_sendall(self, sock: Any, data: Any) -> None:
        """Send all of ``data``, waiting for room."""
        user = self._user(sock)
        rest = bytes(data)
        while rest:
            sent = user.end.send(rest)
            rest = rest[sent:]
            if rest:
                await user.wait(self, write=True)

    async def sock_sendto(self, sock: Any, data: Any, address: Any) -> int:
        """Send one datagram, from a port that is bound by the first of them."""
        found = self._table().get(sock)
        if not isinstance(found, _Datagrams):
            any_address = "::" if sock.family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104
            udp = UdpSocket(self.sim.network, self.sim.life, any_address, 0)
            found = self._table()[sock] = _Datagrams(udp)
            weakref.finalize(sock, udp.close).atexit = False
        rows = await self.sim.network.dns.rows(
            address[0], address[1], family=sock.family, type=socket.SOCK_DGRAM
        )
        found.udp.send(bytes(data), rows[0][4])
        return len(data)

    async def sock_recvfrom(self, sock: Any, bufsize: int) -> tuple[bytes, Any]:
        """Receive one datagram."""
        found = self._table().get(sock)
        if not isinstance(found, _Datagrams):
            _refuse("sock_recvfrom on a socket that has not sent", "use create_datagram_endpoint")
        while not found.arrived:
            future: asyncio.Future[None] = self.create_future()
            found.waiting.append(future)
            await future
        data, source = found.arrived.pop(0)
        return data[:bufsize], source

    async def sock_recvfrom_into(self, sock: Any, buf: Any, nbytes: int = 0) -> tuple[int, Any]:
        """Receive one datagram into ``buf``."""
        view = memoryview(buf).cast("B")
        data, source = await self.sock_recvfrom(sock, nbytes or len(view))
        view[: len(data)] = data
        return len(data), source


def _closed(end: End) -> None:
    """The socket object is gone: nobody can use the connection, unless a transport took it."""
    if isinstance(end.user, RawUser) and end.life.alive and not end.sim.loop.is_closed():
        end.close()


def _refuse(what: str, instead: str) -> NoReturn:
    from outlast.sim.escape import place

    message = f"{place()}: {what} cannot be simulated: {instead}"
    raise EscapeError(message)


__all__ = ["RawMethods"]
