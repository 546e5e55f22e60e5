"""What a path means to an unmodified program: the simulated disk, over the real files.

A simulated directory may *show real*: names that the simulation says nothing about are those
of the real directory of the same path. Whatever is changed is brought into the simulation
first, as if it had always been on its disk; whatever is removed leaves a whiteout there.
"""

import errno
import os
import stat
from typing import Final, NoReturn

from outlast.sim.disk import SimDisk
from outlast.sim.folder import WHITEOUT, Folder, Whiteout
from outlast.sim.inode import Inode
from outlast.sim.medium import fail

DEVICE: Final = 0x51D
_UMASK: Final = 0o022
_NS: Final = 1_000_000_000


class RealFiles:
    """The functions of the real machine, kept from before they are replaced."""

    open = open
    os_open = os.open
    stat = os.stat
    lstat = os.lstat
    listdir = os.listdir
    scandir = os.scandir


class Real:
    """Stands for what is only on the real file system."""

    __slots__ = ()


REAL: Final = Real()
Found = Inode | Folder | Real | None


class Overlay:
    """Paths of one simulated disk; all paths are absolute and normal.

    Args:
        disk: The disk.
        roots: The directories that are simulated and show nothing real; none: everything is
            simulated and shows what is real.
    """

    __slots__ = ("disk",)

    def __init__(self, disk: SimDisk, roots: tuple[str, ...] = ()) -> None:
        self.disk = disk
        disk.root.shows_real = not roots
        for root in roots:
            folder = disk.root
            for name in filter(None, root.split("/")):
                below = folder.get(name)
                if below is None:
                    below = Folder(disk.number())
                    folder.put(name, below)
                if not isinstance(below, Folder):
                    fail(errno.ENOTDIR, root)
                folder = below

    def look(self, path: str) -> Found:
        """Return what is at ``path``: a simulated node, ``REAL``, or ``None`` for nothing."""
        node: Inode | Folder = self.disk.root
        for name in path.split("/"):
            if not name:
                continue
            if not isinstance(node, Folder):
                return None
            child = node.names.get(name)
            if child is None:
                return REAL if node.shows_real and _real_mode(path) is not None else None
            if isinstance(child, Whiteout):
                return None
            node = child
        return node

    def is_dir(self, path: str, found: Found) -> bool:
        """Whether what was found at ``path`` is a directory."""
        if isinstance(found, Real):
            return stat.S_ISDIR(_real_mode(path) or 0)
        return isinstance(found, Folder)

    def missing(self, path: str) -> NoReturn:
        """Raise what is right for a ``path`` at which nothing is."""
        above = path.rpartition("/")[0]
        while above and self.look(above) is None:
            above = above.rpartition("/")[0]
        fail(errno.ENOENT if not above or self.is_dir(above, self.look(above)) else errno.ENOTDIR,
             path)  # fmt: skip

    def names(self, path: str) -> list[str]:
        """Return the names in the directory at ``path``, sorted."""
        found = self.look(path)
        if found is None:
            self.missing(path)
        if isinstance(found, Inode):
            fail(errno.ENOTDIR, path)
        if isinstance(found, Real):
            return sorted(RealFiles.listdir(path))
        names = dict.fromkeys(found.names)
        if found.shows_real and stat.S_ISDIR(_real_mode(path) or 0):
            names.update(dict.fromkeys(RealFiles.listdir(path)))
        return sorted(name for name in names if found.names.get(name) is not WHITEOUT)

    # --- bringing real things in ---------------------------------------------------------------

    def folder(self, path: str) -> Folder:
        """Return the directory at ``path`` as a simulated one."""
        folder = self.disk.root
        at = ""
        for name in path.split("/"):
            if not name:
                continue
            at = f"{at}/{name}"
            child = folder.names.get(name)
            if child is None and folder.shows_real:
                mode = _real_mode(at)
                if mode is not None and stat.S_ISDIR(mode):
                    child = Folder(self.disk.number(), stat.S_IMODE(mode))
                    child.shows_real = True
                    folder.put(name, child)
                elif mode is not None:
                    fail(errno.ENOTDIR, path)
            if child is None or isinstance(child, Whiteout):
                fail(errno.ENOENT, path)
            if not isinstance(child, Folder):
                fail(errno.ENOTDIR, path)
            folder = child
        return folder

    def place(self, path: str) -> tuple[Folder, str]:
        """Return the simulated directory above ``path``, and its last name."""
        above, _, name = path.rpartition("/")
        if not name:
            fail(errno.EBUSY, path)
        return self.folder(above), name

    def bring(self, path: str) -> Inode | Folder:
        """Return what is at ``path`` as a simulated file or directory, content and all."""
        found = self.look(path)
        if found is None:
            self.missing(path)
        if not isinstance(found, Real):
            if isinstance(found, Folder) and found.shows_real:
                self._bring_all(path, found)
            return found
        if self.is_dir(path, found):
            folder = self.folder(path)
            self._bring_all(path, folder)
            return folder
        above, name = self.place(path)
        facts = RealFiles.stat(path)
        inode = Inode(self.disk.number(), stat.S_IMODE(facts.st_mode), facts.st_mtime_ns)
        if not stat.S_ISREG(facts.st_mode):
            fail(errno.EPERM, path)
        with RealFiles.open(path, "rb") as file:
            inode.fill(file.read())
        inode.links = 1
        self.disk.used_bytes += inode.size
        above.put(name, inode)
        return inode

    def _bring_all(self, path: str, folder: Folder) -> None:
        for name in self.names(path):
            self.bring(f"{path.rstrip('/')}/{name}")
        folder.shows_real = False

    def instead(self, folder: Folder, path: str) -> Whiteout | None:
        """Return what has to stay at ``path`` of ``folder`` when it is removed."""
        return WHITEOUT if folder.shows_real and _real_mode(path) is not None else None

    # --- changes -------------------------------------------------------------------------------

    def mkdir(self, path: str, mode: int) -> None:
        """Make a directory."""
        if self.look(path) is not None:
            fail(errno.EEXIST, path)
        folder, name = self.place(path)
        self.disk.refuse_change(path)
        made = Folder(self.disk.number(), mode & ~_UMASK)
        self.disk.rename_all([(folder, name, made)])
        made.mtime_ns = folder.mtime_ns

    def create(self, path: str, mode: int) -> Inode:
        """Make an empty file at ``path``, where nothing is."""
        folder, name = self.place(path)
        return self.disk.create(folder, name, mode & ~_UMASK)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        found = self.look(path)
        if found is None:
            self.missing(path)
        if self.is_dir(path, found):
            fail(errno.EISDIR, path)
        folder, name = self.place(path)
        self.disk.remove(folder, name, self.instead(folder, path))

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        if self.names(path):
            fail(errno.ENOTEMPTY, path)
        folder, name = self.place(path)
        self.disk.remove(folder, name, self.instead(folder, path))

    def rename(self, source: str, target: str) -> None:
        """Rename a file or a directory with all it holds."""
        if self.look(source) is None:
            self.missing(source)
        folder, _ = self.place(source)
        self.place(target)
        there = self.look(target)
        if self.is_dir(target, there) and self.names(target) and source != target:
            fail(errno.ENOTEMPTY if self.is_dir(source, self.look(source)) else errno.EISDIR,
                 target)  # fmt: skip
        self.bring(source)
        if there is not None:
            self.bring(target)
        self.disk.move(source, target, self.instead(folder, source))

    def link(self, source: str, target: str) -> None:
        """Give a file another name."""
        inode = self.bring(source)
        if not isinstance(inode, Inode):
            fail(errno.EPERM, source)
        if self.look(target) is not None:
            fail(errno.EEXIST, target)
        folder, name = self.place(target)
        self.disk.refuse_change(target)
        self.disk.rename_all([(folder, name, inode)])
        inode.links += 1

    def facts(self, path: str, *, follow: bool = True) -> os.stat_result:
        """Return what ``os.stat`` says about ``path``."""
        found = self.look(path)
        if found is None:
            self.missing(path)
        if isinstance(found, Real):
            return RealFiles.stat(path) if follow else RealFiles.lstat(path)
        return facts_of(found)


def facts_of(node: Inode | Folder) -> os.stat_result:
    """Return what ``os.stat`` says about a simulated file or directory."""
    if isinstance(node, Inode):
        kind, links, size = stat.S_IFREG, node.links, node.size
    else:
        kind, links, size = stat.S_IFDIR, 2, 4096
    ns = node.mtime_ns
    seconds = ns // _NS
    row = (kind | node.mode, node.number, DEVICE, links, os.getuid(), os.getgid(), size,
           seconds, seconds, seconds)  # fmt: skip
    more: dict[str, object] = {"st_blksize": 4096, "st_blocks": (size + 511) // 512, "st_rdev": 0}
    for name in ("atime", "mtime", "ctime"):
        more[f"st_{name}"], more[f"st_{name}_ns"] = ns / _NS, ns
    return os.stat_result(row, more)


def _real_mode(path: str) -> int | None:
    """Return the mode of a real file, links followed as far as they lead; ``None``: nothing."""
    try:
        return RealFiles.stat(path).st_mode
    except OSError:
        try:
            return RealFiles.lstat(path).st_mode
        except OSError:
            return None
