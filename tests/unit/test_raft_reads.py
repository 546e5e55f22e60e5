"""Linearizable reads: ReadIndex and leases (Raft thesis 6.4)."""

from outlast.kernel import ElsewhereError, OverloadedError, UnavailableError
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import AppendRequest, AppendResponse, Receive, TailReady
from tests.support.raft_sim import Cluster, ids

A, B, C = ids(3)


def elected(*, lease: bool = False) -> Cluster:
    cluster = Cluster(ids(3), settings=RaftSettings(lease_reads=lease))
    cluster.run(0.6)  # past the time in which a restarted voter with leases refuses
    if cluster.leader() is None:
        cluster.run(2, until=lambda: cluster.leader() is not None)
    if cluster.leader() != A:
        leader = cluster.leader()
        assert leader is not None
        cluster.run(0.1)
        cluster.transfer(leader, A)
        assert cluster.run(1, until=lambda: cluster.leader() == A)
    cluster.run(0.2)
    cluster.sent.clear()
    return cluster


def test_6_4_a_read_index_is_the_commit_index_after_a_round_with_a_quorum() -> None:
    cluster = elected()
    index = cluster.commit_one(A)
    ticket = cluster.ask(A)
    assert cluster.answer(ticket) is None
    cluster.run(0.003)
    assert cluster.answer(ticket) == TailReady(ticket, index)


def test_6_4_a_round_needs_no_log_write() -> None:
    cluster = elected()
    last = cluster.node(A).last_index
    cluster.ask(A)
    cluster.run(0.003)
    assert cluster.node(A).last_index == last


def test_6_4_a_deposed_leader_answers_no_read() -> None:
    cluster = elected()
    cluster.isolate(A)
    ticket = cluster.ask(A)
    cluster.run(0.3)
    assert cluster.answer(ticket) is None
    cluster.run(1)
    assert isinstance(cluster.error(ticket), (UnavailableError, ElsewhereError))


def test_6_4_reads_that_come_during_a_round_share_the_next_one() -> None:
    cluster = elected()
    first = cluster.ask(A)
    later = [cluster.ask(A) for _ in range(50)]
    rounds = {m.round for _, _, m in cluster.sent if isinstance(m, AppendRequest)}
    assert len(rounds) == 1
    cluster.run(0.0021)
    assert cluster.answer(first) is not None
    assert all(cluster.answer(ticket) is None for ticket in later)
    cluster.run(0.003)
    assert all(isinstance(cluster.answer(ticket), TailReady) for ticket in later)
    rounds = {m.round for _, _, m in cluster.sent if isinstance(m, AppendRequest)}
    assert len(rounds) == 2


def test_6_4_answers_to_an_older_round_prove_nothing() -> None:
    cluster = elected()
    node = cluster.node(A)
    cluster.drop = lambda s, t, m: True
    old = node.round
    ticket = cluster.ask(A)
    match = node.state.progress[B].match
    cluster.step(A, Receive(B, AppendResponse(node.term, True, match, 0, 0, old)))
    cluster.step(A, Receive(C, AppendResponse(node.term, True, match, 0, 0, old)))
    assert cluster.answer(ticket) is None
    cluster.step(A, Receive(C, AppendResponse(node.term, True, match, 0, 0, old + 1)))
    assert isinstance(cluster.answer(ticket), TailReady)


def test_6_4_a_new_leader_waits_for_its_first_commit() -> None:
    cluster = Cluster(ids(3))
    cluster.elect(A)
    cluster.commit_one(A)
    cluster.settle()
    for host in cluster.hosts.values():
        host.slow_disk = False
    cluster.crash(A)
    cluster.drop = lambda s, t, m: isinstance(m, AppendResponse)
    cluster.stand(B)
    assert cluster.run(0.1, until=lambda: cluster.leader() == B)
    ticket = cluster.ask(B)
    cluster.run(0.1)
    assert cluster.answer(ticket) is None
    cluster.drop = None
    cluster.run(0.3)
    assert isinstance(cluster.answer(ticket), TailReady)


def test_6_4_a_round_is_answered_without_waiting_for_the_followers_disk() -> None:
    cluster = elected()
    cluster.hosts[B].slow_disk = cluster.hosts[C].slow_disk = True
    cluster.propose(A, b"x")
    ticket = cluster.ask(A)
    cluster.run(0.01)
    assert isinstance(cluster.answer(ticket), TailReady)


def test_6_4_a_lost_round_is_repeated_by_the_heartbeat() -> None:
    cluster = elected()
    cluster.drop = lambda s, t, m: True
    ticket = cluster.ask(A)
    cluster.run(0.02)
    cluster.drop = None
    cluster.run(0.07)
    assert isinstance(cluster.answer(ticket), TailReady)


def test_a_single_voter_answers_at_once() -> None:
    cluster = Cluster(ids(1))
    cluster.elect(A)
    assert isinstance(cluster.answer(cluster.ask(A)), TailReady)


def test_a_follower_names_the_leader() -> None:
    cluster = elected()
    error = cluster.error(cluster.ask(B))
    assert isinstance(error, ElsewhereError)
    assert error.hint == "n1"


def test_waiting_reads_are_bounded() -> None:
    cluster = Cluster(ids(3), settings=RaftSettings(reads_max=5))
    cluster.elect(A)
    cluster.settle()
    tickets = [cluster.ask(A) for _ in range(8)]
    assert isinstance(cluster.error(tickets[-1]), OverloadedError)


def test_6_4_1_lease_reads_are_off_by_default() -> None:
    assert not RaftSettings().lease_reads
    cluster = elected()
    assert cluster.answer(cluster.ask(A)) is None


def test_6_4_1_under_a_lease_a_read_needs_no_round() -> None:
    cluster = elected(lease=True)
    assert isinstance(cluster.answer(cluster.ask(A)), TailReady)


def test_6_4_1_a_lease_ends_before_another_can_be_elected() -> None:
    cluster = elected(lease=True)
    cluster.isolate(A)
    cluster.run(0.46)  # 0.5 s less a tenth for drift
    assert cluster.answer(cluster.ask(A)) is None


def test_6_4_1_a_hand_over_spoils_the_lease() -> None:
    cluster = elected(lease=True)
    cluster.drop = lambda s, t, m: True
    cluster.transfer(A, B)
    assert cluster.answer(cluster.ask(A)) is None


def test_6_4_1_with_leases_a_broken_connection_does_not_shorten_the_wait() -> None:
    cluster = elected(lease=True)
    before = cluster.node(B).state.election.election_at
    cluster.lose_connection(A, B)
    assert cluster.node(B).state.election.election_at == before
    assert cluster.node(B).state.election.sticky()
