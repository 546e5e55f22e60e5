"""The plan of faults follows from the seed, fits into the time, and names its victims."""

from itertools import pairwise

import pytest

from outlast.drill.core.schedule import QUIET_END, SLOT_MIN, least_seconds, plan
from outlast.drill.core.victims import aim, choose
from outlast.inject.core.catalogue import parse_faults
from outlast.kernel import ConfigError, Fault, Prng

NS = 1_000_000_000
FAULTS = parse_faults(["crash@leader", "pause", "partition:halves", "link:slow"])
NODES = ["n1", "n2", "n3"]


def test_equal_seeds_give_equal_plans_and_others_differ() -> None:
    assert plan(FAULTS, 60, 7) == plan(FAULTS, 60, 7)
    assert plan(FAULTS, 60, 7) != plan(FAULTS, 60, 8)


@pytest.mark.parametrize("seconds", [least_seconds(4), 30, 60, 61.7, 300, 3600])
@pytest.mark.parametrize("seed", range(5))
def test_faults_never_overlap_and_each_comes_equally_often(seconds: float, seed: int) -> None:
    planned = plan(FAULTS, seconds, seed)
    names = [str(one.fault) for one in planned]
    assert {names.count(str(fault)) for fault in FAULTS} == {len(names) // len(FAULTS)}
    for one, following in pairwise(planned):
        assert one.at_ns + one.lasts_ns + SLOT_MIN * NS * 0.4 <= following.at_ns
    last = planned[-1]
    assert last.at_ns + last.lasts_ns <= (seconds - QUIET_END) * NS
    assert planned[0].at_ns >= 1.5 * NS


def test_too_many_faults_for_the_time_are_refused_with_the_time_they_need() -> None:
    with pytest.raises(ConfigError, match=r"--seconds 5: 4 faults need at least 18 s"):
        plan(FAULTS, 5, 1)
    with pytest.raises(ConfigError, match="no faults are given"):
        plan((), 60, 1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("target", "count"),
    [("leader", 1), ("follower", 1), ("one", 1), ("minority", 1), ("majority", 2), ("all", 3)],
)
def test_a_target_names_as_many_nodes_as_it_says(target: str, count: int, seed: int) -> None:
    found = choose(target, NODES, "n2", Prng(seed))
    assert len(found) == count
    if target == "leader":
        assert found == ("n2",)
    if target == "follower":
        assert "n2" not in found


def test_without_a_known_leader_any_node_is_hit() -> None:
    hit = {choose("leader", NODES, "", Prng(seed)) for seed in range(40)}
    assert hit == {("n1",), ("n2",), ("n3",)}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("seed", range(10))
def test_halves_leave_a_majority_and_cut_every_pair_between_the_sides(
    count: int, seed: int
) -> None:
    nodes = [f"n{n}" for n in range(1, count + 1)]
    found = aim(Fault("partition", "halves", "leader"), nodes, "n1", seed)
    aside = set(found.victims)
    assert "n1" in aside
    assert len(aside) == max(1, (count - 1) // 2)
    assert found.cuts == {(a, b) for a in nodes for b in nodes if (a in aside) != (b in aside)}
    assert found.can_serve == (max(len(aside), count - len(aside)) * 2 > count)


def test_one_way_withholds_what_others_send_and_not_what_the_victim_sends() -> None:
    found = aim(Fault("partition", "one-way", "leader"), NODES, "n3", 1)
    assert found.victims == ("n3",)
    assert found.cuts == {("n1", "n3"), ("n2", "n3")}


@pytest.mark.parametrize(
    ("name", "serves"),
    [
        ("crash@one", True), ("crash@all", False), ("crash@majority", False),
        ("pause@minority", True), ("link:slow@all", True), ("link:reset@all", False),
        ("link:reset@one", True), ("partition:isolate@leader", True),
    ],
)  # fmt: skip
def test_who_must_be_served_meanwhile_follows_from_who_is_left(name: str, serves: bool) -> None:
    assert aim(Fault.parse(name), NODES, "n1", 3).can_serve is serves
