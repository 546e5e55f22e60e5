"""The transport of a simulated TCP connection, as protocols and streams know it.

It behaves as the one of asyncio's selector loop, callback by callback, so that a program that
works here works there. Only the kernel below is another one: :class:`outlast.sim.tcp.End`.
"""

import asyncio
import logging
import socket
from asyncio import constants, sslproto, transports
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from outlast.sim.sockets import SimServer, SimSocket

if TYPE_CHECKING:
    from outlast.sim.loop import SimLoop
    from outlast.sim.tcp import End

_READ_MAX = 256 * 1024
_LOG = logging.getLogger("asyncio")


class StreamTransport(transports._FlowControlMixin, asyncio.Transport):
    """One side of a connection.

    Args:
        loop: The simulated loop.
        end: The end that it reads and writes.
        protocol: Told of everything.
        server: Which has accepted the connection, if one has.
        kept: A real socket object that the program has made for it; closed with it.
    """

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK
    # what the base class has, which keeps the rules of high and low water
    _loop: "SimLoop"
    _extra: dict[str, Any]
    _high_water: int
    _protocol_paused: bool
    _maybe_pause_protocol: Callable[[], None]
    _maybe_resume_protocol: Callable[[], None]

    def __init__(
        self,
        loop: "SimLoop",
        end: "End",
        protocol: asyncio.BaseProtocol,
        *,
        waiter: "asyncio.Future[None] | None" = None,
        server: SimServer | None = None,
        kept: socket.socket | None = None,
    ) -> None:
        super().__init__(None, loop)
        sock = SimSocket(loop.sim.network, socket.SOCK_STREAM, end.local, end.remote, end=end)
        self._extra.update(socket=sock, sockname=end.local, peername=end.remote)
        self._sock = sock
        self._end = end
        self._context = end.context = copy_context()
        self._server = server
        self._kept = kept
        self._buffer: deque[bytes] = deque()
        self._buffer_size = 0
        self._conn_lost = 0
        self._closing = False
        self._paused = False
        self._eof = False
        self.reading = False
        self._buffered: Callable[[int], Any] | None = None
        self.set_protocol(protocol)
        end.user = self
        if server is not None:
            server._attach(self)
        self._soon(protocol.connection_made, self)
        self._soon(self._begin)
        if waiter is not None:
            self._soon(_set, waiter)

    def __repr__(self) -> str:
        """Show the state and both addresses."""
        state = "closing" if self._closing else "paused" if self._paused else "open"
        return f"<StreamTransport {state} {self._end.local} to {self._end.remote}>"

    def _soon(self, callback: Callable[..., Any], *args: Any) -> None:
        loop = self._loop
        if not loop.is_closed():  # what a program does when it is thrown away has no effect
            loop.call_soon(callback, *args, context=self._context)

    # --- protocol ------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell ``protocol`` of everything from now on."""
        self._protocol: Any = protocol
        self._buffered = (
            protocol.get_buffer if isinstance(protocol, asyncio.BufferedProtocol) else None
        )
        if isinstance(protocol, sslproto.SSLProtocol):
            self._end.opaque = True

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that is told."""
        return self._protocol  # type: ignore[no-any-return]

    # --- reading -------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._set_reading()
        if self.reading:
            self._read()

    def _set_reading(self) -> None:
        self.reading = not (self._closing or self._paused or self._conn_lost)

    def is_reading(self) -> bool:
        """Tell whether data that arrives is handed to the protocol."""
        return not (self._closing or self._paused)

    def pause_reading(self) -> None:
        """Hand over nothing until :meth:`resume_reading`; the sender feels the window."""
        if self.is_reading():
            self._paused = True
            self.reading = False

    def resume_reading(self) -> None:
        """Hand over what has arrived, and what will."""
        if self._paused and not self._closing:
            self._paused = False
            self.reading = True
            self._soon(self._read)

    def readable(self) -> None:
        """Something has arrived that is not plain data for a protocol that reads."""
        end = self._end
        if end.error is not None and not self.reading and self._buffer:
            self._fatal_error(end.error)  # a sender that waits for room learns it
        elif self.reading and not end.arrived:
            self._read()

    def _read(self) -> None:
        """Hand over what has arrived, one read at a time."""
        end = self._end
        if not self.reading:
            return
        if end.arrived:
            self.received(end.read(_READ_MAX))
            if end.arrived or end.eof or end.error is not None:
                self._soon(self._read)
        elif end.error is not None:
            self._fatal_error(end.error, "Fatal read error on socket transport")
        elif end.eof:
            self.reading = False
            self._ended()

    def received(self, data: bytes) -> None:
        """Hand data to the protocol."""
        if self._buffered is not None:
            self._fill(data)
            return
        try:
            self._protocol.data_received(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.data_received() call failed.")

    def _fill(self, data: bytes) -> None:
        """Copy data into the protocol's buffer, as much as it offers."""
        try:
            buffer = self._buffered(-1)  # type: ignore[misc]
            if not len(buffer):
                message = "get_buffer() returned an empty buffer"
                raise RuntimeError(message)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.get_buffer() call failed.")
            return
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        if count < len(data):
            self._end.unread_again(data[count:])
            self._soon(self._read)
        try:
            self._protocol.buffer_updated(count)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.buffer_updated() call failed.")

    def _ended(self) -> None:
        """The other side sends no more."""
        try:
            keep = self._protocol.eof_received()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fatal_error(error, "Fatal error: protocol.eof_received() call failed.")
            return
        if keep:
            self._loop.sim.count("half-closed connection")
        else:
            self.close()

    # --- writing -------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """Send ``data``, now or when there is room."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            message = f"data argument must be a bytes-like object, not {type(data).__name__!r}"
            raise TypeError(message)
        if self._eof:
            message = "Cannot call write() after write_eof()"
            raise RuntimeError(message)
        if not data:
            return
        if self._conn_lost:
            if self._conn_lost >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                _LOG.warning("socket.send() raised exception.")
            self._conn_lost += 1
            return
        if type(data) is not bytes:
            data = bytes(data)
        if not self._buffer:
            try:
                sent = self._end.send(data)
            except OSError as error:
                self._fatal_error(error, "Fatal write error on socket transport")
                return
            if sent == len(data):
                return
            if sent:
                data = data[sent:]
        self._buffer.append(data)
        self._buffer_size += len(data)
        if self._buffer_size > self._high_water and not self._protocol_paused:
            self._loop.sim.count("writer paused")
            self._maybe_pause_protocol()

    def writable(self) -> None:
        """There is room in the window: send what waits."""
        buffer = self._buffer
        if self._conn_lost or not buffer:
            return
        try:
            while buffer:
                data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
                buffer.clear()
                sent = self._end.send(data)
                if sent < len(data):
                    buffer.append(data[sent:])
                    break
        except OSError as error:
            self._buffer_size = 0
            self._fatal_error(error, "Fatal write error on socket transport")
            return
        self._buffer_size = len(buffer[0]) if buffer else 0
        self._maybe_resume_protocol()
        if not self._buffer:
            if self._closing:
                self._lost(None)
            elif self._eof:
                self._end.finish()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for room in the window."""
        return self._buffer_size

    def can_write_eof(self) -> bool:
        """It can."""
        return True

    def write_eof(self) -> None:
        """Send no more, after what waits; go on reading."""
        if self._closing or self._eof:
            return
        self._eof = True
        if not self._buffer:
            self._end.finish()

    # --- end -----------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Tell whether it is closed or closing, its host has crashed, or the run is over."""
        return self._closing or not self._end.life.alive or self._loop.is_closed()

    def close(self) -> None:
        """Send what waits, then finish."""
        if self._closing:
            return
        self._closing = True
        self.reading = False
        if not self._buffer:
            self._conn_lost += 1
            self._soon(self._lost, None)

    def abort(self) -> None:
        """Close without sending what waits."""
        self._force_close(None)

    def gone(self) -> None:
        """The program has crashed; what is left of TLS must not complain that it is open."""
        secured = getattr(self._protocol, "_app_transport", None)
        if secured is not None:
            secured._closed = True

    def _force_close(self, error: BaseException | None) -> None:
        if self._conn_lost:
            return
        self._buffer.clear()
        self._buffer_size = 0
        self._closing = True
        self.reading = False
        self._conn_lost += 1
        self._soon(self._lost, error)

    def _fatal_error(self, error: BaseException, message: str = "Fatal error") -> None:
        if not isinstance(error, OSError):
            self._loop.call_exception_handler(
                {
                    "message": message,
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
        self._force_close(error)

    def _lost(self, error: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._end.close()
            self._sock.close()
            self._protocol = self._buffered = None
            if self._kept is not None:
                self._kept.close()
                self._kept = None
            server, self._server = self._server, None
            if server is not None:
                server._detach(self)


def _set(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
