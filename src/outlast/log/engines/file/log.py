"""Engine ``file``: the log of one process, durable in a directory.

Frames, group commit, segments and recovery are ``outlast.log.wal``'s; the queue, readers,
seal and trim are :class:`outlast.log.local.LocalLog`'s. What remains is to join the two.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from outlast.kernel import ConfigError, DiskFullError, LogFailedError, World
from outlast.log.api import FailureModel, LogTraits
from outlast.log.core.entry import NORMAL
from outlast.log.core.hold import Sizes
from outlast.log.local import LocalLog
from outlast.log.medium import QueueLimits
from outlast.log.wal import Run, RunKind, Wal, WalIdentity, WalSettings
from outlast.log.wal.core.segment import parse_segment_name

_TERM = 1
_OVERHEAD_BYTES = 64 * 1024
"""More than any frame and run need around one entry."""


@dataclass(frozen=True, slots=True)
class FileLogSettings:
    """Limits of a :class:`FileLog`.

    Args:
        entry_bytes_max: Largest entry; 1 MiB by default. A segment must hold it.
        wal: Sizes of segments, frames and caches.
        queue: Limits of the queue in front.
    """

    entry_bytes_max: int = 1024 * 1024
    wal: WalSettings = field(default_factory=WalSettings)
    queue: QueueLimits = field(default_factory=QueueLimits)

    def __post_init__(self) -> None:
        room = self.wal.segment_bytes - self.wal.hard_state_reserve_bytes - _OVERHEAD_BYTES
        if not 1 <= self.entry_bytes_max <= room:
            message = (
                f"entry_bytes_max is {self.entry_bytes_max}; it must be from 1 to {room}, what "
                f"a segment of {self.wal.segment_bytes} bytes (wal.segment_bytes) has room for"
            )
            raise ConfigError(message)


class _Disk:
    """The :class:`outlast.log.medium.Medium` on a :class:`Wal`."""

    def __init__(self, wal: Wal) -> None:
        self.wal = wal

    @property
    def base(self) -> int:
        return self.wal.base[0]

    @property
    def last(self) -> int:
        return self.wal.last[0]

    def write(self, first: int, payloads: list[bytes], kind: bytes) -> asyncio.Future[None]:
        wal = self.wal
        if first != wal.last[0] + 1:
            # An earlier run was refused since this one got its indices.
            return _failed(DiskFullError("refused with the entries before it"))
        kinds = b"" if kind[0] == NORMAL else kind * len(payloads)
        try:
            return wal.append([Run(RunKind.ENTRIES, first, _TERM, payloads, kinds)])
        except Exception as error:
            return _failed(error)

    def read(self, first: int, last: int, bytes_max: int) -> list[tuple[int, int, int, bytes]]:
        return self.wal.entries(first, last, bytes_max)

    def trim(self, before: int) -> int:
        return self.wal.trim(before)

    async def close(self) -> None:
        await self.wal.close()


def _failed(error: Exception) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


def _stored_bytes(world: World, directory: str) -> int:
    """Return the bytes of all segments but the newest, which an open has just begun."""
    storage = world.storage
    names = [name for name in storage.listdir(directory) if parse_segment_name(name) is not None]
    total = 0
    for name in names[:-1]:
        with contextlib.suppress(FileNotFoundError):  # a trim may be removing it
            file = storage.open(f"{directory}/{name}", write=False)
            total += file.size()
            file.close()
    return total


class FileLog(LocalLog):
    """A durable log in a directory: survives a crash and a power cut of its machine.

    One process at a time has it open. A failed write or fsync fails the log for good
    (``LogFailedError`` for what was pending, refusals afterwards): open it again to go on. A
    full disk refuses appends (``DiskFullError``) and takes them again when space returns.
    """

    def __init__(
        self, world: World, wal: Wal, settings: FileLogSettings, *, old_bytes: int = 0
    ) -> None:
        traits = LogTraits(
            engine="file",
            failure_model=FailureModel.FAIL_RECOVERY,
            durable=settings.wal.fsync,
            shared=False,
            entry_bytes_max=settings.entry_bytes_max,
        )
        self.wal = wal
        super().__init__(world, _Disk(wal), traits, settings.queue)
        self._sizes = Sizes(wal.base[0])
        self._sizes.add(wal.last[0], old_bytes)

    @classmethod
    async def open(
        cls,
        world: World,
        directory: str,
        *,
        identity: WalIdentity | None = None,
        settings: FileLogSettings | None = None,
    ) -> Self:
        """Open the log in ``directory``, or make a new one if there is nothing.

        Args:
            world: Where it runs.
            directory: Its own directory; parents are made.
            identity: Whose log it is, compared with what the directory says.
            settings: Limits.

        Raises:
            DataError: Definite. Another's log, a newer format, or open in another process.
            CorruptionError: Acknowledged entries are damaged; names file and offset.
        """
        settings = settings or FileLogSettings()
        identity = identity or WalIdentity("", "file", "")
        wal = await Wal.open(world, directory, identity, settings.wal)
        try:
            measure = partial(_stored_bytes, world, directory)
            old_bytes = await world.offload.run(f"size-{directory}", measure)
            return cls(world, wal, settings, old_bytes=old_bytes)
        except BaseException:
            await wal.close()
            raise

    @property
    def failed(self) -> LogFailedError | None:
        """Why the log has failed for good, or ``None``."""
        error = self.wal.failed
        return None if error is None else LogFailedError(str(error))
