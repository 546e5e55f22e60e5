"""Reads the log and applies it, entry by entry, without keeping the event loop for long."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush

from outlast.kernel import (
    Deadline,
    InvariantError,
    LogIndex,
    OutlastError,
    TaskHandle,
    TrimmedError,
    World,
)
from outlast.log import Log
from outlast.state.core.envelope import Command, Header, Kind, unpack_commands, unpack_entry
from outlast.state.core.operation import decode_skip
from outlast.state.core.system import Applied, SystemMachine
from outlast.state.events import EntryPoisoned, EntrySkipped
from outlast.state.poison import ApplyMarker
from outlast.state.settings import ReplicaSettings

_DIGESTS_KEPT = 64
_LEARNT_MAX = 64
_TAIL_SECONDS = 1.0


class Applier:
    """The apply loop of one replica.

    Args:
        world: Clock, timers, tasks.
        log: Where entries come from.
        system: Applies them.
        take_changes: Gives the changes of the user's machine since the last call.
        settings: How long a slice and a command may take.
        deliver: Called after each entry with what applying it gave.
        failed: Called once with what stopped the loop.
    """

    def __init__(
        self,
        world: World,
        log: Log,
        system: SystemMachine,
        *,
        take_changes: Callable[[], bytes],
        settings: ReplicaSettings,
        deliver: Callable[[int, Header, Applied], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._world = world
        self._log = log
        self._system = system
        self._take_changes = take_changes
        self._deliver = deliver
        self._failed = failed
        self._slice_ns = int(settings.slice_seconds * 1e9)
        self._command_ns = int(settings.command_seconds_max * 1e9)
        self._digest_every = settings.digest_every
        self._poison_crashes = settings.poison_crashes
        self._waits: list[tuple[int, int, asyncio.Future[None]]] = []
        self._wait_count = 0
        self._rejected: BaseException | None = None
        self._task: TaskHandle | None = None
        self._ended: asyncio.Future[None] | None = None
        self.marker: ApplyMarker | None = None
        self.passed = 0
        """Every entry up to here is applied, or holds nothing for readers."""
        self.poisoned = 0
        self.held: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Resolves when applying first holds before an entry that killed the process."""
        self.fresh_ns = world.clock.monotonic_ns()
        """When this replica last surely had applied all that was committed; its start at first."""
        self._learnt: deque[tuple[int, int]] = deque()
        self.digests: deque[tuple[int, bytes]] = deque(maxlen=_DIGESTS_KEPT)

    def start(self) -> None:
        """Begin after the index that the system machine has reached."""
        self.passed = max(self.passed, self._system.index)
        self._wake()
        self._ended = asyncio.get_running_loop().create_future()
        self._task = self._world.spawn.task(self._run(self._ended), name="state-apply")

    async def stop(self) -> None:
        """Stop between two entries and wait until it has."""
        task, ended, self._task = self._task, self._ended, None
        if task is None or ended is None:
            return
        task.cancel()
        await ended

    def forgive(self, index: int) -> None:
        """Suspect the entry at ``index`` no more; while stopped."""
        if self.marker is not None:
            self.marker.forgive(index)
        self.poisoned = 0

    async def wait(self, index: int) -> None:
        """Wait until everything up to ``index`` is applied here."""
        if index <= self.passed:
            return
        if self._rejected is not None:
            raise self._rejected
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wait_count += 1
        heappush(self._waits, (index, self._wait_count, future))
        await future

    def reject(self, error: BaseException) -> None:
        """End all waits with ``error``: nothing more will be applied."""
        self._rejected = error
        waits, self._waits = self._waits, []
        for _, _, future in waits:
            if not future.done():
                future.set_exception(error)

    # --- the loop --------------------------------------------------------------------------

    async def _run(self, ended: asyncio.Future[None]) -> None:
        try:
            await self._read()
        except asyncio.CancelledError:
            if self.marker is not None:
                self.marker.end()
        except BaseException as error:
            # The mark stays: this entry stopped the process, though it can still close in order.
            self._failed(error)
        finally:
            if not ended.done():
                ended.set_result(None)

    async def _read(self) -> None:
        clock, timers = self._world.clock, self._world.timers
        async for batch in self._log.read(LogIndex(self.passed + 1)):
            index = batch.first - 1
            begun_ns = clock.monotonic_ns()
            for entry in batch.entries:
                index += 1
                if index <= self._system.index:
                    continue
                if self._is_suspect(index):
                    self._pause(index - 1)
                    await self._await_skip(LogIndex(index))
                    self._pass_over(index, entry)
                    continue
                before_ns = clock.monotonic_ns()
                self._apply(index, entry)
                now_ns = clock.monotonic_ns()
                if now_ns - before_ns > self._command_ns:
                    raise InvariantError(
                        f"entry {index} took {(now_ns - before_ns) / 1e9:.1f} s to apply; at "
                        f"most {self._command_ns / 1e9:.1f} s: the node stops"
                    )
                if now_ns - begun_ns > self._slice_ns:
                    self._pause(index)
                    await timers.sleep(0)
                    begun_ns = clock.monotonic_ns()
            self._pause(max(index, batch.through))

    def _pause(self, index: int) -> None:
        """A slice is done: tell those who wait for it."""
        if self.marker is not None:
            self.marker.end()
        self.passed = max(self.passed, index)
        self._wake()

    def learn(self, index: int, asked_ns: int) -> None:
        """``index`` was the last one committed, or a later one, when asked at ``asked_ns``.

        Only once all of it is applied is what is read here known to be as fresh as that.
        """
        if len(self._learnt) < _LEARNT_MAX:  # else the older ones, which come true first, stay
            self._learnt.append((index, asked_ns))
        self._renew()

    def _renew(self) -> None:
        while self._learnt and self._learnt[0][0] <= self.passed:
            _, asked_ns = self._learnt.popleft()
            self.fresh_ns = max(self.fresh_ns, asked_ns)

    def _wake(self) -> None:
        self._renew()
        waits = self._waits
        while waits and waits[0][0] <= self.passed:
            _, _, future = heappop(waits)
            if not future.done():
                future.set_result(None)

    def _apply(self, index: int, entry: bytes) -> None:
        if self.marker is not None:
            self.marker.begin(index)
        self._note_digest(index)
        header, body = unpack_entry(entry, index)
        applied = self._system.apply(index, header, body, self._take_changes)
        self._deliver(index, header, applied)

    def _note_digest(self, index: int) -> None:
        """Keep the digest at each multiple that is passed: equal indices on all replicas."""
        boundary = (index - 1) // self._digest_every * self._digest_every
        if boundary and boundary >= self._system.index:
            self.digests.append((boundary, self._system.digest))

    # --- entries that kill -------------------------------------------------------------------

    def _is_suspect(self, index: int) -> bool:
        marker = self.marker
        if marker is None or not marker.suspects:
            return False
        return marker.suspects.get(index, 0) >= self._poison_crashes

    async def _await_skip(self, index: LogIndex) -> None:
        """Look ahead for the agreed skip of ``index``, however long it takes to be agreed."""
        tail = await self._tail()
        if index + 1 >= tail:
            self._hold(index)
        async for batch in self._log.read(LogIndex(index + 1)):
            for at, entry in enumerate(batch.entries, batch.first):
                header, body = unpack_entry(entry, at)
                if header.kind == Kind.SKIP and decode_skip(body, at).index == index:
                    return
            if batch.through + 1 >= tail:
                self._hold(index)
        raise TrimmedError(f"the log ended while entry {index} waited for its skip", first=index)

    async def _tail(self) -> int:
        """Return the index after what is committed now, 0 if the log cannot tell here."""
        now_ns = self._world.clock.monotonic_ns()
        try:
            return await self._log.tail(deadline=Deadline.after(_TAIL_SECONDS, now_ns))
        except OutlastError:
            return 0

    def _hold(self, index: int) -> None:
        """The log so far has no skip for the entry: say that it is waited for."""
        if self.poisoned == index:
            return
        self.poisoned = index
        deaths = self.marker.suspects.get(index, 0) if self.marker is not None else 0
        self._world.events.emit(EntryPoisoned(index=index, crashes=deaths))
        if not self.held.done():
            self.held.set_result(index)

    def _pass_over(self, index: int, entry: bytes) -> None:
        """Leave the entry out; its requests are barred, or repeats of them would stop us again."""
        commands: list[Command] = []
        with suppress(OutlastError):
            header, body = unpack_entry(entry, index)
            if header.kind == Kind.COMMANDS:
                commands = unpack_commands(body, header.command_count, index)
        self.poisoned = 0
        self._system.skip(index, commands)
        self._world.events.emit(EntrySkipped(index=index))
