"""A random life of a whole cluster with state, sessions and clients, drawn from one seed.

``tempest(seed)`` is to ``raft_storm.storm`` what a machine is to a protocol: disks are lost and
rot, clocks drift and jump, logs are sealed, replicas come back as other replicas. Some scenes
are played on purpose, with random times, because chance alone rarely sets them up.
"""

from collections.abc import Callable

from outlast.kernel import NodeId, Prng, ReplicaId, node_of, replica_id
from outlast.log.api import Member
from outlast.log.engines.raft.core.node import RaftNode
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import EntryKind, PersistStalled, Role, Wake
from tests.support.raft_clients import ClientCluster
from tests.support.raft_machines import MS
from tests.support.raft_options import Options
from tests.support.raft_sim import ids
from tests.support.raft_storm import Storm


class Tempest(Storm):
    """One run."""

    cluster: ClientCluster
    drawn: Options

    def __init__(
        self, seed: int, make: Callable[..., RaftNode] = RaftNode, *, watch: bool = True
    ) -> None:
        self.prng = Prng(seed)
        options = self.options = self.drawn = Options.draw(self.prng)  # type: ignore[assignment]
        settings = RaftSettings(lease_reads=options.lease_reads)
        if options.small:
            settings = RaftSettings(
                append_bytes_max=400, inflight_bytes_max=900, inflight_messages_max=3,
                entry_bytes_max=120, uncommitted_bytes_max=4000, cache_bytes_max=300,
                lease_reads=options.lease_reads,
            )  # fmt: skip
        drawn = self.drawn
        self.voters = ids(options.count)
        self.pool = [replica_id(NodeId(f"n{i}"), 1) for i in range(1, 7)]
        self.cluster = ClientCluster(
            self.voters, seed=self.prng.bits64(), settings=settings, disk_ms=options.disk_ms,
            make=make, watch=watch, limits=drawn.limits, apply_ms=drawn.apply_ms,
            drift_ppm=drawn.drift_ppm, clients=drawn.clients, reply_loss=drawn.reply_loss,
            keyed=drawn.keyed, per_entry=drawn.per_entry,
        )  # fmt: skip
        self.cluster.chunk_ns = drawn.chunk_ns
        self.serial = 0
        self._worsen()

    def run(self, actions: int) -> ClientCluster:
        """Act ``actions`` times, then heal and require progress."""
        cluster, prng = self.cluster, self.prng
        weighted = [name for name, n in self.options.weights.items() for _ in range(n)]
        seal_at = prng.between(actions // 2, actions - 1) if self.drawn.seals else -1
        for number in range(actions):
            cluster.run(prng.choice((1, 3, 10, 40, 120)) / 1000)
            cluster.act()
            cluster.tend()
            if number == seal_at:
                self.do_seal()
            getattr(self, "do_" + prng.choice(weighted))()
        cluster.converge()
        return cluster

    def _up(self, replica: ReplicaId | None) -> bool:
        """Whether a replica is still there and runs, unpaused."""
        host = None if replica is None else self.cluster.hosts.get(replica)
        return host is not None and host.node is not None and self.cluster.now >= host.paused_until

    def _run(self, *choices: int) -> None:
        self.cluster.run(self.prng.choice(choices) / 1000)

    # --- the same as in a storm, with a state -------------------------------------------------

    def do_propose(self) -> None:
        self.cluster.write(self.prng.choice((1, 1, 2, 5)))

    def do_read(self) -> None:
        target = self._leader_or_any()
        if target is not None:
            self.cluster.ask(target)

    def do_snapshot(self) -> None:
        target = self._any()
        if target is not None:
            trim = self.prng.chance(2, 3)
            self.cluster.take_snapshot(target, trim=trim, chunks=self.drawn.chunks)

    def do_change(self) -> None:
        cluster = self.cluster
        leader = cluster.leader()
        damaged = any(host.damaged for host in cluster.hosts.values())
        if leader is None or not self._up(leader) or damaged:
            return
        if any(m.replica not in cluster.hosts for m in cluster.node(leader).membership.members):
            return  # first the one that lost its disk comes back
        chosen = []
        for first in self.pool:
            if self.prng.chance(3, 5):
                replica = cluster.replica_of(node_of(first))
                if replica is None and first not in cluster.check.gone:
                    cluster.add_host(first, may_vote=False)
                    replica = first
                if replica is not None:
                    chosen.append(replica)
        if not chosen:
            return
        learner = self.prng.choice(chosen) if len(chosen) > 2 else None
        cluster.change(leader, [Member(r, f"{r}:1", r != learner) for r in chosen])

    def do_transfer(self) -> None:
        if self._up(self.cluster.leader()):
            super().do_transfer()

    def do_stall(self) -> None:
        target = self._leader_or_any()
        if target is not None:
            self.cluster.hosts[target].slow_disk = True
            self.cluster.run(0.05)
            if self._up(target):
                self.cluster.step(target, PersistStalled())

    def do_betray(self) -> None:
        leader = self.cluster.leader()
        if not self._up(leader) or leader is None:
            return
        voters = self.cluster.node(leader).state.config.voters
        self.cluster.transfer(leader, self.prng.choice(voters))
        self.cluster.run(0.0005)
        self.cluster.cut([r for r in self.cluster.hosts if r != leader], [leader], both=False)
        self._run(10, 30, 100)
        self.do_propose()
        self.cluster.run(0.02)
        if self._up(leader):
            self.cluster.ask(leader)

    # --- damage --------------------------------------------------------------------------------

    def do_wipe(self) -> None:
        target = self.prng.choice(list(self.cluster.hosts))
        if self.cluster.may_damage(target):
            self.cluster.bury(target, "wiped")

    def do_rot(self) -> None:
        """Flip a bit of an entry that is durable, and not the last: that one is testified to."""
        target = self.prng.choice(list(self.cluster.hosts))
        host = self.cluster.hosts[target]
        if len(host.durable.entries) > 1 and self.cluster.may_damage(target):
            host.rotten.append(self.prng.choice(host.durable.entries[:-1]))
            self.cluster.counts["rotted"] += 1

    def do_rot_snapshot(self) -> None:
        target = self.prng.choice(list(self.cluster.hosts))
        host = self.cluster.hosts[target]
        if host.saved is not None and self.cluster.may_damage(target):
            body = bytearray(host.saved.body)
            body[self.prng.below(len(body))] ^= 1 << self.prng.below(8)
            host.saved = type(host.saved)(host.saved.ref, bytes(body))
            self.cluster.counts["snapshot_rotted"] += 1

    def do_drift(self) -> None:
        """Let a clock run faster or slower; with leases, within what they allow for."""
        bound = self.drawn.drift_ppm
        target = self._any()
        if target is not None and bound:
            rate = 1_000_000 + self.prng.between(-bound, bound)
            self.cluster.change_clock(target, rate_ppm=rate)
            self.cluster.counts["drifted"] += 1

    def do_jump(self) -> None:
        target = self._any()
        if target is not None:
            self.cluster.change_clock(target, jump_ns=self.prng.choice((100, 700, 5000)) * MS)
            self.cluster.hosts[target].wall_ns = self.prng.between(-(10**12), 10**12)
            self.cluster.counts["jumped"] += 1

    def do_slow_disk(self) -> None:
        target = self._any()
        if target is not None:
            slow = self.prng.choice((0, 20, 100, 400)) * MS
            self.cluster.hosts[target].slow_ns = slow
            self.cluster.counts["slowed"] += 1

    def do_role(self) -> None:
        leader = self.cluster.leader()
        if leader is not None and self._up(leader):
            self.cluster.hold_role(leader)

    def do_tick(self) -> None:
        leader = self.cluster.leader()
        if leader is not None and self._up(leader):
            self.cluster.tick(leader)

    # --- scenes --------------------------------------------------------------------------------

    def do_starve(self, *, hand_over: bool = False) -> None:
        """Leave one behind until the log that it needs is trimmed everywhere, then let it back."""
        cluster = self.cluster
        victim, leader = self._any(), cluster.leader()
        if victim is None or leader is None or victim == leader:
            return
        cluster.isolate(victim)
        for _ in range(self.prng.between(2, 5)):
            self.do_propose()
            self._run(10, 40)
        if hand_over and self._up(leader):
            voters = [v for v in cluster.node(leader).state.config.voters if v != victim]
            cluster.transfer(leader, self.prng.choice(voters or [leader]))
            self._run(40, 120, 300)
        for replica in cluster.up():
            if replica != victim:
                cluster.take_snapshot(replica, chunks=self.drawn.chunks)
        self._run(10, 40)
        self.do_heal()
        for replica in cluster.up():
            if victim in cluster.up() and replica != victim:
                cluster.connect(replica, victim)
        end = cluster.now + 200 * MS
        while cluster.now < end and not self._is_receiving(victim):
            self._run(3)
        if self.prng.chance(7, 8):
            self.do_break_off()

    def _is_receiving(self, replica: ReplicaId) -> bool:
        host = self.cluster.hosts.get(replica)
        return host is not None and bool(host.parts)

    def do_ahead(self) -> None:
        """Let a state be saved whose entries are not yet durable in its own log, and cut power."""
        cluster = self.cluster
        victim, leader = self._any(), cluster.leader()
        if victim is None or leader is None or victim == leader:
            return
        cluster.hosts[victim].slow_disk = True
        if self.prng.chance(2, 3):
            self.do_change()
        self.do_propose()
        self._run(10, 40, 120)
        self.do_propose()
        self._run(40, 120)
        if victim not in cluster.up():
            return
        cluster.take_snapshot(victim, trim=False, chunks=self.drawn.chunks)
        self._run(1, 10)
        cluster.crash(victim)
        cluster.hosts[victim].slow_disk = False
        if cluster.hosts[victim].saved is not None:
            cluster.counts["saved_ahead"] += 1
        cluster.start(victim)

    def do_break_off(self) -> None:
        """Interrupt a snapshot on its way: crash either side, or cut the line."""
        cluster = self.cluster
        found = [r for r in cluster.up() if cluster.hosts[r].parts]
        if not found:
            return
        victim, leader = self.prng.choice(found), cluster.leader()
        how = self.prng.below(3)
        if how == 0 or leader is None or leader == victim:
            cluster.crash(victim)
            self._run(10, 100)
            if victim in cluster.hosts and cluster.hosts[victim].node is None:
                cluster.start(victim)
        elif how == 1:
            cluster.crash(leader)
            self._run(10, 100)
            if leader in cluster.hosts and cluster.hosts[leader].node is None:
                cluster.start(leader)
        else:
            cluster.cut([leader], [victim])
            self._run(10, 100)
            self.do_heal()
        others = [r for r in cluster.up() if r != victim]
        if victim in cluster.up():
            for replica in others:
                cluster.connect(replica, victim)
        self._run(10, 100, 400)

    def do_failover(self) -> None:
        """Lose the answers of a leader, and the leader: the next one is asked again."""
        cluster = self.cluster
        leader = cluster.leader()
        if leader is None:
            return
        loss, cluster.reply_loss = cluster.reply_loss, 1000
        self.do_propose()
        self._run(10, 40, 40)
        cluster.reply_loss = loss
        if leader not in cluster.up():
            return
        how = self.prng.below(3)
        if how == 0:
            cluster.crash(leader)
        elif how == 1:
            cluster.isolate(leader)
        else:
            self._pause(leader, 1500)

    def do_change_in_cut(self) -> None:
        """Change the members while one of them, or the leader, cannot be reached."""
        cluster = self.cluster
        leader, victim = cluster.leader(), self._any()
        if leader is None or victim is None:
            return
        if self.prng.chance(1, 4):
            cluster.isolate(victim)
        else:
            others = [r for r in cluster.hosts if r not in (leader, victim)]
            if victim == leader or not others:
                return
            cluster.isolate(victim)
        before = self._version()
        self.do_change()
        if self.prng.chance(1, 3):
            self._run(3, 10, 40)
            if leader in cluster.up():
                cluster.crash(leader)
        self._run(40, 120, 300)
        if cluster.net.cuts and self._version() > before:
            cluster.counts["change_in_cut"] += 1

    def _version(self) -> int:
        """Return the version of the newest committed members."""
        nodes = [self.cluster.node(r).state for r in self.cluster.up()]
        return max((s.config_at(s.commit).version for s in nodes), default=0)

    def do_pause(self) -> None:
        target = self._any()
        if target is not None:
            self._pause(target, self.prng.choice((50, 300, 1500)))

    def _pause(self, target: ReplicaId, ms: int) -> None:
        host = self.cluster.hosts[target]
        host.paused_until = max(host.paused_until, self.cluster.now + ms * MS)

    def do_lease_pause(self) -> None:
        """Pause a leader beyond its lease, let others go on, and read from it when it wakes."""
        cluster = self.cluster
        leader = cluster.leader()
        if leader is None or not self._up(leader):
            return
        node = cluster.node(leader)
        state, life = node.state, cluster.hosts[leader].life
        if state.role is not Role.LEADER or not state.reads.leased():
            return
        term = state.term
        self._pause(leader, self.prng.choice((470, 900, 1500)))

        def awake() -> None:
            host = cluster.hosts.get(leader)
            if host is None or host.life != life or host.node is None:
                return
            if cluster.now < host.paused_until:
                return
            ticket = cluster.ask(leader)
            served = cluster.answer(ticket) is not None
            newer = any(at > term for at in cluster.check.leaders)
            if not served and (newer or not state.reads.leased()):
                cluster.counts["lease_lost"] += 1

        cluster.at(cluster.hosts[leader].paused_until, awake)
        self._run(300, 600, 900)
        self.do_propose()
        self._run(10, 40, 300, 700)

    def do_lease_edge(self) -> None:
        """Cut a leader with the slowest clock allowed off from others with the fastest.

        The others stand as early as they may; all the while somebody reads from the old leader.
        """
        cluster, bound = self.cluster, self.drawn.drift_ppm
        leader = cluster.leader()
        if leader is None or not self._up(leader) or not bound:
            return
        for replica in cluster.up():
            rate = 1_000_000 + (-bound if replica == leader else bound)
            cluster.change_clock(replica, rate_ppm=rate)
        self.do_heal()
        cluster.net.delay_ms, cluster.net.drop = (0, 1), 0
        self._run(150, 200, 250)
        if not self._up(leader) or cluster.node(leader).role is not Role.LEADER:
            return
        cluster.isolate(leader)
        for replica in cluster.up():
            election = cluster.node(replica).state.election
            if replica != leader:  # the earliest that it could have drawn
                earliest = election.heard_ns + election.state.timeout_ns
                election.election_at = min(election.election_at, earliest)
                cluster.step(replica, Wake())
        cluster.run(0.4)
        self._read_from(leader, 150)
        self._worsen()

    def do_lease_restart(self) -> None:
        """A voter that promised a lease restarts beside one that never did."""
        cluster = self.cluster
        leader = cluster.leader()
        if leader is None or not self._up(leader):
            return
        others = [r for r in cluster.node(leader).state.config.voters if r != leader]
        others = [r for r in others if r in cluster.up()]
        if len(others) < 2:
            return
        self.prng.shuffle(others)
        self.do_heal()
        cluster.net.delay_ms, cluster.net.drop = (0, 1), 0
        cluster.cut([leader], others[:1])
        self._run(600, 900, 1100)
        for replica in others[1:]:
            if replica in cluster.up():
                cluster.crash(replica)
                cluster.start(replica)
        cluster.cut([leader], others)
        self._read_from(leader, 100)
        self._worsen()

    def _read_from(self, old: ReplicaId, ms: int) -> None:
        """Read from ``old`` each millisecond while others write to whoever else leads."""
        cluster = self.cluster
        for _ in range(ms):
            cluster.run(0.001)
            newer = cluster.leader()
            if newer is not None and newer != old and self._up(newer):
                cluster.write(1)
            if self._up(old):
                cluster.ask(old)

    def do_seal(self) -> None:
        target = self._leader_or_any()
        if target is not None:
            self.serial += 1
            self.cluster.propose(target, f"s{self.serial}".encode(), kind=EntryKind.SEAL)
            self.cluster.counts["seal_tried"] += 1
            if self.prng.chance(3, 4):
                self.cluster.run(self.prng.below(4 * self.drawn.delay_ms[1] + 8) / 1000)
                self.do_starve(hand_over=True)


def tempest(
    seed: int,
    *,
    actions: int = 100,
    make: Callable[..., RaftNode] = RaftNode,
    watch: bool = True,
) -> ClientCluster:
    """Run one seed."""
    return Tempest(seed, make, watch=watch).run(actions)
