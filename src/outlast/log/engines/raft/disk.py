"""What the core wants on disk, on its way there: in order, several writes at once, or refused.

The WAL groups what it is given, so each write is handed over at once. Two things hold writes
back: a *mark*, which lies in a file of its own and is written once everything before it is
durable; and a full disk, which refuses a write definitely: it then stays the next one to be
written until there is room, and nothing after it overtakes it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from outlast.kernel import DiskFullError, LogFailedError, RejectedError, World
from outlast.log.engines.raft.core.types import Persist
from outlast.log.engines.raft.storage import RaftStore
from outlast.log.reader import Waiters
from outlast.log.wal import Run

_FULL_RETRY_NS = 50_000_000


@dataclass(slots=True)
class _Unit:
    """One write: with it, all through ``ticket`` is on disk, and entries through ``last``."""

    ticket: int
    last: int
    runs: list[Run]
    mark: bytes | None = None
    future: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the WAL has told what became of it."""
        return self.future is not None and self.future.done()

    def error(self) -> BaseException | None:
        """Return why it is not on disk, ``None`` if it is."""
        if self.future is None or self.future.cancelled():
            return LogFailedError("a write of the log was cancelled")
        return self.future.exception()


class DiskQueue:
    """Writes of one replica. ``refusal`` is set while the disk takes nothing.

    Args:
        world: Clock, timers, tasks, fault points.
        store: The log that is written.
        persisted: Told the ticket through which everything is durable.
        failed: Told why the disk takes nothing any more, for good.
    """

    def __init__(
        self,
        world: World,
        store: RaftStore,
        persisted: Callable[[int], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.ticket = 0
        self.durable_ticket = 0
        self.refusal: RejectedError | None = None
        self._world = world
        self._store = store
        self._persisted = persisted
        self._failed = failed
        self._moved = Waiters()
        self._units: deque[_Unit] = deque()
        self._writes: deque[_Unit] = deque()
        self._refused: list[_Unit] = []
        self._refused_ns = 0
        self._marking_ns = 0
        self._stopped = False

    def put(self, persist: Persist) -> None:
        """Change the store's view as ``persist`` says, and make it durable in its turn."""
        ticket, mark = persist.ticket, persist.mark
        self.ticket = ticket
        for last, runs in self._store.apply(persist):
            # Only the last piece of a large write completes its ticket.
            done = ticket if last == self._store.last else ticket - 1
            self._units.append(_Unit(done, last, runs, mark))
            mark = None
        self._write()

    @property
    def full(self) -> bool:
        """Whether new entries must be refused.

        That is so from when no room for another segment is found, well before the room in
        hand is used up: what has been proposed can no longer be refused definitely.
        """
        return self.refusal is not None or self._store.wal.full

    def refuse(self, retry_after: float) -> RejectedError:
        """Return the definite error for an entry that is not taken."""
        if self.refusal is not None:
            return type(self.refusal)(str(self.refusal), retry_after=retry_after)
        return DiskFullError("the disk of this replica is full", retry_after=retry_after)

    def oldest_write_ns(self, now_ns: int) -> int:
        """Return how long the oldest write has been under way, refused ones included."""
        began_ns = min(self._refused_ns or now_ns, self._marking_ns or now_ns)
        if not self._writes:
            return now_ns - began_ns
        return max(now_ns - began_ns, self._store.wal.oldest_write_ns(now_ns))

    async def settled(self) -> None:
        """Wait until everything wanted by now is durable, or the queue was stopped."""
        wanted = self.ticket
        while self.durable_ticket < wanted and not self._stopped:
            await self._moved.wait()

    def stop(self) -> None:
        """Hand over nothing more."""
        self._stopped = True
        self._moved.wake()

    # --- on the way ------------------------------------------------------------------------

    def _write(self) -> None:
        units = self._units
        while units and self.refusal is None and not self._marking_ns and not self._stopped:
            if units[0].mark is None:
                self._hand_over(units.popleft())
            elif self._writes:
                return
            else:
                self._marking_ns = self._world.clock.monotonic_ns()
                self._world.spawn.task(self._save_mark(units[0]), name="raft-mark")

    def _hand_over(self, unit: _Unit) -> None:
        self._world.fault_point("raft.before_persist")
        future = unit.future = self._store.wal.append(unit.runs)
        self._writes.append(unit)
        future.add_done_callback(self._written)

    async def _save_mark(self, unit: _Unit) -> None:
        try:
            await self._store.mark.save(unit.mark)
        except Exception as error:
            self._failed(error)
            return
        unit.mark = None
        self._marking_ns = 0
        if self._stopped:
            return
        if unit.runs:
            self._write()
        else:
            self._durable_through(self._units.popleft())

    def _written(self, future: asyncio.Future[None]) -> None:
        """Take what has ended, in order: a refusal may be told before an earlier success."""
        if self._stopped:
            if not future.cancelled():
                future.exception()  # it was told, even if nobody cares any more
            return
        done: _Unit | None = None
        while self._writes and self._writes[0].ended:
            unit = self._writes.popleft()
            error = unit.error()
            if error is None and not self._refused:
                done = unit
                continue
            if done is not None:
                self._durable_through(done)
                done = None
            if error is None and self.refusal is not None:
                # Hard state has room of its own. It is written again, in its place.
                self._keep(unit, self.refusal)
            elif isinstance(error, RejectedError):
                self._keep(unit, error)
            elif error is not None:
                self._failed(error)
                return
        if done is not None:
            self._durable_through(done)

    def _durable_through(self, unit: _Unit) -> None:
        self.durable_ticket = unit.ticket
        self.refusal = None
        self._refused_ns = 0
        self._store.mark_durable(unit.last)
        if self._units:
            self._write()
        self._persisted(unit.ticket)
        self._moved.wake()

    def _keep(self, unit: _Unit, refusal: RejectedError) -> None:
        """Nothing of ``unit`` was written: what rests on it stays unsaid until there is room."""
        self._refused.append(unit)
        if self.refusal is None:
            self.refusal = refusal
            self._refused_ns = self._world.clock.monotonic_ns()
        if not self._writes:
            again_ns = self._world.clock.monotonic_ns() + _FULL_RETRY_NS
            self._world.timers.call_at(again_ns, self._try_again)

    def _try_again(self) -> None:
        """Offer the disk what it refused, in the same order."""
        refused, self._refused = self._refused, []
        if not self._stopped:
            for unit in refused:
                self._hand_over(unit)
