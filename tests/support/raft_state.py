"""A SnapshotStore in memory, with the state it snapshots: every entry read so far.

``Kept`` is the disk: what is in it survives a crash of the replica. Chunks are small, so that
short logs give many of them.
"""

import asyncio
import hashlib
from dataclasses import dataclass, field

import msgspec

from outlast.kernel import CorruptionError, LogIndex, ProtocolError, Term, TrimmedError
from outlast.log.api import SnapshotRef
from outlast.log.engines.raft import RaftLog

State = dict[int, bytes]


@dataclass
class Kept:
    """What is durable: complete snapshots by ref, and the one being received."""

    chunk_bytes: int = 4096
    snapshots: dict[SnapshotRef, list[bytes]] = field(default_factory=dict)
    partial: tuple[SnapshotRef, list[bytes]] | None = None
    stored: list[int] = field(default_factory=list)
    """Numbers of all chunks ever stored, in order: resumption is seen here."""


class KeptState:
    """State and snapshot store of one run of a replica."""

    def __init__(self, kept: Kept, *, always: bool = False) -> None:
        self.kept = kept
        self.always = always
        self.log: RaftLog | None = None
        self.entries: State = {}
        self.applied = 0
        self.installed: list[int] = []
        self.moved = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        latest = self.latest()
        if latest is not None:
            self._load(latest)

    def start(self, log: RaftLog) -> None:
        self.log = log
        self.task = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        log = self.log
        assert log is not None
        reader = log.read(LogIndex(self.applied + 1))
        while True:
            try:
                batch = await anext(reader)
            except TrimmedError:
                # A snapshot is being installed, or was.
                await self.moved.wait()
                self.moved.clear()
                reader = log.read(LogIndex(self.applied + 1))
                continue
            except StopAsyncIteration:
                return
            if batch.first <= self.applied:
                reader = log.read(LogIndex(self.applied + 1))
                continue
            for index, entry in enumerate(batch.entries, batch.first):
                self.entries[index] = entry
            self.applied = batch.through

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    def take(self) -> SnapshotRef:
        """Snapshot the state now."""
        assert self.log is not None
        body = msgspec.msgpack.encode(self.entries)
        size = self.kept.chunk_bytes
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        digest = hashlib.sha256(body).digest()
        term = Term(self.log.term_at(LogIndex(self.applied)) or 0)
        ref = SnapshotRef(LogIndex(self.applied), term, len(body), digest, len(chunks))
        self.kept.snapshots[ref] = chunks
        return ref

    def _load(self, ref: SnapshotRef) -> None:
        body = b"".join(self.kept.snapshots[ref])
        self.entries = msgspec.msgpack.decode(body, type=dict[int, bytes])
        self.applied = ref.index

    # --- SnapshotStore ---------------------------------------------------------------------

    def latest(self) -> SnapshotRef | None:
        if self.always and self.log is not None and self.log.through > 0:
            index = self.log.through
            return SnapshotRef(index, Term(self.log.term_at(index) or 0), 1, b"", 1)
        return max(self.kept.snapshots, key=lambda ref: ref.index, default=None)

    def read_chunk(self, ref: SnapshotRef, number: int) -> bytes:
        if ref not in self.kept.snapshots:
            raise FileNotFoundError(f"snapshot {ref.index} is gone")
        return self.kept.snapshots[ref][number]

    def receive(self, ref: SnapshotRef) -> "KeptSink":
        if self.kept.partial is None or self.kept.partial[0] != ref:
            self.kept.partial = (ref, [])
        return KeptSink(self, ref, self.kept.partial[1])

    async def install(self, ref: SnapshotRef) -> None:
        self._load(ref)
        self.installed.append(ref.index)
        self.moved.set()


class KeptSink:
    def __init__(self, state: KeptState, ref: SnapshotRef, chunks: list[bytes]) -> None:
        self.state = state
        self.ref = ref
        self.chunks = chunks

    @property
    def next_chunk(self) -> int:
        return len(self.chunks)

    async def write(self, number: int, chunk: bytes) -> None:
        await asyncio.sleep(0)
        if number != len(self.chunks):
            raise ProtocolError(f"chunk {number}, wanted {len(self.chunks)}")
        self.chunks.append(chunk)
        self.state.kept.stored.append(number)

    async def finish(self) -> SnapshotRef:
        body = b"".join(self.chunks)
        if hashlib.sha256(body).digest() != self.ref.digest:
            raise CorruptionError("the received snapshot does not match its digest")
        self.state.kept.snapshots[self.ref] = self.chunks
        self.state.kept.partial = None
        return self.ref

    async def abandon(self) -> None:
        self.state.kept.partial = None
