"""``RaftNode``: one member's whole protocol, as a function from events to effects.

``step`` takes one event and the time, and returns what the driver has to do. Nothing in it
waits, reads a clock or touches a disk, so that the same node runs over real sockets, in a
simulation and in a test. This file holds what concerns every message, the rule of terms (paper
5.1); the other rules have a file each.

Own time comes as ``Wake``. When it comes later than asked for by more than ``late_wake`` this
process was paused, and what looks like silence of others may be waiting unread: nobody is
accused before one more short wait (see ``election``).
"""

from collections.abc import Callable
from typing import Any

from outlast.kernel import LogIndex, Prng, ReplicaId, Term
from outlast.log.api import Member, Membership, Progress
from outlast.log.engines.raft.core.config import decode_config
from outlast.log.engines.raft.core.election import Election
from outlast.log.engines.raft.core.log import LogView
from outlast.log.engines.raft.core.membership import MembershipRules
from outlast.log.engines.raft.core.progress import Flow
from outlast.log.engines.raft.core.reads import Reads
from outlast.log.engines.raft.core.replication import Replication
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.snapshot import Snapshots
from outlast.log.engines.raft.core.state import NEVER, State
from outlast.log.engines.raft.core.types import (
    AnyMessage,
    AppendRequest,
    AppendResponse,
    AskTail,
    ChunkStored,
    Effects,
    EntryKind,
    HardState,
    PeerConnected,
    PeerLost,
    Persisted,
    PersistStalled,
    Propose,
    ProposeMembers,
    ProposeTransfer,
    RaftEvent,
    Receive,
    Recovered,
    Role,
    SnapshotFailed,
    SnapshotInstalled,
    SnapshotOffer,
    SnapshotReady,
    SnapshotWant,
    Stop,
    TransferNow,
    Trim,
    VoteRequest,
    VoteResponse,
    Wake,
)


class RaftNode:
    """One member of a Raft group. Not thread-safe; driven by one task.

    Args:
        me: This replica; an incarnation that lost its disk never comes back under it.
        settings: Timing and bounds, equal on all members.
        recovered: What the driver found on disk.
        log: The driver's view of the log on disk, for entries no longer in memory.
        prng: Source of this node's timeouts; give each node its own seed.
        now_ns: The monotonic time; ``step`` never sees it go back.
    """

    def __init__(  # noqa: PLR0917 - the order is the drivers' contract
        self,
        me: ReplicaId,
        settings: RaftSettings,
        recovered: Recovered,
        log: LogView,
        prng: Prng,
        now_ns: int,
    ) -> None:
        self.state = s = State(me, settings, recovered, log, prng, now_ns)
        s.election = Election(s)
        s.replication = Replication(s)
        s.members = MembershipRules(s)
        s.reads = Reads(s)
        s.snapshots = Snapshots(s)
        self._fresh = True
        self._wake_at = NEVER
        self._handlers = self._dispatch()
        self._messages = self._message_dispatch()

    def _dispatch(self) -> dict[type[Any], Callable[[Any], None]]:
        s = self.state
        return {
            Wake: self._on_wake,
            Receive: self._on_receive,
            Persisted: self._on_persisted,
            PersistStalled: lambda event: s.election.on_stall(),
            Propose: s.replication.propose,
            ProposeMembers: s.members.propose,
            ProposeTransfer: s.election.transfer,
            AskTail: s.reads.ask,
            PeerConnected: self._on_connected,
            PeerLost: self._on_lost,
            SnapshotReady: s.snapshots.ready,
            ChunkStored: s.snapshots.on_stored,
            SnapshotInstalled: s.snapshots.on_installed,
            SnapshotFailed: s.snapshots.on_failed,
            Trim: s.snapshots.trim,
            Stop: lambda event: s.election.stop(),
        }

    def _message_dispatch(self) -> dict[type[Any], Callable[[ReplicaId, Any], None]]:
        s = self.state
        return {
            AppendRequest: s.replication.on_append_request,
            AppendResponse: s.replication.on_append_response,
            VoteRequest: s.election.on_vote_request,
            VoteResponse: s.election.on_vote_response,
            TransferNow: lambda sender, m: s.election.on_transfer_now(sender),
            SnapshotOffer: s.snapshots.on_offer,
            SnapshotWant: s.snapshots.on_want,
        }

    # --- the interface -------------------------------------------------------------------

    def step(self, event: RaftEvent, now_ns: int) -> Effects:
        """Take one event at ``now_ns`` and return what to do about it.

        Raises:
            InvariantError: Our bug, or storage that forgot what it said was durable. The node
                must stop; its effects of this step must not be carried out.
            ProtocolError: A peer sent a configuration that cannot be read; nothing was changed.
        """
        s = self.state
        s.begin(now_ns)
        if self._fresh:
            self._fresh = False
            self._complete_recovery()
        if s.now - self._wake_at > s.election.late_ns:
            s.election.on_late()
        self._handlers[type(event)](event)
        if s.role is Role.LEADER:
            s.replication.flush()
        self._wake_at = self._next_wake()
        return s.finish(self._wake_at)

    def _next_wake(self) -> int:
        s = self.state
        at = s.election.wake_ns()
        if s.role is Role.LEADER:
            at = min(at, s.replication.heartbeat_at, s.replication.notice_at)
        return at

    def _complete_recovery(self) -> None:
        """Finish what a crash interrupted: a snapshot was installed but the log not reset.

        Our own snapshot may be ahead of our log, whose last writes were lost. Then the log stays
        as it is: members may have changed in what it lacks, and that comes again.
        """
        s = self.state
        if s.snapshot is None or s.snapshot.index <= s.commit:
            return
        incoming = s.incoming
        if incoming is not None and incoming.index == s.snapshot.index:
            s.snapshots.adopt(incoming)
        elif s.log.term_at(s.snapshot.index) == s.snapshot.term:
            s.replication.commit_to(s.snapshot.index)
        elif s.configs[0][0] == s.snapshot.index:  # the mark of the reset is durable, it is not
            s.reset(s.snapshot.index, s.snapshot.term, s.config)
            s.commit = s.snapshot.index
            s.out.committed = LogIndex(s.commit)
            s.mark()

    # --- events --------------------------------------------------------------------------

    def _on_wake(self, event: Wake) -> None:
        s = self.state
        s.election.on_wake()
        if s.role is Role.LEADER:
            s.replication.on_wake()

    def _on_persisted(self, event: Persisted) -> None:
        s = self.state
        gained = s.settle(event.ticket)
        s.stalled = False
        if s.role is Role.CANDIDATE and s.hard_ticket <= s.durable_ticket:
            s.election.own_vote()
        if gained:
            s.replication.on_durable()
        s.snapshots.on_durable()

    def _on_connected(self, event: PeerConnected) -> None:
        s = self.state
        s.election.on_peer_connected(event.replica)
        peer = s.progress.get(event.replica)
        if peer is not None:
            peer.reachable = True
            if peer.flow is Flow.SNAPSHOT:
                s.snapshots.on_peer_connected(peer)
            else:
                peer.probe(peer.match + 1 if peer.match else peer.next)

    def _on_lost(self, event: PeerLost) -> None:
        s = self.state
        s.election.on_peer_lost(event.replica)
        peer = s.progress.get(event.replica)
        if peer is not None:
            peer.reachable = False
            if peer.flow is Flow.REPLICATE:
                peer.probe(peer.match + 1)
                peer.probe_sent = True  # ask by heartbeat only until it is back

    def _on_receive(self, event: Receive) -> None:
        """The rule of terms (paper 5.1), then the message's own rule."""
        s = self.state
        sender, message = event.sender, event.message
        _check_configs(message)
        if message.term != s.term and not self._same_term(sender, message):
            return
        self._messages[type(message)](sender, message)

    def _same_term(self, sender: ReplicaId, message: AnyMessage) -> bool:
        """Bring both sides to one term; return whether ``message`` still means something."""
        s = self.state
        if isinstance(message, VoteRequest):
            return True  # election decides: a sticky node does not move
        if message.term > s.term:
            if s.role is Role.LEADER and sender not in s.progress:
                return False  # not a member: it cannot disturb
            leader = sender if isinstance(message, AppendRequest | SnapshotOffer) else None
            s.election.follow(message.term, leader, f"{sender} is in term {message.term}")
            return True
        if isinstance(message, AppendRequest | SnapshotOffer):
            s.send(sender, AppendResponse(s.term, False, 0, 0, 0, 0, 0, not s.admitted))
        # A pre-vote is given from whatever term the voter is in.
        return isinstance(message, VoteResponse) and message.pre

    # --- what others may look at ---------------------------------------------------------

    @property
    def me(self) -> ReplicaId:
        """This replica."""
        return self.state.me

    @property
    def role(self) -> Role:
        """What the node is now."""
        return self.state.role

    @property
    def term(self) -> Term:
        """The current term."""
        return Term(self.state.term)

    @property
    def hard_state(self) -> HardState:
        """Term and vote as they are durable: what a restart would begin with."""
        return self.state.hard

    @property
    def leader(self) -> ReplicaId | None:
        """Who leads the current term, as far as known here."""
        return self.state.leader

    @property
    def commit(self) -> LogIndex:
        """The commit index."""
        return LogIndex(self.state.commit)

    @property
    def last_index(self) -> LogIndex:
        """Index of the last entry of the log, durable or not."""
        return LogIndex(self.state.log.last_index)

    @property
    def durable_index(self) -> LogIndex:
        """Last index through which the log is durable here."""
        return LogIndex(self.state.durable)

    @property
    def membership(self) -> Membership:
        """The members in force."""
        return self.state.config.membership

    @property
    def everyone(self) -> tuple[Member, ...]:
        """All members to keep a connection to, also old ones during a change."""
        return self.state.members.everyone()

    @property
    def sealed(self) -> tuple[LogIndex, bytes] | None:
        """Index and ``next`` of the committed seal."""
        return self.state.sealed

    @property
    def admitted(self) -> bool:
        """Whether this replica may vote and acknowledge."""
        return self.state.admitted

    @property
    def round(self) -> int:
        """The newest read round of this term."""
        s = self.state
        return s.reads.round if s.role is Role.LEADER else s.replication.round

    @property
    def hold_index(self) -> LogIndex | None:
        """Do not trim at or above this while a snapshot is being sent; ``None``: free."""
        index = self.state.snapshots.hold_index()
        return None if index is None else LogIndex(index)

    def progress(self) -> list[Progress]:
        """Return how far each member is; empty on a node that does not lead."""
        s = self.state
        if s.role is not Role.LEADER:
            return []
        found = []
        for replica in s.config.everyone:
            voter = s.config.votes(replica)
            if replica == s.me:
                found.append(Progress(replica, LogIndex(s.durable), voter, True))
                continue
            peer = s.progress[replica]
            percent = None
            if peer.snapshot is not None:
                percent = 100 * peer.next_chunk // max(1, peer.snapshot.chunk_count)
            heard = peer.reachable and s.now - peer.heard_ns < s.timeout_ns
            found.append(Progress(replica, LogIndex(peer.match), voter, heard, percent))
        return found


def _check_configs(message: AnyMessage) -> None:
    """Raise ProtocolError for a configuration that cannot be read, before anything changes."""
    if isinstance(message, AppendRequest):
        for entry in message.entries:
            if entry.kind == EntryKind.CONFIG:
                decode_config(entry.payload)
    elif isinstance(message, SnapshotOffer):
        decode_config(message.membership)
