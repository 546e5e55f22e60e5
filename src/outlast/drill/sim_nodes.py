"""What runs on the hosts of a simulated drill: nodes of our cluster, or a coroutine of theirs."""

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from outlast.cluster import Client, draw_cluster_id
from outlast.cluster.connect import connect
from outlast.cluster.identity import load_identity
from outlast.cluster.layout import init_node
from outlast.cluster.node import Node as ClusterNode
from outlast.cluster.process import run as run_node
from outlast.cluster.settings import NodeSettings
from outlast.drill.api import Nodes
from outlast.drill.replicas import LAB, compare_digests
from outlast.drill.report import InvariantReport
from outlast.drill.sim_command import begin, check_command
from outlast.drill.target import (
    DIGEST_SECONDS,
    STATUS_SECONDS,
    OwnNodes,
    facts_of,
    told_of,
    words_of,
)
from outlast.kernel import (
    ClusterId,
    ConfigError,
    NodeId,
    OutlastError,
    Prng,
    World,
    current_world,
)
from outlast.protect import deadline
from outlast.state import load_machine
from outlast.testing.broken.breakage import find_breakage
from outlast.testing.broken.node import DEFAULT, VARIABLE

PORT = 7400
"""Where every node of a simulated drill listens, each on an address of its own."""
DATA = "/data"
"""The data directory of every node, on the simulated disk of its host."""
BROKEN_NODE = "outlast.testing.broken.node"
"""The program of nodes that are broken on purpose."""
_LINE_MAX = 256


class SimTarget(Protocol):
    """What runs on the hosts, as the simulated lab needs it."""

    @property
    def name(self) -> str:
        """What the report calls it."""
        ...

    @property
    def start_seconds(self) -> float:
        """How long a start may take."""
        ...

    @property
    def forgets(self) -> bool:
        """Whether its disks forget what was synced, on purpose."""
        ...

    def prepare(self, addresses: Mapping[str, str], prng: Prng) -> None:
        """Learn where the nodes will be; called before any of them runs."""
        ...

    async def run(self, node: str) -> None:
        """Run the program of ``node``, on its host, until it ends."""
        ...

    async def ready(self, address: str) -> bool:
        """Whether the node at ``address`` serves."""
        ...

    async def status(self, address: str) -> Mapping[str, Any] | None:
        """Return what the node at ``address`` says of itself, ``None`` if nothing."""
        ...

    async def verify(self, world: World, addresses: Sequence[str]) -> Sequence[InvariantReport]:
        """Check what must hold of all nodes, when everything was healed."""
        ...

    async def close(self) -> None:
        """Close the connections that asked."""
        ...


@dataclass(slots=True)
class SimCluster:
    """Nodes of our own cluster, each a program on a host of its own."""

    nodes: OwnNodes
    addresses: dict[NodeId, str] = field(default_factory=dict)
    cluster: ClusterId | None = None
    _machine: Any = None
    _broken: list[tuple[Any, str, Any]] = field(default_factory=list)
    forgets: bool = False
    _watch: Client[Any] | None = None

    @property
    def name(self) -> str:
        """The machine, or the label of what is run in its place."""
        return self.nodes.label or f"outlast cluster of {self.nodes.machine}"

    @property
    def start_seconds(self) -> float:
        """As asked for."""
        return self.nodes.start_seconds

    def prepare(self, addresses: Mapping[str, str], prng: Prng) -> None:
        """Draw the cluster's id, and load the machine.

        Raises:
            ConfigError: Definite. The nodes are to be run by another program.
        """
        if self.nodes.program == BROKEN_NODE:
            self._break(self.nodes.environment.get(VARIABLE) or DEFAULT)
        elif self.nodes.program != "outlast":
            message = (
                f"{self.nodes.program}: a program of its own cannot be simulated;"
                " leave --world sim out"
            )
            raise ConfigError(message)
        self._machine = load_machine(self.nodes.machine)
        self.addresses = {NodeId(name): at for name, at in addresses.items()}
        self.cluster = draw_cluster_id(prng)

    def _break(self, name: str) -> None:
        """Break a promise of our own nodes on purpose, until the lab is closed."""

        def patch(owner: Any, attribute: str, value: Any) -> None:
            self._broken.append((owner, attribute, getattr(owner, attribute)))
            setattr(owner, attribute, value)

        self.forgets = name == DEFAULT
        find_breakage(name).apply(patch)

    async def run(self, node: str) -> None:
        """Make the node a founding member at its first start, and run it until it fails."""
        world, name = current_world(), NodeId(node)
        cluster = self.cluster or ClusterId("")
        if self.forgets:
            disk: Any = world.storage
            disk.sync_is_noop = True
        if load_identity(world.storage, DATA) is None:
            init_node(world.storage, DATA, name, self.addresses, cluster=cluster)
        settings = NodeSettings(
            node=name,
            data=DATA,
            listen=self.addresses[name],
            peers=self.addresses,
            cluster=cluster,
            security=LAB,
        )
        made = ClusterNode(world, self._machine, settings)
        failure = await run_node(made, until=asyncio.Event())
        if failure is not None:
            raise failure

    async def ready(self, address: str) -> bool:
        """Whether the node serves and knows a leader."""
        facts = await self.status(address)
        return facts is not None and bool(facts.get("ready"))

    async def status(self, address: str) -> Mapping[str, Any] | None:
        """Ask the node itself, whoever leads."""
        if self._watch is None:
            self._watch = connect(
                None, [address], timeout=STATUS_SECONDS, security=LAB, name="drill"
            )
        try:
            with deadline(STATUS_SECONDS):
                return await self._watch.status(address)
        except (OutlastError, OSError):
            return None

    async def verify(self, world: World, addresses: Sequence[str]) -> Sequence[InvariantReport]:
        """Compare the digests of all replicas at one applied index."""
        problems = await compare_digests(world, addresses, DIGEST_SECONDS)
        detail = "; ".join(problems) or f"{len(addresses)} replicas, equal digests"
        return (InvariantReport("all replicas hold the same state", not problems, detail),)

    async def close(self) -> None:
        """Close the connections that asked, and mend what was broken on purpose."""
        try:
            if self._watch is not None:
                await self._watch.close()
        finally:  # also when a run that was given up is closed in the middle of the wait
            while self._broken:
                setattr(*self._broken.pop())


@dataclass(slots=True)
class SimProgram:
    """People's own program, once on each host: its command line, or a coroutine function."""

    nodes: Nodes
    home: str = "."
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The command line, or the function."""
        made: Any = self.nodes.main
        if made is None:
            return self.nodes.command
        return f"{getattr(made, '__module__', '')}.{getattr(made, '__qualname__', made)}"

    @property
    def start_seconds(self) -> float:
        """As people wrote."""
        return self.nodes.start_seconds

    @property
    def forgets(self) -> bool:
        """Their disks are honest."""
        return False

    def prepare(self, addresses: Mapping[str, str], prng: Prng) -> None:
        """Learn where the nodes will be.

        Raises:
            ConfigError: Definite. The command cannot be simulated; the message says why.
        """
        if self.nodes.main is None:
            check_command(self.nodes.command)
        self.addresses = dict(addresses)

    async def run(self, node: str) -> None:
        """Run the program of ``node`` with what it is told of itself and the others."""
        current_world().storage.makedirs(DATA)
        host, _, port = self.addresses[node].rpartition(":")
        peers = {name: at for name, at in self.addresses.items() if name != node}
        facts = facts_of(node, host, int(port), DATA, peers)
        function: Any = self.nodes.main
        if function is None:
            environment = {**self.nodes.environment, **told_of(facts)}
            await begin(words_of(self.nodes, facts), environment, self.home)
            return
        asked = inspect.signature(function).parameters
        given: dict[str, Any] = {**facts, "port": int(port)}
        await function(**{name: given[name] for name in asked if name in given})

    async def ready(self, address: str) -> bool:
        """Ask the path that says so; a node without one is ready when it accepts."""
        try:
            async with asyncio.timeout(1.0):
                return await self._asked(address)
        except (OSError, TimeoutError):
            return False

    async def _asked(self, address: str) -> bool:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            if self.nodes.ready is None:
                return True
            ask = f"GET {self.nodes.ready} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            writer.write(ask.encode())
            line = await reader.readline()
            words = line[:_LINE_MAX].split()
            return len(words) > 1 and words[1].startswith(b"2")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def status(self, address: str) -> Mapping[str, Any] | None:
        """Nothing is known of a foreign node."""
        return None

    async def verify(self, world: World, addresses: Sequence[str]) -> Sequence[InvariantReport]:
        """Nothing is known of foreign nodes."""
        return ()

    async def close(self) -> None:
        """Nothing is kept open."""
