"""Small disks for the nodes, where a drill fills them."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from outlast.drill.target import Target
from outlast.kernel import Fault, World

if TYPE_CHECKING:
    from outlast.inject import Journal, Volume

VOLUME_BYTES = 256 << 20
"""Size of each node's disk in a drill that fills disks."""


async def make_volumes(
    world: World,
    stack: AsyncExitStack,
    journal: "Journal",
    target: Target,
    faults: Sequence[Fault],
    *,
    home: str,
) -> "tuple[dict[str, Volume], Callable[[str], Sequence[str]]]":
    """Give each node a disk of its own if a fault needs it; nodes run in ``home``.

    Returns:
        The disks by node, and what a node's command line is started under.

    Raises:
        ConfigError: Definite. This machine does not permit it; the message says why.
    """
    if all(fault.kind != "disk" for fault in faults):
        return {}, lambda _: ()
    from outlast.inject import Volume

    volumes: dict[str, Volume] = {}
    for node in target.ports:
        directory = target.directory(node)
        volume = await Volume.create(world, directory, size_bytes=VOLUME_BYTES, journal=journal)
        volumes[node] = volume
        stack.push_async_callback(volume.close)
        await world.offload.run("volumes", partial(_move_in, directory, volume))
    return volumes, lambda node: volumes[node].prefix_in(os.path.abspath(home))


def _move_in(directory: str, volume: "Volume") -> None:
    """Copy what the node's directory holds into the disk that is mounted over it."""
    shutil.copytree(directory, volume.inside(), dirs_exist_ok=True)
