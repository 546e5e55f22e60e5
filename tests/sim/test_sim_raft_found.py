"""What random lives of the whole cluster found, each in the fewest steps that show it."""

from outlast.kernel import Prng
from outlast.log.api import Member
from outlast.log.engines.raft.core.types import EntryKind
from tests.support.raft_full import FullCluster
from tests.support.raft_sim import Cluster, ids

A, B, C, D = ids(4)


def test_a_learner_that_has_everything_becomes_a_voter_in_an_idle_log() -> None:
    cluster = Cluster([A, B, C], learners=[D])
    cluster.elect(A)
    cluster.run(1)
    ticket = cluster.change(A, [Member(r, f"{r}:1") for r in (A, B, C, D)])
    cluster.run(1)
    assert cluster.done(ticket)


def test_a_learner_that_does_not_answer_is_not_made_a_voter() -> None:
    cluster = Cluster([A, B, C], learners=[D])
    cluster.elect(A)
    cluster.run(1)
    cluster.isolate(D)
    ticket = cluster.change(A, [Member(r, f"{r}:1") for r in (A, B, C, D)])
    cluster.run(2)
    assert cluster.answer(ticket) is None


def test_a_seal_that_was_not_committed_here_is_no_obstacle_after_a_snapshot() -> None:
    cluster = Cluster([A, B, C])
    cluster.elect(A)
    cluster.drop = lambda sender, target, message: (
        C in (sender, target) and bool(getattr(message, "commit", 0) >= cluster.node(A).commit > 1)
    )
    cluster.propose(A, b"seal", kind=EntryKind.SEAL)
    cluster.run(0.02)
    assert cluster.node(C).state.seals
    assert cluster.node(C).sealed is None
    cluster.isolate(C)
    cluster.transfer(A, B)
    assert cluster.run(2, until=lambda: cluster.ready(B))  # its no-op follows the seal
    cluster.take_snapshot(A)
    cluster.take_snapshot(B)
    cluster.heal()
    assert cluster.run(3, until=lambda: cluster.node(C).sealed is not None)
    cluster.transfer(B, A)
    assert cluster.run(2, until=lambda: cluster.ready(A))
    assert cluster.run(2, until=lambda: cluster.node(C).commit == cluster.node(A).commit)
    assert cluster.node(C).sealed == cluster.node(A).sealed


def test_a_state_ahead_of_its_own_log_does_not_bring_back_former_members() -> None:
    cluster = FullCluster([A, B, C], seed=3)
    cluster.elect(A)
    cluster.run(0.2)
    cluster.hosts[C].slow_disk = True
    ticket = cluster.change(A, [Member(A, "a"), Member(B, "b"), Member(C, "c", voter=False)])
    assert cluster.run(2, until=lambda: cluster.done(ticket))
    assert cluster.run(2, until=lambda: cluster.node(C).commit == cluster.node(A).commit)
    cluster.take_snapshot(C, trim=False)
    host = cluster.hosts[C]
    assert host.snapshot is not None
    cluster.prng = Prng(_seed_that_loses_all(len(host.pending)))
    cluster.crash(C)
    assert host.durable.last < host.snapshot.index
    cluster.start(C)
    node = cluster.node(C)
    assert node.commit < node.last_index + 1 <= host.snapshot.index
    host.slow_disk = False
    assert cluster.run(2, until=lambda: cluster.node(C).commit == cluster.node(A).commit)
    assert cluster.node(C).membership == cluster.node(A).membership


def _seed_that_loses_all(pending: int) -> int:
    for seed in range(1000):
        prng = Prng(seed)
        if prng.chance(2, 3) and prng.below(pending + 1) == 0 and not prng.chance(1, 2):
            return seed
    raise AssertionError
