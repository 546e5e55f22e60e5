"""The content of files on a simulated disk: time, room, faults and syncs; no names."""

import errno
import os
from collections.abc import Callable
from typing import Any, NoReturn

from outlast.kernel import Prng
from outlast.sim.disk_settings import DiskFaults, DiskSettings, DiskTally, Span
from outlast.sim.folder import Folder
from outlast.sim.inode import Inode

_PPM = 1_000_000
_MASK = (1 << 64) - 1
_ZEROS_MIN = 4096
_WALL_START_NS = 1_767_225_600_000_000_000


class Medium:
    """What reads, writes and syncs files; :class:`outlast.sim.disk.SimDisk` adds names."""

    def __init__(
        self,
        prng: Prng,
        now_ns: Callable[[], int],
        spend: Callable[[int], None],
        settings: DiskSettings | None = None,
        *,
        floor_ns: Callable[[], int] | None = None,
        wall_ns: Callable[[], int] | None = None,
        sync_is_noop: bool = False,
    ) -> None:
        self.settings = settings or DiskSettings()
        self.faults = DiskFaults()
        self.tally = DiskTally()
        self.sync_is_noop = sync_is_noop
        self.epoch = 0
        self.used_bytes = 0
        self.descriptors: dict[int, Any] = {}
        lag_ns = self.settings.settle_lag_ns
        self._prng = prng
        self._pace = prng.bits64()
        self._now_ns = now_ns
        self._spend = spend
        self._floor_ns = floor_ns or (lambda: now_ns() - lag_ns)
        self.wall_ns = wall_ns or (lambda: _WALL_START_NS + now_ns())
        self._numbers = 1
        self._settled_ns = 0
        self._dirty: dict[int, Inode] = {}
        self._dirty_folders: dict[int, Folder] = {}
        self._zeros = b""
        self.root = Folder(1)

    # --- time and faults -----------------------------------------------------------------------

    def pace(self, low_ns: int, high_ns: int) -> int:
        """Draw how long something takes that happens all the time."""
        # A plain congruential step (Knuth's MMIX): quicker than the Prng, and good enough here.
        self._pace = pace = (self._pace * 6364136223846793005 + 1442695040888963407) & _MASK
        return low_ns + ((pace >> 32) * (high_ns - low_ns + 1) >> 32)

    def pass_time(self, span: Span, after_ns: int = 0) -> int:
        """Spend the time of one operation and return the instant of its end."""
        took = self.pace(*span)
        faults = self.faults
        if faults.slow_ns[1]:
            extra = self._prng.between(*faults.slow_ns)
            self.tally.slow_ns += extra
            took += extra
        now = self._now_ns()
        if after_ns > now:
            took += after_ns - now
        if faults.stuck_until_ns > now:
            self.tally.stuck += 1
            self.tally.slow_ns += faults.stuck_until_ns - now
            took += faults.stuck_until_ns - now
        self._spend(took)
        return now + took

    def fails(self, what: str) -> bool:
        """Whether the operation is one that fails with EIO."""
        faults = self.faults
        if faults.quiet:
            return False
        left = getattr(faults, f"{what}_eio_next")
        if left:
            setattr(faults, f"{what}_eio_next", left - 1)
        ppm = getattr(faults, f"{what}_eio_ppm")
        if not left and not (ppm and self._prng.chance(ppm, _PPM)):
            return False
        self.tally.eio += 1
        return True

    def refuse_change(self, path: str = "") -> None:
        """Raise EROFS while the disk is read-only."""
        if self.faults.readonly:
            self.tally.erofs += 1
            fail(errno.EROFS, path)

    def _take(self, inode: Inode, size: int) -> None:
        """Let ``inode`` grow to ``size``, if the disk has room."""
        growth = size - inode.size
        if growth > 0 and (self.faults.full or growth > self.free()):
            self.tally.enospc += 1
            fail(errno.ENOSPC)
        self.used_bytes += growth

    def free(self) -> int:
        """Return the bytes that files may still grow by."""
        if self.faults.full:
            return 0
        capacity = self.settings.capacity_bytes
        if self.faults.capacity_bytes is not None:
            capacity = min(capacity, self.faults.capacity_bytes)
        return max(0, capacity - self.used_bytes)

    # --- content -------------------------------------------------------------------------------

    def read(self, inode: Inode, size: int, offset: int) -> bytes:
        """Return up to ``size`` bytes of a file."""
        self.pass_time(self.settings.read_ns, inode.busy_until_ns)
        if self.fails("read"):
            fail(errno.EIO)
        return inode.read(size, offset)

    def write(self, inode: Inode, data: bytes | bytearray | memoryview, offset: int | None) -> int:
        """Write all of ``data`` at ``offset``, ``None`` for the end; return where it ended."""
        if isinstance(data, memoryview) and data.format != "B":
            data = data.cast("B")
        size = len(data)
        content = None if self._are_zeros(data) else bytes(data)
        written_ns = self.pass_time(self.settings.write_ns, inode.busy_until_ns)
        self.refuse_change()
        if self.fails("write"):
            fail(errno.EIO)
        offset = inode.size if offset is None else offset
        if size:
            self._take(inode, max(inode.size, offset + size))
            inode.write(offset, content, size, written_ns)
            self._changed(inode, written_ns)
        return offset + size

    def truncate(self, inode: Inode, size: int) -> None:
        """Cut or extend a file."""
        if size < 0:
            fail(errno.EINVAL)
        written_ns = self.pass_time(self.settings.write_ns, inode.busy_until_ns)
        self.refuse_change()
        if size != inode.size:
            self._take(inode, size)
            inode.truncate(size, written_ns)
            self._changed(inode, written_ns)

    def _changed(self, inode: Inode, written_ns: int) -> None:
        inode.mtime_ns = self.wall_ns()
        self._dirty[inode.number] = inode
        settings, count = self.settings, inode.unsynced
        if count > settings.dirty_changes_max or inode.unsynced_bytes > settings.dirty_bytes_max:
            inode.cover(written_ns, len(inode.changes) - count // 2)
            self.settle(inode)

    def sync(self, inode: Inode) -> None:
        """Make the content of a file durable.

        Raises:
            OSError: EIO: what was written since the last sync is lost for good.
        """
        self.settle(inode)
        if not inode.unsynced and inode.sync_end_ns <= self._now_ns():
            self.pass_time(self.settings.write_ns)
            return
        stalls = self._prng.chance(self.settings.stall_ppm, _PPM)
        span = self.settings.stall_ns if stalls else self.settings.sync_ns
        end_ns = self.pass_time(span, max(inode.busy_until_ns, inode.sync_end_ns))
        self.refuse_change()
        if self.fails("sync"):
            self.tally.lost_bytes += inode.lose(end_ns, self._prng)
            fail(errno.EIO)
        if not self.sync_is_noop:
            inode.cover(end_ns)
            inode.sync_end_ns = end_ns

    def settle(self, node: Inode | Folder) -> None:
        """Merge what no crash can undo any more into the durable image."""
        if node.changes:
            self._settled_ns = max(self._settled_ns, node.settle(self._floor_ns()))
            if not node.changes:
                self._dirty.pop(node.number, None)
                self._dirty_folders.pop(node.number, None)

    def _are_zeros(self, data: bytes | bytearray | memoryview) -> bool:
        """Whether ``data`` is large and all zeros, as in a file that is being reserved."""
        if len(data) < _ZEROS_MIN or data[0] or data[-1]:
            return False
        if isinstance(data, memoryview) and data.obj is self._zeros:
            return True
        if len(self._zeros) != len(data):
            self._zeros = bytes(len(data))
        if bytes(data) != self._zeros:
            return False
        whole = data.obj if isinstance(data, memoryview) else data
        if isinstance(whole, bytes) and len(whole) == len(data):
            self._zeros = whole
        return True

    def forget(self, inode: Inode) -> None:
        """Give the space of a file back that has neither a name nor a handle."""
        if not inode.handles and not inode.links:
            self.used_bytes -= inode.size


def fail(number: int, path: str = "") -> NoReturn:
    """Raise the ``OSError`` of that number."""
    raise OSError(number, os.strerror(number), *([path] if path else []))
