"""The machines below a node-level Raft cluster: hosts, disks, network and virtual time.

It calls ``RaftNode.step`` directly and carries the effects out itself. Writes become durable
later and in order; a crash loses a random tail of what was not yet durable, and with it every
message that waited for it. The network delays, drops, repeats, reorders and cuts one way.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from outlast.kernel import LogIndex, Prng, ReplicaId, Term
from outlast.log.api import Membership, SnapshotRef
from outlast.log.engines.raft.core.node import RaftNode
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import (
    Answer,
    AnyMessage,
    ChunkStored,
    Effects,
    InstallSnapshot,
    PeerConnected,
    PeerLost,
    Persisted,
    RaftEvent,
    Receive,
    ReceiveSnapshot,
    Recovered,
    SendChunks,
    SnapshotInstalled,
    SnapshotReady,
    TailReady,
    Transfer,
    Trim,
    Wake,
)
from tests.support.raft_checker import Checker
from tests.support.raft_disk import BrokenError, Host, Net, View, members_of

__all__ = ["MS", "SECOND", "Machines"]

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
        check: Checker | None = None,
    ) -> None:
        self.prng = Prng(seed)
        self.settings = settings or RaftSettings()
        self.genesis = Membership(1, tuple(members_of(voters, learners)))
        self.net = Net()
        self.disk_ms = disk_ms
        self.make = make
        self.now = SECOND
        self.check = Checker(spy=spy) if check is None else check
        self.steps = 0
        self.hosts: dict[ReplicaId, Host] = {}
        self.answers: dict[int, list[object]] = {}
        self.sent: list[tuple[ReplicaId, ReplicaId, AnyMessage]] = []
        self.chunk_log: list[tuple[ReplicaId, ReplicaId, int]] = []
        self.drop: Callable[[ReplicaId, ReplicaId, AnyMessage], bool] | None = None
        self.on_effects: Callable[[ReplicaId, RaftEvent, Effects], None] | None = None
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
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
        host.forget()
        base, term = host.durable.base
        recovered = Recovered(
            host.durable.hard, LogIndex(base), Term(term), host.genesis,
            list(host.durable.entries), LogIndex(base), host.snapshot,
            may_vote=host.may_vote, mark=host.durable.mark,
        )  # fmt: skip
        view = self.view(host)
        now = self.local(host)
        host.node = self.make(replica, self.settings, recovered, view, self.prng.fork(), now)
        self.check.on_restart(host)
        self.step(replica, Wake())

    def view(self, host: Host) -> View:
        """Return what a node sees of its log."""
        return View(host.written)

    def local(self, host: Host) -> int:
        """Return the time on a host's own clock."""
        return self.now if host.clock is None else host.clock.read(self.now)

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

    def runs(self, replica: ReplicaId) -> bool:
        """Return whether a replica is there and runs."""
        host = self.hosts.get(replica)
        return host is not None and host.node is not None

    def node(self, replica: ReplicaId) -> RaftNode:
        """Return a running node."""
        return self.hosts[replica].alive

    def at(self, when_ns: int, action: Callable[..., None], *args: Any) -> None:
        """Run ``action`` at ``when_ns``."""
        self._serial += 1
        heapq.heappush(self._queue, (when_ns, self._serial, action, args))

    def run(self, seconds: float = 1.0, *, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; return whether ``until`` became true."""
        end = self.now + round(seconds * SECOND)
        queue = self._queue
        while queue and queue[0][0] <= end:
            if until is not None and until():
                return True
            when, _, action, args = heapq.heappop(queue)
            self.now = max(self.now, when)
            action(*args)
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
        self.steps += 1
        effects = node.step(event, self.now if host.clock is None else host.clock.read(self.now))
        if self.on_effects is not None:
            self.on_effects(replica, event, effects)
        self._carry(host, node, effects)
        self.check.after_step(host, node, self.hosts)
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
            self._answer(host, answer)
        for transfer in effects.transfers:
            self._transfer(host, transfer)
        self._set_wake(host, effects.wake_ns)

    def _answer(self, host: Host, answer: Answer) -> None:
        self.answers.setdefault(getattr(answer, "ticket", -1), []).append(answer)
        if isinstance(answer, TailReady) and answer.index < self.check.asked[answer.ticket]:
            raise BrokenError(
                f"linearizable reads: {host.replica} answered {answer.index}, but "
                f"{self.check.asked[answer.ticket]} was committed before it was asked"
            )

    def _write(self, host: Host, node: RaftNode, effects: Effects) -> None:
        write = effects.persist
        if write is None:
            return
        self.check.on_write(host, write, node.role, self.hosts)
        host.written.apply(write)
        host.pending.append(write)
        host.disk_free_ns = max(host.disk_free_ns, self.now) + self.write_ns(host)
        if not host.slow_disk:
            self.at(host.disk_free_ns, self._durable, host, host.life, write.ticket)

    def write_ns(self, host: Host) -> int:
        """Draw how long a write takes."""
        return self.prng.between(*self.disk_ms) * MS

    def _durable(self, host: Host, life: int, ticket: int) -> None:
        if host.life != life or host.node is None or host.slow_disk:
            return
        self._land(host, ticket)
        self._told(host, life, ticket)

    def _land(self, host: Host, ticket: int) -> None:
        """Writes through ``ticket`` are on the disk."""
        while host.pending and host.pending[0].ticket <= ticket:
            host.durable.apply(host.pending.popleft())

    def _told(self, host: Host, life: int, ticket: int) -> None:
        """The program hears that writes through ``ticket`` are durable."""
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
        if wake_ns is not None:
            self._arm(host, wake_ns)

    def _arm(self, host: Host, wake_ns: int) -> None:
        """Set the timer that a node asked for, by its own clock."""
        when = wake_ns if host.clock is None else host.clock.when(wake_ns)
        self.at(max(when, self.now), self._fire, host, host.life, wake_ns)

    def _fire(self, host: Host, life: int, wake_ns: int) -> None:
        if host.life != life or host.node is None or host.wake_ns != wake_ns:
            return
        if self.now < host.paused_until:
            self.at(host.paused_until, self._fire, host, life, wake_ns)
        elif host.clock is not None and host.clock.read(self.now) < wake_ns:
            self._arm(host, wake_ns)  # the clock's rate changed meanwhile
        else:
            host.wake_ns = None
            self.step(host.replica, Wake())

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
            self.at(self.now + delay, self.deliver, sender, target, message)

    def deliver(self, sender: ReplicaId, target: ReplicaId, message: AnyMessage) -> None:
        """Hand a message to its receiver, if it runs and can be reached."""
        host = self.hosts.get(target)
        if host is None or host.node is None or (sender, target) in self.net.cuts:
            return
        if self.now < host.paused_until:
            self.at(host.paused_until, self.deliver, sender, target, message)
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
            if self.runs(a):
                self.step(a, PeerLost(b))

    def connect(self, left: ReplicaId, right: ReplicaId) -> None:
        """Tell both sides that they are connected."""
        for a, b in ((left, right), (right, left)):
            if self.runs(a) and self.runs(b):
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
        delay = self.prng.between(0, 2) * MS
        self.at(self.now + delay, self._step_if_alive, host, host.life, event)

    def _step_if_alive(self, host: Host, life: int, event: RaftEvent) -> None:
        if host.life == life and host.node is not None:
            self.step(host.replica, event)

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
