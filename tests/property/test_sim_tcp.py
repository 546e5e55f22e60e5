"""Whatever weather and whatever the two programs do, a stream is a stream.

Two protocols write, pause, finish, close and abort at random while the ways between them are cut,
lose, drop and reset, and while the second host is paused, crashes, or loses its power.
"""

import asyncio
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outlast.kernel import Prng
from tests.support.simnet import current, network, simulate, start

pytestmark = pytest.mark.timeout(120)

SETTINGS = settings(max_examples=40, deadline=None)


class Side(asyncio.Protocol):
    """Checks the order of what it is told."""

    def __init__(self, prng: Prng, *, keep_open: bool) -> None:
        self.prng = prng
        self.keep_open = keep_open
        self.sent = bytearray()
        self.got = bytearray()
        self.state = "new"
        self.full = self.ended = False
        self.transport: Any = None
        self.life = current().life

    def _check(self, *states: str) -> None:
        assert self.state in states
        assert self.life.alive
        assert current().life is self.life

    def connection_made(self, transport: Any) -> None:
        self._check("new")
        self.state = "open"
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._check("open")
        assert data
        assert not self.ended
        assert self.transport.is_reading()
        self.got += data

    def eof_received(self) -> bool:
        self._check("open")
        assert not self.ended
        self.ended = True
        return self.keep_open

    def pause_writing(self) -> None:
        self._check("open")
        assert not self.full
        self.full = True

    def resume_writing(self) -> None:
        self._check("open")
        assert self.full
        self.full = False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._check("open")
        self.state = "lost"
        assert exc is None or isinstance(exc, OSError)

    def act(self) -> None:
        """Do something at random."""
        draw, transport = self.prng.below(24), self.transport
        if self.state != "open" or not self.life.alive:
            return
        if draw < 14:
            if not self.full and not transport.is_closing() and not transport._eof:
                size = 1 + self.prng.below(1 << self.prng.below(18))
                data = self.prng.bytes(min(size, 64)) * (size // 64 + 1)
                self.sent += data
                transport.write(data)
        elif draw < 17:
            transport.pause_reading()
        elif draw < 21:
            transport.resume_reading()
        elif draw == 21:
            transport.write_eof()
        elif draw == 22:
            transport.close()
        elif not self.prng.below(3):
            transport.abort()


def weather(prng: Prng) -> None:
    """Change the weather at random."""
    pair = ("test", "api") if prng.chance(1, 2) else ("api", "test")
    way = network().way(*pair)
    draw = prng.below(12)
    if draw < 3:
        way.cut = not way.cut
    elif draw < 5:
        way.loss_ppm = prng.below(500_000)
    elif draw < 7:
        way.jitter_ns = prng.below(50_000_000)
    elif draw == 7:
        way.bytes_per_second = prng.between(10_000, 10_000_000)
    elif draw == 8:
        way.drop = not way.drop
    elif draw == 9 and prng.chance(1, 4):
        way.reset = not way.reset
    else:
        network().clear()


async def play(seed: int) -> tuple[Side, list[Side], int]:
    prng = Prng(seed)
    sim = current()
    there: list[Side] = []

    def accept() -> Side:
        there.append(Side(prng, keep_open=prng.chance(1, 2)))
        return there[-1]

    async def serve() -> None:
        await asyncio.get_running_loop().create_server(accept, "0.0.0.0", 7)
        await asyncio.Event().wait()

    api = start("api", serve)
    await asyncio.sleep(0.1)
    _, here = await asyncio.get_running_loop().create_connection(
        lambda: Side(prng, keep_open=prng.chance(1, 2)), "api", 7
    )
    await asyncio.sleep(0.1)
    for _ in range(60):
        await asyncio.sleep(prng.below(1 << prng.below(30)) / 1e9)
        draw = prng.below(14)
        if draw < 6:
            here.act()
        elif draw < 11:  # in the life of the other host
            if api.life is not None:
                sim.at_host(sim.now_ns, api.life, there[0].act)
        elif draw < 13:
            weather(prng)
        elif prng.chance(1, 6):
            sim.end_life(api, power=prng.chance(1, 2))
        elif api.life is not None:
            (sim.resume if api.paused else sim.pause)(api)
    network().clear()
    sim.resume(api)
    if api.life is None:
        start("api", serve)
    await asyncio.sleep(1)
    for side in (here, *there[:1]):
        if side.life.alive and side.state == "open":
            sim.at_host(sim.now_ns, side.life, side.transport.close)
            side.transport.resume_reading()
    await asyncio.sleep(500)
    left = sum(len(kernel.ends) for kernel in network().endpoints.values())
    return here, there, left


@SETTINGS
@given(seed=st.integers(0, 2**32))
@example(seed=136)  # power lost while data waited for a paused program: its sender hung
def test_each_side_gets_a_prefix_of_what_the_other_sent_and_nothing_is_left(seed: int) -> None:
    here, there, left = simulate(lambda: play(seed), seed)
    assert here.sent.startswith(there[0].got)
    assert there[0].sent.startswith(here.got)
    assert here.state == "lost"
    assert there[0].state == "lost" or not there[0].life.alive
    assert left == 0


@SETTINGS
@given(seed=st.integers(0, 2**32))
def test_without_resets_nothing_that_was_sent_is_missing(seed: int) -> None:
    async def main() -> None:
        prng = Prng(seed)
        there: list[Side] = []

        def accept() -> Side:
            there.append(Side(prng, keep_open=True))
            return there[-1]

        async def serve() -> None:
            await asyncio.get_running_loop().create_server(accept, "0.0.0.0", 7)
            await asyncio.Event().wait()

        api = start("api", serve)
        await asyncio.sleep(0.1)
        _, here = await asyncio.get_running_loop().create_connection(
            lambda: Side(prng, keep_open=True), "api", 7
        )
        await asyncio.sleep(0.1)
        for _ in range(40):
            await asyncio.sleep(prng.below(1 << prng.below(28)) / 1e9)
            way = network().way(*(("test", "api") if prng.chance(1, 2) else ("api", "test")))
            draw = prng.below(8)
            if draw == 0:
                way.cut = not way.cut
            elif draw == 1:
                way.loss_ppm = prng.below(300_000)
            elif draw == 2:
                (current().resume if api.paused else current().pause)(api)
            elif draw == 3:
                (here.transport.pause_reading if prng.chance(1, 2) else
                 here.transport.resume_reading)()  # fmt: skip
            elif not here.full:
                data = prng.bytes(1 + prng.below(50)) * (1 << prng.below(13))
                here.sent += data
                here.transport.write(data)
        network().clear()
        current().resume(api)
        here.transport.write_eof()
        await asyncio.sleep(100)
        assert there[0].got == here.sent
        assert there[0].ended
        there[0].transport.close()
        await asyncio.sleep(100)

    simulate(main, seed)
