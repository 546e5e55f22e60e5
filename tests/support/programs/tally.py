"""A counter that is kept by gossip: datagrams between nodes, framed JSON over TCP for clients.

Each node counts for itself, keeps its own count on disk, and tells a random peer all counts that
it knows four times a second. Who hears of a count keeps the larger one, so that datagrams may be
lost, repeated and out of order. Nothing here knows of a simulator. ``adding`` plants a bug: nodes
tell what has changed and add it up; ``lazy`` another: the answer leaves before the count is kept.
"""

import asyncio
import contextlib
import json
import os
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PERIOD = 0.25
HEAD = struct.Struct(">I")


class Frames(asyncio.Protocol):
    """Messages with their length before them; subclasses say what becomes of one."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= HEAD.size:
            (size,) = HEAD.unpack_from(self.buffer)
            if len(self.buffer) < HEAD.size + size:
                return
            frame = bytes(self.buffer[HEAD.size : HEAD.size + size])
            del self.buffer[: HEAD.size + size]
            self.message_received(json.loads(frame))

    def message_received(self, message: Any) -> None:
        raise NotImplementedError

    def send(self, message: Any) -> None:
        frame = json.dumps(message).encode()
        if self.transport is not None:
            self.transport.write(HEAD.pack(len(frame)) + frame)


class Node(asyncio.DatagramProtocol):
    """What one node knows, and how it tells it to others."""

    def __init__(
        self,
        name: str,
        peers: Sequence[tuple[str, int]],
        path: Path,
        *,
        adding: bool = False,
        lazy: bool = False,
    ) -> None:
        self.name = name
        self.peers = peers
        self.path = path
        self.adding = adding
        self.lazy = lazy
        self.counts: dict[str, int] = {name: 0}
        self.news: dict[str, int] = {}
        self.saving = asyncio.Lock()
        self.later: set[asyncio.Task[None]] = set()
        self.transport: asyncio.DatagramTransport | None = None

    # --- the own count, on disk ---

    def load(self) -> None:
        if self.path.exists():
            self.counts[self.name] = int(self.path.read_text())

    def save(self) -> None:
        new = self.path.with_suffix(".new")
        with new.open("w") as file:
            file.write(str(self.counts[self.name]))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    async def add(self, number: int) -> int:
        async with self.saving:
            self.counts[self.name] += number
            self.news[self.name] = self.news.get(self.name, 0) + number
            if self.lazy:
                self.later.add(task := asyncio.create_task(asyncio.to_thread(self.save)))
                task.add_done_callback(self.later.discard)
            else:
                await asyncio.to_thread(self.save)
        return self.counts[self.name]

    # --- gossip ---

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        told = json.loads(data)
        for name, count in told.items():
            if self.adding and name != self.name:
                self.counts[name] = self.counts.get(name, 0) + count
            else:
                self.counts[name] = max(self.counts.get(name, 0), count)

    async def gossip(self) -> None:
        while True:
            await asyncio.sleep(PERIOD * random.uniform(0.5, 1.5))
            told, self.news = (self.news if self.adding else self.counts), {}
            peers = self.peers if self.adding else [random.choice(self.peers)]
            for host, port in peers:
                with contextlib.suppress(OSError):
                    await self.tell(told, host, port)

    async def tell(self, told: dict[str, int], host: str, port: int) -> None:
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        rows = await loop.getaddrinfo(host, port, family=2)
        self.transport.sendto(json.dumps(told).encode(), rows[0][4][:2])


class Served(Frames):
    """A client's connection."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.node = node
        self.tasks: set[asyncio.Task[None]] = set()

    def message_received(self, message: Any) -> None:
        task = asyncio.create_task(self.answer(message))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def answer(self, message: Any) -> None:
        number, verb, *rest = message
        try:
            if verb == "add":
                self.send([number, await self.node.add(*rest)])
            else:
                self.send([number, sum(self.node.counts.values())])
        except OSError:
            if self.transport is not None:
                self.transport.abort()


async def main(
    name: str,
    peers: Sequence[tuple[str, int]],
    *,
    host: str = "0.0.0.0",
    port: int = 5000,
    folder: Path = Path("."),
    adding: bool = False,
    lazy: bool = False,
) -> None:
    node = Node(name, peers, folder / f"{name}.count", adding=adding, lazy=lazy)
    await asyncio.to_thread(node.load)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: node, local_addr=(host, port))
    server = await loop.create_server(lambda: Served(node), host, port)
    try:
        await node.gossip()
    finally:
        transport.close()
        server.close()


# --- the client ----------------------------------------------------------------------------------


class Client(Frames):
    """Asks one node; several questions may be open at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.waiting: dict[int, asyncio.Future[int]] = {}

    def message_received(self, message: Any) -> None:
        number, answer = message
        future = self.waiting.pop(number)
        if not future.done():
            future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(exc or ConnectionResetError("the node has closed"))

    async def ask(self, verb: str, *rest: int, timeout: float = 1) -> int:
        self.number += 1
        self.waiting[self.number] = asyncio.get_running_loop().create_future()
        self.send([self.number, verb, *rest])
        async with asyncio.timeout(timeout):
            return await self.waiting[self.number]


@contextlib.asynccontextmanager
async def connect(host: str, port: int = 5000, *, timeout: float = 1) -> Any:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        transport, client = await loop.create_connection(Client, host, port)
    try:
        yield client
    finally:
        transport.close()


async def tour(nodes: Sequence[tuple[str, int]]) -> list[Any]:
    """Count at each node, and wait until all of them know."""
    seen: list[Any] = []
    for n, (host, port) in enumerate(nodes):
        async with connect(host, port, timeout=30) as client:
            seen.append(await client.ask("add", n + 1, timeout=30))
            adding = (client.ask("add", 10, timeout=30) for _ in range(20))
            await asyncio.gather(*adding)
    for host, port in nodes:
        async with asyncio.timeout(30), connect(host, port, timeout=30) as client:
            while (total := await client.ask("total", timeout=30)) < 606:  # noqa: ASYNC110 - as others do
                await asyncio.sleep(0.05)
            seen.append(total)
    return seen
