"""Moves snapshots between replicas: chunks out, chunks in, install.

The core decides who is sent what and how far the window reaches; this file reads chunks beside
the loop, sends them on the bulk channel, hands received ones to the store in order, and tells
the core how far the receiver has got. What was received is kept by the store across restarts
and changes of leader, so a transfer goes on where it stopped.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from outlast.kernel import (
    ConfigError,
    LogIndex,
    OutlastError,
    ProtocolError,
    ReplicaId,
    TaskHandle,
    World,
)
from outlast.log.api import SnapshotRef, SnapshotSink, SnapshotStore
from outlast.log.engines.raft.core.types import (
    ChunkStored,
    InstallSnapshot,
    RaftEvent,
    ReceiveSnapshot,
    SendChunks,
    SnapshotFailed,
    SnapshotInstalled,
    SnapshotReady,
    Transfer,
)
from outlast.log.engines.raft.transport import (
    BULK_CHANNEL,
    Chunk,
    FrameKind,
    PeerTransport,
    decode_chunk,
    decode_gone,
    encode_chunk,
    encode_gone,
)

_LANE = "raft-snapshot"
_RETRY_SECONDS = 0.02
_RETRIES_MAX = 100
_QUEUED_CHUNKS_MAX = 64


class NoSnapshots:
    """A store that never has a snapshot: for a group whose log is never trimmed."""

    def latest(self) -> SnapshotRef | None:
        """Return ``None``."""
        return None

    def read_chunk(self, ref: SnapshotRef, number: int) -> bytes:
        """Raise ``FileNotFoundError``: there is none."""
        raise FileNotFoundError(f"snapshot {ref.index}: this replica keeps no snapshots")

    def receive(self, ref: SnapshotRef) -> SnapshotSink:
        """Raise :class:`ConfigError`: there is nowhere to put it."""
        raise ConfigError(
            f"a snapshot through {ref.index} was offered, but this log has no snapshot store; "
            "pass snapshots= to open"
        )

    async def install(self, ref: SnapshotRef) -> None:
        """Raise :class:`ConfigError`: there is nothing to install."""
        raise ConfigError(f"snapshot {ref.index}: this log has no snapshot store")


@dataclass(slots=True)
class _Sending:
    """Chunks on their way to one replica: ``next_chunk`` up to and with ``last``."""

    ref: SnapshotRef
    next_chunk: int
    last: int
    task: TaskHandle | None = None


@dataclass(slots=True)
class _Receiving:
    """The one snapshot that is being received, from whichever leader offers it."""

    ref: SnapshotRef
    sink: SnapshotSink
    queue: deque[Chunk] = field(default_factory=deque)
    writing: bool = False
    installing: bool = False


class SnapshotTransfers:
    """Carries out the core's transfers. Driven from the loop of its :class:`RaftLog`.

    Args:
        world: Clock, timers, tasks and threads.
        store: Where snapshots are kept.
        transport: Sends chunks.
        post: Hands an event to the core in a later turn of the loop, never at once.
        failed: Told of an error that is a bug or the end of the state; stops the engine.
    """

    def __init__(
        self,
        world: World,
        store: SnapshotStore,
        transport: PeerTransport,
        post: Callable[[RaftEvent], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._world = world
        self._store = store
        self._transport = transport
        self._post = post
        self._failed = failed
        self._sending: dict[ReplicaId, _Sending] = {}
        self._receiving: _Receiving | None = None
        self._known: SnapshotRef | None = store.latest()
        self._closed = False
        self.chunks_sent = 0
        self.chunks_received = 0

    @property
    def covered(self) -> LogIndex:
        """Index through which ``state`` has a snapshot, as the core was told; 0: none."""
        return LogIndex(0) if self._known is None else self._known.index

    def look(self) -> SnapshotReady | None:
        """Return the event for the core if ``state`` has made a newer snapshot."""
        latest = self._store.latest()
        if latest is None or latest == self._known:
            return None
        self._known = latest
        return SnapshotReady(latest)

    def carry_out(self, transfer: Transfer) -> None:
        """Start ``transfer``; what comes of it reaches the core as an event."""
        match transfer:
            case SendChunks(target, ref, first, last):
                self._send(target, ref, first, last)
            case ReceiveSnapshot(_, ref):
                self._receive(ref)
            case InstallSnapshot(ref):
                self._world.spawn.task(self._install(ref), name=f"raft-install-{ref.index}")

    def lost(self, replica: ReplicaId) -> None:
        """The bulk connection to ``replica`` is gone: what is under way would be lost."""
        sending = self._sending.pop(replica, None)
        if sending is not None and sending.task is not None:
            sending.task.cancel()

    def received(self, kind: int, body: bytes) -> None:
        """Take a frame of the bulk channel; a damaged chunk is dropped and asked for again."""
        receiving = self._receiving
        if receiving is None or receiving.installing:
            return
        if kind == FrameKind.CHUNK_GONE:
            gone = decode_gone(body)
            if (gone.index, gone.digest) == (receiving.ref.index, receiving.ref.digest):
                self._receiving = None
                self._post(SnapshotFailed(receiving.ref))
            return
        try:
            chunk = decode_chunk(body)
        except ProtocolError:
            self._post(ChunkStored(receiving.ref, receiving.sink.next_chunk))
            return
        if (chunk.index, chunk.digest) != (receiving.ref.index, receiving.ref.digest):
            return
        if len(receiving.queue) < _QUEUED_CHUNKS_MAX:
            receiving.queue.append(chunk)
        if not receiving.writing:
            receiving.writing = True
            self._world.spawn.task(self._write(receiving), name="raft-receive")

    def close(self) -> None:
        """Stop sending and receiving; what was stored stays for a later resumption."""
        self._closed = True
        for replica in list(self._sending):
            self.lost(replica)
        self._receiving = None

    # --- sending ---------------------------------------------------------------------------

    def _send(self, target: ReplicaId, ref: SnapshotRef, first: int, last: int) -> None:
        current = self._sending.get(target)
        if current is not None and current.ref == ref and current.task is not None:
            if current.next_chunk <= first <= current.last + 1:  # the window moved on
                current.last = max(current.last, last)
                return
            current.task.cancel()
        sending = self._sending[target] = _Sending(ref, first, last)
        sending.task = self._world.spawn.task(
            self._send_chunks(target, sending), name=f"raft-send-snapshot-{target}"
        )

    async def _send_chunks(self, target: ReplicaId, sending: _Sending) -> None:
        ref = sending.ref
        try:
            while sending.next_chunk <= sending.last and not self._closed:
                number = sending.next_chunk
                read = partial(self._store.read_chunk, ref, number)
                data = await self._world.offload.run(_LANE, read)
                self._world.fault_point("raft.before_send_chunk")
                body = encode_chunk(ref.index, ref.digest, number, data)
                if not await self._send_patiently(target, body):
                    return  # the core offers again when the peer is back
                self.chunks_sent += 1
                sending.next_chunk = max(sending.next_chunk, number + 1)
        except (OutlastError, OSError):
            # Damaged here or no longer kept: the receiver gives it up and is offered another.
            gone = encode_gone(ref.index, ref.digest)
            self._transport.send(target, BULK_CHANNEL, FrameKind.CHUNK_GONE, gone)
            self._post(SnapshotFailed(ref))
            newer = self.look()
            if newer is not None:
                self._post(newer)
        finally:
            if self._sending.get(target) is sending:
                del self._sending[target]

    async def _send_patiently(self, target: ReplicaId, body: bytes) -> bool:
        for _ in range(_RETRIES_MAX):
            if self._transport.send(target, BULK_CHANNEL, FrameKind.CHUNK, body):
                return True
            await self._world.timers.sleep(_RETRY_SECONDS)
        return False

    # --- receiving -------------------------------------------------------------------------

    def _receive(self, ref: SnapshotRef) -> None:
        receiving = self._receiving
        if receiving is None or receiving.ref != ref:
            try:
                sink = self._store.receive(ref)
            except (OutlastError, OSError) as error:
                self._failed(error)
                return
            self._receiving = receiving = _Receiving(ref, sink)
        if not receiving.installing and not receiving.writing:
            self._post(ChunkStored(ref, receiving.sink.next_chunk))

    async def _write(self, receiving: _Receiving) -> None:
        ref, sink, queue = receiving.ref, receiving.sink, receiving.queue
        try:
            while queue and self._receiving is receiving:
                chunk = queue.popleft()
                if chunk.number == sink.next_chunk:
                    await sink.write(chunk.number, chunk.data)
                    self._world.fault_point("raft.after_store_chunk")
                    self.chunks_received += 1
                if not queue or chunk.number + 1 == ref.chunk_count:
                    self._post(ChunkStored(ref, sink.next_chunk))
        except (OutlastError, OSError):
            if self._receiving is receiving:
                self._receiving = None
                self._post(SnapshotFailed(ref))
        finally:
            receiving.writing = False

    async def _install(self, ref: SnapshotRef) -> None:
        receiving = self._receiving
        if receiving is None or receiving.ref != ref or receiving.installing:
            return
        receiving.installing = True
        try:
            await receiving.sink.finish()
        except (OutlastError, OSError):
            await receiving.sink.abandon()
            self._receiving = None
            self._post(SnapshotFailed(ref))
            return
        try:
            await self._store.install(ref)
        except Exception as error:
            # The state may be half replaced: nothing here can put it right.
            self._failed(error)
            return
        if self._closed:
            return
        self._known = self._store.latest()
        self._receiving = None
        self._post(SnapshotInstalled(ref))
