"""A log that passes everything on, for broken engines to change one thing of."""

from collections.abc import AsyncIterator
from typing import Any

from outlast.kernel import Deadline, LogIndex, World
from outlast.log.api import Batch, Hold, Log, LogTraits


class WrappedLog:
    """A :class:`outlast.log.Log` in front of ``inner``.

    Args:
        inner: The log that does the work.
        world: Its world.
        notes: Kept by the fixture across reopening and crashes.
        opened: How many times the log was opened before; 0 for a new one.
    """

    def __init__(self, inner: Log, world: World, notes: dict[str, Any], opened: int = 0) -> None:
        self.inner = inner
        self.world = world
        self.notes = notes
        self.opened = opened

    @property
    def traits(self) -> LogTraits:
        """As ``inner``."""
        return self.inner.traits

    @property
    def first(self) -> LogIndex:
        """As ``inner``."""
        return self.inner.first

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """As ``inner``."""
        return await self.inner.append(entry, deadline=deadline)

    async def tail(self, *, deadline: Deadline) -> LogIndex:
        """As ``inner``."""
        return await self.inner.tail(deadline=deadline)

    def read(self, start: LogIndex) -> AsyncIterator[Batch]:
        """Pass the batches of ``inner`` through :meth:`change`."""
        return ChangedReader(self, self.inner.read(start))

    def change(self, batch: Batch) -> Batch:
        """Return ``batch`` as a reader shall see it."""
        return batch

    async def trim(self, before: LogIndex) -> LogIndex:
        """As ``inner``."""
        return await self.inner.trim(before)

    def hold(self, hold: Hold) -> None:
        """As ``inner``."""
        self.inner.hold(hold)

    def release(self, name: str) -> None:
        """As ``inner``."""
        self.inner.release(name)

    async def seal(self, next: bytes, *, deadline: Deadline) -> tuple[LogIndex, bytes]:
        """As ``inner``."""
        return await self.inner.seal(next, deadline=deadline)

    async def close(self) -> None:
        """As ``inner``."""
        await self.inner.close()


class ChangedReader:
    """A reader whose batches are changed on the way."""

    def __init__(self, log: WrappedLog, inner: AsyncIterator[Batch]) -> None:
        self._log = log
        self._inner = inner

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        return self._log.change(await anext(self._inner))
