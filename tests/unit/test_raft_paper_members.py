"""Claims of the Raft paper (6) and thesis (4) about changes of the members, one by one."""

import itertools

from outlast.kernel import ReplicaId
from outlast.log.api import Member
from outlast.log.engines.raft.core.config import Config, decode_config, encode_config
from outlast.log.engines.raft.core.quorum import VoteResult, joint_votes, votes_of
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import (
    AppendRequest,
    AppendResponse,
    Entry,
    EntryKind,
    Receive,
    Role,
    TailReady,
    VoteRequest,
    VoteResponse,
)
from tests.support.raft_paper import elected, fed, grants
from tests.support.raft_sim import Cluster, ids, members_of

A, B, C, D, E = ids(5)
STRANGER = ids(9)[8]


def configs_in(request: AppendRequest) -> list[Config]:
    return [decode_config(e.payload) for e in request.entries if e.kind == EntryKind.CONFIG]


def joint(cluster: Cluster, replica: ReplicaId) -> bool:
    return cluster.node(replica).state.config.joint


def in_the_middle() -> Cluster:
    """A, B, C change to A, D, E: all are in the joint configuration, only A goes on."""
    cluster = elected()
    for replica in (D, E):
        cluster.add_host(replica, may_vote=False)
    cluster.drop = lambda s, t, m: (
        isinstance(m, AppendRequest)
        and any(c.members == tuple(members_of([A, D, E])) and not c.joint for c in configs_in(m))
    )
    cluster.change(A, members_of([A, D, E]))
    assert cluster.run(1, until=lambda: all(joint(cluster, r) for r in (B, C, D, E)))
    cluster.run(0.02)
    return cluster


# --- joint consensus -----------------------------------------------------------------------------


def test_no_two_disjoint_majorities_at_any_point_of_a_change() -> None:
    """Whatever the old and the new members are, no decision of the old ones alone or of the new
    ones alone can be made beside one of the joint configuration (paper 6, thesis 4.3).
    """
    replicas = ids(4)
    groups = [g for n in range(1, 5) for g in itertools.combinations(replicas, n)]
    sets = [frozenset(g) for g in groups]
    for old, new in itertools.product(groups, groups):
        both = [s for s in sets if wins(joint_votes(new, old, dict.fromkeys(s, True)))]
        assert both
        for alone in (old, new):
            one = [s for s in sets if wins(votes_of(alone, dict.fromkeys(s, True)))]
            assert all(a & b for a in one for b in both), (old, new)


def wins(result: VoteResult) -> bool:
    return result is VoteResult.WON


def test_while_joint_entries_go_to_all_of_both() -> None:
    """Entries go to all members of both configurations while the change is joint (paper 6)."""
    cluster = elected()
    for replica in (D, E):
        cluster.add_host(replica, may_vote=False)
    cluster.change(A, members_of([A, D, E]))
    assert cluster.run(1, until=lambda: joint(cluster, A))
    cluster.propose(A, b"x")
    for replica in (B, C, D, E):
        assert b"x" in [e.payload for m in fed(cluster, replica) for e in m.entries]


def test_a_server_of_either_configuration_can_lead() -> None:
    """Any voter of the old or the new members can win an election while the change is joint
    (paper 6).
    """
    for candidate in (B, C, D, E):
        cluster = in_the_middle()
        at = cluster.node(candidate).last_index
        for replica in (B, C, D, E):
            cluster.step(replica, Receive(A, AppendRequest(1, at, 1, [], at, 0)))
            assert cluster.node(replica).commit == at
        cluster.crash(A)
        cluster.stand(candidate)
        cluster.run(0.02)
        assert cluster.leader() == candidate


def test_an_election_needs_both_majorities() -> None:
    """While the change is joint a candidate needs a majority of the old voters and one of the
    new ones (paper 6).
    """
    cluster = in_the_middle()
    cluster.crash(A)
    cluster.drop = lambda s, t, m: True
    node = cluster.node(B)
    cluster.stand(B)
    for pre in (True, False):
        before = node.role
        for voter in (D, E):  # with A's missing, a majority of A, D, E; of A, B, C only B
            cluster.step(B, Receive(voter, VoteResponse(node.term, node.term + pre, pre, True)))
            assert node.role is before
        cluster.step(B, Receive(C, VoteResponse(node.term, node.term + pre, pre, True)))
        assert node.role is (Role.CANDIDATE if pre else Role.LEADER)
        cluster.run(0.001)


def test_a_leader_keeps_the_lead_only_with_both_majorities() -> None:
    """While the change is joint a leader that hears no majority of the old voters steps down and
    answers no read, although all the new ones answer (paper 6, thesis 6.2, 6.4).
    """
    cluster = elected()
    for replica in (D, E):
        cluster.add_host(replica, may_vote=False)
    cluster.change(A, members_of([A, D, E]))
    assert cluster.run(1, until=lambda: joint(cluster, A))
    for replica in (B, C):
        cluster.crash(replica)
    ticket = cluster.ask(A)
    cluster.run(0.3)
    assert cluster.node(A).role is Role.LEADER
    assert not isinstance(cluster.answer(ticket), TailReady)
    assert cluster.run(0.4, until=lambda: cluster.node(A).role is not Role.LEADER)


def test_followers_use_a_configuration_as_soon_as_they_store_it() -> None:
    """A follower acts by the newest configuration in its log, committed or not (paper 6)."""
    cluster = elected()
    config = Config(2, tuple(members_of([A, B, C, D])))
    entry = Entry(2, 1, EntryKind.CONFIG, encode_config(config))
    cluster.step(B, Receive(A, AppendRequest(1, 1, 1, [entry], 1, 0)))
    node = cluster.node(B)
    assert node.commit < 2
    assert node.state.config.voters == (A, B, C, D)
    cluster.isolate(A)
    cluster.sent.clear()
    cluster.run(1, until=lambda: node.role is Role.PRE_CANDIDATE)
    assert (B, D) in {(s, t) for s, t, m in cluster.sent if isinstance(m, VoteRequest)}


# --- servers that the configuration does not name ---------------------------------------------


def test_requests_are_taken_from_servers_outside_the_configuration() -> None:
    """A follower takes entries from a leader, and votes for a candidate, that its own
    configuration does not name (thesis 4.1).
    """
    cluster = Cluster(ids(3))
    cluster.step(B, Receive(STRANGER, AppendRequest(1, 0, 0, [Entry(1, 1, 1, b"")], 0, 0)))
    assert (cluster.node(B).leader, cluster.node(B).last_index) == (STRANGER, 1)
    cluster.step(C, Receive(STRANGER, VoteRequest(2, 9, 1, False, False)))
    cluster.settle()
    assert grants(cluster)[C]


def test_a_server_that_missed_its_removal_disturbs_nobody() -> None:
    """A removed server that never learned of it comes back, asks for votes, and changes neither
    leader nor term, were its log as complete as any (thesis 4.2.3).
    """
    cluster = elected()
    cluster.isolate(C)
    ticket = cluster.change(A, members_of([A, B]))
    assert cluster.run(1, until=lambda: cluster.done(ticket))
    cluster.run(2)
    cluster.heal()
    cluster.sent.clear()
    cluster.run(10)
    assert [m for s, _, m in cluster.sent if s == C and isinstance(m, VoteRequest)]
    for pre in (True, False):
        for replica in (A, B):
            cluster.step(replica, Receive(C, VoteRequest(8, 99, 8, pre, False)))
    assert (cluster.leader(), cluster.node(A).term, cluster.node(B).term) == (A, 1, 1)


# --- the current leader ----------------------------------------------------------------------


def test_a_leaving_leader_does_not_count_itself() -> None:
    """A leader that is not among the new members commits the final configuration with a majority
    of those, without its own copy (paper 6, thesis 4.2.2).
    """
    cluster = elected()
    final = tuple(members_of([B, C]))
    cluster.drop = lambda s, t, m: (
        t == C and isinstance(m, AppendRequest)
        and any(c.members == final and not c.joint for c in configs_in(m))
    )  # fmt: skip
    ticket = cluster.change(A, final)
    cluster.run(0.3)
    node = cluster.node(A)
    at = node.state.config_index
    assert node.state.config.voters == (B, C)
    assert node.role is Role.LEADER
    assert (cluster.node(A).durable_index, cluster.node(B).durable_index) == (at, at)
    assert node.commit < at
    cluster.drop = None
    cluster.run(0.3)
    assert node.role is not Role.LEADER
    assert cluster.done(ticket)


# --- catching up ---------------------------------------------------------------------------------


def test_a_new_server_catches_up_in_rounds() -> None:
    """A round sends a new server what the log held when the round began; the change goes on once
    a round lasted less than an election timeout (thesis 4.2.1).
    """
    cluster = elected(settings=RaftSettings(append_bytes_max=1))
    cluster.add_host(D, may_vote=False)
    cluster.hosts[D].slow_disk = True
    ticket = cluster.change(A, members_of([A, B, C, D]))
    first_goal = cluster.node(A).last_index
    cluster.run(0.6)  # the first round takes longer than the timeout
    cluster.drop = lambda s, t, m: (
        t == D and isinstance(m, AppendRequest) and any(e.index > first_goal for e in m.entries)
    )
    for _ in range(5):
        cluster.commit_one(A)
    cluster.resume_disk(D)
    cluster.run(0.1)
    change = cluster.node(A).state.members.change
    assert change is not None
    assert cluster.node(A).state.progress[D].match == first_goal
    assert (change.waiting[D].done, change.waiting[D].goal) == (False, first_goal + 5)
    assert D not in cluster.node(A).state.config.voters
    cluster.drop = None
    cluster.run(0.2)
    assert cluster.done(ticket)
    assert D in cluster.node(A).state.config.voters


def test_a_server_that_has_everything_needs_no_news_to_get_its_vote() -> None:
    """A server that lacks nothing has caught up, although nothing is written (thesis 4.2.1)."""
    cluster = Cluster(ids(3), learners=[D])
    cluster.elect(A)
    cluster.run(0.2)
    ticket = cluster.change(A, members_of([A, B, C, D]))
    assert cluster.run(0.2, until=lambda: cluster.done(ticket))
    assert D in cluster.node(A).state.config.voters


def test_a_new_server_without_a_vote_delays_no_commit() -> None:
    """Entries are committed by the voters alone while a new server is still empty
    (paper 6, thesis 4.2.1).
    """
    cluster = elected()
    cluster.crash(C)
    cluster.add_host(D, may_vote=False)
    cluster.add_host(E, may_vote=False)
    cluster.hosts[D].slow_disk = cluster.hosts[E].slow_disk = True
    cluster.change(A, members_of([A, B, C, D, E]))
    index = cluster.commit_one(A)
    cluster.run(0.05)
    assert cluster.node(A).commit >= index
    assert cluster.node(D).durable_index == 0


def test_an_answer_of_a_server_without_a_vote_is_no_vote() -> None:
    """A vote of a server that does not vote yet counts for nothing (paper 6)."""
    cluster = Cluster(ids(3), learners=[D, E])
    cluster.drop = lambda s, t, m: True
    cluster.stand(A)
    for voter in (D, E):
        cluster.step(A, Receive(voter, VoteResponse(0, 1, True, True)))
    assert cluster.node(A).role is Role.PRE_CANDIDATE
    assert not [m for _, t, m in cluster.sent if t in (D, E)]


def test_a_configuration_change_does_not_stop_the_service() -> None:
    """Entries are accepted and committed in every step of a change (paper 6)."""
    cluster = elected()
    for replica in (D, E):
        cluster.add_host(replica, may_vote=False)
    ticket = cluster.change(A, [*members_of([A, D, E]), Member(B, "b:1", False)])
    steps = set()
    for _ in range(60):
        if cluster.done(ticket):
            break
        steps.add((joint(cluster, A), len(cluster.node(A).state.config.voters)))
        start = cluster.now
        cluster.commit_one(A)
        assert cluster.now - start < 10_000_000
    assert cluster.done(ticket)
    assert steps == {(False, 3), (True, 3)}


def test_acknowledgements_of_one_majority_do_not_commit() -> None:
    """While the change is joint the new members alone cannot commit, and neither can the old
    ones (paper 6).
    """
    for silent in ((B, C), (D, E)):
        cluster = elected()
        for replica in (D, E):
            cluster.add_host(replica, may_vote=False)
        cluster.change(A, members_of([A, D, E]))
        assert cluster.run(1, until=lambda c=cluster: joint(c, A))
        at = cluster.node(A).state.config_index
        cluster.drop = lambda s, t, m, silent=silent, at=at: (
            s in silent and isinstance(m, AppendResponse) and m.match >= at
        )
        cluster.run(0.2)
        assert cluster.node(A).commit < at
        cluster.drop = None
        cluster.run(0.2)
        assert cluster.node(A).commit > at


def test_a_new_leader_leaves_a_joint_configuration_that_it_knows_to_be_committed() -> None:
    """A new leader finishes a change whose joint step it already knew to be committed
    (paper 6).
    """
    cluster = in_the_middle()
    at = cluster.node(C).last_index
    for replica in (B, C, D, E):
        cluster.step(replica, Receive(A, AppendRequest(1, at, 1, [], at, 0)))
    cluster.crash(A)
    cluster.drop = None
    assert cluster.run(3, until=lambda: cluster.leader() is not None)
    cluster.run(3)
    assert not cluster.node(D).membership.joint
