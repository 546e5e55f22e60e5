"""TCP as the kernels of two hosts keep it: ordered, reliable, with a window.

A connection has two :class:`End` objects. Each holds what is under way to the other (a queue of
segments with the instants at which they are due) and what has arrived and was not read. One
event of the loop delivers all that is due. The states of what is under way:

- *due*: arrives at its instant, never before what was sent earlier;
- *held*: a cut, or a machine without power; goes on after healing, or ends the connection with
  ``ETIMEDOUT`` when nothing was acknowledged for too long;
- *swallowed*: gone for good (``drop``); only a reset can end the connection then.

The program of an end is its *user*: a transport, or a socket object that waits. An end whose
program closed it, or crashed, still delivers what it had sent, and answers what arrives with a
reset.
"""

import errno
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING

from outlast.sim.segment import (
    DATA,
    FIN,
    HELD,
    RST,
    SEGMENT_BYTES,
    WINDOW_BYTES,
    Segment,
    User,
    os_error,
)
from outlast.sim.weather import Way

if TYPE_CHECKING:
    import asyncio

    from outlast.sim.hosts import Life
    from outlast.sim.network import Network
    from outlast.sim.ports import Address, Kernel

_SPLIT_OF = 32
_OPAQUE_BYTES = 4096
"""TLS varies in size by a few bytes from run to run: time and trace must not depend on them."""


class End:
    """One end of a connection.

    Attributes:
        closed: Whether its program has let go of it, or is gone.
        forgotten: Whether its kernel knows nothing of it any more: power was lost.
        flight: Bytes that it sent and that have not arrived.
        unread: Bytes that have arrived at it and were not read.
        owed: Bytes of its own that were read while the acknowledgement could not come back.
        eof: Whether the other side sends no more.
        error: What broke the connection, if anything.
        opaque: Whether its bytes are TLS: their number is not for the trace.
        marked: Whether something it sent was swallowed.
    """

    __slots__ = (
        "arrived", "blocked", "broken", "closed", "context", "deadline", "eof", "error",
        "finished", "flight", "forgotten", "handle", "kernel", "last", "last_ns", "life", "local",
        "marked", "mute", "name", "network", "opaque", "owed", "peer", "queue", "remote", "sim",
        "unread", "user", "waking", "way",
    )  # fmt: skip

    peer: "End"

    def __init__(  # noqa: PLR0917 - what a kernel knows of a connection
        self,
        network: "Network",
        kernel: "Kernel",
        life: "Life",
        context: Context,
        way: Way,
        local: "Address",
        remote: "Address",
    ) -> None:
        self.network = network
        self.sim = network.sim
        self.kernel = kernel
        self.name = kernel.host.name
        self.life = life
        self.context = context
        self.way = way
        self.local = local
        self.remote = remote
        self.user: User | None = None
        self.queue: deque[Segment] = deque()
        self.last: Segment | None = None
        self.last_ns = 0
        self.handle: asyncio.Handle | None = None
        self.deadline: asyncio.Handle | None = None
        self.arrived: deque[bytes] = deque()
        self.flight = self.unread = self.owed = 0
        self.error: OSError | None = None
        self.closed = self.finished = self.eof = self.forgotten = self.broken = False
        self.blocked = self.waking = self.opaque = self.marked = self.mute = False
        way.ends[self] = None
        kernel.ends[self] = None

    def __repr__(self) -> str:
        """Show who is connected with whom."""
        return f"<End {self.name} {self.local} to {self.peer.name} {self.remote}>"

    # --- sending -------------------------------------------------------------------------------

    def send(self, data: bytes) -> int:
        """Send what the window permits and return how many bytes that is.

        Raises:
            OSError: The connection is broken, or was finished on this side.
        """
        if self.error is not None:
            raise self.error
        if self.closed or self.finished:
            raise os_error(errno.EPIPE)
        size = len(data)
        room = WINDOW_BYTES - self.flight - self.peer.unread - self.owed
        if size > room:
            self.blocked = True
            if room <= 0:
                return 0
            data, size = data[:room], room
        sim = self.sim
        moment_ns = sim.now_ns + sim.ahead_ns
        last = self.last
        if (
            last is not None
            and last.step == sim.steps
            and last.sent_ns == moment_ns
            and last.size + size <= SEGMENT_BYTES
        ):  # what one callback writes at one instant leaves together
            last.parts.append(data)
            last.size += size
            self.flight += size
            self.way.tally.bytes += size
            return size
        if size <= SEGMENT_BYTES:
            self._put(DATA, data, size)
        else:
            for begin in range(0, size, SEGMENT_BYTES):
                part = data[begin : begin + SEGMENT_BYTES]
                self._put(DATA, part, len(part))
        return size

    def finish(self) -> None:
        """Send no more: half-close."""
        if not self.finished and not self.closed and self.error is None:
            self.finished = True
            self._put(FIN, b"", 0)

    def _put(self, kind: int, data: bytes, size: int) -> None:
        way, sim = self.way, self.sim
        if self.broken:
            return
        if way._reset:
            self.break_off()
            return
        way.tally.segments += 1
        way.tally.bytes += size
        if way._drop:
            self.marked = True
            self.last = None
            way.tally.dropped += 1
            sim.note("swallowed", self.name, self.peer.name)
            return
        bits = way.bits()
        moment_ns = sim.now_ns + sim.ahead_ns
        split = not (bits >> 40) % _SPLIT_OF and size > 1 and not self.opaque
        if split:  # a reader must not take one write for one read
            head = 1 + (bits >> 20) % (size - 1)
            self._queue(DATA, data[:head], head, moment_ns, bits)
            self._queue(DATA, data[head:], size - head, moment_ns, way.bits())
            self.last = None
            return
        segment = self._queue(kind, data, size, moment_ns, bits)
        if kind == DATA:
            segment.step = sim.steps
            self.last = None if way.bytes_per_second else segment
        else:
            self.last = None

    def _queue(self, kind: int, data: bytes, size: int, moment_ns: int, bits: int) -> Segment:
        """Put something on its way."""
        way = self.way
        if way._cut or self.mute:
            due_ns = HELD
            way.tally.held += 1
        else:
            due_ns = moment_ns + way.natural_ns(bits)
            if way.delay_ns or way.jitter_ns or way.loss_ppm or way.bytes_per_second:
                charged = max(size, _OPAQUE_BYTES) if self.opaque and size else size
                due_ns += way.shaped_ns(moment_ns, charged) - moment_ns
            due_ns = max(due_ns, self.last_ns)
            self.last_ns = due_ns
        segment = Segment(kind, data, size, due_ns, moment_ns)
        self.queue.append(segment)
        self.flight += size
        if way._cut or way.back._cut or self.mute:
            self.watch()
        if self.handle is None and due_ns < HELD:
            self._schedule(due_ns)
        return segment

    def _schedule(self, due_ns: int) -> None:
        peer = self.peer
        if peer.closed:
            self.handle = self.sim.at(due_ns, self._bounce)
        else:  # as sim.at_host does
            self.handle = self.sim.loop.schedule(
                due_ns, peer.life, self._deliver, (), peer.context
            )

    # --- arriving ------------------------------------------------------------------------------

    def _deliver(self) -> None:
        """Hand over what is due. Runs in the life of the other end."""
        self.handle = None
        peer, queue, sim = self.peer, self.queue, self.sim
        if peer.closed:
            self._bounce()
            return
        now_ns = sim.now_ns
        if not queue or queue[0].due_ns > now_ns:
            self._next()
            return
        first = queue.popleft()
        kind, size, data = first.kind, first.size, b""
        if kind == DATA:
            parts = first.parts
            while queue and queue[0].due_ns <= now_ns and queue[0].kind == DATA:
                more = queue.popleft()
                parts.extend(more.parts)
                size += more.size
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            self.flight -= size
        self._next()
        if kind == DATA:
            sim.note("deliver", self.name, peer.name, 0 if self.opaque else size)
            peer._take(data, size)
        elif kind == FIN:
            sim.note("end", self.name, peer.name)
            peer.eof = True
            if peer.user is not None:
                peer.user.readable()
        else:
            peer.fail(os_error(errno.ECONNRESET))

    def _next(self) -> None:
        """Wait for what is due next, or forget a connection that is over."""
        queue = self.queue
        if queue:
            if queue[0].due_ns < HELD:
                self._schedule(queue[0].due_ns)
        elif self.closed:
            self._settle()

    def _take(self, data: bytes, size: int) -> None:
        user = self.user
        if user is not None and user.reading and not self.arrived:
            if self.way._cut:
                self.peer.owed += size
            user.received(data)
            if self.peer.blocked:
                self._wake()
        else:
            self.arrived.append(data)
            self.unread += size
            if user is not None:
                user.readable()

    def read(self, size_max: int = WINDOW_BYTES) -> bytes:
        """Take up to ``size_max`` bytes of what has arrived; there must be some."""
        arrived = self.arrived
        if len(arrived) > 1 and self.unread <= size_max:
            data = b"".join(arrived)
            arrived.clear()
        else:
            data = arrived.popleft()
            if len(data) > size_max:
                arrived.appendleft(data[size_max:])
                data = data[:size_max]
        self.unread -= len(data)
        if self.way._cut:
            self.peer.owed += len(data)
        if self.peer.blocked:
            self._wake()
        return data

    def unread_again(self, data: bytes) -> None:
        """Take back what the program had no room for."""
        self.arrived.appendleft(data)
        self.unread += len(data)
        if self.way._cut:
            self.peer.owed -= len(data)

    def _wake(self) -> None:
        """Tell the sender that there is room, unless the acknowledgement cannot come back."""
        sender, way = self.peer, self.way
        if not (sender.waking or sender.closed or way._cut):
            sender.waking = True
            when_ns = self.sim.moment_ns + way.base_ns + way.delay_ns
            self.sim.at_host(when_ns, sender.life, sender._writable, context=sender.context)

    def _writable(self) -> None:
        self.waking = self.blocked = False
        if self.user is not None:
            self.user.writable()

    def _bounce(self) -> None:
        """What is due arrives where nobody is: the kernel there answers, if it has power."""
        self.handle = None
        peer, queue, now_ns = self.peer, self.queue, self.sim.now_ns
        if not peer.kernel.powered:
            if queue:
                self.mute = True
                peer.kernel.mute[self] = None
                self.hold(-1)
            return
        answer = False
        while queue and queue[0].due_ns <= now_ns:
            segment = queue.popleft()
            self.flight -= segment.size
            answer = answer or segment.kind == DATA or (segment.kind == FIN and peer.forgotten)
        if answer and not (peer.queue and peer.queue[-1].kind == RST):
            peer._answer_reset()
        self._next()

    def _answer_reset(self) -> None:
        self.sim.count("reset in flight")
        self.way.ends[self] = None
        self.broken = False
        self._put(RST, b"", 0)
        self._settle()

    # --- end -----------------------------------------------------------------------------------

    def fail(self, error: OSError) -> None:
        """Break the connection on this side: a reset has arrived, or patience is at its end."""
        if self.closed or self.error is not None:
            return
        number = error.errno or 0
        self.sim.note(
            "reset" if number == errno.ECONNRESET else "failed", self.name, self.peer.name
        )
        if number == errno.ECONNRESET:
            self.peer.way.tally.reset += 1
        self.error = error
        self._forget_queue()
        if self.user is not None:
            self.user.readable()

    def close(self, *, reset: bool = False) -> None:
        """Let go: finish, or reset the connection if something was not read."""
        if self.closed:
            return
        self.closed = True
        unread = bool(self.unread) or self.peer.has_arrived()
        self.unread = 0
        self.arrived.clear()
        self.user = None
        if self.error is None:
            if unread or reset:
                self._put(RST, b"", 0)
            elif not self.finished:
                self.finished = True
                self._put(FIN, b"", 0)
        self.peer._redirect()
        self._settle()

    def lose_power(self) -> None:
        """Its machine has lost its power: what it had not sent yet will never be sent."""
        self.closed = self.forgotten = True
        self.user = None
        self.arrived.clear()
        self.unread = 0
        while self.queue and self.queue[-1].due_ns == HELD:
            self.queue.pop()
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        self.kernel.mute.pop(self, None)
        self.peer._redirect()
        self._settle()

    def _redirect(self) -> None:
        """The other end is closed: what is under way is for its kernel."""
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None
            if self.queue and self.queue[0].due_ns < HELD:
                self._schedule(self.queue[0].due_ns)

    def has_arrived(self) -> bool:
        """Whether bytes that it sent wait for the other program to have time."""
        queue = self.queue
        return bool(queue) and queue[0].kind == DATA and queue[0].due_ns <= self.sim.now_ns

    def _settle(self) -> None:
        """Forget an end that is closed and has nothing under way."""
        if self.closed and not self.queue:
            self.way.ends.pop(self, None)
            self.kernel.ends.pop(self, None)
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

    def _forget_queue(self) -> None:
        self.queue.clear()
        self.flight = self.owed = 0
        self.last = None
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        self.mute = False
        self.peer.kernel.mute.pop(self, None)

    # --- weather -------------------------------------------------------------------------------

    def hold(self, now_ns: int) -> None:
        """The way is cut: keep what is under way and not due by ``now_ns``."""
        held = 0
        for segment in self.queue:
            if segment.due_ns > now_ns:
                held += segment.due_ns != HELD
                segment.due_ns = HELD
        self.last = None
        self.way.tally.held += held
        if held and self.queue[0].due_ns == HELD and self.handle is not None:
            self.handle.cancel()
            self.handle = None
        if held:
            self.watch()

    def watch(self) -> None:
        """Give up when what is under way is not acknowledged for too long."""
        if self.queue and self.deadline is None:
            when_ns = self.sim.moment_ns + self.network.tcp_timeout_ns
            self.deadline = self.sim.at(when_ns, self._give_up)

    def _give_up(self) -> None:
        self.deadline = None
        self.sim.count("connection timed out")
        if self.closed:
            self._forget_queue()
            self._settle()
        else:
            self._forget_queue()
            self.broken = True
            error = os_error(errno.ETIMEDOUT)
            self.sim.at_host(self.sim.now_ns, self.life, self.fail, error, context=self.context)

    def go_on(self, span_ns: int) -> None:
        """The way is healed: what was held goes on after some share of ``span_ns``."""
        way = self.way
        if self.mute or way._cut:
            return
        if self.queue and self.queue[-1].due_ns == HELD:
            self.sim.count("segment retransmitted")
            due_ns = self.sim.moment_ns + way.prng.below(span_ns + 1) + way.draw_ns()
            due_ns = max(due_ns, self.last_ns)
            for segment in self.queue:
                if segment.due_ns == HELD:
                    segment.due_ns = due_ns
            self.last_ns = due_ns
            if self.handle is None:
                self._schedule(self.queue[0].due_ns)
        self.acknowledged()

    def acknowledged(self) -> None:
        """Acknowledgements come back again."""
        if self.way._cut or self.way.back._cut or self.mute:
            return
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        self.owed = 0
        if self.blocked:
            self.peer._wake()

    def break_off(self) -> None:
        """Something on the way resets the connection: both ends learn it."""
        if self.broken or self.error is not None:
            return
        now_ns = self.sim.moment_ns
        for end in (self, self.peer):
            end._forget_queue()
            end.broken = True
            if not end.closed:
                when_ns = now_ns + self.way.draw_ns()
                error = os_error(errno.ECONNRESET)
                self.sim.at_host(when_ns, end.life, end.fail, error, context=end.context)
            end._settle()
