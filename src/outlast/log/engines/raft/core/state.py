"""What all rules of one node share, and the effects that a step collects.

The rules (election, replication, membership, reads, snapshot) each own one file and meet here.
``send`` and ``persist`` are the only ways out, and they keep the order that the protocol needs:
a message is held back until the term and vote that it rests on are durable.
"""

from collections import deque
from typing import TYPE_CHECKING

from outlast.kernel import (
    ElsewhereError,
    LogIndex,
    OutlastError,
    Prng,
    ReplicaId,
    Term,
    UnavailableError,
    invariant,
    node_of,
)
from outlast.kernel import Event as KernelEvent
from outlast.log.engines.raft.core.config import (
    Config,
    Incoming,
    Mark,
    config_from,
    config_of,
    decode_config,
    decode_mark,
    encode_mark,
    record_of,
)
from outlast.log.engines.raft.core.log import LogView, NodeLog
from outlast.log.engines.raft.core.progress import PeerProgress
from outlast.log.engines.raft.core.settings import RaftSettings, nanoseconds
from outlast.log.engines.raft.core.types import (
    AnyMessage,
    Effects,
    Entry,
    EntryKind,
    HardState,
    Overwritten,
    Persist,
    Recovered,
    Refused,
    Role,
)

if TYPE_CHECKING:
    from outlast.log.engines.raft.core.election import Election
    from outlast.log.engines.raft.core.membership import MembershipRules
    from outlast.log.engines.raft.core.reads import Reads
    from outlast.log.engines.raft.core.replication import Replication
    from outlast.log.engines.raft.core.snapshot import Snapshots

NEVER = 1 << 62
"""A time that does not come."""


class State:
    """The node's state. Only the rules of this package change it."""

    election: "Election"
    replication: "Replication"
    members: "MembershipRules"
    reads: "Reads"
    snapshots: "Snapshots"

    def __init__(  # noqa: PLR0917 - called by RaftNode alone
        self,
        me: ReplicaId,
        settings: RaftSettings,
        recovered: Recovered,
        view: LogView,
        prng: Prng,
        now_ns: int,
    ) -> None:
        self.me = me
        self.settings = settings
        self.prng = prng
        self.now = now_ns
        self.out = Effects()
        self.timeout_ns = nanoseconds(settings.election_timeout)
        self.heartbeat_ns = nanoseconds(settings.heartbeat)
        self.term: int = recovered.hard_state.term
        self.vote: ReplicaId | None = recovered.hard_state.vote
        self.hard = self.hard_wanted = recovered.hard_state  # durable; being written
        self.role = Role.FOLLOWER
        self.leader: ReplicaId | None = None
        self.stalled = False
        self.stopping = False
        self.progress: dict[ReplicaId, PeerProgress] = {}
        self.term_start = 0  # index of the first entry of a leader's own term
        # durability: tickets of persists under way, each with the log's end at that time
        self.ticket = 0
        self.writing: deque[tuple[int, int]] = deque()
        self.hard_ticket = 0
        self.durable_ticket = 0
        self.recover(recovered, view)

    def recover(self, recovered: Recovered, view: LogView) -> None:
        """Take over what the driver found on disk."""
        mark = decode_mark(recovered.mark) if recovered.mark else None
        self.admitted = recovered.may_vote or (mark is not None and mark.admitted)
        base = recovered.base_index
        self.log = NodeLog(view, base, recovered.base_term, self.settings.cache_bytes_max)
        entries = recovered.entries
        last: int = entries[-1].index if entries else base
        last_term: int = entries[-1].term if entries else recovered.base_term
        if recovered.last_index is not None:
            last = recovered.last_index
        if recovered.last_term is not None:
            last_term = recovered.last_term
        self.log.recover(_unbroken_tail(entries, last), last, last_term)
        self.durable: int = last
        self.commit: int = max(recovered.commit, base)
        self.configs: list[tuple[int, Config]] = [(0, config_of(recovered.membership))]
        self.sealed: tuple[LogIndex, bytes] | None = recovered.sealed
        self.seals: list[int] = []
        self.incoming: Incoming | None = None
        if mark is not None:
            self.configs = [(i, config_from(r)) for i, r in mark.configs] or self.configs
            self.incoming = mark.incoming
            if mark.seal_index and self.sealed is None:
                self.sealed = (LogIndex(mark.seal_index), mark.seal_next)
        known = self.configs[-1][0]
        for entry in entries:
            if entry.kind == EntryKind.CONFIG and entry.index > known:
                self.configs.append((entry.index, decode_config(entry.payload)))
            elif entry.kind == EntryKind.SEAL:
                self.note_seal(entry)
        self.config_index, self.config = self.configs[-1]
        self.snapshot = recovered.snapshot
        self.role = self.passive_role()

    # --- ways out ------------------------------------------------------------------------

    def begin(self, now_ns: int) -> None:
        """Start a step at ``now_ns``, which never goes back."""
        self.now = max(self.now, now_ns)
        self.out = Effects()

    def send(self, target: ReplicaId, message: AnyMessage) -> None:
        """Send now, or once the term and vote that ``message`` rests on are durable."""
        if self.hard_ticket > self.durable_ticket:
            self.out.send_after_durable.append((target, message))
        else:
            self.out.send_now.append((target, message))

    def persist(self) -> Persist:
        """Return this step's write, made on first use."""
        if self.out.persist is None:
            self.ticket += 1
            self.out.persist = Persist(self.ticket)
        return self.out.persist

    def emit(self, event: KernelEvent) -> None:
        """Report ``event``."""
        self.out.events.append(event)

    def refuse(self, ticket: int, error: OutlastError) -> None:
        """End a request with ``error``."""
        self.out.answers.append(Refused(ticket, error))

    def elsewhere(self) -> OutlastError:
        """Return the error for a request that only a leader can take."""
        if self.leader is None or self.leader == self.me:
            return UnavailableError(
                f"raft: {self.me} knows no leader in term {self.term}",
                retry_after=self.settings.heartbeat,
            )
        hint = node_of(self.leader)
        return ElsewhereError(f"raft: {self.me} does not lead; {hint} does", hint=hint)

    # --- changes of what is durable ------------------------------------------------------

    def set_hard_state(self, term: int, vote: ReplicaId | None) -> None:
        """Move to ``term`` and remember ``vote``; both must be durable before they are said."""
        invariant(term >= self.term, f"raft: term {term} is below {self.term}")
        invariant(
            term > self.term or self.vote in (None, vote),
            f"raft: {self.me} already voted for {self.vote} in term {term}, not {vote}",
        )
        if term != self.term or vote != self.vote:
            if term != self.term:
                self.out.authority_changed = True
            self.term = term
            self.vote = vote
            self.persist().hard_state = self.hard_wanted = HardState(Term(term), vote)
            self.hard_ticket = self.ticket

    def append(self, entries: list[Entry]) -> None:
        """Add entries to the log and to this step's write."""
        self.log.append(entries)
        self.persist().entries += entries
        for entry in entries:
            if entry.kind > EntryKind.NOOP:
                self._note(entry)

    def _note(self, entry: Entry) -> None:
        if entry.kind == EntryKind.CONFIG:
            self.configs.append((entry.index, decode_config(entry.payload)))
            self.members.activate()
        elif entry.kind == EntryKind.SEAL:
            self.note_seal(entry)

    def note_seal(self, entry: Entry) -> None:
        """Remember a seal that is in the log; the first one that commits wins."""
        if self.sealed is None or entry.index < self.sealed[0]:
            self.seals.append(entry.index)

    def truncate(self, index: int) -> None:
        """Drop the uncommitted entries at and above ``index`` (paper 5.3)."""
        invariant(index > self.commit, f"raft: {self.me} would drop committed entry {index}")
        self.log.truncate(index)
        write = self.persist()
        if write.truncate_from is None or index < write.truncate_from:
            write.truncate_from = LogIndex(index)
        write.entries = [entry for entry in write.entries if entry.index < index]
        self._forget_writes_above(index - 1)
        self.out.answers.append(Overwritten(LogIndex(index)))
        self.seals = [seal for seal in self.seals if seal < index]
        if self.config_index >= index:
            self.configs = [item for item in self.configs if item[0] < index]
            self.members.activate()

    def _forget_writes_above(self, index: int) -> None:
        self.durable = min(self.durable, index)
        self.writing = deque((ticket, min(last, index)) for ticket, last in self.writing)

    def reset(self, index: int, term: int, config: Config) -> None:
        """Replace log and members by those of an installed snapshot (paper 7)."""
        self._forget_writes_above(min(self.commit, self.durable))
        self.log.reset(index, term)
        self.persist().reset_to = (LogIndex(index), Term(term))
        self.seals = []  # a seal that the snapshot covers comes with it
        self.configs = [(index, config)]
        self.members.activate()

    def settle(self, ticket: int) -> bool:
        """Note that writes through ``ticket`` are durable; return whether the log gained."""
        before = self.durable
        while self.writing and self.writing[0][0] <= ticket:
            done, last = self.writing.popleft()
            self.durable_ticket = done
            self.durable = max(self.durable, last)
        if self.hard_ticket <= self.durable_ticket:
            self.hard = self.hard_wanted
        self.log.evict(min(self.durable, self.commit))
        return self.durable > before

    def mark(self) -> None:
        """Write what a trimmed log no longer tells (see :class:`Mark`)."""
        committed = [(i, record_of(c)) for i, c in self.configs if i <= self.commit]
        seal_index, seal_next = self.sealed or (0, b"")
        self.persist().mark = encode_mark(
            Mark(self.admitted, seal_index, seal_next, committed, self.incoming)
        )

    def finish(self, wake_ns: int) -> Effects:
        """End the step and return its effects."""
        out = self.out
        if out.persist is not None:
            self.writing.append((out.persist.ticket, self.log.last_index))
        out.wake_ns = None if wake_ns >= NEVER else wake_ns
        return out

    # --- small questions -----------------------------------------------------------------

    def passive_role(self) -> Role:
        """Return what this node is while it neither leads nor stands for election."""
        if not self.admitted:
            return Role.RECOVERING
        return Role.FOLLOWER if self.needed() else Role.LEARNER

    def needed(self) -> bool:
        """Return whether this node votes, or did until a change that is not committed.

        A voter that leaves may be the only one that has the final configuration: until that
        is committed it stands for election, though it counts for nothing (thesis 4.2.2).
        """
        if self.config.votes(self.me):
            return True
        return self.config_index > self.commit and self.config_at(self.commit).votes(self.me)

    def set_leader(self, leader: ReplicaId | None) -> None:
        """Note who leads the current term."""
        if leader != self.leader:
            self.leader = leader
            self.out.authority_changed = True

    def config_at(self, index: int) -> Config:
        """Return the configuration in force at ``index`` (the oldest known one below that)."""
        found = self.configs[0][1]
        for at, config in self.configs:
            if at <= index:
                found = config
        return found


def _unbroken_tail(entries: list[Entry], last: int) -> list[Entry]:
    at = len(entries)
    expected = last
    while at and entries[at - 1].index == expected:
        at -= 1
        expected -= 1
    return entries[at:]
