"""The machine's files, with every flush asked for by name.

macOS needs ``F_FULLFSYNC`` for a flush that reaches the platter; Linux does not have it.
"""

import contextlib
import fcntl
import os
import shutil

_FULL = getattr(fcntl, "F_FULLFSYNC", None)


class HostFile:
    """A file descriptor. Calls block; not thread-safe for overlapping writes."""

    __slots__ = ("_fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``; fewer only at the end of the file."""
        data = os.pread(self._fd, size, offset)
        if len(data) in {0, size}:
            return data
        parts = [data]
        got = len(data)
        while got < size:
            more = os.pread(self._fd, size - got, offset + got)
            if not more:
                break
            parts.append(more)
            got += len(more)
        return b"".join(parts)

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""
        written = os.pwrite(self._fd, data, offset)
        if written == len(data):
            return
        view = memoryview(data)
        while written < len(view):
            written += os.pwrite(self._fd, view[written:], offset + written)

    def fdatasync(self) -> None:
        """Make content and size durable."""
        if _FULL is not None:
            fcntl.fcntl(self._fd, _FULL)
        else:
            os.fdatasync(self._fd)

    def fsync(self) -> None:
        """Make content and all metadata durable."""
        if _FULL is not None:
            fcntl.fcntl(self._fd, _FULL)
        else:
            os.fsync(self._fd)

    def truncate(self, size: int) -> None:
        """Cut or extend to ``size`` bytes."""
        os.ftruncate(self._fd, size)

    def size(self) -> int:
        """Return the size in bytes."""
        return os.fstat(self._fd).st_size

    def drop_cache(self) -> None:
        """Ask the system to forget cached pages."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def lock(self) -> bool:
        """Take an exclusive advisory lock; ``False`` if another holder has it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Close the descriptor; never flushes."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class HostStorage:
    """Files and directories of the machine. Safe to use from any thread."""

    __slots__ = ()

    def open(self, path: str, *, create: bool = False, write: bool = True) -> HostFile:
        """Open ``path``; ``create`` makes it if missing."""
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT
        return HostFile(os.open(path, flags, 0o640), path)

    def exists(self, path: str) -> bool:
        """Whether a file or directory of that name exists."""
        return os.path.lexists(path)

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        return sorted(os.listdir(path))

    def makedirs(self, path: str) -> None:
        """Create a directory and its missing parents, each made durable in its parent."""
        path = os.path.abspath(path)
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for directory in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o750)
            self.fsync_dir(os.path.dirname(directory))

    def rename(self, source: str, target: str) -> None:
        """Rename atomically, replacing ``target``."""
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)

    def rmtree(self, path: str) -> None:
        """Remove a directory with all it holds; no error if missing."""
        if os.path.lexists(path):
            shutil.rmtree(path)

    def fsync_dir(self, path: str) -> None:
        """Make creates, renames and removals in ``path`` durable."""
        fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, path: str) -> int:
        """Return the bytes still free for an ordinary user on the file system of ``path``."""
        facts = os.statvfs(path)
        return facts.f_bavail * facts.f_frsize
