"""The real lab: processes, and a fault proxy on every link between them and their clients.

Each node is a process of ours, started again under the same directory. Each pair of nodes has a
link of its own, and so have the clients to each node, those that are pinned to one, and the
drill itself, which asks for status and readiness. Whatever the lab makes on this machine is
written into a journal before it is made, so that ``outlast heal`` can undo it.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from outlast.drill.api import Node
from outlast.drill.lab import CLIENTS, POLL, RESTART_SECONDS, RESTARTS_MAX
from outlast.drill.report import InvariantReport
from outlast.drill.target import LOOPBACK, Target
from outlast.host.process import ChildProcess, start_process
from outlast.inject import Link, Proxy, bypasses, find_listeners, process_tree
from outlast.kernel import ConfigError, Prng, TaskHandle, World
from outlast.log.files import read_tail

_NS = 1_000_000_000
_TAIL_BYTES = 4096
_TAIL_LINES = 5

DRILL = "drill"
"""Source of the links on which the drill itself asks; no fault touches them."""


@dataclass(slots=True)
class NodeProcess:
    """One node and its process.

    Attributes:
        name: Of the node.
        process: What runs, ``None`` between a kill and the next start.
        starts: How often it was started.
        ended: How often it has ended by itself.
        wanted: Whether it should run now.
        paused: Whether it is stopped by us.
    """

    name: str
    process: ChildProcess | None = None
    starts: int = 0
    ended: int = 0
    wanted: bool = False
    paused: bool = False
    watch: "asyncio.Task[None] | None" = None

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.running


@dataclass(slots=True)
class ProcessLab:
    """Starts, breaks and stops the nodes of one target.

    Args:
        world: The real world.
        target: What runs.
        folder: For logs.
        home: Where the nodes run.
        prng: Of the proxy's draws.
        environment: What marks the processes as ours.
        prefix: What a node's command line is started under, such as a namespace.
    """

    world: World
    target: Target
    folder: str
    home: str
    prng: Prng
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: Callable[[str], Sequence[str]] = lambda _: ()
    nodes: dict[str, NodeProcess] = field(default_factory=dict)
    exits: list[str] = field(default_factory=list)
    around: list[str] = field(default_factory=list)
    proxy: Proxy = field(init=False)
    _others: dict[int, str] = field(default_factory=dict)
    _stopping: bool = False

    def __post_init__(self) -> None:
        """Prepare, without starting anything."""
        self.proxy = Proxy(self.world, self.prng)
        self.nodes = {name: NodeProcess(name) for name in self.target.ports}

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open all links, start all nodes, and wait until they serve.

        Raises:
            ConfigError: Definite. A node did not start; its own last output is in the message.
        """
        for name, port in self.target.ports.items():
            sources = [CLIENTS, f"pinned-{name}", DRILL]
            sources += [other for other in self.nodes if other != name]
            for source in sources:
                await self.proxy.link(
                    f"{source}-{name}", source=source, target=name, upstream=(LOOPBACK, port)
                )
        for name in self.nodes:
            await self.start_node(name)
        await self.ready(self.target.start_seconds)

    async def ready(self, within: float) -> None:
        """Wait until every node serves.

        Raises:
            ConfigError: Definite. One does not; its own last output is in the message.
        """
        end = self.world.clock.monotonic_ns() + int(within * _NS)
        left = list(self.nodes)
        while left:
            name = left[0]
            node = self.nodes[name]
            if not node.running and not self._coming_back(name):
                raise ConfigError(f"{name} ended before it was ready{self.last_words(name)}")
            if await self.target.ready(name, self._address(name)):
                left.pop(0)
                continue
            if self.world.clock.monotonic_ns() > end:
                message = f"{name} was not ready within {within:g} s{self.last_words(name)}"
                raise ConfigError(message)
            await self.world.timers.sleep(POLL)

    def _coming_back(self, name: str) -> bool:
        node = self.nodes[name]
        return node.starts > 1 and node.wanted

    async def stop(self) -> None:
        """End every node at once, and close every link."""
        self._stopping = True
        await self.target.close()
        for node in self.nodes.values():
            node.wanted = False
            if node.process is not None:
                node.process.kill_group()
        for node in self.nodes.values():
            if node.watch is not None:
                with suppress(asyncio.CancelledError):
                    await node.watch
        await self.proxy.close()

    def client_node(self, name: str, *, pinned: bool) -> Node:
        """Return ``name`` as a client sees it."""
        link = self.client_link(name, pinned=pinned)
        everyone = {n: f"{LOOPBACK}:{self.client_link(n, pinned=False).port}" for n in self.nodes}
        if pinned:
            everyone[name] = f"{LOOPBACK}:{link.port}"
        return Node(name, LOOPBACK, link.port, everyone, pinned)

    # --- processes -----------------------------------------------------------------------------

    async def start_node(self, name: str) -> None:
        """Start the process of ``name`` unless it runs."""
        node = self.nodes[name]
        if node.running or self._stopping:
            return
        peers = {
            other: f"{LOOPBACK}:{self.proxy.links[f'{name}-{other}'].port}"
            for other in self.nodes
            if other != name
        }
        command = [*self.prefix(name), *self.target.command(name, peers)]
        environment = {
            **os.environ, **self.target.environment(name, peers), **self.environment
        }  # fmt: skip
        node.wanted, node.paused = True, False
        node.process = await start_process(
            command, environment=environment, directory=self.home, log=self.log(name)
        )
        node.starts += 1
        node.watch = asyncio.get_running_loop().create_task(self._watch(node, node.process))
        for link in self.proxy.between(target=name):
            await link.refuse(False)

    async def _watch(self, node: NodeProcess, process: ChildProcess) -> None:
        """Wait for the end of a process; start it again if nobody asked for that."""
        code = await process.wait()
        process.kill_group()
        if node.process is process:
            node.process = None
        for link in self.proxy.between(target=node.name):
            await link.refuse(True)
        if not node.wanted or self._stopping:
            return
        self.exits.append(
            f"{node.name} ended by itself with {_code(code)}{self.last_words(node.name)}"
        )
        node.ended += 1
        if node.ended > RESTARTS_MAX:
            node.wanted = False
            return
        await self.world.timers.sleep(RESTART_SECONDS)
        await self._start_again(node)

    async def _start_again(self, node: NodeProcess) -> None:
        """Start a node that ended by itself, unless it was to end meanwhile."""
        if node.wanted:
            await self.start_node(node.name)

    def log(self, name: str) -> str:
        """Return the file that ``name`` writes its output to."""
        return f"{self.folder}/{name}.log"

    def last_words(self, name: str) -> str:
        """Return the end of what ``name`` has written, as the end of a sentence."""
        text = read_tail(self.world.storage, self.log(name), _TAIL_BYTES)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return (
            f"; its last output: {' | '.join(lines[-_TAIL_LINES:])}"
            if lines
            else "; it wrote nothing"
        )

    # --- links ---------------------------------------------------------------------------------

    def client_link(self, name: str, *, pinned: bool) -> Link:
        """Return the link of clients to ``name``."""
        return self.proxy.links[f"pinned-{name}-{name}" if pinned else f"{CLIENTS}-{name}"]

    def bytes_to_pinned(self, name: str) -> int:
        """Return how many bytes ``name`` has sent to the clients that are pinned to it."""
        return self.client_link(name, pinned=True).mark().backward.bytes_passed

    @property
    def target_name(self) -> str:
        """What the report calls the target."""
        return self.target.name

    @property
    def start_seconds(self) -> float:
        """How long a start may take."""
        return self.target.start_seconds

    @property
    def nodes_talk(self) -> bool:
        """Whether any node has ever dialled another through its link."""
        return any(link.tally.attempts for link in self.peer_links())

    def peer_links(self) -> list[Link]:
        """Return the links between nodes."""
        return [link for link in self.proxy.links.values() if link.source in self.nodes]

    def links_of(self, name: str) -> list[Link]:
        """Return every link that leads to or from ``name``, the drill's own apart."""
        links = [link for link in self.proxy.links.values() if link.source != DRILL]
        return [link for link in links if name in {link.source, link.target}]

    async def verify(self) -> Sequence[InvariantReport]:
        """Check what must hold of all nodes together."""
        return await self.target.verify([self._address(name) for name in self.nodes])

    def _address(self, name: str) -> str:
        """Return where the drill itself reaches ``name``."""
        return f"{LOOPBACK}:{self.proxy.links[f'{DRILL}-{name}'].port}"

    def spawn_client(
        self, coroutine: Coroutine[Any, Any, Any], *, name: str, pinned: str = ""
    ) -> TaskHandle:
        """Run a client's coroutine: in this process."""
        return self.world.spawn.task(coroutine, name=name)

    async def look_for_listeners(self) -> None:
        """Find out on which other ports nodes listen: to talk there is to go around the proxy."""
        roots = {name: node.process.pid for name, node in self.nodes.items() if node.process}
        found = await self.world.offload.run("listeners", lambda: find_listeners(roots))
        self._others = found

    def look_around(self) -> None:
        """Note connections that do not go through the proxy.

        On the loop and not in a thread: what the proxy dials must not change meanwhile. Whose
        they are is only asked when there are any, since that reads all of /proc.
        """
        processes = {n: node.process.pid for n, node in self.nodes.items() if node.process}
        if not self._around({name: [pid] for name, pid in processes.items()}):
            return
        trees = {name: [one.pid for one in process_tree(pid)] for name, pid in processes.items()}
        for found in self._around(trees):
            if found not in self.around:
                self.around.append(found)

    def _around(self, pids: Mapping[str, Sequence[int]]) -> list[str]:
        listeners = {port: name for name, port in self.target.ports.items()}
        dialled = self.proxy.dialled_ports()
        return bypasses(listeners, pids, self.proxy.pid, dialled, others=self._others)

    async def statuses(self) -> dict[str, Mapping[str, Any] | None]:
        """Ask every node that runs what it is."""
        names = list(self.nodes)

        async def ask(name: str) -> Mapping[str, Any] | None:
            node = self.nodes[name]
            if not node.running or node.paused:
                return None
            return await self.target.status(name, self._address(name))

        found = await asyncio.gather(*(ask(name) for name in names))
        return dict(zip(names, found, strict=True))


def _code(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
