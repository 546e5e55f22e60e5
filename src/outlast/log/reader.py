"""Readers of a log, and the waiting that they share: woken by a commit, never polling.

An engine keeps one :class:`Waiters`, wakes it when its committed index moves, ends or fails,
and hands out :class:`LogReader` objects from ``read``.
"""

import asyncio
from typing import Protocol, Self

from outlast.kernel import Deadline, DeadlineError, LogFailedError, LogIndex, TrimmedError, World
from outlast.log.api import Batch


class Waiters:
    """Tasks that wait for the same thing. One event loop; not thread-safe."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: dict[asyncio.Future[None], None] = {}

    def __len__(self) -> int:
        return len(self._futures)

    async def wait(self) -> None:
        """Wait for the next :meth:`wake`. Cancelling leaves nothing behind."""
        future = asyncio.get_running_loop().create_future()
        self._futures[future] = None
        try:
            await future
        finally:
            self._futures.pop(future, None)

    def wake(self) -> None:
        """Let everybody who waits now go on."""
        if not self._futures:
            return
        futures, self._futures = self._futures, {}
        for future in futures:
            if not future.done():
                future.set_result(None)


class Readable(Protocol):
    """What a reader needs of an engine."""

    @property
    def first(self) -> LogIndex:
        """First index that is still readable."""
        ...

    @property
    def through(self) -> LogIndex:
        """Last index that readers may see: committed, and known to be so here."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing will ever follow :attr:`through`, because the log is sealed."""
        ...

    @property
    def stopped(self) -> Exception | None:
        """Why nothing more will come from this object: closed, or its storage failed."""
        ...

    @property
    def progress(self) -> Waiters:
        """Woken when any of the above changes."""
        ...

    def batch(self, start: LogIndex) -> Batch:
        """Return committed entries from ``start``, which is readable; never waits."""
        ...


class LogReader:
    """Yields the batches of a log from one position on; what ``Log.read`` returns.

    Cancelling a pull loses nothing: the next pull goes on where the last batch ended. (An
    async generator would be finished by the first cancelled pull, and look like a sealed log.)
    """

    __slots__ = ("_log", "position")

    def __init__(self, log: Readable, start: LogIndex) -> None:
        self._log = log
        self.position = start

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """Return the next batch; waits at the tail.

        Raises:
            StopAsyncIteration: The log is sealed, and its last entry was returned.
            TrimmedError: Definite. The position is below ``first``.
            CorruptionError: The entries are damaged on this replica.
            LogFailedError: The log was closed or its storage failed; nothing more will come.
        """
        log = self._log
        while True:
            first = log.first
            if self.position < first:
                message = f"entry {self.position} is trimmed; the first readable is {first}"
                raise TrimmedError(message, first=first)
            if self.position <= log.through:
                batch = log.batch(self.position)
                self.position = LogIndex(batch.through + 1)
                return batch
            if log.ended:
                raise StopAsyncIteration
            if log.stopped is not None:
                raise LogFailedError(str(log.stopped)) from log.stopped
            await log.progress.wait()

    async def aclose(self) -> None:
        """Do nothing: a reader holds no resources. Here for callers that close generators."""


async def within(world: World, future: asyncio.Future[LogIndex], deadline: Deadline) -> LogIndex:
    """Wait for ``future``, but at ``deadline`` end it as an indefinite error."""

    def expire() -> None:
        if not future.done():
            message = "the deadline passed while the append was under way"
            future.set_exception(DeadlineError(message))

    timer = world.timers.call_at(deadline.at_ns, expire)
    try:
        return await future
    finally:
        timer.cancel()
