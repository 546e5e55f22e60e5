"""The physical log: durable appends of runs, and the resolved view of them.

Used by the file, raft and bft engines. See :mod:`outlast.log.wal.group` for how appends
become frames, and :mod:`outlast.log.wal.core` for the format and its rules.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Self

from outlast.kernel import TrimmedError, World
from outlast.log.wal.cache import RunCache
from outlast.log.wal.core.runs import Run, RunKind, run_size
from outlast.log.wal.core.view import place_frame, resolve
from outlast.log.wal.group import GroupCommit, GroupContext, error_of
from outlast.log.wal.opening import Opened, check_log, open_log
from outlast.log.wal.reader import FrameReader
from outlast.log.wal.recovery import ScanReport
from outlast.log.wal.settings import WalIdentity, WalSettings
from outlast.log.wal.writer import Written

Entry = tuple[int, int, int, bytes]
_REWINDS = frozenset({int(RunKind.TRUNCATE), int(RunKind.RESET)})


class Wal:
    """A log on disk. Driven from one event loop; not thread-safe; not usable after a fork.

    ``created``: this open made a new log.
    """

    def __init__(
        self, world: World, directory: str, identity: WalIdentity, settings: WalSettings, *,
        lane: str, opened: Opened,
    ) -> None:  # fmt: skip
        self._world = world
        self._directory = directory
        self._lane = lane
        self._lock = opened.lock
        self._writer = opened.writer
        self._written = opened.view
        self._ahead = opened.view.copy()
        self._places = opened.places
        self._reader = FrameReader(world.storage, opened.segments)
        self._cache = RunCache(settings.cache_bytes_max)
        self._trims: dict[asyncio.Future[None], None] = {}
        self._group = GroupCommit(
            GroupContext(
                world, directory, identity, settings, lane, opened.writer, opened.view,
                landed=self._landed, rolled_back=self._rolled_back, settled=self._settled,
            )
        )  # fmt: skip
        self.created = opened.created

    @classmethod
    async def open(
        cls,
        world: World,
        directory: str,
        identity: WalIdentity,
        settings: WalSettings | None = None,
        *,
        lane: str = "",
    ) -> Self:
        """Open the log in ``directory``; create it if the directory is empty or missing.

        Args:
            world: The machine.
            directory: Used by nothing else.
            identity: Whose log it is.
            settings: Sizes and limits.
            lane: Name of the offload lane; by default one of its own for the directory.

        Raises:
            CorruptionError: Acknowledged data is damaged; nothing was changed.
            DataError: Definite. In use, of another identity, or of a newer format.
            OSError: The disk refuses.
        """
        settings = settings or WalSettings()
        lane = lane or f"wal-{directory}"
        prng = world.prng.fork()
        call = partial(open_log, world, directory, identity, settings, prng)
        attempt = asyncio.ensure_future(world.offload.run(lane, call))
        try:
            opened: Opened = await asyncio.shield(attempt)
        except asyncio.CancelledError:
            attempt.add_done_callback(_abandon)
            raise
        for event in opened.cut:
            world.events.emit(event)
        return cls(world, directory, identity, settings, lane=lane, opened=opened)

    # --- what is in the log ------------------------------------------------------------------

    @property
    def hard_state(self) -> tuple[int, str | None]:
        """Last durable (term, vote); ``(0, None)`` at first."""
        return self._written.hard

    @property
    def base(self) -> tuple[int, int]:
        """(index, term) after which entries begin; ``(0, 0)`` at first. Rises with ``trim``."""
        return self._ahead.base

    @property
    def last(self) -> tuple[int, int]:
        """(index, term) of the last entry appended, durable or not yet."""
        return self._ahead.last, self._ahead.last_term

    @property
    def durable(self) -> tuple[int, int]:
        """(index, term) of the last entry on disk; what is queued may yet cut it."""
        return self._written.last, self._written.last_term

    @property
    def full(self) -> bool:
        """Whether the disk has no room for another segment; entries may be refused."""
        return self._group.space.full

    @property
    def sync_count(self) -> int:
        """Number of fsyncs so far."""
        return self._writer.sync_count

    @property
    def bytes_written(self) -> int:
        """Bytes of frames written so far."""
        return self._writer.bytes_written

    @property
    def append_bytes_max(self) -> int:
        """What one ``append`` may carry, payloads and a few bytes for each."""
        return self._group.append_bytes_max

    @property
    def failed(self) -> BaseException | None:
        """Why the log takes nothing more, ``None`` while it works."""
        return self._group.failed

    def term_at(self, index: int) -> int | None:
        """Return the term of entry ``index``, also if not yet durable; ``None`` outside.

        The base's term is known too.
        """
        return self._ahead.term_at(index)

    def entries(self, first: int, last: int, bytes_max: int) -> list[Entry]:
        """Return (index, term, kind, payload) from ``first`` to ``last``, both included.

        Stops once ``bytes_max`` of payload is reached; at least one entry is returned if
        ``first`` is there. Newest entries come from memory, older ones by reading, which
        blocks.

        Raises:
            TrimmedError: Definite. ``first`` is not kept any more.
            CorruptionError: The frame on disk does not match its checksum.
        """
        if first <= self._ahead.base[0]:
            start = self._ahead.base[0] + 1
            raise TrimmedError(f"entry {first} was trimmed; {start} is the first", first=start)
        last = min(last, self._ahead.last)
        left = max(1, bytes_max)
        cached = self._cache.first
        out: list[Entry] = []
        while first <= last and left > 0:
            if cached is not None and first >= cached:
                self._cache.get(first, last, left, out)
                break
            found = self._places.find(first)
            if found is None:
                break
            place, following = found
            end = last if following is None else min(last, following - 1)
            end = end if cached is None else min(end, cached - 1)
            for entry in resolve(self._reader.read(place), first, end):
                out.append(entry)
                left -= len(entry[3])
                if left <= 0:
                    break
            first = end + 1
        return out

    def oldest_write_ns(self, now_ns: int) -> int:
        """Return how long the oldest write has been under way, 0 if none is."""
        return self._group.oldest_write_ns(now_ns)

    # --- appending ---------------------------------------------------------------------------

    def append(self, runs: Sequence[Run]) -> "asyncio.Future[None]":
        """Append ``runs`` as one unit; the future resolves when they are durable.

        Order is kept. The view (``last``, ``term_at``, ``entries``) changes at once.

        Raises (from the future):
            DiskFullError: Definite; the view is as before. ``retry_after`` says when to ask
                again. Hard state alone is still taken.
            OverloadedError: Definite. ``queue_bytes_max`` is waiting already.
            ConfigError: Definite. Larger than ``append_bytes_max``.
            LogFailedError: Indefinite. A write or fsync failed; the log has failed for good.

        Raises:
            InvariantError: Entries leave a gap, or overwrite without a truncation.
        """
        size = 0
        for run in runs:
            size += run_size(run)
        group = self._group
        refusal = group.refusal(runs, size)
        if refusal is not None:
            return group.refuse(refusal)
        for at, run in enumerate(runs):
            if run.kind == RunKind.ENTRIES:
                count = len(run.payloads)
                self._ahead.extend(run.first, count, run.term)
                if count:
                    self._cache.add(run, size)
            elif run.kind in _REWINDS:
                runs = [*runs[:at], self._rewind(run), *runs[at + 1 :]]
        return group.put(runs, size)

    def _rewind(self, run: Run) -> Run:
        """Apply a truncation or reset to the view; return it as it is stored."""
        ahead = self._ahead
        if run.kind == RunKind.TRUNCATE:
            floor = run.first - 1
            run = Run(run.kind, run.first, ahead.term_at(floor) or 0, [])
            ahead.truncate(run.first, run.term)
            self._cache.truncate(run.first)
        else:
            floor = run.first
            ahead.reset(run.first, run.term)
            self._cache.clear()
        self._group.lower(floor)
        return run

    def _landed(self, done: Written) -> None:
        """A frame is durable: the written view and the places learn of it."""
        self._written.apply(done.runs)
        self._reader.segments.setdefault(done.segment.number, done.segment)
        place_frame(self._places, done.runs, done.segment.number, done.offset, done.length)

    def _rolled_back(self) -> None:
        """What waited was refused: back to what is written. Nothing is in flight."""
        self._ahead = self._written.copy()
        self._cache.clear()

    def _settled(self) -> None:
        if self._cache.over:
            self._cache.evict(min(self._written.last, self._group.floor))

    # --- trimming and ending -----------------------------------------------------------------

    def trim(self, before: int) -> int:
        """Permit dropping entries below ``before``; return the first still readable.

        Whole segments are dropped, in the background, never the one being written. Hard state
        and the term before the first entry kept live on in every segment's header.
        """
        before = min(before, self._group.floor, self._written.last + 1)
        newest = max(self._reader.segments)
        found = self._places.find(before) if before <= self._written.last else None
        keep = newest if before > self._written.last else found[0].segment if found else 0
        gone = sorted(number for number in self._reader.segments if number < keep)
        if gone and self.failed is None and not self._group.closing:
            self._places.drop_segments(keep)
            first = self._places.first()
            base = self._written.last if first is None else first - 1
            self._written.drop_through(base)
            self._ahead.drop_through(base)
            self._cache.drop_through(base)
            paths = [self._reader.forget(number).path for number in gone]
            oldest = self._reader.segments[keep].first_seq
            self._spawn_trim(oldest, paths)
        return self._ahead.base[0] + 1

    def _spawn_trim(self, oldest: int, paths: list[str]) -> None:
        trim = asyncio.ensure_future(self._drop(oldest, paths))
        self._trims[trim] = None
        trim.add_done_callback(self._dropped)

    async def _drop(self, oldest: int, paths: list[str]) -> None:
        run = self._world.offload.run
        await run(self._lane, lambda: self._writer.record(oldest=oldest))
        await run(f"{self._lane}-spare", partial(self._remove, paths))

    def _remove(self, paths: list[str]) -> None:
        """Remove segments that ``CURRENT`` no longer counts: after a crash the next open does."""
        for path in paths:
            self._world.storage.unlink(path)
        self._world.storage.fsync_dir(self._directory)

    def _dropped(self, trim: "asyncio.Future[None]") -> None:
        self._trims.pop(trim, None)
        error = error_of(trim)
        if error is not None:
            self._group.fail(error)

    async def close(self) -> None:
        """Wait for what was appended, seal the segment, unlock. Calling it again does nothing."""
        if self._group.closing:
            return
        self._group.closing = True
        if self._trims:  # or the next open would find what they are removing
            await asyncio.wait(list(self._trims))
        try:
            await self._group.close()
        finally:
            self._reader.close()
            self._lock.close()


def _abandon(attempt: "asyncio.Future[Opened]") -> None:
    """Undo an open whose caller was cancelled."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abandon()


async def check(world: World, directory: str) -> ScanReport:
    """Read the log in ``directory`` and report all damage; changes nothing.

    Raises:
        DataError: Definite. There is no log, or it is of a newer format.
    """
    report: ScanReport = await world.offload.run(
        f"check-{directory}", partial(check_log, world, directory)
    )
    return report
