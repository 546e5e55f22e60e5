"""Fixtures of the log suite for the engines that need no other process."""

from outlast.host import make_world
from outlast.kernel import World
from outlast.log.api import Log
from outlast.log.engines.memory import MemoryLog, MemoryLogSettings
from outlast.testing.log_suite import Capability, LogFixture


class MemoryFixture(LogFixture):
    """Engine ``memory``: its disk is a number, and nothing survives the process."""

    capabilities = frozenset({Capability.FULL})

    def __init__(self, world: World | None = None) -> None:
        super().__init__(world or make_world())
        self._log: MemoryLog | None = None

    async def make(self) -> Log:
        """Return a new log of 64 MiB."""
        settings = MemoryLogSettings(bytes_max=64 * 1024 * 1024)
        self._log = MemoryLog(self.world, settings=settings)
        return self._log

    async def fill(self) -> None:
        """Take all but a little of the room away."""
        if self._log is not None:
            self._log.limit(1024 * 1024)

    async def free(self) -> None:
        """Give the room back."""
        if self._log is not None:
            self._log.limit(64 * 1024 * 1024)

    async def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            await self._log.close()
