"""A drill in the simulator: the same nemesis, clients and judges, on simulated hosts."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from outlast.drill.api import Nodes
from outlast.drill.sim_breaking import SimBreaker
from outlast.drill.sim_lab import SimLab
from outlast.drill.sim_nodes import SimCluster, SimProgram, SimTarget
from outlast.drill.target import OwnNodes
from outlast.kernel import World
from outlast.sim import Lab


@dataclass(slots=True)
class SimGround:
    """Opens simulated labs.

    Args:
        lab: Of the simulation.
        world: Of the simulation's own host.
        nodes: What runs.
        home: Where command lines are meant: the directory of the drill's file.
    """

    lab: Lab
    world: World
    nodes: Any
    home: str = "."

    async def open(self, stack: AsyncExitStack) -> tuple[SimLab, SimBreaker]:
        """Prepare a lab.

        Raises:
            ConfigError: Definite. What runs cannot be simulated.
        """
        given: Nodes | OwnNodes = self.nodes
        target: SimTarget = (
            SimCluster(given) if isinstance(given, OwnNodes) else SimProgram(given, self.home)
        )
        names = [f"n{number}" for number in range(1, given.count + 1)]
        lab = SimLab(self.lab, self.world, target, names)
        stack.push_async_callback(lab.stop)
        return lab, SimBreaker(lab)

    def begin(self) -> None:
        """Nothing to do: garbage is collected at moments of virtual time."""

    def ended(self) -> None:
        """Nothing to do."""
