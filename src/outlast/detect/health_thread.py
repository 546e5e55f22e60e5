"""The thread of the health server: a selector, and sockets that never block.

What a probe waits for is mostly that this thread is woken, so it is woken once. A request nearly
always comes right behind its connection: it is read, answered and closed at once, and the
selector never hears of it. Fewer calls of the system are also fewer moments at which an
application that computes takes the interpreter's lock away.
"""

import selectors
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from sys import exc_info
from typing import Final

from outlast.detect.core.health_http import Then, converse, parse, render
from outlast.detect.core.health_text import NO_PAGE, Answer, Asked, Read, answer
from outlast.host.clock import HostClock
from outlast.kernel import Clock

_NS: Final = 1_000_000_000
_READ_BYTES: Final = 1 << 13
_DISCARDED_MAX: Final = 1 << 16
_WAIT_SECONDS_MAX: Final = 3600.0
_RELIEF_SECONDS: Final = 0.1
_QUIET: Final[int] = getattr(socket, "MSG_NOSIGNAL", 0)  # the application may have SIGPIPE kill it
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


@dataclass(frozen=True, slots=True)
class Limits:
    """How much strangers may use: open connections, bytes of a request, seconds of waiting."""

    connections: int
    header_bytes: int
    idle: float


class HealthThread(threading.Thread):
    """Serves ``listening`` from :meth:`start` to :meth:`end`, and closes it.

    Args:
        read: Reads a group; never waits.
        details: Whether checks are shown.
        clock: For the instants in answers. Connections are timed by the machine's own.
        limits: What strangers may use.
        listening: Where they come.
    """

    def __init__(
        self, read: Read, details: bool, clock: Clock, limits: Limits, listening: socket.socket
    ) -> None:
        super().__init__(name="outlast-health-server", daemon=True)
        self._read, self._details = read, details
        self.wall_ns = clock.wall_ns
        self.header_bytes = limits.header_bytes
        self._connections = limits.connections
        self._idle_ns = round(min(limits.idle, 1e9) * _NS)
        self._now_ns = HostClock.monotonic_ns
        self._listening = listening
        self._over = threading.Event()
        self._wakes, self._woken = socket.socketpair()
        self.selector = selectors.DefaultSelector()
        # Whoever has waited longest comes first; one that is answered at once is never in it.
        self._open: dict[_Connection, int] = {}
        self.ready = threading.Event()

    def run(self) -> None:
        """Serve until :meth:`end`."""
        try:
            self._serve()
        finally:
            self.ready.set()
            for one in tuple(self._open):
                one.close()
            self.close()

    def end(self) -> None:
        """Ask it to end; from any thread."""
        self._over.set()
        with suppress(OSError):  # it has
            self._wakes.send(b"\0")

    def close(self) -> None:
        """Give back what it holds: at its end, or when it could not be started."""
        self.selector.close()
        for one in (self._listening, self._wakes, self._woken):
            one.close()

    def answer(self, asked: Asked, wall_ns: int) -> Answer:
        """Answer one request."""
        return answer(self._read, asked, wall_ns, details=self._details) or NO_PAGE

    def enter(self, one: "_Connection") -> None:
        """Note that a connection stays, or was answered; above the limit the oldest goes."""
        self._open.pop(one, None)
        self._open[one] = self._now_ns() + self._idle_ns
        if len(self._open) > self._connections:
            next(iter(self._open)).close()

    def leave(self, one: "_Connection") -> None:
        """Forget a connection."""
        self._open.pop(one, None)

    # --- inside ----------------------------------------------------------------------------------

    def _serve(self) -> None:
        for one in (self._listening, self._woken, self._wakes):
            one.setblocking(False)
        with suppress(OSError):  # Linux hands it on to connections; no answer is sent in parts
            self._listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(self._listening, _READ, self._accept)
        self.selector.register(self._woken, _READ, self._hear)
        _warm_up(self.header_bytes)
        self.ready.set()
        while not self._over.is_set():
            for key, _ in self.selector.select(self._patience()):
                key.data()
            # Only now: after a pause of the process, what came meanwhile counts first.
            while self._patience() == 0:
                next(iter(self._open)).close()

    def _patience(self) -> float | None:
        """Return for how many seconds nobody has waited too long; ``None`` if nobody waits."""
        if not self._open:
            return None
        left_ns = next(iter(self._open.values())) - self._now_ns()
        return min(max(left_ns / _NS, 0.0), _WAIT_SECONDS_MAX)

    def _accept(self) -> None:
        """Take one connection; if there are more, the selector says so again."""
        try:
            taken, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it has gone again
        except OSError:  # no descriptor is left, or no memory
            oldest = next(iter(self._open), None)
            if oldest is not None:
                oldest.close()
            else:
                self._over.wait(_RELIEF_SECONDS)
            return
        taken.setblocking(False)
        _Connection(self, taken).turn()

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(64)  # by a child of a fork, if this goes on


def _warm_up(limit: int) -> None:
    """Import and compile what a first probe would otherwise wait for."""
    parse(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", limit)
    render(NO_PAGE, 0, keep=True)


class _Connection:
    """One connection. Closed at any error, and by whoever finds that it stays too long."""

    __slots__ = (
        "_discarded", "_events", "_raw", "_socket", "_then", "_thread", "_unsent",
    )  # fmt: skip

    def __init__(self, thread: HealthThread, taken: socket.socket) -> None:
        self._thread, self._socket = thread, taken
        self._raw = bytearray()
        self._unsent = b""
        self._then = Then.WAIT
        self._discarded = 0
        self._events = 0

    def turn(self) -> None:
        """Go on as far as the socket lets us; of most connections the first turn is all."""
        try:
            self._send() if self._unsent else self._receive()
            if self._socket.fileno() >= 0:
                self._stay()
        except OSError:
            self.close()  # it was reset; or closed by one before it in this round
        except Exception:  # of what is read: told as of any thread, and no reason to end this one
            self.close()
            threading.excepthook(threading.ExceptHookArgs((*exc_info(), self._thread)))

    def close(self) -> None:
        """Close now."""
        self._thread.leave(self)
        if self._events:
            self._thread.selector.unregister(self._socket)
            self._events = 0
        with suppress(OSError):
            self._socket.close()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
        elif self._then is Then.DRAIN:
            self._discarded += len(data)
            if self._discarded > _DISCARDED_MAX:
                self.close()
        else:
            self._raw += data
            wall_ns = self._thread.wall_ns()
            said, self._then = converse(
                self._raw,
                self._thread.header_bytes,
                lambda asked: self._thread.answer(asked, wall_ns),
                wall_ns,
            )
            if said:
                self._unsent = said
                self._send()

    def _send(self) -> None:
        """Send what is left. While the other side does not read it, nothing of it is read."""
        try:
            sent = self._socket.send(self._unsent, _QUIET)
        except BlockingIOError:
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            return
        if self._then is Then.CLOSE:
            self.close()
        elif self._then is Then.DRAIN:
            self._socket.shutdown(socket.SHUT_WR)
        else:
            self._thread.enter(self)

    def _stay(self) -> None:
        """Have the selector say when to go on."""
        events, before = _WRITE if self._unsent else _READ, self._events
        if not before:
            self._thread.enter(self)
            self._thread.selector.register(self._socket, events, self.turn)
        elif events != before:
            self._thread.selector.modify(self._socket, events, self.turn)
        self._events = events
