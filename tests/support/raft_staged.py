"""Lives in which the rare constellations of the papers are set up on purpose, again and again.

A :class:`~tests.support.raft_tempest.Tempest` meets figure 8 of the Raft paper, a split vote with
repeated answers, or an election in the middle of a joint change once in thousands of seeds. Here
each life plays such scenes, at random times and among ordinary faults, so that the rules which
only they need are put to the test. The checks are the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from outlast.kernel import NodeId, ReplicaId, node_of, replica_id
from outlast.log.api import Member
from outlast.log.engines.raft.core.node import RaftNode
from outlast.log.engines.raft.core.types import (
    Accepted,
    PeerLost,
    ProposeMembers,
    Receive,
    Role,
    TransferNow,
    Wake,
)
from tests.support.raft_clients import ClientCluster
from tests.support.raft_disk import BrokenError
from tests.support.raft_tempest import Tempest

STAGED = (
    "figure_eight", "split_vote", "joint_split", "stale_tail", "late_answers",
    "outdated_change", "crash_at_install",
)  # fmt: skip
_WITH_LEASES = ("late_answers", "broken_promise", "outdated_change", "crash_at_install")
"""The others let nodes stand early, which breaks what a lease rests on."""
_TICK = 0.0005


class Staged(Tempest):
    """A tempest with staged scenes; one third of what happens is one of them."""

    def __init__(
        self, seed: int, make: Callable[..., RaftNode] = RaftNode, *, watch: bool = True
    ) -> None:
        super().__init__(seed, make, watch=watch)
        self.extra = replica_id(NodeId("n7"), 1)
        weights = self.options.weights
        scenes = _WITH_LEASES if self.options.lease_reads else STAGED
        drawn = [name for name in scenes if self.prng.chance(2, 3)] or [self.prng.choice(scenes)]
        share = max(1, sum(weights.values()) // (2 * len(drawn)))
        weights.update(dict.fromkeys(drawn, share))
        if "figure_eight" in drawn:
            weights["figure_eight"] += share
            self._shorten_messages()

    def _shorten_messages(self) -> None:
        """Let old entries and the first one of a new term travel apart, as figure 8 needs."""
        cluster = self.cluster
        cluster.settings = replace(
            cluster.settings, append_bytes_max=400, inflight_bytes_max=900, inflight_messages_max=3
        )
        for replica in cluster.up():
            cluster.crash(replica)
            cluster.start(replica)

    # --- what scenes are made of ---------------------------------------------------------------

    def _voters(self) -> tuple[ReplicaId, list[ReplicaId]] | None:
        """Return the leader and the other voters that run, if all is calm enough to begin."""
        cluster = self.cluster
        self.do_heal()
        cluster.net.delay_ms, cluster.net.drop = (1, 2), 0
        leader = cluster.leader()
        if leader is None or not self._up(leader):
            return None
        state = cluster.node(leader).state
        if state.role is not Role.LEADER or state.config.joint:
            return None
        voters = state.config.voters
        others = [r for r in voters if r != leader and self._up(r)]
        if leader not in voters or 2 * (len(others) + 1) <= len(voters) or len(others) < 2:
            return None
        self.prng.shuffle(others)
        return leader, others

    def _fill(self, leader: ReplicaId) -> None:
        """Append what needs several messages."""
        for _ in range(10):
            if self._up(leader):
                self.cluster.tick(leader)

    def _stand(self, replica: ReplicaId, *, asked: bool) -> None:
        """Let a node stand now: as if its leader had asked, or out of impatience."""
        if not self._up(replica):
            return
        node = self.cluster.node(replica)
        if asked and node.leader is not None and node.leader != replica:
            self.cluster.step(replica, Receive(node.leader, TransferNow(node.term)))
        elif node.role is not Role.LEADER:
            node.state.election.election_at = node.state.now
            self.cluster.step(replica, Wake())

    def _until(self, seconds: float, reached: Callable[[], bool]) -> bool:
        """Let time pass in small steps; return whether ``reached`` became true."""
        end = self.cluster.now + round(seconds * 1e9)
        while self.cluster.now < end:
            if reached():
                return True
            self.cluster.run(_TICK)
        return reached()

    def _leads(self, replica: ReplicaId) -> bool:
        return self._up(replica) and self.cluster.node(replica).role is Role.LEADER

    def _rest(self, *named: ReplicaId) -> list[ReplicaId]:
        return [r for r in self.cluster.hosts if r not in named]

    def _apart(self, group: Sequence[ReplicaId]) -> None:
        """Cut a group off from all others, on an otherwise good network."""
        self.cluster.heal()
        self.cluster.net.delay_ms = (1, 2)
        self.cluster.cut(group, self._rest(*group))

    # --- scenes --------------------------------------------------------------------------------

    def do_figure_eight(self) -> None:
        """Paper figure 8: an entry of an old term on a majority, and another that replaces it."""
        cluster, cast = self.cluster, self._voters()
        if cast is None:
            return
        first, others = cast
        second, witness = others[0], others[1:]
        cluster.isolate(first)
        self._fill(first)
        cluster.run(0.03)
        self._stand(second, asked=True)
        if not self._until(0.2, lambda: self._leads(second)):
            return
        cluster.isolate(second)
        cluster.run(0.03)
        if not self._up(first):
            return
        self._apart([second])
        old = cluster.node(first).last_index
        cluster.run(0.01)
        for _ in range(self.prng.between(1, 3)):
            self._stand(first, asked=False)
            if self._until(0.1, lambda: self._leads(first)):
                break
        self._until(0.1, lambda: any(self._reaches(r, old) for r in witness))
        if self.prng.chance(4, 5):
            cluster.cut([first], witness, both=False)
        self._run(5, 20)
        if self._up(first):
            self._apart([first])
        cluster.run(0.55)  # until the witness has forgotten the leader that it heard last
        for _ in range(3):
            if not self._leads(second):
                self._stand(second, asked=False)
            if self._until(0.2, lambda: self._leads(second)):
                break
        self._run(10, 40)

    def _reaches(self, replica: ReplicaId, index: int) -> bool:
        """Whether most of what lies before ``index`` has come."""
        return self._up(replica) and self.cluster.node(replica).durable_index >= index - 4

    def do_split_vote(self) -> None:
        """Two stand for one term, each with half of the voters, and every answer comes twice."""
        cluster, cast = self.cluster, self._voters()
        if cast is None:
            return
        leader, others = cast
        everyone = [leader, *others]
        half = len(everyone) // 2
        one, two = others[0], others[-1]
        left = [one, *[r for r in everyone if r not in (one, two)][: half - 1]]
        self._apart(left)
        cluster.net.repeat = 1000
        for replica in (one, two) if self.prng.chance(1, 2) else (two, one):
            self._stand(replica, asked=True)
        self._run(5, 20)
        self.do_propose()
        self._run(5, 20, 80)

    def do_joint_split(self) -> None:
        """Cut the old members off from the new ones in the middle of a change; both decide."""
        cluster, cast = self.cluster, self._voters()
        if cast is None or any(host.damaged for host in cluster.hosts.values()):
            return
        leader, others = cast
        voters = cluster.node(leader).state.config.voters
        if any(r not in cluster.hosts for r in voters):
            return
        fresh = [r for r in map(self._replica_of, self.pool) if r is not None and r not in voters]
        fresh = fresh[:3]
        if len(fresh) < 2:
            return
        kept = others[: self.prng.below(len(fresh))]
        new = [*fresh, *kept]
        old = [r for r in voters if r not in new and r != leader]
        members = [Member(r, f"{r}:1", True) for r in new]
        cluster.change(leader, members)
        if not self._until(1.5, lambda: self._is_joint(leader, tick=True)):
            return
        cluster.cut([leader, *new], old, both=False)  # answers that are under way still come
        cluster.run(0.005)
        how = self.prng.below(3)
        if how == 0:
            self._apart(new)
        else:
            self._apart([leader, *new])
        if how == 2 and self._leads(leader):
            learner = self._replica_of(self.extra)
            if learner is not None:
                cluster.change(leader, [*members, Member(learner, f"{learner}:1", True)])
        self._run(1, 3)
        candidates = [*fresh[: how == 0], *old[:1]]
        self.prng.shuffle(candidates)
        for replica in candidates:
            self._stand(replica, asked=True)
        self._run(5, 20)
        self.do_propose()
        if self._leads(leader):
            cluster.tick(leader)
        self._run(5, 20, 80)

    def _replica_of(self, first: ReplicaId) -> ReplicaId | None:
        """Return the replica of a node that has a disk; the first one is made."""
        known = self.cluster.replica_of(node_of(first))
        if known is None and first not in self.cluster.check.gone:
            self.cluster.add_host(first, may_vote=False)
            known = first
        return known

    def _is_joint(self, leader: ReplicaId, *, tick: bool = False) -> bool:
        if tick and self._leads(leader):  # so that something older is always under way
            self.cluster.tick(leader)
        return not self._leads(leader) or self.cluster.node(leader).state.config.joint

    def do_outdated_change(self) -> None:
        """Ask for members on the ground of a version that is over."""
        cluster, cast = self.cluster, self._voters()
        if cast is None:
            return
        leader, others = cast
        version = cluster.node(leader).membership.version
        ticket = cluster.ticket()
        members = tuple(Member(r, f"{r}:1", True) for r in (leader, *others))
        cluster.step(leader, ProposeMembers(ticket, members, version - 1))
        cluster.run(0.1)
        if cluster.done(ticket):
            message = f"members: a change made for version {version - 1} was taken at {version}"
            raise BrokenError(message)

    def do_crash_at_install(self) -> None:
        """A new member restarts between the install of its snapshot and what follows."""
        cluster, cast = self.cluster, self._voters()
        if cast is None or any(host.damaged for host in cluster.hosts.values()):
            return
        leader, _ = cast
        membership = cluster.node(leader).membership
        known = {member.replica for member in membership.members}
        found = [r for r in map(self._replica_of, self.pool) if r is not None and r not in known]
        if not found or known - set(cluster.hosts):
            return
        victim = self.prng.choice(found)
        for replica in cluster.up():
            cluster.take_snapshot(replica, chunks=2)
        cluster.run(0.03)
        if not self._leads(leader):
            return
        cluster.change(leader, [*membership.members, Member(victim, f"{victim}:1", False)])
        if self._until(0.5, lambda: not self._up(victim) or self._installs(victim)):
            if self._up(victim):
                cluster.crash(victim)
            self._run(1, 10)
            if victim in cluster.hosts and cluster.hosts[victim].node is None:
                cluster.start(victim)
        self._run(40, 120)

    def _installs(self, replica: ReplicaId) -> bool:
        return self.cluster.node(replica).state.snapshots.installing

    def do_stale_tail(self) -> None:
        """A follower has what its leader lost; the next leader's messages to it get lost too."""
        cluster, cast = self.cluster, self._voters()
        if cast is None:
            return
        leader, others = cast
        keeper, rest = others[0], others[1:]
        cluster.cut([leader], rest)
        host = cluster.hosts[leader]
        host.slow_disk = True
        self._fill(leader)
        cluster.run(0.03)
        if not self._up(leader):
            return
        cluster.crash(leader)
        cluster.start(leader)
        self._apart([keeper])
        winner = self.prng.choice(rest)
        self._stand(winner, asked=True)
        if not self._until(0.3, lambda: self._leads(winner)):
            self._stand(winner, asked=False)
            if not self._until(0.3, lambda: self._leads(winner)):
                return
        cluster.heal()
        cluster.net.delay_ms, cluster.net.drop = (0, 2), self.prng.choice((0, 500, 800))
        for other in cluster.up():
            cluster.connect(winner, other)
        for _ in range(self.prng.between(1, 12)):
            if self._leads(winner):
                cluster.tick(winner)
            self._run(3, 10, 40)

    def do_late_answers(self) -> None:
        """A leader hears the answers to a round late, is cut off, and is read from."""
        cluster, cast = self.cluster, self._voters()
        if cast is None:
            return
        leader, _ = cast
        if not self._until(0.2, lambda: self._has_begun_a_round(leader)):
            return
        self._pause(leader, self.prng.choice((95, 150, 250)))
        cluster.run(0.003)
        self._run(95, 150, 250)
        self._until(0.3, lambda: self._up(leader))
        cluster.run(0.0015)
        cluster.isolate(leader)
        for replica in cluster.up():
            election = cluster.node(replica).state.election
            if replica != leader and self._up(replica):
                earliest = election.heard_ns + election.state.timeout_ns
                election.election_at = min(election.election_at, earliest)
                cluster.step(replica, Wake())
        self._run(100, 200)
        self._read_from(leader, 350)

    def do_broken_promise(self) -> None:
        """Followers lose the connection from a leader with a lease; it is read from all the while.

        They promised not to vote against it, and a broken connection takes nothing of that back.
        """
        cluster, cast = self.cluster, self._voters()
        if cast is None:
            return
        leader, others = cast
        self._until(0.3, lambda: self._leads(leader) and cluster.node(leader).state.reads.leased())
        cluster.isolate(leader)
        for replica in others:
            if self._up(replica):
                cluster.step(replica, PeerLost(leader))
        self._read_from(leader, 300)

    def do_seal(self) -> None:
        """Two seals one shortly after the other, and what is wanted behind them."""
        super().do_seal()
        self._run(1, 1, 3)
        super().do_seal()

    def do_propose(self) -> None:
        """Write; and once the log is sealed, see that it takes nothing more."""
        super().do_propose()
        leader = self.cluster.leader()
        if leader is None or not self._up(leader) or self.cluster.node(leader).sealed is None:
            return
        ticket = self.cluster.propose(leader, b"late")[0]
        found = self.cluster.answers.get(ticket, [])
        if any(isinstance(answer, Accepted) for answer in found):
            message = f"seal: {leader} is sealed and accepted one more entry"
            raise BrokenError(message)

    def _has_begun_a_round(self, leader: ReplicaId) -> bool:
        """Whether the leader has just sent a round that nobody can have answered yet."""
        if not self._leads(leader):
            return False
        state = self.cluster.node(leader).state
        starts = state.reads.starts
        return bool(starts) and state.now - starts[-1][1] < 1_000_000


def staged(
    seed: int,
    *,
    actions: int = 60,
    make: Callable[..., RaftNode] = RaftNode,
    watch: bool = True,
) -> ClientCluster:
    """Run one seed to its end; errors as of :func:`tests.support.raft_tempest.tempest`."""
    return Staged(seed, make, watch=watch).run(actions)
