"""Simulated UDP: each datagram is on its own."""

import asyncio
from typing import Any

import pytest

from outlast.kernel import EscapeError
from tests.support.simnet import both, current, network, now, simulate, start


class Inbox(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.errors: list[Exception] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append(data)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)


INBOXES: dict[str, Inbox] = {}


async def receive() -> None:
    """Program of a host: keeps what arrives at port 9."""
    loop = asyncio.get_running_loop()
    _, inbox = await loop.create_datagram_endpoint(Inbox, local_addr=("0.0.0.0", 9))
    INBOXES[current().here.name] = inbox
    await asyncio.Event().wait()


async def opened(**rest: Any) -> tuple[Any, Inbox]:
    return await asyncio.get_running_loop().create_datagram_endpoint(Inbox, **rest)


async def sent(count: int, **weather: Any) -> list[bytes]:
    """Send numbered datagrams through weather and return what arrives."""
    start("api", receive)
    await asyncio.sleep(0.1)
    both("test", "api", **weather)
    out, _ = await opened(remote_addr=("api", 9))
    for number in range(count):
        out.sendto(number.to_bytes(2, "big"))
        await asyncio.sleep(0.001)
    await asyncio.sleep(1)
    return INBOXES["api"].got


def numbers(count: int) -> list[bytes]:
    return [number.to_bytes(2, "big") for number in range(count)]


def test_datagrams_arrive_in_fair_weather() -> None:
    assert sorted(simulate(lambda: sent(100))) == numbers(100)


def test_loss_loses_some_for_good() -> None:
    async def main() -> None:
        got = await sent(300, loss_ppm=300_000)
        lost = network().way("test", "api").tally.lost
        assert 40 < lost < 150
        assert len(got) == 300 - lost

    simulate(main)


def test_duplication_delivers_some_twice() -> None:
    async def main() -> None:
        got = await sent(100, duplicate_ppm=200_000)
        assert len(got) == 100 + network().way("test", "api").tally.duplicated > 100
        assert set(got) == set(numbers(100))

    simulate(main)


def test_reordering_lets_some_overtake_others() -> None:
    async def main() -> None:
        got = await sent(100, reorder_ppm=200_000)
        assert got != numbers(100)
        assert sorted(got) == numbers(100)
        assert network().way("test", "api").tally.reordered > 0

    simulate(main)


def test_a_cut_loses_all_in_silence() -> None:
    async def main() -> None:
        assert await sent(10, cut=True) == []
        assert network().way("test", "api").tally.lost == 10

    simulate(main)


def test_a_cut_loses_what_is_under_way_and_what_was_sent_before_it_healed() -> None:
    async def main() -> None:
        start("api", receive)
        await asyncio.sleep(0.1)
        way = network().way("test", "api")
        way.delay_ns = 1_000_000_000
        out, _ = await opened(remote_addr=("api", 9))
        out.sendto(b"under way")
        await asyncio.sleep(0.5)
        way.cut = True
        out.sendto(b"into the cut")
        await asyncio.sleep(0.6)
        way.cut = False
        await asyncio.sleep(2)
        assert INBOXES["api"].got == []
        assert way.tally.lost == 2

    simulate(main)


def test_a_connected_sender_learns_that_nobody_listens() -> None:
    async def main() -> None:
        current().add_host("api")
        out, inbox = await opened(remote_addr=("10.0.0.2", 9))
        out.sendto(b"x")
        loose, other = await opened(local_addr=("0.0.0.0", 0))
        loose.sendto(b"x", ("10.0.0.2", 9))
        await asyncio.sleep(1)
        assert [type(error) for error in inbox.errors] == [ConnectionRefusedError]
        assert other.errors == []

    simulate(main)


def test_what_a_paused_host_does_not_read_is_bounded() -> None:
    async def main() -> None:
        api = start("api", receive)
        await asyncio.sleep(0.1)
        current().pause(api)
        out, _ = await opened(remote_addr=("api", 9))
        for _ in range(300):
            out.sendto(bytes(1000))
        await asyncio.sleep(1)
        current().resume(api)
        await asyncio.sleep(1)
        assert len(INBOXES["api"].got) == 212
        assert current().notes["datagram queue full"] == 88

    simulate(main)


def test_what_is_too_long_or_for_everybody_is_refused() -> None:
    async def main() -> None:
        out, inbox = await opened(local_addr=("0.0.0.0", 5))
        out.sendto(bytes(65_507), ("10.0.0.1", 9))
        assert inbox.errors == []
        out.sendto(bytes(65_508), ("10.0.0.1", 9))
        out.sendto(b"x", ("255.255.255.255", 9))
        assert [type(error) for error in inbox.errors] == [OSError, PermissionError]
        with pytest.raises(OSError, match="in use"):
            await opened(local_addr=("0.0.0.0", 5))
        with pytest.raises(EscapeError, match="broadcast"):
            await opened(local_addr=("0.0.0.0", 6), allow_broadcast=True)
        out.close()
        out.sendto(b"ignored", ("10.0.0.1", 9))
        await asyncio.sleep(0)
        again, _ = await opened(local_addr=("0.0.0.0", 5))
        again.close()

    simulate(main)


def test_a_crash_lets_go_of_the_port() -> None:
    async def main() -> None:
        api = start("api", receive)
        await asyncio.sleep(0.1)
        current().end_life(api)
        start("api", receive)
        await asyncio.sleep(0.1)
        out, _ = await opened(remote_addr=("api", 9))
        out.sendto(b"second life")
        await asyncio.sleep(0.1)
        assert INBOXES["api"].got == [b"second life"]
        assert now() < 1

    simulate(main)
