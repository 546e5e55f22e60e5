"""What a node says of its vote is what it would remember after a crash, and nothing newer."""

from outlast.log.engines.raft.core.types import VoteRequest
from tests.support.raft_sim import Cluster, ids

A, B, C = ids(3)


def test_a_vote_is_told_once_it_is_durable() -> None:
    cluster = Cluster(ids(3))
    cluster.elect(A)
    cluster.settle()
    node = cluster.node(B)
    assert (node.hard_state.term, node.hard_state.vote) == (node.term, A)
    before = node.hard_state
    cluster.crash(A)
    cluster.hosts[B].slow_disk = True
    last, term = node.last_index, node.term
    cluster.run(0.6)
    cluster.deliver(C, B, VoteRequest(term + 5, last, term, False, False))
    assert node.term == term + 5
    assert node.hard_state == before, "a crash now would lose it"
    first = cluster.hosts[B].pending[-1].ticket
    cluster.deliver(C, B, VoteRequest(term + 6, last, term, False, False))
    assert node.term == term + 6
    cluster.hosts[B].slow_disk = False
    cluster._durable(cluster.hosts[B], cluster.hosts[B].life, first)
    assert node.hard_state.term < term + 6, "a later write is still under way"
    cluster.resume_disk(B)
    assert (node.hard_state.term, node.hard_state.vote) == (term + 6, C)


def test_a_restarted_node_tells_what_it_voted_before() -> None:
    cluster = Cluster(ids(3))
    cluster.elect(A)
    cluster.settle()
    told = cluster.node(B).hard_state
    assert told.vote == A
    cluster.crash(B)
    cluster.start(B)
    assert cluster.node(B).hard_state == told
