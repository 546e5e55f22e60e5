"""A server that sends back what it gets, and plain clients, for tests of the fault proxy."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from outlast.host import make_world
from outlast.inject import Link, LinkFault, Proxy
from outlast.kernel import Prng, World

HOST = "127.0.0.1"
WITHIN = 30.0
"""Seconds after which what was to come is given up."""
SECOND = 1_000_000_000
MS = 1_000_000
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Lab:
    """An echo server behind one link."""

    world: World
    proxy: Proxy
    link: Link
    server_port: int
    accepted: list[asyncio.StreamWriter] = field(default_factory=list)
    got: bytearray = field(default_factory=bytearray)
    ends: list[str] = field(default_factory=list)
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    async def client(self) -> Streams:
        reader, writer = await asyncio.open_connection(HOST, self.link.port)
        self.clients.append(writer)
        return reader, writer

    def break_link(self, fault: LinkFault, *, seconds: float = 30.0, way: Any = "both") -> None:
        until = self.world.clock.monotonic_ns() + int(seconds * SECOND)
        self.link.set(way, fault, until)


@asynccontextmanager
async def lab(
    seed: int = 7, *, echo: bool = True, buffer_bytes: int = 1 << 20
) -> AsyncIterator[Lab]:
    """Start a server and a link to it; close everything afterwards."""
    world = make_world(seed=seed)
    made: list[Lab] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here = made[0]
        here.accepted.append(writer)
        try:
            while data := await reader.read(1 << 16):
                here.got += data
                if echo:
                    writer.write(data)
                    await writer.drain()
            here.ends.append("eof")
        except ConnectionError:
            here.ends.append("reset")
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    proxy = Proxy(world, Prng(seed), buffer_bytes=buffer_bytes)
    link = await proxy.link("c-s", source="c", target="s", upstream=(HOST, port))
    here = Lab(world, proxy, link, port)
    made.append(here)
    try:
        yield here
    finally:
        await proxy.close()
        for _ in range(10):  # asyncio forgets to close what it accepts while a server closes
            await asyncio.sleep(0)
        server.close()
        await closed(here)


async def closed(here: Lab) -> None:
    """Close all sockets, also of connections that are only now accepted.

    What the loop leaves open at its end is heard of in whatever test runs when it is collected.
    """
    end = asyncio.get_running_loop().time() + WITHIN
    quiet = 0
    while quiet < 3 and asyncio.get_running_loop().time() < end:
        for writer in [*here.clients, *here.accepted]:
            writer.close()
        await asyncio.sleep(0.002)
        quiet = quiet + 1 if asyncio.all_tasks() == {asyncio.current_task()} else 0


async def eventually(holds: Callable[[], bool], what: str, *, within: float = WITHIN) -> None:
    """Wait until ``holds()``; fail after ``within`` seconds."""
    end = asyncio.get_running_loop().time() + within
    while not holds():
        assert asyncio.get_running_loop().time() < end, f"not within {within} s: {what}"
        await asyncio.sleep(0.005)


async def silent(awaitable: Awaitable[Any], *, seconds: float = 0.15) -> None:
    """Check that nothing comes of it for a while; it is cancelled."""
    try:
        async with asyncio.timeout(seconds):
            answer = await awaitable
    except TimeoutError:
        return
    raise AssertionError(f"expected silence and got {answer!r}")


@contextmanager
def closed_port() -> Iterator[int]:
    """Yield a port on which nobody listens, and nobody can meanwhile."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        yield sock.getsockname()[1]
