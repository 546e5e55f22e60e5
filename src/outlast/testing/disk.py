"""A disk that does what tests ask for: stalls, fills up, fails, loses power.

Stands before another :class:`outlast.kernel.Storage`. Safe to use from the threads of an
offload lane: every operation holds one lock, so a power cut falls between two of them.
"""

import contextlib
import errno
import threading
from collections.abc import Iterator

from outlast.kernel import File, Storage


class FaultyDisk:
    """A :class:`outlast.kernel.Storage` with faults that can be switched on and off.

    Args:
        inner: The storage below.
    """

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self._lock = threading.RLock()
        self._going = threading.Event()
        self._going.set()
        self._files: list[FaultyFile] = []
        self.full = False
        """Whether no file may grow and no space is free."""
        self.sync_fails = False
        """Whether every fsync raises EIO."""
        self.waiting = 0
        """How many flushes are held by :meth:`stall` now."""

    def stall(self) -> None:
        """Hold every flush from now on."""
        self._going.clear()

    def resume(self) -> None:
        """Let held flushes go on."""
        self._going.set()

    def cut(self) -> None:
        """End all open files, as the end of their process would; later calls on them fail."""
        with self._lock:
            files, self._files = self._files, []
            for file in files:
                file.end()
        self._going.set()

    @contextlib.contextmanager
    def operation(self, *, flush: bool = False) -> Iterator[None]:
        """Hold the lock for one operation; a flush waits first while the disk is stalled."""
        if flush:
            self.waiting += 1
            self._going.wait()
            self.waiting -= 1
        with self._lock:
            if flush and self.sync_fails:
                raise OSError(errno.EIO, "the disk fails every flush")
            yield

    def check_growth(self, file: File, end: int) -> None:
        """Refuse what would need new space on a full disk."""
        if self.full and end > file.size():
            raise OSError(errno.ENOSPC, "the disk is full", file.path)

    # --- Storage -----------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, write: bool = True) -> File:
        """Open ``path``."""
        with self.operation():
            file = FaultyFile(self, self.inner.open(path, create=create, write=write))
            self._files = [one for one in self._files if not one.ended]
            self._files.append(file)
            return file

    def exists(self, path: str) -> bool:
        """Whether a file or directory of that name exists."""
        with self.operation():
            return self.inner.exists(path)

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        with self.operation():
            return self.inner.listdir(path)

    def makedirs(self, path: str) -> None:
        """Create a directory and its parents durably."""
        with self.operation():
            self.inner.makedirs(path)

    def rename(self, source: str, target: str) -> None:
        """Rename atomically, replacing ``target``."""
        with self.operation():
            self.inner.rename(source, target)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        with self.operation():
            self.inner.unlink(path)

    def rmtree(self, path: str) -> None:
        """Remove a directory with all it holds."""
        with self.operation():
            self.inner.rmtree(path)

    def fsync_dir(self, path: str) -> None:
        """Make names in ``path`` durable."""
        with self.operation(flush=True):
            self.inner.fsync_dir(path)

    def free_bytes(self, path: str) -> int:
        """Return the free bytes, 0 when full."""
        with self.operation():
            return 0 if self.full else self.inner.free_bytes(path)


class FaultyFile:
    """An open file of a :class:`FaultyDisk`."""

    def __init__(self, disk: FaultyDisk, inner: File) -> None:
        self._disk = disk
        self._inner = inner
        self.path = inner.path
        self.ended = False

    def end(self) -> None:
        """Close it for good; called with the disk's lock held."""
        self.ended = True
        self._inner.close()

    def _live(self) -> File:
        if self.ended:
            raise OSError(errno.EBADF, "the file was open when the power was cut", self.path)
        return self._inner

    def pread(self, size: int, offset: int) -> bytes:
        """Read."""
        with self._disk.operation():
            return self._live().pread(size, offset)

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write, unless the disk is full and the file would grow."""
        with self._disk.operation():
            file = self._live()
            self._disk.check_growth(file, offset + len(data))
            file.pwrite(data, offset)

    def fdatasync(self) -> None:
        """Flush, unless told to fail."""
        with self._disk.operation(flush=True):
            self._live().fdatasync()

    def fsync(self) -> None:
        """Flush, unless told to fail."""
        with self._disk.operation(flush=True):
            self._live().fsync()

    def truncate(self, size: int) -> None:
        """Cut or extend."""
        with self._disk.operation():
            file = self._live()
            self._disk.check_growth(file, size)
            file.truncate(size)

    def size(self) -> int:
        """Return the size in bytes."""
        with self._disk.operation():
            return self._live().size()

    def drop_cache(self) -> None:
        """Ask the system to forget cached pages."""
        with self._disk.operation():
            self._live().drop_cache()

    def lock(self) -> bool:
        """Take an exclusive advisory lock."""
        with self._disk.operation():
            return self._live().lock()

    def close(self) -> None:
        """Close; harmless after a power cut."""
        with self._disk.operation():
            if not self.ended:
                self.end()
