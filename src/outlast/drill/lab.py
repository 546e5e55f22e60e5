"""What a drill needs of the place where it runs: the same on real processes and simulated.

A *ground* opens a *lab*, in which nodes run, and a *breaker*, which injects faults there. The
nemesis, the clients, the watcher and the judges know nothing else of either.
"""

from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from outlast.drill.api import Node
from outlast.drill.injected import Injected
from outlast.drill.report import InvariantReport
from outlast.kernel import TaskHandle

CLIENTS = "clients"
"""Where clients that are not pinned to a node stand."""
POLL = 0.05
"""Seconds between two looks at whether a node serves."""
RESTART_SECONDS = 0.3
"""After so long a node that ended by itself is started again."""
RESTARTS_MAX = 20
"""So often; then it stays as it is."""


class LabNode(Protocol):
    """One node of a lab."""

    @property
    def name(self) -> str:
        """Such as ``n1``."""
        ...

    @property
    def starts(self) -> int:
        """How often it was started."""
        ...

    @property
    def running(self) -> bool:
        """Whether its process is there, paused or not."""
        ...

    @property
    def paused(self) -> bool:
        """Whether it is stopped by the drill."""
        ...


class Lab(Protocol):
    """The nodes of one target, and the links between them and their clients."""

    @property
    def nodes(self) -> Mapping[str, LabNode]:
        """By name, in order."""
        ...

    @property
    def target_name(self) -> str:
        """What the report calls the target."""
        ...

    @property
    def start_seconds(self) -> float:
        """How long a start may take."""
        ...

    @property
    def exits(self) -> Sequence[str]:
        """Nodes that ended by themselves, with their last words."""
        ...

    @property
    def around(self) -> Sequence[str]:
        """Connections that no fault of a link could touch."""
        ...

    @property
    def nodes_talk(self) -> bool:
        """Whether any node has ever dialled another."""
        ...

    async def start(self) -> None:
        """Start all nodes and wait until they serve.

        Raises:
            ConfigError: Definite. One did not start; its own last words are in the message.
        """
        ...

    async def ready(self, within: float) -> None:
        """Wait until every node serves.

        Raises:
            ConfigError: Definite. One does not within so many seconds.
        """
        ...

    async def stop(self) -> None:
        """End every node at once."""
        ...

    def client_node(self, name: str, *, pinned: bool) -> Node:
        """Return ``name`` as a client sees it."""
        ...

    def bytes_to_pinned(self, name: str) -> int:
        """Return how many bytes ``name`` has sent to the clients that are pinned to it."""
        ...

    async def statuses(self) -> dict[str, Mapping[str, Any] | None]:
        """Ask every node that runs what it is."""
        ...

    async def look_for_listeners(self) -> None:
        """Find out on which other ports nodes listen."""
        ...

    def look_around(self) -> None:
        """Note connections that no fault of a link could touch."""
        ...

    async def verify(self) -> Sequence[InvariantReport]:
        """Check what must hold of all nodes together, when everything was healed."""
        ...

    def spawn_client(
        self, coroutine: Coroutine[Any, Any, Any], *, name: str, pinned: str = ""
    ) -> TaskHandle:
        """Run a client's coroutine where clients run, or those pinned to a node."""
        ...


class Breaker(Protocol):
    """Injects faults into a lab."""

    async def inject(self, one: Injected, began_ns: int) -> None:
        """Inject a fault; what heals it is pushed onto its ``heals``.

        Args:
            one: The fault: what, on whom. Its evidence is filled in, at the latest by healing.
            began_ns: When the load began, on the monotonic clock.
        """
        ...


class Ground(Protocol):
    """Where a drill takes place."""

    async def open(self, stack: AsyncExitStack) -> tuple[Lab, Breaker]:
        """Prepare a lab, not started yet; ``stack`` takes away whatever was made for it.

        Raises:
            ConfigError: Definite. Something asked for is not possible here.
        """
        ...

    def begin(self) -> None:
        """The load is about to begin."""
        ...

    def ended(self) -> None:
        """The load has ended."""
        ...
