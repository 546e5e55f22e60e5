"""The log on one machine: queue, commit, readers, seal and trim, whatever holds the bytes.

Engines ``memory`` and ``file`` are this class over two *media*. All appends of one turn of the
event loop go to the medium as one run; a medium on disk packs all runs that queued during the
last fsync into one frame (group commit), so the cost of durability is shared by every caller.

States: open → sealed, and from either → failed or closed, for good.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial

from outlast.kernel import (
    Deadline,
    DeadlineError,
    DefiniteError,
    DiskFullError,
    LogFailedError,
    LogIndex,
    OverloadedError,
    RejectedError,
    SealedError,
    TooLateError,
    UnavailableError,
    World,
    invariant,
)
from outlast.log.api import Batch, Hold, LogTraits
from outlast.log.core.entry import NORMAL_KIND, SEAL, SEAL_KIND, check_size
from outlast.log.core.hold import Holds, Sizes
from outlast.log.medium import Medium, QueueLimits
from outlast.log.reader import LogReader, Waiters, within

_FOREVER = Deadline.never().at_ns


@dataclass(slots=True)
class _Group:
    """Consecutive entries under way to the medium, with who waits for each."""

    first: int
    futures: list[asyncio.Future[LogIndex]]
    size_bytes: int
    seal: bytes | None = None


class LocalLog:
    """A :class:`outlast.log.Log` in one process. Driven from one event loop; not thread-safe.

    Cancelling an append, like its deadline, leaves the entry under way: it may be committed.
    """

    def __init__(
        self, world: World, medium: Medium, traits: LogTraits, limits: QueueLimits
    ) -> None:
        self._world = world
        self._medium = medium
        self._traits = traits
        self._entry_max = traits.entry_bytes_max
        self._limits = limits
        self._queue_max = limits.queue_bytes_max
        self._next = medium.last + 1
        self._through = LogIndex(medium.last)
        self._sealed: tuple[LogIndex, bytes] | None = None
        self._sealing = False
        self._draining = False
        """Whether a run was refused and later ones, already handed over, must end first."""
        self._closed = False
        self._stopped: Exception | None = None
        self._shut = False
        """Whether appends must look closer: sealed, being sealed, or stopped."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entries: list[bytes] = []
        self._futures: list[asyncio.Future[LogIndex]] = []
        self._queued_bytes = 0
        self._groups: deque[_Group] = deque()
        self._holds = Holds()
        self._sizes = Sizes(medium.last)
        self._progress = Waiters()
        self._seal_settled = Waiters()
        self._find_seal()

    def __repr__(self) -> str:
        state = "sealed" if self._sealed else "open"
        if self._stopped is not None:
            state = str(self._stopped)
        name = type(self).__name__
        return f"<{name} {self.first}..{self._through} {state}, {self._queued_bytes} B queued>"

    def _find_seal(self) -> None:
        """A seal is always the last entry: after it nothing is taken."""
        last = self._medium.last
        if last <= self._medium.base:
            return
        (_, _, kind, payload), *_ = self._medium.read(last, last, 1)
        if kind == SEAL:
            self._through = LogIndex(last - 1)
            self._sealed = (LogIndex(last), payload)
            self._shut = True

    # --- what a reader sees ------------------------------------------------------------------

    @property
    def traits(self) -> LogTraits:
        """What this engine is."""
        return self._traits

    @property
    def first(self) -> LogIndex:
        """First index that is still readable; the next index if there is none."""
        return LogIndex(self._medium.base + 1)

    @property
    def through(self) -> LogIndex:
        """Last committed index."""
        return self._through

    @property
    def ended(self) -> bool:
        """Whether the log is sealed."""
        return self._sealed is not None

    @property
    def stopped(self) -> Exception | None:
        """Why this object takes and gives nothing more, or ``None``."""
        return self._stopped

    @property
    def progress(self) -> Waiters:
        """Woken when something was committed, and at the end."""
        return self._progress

    def batch(self, start: LogIndex) -> Batch:
        """Return committed entries from ``start`` on, up to ``batch_bytes_max``."""
        found = self._medium.read(start, self._through, self._limits.batch_bytes_max)
        invariant(found and found[0][0] == start, f"entry {start} is committed but not kept")
        return Batch(start, [row[3] for row in found], LogIndex(found[-1][0]))

    def read(self, start: LogIndex) -> LogReader:
        """Yield committed entries from ``start`` on; see :meth:`outlast.log.Log.read`."""
        return LogReader(self, start)

    async def tail(self, *, deadline: Deadline) -> LogIndex:
        """Return the index after the last committed entry. Answered at once.

        Raises:
            UnavailableError: Definite. The log is closed or its storage failed.
            DeadlineError: The deadline had passed.
        """
        if self._stopped is not None:
            raise UnavailableError(str(self._stopped))
        if deadline.passed(self._world.clock.monotonic_ns()):
            message = "the deadline had passed before the tail was asked for"
            raise DeadlineError(message)
        return LogIndex(self._through + 1)

    # --- append ------------------------------------------------------------------------------

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Append ``entry`` and return its index once it is committed.

        Errors as in :meth:`outlast.log.Log.append`. Cancelled before it was queued (only
        possible while a seal is being decided), it had no effect; later it is indefinite.
        """
        if type(entry) is not bytes or not 0 < (size := len(entry)) <= self._entry_max:
            check_size(entry, self._entry_max)
        endless = deadline.at_ns >= _FOREVER
        if not endless:
            self._check_time(deadline)
        if self._shut:
            await self._admit(deadline)
        self._queued_bytes = queued = self._queued_bytes + size
        if queued > self._queue_max:
            self._queued_bytes -= size
            raise self._overloaded(queued)
        loop = self._loop or self._find_loop()
        future: asyncio.Future[LogIndex] = loop.create_future()
        entries = self._entries
        if not entries:
            loop.call_soon(self._flush)
        entries.append(entry)
        self._futures.append(future)
        if endless:
            return await future
        return await within(self._world, future, deadline)

    def _find_loop(self) -> asyncio.AbstractEventLoop:
        """Remember the loop that drives this log: the one of the first append."""
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _check_time(self, deadline: Deadline) -> None:
        if deadline.passed(self._world.clock.monotonic_ns()):
            message = "the deadline had passed before the append began"
            raise TooLateError(message)

    def _overloaded(self, queued: int) -> OverloadedError:
        message = (
            f"{queued} bytes of entries would wait for the disk; "
            f"at most {self._queue_max} may (queue_bytes_max)"
        )
        return OverloadedError(message, retry_after=self._limits.retry_after)

    async def _admit(self, deadline: Deadline) -> None:
        """Return if appends are taken; wait while a seal is being decided."""
        while self._sealing and self._stopped is None:
            await self._settled(deadline)
        if self._stopped is not None:
            raise UnavailableError(str(self._stopped))
        if self._sealed is not None:
            tail, next = self._sealed
            message = f"the log is sealed at {tail}"
            raise SealedError(message, next=next)

    async def _settled(self, deadline: Deadline) -> None:
        """Wait until the seal under way is decided; nothing has been queued, so no harm done."""
        if deadline.at_ns >= _FOREVER:
            await self._seal_settled.wait()
            return
        self._check_time(deadline)
        timer = self._world.timers.call_at(deadline.at_ns, self._seal_settled.wake)
        try:
            await self._seal_settled.wait()
        finally:
            timer.cancel()
        if self._sealing:
            self._check_time(deadline)

    def _flush(self) -> None:
        """Hand everything queued to the medium, in runs of bounded size."""
        if self._draining:
            return
        entries, self._entries = self._entries, []
        futures, self._futures = self._futures, []
        if self._stopped is not None:
            self._refuse(futures, sum(map(len, entries)), self._stopped)
            return
        limit = self._limits.run_bytes_max
        size = sum(map(len, entries))
        if size <= limit:
            if entries:
                self._write(entries, futures, size)
            return
        start = size = 0
        for place, entry in enumerate(entries):
            if size + len(entry) > limit and place > start:
                self._write(entries[start:place], futures[start:place], size)
                start, size = place, 0
            size += len(entry)
        self._write(entries[start:], futures[start:], size)

    def _write(
        self,
        entries: list[bytes],
        futures: list[asyncio.Future[LogIndex]],
        size: int,
        seal: bytes | None = None,
    ) -> None:
        first = self._next
        self._next += len(entries)
        group = _Group(first, futures, size, seal)
        self._groups.append(group)
        kind = NORMAL_KIND if seal is None else SEAL_KIND
        written = self._medium.write(first, entries, kind)
        written.add_done_callback(partial(self._written, group))

    def _written(self, group: _Group, written: asyncio.Future[None]) -> None:
        if not self._groups or self._groups[0] is not group:
            return  # stopped meanwhile; everybody was told
        self._groups.popleft()
        error: BaseException | None
        if written.cancelled():
            error = LogFailedError("the write was cancelled")
        else:
            error = written.exception()
        if error is None:
            self._commit(group)
        elif isinstance(error, DefiniteError):
            self._withdraw(group, error)
        else:
            self._fail(group, error)
        if self._draining and not self._groups:
            self._draining = False
            self._next = self._medium.last + 1
            if self._entries:
                asyncio.get_running_loop().call_soon(self._flush)

    def _commit(self, group: _Group) -> None:
        last = group.first + len(group.futures) - 1
        self._queued_bytes -= group.size_bytes
        self._sizes.add(last, group.size_bytes)
        if group.seal is None:
            self._through = LogIndex(last)
        else:
            self._through = LogIndex(last - 1)
            self._sealed = (LogIndex(last), group.seal)
            self._sealing = False
            self._seal_settled.wake()
        waiting = enumerate(group.futures, group.first)
        while True:
            try:
                for index, future in waiting:
                    future.set_result(index)  # type: ignore[arg-type]
                break
            except asyncio.InvalidStateError:
                continue  # this one was cancelled, or its deadline passed; on with the next
        self._progress.wake()

    def _withdraw(self, group: _Group, error: DefiniteError) -> None:
        """The medium wrote nothing: the callers hear so, and their indices are free again."""
        if group.seal is not None:
            self._sealing = False
            self._shut = self._stopped is not None
            self._seal_settled.wake()
        self._draining = True
        self._refuse(group.futures, group.size_bytes, error)

    def _fail(self, group: _Group, cause: BaseException) -> None:
        """Storage failed. Retrying an fsync could lose data silently: stop for good."""
        error = cause if isinstance(cause, LogFailedError) else LogFailedError(str(cause))
        self._groups.appendleft(group)
        self._stop(error)

    def _stop(self, error: Exception) -> None:
        if self._stopped is None:
            self._stopped = error
        self._shut = True
        self._sealing = False
        groups, self._groups = self._groups, deque()
        for group in groups:
            self._refuse(group.futures, group.size_bytes, error)
        self._progress.wake()
        self._seal_settled.wake()

    def _refuse(
        self, futures: Sequence[asyncio.Future[LogIndex]], size_bytes: int, error: Exception
    ) -> None:
        """End each caller with an error object of its own: tracebacks must not mix."""
        self._queued_bytes -= size_bytes
        for future in futures:
            if not future.done():
                future.set_exception(_copy(error, self._limits.retry_after))

    # --- seal --------------------------------------------------------------------------------

    async def seal(self, next: bytes, *, deadline: Deadline) -> tuple[LogIndex, bytes]:
        """End this log for good and return ``(tail, next)`` of the seal that won.

        The seal is the log's last entry, so what was appended earlier is below it and a later
        append finds it. Errors and cancellation as in :meth:`append`.
        """
        if len(next) > self._entry_max:
            check_size(next, self._entry_max)
        while self._sealed is None:
            self._check_time(deadline)
            if self._stopped is not None:
                raise UnavailableError(str(self._stopped))
            if self._sealing:
                await self._settled(deadline)
                continue
            if self._draining:
                message = "the disk was full a moment ago; nothing was sealed"
                raise DiskFullError(message, retry_after=self._limits.retry_after)
            if self._entries:
                self._flush()
            self._sealing = self._shut = True
            self._queued_bytes += len(next)
            future = asyncio.get_running_loop().create_future()
            self._write([next], [future], len(next), seal=next)
            await (future if deadline.endless else within(self._world, future, deadline))
        return self._sealed

    # --- trim --------------------------------------------------------------------------------

    async def trim(self, before: LogIndex) -> LogIndex:
        """Permit dropping entries below ``before`` and return the new ``first``."""
        self._holds.permit(before)
        self._settle_trim()
        return self.first

    def hold(self, hold: Hold) -> None:
        """Set or move a hold; see :meth:`outlast.log.Log.hold`. Not kept across reopening.

        Raises:
            TrimmedError: Definite. The index is already trimmed.
            ConfigError: Definite. It would move back.
        """
        self._holds.put(hold, first=self.first)
        self._settle_trim()

    def release(self, name: str) -> None:
        """Remove the hold ``name``; no error if there is none."""
        self._holds.release(name)
        self._settle_trim()

    def _settle_trim(self) -> None:
        if self._stopped is not None or self._holds.permitted <= self.first:
            return
        tail = LogIndex(self._through + 1)
        before, released = self._holds.settle(tail=tail, sizes=self._sizes)
        for one in released:
            self._world.events.emit(one.event())
        if before > self.first:
            self._medium.trim(before)
            self._sizes.trim(self.first)

    # --- end ---------------------------------------------------------------------------------

    async def close(self) -> None:
        """Finish what the disk has begun, then stop; what only waited ends as LogFailedError."""
        if self._closed:
            return
        self._closed = True
        stopped = self._stopped = self._stopped or LogFailedError("the log was closed")
        self._draining = False
        self._shut = True
        self._flush()
        try:
            await self._medium.close()
            await self._world.timers.sleep(0)  # let what became durable be acknowledged
        finally:
            self._stop(stopped)


def _copy(error: Exception, retry_after: float) -> Exception:
    again = copy(error)
    if isinstance(again, RejectedError) and again.retry_after is None:
        again.retry_after = retry_after
    return again
