"""Reading frames back by their place. Blocks; every read is verified."""

from outlast.kernel import CorruptionError, File, Storage
from outlast.log.wal.core.frame import HEADER_BYTES, body_holds, decode_header
from outlast.log.wal.core.runs import StoredRun, decode_runs
from outlast.log.wal.core.view import Place
from outlast.log.wal.recovery import SegmentInfo

FILES_MAX = 16


class FrameReader:
    """Reads frames, keeping a few segments open and the last frame decoded."""

    __slots__ = ("_files", "_last", "_storage", "segments")

    def __init__(self, storage: Storage, segments: list[SegmentInfo]) -> None:
        self._storage = storage
        self.segments = {info.number: info for info in segments}
        self._files: dict[int, File] = {}
        self._last: tuple[tuple[int, int], list[StoredRun]] | None = None

    def read(self, place: Place) -> list[StoredRun]:
        """Return the runs of the frame at ``place``.

        Raises:
            CorruptionError: Its checksum does not hold any more.
        """
        key = (place.segment, place.offset)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        info = self.segments[place.segment]
        data = memoryview(self._file(info).pread(HEADER_BYTES + place.length, place.offset))
        header = decode_header(data, 0, info.seed)
        if header is None or not body_holds(data, 0, header, info.seed):
            raise CorruptionError(
                f"{info.path}: the frame at byte {place.offset} with entries from"
                f" {place.first} does not match its checksum",
                file=info.path,
                offset=place.offset,
                first=place.first,
                last=header.last if header else 0,
            )
        runs = decode_runs(data[HEADER_BYTES:])
        self._last = (key, runs)
        return runs

    def _file(self, info: SegmentInfo) -> File:
        file = self._files.get(info.number)
        if file is None:
            if len(self._files) >= FILES_MAX:
                self._files.pop(next(iter(self._files))).close()
            file = self._files[info.number] = self._storage.open(info.path, write=False)
        return file

    def forget(self, number: int) -> SegmentInfo:
        """Close and forget a segment that is to be removed."""
        file = self._files.pop(number, None)
        if file is not None:
            file.close()
        self._last = None
        return self.segments.pop(number)

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()
        self._files.clear()
