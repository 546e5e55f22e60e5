"""What a supervisor of local nodes says of their cluster's health."""

from typing import Any

import pytest

from outlast.cluster.cluster_health import ClusterHealth, judge
from outlast.cluster.health_port import HealthPort
from outlast.cluster.overview import NodeOverview, Overview
from outlast.detect import Health, Status
from outlast.host import make_world
from outlast.kernel import ConfigError

MEMBERS = [{"node": f"n{n}", "voter": n < 4} for n in (1, 2, 3, 4)]


def row(node: str, *, role: str = "follower", leader: str = "n1", term: int = 2) -> NodeOverview:
    facts: dict[str, Any] = {"node": node, "leader": leader, "members": MEMBERS}
    return NodeOverview(node, f"{node}:1", reachable=True, role=role, term=term, facts=facts)


def silent(node: str) -> NodeOverview:
    return NodeOverview(node, f"{node}:1", reachable=False, problem="refused")


def seen(*nodes: NodeOverview, leader: str = "n1") -> Overview:
    return Overview("c-1", "bank", leader, 2, nodes)


def test_a_cluster_whose_leader_is_followed_by_all_can_serve() -> None:
    found = judge(seen(row("n1", role="leader"), row("n2"), row("n3")))
    assert found == (Status.OK, "led by n1")


def test_a_node_that_does_not_answer_degrades_the_cluster() -> None:
    found = judge(seen(row("n1", role="leader"), row("n2"), silent("n3")))
    assert found == (Status.DEGRADED, "led by n1; no answer from n3")


@pytest.mark.parametrize(
    "third", [silent("n3"), row("n3", leader="n2", term=2), row("n3", term=1)]
)
def test_a_leader_without_a_majority_that_follows_it_cannot_serve(third: NodeOverview) -> None:
    found = judge(seen(row("n1", role="leader"), silent("n2"), third))
    assert found == (Status.FAILED, "1 of 3 voters follow n1")


def test_a_member_without_a_vote_does_not_count_for_the_majority() -> None:
    nodes = (row("n1", role="leader"), silent("n2"), silent("n3"), row("n4"))
    assert judge(seen(*nodes)) == (Status.FAILED, "1 of 3 voters follow n1")


def test_a_cluster_whose_leader_is_unknown_or_silent_cannot_serve() -> None:
    assert judge(seen(row("n1"), leader="")) == (Status.FAILED, "no leader is known")
    found = judge(seen(silent("n1"), row("n2"), row("n3")))
    assert found == (Status.FAILED, "the leader n1 does not answer")


def test_a_node_that_is_said_to_lead_and_does_not_is_no_leader() -> None:
    found = judge(seen(row("n1"), row("n2"), row("n3")))
    assert found == (Status.FAILED, "n1 is said to lead and does not")


def test_a_cluster_that_is_being_stopped_is_not_ready_and_may_start_again() -> None:
    told = ClusterHealth(make_world(), ["127.0.0.1:1"], "127.0.0.1:0")
    told.stopping()
    why = [(one.name, one.detail) for one in told.health.read("readiness").results]
    assert ("stopping", "the cluster is being stopped") in why
    told.start()
    told.stop()
    assert "stopping" not in [one.name for one in told.health.read("readiness").results]


def test_an_address_for_probes_that_is_taken_is_named() -> None:
    world = make_world()
    first = HealthPort(Health(world), "127.0.0.1:0", world)
    first.start()
    try:
        address = first.url.removeprefix("http://")
        with pytest.raises(ConfigError, match=f"--health {address}: Address already in use"):
            HealthPort(Health(world), address, world).start()
    finally:
        first.stop()
    nowhere = HealthPort(Health(world), None, world)
    nowhere.start()
    nowhere.stop()
    assert (nowhere.port, nowhere.url) == (None, "")
