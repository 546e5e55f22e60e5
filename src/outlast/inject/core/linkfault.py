"""What a faulty link does to the bytes of one direction.

A TCP proxy sees a stream and not packets: it can hold bytes back, delay them, pace them, or
swallow them, and must never reorder them. Each direction of each connection is a lane: a queue
of chunks with the instants at which they are due. A chunk that arrives while nothing is wrong
and nothing waits does not enter the queue at all. Three states follow from the fault in force:

- *open*: chunks are due after the delay, jitter, pacing and retransmissions that were drawn;
- *held* (cut): nothing leaves, and the sender is not read any more, so that it feels the
  pressure of a full window;
- *swallowed* (drop): chunks vanish, and the lane is marked, as a stream with a hole can only be
  reset.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from outlast.kernel import ConfigError, Prng

Direction = Literal["forward", "backward"]
"""Of a link: from the side that connects to the side that listens, or back."""

MILLION: Final = 1_000_000
_NS: Final = 1_000_000_000
RETRANSMIT_NS: Final = 200_000_000
"""First retransmission timeout; Linux waits no less."""
LOSSES_MAX: Final = 5
"""Losses of one chunk in a row: at most 200 ms * (1 + 2 + 4 + 8 + 16) = 6.2 s of silence."""
_PACED_SLICES: Final = 50
_SLICE_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class LinkFault:
    """What is wrong with one direction of a link. The default is: nothing.

    ``reset`` is stronger than ``drop``, which is stronger than ``cut``; delay, jitter, loss and
    bandwidth add up.

    Args:
        cut: Nothing passes and nothing is lost: connections stall.
        delay_ns: Added to the way of every chunk.
        jitter_ns: Widest random addition to it, drawn evenly for each chunk.
        loss_ppm: Of a million chunks, how many are lost and sent again after a timeout.
        bytes_per_second: What the direction carries, over all its connections; 0: no limit.
        drop: What is sent vanishes; the connection stays, half-open.
        reset: Connections are aborted, those that exist and new ones.

    Raises:
        ConfigError: A number is negative, or ``loss_ppm`` is above 1,000,000.
    """

    cut: bool = False
    delay_ns: int = 0
    jitter_ns: int = 0
    loss_ppm: int = 0
    bytes_per_second: int = 0
    drop: bool = False
    reset: bool = False

    def __post_init__(self) -> None:
        for name in ("delay_ns", "jitter_ns", "loss_ppm", "bytes_per_second"):
            value = getattr(self, name)
            if value < 0:
                raise ConfigError(f"LinkFault: {name} is {value}; use 0 or more")
        if self.loss_ppm > MILLION:
            raise ConfigError(
                f"LinkFault: loss_ppm is {self.loss_ppm}; a million of a million is the most"
            )

    @property
    def shapes(self) -> bool:
        """Whether chunks are delayed, paced or lost."""
        return bool(self.delay_ns or self.jitter_ns or self.loss_ppm or self.bytes_per_second)

    @property
    def harmless(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.shapes or self.cut or self.drop or self.reset)

    def slice_bytes(self, size: int) -> int:
        """Return in what pieces a chunk is paced: 20 ms of the line each, at least 256 bytes."""
        if not self.bytes_per_second:
            return size
        return min(size, max(_SLICE_BYTES, self.bytes_per_second // _PACED_SLICES))


HEALTHY: Final = LinkFault()


class Pace:
    """When the line of one direction, shared by its connections, is free again."""

    __slots__ = ("_free_at_ns",)

    def __init__(self) -> None:
        self._free_at_ns = 0

    def reserve(self, size: int, bytes_per_second: int, now_ns: int) -> int:
        """Take the line for ``size`` bytes and return when the last of them has left."""
        begin = max(now_ns, self._free_at_ns)
        self._free_at_ns = begin + size * _NS // bytes_per_second
        return self._free_at_ns

    def reset(self) -> None:
        """Forget what was reserved."""
        self._free_at_ns = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """When a chunk is due, and how many times it was lost on the way."""

    due_ns: int
    losses: int


def timing(fault: LinkFault, size: int, now_ns: int, pace: Pace, prng: Prng) -> Timing:
    """Decide when a chunk that was sent now would arrive, had it no predecessor.

    Losses are drawn one after another, at most :data:`LOSSES_MAX`; the waits double as in TCP
    (RFC 6298, 5.5). Unlike a real stack we know of no faster retransmission: a lost chunk always
    costs its timeout.
    """
    due = now_ns
    if fault.bytes_per_second:
        due = pace.reserve(size, fault.bytes_per_second, now_ns)
    due += fault.delay_ns
    if fault.jitter_ns:
        due += prng.below(fault.jitter_ns + 1)
    losses = 0
    if fault.loss_ppm:
        while losses < LOSSES_MAX and prng.chance(fault.loss_ppm, MILLION):
            due += RETRANSMIT_NS << losses
            losses += 1
    return Timing(due, losses)


End = Literal["eof", "reset"]
"""How a sender ended: it sends no more, or the connection broke."""


@dataclass(slots=True)
class Waiting:
    """One thing that waits in a lane: bytes, or the end of the stream."""

    payload: bytes | End
    arrived_ns: int
    due_ns: int
    losses: int = 0

    @property
    def size(self) -> int:
        """Bytes of payload; an end has none."""
        return len(self.payload) if isinstance(self.payload, bytes) else 0


class Lane:
    """One direction of one connection: what waits, in the order in which it was sent.

    Args:
        limit_bytes: Above this much waiting, the sender should not be read. One chunk may
            exceed it, as it has been read already.
    """

    __slots__ = ("_limit_bytes", "_queue", "held", "marked", "waiting_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._queue: deque[Waiting] = deque()
        self.waiting_bytes = 0
        self.held = False
        """Whether nothing may leave (cut)."""
        self.marked = False
        """Whether bytes of this lane were swallowed, so that only a reset can end it."""

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._queue)

    @property
    def full(self) -> bool:
        """Whether the sender should not be read for now."""
        return self.held or self.waiting_bytes >= self._limit_bytes

    def put(
        self,
        payload: bytes | End,
        fault: LinkFault,
        now_ns: int,
        pace: Pace,
        prng: Prng,
    ) -> int:
        """Queue what the sender sent and return how many times it was lost on the way.

        It is due no earlier than what was sent before it.
        """
        size = len(payload) if isinstance(payload, bytes) else 0
        when = timing(fault, size, now_ns, pace, prng)
        due = max(when.due_ns, self._queue[-1].due_ns) if self._queue else when.due_ns
        self._queue.append(Waiting(payload, now_ns, due, when.losses))
        self.waiting_bytes += size
        return when.losses

    def take(self, now_ns: int) -> Waiting | None:
        """Remove and return the first that is due, or ``None``."""
        if self.held or not self._queue or self._queue[0].due_ns > now_ns:
            return None
        first = self._queue.popleft()
        self.waiting_bytes -= first.size
        return first

    def next_due_ns(self) -> int | None:
        """Return when :meth:`take` has something; ``None``: not before something changes."""
        if self.held or not self._queue:
            return None
        return self._queue[0].due_ns

    def hurry(self, now_ns: int) -> None:
        """Make all that waits due now: the fault has ended, and nothing waits for its sake."""
        for waiting in self._queue:
            waiting.due_ns = min(waiting.due_ns, now_ns)

    def clear(self) -> None:
        """Forget all that waits: there is nobody left to send it to."""
        self._queue.clear()
        self.waiting_bytes = 0
