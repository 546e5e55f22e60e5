"""Broken logs: each breaks one promise, and names the check of the suite that must catch it.

``BROKEN`` is the table. An engine's author can wrap their own good fixture with
:func:`broken_fixture` and see that the suite, with their engine below, still catches each.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from outlast.kernel import (
    ConfigError,
    Deadline,
    LogFailedError,
    LogIndex,
    OverloadedError,
    RejectedError,
    SealedError,
    TooLateError,
    TrimmedError,
)
from outlast.log.api import Batch, Hold, Log
from outlast.testing.broken.wrapper import WrappedLog
from outlast.testing.log_suite import LogFixture


class ReturnsBeforeCommit(WrappedLog):
    """Acknowledges what is only under way."""

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Start the append, guess its index and return."""
        top = self.notes.setdefault("top", await self.inner.tail(deadline=deadline) - 1)
        index = self.notes["top"] = top + 1
        task = self.world.spawn.task(self._append(entry, deadline), name="append")
        self.notes.setdefault("tasks", []).append(task)
        return LogIndex(index)

    async def _append(self, entry: bytes, deadline: Deadline) -> None:
        await asyncio.gather(self.inner.append(entry, deadline=deadline), return_exceptions=True)


class StaleTail(WrappedLog):
    """Answers ``tail`` from the answer before."""

    async def tail(self, *, deadline: Deadline) -> LogIndex:
        """Return what the call before should have returned."""
        now = await self.inner.tail(deadline=deadline)
        before = self.notes.get("tail", now)
        self.notes["tail"] = now
        return LogIndex(before)


class LyingTail(WrappedLog):
    """Says that the tail is one further than it is."""

    async def tail(self, *, deadline: Deadline) -> LogIndex:
        """Return one too many."""
        return LogIndex(await self.inner.tail(deadline=deadline) + 1)


class ForgetsSealAtReopen(WrappedLog):
    """After reopening takes appends although it was sealed."""

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Pretend that there was no seal once reopened."""
        try:
            return await self.inner.append(entry, deadline=deadline)
        except SealedError:
            if not self.opened:
                raise
            return await self.inner.tail(deadline=deadline)


class ForgetsNextAtReopen(WrappedLog):
    """Knows after reopening that it is sealed, but not with what."""

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Raise without ``next`` once reopened."""
        try:
            return await self.inner.append(entry, deadline=deadline)
        except SealedError:
            raise SealedError(next=b"") from None


class SecondSealWins(WrappedLog):
    """Answers each seal with its own ``next``."""

    async def seal(self, next: bytes, *, deadline: Deadline) -> tuple[LogIndex, bytes]:
        """Return the latest ``next``."""
        tail, _ = await self.inner.seal(next, deadline=deadline)
        return tail, next


class SealsTooLow(WrappedLog):
    """Seals below an entry that was acknowledged."""

    async def seal(self, next: bytes, *, deadline: Deadline) -> tuple[LogIndex, bytes]:
        """Return a tail that is one too low."""
        tail, won = await self.inner.seal(next, deadline=deadline)
        return LogIndex(tail - 1), won


class AppendsAfterSeal(WrappedLog):
    """Takes appends on a sealed log."""

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Swallow the refusal."""
        try:
            return await self.inner.append(entry, deadline=deadline)
        except SealedError:
            return await self.inner.tail(deadline=deadline)


class TrimsPastHold(WrappedLog):
    """Forgets holds."""

    def hold(self, hold: Hold) -> None:
        """Check it, and forget it."""
        self.inner.hold(hold)
        self.inner.release(hold.name)


class KeepsHoldsForEver(WrappedLog):
    """Never releases a hold, however much it keeps."""

    def hold(self, hold: Hold) -> None:
        """Set it without a limit."""
        self.inner.hold(replace(hold, bytes_max=1 << 60))


class TrimsOneTooMany(WrappedLog):
    """Drops the entry at ``before`` too."""

    async def trim(self, before: LogIndex) -> LogIndex:
        """Trim one further."""
        return await self.inner.trim(LogIndex(before + 1))


class IgnoresTrim(WrappedLog):
    """Never drops anything."""

    async def trim(self, before: LogIndex) -> LogIndex:
        """Do nothing."""
        return self.inner.first


class WrongTrimmedFirst(WrappedLog):
    """Tells a trimmed reader the wrong place to go on."""

    def read(self, start: LogIndex) -> AsyncIterator[Batch]:
        """Read with a wrong answer."""
        return self._read(start)

    async def _read(self, start: LogIndex) -> AsyncIterator[Batch]:
        try:
            async for batch in self.inner.read(start):
                yield batch
        except TrimmedError as error:
            raise TrimmedError(first=error.first - 1) from None


class SkipsTrimmed(WrappedLog):
    """Lets an overtaken reader go on behind the gap without a word."""

    def read(self, start: LogIndex) -> AsyncIterator[Batch]:
        """Read from ``first`` if ``start`` is gone."""
        return self._read(start)

    async def _read(self, start: LogIndex) -> AsyncIterator[Batch]:
        while True:
            reader = self.inner.read(max(start, self.inner.first))
            try:
                async for batch in reader:
                    start = LogIndex(batch.through + 1)
                    yield batch
            except TrimmedError:
                continue
            return


class SkipsAnEntryAtReopen(WrappedLog):
    """Leaves the second entry out once the log was reopened."""

    def change(self, batch: Batch) -> Batch:
        """Drop index 2; those after it move down."""
        if not self.opened or not batch.first <= 2 <= batch.through:
            return batch
        place = 2 - batch.first
        entries = [*batch.entries[:place], *batch.entries[place + 1 :]]
        return Batch(batch.first, entries, batch.through)


class ReordersTwoEntries(WrappedLog):
    """Swaps neighbours when it reads many at once."""

    def change(self, batch: Batch) -> Batch:
        """Swap the first two of a large batch."""
        entries = list(batch.entries)
        if len(entries) > 3:
            entries[0], entries[1] = entries[1], entries[0]
        return replace(batch, entries=entries)


class SplitsAnEntry(WrappedLog):
    """Cuts entries above 4 KiB in two, as a frame boundary might."""

    def change(self, batch: Batch) -> Batch:
        """Give a large entry as two."""
        entries: list[bytes] = []
        for entry in batch.entries:
            entries += [entry[:4096], entry[4096:]] if len(entry) > 4096 else [entry]
        through = max(batch.through, LogIndex(batch.first + len(entries) - 1))
        return Batch(batch.first, entries, through)


class CutsAnEntry(WrappedLog):
    """Loses what is behind 64 KiB, as a length of 16 bits would."""

    def change(self, batch: Batch) -> Batch:
        """Cut long entries."""
        return replace(batch, entries=[entry[:65535] for entry in batch.entries])


class DuplicatesAnEntry(WrappedLog):
    """Repeats every seventh append, as a retry without a request id would."""

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Append some entries twice."""
        count = self.notes["count"] = self.notes.get("count", 0) + 1
        if count % 7 == 0:
            await self.inner.append(entry, deadline=deadline)
        return await self.inner.append(entry, deadline=deadline)


class GivesIndicesAgain(WrappedLog):
    """Begins at 1 again when it is reopened with everything trimmed."""

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Count from the beginning after a trim and a reopening."""
        index = await self.inner.append(entry, deadline=deadline)
        return index if not self.opened or self.inner.first <= 1 else LogIndex(1)


class StopsWaking(WrappedLog):
    """Wakes a reader once, then forgets it."""

    def read(self, start: LogIndex) -> AsyncIterator[Batch]:
        """Read, but hang at the second wait."""
        return self._read(start)

    async def _read(self, start: LogIndex) -> AsyncIterator[Batch]:
        waits = 0
        async for batch in self.inner.read(start):
            yield batch
            if batch.through + 1 >= await self.inner.tail(deadline=Deadline.never()):
                waits += 1
            if waits == 2:
                await asyncio.get_running_loop().create_future()


class EndsWhenCancelled(WrappedLog):
    """Reads through an async generator, which a cancelled pull finishes."""

    def read(self, start: LogIndex) -> AsyncIterator[Batch]:
        """Read through a generator."""
        return self._read(start)

    async def _read(self, start: LogIndex) -> AsyncIterator[Batch]:
        async for batch in self.inner.read(start):
            yield batch


class EndsAtTheTail(WrappedLog):
    """Readers end at the tail instead of waiting there."""

    def read(self, start: LogIndex) -> AsyncIterator[Batch]:
        """Read what is there."""
        return self._read(start)

    async def _read(self, start: LogIndex) -> AsyncIterator[Batch]:
        position = start
        while position < await self.inner.tail(deadline=Deadline.never()):
            async for batch in self.inner.read(position):
                position = LogIndex(batch.through + 1)
                yield batch
                break


class SwallowsTheDeadline(WrappedLog):
    """Appends although it is too late, and then says that it was too late."""

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Append in any case."""
        try:
            return await self.inner.append(entry, deadline=deadline)
        except TooLateError:
            await self.inner.append(entry, deadline=Deadline.never())
            raise


class AcknowledgesRefusals(WrappedLog):
    """Returns an index for what was refused for want of space."""

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Swallow refusals."""
        try:
            return await self.inner.append(entry, deadline=deadline)
        except TooLateError:
            raise
        except RejectedError:
            return await self.inner.tail(deadline=deadline)


class RefusesWhatItKept(WrappedLog):
    """Says that it is overloaded, after it has appended."""

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Refuse large entries after the fact."""
        index = await self.inner.append(entry, deadline=deadline)
        if len(entry) > 50_000:
            message = "too much"
            raise OverloadedError(message, retry_after=0.1)
        return index


class TakesAnySize(WrappedLog):
    """Takes empty and oversized entries by putting something else into the log."""

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Append a stand-in."""
        try:
            return await self.inner.append(entry, deadline=deadline)
        except ConfigError:
            return await self.inner.append(b"?", deadline=deadline)


class RetriesAfterFailure(WrappedLog):
    """After a failed write tells the caller that all is well."""

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Swallow the failure of the storage."""
        try:
            return await self.inner.append(entry, deadline=deadline)
        except LogFailedError:
            return LogIndex(1_000_000)


class HangsWhenClosed(WrappedLog):
    """Leaves what waits at ``close`` waiting."""

    async def close(self) -> None:
        """Do nothing the first time."""
        if self.notes.setdefault("closing", 0):
            await self.inner.close()
        self.notes["closing"] = 1


@dataclass(frozen=True, slots=True)
class BrokenLog:
    """A broken engine and the check that must catch it.

    Args:
        wrap: What is put before the good engine.
        caught_by: Name of the check in ``outlast.testing.log_suite.BY_NAME``.
        name: Its name in reports, if not the class's.
        beside: Whether it is a second replica beside the good one, not in front of it.
    """

    wrap: type[WrappedLog]
    caught_by: str
    name: str = ""
    beside: bool = False

    def __str__(self) -> str:
        return self.name or self.wrap.__name__


BROKEN: tuple[BrokenLog, ...] = (
    BrokenLog(ReturnsBeforeCommit, "nothing_is_acknowledged_before_it_is_durable"),
    BrokenLog(ReturnsBeforeCommit, "acknowledged_survives_a_crash", "CrashesBeforeCommit"),
    BrokenLog(StaleTail, "tail_is_above_what_returned"),
    BrokenLog(LyingTail, "the_tail_can_be_reached"),
    BrokenLog(ForgetsSealAtReopen, "a_seal_survives_reopening"),
    BrokenLog(ForgetsSealAtReopen, "a_seal_survives_a_crash", "ForgetsSealAtCrash"),
    BrokenLog(ForgetsNextAtReopen, "a_seal_survives_reopening"),
    BrokenLog(SecondSealWins, "the_first_seal_wins"),
    BrokenLog(SecondSealWins, "racing_seals_agree", "LastRacingSealWins"),
    BrokenLog(SealsTooLow, "a_seal_ends_the_log"),
    BrokenLog(AppendsAfterSeal, "a_seal_ends_the_log"),
    BrokenLog(AppendsAfterSeal, "an_append_racing_a_seal_is_in_or_refused", "AppendsPastSeal"),
    BrokenLog(TrimsPastHold, "trim_respects_holds"),
    BrokenLog(KeepsHoldsForEver, "a_hold_past_its_limit_is_released"),
    BrokenLog(TrimsOneTooMany, "trim_drops_a_prefix"),
    BrokenLog(IgnoresTrim, "trim_drops_a_prefix"),
    BrokenLog(WrongTrimmedFirst, "a_trimmed_reader_is_told"),
    BrokenLog(SkipsTrimmed, "a_trimmed_reader_is_told"),
    BrokenLog(SkipsAnEntryAtReopen, "reopening_keeps_everything"),
    BrokenLog(ReordersTwoEntries, "durable_on_return"),
    BrokenLog(
        ReordersTwoEntries,
        "readers_agree_under_concurrent_appends",
        "ReplicaReorders",
        beside=True,
    ),
    BrokenLog(StaleTail, "tail_is_above_what_returned", "ReplicaTailIsStale", beside=True),
    BrokenLog(SplitsAnEntry, "entries_are_whole"),
    BrokenLog(CutsAnEntry, "entries_are_whole"),
    BrokenLog(DuplicatesAnEntry, "readers_agree_under_concurrent_appends"),
    BrokenLog(GivesIndicesAgain, "reopening_keeps_the_trim"),
    BrokenLog(StopsWaking, "waiting_readers_wake"),
    BrokenLog(EndsWhenCancelled, "a_cancelled_pull_loses_nothing"),
    BrokenLog(EndsAtTheTail, "the_tail_can_be_reached"),
    BrokenLog(SwallowsTheDeadline, "a_passed_deadline_is_too_late"),
    BrokenLog(AcknowledgesRefusals, "a_full_disk_refuses_and_recovers"),
    BrokenLog(RefusesWhatItKept, "a_full_disk_refuses_and_recovers"),
    BrokenLog(TakesAnySize, "empty_and_oversized_entries_are_refused"),
    BrokenLog(RetriesAfterFailure, "a_failed_fsync_is_never_retried"),
    BrokenLog(HangsWhenClosed, "close_ends_what_waits"),
)


def broken_fixture(broken: BrokenLog, good: LogFixture) -> LogFixture:
    """Return ``good`` with the broken engine in front of its logs."""
    return _BrokenFixture(broken, good)


class _BrokenFixture(LogFixture):
    """Passes everything to a good fixture and wraps each log that it gives out."""

    _inner: Log
    _replica: Log

    def __init__(self, broken: BrokenLog, good: LogFixture) -> None:
        self._broken = broken.wrap
        self._beside = broken.beside
        self._good = good
        self._notes: dict[str, Any] = {}
        self._opened = 0
        self.capabilities = good.capabilities
        self.patience = min(good.patience, 1.0)
        self.trim_bytes = good.trim_bytes
        self.entry_count = good.entry_count
        self.world = good.world
        self.events = good.events

        self.stall = good.stall  # type: ignore[method-assign]
        self.resume = good.resume  # type: ignore[method-assign]
        self.fill = good.fill  # type: ignore[method-assign]
        self.free = good.free  # type: ignore[method-assign]
        self.fail_sync = good.fail_sync  # type: ignore[method-assign]

    def _open(self, inner: Log) -> Log:
        """Put the broken engine before ``inner``, or beside it as a second replica."""
        self._inner = inner
        front = self._broken(inner, self.world, self._notes, self._opened)
        self._opened += 1
        if not self._beside:
            return front
        self._replica = front
        return inner

    async def make(self) -> Log:
        return self._open(await self._good.make())

    def replicas(self, log: Log) -> Sequence[Log]:
        others = [one for one in self._good.replicas(self._inner) if one is not self._inner]
        return [log, *others, *([self._replica] if self._beside else [])]

    async def reopen(self, log: Log) -> Log:
        return self._open(await self._good.reopen(self._inner))

    async def crash(self, log: Log) -> Log:
        return self._open(await self._good.crash(self._inner))

    async def close(self) -> None:
        for task in self._notes.get("tasks", ()):
            task.cancel()
        await self._good.close()
