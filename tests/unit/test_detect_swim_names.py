"""A membership as a whole: the hook, good-byes, names, metadata, and what it costs."""

import pytest

from outlast.detect.core.swim.api import (
    Confirmed,
    Leave,
    Me,
    MemberState,
    SetMetadata,
    TimerFired,
)
from outlast.detect.core.swim.node import SwimNode
from outlast.detect.core.swim.settings import SwimSettings
from outlast.detect.membership_events import (
    MemberAlive,
    MemberDead,
    MemberLeft,
    MemberRejoined,
    MemberSuspected,
    MemberUnreachable,
    MemberUpdated,
    NameConflict,
)
from outlast.kernel import ConfigError, Prng
from tests.support.swim_bench import Bench
from tests.support.swim_sim import MS, SECOND, Swim, grown


class TestHook:
    def test_unreachable_comes_before_dead_and_the_hook_decides(self) -> None:
        sim = grown(3, SwimSettings.lan(confirm=True))
        sim.kill(2)
        sim.run(4 * SECOND)
        assert sim.view(0, 2) is MemberState.UNREACHABLE
        assert sim.events(MemberUnreachable, "n2", by="n0")
        assert not sim.events(MemberDead)
        sim.tell(0, Confirmed("n2", dead=True))
        sim.run(3 * SECOND)
        assert sim.view(0, 2) is MemberState.DEAD
        assert sim.view(1, 2) is MemberState.DEAD

    def test_the_hook_is_asked_again_until_it_says_so(self) -> None:
        bench = Bench("b", confirm=True)
        asked = []
        while bench.now_ns < 16 * SECOND:
            if bench.timer().asks:
                asked.append(bench.now_ns)
        assert len(asked) >= 2
        assert asked[1] - asked[0] == 5 * SECOND
        assert bench.step(Confirmed("b", dead=False)).events == ()
        assert bench.state("b")[0] == "unreachable"
        assert bench.step(Confirmed("nobody", dead=True)).events == ()
        bench.step(Confirmed("b", dead=True))
        assert bench.state("b")[0] == "dead"

    def test_an_unreachable_member_that_is_heard_again_is_alive(self) -> None:
        sim = grown(3, SwimSettings.lan(confirm=True))
        sim.freeze(2, 10 * SECOND)
        sim.run(9 * SECOND)
        assert sim.view(0, 2) is MemberState.UNREACHABLE
        sim.run(4 * SECOND)
        sim.check_agreed()
        back = sim.events(MemberAlive, "n2", by="n0")
        assert [one.event.before for one in back] == ["unreachable"]  # type: ignore[attr-defined]


class TestLeaving:
    def test_who_leaves_is_known_to_have_left_and_is_not_suspected(self) -> None:
        sim = grown(8)
        sim.tell(3, Leave())
        sim.run(3 * SECOND)
        assert sim.machines[3].node is None
        assert len(sim.events(MemberLeft, "n3")) == 7
        assert not sim.events(MemberSuspected)

    def test_a_good_bye_ends_once_three_have_acknowledged(self) -> None:
        sim = grown(8)
        sim.tell(3, Leave())
        sim.run(10 * MS)
        assert sim.machines[3].node is None

    def test_a_good_bye_that_nobody_hears_ends_in_time(self) -> None:
        sim = grown(8)
        sim.partition({3: 1})
        sim.tell(3, Leave())
        sim.tell(3, Leave())
        sim.run(900 * MS)
        assert sim.machines[3].node is not None
        sim.run(200 * MS)
        assert sim.machines[3].node is None

    def test_the_only_one_leaves_at_once_and_does_nothing_afterwards(self) -> None:
        sim = Swim(1)
        sim.start(0, ())
        node = sim.machines[0].node
        assert node is not None
        assert node.step(Leave(), 5).left
        assert node.step(TimerFired(), 6).left
        assert node.members()[0].state is MemberState.LEFT

    def test_who_left_may_come_back(self) -> None:
        sim = grown(4)
        sim.tell(3, Leave())
        sim.run(3 * SECOND)
        sim.start(3)
        sim.run(3 * SECOND)
        sim.check_agreed()
        back = sim.events(MemberRejoined, "n3", by="n0")
        assert [one.event.before for one in back] == ["left"]  # type: ignore[attr-defined]


class TestNames:
    def test_metadata_reach_everybody_with_a_higher_incarnation(self) -> None:
        sim = grown(6)
        sim.tell(2, SetMetadata({"role": "db"}))
        sim.run(2 * SECOND)
        assert len(sim.events(MemberUpdated, "n2")) == 5
        member = sim.machines[4].node.member("n2")  # type: ignore[union-attr]
        assert (member.metadata, member.incarnation) == ({"role": "db"}, 1)  # type: ignore[union-attr]

    def test_too_much_metadata_changes_nothing(self) -> None:
        node = SwimNode(SwimSettings.lan(), Me("a", "a:1"), Prng(1))
        with pytest.raises(ConfigError, match="metadata take 517 bytes in 1 entries"):
            node.step(SetMetadata({"k": "v" * 511}), 0)
        assert node.members()[0].incarnation == 0
        with pytest.raises(ConfigError, match="128 per key"):
            node.step(SetMetadata({"k" * 129: ""}), 0)

    @pytest.mark.parametrize(
        ("name", "address"), [("", "a:1"), ("n" * 65, "a:1"), ("a\n", "a:1"), ("a", "nowhere")]
    )
    def test_names_and_addresses_are_checked(self, name: str, address: str) -> None:
        with pytest.raises(ConfigError, match="SwimNode: "):
            SwimNode(SwimSettings.lan(), Me(name, address), Prng(1))

    def test_a_second_process_of_a_live_name_is_told_and_not_obeyed(self) -> None:
        sim = grown(4)
        twin = sim.machines[3]
        twin.life += 1
        twin.name = "n1"
        sim.start(3)
        sim.run(3 * SECOND)
        assert sim.machines[0].node.member("n1").address == "h1:7946"  # type: ignore[union-attr]
        conflicts = {one.by for one in sim.events(NameConflict)}
        assert {"n0", "n1"} <= conflicts
        assert not twin.node.snapshot()["joined"]  # type: ignore[union-attr]

    def test_once_the_old_one_is_dead_the_name_may_move(self) -> None:
        sim = grown(4)
        sim.kill(1)
        twin = sim.machines[3]
        sim.kill(3)
        sim.run(5 * SECOND)
        twin.name = "n1"
        sim.start(3)
        sim.run(3 * SECOND)
        assert twin.node.snapshot()["joined"]  # type: ignore[union-attr]
        assert sim.machines[0].node.member("n1").address == "h3:7946"  # type: ignore[union-attr]
        assert not sim.events(NameConflict, by="n1")

    def test_the_removed_are_forgotten_after_a_while(self) -> None:
        sim = grown(3, SwimSettings.lan(dead_keep=40.0))
        sim.kill(2)
        sim.run(38 * SECOND)
        assert sim.view(0, 2) is MemberState.DEAD
        sim.run(20 * SECOND)
        assert sim.view(0, 2) is None


class TestCost:
    def test_an_idle_node_sends_less_than_a_kilobyte_a_second(self) -> None:
        sim = grown(16)
        sim.bytes = sim.packets = 0
        sim.run(60 * SECOND)
        seals = 46 * sim.packets
        assert (sim.bytes + seals) / 60 / 16 < 1000

    def test_a_snapshot_is_plain_and_says_what_is_open(self) -> None:
        import json

        sim = grown(3)
        shown = sim.machines[0].node.snapshot()  # type: ignore[union-attr]
        assert json.loads(json.dumps(shown))["alive"] == 3
        assert sim.machines[0].node.member("n0").state is MemberState.ALIVE  # type: ignore[union-attr]
