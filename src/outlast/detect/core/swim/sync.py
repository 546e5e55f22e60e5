"""Joining, and comparing all that is known, now and then, with one other member.

Gossip reaches everybody with high probability only. Two members that exchange all they know, over
a stream, make it certain; a join is such an exchange, and is over when the answer lists the one
who joins. That is also how a process learns that its name has been used before, and by which
incarnation.
"""

from math import log2
from typing import Final

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.context import Context
from outlast.detect.core.swim.probe import Prober
from outlast.detect.core.swim.settings import ns
from outlast.detect.core.swim.table import Table
from outlast.detect.core.swim.words import entry_of

_SEEDS_MAX: Final = 64
_SEEDS_AT_ONCE: Final = 3
_LARGE: Final = 32
"""With more members than that, exchanges become rarer (as in memberlist)."""


class Sync:
    """The full exchanges of one node."""

    def __init__(self, context: Context, table: Table, prober: Prober) -> None:
        self._context = context
        self._table = table
        self._prober = prober
        self._seeds: list[str] = []
        self._tries = 0
        self._hurried = False

    def start(self, seeds: tuple[str, ...]) -> None:
        """Begin to join."""
        others = [one for one in dict.fromkeys(seeds) if one != self._context.address]
        self._seeds = others[:_SEEDS_MAX]
        self._table.identity.accepted = not self._seeds
        self._plan_reconnect()
        self._plan_exchange()
        self.join()

    # --- due -------------------------------------------------------------------------------

    def join(self) -> None:
        """Ask some seeds, and again later, until one has acknowledged."""
        context = self._context
        if self._table.identity.accepted or not self._seeds:
            return
        context.prng.shuffle(self._seeds)
        for seed in self._seeds[:_SEEDS_AT_ONCE]:
            self._ask(seed)
        wait = ns(context.settings.join_retry)
        wait = min(wait << min(self._tries, 8), 10 * wait)
        self._tries += 1
        context.agenda.set(("join", ""), context.now_ns + wait)

    def exchange(self) -> None:
        """Compare with a member drawn by lot."""
        self._plan_exchange()
        for peer in self._table.ring.sample(1, alive=True):
            self._ask(peer.address)

    def reconnect(self) -> None:
        """Try a removed member, or a seed if nobody is left: a partition may have healed."""
        context, table = self._context, self._table
        self._plan_reconnect()
        if table.dead:
            names = list(table.dead)
            self._prober.start(table.dead[names[context.prng.below(len(names))]])
        if not table.alive and self._seeds and table.identity.accepted:
            self._ask(self._seeds[context.prng.below(len(self._seeds))])

    def found_again(self) -> None:
        """A removed member has answered: compare with it what happened meanwhile."""
        peer, self._prober.reconnected = self._prober.reconnected, None
        if peer is not None:
            self._ask(peer.address)

    # --- bodies ----------------------------------------------------------------------------

    def on_body(self, body: wire.StreamBody, source: str, request: int | None) -> None:
        """Take in what came over a stream."""
        context = self._context
        match body:
            case wire.Exchange() if request is not None:
                self._table.merge(body.entries, source)
                answer = wire.ExchangeAnswer(context.name, self._entries(body.sender))
                context.stream(source, answer, request)
            case wire.ExchangeAnswer() if request is None:
                self._table.merge(body.entries, source)
                self._acknowledged(body)
            case wire.StreamPing() if request is not None:
                if body.target == context.name:
                    answer_ = wire.StreamAck(body.seq, context.name, context.incarnation)
                    context.stream(source, answer_, request)
            case wire.StreamAck() if request is None:
                self._prober.on_stream_ack(body)
            case _:
                context.drop("out of place", source)

    def _acknowledged(self, body: wire.ExchangeAnswer) -> None:
        """See whether the answer lists this very process; if not, join again at once, once."""
        context, identity = self._context, self._table.identity
        if identity.accepted:
            return
        mine = (context.name, context.session)
        if any((one.name, one.session) == mine and one.state < 2 for one in body.entries):
            identity.accepted, self._tries, self._hurried = True, 0, False
            context.agenda.cancel(("join", ""))
        elif identity.reborn and not self._hurried:
            self._hurried, identity.reborn = True, False
            context.agenda.set(("join", ""), context.now_ns)

    # --- inside ----------------------------------------------------------------------------

    def _ask(self, target: str) -> None:
        self._context.stream(target, wire.Exchange(self._context.name, self._entries()))

    def _entries(self, asker: str = "") -> list[wire.Entry]:
        """Return all that is known; what is too much for a body is left out.

        Who asks comes first, since it looks for itself, and then the living.
        """
        context = self._context
        entries = [
            wire.Entry(
                context.name, context.address, context.incarnation, context.session, 0,
                dict(context.metadata), [],
            )
        ]  # fmt: skip
        known = sorted(self._table.peers.values(), key=lambda one: (one.name != asker, one.gone))
        entries += [entry_of(peer) for peer in known]
        while len(entries) > 1 and len(entries) * 1300 > wire.STREAM_BYTES_MAX:
            if len(wire.encode(wire.Exchange(context.name, entries))) <= wire.STREAM_BYTES_MAX:
                break
            del entries[len(entries) * 9 // 10 :]
        return entries

    def _plan_exchange(self) -> None:
        context = self._context
        usual = ns(context.settings.sync_interval)
        members = self._table.present + 1
        scale = 1 + max(0, round(log2(members / _LARGE))) if members > _LARGE else 1
        # By lot between three quarters and five quarters, so that nodes do not do it together.
        wait = usual * scale * context.prng.between(75, 125) // 100
        context.agenda.set(("sync", ""), context.now_ns + wait)

    def _plan_reconnect(self) -> None:
        context = self._context
        usual = ns(context.settings.reconnect)
        wait = usual * context.prng.between(75, 125) // 100
        context.agenda.set(("reconnect", ""), context.now_ns + wait)
