"""One connection: handshake first, then frames, with a bound on everything it holds."""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any

from outlast.kernel import (
    ConnectionLostError,
    Deadline,
    HandshakeError,
    OutlastError,
    OverloadedError,
    ProtocolError,
    TimerHandle,
    Transport,
    UnavailableError,
    World,
)
from outlast.wire.core.frame import (
    CONTROL,
    HEADER_BYTES,
    PING,
    FrameDecoder,
    encode_frame,
)
from outlast.wire.core.handshake import Identity, Scope
from outlast.wire.events import ConnectionClosed, ConnectionOpened, ProtocolBroken
from outlast.wire.handler import FrameHandler, Greeter
from outlast.wire.limits import Limits

_PING_FRAME = encode_frame(PING, 0, b"")


class State(Enum):
    """Stages of a connection, in order."""

    NEW = 0
    GREETING = 1
    OPEN = 2
    CLOSING = 3
    CLOSED = 4


class Connection:
    """A connection that has, or is about to have, passed its handshake.

    Not thread-safe: use it on the loop on which it was made. Users get it from
    :func:`outlast.wire.dial` or in :meth:`FrameHandler.opened`.

    Attributes:
        peer: Who the other side is.
        channel: What the connection is for.
        scope: What the other side was granted (on the dialling side: the channel's own).
        version: Version agreed for what runs above the wire.
        address: ``host:port`` of the other side.
        is_open: Whether :meth:`send` would queue. Only to be read.
        paused: Whether more is queued than the system takes; wait with :meth:`drain`.
        on_pause: Called with ``True`` when ``paused`` begins and ``False`` when it ends.
    """

    __slots__ = (
        "_call_soon",
        "_deaf",
        "_decoder",
        "_drained",
        "_error",
        "_greeter",
        "_handler",
        "_heard",
        "_heard_ns",
        "_limits",
        "_on_frame",
        "_out",
        "_out_bytes",
        "_queued",
        "_receiving",
        "_scheduled",
        "_spoke",
        "_state",
        "_timer",
        "_transport",
        "_world",
        "address",
        "channel",
        "is_open",
        "node",
        "on_pause",
        "paused",
        "peer",
        "scope",
        "version",
    )

    def __init__(self, world: World, limits: Limits, greeter: Greeter, *, node: str) -> None:
        self._world = world
        self._limits = limits
        self._greeter = greeter
        self._state = State.NEW
        self.is_open = False
        self._decoder = FrameDecoder(limits, limits.handshake_bytes_max)
        self._transport: Transport | None = None
        self._handler: FrameHandler | None = None
        self._on_frame: Callable[[int, int, bytes], None] | None = None
        self._error: BaseException | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._queued = 0
        self._scheduled = False
        self._receiving = False
        self._spoke = False
        self._heard = False
        self._heard_ns = 0
        self._deaf = False
        self._timer: TimerHandle | None = None
        self._call_soon: Callable[..., Any] = _no_loop
        self._drained: asyncio.Future[None] | None = None
        self.node = node
        self.peer = Identity()
        self.channel = ""
        self.scope = Scope.CLIENT
        self.version = 0
        self.address = ""
        self.paused = False
        self.on_pause: Callable[[bool], None] | None = None

    def __repr__(self) -> str:
        """Return channel, other side and live state."""
        who = self.peer.node or "client"
        return (
            f"<Connection {self.channel or '-'} {who}@{self.address} {self._state.name.lower()} "
            f"buffered={self.buffered_bytes}>"
        )

    # --- use ---------------------------------------------------------------------------

    def send(self, kind: int, stream: int, body: bytes) -> bool:
        """Queue one frame; all that is sent in one turn of the loop goes out in one write.

        Args:
            kind: 0 to 0xEF, up to the channel's user.
            stream: 0 to 2**32 - 1, up to the channel's user.
            body: At most ``frame_bytes_max`` bytes.

        Returns:
            ``True`` if it was queued, which promises nothing about its arrival. ``False`` if
            the connection is closed, or this frame would exceed ``send_buffer_bytes_max``:
            then the connection is cut and its handler gets ``OverloadedError``.

        Raises:
            ProtocolError: Definite. The frame itself breaks a limit; the connection stays.
        """
        if not self.is_open:
            return False
        size = len(body) + HEADER_BYTES
        if kind >= CONTROL or size > self._limits.frame_bytes_max + HEADER_BYTES:
            raise ProtocolError(
                f"send: kind {kind} (at most {CONTROL - 1}), {len(body)} bytes "
                f"(at most {self._limits.frame_bytes_max})"
            )
        total = self._out_bytes + size
        if total + self._queued > self._limits.send_buffer_bytes_max and self._overflows(total):
            return False
        self._out.append(encode_frame(kind, stream, body))
        self._out_bytes = total
        if not self._scheduled and not self._receiving:
            self._scheduled = True
            self._call_soon(self._flush)
        return True

    @property
    def buffered_bytes(self) -> int:
        """Bytes queued on this side and not yet taken by the system."""
        transport = self._transport
        return self._out_bytes + (transport.get_write_buffer_size() if transport else 0)

    async def drain(self) -> None:
        """Wait while ``paused``. Bounded by the connection's own life: also ends with it."""
        if not self.paused or self._state is not State.OPEN:
            return
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._drained)

    def pause_reading(self) -> None:
        """Take no more bytes from the system; the other side's sends then back up.

        Frames that were received together with the present one still come.
        """
        if self._transport is not None and self.is_open and not self._deaf:
            self._deaf = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo :meth:`pause_reading`."""
        if self._transport is not None and self.is_open and self._deaf:
            self._deaf = False
            self._heard = True
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what is queued and close; after ``close_timeout`` seconds cut it off."""
        if self._state in {State.CLOSING, State.CLOSED} or self._transport is None:
            return
        self._flush()
        self._state = State.CLOSING
        self.is_open = False
        self._arm(self._limits.close_timeout, self.abort)
        self._transport.close()

    def abort(self, error: BaseException | None = None) -> None:
        """Close now and drop what is queued; ``error`` is what the handler is told."""
        if self._state is State.CLOSED or self._transport is None:
            return
        if self._error is None:
            self._error = error
        self._state = State.CLOSING
        self.is_open = False
        self._out.clear()
        self._out_bytes = 0
        self._transport.abort()

    # --- handshake: used by the greeter -----------------------------------------------------

    @property
    def ssl_object(self) -> Any:
        """The ``ssl`` object of an encrypted connection, else ``None``."""
        return None if self._transport is None else self._transport.get_extra_info("ssl_object")

    def say(self, kind: int, body: bytes) -> None:
        """Write one handshake frame at once."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame(kind, 0, body))

    def establish(self, handler: FrameHandler, peer: Identity, channel: str) -> None:
        """End the handshake: frames go to ``handler`` from now on."""
        self.peer = peer
        self.channel = channel
        self._handler = handler
        self._on_frame = handler.frame
        self._decoder = FrameDecoder(self._limits)
        self._state = State.OPEN
        self.is_open = True
        self._heard_ns = self._world.clock.monotonic_ns()
        self._arm(self._limits.keepalive, self._tick)
        self._world.events.emit(
            ConnectionOpened(node=self.node, channel=channel, peer=peer.node, address=self.address)
        )
        self._guarded(handler.opened, self)

    # --- callbacks of the transport ---------------------------------------------------------

    def connection_made(self, transport: Transport) -> None:
        """Begin the handshake."""
        self._transport = transport
        self._call_soon = asyncio.get_running_loop().call_soon
        self.address = _address(transport.get_extra_info("peername"))
        self._state = State.GREETING
        self._arm(self._limits.handshake_timeout, self._greeting_late)
        try:
            self._greeter.began(self)
        except OutlastError as error:
            self._fail_greeting(error)

    def data_received(self, data: bytes) -> None:
        """Take received bytes: the hot path."""
        if not self.is_open:
            self._greet(data)
            return
        try:
            frames = self._decoder.feed(data)
        except ProtocolError as error:
            self._break(error)
            return
        if not frames:
            return
        self._heard = True
        self._receiving = True
        on_frame = self._on_frame
        try:
            for kind, stream, body in frames:
                if kind < CONTROL:
                    on_frame(kind, stream, body)  # type: ignore[misc]
                elif kind != PING:
                    self._break(ProtocolError(f"frame of kind {kind:#x} after the handshake"))
                if not self.is_open:  # a handler may close it
                    break  # type: ignore[unreachable]
        except Exception as error:
            self._handler_failed(error)
        finally:
            self._receiving = False
        if self._out and not self._scheduled:
            self._flush()

    def eof_received(self) -> bool | None:
        """The other side has closed; close as well."""
        return None

    def pause_writing(self) -> None:
        """More is queued than the system takes."""
        self.paused = True
        if self.on_pause is not None:
            self._guarded(self.on_pause, True)

    def resume_writing(self) -> None:
        """The system has caught up."""
        self.paused = False
        self._queued = 0
        self._release()
        if self.on_pause is not None:
            self._guarded(self.on_pause, False)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: tell the greeter or the handler, once."""
        was = self._state
        self._state = State.CLOSED
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._out.clear()
        self._out_bytes = 0
        self._release()
        if was is State.GREETING:
            # A TLS alert says that the two do not fit; a plain end may be a node going down.
            reset = exc is None or isinstance(exc, ConnectionError)
            kind = UnavailableError if reset else HandshakeError
            said = f": {exc}" if exc else ""
            self._greeter.failed(
                self, kind(f"{self.address} closed it during the handshake{said}")
            )
        handler, self._handler, self._on_frame = self._handler, None, None
        self._greeter.gone(self)
        if handler is None:
            return
        error = self._error
        if error is None and was is State.OPEN:
            error = ConnectionLostError(
                f"{self.peer.node or self.address} closed channel {self.channel!r}"
                + (f": {exc}" if exc else "")
            )
        self._world.events.emit(
            ConnectionClosed(
                node=self.node,
                channel=self.channel,
                peer=self.peer.node,
                address=self.address,
                reason=str(error) if error else "",
            )
        )
        self._guarded(handler.closed, error)

    # --- inside -----------------------------------------------------------------------------

    def _flush(self) -> None:
        self._scheduled = False
        out = self._out
        transport = self._transport
        if not out or transport is None:
            return
        transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()
        self._out_bytes = 0
        self._spoke = True
        self._queued = transport.get_write_buffer_size()

    def _overflows(self, total: int) -> bool:
        self._queued = self._transport.get_write_buffer_size() if self._transport else 0
        limit = self._limits.send_buffer_bytes_max
        if total + self._queued <= limit:
            return False
        self.abort(
            OverloadedError(
                f"{self.peer.node or self.address} takes too little of channel "
                f"{self.channel!r}: {total + self._queued} bytes unsent, at most {limit}"
            )
        )
        return True

    def _greet(self, data: bytes) -> None:
        if self._state is not State.GREETING:
            return
        try:
            frame, rest = self._decoder.feed_one(data)
            if frame is None:
                return
            self._greeter.greeted(self, frame[0], frame[2], bool(rest))
        except OutlastError as error:
            self._fail_greeting(error)
            return
        if rest:
            self.data_received(rest)

    def _fail_greeting(self, error: OutlastError) -> None:
        self._state = State.CLOSING
        self._greeter.failed(self, error)
        if self._transport is not None:
            # A caller that reads nothing does not keep the socket: the handshake's timer is
            # still armed and cuts it off.
            self._transport.close()

    def _greeting_late(self) -> None:
        if self._state is State.GREETING:
            self._state = State.CLOSING
            self._greeter.failed(
                self,
                HandshakeError(
                    f"{self.address}: no complete handshake within "
                    f"{self._limits.handshake_timeout} s"
                ),
            )
        self.abort()

    def _break(self, error: ProtocolError) -> None:
        self._world.events.emit(
            ProtocolBroken(
                node=self.node,
                channel=self.channel,
                peer=self.peer.node,
                address=self.address,
                reason=str(error),
            )
        )
        self.abort(error)

    def _tick(self) -> None:
        """Once per ``keepalive``: notice silence, and break our own."""
        if self._state is not State.OPEN or self._transport is None:
            return
        now_ns = self._world.clock.monotonic_ns()
        if self._heard or self._deaf:  # who does not listen may not complain of silence
            self._heard = False
            self._heard_ns = now_ns
        elif now_ns >= Deadline.after(self._limits.idle_timeout, self._heard_ns).at_ns:
            self.abort(
                ConnectionLostError(
                    f"{self.peer.node or self.address} sent no complete frame on channel "
                    f"{self.channel!r} for {self._limits.idle_timeout} s"
                )
            )
            return
        if not self._spoke and not self._out:
            self._transport.write(_PING_FRAME)
        self._spoke = False
        self._arm(self._limits.keepalive, self._tick)

    def _arm(self, seconds: float, callback: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        when = Deadline.after(seconds, self._world.clock.monotonic_ns())
        self._timer = self._world.timers.call_at(when.at_ns, callback)

    def _release(self) -> None:
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    def _guarded(self, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except Exception as error:
            self._handler_failed(error)

    def _handler_failed(self, error: Exception) -> None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"handler of channel {self.channel!r} failed", "exception": error}
        )
        self.abort(error)


def _no_loop(*_: Any) -> None:
    """Stand in for ``call_soon`` before the transport is there; nothing is sent then."""


def _address(peername: Any) -> str:
    if isinstance(peername, tuple) and len(peername) >= 2:
        host, port = str(peername[0]), peername[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(peername or "unknown")
