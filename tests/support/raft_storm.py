"""A random life of a Raft cluster, drawn from one seed: faults on, then healed.

``storm(seed)`` returns the cluster, or raises ``BrokenError`` (a checker), ``InvariantError``
(the node itself noticed). Repeat a failure with the same seed; nothing else takes part.
"""

from collections.abc import Callable
from dataclasses import dataclass

from outlast.kernel import NodeId, Prng, ReplicaId, replica_id
from outlast.log.api import Member
from outlast.log.engines.raft.core.node import RaftNode
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import (
    EntryKind,
    PersistStalled,
    Receive,
    Role,
    TransferNow,
)
from tests.support.raft_sim import MS, Cluster, ids

ACTIONS = (
    "propose", "read", "crash", "restart", "isolate", "one_way", "heal", "lost", "connect",
    "snapshot", "change", "transfer", "pause", "stall", "resume", "stand", "seal",
    "bounce", "feud", "betray",
)  # fmt: skip


@dataclass
class Options:
    """What a seed drew."""

    count: int
    delay_ms: tuple[int, int]
    drop: int
    repeat: int
    disk_ms: tuple[int, int]
    weights: dict[str, int]
    small: bool
    lease_reads: bool

    @classmethod
    def draw(cls, prng: Prng) -> "Options":
        """Draw options; some kinds of fault are switched off entirely (swarm testing)."""
        weights = {name: prng.below(4) if prng.chance(2, 3) else 0 for name in ACTIONS}
        weights["propose"] = 12
        weights["read"] = 3
        weights["restart"] = 2 * weights["crash"] + 1
        weights["heal"] = weights["isolate"] + weights["one_way"] + 1
        weights["resume"] = 2 * weights["stall"] + 1
        weights["connect"] = weights["lost"] + 1
        weights["seal"] = 0  # a sealed log takes no marker to converge on
        lease_reads = prng.chance(1, 4)
        if lease_reads:
            # Standing early would break the promise that a lease rests on.
            weights["stand"] = weights["feud"] = 0
        return cls(
            count=prng.choice((3, 3, 3, 4, 5)),
            delay_ms=(1, prng.choice((1, 3, 10, 30))),
            drop=prng.choice((0, 0, 20, 100)),
            repeat=prng.choice((0, 0, 30, 150)),
            disk_ms=(0, prng.choice((0, 1, 5, 20))),
            weights=weights,
            small=prng.chance(1, 3),
            lease_reads=lease_reads,
        )


class Storm:
    """One run."""

    def __init__(self, seed: int, make: Callable[..., RaftNode] = RaftNode) -> None:
        self.prng = Prng(seed)
        self.options = options = Options.draw(self.prng)
        settings = RaftSettings(lease_reads=options.lease_reads)
        if options.small:
            settings = RaftSettings(
                append_bytes_max=200, inflight_bytes_max=600, inflight_messages_max=3,
                entry_bytes_max=100, uncommitted_bytes_max=4000, cache_bytes_max=300,
                lease_reads=options.lease_reads,
            )  # fmt: skip
        self.voters = ids(options.count)
        self.pool = [replica_id(NodeId(f"n{i}"), 1) for i in range(1, 7)]
        self.cluster = Cluster(
            self.voters, seed=self.prng.bits64(), settings=settings, disk_ms=options.disk_ms,
            make=make,
        )  # fmt: skip
        self.serial = 0
        self._worsen()

    def _worsen(self) -> None:
        net = self.cluster.net
        net.delay_ms, net.drop, net.repeat = (
            self.options.delay_ms, self.options.drop, self.options.repeat,
        )  # fmt: skip

    def run(self, actions: int) -> Cluster:
        """Act ``actions`` times, then heal and require progress."""
        weighted = [name for name, n in self.options.weights.items() for _ in range(n)]
        for _ in range(actions):
            self.cluster.run(self.prng.choice((1, 3, 10, 40, 150)) / 1000)
            getattr(self, "do_" + self.prng.choice(weighted))()
        self.cluster.converge()
        return self.cluster

    def _any(self) -> ReplicaId | None:
        up = self.cluster.up()
        return self.prng.choice(up) if up else None

    def _leader_or_any(self) -> ReplicaId | None:
        leaders = [r for r in self.cluster.up() if self.cluster.node(r).role is Role.LEADER]
        return self.prng.choice(leaders) if leaders else self._any()

    def do_propose(self) -> None:
        target = self._leader_or_any()
        if target is not None:
            batch = []
            for _ in range(self.prng.choice((1, 1, 2, 5))):
                self.serial += 1
                batch.append(f"v{self.serial}".encode())
            self.cluster.propose(target, *batch)

    def do_seal(self) -> None:
        target = self._leader_or_any()
        if target is not None:
            self.serial += 1
            self.cluster.propose(target, f"s{self.serial}".encode(), kind=EntryKind.SEAL)

    def do_read(self) -> None:
        target = self._leader_or_any()
        if target is not None:
            self.cluster.ask(target)

    def do_crash(self) -> None:
        target = self._any()
        if target is not None:
            self.cluster.crash(target)
            if self.prng.chance(1, 2):
                for other in self.cluster.up():
                    self.cluster.lose_connection(other, target)

    def do_restart(self) -> None:
        down = [r for r, host in self.cluster.hosts.items() if host.node is None]
        if down:
            target = self.prng.choice(down)
            self.cluster.start(target)
            for other in self.cluster.up():
                if other != target:
                    self.cluster.connect(other, target)

    def do_isolate(self) -> None:
        target = self._any()
        if target is not None:
            self.cluster.isolate(target)

    def do_one_way(self) -> None:
        left, right = self._any(), self._any()
        if left is not None and right is not None and left != right:
            self.cluster.cut([left], [right], both=False)

    def do_heal(self) -> None:
        self.cluster.heal()
        self._worsen()

    def do_lost(self) -> None:
        left, right = self._any(), self._any()
        if left is not None and right is not None and left != right:
            self.cluster.lose_connection(left, right)

    def do_connect(self) -> None:
        left, right = self._any(), self._any()
        if left is not None and right is not None and left != right:
            self.cluster.connect(left, right)

    def do_snapshot(self) -> None:
        target = self._any()
        if target is not None:
            self.cluster.take_snapshot(target, trim=self.prng.chance(2, 3), chunks=12)

    def do_change(self) -> None:
        target = self.cluster.leader()
        if target is None:
            return
        chosen = [r for r in self.pool if self.prng.chance(3, 5)] or self.voters
        for replica in chosen:
            if replica not in self.cluster.hosts:
                self.cluster.add_host(replica, may_vote=False)
        learner = self.prng.choice(chosen) if len(chosen) > 2 else None
        self.cluster.change(target, [Member(r, f"{r}:1", r != learner) for r in chosen])

    def do_transfer(self) -> None:
        leader = self.cluster.leader()
        if leader is not None:
            voters = self.cluster.node(leader).state.config.voters
            self.cluster.transfer(leader, self.prng.choice(voters))

    def do_pause(self) -> None:
        target = self._any()
        if target is not None:
            pause = self.prng.choice((50, 300, 1500)) * MS
            self.cluster.hosts[target].paused_until = self.cluster.now + pause

    def do_stall(self) -> None:
        target = self._leader_or_any()
        if target is not None:
            self.cluster.hosts[target].slow_disk = True
            self.cluster.run(0.05)
            if self.cluster.hosts[target].node is not None:
                self.cluster.step(target, PersistStalled())

    def do_resume(self) -> None:
        for replica, host in self.cluster.hosts.items():
            if host.slow_disk and host.node is not None:
                self.cluster.resume_disk(replica)

    def do_stand(self) -> None:
        target = self._any()
        if target is not None and self.cluster.node(target).role is Role.FOLLOWER:
            node = self.cluster.node(target)
            node.state.election.election_at = self.cluster.now

    def do_bounce(self) -> None:
        target = self._any()
        if target is not None:
            self.cluster.crash(target)
            self.cluster.start(target)

    def do_feud(self) -> None:
        """Two nodes stand for the same term while a voter restarts in the middle."""
        up = [r for r in self.cluster.up() if self.cluster.node(r).role is not Role.LEADER]
        if len(up) < 2:
            return
        self.prng.shuffle(up)
        for replica in up[:2]:
            node = self.cluster.node(replica)
            if node.leader is not None:  # as if its leader had asked it to
                self.cluster.step(replica, Receive(node.leader, TransferNow(node.term)))
        self.cluster.run(self.prng.choice((2, 4, 8)) / 1000)
        self.do_bounce()

    def do_betray(self) -> None:
        """Cut a leader off while it hands over, commit elsewhere, and read from it."""
        leader = self.cluster.leader()
        if leader is None:
            return
        voters = self.cluster.node(leader).state.config.voters
        self.cluster.transfer(leader, self.prng.choice(voters))
        self.cluster.run(0.0005)
        self.cluster.cut([r for r in self.cluster.hosts if r != leader], [leader], both=False)
        self.cluster.run(self.prng.choice((10, 30, 100)) / 1000)
        self.do_propose()
        self.cluster.run(0.02)
        if leader in self.cluster.up():
            self.cluster.ask(leader)


def storm(seed: int, *, actions: int = 120, make: Callable[..., RaftNode] = RaftNode) -> Cluster:
    """Run one seed."""
    return Storm(seed, make).run(actions)
