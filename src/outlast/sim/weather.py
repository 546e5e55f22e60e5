"""What the way from one host to another does to what is sent over it.

Each direction has a :class:`Way` of its own, so that a cut may be one-way. Without weather, a
segment takes the base time of the pair and a tail that is mostly short. The faults have the
names and the meaning that they have in the proxies of real processes
(:class:`outlast.inject.core.linkfault.LinkFault`).
"""

from typing import TYPE_CHECKING, Final

from outlast.kernel import Prng

if TYPE_CHECKING:
    from outlast.sim.network import Network
    from outlast.sim.tcp import End

MILLION: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000
RETRANSMIT_NS: Final = 200_000_000
"""First retransmission timeout; Linux waits no less."""
LOSSES_MAX: Final = 5
"""Losses of one segment in a row: at most 6.2 s of silence."""
_MASK = (1 << 64) - 1
_LONG_TAILS = 64
_LONG_TIMES = 10


class Tally:
    """What a way did to what was sent over it: the evidence that a fault took place.

    Attributes:
        segments: Sent, of TCP and UDP.
        bytes: Sent.
        held: Segments that a cut has kept waiting.
        lost: Segments that were lost: sent again with TCP, gone with UDP. Connection attempts too.
        dropped: Segments that vanished for good on a connection that stayed.
        delayed: Segments that weather has made late.
        duplicated: Datagrams that arrived twice.
        reordered: Datagrams that may be overtaken.
        reset: Connections broken.
        refused: Connection attempts that found no listener.
    """

    __slots__ = (
        "bytes", "delayed", "dropped", "duplicated", "held", "lost", "refused", "reordered",
        "reset", "segments",
    )  # fmt: skip

    def __init__(self) -> None:
        self.segments = self.bytes = self.held = self.lost = self.dropped = self.delayed = 0
        self.duplicated = self.reordered = self.reset = self.refused = 0

    def facts(self) -> dict[str, int]:
        """Return all counts by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __repr__(self) -> str:
        """Show what is above zero."""
        return f"Tally({', '.join(f'{k}={v}' for k, v in self.facts().items() if v)})"


class Way:
    """One direction between two hosts. Set its fields to make weather; they hold at once.

    Attributes:
        source: Name of the host that sends.
        target: Name of the host that receives.
        delay_ns: Added to the time of every segment.
        jitter_ns: Widest random addition to it.
        loss_ppm: Of a million segments, how many are lost.
        duplicate_ppm: Of a million datagrams, how many arrive twice.
        reorder_ppm: Of a million datagrams, how many are held back by some milliseconds.
        bytes_per_second: What the way carries; 0: no limit.
        tally: What it did so far.
        ends: Ends of TCP connections that send over it.
    """

    __slots__ = (
        "_cut", "_drop", "_pace", "_reset", "back", "base_ns", "bytes_per_second", "cut_since_ns",
        "delay_ns", "duplicate_ppm", "ends", "free_at_ns", "jitter_ns", "loss_ppm", "network",
        "prng", "reorder_ppm", "source", "tally", "target",
    )  # fmt: skip

    back: "Way"

    def __init__(self, network: "Network", source: str, target: str, base_ns: int) -> None:
        self.network = network
        self.prng: Prng = network.prng
        self._pace = network.prng.bits64()
        self.source = source
        self.target = target
        self.base_ns = base_ns
        self.ends: dict[End, None] = {}
        self.tally = Tally()
        self._cut = self._drop = self._reset = False
        self.cut_since_ns = 0
        self.free_at_ns = 0
        self.delay_ns = self.jitter_ns = self.loss_ppm = self.duplicate_ppm = 0
        self.reorder_ppm = self.bytes_per_second = 0

    def __repr__(self) -> str:
        """Show from where to where, and what is wrong."""
        wrong = [name for name in ("cut", "drop", "reset") if getattr(self, name)]
        wrong += [
            f"{name}={getattr(self, name)}"
            for name in (
                "delay_ns", "jitter_ns", "loss_ppm", "duplicate_ppm", "reorder_ppm",
                "bytes_per_second",
            )
            if getattr(self, name)
        ]  # fmt: skip
        return f"<Way {self.source} to {self.target}{': ' if wrong else ''}{', '.join(wrong)}>"

    # --- weather -------------------------------------------------------------------------------

    @property
    def cut(self) -> bool:
        """Whether nothing passes: what is sent waits until the way is healed."""
        return self._cut

    @cut.setter
    def cut(self, cut: bool) -> None:
        if cut == self._cut:
            return
        now_ns = self.network.sim.moment_ns
        self._cut = cut
        self.network.sim.note("cut" if cut else "healed", self.source, self.target)
        if cut:
            self.cut_since_ns = now_ns
            for end in tuple(self.ends):
                end.hold(self.network.sim.now_ns)
            for end in tuple(self.back.ends):
                end.watch()
        else:
            span_ns = min(now_ns - self.cut_since_ns, SECOND_NS)
            for end in tuple(self.ends):
                end.go_on(span_ns)
            for end in tuple(self.back.ends):
                end.acknowledged()

    @property
    def drop(self) -> bool:
        """Whether bytes vanish for good while connections stay, half-open.

        When it ends, the connections that lost something are reset, as a stream with a hole is
        of no use.
        """
        return self._drop

    @drop.setter
    def drop(self, drop: bool) -> None:
        if drop == self._drop:
            return
        self._drop = drop
        self.network.sim.note("drop" if drop else "no drop", self.source, self.target)
        if not drop:
            for end in tuple(self.ends):
                if end.marked:
                    end.break_off()

    @property
    def reset(self) -> bool:
        """Whether connections are aborted: those that exist when it begins, and new ones."""
        return self._reset

    @reset.setter
    def reset(self, reset: bool) -> None:
        if reset == self._reset:
            return
        self._reset = reset
        self.network.sim.note("resetting" if reset else "no reset", self.source, self.target)
        if reset:
            for end in tuple(self.ends):
                end.break_off()

    def clear(self) -> None:
        """Undo all weather of this way."""
        self.delay_ns = self.jitter_ns = self.loss_ppm = self.duplicate_ppm = 0
        self.reorder_ppm = self.bytes_per_second = self.free_at_ns = 0
        self.reset = False
        self.drop = False
        self.cut = False

    # --- time ----------------------------------------------------------------------------------

    @property
    def shapes(self) -> bool:
        """Whether segments are delayed, paced or lost."""
        return bool(self.delay_ns or self.jitter_ns or self.loss_ppm or self.bytes_per_second)

    def natural_ns(self, bits: int) -> int:
        """Return how long a segment takes in fair weather, from 24 random bits."""
        base_ns = self.base_ns
        delay_ns = base_ns + (base_ns * (bits & 0xFF) >> 10)
        if not (bits >> 8) % _LONG_TAILS:
            delay_ns += base_ns * (1 + (bits >> 16) % _LONG_TIMES)
        return delay_ns

    def bits(self) -> int:
        """Draw 48 bits for one segment."""
        # A plain congruential step (Knuth's MMIX): quicker than the Prng, and good enough here.
        self._pace = pace = (self._pace * 6364136223846793005 + 1442695040888963407) & _MASK
        return pace >> 16

    def draw_ns(self) -> int:
        """Draw how long a segment takes in fair weather."""
        return self.natural_ns(self.bits())

    def sent_ns(self, moment_ns: int, size: int) -> int:
        """Return when the line has taken ``size`` bytes, delay and jitter included."""
        due_ns = moment_ns
        if self.bytes_per_second:
            self.free_at_ns = max(moment_ns, self.free_at_ns)
            self.free_at_ns += size * SECOND_NS // self.bytes_per_second
            due_ns = self.free_at_ns
        due_ns += self.delay_ns
        if self.jitter_ns:
            due_ns += self.prng.below(self.jitter_ns + 1)
        if due_ns > moment_ns:
            self.tally.delayed += 1
        return due_ns

    def lost(self) -> bool:
        """Draw whether one segment is lost."""
        if self.loss_ppm and self.prng.chance(self.loss_ppm, MILLION):
            self.tally.lost += 1
            return True
        return False

    def shaped_ns(self, moment_ns: int, size: int) -> int:
        """Return when a segment of TCP has come through the weather, with retransmissions."""
        due_ns = self.sent_ns(moment_ns, size)
        losses = 0
        while losses < LOSSES_MAX and self.lost():
            due_ns += RETRANSMIT_NS << losses
            losses += 1
        if losses:
            self.network.sim.note("lost", self.source, self.target, losses)
            self.network.sim.count("segment retransmitted")
        return due_ns
