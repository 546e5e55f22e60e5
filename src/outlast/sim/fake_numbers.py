"""Stand-ins for the functions of ``os`` and ``fcntl`` that take a file descriptor.

Each takes what the original takes. Real descriptors go to the original.
"""

import errno
import fcntl
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from outlast.sim.fake_paths import REAL_OS
from outlast.sim.folder import Folder
from outlast.sim.inode import Inode
from outlast.sim.medium import fail
from outlast.sim.overlay import facts_of
from outlast.sim.rawfile import FIRST, Description

if TYPE_CHECKING:
    from outlast.sim.files import Patch

REAL_FCNTL: Final[Any] = SimpleNamespace(**vars(fcntl))
"""The functions of ``fcntl`` from before they are replaced."""

_COPY_MAX: Final = 1 << 20


def number_of(file: Any) -> Any:
    """Return a descriptor, given it or a file object."""
    return file if isinstance(file, int) else file.fileno()


class FakeNumbers:
    """The stand-ins; the names are those of ``os`` and ``fcntl``."""

    def __init__(self, patch: "Patch") -> None:
        self._patch = patch
        self._at = patch.description

    def node(self, fd: int) -> Inode | Folder:
        """Return the file or directory of a simulated descriptor, brought into the simulation."""
        description = self._at(fd)
        if description.file is not None:
            return description.file.use()
        place = self._patch.place(description.path)
        if place is None:
            fail(errno.EBADF)
        return place[0].folder(place[1])

    # --- reading and writing -------------------------------------------------------------------

    def close(self, fd: int) -> None:
        """Stand in for ``os.close``."""
        if fd < FIRST:
            REAL_OS.close(fd)
        else:
            self._patch.close(fd)

    def read(self, fd: int, length: int) -> bytes:
        """Stand in for ``os.read``."""
        return REAL_OS.read(fd, length) if fd < FIRST else self._at(fd).read(length)

    def write(self, fd: int, data: Any) -> int:
        """Stand in for ``os.write``."""
        return int(REAL_OS.write(fd, data)) if fd < FIRST else self._at(fd).write(data)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Stand in for ``os.pread``."""
        if fd < FIRST:
            return bytes(REAL_OS.pread(fd, length, offset))
        return self._at(fd).pread(length, offset)

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        """Stand in for ``os.pwrite``."""
        if fd < FIRST:
            return int(REAL_OS.pwrite(fd, data, offset))
        return self._at(fd).pwrite(data, offset)

    def readv(self, fd: int, buffers: Any) -> int:
        """Stand in for ``os.readv``."""
        if fd < FIRST:
            return int(REAL_OS.readv(fd, buffers))
        return _scatter(self._at(fd).read(_room(buffers)), buffers)

    def preadv(self, fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        """Stand in for ``os.preadv``."""
        if fd < FIRST:
            return int(REAL_OS.preadv(fd, buffers, offset, flags))
        return _scatter(self._at(fd).pread(_room(buffers), offset), buffers)

    def writev(self, fd: int, buffers: Any) -> int:
        """Stand in for ``os.writev``."""
        if fd < FIRST:
            return int(REAL_OS.writev(fd, buffers))
        return self._at(fd).write(b"".join(buffers))

    def pwritev(self, fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        """Stand in for ``os.pwritev``."""
        if fd < FIRST:
            return int(REAL_OS.pwritev(fd, buffers, offset, flags))
        return self._at(fd).pwrite(b"".join(buffers), offset)

    def lseek(self, fd: int, position: int, whence: int) -> int:
        """Stand in for ``os.lseek``."""
        if fd < FIRST:
            return int(REAL_OS.lseek(fd, position, whence))
        return self._at(fd).seek(position, whence)

    def sendfile(self, out_fd: int, in_fd: int, offset: Any, count: int, *rest: Any) -> int:
        """Stand in for ``os.sendfile``."""
        if out_fd < FIRST and in_fd < FIRST:
            return int(REAL_OS.sendfile(out_fd, in_fd, offset, count, *rest))
        return self._copy(in_fd, out_fd, count, offset, None)

    def copy_file_range(
        self, src: int, dst: int, count: int, offset_src: Any = None, offset_dst: Any = None
    ) -> int:
        """Stand in for ``os.copy_file_range``."""
        if src < FIRST and dst < FIRST:
            return int(REAL_OS.copy_file_range(src, dst, count, offset_src, offset_dst))
        return self._copy(src, dst, count, offset_src, offset_dst)

    def _copy(self, src: int, dst: int, count: int, offset_src: Any, offset_dst: Any) -> int:
        count = min(count, _COPY_MAX)
        data = self.read(src, count) if offset_src is None else self.pread(src, count, offset_src)
        if offset_dst is None:
            return self.write(dst, data)
        return self.pwrite(dst, data, offset_dst)

    # --- durability and size -------------------------------------------------------------------

    def fsync(self, fd: Any) -> None:
        """Stand in for ``os.fsync``."""
        number = number_of(fd)
        if number < FIRST:
            REAL_OS.fsync(fd)
        else:
            self._sync(self._at(number))

    def fdatasync(self, fd: Any) -> None:
        """Stand in for ``os.fdatasync``."""
        number = number_of(fd)
        if number < FIRST:
            REAL_OS.fdatasync(fd)
        else:
            self._sync(self._at(number))

    def _sync(self, description: Description) -> None:
        disk = description.disk
        if description.file is not None:
            disk.sync(description.file.use())
            return
        place = self._patch.place(description.path)
        found = None if place is None else place[0].look(place[1])
        if isinstance(found, Folder):
            disk.sync_names(found)

    def sync(self) -> None:
        """Stand in for ``os.sync``."""
        overlay = self._patch.overlay()
        if overlay is None:
            REAL_OS.sync()
        else:
            overlay.disk.sync_all()

    def ftruncate(self, fd: int, length: int) -> None:
        """Stand in for ``os.ftruncate``."""
        if fd < FIRST:
            REAL_OS.ftruncate(fd, length)
        else:
            self._at(fd).truncate(length)

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        """Stand in for ``os.posix_fallocate``."""
        if fd < FIRST:
            REAL_OS.posix_fallocate(fd, offset, length)
            return
        description = self._at(fd)
        if description.inode(write=True).size < offset + length:
            description.truncate(offset + length)

    def posix_fadvise(self, fd: int, offset: int, length: int, advice: int) -> None:
        """Stand in for ``os.posix_fadvise``."""
        if fd < FIRST:
            REAL_OS.posix_fadvise(fd, offset, length, advice)
        elif advice == os.POSIX_FADV_DONTNEED:
            self._at(fd).inode().forget_cache()

    # --- facts ---------------------------------------------------------------------------------

    def fstat(self, fd: int) -> Any:
        """Stand in for ``os.fstat``."""
        if fd < FIRST:
            return REAL_OS.fstat(fd)
        description = self._at(fd)
        if description.file is not None:
            return facts_of(description.file.use())
        place = self._patch.place(description.path)
        if place is None:
            fail(errno.EBADF)
        return place[0].facts(place[1])

    def fstatvfs(self, fd: int) -> Any:
        """Stand in for ``os.fstatvfs``."""
        return REAL_OS.fstatvfs(fd) if fd < FIRST else self._patch.paths.statvfs(fd)

    def fchmod(self, fd: int, mode: int) -> None:
        """Stand in for ``os.fchmod``."""
        if fd < FIRST:
            REAL_OS.fchmod(fd, mode)
        else:
            self.node(fd).mode = mode & 0o7777

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        """Stand in for ``os.fchown``."""
        if fd < FIRST:
            REAL_OS.fchown(fd, uid, gid)
        else:
            self._at(fd)

    def isatty(self, fd: int) -> bool:
        """Stand in for ``os.isatty``."""
        return bool(REAL_OS.isatty(fd)) if fd < FIRST else False

    def dup(self, fd: int) -> int:
        """Stand in for ``os.dup``."""
        if fd < FIRST:
            return int(REAL_OS.dup(fd))
        description = self._at(fd)
        description.count += 1
        return self._patch.number_for(description)

    def dup2(self, fd: int, fd2: int, inheritable: bool = True) -> int:
        """Stand in for ``os.dup2``, which cannot mix real and simulated descriptors."""
        if fd < FIRST and fd2 < FIRST:
            return int(REAL_OS.dup2(fd, fd2, inheritable))
        fail(errno.EBADF)

    def get_inheritable(self, fd: int) -> bool:
        """Stand in for ``os.get_inheritable``."""
        return bool(REAL_OS.get_inheritable(fd)) if fd < FIRST else False

    def set_inheritable(self, fd: int, inheritable: bool) -> None:
        """Stand in for ``os.set_inheritable``."""
        if fd < FIRST:
            REAL_OS.set_inheritable(fd, inheritable)
        else:
            self._at(fd)

    def get_blocking(self, fd: int) -> bool:
        """Stand in for ``os.get_blocking``."""
        return bool(REAL_OS.get_blocking(fd)) if fd < FIRST else True

    def set_blocking(self, fd: int, blocking: bool) -> None:
        """Stand in for ``os.set_blocking``."""
        if fd < FIRST:
            REAL_OS.set_blocking(fd, blocking)
        else:
            self._at(fd)

    # --- locks ---------------------------------------------------------------------------------

    def flock(self, fd: Any, operation: int) -> None:
        """Stand in for ``fcntl.flock``: between the open files of one host."""
        number = number_of(fd)
        if number < FIRST:
            REAL_FCNTL.flock(fd, operation)
            return
        description = self._at(number)
        if description.file is None:
            fail(errno.EBADF)
        if operation & fcntl.LOCK_UN:
            description.file.unlock()
        elif not description.file.lock(shared=not operation & fcntl.LOCK_EX):
            # One thread is all there is: who waits for a lock waits for ever.
            fail(errno.EWOULDBLOCK if operation & fcntl.LOCK_NB else errno.EDEADLK)

    def lockf(self, fd: Any, cmd: int, *rest: Any) -> None:
        """Stand in for ``fcntl.lockf``: a process never excludes itself."""
        number = number_of(fd)
        if number < FIRST:
            REAL_FCNTL.lockf(fd, cmd, *rest)
        else:
            self._at(number)

    def fcntl(self, fd: Any, cmd: int, arg: Any = 0) -> Any:
        """Stand in for ``fcntl.fcntl``."""
        number = number_of(fd)
        if number < FIRST:
            return REAL_FCNTL.fcntl(fd, cmd, arg)
        description = self._at(number)
        if cmd == getattr(fcntl, "F_FULLFSYNC", -1):
            self._sync(description)
        if cmd == fcntl.F_GETFL:
            return description.flags
        if cmd == fcntl.F_DUPFD_CLOEXEC:
            return self.dup(number)
        return 0 if isinstance(arg, int) else arg

    def ioctl(self, fd: Any, request: int, *rest: Any) -> Any:
        """Stand in for ``fcntl.ioctl``: a simulated file answers to none."""
        number = number_of(fd)
        if number < FIRST:
            return REAL_FCNTL.ioctl(fd, request, *rest)
        self._at(number)
        fail(errno.EOPNOTSUPP)


def _room(buffers: Any) -> int:
    return sum(memoryview(buffer).nbytes for buffer in buffers)


def _scatter(data: bytes, buffers: Any) -> int:
    at = 0
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        part = data[at : at + len(view)]
        view[: len(part)] = part
        at += len(part)
    return at
