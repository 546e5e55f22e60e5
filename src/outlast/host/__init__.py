"""The real World: this machine's clocks, loop, threads, sockets and disks."""

import os
import threading

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
    forget_default_world,
    set_default_world,
)


class HostPrng(Prng):
    """A random source that threads may share: two of them never get the same number."""

    __slots__ = ("_lock",)

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._lock = threading.Lock()

    def bits64(self) -> int:
        """Return 64 random bits as a non-negative integer."""
        with self._lock:
            return super().bits64()


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
        prng=HostPrng(int.from_bytes(os.urandom(8), "little") if seed is None else seed),
        network=HostNetwork(),
        storage=storage or HostStorage(),
        spawn=HostSpawn(),
        offload=HostOffload(),
        events=events or EventBus(),
        faults=NoFaults(),
    )


_made: list[World] = []
_bus = EventBus()
"""Of the process's world. A child keeps it: who listens was said before a server forked."""


def default_world() -> World:
    """Return the process's world, made on first use."""
    if not _made:
        _made.append(make_world(events=_bus))
    return _made[0]


def _forget() -> None:
    _made.clear()
    forget_default_world()


set_default_world(default_world)
if hasattr(os, "register_at_fork"):
    # A child has none of the threads of its parent's world, and must not draw the same ids.
    os.register_at_fork(after_in_child=_forget)

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
