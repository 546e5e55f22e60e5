"""Stand-ins for the functions of ``os`` that take a path.

Each takes what the original takes. What is not simulated goes to the original.
"""

import errno
import os
import stat
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from outlast.sim.folder import Folder
from outlast.sim.inode import Inode
from outlast.sim.medium import fail
from outlast.sim.overlay import Overlay, Real
from outlast.sim.rawfile import FIRST

if TYPE_CHECKING:
    from outlast.sim.files import Patch

REAL_OS: Final[Any] = SimpleNamespace(**vars(os))
"""The functions of ``os`` from before they are replaced."""

_BLOCK = 4096


class SimEntry:
    """What ``os.scandir`` gives for each name."""

    __slots__ = ("_entry", "_overlay", "name", "path")

    def __init__(self, overlay: Overlay, entry: str, *, name: Any, path: Any) -> None:
        self._overlay = overlay
        self._entry = entry
        self.name = name
        self.path = path

    def __fspath__(self) -> Any:
        """Return the path."""
        return self.path

    def __repr__(self) -> str:
        """Show the name, as the real one does."""
        return f"<DirEntry {self.name!r}>"

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the facts."""
        return self._overlay.facts(self._entry, follow=follow_symlinks)

    def inode(self) -> int:
        """Return the number of the file."""
        return self.stat(follow_symlinks=False).st_ino

    def _is(self, test: Callable[[int], bool], *, follow: bool) -> bool:
        try:
            return test(self.stat(follow_symlinks=follow).st_mode)
        except FileNotFoundError:
            return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory."""
        return self._is(stat.S_ISDIR, follow=follow_symlinks)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a file."""
        return self._is(stat.S_ISREG, follow=follow_symlinks)

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link, which only a real one can be."""
        return self._is(stat.S_ISLNK, follow=False)

    def is_junction(self) -> bool:
        """Whether it is a junction: never."""
        return False


class Scan:
    """The iterator of ``os.scandir``."""

    def __init__(self, entries: list[SimEntry]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> "Scan":
        """Return itself."""
        return self

    def __next__(self) -> SimEntry:
        """Return the next entry."""
        return next(self._entries)

    def __enter__(self) -> "Scan":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()

    def close(self) -> None:
        """End it."""
        self._entries = iter(())


class FakePaths:
    """The stand-ins; the names are those of ``os``."""

    def __init__(self, patch: "Patch") -> None:
        self._patch = patch
        self._place = patch.place

    # --- looking -------------------------------------------------------------------------------

    def stat(self, path: Any, *, dir_fd: Any = None, follow_symlinks: bool = True) -> Any:
        """Stand in for ``os.stat``."""
        if isinstance(path, int):
            return self._patch.numbers.fstat(path)
        place = self._place(path, dir_fd)
        if place is None:
            return REAL_OS.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        return place[0].facts(place[1], follow=follow_symlinks)

    def lstat(self, path: Any, *, dir_fd: Any = None) -> Any:
        """Stand in for ``os.lstat``."""
        return self.stat(path, dir_fd=dir_fd, follow_symlinks=False)

    def access(
        self, path: Any, mode: int, *, dir_fd: Any = None, effective_ids: bool = False,
        follow_symlinks: bool = True,
    ) -> bool:  # fmt: skip
        """Stand in for ``os.access``."""
        place = None if isinstance(path, int) else self._place(path, dir_fd)
        found = None if place is None else place[0].look(place[1])
        if place is None or isinstance(found, Real):
            return bool(REAL_OS.access(path, mode, dir_fd=dir_fd, effective_ids=effective_ids,
                                       follow_symlinks=follow_symlinks))  # fmt: skip
        if found is None or (mode & os.W_OK and place[0].disk.faults.readonly):
            return False
        return not mode & os.X_OK or bool(found.mode & 0o111)

    def listdir(self, path: Any = ".") -> list[Any]:
        """Stand in for ``os.listdir``."""
        place, where = self._directory(path)
        if place is None:
            return list(REAL_OS.listdir(path))
        names = place[0].names(place[1])
        return [os.fsencode(name) for name in names] if isinstance(where, bytes) else list(names)

    def _directory(self, path: Any) -> tuple[tuple[Overlay, str] | None, Any]:
        """Return the place of a directory given by path or descriptor, and how to show it."""
        if isinstance(path, int):
            if path < FIRST:
                return None, path
            return self._place(self._patch.description(path).path), ""
        path = "." if path is None else os.fspath(path)
        return self._place(path), path

    def scandir(self, path: Any = ".") -> Any:
        """Stand in for ``os.scandir``."""
        place, shown = self._directory(path)
        if place is None or isinstance(place[0].look(place[1]), Real):
            return REAL_OS.scandir(path if place is None or shown != "" else place[1])
        entries = []
        for one in place[0].names(place[1]):
            name = os.fsencode(one) if isinstance(shown, bytes) else one
            joined = os.path.join(shown, name) if shown else name
            entry = f"{place[1].rstrip('/')}/{one}"
            entries.append(SimEntry(place[0], entry, name=name, path=joined))
        return Scan(entries)

    def readlink(self, path: Any, *, dir_fd: Any = None) -> Any:
        """Stand in for ``os.readlink``."""
        place = self._place(path, dir_fd)
        found = None if place is None else place[0].look(place[1])
        if place is None or isinstance(found, Real):
            return REAL_OS.readlink(path, dir_fd=dir_fd)
        if found is None:
            place[0].missing(place[1])
        fail(errno.EINVAL, place[1])

    def statvfs(self, path: Any) -> Any:
        """Stand in for ``os.statvfs``."""
        if isinstance(path, int):
            place = self._place(self._patch.description(path).path) if path >= FIRST else None
        else:
            place = self._place(path)
        if place is None:
            return REAL_OS.statvfs(path)
        disk = place[0].disk
        free = disk.free() // _BLOCK
        blocks = free + disk.used_bytes // _BLOCK
        return os.statvfs_result((_BLOCK, _BLOCK, blocks, free, free, 1 << 20, 1 << 20, 1 << 20,
                                  0, 255))  # fmt: skip

    # --- names ---------------------------------------------------------------------------------

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: Any = None) -> None:
        """Stand in for ``os.mkdir``."""
        place = self._place(path, dir_fd)
        if place is None:
            REAL_OS.mkdir(path, mode, dir_fd=dir_fd)
        else:
            place[0].mkdir(place[1], mode)

    def rmdir(self, path: Any, *, dir_fd: Any = None) -> None:
        """Stand in for ``os.rmdir``."""
        place = self._place(path, dir_fd)
        if place is None:
            REAL_OS.rmdir(path, dir_fd=dir_fd)
        else:
            place[0].rmdir(place[1])

    def unlink(self, path: Any, *, dir_fd: Any = None) -> None:
        """Stand in for ``os.unlink`` and ``os.remove``."""
        place = self._place(path, dir_fd)
        if place is None:
            REAL_OS.unlink(path, dir_fd=dir_fd)
        else:
            place[0].unlink(place[1])

    def rename(
        self, src: Any, dst: Any, *, src_dir_fd: Any = None, dst_dir_fd: Any = None
    ) -> None:
        """Stand in for ``os.rename`` and ``os.replace``."""
        pair = self._pair(src, dst, src_dir_fd, dst_dir_fd)
        if pair is None:
            REAL_OS.replace(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        else:
            pair[0].rename(*pair[1:])

    def link(
        self, src: Any, dst: Any, *, src_dir_fd: Any = None, dst_dir_fd: Any = None,
        follow_symlinks: bool = True,
    ) -> None:  # fmt: skip
        """Stand in for ``os.link``."""
        pair = self._pair(src, dst, src_dir_fd, dst_dir_fd)
        if pair is None:
            REAL_OS.link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd,
                         follow_symlinks=follow_symlinks)  # fmt: skip
        else:
            pair[0].link(*pair[1:])

    def _pair(
        self, src: Any, dst: Any, src_dir_fd: Any, dst_dir_fd: Any
    ) -> tuple[Overlay, str, str] | None:
        old, new = self._place(src, src_dir_fd), self._place(dst, dst_dir_fd)
        if old is None and new is None:
            return None
        if old is None or new is None:
            fail(errno.EXDEV, os.fsdecode(dst))
        return old[0], old[1], new[1]

    def symlink(
        self, src: Any, dst: Any, target_is_directory: bool = False, *, dir_fd: Any = None
    ) -> None:
        """Stand in for ``os.symlink``: like a file system that has no links."""
        place = self._place(dst, dir_fd)
        if place is not None:
            fail(errno.EPERM, place[1])
        REAL_OS.symlink(src, dst, target_is_directory, dir_fd=dir_fd)

    # --- facts ---------------------------------------------------------------------------------

    def truncate(self, path: Any, length: int) -> None:
        """Stand in for ``os.truncate``."""
        if isinstance(path, int):
            self._patch.numbers.ftruncate(path, length)
            return
        place = self._place(path)
        if place is None:
            REAL_OS.truncate(path, length)
            return
        node = place[0].bring(place[1])
        if isinstance(node, Folder):
            fail(errno.EISDIR, place[1])
        place[0].disk.truncate(node, length)

    def _node(self, path: Any, dir_fd: Any) -> Inode | Folder | None:
        """Return what facts are to be set of, brought into the simulation."""
        if isinstance(path, int):
            return self._patch.numbers.node(path) if path >= FIRST else None
        place = self._place(path, dir_fd)
        if place is None:
            return None
        if place[0].is_dir(place[1], place[0].look(place[1])):
            return place[0].folder(place[1])
        return place[0].bring(place[1])

    def chmod(
        self, path: Any, mode: int, *, dir_fd: Any = None, follow_symlinks: bool = True
    ) -> None:
        """Stand in for ``os.chmod``."""
        node = self._node(path, dir_fd)
        if node is None:
            REAL_OS.chmod(path, mode, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        else:
            node.mode = stat.S_IMODE(mode)

    def chown(
        self, path: Any, uid: int, gid: int, *, dir_fd: Any = None, follow_symlinks: bool = True
    ) -> None:
        """Stand in for ``os.chown``: nothing has an owner on a simulated disk."""
        if self._node(path, dir_fd) is None:
            REAL_OS.chown(path, uid, gid, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    def utime(
        self, path: Any, times: Any = None, *, ns: Any = None, dir_fd: Any = None,
        follow_symlinks: bool = True,
    ) -> None:  # fmt: skip
        """Stand in for ``os.utime``."""
        node = self._node(path, dir_fd)
        if node is None:
            more = {"ns": ns} if ns is not None else {"times": times}
            REAL_OS.utime(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks, **more)
        elif ns is not None:
            node.mtime_ns = int(ns[1])
        elif times is not None:
            node.mtime_ns = int(times[1] * 1_000_000_000)
        else:
            overlay = self._patch.overlay()
            node.mtime_ns = overlay.disk.wall_ns() if overlay is not None else node.mtime_ns

    def listxattr(self, path: Any = None, *, follow_symlinks: bool = True) -> list[str]:
        """Stand in for ``os.listxattr``: a simulated file has none."""
        if self._simulated(path):
            return []
        return list(REAL_OS.listxattr(path, follow_symlinks=follow_symlinks))

    def getxattr(self, path: Any, attribute: Any, *, follow_symlinks: bool = True) -> Any:
        """Stand in for ``os.getxattr``."""
        if self._simulated(path):
            fail(errno.ENODATA)
        return REAL_OS.getxattr(path, attribute, follow_symlinks=follow_symlinks)

    def setxattr(
        self, path: Any, attribute: Any, value: Any, flags: int = 0, *,
        follow_symlinks: bool = True,
    ) -> None:  # fmt: skip
        """Stand in for ``os.setxattr``: like a file system without them."""
        if self._simulated(path):
            fail(errno.ENOTSUP)
        REAL_OS.setxattr(path, attribute, value, flags, follow_symlinks=follow_symlinks)

    def _simulated(self, path: Any) -> bool:
        if isinstance(path, int):
            return path >= FIRST
        place = self._place("." if path is None else path)
        return place is not None and not isinstance(place[0].look(place[1]), Real)
