"""Snapshots of one replica as files: written, made durable, named, read back.

Layout of the directory::

    00000000000000001024/           one snapshot, by its index; "-" and digest if received
        chunk-000000 …              BLAKE2b of the chunk (16 bytes), then the chunk (≤ 1 MiB)
        MANIFEST                    what it is, checksums of all chunks, its own checksum

A snapshot counts once it has a file named ``MANIFEST``, which is renamed to that name after
every chunk, the manifest and the directory are durable. Then all of it is read back past the
page cache, and only after that may the log be trimmed. Two are kept, and the log from the
older one, so that one damaged snapshot costs time and not data. A damaged one keeps its files
under ``MANIFEST.bad``. What was received in part stays, and is gone on with.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from outlast.kernel import (
    ConfigError,
    CorruptionError,
    DataError,
    Event,
    File,
    InvariantError,
    LogIndex,
    ProtocolError,
    Term,
    World,
)
from outlast.log import SnapshotRef
from outlast.state.core.stream import CHUNK_BYTES
from outlast.state.events import SnapshotRefused

_LANE = "snapshot"
_SUM_BYTES = 16
_DIGEST_BYTES = 32
_FORMAT = 1
_MANIFEST = "MANIFEST"
_UNNAMED = "MANIFEST.new"
_BAD = "MANIFEST.bad"

_encode = msgspec.msgpack.Encoder().encode


class Manifest(msgspec.Struct, array_like=True):
    """What a snapshot's directory holds."""

    format: int
    index: int
    term: int
    size_bytes: int
    digest: bytes
    sums: list[bytes]

    @property
    def ref(self) -> SnapshotRef:
        """The reference by which engines know it."""
        index, term = LogIndex(self.index), Term(self.term)
        return SnapshotRef(index, term, self.size_bytes, self.digest, len(self.sums))


@dataclass(frozen=True, slots=True)
class _Kept:
    """A published snapshot and the name of its directory."""

    manifest: Manifest
    name: str


def chunk_sum(chunk: bytes) -> bytes:
    """Return the checksum that stands in front of a chunk on disk."""
    return blake2b(chunk, digest_size=_SUM_BYTES).digest()


def digest_of(sums: list[bytes]) -> bytes:
    """Return a snapshot's digest from the checksums of its chunks."""
    return blake2b(b"".join(sums), digest_size=_DIGEST_BYTES).digest()


class DiskSnapshotStore:
    """A :class:`outlast.log.SnapshotStore` in a directory. Driven from one event loop.

    Args:
        world: Storage, and a thread beside the loop for blocking calls.
        directory: Made if missing.
        keep: How many verified snapshots to keep, 2 or more.

    Raises:
        ConfigError: ``keep`` is below 2: one damaged file would then lose the state.
    """

    def __init__(self, world: World, directory: str, keep: int = 2) -> None:
        if keep < 2:
            raise ConfigError(f"snapshots kept: {keep}; it must be 2 or more")
        self.directory = directory
        self.keep = keep
        self.installer: Callable[[SnapshotRef], Awaitable[None]] | None = None
        """Set by the replica: replaces its state by a received snapshot."""
        self._world = world
        self._storage = world.storage
        self._found: dict[SnapshotRef, _Kept] | None = None
        self._events: list[Event] = []

    # --- what engines use --------------------------------------------------------------------

    def latest(self) -> SnapshotRef | None:
        """Return the newest verified snapshot; reads the directory on first use (blocking)."""
        refs = self.refs()
        return refs[-1] if refs else None

    def read_chunk(self, ref: SnapshotRef, number: int) -> bytes:
        """Return chunk ``number`` of ``ref`` (blocking).

        Raises:
            CorruptionError: The chunk does not match its checksum.
            FileNotFoundError: ``ref`` is no longer kept.
        """
        kept = self._manifests().get(ref)
        if kept is None:
            raise FileNotFoundError(f"snapshot {ref.index} is no longer kept here")
        return self._read(self.path(kept.name), number, kept.manifest.sums[number])

    def receive(self, ref: SnapshotRef) -> "DiskSink":
        """Begin or resume receiving ``ref``; what was received of another is forgotten."""
        return DiskSink(self._world, self, ref)

    async def install(self, ref: SnapshotRef) -> None:
        """Let the replica take the state of ``ref``.

        Without a replica (it has not started yet) nothing is to be done: it begins with the
        newest snapshot.
        """
        if self.installer is not None:
            await self.installer(ref)

    # --- what the replica uses ---------------------------------------------------------------

    async def open(self) -> None:
        """Read the directory and verify the newest snapshot, setting damaged ones aside.

        Raises:
            OSError: One could not be read; it is not taken for damaged, and no other is used.
        """
        await self._world.offload.run(_LANE, self._manifests)
        self.tell()

    def refs(self) -> list[SnapshotRef]:
        """Return the snapshots that are kept, oldest first."""
        return sorted(self._manifests(), key=_order)

    def chunks(self, ref: SnapshotRef) -> Iterator[bytes]:
        """Yield the chunks of ``ref`` (blocking); errors as :meth:`read_chunk`."""
        return (self.read_chunk(ref, number) for number in range(ref.chunk_count))

    def begin(self, index: LogIndex, term: Term) -> "SnapshotWriter":
        """Begin writing the snapshot of the state through ``index``."""
        return SnapshotWriter(self._world, self, index, term)

    def later(self, event: Event) -> None:
        """Keep an event that was found beside the loop until :meth:`tell`."""
        self._events.append(event)

    def tell(self) -> None:
        """Emit the events kept so far; on the loop."""
        events, self._events = self._events, []
        for event in events:
            self._world.events.emit(event)

    def path(self, name: str) -> str:
        """Return the path of a snapshot's directory."""
        return f"{self.directory}/{name}"

    def set_aside(self, ref: SnapshotRef, reason: str) -> None:
        """Stop using a damaged snapshot; its files stay, without their name (blocking)."""
        kept = self._manifests().get(ref)
        self._found = {r: k for r, k in self._manifests().items() if r != ref}
        if kept is not None:
            self._set_aside(kept.name, reason)

    def publish(self, name: str, manifest: Manifest) -> SnapshotRef:
        """Give the chunks in ``name`` their manifest, read all back, and count it (blocking).

        Raises:
            CorruptionError: What was read back is not what was written; it is set aside.
        """
        path = self.path(name)
        body = _encode(manifest)
        self._write_file(f"{path}/{_UNNAMED}", chunk_sum(body) + body)
        self._storage.fsync_dir(path)
        self._world.fault_point("snapshot.before_rename")
        self._storage.rename(f"{path}/{_UNNAMED}", f"{path}/{_MANIFEST}")
        self._storage.fsync_dir(path)
        self._world.fault_point("snapshot.before_verify")
        try:
            self.verify(name, manifest)
        except CorruptionError as error:
            self._set_aside(name, str(error))
            raise
        return self._count(name, manifest)

    def verify(self, name: str, manifest: Manifest) -> None:
        """Read everything back from the disk, not from the page cache (blocking).

        Raises:
            CorruptionError: A chunk or the manifest is not what it should be.
        """
        path = self.path(name)
        if self._read_manifest(path) != manifest:
            raise CorruptionError("the manifest differs from what was written", file=path)
        for number, expected in enumerate(manifest.sums):
            self._read(path, number, expected, cold=True)

    def _count(self, name: str, manifest: Manifest) -> SnapshotRef:
        """Add a published snapshot, and remove the oldest beyond those to keep."""
        found = {**self._manifests(), manifest.ref: _Kept(manifest, name)}
        old = sorted(found, key=_order)[: -self.keep]
        # A new dict, as the event loop may be reading the one before.
        self._found = {ref: kept for ref, kept in found.items() if ref not in old}
        for ref in old:
            self._remove(found[ref].name)
        return manifest.ref

    def write_chunk(self, path: str, number: int, chunk: bytes) -> bytes:
        """Write one chunk durably (not yet its name) and return its checksum (blocking)."""
        if len(chunk) > CHUNK_BYTES:
            raise InvariantError(f"a chunk of {len(chunk)} bytes; at most {CHUNK_BYTES}")
        total = chunk_sum(chunk)
        self._write_file(_chunk_path(path, number), total + chunk)
        return total

    # --- files -------------------------------------------------------------------------------

    def _manifests(self) -> dict[SnapshotRef, _Kept]:
        """Read the directory once: leftovers go, damaged snapshots are set aside."""
        if self._found is not None:
            return self._found
        self._storage.makedirs(self.directory)
        found: dict[SnapshotRef, _Kept] = {}
        verified = False
        for name in reversed(self._storage.listdir(self.directory)):
            if not name[:1].isdigit():
                continue
            path = self.path(name)
            if not self._storage.exists(f"{path}/{_MANIFEST}"):
                if "-" not in name and not self._storage.exists(f"{path}/{_BAD}"):
                    self._storage.rmtree(path)
                continue
            try:
                manifest = self._read_manifest(path)
                if not verified:
                    self.verify(name, manifest)
                    verified = True
            except CorruptionError as error:
                self._set_aside(name, str(error))
                continue
            except OSError as error:
                # Says nothing about what is on the disk: the snapshot may well be whole.
                message = f"{error.strerror or error}, while snapshot {name} was read; it is kept"
                raise OSError(error.errno, message, error.filename or path) from error
            found[manifest.ref] = _Kept(manifest, name)
        self._found = found
        return found

    def _set_aside(self, name: str, reason: str) -> None:
        path = self.path(name)
        if self._storage.exists(f"{path}/{_MANIFEST}"):
            self._storage.rename(f"{path}/{_MANIFEST}", f"{path}/{_BAD}")
            self._storage.fsync_dir(path)
        self.later(SnapshotRefused(name=name, reason=reason))

    def _remove(self, name: str) -> None:
        """Remove a snapshot; first its name, as the rest may stay behind a crash."""
        path = self.path(name)
        self._storage.unlink(f"{path}/{_MANIFEST}")
        self._storage.fsync_dir(path)
        self._storage.rmtree(path)
        self._storage.fsync_dir(self.directory)

    def _read_manifest(self, path: str) -> Manifest:
        body = self._read_sum(f"{path}/{_MANIFEST}", None, cold=True)
        try:
            manifest = msgspec.msgpack.decode(body, type=Manifest)
        except msgspec.MsgspecError as error:
            raise CorruptionError(f"no manifest: {error}", file=path) from error
        if manifest.format > _FORMAT:
            raise DataError(
                f"{path}: format {manifest.format} is newer than this version of outlast reads"
                f" ({_FORMAT}): upgrade outlast on this machine"
            )
        if digest_of(manifest.sums) != manifest.digest:
            raise CorruptionError("the manifest's digest is not that of its chunks", file=path)
        return manifest

    def _read(self, path: str, number: int, expected: bytes, *, cold: bool = False) -> bytes:
        return self._read_sum(_chunk_path(path, number), expected, cold=cold)

    def _read_sum(self, path: str, expected: bytes | None, *, cold: bool) -> bytes:
        try:
            file = self._storage.open(path, write=False)
        except FileNotFoundError as error:
            raise CorruptionError(f"{path} is missing", file=path) from error
        try:
            if cold:
                file.drop_cache()
            data = file.pread(file.size(), 0)
        finally:
            file.close()
        total, body = data[:_SUM_BYTES], data[_SUM_BYTES:]
        if chunk_sum(body) != total or expected not in {None, total}:
            message = f"{path}: checksum {chunk_sum(body).hex()}, expected {total.hex()}"
            raise CorruptionError(message, file=path)
        return body

    def _write_file(self, path: str, data: bytes) -> None:
        file = self._storage.open(path, create=True)
        try:
            file.truncate(0)
            file.pwrite(data, 0)
            self._world.fault_point("snapshot.before_fsync")
            self._sync(file)
        finally:
            file.close()

    def _sync(self, file: File) -> None:
        file.fsync()


class SnapshotWriter:
    """Writes one snapshot, chunk by chunk, and publishes it whole or not at all."""

    def __init__(
        self, world: World, store: DiskSnapshotStore, index: LogIndex, term: Term
    ) -> None:
        self._world = world
        self._store = store
        self._index = index
        self._term = term
        self._name = f"{index:020d}"
        self._path = store.path(self._name)
        self._sums: list[bytes] = []
        self._size = 0

    async def add(self, chunk: bytes) -> None:
        """Write the next chunk; durable on return.

        Raises:
            OSError: The disk refused; :meth:`abandon` and try again later.
        """
        number = len(self._sums)
        self._sums.append(await self._world.offload.run(_LANE, lambda: self._add(number, chunk)))
        self._size += len(chunk)

    async def publish(self) -> SnapshotRef:
        """Give the snapshot its name, read it back, and return it.

        Raises:
            CorruptionError: It did not read back as written; it was set aside.
            OSError: The disk refused.
        """
        manifest = Manifest(
            _FORMAT, self._index, self._term, self._size, digest_of(self._sums), self._sums
        )
        try:
            return await self._world.offload.run(
                _LANE, lambda: self._store.publish(self._name, manifest)
            )
        finally:
            self._store.tell()

    async def abandon(self) -> None:
        """Remove what was written; a damaged one that was set aside stays."""
        await self._world.offload.run(_LANE, self._abandon)

    def _abandon(self) -> None:
        if not self._world.storage.exists(f"{self._path}/{_BAD}"):
            self._world.storage.rmtree(self._path)

    def _add(self, number: int, chunk: bytes) -> bytes:
        if number == 0:
            self._world.storage.rmtree(self._path)
            self._world.storage.makedirs(self._path)
        return self._store.write_chunk(self._path, number, chunk)


class DiskSink:
    """Receives one snapshot; chunks that are durably here survive a restart of either side."""

    def __init__(self, world: World, store: DiskSnapshotStore, ref: SnapshotRef) -> None:
        self._world = world
        self._store = store
        self._ref = ref
        self._name = _received_name(ref)
        self._path = store.path(self._name)
        storage = world.storage
        storage.makedirs(store.directory)
        for name in storage.listdir(store.directory):
            other = store.path(name)
            if "-" in name and name != self._name and not _named(world, other):
                storage.rmtree(other)
        storage.makedirs(self._path)
        held = dict.fromkeys(storage.listdir(self._path))
        self._next = 0
        while _chunk_name(self._next) in held:
            self._next += 1

    @property
    def next_chunk(self) -> int:
        """Number of the first chunk not yet durably held, from 0."""
        return self._next

    async def write(self, number: int, chunk: bytes) -> None:
        """Keep chunk ``number``; durable on return.

        Raises:
            ProtocolError: Definite. Not :attr:`next_chunk`, or too large; it was not kept.
        """
        if number != self._next or number >= self._ref.chunk_count or len(chunk) > CHUNK_BYTES:
            raise ProtocolError(
                f"snapshot {self._ref.index}: chunk {number} of {len(chunk)} bytes; expected "
                f"chunk {self._next} of {self._ref.chunk_count}, at most {CHUNK_BYTES} bytes"
            )
        await self._world.offload.run(_LANE, lambda: self._write(number, chunk))
        self._next = number + 1

    async def finish(self) -> SnapshotRef:
        """Verify the whole, publish it atomically, and return it.

        Raises:
            ProtocolError: Definite. Chunks are missing.
            CorruptionError: The chunks are not those of the snapshot that was announced.
        """
        if self._next != self._ref.chunk_count:
            raise ProtocolError(
                f"snapshot {self._ref.index}: {self._next} of {self._ref.chunk_count} chunks"
            )
        try:
            return await self._world.offload.run(_LANE, self._finish)
        finally:
            self._store.tell()

    async def abandon(self) -> None:
        """Forget what was received; no effect once it is published."""
        if not _named(self._world, self._path):
            path = self._path
            await self._world.offload.run(_LANE, lambda: self._world.storage.rmtree(path))
            await self._world.offload.run(_LANE, lambda: self._world.storage.makedirs(path))
        self._next = 0

    def _write(self, number: int, chunk: bytes) -> None:
        """Write under another name first: a chunk's name says that all of it is durable."""
        storage = self._world.storage
        final = _chunk_path(self._path, number)
        aside = f"{self._path}/part"
        self._store._write_file(aside, chunk_sum(chunk) + chunk)
        storage.rename(aside, final)
        storage.fsync_dir(self._path)

    def _finish(self) -> SnapshotRef:
        sums = []
        size = 0
        for number in range(self._ref.chunk_count):
            chunk = self._store._read_sum(_chunk_path(self._path, number), None, cold=False)
            sums.append(chunk_sum(chunk))
            size += len(chunk)
        ref = self._ref
        if digest_of(sums) != ref.digest or size != ref.size_bytes:
            raise CorruptionError(
                f"snapshot {ref.index}: received digest {digest_of(sums).hex()} over {size} "
                f"bytes, expected {ref.digest.hex()} over {ref.size_bytes}",
                file=self._path,
            )
        manifest = Manifest(_FORMAT, ref.index, ref.term, size, ref.digest, sums)
        return self._store.publish(self._name, manifest)


def _order(ref: SnapshotRef) -> tuple[int, bytes]:
    return ref.index, ref.digest


def _received_name(ref: SnapshotRef) -> str:
    return f"{ref.index:020d}-{ref.digest[:8].hex()}"


def _named(world: World, path: str) -> bool:
    return world.storage.exists(f"{path}/{_MANIFEST}")


def _chunk_name(number: int) -> str:
    return f"chunk-{number:06d}"


def _chunk_path(path: str, number: int) -> str:
    return f"{path}/{_chunk_name(number)}"
