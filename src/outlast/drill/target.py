"""What a drill runs against: processes by a command line, or nodes of our own cluster."""

import os
import shlex
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from outlast.cluster import Client, draw_cluster_id
from outlast.cluster.connect import connect
from outlast.cluster.layout import LocalPlan, free_ports, make_plan
from outlast.cluster.local import node_command, node_environment
from outlast.drill.api import Nodes
from outlast.drill.replicas import compare_digests
from outlast.drill.report import InvariantReport
from outlast.kernel import OutlastError, World
from outlast.protect import deadline

LOOPBACK = "127.0.0.1"
PYTHONS = frozenset({"python", "python3"})
"""What stands for the Python that runs the drill at the head of a command line."""
STATUS_SECONDS = 0.4
DIGEST_SECONDS = 15.0
_HOLDS_SECONDS = 0.3


class Target(Protocol):
    """Processes that serve, as the lab needs them."""

    @property
    def name(self) -> str:
        """What the report calls it."""
        ...

    @property
    def ports(self) -> Mapping[str, int]:
        """Where each node listens, by name in order."""
        ...

    @property
    def start_seconds(self) -> float:
        """How long a start may take."""
        ...

    def directory(self, node: str) -> str:
        """Return the data directory of ``node``."""
        ...

    def command(self, node: str, peers: Mapping[str, str]) -> Sequence[str]:
        """Return the command line of ``node``, which dials the others at ``peers``."""
        ...

    def environment(self, node: str, peers: Mapping[str, str]) -> Mapping[str, str]:
        """Return what ``node`` needs in its environment beside ours."""
        ...

    async def ready(self, node: str, address: str) -> bool:
        """Whether ``node``, reached at ``address``, serves."""
        ...

    async def status(self, node: str, address: str) -> Mapping[str, Any] | None:
        """Return what ``node`` says of itself, ``None`` if it says nothing."""
        ...

    async def verify(self, addresses: Sequence[str]) -> Sequence[InvariantReport]:
        """Check what must hold of all nodes at ``addresses``, when everything was healed."""
        ...

    async def close(self) -> None:
        """Close the connections that asked."""
        ...


@dataclass(slots=True)
class CommandTarget:
    """Any program: one process per node.

    Args:
        world: Threads for HTTP.
        nodes: What people wrote.
        folder: Where the nodes' directories lie.
        home: Where the processes run: the directory of the drill's file.
    """

    world: World
    nodes: Nodes
    folder: str
    home: str
    ports: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        """Choose ports and make directories."""
        names = [f"n{number}" for number in range(1, self.nodes.count + 1)]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        for name in names:
            self.world.storage.makedirs(self.directory(name))

    @property
    def name(self) -> str:
        """The command line."""
        return self.nodes.command

    @property
    def start_seconds(self) -> float:
        """As people wrote."""
        return self.nodes.start_seconds

    def directory(self, node: str) -> str:
        """Return the directory of ``node``."""
        return f"{self.folder}/{node}"

    def _facts(self, node: str, peers: Mapping[str, str]) -> dict[str, str]:
        return facts_of(node, LOOPBACK, self.ports[node], self.directory(node), peers)

    def command(self, node: str, peers: Mapping[str, str]) -> Sequence[str]:
        """Fill in the command line; ``python`` is the Python that runs this."""
        words = words_of(self.nodes, self._facts(node, peers))
        return [sys.executable, *words[1:]] if words[0] in PYTHONS else words

    def environment(self, node: str, peers: Mapping[str, str]) -> Mapping[str, str]:
        """Tell the node what its command line may not mention."""
        path = os.pathsep.join(p for p in (self.home, os.environ.get("PYTHONPATH", "")) if p)
        told = told_of(self._facts(node, peers))
        return {"PYTHONPATH": path, **self.nodes.environment, **told}

    async def ready(self, node: str, address: str) -> bool:
        """Ask the path that says so; a node without one is ready when it accepts."""
        if self.nodes.ready is None:
            return await self.world.offload.run(f"ready {node}", lambda: _accepts(address))
        url = f"http://{address}{self.nodes.ready}"
        return await self.world.offload.run(f"ready {node}", lambda: _answers(url))

    async def status(self, node: str, address: str) -> Mapping[str, Any] | None:
        """Nothing is known of a foreign node."""
        return None

    async def verify(self, addresses: Sequence[str]) -> Sequence[InvariantReport]:
        """Nothing is known of foreign nodes."""
        return ()

    async def close(self) -> None:
        """Nothing is kept open."""


def facts_of(
    node: str, host: str, port: int, directory: str, peers: Mapping[str, str]
) -> dict[str, str]:
    """Return what a node is told of itself and the others, by placeholder."""
    return {
        "port": str(port),
        "dir": directory,
        "node": node,
        "host": host,
        "peers": ",".join(f"{name}={address}" for name, address in peers.items()),
    }


def words_of(nodes: Nodes, facts: Mapping[str, str]) -> list[str]:
    """Return the words of the command line with its placeholders filled in."""
    return [word.format_map(facts) for word in shlex.split(nodes.command)]


def told_of(facts: Mapping[str, str]) -> dict[str, str]:
    """Return the same facts as variables of an environment."""
    return {f"OUTLAST_{name.upper()}": value for name, value in facts.items()}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as answer:  # noqa: S310 - our own http URL
            return 200 <= int(answer.status) < 300
    except (OSError, ValueError):
        return False


def _accepts(address: str) -> bool:
    """Whether what is behind the proxy keeps a connection for a moment."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0) as connection:
            connection.settimeout(_HOLDS_SECONDS)
            return connection.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class OwnNodes:
    """Nodes of our own cluster.

    Args:
        machine: ``module:Class`` or ``FILE.py:Class`` of the replicated machine.
        count: How many, 1 to 9.
        program: Module that the nodes run; a canary names a broken one.
        environment: More environment.
        options: More options of ``outlast node``.
        start_seconds: How long a start may take.
        label: What the report calls it; the machine by default.
    """

    machine: str
    count: int = 3
    program: str = "outlast"
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    start_seconds: float = 30.0
    label: str = ""


@dataclass(slots=True)
class ClusterTarget:
    """A cluster of ours: each node dials each other one through a fault proxy of its own."""

    world: World
    nodes: OwnNodes
    folder: str
    plan: LocalPlan = field(init=False)
    ports: Mapping[str, int] = field(init=False)
    _watch: Client[Any] | None = None

    def __post_init__(self) -> None:
        """Make the directories of a new cluster on free ports."""
        self.plan = make_plan(
            self.world.storage,
            self.folder,
            self.nodes.machine,
            nodes=self.nodes.count,
            cluster=draw_cluster_id(self.world.prng),
            port=0,
            http_port=None,
        )
        self.ports = {
            str(node): int(address.rpartition(":")[2])
            for node, address in self.plan.addresses.items()
        }

    @property
    def name(self) -> str:
        """The machine, or the label of what is run in its place."""
        return self.nodes.label or f"outlast cluster of {self.nodes.machine}"

    @property
    def start_seconds(self) -> float:
        """As asked for."""
        return self.nodes.start_seconds

    def directory(self, node: str) -> str:
        """Return the data directory of ``node``."""
        return self.plan.directory(self.folder, node)

    def command(self, node: str, peers: Mapping[str, str]) -> Sequence[str]:
        """Return the command line that ``outlast serve`` uses, with a route to each peer."""
        routes = [part for name, at in peers.items() for part in ("--route", f"{name}={at}")]
        return node_command(
            self.plan,
            self.folder,
            node,
            extra=[*self.nodes.options, *routes],
            program=self.nodes.program,
        )

    def environment(self, node: str, peers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the agreed hash seed, and what a canary needs."""
        return {**node_environment(self.plan), **self.nodes.environment}

    async def ready(self, node: str, address: str) -> bool:
        """Whether the node serves and knows a leader."""
        facts = await self.status(node, address)
        return facts is not None and bool(facts.get("ready"))

    async def status(self, node: str, address: str) -> Mapping[str, Any] | None:
        """Ask the node itself, whoever leads."""
        if self._watch is None:
            self._watch = connect(None, [address], timeout=STATUS_SECONDS, name="drill")
        try:
            with deadline(STATUS_SECONDS):
                return await self._watch.status(address)
        except (OutlastError, OSError):
            return None

    async def verify(self, addresses: Sequence[str]) -> Sequence[InvariantReport]:
        """Compare the digests of all replicas at one applied index."""
        problems = await compare_digests(self.world, addresses, DIGEST_SECONDS)
        detail = "; ".join(problems) or f"{len(addresses)} replicas, equal digests"
        return (InvariantReport("all replicas hold the same state", not problems, detail),)

    async def close(self) -> None:
        """Close the connections that asked."""
        if self._watch is not None:
            await self._watch.close()


def make_target(world: World, nodes: Nodes | OwnNodes, folder: str, home: str) -> Target:
    """Return the target that ``nodes`` describe, with its directories in ``folder``."""
    if isinstance(nodes, OwnNodes):
        return ClusterTarget(world, nodes, folder)
    return CommandTarget(world, nodes, folder, home)
