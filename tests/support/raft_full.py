"""A Raft cluster with a state on top, and with everything that a machine can suffer.

Beyond :class:`~tests.support.raft_sim.Cluster`: each host has a clock of its own, executes what
is committed (``raft_replica``), takes snapshots of real bytes and sends them in chunks. A crash
may tear a write, a disk may be lost or rot, a pause holds back everything but the disk. Damage
stays within what the protocol claims to survive: a minority of the voters.
"""

from collections import Counter
from collections.abc import Sequence

from outlast.cluster.core.admission import admit, promote
from outlast.kernel import CorruptionError, LogIndex, NodeId, ReplicaId, node_of
from outlast.log.api import Membership
from outlast.log.engines.raft.core.config import Config
from outlast.log.engines.raft.core.types import (
    Answer,
    AnyMessage,
    AskTail,
    ChunkStored,
    Effects,
    Entry,
    EntryKind,
    InstallSnapshot,
    Persist,
    RaftEvent,
    ReceiveSnapshot,
    SendChunks,
    SnapshotFailed,
    SnapshotInstalled,
    SnapshotReady,
    TailReady,
    Transfer,
    Trim,
    Wake,
)
from outlast.state.core.limits import Limits
from outlast.state.core.log_time import HolderClock
from tests.support.raft_checker import Checker
from tests.support.raft_disk import BrokenError, Clock, Host, Image, View
from tests.support.raft_machine import Blind, Machine, RottenView, meet
from tests.support.raft_machines import MS
from tests.support.raft_replica import Judge, Replica, Saved
from tests.support.raft_sim import Cluster

_PRIME = 1_099_511_628_211
_MASK = (1 << 64) - 1
STEPS_MAX = 200_000
"""A run that takes more steps than this goes in circles; usual are some hundreds."""
_NOWHERE = Membership(0, ())


class FullCluster(Cluster):
    """A cluster that executes, and that loses disks. ``counts`` says what happened in it."""

    hosts: dict[ReplicaId, Machine]  # type: ignore[assignment]

    def __init__(
        self,
        voters: Sequence[ReplicaId],
        *,
        limits: Limits | None = None,
        apply_ms: int = 0,
        drift_ppm: int = 0,
        watch: bool = True,
        **others: object,
    ) -> None:
        self.limits = limits or Limits()
        self.apply_ms = apply_ms
        self.drift_ppm = drift_ppm
        self.judge = Judge(watch)
        self.counts: Counter[str] = Counter()
        self.trace = 0
        self.chunk_ns = MS
        self.admissions: dict[int, ReplicaId] = {}
        check = Checker() if watch else Blind()
        super().__init__(voters, check=check, **others)  # type: ignore[arg-type]

    # --- machines ------------------------------------------------------------------------------

    def add_host(self, replica: ReplicaId, *, may_vote: bool = True) -> Host:
        """Add a machine with an empty disk. One that may not vote knows no members."""
        host = Machine(replica, self.genesis if may_vote else _NOWHERE, may_vote)
        self.hosts[replica] = host
        drift = self.prng.between(-self.drift_ppm, self.drift_ppm) if self.drift_ppm else 0
        host.clock = Clock(self.prng.below(10**12), self.now, 1_000_000 + drift)
        self.start(replica)
        return host

    def start(self, replica: ReplicaId) -> None:
        """Start a node, unless its disk is found to be damaged: then it is lost for good."""
        host = self.hosts[replica]
        if (host.rotten and meet(host.durable.entries, host.rotten)) or (
            host.saved is not None and not host.saved.whole
        ):
            self.bury(replica, "rot_found")
            return
        host.rotten.clear()
        host.state = Replica(replica, self.judge, self.limits)
        host.holder = HolderClock()
        if host.saved is not None:
            host.state.load(host.saved)
        host.applied = host.ahead = host.state.index
        host.applying = False
        host.trimming = None
        super().start(replica)

    def view(self, host: Host) -> View:
        return RottenView(host) if isinstance(host, Machine) else View(host.written)

    def crash(self, replica: ReplicaId) -> None:
        """Cut the power: what was not synced is lost, in order, and the last write may tear."""
        host = self.hosts[replica]
        if host.node is None:
            return
        host.node = None
        host.state = None
        host.life += 1
        if self.prng.chance(2, 3):  # else only the process was killed: the page cache stays
            for _ in range(self.prng.below(len(host.pending) + 1)):
                host.durable.apply(host.pending.popleft())
            if host.pending:
                self.counts["lost_tail"] += 1
                if self.prng.chance(1, 2):
                    self._tear(host.durable, host.pending[0])
        else:
            while host.pending:
                host.durable.apply(host.pending.popleft())
        host.pending.clear()
        host.held.clear()
        host.waiting.clear()
        host.reading.clear()
        host.paused_until = 0
        if len(host.parts) > 0:
            host.broken_off = True
        if host.clock is not None and self.prng.chance(1, 3):  # a reboot: it begins anew
            host.clock = Clock(self.prng.below(10**9), self.now, host.clock.rate_ppm)

    def _tear(self, image: Image, write: Persist) -> None:
        """Let a part of ``write`` arrive: its mark, or all of it but some last entries."""
        count = len(write.entries)
        if write.mark is not None and self.prng.chance(1, 2):
            image.apply(Persist(write.ticket, mark=write.mark))
            self.counts["torn"] += 1
        elif count > 1:
            kept = write.entries[: self.prng.between(1, count - 1)]
            image.apply(
                Persist(write.ticket, write.hard_state, write.reset_to, write.truncate_from,
                        kept, write.mark)
            )  # fmt: skip
            self.counts["torn"] += 1

    def bury(self, replica: ReplicaId, why: str) -> None:
        """A disk is lost: the replica never comes back, its node asks to be admitted anew."""
        self.crash(replica)
        host = self.hosts.pop(replica)
        self.check.gone[replica] = host
        self.counts[why] += 1

    # --- damage within the claim -----------------------------------------------------------------

    def may_damage(self, replica: ReplicaId) -> bool:
        """Return whether the loss of this disk is within the claim: a minority, members fixed."""
        config = self.config_in_force()
        if config is None or self.hosts[replica].damaged:
            return False
        damaged = [v for v in config.voters if v not in self.hosts or self.hosts[v].damaged]
        if replica in config.voters:
            return len(damaged) + 1 <= (len(config.voters) - 1) // 2
        return True

    def config_in_force(self) -> Config | None:
        """Return the configuration that all hosts agree on, ``None`` while one may change."""
        best = max((self.node(r) for r in self.up()), key=lambda n: n.commit, default=None)
        if best is None:
            return None
        config = best.state.config_at(best.commit)
        for host in self.hosts.values():
            if host.node is not None:
                state = host.node.state
                if state.config_index > best.commit or state.members.change is not None:
                    return None
            entries = host.durable.entries
            late = entries[max(0, best.commit - host.durable.base[0]) :]
            if any(entry.kind == EntryKind.CONFIG for entry in late):
                return None
        return None if config.joint or not config.voters else config

    def replica_of(self, node: NodeId) -> ReplicaId | None:
        """Return the newest replica of ``node`` that has a disk."""
        found = [replica for replica in self.hosts if node_of(replica) == node]
        return found[-1] if found else None

    def tend(self, *, eager: bool = False) -> None:
        """Do what nodes and their leader do by themselves: admit who lost a disk, promote."""
        for ticket, replica in list(self.admissions.items()):
            if self.answer(ticket) is not None:
                del self.admissions[ticket]
                if self.done(ticket) and replica not in self.hosts:
                    self.add_host(replica, may_vote=False)
                    self.counts["readmitted"] += 1
        for replica in self.up() if eager else ():
            host = self.hosts[replica]
            if host.saved is not None and not host.saved.whole:  # its checkpointer makes another
                self.take_snapshot(replica, trim=False, chunks=host.saved.ref.chunk_count)
        leader = self.leader()
        if leader is None or self.now < self.hosts[leader].paused_until:
            return
        node = self.node(leader)
        membership = node.membership
        if membership.joint or node.state.members.change is not None:
            return
        if not (eager or self.prng.chance(1, 4)):
            return
        lost = self._lost_node(membership)
        if lost is not None:
            self.admissions = {}  # what became of earlier ones is not known any more
            replica, members = admit(membership, lost, f"{lost}:1")
            self.admissions[self.change(leader, members)] = replica
            return
        wanted = promote(membership, node.progress(), node.commit)
        if wanted is not None:
            self.change(leader, wanted)

    def _lost_node(self, membership: Membership) -> NodeId | None:
        """Return a member node of which no replica has a disk."""
        for member in membership.members:
            node = node_of(member.replica)
            if member.replica not in self.hosts and not any(
                m.replica in self.hosts for m in membership.members if node_of(m.replica) == node
            ):
                return node
        return None

    # --- one step ------------------------------------------------------------------------------

    def step(self, replica: ReplicaId, event: RaftEvent) -> Effects:
        host = self.hosts[replica]
        if self.now < host.paused_until:
            self.at(host.paused_until, self._step_if_alive, host, host.life, event)
            return Effects()
        if self.steps >= STEPS_MAX:
            raise BrokenError(f"no end after {self.steps} steps")
        try:
            effects = super().step(replica, event)
        except CorruptionError:
            if not host.rotten:
                raise
            self.bury(replica, "rot_read")
            return Effects()
        state = host.alive.state
        fact = self.now ^ (state.term << 40) ^ (state.commit << 20) ^ state.log.last_index
        self.trace = ((self.trace ^ fact) * _PRIME) & _MASK
        return effects

    def _carry(self, host: Host, node: object, effects: Effects) -> None:
        super()._carry(host, node, effects)  # type: ignore[arg-type]
        if not isinstance(host, Machine):
            return
        if effects.committed is not None and not host.applying:
            if self.apply_ms:
                host.applying = True
                delay = self.prng.below(self.apply_ms * MS)
                self.at(self.now + delay, self._apply_later, host, host.life)
            else:
                self._apply(host)
        write = effects.persist
        if write is not None and write.truncate_from is not None:
            self.counts["truncation"] += 1

    def _apply_later(self, host: Machine, life: int) -> None:
        if host.life != life or host.node is None:
            return
        if self.now < host.paused_until:
            self.at(host.paused_until, self._apply_later, host, life)
            return
        host.applying = False
        self._apply(host)

    def _apply(self, host: Machine) -> None:
        """Execute what is committed and not yet executed."""
        state, node = host.running, host.alive
        written, commit = host.written, node.state.commit
        while state.index < commit:
            entry = written.get(state.index + 1)
            if entry is None:
                break  # it lies below a snapshot that is about to be installed
            applied = state.apply(entry)
            found = host.waiting.pop(entry.index, None)
            self.on_applied(host, entry, applied, found)
        host.applied = state.index
        self._serve(host)

    def _serve(self, host: Machine) -> None:
        while host.reading and host.reading[0][0] <= host.running.index:
            _, ticket = host.reading.pop(0)
            self.on_read(host, ticket)

    def on_applied(
        self, host: Machine, entry: Entry, applied: object, found: tuple[int, object] | None
    ) -> None:
        """Hook: an entry was executed; ``found`` is who waits for its index."""

    def on_read(self, host: Machine, ticket: int) -> None:
        """Hook: a read that was asked for under ``ticket`` may look at the state now."""

    def _answer(self, host: Host, answer: Answer) -> None:
        super()._answer(host, answer)
        if isinstance(answer, TailReady) and isinstance(host, Machine):
            host.reading.append((answer.index, answer.ticket))
            host.reading.sort()
            self._serve(host)

    def _durable(self, host: Host, life: int, ticket: int) -> None:
        if host.life != life or host.node is None or host.slow_disk:
            return
        self._land(host, ticket)
        if self.now < host.paused_until:
            self.at(host.paused_until, self._told, host, life, ticket)
        else:
            self._told(host, life, ticket)

    def _told(self, host: Host, life: int, ticket: int) -> None:
        if host.life != life or host.node is None:
            return
        if isinstance(host, Machine) and host.trimming and host.trimming[0] <= ticket:
            before, host.trimming = host.trimming[1], None
            host.durable.trim(min(before, host.durable.last + 1))
            host.written.trim(host.durable.base[0] + 1)
        super()._told(host, life, ticket)

    def write_ns(self, host: Host) -> int:
        usual = self.prng.between(self.disk_ms[0] * MS, self.disk_ms[1] * MS + 1)
        return usual + (host.slow_ns if isinstance(host, Machine) else 0)

    # --- network -------------------------------------------------------------------------------

    def send(self, host: Host, target: ReplicaId, message: AnyMessage) -> None:
        """Put a message on the network."""
        self.check.on_send(host, target, message)
        net, prng, sender = self.net, self.prng, host.replica
        if (sender, target) in net.cuts or (net.drop and prng.chance(net.drop, 1000)):
            return
        low, high = net.delay_ms
        spread = (high - low) * MS + 1
        self.at(self.now + low * MS + prng.below(spread), self.deliver, sender, target, message)
        if net.repeat and prng.chance(net.repeat, 1000):
            late = self.now + low * MS + prng.below(3 * spread)
            self.at(late, self.deliver, sender, target, message)

    def ask(self, replica: ReplicaId) -> int:
        ticket = self.ticket()
        self.check.asked[ticket] = len(self.check.committed)
        self.on_ask(ticket)
        self.step(replica, AskTail(ticket))
        return ticket

    def on_ask(self, ticket: int) -> None:
        """Hook: a read begins."""

    # --- snapshots -----------------------------------------------------------------------------

    def take_snapshot(self, replica: ReplicaId, *, trim: bool = True, chunks: int = 20) -> None:
        """Let a node snapshot what it has executed, and trim its log."""
        host = self.hosts[replica]
        if host.node is None or self.now < host.paused_until:
            return
        index = host.running.index
        term = host.node.state.log.term_at(index)
        newest = 0 if host.snapshot is None else host.snapshot.index
        if term is None or (index <= newest and not host.damaged) or index < newest:
            return
        host.saved = host.running.save(term, chunks)
        host.snapshot = host.saved.ref
        self.step(replica, SnapshotReady(host.snapshot))
        if trim and self.runs(replica) and host.trimming is None:
            hold = host.alive.hold_index  # as the engine does while it sends a snapshot
            before = index + 1 if hold is None else min(index + 1, hold)
            self.step(replica, Trim(LogIndex(before)))
            if host.pending:
                host.trimming = host.pending[-1].ticket, before

    def _transfer(self, host: Host, transfer: Transfer) -> None:
        if not isinstance(host, Machine):
            return
        if isinstance(transfer, ReceiveSnapshot):
            ref = transfer.ref
            if host.parts_of != ref.digest:
                host.parts, host.parts_of = [], ref.digest
                host.broken_off = host.resumed = False
            elif host.parts and host.broken_off:
                host.resumed = True
            self._later(host, ChunkStored(ref, len(host.parts)))
        elif isinstance(transfer, SendChunks):
            self._send_chunks(host, transfer)
        elif isinstance(transfer, InstallSnapshot):
            self._install(host, transfer)

    def _send_chunks(self, host: Machine, transfer: SendChunks) -> None:
        ref, target, saved = transfer.ref, transfer.target, host.saved
        if saved is None or saved.ref != ref or not saved.whole:
            # Not kept any more, or it does not read: the receiver is told to give it up.
            self._later(host, SnapshotFailed(ref))
            self.counts["chunk_gone"] += 1
            if saved is not None and saved.whole:
                self._later(host, SnapshotReady(saved.ref))
            if target in self.hosts and (host.replica, target) not in self.net.cuts:
                self._later(self.hosts[target], SnapshotFailed(ref))
            return
        link = host.replica, target
        for number in range(transfer.first, transfer.last + 1):
            free = max(self._bulk_free.get(link, 0), self.now) + self.chunk_ns
            self._bulk_free[link] = free
            self.at(free, self._chunk, host, host.life, target, saved, number)

    def _chunk(
        self, sender: Machine, life: int, target: ReplicaId, saved: Saved, number: int
    ) -> None:
        host = self.hosts.get(target)
        if host is None or host.node is None or host.parts_of != saved.ref.digest:
            return
        if sender.life != life or (sender.replica, target) in self.net.cuts:
            host.broken_off = True
        elif self.now < host.paused_until:
            self.at(host.paused_until, self._chunk, sender, life, target, saved, number)
        elif number == len(host.parts):
            host.parts.append(saved.chunk(number))
            self.step(target, ChunkStored(saved.ref, number + 1))

    def _install(self, host: Machine, transfer: InstallSnapshot) -> None:
        ref = transfer.ref
        saved = Saved(ref, b"".join(host.parts))
        if host.parts_of != ref.digest or len(host.parts) != ref.chunk_count:
            raise BrokenError(f"{host.replica} installs a snapshot that it has not received")
        host.parts, host.parts_of = [], b""
        if not saved.whole:
            raise BrokenError(f"{host.replica} received another snapshot than was offered")
        if host.snapshot is None or ref.index > host.snapshot.index:
            host.saved, host.snapshot = saved, ref
        if host.resumed:
            self.counts["snapshot_resumed"] += 1
        host.broken_off = host.resumed = False
        self.at(self.now + self.prng.below(2 * MS), self._installed, host, host.life, saved)

    def _installed(self, host: Machine, life: int, saved: Saved) -> None:
        if host.life != life or host.node is None:
            return
        if self.now < host.paused_until:
            self.at(host.paused_until, self._installed, host, life, saved)
            return
        self.counts["snapshot_installed"] += 1
        if saved.ref.index > host.running.index:
            host.running.load(saved)
            host.applied = host.running.index
        self.step(host.replica, SnapshotInstalled(saved.ref))
        if host.replica in self.hosts and host.node is not None:
            self._serve(host)

    # --- clocks --------------------------------------------------------------------------------

    def change_clock(self, replica: ReplicaId, *, rate_ppm: int = 0, jump_ns: int = 0) -> None:
        """Let a host's clock run at another rate, or jump forward."""
        host = self.hosts[replica]
        if host.clock is None:
            return
        host.clock.change(self.now, rate_ppm=rate_ppm, jump_ns=jump_ns)
        if host.wake_ns is not None:
            self._arm(host, host.wake_ns)

    # --- the end -------------------------------------------------------------------------------

    def mend(self) -> None:
        """Undo every fault that can be undone, and start what is down."""
        self.heal()
        for replica, host in list(self.hosts.items()):
            host.paused_until = host.slow_ns = 0
            host.disk_free_ns = self.now
            if host.node is None:
                self.start(replica)
            if replica in self.hosts:
                self.resume_disk(replica)
                self.step(replica, Wake())

    def settled(self) -> bool:
        """Return whether one leader leads members that all have executed everything."""
        leader = self.leader()
        if leader is None or not self.ready(leader):
            return False
        state = self.node(leader).state
        if state.config.joint or state.config_index > state.commit:
            return False
        if state.commit < state.log.last_index:
            return False
        for replica in state.config.everyone:
            host = self.hosts.get(replica)
            if host is None or host.node is None or host.running.index < state.commit:
                return False
        return True
