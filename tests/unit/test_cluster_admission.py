"""Who may come into the cluster, and when a learner becomes a voter."""

import pytest

from outlast.cluster.core import admission
from outlast.kernel import ConfigError, LogIndex, NodeId, ReplicaId, UnavailableError
from outlast.log import Member, Membership, Progress


def group(*replicas: str, version: int = 0, learners: tuple[str, ...] = ()) -> Membership:
    members = [Member(ReplicaId(r), f"host-{r}:1") for r in replicas]
    members += [Member(ReplicaId(r), f"host-{r}:1", voter=False) for r in learners]
    return Membership(version, tuple(members))


def far(replica: str, match: int, *, reachable: bool = True) -> Progress:
    return Progress(ReplicaId(replica), LogIndex(match), voter=False, reachable=reachable)


def test_a_returning_node_comes_back_as_a_learner_beside_its_lost_self():
    replica, members = admission.admit(group("n1#1", "n2#1", "n3#1"), NodeId("n2"), "new:1")
    assert replica == "n2#2"
    assert [(m.replica, m.voter) for m in members] == [
        ("n1#1", True), ("n2#1", True), ("n3#1", True), ("n2#2", False),
    ]  # fmt: skip
    assert members[-1].address == "new:1"


def test_no_incarnation_is_ever_given_out_twice():
    members = group("n1#1", "n2#1", "n3#1")
    seen = {m.replica for m in members.members}
    for _ in range(5):
        replica, rows = admission.admit(members, NodeId("n2"), "new:1")
        assert replica not in seen
        seen.add(replica)
        members = Membership(members.version + 1, tuple(rows))
    assert sum(m.replica.startswith("n2#") for m in members.members) == 2


def test_an_unknown_node_is_told_how_to_be_added():
    with pytest.raises(ConfigError, match=r"outlast member add n9 --address h:1"):
        admission.admit(group("n1#1"), NodeId("n9"), "h:1")


def test_a_second_process_does_not_take_the_place_of_a_member_that_is_alive():
    members = group("n1#1", "n2#1", "n3#1", learners=("n2#4",))
    for alive in ("n2#1", "n2#4"):
        with pytest.raises(UnavailableError, match=f"n2 runs already, at host-{alive}:1"):
            admission.admit(members, NodeId("n2"), "new:1", [ReplicaId("n1#1"), ReplicaId(alive)])
    others = [ReplicaId("n1#1"), ReplicaId("n3#1")]
    replica, _ = admission.admit(members, NodeId("n2"), "new:1", others)
    assert replica == "n2#2"


def test_a_learner_becomes_a_voter_once_it_has_caught_up():
    members = group("n1#1", "n2#1", "n3#1", learners=("n4#2",))
    assert admission.promote(members, [far("n4#2", 10)], LogIndex(1000)) is None
    assert admission.promote(members, [far("n4#2", 990, reachable=False)], LogIndex(1000)) is None
    promoted = admission.promote(members, [far("n4#2", 990)], LogIndex(1000))
    assert promoted is not None
    assert all(m.voter for m in promoted)
    assert len(promoted) == 4


def test_promotion_exchanges_the_lost_incarnation_in_the_same_change():
    members = group("n1#1", "n2#1", "n3#1", learners=("n2#2",))
    promoted = admission.promote(members, [far("n2#2", 5)], LogIndex(5))
    assert promoted is not None
    assert [m.replica for m in promoted] == ["n1#1", "n3#1", "n2#2"]


def test_nothing_is_promoted_during_a_joint_change():
    members = Membership(1, group("n1#1", learners=("n2#2",)).members, joint=True)
    assert admission.promote(members, [far("n2#2", 5)], LogIndex(5)) is None


def test_adding_refuses_members_and_taken_addresses():
    with pytest.raises(ConfigError, match="member already"):
        admission.add(group("n1#1"), NodeId("n1"), "h:1")
    with pytest.raises(ConfigError, match="belongs to member n1"):
        admission.add(group("n1#1"), NodeId("n2"), "host-n1#1:1")
    assert admission.add(group("n1#1"), NodeId("n2"), "h:1")[-1] == Member(
        ReplicaId("n2#2"), "h:1", voter=False
    )


def test_removing_refuses_strangers_and_the_last_voter():
    with pytest.raises(ConfigError, match="not a member"):
        admission.remove(group("n1#1"), NodeId("n2"))
    with pytest.raises(ConfigError, match="last voter"):
        admission.remove(group("n1#1", learners=("n2#1",)), NodeId("n1"))
    kept = admission.remove(group("n1#1", "n2#1", learners=("n2#3",)), NodeId("n2"))
    assert [m.replica for m in kept] == ["n1#1"]
