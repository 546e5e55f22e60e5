"""Writes checkpoints while commands go on, and lets the log go below verified ones."""

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import dataclass

from outlast.kernel import CorruptionError, DataError, LogIndex, OutlastError, Term, World
from outlast.log import Log, SnapshotRef
from outlast.state.core.stream import Cutter, frames, make_head, read_head
from outlast.state.core.system import SystemMachine, SystemState
from outlast.state.events import SnapshotFailed, SnapshotLoaded, SnapshotTaken
from outlast.state.machine import StateMachine
from outlast.state.runner import Runner
from outlast.state.snapshot_store import DiskSnapshotStore

_NS = 1_000_000_000


class Snapshotter:
    """Cuts, writes and loads the checkpoints of one replica.

    The cut itself is one short step between two entries: the system machine is encoded, the
    user's machine begins to keep old values of what commands change. The rest is written in
    slices, each followed by a turn of the event loop.
    """

    def __init__(
        self,
        world: World,
        log: Log,
        system: SystemMachine,
        runner: Runner,
        store: DiskSnapshotStore,
        *,
        cluster: str,
    ) -> None:
        self._world = world
        self._log = log
        self._system = system
        self._runner = runner
        self._store = store
        self._cluster = cluster
        self._waiting: list[asyncio.Future[None]] = []
        self._failure: BaseException | None = None
        self._busy = False
        self.missed_count = 0

    def is_busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._busy

    def cut(self) -> None:
        """Cut a checkpoint here; left out if the one before is still being written."""
        index = LogIndex(self._system.index)
        if self._busy:
            self.missed_count += 1
            return
        if any(ref.index == index for ref in self._store.refs()):
            return  # replayed after an older snapshot was used: this one is whole already
        self._busy = True
        spec = self._runner.spec
        head = make_head(
            cluster=self._cluster,
            machine=spec.name,
            machine_version=spec.version,
            schema=spec.schema,
            index=index,
        )
        term_at = getattr(self._log, "term_at", None)
        term = Term(int(term_at(index) or 0) if term_at is not None else 0)
        first = [head, self._system.dump()]
        self._world.spawn.task(
            self._write(index, term, first, self._runner.checkpoint()), name="state-checkpoint"
        )

    async def finished(self) -> BaseException | None:
        """Wait for the checkpoint under way; return why the last one failed, or ``None``."""
        while self._busy:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        return self._failure

    async def _write(
        self, index: LogIndex, term: Term, first: list[bytes], steps: Iterator[bytes]
    ) -> None:
        begun_ns = self._world.clock.monotonic_ns()
        writer = self._store.begin(index, term)
        failure: BaseException | None = None
        try:
            cutter = Cutter()
            for frame in _chain(first, steps):
                for chunk in cutter.add(frame):
                    await writer.add(chunk)
                await self._world.timers.sleep(0)
            for chunk in cutter.finish():
                await writer.add(chunk)
            ref = await writer.publish()
            seconds = (self._world.clock.monotonic_ns() - begun_ns) / _NS
            self._world.events.emit(
                SnapshotTaken(
                    index=ref.index,
                    size_bytes=ref.size_bytes,
                    chunk_count=ref.chunk_count,
                    seconds=seconds,
                )
            )
            await self.trim()
        except (OutlastError, OSError) as error:
            failure = error
            await writer.abandon()
            self._world.events.emit(SnapshotFailed(index=index, reason=str(error)))
        finally:
            close = getattr(steps, "close", None)
            if close is not None:
                close()
            self._busy = False
            self._failure = failure
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def trim(self) -> None:
        """Let the log go below the oldest of the snapshots that are to be kept."""
        refs = self._store.refs()
        if len(refs) >= self._store.keep:
            await self._log.trim(LogIndex(refs[0].index + 1))

    # --- loading -----------------------------------------------------------------------------

    def read_newest(self, without: int = 0) -> "Loaded | None":
        """Read the newest snapshot that is whole (blocking); ``None`` if there is none.

        Damaged ones are set aside by name and the one before is used. So are those that hold
        what the entry ``without`` did, which the others agreed to skip.
        """
        for ref in reversed(self._store.refs()):
            try:
                loaded = self.read(ref)
            except CorruptionError as error:
                self._store.set_aside(ref, str(error))
                continue
            if without and ref.index >= without and without not in loaded.system.skipped:
                self._store.set_aside(ref, f"it executed entry {without}, which is skipped")
                continue
            return loaded
        return None

    def tell(self) -> None:
        """Emit what reading beside the loop had to say; on the loop."""
        self._store.tell()

    def read(self, ref: SnapshotRef) -> "Loaded":
        """Read and decode ``ref`` (blocking); the state here stays, and may be read meanwhile.

        Raises:
            CorruptionError: It is damaged.
            DataError: It is of another cluster, machine or schema, or of a newer version.
        """
        begun_ns = self._world.clock.monotonic_ns()
        parts = frames(self._store.chunks(ref))
        head_frame, system_frame = next(parts, None), next(parts, None)
        if head_frame is None or system_frame is None:
            raise CorruptionError(f"snapshot {ref.index}: it ends before the machine's state")
        spec = self._runner.spec
        head = read_head(head_frame, cluster=self._cluster, machine=spec.name)
        if head.index != ref.index:
            raise DataError(f"snapshot {ref.index}: its head says index {head.index}")
        was_on = gc.isenabled()
        gc.disable()
        try:
            machine = self._runner.read(parts, version=head.machine_version, schema=head.schema)
            system = self._system.read(system_frame)
        finally:
            if was_on:
                gc.enable()
        seconds = (self._world.clock.monotonic_ns() - begun_ns) / _NS
        return Loaded(ref, system, machine, seconds)

    def adopt(self, loaded: "Loaded") -> None:
        """Replace both machines in one step; on the loop, where queries run between steps."""
        self._runner.adopt(loaded.machine)
        self._system.adopt(loaded.system)
        # What was loaded lives long: the collector need not walk it again and again.
        gc.freeze()
        ref = loaded.ref
        self._store.later(
            SnapshotLoaded(index=ref.index, size_bytes=ref.size_bytes, seconds=loaded.seconds)
        )
        self._store.tell()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A snapshot that was read: both machines, which nothing uses yet, and how long it took."""

    ref: SnapshotRef
    system: SystemState
    machine: StateMachine
    seconds: float


def _chain(first: list[bytes], steps: Iterator[bytes]) -> Iterator[bytes]:
    yield from first
    yield from steps


__all__ = ["Snapshotter"]
