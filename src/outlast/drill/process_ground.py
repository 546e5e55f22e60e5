"""A drill on real processes: a journal, directories, small disks where a fault needs them."""

import asyncio
import gc
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from outlast.drill.breaking import ProcessBreaker
from outlast.drill.process_lab import ProcessLab
from outlast.drill.target import make_target
from outlast.drill.volumes import make_volumes
from outlast.inject import Journal, heal
from outlast.kernel import Fault, Prng, World


@dataclass(slots=True)
class ProcessGround:
    """Opens labs of real processes on this machine.

    Args:
        world: The real world.
        nodes: What runs.
        faults: What will be injected.
        seed: Of the proxies' draws.
        home: Where the processes run: the directory of the drill's file.
    """

    world: World
    nodes: Any
    faults: Sequence[Fault]
    seed: int
    home: str

    async def open(self, stack: AsyncExitStack) -> tuple[ProcessLab, ProcessBreaker]:
        """Heal what an earlier drill has left, and prepare a lab.

        Raises:
            ConfigError: Definite. This machine does not permit a fault, or a directory.
        """
        await asyncio.to_thread(heal, self.world)
        journal = Journal.open(self.world)
        stack.push_async_callback(asyncio.to_thread, journal.close)
        stack.push_async_callback(asyncio.to_thread, journal.undo)
        folder = journal.make_directory()
        target = make_target(self.world, self.nodes, folder, self.home)
        volumes, prefix = await make_volumes(
            self.world, stack, journal, target, self.faults, home=self.home
        )
        lab = ProcessLab(
            self.world,
            target,
            folder,
            self.home,
            Prng(self.seed),
            environment=journal.environment,
            prefix=prefix,
        )
        stack.push_async_callback(lab.stop)
        return lab, ProcessBreaker(self.world, lab, journal, volumes)

    def begin(self) -> None:
        """Collect now: a full collection would stop clients and proxies together."""
        gc.collect()
        gc.freeze()

    def ended(self) -> None:
        """Let collections see everything again."""
        gc.unfreeze()
