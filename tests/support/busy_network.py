"""A busy program on the simulated network, and what its run comes to: for tests of repeatability.

``python -m tests.support.busy_network SEED`` prints the digest of a run.
"""

import asyncio
import random
import sys
from typing import Any

from outlast.sim.dns import DnsFault
from tests.support.simnet import (
    both,
    connect,
    current,
    network,
    serve_echo,
    simulate,
    start,
)

NAMES = ("a", "b", "c", "d", "e")


class Gossip(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.heard: set[bytes] = set()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard.add(data)


async def node() -> None:
    """Program of a host: an echo server, gossip, and clients of all others."""
    loop = asyncio.get_running_loop()
    me = current().here.name
    servers = asyncio.create_task(serve_echo())
    transport, _ = await loop.create_datagram_endpoint(Gossip, local_addr=("0.0.0.0", 9))
    await asyncio.sleep(0.01)
    while not servers.done():
        for name in NAMES:
            if name != me:
                host = current().hosts[name]
                transport.sendto(f"{me} {random.random()}".encode(), (host.address, 9))
        writer: Any = None
        try:
            async with asyncio.timeout(0.5):
                reader, writer = await asyncio.open_connection(random.choice(NAMES), 7)
                for size in (1, 10_000, 400_000):
                    writer.write(bytes(size))
                    await reader.readexactly(size)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.05)
        finally:
            if writer is not None:
                writer.close()
        await asyncio.sleep(random.random() / 5)


async def storm() -> tuple[int, dict[str, int], int]:
    """Run the nodes through weather, cuts, crashes and pauses for some virtual seconds."""
    sim = current()
    for name in NAMES:
        start(name, node)
    draws = sim.prng.fork()
    for _ in range(24):
        await asyncio.sleep(0.25)
        a, b = draws.choice(NAMES), draws.choice(NAMES)
        what = draws.below(9)
        if what == 0:
            network().way(a, b).cut = True
        elif what == 1:
            both(a, b, loss_ppm=100_000, jitter_ns=5_000_000, duplicate_ppm=50_000)
        elif what == 2:
            sim.end_life(sim.hosts[a], power=draws.chance(1, 2))
            await asyncio.sleep(0.2)
            start(a, node)
        elif what == 3:
            network().way(a, b).reset = True
        elif what == 4:
            network().way(a, b).drop = True
        elif what == 5:
            network().dns.fail(a, DnsFault("nxdomain"))
        elif what == 6:
            sim.pause(sim.hosts[a])
            await asyncio.sleep(0.3)
            sim.resume(sim.hosts[a])
        elif what == 7:
            both(a, b, bytes_per_second=1_000_000, reorder_ppm=100_000)
        else:
            network().clear()
    network().clear()
    await asyncio.sleep(2)
    transport, client = await connect("a")
    transport.write(b"alive")
    async with asyncio.timeout(5):
        while client.data != b"alive":  # noqa: ASYNC110 - a recorder has no event
            await asyncio.sleep(0.01)
    return sim.digest, dict(sim.notes), sim.steps


def digest(seed: int) -> int:
    """Return the digest of a run."""
    return simulate(storm, seed)[0]


if __name__ == "__main__":
    print(digest(int(sys.argv[1])))

__all__ = ["digest", "storm"]
