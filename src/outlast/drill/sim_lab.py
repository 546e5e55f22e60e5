"""The simulated lab: each node is a host of a simulation, and so are the drill's clients.

Clients that are pinned to a node have a host of their own, so that what the node sent them can
be counted; the drill itself asks from the simulation's own host, which no fault touches.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from outlast.drill.api import Node
from outlast.drill.lab import CLIENTS, POLL, RESTART_SECONDS, RESTARTS_MAX
from outlast.drill.report import InvariantReport
from outlast.drill.sim_nodes import PORT, SimTarget
from outlast.kernel import ConfigError, TaskHandle, World
from outlast.sim import Host, Lab, Way

_NS = 1_000_000_000


@dataclass(slots=True)
class SimNode:
    """One node and its host.

    Attributes:
        name: Of the node and the host.
        host: On which it runs.
        wanted: Whether it should run now.
        ended: How often it has ended by itself.
    """

    name: str
    host: Host
    wanted: bool = True
    ended: int = 0

    @property
    def starts(self) -> int:
        """How often it was started."""
        return self.host.starts

    @property
    def running(self) -> bool:
        """Whether its program is there, paused or not."""
        return self.host.up

    @property
    def paused(self) -> bool:
        """Whether it is stopped by the drill."""
        return self.host.paused


@dataclass(slots=True)
class SimLab:
    """Starts, breaks and stops the nodes of one target in a simulation.

    Args:
        lab: Of the simulation.
        world: Of the simulation's own host.
        target: What runs.
        names: Of the nodes.
    """

    lab: Lab
    world: World
    target: SimTarget
    names: Sequence[str]
    nodes: dict[str, SimNode] = field(default_factory=dict)
    around: list[str] = field(default_factory=list)
    _keeper: TaskHandle | None = None
    _stopping: bool = False

    @property
    def target_name(self) -> str:
        """What the report calls the target."""
        return f"{self.target.name}, simulated"

    @property
    def start_seconds(self) -> float:
        """How long a start may take."""
        return self.target.start_seconds

    @property
    def exits(self) -> Sequence[str]:
        """Nodes that ended by themselves, and why."""
        return [
            f"{name} ended by itself: {why}" for name, why in self.lab.exits if name in self.nodes
        ]

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all nodes, and wait until they serve.

        Raises:
            ConfigError: Definite. One does not.
        """
        # As on real processes, where everybody is on one machine.
        self.lab.sim.network.open_loopback = True
        for name in (CLIENTS, *(_pinned(name) for name in self.names)):
            self.lab.host(name, _idle)
        for name in self.names:
            host = self.lab.host(name, partial(self.target.run, name), may_exit=True)
            self.nodes[name] = SimNode(name, host)
        self.target.prepare({name: self._address(name) for name in self.names}, self.world.prng)
        self._keeper = self.world.spawn.task(self._keep(), name="keep nodes")
        await self.ready(self.start_seconds)

    async def _keep(self) -> None:
        """Start nodes again that have ended by themselves."""
        while True:
            await self.world.timers.sleep(RESTART_SECONDS)
            for name, node in self.nodes.items():
                if node.wanted and not node.running and node.ended <= RESTARTS_MAX:
                    node.ended += 1
                    self.lab.restart(name)

    def start_node(self, name: str) -> None:
        """Start ``name`` unless it runs."""
        node = self.nodes[name]
        node.wanted = True
        if not (node.running or self._stopping):
            self.lab.restart(name)

    async def ready(self, within: float) -> None:
        """Wait until every node serves.

        Raises:
            ConfigError: Definite. One does not; what ended it is in the message.
        """
        end_ns = self.world.clock.monotonic_ns() + int(within * _NS)
        left = list(self.names)
        while left:
            name = left[0]
            if await self.target.ready(self._address(name)):
                left.pop(0)
                continue
            if self.world.clock.monotonic_ns() > end_ns:
                ends = [each for each in self.exits if each.startswith(f"{name} ")]
                said = f"; {ends[-1]}" if ends else ""
                message = f"{name} was not ready within {within:g} s{said}"
                raise ConfigError(message)
            await self.world.timers.sleep(POLL)

    async def stop(self) -> None:
        """End every node at once."""
        self._stopping = True
        if self._keeper is not None:
            self._keeper.cancel()
        await self.target.close()
        for name, node in self.nodes.items():
            node.wanted = False
            if node.running:
                self.lab.crash(name)

    # --- clients -------------------------------------------------------------------------------

    def client_node(self, name: str, *, pinned: bool) -> Node:
        """Return ``name`` as a client sees it."""
        everyone = {each: self._address(each) for each in self.names}
        return Node(name, self.nodes[name].host.address, PORT, everyone, pinned)

    def spawn_client(
        self, coroutine: Coroutine[Any, Any, Any], *, name: str, pinned: str = ""
    ) -> TaskHandle:
        """Run a client on the clients' host, or on that of the node that it is pinned to."""
        host = _pinned(pinned) if pinned else CLIENTS
        return self.lab.spawn(host, coroutine, name=name)

    def bytes_to_pinned(self, name: str) -> int:
        """Return how many bytes ``name`` has sent to the clients that are pinned to it."""
        return self.way(name, _pinned(name)).tally.bytes

    def way(self, source: str, target: str) -> Way:
        """Return what lies between two hosts, in one direction."""
        return self.lab.sim.network.way(source, target)

    def _address(self, name: str) -> str:
        return f"{self.nodes[name].host.address}:{PORT}"

    # --- watching ------------------------------------------------------------------------------

    @property
    def nodes_talk(self) -> bool:
        """Whether any node has ever sent another one anything."""
        return any(self.way(a, b).tally.segments for a in self.names for b in self.names if a != b)

    async def statuses(self) -> dict[str, Mapping[str, Any] | None]:
        """Ask every node that runs what it is."""

        async def ask(name: str) -> Mapping[str, Any] | None:
            node = self.nodes[name]
            if not node.running or node.paused:
                return None
            return await self.target.status(self._address(name))

        found = await asyncio.gather(*(ask(name) for name in self.names))
        return dict(zip(self.names, found, strict=True))

    async def look_for_listeners(self) -> None:
        """Nothing to find: no connection goes around a simulated network."""

    def look_around(self) -> None:
        """Nothing to find: no connection goes around a simulated network."""

    async def verify(self) -> Sequence[InvariantReport]:
        """Check what must hold of all nodes together."""
        return await self.target.verify(self.world, [self._address(name) for name in self.names])


def _pinned(name: str) -> str:
    """Return the host of the clients that are pinned to ``name``."""
    return f"pinned-{name}"


async def _idle() -> None:
    """Stay, so that others can run here."""
    await asyncio.Event().wait()
