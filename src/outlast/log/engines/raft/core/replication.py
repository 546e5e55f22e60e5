"""The leader's log becomes everyone's log: append, answer, commit (paper 5.3 and 5.4).

*Leader.* Proposals are appended at once, written and sent in parallel. Its own disk counts like
any other member's: its match is what is durable. Entries under way to one member are bounded in
messages and bytes; what is accepted but not committed is bounded in bytes. An entry commits when
a majority (two in a joint configuration) has it durably **and** it is of the leader's own term;
earlier terms' entries commit along with it (paper 5.4.2, figure 8).

*Follower.* It takes entries that follow an entry it has, drops a conflicting tail, and answers
with the last index that is both durable here and known to equal the leader's log. Answers to
entries wait for the disk, several requests sharing one answer; answers to heartbeats and rounds
go at once.
"""

from outlast.kernel import (
    ConfigError,
    LogIndex,
    OutlastError,
    OverloadedError,
    ReplicaId,
    SealedError,
    Term,
    UnavailableError,
    invariant,
)
from outlast.log.engines.raft.core.events import LogTruncated, ReplicaIgnored
from outlast.log.engines.raft.core.log import ENTRY_OVERHEAD_BYTES
from outlast.log.engines.raft.core.progress import Flow, PeerProgress
from outlast.log.engines.raft.core.quorum import joint_reached
from outlast.log.engines.raft.core.settings import nanoseconds
from outlast.log.engines.raft.core.state import NEVER, State
from outlast.log.engines.raft.core.types import (
    Accepted,
    AppendRequest,
    AppendResponse,
    Entry,
    EntryKind,
    Propose,
    Refused,
    Role,
)


class Replication:
    """Rules about entries: taking, sending, answering, committing."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.heartbeat_at = NEVER
        self.notice_at = NEVER
        self.notice_ns = nanoseconds(state.settings.commit_notice)
        self.behind_seal: list[tuple[int, int]] = []  # (index, ticket) accepted behind a seal
        self.verified = 0  # follower: the log equals the leader's of this term through here
        self.acknowledged = 0  # follower: last match said to this term's leader
        self.round = 0  # follower: newest read round of this term
        self.answered_round = 0
        self._shared: dict[int, tuple[AppendRequest, int, int]] = {}

    # --- leader: term --------------------------------------------------------------------

    def start_term(self) -> None:
        """Begin to lead: know nothing of the others, and append a no-op (paper 8)."""
        s = self.state
        s.term_start = s.log.last_index + 1
        s.progress = {}
        s.members.track()
        self.heartbeat_at = s.now + s.heartbeat_ns
        self.behind_seal = []
        s.append([Entry(s.term_start, s.term, EntryKind.NOOP, b"")])
        s.members.start_term()

    def end_term(self) -> None:
        """Stop leading."""
        self.heartbeat_at = self.notice_at = NEVER
        self.behind_seal = []
        self.state.progress = {}

    # --- leader: proposals ---------------------------------------------------------------

    def propose(self, event: Propose) -> None:
        """Append what is proposed, or refuse each ticket with the reason."""
        s = self.state
        refusal = self._refusal()
        if refusal is not None:
            s.out.answers += [Refused(ticket, refusal) for ticket, _, _ in event.entries]
            return
        entry_bytes_max = s.settings.entry_bytes_max
        room = s.settings.uncommitted_bytes_max - s.log.bytes_after(s.commit)
        room += ENTRY_OVERHEAD_BYTES  # the largest entry must fit into an idle log
        term, index, answers = s.term, s.log.last_index, s.out.answers
        entries: list[Entry] = []
        for ticket, kind, payload in event.entries:
            size_bytes = len(payload)
            if size_bytes > entry_bytes_max:
                s.refuse(ticket, _too_large(size_bytes, entry_bytes_max))
                continue
            room -= size_bytes + ENTRY_OVERHEAD_BYTES
            if room < 0:
                s.refuse(ticket, self._overloaded())
                continue
            index += 1
            entries.append(Entry(index, term, kind, payload))
            answers.append(Accepted(ticket, LogIndex(index), Term(term)))
        if not entries:
            return
        if s.seals or any(entry.kind == EntryKind.SEAL for entry in entries):
            self._note_behind_seal(event, entries)
        s.append(entries)

    def _refusal(self) -> OutlastError | None:
        s = self.state
        if s.role is not Role.LEADER:
            return s.elsewhere()
        if s.sealed is not None:
            return _sealed(*s.sealed)
        if s.stopping or s.election.handover is not None:
            return UnavailableError(
                f"raft: {s.me} hands leadership over", retry_after=s.settings.heartbeat
            )
        return None

    def _overloaded(self) -> OverloadedError:
        limit = self.state.settings.uncommitted_bytes_max
        return OverloadedError(
            f"raft: uncommitted entries fill {limit} bytes (uncommitted_bytes_max)",
            retry_after=self.state.settings.heartbeat,
        )

    def _note_behind_seal(self, event: Propose, entries: list[Entry]) -> None:
        """Remember tickets behind a seal: they have no effect once it is committed."""
        s = self.state
        first = s.seals[0] if s.seals else NEVER
        for answer in s.out.answers:
            if isinstance(answer, Accepted) and answer.index >= entries[0].index:
                if answer.index > first:
                    self.behind_seal.append((answer.index, answer.ticket))
                elif entries[answer.index - entries[0].index].kind == EntryKind.SEAL:
                    first = answer.index

    # --- leader: sending -----------------------------------------------------------------

    def flush(self) -> None:
        """Send each member what its window allows: once a step."""
        s = self.state
        self._shared.clear()
        wanted = s.reads.wanted
        for peer in tuple(s.progress.values()):
            self._fill(peer)
            if peer.round_sent < wanted:
                self.send_empty(peer)
            if peer.commit_sent < s.commit and self.notice_at == NEVER and _tells(peer):
                self.notice_at = s.now + self.notice_ns

    def _fill(self, peer: PeerProgress) -> None:
        s = self.state
        if peer.flow is Flow.REPLICATE:
            settings = s.settings
            while peer.next <= s.log.last_index and not peer.full(
                settings.inflight_messages_max, settings.inflight_bytes_max
            ):
                if not self._send_entries(peer):
                    break
        elif peer.flow is Flow.PROBE and not peer.probe_sent and self._send_entries(peer):
            peer.probe_sent = True

    def _send_entries(self, peer: PeerProgress) -> bool:
        """Send one AppendRequest from ``peer.next``; a snapshot if those entries are gone."""
        s = self.state
        shared = self._shared.get(peer.next)
        if shared is None:
            previous = peer.next - 1
            previous_term = s.log.term_at(previous)
            entries, size_bytes = s.log.slice(peer.next, s.settings.append_bytes_max)
            if previous_term is None or (not entries and peer.next <= s.log.last_index):
                s.snapshots.offer(peer)
                return False
            last = previous + len(entries)
            request = AppendRequest(
                s.term, previous, previous_term, entries, min(s.commit, last), s.reads.round
            )
            shared = self._shared[peer.next] = (request, last, size_bytes)
        request, last, size_bytes = shared
        s.send(peer.replica, request)
        peer.commit_sent = request.commit
        peer.round_sent = request.round
        if peer.flow is Flow.REPLICATE and request.entries:
            peer.sent(last, size_bytes)
        return True

    def send_empty(self, peer: PeerProgress) -> None:
        """Send a heartbeat: it asks whether everything sent so far has arrived."""
        s = self.state
        previous = 0 if peer.flow is Flow.SNAPSHOT else peer.next - 1
        previous_term = s.log.term_at(previous)
        if previous_term is None:
            # What was under way is trimmed here: whether it arrived cannot be asked any more.
            peer.probe(peer.match + 1)
            previous = previous_term = 0
        commit = min(s.commit, previous)
        s.send(
            peer.replica,
            AppendRequest(s.term, previous, previous_term, [], commit, s.reads.round),
        )
        peer.round_sent = s.reads.round
        peer.commit_sent = max(peer.commit_sent, commit)

    def on_wake(self) -> None:
        """Send heartbeats and commit notices that are due."""
        s = self.state
        if s.now >= self.heartbeat_at:
            self.heartbeat_at = s.now + s.heartbeat_ns
            self.notice_at = NEVER
            s.reads.begin_round(wanted=False)
            for peer in tuple(s.progress.values()):
                self.send_empty(peer)
                s.snapshots.remind(peer)
            s.members.on_heartbeat()
        elif s.now >= self.notice_at:
            self.notice_at = NEVER
            for peer in s.progress.values():
                if peer.commit_sent < s.commit and _tells(peer):
                    self.send_empty(peer)

    # --- leader: answers -----------------------------------------------------------------

    def on_append_response(self, sender: ReplicaId, response: AppendResponse) -> None:
        """Take a member's answer: how far it is, or where the logs part."""
        s = self.state
        peer = s.progress.get(sender)
        if s.role is not Role.LEADER or peer is None:
            return
        if response.recovering and s.config.votes(sender):
            if not peer.ignored:
                peer.ignored = True
                s.emit(ReplicaIgnored(node=s.me, replica=sender))
            return
        peer.ignored = False
        peer.reachable = True
        peer.heard_ns = s.now
        if response.round > peer.round:
            peer.round = min(response.round, s.reads.round)
            s.reads.on_answer()
        if response.success:
            self._on_success(peer, response)
        else:
            self._on_reject(peer, response)

    def _on_success(self, peer: PeerProgress, response: AppendResponse) -> None:
        s = self.state
        match = response.match
        invariant(
            match <= s.log.last_index,
            f"raft: {peer.replica} acknowledged {match}, past the leader's {s.log.last_index}",
        )
        news = peer.acknowledged(match)
        if peer.flow is Flow.PROBE:
            peer.replicate()
        elif peer.flow is Flow.SNAPSHOT and self._can_continue_after(match):
            peer.probe(match + 1)
        if news:
            self.advance_commit()
        s.members.on_progress(peer)  # also of an idle log: any answer may end its round
        if news:
            s.election.try_handover()

    def _can_continue_after(self, match: int) -> bool:
        log = self.state.log
        return match + 1 >= log.first and log.term_at(match) is not None

    def _on_reject(self, peer: PeerProgress, response: AppendResponse) -> None:
        """Skip a whole term of conflicting entries at a time (paper 5.3, end)."""
        s = self.state
        rejected = response.rejected
        if rejected <= peer.match or peer.flow is Flow.SNAPSHOT:
            return  # late: what it refused then, it has now
        if peer.flow is Flow.PROBE and rejected != peer.next - 1:
            return
        hint = response.conflict_index
        if response.conflict_term:
            last = s.log.last_at_most(response.conflict_term, rejected)
            if s.log.term_at(last) == response.conflict_term:
                hint = last + 1
        peer.probe(min(hint, rejected))

    def advance_commit(self) -> None:
        """Commit what a majority has durably, of the leader's own term only (paper 5.4.2)."""
        s = self.state
        index = joint_reached(self._matches(s.config.voters), self._matches(s.config.old_voters))
        if index > s.commit and index >= s.term_start:
            self.commit_to(index)
            s.reads.serve_waiting()

    def _matches(self, voters: tuple[ReplicaId, ...]) -> list[int]:
        s = self.state
        return [s.durable if v == s.me else s.progress[v].match for v in voters]

    def commit_to(self, index: int) -> None:
        """Move the commit index forward, with what that means for members and seals."""
        s = self.state
        invariant(
            s.commit < index <= s.log.last_index,
            f"raft: {s.me} cannot commit {index}: commit {s.commit}, last {s.log.last_index}",
        )
        before, s.commit = s.commit, index
        s.out.committed = LogIndex(index)
        if s.seals and s.seals[0] <= index:
            self._commit_seal()
        leads_now = s.role is Role.LEADER and before < s.term_start <= index
        if s.config_index > before or (leads_now and s.config.old_voters):
            s.members.on_commit()  # or a joint one was known to be committed before

    def _commit_seal(self) -> None:
        s = self.state
        index = s.seals[0]
        entry = s.log.entry(index)
        invariant(entry is not None, f"raft: the seal at {index} is not in the log")
        if entry is None:
            return
        s.seals = []
        s.sealed = (LogIndex(index), entry.payload)
        s.out.sealed = s.sealed
        s.mark()
        for _, ticket in self.behind_seal:
            s.refuse(ticket, _sealed(index, entry.payload))
        self.behind_seal = []

    # --- follower ------------------------------------------------------------------------

    def forget_leader_log(self) -> None:
        """A new term: nothing is known of its leader's log but what is committed."""
        self.verified = self.acknowledged = 0
        self.round = self.answered_round = 0

    def on_append_request(self, sender: ReplicaId, request: AppendRequest) -> None:
        """Take entries that follow ours, and answer how far we are (paper 5.3)."""
        s = self.state
        s.election.hear(sender)
        self.round = max(self.round, request.round)
        previous, entries = request.previous_index, request.entries
        last = previous + len(entries)
        if previous >= s.commit and s.log.term_at(previous) != request.previous_term:
            self._reject(sender, previous)
            return
        if entries and last > s.commit:
            self._take(entries, max(previous, s.commit))
        self.verified = max(self.verified, last, s.commit)
        commit = min(request.commit, last)
        if commit > s.commit:
            self.commit_to(commit)
        if not entries or self.round > self.answered_round or s.durable >= last:
            self.answer(sender)

    def _take(self, entries: list[Entry], known: int) -> None:
        """Append what is new; drop our tail only where it really conflicts."""
        s = self.state
        if entries[0].index == s.log.last_index + 1:
            s.append(entries)
            return
        for at, entry in enumerate(entries):
            if entry.index <= known:
                continue
            if entry.index > s.log.last_index:
                s.append(entries[at:])
                return
            if s.log.term_at(entry.index) != entry.term:
                s.emit(
                    LogTruncated(
                        node=s.me,
                        first=LogIndex(entry.index),
                        last=LogIndex(s.log.last_index),
                    )
                )
                s.truncate(entry.index)
                s.append(entries[at:])
                return

    def _reject(self, sender: ReplicaId, previous: int) -> None:
        """Say where the logs part: our whole conflicting term, or our end (paper 5.3, end)."""
        s = self.state
        conflict_term = s.log.term_at(previous) or 0
        if conflict_term:
            first = s.log.first_of_term(conflict_term, previous)
            conflict_index = max(first, s.commit + 1)
        else:
            conflict_index = s.log.last_index + 1
        self.answered_round = self.round
        s.send(
            sender,
            AppendResponse(
                s.term,
                False,
                0,
                conflict_index,
                conflict_term,
                self.round,
                previous,
                not s.admitted,
            ),
        )

    def answer(self, leader: ReplicaId) -> None:
        """Acknowledge what is durable and equal to the leader's log."""
        s = self.state
        match = min(s.durable, self.verified)
        self.acknowledged = match
        self.answered_round = self.round
        s.send(
            leader,
            AppendResponse(s.term, True, match, 0, 0, self.round, 0, not s.admitted),
        )

    def on_durable(self) -> None:
        """More of our log is durable: count it as leader, acknowledge it as follower."""
        s = self.state
        if s.role is Role.LEADER:
            self.advance_commit()
        elif s.leader is not None and min(s.durable, self.verified) > self.acknowledged:
            self.answer(s.leader)


def _tells(peer: PeerProgress) -> bool:
    return peer.flow is Flow.REPLICATE and peer.commit_sent < peer.next - 1


def _sealed(index: int, next: bytes) -> SealedError:
    return SealedError(f"raft: sealed at {index}; what comes behind has no effect", next=next)


def _too_large(size_bytes: int, limit: int) -> ConfigError:
    return ConfigError(
        f"raft: entry of {size_bytes} bytes is larger than entry_bytes_max {limit}; "
        "split it above the log"
    )
