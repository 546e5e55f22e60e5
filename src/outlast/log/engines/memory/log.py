"""Engine ``memory``: all promises of the log except surviving the process."""

import asyncio
from dataclasses import dataclass, field

from outlast.kernel import ConfigError, DiskFullError, World
from outlast.log.api import FailureModel, LogTraits
from outlast.log.core.entry import SEAL
from outlast.log.local import LocalLog
from outlast.log.medium import QueueLimits

_GONE = (0, b"")


@dataclass(frozen=True, slots=True)
class MemoryLogSettings:
    """Limits of a :class:`MemoryLog`.

    Args:
        entry_bytes_max: Largest entry; 1 MiB by default.
        bytes_max: All entries together; 1 GiB by default. Above it appends are refused with
            ``DiskFullError`` until something is trimmed.
        queue: Limits of the queue in front.
    """

    entry_bytes_max: int = 1024 * 1024
    bytes_max: int = 1024 * 1024 * 1024
    queue: QueueLimits = field(default_factory=QueueLimits)

    def __post_init__(self) -> None:
        if not 1 <= self.entry_bytes_max <= self.bytes_max:
            message = (
                f"entry_bytes_max is {self.entry_bytes_max}; "
                f"it must be from 1 to bytes_max, which is {self.bytes_max}"
            )
            raise ConfigError(message)


class _Memory:
    """Entries in a list whose trimmed head is cut off now and then, so that indexing is direct."""

    def __init__(self, bytes_max: int) -> None:
        self.base = 0
        self._kept: list[tuple[int, bytes]] = []
        self._cut = 0
        """Index before the first element of the list; at most :attr:`base`."""
        self._bytes = 0
        self.bytes_max = bytes_max

    @property
    def last(self) -> int:
        return self._cut + len(self._kept)

    def write(self, first: int, payloads: list[bytes], kind: bytes) -> asyncio.Future[None]:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        size = sum(map(len, payloads))
        if self._bytes + size > self.bytes_max and kind[0] != SEAL:
            message = f"{self._bytes} of {self.bytes_max} bytes are used; trim, or raise bytes_max"
            written.set_exception(DiskFullError(message))
        elif first != self.last + 1:
            # Behind a refused run: refused too, so that its indices can be given again.
            message = "refused with the entries before it"
            written.set_exception(DiskFullError(message))
        else:
            self._kept.extend((kind[0], payload) for payload in payloads)
            self._bytes += size
            written.set_result(None)
        return written

    def read(self, first: int, last: int, bytes_max: int) -> list[tuple[int, int, int, bytes]]:
        found: list[tuple[int, int, int, bytes]] = []
        size = 0
        for index in range(first, last + 1):
            kind, payload = self._kept[index - self._cut - 1]
            size += len(payload)
            if found and size > bytes_max:
                break
            found.append((index, 1, kind, payload))
        return found

    def trim(self, before: int) -> int:
        for index in range(self.base + 1, min(before, self.last + 1)):
            place = index - self._cut - 1
            self._bytes -= len(self._kept[place][1])
            self._kept[place] = _GONE
            self.base = index
        if 2 * (self.base - self._cut) > len(self._kept):
            del self._kept[: self.base - self._cut]
            self._cut = self.base
        return self.base + 1

    async def close(self) -> None:
        return


class MemoryLog(LocalLog):
    """A log that lives and dies with this object: for tests and embedded use without a path."""

    def __init__(self, world: World, *, settings: MemoryLogSettings | None = None) -> None:
        settings = settings or MemoryLogSettings()
        traits = LogTraits(
            engine="memory",
            failure_model=FailureModel.FAIL_STOP,
            durable=False,
            shared=False,
            entry_bytes_max=settings.entry_bytes_max,
        )
        self._memory = _Memory(settings.bytes_max)
        super().__init__(world, self._memory, traits, settings.queue)

    def limit(self, bytes_max: int) -> None:
        """Change ``bytes_max`` from now on; what is above it already stays."""
        self._memory.bytes_max = bytes_max
