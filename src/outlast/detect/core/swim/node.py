"""One member's part in the membership: SWIM with Lifeguard, as a state machine without I/O.

A node probes the others in turn, suspects who does not answer, lets everybody know by gossip, and
removes who does not object in time. Sources: Das, Gupta and Motivala, *SWIM* (DSN 2002); Dadgar,
Phillips and Currey, *Lifeguard* (arXiv 1707.00788). What differs is said where it is done, and why
in the explanation of membership.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.api import (
    AccusationsAllowed,
    Confirmed,
    Effects,
    Input,
    Leave,
    LocalScore,
    Me,
    Member,
    MemberState,
    PacketReceived,
    PortRefused,
    SetMetadata,
    Started,
    StreamFailed,
    StreamReceived,
    TimerFired,
)
from outlast.detect.core.swim.context import Context
from outlast.detect.core.swim.probe import Prober
from outlast.detect.core.swim.settings import SwimSettings, ns
from outlast.detect.core.swim.sync import Sync
from outlast.detect.core.swim.table import Table
from outlast.kernel import ConfigError, Prng

_TOLD_OF_LEAVING: Final = 8
_ACKS_OF_LEAVING: Final = 3


class SwimNode:
    """The protocol of one member.

    ``step`` takes one input and returns what is to be done; ``deadline_ns`` is when the next
    `TimerFired` is wanted. Not thread-safe and not reentrant: one driver, one step at a time. It
    never waits and never raises for what comes from the network.

    Args:
        settings: The same on all members.
        me: Name and address of this member, and what it says of itself.
        prng: Draws the order of probes, the targets of gossip and the session number: two
            processes that bear one name one after the other must not get equal ones.

    Raises:
        ConfigError: The name, the address or the metadata do not fit.
    """

    def __init__(self, settings: SwimSettings, me: Me | Member, prng: Prng) -> None:
        self.settings = settings
        self._context = Context(settings, me.name, me.address, me.incarnation, prng)
        self._table = Table(self._context)
        self._prober = Prober(self._context, self._table)
        self._table.look = lambda peer: self._prober.start(peer, relaxed=True)
        self._sync = Sync(self._context, self._table, self._prober)
        self._since_ns = 0
        self._leaves: set[int] = set()
        self._leave_acks = 0
        self._leave_ns = 0
        self._describe(me.metadata)
        self._inputs: dict[type, Callable[[Any], None]] = {
            Started: self._on_started,
            PacketReceived: self._on_packet,
            StreamReceived: self._on_stream,
            StreamFailed: lambda event: self._prober.on_stream_failed(event.target),
            PortRefused: self._on_refused,
            TimerFired: lambda _event: None,
            LocalScore: lambda event: self._context.view.measured(event.score),
            AccusationsAllowed: self._on_allowed,
            Confirmed: lambda event: self._table.confirmed(event.name, event.dead),
            SetMetadata: self._on_metadata,
            Leave: self._on_leave,
        }
        self._due: dict[str, Callable[[Any], None]] = {
            "probe": lambda _: self._prober.tick(),
            "late": self._prober.late,
            "relay": self._prober.relay_late,
            "suspect": self._table.expire,
            "ask": self._table.ask,
            "forget": self._table.forget,
            "gossip": lambda _: self._gossip(),
            "join": lambda _: self._sync.join(),
            "sync": lambda _: self._sync.exchange(),
            "reconnect": lambda _: self._sync.reconnect(),
            "leave": lambda _: self._leave_late(),
        }

    # --- what a driver uses ----------------------------------------------------------------

    @property
    def deadline_ns(self) -> int:
        """When the next `TimerFired` is wanted; far away before `Started`."""
        return self._context.agenda.next_ns()

    def step(self, event: Input, now_ns: int) -> Effects:
        """Take in one input, and whatever is due by ``now_ns``.

        Raises:
            ConfigError: `SetMetadata` with too much. Nothing else raises.
        """
        context = self._context
        if context.left:
            return Effects(left=True)
        # Measured from the last step, too: what waited comes in many steps after one stop.
        lag_ns = now_ns - max(context.agenda.next_ns(), context.now_ns)
        context.begin(now_ns)
        self._watch_own_stops(lag_ns)
        self._inputs[type(event)](event)
        # Answers that waited are read before time runs out for anybody: timers come with timers.
        if type(event) is TimerFired:
            while (key := context.agenda.pop_due(context.now_ns)) is not None:
                self._due[key[0]](key[1])
        return context.effects()

    def members(self) -> tuple[Member, ...]:
        """Return all that are known, this one first, removed ones included."""
        return (self._self(), *(peer.member() for peer in self._table.peers.values()))

    def member(self, name: str) -> Member | None:
        """Return one member, ``None`` if it is not known."""
        if name == self._context.name:
            return self._self()
        peer = self._table.peers.get(name)
        return None if peer is None else peer.member()

    def snapshot(self) -> dict[str, Any]:
        """Return the live state, as values that JSON knows."""
        context, table = self._context, self._table
        return {
            "name": context.name,
            "address": context.address,
            "incarnation": context.incarnation,
            "joined": table.identity.accepted,
            "alive": table.alive + 1,
            "suspected": table.present - table.alive,
            "known": len(table.peers) + 1,
            "score": context.view.multiplier - 1,
            "may_accuse": context.view.allowed,
            "gossip_waiting": len(context.queue),
            "probes_open": len(self._prober),
            "dropped": dict(context.dropped),
        }

    # --- inputs ----------------------------------------------------------------------------

    def _on_started(self, event: Started) -> None:
        context = self._context
        self._since_ns = context.now_ns
        context.view.heard_ns = context.view.clean_ns = context.now_ns
        first = context.prng.below(ns(self.settings.probe_interval))
        context.agenda.set(("probe", ""), context.now_ns + first)
        self._sync.start(event.seeds)

    def _on_packet(self, event: PacketReceived) -> None:
        context, source = self._context, event.source
        try:
            message = wire.decode_packet(event.data)
        except wire.WireError as error:
            context.drop(str(error), source)
            return
        if message.sender == context.name:
            context.drop("own name", source)
            return
        context.claimed = False
        stranger = self._heard(message.sender, message.incarnation)
        if isinstance(message, wire.Leaving):
            self._table.on_left(message.sender, message.incarnation, source)
            self._acknowledge(message, source, stranger=False)
            return
        self._table.apply(message.updates, source)
        match message:
            case wire.Ping():
                if message.target == context.name:
                    self._acknowledge(message, source, stranger)
                else:
                    context.drop("for another name", source)
            case wire.Ack():
                self._on_ack(message)
            case wire.Nack():
                self._prober.on_nack(message)
            case wire.PingRequest():
                self._prober.on_request(message, source)
            case wire.Gossip() if context.claimed:
                self._introduce(source)

    def _on_ack(self, ack: wire.Ack) -> None:
        if ack.seq in self._leaves:
            self._leaves.discard(ack.seq)
            self._leave_acks += 1
            self._end_leaving_if(self._leave_acks >= _ACKS_OF_LEAVING or not self._leaves)
            return
        self._prober.on_ack(ack)
        self._sync.found_again()
        peer = self._table.peers.get(ack.sender)
        if ack.unknown and peer is not None and not self._context.leaving:
            self._introduce(peer.address)

    def _on_stream(self, event: StreamReceived) -> None:
        context = self._context
        try:
            body = wire.decode_stream(event.data)
        except wire.WireError as error:
            context.drop(str(error), event.source)
            return
        if body.sender == context.name:
            context.drop("own name", event.source)
            return
        context.claimed = False
        self._heard(body.sender, 0)
        if not context.leaving:
            self._sync.on_body(body, event.source, event.request)

    def _on_refused(self, event: PortRefused) -> None:
        self._prober.on_refused(event.target)

    def _on_allowed(self, event: AccusationsAllowed) -> None:
        self._context.view.allow(event.allowed, self._context.now_ns)

    def _on_metadata(self, event: SetMetadata) -> None:
        context = self._context
        self._describe(event.metadata)
        context.incarnation += 1
        context.tell(context.name, context.me_piece())

    def _on_leave(self, _event: Leave) -> None:
        context = self._context
        if context.leaving:
            return
        context.leaving = True
        self._prober.void()
        for key in ("probe", "join", "sync", "reconnect"):
            context.agenda.cancel((key, ""))
        if not self._table.present:
            self._end_leaving_if(True)
            return
        news = wire.LeftNews(context.name, context.incarnation)
        context.tell(context.name, wire.piece(news))
        self._say_goodbye()
        half = ns(self.settings.leave_timeout) // 2
        context.agenda.set(("leave", ""), context.now_ns + half)

    # --- due -------------------------------------------------------------------------------

    def _gossip(self) -> None:
        """Pass news on to some members, and to one that was removed lately, so it can object."""
        context, table = self._context, self._table
        targets = table.ring.sample(self.settings.gossip_fanout)
        if table.dead:
            names = list(table.dead)
            peer = table.dead[names[context.prng.below(len(names))]]
            if context.now_ns - peer.since_ns < ns(self.settings.dead_gossip):
                targets.append(peer)
        names_bytes = len(context.name.encode())
        for peer in targets:
            forced = table.claim_against(peer) if peer.gone else []
            updates = context.updates(names_bytes, forced)
            if updates:
                gossip = wire.Gossip(context.name, context.incarnation, updates)
                context.send(peer.address, gossip)
        context.gossiped()

    def _leave_late(self) -> None:
        """Half of the time: say it again. All of it: go."""
        context = self._context
        if context.now_ns - self._leave_ns >= ns(self.settings.leave_timeout) * 3 // 4:
            self._end_leaving_if(True)
            return
        self._say_goodbye()
        context.agenda.set(("leave", ""), self._leave_ns + ns(self.settings.leave_timeout))

    # --- inside ----------------------------------------------------------------------------

    def _watch_own_stops(self, lag_ns: int) -> None:
        """See by its late timer whether this node was stopped, and for how long."""
        context = self._context
        if not self.settings.guard or lag_ns <= ns(self.settings.probe_timeout):
            return
        # Answers wait unread, or were lost meanwhile: no probe that is open says anything.
        self._prober.void()
        context.view.adjust(1)
        self._table.hold(lag_ns)
        if lag_ns > context.view.quiet_ns // 2:
            context.view.stopped(context.now_ns)

    def _heard(self, name: str, incarnation: int) -> bool:
        """Note a sign of life. ``True``: who it was should introduce itself."""
        peer = self._table.peers.get(name)
        if peer is None:
            return True
        if not peer.gone:
            peer.heard_ns = self._context.now_ns
            self._context.view.heard(self._context.now_ns)
        return peer.incarnation < incarnation

    def _acknowledge(self, message: wire.Ping | wire.Leaving, source: str, stranger: bool) -> None:
        context = self._context
        forced = [(context.name, context.me_piece())] if context.claimed else []
        if isinstance(message, wire.Ping):
            forced += self._table.claim_against(self._table.peers.get(message.sender))
        updates = context.updates(len(context.name.encode()), forced)
        ack = wire.Ack(message.seq, context.name, context.incarnation, stranger, updates)
        context.send(source, ack)

    def _introduce(self, target: str) -> None:
        context = self._context
        forced = [(context.name, context.me_piece())]
        updates = context.updates(len(context.name.encode()), forced)
        context.send(target, wire.Gossip(context.name, context.incarnation, updates))

    def _say_goodbye(self) -> None:
        context = self._context
        self._leave_ns = context.now_ns if not self._leaves else self._leave_ns
        for peer in self._table.ring.sample(_TOLD_OF_LEAVING):
            seq = context.next_seq()
            self._leaves.add(seq)
            leaving = wire.Leaving(seq, context.name, context.incarnation)
            context.send(peer.address, leaving)

    def _end_leaving_if(self, over: bool) -> None:
        if over:
            self._context.left = True

    def _describe(self, metadata: Mapping[str, str]) -> None:
        copied = {str(key): str(value) for key, value in metadata.items()}
        size = wire.metadata_bytes(copied)
        if (
            size > wire.METADATA_BYTES_MAX
            or len(copied) > 64
            or any(len(key) > 128 for key in copied)
        ):
            raise ConfigError(
                f"SwimNode: metadata take {size} bytes in {len(copied)} entries; "
                f"at most {wire.METADATA_BYTES_MAX} in 64, and 128 per key"
            )
        self._context.metadata = MappingProxyType(copied)

    def _self(self) -> Member:
        context = self._context
        state = MemberState.LEFT if context.left else MemberState.ALIVE
        return Member(
            context.name, context.address, context.incarnation, state, context.metadata, (),
            self._since_ns, None,
        )  # fmt: skip
