"""Asking members whether they live: directly, through others, over a stream, and then accusing.

SWIM (section 3.1): ping one member per interval; when it does not answer, ask some others to try.
From Lifeguard: those say so when they get no answer either, and a stream is tried beside. Timeouts
follow the measured round trip, above a floor. A probe may last longer than an interval; the next
begins all the same, within bounds. A port that refuses makes it short.
"""

from typing import Final

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.context import Context
from outlast.detect.core.swim.peer import Peer
from outlast.detect.core.swim.settings import ns
from outlast.detect.core.swim.table import Table
from outlast.detect.core.swim.words import alive_news

_PENDING_MAX: Final = 32
_RELAYS_MAX: Final = 256
_TIMEOUT_FACTOR_MAX: Final = 10
"""A measured round trip stretches the timeout to so many times the floor at most."""


class Probe:
    """One question about one member and what has come back."""

    __slots__ = (
        "asked", "early", "nacks", "peer", "refused", "refusers", "relaxed", "sent_ns",
        "stream_failed", "was_dead",
    )  # fmt: skip

    def __init__(self, peer: Peer, sent_ns: int, relaxed: bool) -> None:
        self.peer = peer
        self.sent_ns = sent_ns
        self.relaxed = relaxed
        """Whether nothing follows from no answer."""
        self.was_dead = peer.gone
        self.early = True
        self.asked: set[str] = set()
        self.nacks: set[str] = set()
        self.refusers: set[str] = set()
        self.refused = False
        self.stream_failed = False

    def settled(self) -> bool:
        """Whether no further answer can change the verdict."""
        if self.early:
            return False
        if self.refused and self.refusers:
            return True
        return self.nacks >= self.asked and (self.refused or self.stream_failed)


class Relay:
    """One question asked for somebody else."""

    __slots__ = ("request", "source", "streamed")

    def __init__(self, request: wire.PingRequest, source: str) -> None:
        self.request = request
        self.source = source
        self.streamed = False


class Prober:
    """All probes of one node, and those that it makes for others."""

    def __init__(self, context: Context, table: Table) -> None:
        self._context = context
        self._table = table
        self._probes: dict[int, Probe] = {}
        self._relays: dict[int, Relay] = {}
        self.reconnected: Peer | None = None
        """A removed member that has answered, until the node has dealt with it."""

    def __len__(self) -> int:
        return len(self._probes)

    # --- due -------------------------------------------------------------------------------

    def tick(self) -> None:
        """Probe the next member in turn."""
        context = self._context
        interval = ns(context.settings.probe_interval) * context.view.multiplier
        context.agenda.set(("probe", ""), context.now_ns + interval)
        peer = self._table.ring.next()
        if peer is not None and len(self._probes) < _PENDING_MAX:
            self.start(peer)

    def start(self, peer: Peer, relaxed: bool = False) -> None:
        """Ping ``peer``; ``relaxed``, or if it is removed: nothing follows from no answer."""
        context = self._context
        seq = self._open(peer, relaxed or peer.gone)
        self._ping(seq, peer, peer.name, peer.address)
        context.agenda.set(("late", seq), context.now_ns + self.timeout_ns(peer))

    def timeout_ns(self, peer: Peer) -> int:
        """Return how long a direct answer of ``peer`` is waited for."""
        return self._patience_ns(peer) * self._context.view.multiplier

    def late(self, seq: int) -> None:
        """No direct answer came in time, or none at all."""
        probe = self._probes.get(seq)
        if probe is None:
            return
        if probe.early and not probe.relaxed:
            self._ask_others(seq, probe)
        else:
            self._fail(seq, probe)

    def relay_late(self, seq: int) -> None:
        """The one probed for another did not answer: try a stream, then say so."""
        relay, context = self._relays.get(seq), self._context
        if relay is None:
            return
        if relay.streamed:
            self._nack(seq, refused=False)
            return
        relay.streamed = True
        request = relay.request
        context.stream(request.address, wire.StreamPing(seq, context.name, request.target))
        half = self._patience_ns(self._table.peers.get(request.target)) // 2
        context.agenda.set(("relay", seq), context.now_ns + half)

    def void(self) -> None:
        """Forget all questions: this node was stopped, and answers may have been lost."""
        for seq in list(self._probes):
            self._end(seq)
        for seq in list(self._relays):
            del self._relays[seq]
            self._context.agenda.cancel(("relay", seq))

    # --- answers ---------------------------------------------------------------------------

    def on_ack(self, ack: wire.Ack) -> None:
        """Somebody answered, directly or through another."""
        if ack.seq in self._relays:
            self._pass_on(ack.seq, ack.sender, ack.incarnation, ack.unknown)
            return
        probe = self._probes.get(ack.seq)
        if probe is None or ack.sender != probe.peer.name:
            return
        self.answered(ack.seq, direct=probe.early)

    def answered(self, seq: int, direct: bool = False) -> None:
        """The member in question lives."""
        probe = self._probes.get(seq)
        if probe is None:
            return
        self._end(seq)
        now = self._context.now_ns
        probe.peer.heard_ns = now
        if direct:
            probe.peer.measured(now - probe.sent_ns)
        if probe.was_dead:
            self.reconnected = probe.peer
        else:
            self._context.view.adjust(-1)

    def on_stream_ack(self, ack: wire.StreamAck) -> None:
        """Somebody answered over a stream."""
        if ack.seq in self._relays:
            self._pass_on(ack.seq, ack.sender, ack.incarnation, unknown=False)
            return
        probe = self._probes.get(ack.seq)
        if probe is not None and ack.sender == probe.peer.name:
            self.answered(ack.seq)

    def on_nack(self, nack: wire.Nack) -> None:
        """One of those asked has got no answer either."""
        probe = self._probes.get(nack.seq)
        if probe is None or nack.sender not in probe.asked:
            return
        probe.nacks.add(nack.sender)
        if nack.refused:
            probe.refusers.add(nack.sender)
        self._settle(nack.seq, probe)

    def on_refused(self, target: str) -> None:
        """Nobody listens at ``target``."""
        if not self._context.settings.refusals:
            return
        for seq, relay in list(self._relays.items()):
            if relay.request.address == target:
                self._nack(seq, refused=True)
        found = False
        for seq, probe in list(self._probes.items()):
            if probe.peer.address == target:
                found = True
                self._refuse(seq)
        if not found and len(self._probes) < _PENDING_MAX:
            self._refused_unasked(target)

    def on_stream_failed(self, target: str) -> None:
        """A stream got no answer."""
        for seq, probe in list(self._probes.items()):
            if probe.peer.address == target and not probe.early:
                probe.stream_failed = True
                self._settle(seq, probe)

    # --- for others ------------------------------------------------------------------------

    def on_request(self, request: wire.PingRequest, source: str) -> None:
        """Probe a member for somebody else."""
        context = self._context
        if len(self._relays) >= _RELAYS_MAX:
            context.drop("too many requests", source)
            return
        seq = context.next_seq()
        self._relays[seq] = Relay(request, source)
        peer = self._table.peers.get(request.target)
        self._ping(seq, peer, request.target, request.address)
        context.agenda.set(
            ("relay", seq), context.now_ns + ns(context.settings.probe_timeout) // 2
        )

    def _pass_on(self, seq: int, sender: str, incarnation: int, unknown: bool) -> None:
        context, relay = self._context, self._relays[seq]
        request = relay.request
        if sender != request.target:
            return
        del self._relays[seq]
        context.agenda.cancel(("relay", seq))
        peer = self._table.peers.get(request.target)
        forced = []
        if peer is not None and not peer.gone and peer.suspicion is None:
            forced = [(peer.name, wire.piece(alive_news(peer)))]
        updates = context.updates(len(sender.encode()), forced)
        answer = wire.Ack(request.seq, sender, incarnation, unknown, updates)
        context.send(relay.source, answer)

    def _nack(self, seq: int, refused: bool) -> None:
        relay, context = self._relays.pop(seq, None), self._context
        context.agenda.cancel(("relay", seq))
        if relay is None or not context.settings.nacks:
            return
        request, source = relay.request, relay.source
        updates = context.updates(len(context.name.encode()))
        nack = wire.Nack(request.seq, context.name, context.incarnation, refused, updates)
        context.send(source, nack)

    # --- inside ----------------------------------------------------------------------------

    def _patience_ns(self, peer: Peer | None) -> int:
        floor = ns(self._context.settings.probe_timeout)
        usual = 0 if peer is None else peer.usual_ns()
        return min(max(floor, usual), floor * _TIMEOUT_FACTOR_MAX)

    def _ping(self, seq: int, peer: Peer | None, name: str, address: str) -> None:
        context = self._context
        names = len(context.name.encode()) + len(name.encode())
        updates = context.updates(names, self._table.claim_against(peer))
        ping = wire.Ping(seq, context.name, context.incarnation, name, updates)
        context.send(address, ping)

    def _ask_others(self, seq: int, probe: Probe) -> None:
        context, peer = self._context, probe.peer
        probe.early = False
        for helper in self._table.ring.sample(context.settings.indirect, peer, alive=True):
            probe.asked.add(helper.name)
            names = sum(len(one.encode()) for one in (context.name, peer.name, peer.address))
            request = wire.PingRequest(
                seq, context.name, context.incarnation, peer.name, peer.address,
                context.updates(names),
            )  # fmt: skip
            context.send(helper.address, request)
        context.stream(peer.address, wire.StreamPing(seq, context.name, peer.name))
        # Those asked are as patient as this node; what they send takes a round trip, and room.
        way = (peer.usual_ns() + ns(context.settings.probe_timeout) // 2) * context.view.multiplier
        context.agenda.set(("late", seq), context.now_ns + self.timeout_ns(peer) + way)

    def _refuse(self, seq: int) -> None:
        probe = self._probes[seq]
        probe.refused = True
        if probe.relaxed:
            self._end(seq)
        elif probe.early:
            self._ask_others(seq, probe)
        self._settle(seq, probe)

    def _refused_unasked(self, target: str) -> None:
        """A datagram that was no probe was refused: look into it, once per interval."""
        now, interval = self._context.now_ns, ns(self._context.settings.probe_interval)
        for peer in self._table.at(target):
            words = {} if peer.suspicion is None else peer.suspicion.accusations
            mine = words.get(self._context.name)
            if peer.gone or now - peer.probed_ns < interval or (mine and mine.refused):
                continue
            self._refuse(self._open(peer, relaxed=False))

    def _open(self, peer: Peer, relaxed: bool) -> int:
        seq = self._context.next_seq()
        peer.probed_ns = self._context.now_ns
        self._probes[seq] = Probe(peer, peer.probed_ns, relaxed)
        return seq

    def _settle(self, seq: int, probe: Probe) -> None:
        if seq in self._probes and probe.settled():
            self._fail(seq, probe)

    def _end(self, seq: int) -> None:
        self._probes.pop(seq, None)
        self._context.agenda.cancel(("late", seq))

    def _fail(self, seq: int, probe: Probe) -> None:
        context, peer = self._context, probe.peer
        self._end(seq)
        if probe.relaxed:
            return
        missing = len(probe.asked) - len(probe.nacks)
        if not probe.refused:
            # Lifeguard: nacks that come say that the others hear us, so the fault is not ours.
            nacked = probe.asked and context.settings.nacks
            context.view.adjust(missing if nacked else 1)
        if not context.view.allowed:
            return
        silence_ms = max(0, context.now_ns - peer.heard_ns) // 1_000_000
        self._table.accuse(
            peer,
            wire.Accusation(
                context.name, probe.refused, silence_ms, len(probe.asked), len(probe.nacks),
                probe.refused + len(probe.refusers), context.view.multiplier - 1,
            ),
        )  # fmt: skip
