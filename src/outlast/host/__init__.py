"""The real World: this machine's clocks, loop, threads, sockets and disks."""

import os

from outlast.host.clock import HostClock, HostOffload, HostSpawn, HostTimers
from outlast.host.loop import new_event_loop
from outlast.host.lossy import LossyFile, LossyStorage
from outlast.host.network import HostListener, HostNetwork
from outlast.host.storage import HostFile, HostStorage
from outlast.kernel import (
    EventBus,
    Events,
    NoFaults,
    Prng,
    Storage,
    World,
    set_default_world,
)


def make_world(
    *, storage: Storage | None = None, events: Events | None = None, seed: int | None = None
) -> World:
    """Return a world on the real machine.

    Args:
        storage: Where files live; the machine's own by default.
        events: Where events go; a new bus by default.
        seed: For the world's random source; drawn from the system by default.
    """
    return World(
        clock=HostClock(),
        timers=HostTimers(),
        prng=Prng(int.from_bytes(os.urandom(8), "little") if seed is None else seed),
        network=HostNetwork(),
        storage=storage or HostStorage(),
        spawn=HostSpawn(),
        offload=HostOffload(),
        events=events or EventBus(),
        faults=NoFaults(),
    )


_made: list[World] = []


def default_world() -> World:
    """Return the process's world, made on first use."""
    if not _made:
        _made.append(make_world())
    return _made[0]


set_default_world(default_world)
if hasattr(os, "register_at_fork"):
    # A child has none of the threads of its parent's world, and must not draw the same ids.
    os.register_at_fork(after_in_child=_made.clear)

__all__ = [
    "HostClock",
    "HostFile",
    "HostListener",
    "HostNetwork",
    "HostOffload",
    "HostSpawn",
    "HostStorage",
    "HostTimers",
    "LossyFile",
    "LossyStorage",
    "default_world",
    "make_world",
    "new_event_loop",
]
