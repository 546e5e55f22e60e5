"""A whole Raft cluster in one thread: seeded network, disks that forget, checks after each step.

Node level: it calls ``RaftNode.step`` directly and carries the effects out itself. Writes become
durable later and in order; a crash loses a random tail of what was not yet durable, and with it
every message that waited for it. The network delays, drops, repeats, reorders and cuts one way.
Everything is drawn from one seed, so a failing seed is the whole report.
"""

from collections.abc import Sequence

from outlast.kernel import OutlastError, ReplicaId
from outlast.log.api import Member
from outlast.log.engines.raft.core.types import (
    Accepted,
    AskTail,
    Done,
    EntryKind,
    Propose,
    ProposeMembers,
    ProposeTransfer,
    Refused,
    Role,
    Wake,
)
from tests.support.raft_disk import BrokenError, Net, ids, members_of
from tests.support.raft_machines import MS, SECOND, Machines

__all__ = ["MS", "SECOND", "Cluster", "Net", "ids", "members_of"]


class Cluster(Machines):
    """Requests and scenarios on top of the machines."""

    _tickets = 0

    def ticket(self) -> int:
        """Return a fresh ticket."""
        self._tickets += 1
        return self._tickets

    def propose(
        self, replica: ReplicaId, *payloads: bytes, kind: EntryKind = EntryKind.NORMAL
    ) -> list[int]:
        """Propose entries on a node and return their tickets."""
        tickets = [self.ticket() for _ in payloads]
        entries = tuple((t, kind, p) for t, p in zip(tickets, payloads, strict=True))
        self.step(replica, Propose(entries))
        return tickets

    def change(self, replica: ReplicaId, members: Sequence[Member]) -> int:
        """Ask a node for a membership change; return the ticket."""
        ticket = self.ticket()
        version = self.node(replica).membership.version
        self.step(replica, ProposeMembers(ticket, tuple(members), version))
        return ticket

    def transfer(self, replica: ReplicaId, target: ReplicaId) -> int:
        """Ask a node to hand over; return the ticket."""
        ticket = self.ticket()
        self.step(replica, ProposeTransfer(ticket, target))
        return ticket

    def ask(self, replica: ReplicaId) -> int:
        """Ask a node for the tail; return the ticket."""
        ticket = self.ticket()
        self.check.asked[ticket] = len(self.check.committed)
        self.step(replica, AskTail(ticket))
        return ticket

    def answer(self, ticket: int) -> object:
        """Return the last answer to a ticket, or ``None``."""
        found = self.answers.get(ticket)
        return found[-1] if found else None

    def accepted(self, ticket: int) -> Accepted:
        """Return the place that a proposal got."""
        for answer in self.answers.get(ticket, []):
            if isinstance(answer, Accepted):
                return answer
        raise BrokenError(f"ticket {ticket} was not accepted: {self.answers.get(ticket)}")

    def error(self, ticket: int) -> OutlastError:
        """Return the error that a ticket ended with."""
        answer = self.answer(ticket)
        if not isinstance(answer, Refused):
            raise BrokenError(f"ticket {ticket} was not refused: {answer}")
        return answer.error

    def done(self, ticket: int) -> bool:
        """Return whether a ticket ended as Done."""
        return isinstance(self.answer(ticket), Done)

    def leader(self) -> ReplicaId | None:
        """Return the leader of the highest term, if one runs."""
        found = [self.node(r) for r in self.up() if self.node(r).role is Role.LEADER]
        return max(found, key=lambda node: node.term).me if found else None

    def elect(self, replica: ReplicaId) -> None:
        """Make ``replica`` the leader of the next term: its timer fires first."""
        self.stand(replica)
        if not self.run(0.4, until=lambda: self.ready(replica)):
            raise BrokenError(f"{replica} was not elected")

    def stand(self, replica: ReplicaId) -> None:
        """Let everybody forget the leader, and let ``replica``'s timer fire now."""
        for other in self.up():
            self.node(other).state.election.lost_leader = True
        self.node(replica).state.election.election_at = self.now
        self.step(replica, Wake())

    def ready(self, replica: ReplicaId) -> bool:
        """Return whether ``replica`` leads and has committed in its term."""
        state = self.node(replica).state
        return state.role is Role.LEADER and state.commit >= state.term_start

    def payloads(self, replica: ReplicaId) -> list[bytes]:
        """Return the committed user entries that a node holds."""
        image = self.hosts[replica].written
        indices = range(image.base[0] + 1, self.node(replica).commit + 1)
        found = [image.get(index) for index in indices]
        return [e.payload for e in found if e is not None and e.kind == EntryKind.NORMAL]

    def commit_one(self, replica: ReplicaId, payload: bytes = b"x") -> int:
        """Propose one entry on the leader, wait until it is committed, and return its index."""
        index = self.accepted(self.propose(replica, payload)[0]).index
        if not self.run(2, until=lambda: self.node(replica).commit >= index):
            raise BrokenError(f"{index} was not committed within 2 s")
        return index

    def converge(self, seconds: float = 30.0) -> None:
        """Heal everything; there must be progress, and all members must agree on it."""
        self.heal()
        for replica, host in self.hosts.items():
            host.paused_until = 0
            host.slow_disk = False
            if host.node is None:
                self.start(replica)
            self.resume_disk(replica)
        marker: list[int] = []

        def reached() -> bool:
            leader = self.leader()
            if leader is None or self.node(leader).membership.joint:
                return False
            if not marker or not self._lives(leader, marker[-1]):
                marker.append(self.propose(leader, b"converged")[0])
                return False
            index = self.accepted(marker[-1]).index
            everyone = self.node(leader).state.config.everyone
            return all(self.node(replica).commit >= index for replica in everyone)

        if not self.run(seconds, until=reached):
            seen = {
                r: (self.node(r).role.name, self.node(r).term, self.node(r).commit)
                for r in self.up()
            }
            raise BrokenError(f"no progress within {seconds} s of healing: {seen}")

    def _lives(self, leader: ReplicaId, ticket: int) -> bool:
        answers = self.answers.get(ticket, [])
        if not answers or not isinstance(answers[0], Accepted):
            return False
        found = self.node(leader).state.log.term_at(answers[0].index)
        return found == answers[0].term or answers[0].index <= self.hosts[leader].written.base[0]
