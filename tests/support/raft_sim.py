"""A whole Raft cluster in one thread: seeded network, disks that forget, checks after each step.

Node level: it calls ``RaftNode.step`` directly and carries the effects out itself. Writes become
durable later and in order; a crash loses a random tail of what was not yet durable, and with it
every message that waited for it. The network delays, drops, repeats, reorders and cuts one way.
Everything is drawn from one seed, so a failing seed is the whole report.
"""

import heapq
from collections.abc import Callable, Sequence

from outlast.kernel import LogIndex, OutlastError, Prng, ReplicaId, Term
from outlast.log.api import Member, Membership, SnapshotRef
from outlast.log.engines.raft.core.node import RaftNode
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import (
    Accepted,
    AnyMessage,
    AskTail,
    ChunkStored,
    Done,
    Effects,
    EntryKind,
    InstallSnapshot,
    PeerConnected,
    PeerLost,
    Persisted,
    Propose,
    ProposeMembers,
    ProposeTransfer,
    RaftEvent,
    Receive,
    ReceiveSnapshot,
    Recovered,
    Refused,
    Role,
    SendChunks,
    SnapshotInstalled,
    SnapshotReady,
    TailReady,
    Transfer,
    Trim,
    Wake,
)
from tests.support.raft_checker import Checker
from tests.support.raft_disk import BrokenError, Host, Net, View, ids, members_of

__all__ = ["MS", "SECOND", "Cluster", "Net", "ids", "members_of"]

MS = 1_000_000
SECOND = 1000 * MS
Make = Callable[..., RaftNode]


class Machines:
    """Hosts, their disks, and virtual time."""

    def __init__(
        self,
        voters: Sequence[ReplicaId],
        *,
        learners: Sequence[ReplicaId] = (),
        seed: int = 1,
        settings: RaftSettings | None = None,
        disk_ms: tuple[int, int] = (0, 0),
        make: Make = RaftNode,
        spy: bool = True,
    ) -> None:
        self.prng = Prng(seed)
        self.settings = settings or RaftSettings()
        self.genesis = Membership(1, tuple(members_of(voters, learners)))
        self.net = Net()
        self.disk_ms = disk_ms
        self.make = make
        self.now = SECOND
        self.check = Checker(spy=spy)
        self.steps = 0
        self.hosts: dict[ReplicaId, Host] = {}
        self.answers: dict[int, list[object]] = {}
        self.sent: list[tuple[ReplicaId, ReplicaId, AnyMessage]] = []
        self.chunk_log: list[tuple[ReplicaId, ReplicaId, int]] = []
        self.drop: Callable[[ReplicaId, ReplicaId, AnyMessage], bool] | None = None
        self.on_effects: Callable[[ReplicaId, RaftEvent, Effects], None] | None = None
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        self._bulk_free: dict[tuple[ReplicaId, ReplicaId], int] = {}
        for replica in (*voters, *learners):
            self.add_host(replica)

    def add_host(self, replica: ReplicaId, *, may_vote: bool = True) -> Host:
        """Add a machine with an empty disk, and start it."""
        host = self.hosts[replica] = Host(replica, self.genesis, may_vote)
        self.start(replica)
        return host

    def start(self, replica: ReplicaId) -> None:
        """Start a node from what is durable."""
        host = self.hosts[replica]
        host.life += 1
        host.written = host.durable.copy()
        host.disk_free_ns = self.now
        host.commit_seen = 0
        host.wake_ns = None
        base, term = host.durable.base
        recovered = Recovered(
            host.durable.hard, LogIndex(base), Term(term), host.genesis,
            list(host.durable.entries), LogIndex(base), host.snapshot,
            may_vote=host.may_vote, mark=host.durable.mark,
        )  # fmt: skip
        view = View(host.written)
        host.node = self.make(replica, self.settings, recovered, view, self.prng.fork(), self.now)
        self.check.on_restart(host)
        self.step(replica, Wake())

    def crash(self, replica: ReplicaId) -> None:
        """Kill a node: a random tail of what was not durable is lost."""
        host = self.hosts[replica]
        host.node = None
        host.life += 1
        for _ in range(self.prng.below(len(host.pending) + 1)):
            host.durable.apply(host.pending.popleft())
        host.pending.clear()
        host.held.clear()

    def up(self) -> list[ReplicaId]:
        """Return the replicas that run."""
        return [r for r, host in self.hosts.items() if host.node is not None]

    def node(self, replica: ReplicaId) -> RaftNode:
        """Return a running node."""
        return self.hosts[replica].alive

    def at(self, when_ns: int, action: Callable[[], None]) -> None:
        """Run ``action`` at ``when_ns``."""
        self._serial += 1
        heapq.heappush(self._queue, (when_ns, self._serial, action))

    def run(self, seconds: float = 1.0, *, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; return whether ``until`` became true."""
        end = self.now + round(seconds * SECOND)
        while self._queue and self._queue[0][0] <= end:
            if until is not None and until():
                return True
            when, _, action = heapq.heappop(self._queue)
            self.now = max(self.now, when)
            action()
        if until is not None and until():
            return True
        self.now = end
        return False

    def settle(self) -> None:
        """Let 20 ms pass: enough for a few round trips on a good network."""
        self.run(0.02)

    # --- one step -----------------------------------------------------------------------------

    def step(self, replica: ReplicaId, event: RaftEvent) -> Effects:
        """Give one event to a node, carry its effects out, and judge."""
        host = self.hosts[replica]
        node = host.alive
        was = node.role, node.term
        self.steps += 1
        effects = node.step(event, self.now)
        if self.on_effects is not None:
            self.on_effects(replica, event, effects)
        self._carry(host, node, effects)
        self.check.on_role(host)
        if node.role is Role.LEADER and was != (Role.LEADER, node.term):
            self.check.on_elected(host)
        if node.commit != host.commit_seen:
            self.check.on_commit(host, self.hosts)
        return effects

    def _carry(self, host: Host, node: RaftNode, effects: Effects) -> None:
        if effects.persist is not None:
            self._write(host, node, effects)
        for target, message in effects.send_now:
            self.send(host, target, message)
        for target, message in effects.send_after_durable:
            if host.pending:
                host.held.append((host.pending[-1].ticket, target, message))
            else:
                self.send(host, target, message)
        for answer in effects.answers:
            self.answers.setdefault(getattr(answer, "ticket", -1), []).append(answer)
            if isinstance(answer, TailReady) and answer.index < self.check.asked[answer.ticket]:
                raise BrokenError(
                    f"linearizable reads: {host.replica} answered {answer.index}, but "
                    f"{self.check.asked[answer.ticket]} was committed before it was asked"
                )
        for transfer in effects.transfers:
            self._transfer(host, transfer)
        self._set_wake(host, effects.wake_ns)

    def _write(self, host: Host, node: RaftNode, effects: Effects) -> None:
        write = effects.persist
        if write is None:
            return
        self.check.on_write(host, write, node.role)
        host.written.apply(write)
        host.pending.append(write)
        delay = self.prng.between(*self.disk_ms) * MS
        host.disk_free_ns = max(host.disk_free_ns, self.now) + delay
        life, ticket = host.life, write.ticket
        if not host.slow_disk:
            self.at(host.disk_free_ns, lambda: self._durable(host, life, ticket))

    def _durable(self, host: Host, life: int, ticket: int) -> None:
        if host.life != life or host.node is None or host.slow_disk:
            return
        while host.pending and host.pending[0].ticket <= ticket:
            host.durable.apply(host.pending.popleft())
        while host.held and host.held[0][0] <= ticket:
            _, target, message = host.held.popleft()
            self.send(host, target, message)
        self.step(host.replica, Persisted(ticket))

    def resume_disk(self, replica: ReplicaId) -> None:
        """Let a stalled disk finish what waits."""
        host = self.hosts[replica]
        host.slow_disk = False
        if host.pending:
            self._durable(host, host.life, host.pending[-1].ticket)

    def _set_wake(self, host: Host, wake_ns: int | None) -> None:
        if wake_ns == host.wake_ns:
            return
        host.wake_ns = wake_ns
        if wake_ns is None:
            return
        life = host.life

        def fire() -> None:
            if host.life != life or host.node is None or host.wake_ns != wake_ns:
                return
            if self.now < host.paused_until:
                self.at(host.paused_until, fire)
                return
            host.wake_ns = None
            self.step(host.replica, Wake())

        self.at(max(wake_ns, self.now), fire)

    # --- network ------------------------------------------------------------------------------

    def send(self, host: Host, target: ReplicaId, message: AnyMessage) -> None:
        """Put a message on the network."""
        sender = host.replica
        self.check.on_send(host, target, message)
        self.sent.append((sender, target, message))
        if self.drop is not None and self.drop(sender, target, message):
            return
        if (sender, target) in self.net.cuts or self.prng.chance(self.net.drop, 1000):
            return
        for _ in range(1 + self.prng.chance(self.net.repeat, 1000)):
            delay = self.prng.between(*self.net.delay_ms) * MS
            self.at(self.now + delay, lambda: self.deliver(sender, target, message))

    def deliver(self, sender: ReplicaId, target: ReplicaId, message: AnyMessage) -> None:
        """Hand a message to its receiver, if it runs and can be reached."""
        host = self.hosts.get(target)
        if host is None or host.node is None or (sender, target) in self.net.cuts:
            return
        if self.now < host.paused_until:
            self.at(host.paused_until, lambda: self.deliver(sender, target, message))
            return
        self.step(target, Receive(sender, message))

    def cut(
        self, left: Sequence[ReplicaId], right: Sequence[ReplicaId], *, both: bool = True
    ) -> None:
        """Cut the network between two groups (only from left to right if not ``both``)."""
        for a in left:
            for b in right:
                self.net.cuts[a, b] = None
                if both:
                    self.net.cuts[b, a] = None

    def isolate(self, replica: ReplicaId) -> None:
        """Cut one replica off from all others."""
        self.cut([replica], [r for r in self.hosts if r != replica])

    def heal(self) -> None:
        """Repair the network."""
        self.net = Net()
        self.drop = None

    def lose_connection(self, left: ReplicaId, right: ReplicaId) -> None:
        """Tell both sides that their connection broke."""
        for a, b in ((left, right), (right, left)):
            if self.hosts[a].node is not None:
                self.step(a, PeerLost(b))

    def connect(self, left: ReplicaId, right: ReplicaId) -> None:
        """Tell both sides that they are connected."""
        for a, b in ((left, right), (right, left)):
            if self.hosts[a].node is not None and self.hosts[b].node is not None:
                self.step(a, PeerConnected(b))

    # --- snapshots ----------------------------------------------------------------------------

    def take_snapshot(self, replica: ReplicaId, *, trim: bool = True, chunks: int = 20) -> None:
        """Let a node's state snapshot itself at its commit index, and trim."""
        host = self.hosts[replica]
        node = host.alive
        index = node.commit
        term = node.state.log.term_at(index)
        if index <= (host.snapshot.index if host.snapshot else 0) or term is None:
            return
        digest = f"digest-{index}".encode()
        host.snapshot = SnapshotRef(LogIndex(index), Term(term), chunks, digest, chunks)
        self.step(replica, SnapshotReady(host.snapshot))
        if trim:
            self.step(replica, Trim(LogIndex(index + 1)))
            before = min(index, host.durable.last) + 1
            if host.durable.term_at(before - 1) == host.written.term_at(before - 1):
                host.written.trim(before)
                host.durable.trim(before)

    def _transfer(self, host: Host, transfer: Transfer) -> None:
        if isinstance(transfer, ReceiveSnapshot):
            ref = transfer.ref
            self._later(host, ChunkStored(ref, host.chunks.setdefault(ref.digest, 0)))
        elif isinstance(transfer, SendChunks):
            for number in range(transfer.first, transfer.last + 1):
                self._send_chunk(host.replica, transfer, number)
        elif isinstance(transfer, InstallSnapshot):
            if host.chunks.get(transfer.ref.digest) != transfer.ref.chunk_count:
                raise BrokenError(f"{host.replica} installs a snapshot that it has not received")
            host.snapshot = transfer.ref
            self._later(host, SnapshotInstalled(transfer.ref))

    def _later(self, host: Host, event: RaftEvent) -> None:
        life = host.life

        def fire() -> None:
            if host.life == life and host.node is not None:
                self.step(host.replica, event)

        self.at(self.now + self.prng.between(0, 2) * MS, fire)

    def _send_chunk(self, sender: ReplicaId, transfer: SendChunks, number: int) -> None:
        target, ref = transfer.target, transfer.ref

        def fire() -> None:
            host = self.hosts[target]
            if host.node is None or (sender, target) in self.net.cuts:
                return
            if host.chunks.get(ref.digest) == number:
                host.chunks[ref.digest] = number + 1
                self.chunk_log.append((sender, target, number))
                self.step(target, ChunkStored(ref, number + 1))

        # The bulk connection keeps order: one chunk after another.
        free = self._bulk_free.get((sender, target), 0)
        self._bulk_free[sender, target] = when = max(free, self.now) + MS
        self.at(when, fire)


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
