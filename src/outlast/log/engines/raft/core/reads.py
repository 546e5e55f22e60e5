"""Linearizable reads without a log write: ReadIndex rounds and, opt-in, leases (thesis 6.4).

A read asks: through which index must I have applied so that I miss nothing acknowledged before
I asked? The leader's commit index at that moment is the answer, provided that it still was the
leader: so it starts a *round*, a number carried by every AppendRequest, and answers once a
quorum has answered that round or a later one. Callers that come while a round is under way wait
for the next one, which starts after they asked; all that wait share it. An answer to an older
round proves nothing for a younger read.

A new leader does not know the commit index before an entry of its own term is committed; reads
wait for that. With ``lease_reads`` a quorum's answer also promises that nobody else is elected
for one election timeout from the start of that round, less ``lease_drift``; a hand-over spoils
the lease for the rest of the term.
"""

from collections import deque

from outlast.kernel import LogIndex, OverloadedError, ReplicaId
from outlast.log.engines.raft.core.quorum import joint_reached
from outlast.log.engines.raft.core.state import State
from outlast.log.engines.raft.core.types import AskTail, Role, TailReady


class Reads:
    """Rounds, and the reads that wait for them."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.round = 0
        self.answered = 0
        self.wanted = 0  # a round that must be sent out even when there is nothing else to say
        self.waiting: list[int] = []
        self.asked: deque[tuple[int, int, list[int]]] = deque()  # (round, read index, tickets)
        self.starts: deque[tuple[int, int]] = deque()  # (round, when it started)
        self.lease_ns = int(state.timeout_ns * (1 - state.settings.lease_drift))
        self.lease_start: int | None = None

    def start_term(self) -> None:
        """A new leader begins its own count of rounds."""
        self.round = self.answered = self.wanted = 0
        self.starts.clear()
        self.lease_start = None

    def ask(self, event: AskTail) -> None:
        """Answer with the read index, at once under a lease, else after a round."""
        s = self.state
        if s.role is not Role.LEADER:
            s.refuse(event.ticket, s.elsewhere())
        elif len(self.waiting) >= s.settings.reads_max:
            s.refuse(
                event.ticket,
                OverloadedError(
                    f"raft: {len(self.waiting)} reads wait for a round",
                    retry_after=s.settings.heartbeat,
                ),
            )
        elif self.leased():
            s.out.answers.append(TailReady(event.ticket, LogIndex(s.commit)))
        else:
            self.waiting.append(event.ticket)
            self.serve_waiting()

    def leased(self) -> bool:
        """Return whether a lease read is allowed now."""
        s = self.state
        return (
            s.settings.lease_reads
            and self.lease_start is not None
            and not s.election.lease_spoiled
            and s.commit >= s.term_start
            and s.now - self.lease_start < self.lease_ns
        )

    def begin_round(self, *, wanted: bool) -> None:
        """Start a round that covers every read now waiting."""
        s = self.state
        self.round += 1
        self.starts.append((self.round, s.now))
        if len(self.starts) > 4096:
            self.starts.popleft()
        if self.waiting and s.commit >= s.term_start:
            self.asked.append((self.round, s.commit, self.waiting))
            self.waiting = []
            if wanted:
                self.wanted = self.round
        self.on_answer()

    def on_answer(self) -> None:
        """Answer the reads whose round a quorum has answered."""
        s = self.state
        voters, old = s.config.voters, s.config.old_voters
        answered = joint_reached(self._rounds(voters), self._rounds(old))
        if answered <= self.answered:
            return
        self.answered = answered
        while self.starts and self.starts[0][0] <= answered:
            self.lease_start = self.starts.popleft()[1]
        while self.asked and self.asked[0][0] <= answered:
            _, index, tickets = self.asked.popleft()
            s.out.answers += [TailReady(ticket, LogIndex(index)) for ticket in tickets]
        self.serve_waiting()

    def _rounds(self, voters: tuple[ReplicaId, ...]) -> list[int]:
        s = self.state
        return [self.round if v == s.me else s.progress[v].round for v in voters]

    def serve_waiting(self) -> None:
        """Start a round for the reads that wait, unless one is under way or it is too early."""
        if self.waiting and not self.asked and self.state.commit >= self.state.term_start:
            self.begin_round(wanted=True)

    def fail(self) -> None:
        """Refuse what waits: this node no longer leads."""
        s = self.state
        tickets = [ticket for _, _, batch in self.asked for ticket in batch] + self.waiting
        self.asked.clear()
        self.waiting = []
        for ticket in tickets:
            s.refuse(ticket, s.elsewhere())
