"""Unmodified programs keep their files on the simulated disk of their host.

:func:`patch_files` replaces what Python programs use to reach files, from ``open`` and
``os.replace`` down to ``os.pread``; what builds on those (``pathlib``, ``shutil``,
``tempfile``, ``logging``, ``dbm.dumb``) follows. C code that opens files by itself (``sqlite3``,
``mmap``, ``dbm.gnu``) does not. Symbolic links are not simulated, and the working directory is
the real one.
"""

import builtins
import contextlib
import errno
import fcntl
import io
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from outlast.kernel import ConfigError, EscapeError
from outlast.sim.disk import SimDisk
from outlast.sim.fake_numbers import FakeNumbers
from outlast.sim.fake_paths import FakePaths
from outlast.sim.inode import Inode
from outlast.sim.medium import fail
from outlast.sim.overlay import REAL, Overlay, RealFiles
from outlast.sim.rawfile import FIRST, Description, SimRaw, flags_of, layers

__all__ = ["installed", "patch_files", "set_disk_of"]

_NEVER_SIMULATED: Final = ("/dev/", "/proc/", "/sys/")
"""Beside ``__pycache__``: an import writes there once per machine, not once per run."""
_TMPFILE: Final = getattr(os, "O_TMPFILE", 0)
_CAPTURED: Final = (
    ("bz2", "", "_builtin_open"),
    ("tarfile", "", "bltn_open"),
    ("glob", "_StringGlobber", "scandir"),  # from Python 3.13 on
)
"""Modules or classes of the standard library that keep a function by value, and its name there."""

_DEFAULTS: Final = (("tempfile", "_TemporaryFileCloser"),)
"""Classes of the standard library that keep functions of ``os`` as default arguments."""

_BY_PATH: Final = (
    "access", "chmod", "chown", "getxattr", "link", "listdir", "listxattr", "lstat", "mkdir",
    "readlink", "rename", "rmdir", "scandir", "setxattr", "stat", "statvfs", "symlink", "truncate",
    "unlink", "utime",
)  # fmt: skip
_BY_NUMBER: Final = (
    "close", "copy_file_range", "dup", "dup2", "fchmod", "fchown", "fdatasync", "fstat",
    "fstatvfs", "fsync", "ftruncate", "get_blocking", "get_inheritable", "isatty", "lseek",
    "posix_fadvise", "posix_fallocate", "pread", "preadv", "pwrite", "pwritev", "read", "readv",
    "sendfile", "set_blocking", "set_inheritable", "sync", "write", "writev",
)  # fmt: skip

DiskOf = Callable[[], SimDisk | None]
_disk_of: list[DiskOf] = []
_active: list["Patch"] = []


def set_disk_of(find: DiskOf) -> None:
    """Say how :func:`patch_files` finds the disk of the host that runs now."""
    _disk_of[:] = [find]


def installed() -> bool:
    """Whether :func:`patch_files` is in effect."""
    return bool(_active)


@contextlib.contextmanager
def patch_files(*roots: str, disk_of: DiskOf | None = None) -> Iterator[None]:
    """Let programs that run on simulated hosts use files of their host's simulated disk.

    Args:
        roots: The directories that are simulated; they exist, and show nothing of the real
            ones. By default everything is: what a program writes, makes, renames or removes,
            it does so on its simulated disk only; what it has not touched is read from the
            real file system. ``/dev``, ``/proc``, ``/sys`` and ``__pycache__`` are always
            real.
        disk_of: Returns the disk of the host that runs now, ``None`` where files are real; by
            default that of the simulation.

    Raises:
        ConfigError: Definite. It is in effect already, or there is no simulation.
    """
    find = disk_of or (_disk_of[0] if _disk_of else None)
    if find is None:
        message = "patch_files: no simulation is there to have disks; pass disk_of"
        raise ConfigError(message)
    if _active:
        message = "patch_files is in effect already; it cannot be nested: use one, around all"
        raise ConfigError(message)
    patch = Patch(find, tuple(os.path.abspath(root) for root in roots))
    _active.append(patch)
    try:
        patch.install()
        yield
    finally:
        _active.clear()
        patch.uninstall()


_MMAP: Final = mmap.mmap


class _Mmap(mmap.mmap):
    """Refuses to map a simulated file."""

    def __new__(cls, fileno: int, *args: Any, **more: Any) -> Any:
        if fileno >= FIRST:
            message = "mmap of a simulated file cannot be simulated; read and write it instead"
            raise EscapeError(message)
        return _MMAP(fileno, *args, **more)


class Patch:
    """One installation: where paths lead, and the functions that were replaced."""

    def __init__(self, find: DiskOf, roots: tuple[str, ...]) -> None:
        self.roots = roots
        self.overlays: dict[int, Overlay] = {}
        self.next_number = FIRST
        self._find = find
        self._undo: list[tuple[Any, str, Any]] = []
        self._sets: list[tuple[set[Any], Any]] = []
        self._installed = False
        self.paths = FakePaths(self)
        self.numbers = FakeNumbers(self)

    # --- where things are ----------------------------------------------------------------------

    def overlay(self) -> Overlay | None:
        """Return the view of the host that runs now, ``None`` where files are real."""
        disk = self._find() if self._installed else None
        if disk is None:
            return None
        found = self.overlays.get(id(disk))
        if found is None:
            found = self.overlays[id(disk)] = Overlay(disk, self.roots)
        return found

    def place(self, path: Any, dir_fd: int | None = None) -> tuple[Overlay, str] | None:
        """Return the view and the absolute path, ``None`` for what stays real."""
        overlay = self.overlay()
        if overlay is None or (dir_fd is not None and dir_fd < FIRST):
            return None
        text = os.fsdecode(path)
        if not text or "\0" in text:
            return None
        if dir_fd is not None:
            text = os.path.join(self.description(dir_fd).path, text)
        text = os.path.abspath(text)
        if text.startswith(_NEVER_SIMULATED) or "/__pycache__" in text:
            return None
        if self.roots and not any(f"{text}/".startswith(f"{root}/") for root in self.roots):
            return None
        return overlay, text.replace("//", "/")

    def description(self, number: int) -> Description:
        """Return what the descriptor ``number`` of the host that runs now refers to."""
        overlay = self.overlay()
        found = None if overlay is None else overlay.disk.descriptors.get(number)
        if not isinstance(found, Description):
            fail(errno.EBADF)
        return found

    # --- opening -------------------------------------------------------------------------------

    def number_for(self, description: Description) -> int:
        """Give a description a descriptor."""
        self.next_number += 1
        description.disk.descriptors[self.next_number] = description
        return self.next_number

    def open_at(self, overlay: Overlay, path: str, flags: int, mode: int) -> int | Description:
        """Open ``path``: a description, or a real descriptor of what is not simulated."""
        disk = overlay.disk
        found = overlay.look(path)
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC))
        if _TMPFILE and flags & _TMPFILE == _TMPFILE:
            return Description(disk, path, Inode(disk.number(), mode), flags)
        if found is None:
            if not flags & os.O_CREAT:
                overlay.missing(path)
            return Description(disk, path, overlay.create(path, mode), flags)
        if flags & os.O_CREAT and flags & os.O_EXCL:
            fail(errno.EEXIST, path)
        if overlay.is_dir(path, found):
            if writes or flags & os.O_CREAT:
                fail(errno.EISDIR, path)
            return Description(disk, path, None, flags)
        if flags & os.O_DIRECTORY:
            fail(errno.ENOTDIR, path)
        if found is REAL:
            if not writes or not os.path.isfile(path):
                return RealFiles.os_open(path, flags, mode)
            found = overlay.bring(path)
        if writes:
            disk.refuse_change(path)
        description = Description(disk, path, found if isinstance(found, Inode) else None, flags)
        if flags & os.O_TRUNC and isinstance(found, Inode) and found.size:
            disk.truncate(found, 0)
        return description

    def raw(self, number: int, description: Description, name: Any, mode: str) -> SimRaw:
        """Return the unbuffered file object over a descriptor."""
        letters = set(mode) - set("bt")
        shown = "xb" if "x" in letters else "ab" if "a" in letters else ""
        if not shown:
            shown = "rb" if letters == {"r"} else "wb" if letters == {"w"} else "rb+"
        elif "+" in letters:
            shown += "+"
        return SimRaw(number, description, name=name, mode=shown)

    def open(  # noqa: PLR0917 - as the original
        self, file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
        errors: str | None = None, newline: str | None = None, closefd: bool = True,
        opener: Any = None,
    ) -> Any:  # fmt: skip
        """Do what ``open`` does."""
        real = (file, mode, buffering, encoding, errors, newline, closefd, opener)
        overlay = self.overlay()
        if isinstance(file, int):
            if file < FIRST:
                return RealFiles.open(*real)
            flags_of(mode)
            number, description = file, self.description(file)
        elif overlay is None:
            return RealFiles.open(*real)
        elif opener is not None:
            number = opener(file, flags_of(mode))
            if number < FIRST:
                return RealFiles.open(*real[:7], lambda *_: number)
            description = self.description(number)
        else:
            place = self.place(file)
            if place is None or (place[0].look(place[1]) is REAL and not set(mode) & set("wax+")):
                return RealFiles.open(*real)
            opened = self.open_at(*place, flags_of(mode), 0o666)
            if isinstance(opened, int):
                return RealFiles.open(opened, *real[1:6])
            if opened.file is None:
                fail(errno.EISDIR, os.fspath(file))
            number, description = self.number_for(opened), opened
        if "a" in mode:
            description.position = description.inode().size
        raw = self.raw(number, description, file, mode)
        if isinstance(file, int) and not closefd:
            raw.keep()
        try:
            return layers(
                raw, mode, buffering=buffering, encoding=encoding, errors=errors, newline=newline
            )
        except ValueError:
            raw.close()
            raise

    def os_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: Any = None) -> int:
        """Do what ``os.open`` does."""
        place = self.place(path, dir_fd)
        if place is None:
            return RealFiles.os_open(path, flags, mode, dir_fd=dir_fd)
        opened = self.open_at(*place, flags, mode)
        return opened if isinstance(opened, int) else self.number_for(opened)

    def close(self, number: int) -> None:
        """Close a simulated descriptor."""
        self.description(number).let_go(number)

    # --- installing ----------------------------------------------------------------------------

    def install(self) -> None:
        """Replace the functions."""
        self._installed = True
        replaced = []
        table = [
            (owner, name, getattr(owner, name, None), mine) for owner, name, mine in self.table()
        ]
        for owner, name, original, function in table:
            if original is not None:
                self._set(owner, name, function)
                replaced.append((original, function))
        for module_name, class_name, name in _CAPTURED:
            owner = sys.modules.get(module_name)
            owner = getattr(owner, class_name, None) if class_name else owner
            kept = getattr(owner, name, None)
            for original, function in replaced:
                if kept is original:
                    self._set(owner, name, function)
        self._replace_defaults(replaced)
        for known in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks,
                      os.supports_effective_ids):  # fmt: skip
            for original, function in replaced:
                if original in known:
                    known.add(function)
                    self._sets.append((known, function))

    def _replace_defaults(self, replaced: list[tuple[Any, Any]]) -> None:
        for module_name, class_name in _DEFAULTS:
            cls = getattr(sys.modules.get(module_name), class_name, None)
            for method in tuple(vars(cls).values()) if cls is not None else ():
                defaults = getattr(method, "__defaults__", None) or ()
                mine = tuple(
                    next((function for original, function in replaced if original is value), value)
                    for value in defaults
                )
                if mine != defaults:
                    self._set(method, "__defaults__", mine)

    def table(self) -> list[tuple[Any, str, Any]]:
        """Return everything that is replaced: where, under which name, by what."""
        paths, numbers = self.paths, self.numbers
        table: list[tuple[Any, str, Any]] = [
            (builtins, "open", self.open),
            (io, "open", self.open),
            (os, "open", self.os_open),
            (os, "remove", paths.unlink),
            (os, "replace", paths.rename),
            (mmap, "mmap", _Mmap),
        ]
        for name in _BY_PATH:
            table.append((os, name, getattr(paths, name)))
        for name in _BY_NUMBER:
            table.append((os, name, getattr(numbers, name)))
        for name in ("flock", "lockf", "fcntl", "ioctl"):
            table.append((fcntl, name, getattr(numbers, name)))
        return table

    def _set(self, owner: Any, name: str, value: Any) -> None:
        original = vars(owner)[name] if isinstance(owner, type) else getattr(owner, name)
        self._undo.append((owner, name, original))
        setattr(owner, name, value)

    def uninstall(self) -> None:
        """Put the originals back; functions that somebody keeps are real from now on."""
        self._installed = False
        while self._undo:
            setattr(*self._undo.pop())
        while self._sets:
            known, function = self._sets.pop()
            known.discard(function)
