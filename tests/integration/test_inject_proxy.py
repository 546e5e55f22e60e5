"""The fault proxy on real sockets: what each fault does to a connection, and what it must not."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from outlast.host import make_world
from outlast.inject import LinkFault, Proxy
from outlast.kernel import ConfigError, Prng
from tests.support.inject_echo import HOST, MS, WITHIN, Lab, closed_port, eventually, lab, silent

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

CUT = LinkFault(cut=True)
Story = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Story], None]:
    """Run a story on each kind of loop."""
    if request.param == "asyncio":
        return lambda story: asyncio.run(story())
    uvloop = pytest.importorskip("uvloop")
    return lambda story: uvloop.run(story())


async def ask(streams: Any, text: bytes = b"hello") -> bytes:
    reader, writer = streams
    writer.write(text)
    answer: bytes = await asyncio.wait_for(reader.readexactly(len(text)), WITHIN)
    return answer


async def how_it_ends(reader: asyncio.StreamReader) -> str:
    try:
        return "eof" if await asyncio.wait_for(reader.read(), WITHIN) == b"" else "bytes"
    except ConnectionResetError:
        return "reset"


# --- healthy -----------------------------------------------------------------------------------


def test_a_healthy_link_passes_bytes_both_ways(run):
    async def story() -> None:
        async with lab() as here:
            mark = here.link.mark()
            big = bytes(range(256)) * 20_000
            reader, writer = await here.client()
            writer.write(big)
            assert await reader.readexactly(len(big)) == big
            facts = here.link.evidence(mark)
            assert facts["forward"]["bytes"] == facts["backward"]["bytes"] == len(big)
            assert facts["forward"]["chunks_delayed"] == 0
            assert facts["connections"] == facts["attempts"] == 1

    run(story)


def test_a_half_close_is_passed_on_and_the_answer_still_comes(run):
    async def story() -> None:
        async with lab() as here:
            reader, writer = await here.client()
            writer.write(b"last words")
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), WITHIN) == b"last words"
            await eventually(lambda: here.link.connections == 0, "both sides are closed")
            assert here.ends == ["eof"]

    run(story)


def test_a_client_that_is_reset_resets_the_server_side(run):
    async def story() -> None:
        async with lab() as here:
            streams = await here.client()
            await ask(streams)
            sock = streams[1].get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            streams[1].transport.abort()
            await eventually(lambda: here.ends == ["reset"], "the server saw a reset")
            await eventually(lambda: here.link.connections == 0, "nothing is left")

    run(story)


def test_a_server_that_is_not_there_gives_the_client_a_reset(run):
    async def story() -> None:
        async with lab() as here:
            with closed_port() as port:
                here.link.upstream = (HOST, port)
                mark = here.link.mark()
                reader, _ = await here.client()
                assert await how_it_ends(reader) == "reset"
                assert here.link.evidence(mark)["upstream_refused"] == 1

    run(story)


def test_a_refusing_link_is_like_a_dead_process_and_comes_back_on_its_port(run):
    async def story() -> None:
        async with lab() as here:
            before = await here.client()
            await ask(before)
            port = here.link.port
            for _ in range(3):
                await here.link.refuse(True)
                with pytest.raises(ConnectionRefusedError):
                    await here.client()
                assert await ask(before) == b"hello"
                await here.link.refuse(False)
                assert here.link.port == port
                assert await ask(await here.client()) == b"hello"

    run(story)


def test_closing_the_proxy_leaves_no_port_and_no_connection(run):
    async def story() -> None:
        async with lab() as here:
            reader, _ = streams = await here.client()
            await ask(streams)
            await here.proxy.close()
            assert await how_it_ends(reader) == "reset"
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, here.link.port)

    run(story)


# --- cut ---------------------------------------------------------------------------------------


def test_a_cut_stalls_connections_and_loses_nothing(run):
    async def story() -> None:
        async with lab() as here:
            reader, writer = streams = await here.client()
            await ask(streams)
            mark = here.link.mark()
            here.break_link(CUT)
            writer.write(b"withheld")
            await silent(reader.read(1))
            assert not here.ends, "a cut must not end a connection"
            await eventually(
                lambda: here.link.evidence(mark)["forward"]["withheld_bytes"] == 8, "it waits here"
            )
            here.link.clear()
            assert await asyncio.wait_for(reader.readexactly(8), WITHIN) == b"withheld"
            facts = here.link.evidence(mark)
            assert facts["resets"] == 0
            assert facts["forward"]["withheld_bytes"] == 8

    run(story)


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_a_one_way_cut_leaves_the_other_way_open(run, way):
    async def story() -> None:
        async with lab(echo=False) as here:
            reader, writer = await here.client()
            writer.write(b"x")
            await eventually(lambda: here.got == b"x", "connected")
            here.break_link(CUT, way=way)
            writer.write(b"to the server")
            here.accepted[0].write(b"to the client")
            if way == "forward":
                assert await asyncio.wait_for(reader.readexactly(13), WITHIN) == b"to the client"
                await asyncio.sleep(0.1)
                assert here.got == b"x"
            else:
                await silent(reader.read(1))
                await eventually(lambda: here.got == b"xto the server", "it has come")
            here.link.clear()
            await eventually(lambda: here.got == b"xto the server", "all has come")
            if way == "backward":
                assert await asyncio.wait_for(reader.readexactly(13), WITHIN) == b"to the client"

    run(story)


@pytest.mark.parametrize("way", ["forward", "backward", "both"])
def test_a_new_connection_stalls_without_reaching_the_other_side(run, way):
    async def story() -> None:
        async with lab() as here:
            mark = here.link.mark()
            here.break_link(CUT, way=way)
            reader, writer = await here.client()
            writer.write(b"hello")
            await silent(reader.read(1))
            await eventually(
                lambda: here.link.evidence(mark)["attempts_stalled"] == 1, "it has stalled"
            )
            assert not here.accepted
            here.link.clear()
            assert await asyncio.wait_for(reader.readexactly(5), WITHIN) == b"hello"

    run(story)


def test_a_cut_ends_by_itself_when_nobody_heals(run):
    async def story() -> None:
        async with lab() as here:
            reader, writer = streams = await here.client()
            await ask(streams)
            begun = time.monotonic()
            here.break_link(CUT, seconds=0.3)
            writer.write(b"hello")
            assert await asyncio.wait_for(reader.readexactly(5), WITHIN) == b"hello"
            assert 0.29 < time.monotonic() - begun < 20
            assert here.link.fault("forward").harmless

    run(story)


def test_a_later_fault_is_not_ended_by_the_lease_of_an_earlier_one(run):
    async def story() -> None:
        async with lab() as here:
            streams = await here.client()
            await ask(streams)
            here.break_link(CUT, seconds=0.1)
            here.break_link(CUT)
            streams[1].write(b"hello")
            await silent(streams[0].read(1), seconds=0.3)

    run(story)


def test_a_cut_puts_back_pressure_on_the_sender_and_keeps_memory_bounded(run):
    async def story() -> None:
        async with lab(buffer_bytes=1 << 16) as here:
            streams = await here.client()
            await ask(streams)
            here.break_link(CUT)
            _, writer = streams
            for _ in range(64):
                writer.write(b"x" * (1 << 20))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await writer.drain()
            (connection,) = here.link._connections
            assert connection.forward.lane.waiting_bytes <= (1 << 16) + (1 << 18)
            writer.transport.abort()

    run(story)


def test_an_end_during_a_cut_is_heard_after_it(run):
    async def story() -> None:
        async with lab() as here:
            reader, writer = streams = await here.client()
            await ask(streams)
            here.break_link(CUT)
            writer.write(b"bye")
            writer.write_eof()
            await asyncio.sleep(0.1)
            assert here.ends == []
            here.link.clear()
            assert await asyncio.wait_for(reader.read(), WITHIN) == b"bye"
            assert here.ends == ["eof"]

    run(story)


def test_a_reset_during_a_one_way_cut_is_heard_after_it(run):
    async def story() -> None:
        async with lab() as here:
            streams = await here.client()
            await ask(streams)
            here.break_link(CUT, way="backward")
            here.accepted[0].transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            here.accepted[0].transport.abort()
            streams[1].write(b"into nothing")
            await silent(streams[0].read(1))
            here.link.clear()
            assert await how_it_ends(streams[0]) == "reset"

    run(story)


# --- slow, jitter, bandwidth, loss -------------------------------------------------------------


def test_a_slow_link_delays_each_way_by_what_was_asked(run):
    async def story() -> None:
        async with lab() as here:
            streams = await here.client()
            await ask(streams)
            mark = here.link.mark()
            here.break_link(LinkFault(delay_ns=50 * MS), way="forward")
            here.break_link(LinkFault(delay_ns=30 * MS), way="backward")
            took = []
            while not took or min(took) >= 0.2:  # each may be held up by a busy machine
                begun = time.monotonic()
                await ask(streams)
                took.append(time.monotonic() - begun)
                assert len(took) < 50, took
            assert min(took) >= 0.08
            facts = here.link.evidence(mark)
            assert facts["forward"]["delay_ms_max"] >= facts["forward"]["delay_ms_mean"] >= 50
            assert facts["backward"]["delay_ms_max"] >= facts["backward"]["delay_ms_mean"] >= 30

    run(story)


def test_jitter_delays_and_never_reorders(run):
    async def story() -> None:
        async with lab() as here:
            reader, writer = await here.client()
            here.break_link(LinkFault(jitter_ns=20 * MS), way="forward")
            sent = b""
            for number in range(100):
                part = b"%06d" % number
                sent += part
                writer.write(part)
                await asyncio.sleep(0.001)
            assert await asyncio.wait_for(reader.readexactly(len(sent)), WITHIN) == sent

    run(story)


def test_a_narrow_link_carries_what_it_is_wide(run):
    async def story() -> None:
        async with lab() as here:
            reader, writer = await here.client()
            here.break_link(LinkFault(bytes_per_second=500_000), way="forward")
            begun = time.monotonic()
            writer.write(b"x" * 250_000)
            await reader.readexactly(250_000)
            assert 0.48 < time.monotonic() - begun < 10

    run(story)


def test_a_lost_segment_costs_a_retransmission_timeout_and_is_counted(run):
    async def story() -> None:
        async with lab(seed=3) as here:
            streams = await here.client()
            await ask(streams)
            mark = here.link.mark()
            here.break_link(LinkFault(loss_ppm=500_000), way="forward")
            begun = time.monotonic()
            asked = 0
            while not here.link.evidence(mark)["forward"]["chunks_lost"]:
                await ask(streams)
                asked += 1
                assert asked < 50
            assert time.monotonic() - begun >= 0.2

    run(story)


def test_what_is_still_on_its_way_arrives_at_once_after_healing(run):
    async def story() -> None:
        async with lab() as here:
            reader, writer = streams = await here.client()
            await ask(streams)
            here.break_link(LinkFault(delay_ns=20_000 * MS))
            writer.write(b"late")
            await asyncio.sleep(0.05)
            here.link.clear()
            assert await asyncio.wait_for(reader.readexactly(4), 15) == b"late"

    run(story)


# --- drop and reset ----------------------------------------------------------------------------


def test_dropping_swallows_bytes_and_resets_only_who_lost_some(run):
    async def story() -> None:
        async with lab() as here:
            busy, idle = await here.client(), await here.client()
            await ask(busy)
            await ask(idle)
            mark = here.link.mark()
            here.break_link(LinkFault(drop=True), way="forward")
            busy[1].write(b"gone for ever")
            await silent(busy[0].read(1))
            await eventually(
                lambda: here.link.evidence(mark)["forward"]["bytes_dropped"] == 13,
                "all is dropped",
            )
            here.link.clear()
            assert await how_it_ends(busy[0]) == "reset"
            assert await ask(idle) == b"hello"
            facts = here.link.evidence(mark)
            assert facts["forward"]["bytes_dropped"] == 13
            assert facts["resets"] == 1
            assert b"gone" not in here.got

    run(story)


def test_a_reset_breaks_connections_at_once_and_new_ones_while_it_lasts(run):
    async def story() -> None:
        async with lab() as here:
            streams = await here.client()
            await ask(streams)
            mark = here.link.mark()
            here.break_link(LinkFault(reset=True))
            assert await how_it_ends(streams[0]) == "reset"
            await eventually(lambda: here.ends == ["reset"], "the server sees a reset too")
            reader, _ = await here.client()
            assert await how_it_ends(reader) == "reset"
            assert here.link.evidence(mark)["resets"] == 2
            here.link.clear()
            assert await ask(await here.client()) == b"hello"

    run(story)


# --- settings ----------------------------------------------------------------------------------


def test_a_wrong_direction_a_taken_name_and_a_taken_port_are_refused():
    async def story() -> None:
        async with lab() as here:
            with pytest.raises(ConfigError, match="use forward, backward or both"):
                here.link.set("sideways", CUT, 1)
            with pytest.raises(ConfigError, match="link 'c-s' exists already"):
                await here.proxy.link("c-s", source="a", target="b", upstream=(HOST, 1))
            with pytest.raises(OSError):
                await here.proxy.link(
                    "x", source="a", target="b", upstream=(HOST, 1), listen_port=here.server_port
                )

    asyncio.run(story())


def test_links_are_found_by_who_they_connect():
    async def story() -> None:
        proxy = Proxy(make_world(seed=1), Prng(1))
        for source, target in (("a", "b"), ("b", "a"), ("c", "a")):
            await proxy.link(
                f"{source}-{target}", source=source, target=target, upstream=(HOST, 1)
            )
        assert [link.name for link in proxy.between("a")] == ["a-b"]
        assert [link.name for link in proxy.between(None, "a")] == ["b-a", "c-a"]
        assert list(proxy.links) == ["a-b", "b-a", "c-a"]
        await proxy.close()

    asyncio.run(story())


def test_more_connections_than_the_bound_are_reset(run):
    async def story() -> None:
        async with lab() as here:
            here.link.connections_max = 1
            assert await ask(await here.client()) == b"hello"
            mark = here.link.mark()
            reader, _ = await here.client()
            assert await how_it_ends(reader) == "reset"
            assert here.link.evidence(mark)["over_limit"] == 1

    run(story)


# --- planted bugs: the checks above can fail ---------------------------------------------------


async def _nothing_is_lost(here: Lab, within: float = WITHIN) -> None:
    reader, writer = streams = await here.client()
    await ask(streams)
    here.break_link(CUT, seconds=0.2)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), within) == b"hello"


def test_a_cut_that_resets_is_noticed(monkeypatch):
    from outlast.inject.relay import Connection

    def update(self: Connection, way: Any, before: Any) -> None:
        if way.fault.cut:
            self.abort()

    async def story() -> None:
        async with lab() as here:
            await _nothing_is_lost(here)
            monkeypatch.setattr(Connection, "update", update)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await _nothing_is_lost(here)

    asyncio.run(story())


def test_a_lease_that_does_not_end_is_noticed(monkeypatch):
    from outlast.inject.proxy import Link

    async def story() -> None:
        async with lab() as here:
            monkeypatch.setattr(Link, "_expired", lambda self, way: None)
            with pytest.raises(TimeoutError):
                await _nothing_is_lost(here, within=1)

    asyncio.run(story())
