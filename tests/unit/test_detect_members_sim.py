"""A membership of real drivers on simulated hosts: each story in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from outlast import sim
from outlast.detect import (
    ConfirmFailed,
    Member,
    Members,
    MemberState,
    PacketDropped,
    SeedsUnanswered,
    ask_members,
)
from outlast.detect.members_net import Net
from outlast.kernel import ConfigError, DeadlineError
from tests.support.members_group import KEY, PORT, Group

ALIVE, DEAD, LEFT = MemberState.ALIVE, MemberState.DEAD, MemberState.LEFT
UNREACHABLE = MemberState.UNREACHABLE

Story = Callable[[Group], Coroutine[Any, Any, Any]]


def told(story: Story, seed: int = 1, **settings: Any) -> Any:
    async def main(lab: sim.Lab) -> Any:
        return await story(Group(lab, **settings))

    return sim.run(main, seed=seed)


def test_five_members_know_each_other_and_what_each_says_of_itself() -> None:
    async def story(group: Group) -> None:
        group.add("n1", metadata={"zone": "a"})
        for name in ("n2", "n3", "n4", "n5"):
            group.add(name)
        await group.until(lambda: group.met(5), 5)
        seen = group.now["n5"].member("n1")
        assert seen is not None
        assert seen.metadata == {"zone": "a"}
        assert group.kinds("n1").count("MemberJoined") == 4

    told(story)


def test_a_killed_process_is_noticed_by_all_others_within_two_and_a_half_seconds() -> None:
    async def story(group: Group) -> None:
        names = await group.of(5)
        group.lab.crash("n3")
        others = [name for name in names if name != "n3"]
        took = await group.until(lambda: group.all_say(others, "n3", DEAD))
        assert took < 2.5

    told(story)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_member_that_stands_still_for_less_than_three_seconds_is_not_removed(seed: int) -> None:
    async def story(group: Group) -> None:
        names = await group.of(5)
        group.lab.pause("n3")
        await group.lab.sleep(2.8)
        group.lab.resume("n3")
        await group.lab.sleep(8)
        for name in names:
            assert not {"MemberDead", "MemberUnreachable"} & set(group.kinds(name))
            assert len(group.now[name].alive()) == 5

    told(story, seed)


def test_a_machine_without_power_is_removed_though_it_refuses_nothing() -> None:
    async def story(group: Group) -> None:
        await group.of(4)
        group.lab.power_cut("n4")
        took = await group.until(lambda: group.all_say(["n1", "n2", "n3"], "n4", DEAD))
        assert 3 < took < 9

    told(story)


def test_who_leaves_is_told_to_have_left_and_is_never_suspected() -> None:
    async def story(group: Group) -> None:
        await group.of(4)
        group.lab.expect_exit("n2")
        await group.lab.spawn("n2", group.now["n2"].leave())
        await group.until(lambda: group.all_say(["n1", "n3", "n4"], "n2", LEFT), 2)
        await group.lab.sleep(5)
        for name in ("n1", "n3", "n4"):
            assert "MemberSuspected" not in group.kinds(name)

    told(story)


def test_a_member_that_is_started_again_is_the_same_name_in_a_new_process() -> None:
    async def story(group: Group) -> None:
        await group.of(4)
        group.lab.crash("n2")
        others = ["n1", "n3", "n4"]
        await group.until(lambda: group.all_say(others, "n2", DEAD))
        group.lab.restart("n2")
        await group.until(lambda: group.all_say([*others, "n2"], "n2", ALIVE), 5)
        assert "MemberRejoined" in group.kinds("n1")

    told(story)


def test_both_sides_of_a_partition_find_each_other_again() -> None:
    async def story(group: Group) -> None:
        names = await group.of(6)
        with group.lab.cut(names[:3], names[3:]):
            await group.lab.sleep(20)
            assert group.state("n1", "n6") is DEAD
        await group.until(lambda: all(len(group.now[name].alive()) == 6 for name in names), 30)

    told(story)


def test_metadata_that_change_reach_everybody() -> None:
    async def story(group: Group) -> None:
        names = await group.of(4)
        group.now["n2"].set_metadata({"role": "leader"})

        def known(name: str) -> bool:
            member = group.now[name].member("n2")
            return member is not None and member.metadata == {"role": "leader"}

        await group.until(lambda: all(known(name) for name in names), 5)
        assert "MemberUpdated" in group.kinds("n4")

    told(story)


def test_another_key_is_ignored_and_told_and_the_group_goes_on() -> None:
    async def story(group: Group) -> None:
        await group.of(3)
        group.add("odd", key=b"x" * 32)
        await group.lab.sleep(10)
        assert len(group.now["odd"].members()) == 1
        assert group.now["n1"].member("odd") is None
        dropped = [event for _, event in group.told["n1"] if isinstance(event, PacketDropped)]
        assert {event.reason for event in dropped} == {"unknown key"}
        unanswered = [e for _, e in group.told["odd"] if isinstance(e, SeedsUnanswered)]
        assert len(unanswered) == 1

    told(story)


def test_keys_are_changed_one_after_another_while_the_group_runs() -> None:
    async def story(group: Group) -> None:
        new = b"n" * 32
        group.add("n1", key=[KEY])
        group.add("n2", key=[KEY, new])
        group.add("n3", key=[KEY, new])
        await group.until(lambda: group.met(3))
        group.lab.crash("n1")
        await group.until(lambda: group.all_say(["n2", "n3"], "n1", DEAD))
        group.add("n4", ["n2"], key=[new, KEY])  # the new one closes now; the others open both
        await group.until(lambda: group.all_say(["n2", "n3"], "n4", ALIVE), 5)
        await group.lab.sleep(5)
        assert len(group.now["n2"].alive()) == 3

    told(story)


def test_signed_and_encrypted_members_do_not_mix() -> None:
    async def story(group: Group) -> None:
        await group.of(2, encrypt=False)
        group.add("n3", encrypt=True)
        await group.lab.sleep(8)
        assert len(group.now["n1"].alive()) == 2
        assert len(group.now["n3"].members()) == 1

    told(story)


def test_garbage_of_every_length_harms_nobody() -> None:
    async def story(group: Group) -> None:
        names = await group.of(3)
        loop = asyncio.get_running_loop()
        udp, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=("n1", PORT)
        )
        for size in (0, 1, 2, 40, 1200, 1401, 9000):
            udp.sendto(bytes(size))
            udp.sendto(bytes([0xB1, 0x21]) + b"\xff" * size)
        begin = group.lab.now
        reader, writer = await asyncio.open_connection("n1", PORT)
        writer.write(b"\xff" * 4)  # claims 4 GiB
        with suppress(ConnectionError):
            assert await reader.read() == b""
        assert group.lab.now - begin < 1
        writer.close()
        await group.lab.sleep(5)
        assert all(len(group.now[name].alive()) == 3 for name in names)
        reasons = {e.reason for _, e in group.told["n1"] if isinstance(e, PacketDropped)}
        assert {"oversized", "version", "short", "unknown key"} <= reasons
        udp.close()

    told(story)


def test_who_connects_and_says_nothing_is_cut_off_and_further_ones_are_refused() -> None:
    async def story(group: Group) -> None:
        await group.of(2)
        idle = [await asyncio.open_connection("n1", PORT) for _ in range(40)]
        begin = group.lab.now
        for reader, writer in idle:
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        assert group.lab.now - begin < 5
        await group.lab.sleep(3)
        assert len(group.now["n2"].alive()) == 2
        reasons = {e.reason for _, e in group.told["n1"] if isinstance(e, PacketDropped)}
        assert reasons == {"slow", "too many connections"}

    told(story)


def test_packets_that_are_recorded_and_sent_again_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Among them all that a member said before it died."""
    recorded: list[bytes] = []
    heard = Net.heard

    def record(net: Net, data: bytes, address: Any) -> None:
        recorded.append(data)
        heard(net, data, address)

    async def story(group: Group) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Net, "heard", record)
            await group.of(3)
            await group.lab.sleep(5)
        loop = asyncio.get_running_loop()
        udp, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=("n1", PORT)
        )
        group.lab.crash("n2")
        begin = group.lab.now
        for packet in recorded * 10:
            udp.sendto(packet)
            await asyncio.sleep(0.005)
            if group.lab.now - begin > 4:
                assert group.all_say(["n1", "n3"], "n2", DEAD)
        await group.lab.sleep(3)
        udp.close()
        assert group.all_say(["n1", "n3"], "n2", DEAD)
        assert len(group.now["n1"].alive()) == len(group.now["n3"].alive()) == 2
        assert "MemberRejoined" not in group.kinds("n1")

    told(story)
    assert len(recorded) > 60


def test_the_hook_keeps_a_silent_member_until_it_says_that_it_is_dead() -> None:
    async def story(group: Group) -> None:
        asked: list[str] = []

        async def confirm(member: Member) -> bool:
            asked.append(member.name)
            await asyncio.sleep(0.1)
            return len(asked) > 2

        group.add("n1", on_unreachable=confirm)
        group.add("n2", on_unreachable=lambda member: False)
        group.add("n3")
        await group.until(lambda: group.met(3))
        group.lab.power_cut("n3")
        await group.until(lambda: group.state("n1", "n3") is UNREACHABLE)
        assert "n3" not in [member.name for member in group.now["n1"].alive()]
        await group.until(lambda: group.state("n1", "n3") is DEAD)
        assert asked == ["n3", "n3", "n3"]

    told(story)


def test_a_hook_that_raises_keeps_the_member_and_is_told() -> None:
    async def story(group: Group) -> None:
        def confirm(member: Member) -> bool:
            raise LookupError(member.name)

        await group.of(2, on_unreachable=confirm)
        group.lab.crash("n2")
        await group.until(lambda: "ConfirmFailed" in group.kinds("n1"))
        failed = next(e for _, e in group.told["n1"] if isinstance(e, ConfirmFailed))
        assert (failed.member, failed.reason) == ("n2", "LookupError: n2")
        assert group.state("n1", "n2") is UNREACHABLE

    told(story)


def test_a_callback_hears_of_changes_until_it_is_removed() -> None:
    async def story(group: Group) -> None:
        await group.of(2)
        heard: list[tuple[str, str]] = []
        remove = group.now["n1"].watch(lambda member: heard.append((member.name, member.state)))
        group.add("n3")
        await group.until(lambda: ("n3", "alive") in heard)
        remove()
        before = list(heard)
        group.lab.crash("n3")
        await group.until(lambda: group.state("n1", "n3") is DEAD)
        assert heard == before

    told(story)


def test_a_callback_may_change_metadata_and_one_that_raises_is_removed() -> None:
    async def story(group: Group) -> None:
        await group.of(2)
        members, raised, problems = group.now["n1"], list[str](), list[str]()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context["message"]))

        def change(member: Member) -> None:
            members.set_metadata({"saw": member.name})

        def broken(member: Member) -> None:
            raised.append(member.name)
            raise LookupError

        members.watch(change)
        members.watch(broken)
        group.add("n3")
        group.add("n4")
        await group.until(lambda: len(members.alive()) == 4)
        await group.lab.sleep(2)
        seen = group.now["n4"].member("n1")
        assert seen is not None
        assert seen.metadata["saw"] in {"n3", "n4"}
        assert len(raised) == 1
        assert problems == ["a callback of Members n1 raised, and is removed"]

    told(story)


def test_join_waits_for_an_answer_and_says_when_there_is_none() -> None:
    async def story(group: Group) -> None:
        group.add("n1", seeds=[])
        group.add("n2", seeds=[])
        await group.lab.sleep(1)
        assert len(group.now["n2"].members()) == 1
        await group.lab.spawn("n2", group.now["n2"].join([f"n1:{PORT}"]))
        assert len(group.now["n2"].alive()) == 2
        with pytest.raises(DeadlineError, match="has answered"):
            await group.lab.spawn("n2", group.now["n2"].join(["n1:9"], timeout=1.0))
        with pytest.raises(OSError, match="nowhere"):
            await group.lab.spawn("n2", group.now["n2"].join(["nowhere"]))

    told(story)


def test_a_member_asked_over_tcp_tells_its_view_only_to_who_has_the_key() -> None:
    async def story(group: Group) -> None:
        await group.of(3, metadata={"zone": "a"})
        view = await ask_members("n2", key=KEY)
        assert view["name"] == "n2"
        assert view["members"][0]["name"] == "n2"
        assert {one["state"] for one in view["members"]} == {"alive"}
        assert view["members"][1]["metadata"] == {"zone": "a"}
        for key in (None, b"x" * 32):
            with pytest.raises(ConnectionResetError, match="same key"):
                await ask_members("n2", key=key)
        with pytest.raises(ConnectionRefusedError, match="no member listens"):
            await ask_members("n2:9", key=KEY)
        group.lab.pause("n2")
        with pytest.raises(DeadlineError, match=r"no answer within 0\.5 s"):
            await ask_members("n2", key=KEY, timeout=0.5)
        group.lab.resume("n2")

    told(story)


class NeverFit:
    """A process that knows itself to be starved."""

    score = 1.0

    def may_accuse(self, now_ns: int) -> bool:
        return False


def test_a_member_that_is_not_fit_to_accuse_removes_nobody() -> None:
    async def story(group: Group) -> None:
        group.add("n1", local=NeverFit())
        group.add("n2")
        await group.until(lambda: group.met(2))
        group.lab.crash("n2")
        await group.lab.sleep(20)
        assert group.state("n1", "n2") is not DEAD
        assert not group.now["n1"].snapshot()["core"]["may_accuse"]

    told(story)


def test_what_is_used_before_the_start_or_after_the_end_says_so() -> None:
    async def story(group: Group) -> None:
        members = Members("m", bind="127.0.0.1:7000")
        assert members.members() == members.alive() == ()
        assert members.member("m") is None
        assert members.snapshot()["state"] == "new"
        with pytest.raises(ConfigError, match="is new; start it first"):
            members.set_metadata({})
        async with members:
            assert [one.name for one in members.alive()] == ["m"]
            assert repr(members) == "<Members m running 127.0.0.1:7000 1 of 1 there>"
            events = members.events()
        assert [event async for event in events] == []
        assert [event async for event in members.events()] == []
        await members.leave()
        with pytest.raises(ConfigError, match="was started before"):
            await members.start()

    told(story)


def test_a_port_in_use_is_told_and_nothing_is_left_behind() -> None:
    async def story(group: Group) -> None:
        async with Members("a", bind="127.0.0.1:7000"):
            with pytest.raises(OSError, match="in use"):
                await Members("b", bind="127.0.0.1:7000").start()
        async with Members("b", bind="127.0.0.1:7000") as members:
            assert len(members.alive()) == 1

    told(story)


def test_a_seed_draws_the_same_story_each_time() -> None:
    async def story(group: Group) -> list[tuple[float, str]]:
        await group.of(4)
        group.lab.crash("n2")
        await group.until(lambda: group.state("n1", "n2") is DEAD)
        return [(at, type(event).__name__) for at, event in group.told["n1"]]

    assert told(story, 5) == told(story, 5) != told(story, 6)
