"""What a member must not lose: sockets, its timer, its good-bye; whatever others send."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from outlast import sim
from outlast.detect import Members
from outlast.detect.core.swim import wire
from outlast.detect.core.swim.api import (
    Effects,
    Me,
    PacketReceived,
    Started,
    StreamReceived,
    TimerFired,
)
from outlast.detect.core.swim.context import PIECE_BYTES_MAX
from outlast.detect.core.swim.identity import JUMP_MAX
from outlast.detect.core.swim.node import SwimNode
from outlast.detect.core.swim.settings import SwimSettings
from outlast.detect.members_net import Net
from outlast.detect.members_seal import Purpose, make_seal
from outlast.detect.members_stream import Listener, ask
from outlast.host.network import HostNetwork, close_server
from outlast.kernel import ConfigError, Prng
from tests.unit.test_detect_members_driver import MS, Core, Hands, driven


def sockets() -> set[int]:
    """Return the descriptors that the running loop watches."""
    loop: Any = asyncio.get_running_loop()
    return set(loop._selector.get_map())


def silent() -> socket.socket:
    """Return a listening socket on loopback that nobody serves."""
    made = socket.create_server(("127.0.0.1", 0))
    made.setblocking(False)
    return made


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until ``condition()`` holds."""
    while not condition():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)


async def cancelled_after(turns: int, work: Any) -> bool:
    """Cancel ``work`` after so many turns of the loop; return whether it was under way still."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    went_on = task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return bool(went_on and task.cancelled())


# --- starting and ending -------------------------------------------------------------------------


def test_a_start_that_is_cancelled_while_it_joins_lets_go_of_the_port() -> None:
    async def main() -> None:
        with silent() as seed:
            port = seed.getsockname()[1]
            before = sockets()
            members = Members("n1", bind="127.0.0.1:0", seeds=[f"127.0.0.1:{port}"])
            starting = asyncio.ensure_future(members.start())
            await until(lambda: "known" in members.snapshot()["core"])
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            for _ in range(3):
                await asyncio.sleep(0)
            assert sockets() == before
            assert members.snapshot()["state"] == "closed"

    asyncio.run(main())


def test_a_start_during_which_the_member_is_closed_opens_nothing() -> None:
    async def main() -> None:
        before = sockets()
        members = Members("n1", bind="127.0.0.1:0")
        starting = asyncio.ensure_future(members.start())
        await asyncio.sleep(0)
        await members.close()
        with pytest.raises(ConfigError, match="closed"):
            await starting
        for _ in range(3):
            await asyncio.sleep(0)
        assert sockets() == before

    asyncio.run(main())


def test_readers_of_events_come_to_their_end_though_closing_is_cancelled() -> None:
    async def main() -> None:
        members = Members("n1", bind="127.0.0.1:0")
        await members.start()
        events = members.events()
        await cancelled_after(1, members.close())
        async with asyncio.timeout(1):
            assert [event async for event in events] == []

    asyncio.run(main())


def test_a_second_leave_does_not_cut_the_good_bye_of_the_first_short() -> None:
    async def main() -> None:
        lab_told: list[str] = []
        one = Members("n1", bind="127.0.0.1:0")
        await one.start()
        two = Members("n2", bind="127.0.0.1:0", seeds=[one.address])
        await two.start()
        one.watch(lambda member: lab_told.append(str(member.state)))
        await asyncio.gather(two.leave(), two.leave())
        assert two.snapshot()["state"] == "closed"
        assert two.member("n2").state == "left"  # type: ignore[union-attr]
        await one.close()

    asyncio.run(main())


def test_a_server_is_closed_though_its_closing_is_cancelled() -> None:
    async def main() -> None:
        before = sockets()
        server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
        assert await cancelled_after(1, close_server(server))
        assert not server.is_serving()
        assert sockets() == before
        assert not server.sockets

    asyncio.run(main())


def test_a_listener_whose_opening_is_cancelled_at_any_moment_does_not_listen() -> None:
    async def main() -> None:
        async def answer(_purpose: Purpose, _body: bytes, _source: str) -> bytes | None:
            return None

        before = sockets()
        for turns in range(1, 20):
            listener = Listener(make_seal([]), answer, lambda _s, _r: None, timeout=1)
            if not await cancelled_after(turns, listener.open("127.0.0.1", 0)):
                await listener.close()
                break
            assert sockets() == before, turns
        assert turns > 1

    asyncio.run(main())


def test_a_listening_socket_whose_opening_is_cancelled_at_any_moment_is_closed() -> None:
    async def main() -> None:
        before, network = sockets(), HostNetwork()
        for turns in range(1, 20):
            opening = network.listen(asyncio.Protocol, "127.0.0.1", 0)
            task = asyncio.ensure_future(opening)
            if not await cancelled_after(turns, task):
                await task.result().close()
                break
            assert sockets() == before, turns
        assert turns > 1

    asyncio.run(main())


def test_a_question_to_a_peer_that_reads_nothing_leaves_no_socket() -> None:
    async def main() -> None:
        with silent() as peer:
            before = sockets()
            body = bytes(1 << 20) * 8  # more than all buffers take
            host, port = peer.getsockname()
            with pytest.raises(TimeoutError):
                await ask(host, port, make_seal([]), Purpose.EXCHANGE, body, timeout=0.05)
            for _ in range(3):
                await asyncio.sleep(0)
            assert sockets() == before

    asyncio.run(main())


# --- hostile input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["fe80::1%\0x", "fe80::1%" + "é" * 70, "fe80::1%\ud800", "fe80::1%evil.example"]
)
def test_no_address_that_others_tell_ends_the_socket_or_looks_up_a_name(host: str) -> None:
    async def main() -> None:
        class Hearer:
            def __getattr__(self, name: str) -> Callable[..., None]:
                return lambda *_a, **_k: None

        hearer: Any = Hearer()
        net = Net(sim.current_world(), make_seal([]), hearer, stream_timeout=1)
        await net.open("127.0.0.1", 0)
        net.send(f"[{host}]:7", b"x")
        assert net.dropped == 1
        assert not net._udp.is_closing()
        await net.close()

    asyncio.run(main())


def test_a_fitness_that_raises_is_given_up_and_the_timer_goes_on() -> None:
    class Broken:
        score = 0.0

        def may_accuse(self, now_ns: int) -> bool:
            raise OSError("no such file")

    async def story(driver: Any, core: Core, hands: Hands) -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, one: told.append(one))
        driver._arm()
        for number in (1, 2):
            core.deadline_ns = (number + 1) * 100 * MS
            hands.fire(number * 100 * MS)
            assert hands.armed
        assert len(told) == 1

    driven(story, local=Broken())


def test_accusers_with_names_that_nobody_can_have_do_not_fill_the_news() -> None:
    node = SwimNode(SwimSettings.lan(), Me("n1", "10.0.0.1:1"), Prng(1))
    node.step(Started(), 0)
    news: list[Any] = [
        wire.AliveNews(f"p{number}", f"10.0.0.2:{number + 1}", 0, number, {})
        for number in range(5)
    ]
    wide = "\U0001f600" * 60
    words = [wire.Accusation(f"{wide}{number}", False, 1) for number in range(4)]
    news += [wire.SuspectNews(f"p{number}", 0, words) for number in range(5)]
    for one in news:
        gossip = wire.Gossip("p0", 0, [one])
        node.step(PacketReceived(wire.encode(gossip)[:], "10.0.0.2:1"), 1)
    pieces = [piece for level in node._context.queue._levels for piece in level.values()]
    assert pieces
    assert max(map(len, pieces)) <= PIECE_BYTES_MAX


def test_a_restarted_member_joins_however_often_the_earlier_process_had_spoken() -> None:
    def born(seed: int, **more: Any) -> SwimNode:
        return SwimNode(SwimSettings.lan(), Me("a", "a:1", **more), Prng(seed))

    peer = SwimNode(SwimSettings.lan(), Me("b", "b:1"), Prng(1))
    nodes = {"b:1": peer, "a:1": born(2, incarnation=JUMP_MAX + 50)}
    waiting: list[tuple[str, Any]] = []

    def take(source: str, effects: Effects) -> None:
        waiting.extend((one.target, PacketReceived(one.data, source)) for one in effects.packets)
        for one in effects.streams:
            answers = None if one.request is not None else 1
            waiting.append((one.target, StreamReceived(one.data, source, answers)))

    def go(first: int, last: int) -> None:
        for tick in range(first, last):
            now_ns = tick * 50 * MS
            while waiting:
                target, event = waiting.pop(0)
                take(target, nodes[target].step(event, now_ns))
            for address, node in nodes.items():
                take(address, node.step(TimerFired(), now_ns))

    take("b:1", peer.step(Started(), 0))
    take("a:1", nodes["a:1"].step(Started(("b:1",)), 0))
    go(0, 100)
    nodes["a:1"] = born(3, metadata={"new": "1"})
    take("a:1", nodes["a:1"].step(Started(("b:1",)), 5000 * MS))
    go(100, 300)
    assert nodes["a:1"].snapshot()["joined"]
    assert peer.member("a").metadata == {"new": "1"}  # type: ignore[union-attr]
