"""What the machine of a host keeps for its programs: ports, listeners and connections."""

import errno
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

from outlast.sim.segment import os_error
from outlast.sim.tcp import End

if TYPE_CHECKING:
    from outlast.sim.datagram import UdpSocket
    from outlast.sim.hosts import Host, Life

_FIRST_PORT, _LAST_PORT = 32_768, 60_999
LOOPBACK: Final = ("127.0.0.1", "::1")
ANY: Final = ("0.0.0.0", "::")  # noqa: S104 - simulated

Address = tuple[Any, ...] | str
"""As sockets give it: ``(address, port)``, with two more for IPv6; a path for unix sockets."""


class Listener:
    """A bound socket that may accept connections.

    Attributes:
        address: The address that it is bound to; ``0.0.0.0`` and ``::`` stand for all.
        port: Its port, or its path.
        pending: Connections that its program has not taken yet.
        accept: Called with each connection, in the context of the program.
    """

    __slots__ = (
        "accept", "address", "backlog", "context", "kernel", "life", "listening", "pending",
        "port", "shared",
    )  # fmt: skip

    def __init__(
        self,
        kernel: "Kernel",
        life: "Life",
        address: str,
        port: int | str,
        *,
        shared: bool = False,
    ) -> None:
        self.kernel = kernel
        self.life = life
        self.address = address
        self.port = port
        self.shared = shared
        self.listening = False
        self.backlog = 1
        self.pending: deque[End] = deque()
        self.context: Context = life.context
        self.accept: Callable[[End], None] | None = None

    def listen(self, backlog: int, accept: Callable[[End], None]) -> None:
        """Accept connections from now on."""
        self.backlog = max(1, backlog)
        self.accept = accept
        self.context = copy_context()
        self.listening = True

    def take(self, end: End) -> None:
        """Hand a connection that waits to the program."""
        if end in self.pending and self.accept is not None:
            self.pending.remove(end)
            self.accept(end)

    def close(self) -> None:
        """Listen no more and reset what nobody took."""
        self.listening = False
        listeners = self.kernel.listeners.get(self.port, [])
        if self in listeners:
            listeners.remove(self)
        while self.pending:
            self.pending.popleft().close(reset=True)


class Kernel:
    """What the machine of one host keeps for its programs: ports and connections.

    Attributes:
        powered: Whether the machine has power; its program may be gone all the same.
        listeners: By port, or by path.
        datagrams: Bound UDP sockets by port.
        ends: Its ends of TCP connections.
        mute: Ends of others that wait for it to have power again.
        open_loopback: Whether what listens on loopback is reached from other hosts too.
    """

    __slots__ = (
        "datagrams", "ends", "host", "listeners", "mute", "next_port", "open_loopback", "powered",
        "turns",
    )  # fmt: skip

    def __init__(self, host: "Host", *, open_loopback: bool = False) -> None:
        self.host = host
        self.open_loopback = open_loopback
        self.powered = True
        self.listeners: dict[int | str, list[Listener]] = {}
        self.datagrams: dict[int, UdpSocket] = {}
        self.ends: dict[End, None] = {}
        self.mute: dict[End, None] = {}
        self.next_port = _FIRST_PORT
        self.turns = 0

    def free_port(self) -> int:
        """Return the next ephemeral port that nobody uses."""
        for _ in range(_LAST_PORT - _FIRST_PORT):
            port = self.next_port
            self.next_port = port + 1 if port < _LAST_PORT else _FIRST_PORT
            if port not in self.datagrams and not self.listeners.get(port):
                return port
        raise os_error(errno.EADDRNOTAVAIL)

    def bind(self, life: "Life", address: str, port: int, *, shared: bool = False) -> Listener:
        """Bind a listener, to a free port if ``port`` is 0.

        Raises:
            OSError: The port is in use, or the address is not this host's.
        """
        if address not in ANY and address not in LOOPBACK and address != self.host.address:
            raise os_error(errno.EADDRNOTAVAIL)
        port = port or self.free_port()
        others = self.listeners.setdefault(port, [])
        for other in others:
            overlap = address == other.address or address in ANY or other.address in ANY
            if overlap and not (shared and other.shared):
                raise os_error(errno.EADDRINUSE)
        listener = Listener(self, life, address, port, shared=shared)
        others.append(listener)
        return listener

    def bind_path(self, life: "Life", path: str) -> Listener:
        """Bind a listener to a path of this host.

        Raises:
            OSError: The path is in use.
        """
        if self.listeners.get(path):
            raise os_error(errno.EADDRINUSE)
        listener = Listener(self, life, path, path)
        self.listeners[path] = [listener]
        return listener

    def find(self, address: str, port: int | str) -> Listener | None:
        """Return the listener that a connection to this address and port reaches."""
        found = [
            listener
            for listener in self.listeners.get(port, ())
            if listener.listening
            and (
                listener.address in ANY
                or listener.address == address
                or (self.open_loopback and listener.address in LOOPBACK)
            )
        ]
        if len(found) > 1:
            self.turns += 1
            return found[self.turns % len(found)]
        return found[0] if found else None
