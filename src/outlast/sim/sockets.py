"""Stand-ins for socket objects, and servers.

Programs ask transports for their socket, to set options and to read addresses. What they get
looks like ``asyncio.trsock.TransportSocket`` and has a number that belongs to no descriptor.
"""

import asyncio
import errno
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from outlast.sim.segment import os_error

if TYPE_CHECKING:
    from outlast.sim.network import Network
    from outlast.sim.ports import Address, Listener
    from outlast.sim.tcp import End

_FAKE = 1 << 25
_FAMILIES = {False: socket.AF_INET, True: socket.AF_INET6}


def family_of(address: "Address | None") -> socket.AddressFamily:
    """Return the family of an address as sockets give it."""
    if isinstance(address, str):
        return socket.AF_UNIX
    return _FAMILIES[address is not None and ":" in str(address[0])]


class SimSocket:
    """What a program sees of a simulated socket.

    Args:
        network: Which gives it its number.
        kind: ``SOCK_STREAM`` or ``SOCK_DGRAM``.
        local: Its own address.
        remote: The address of the other side, if it is connected.
        end: Its end of a connection.
        listener: What it listens with.
    """

    __slots__ = (
        "__weakref__", "_fd", "_local", "_network", "_options", "_remote", "_timeout", "end",
        "family", "listener", "type",
    )  # fmt: skip

    def __init__(
        self,
        network: "Network",
        kind: socket.SocketKind,
        local: "Address",
        remote: "Address | None" = None,
        *,
        end: "End | None" = None,
        listener: "Listener | None" = None,
    ) -> None:
        self._network = network
        self._local = local
        self._remote = remote
        self._options: dict[tuple[int, int], Any] = {}
        self._timeout: float | None = 0.0
        self._fd = network.new_fd(self)
        self.family = family_of(local)
        self.type = kind
        self.end = end
        self.listener = listener

    @property
    def proto(self) -> int:
        """Number of the protocol: TCP or UDP, 0 for unix sockets."""
        if self.family == socket.AF_UNIX:
            return 0
        return socket.IPPROTO_TCP if self.type == socket.SOCK_STREAM else socket.IPPROTO_UDP

    def __repr__(self) -> str:
        """Show addresses, as a real socket does."""
        peer = f", raddr={self._remote}" if self._remote is not None else ""
        return f"<SimSocket fd={self._fd}, type={self.type!s}, laddr={self._local}{peer}>"

    def fileno(self) -> int:
        """Return a number that is no real descriptor, -1 once closed."""
        return self._fd

    def getsockname(self) -> Any:
        """Return the own address."""
        return self._local

    def getpeername(self) -> Any:
        """Return the address of the other side.

        Raises:
            OSError: It is not connected.
        """
        if self._remote is None:
            raise os_error(errno.ENOTCONN)
        return self._remote

    def setsockopt(self, level: int, option: int, value: Any, *rest: Any) -> None:
        """Remember an option; none has an effect."""
        self._options[level, option] = value if value is not None else rest

    def getsockopt(self, level: int, option: int, *_: Any) -> Any:
        """Return an option as it was set, 0 otherwise."""
        if level == socket.SOL_SOCKET and option == socket.SO_TYPE:
            return int(self.type)
        return self._options.get((level, option), 0)

    def gettimeout(self) -> float | None:
        """Return the timeout; transports never block."""
        return self._timeout

    def settimeout(self, value: float | None) -> None:
        """Remember a timeout."""
        self._timeout = value

    def setblocking(self, flag: bool) -> None:
        """Remember whether it should block."""
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        """Tell whether it should block."""
        return self._timeout is None

    def get_inheritable(self) -> bool:
        """It never is: there are no processes."""
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        """Do nothing: there are no processes."""

    def listen(self, backlog: int = 100) -> None:
        """Do nothing: the loop starts to listen when a server does."""

    def shutdown(self, how: int) -> None:
        """Send no more, if ``how`` says so."""
        if self.end is not None and how in (socket.SHUT_WR, socket.SHUT_RDWR):
            self.end.finish()

    def close(self) -> None:
        """Close it, and what it listens with."""
        self._network.sockets.pop(self._fd, None)
        self._fd = -1
        if self.listener is not None:
            self.listener.close()

    def detach(self) -> int:
        """Give up the number."""
        number, self._fd = self._fd, -1
        return number

    @property
    def readable(self) -> bool:
        """Whether a read would not wait."""
        end = self.end
        return end is None or bool(end.arrived) or end.eof or end.error is not None


class SimServer(asyncio.Server):
    """``asyncio.Server`` over simulated sockets.

    The base class has the rules of the Python that runs, which differ between versions; here is
    only what must not depend on the order of a set.
    """

    _transports: dict[Any, None]

    def __init__(self, loop: Any, sockets: list[SimSocket], *rest: Any) -> None:
        super().__init__(loop, cast("Any", sockets), *rest)
        self._transports = {}

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The sockets that it listens with."""
        return tuple(self._sockets or ())  # type: ignore[attr-defined]

    def _attach(self, transport: Any) -> None:
        self._transports[transport] = None
        if sys.version_info >= (3, 13):
            super()._attach(transport)  # type: ignore[misc]
        else:
            super()._attach()  # type: ignore[misc]

    def _detach(self, transport: Any) -> None:
        self._transports.pop(transport, None)
        if sys.version_info >= (3, 13):
            super()._detach(transport)  # type: ignore[misc]
        else:
            super()._detach()  # type: ignore[misc]

    def close_clients(self) -> None:
        """Close all connections that it has accepted, in that order."""
        for transport in tuple(self._transports):
            transport.close()

    def abort_clients(self) -> None:
        """Abort all connections that it has accepted, in that order."""
        for transport in tuple(self._transports):
            transport.abort()


class SimPoll:
    """``select.poll`` that knows simulated sockets.

    HTTP clients poll an idle connection before they use it again, to see whether the server has
    closed it.
    """

    def __init__(self, network: "Network", real: Any) -> None:
        self._network = network
        self._real = real
        self._watched: dict[int, int] = {}

    def register(self, fd: Any, eventmask: int = select.POLLIN | select.POLLOUT) -> None:
        """Watch a socket."""
        number = fd if isinstance(fd, int) else fd.fileno()
        if number >= _FAKE:
            self._watched[number] = eventmask
        else:
            self._real.register(fd, eventmask)

    def modify(self, fd: Any, eventmask: int) -> None:
        """Watch a socket for something else."""
        self.register(fd, eventmask)

    def unregister(self, fd: Any) -> None:
        """Watch a socket no more."""
        number = fd if isinstance(fd, int) else fd.fileno()
        if number >= _FAKE:
            del self._watched[number]
        else:
            self._real.unregister(fd)

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Tell what is ready now; it never waits if it watches a simulated socket."""
        if not self._watched:
            return list(self._real.poll(timeout))
        ready: list[tuple[int, int]] = []
        for number, mask in self._watched.items():
            sock = self._network.sockets.get(number)
            if sock is None:
                ready.append((number, select.POLLNVAL))
                continue
            found = select.POLLIN if sock.readable else 0
            found = (found | select.POLLOUT) & mask
            if found:
                ready.append((number, found))
        return ready + list(self._real.poll(0))


@contextmanager
def simulated_poll(network: "Network") -> Iterator[None]:
    """Let ``select.poll`` know the sockets of ``network``."""
    real = select.poll
    select.poll = lambda: SimPoll(network, real())  # type: ignore[misc,assignment,return-value]
    try:
        yield
    finally:
        select.poll = real  # type: ignore[misc]
