"""Claims of the Raft paper (7) and thesis (5) about compacting the log, one by one."""

import pytest

from outlast.kernel import LogIndex, Term
from outlast.log.api import Member, SnapshotRef
from outlast.log.engines.raft.core.config import decode_config, encode_config
from outlast.log.engines.raft.core.types import (
    AppendRequest,
    AppendResponse,
    Receive,
    Role,
    SnapshotOffer,
    SnapshotReady,
    SnapshotWant,
)
from tests.support.raft_paper import elected, entry, messages, terms_of, with_logs
from tests.support.raft_sim import Cluster, ids, members_of

A, B, C, D = ids(4)


def offer(cluster: Cluster, term: int, index: int, index_term: int) -> SnapshotOffer:
    members = encode_config(cluster.node(A).state.config)
    return SnapshotOffer(term, index, index_term, 5, b"digest", 5, members)


def offers(cluster: Cluster) -> list[SnapshotOffer]:
    return [m for _, _, m in cluster.sent if isinstance(m, SnapshotOffer)]


# --- taking one ----------------------------------------------------------------------------------


def test_members_snapshot_each_for_itself() -> None:
    """A follower snapshots and trims without the leader, and nothing is sent for it
    (paper 7).
    """
    cluster = elected()
    for _ in range(4):
        cluster.commit_one(A)
    cluster.settle()
    cluster.sent.clear()
    cluster.take_snapshot(B)
    assert cluster.node(B).state.log.base_index == 5
    assert cluster.node(A).state.log.base_index == 0
    assert not [m for s, _, m in cluster.sent if s == B]
    assert cluster.commit_one(A) == 6


@pytest.mark.parametrize(("term", "success"), [(1, True), (2, False)])
def test_the_last_index_and_term_serve_the_next_consistency_check(
    term: int, success: bool
) -> None:
    """The first entry after a snapshot is checked against the index and term that it covers
    (paper 7).
    """
    cluster = elected()
    for _ in range(3):
        cluster.commit_one(A)
    cluster.settle()
    cluster.take_snapshot(B)
    cluster.crash(B)
    cluster.start(B)
    node = cluster.node(B)
    assert (node.state.log.base_index, node.commit, node.last_index) == (4, 4, 4)
    effects = node.step(Receive(A, AppendRequest(3, 4, term, [entry(5, 3)], 4, 0)), cluster.now)
    assert node.last_index == 4 + success
    said = [m for _, m in messages(effects) if isinstance(m, AppendResponse)]
    assert [m.success for m in said] == ([] if success else [False])


def test_a_member_at_the_edge_of_the_snapshot_needs_none() -> None:
    """A leader that trimmed through an index still feeds a member that ends exactly there
    (paper 7).
    """
    cluster = elected()
    for _ in range(3):
        cluster.commit_one(A)
    cluster.settle()
    cluster.isolate(C)
    cluster.take_snapshot(A)
    cluster.commit_one(A)
    cluster.commit_one(A)
    cluster.heal()
    cluster.run(0.3)
    assert cluster.node(A).state.log.base_index == 4
    assert cluster.node(C).commit == 6
    assert not offers(cluster)


def test_a_snapshot_comes_with_the_members_of_its_index() -> None:
    """What is sent with a snapshot is the configuration in force at its index, not a later one
    (paper 7, thesis 5.1).
    """
    cluster = elected()
    cluster.isolate(C)
    cluster.commit_one(A)
    cluster.settle()
    for replica in (A, B):
        cluster.take_snapshot(replica)
    ticket = cluster.change(A, [*members_of([A, B, C]), Member(D, "d:1", False)])
    cluster.run(0.1)
    assert cluster.done(ticket)
    assert cluster.node(A).membership.version == 2
    cluster.heal()
    assert cluster.run(1, until=lambda: bool(offers(cluster)))
    assert decode_config(offers(cluster)[0].membership).membership.version == 1
    cluster.run(1)
    assert cluster.node(C).membership.version == 2


def test_an_older_snapshot_does_not_take_the_place_of_a_newer() -> None:
    """A member offers its newest snapshot (paper 7)."""
    cluster = elected()
    cluster.commit_one(A)
    cluster.take_snapshot(A, trim=False)
    newest = cluster.node(A).state.snapshot
    cluster.step(A, SnapshotReady(SnapshotRef(LogIndex(1), Term(1), 1, b"old", 1)))
    assert cluster.node(A).state.snapshot == newest


# --- receiving one -------------------------------------------------------------------------------


def test_a_snapshot_of_a_prefix_keeps_the_entries_behind_it() -> None:
    """A member whose log holds the entry that a snapshot ends with keeps what follows, and is
    sent nothing of it (paper 7, figure 13 rule 6).
    """
    cluster = with_logs({A: [1] * 5, B: [1] * 5, C: []}, term=1)
    node = cluster.node(B)
    effects = node.step(Receive(A, offer(cluster, 2, 3, 1)), cluster.now)
    assert (node.commit, node.last_index) == (3, 5)
    assert not effects.transfers
    [want] = [m for _, m in messages(effects) if isinstance(m, SnapshotWant)]
    assert want.done


def test_a_snapshot_replaces_a_log_that_conflicts_with_it() -> None:
    """A member whose log has another entry where a snapshot ends drops the whole log
    (paper 7, figure 13 rule 7).
    """
    cluster = Cluster(ids(3))
    cluster.elect(C)
    cluster.settle()
    cluster.isolate(C)
    cluster.propose(C, *[b"lost"] * 40)
    assert cluster.run(3, until=lambda: cluster.ready(A) or cluster.ready(B))
    leader = A if cluster.ready(A) else B
    for _ in range(20):
        cluster.commit_one(leader)
    cluster.settle()
    for replica in (A, B):
        cluster.take_snapshot(replica)
    index = cluster.node(leader).state.log.base_index
    assert cluster.node(C).last_index > index
    cluster.heal()
    cluster.run(1)
    assert cluster.hosts[C].durable.base[0] == index
    assert 1 not in terms_of(cluster, C)
    assert cluster.node(C).commit == cluster.node(leader).commit
    assert cluster.node(C).last_index == cluster.node(leader).last_index


def test_an_offered_snapshot_is_heard_from_the_leader() -> None:
    """A member that receives a snapshot for many election timeouts does not stand
    (paper 7, figure 13).
    """
    cluster = elected()
    cluster.isolate(C)
    for _ in range(3):
        cluster.commit_one(A)
    cluster.settle()
    for replica in (A, B):
        cluster.take_snapshot(replica, chunks=3000)
    cluster.heal()
    start = cluster.now
    assert cluster.run(10, until=lambda: cluster.node(C).commit >= 4)
    assert cluster.now - start > 4 * 500_000_000
    assert (cluster.leader(), cluster.node(C).term) == (A, 1)


def test_a_candidate_that_is_offered_a_snapshot_follows() -> None:
    """An offer from the leader of its term ends a candidate's election like any request
    (paper 7, 5.2).
    """
    cluster = elected()
    node = cluster.node(B)
    cluster.isolate(A)
    node.state.election.campaign(pre=True)
    assert node.role is Role.PRE_CANDIDATE
    cluster.step(B, Receive(A, offer(cluster, 1, 9, 1)))
    assert (node.role.name, node.leader) == ("FOLLOWER", A)
