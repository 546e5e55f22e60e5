"""Membership by joint consensus (Raft paper 6, thesis 4)."""

import pytest

from outlast.kernel import (
    ConfigError,
    ElsewhereError,
    IndefiniteError,
    ProtocolError,
    UnavailableError,
)
from outlast.log.api import Member
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import (
    AppendRequest,
    AppendResponse,
    Entry,
    EntryKind,
    ProposeMembers,
    Receive,
    Role,
    SnapshotOffer,
    VoteRequest,
    VoteResponse,
)
from tests.support.raft_sim import Cluster, ids, members_of

A, B, C, D, E = ids(5)


def elected(count: int = 3, settings: RaftSettings | None = None) -> Cluster:
    cluster = Cluster(ids(count), settings=settings)
    cluster.elect(A)
    cluster.settle()
    return cluster


def voters(cluster: Cluster, replica: str) -> tuple[str, ...]:
    return cluster.node(replica).state.config.voters  # type: ignore[arg-type]


def test_6_a_member_is_added_and_votes() -> None:
    cluster = elected()
    cluster.add_host(D, may_vote=False)
    ticket = cluster.change(A, members_of([A, B, C, D]))
    assert cluster.run(2, until=lambda: cluster.done(ticket))
    cluster.settle()
    assert voters(cluster, D) == (A, B, C, D)
    assert cluster.node(D).role is Role.FOLLOWER
    assert not cluster.node(A).membership.joint


def test_6_a_member_is_removed_and_stays_quiet() -> None:
    cluster = elected()
    ticket = cluster.change(A, members_of([A, B]))
    assert cluster.run(2, until=lambda: cluster.done(ticket))
    term = cluster.node(A).term
    cluster.run(5)
    assert cluster.node(C).role is Role.LEARNER
    assert cluster.node(A).term == term
    assert cluster.leader() == A


def test_6_all_three_members_are_replaced_in_one_change() -> None:
    cluster = elected()
    new = ids(6)[3:]
    cluster.commit_one(A, b"kept")
    for replica in new:
        cluster.add_host(replica, may_vote=False)
    ticket = cluster.change(A, members_of(new))
    assert cluster.run(3, until=lambda: cluster.done(ticket))
    for replica in (A, B, C):
        cluster.crash(replica)
    assert cluster.run(3, until=lambda: cluster.leader() in new)
    leader = cluster.leader()
    assert leader is not None
    cluster.commit_one(leader, b"more")
    assert cluster.payloads(leader) == [b"kept", b"more"]


def test_6_a_joint_configuration_needs_both_majorities() -> None:
    cluster = elected()
    for replica in (D, E):
        cluster.add_host(replica, may_vote=False)
    ticket = cluster.change(A, members_of([A, D, E]))
    # Stop the old majority as soon as the joint configuration is in force.
    assert cluster.run(1, until=lambda: cluster.node(A).membership.joint)
    for replica in (B, C):
        cluster.hosts[replica].slow_disk = True
    commit = cluster.node(A).commit
    cluster.run(0.3)
    assert cluster.node(A).commit == commit
    for replica in (B, C):
        cluster.resume_disk(replica)
    cluster.run(0.2)
    assert cluster.done(ticket)


def test_6_the_leader_leaves_the_joint_configuration_by_itself() -> None:
    cluster = elected()
    cluster.add_host(D, may_vote=False)
    ticket = cluster.change(A, members_of([A, B, D]))
    assert cluster.run(2, until=lambda: cluster.done(ticket))
    assert cluster.node(A).membership == cluster.node(B).membership
    assert not cluster.node(A).membership.joint


def test_6_a_new_leader_finishes_the_change_that_it_finds() -> None:
    cluster = elected()
    cluster.add_host(D, may_vote=False)
    cluster.change(A, members_of([A, B, D]))
    joint = lambda r: cluster.node(r).state.config.joint  # noqa: E731
    assert cluster.run(1, until=lambda: joint(A) and joint(B) and joint(D))
    cluster.crash(A)
    assert cluster.run(3, until=lambda: cluster.leader() in {B, D})
    cluster.run(1)
    leader = cluster.leader()
    assert leader is not None
    assert voters(cluster, leader) == (A, B, D)
    assert not joint(leader)


def test_6_a_configuration_holds_as_soon_as_it_is_in_the_log() -> None:
    cluster = elected()
    cluster.add_host(D, may_vote=False)
    cluster.isolate(A)
    cluster.change(A, members_of([A, B, C, D]))
    assert D in cluster.node(A).state.config.everyone
    assert cluster.node(A).state.config_index > cluster.node(A).commit


def test_6_a_configuration_is_taken_back_when_its_entry_is_truncated() -> None:
    cluster = elected()
    cluster.isolate(A)
    cluster.change(A, [*members_of([A, B, C]), Member(D, "d", False)])
    assert cluster.node(A).membership.version == 2
    cluster.run(1)
    winner = cluster.leader()
    assert winner in {B, C}
    cluster.commit_one(winner)
    cluster.heal()
    cluster.run(0.5)
    assert cluster.node(A).membership == cluster.genesis


def test_2015_bug_two_leaders_cannot_build_on_different_uncommitted_changes() -> None:
    # Four voters: A adds nobody's knowledge of E's removal, the next leader adds another change.
    cluster = Cluster(ids(4))
    cluster.elect(A)
    cluster.settle()
    cluster.isolate(A)
    cluster.change(A, members_of([A]))  # in A's log only
    cluster.settle()
    commit = cluster.node(A).commit
    cluster.run(1)
    winner = cluster.leader()
    assert winner in {B, C, D}
    assert cluster.node(A).commit == commit  # one new voter is no majority of the old four
    ticket = cluster.change(winner, members_of([B, C]))
    assert cluster.run(2, until=lambda: cluster.done(ticket))
    cluster.heal()
    cluster.converge()
    assert voters(cluster, B) == voters(cluster, C) == (B, C)
    assert cluster.node(A).commit == commit  # nobody feeds it, and it disturbs nobody


def test_2015_bug_a_new_leader_changes_nothing_before_it_committed_in_its_term() -> None:
    cluster = Cluster(ids(3))
    cluster.drop = lambda s, t, m: isinstance(m, AppendResponse)
    cluster.stand(A)
    cluster.run(0.05)
    assert cluster.node(A).role is Role.LEADER
    error = cluster.error(cluster.change(A, members_of([A, B])))
    assert isinstance(error, UnavailableError)


def test_4_2_1_a_learner_does_not_count_in_any_quorum() -> None:
    cluster = Cluster(ids(3), learners=[D, E])
    cluster.elect(A)
    cluster.settle()
    cluster.cut([A, D, E], [B, C])
    commit = cluster.node(A).commit
    cluster.propose(A, b"x")
    cluster.run(0.1)
    assert cluster.node(A).state.progress[D].match == commit + 1
    assert cluster.node(A).commit == commit
    assert cluster.run(1, until=lambda: cluster.node(A).role is not Role.LEADER)
    cluster.run(5)
    assert cluster.node(D).role is Role.LEARNER


def test_4_2_1_a_new_voter_catches_up_before_it_votes() -> None:
    cluster = elected()
    for _ in range(20):
        cluster.commit_one(A)
    cluster.add_host(D, may_vote=False)
    cluster.hosts[D].slow_disk = True
    ticket = cluster.change(A, members_of([A, B, C, D]))
    cluster.run(1)
    assert not cluster.node(A).membership.joint
    assert D not in voters(cluster, A)
    assert not cluster.done(ticket)
    cluster.resume_disk(D)
    assert cluster.run(2, until=lambda: cluster.done(ticket))
    assert D in voters(cluster, A)


def test_4_2_1_a_dead_new_voter_ends_the_change() -> None:
    cluster = elected(settings=RaftSettings(catch_up_silence=2.0))
    cluster.add_host(D, may_vote=False)
    cluster.crash(D)
    ticket = cluster.change(A, members_of([A, B, C, D]))
    cluster.run(2.5)
    error = cluster.error(ticket)
    assert isinstance(error, IndefiniteError)
    assert "n4#1 has not answered for 2.0 s" in str(error)
    undo = cluster.change(A, members_of([A, B, C]))
    assert cluster.run(1, until=lambda: cluster.done(undo))
    assert D not in cluster.node(A).state.config.everyone


def test_4_2_2_a_leader_that_is_removed_leads_until_the_change_is_committed() -> None:
    cluster = elected()
    ticket = cluster.change(A, members_of([B, C]))
    assert cluster.run(1, until=lambda: cluster.done(ticket))
    assert cluster.node(A).role is not Role.LEADER
    assert cluster.run(0.1, until=lambda: cluster.leader() in {B, C})


def test_4_2_2_a_leaving_voter_stands_while_only_it_has_the_final_configuration() -> None:
    cluster = elected(2)
    joint_at = [cluster.node(A).last_index + 1]
    cluster.drop = lambda s, t, m: (
        isinstance(m, AppendRequest) and any(e.index > joint_at[0] for e in m.entries)
    )
    cluster.change(A, members_of([B]))
    cluster.run(0.1)
    assert voters(cluster, A) == (B,)
    assert cluster.node(B).state.config.joint
    cluster.crash(A)
    cluster.start(A)
    cluster.drop = None
    assert cluster.run(
        5, until=lambda: cluster.leader() == B and not cluster.node(B).membership.joint
    )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "no voter is left"),
        ([Member(A, "a", False)], "no voter is left"),
        (members_of([A, A]), "listed twice"),
        ([Member(A, "a"), Member("n1#2", "b")], "two incarnations of one node"),  # type: ignore[arg-type]
    ],
)
def test_members_that_cannot_work_are_refused(members: list[Member], message: str) -> None:
    cluster = elected()
    error = cluster.error(cluster.change(A, members))
    assert isinstance(error, ConfigError)
    assert message in str(error)


def test_a_change_compares_the_version() -> None:
    cluster = elected()
    ticket = cluster.ticket()
    cluster.step(A, ProposeMembers(ticket, tuple(members_of([A, B])), 7))
    error = cluster.error(ticket)
    assert isinstance(error, ConfigError)
    assert "version 1, not 7" in str(error)


def test_a_change_is_asked_of_the_leader() -> None:
    cluster = elected()
    assert isinstance(cluster.error(cluster.change(B, members_of([A, B]))), ElsewhereError)


def test_one_change_at_a_time() -> None:
    cluster = elected()
    first = cluster.change(A, members_of([A, B]))
    second = cluster.change(A, members_of([A, C]))
    assert isinstance(cluster.error(second), UnavailableError)
    assert cluster.run(1, until=lambda: cluster.done(first))


def test_members_as_they_are_need_no_change() -> None:
    cluster = elected()
    assert cluster.done(cluster.change(A, members_of([A, B, C])))


def test_a_new_address_needs_no_joint_step() -> None:
    cluster = elected()
    moved = [Member(A, "elsewhere:1"), *members_of([B, C])]
    ticket = cluster.change(A, moved)
    assert cluster.run(1, until=lambda: cluster.done(ticket))
    assert cluster.node(A).membership.version == 2
    cluster.settle()
    assert cluster.node(B).membership.members[0].address == "elsewhere:1"


def test_a_wiped_replica_gives_no_vote_and_stands_for_nothing() -> None:
    cluster = elected()
    index = cluster.commit_one(A)
    cluster.crash(C)
    cluster.hosts.pop(C)
    cluster.check.said.pop(C)
    cluster.add_host(C, may_vote=False)  # its disk is gone, its name is not
    cluster.crash(A)
    cluster.run(5)
    assert cluster.node(C).role is Role.RECOVERING
    assert cluster.leader() is None
    cluster.sent.clear()
    cluster.step(C, Receive(B, VoteRequest(9, 99, 9, False, False)))
    cluster.run(0.1)
    assert not [m for s, _, m in cluster.sent if s == C and isinstance(m, VoteResponse)]
    cluster.start(A)
    assert cluster.run(3, until=lambda: cluster.leader() is not None)
    cluster.run(0.2)
    assert cluster.node(A).commit > index
    assert cluster.node(B).commit > index


def test_a_wiped_replica_is_not_counted_and_not_fed_as_a_voter() -> None:
    cluster = elected()
    cluster.commit_one(A)
    cluster.crash(C)
    cluster.hosts.pop(C)
    cluster.check.said.pop(C)
    cluster.add_host(C, may_vote=False)
    cluster.crash(B)
    cluster.propose(A, b"x")
    commit = cluster.node(A).commit
    cluster.run(0.3)
    assert cluster.node(A).commit == commit
    assert cluster.node(C).last_index == 0
    assert cluster.run(1, until=lambda: cluster.node(A).role is not Role.LEADER)


def test_a_wiped_node_comes_back_as_its_next_incarnation() -> None:
    cluster = elected()
    cluster.commit_one(A, b"kept")
    cluster.crash(C)
    again = "n3#2"
    cluster.add_host(again, may_vote=False)  # type: ignore[arg-type]
    ticket = cluster.change(A, members_of([A, B, again]))  # type: ignore[list-item]
    assert cluster.run(2, until=lambda: cluster.done(ticket))
    cluster.run(0.1)
    assert cluster.node(again).role is Role.FOLLOWER  # type: ignore[arg-type]
    assert cluster.node(again).admitted  # type: ignore[arg-type]
    assert cluster.payloads(again) == [b"kept"]  # type: ignore[arg-type]
    cluster.crash(again)  # type: ignore[arg-type]
    cluster.start(again)  # type: ignore[arg-type]
    assert cluster.node(again).admitted  # type: ignore[arg-type]


def test_a_configuration_that_cannot_be_read_changes_nothing() -> None:
    cluster = elected()
    node = cluster.node(B)
    bad = Entry(2, 9, EntryKind.CONFIG, b"?")
    for message in (
        AppendRequest(9, 1, 1, [bad], 0, 0),
        SnapshotOffer(9, 5, 9, 1, b"d", 1, b"?"),
    ):
        with pytest.raises(ProtocolError, match="configuration of 1 bytes unreadable"):
            node.step(Receive(A, message), cluster.now)
        assert (node.term, node.last_index, node.leader) == (1, 1, A)
