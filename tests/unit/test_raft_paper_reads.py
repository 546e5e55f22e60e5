"""Claims of Raft's thesis about reads that write nothing (6.4), one by one."""

from outlast.kernel import ReplicaId
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import (
    Effects,
    RaftEvent,
    Receive,
    Role,
    TailReady,
    VoteRequest,
)
from tests.support.raft_paper import elected, grants
from tests.support.raft_sim import MS, SECOND, Cluster, ids

A, B, C, D, E = ids(5)
LEASES = RaftSettings(lease_reads=True)
LEASE_NS = 450 * MS


def leased(count: int = 3) -> Cluster:
    """A leads with a lease, and nobody's start is recent."""
    cluster = Cluster(ids(count), settings=LEASES)
    for replica in ids(count)[1:]:
        cluster.node(replica).state.election.election_at += SECOND  # A looks first
    assert cluster.run(3, until=lambda: cluster.ready(A))
    cluster.run(0.1)
    assert isinstance(cluster.answer(cluster.ask(A)), TailReady)
    return cluster


# --- rounds --------------------------------------------------------------------------------------


def test_a_round_is_answered_by_voters() -> None:
    """Answers of members without a vote do not show that the leader still leads
    (thesis 6.4).
    """
    cluster = Cluster(ids(3), learners=[D, E])
    cluster.elect(A)
    cluster.settle()
    cluster.cut([A], [B, C])
    ticket = cluster.ask(A)
    cluster.run(0.2)
    assert cluster.node(A).state.progress[D].round == cluster.node(A).round
    assert cluster.answer(ticket) is None


def test_a_round_needs_a_majority() -> None:
    """A leader of five answers a read once two others have answered its round, not one
    (thesis 6.4 step 3).
    """
    cluster = elected(5)
    cluster.cut([A], [C, D, E])
    ticket = cluster.ask(A)
    cluster.run(0.2)
    assert cluster.answer(ticket) is None
    cluster.net.cuts.clear()
    cluster.cut([A], [D, E])
    cluster.run(0.1)
    assert isinstance(cluster.answer(ticket), TailReady)


def test_a_read_index_covers_all_that_was_committed_before_it_was_asked() -> None:
    """The index of a read is the leader's commit index when it was asked or later
    (thesis 6.4 step 2).
    """
    cluster = elected()
    for _ in range(20):
        index = cluster.commit_one(A)
        ticket = cluster.ask(A)
        cluster.propose(A, b"beside")
        cluster.settle()
        answer = cluster.answer(ticket)
        assert isinstance(answer, TailReady)
        assert answer.index >= index


# --- leases --------------------------------------------------------------------------------------


def test_a_lease_runs_from_the_start_of_its_round() -> None:
    """A lease is counted from when the round was sent, not from when the answers came
    (thesis 6.4.1).
    """
    cluster = leased()
    cluster.net.delay_ms = (100, 100)
    cluster.run(1)
    reads = cluster.node(A).state.reads
    sent: dict[int, int] = {}

    def note(replica: ReplicaId, event: RaftEvent, effects: Effects) -> None:
        if replica == A:
            sent.setdefault(reads.round, cluster.now)

    cluster.on_effects = note
    cluster.run(1)
    answered = reads.answered
    assert cluster.now - sent[answered] >= 200 * MS
    assert reads.lease_start == sent[answered]
    cluster.isolate(A)
    cluster.now = sent[answered] + LEASE_NS - 1
    assert isinstance(cluster.answer(cluster.ask(A)), TailReady)
    cluster.now += 1
    assert cluster.answer(cluster.ask(A)) is None


def test_a_lease_does_not_survive_a_pause() -> None:
    """A leader that was paused past its lease answers nothing from it when it goes on, before it
    has heard anybody (thesis 6.4.1).
    """
    cluster = leased()
    cluster.isolate(A)
    cluster.hosts[A].paused_until = cluster.now + 3 * SECOND
    cluster.run(2.9)
    assert cluster.node(A).role is Role.LEADER
    assert cluster.leader() in {B, C}
    ticket = cluster.ask(A)
    assert cluster.answer(ticket) is None
    cluster.run(1)
    assert not isinstance(cluster.answer(ticket), TailReady)


def test_a_new_leader_has_no_lease_before_its_first_commit() -> None:
    """A new leader answers nothing from a lease before an entry of its term is committed,
    although its rounds are answered (thesis 6.4 step 1).
    """
    cluster = leased()
    cluster.commit_one(A)
    ticket = cluster.transfer(A, B)

    def stall(replica: ReplicaId, event: RaftEvent, effects: Effects) -> None:
        if cluster.node(B).role is Role.LEADER:
            for host in cluster.hosts.values():
                host.slow_disk = True

    cluster.on_effects = stall
    cluster.run(0.3)
    node = cluster.node(B)
    assert node.role is Role.LEADER
    assert cluster.done(ticket)
    assert node.state.reads.answered > 0
    assert node.commit < node.state.term_start
    read = cluster.ask(B)
    assert cluster.answer(read) is None
    for replica in ids(3):
        cluster.resume_disk(replica)
    cluster.run(0.2)
    assert isinstance(cluster.answer(read), TailReady)


def test_a_follower_keeps_its_promise_across_a_restart() -> None:
    """With leases a member that restarts gives no vote for one election timeout: it may have
    promised that before (thesis 6.4.1).
    """
    cluster = leased()
    term = cluster.node(B).term
    cluster.crash(A)
    cluster.crash(B)
    cluster.start(B)
    started = cluster.now
    ask = Receive(C, VoteRequest(term + 1, 9, term, False, False))
    cluster.sent.clear()
    cluster.now = started + SECOND // 2 - 1
    cluster.step(B, ask)
    assert cluster.node(B).term == term
    cluster.now += 1
    cluster.step(B, ask)
    assert cluster.node(B).term == term + 1
    cluster.run(0.001)
    assert grants(cluster)[B]
