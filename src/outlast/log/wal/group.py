"""Group commit: what was appended while one frame was written becomes the next frame.

One write is under way at a time. The slower the disk, the larger the batches; there is no
timer. The loop side is bookkeeping; :mod:`outlast.log.wal.writer` does the rest on its lane.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from outlast.kernel import (
    ConfigError,
    DiskFullError,
    LogFailedError,
    OutlastError,
    OverloadedError,
    RejectedError,
    TimerHandle,
    World,
)
from outlast.log.wal.core.frame import ALIGN
from outlast.log.wal.core.runs import Run, RunKind
from outlast.log.wal.core.segment import SEGMENT_HEADER_BYTES
from outlast.log.wal.core.view import View
from outlast.log.wal.events import WalFailed
from outlast.log.wal.settings import WalIdentity, WalSettings
from outlast.log.wal.space import SpaceKeeper
from outlast.log.wal.writer import SegmentWriter, Spare, Written, frame_bytes

_NEVER = (1 << 63) - 1
_OVERHEAD = SEGMENT_HEADER_BYTES + 4096
_PADDING = 2 * ALIGN

_Waiting = tuple[Sequence[Run], int, "asyncio.Future[None]"]


@dataclass(frozen=True, slots=True)
class GroupContext:
    """What a :class:`GroupCommit` is given.

    ``written`` is the view of what is on disk, changed by ``landed`` only; ``landed`` is
    called on the loop with each durable frame, before its futures resolve; ``rolled_back``
    when everything that waited was refused; ``settled`` after the futures have resolved.
    """

    world: World
    directory: str
    identity: WalIdentity
    settings: WalSettings
    lane: str
    writer: SegmentWriter
    written: View
    landed: Callable[[Written], None]
    rolled_back: Callable[[], None]
    settled: Callable[[], None]


class GroupCommit:
    """Queue, batches, room and failure of one log. Driven from one loop.

    While ``closing`` is set no more appends are taken.
    """

    def __init__(self, context: GroupContext) -> None:
        self._context = context
        self._world = world = context.world
        self._directory = context.directory
        self._settings = settings = context.settings
        self._lane = context.lane
        self._writer = context.writer
        self._loop = asyncio.get_running_loop()
        self.space = SpaceKeeper(
            world, context.directory, settings, f"{context.lane}-spare",
            changed=self._space_changed, broken=self.fail,
        )  # fmt: skip
        self._queue: list[_Waiting] = []
        self._queue_bytes = 0
        self._queue_floor = self._flight_floor = _NEVER
        self._room = self._writer.room()
        self._busy = self._scheduled = self.closing = False
        self._flight: list[_Waiting] = []
        self._since_ns = self._done_ns = 0
        self._marked = True
        self._timer: TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        self.append_bytes_max = self._capacity(settings.segment_bytes)
        self.failed: BaseException | None = None

    @property
    def floor(self) -> int:
        """What is above it may be rewritten by an append that is not on disk yet."""
        return min(self._queue_floor, self._flight_floor)

    def lower(self, floor: int) -> None:
        """Say that the next append rewrites everything above ``floor``."""
        self._queue_floor = min(self._queue_floor, floor)

    def oldest_write_ns(self, now_ns: int) -> int:
        """Return how long the oldest write has been under way, 0 if none is."""
        return now_ns - self._since_ns if self._since_ns else 0

    def refusal(self, runs: Sequence[Run], size: int) -> OutlastError | None:
        """Return why ``runs`` cannot be taken now, ``None`` if they can."""
        if (
            not (self.space.full or self.closing or self.failed)
            and self._queue_bytes + size <= self._settings.queue_bytes_max
            and size <= self.append_bytes_max
        ):
            return None
        return self._reason(runs, size)

    def put(self, runs: Sequence[Run], size: int) -> "asyncio.Future[None]":
        """Queue ``runs``; the future resolves when they are durable."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.append((runs, size, future))
        self._queue_bytes += size
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._dispatch)
        return future

    def refuse(self, error: OutlastError) -> "asyncio.Future[None]":
        """Return a future that has ended with ``error``."""
        return _settle(self._loop.create_future(), error)

    def _reason(self, runs: Sequence[Run], size: int) -> OutlastError | None:
        """Return why ``runs`` cannot be taken now, ``None`` if they can after all."""
        where = self._directory
        if self.failed is not None:
            return LogFailedError(f"{where}: the log has failed: {self.failed}")
        if self.closing:
            return RejectedError(f"{where}: the log is closed")
        if size > self.append_bytes_max:
            return ConfigError(
                f"{where}: an append of {size} bytes does not fit;"
                f" segment_bytes allows {self.append_bytes_max}"
            )
        waiting, most = self._queue_bytes, self._settings.queue_bytes_max
        if waiting + size > most:
            return OverloadedError(
                f"{where}: {waiting} bytes wait for the disk, at most {most} may", retry_after=0.1
            )
        needed = waiting + size + _PADDING * (len(self._queue) + 2)
        if not self.space.full or needed <= self._room or _hard_state_only(runs):
            return None
        return self._disk_full()

    def _disk_full(self) -> DiskFullError:
        return DiskFullError(
            f"{self._directory}: the disk has no room for another segment",
            retry_after=self._settings.full_retry,
        )

    def _dispatch(self) -> None:
        """Start the next frame if none is under way."""
        self._scheduled = False
        if self._busy or not self._queue or self.failed is not None:
            return
        count, size = self._fitting()
        need = frame_bytes(size)
        spare: Spare | None = None
        if need > self._room:
            ready = self.space.spare
            if ready is not None and need <= self._capacity(ready.size):
                spare = self.space.take()
            elif not self._last_resort(count, need):
                return
        batch = self._queue[:count]
        del self._queue[:count]
        self._queue_bytes -= sum(item[1] for item in batch)
        if not self._queue:
            self._flight_floor, self._queue_floor = self._queue_floor, _NEVER
        else:
            self._flight_floor = min(self._flight_floor, self._queue_floor)
        self._flight = batch
        self._room -= need
        runs = [run for item in batch for run in item[0]]
        self._start(partial(self._write, runs, spare), self._frame_done)

    def _fitting(self) -> tuple[int, int]:
        """Return how many waiting appends go into the next frame, and their size."""
        settings = self._settings
        most = min(settings.frame_bytes_max, self._capacity(settings.segment_bytes))
        if self._queue_bytes <= most:
            return len(self._queue), self._queue_bytes
        size = self._queue[0][1]
        for count in range(1, len(self._queue)):
            if size + self._queue[count][1] > most:
                return count, size
            size += self._queue[count][1]
        return len(self._queue), size

    def _capacity(self, segment_bytes: int) -> int:
        return segment_bytes - self._settings.hard_state_reserve_bytes - _OVERHEAD

    def _next_bytes(self, need: int) -> int:
        """Return the size of the next segment: four times this one, within bounds."""
        most = self._settings.segment_bytes
        fitting = need + (self._settings.segment_bytes - self._capacity(most)) + ALIGN
        return max(min(most, 4 * self._writer.size), min(most, fitting & -ALIGN))

    def _last_resort(self, count: int, need: int) -> bool:
        """The segment is used up and no spare fits: wait for one, refuse, or use the reserve."""
        if not self.space.full:
            small = self.space.take()
            if small is not None:
                self._world.offload.run(f"{self._lane}-spare", partial(self._discard, small))
            self._since_ns = self._since_ns or self._world.clock.monotonic_ns()
            self.space.prepare(self._next_bytes(need))
            return False
        batch = self._queue[:count]
        if all(_hard_state_only(item[0]) for item in batch):
            if need <= self._writer.room(hard_state=True):
                return True
            self._refuse(lambda _: False)
        else:
            self._refuse(_hard_state_only)
        return False

    def _refuse(self, keep: Callable[[Sequence[Run]], bool]) -> None:
        """Refuse what waits, except what ``keep`` says; the view goes back to what is written."""
        waiting = self._queue
        self._queue = [item for item in waiting if keep(item[0])]
        self._queue_bytes = sum(item[1] for item in self._queue)
        self._queue_floor = _NEVER
        self._context.rolled_back()
        self._since_ns = 0
        for runs, _, future in waiting:
            if not keep(runs):
                _settle(future, self._disk_full())
        self._dispatch()
        self._wake_drained()

    def _space_changed(self) -> None:
        if not self._busy:
            self._dispatch()

    # --- on the lane -------------------------------------------------------------------------

    def _write(self, runs: list[Run], spare: Spare | None) -> Written:
        if spare is not None:
            self._writer.switch(spare, self._context.written, self._context.identity)
        return self._writer.write(runs)

    def _discard(self, spare: Spare) -> None:
        spare.file.close()
        self._world.storage.unlink(spare.file.path)

    def _finish(self, spare: Spare | None) -> None:
        if spare is not None:
            self._discard(spare)
        if self.failed is None:
            self._writer.seal()
            self._writer.record()
        self._writer.close()

    # --- back on the loop --------------------------------------------------------------------

    def _start(
        self, call: Callable[[], Any], done: Callable[["asyncio.Future[Any]"], None]
    ) -> None:
        self._busy = True
        self._since_ns = self._world.clock.monotonic_ns()
        asyncio.ensure_future(self._world.offload.run(self._lane, call)).add_done_callback(done)

    def _frame_done(self, attempt: "asyncio.Future[Written]") -> None:
        error = error_of(attempt)
        if error is not None:
            self.fail(error)
            return
        done, batch = attempt.result(), self._flight
        self._flight, self._flight_floor, self._busy = [], _NEVER, False
        self._context.landed(done)
        self._go_on()
        for _, _, future in batch:
            if not future.done():
                future.set_result(None)
        self._context.settled()

    def _go_on(self) -> None:
        """After each write: begin the next one, look after space, arm the mark."""
        self._room, self._since_ns, self._marked = self._writer.room(), 0, False
        if self._queue:
            self._dispatch()
        else:
            self._arm()
            self._wake_drained()
        if self._room < self._writer.size * 7 // 8 and not self.space.full:
            self.space.prepare(self._next_bytes(0))

    def _arm(self) -> None:
        self._done_ns = self._world.clock.monotonic_ns()
        if self._timer is None and not self.closing:
            when = self._done_ns + int(self._settings.idle * 1e9)
            self._timer = self._world.timers.call_at(when, self._idle)

    def _idle(self) -> None:
        self._timer = None
        if self._busy or self._queue or self._marked or self.failed or self.closing:
            return
        due = self._done_ns + int(self._settings.idle * 1e9)
        if self._world.clock.monotonic_ns() < due:
            self._timer = self._world.timers.call_at(due, self._idle)
        elif self._writer.room(hard_state=True) >= ALIGN:
            self._start(self._writer.mark, self._mark_done)

    def _mark_done(self, attempt: "asyncio.Future[None]") -> None:
        error = error_of(attempt)
        if error is not None:
            self.fail(error)
            return
        self._busy, self._since_ns, self._marked = False, 0, True
        self._room = self._writer.room()
        self._dispatch()
        self._wake_drained()

    def fail(self, error: BaseException) -> None:
        """A write or fsync failed. Nothing is retried: pages may be lost and marked clean."""
        if self.failed is not None:
            return
        self.failed, self._busy, self._since_ns = error, False, 0
        reason = f"{type(error).__name__}: {error}"
        self._world.events.emit(WalFailed(directory=self._directory, reason=reason))
        waiting = self._flight + self._queue
        self._flight, self._queue, self._queue_bytes = [], [], 0
        for _, _, future in waiting:
            failure = LogFailedError(f"{self._directory}: the log has failed: {reason}")
            failure.__cause__ = error
            _settle(future, failure)
        self._wake_drained()

    def _wake_drained(self) -> None:
        drained = self._drained
        if drained is not None and not drained.done() and not self._busy and not self._queue:
            drained.set_result(None)

    async def close(self) -> None:
        """Wait for what was queued, seal the segment, close its files. Does not raise."""
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._busy or self._queue:
            self._drained = self._loop.create_future()
            await self._drained
        spare = await self.space.close()
        try:
            await self._world.offload.run(self._lane, partial(self._finish, spare))
        except OSError as error:
            self.fail(error)  # nothing acknowledged is at stake: the next open recovers
            self._writer.close()


def _hard_state_only(runs: Sequence[Run]) -> bool:
    return all(run.kind == RunKind.HARD_STATE for run in runs)


def error_of(attempt: "asyncio.Future[Any]") -> BaseException | None:
    """Return why a call on a lane failed, ``None`` if it did not."""
    if attempt.cancelled():
        return asyncio.CancelledError("the write was cancelled; its outcome is unknown")
    return attempt.exception()


def _settle(future: "asyncio.Future[None]", error: BaseException) -> "asyncio.Future[None]":
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever does not look must not be told by the loop at exit
    return future
