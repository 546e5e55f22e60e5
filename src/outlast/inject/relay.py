"""One proxied connection: two sockets, and a lane for each direction between them.

While nothing is wrong a received chunk is written to the other socket within the same callback.
All else goes through the lane (:mod:`outlast.inject.core.linkfault`), which decides; this module
moves the bytes, reads the sender only as fast as the lane and the receiver take them, and passes
on how the sender ended.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from outlast.inject.core.linkfault import HEALTHY, End, Lane, LinkFault, Pace
from outlast.inject.tally import LinkTally, WayTally
from outlast.kernel import ConnectionHandler, Prng, TaskHandle, TimerHandle, World

_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
DIAL_SECONDS: Final = 10.0


def reset(transport: Any) -> None:
    """Abort a connection so that the other side sees RST and not the end of the stream."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    transport.abort()


class Way:
    """What all connections of a link share in one direction."""

    __slots__ = ("expiry", "fault", "pace", "prng", "tally", "until_ns", "world")

    def __init__(self, world: World, prng: Prng) -> None:
        self.world = world
        self.prng = prng
        self.fault: LinkFault = HEALTHY
        self.until_ns = 0
        self.expiry: TimerHandle | None = None
        self.pace = Pace()
        self.tally = WayTally()


class Owner(Protocol):
    """What a connection asks of its link."""

    world: World
    upstream: tuple[str, int]
    tally: LinkTally

    dialled: "dict[Side, TaskHandle | None]"

    def ended(self, connection: "Connection") -> None:
        """Forget a connection that is over."""
        ...


class Flow:
    """The bytes that one side sends to the other."""

    __slots__ = ("delivered_end", "direct", "lane", "seen_end", "sink", "source", "timer", "way")

    def __init__(self, way: Way, limit_bytes: int) -> None:
        self.way = way
        self.lane = Lane(limit_bytes)
        self.source: Side
        self.sink: Side
        self.direct = False
        self.timer: TimerHandle | None = None
        self.seen_end = False
        self.delivered_end = False

    def arrived(self, data: bytes) -> None:
        """Take what the sender sent while something is wrong or waits."""
        way = self.way
        if way.fault.drop or self.lane.marked:
            self.lane.marked = True
            way.tally.bytes_dropped += len(data)
            return
        if way.fault.cut:
            way.tally.withheld_chunks += 1
        piece = way.fault.slice_bytes(len(data))
        for start in range(0, len(data), piece):
            self._queue(data if piece == len(data) else data[start : start + piece])
        self.pump()

    def end(self, how: End) -> None:
        """The sender has ended; the receiver learns it after all that was sent before."""
        if self.seen_end:
            return
        self.seen_end = True
        if self.way.fault.drop or self.lane.marked:
            self.lane.marked = True
            return
        self._queue(how)
        self.pump()

    def _queue(self, payload: bytes | End) -> None:
        way = self.way
        now = way.world.clock.monotonic_ns()
        self.direct = False
        way.tally.chunks_lost += self.lane.put(payload, way.fault, now, way.pace, way.prng)

    def pump(self) -> None:
        """Deliver what is due, and set the timer for the next."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        lane, sink = self.lane, self.sink
        if sink.open:
            now = self.way.world.clock.monotonic_ns()
            while not sink.full and (waiting := lane.take(now)) is not None:
                delay = now - waiting.arrived_ns
                if not isinstance(waiting.payload, bytes):
                    self._deliver_end(waiting.payload)
                    break
                self._count(waiting.size, delay if waiting.due_ns > waiting.arrived_ns else 0)
                sink.transport.write(waiting.payload)
            due = None if sink.full else lane.next_due_ns()
            if due is not None:
                self.timer = self.way.world.timers.call_at(due, self._timer_rang)
        self.settle()

    def _timer_rang(self) -> None:
        self.timer = None
        self.pump()

    def _count(self, size: int, delay_ns: int) -> None:
        tally = self.way.tally
        tally.bytes_passed += size
        if delay_ns:
            tally.chunks_delayed += 1
            tally.delay_sum_ns += delay_ns
            tally.delay_max_ns = max(tally.delay_max_ns, delay_ns)

    def _deliver_end(self, how: End) -> None:
        self.delivered_end = True
        if how == "reset":
            self.sink.connection.abort()
            return
        transport = self.sink.transport
        if transport is not None and not transport.is_closing():
            with suppress(OSError):
                transport.write_eof()
        self.sink.connection.close_if_over()

    def settle(self) -> None:
        """Work out whether chunks may pass directly, and whether the sender is read."""
        fault, lane, sink = self.way.fault, self.lane, self.sink
        if self.seen_end:
            return
        self.direct = sink.open and fault.harmless and not lane and not lane.marked
        swallows = fault.drop or lane.marked
        self.source.read(swallows or (sink.open and not lane.full and not sink.full))

    def update(self, before: LinkFault) -> None:
        """Follow a change of the fault in force."""
        fault, lane = self.way.fault, self.lane
        if before.cut and not fault.cut:
            self.way.tally.withheld_bytes += self.withheld_bytes()
        lane.held = fault.cut
        if before.shapes and not fault.shapes:
            lane.hurry(self.way.world.clock.monotonic_ns())
        self.pump()

    def withheld_bytes(self) -> int:
        """Return how much waits here and, unread, in the sender's socket."""
        return self.lane.waiting_bytes + self.source.unread_bytes()

    def stop(self) -> None:
        """Forget the timer and all that waits."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.direct = False
        self.lane.clear()


class Side(asyncio.Protocol):
    """One of the two sockets: reads for the flow that leaves it, writes for the other."""

    __slots__ = ("connection", "flow", "full", "lost", "port", "reading", "transport")

    def __init__(self, connection: "Connection", flow: Flow) -> None:
        self.connection = connection
        self.flow = flow
        self.transport: Any = None
        self.reading = True
        self.full = False
        self.lost = False
        self.port = 0

    @property
    def open(self) -> bool:
        """Whether it is connected."""
        return self.transport is not None and not self.lost

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.connection.made(self)

    def data_received(self, data: bytes) -> None:
        """Pass a chunk on at once if nothing is wrong."""
        flow = self.flow
        if flow.direct:
            flow.way.tally.bytes_passed += len(data)
            flow.sink.transport.write(data)
        else:
            flow.arrived(data)

    def eof_received(self) -> bool:
        """Pass the end on, and keep the other direction open."""
        self.flow.end("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """End; a break is passed on as a break."""
        self.lost = True
        self.connection.lost(self, broken=exc is not None)

    def pause_writing(self) -> None:
        """The receiver is slow: read the sender no further."""
        self.full = True
        self.connection.other(self).flow.settle()

    def resume_writing(self) -> None:
        """The receiver has caught up."""
        self.full = False
        self.connection.other(self).flow.pump()

    def read(self, wanted: bool) -> None:
        """Read from the socket, or leave what comes in the system's buffer."""
        if wanted is self.reading or not self.open:
            return
        self.reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def unread_bytes(self) -> int:
        """Return how many bytes wait in the system's receive buffer."""
        if not self.open:
            return 0
        sock = self.transport.get_extra_info("socket")
        try:
            answer = fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0\0\0\0")
        except (OSError, AttributeError, ValueError):
            return 0
        return int(struct.unpack("i", answer)[0])


class Connection:
    """A connection that was accepted, and the one that was dialled for it.

    Stalled while a direction is cut or drops: accepted, not dialled.
    """

    __slots__ = ("_begun", "_over", "backward", "far", "forward", "link", "near")

    def __init__(self, link: Owner, forward: Way, backward: Way, limit_bytes: int) -> None:
        self.link = link
        self.forward = Flow(forward, limit_bytes)
        self.backward = Flow(backward, limit_bytes)
        self.near = Side(self, self.forward)
        self.far = Side(self, self.backward)
        self.forward.source, self.forward.sink = self.near, self.far
        self.backward.source, self.backward.sink = self.far, self.near
        self.forward.lane.held = forward.fault.cut
        self.backward.lane.held = backward.fault.cut
        self._begun = False
        self._over = False

    @property
    def blocked(self) -> bool:
        """Whether a new connection could not be made now: a packet each way is needed."""
        ways = (self.forward.way.fault, self.backward.way.fault)
        return any(fault.cut or fault.drop for fault in ways)

    @property
    def marked(self) -> bool:
        """Whether bytes of it were swallowed."""
        return self.forward.lane.marked or self.backward.lane.marked

    def other(self, side: Side) -> Side:
        """Return the other of the two sides."""
        return self.far if side is self.near else self.near

    def made(self, side: Side) -> None:
        """A socket is connected: dial for the first, let bytes pass after the second."""
        local = side.transport.get_extra_info("sockname")
        side.port = local[1]
        if self._over:
            reset(side.transport)
        elif side is self.near:
            self.forward.settle()
            self.dial()
        elif local == side.transport.get_extra_info("peername"):
            # Nobody listens there, and the system happened to give us that very port: a
            # connection to ourselves, which would echo all that is sent.
            self.link.tally.upstream_refused += 1
            self.abort()
        else:
            self.forward.pump()
            self.backward.pump()

    def dial(self) -> None:
        """Dial upstream, unless it has been done or cannot be now."""
        if self._begun or self._over or self.near.transport is None or self.blocked:
            return
        self._begun = True
        dialled = self.link.dialled
        dialled[self.far] = None
        task = self.link.world.spawn.task(self._dial(), name="inject-dial")
        if self.far in dialled:
            dialled[self.far] = task

    async def _dial(self) -> None:
        host, port = self.link.upstream
        handler = cast("Callable[[], ConnectionHandler]", lambda: self.far)
        try:
            await self.link.world.network.connect(handler, host, port, timeout=DIAL_SECONDS)
        except (OSError, TimeoutError):
            self.link.tally.upstream_refused += 1
            self.abort()
        finally:
            if self.far.transport is None:
                self.link.dialled.pop(self.far, None)

    def update(self, way: Way, before: LinkFault) -> None:
        """Follow a change of the fault of one direction."""
        for flow in (self.forward, self.backward):
            if flow.way is way:
                flow.update(before)
        self.dial()

    def lost(self, side: Side, *, broken: bool) -> None:
        """One socket is gone: what it sent is still delivered, then the other learns."""
        self.link.dialled.pop(side, None)
        if not self._over:
            other = self.other(side)
            if not other.open:
                self._finish()
                return
            side.flow.end("reset" if broken else "eof")
            other.flow.settle()  # what it sends has nowhere to go

    def close_if_over(self) -> None:
        """Close both sockets once each direction has ended and was told."""
        if self.forward.delivered_end and self.backward.delivered_end:
            for side in (self.near, self.far):
                if side.transport is not None:
                    side.transport.close()
            self._finish()

    def abort(self) -> None:
        """Break both sockets with RST, now."""
        if self._over:
            return
        self._finish()
        for side in (self.near, self.far):
            if side.open:
                reset(side.transport)

    def _finish(self) -> None:
        if not self._over:
            self._over = True
            self.forward.stop()
            self.backward.stop()
            dialling = self.link.dialled.get(self.far)
            if dialling is not None and self.far.transport is None:
                dialling.cancel()
            self.link.ended(self)
