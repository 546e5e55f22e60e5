"""Whole memberships under drawn faults: at the end all agree, and nobody was wronged."""

from collections import Counter

import pytest

from outlast.detect.core.swim.settings import SwimSettings
from outlast.detect.membership_events import MemberDead
from tests.support.swim_campaign import FAULTS, live
from tests.support.swim_sim import SECOND, BrokenError, Swim

pytestmark = pytest.mark.timeout(180)

KEPT = {
    1073: "one of nine had missed the objection of a frozen member and removed it",
}


@pytest.mark.parametrize("seed", sorted(KEPT))
def test_kept_seed(seed: int) -> None:
    live(seed)


def test_promises_hold_and_everything_happens_sometimes() -> None:
    said: Counter[str] = Counter()
    done: Counter[str] = Counter()
    for seed in range(20):
        life = live(seed, size_max=16)
        said.update(type(one.event).__name__ for one in life.sim.said)
        done += life.done
    assert set(done) == set(FAULTS)
    assert set(said) == {
        "MemberJoined", "MemberSuspected", "SuspicionRefuted", "MemberDead", "MemberAlive",
        "MemberRejoined", "MemberLeft", "MemberUpdated",
    }  # fmt: skip


def test_one_seed_gives_one_result() -> None:
    first, second = live(3), live(3)
    assert first.sim.said == second.sim.said
    assert (first.sim.steps, first.sim.bytes) == (second.sim.steps, second.sim.bytes)


def test_hundreds_notice_a_death_in_time_and_nobody_else_is_removed() -> None:
    sim = Swim(200, seed=5, keep=(MemberDead,))
    sim.start_joined()
    sim.run(3 * SECOND)
    began = sim.now_ns
    sim.kill(7)
    sim.run(4 * SECOND)
    dead = sim.events(MemberDead)
    assert {one.event.member.name for one in dead} == {"n7"}  # type: ignore[attr-defined]
    assert len(dead) == 199
    assert max(one.at_ns for one in dead) - began < 3 * SECOND
    sim.check_agreed()


@pytest.mark.parametrize(
    ("name", "wronged"), [("lan", False), ("plain", True)], ids=["ours", "plain"]
)
def test_members_that_read_late_wrong_nobody_but_under_plain_swim(
    name: str, wronged: bool
) -> None:
    sim = Swim(48, getattr(SwimSettings, name)(), seed=2, keep=(MemberDead,))
    slow = {f"n{index}" for index in range(8)}
    sim.start_joined()
    for _ in range(2):
        for index in range(8):
            sim.slow_down(index, 8 * SECOND)
        sim.run(9 * SECOND)
    healthy = [one for one in sim.events(MemberDead) if one.event.member.name not in slow]  # type: ignore[attr-defined]
    assert bool(healthy) is wronged


def test_the_checker_sees_a_member_that_is_missing() -> None:
    sim = Swim(3, seed=1)
    sim.start_joined()
    sim.run(SECOND)
    sim.check_agreed()
    sim.kill(2)
    with pytest.raises(BrokenError, match=r"sees \{'n2'"):
        sim.check_agreed()
