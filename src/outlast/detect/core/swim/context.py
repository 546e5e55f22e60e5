"""What the parts of a node share: who it is, the time, what is due, and what goes out."""

from collections.abc import Mapping, Sequence
from math import ceil, log10
from types import MappingProxyType
from typing import Final

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.agenda import Agenda
from outlast.detect.core.swim.api import NOTHING, Effects, Packet, Stream, Unreachable
from outlast.detect.core.swim.gossip import GossipQueue
from outlast.detect.core.swim.selfview import SelfView
from outlast.detect.core.swim.settings import SwimSettings, ns
from outlast.detect.membership_events import PacketDropped
from outlast.kernel import ConfigError, Event, Prng

PIECE_BYTES_MAX: Final = 800
"""News longer than that would not fit beside others; no honest member has any."""
_HEAD_BYTES: Final = 64
_TELL_NS: Final = 10_000_000_000
_REASONS_MAX: Final = 32


class Context:
    """One node's identity, clock, agenda, gossip and outgoing effects."""

    def __init__(
        self, settings: SwimSettings, name: str, address: str, incarnation: int, prng: Prng
    ) -> None:
        _check_name(name, address)
        self.settings = settings
        self.prng = prng
        self.name = name
        self.address = address
        self.session = prng.bits64() >> 1
        self.incarnation = incarnation
        self.metadata: Mapping[str, str] = MappingProxyType({})
        self.now_ns = 0
        self.agenda = Agenda()
        self.queue = GossipQueue()
        self.view = SelfView(settings)
        self.claimed = False
        """Whether what is being read accuses this node: the answer then carries its objection."""
        self.transmit_max = settings.retransmit
        self.dropped: dict[str, int] = {}
        self.leaving = False
        self.left = False
        self._untold = 0
        self._told_ns = -_TELL_NS
        self._gossiped_ns = 0
        self._seq = prng.bits64() >> 2
        self._packets: list[Packet] = []
        self._streams: list[Stream] = []
        self._asks: list[Unreachable] = []
        self._events: list[Event] = []

    # --- in and out ------------------------------------------------------------------------

    def begin(self, now_ns: int) -> None:
        """Begin a step. Time does not go back."""
        self.now_ns = max(now_ns, self.now_ns)

    def effects(self) -> Effects:
        """Return what has been asked for since the last time."""
        if not (self._packets or self._streams or self._events or self._asks or self.left):
            return NOTHING
        made = Effects(
            tuple(self._packets), tuple(self._streams), tuple(self._asks), tuple(self._events),
            self.left,
        )  # fmt: skip
        self._packets.clear()
        self._streams.clear()
        self._asks.clear()
        self._events.clear()
        return made

    def emit(self, event: Event) -> None:
        """Tell the user."""
        self._events.append(event)

    def ask(self, question: Unreachable) -> None:
        """Ask the hook."""
        self._asks.append(question)

    def send(self, target: str, message: wire.Message) -> None:
        """Send a datagram."""
        self._packets.append(Packet(target, wire.encode(message)))

    def stream(self, target: str, body: wire.StreamBody, request: int | None = None) -> None:
        """Send a body over a stream."""
        self._streams.append(Stream(target, wire.encode(body), request))

    def drop(self, reason: str, source: str) -> None:
        """Count what is not obeyed, and tell the user now and then."""
        if reason in self.dropped or len(self.dropped) < _REASONS_MAX:
            self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self._untold += 1
        if self.now_ns - self._told_ns >= _TELL_NS:
            self._told_ns = self.now_ns
            count, self._untold = self._untold, 0
            self.emit(
                PacketDropped(node=self.name, source=source[:200], reason=reason, count=count)
            )

    # --- news ------------------------------------------------------------------------------

    def next_seq(self) -> int:
        """Return a number that no open question has."""
        self._seq += 1
        return self._seq

    def me_piece(self) -> bytes:
        """Return what this node says of itself."""
        return wire.piece(
            wire.AliveNews(
                self.name, self.address, self.incarnation, self.session, dict(self.metadata)
            )
        )

    def tell(self, name: str, piece: bytes) -> None:
        """Let news about ``name`` be passed on."""
        self.queue.put(name, piece)
        if ("gossip", "") not in self.agenda:
            due = max(self.now_ns, self._gossiped_ns + ns(self.settings.gossip_interval))
            self.agenda.set(("gossip", ""), due)

    def gossiped(self) -> None:
        """Note a round of gossip, and plan the next if there is more."""
        self._gossiped_ns = self.now_ns
        if len(self.queue):
            due = self.now_ns + ns(self.settings.gossip_interval)
            self.agenda.set(("gossip", ""), due)

    def members(self, count: int) -> None:
        """Note how many members there are: news are sent so much more often.

        One decade more than in memberlist: if n nodes send something T times each, to others
        drawn by lot, one in e**T misses it, and with T = 4 that is one in fifty.
        """
        self.transmit_max = ceil(self.settings.retransmit * (1 + log10(count + 1)))

    def updates(self, names: int, forced: Sequence[tuple[str, bytes]] = ()) -> list[wire.News]:
        """Return the news for one packet.

        Args:
            names: Bytes of names and addresses in the packet.
            forced: News that should be in it, by name; what does not fit is left out.
        """
        if not forced and not len(self.queue):
            return []
        room = self.settings.packet_bytes_max - _HEAD_BYTES - names
        pieces: list[bytes] = []
        told: list[str] = []
        for name, piece in forced:
            if len(piece) <= room:
                pieces.append(piece)
                told.append(name)
                room -= len(piece)
        pieces += self.queue.take(room, self.transmit_max, told)
        return wire.carried(pieces)


def _check_name(name: str, address: str) -> None:
    if not 1 <= len(name.encode()) <= 64 or not name.isprintable():
        raise ConfigError(f"SwimNode: name is {name!r}; 1 to 64 printable bytes of UTF-8")
    if not 1 <= len(address.encode()) <= 128 or ":" not in address:
        raise ConfigError(f"SwimNode: address is {address!r}; host:port, at most 128 bytes")
