"""Claims of Raft's thesis about keeping and passing on leadership (3.10, 4.2.3, 9.6)."""

import pytest

from outlast.kernel import Term
from outlast.log.engines.raft.core.types import (
    HardState,
    Receive,
    Role,
    TransferNow,
    VoteRequest,
)
from tests.support.raft_paper import elected, grants, messages, with_logs
from tests.support.raft_sim import SECOND, Cluster, ids

A, B, C = ids(3)
TIMEOUT_NS = SECOND // 2


# --- pre-vote ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(9, 1, False), (1, 2, False), (2, 2, True), (1, 3, True)],
)
def test_a_pre_vote_compares_logs(last_index: int, last_term: int, granted: bool) -> None:
    """A pre-vote is refused to a log that could not win the vote itself (thesis 9.6)."""
    cluster = with_logs({A: [1, 2], B: [1, 2], C: [1]}, term=3)
    cluster.step(A, Receive(C, VoteRequest(3, last_index, last_term, True, False)))
    assert grants(cluster, pre=True) == {A: granted}


def test_a_candidate_that_cannot_win_never_raises_its_term() -> None:
    """A member whose log is too short may ask for ever and raises no term (thesis 9.6)."""
    cluster = with_logs({A: [1, 1], B: [1, 1], C: []}, term=3)
    cluster.drop = lambda s, t, m: isinstance(m, VoteRequest) and s != C  # only C stands
    cluster.run(10)
    asked = [m for s, _, m in cluster.sent if s == C and isinstance(m, VoteRequest)]
    assert len(asked) >= 20
    assert [cluster.node(replica).term for replica in (A, B, C)] == [3, 3, 3]


def test_a_pre_vote_binds_nobody() -> None:
    """A pre-vote may go to several candidates in one term, and the vote itself to either
    (thesis 9.6).
    """
    cluster = Cluster(ids(3))
    for sender in (B, C):
        cluster.step(A, Receive(sender, VoteRequest(0, 0, 0, True, False)))
        assert grants(cluster, pre=True) == {A: True}
        cluster.sent.clear()
    cluster.step(A, Receive(C, VoteRequest(1, 0, 0, False, False)))
    cluster.settle()
    assert grants(cluster) == {A: True}


def test_a_member_left_in_a_later_term_is_taken_in_again() -> None:
    """A member that stood in a later term before it was cut off is not shut out: its refusal
    tells the leader, and the next leader has a later term (thesis 4.2.3, 9.6).
    """
    cluster = elected()
    cluster.crash(C)
    cluster.hosts[C].durable.hard = HardState(Term(7), None)
    index = cluster.commit_one(A)
    cluster.start(C)
    assert cluster.run(3, until=lambda: cluster.node(C).commit > index)
    assert min(cluster.node(replica).term for replica in ids(3)) >= 8


# --- stickiness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", [True, False])
def test_votes_are_refused_for_exactly_one_timeout(pre: bool) -> None:
    """A follower gives no vote and takes no later term from a candidate within one election
    timeout of hearing its leader, and does so from then on (thesis 4.2.3).
    """
    cluster = elected()
    cluster.isolate(A)
    heard = cluster.node(B).state.election.heard_ns
    ask = Receive(C, VoteRequest(1 if pre else 2, 9, 1, pre, False))
    for when, granted in ((heard + TIMEOUT_NS - 1, False), (heard + TIMEOUT_NS, True)):
        cluster.now = when
        cluster.node(B).state.election.election_at = when + TIMEOUT_NS  # it does not look itself
        effects = cluster.step(B, ask)
        said = [getattr(m, "granted", False) for _, m in messages(effects)]
        assert any(said) == granted
        assert cluster.node(B).term == (2 if granted and not pre else 1)


def test_an_election_that_the_leader_asked_for_is_not_refused() -> None:
    """A vote for the election that the leader itself asked for is given although the leader is
    heard (thesis 3.10, 4.2.3).
    """
    cluster = elected()
    cluster.step(B, Receive(C, VoteRequest(2, 1, 1, False, transfer=True)))
    cluster.settle()
    assert grants(cluster)[B]


# --- hand-over -----------------------------------------------------------------------------------


def test_a_hand_over_needs_the_votes_that_any_election_needs() -> None:
    """A candidate chosen by the leader still needs a log at least as complete as its voters'
    (thesis 3.10).
    """
    cluster = elected()
    cluster.commit_one(A)
    cluster.settle()
    cluster.sent.clear()
    cluster.step(B, Receive(C, VoteRequest(2, 1, 1, False, transfer=True)))
    cluster.settle()
    assert grants(cluster)[B] is False


@pytest.mark.parametrize("term", [0, 1, 2])
def test_only_the_leader_of_the_term_can_hand_over(term: int) -> None:
    """The word to stand at once is obeyed from the leader of the current term alone
    (thesis 3.10).
    """
    cluster = elected()
    cluster.step(B, Receive(C, TransferNow(term)))
    assert cluster.node(B).role is Role.FOLLOWER
    assert cluster.node(B).term == max(term, 1)
    cluster.settle()
    assert not [m for s, _, m in cluster.sent if s == B and isinstance(m, VoteRequest)]


def test_a_target_stands_at_once_in_the_next_term() -> None:
    """The chosen member stands as soon as it is told to, without waiting for its timer or
    asking first (thesis 3.10).
    """
    cluster = elected()
    cluster.step(B, Receive(A, TransferNow(1)))
    assert (cluster.node(B).role, cluster.node(B).term) == (Role.CANDIDATE, 2)
    cluster.run(0.001)
    asked = [m for s, _, m in cluster.sent if s == B and isinstance(m, VoteRequest)]
    assert [(m.pre, m.transfer) for m in asked] == [(False, True)] * 2
