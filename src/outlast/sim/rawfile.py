"""Open files of unmodified programs: descriptions, and the file objects of ``io`` over them."""

import errno
import io
import os
from typing import Any, Final

from outlast.sim.disk import SimDisk, SimFile
from outlast.sim.inode import Inode
from outlast.sim.medium import fail

FIRST: Final = 1 << 24
"""The first number of a simulated descriptor: real ones are far below."""

_BUFFER: Final = 8192
_ACCESS: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


class Description:
    """What a descriptor refers to: a file with a position, or a directory (no file)."""

    __slots__ = ("append", "count", "disk", "file", "flags", "path", "position", "readable")

    def __init__(self, disk: SimDisk, path: str, inode: Inode | None, flags: int) -> None:
        access = flags & _ACCESS
        self.disk = disk
        self.path = path
        self.flags = flags
        self.count = 1
        self.position = 0
        self.append = bool(flags & os.O_APPEND)
        self.readable = access != os.O_WRONLY
        self.file: SimFile | None = None
        if inode is not None:
            self.file = SimFile(disk, inode, path, writable=access != os.O_RDONLY)

    @property
    def crashed(self) -> bool:
        """Whether the host has crashed since it was opened."""
        return self.file is not None and self.file.crashed

    @property
    def ended(self) -> bool:
        """Whether it is closed, or its host has crashed."""
        return self.file is not None and self.file.ended

    def inode(self, *, write: bool = False, read: bool = False) -> Inode:
        """Return the file, if it may be used so."""
        if self.file is None:
            fail(errno.EISDIR, self.path)
        if read and not self.readable:
            fail(errno.EBADF)
        return self.file.use(write=write)

    def pread(self, size: int, offset: int) -> bytes:
        """Read at ``offset``."""
        return self.disk.read(self.inode(read=True), size, offset)

    def read(self, size: int) -> bytes:
        """Read at the position."""
        data = self.pread(size, self.position)
        self.position += len(data)
        return data

    def pwrite(self, data: Any, offset: int) -> int:
        """Write at ``offset``."""
        view = memoryview(data)
        self.disk.write(self.inode(write=True), view, None if self.append else offset)
        self._written()
        return view.nbytes

    def write(self, data: Any) -> int:
        """Write at the position, or at the end."""
        view = memoryview(data)
        where = None if self.append else self.position
        self.position = self.disk.write(self.inode(write=True), view, where)
        self._written()
        return view.nbytes

    def _written(self) -> None:
        if self.flags & os.O_DSYNC:  # O_SYNC contains it
            self.disk.sync(self.inode())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position and return it."""
        inode = self.inode()
        if whence == os.SEEK_CUR:
            offset += self.position
        elif whence == os.SEEK_END:
            offset += inode.size
        elif whence != os.SEEK_SET or offset < 0:
            fail(errno.EINVAL)
        if offset < 0:
            fail(errno.EINVAL)
        self.position = offset
        return offset

    def truncate(self, size: int) -> None:
        """Cut or extend."""
        self.disk.truncate(self.inode(write=True), size)

    def let_go(self, number: int, *, quietly: bool = False) -> None:
        """Close the descriptor ``number`` of it, which may be closed already if ``quietly``."""
        if self.disk.descriptors.get(number) is not self:
            if quietly:
                return
            fail(errno.EBADF)
        del self.disk.descriptors[number]
        self.count -= 1
        if not self.count and self.file is not None:
            self.file.close()


class SimRaw(io.RawIOBase):
    """The unbuffered file object: what ``io.FileIO`` is to real files."""

    name: Any

    def __init__(self, number: int, description: Description, *, name: Any, mode: str) -> None:
        self.name = name
        self.mode = mode
        self._number = number
        self._open = description
        self._closing = True
        self._dying = False

    def keep(self) -> None:
        """Leave the descriptor open when this object is closed (``closefd=False``)."""
        self._closing = False

    def _dealloc_warn(self, source: object) -> None:
        # Called by the layers above when they are collected without having been closed.
        self._dying = True

    def _check(self) -> Description:
        if self.closed:
            message = "I/O operation on closed file"
            raise ValueError(message)
        return self._open

    def readinto(self, buffer: Any) -> int:
        """Read into ``buffer``."""
        view = memoryview(buffer).cast("B")
        data = self._check().read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Read to the end."""
        description = self._check()
        inode = description.inode(read=True)
        return description.read(max(0, inode.size - description.position))

    def write(self, data: Any) -> int:
        """Write ``data``."""
        description = self._check()
        if self._dying and description.ended:
            return memoryview(data).nbytes  # collected after a crash: nobody is there to be told
        if not self.writable():
            message = "File not open for writing"
            raise io.UnsupportedOperation(message)
        return description.write(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position."""
        description = self._check()
        if self._dying and description.ended:
            return description.position
        return description.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        description = self._check()
        if not self._dying:
            description.inode()
        return description.position

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend."""
        description = self._check()
        size = description.position if size is None else size
        description.truncate(size)
        return size

    def readable(self) -> bool:
        """Whether it may be read."""
        return self._check().readable

    def writable(self) -> bool:
        """Whether it may be written."""
        file = self._check().file
        return file is not None and file.writable

    def seekable(self) -> bool:
        """Whether it has a position: always."""
        self._check()
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal: never."""
        self._check()
        return False

    def fileno(self) -> int:
        """Return the number of the descriptor."""
        self._check()
        return self._number

    @property
    def closefd(self) -> bool:
        """Whether closing this closes the descriptor."""
        return self._closing

    def close(self) -> None:
        """Close."""
        if not self.closed:
            try:
                if self._closing and not self._open.crashed:
                    self._open.let_go(self._number, quietly=self._dying)
            finally:
                super().close()

    def __repr__(self) -> str:
        """Show name and mode."""
        return f"<outlast.sim file {self.name!r} mode={self.mode!r}>"


def flags_of(mode: str) -> int:
    """Return the flags for ``os.open`` that belong to a mode of ``open``.

    Raises:
        ValueError: It is no mode.
    """
    kind = [letter for letter in mode if letter in "rwxa"]
    if len(kind) != 1 or len(set(mode)) != len(mode) or set(mode) - set("rwxabt+"):
        message = f"invalid mode: {mode!r}"
        raise ValueError(message)
    if "b" in mode and "t" in mode:
        message = "can't have text and binary mode at once"
        raise ValueError(message)
    access = os.O_RDWR if "+" in mode else os.O_RDONLY if kind == ["r"] else os.O_WRONLY
    more = {"r": 0, "w": os.O_CREAT | os.O_TRUNC, "x": os.O_CREAT | os.O_EXCL,
            "a": os.O_CREAT | os.O_APPEND}  # fmt: skip
    return access | more[kind[0]] | os.O_CLOEXEC


def layers(
    raw: SimRaw, mode: str, *, buffering: int, encoding: str | None, errors: str | None,
    newline: str | None,
) -> Any:  # fmt: skip
    """Return the file object that ``open`` returns over ``raw``."""
    binary = "b" in mode
    if binary and (encoding is not None or errors is not None or newline is not None):
        wrong = (
            "encoding" if encoding is not None else "errors" if errors is not None else "newline"
        )
        message = f"binary mode doesn't take {'an' if wrong[0] == 'e' else 'a'} {wrong} argument"
        raise ValueError(message)
    if buffering == 0:
        if not binary:
            message = "can't have unbuffered text I/O"
            raise ValueError(message)
        return raw
    size = buffering if buffering > 1 else _BUFFER
    buffer: Any
    if "+" in mode:
        buffer = io.BufferedRandom(raw, size)
    elif "r" in mode:
        buffer = io.BufferedReader(raw, size)
    else:
        buffer = io.BufferedWriter(raw, size)
    if binary:
        return buffer
    text = io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)
    text.mode = mode  # type: ignore[misc]
    return text
