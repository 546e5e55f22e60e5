"""What the tests of the simulated network share: a run with hosts, and a protocol that records."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from outlast.sim.hosts import Host
from outlast.sim.loop import SimLoop
from outlast.sim.network import Network
from outlast.sim.simulation import Simulation, current

T = TypeVar("T")

Main = Callable[[], Coroutine[Any, Any, Any]]


def simulate(main: Callable[[], Coroutine[Any, Any, T]], seed: int = 1, **rest: Any) -> T:
    """Run ``main`` on the test's host of a new simulation.

    What was there before is not looked through at its end: a run would take as long as the
    process that has run other tests before is large.
    """
    loop = SimLoop(seed=seed, **rest)
    gc.freeze()
    try:
        return loop.run_until_complete(main())
    finally:
        try:
            loop.end()
        finally:
            gc.unfreeze()


def start(name: str, main: Main) -> Host:
    """Start a program on a host of that name, which is added if it is new."""
    sim = current()
    host = sim.hosts.get(name) or sim.add_host(name)
    sim.start(host, main)
    return host


def network() -> Network:
    return current().network


def now() -> float:
    """Virtual time in seconds."""
    return current().now_ns / 1e9


def both(a: str, b: str, **weather: Any) -> None:
    """Make the same weather in both directions."""
    for way in (network().way(a, b), network().way(b, a)):
        for name, value in weather.items():
            setattr(way, name, value)


class Recorder(asyncio.Protocol):
    """Writes down what it is told; data only as its joined bytes."""

    def __init__(self, *, keep_open: bool = False) -> None:
        self.told: list[str] = []
        self.data = bytearray()
        self.transport: Any = None
        self.keep_open = keep_open
        self.lost: asyncio.Future[BaseException | None] = (
            asyncio.get_running_loop().create_future()
        )

    def _tell(self, what: str) -> None:
        if not self.told or self.told[-1] != what:
            self.told.append(what)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._tell("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._tell("data")

    def eof_received(self) -> bool:
        self._tell("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self._tell("pause")

    def resume_writing(self) -> None:
        self._tell("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._tell(f"lost {type(exc).__name__}")
        if not self.lost.done():
            self.lost.set_result(exc)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, until the end or an error."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def serve_echo() -> None:
    """Program of a host: an echo server on port 7."""
    server = await asyncio.start_server(echo, "0.0.0.0", 7)
    async with server:
        await server.serve_forever()


async def serve_silent() -> None:
    """Program of a host: accepts on port 7, reads and says nothing."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass

    server = await asyncio.start_server(swallow, "0.0.0.0", 7)
    async with server:
        await server.serve_forever()


async def connect(name: str, port: int = 7, **rest: Any) -> tuple[Any, Recorder]:
    """Connect a recorder."""
    loop = asyncio.get_running_loop()
    return await loop.create_connection(lambda: Recorder(**rest), name, port)


__all__ = [
    "Recorder", "Simulation", "both", "connect", "current", "echo", "network", "now",
    "serve_echo", "serve_silent", "simulate", "start",
]  # fmt: skip
