"""Who is what, and which news changes it: the rules of incarnations.

A member alone raises its incarnation: to object to an accusation, to change its metadata, or when
it starts again and finds itself known. For news about one member (SWIM, section 4.2):

- *alive* at *i* wins against anything at less than *i*, even dead;
- *suspect* at *i* wins against alive at *i* or less;
- *dead* and *left* at *i* win against alive or suspect at *i* or less.

Differs from the papers: that somebody is dead is taken for a suspicion by who did not suspect it,
or heard of one accuser only while others could have noticed, too. Each process has a session
number, so that a restart is told from an objection, and two processes of one name from one that
moves.
"""

from collections.abc import Callable, Iterable, Iterator
from types import MappingProxyType
from typing import Final

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.api import MemberState, Unreachable
from outlast.detect.core.swim.context import PIECE_BYTES_MAX, Context
from outlast.detect.core.swim.identity import JUMP_MAX, Identity
from outlast.detect.core.swim.peer import Peer
from outlast.detect.core.swim.ring import Ring
from outlast.detect.core.swim.settings import ns
from outlast.detect.core.swim.suspicion import Suspicion, refusals, spread_ns
from outlast.detect.core.swim.wire import Accusation
from outlast.detect.core.swim.words import accusations_against, alive_news, evidence_of
from outlast.detect.membership_events import (
    MemberAlive,
    MemberDead,
    MemberJoined,
    MemberLeft,
    MemberRejoined,
    MemberSuspected,
    MemberUnreachable,
    MemberUpdated,
    SuspicionRefuted,
)

_TOLD_MAX: Final = 32
"""How many are told directly after one exchange; later exchanges find the others."""

ALIVE, SUSPECT, UNREACHABLE = MemberState.ALIVE, MemberState.SUSPECT, MemberState.UNREACHABLE
DEAD, LEFT = MemberState.DEAD, MemberState.LEFT


class Table:
    """The members that one node knows, and what it does about news of them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.identity = Identity(context)
        self.look: Callable[[Peer], None] = lambda _: None
        """Pings somebody; nothing follows from no answer."""
        self.peers: dict[str, Peer] = {}
        self.ring = Ring(context.prng)
        self.alive = 0
        """Peers that are alive and not suspected."""
        self.present = 0
        """Peers that are not removed."""
        self.dead: dict[str, Peer] = {}
        """Removed peers that may come back, the first removed first."""
        self._suspects: dict[str, Peer] = {}

    # --- news ------------------------------------------------------------------------------

    def apply(self, updates: Iterable[wire.News], source: str) -> None:
        """Take in news from a packet."""
        for news in updates:
            match news:
                case wire.AliveNews():
                    self.on_alive(news, source)
                case wire.SuspectNews():
                    self.on_suspect(news.name, news.incarnation, news.accusations, source)
                case wire.DeadNews():
                    self.on_dead(news.name, news.incarnation, news.accusations, source)
                case wire.LeftNews():
                    self.on_left(news.name, news.incarnation, source)

    def merge(self, entries: Iterable[wire.Entry], source: str) -> None:
        """Take in a full exchange.

        Nobody is removed by it. Where the two sides disagree about who is dead, as after a
        partition, the one in question is told, since only it can say that it lives.
        """
        to_tell: list[Peer] = []
        for entry in entries:
            peer = self.peers.get(entry.name)
            if entry.name == self._context.name:
                self._on_own_entry(entry, source)
            elif entry.state >= 2:
                if peer is None:
                    self._bury(entry)
                elif entry.state == 3:
                    self.on_left(entry.name, entry.incarnation, source)
                elif not peer.gone and entry.incarnation >= peer.incarnation:
                    peer.incarnation = min(entry.incarnation, peer.incarnation + JUMP_MAX)
                    to_tell.append(peer)
            else:
                self.on_alive(alive_news(entry), source)
                if peer is not None and peer.state is DEAD:
                    to_tell.append(peer)
                elif entry.state == 1:
                    self.on_suspect(entry.name, entry.incarnation, entry.accusations, source)
        self._tell_them(to_tell)

    def on_alive(self, news: wire.AliveNews, source: str) -> None:
        """A member says that it lives."""
        if news.name == self._context.name:
            self.identity.on_namesake(news)
            return
        piece = wire.piece(news)
        if len(piece) > PIECE_BYTES_MAX or wire.metadata_bytes(news.metadata) > (
            wire.METADATA_BYTES_MAX
        ):
            self._context.drop("too long", source)
            return
        peer = self.peers.get(news.name)
        if peer is None:
            self._join(news, piece, source)
            return
        if news.incarnation <= peer.incarnation:
            self._watch_conflict(peer, news)
            return
        if self.identity.jumps(peer.incarnation, news.incarnation, source):
            return
        if news.session != peer.session and news.address != peer.address and not peer.gone:
            self._watch_conflict(peer, news)
            return
        self._renew(peer, news)
        self._context.tell(peer.name, piece)

    def on_suspect(
        self, name: str, incarnation: int, accusations: Iterable[Accusation], source: str
    ) -> None:
        """Some could not reach a member."""
        if name == self._context.name:
            self.identity.claimed(incarnation, source)
            return
        peer = self.peers.get(name)
        if peer is None or peer.gone or incarnation < peer.incarnation:
            return
        heeded = [one for one in accusations if self._heeded(one, name)]
        if not heeded or self.identity.jumps(peer.incarnation, incarnation, source):
            return
        if incarnation > peer.incarnation:
            peer.incarnation = incarnation
            peer.suspicion = None if peer.state is SUSPECT else peer.suspicion
        self._accused(peer, heeded)

    def on_dead(
        self, name: str, incarnation: int, accusations: list[Accusation], source: str
    ) -> None:
        """Somebody has removed a member."""
        if name == self._context.name:
            self.identity.claimed(incarnation, source)
            return
        peer = self.peers.get(name)
        if peer is None or peer.gone or incarnation < peer.incarnation:
            return
        if self.identity.jumps(peer.incarnation, incarnation, source):
            return
        heeded = [one for one in accusations if self._heeded(one, name)]
        known = {} if peer.suspicion is None else peer.suspicion.accusations
        words = {**known, **{one.by: one for one in heeded}}
        support = max(len(words), refusals(words.values()))
        if self._context.settings.guard and (
            peer.state is ALIVE or (support < 2 and self.alive >= 2)
        ):
            self.on_suspect(name, incarnation, accusations, source)
            return
        peer.incarnation = incarnation
        if peer.suspicion is None:
            peer.suspicion = Suspicion(self._context.now_ns)
        for one in heeded:
            peer.suspicion.add(one)
        self._remove(peer)

    def on_left(self, name: str, incarnation: int, source: str) -> None:
        """A member has said good-bye."""
        if name == self._context.name:
            self.identity.claimed(incarnation, source)
            return
        peer = self.peers.get(name)
        if peer is None or incarnation < peer.incarnation or peer.state is LEFT:
            return
        if self.identity.jumps(peer.incarnation, incarnation, source):
            return
        peer.incarnation = incarnation
        peer.suspicion = None
        self._become(peer, LEFT)
        self._forget_later(peer)
        self._context.emit(MemberLeft(node=self._context.name, member=peer.member()))
        self._context.tell(name, wire.piece(wire.LeftNews(name, incarnation)))

    # --- own opinions ----------------------------------------------------------------------

    def accuse(self, peer: Peer, accusation: Accusation) -> None:
        """Accuse ``peer`` in this node's own name."""
        if not peer.gone:
            self._accused(peer, [accusation])

    def expire(self, name: str) -> None:
        """Convict a suspect whose time is over, unless this node is not to be believed."""
        peer, context = self.peers.get(name), self._context
        if peer is None or peer.suspicion is None or peer.state is not SUSPECT:
            return
        now = context.now_ns
        due = self._due_ns(peer.suspicion)
        sure = peer.suspicion.refused_ns is not None and context.view.allowed
        if not sure:
            due = self._last_look(peer, peer.suspicion, due)
        later = due if due > now or sure else context.view.wait_ns(now, self.present)
        if later > now:
            context.agenda.set(("suspect", name), later)
            return
        if not context.settings.confirm:
            self._remove(peer)
            return
        self._become(peer, UNREACHABLE)
        context.emit(MemberUnreachable(node=context.name, member=peer.member()))
        self.ask(name)

    def _last_look(self, peer: Peer, suspicion: Suspicion, due_ns: int) -> int:
        """Ask a silent suspect once more before it is convicted; return when that may be.

        It may have objected, and gossip has passed this node by. Neither paper does this.
        """
        context = self._context
        patience = ns(context.settings.probe_timeout)
        if not context.settings.guard or due_ns - patience > context.now_ns:
            return due_ns
        if suspicion.looked_ns is None:
            suspicion.looked_ns = context.now_ns
            self.look(peer)
        return max(due_ns, suspicion.looked_ns + patience)

    def ask(self, name: str) -> None:
        """Ask the hook about a member that is unreachable, and again if nothing happens."""
        peer, context = self.peers.get(name), self._context
        if peer is not None and peer.state is UNREACHABLE:
            context.ask(Unreachable(peer.member()))
            again = context.now_ns + ns(context.settings.confirm_again)
            context.agenda.set(("ask", name), again)

    def confirmed(self, name: str, dead: bool) -> None:
        """The hook has answered."""
        peer = self.peers.get(name)
        if dead and peer is not None and peer.state is UNREACHABLE:
            self._remove(peer)

    def hold(self, lag_ns: int) -> None:
        """This node was stopped for ``lag_ns``: nobody could object to it meanwhile."""
        for peer in self.suspects():
            if peer.suspicion is not None:
                peer.suspicion.began_ns += lag_ns
                if peer.suspicion.refused_ns is not None:
                    peer.suspicion.refused_ns += lag_ns
                self._plan(peer)

    def suspects(self) -> Iterator[Peer]:
        """Return who is suspected."""
        return iter(list(self._suspects.values()))

    def at(self, address: str) -> Iterator[Peer]:
        """Return who listens at ``address`` as far as known, removed ones included."""
        return (peer for peer in self.peers.values() if peer.address == address)

    def claim_against(self, peer: Peer | None) -> list[tuple[str, bytes]]:
        """Return what is held against ``peer``, to be told to its face (Lifeguard's buddy)."""
        if peer is None or peer.state is ALIVE:
            return []
        if not peer.gone and not self._context.settings.buddy:
            return []
        words = accusations_against(peer)
        if peer.state is LEFT:
            return [(peer.name, wire.piece(wire.LeftNews(peer.name, peer.incarnation)))]
        made = wire.DeadNews if peer.state is DEAD else wire.SuspectNews
        return [(peer.name, wire.piece(made(peer.name, peer.incarnation, words)))]

    def forget(self, name: str) -> None:
        """Forget a removed member whose time is over."""
        peer = self.peers.get(name)
        if peer is not None and peer.gone:
            del self.peers[name]
            self.dead.pop(name, None)
            self._context.queue.drop(name)
            self._context.agenda.cancel(("forget", name))

    # --- inside ----------------------------------------------------------------------------

    def _join(self, news: wire.AliveNews, piece: bytes, source: str) -> None:
        context = self._context
        if not (news.name.isprintable() and news.address.isprintable()):
            context.drop("unprintable", source)
            return
        if not self._make_room():
            context.drop("too many members", source)
            return
        peer = Peer(news.name, news.address, news.incarnation, news.session)
        peer.metadata = MappingProxyType(news.metadata)
        peer.heard_ns = peer.since_ns = context.now_ns
        self.peers[news.name] = peer
        self.alive += 1
        self.present += 1
        self.ring.add(peer)
        context.members(self.present + 1)
        context.emit(MemberJoined(node=context.name, member=peer.member()))
        context.tell(peer.name, piece)

    def _bury(self, entry: wire.Entry) -> None:
        """Remember somebody that was removed before we came, so that no old news revives it."""
        if len(self.peers) >= self._context.settings.members_max - 1:
            return
        if not (entry.name.isprintable() and entry.address.isprintable()):
            return
        peer = Peer(entry.name, entry.address, entry.incarnation, entry.session)
        peer.state = LEFT if entry.state == 3 else DEAD
        peer.since_ns = self._context.now_ns
        self.peers[entry.name] = peer
        self._forget_later(peer)

    def _tell_them(self, peers: list[Peer]) -> None:
        """Tell some of ``peers`` to their faces that they are held for dead."""
        context = self._context
        context.prng.shuffle(peers)
        for peer in peers[:_TOLD_MAX]:
            words = accusations_against(peer)
            news = wire.DeadNews(peer.name, peer.incarnation, words)
            updates = wire.carried([wire.piece(news)])
            message = wire.Gossip(context.name, context.incarnation, updates)
            context.send(peer.address, message)

    def _make_room(self) -> bool:
        """Forget the removed that have waited longest until there is room for one more."""
        most = self._context.settings.members_max - 1
        while len(self.peers) >= most:
            oldest = next((peer.name for peer in self.peers.values() if peer.gone), None)
            if oldest is None:
                return False
            self.forget(oldest)
        return True

    def _renew(self, peer: Peer, news: wire.AliveNews) -> None:
        """Take over newer news of a member by itself."""
        context, before, suspicion = self._context, peer.state, peer.suspicion
        again = news.session != peer.session
        changed = news.address != peer.address or news.metadata != peer.metadata
        peer.incarnation, peer.session = news.incarnation, news.session
        if news.address != peer.address:
            peer.srtt_ns = None
        peer.address, peer.metadata = news.address, MappingProxyType(news.metadata)
        peer.suspicion = None
        self._become(peer, ALIVE)
        if before is not ALIVE or again:
            peer.heard_ns = context.now_ns
        member, name = peer.member(), context.name
        if again:
            context.emit(MemberRejoined(node=name, member=member, before=before.value))
        elif before is SUSPECT and suspicion is not None:
            accusers = tuple(suspicion.accusations)
            after = (context.now_ns - suspicion.began_ns) / 1e9
            event = SuspicionRefuted(node=name, member=member, accusers=accusers, after=after)
            context.emit(event)
        elif before is not ALIVE:
            context.emit(MemberAlive(node=name, member=member, before=before.value))
        if changed and not again:
            context.emit(MemberUpdated(node=name, member=member))

    def _accused(self, peer: Peer, accusations: list[Accusation]) -> None:
        context = self._context
        if peer.suspicion is None:
            peer.suspicion = Suspicion(context.now_ns)
        fresh = [one for one in accusations if peer.suspicion.add(one)]
        if not fresh:
            return
        if peer.state is ALIVE:
            self._become(peer, SUSPECT)
        if peer.state is SUSPECT:
            self._plan(peer)
        member = peer.member()
        for one in fresh:
            context.emit(
                MemberSuspected(
                    node=context.name, member=member, by=one.by, evidence=evidence_of(one)
                )
            )
        # Past K accusers the time cannot get shorter: the word need not be passed on.
        if len(peer.suspicion.accusations) - len(fresh) <= context.settings.confirmations:
            words = peer.suspicion.sent()
            news = wire.SuspectNews(peer.name, peer.incarnation, words)
            context.tell(peer.name, wire.piece(news))

    def _remove(self, peer: Peer) -> None:
        context = self._context
        accusations = accusations_against(peer)
        self._become(peer, DEAD)
        self._forget_later(peer)
        silence = (context.now_ns - peer.heard_ns) / 1e9
        accusers = tuple(one.by for one in accusations)
        context.emit(
            MemberDead(node=context.name, member=peer.member(), accusers=accusers, silence=silence)
        )
        news = wire.DeadNews(peer.name, peer.incarnation, accusations)
        context.tell(peer.name, wire.piece(news))
        for suspect in self.suspects():  # fewer are left that could accuse them
            self._plan(suspect)

    def _become(self, peer: Peer, state: MemberState) -> None:
        """Change a state and all that is counted by it."""
        context, before = self._context, peer.state
        if before is state:
            return
        was_gone = peer.gone
        peer.state, peer.since_ns = state, context.now_ns
        self.alive += (state is ALIVE) - (before is ALIVE)
        self.present += was_gone - peer.gone
        if state is SUSPECT:
            self._suspects[peer.name] = peer
        else:
            self._suspects.pop(peer.name, None)
            context.agenda.cancel(("suspect", peer.name))
        context.agenda.cancel(("ask", peer.name))
        if was_gone and not peer.gone:
            self.dead.pop(peer.name, None)
            context.agenda.cancel(("forget", peer.name))
            self.ring.add(peer)
        if was_gone != peer.gone:
            context.members(self.present + 1)

    def _forget_later(self, peer: Peer) -> None:
        if peer.state is DEAD:
            self.dead[peer.name] = peer
        else:
            self.dead.pop(peer.name, None)
        keep = ns(self._context.settings.dead_keep)
        self._context.agenda.set(("forget", peer.name), self._context.now_ns + keep)

    def _plan(self, peer: Peer) -> None:
        if peer.suspicion is not None:
            settings, suspicion = self._context.settings, peer.suspicion
            due = self._due_ns(suspicion)
            if settings.guard and suspicion.refused_ns is None and suspicion.looked_ns is None:
                due -= ns(settings.probe_timeout)
            self._context.agenda.set(("suspect", peer.name), due)

    def _due_ns(self, suspicion: Suspicion) -> int:
        settings, now = self._context.settings, self._context.now_ns
        spread = spread_ns(settings, self.present + 1)
        return suspicion.deadline_ns(settings, self.alive, spread, now)

    def _heeded(self, accusation: Accusation, name: str) -> bool:
        """Nobody accuses itself, who is removed accuses nobody, nor does who cannot be."""
        if len(accusation.by.encode()) > wire.NAME_BYTES_MAX:
            return False
        accuser = self.peers.get(accusation.by)
        return accusation.by != name and (accuser is None or not accuser.gone)

    def _on_own_entry(self, entry: wire.Entry, source: str) -> None:
        if entry.session != self._context.session:
            self.identity.on_namesake(alive_news(entry), gone=entry.state >= 2, exchanged=True)
        elif entry.state:
            self.identity.claimed(entry.incarnation, source)

    def _watch_conflict(self, peer: Peer, news: wire.AliveNews) -> None:
        if news.session != peer.session and news.address != peer.address and not peer.gone:
            self.identity.tell_conflict(peer.name, news.address, peer.address)
