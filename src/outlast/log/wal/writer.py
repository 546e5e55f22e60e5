"""The disk side of the log: segments, frames, seals and ``CURRENT``. All of it blocks.

Everything here runs on one offload lane, one call at a time, so nothing is locked. After an
``OSError`` the object is not used again: a failed fsync is never repeated, because the kernel
has by then forgotten which pages were bad (fsyncgate; Rebello et al., ATC 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from outlast.kernel import File, InvariantError, Prng, World
from outlast.log.wal.core.current import (
    CURRENT_BYTES,
    HINT_SLOT,
    SLOT_BYTES,
    Current,
    encode_slot,
)
from outlast.log.wal.core.frame import (
    FLAG_MARK,
    FLAG_SEAL,
    HEADER_BYTES,
    encode_frame,
    frame_size,
)
from outlast.log.wal.core.runs import Run, StoredRun, encode_runs, merge, span
from outlast.log.wal.core.segment import (
    ROW_BYTES,
    SEGMENT_HEADER_BYTES,
    FooterIndex,
    SegmentHeader,
    encode_segment_header,
    segment_name,
)
from outlast.log.wal.core.view import View
from outlast.log.wal.recovery import CURRENT, SegmentInfo
from outlast.log.wal.settings import WalIdentity

SEAL_BYTES = 64
"""Upper bound of what a seal's body holds beside its rows."""


@dataclass(frozen=True, slots=True)
class Spare:
    """A file of zeros on disk, ready to become a segment."""

    file: File
    size: int


@dataclass(frozen=True, slots=True)
class Written:
    """A frame that is durable: its runs, and where it lies."""

    runs: list[StoredRun]
    segment: SegmentInfo
    offset: int
    length: int


class SegmentWriter:
    """Writes frames into the newest segment. One call at a time, from any one lane."""

    def __init__(
        self, world: World, directory: str, current: Current, *, next_seq: int, chain: bytes,
        number: int, fsync: bool, reserve_bytes: int, prng: Prng,
    ) -> None:  # fmt: skip
        self._world = world
        self._prng = prng
        self._directory = directory
        self._current = current
        self._slots: File | None = None
        self._file: File | None = None
        self._fsync = fsync
        self._reserve = reserve_bytes
        self._number = number
        self._seed = 0
        self._size = 0
        self._offset = 0
        self._index = FooterIndex()
        self._chain = chain
        self.next_seq = next_seq
        self.durable = next_seq - 1
        self.info: SegmentInfo | None = None
        self.sync_count = 0
        self.bytes_written = 0

    def room(self, *, hard_state: bool = False) -> int:
        """Return the bytes that one more frame may take in this segment.

        What a seal needs is kept back; so is the reserve, except for hard state.
        """
        if self._file is None:
            return 0
        seal = frame_size(SEAL_BYTES + ROW_BYTES * (self._index.count + 2))
        kept = 0 if hard_state else self._reserve
        return self._size - self._offset - seal - kept

    def write(self, runs: Sequence[Run]) -> Written:
        """Write ``runs`` as one frame and make it durable."""
        stored = merge(runs)
        body = encode_runs(stored)
        offset = self._put(body, 0, span(stored))
        return Written(stored, self._segment(), offset, len(body))

    def _segment(self) -> SegmentInfo:
        if self.info is None:
            raise InvariantError("a frame was written without a segment")
        return self.info

    def mark(self) -> None:
        """Write an empty frame that testifies for the one before, and leave a hint."""
        self._put(b"", FLAG_MARK, (0, 0, 0, 0))
        if self._slots is not None:
            hint = msgspec.structs.replace(self._current, durable=self.durable)
            self._slots.pwrite(encode_slot(hint)[0], HINT_SLOT * SLOT_BYTES)

    def _put(self, body: bytes, flags: int, extent: tuple[int, int, int, int]) -> int:
        file, offset = self._file, self._offset
        if file is None:
            raise InvariantError("a frame was written without a segment")
        world, seq = self._world, self.next_seq
        data, body_crc = encode_frame(
            body, self._seed, seq=seq, durable=self.durable, flags=flags, span=extent
        )
        world.fault_point("wal.before_write")
        file.pwrite(data, offset)
        world.fault_point("wal.after_write")
        if self._fsync:
            world.fault_point("wal.before_fsync")
            file.fdatasync()
            self.sync_count += 1
            world.fault_point("wal.after_fsync")
        self._index.add(offset, body_crc, extent[0], extent[2])
        self._offset = offset + len(data)
        self.bytes_written += len(data)
        if self._fsync:
            self.durable = seq
        self.next_seq = seq + 1
        return offset

    def switch(self, spare: Spare, state: View, identity: WalIdentity) -> None:
        """Seal the segment and go on in ``spare``, whose header repeats ``state``."""
        self.seal()
        incarnation, seq = self._current.incarnation, self.next_seq
        term, vote = state.hard
        header = SegmentHeader(
            uuid=self._prng.bytes(16), cluster=identity.cluster, log=identity.log,
            replica=identity.replica, incarnation=incarnation, first_seq=seq, chain=self._chain,
            last_index=state.last, last_term=state.last_term, term=term, vote=vote or "",
        )  # fmt: skip
        path = f"{self._directory}/{segment_name(seq, incarnation)}"
        spare.file.pwrite(encode_segment_header(header), 0)
        spare.file.fsync()
        self._world.storage.rename(spare.file.path, path)
        self._world.storage.fsync_dir(self._directory)
        self._file, self._size, self._offset = spare.file, spare.size, SEGMENT_HEADER_BYTES
        self._index, self._seed = FooterIndex(), header.seed
        self.info = SegmentInfo(self._number, path, seq, header.seed)
        self._number += 1
        self.sync_count += 2
        self.record(newest=seq)

    def seal(self) -> None:
        """End the segment: footer, cut to size, fsync. Nothing happens without one."""
        file = self._file
        if file is None:
            return
        digest = self._index.digest(self._chain)
        self._put(self._index.encode(self._chain), FLAG_SEAL, (0, 0, 0, 0))
        file.truncate(self._offset)
        file.fsync()
        file.close()
        self.sync_count += 1
        self.durable = self.next_seq - 1
        self._file, self._chain = None, digest

    def adopt(
        self, file: File, info: SegmentInfo, *, offset: int, size: int, index: FooterIndex,
    ) -> None:  # fmt: skip
        """Take over a predecessor's segment, only to seal it."""
        self._file, self.info, self._seed = file, info, info.seed
        self._offset, self._size, self._index = offset, size, index

    def record(self, *, newest: int | None = None, oldest: int | None = None) -> None:
        """Write the next slot of ``CURRENT`` durably; creates the file."""
        world, path = self._world, f"{self._directory}/{CURRENT}"
        if self._slots is None:
            self._slots = world.storage.open(path, create=True)
            if not self._slots.size():
                self._slots.truncate(CURRENT_BYTES)
        old = self._current
        self._current = msgspec.structs.replace(
            old,
            serial=old.serial + 1,
            newest=old.newest if newest is None else newest,
            oldest=old.oldest if oldest is None else oldest,
            durable=max(old.durable, self.durable),
        )
        slot, offset = encode_slot(self._current)
        self._slots.pwrite(slot, offset)
        self._slots.fsync()
        self.sync_count += 1
        if old.serial == 0:
            world.storage.fsync_dir(self._directory)

    @property
    def size(self) -> int:
        """Bytes reserved for the segment that is written now."""
        return self._size

    def close(self) -> None:
        """Close the files without writing anything."""
        for file in (self._file, self._slots):
            if file is not None:
                file.close()
        self._file = self._slots = None


def make_spare(world: World, path: str, size: int) -> Spare:
    """Write a file of ``size`` zeros and make it durable, its name included.

    Zeros are really written: appending into them changes no metadata, which makes each
    later ``fdatasync`` two to three times cheaper, and the space is surely ours.

    Raises:
        OSError: No space (the partial file is removed), or the disk failed.
    """
    chunk = bytes(min(size, 1 << 20))
    file = world.storage.open(path, create=True)
    try:
        world.storage.fsync_dir(path.rpartition("/")[0])
        for offset in range(0, size, len(chunk)):
            file.pwrite(memoryview(chunk)[: size - offset], offset)
            if offset % (8 << 20) == 7 << 20:
                file.fdatasync()
        file.fsync()
    except OSError:
        file.close()
        world.storage.unlink(path)
        raise
    return Spare(file, size)


def frame_bytes(size: int) -> int:
    """Return an upper bound of the frame for runs of estimated ``size``."""
    return frame_size(size + HEADER_BYTES)
