"""A membership as a whole, in virtual time: who is suspected, removed, heard, and when."""

import pytest

from outlast.detect.core.swim.api import (
    AccusationsAllowed,
    EvidenceKind,
    LocalScore,
    MemberState,
)
from outlast.detect.core.swim.settings import SwimSettings
from outlast.detect.membership_events import (
    MemberAlive,
    MemberDead,
    MemberJoined,
    MemberRejoined,
    MemberSuspected,
    SuspicionRefuted,
)
from tests.support.swim_sim import MS, SECOND, Net, Swim, grown


def noticed(sim: Swim, name: str, since_ns: int) -> list[float]:
    return [(one.at_ns - since_ns) / 1e9 for one in sim.events(MemberDead, name)]


class TestJoining:
    def test_everybody_knows_everybody_soon_after_the_last_join(self) -> None:
        sim = Swim(16, seed=4)
        sim.start_all()
        sim.run(2 * SECOND)
        sim.check_agreed()
        assert len(sim.events(MemberJoined)) == 16 * 15

    def test_who_gossip_missed_is_introduced_by_the_next_probe(self) -> None:
        sim = grown(4)
        node = sim.machines[2].node
        assert node is not None
        table = node._table
        peer = table.peers["n1"]
        peer.state = MemberState.LEFT
        table.alive -= 1
        table.present -= 1
        table.forget("n1")
        assert node.member("n1") is None
        sim.run(3 * SECOND)
        assert node.member("n1") is not None

    def test_a_join_is_tried_until_a_seed_answers(self) -> None:
        sim = Swim(2, seed=3)
        sim.start(1, (0,))
        sim.run(20 * SECOND)
        assert not sim.machines[1].node.snapshot()["joined"]  # type: ignore[union-attr]
        sim.start(0, ())
        sim.run(6 * SECOND)
        assert sim.machines[1].node.snapshot()["joined"]  # type: ignore[union-attr]
        sim.check_agreed()

    def test_two_that_name_each_other_find_each_other(self) -> None:
        sim = Swim(2, seed=3)
        sim.start(0, (0, 1))
        sim.run(3 * SECOND)
        sim.start(1, (0, 1))
        sim.run(6 * SECOND)
        sim.check_agreed()

    def test_who_is_left_alone_goes_back_to_its_seeds(self) -> None:
        sim = grown(2)
        sim.kill(0)
        sim.run(1000 * SECOND)
        assert sim.view(1, 0) is None
        sim.start(0, ())
        sim.run(10 * SECOND)
        sim.check_agreed()

    def test_metadata_come_with_the_join(self) -> None:
        sim = Swim(3, seed=3)
        sim.start(0, ())
        sim.start(1, (0,), metadata={"zone": "a"})
        sim.run(SECOND)
        assert sim.machines[0].node.member("n1").metadata == {"zone": "a"}  # type: ignore[union-attr]


class TestKilled:
    @pytest.mark.parametrize("icmp", [True, False])
    def test_a_killed_process_is_removed_everywhere_in_time(self, icmp: bool) -> None:
        worst = 0.0
        for seed in range(8):
            sim = grown(16, seed=seed, icmp=icmp)
            at = sim.now_ns
            sim.kill(5)
            sim.run(4 * SECOND)
            times = noticed(sim, "n5", at)
            assert len(times) == 15
            worst = max(worst, *times)
        assert worst <= 2.5

    def test_the_fast_profile_is_faster(self) -> None:
        for seed in range(5):
            sim = grown(16, SwimSettings.fast(), seed=seed, icmp=False)
            at = sim.now_ns
            sim.kill(5)
            sim.run(2 * SECOND)
            assert max(noticed(sim, "n5", at)) <= 1.5

    def test_the_evidence_says_what_was_seen(self) -> None:
        sim = grown(5)
        sim.kill(2)
        sim.run(3 * SECOND)
        first = sim.events(MemberSuspected, "n2")[0].event
        assert isinstance(first, MemberSuspected)
        assert first.evidence.kind is EvidenceKind.REFUSED
        assert first.evidence.observers >= 2
        assert first.evidence.asked == 3
        dead = sim.events(MemberDead, "n2")[0].event
        assert isinstance(dead, MemberDead)
        assert first.by in dead.accusers

    def test_the_last_one_left_needs_no_second_observer(self) -> None:
        sim = grown(2)
        sim.kill(1)
        sim.run(2 * SECOND)
        assert sim.view(0, 1) is MemberState.DEAD

    def test_one_whose_host_alone_refuses_is_heard_through_others(self) -> None:
        sim = grown(5, icmp=False)
        sim.net.cut = {("h0:7946", "h1:7946")}
        sim.run(20 * SECOND)
        assert not sim.events(MemberDead)

    def test_a_restart_on_the_same_port_is_a_rejoin_with_a_higher_incarnation(self) -> None:
        sim = grown(5)
        sim.kill(2)
        sim.run(100 * MS)
        sim.start(2)
        sim.run(3 * SECOND)
        sim.check_agreed()
        again = sim.events(MemberRejoined, "n2", by="n0")
        assert [one.event.before for one in again] in (["alive"], ["suspect"])  # type: ignore[attr-defined]
        assert not sim.events(MemberDead)
        assert sim.machines[0].node.member("n2").incarnation >= 1  # type: ignore[union-attr]

    def test_a_restart_after_removal_is_a_rejoin_too(self) -> None:
        sim = grown(5)
        sim.kill(2)
        sim.run(4 * SECOND)
        sim.start(2)
        sim.run(2 * SECOND)
        sim.check_agreed()
        again = sim.events(MemberRejoined, "n2", by="n0")
        assert [one.event.before for one in again] == ["dead"]  # type: ignore[attr-defined]


class TestSilent:
    def test_a_machine_without_power_is_removed_after_four_to_six_seconds(self) -> None:
        for seed in range(5):
            sim = grown(16, seed=seed)
            at = sim.now_ns
            sim.kill(5, refuses=False)
            sim.run(8 * SECOND)
            times = noticed(sim, "n5", at)
            assert len(times) == 15
            assert 3.5 < min(times) <= max(times) < 6.5

    def test_a_member_frozen_for_less_than_three_seconds_stays(self) -> None:
        for seed in range(12):
            sim = grown(9, seed=seed)
            sim.freeze(3, 2900 * MS)
            sim.run(8 * SECOND)
            assert not sim.events(MemberDead)
            assert sim.events(SuspicionRefuted, "n3")
            sim.check_agreed()

    def test_the_frozen_one_accuses_nobody_when_it_wakes(self) -> None:
        for seed in range(6):
            sim = grown(9, seed=seed)
            sim.freeze(3, 20 * SECOND)
            sim.run(30 * SECOND)
            assert not [
                one
                for one in sim.events(MemberSuspected)
                if one.event.by == "n3"  # type: ignore[attr-defined]
            ]
            sim.check_agreed()

    def test_the_third_of_five_deaths_is_noticed_like_the_first(self) -> None:
        sim = grown(5)
        took = []
        for index in (4, 3, 2):
            at = sim.now_ns
            sim.kill(index, refuses=False)
            sim.run(12 * SECOND)
            took.append(max(noticed(sim, f"n{index}", at)))
        assert took[2] <= 2 * took[0]

    def test_two_in_a_row_of_three_leave_one_that_knows(self) -> None:
        sim = grown(3)
        sim.kill(2, refuses=False)
        sim.run(10 * SECOND)
        sim.kill(1, refuses=False)
        sim.run(10 * SECOND)
        assert sim.view(0, 1) is MemberState.DEAD

    def test_who_was_removed_by_mistake_objects_and_is_alive_again(self) -> None:
        sim = grown(5)
        sim.freeze(3, 12 * SECOND)
        sim.run(11 * SECOND)
        assert sim.view(0, 3) is MemberState.DEAD
        sim.run(4 * SECOND)
        sim.check_agreed()
        assert sim.events(MemberAlive, "n3", by="n0")


class TestSelfDoubt:
    def test_who_is_cut_off_from_all_suspects_but_removes_nobody(self) -> None:
        sim = grown(5)
        sim.partition({0: 1})
        sim.run(40 * SECOND)
        assert sim.view(0, 1) is MemberState.SUSPECT
        assert not sim.events(MemberDead, by="n0")
        assert sim.view(1, 0) is MemberState.DEAD
        sim.run(30 * SECOND)
        assert sim.view(0, 1) is MemberState.DEAD

    def test_who_cannot_get_answers_slows_down(self) -> None:
        sim = grown(5)
        sim.partition({0: 1})
        sim.run(10 * SECOND)
        assert sim.machines[0].node.snapshot()["score"] == 8  # type: ignore[union-attr]

    def test_members_that_read_late_get_no_healthy_one_removed(self) -> None:
        sim = grown(16)
        for _ in range(4):
            for index in (1, 2, 3, 4):
                sim.slow_down(index, 8 * SECOND)
            sim.run(8500 * MS)
        slow = {"n1", "n2", "n3", "n4"}
        assert {one.event.member.name for one in sim.events(MemberDead)} <= slow  # type: ignore[attr-defined]

    def test_who_may_not_accuse_does_not(self) -> None:
        sim = grown(2)
        sim.tell(0, AccusationsAllowed(False))
        sim.kill(1)
        sim.run(10 * SECOND)
        assert sim.view(0, 1) is MemberState.ALIVE
        sim.tell(0, AccusationsAllowed(True))
        sim.run(3 * SECOND)
        assert sim.view(0, 1) is MemberState.DEAD

    def test_a_suspicion_is_held_while_accusing_is_not_allowed(self) -> None:
        sim = grown(2)
        sim.kill(1, refuses=False)
        sim.run(2 * SECOND)
        sim.tell(0, AccusationsAllowed(False))
        sim.run(20 * SECOND)
        assert sim.view(0, 1) is MemberState.SUSPECT
        sim.tell(0, AccusationsAllowed(True))
        sim.run(4 * SECOND)
        assert sim.view(0, 1) is MemberState.DEAD

    def test_a_bad_score_stretches_the_intervals(self) -> None:
        sim = grown(2)
        sim.tell(0, LocalScore(1.0))
        sim.run(5 * SECOND)
        sim.sent.clear()
        sim.run(27 * SECOND)
        slow = sim.sent["n0"]
        assert slow < sim.sent["n1"]
        assert sim.machines[0].node.snapshot()["score"] == 8  # type: ignore[union-attr]


class TestPartition:
    @pytest.mark.parametrize("seed", range(3))
    def test_halves_remove_each_other_and_find_each_other_again(self, seed: int) -> None:
        sim = grown(10, seed=seed)
        sim.partition({one: one % 2 for one in range(10)})
        sim.run(30 * SECOND)
        assert sim.view(0, 1) is MemberState.DEAD
        assert sim.view(0, 2) is MemberState.ALIVE
        sim.heal()
        healed = sim.now_ns
        sim.said.clear()
        sim.run(20 * SECOND)
        sim.check_agreed()
        assert max(one.at_ns for one in sim.events(MemberAlive)) - healed < 12 * SECOND
        assert not sim.events(MemberDead)

    def test_a_cut_one_way_is_bridged_by_the_others(self) -> None:
        sim = grown(6)
        sim.net.cut = {("h0:7946", "h1:7946"), ("h2:7946", "h1:7946")}
        sim.run(30 * SECOND)
        assert not sim.events(MemberDead)

    def test_without_datagrams_streams_keep_two_alive(self) -> None:
        sim = Swim(2, seed=1)
        sim.net.lost_per_mille = 0
        sim.start_all()
        sim.run(3 * SECOND)
        sim.net.lost_per_mille = 1000
        sim.run(20 * SECOND)
        assert not sim.events(MemberDead)
        assert not sim.events(MemberSuspected)


class TestLosses:
    @pytest.mark.parametrize("seed", range(3))
    def test_one_packet_in_twenty_lost_removes_nobody(self, seed: int) -> None:
        sim = grown(12, seed=seed)
        sim.net.lost_per_mille = 50
        sim.run(60 * SECOND)
        assert not sim.events(MemberDead)

    def test_slow_links_get_longer_timeouts(self) -> None:
        sim = Swim(6, SwimSettings.wan(), seed=2, net=Net(low_ns=300 * MS, high_ns=400 * MS))
        sim.start_all()
        sim.run(60 * SECOND)
        sim.check_agreed()
        sim.said.clear()
        sim.run(60 * SECOND)
        assert not sim.events(MemberSuspected)
