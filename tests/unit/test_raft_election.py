"""Elections, by the claims of the Raft paper (5.1, 5.2, 5.4.1) and thesis (3.10, 6.2, 9.6)."""

import pytest

from outlast.kernel import ConfigError, ElsewhereError, IndefiniteError, UnavailableError
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import (
    AppendRequest,
    AppendResponse,
    Persisted,
    PersistStalled,
    Receive,
    Role,
    Stop,
    TransferNow,
    VoteRequest,
    VoteResponse,
    Wake,
)
from tests.support.raft_sim import MS, SECOND, Cluster, ids

A, B, C = ids(3)


def elected() -> Cluster:
    cluster = Cluster(ids(3))
    cluster.elect(A)
    cluster.settle()
    return cluster


def votes(cluster: Cluster, *, granted: bool | None = None) -> list[VoteResponse]:
    found = [m for _, _, m in cluster.sent if isinstance(m, VoteResponse)]
    return [m for m in found if granted is None or m.granted is granted]


def test_a_cluster_elects_one_leader_within_two_timeouts() -> None:
    cluster = Cluster(ids(5), seed=3)
    assert cluster.run(2.0, until=lambda: cluster.leader() is not None)
    cluster.settle()
    assert sum(cluster.node(r).role is Role.LEADER for r in cluster.up()) == 1


def test_5_1_a_higher_term_turns_a_leader_into_a_follower() -> None:
    cluster = elected()
    cluster.step(A, Receive(B, AppendResponse(7, False, 0, 0, 0, 0)))
    assert cluster.node(A).role is Role.FOLLOWER
    assert cluster.node(A).term == 7


def test_5_1_a_request_with_an_older_term_is_refused_and_told_the_newer() -> None:
    cluster = elected()
    cluster.sent.clear()
    cluster.step(B, Receive(C, AppendRequest(0, 0, 0, [], 0, 0)))
    [(sender, target, answer)] = cluster.sent
    assert (sender, target) == (B, C)
    assert isinstance(answer, AppendResponse)
    assert not answer.success
    assert answer.term == 1


def test_5_2_a_node_starts_as_follower() -> None:
    assert Cluster(ids(3)).node(A).role is Role.FOLLOWER


def test_5_2_a_silent_leader_is_looked_for_after_one_to_1_8_timeouts() -> None:
    waits = []
    for seed in range(40):
        cluster = Cluster(ids(3), seed=seed)
        waits.append(cluster.hosts[A].wake_ns - cluster.now)  # type: ignore[operator]
    assert min(waits) >= SECOND // 2
    assert max(waits) <= SECOND * 9 // 10
    assert len(set(waits)) > 30


def test_5_2_a_follower_that_hears_heartbeats_never_stands() -> None:
    cluster = elected()
    term = cluster.node(A).term
    cluster.run(20)
    assert cluster.leader() == A
    assert cluster.node(B).term == term


def test_5_2_a_split_vote_is_resolved_by_another_election() -> None:
    cluster = Cluster(ids(4), seed=5)
    cluster.drop = lambda s, t, m: isinstance(m, VoteResponse) and not m.pre
    for replica in ids(2):
        cluster.node(replica).state.election.election_at = cluster.now
        cluster.step(replica, Wake())
    cluster.run(0.05)
    assert cluster.leader() is None
    cluster.drop = None
    assert cluster.run(5, until=lambda: cluster.leader() is not None)


def test_5_2_one_vote_per_term_first_come_first_served() -> None:
    cluster = Cluster(ids(3))
    cluster.step(A, Receive(B, VoteRequest(3, 0, 0, False, False)))
    cluster.step(A, Receive(C, VoteRequest(3, 0, 0, False, False)))
    cluster.settle()
    given = {t: m.granted for _, t, m in cluster.sent if isinstance(m, VoteResponse)}
    assert given == {B: True, C: False}


def test_5_2_a_vote_is_sent_only_once_it_is_durable() -> None:
    cluster = Cluster(ids(3))
    cluster.hosts[A].slow_disk = True
    effects = cluster.step(A, Receive(B, VoteRequest(3, 0, 0, False, False)))
    assert effects.persist is not None
    assert effects.persist.hard_state is not None
    assert effects.persist.hard_state.vote == B
    assert not effects.send_now
    [(target, answer)] = effects.send_after_durable
    assert target == B
    assert isinstance(answer, VoteResponse)
    assert answer.granted


def test_5_2_a_vote_survives_a_restart() -> None:
    cluster = Cluster(ids(3))
    cluster.step(A, Receive(B, VoteRequest(3, 0, 0, False, False)))
    cluster.settle()
    cluster.crash(A)
    cluster.start(A)
    cluster.step(A, Receive(C, VoteRequest(3, 0, 0, False, False)))
    cluster.settle()
    assert [m.granted for m in votes(cluster)] == [True, False]


def test_5_2_a_candidate_counts_its_own_vote_only_once_durable() -> None:
    cluster = Cluster(ids(1))
    cluster.hosts[A].slow_disk = True
    node = cluster.node(A)
    node.state.election.election_at = cluster.now
    cluster.step(A, Wake())
    assert node.role is Role.CANDIDATE
    cluster.resume_disk(A)
    assert node.role.name == "LEADER"


def test_5_2_a_repeated_vote_counts_once() -> None:
    cluster = Cluster(ids(5))
    node = cluster.node(A)
    cluster.drop = lambda s, t, m: True
    node.state.election.campaign(pre=True)
    for _ in range(4):
        cluster.step(A, Receive(B, VoteResponse(0, 1, True, True)))
    assert node.role is Role.PRE_CANDIDATE
    cluster.step(A, Receive(C, VoteResponse(0, 1, True, True)))
    assert node.role.name == "CANDIDATE"


def test_5_2_votes_of_another_election_are_ignored() -> None:
    cluster = Cluster(ids(3))
    cluster.drop = lambda s, t, m: True
    node = cluster.node(A)
    node.state.election.campaign(pre=True)
    cluster.step(A, Receive(B, VoteResponse(0, 5, True, True)))
    assert node.role is Role.PRE_CANDIDATE


def test_5_2_a_candidate_that_hears_a_leader_of_its_term_follows() -> None:
    cluster = Cluster(ids(3))
    cluster.drop = lambda s, t, m: True
    cluster.node(A).state.election.campaign(pre=True)
    cluster.step(A, Receive(B, VoteResponse(0, 1, True, True)))
    assert cluster.node(A).role is Role.CANDIDATE
    cluster.step(A, Receive(C, AppendRequest(1, 0, 0, [], 0, 0)))
    assert cluster.node(A).role.name == "FOLLOWER"
    assert cluster.node(A).leader == C


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(3, 1, False), (2, 2, False), (3, 2, True), (4, 2, True), (1, 3, True)],
)
def test_5_4_1_votes_go_to_logs_at_least_as_complete(
    last_index: int, last_term: int, granted: bool
) -> None:
    cluster = Cluster(ids(3))
    # A's log ends at (3, term 2): two elections, and one entry in the second term.
    cluster.elect(A)
    cluster.elect(B)
    cluster.commit_one(B)
    cluster.settle()
    assert (cluster.node(A).last_index, cluster.node(A).state.log.last_term) == (3, 2)
    cluster.node(A).state.election.lost_leader = True
    cluster.sent.clear()
    cluster.step(A, Receive(C, VoteRequest(9, last_index, last_term, False, False)))
    cluster.settle()
    assert [m.granted for m in votes(cluster)] == [granted]


def test_5_4_1_a_candidate_without_committed_entries_cannot_win() -> None:
    cluster = elected()
    cluster.isolate(C)
    cluster.commit_one(A)
    cluster.crash(A)
    cluster.heal()
    assert cluster.run(5, until=lambda: cluster.leader() is not None)
    assert cluster.leader() == B


def test_9_6_a_pre_vote_changes_no_term_and_no_vote() -> None:
    cluster = Cluster(ids(3))
    effects = cluster.step(A, Receive(B, VoteRequest(4, 0, 0, True, False)))
    assert cluster.node(A).term == 0
    assert effects.persist is None
    assert [(m.granted, m.request_term) for m in votes(cluster)] == [(True, 5)]


def test_9_6_a_pre_vote_is_refused_while_a_leader_is_heard() -> None:
    cluster = elected()
    cluster.sent.clear()
    cluster.step(B, Receive(C, VoteRequest(1, 99, 9, True, False)))
    assert [m.granted for m in votes(cluster)] == [False]


def test_9_6_a_partitioned_node_does_not_disturb_when_it_returns() -> None:
    cluster = elected()
    cluster.isolate(C)
    cluster.run(10)
    assert cluster.node(C).term == 1
    cluster.heal()
    cluster.run(1)
    assert cluster.leader() == A
    assert cluster.node(A).term == 1


def test_9_6_a_pre_vote_counts_from_a_voter_in_an_older_term() -> None:
    cluster = Cluster(ids(3))
    cluster.step(A, Receive(C, VoteRequest(5, 0, 0, False, False)))
    cluster.settle()
    cluster.crash(C)
    cluster.node(A).state.election.campaign(pre=True)
    assert cluster.node(B).term == 0
    cluster.step(A, Receive(B, VoteResponse(0, 6, True, True)))
    assert cluster.node(A).role is Role.CANDIDATE


def test_9_6_of_two_pre_candidates_one_gives_way() -> None:
    cluster = Cluster(ids(3))
    cluster.crash(C)
    for replica in (A, B):
        cluster.node(replica).state.election.election_at = cluster.now
        cluster.step(replica, Wake())
    assert cluster.run(0.1, until=lambda: cluster.leader() is not None)
    assert cluster.node(A).term == 1


def test_4_2_3_a_higher_term_from_a_candidate_is_ignored_while_a_leader_is_heard() -> None:
    cluster = elected()
    for replica in (A, B):
        effects = cluster.step(replica, Receive(C, VoteRequest(9, 99, 9, False, False)))
        assert effects.persist is None
        assert cluster.node(replica).term == 1
    assert cluster.leader() == A


def test_4_2_3_a_stranger_cannot_depose_a_leader() -> None:
    cluster = elected()
    stranger = ids(9)[8]
    cluster.step(A, Receive(stranger, AppendResponse(50, False, 0, 0, 0, 0)))
    cluster.step(A, Receive(stranger, VoteRequest(50, 99, 50, False, False)))
    assert cluster.leader() == A
    assert cluster.node(A).term == 1


def test_6_2_a_leader_that_hears_no_quorum_steps_down_within_one_timeout() -> None:
    cluster = elected()
    cluster.isolate(A)
    assert cluster.run(0.6, until=lambda: cluster.node(A).role is not Role.LEADER)


def test_6_2_a_leader_with_a_quorum_stays_although_one_is_silent() -> None:
    cluster = elected()
    cluster.isolate(C)
    cluster.run(5)
    assert cluster.node(A).role is Role.LEADER


def test_a_broken_connection_from_the_leader_shortens_the_wait() -> None:
    cluster = elected()
    cluster.crash(A)
    cluster.lose_connection(B, A)
    cluster.lose_connection(C, A)
    start = cluster.now
    assert cluster.run(1, until=lambda: cluster.leader() is not None)
    assert cluster.now - start < 100 * MS


def test_a_broken_connection_is_forgiven_when_the_leader_is_heard_meanwhile() -> None:
    cluster = elected()
    cluster.lose_connection(B, A)
    cluster.step(B, Receive(A, AppendRequest(1, 1, 1, [], 1, 0)))
    cluster.run(1)
    assert cluster.leader() == A
    assert cluster.node(A).term == 1


def test_a_late_timer_grants_another_wait_before_it_accuses() -> None:
    cluster = elected()
    cluster.hosts[B].paused_until = cluster.now + 5 * SECOND
    cluster.isolate(B)
    cluster.run(4.99)
    cluster.sent.clear()
    cluster.run(0.02)  # the pause ends: the timer fires far too late
    assert cluster.node(B).role is Role.FOLLOWER
    cluster.run(0.12)
    assert cluster.node(B).role.name == "PRE_CANDIDATE"


def test_a_late_leader_judges_its_quorum_only_after_a_fresh_round() -> None:
    cluster = elected()
    cluster.drop = lambda s, t, m: isinstance(m, VoteRequest)  # nobody replaces it meanwhile
    cluster.hosts[A].paused_until = cluster.now + 3 * SECOND
    cluster.run(3.4)
    assert cluster.node(A).role is Role.LEADER


def test_3_10_leadership_is_transferred_to_a_caught_up_member() -> None:
    cluster = elected()
    ticket = cluster.transfer(A, C)
    assert cluster.run(0.4, until=lambda: cluster.leader() == C)
    cluster.settle()
    assert cluster.done(ticket)


def test_3_10_a_transfer_waits_until_the_target_has_the_whole_log() -> None:
    cluster = elected()
    cluster.hosts[C].slow_disk = True
    cluster.propose(A, b"x")
    cluster.run(0.01)
    cluster.transfer(A, C)
    cluster.run(0.05)
    assert not [m for _, _, m in cluster.sent if isinstance(m, TransferNow)]
    cluster.resume_disk(C)
    assert cluster.run(0.3, until=lambda: cluster.leader() == C)


def test_3_10_proposals_are_refused_during_a_transfer() -> None:
    cluster = elected()
    cluster.isolate(C)
    cluster.transfer(A, C)
    [ticket] = cluster.propose(A, b"x")
    assert isinstance(cluster.error(ticket), UnavailableError)


def test_3_10_a_transfer_to_a_dead_member_ends_after_one_timeout() -> None:
    cluster = elected()
    cluster.isolate(C)
    ticket = cluster.transfer(A, C)
    cluster.run(0.7)
    assert isinstance(cluster.error(ticket), IndefiniteError)
    cluster.commit_one(A)


def test_3_10_a_transfer_to_a_stranger_is_refused() -> None:
    cluster = elected()
    error = cluster.error(cluster.transfer(A, ids(9)[8]))
    assert isinstance(error, ConfigError)
    assert "n9#1 is not a voter" in str(error)


def test_stop_hands_leadership_over() -> None:
    cluster = elected()
    cluster.step(A, Stop())
    assert cluster.run(0.1, until=lambda: cluster.leader() in {B, C})
    cluster.run(3)
    assert cluster.leader() != A


def test_a_leader_with_a_stalled_disk_steps_down_and_another_takes_over_at_once() -> None:
    cluster = elected()
    cluster.hosts[A].slow_disk = True
    [ticket] = cluster.propose(A, b"x")
    cluster.settle()
    cluster.step(A, PersistStalled())
    assert cluster.node(A).role is Role.FOLLOWER
    assert cluster.run(0.1, until=lambda: cluster.leader() in {B, C})
    [late] = cluster.propose(A, b"y")
    assert isinstance(cluster.error(late), (UnavailableError, ElsewhereError))
    assert cluster.accepted(ticket).index == 2


def test_a_node_with_a_stalled_disk_gives_no_vote_until_the_disk_answers() -> None:
    cluster = elected()
    cluster.hosts[B].slow_disk = True
    cluster.propose(A, b"x")
    cluster.settle()
    cluster.step(B, PersistStalled())
    cluster.node(B).state.election.lost_leader = True
    cluster.sent.clear()
    cluster.step(B, Receive(C, VoteRequest(1, 9, 9, True, False)))
    assert [m.granted for m in votes(cluster)] == [False]
    cluster.resume_disk(B)
    cluster.sent.clear()
    cluster.step(B, Receive(C, VoteRequest(1, 9, 9, True, False)))
    assert [m.granted for m in votes(cluster)] == [True]


def test_a_proposal_to_a_follower_names_the_leader() -> None:
    cluster = elected()
    error = cluster.error(cluster.propose(B, b"x")[0])
    assert isinstance(error, ElsewhereError)
    assert error.hint == "n1"


def test_a_proposal_without_a_known_leader_is_unavailable() -> None:
    cluster = Cluster(ids(3))
    error = cluster.error(cluster.propose(B, b"x")[0])
    assert isinstance(error, UnavailableError)
    assert error.retry_after == RaftSettings().heartbeat


def test_the_timer_asked_for_is_always_the_next_thing_due() -> None:
    cluster = elected()
    for _ in range(200):
        cluster.run(0.007)
        for replica in cluster.up():
            node = cluster.node(replica)
            wake = cluster.hosts[replica].wake_ns
            assert wake is not None
            due = [node.state.election.wake_ns()]
            if node.role is Role.LEADER:
                due += [node.state.replication.heartbeat_at, node.state.replication.notice_at]
            assert wake == min(due)
    cluster.step(B, Persisted(0))
