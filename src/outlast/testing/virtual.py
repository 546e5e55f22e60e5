"""``virtual_time``: blocking code whose waiting costs nothing."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NoReturn

from outlast.kernel import ConfigError, World, current_deadline, reset_world, use_world
from outlast.kernel.registry import fresh_world, world_ended
from outlast.sim.ambient import ambient
from outlast.sim.loop import SimLoop
from outlast.sim.simulation import TEST
from outlast.sim.world import make_world

_NS = 1_000_000_000


class VirtualTime:
    """The time of a block of blocking code. Made by :func:`virtual_time`.

    Attributes:
        world: What ``outlast`` objects find there: clock, random numbers, a disk in memory.
    """

    def __init__(self, seed: int) -> None:
        self._loop = SimLoop(seed)
        sim = self._sim = self._loop.sim
        self.world: World = make_world(sim, sim.hosts[TEST])

    @property
    def now(self) -> float:
        """Virtual seconds since the block began."""
        return self._sim.moment_ns / _NS

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, as ``time.sleep`` does.

        Raises:
            ConfigError: Definite. Time does not go back.
        """
        if seconds < 0:
            message = f"advance({seconds:g}): time does not go back; 0 or more would be right"
            raise ConfigError(message)
        self._sim.spend(round(seconds * _NS))

    def jump(self, seconds: float) -> None:
        """Let the wall clock (``time.time``, ``datetime.now``) jump; the monotonic one does not.

        Args:
            seconds: How far; below 0 for a jump back.
        """
        self._sim.hosts[TEST].clock.jump(round(seconds * _NS))

    @contextmanager
    def running(self) -> Iterator["VirtualTime"]:
        """Enter the block; see :func:`virtual_time`."""
        fresh_world(after_another=True)
        token = use_world(self.world)
        outside = current_deadline.set(None)  # of the real clock: it would mean nothing here
        before = asyncio.events.new_event_loop
        asyncio.events.new_event_loop = _refuse
        try:
            with ambient(self._loop.source, self._sim.escaped):
                yield self
        finally:
            asyncio.events.new_event_loop = before
            current_deadline.reset(outside)
            reset_world(token)
            world_ended()
            self.close()

    def close(self) -> None:
        """Forget the world; nothing happens if that was done."""
        self._loop.close()


def _refuse() -> NoReturn:
    message = (
        "virtual_time() is for blocking code; run coroutines with outlast.sim.run(main)"
        " or under @sim.test"
    )
    raise ConfigError(message)


def virtual_time(*, seed: int = 0) -> AbstractContextManager["VirtualTime"]:
    """Let blocking code run in virtual time: ``time.sleep(3600)`` returns at once.

    Inside the block, in its thread, ``time``, ``datetime.now``, ``random``, ``uuid4`` and the
    like are simulated, ``outlast`` objects read the clock of that world, and real sockets,
    processes and threads are refused. For coroutines there is :func:`outlast.sim.run`.

    What an earlier block or run has left in policies and their parts is forgotten: they begin as
    newly made. What was done to them by hand before the first one stays.

    Args:
        seed: From which random numbers are drawn.

    Raises:
        EscapeError: Definite. The block asks for what cannot be simulated.

    >>> import time
    >>> with virtual_time() as clock:
    ...     begun = time.monotonic()
    ...     time.sleep(3600)
    ...     round(time.monotonic() - begun), round(clock.now)
    (3600, 3600)
    """
    return VirtualTime(seed).running()
