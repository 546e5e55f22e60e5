"""A small gossip program, as anybody would write it, and one run of it under each simulator.

Five nodes in one program. Each keeps a version per node, raises its own, and 10 to 20 times a
second pushes all it knows to a node drawn at random, over a connection that it keeps; the other
one answers with what it knows. Nothing but asyncio's streams, timers and ``random``: it runs
unmodified under every simulator that has TCP.

``python -m benchmarks.peers.gossip LOOP SECONDS SEED`` runs it for so many virtual seconds and
prints one JSON object.
"""

import asyncio
import importlib.metadata
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

NODES = 5
PORT = 7800
PAUSE = (0.05, 0.1)


class GossipNode:
    """One member: what it knows of the others, a server, and a task that pushes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.known = [0] * NODES
        self.pushes = 0
        self.peers: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    def merge(self, line: bytes) -> None:
        self.known = [max(pair) for pair in zip(self.known, json.loads(line), strict=True)]

    def say(self) -> bytes:
        return json.dumps(self.known).encode() + b"\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.merge(line)
                writer.write(self.say())
                await writer.drain()
        finally:
            writer.close()

    async def push(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(*PAUSE))
            self.known[self.number] += 1
            target = random.choice([n for n in range(NODES) if n != self.number])
            if target not in self.peers:
                self.peers[target] = await asyncio.open_connection("127.0.0.1", PORT + target)
            reader, writer = self.peers[target]
            writer.write(self.say())
            await writer.drain()
            async with asyncio.timeout(1.0):
                self.merge(await reader.readline())
            self.pushes += 1


async def gossip(seconds: float) -> int:
    """Let the nodes talk for ``seconds`` and return how many pushes were answered."""
    nodes = [GossipNode(number) for number in range(NODES)]
    servers = [
        await asyncio.start_server(node.serve, "127.0.0.1", PORT + node.number) for node in nodes
    ]
    tasks = [asyncio.create_task(node.push()) for node in nodes]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for node in nodes:
        for _, writer in node.peers.values():
            writer.close()
    await asyncio.sleep(1.0)  # those that serve notice it
    for server in servers:
        server.close()
    assert min(min(node.known) for node in nodes) > 0, "some node never heard of another one"
    return sum(node.pushes for node in nodes)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run gave. Times are in seconds, CPU time that of the whole run."""

    loop: str
    version: str
    virtual: float
    cpu: float
    pushes: int
    steps: int = 0
    """As the simulator counts them itself; 0 if it does not."""
    mib: float = 0.0

    @property
    def speed(self) -> float:
        """Virtual seconds per second of CPU time."""
        return self.virtual / self.cpu


def _outlast(seconds: float, seed: int) -> tuple[int, int]:
    from outlast.sim.running import Options, run_case

    outcome = run_case(lambda _: gossip(seconds), seed, Options())
    if outcome.error is not None:
        raise outcome.error
    return outcome.value, outcome.steps


def _detangle(seconds: float, seed: int) -> tuple[int, int]:
    import detangle

    found = detangle.execute(
        gossip,
        (seconds,),
        config=detangle.SimConfig(max_steps=1 << 40),
        strategy=detangle.RandomWalk(seed),
    )
    if found.failure is not None:
        raise RuntimeError(found.failure.headline())
    return found.value, found.steps


def _solipsism(seconds: float, seed: int) -> tuple[int, int]:
    import async_solipsism

    random.seed(seed)
    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        return runner.run(gossip(seconds)), 0


def _asyncio(seconds: float, seed: int) -> tuple[int, int]:
    random.seed(seed)
    return asyncio.run(gossip(seconds)), 0


LOOPS: dict[str, Callable[[float, int], tuple[int, int]]] = {
    "outlast": _outlast,
    "detangle": _detangle,
    "async-solipsism": _solipsism,
    "asyncio": _asyncio,
}
"""By the name of the distribution. The last one runs on real sockets, in real time."""


def run(loop: str, seconds: float, seed: int) -> Run:
    """Run the program once in this process, after a short run that fills all caches."""
    LOOPS[loop](min(seconds, 1.0), seed)
    began = time.process_time()
    pushes, steps = LOOPS[loop](seconds, seed)
    cpu = time.process_time() - began
    try:
        version = importlib.metadata.version(loop)
    except importlib.metadata.PackageNotFoundError:
        version = sys.version.split()[0]
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Run(loop, version, seconds, cpu, pushes, steps, mib)


if __name__ == "__main__":
    print(json.dumps(asdict(run(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))))
