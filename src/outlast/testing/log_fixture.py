"""Fixtures of the log suite for the engines that need no other process."""

import contextlib
import shutil
import tempfile

from outlast.host import HostStorage, make_world
from outlast.host.lossy import LossyStorage
from outlast.kernel import Prng, World
from outlast.log.api import Log
from outlast.log.engines.file import FileLog, FileLogSettings
from outlast.log.engines.memory import MemoryLog, MemoryLogSettings
from outlast.log.medium import QueueLimits
from outlast.log.wal import WalSettings
from outlast.testing.disk import FaultyDisk
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


SMALL = FileLogSettings(
    entry_bytes_max=96 * 1024,
    wal=WalSettings(
        segment_bytes=256 * 1024,
        first_segment_bytes=256 * 1024,
        hard_state_reserve_bytes=16 * 1024,
        frame_bytes_max=128 * 1024,
        cache_bytes_max=64 * 1024,
        full_retry=0.02,
    ),
    queue=QueueLimits(queue_bytes_max=2 * 1024 * 1024, run_bytes_max=64 * 1024),
)
"""Small segments and caches, so that short checks cross their borders."""


class FileFixture(LogFixture):
    """Engine ``file`` in a temporary directory, on a disk that can be made to fail.

    A crash is a power cut: what was not fsynced is lost, and the last write may be torn.

    Args:
        settings: Limits of the log.
        seed: Decides what a power cut tears.
        sync_is_noop: Plants the bug that no fsync reaches the disk.
    """

    capabilities = frozenset(Capability)
    trim_bytes = 600 * 1024

    def __init__(
        self, settings: FileLogSettings = SMALL, *, seed: int = 1, sync_is_noop: bool = False
    ) -> None:
        self._prng = Prng(seed)
        self._lossy = LossyStorage(HostStorage(), self._prng.fork(), sync_is_noop=sync_is_noop)
        self.disk = FaultyDisk(self._lossy)
        super().__init__(make_world(storage=self.disk))
        self.settings = settings
        self.directory = tempfile.mkdtemp(prefix="outlast-log-")
        self._log: FileLog | None = None

    async def _open(self) -> Log:
        self._log = await FileLog.open(self.world, f"{self.directory}/log", settings=self.settings)
        return self._log

    async def make(self) -> Log:
        """Open a log where nothing is."""
        return await self._open()

    async def reopen(self, log: Log) -> Log:
        """Close and open."""
        await log.close()
        return await self._open()

    async def crash(self, log: Log) -> Log:
        """Cut the power under the old log's feet, and open again."""
        await self._end()
        self._lossy.power_cut(self._prng)
        return await self._open()

    async def _end(self) -> None:
        self.disk.cut()
        self.disk.sync_fails = self.disk.full = False
        if self._log is not None:
            with contextlib.suppress(OSError):
                await self._log.close()

    async def stall(self) -> None:
        """Hold every flush."""
        self.disk.stall()

    async def resume(self) -> None:
        """Let flushes go on."""
        self.disk.resume()

    async def fill(self) -> None:
        """Let no file grow."""
        self.disk.full = True

    async def free(self) -> None:
        """Let files grow."""
        self.disk.full = False

    async def fail_sync(self) -> None:
        """Fail every flush."""
        self.disk.sync_fails = True

    async def close(self) -> None:
        """End the log and remove the directory."""
        await self._end()
        shutil.rmtree(self.directory, ignore_errors=True)
