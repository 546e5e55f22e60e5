"""A disk in memory that loses what was not synced, for one simulated host.

A program that runs in virtual time is computed at once, and what it does lies at growing
instants: each operation *spends* time. A crash may come at any of them. So every change
carries the instant at which it was written and, once a sync has covered it, the instant at
which that sync ended. A crash at instant T undoes what was to be written after T. A power cut
also loses what was not durable at T, or tears it into sectors of 512 bytes:

* a write is durable when an ``fsync`` or ``fdatasync`` of its file that began after it ends;
* a create, rename or removal is durable when an ``fsync_dir`` of its directory ends. Of those
  that are not, a random first part has happened: file systems keep their order;
* a file whose name is not durable is lost with its content, synced or not;
* a sync that fails has lost what it covered: the page cache still shows it, and no later sync
  brings it back.

``makedirs`` and ``rmtree`` are durable when they return.
"""

import errno
import os
from collections.abc import Iterator

from outlast.kernel import ConfigError, Prng
from outlast.sim.disk_settings import DiskFaults, DiskSettings, DiskTally, PowerLoss
from outlast.sim.folder import Folder, Node, change_names, cover_names, cut_names
from outlast.sim.inode import Inode, Loss
from outlast.sim.medium import Medium, fail

__all__ = ["DiskFaults", "DiskSettings", "DiskTally", "PowerLoss", "SimDisk", "SimFile"]

_Sets = list[tuple[Folder, str, Node | None]]


class SimFile:
    """A handle on a file of a :class:`SimDisk`. A crash of its host ends it: EBADF."""

    __slots__ = ("_closed", "_disk", "_epoch", "inode", "path", "writable")

    def __init__(self, disk: "SimDisk", inode: Inode, path: str, *, writable: bool) -> None:
        self._disk = disk
        self._epoch = disk.epoch
        self._closed = False
        self.inode = inode
        self.path = path
        self.writable = writable
        inode.handles += 1

    @property
    def crashed(self) -> bool:
        """Whether its host has crashed since it was opened."""
        return self._epoch != self._disk.epoch

    @property
    def ended(self) -> bool:
        """Whether it is closed, or its host has crashed since it was opened."""
        return self._closed or self._epoch != self._disk.epoch

    def use(self, *, write: bool = False) -> Inode:
        """Return the file, if the handle may be used.

        Raises:
            OSError: EBADF: closed, crashed, or opened for reading only.
        """
        if self._closed or self._epoch != self._disk.epoch or (write and not self.writable):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self.path)
        return self.inode

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``; fewer only at the end of the file."""
        return self._disk.read(self.use(), size, offset)

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``, into the page cache."""
        self._disk.write(self.use(write=True), data, offset)

    def fdatasync(self) -> None:
        """Make content and size durable."""
        self._disk.sync(self.use())

    def fsync(self) -> None:
        """Make content and all metadata durable."""
        self._disk.sync(self.use())

    def truncate(self, size: int) -> None:
        """Cut or extend (with a hole) to ``size`` bytes."""
        self._disk.truncate(self.use(write=True), size)

    def size(self) -> int:
        """Return the size in bytes."""
        return self.use().size

    def drop_cache(self) -> None:
        """Forget what only the page cache knows, such as what a failed sync has lost."""
        self.use().forget_cache()

    def lock(self, *, shared: bool = False) -> bool:
        """Take an advisory lock; ``False`` if another handle holds one that excludes it."""
        holders = self.use().holders
        for holder, exclusive in holders.items():
            if holder is not self and (exclusive or not shared):
                return False
        holders[self] = not shared
        return True

    def unlock(self) -> None:
        """Give the lock back."""
        self.use().holders.pop(self, None)

    def close(self) -> None:
        """Close the handle; never syncs. Harmless after a crash."""
        if not self.ended:
            self.inode.holders.pop(self, None)
            self.inode.handles -= 1
            self._disk.forget(self.inode)
        self._closed = True


class SimDisk(Medium):
    """The files of one simulated host: a :class:`outlast.kernel.Storage` in memory.

    Not thread-safe: everything in a simulation runs in one thread.

    Args:
        prng: Draws how long operations take, which of them fail, and what a crash leaves.
        now_ns: Returns the instant of the code that runs, in virtual nanoseconds.
        spend: Is told how long each operation takes; ``now_ns`` grows by that.
        settings: How quick and how large it is.
        floor_ns: Returns the instant before which no crash comes any more: the time of the
            simulation, without what the running code is ahead. By default
            ``settings.settle_lag_ns`` before ``now_ns``.
        wall_ns: Returns the time for timestamps of files; by default 2026 and ``now_ns``.
        sync_is_noop: A planted bug: no sync makes anything durable. Tests that claim to
            notice a forgotten fsync must fail with it.

    Attributes:
        faults: What goes wrong now.
        tally: What has gone wrong so far.
        descriptors: Open files of unmodified programs, by number.
        epoch: Grows with each crash.
    """

    # --- names ---------------------------------------------------------------------------------

    def find(self, path: str) -> Inode | Folder | None:
        """Return what is at the absolute, normal ``path``, ``None`` if nothing; takes no time."""
        node: Inode | Folder | None = self.root
        for name in path.split("/"):
            if name:
                if not isinstance(node, Folder):
                    return None
                node = node.get(name)
        return node

    def parent_of(self, path: str) -> tuple[Folder, str]:
        """Return the directory that holds the last name of ``path``, and the name.

        Raises:
            FileNotFoundError: There is no such directory.
            NotADirectoryError: It is a file.
        """
        above, _, name = path.rpartition("/")
        folder = self.find(above)
        if folder is None:
            fail(errno.ENOENT, path)
        if not isinstance(folder, Folder) or not name:
            fail(errno.ENOTDIR if name else errno.EBUSY, path)
        return folder, name

    def number(self) -> int:
        """Return the number of a new file or directory."""
        self._numbers += 1
        return self._numbers

    def open(self, path: str, *, create: bool = False, write: bool = True) -> SimFile:
        """Open ``path``; ``create`` makes it if missing, durable only after ``fsync_dir``."""
        path = os.path.abspath(path)
        folder, name = self.parent_of(path)
        self._look(folder)
        node = folder.get(name)
        if isinstance(node, Folder):
            fail(errno.EISDIR, path)
        if node is None:
            if not create:
                fail(errno.ENOENT, path)
            node = self.create(folder, name)
        elif write:
            self.refuse_change(path)
        return SimFile(self, node, path, writable=write)

    def create(self, folder: Folder, name: str, mode: int = 0o640) -> Inode:
        """Make an empty file."""
        self.refuse_change(name)
        inode = Inode(self.number(), mode, self.wall_ns())
        inode.links = 1
        self.rename_all([(folder, name, inode)])
        return inode

    def rename_all(self, sets: _Sets, *, durable: bool = False) -> None:
        """Let names mean something else, as one atomic change; ``None`` for nothing."""
        after_ns = max(folder.busy_until_ns for folder, _, _ in sets)
        written_ns = self.pass_time(self.settings.write_ns, after_ns)
        self._record(sets, written_ns, durable=durable)

    def _record(self, sets: _Sets, written_ns: int, *, durable: bool = False) -> None:
        change = change_names(sets, written_ns, durable=durable)
        for folder in change.folders:
            folder.mtime_ns = self.wall_ns()
            self._dirty_folders[folder.number] = folder
            count = len(folder.changes)
            if count > self.settings.dirty_changes_max and count % 256 == 0:
                cover_names(folder, written_ns, count // 2)
                self.settle(folder)

    def _look(self, folder: Folder) -> None:
        self.pass_time(self.settings.lookup_ns, folder.busy_until_ns)

    def exists(self, path: str) -> bool:
        """Whether a file or directory of that name exists."""
        path = os.path.abspath(path)
        above = self.find(path.rpartition("/")[0])
        if isinstance(above, Folder):
            self._look(above)
        return self.find(path) is not None

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        folder = self._folder(path)
        self._look(folder)
        return sorted(name for name in folder.names if folder.get(name) is not None)

    def _folder(self, path: str) -> Folder:
        path = os.path.abspath(path or ".")
        node = self.find(path)
        if isinstance(node, Folder):
            return node
        fail(errno.ENOENT if node is None else errno.ENOTDIR, path)

    def makedirs(self, path: str) -> None:
        """Create a directory and its parents durably; no error if it exists."""
        folder = self.root
        path = os.path.abspath(path)
        self._look(folder)
        for name in path.split("/"):
            if not name:
                continue
            node = folder.get(name)
            if node is None:
                self.refuse_change(path)
                node = Folder(self.number(), mtime_ns=self.wall_ns())
                node.shows_real = folder.shows_real and name not in folder.names
                written_ns = self.pass_time(self.settings.sync_ns, folder.busy_until_ns)
                self._record([(folder, name, node)], written_ns, durable=True)
            if not isinstance(node, Folder):
                fail(errno.EEXIST, path)
            folder = node

    def rename(self, source: str, target: str) -> None:
        """Rename atomically within a directory, replacing ``target``."""
        if os.path.dirname(os.path.abspath(source)) != os.path.dirname(os.path.abspath(target)):
            fail(errno.EXDEV, target)
        self.move(os.path.abspath(source), os.path.abspath(target))

    def move(self, source: str, target: str, instead: Node | None = None) -> None:
        """Rename atomically, also across directories; both paths absolute and normal.

        ``instead`` may hide what shows through at ``source``.
        """
        old, old_name = self.parent_of(source)
        new, new_name = self.parent_of(target)
        node, there = old.get(old_name), new.get(new_name)
        self._look(old)
        if node is None:
            fail(errno.ENOENT, source)
        if isinstance(there, Folder) and not isinstance(node, Folder):
            fail(errno.EISDIR, target)
        if isinstance(node, Folder) and there is not None:
            if not isinstance(there, Folder):
                fail(errno.ENOTDIR, target)
            if there is not node and any(there.get(name) for name in there.names):
                fail(errno.ENOTEMPTY, target)
        if (
            isinstance(node, Folder)
            and f"{target}/".startswith(f"{source}/")
            and node is not there
        ):
            fail(errno.EINVAL, target)
        self.refuse_change(target)
        if node is there:
            return
        self.rename_all([(old, old_name, instead), (new, new_name, node)])
        if isinstance(there, Inode):
            self._unlinked(there)

    def unlink(self, path: str) -> None:
        """Remove a file; durable after ``fsync_dir``."""
        path = os.path.abspath(path)
        folder, name = self.parent_of(path)
        self._look(folder)
        node = folder.get(name)
        if node is None:
            fail(errno.ENOENT, path)
        if isinstance(node, Folder):
            fail(errno.EISDIR, path)
        self.remove(folder, name)

    def remove(self, folder: Folder, name: str, instead: Node | None = None) -> None:
        """Take a name away; ``instead`` may hide what shows through."""
        self.refuse_change(name)
        node = folder.get(name)
        self.rename_all([(folder, name, instead)])
        if isinstance(node, Inode):
            self._unlinked(node)

    def _unlinked(self, inode: Inode) -> None:
        inode.links -= 1
        self.forget(inode)

    def rmtree(self, path: str) -> None:
        """Remove a directory with all it holds, durably; no error if missing."""
        path = os.path.abspath(path)
        node = self.find(path)
        if node is None:
            self.pass_time(self.settings.lookup_ns)
            return
        folder, name = self.parent_of(path)
        self.refuse_change(path)
        written_ns = self.pass_time(self.settings.sync_ns, folder.busy_until_ns)
        for _, inode in self._below(node, path):
            self._unlinked(inode)
        self._record([(folder, name, None)], written_ns, durable=True)

    def fsync_dir(self, path: str) -> None:
        """Make creates, renames and removals in ``path`` durable."""
        self.sync_names(self._folder(path))

    def sync_names(self, folder: Folder) -> None:
        """Make the names in a directory durable.

        Raises:
            OSError: EIO: they are not; a later call may make them so.
        """
        self.settle(folder)
        end_ns = self.pass_time(self.settings.sync_ns, folder.busy_until_ns)
        if self.fails("sync"):
            fail(errno.EIO)
        if not self.sync_is_noop:
            cover_names(folder, end_ns)

    def sync_all(self) -> None:
        """Make everything durable, as ``sync`` does."""
        for inode in tuple(self._dirty.values()):
            self.sync(inode)
        for folder in tuple(self._dirty_folders.values()):
            self.sync_names(folder)

    def free_bytes(self, path: str) -> int:
        """Return the bytes still free."""
        return self.free()

    def files(self, path: str = "/") -> list[str]:
        """Return the paths of all files at or below ``path``, sorted; takes no time."""
        node = self.find(os.path.abspath(path))
        return [] if node is None else [name for name, _ in self._below(node, path)]

    def _below(self, node: Node, path: str) -> Iterator[tuple[str, Inode]]:
        if isinstance(node, Inode):
            yield path, node
        elif isinstance(node, Folder):
            for name in sorted(node.names):
                yield from self._below(node.names[name], f"{path.rstrip('/')}/{name}")

    # --- crashes -------------------------------------------------------------------------------

    def process_killed(self, at_ns: int | None = None) -> None:
        """Let the host's process end at ``at_ns`` (default now): the page cache survives.

        What was computed ahead, for instants after it, did not happen. Handles and locks are
        gone.

        Raises:
            ConfigError: Definite. What was durable by then is merged already: see ``floor_ns``.
        """
        at_ns = self._crash(at_ns)
        for folder in tuple(self._dirty_folders.values()):
            folder.kill(at_ns)
        for inode in tuple(self._dirty.values()):
            inode.kill(at_ns)
        self._recount()

    def power_cut(self, at_ns: int | None = None) -> PowerLoss:
        """Let the power go at ``at_ns`` (default now) and return what that took.

        Raises:
            ConfigError: Definite. What was durable by then is merged already: see ``floor_ns``.
        """
        at_ns = self._crash(at_ns)
        loss = Loss()
        lost_names = cut_names(list(self._dirty_folders.values()), at_ns, self._prng)
        for inode in self._dirty.values():
            inode.cut(at_ns, self._prng, loss)
        self._dirty, self._dirty_folders = {}, {}
        self._recount()
        tally = self.tally
        tally.power_cuts += 1
        tally.lost_bytes += loss.lost_bytes
        tally.lost_names += lost_names
        tally.torn += loss.torn_writes
        return PowerLoss(loss.lost_writes, loss.torn_writes, lost_names, loss.lost_bytes)

    def _crash(self, at_ns: int | None) -> int:
        at_ns = self._now_ns() if at_ns is None else at_ns
        if at_ns < self._settled_ns:
            message = (
                f"crash at {at_ns} ns: the disk has merged what was durable at {self._settled_ns}"
                " ns; give SimDisk floor_ns, the time before which no crash comes"
            )
            raise ConfigError(message)
        self.epoch += 1
        self.descriptors.clear()
        return at_ns

    def _recount(self) -> None:
        """Count links and space anew; files without a name are gone, and handles too."""
        inodes: dict[int, Inode] = {}
        for _, inode in self._below(self.root, "/"):
            if inode.number not in inodes:
                inodes[inode.number] = inode
                inode.links, inode.handles, inode.holders = 0, 0, {}
            inode.links += 1
        self.used_bytes = sum(inode.size for inode in inodes.values())

    def rot(self, prng: Prng, path: str | None = None) -> str:
        """Flip one bit of durable content and return what was hit, "" if there is nothing.

        Args:
            prng: Chooses the file, the byte and the bit.
            path: A file, or a directory below which one is chosen; by default anywhere.
        """
        found: list[tuple[str, Inode]] = []
        node = self.find(os.path.abspath(path or "/"))
        for name, inode in self._below(node, os.path.abspath(path or "/")) if node else ():
            self.settle(inode)
            if inode.base and inode.base_size:
                found.append((name, inode))
        if not found:
            return ""
        name, inode = prng.choice(found)
        offset = inode.rot(prng)
        if offset < 0:
            return ""
        self.tally.rotted += 1
        return f"{name}: a bit of byte {offset}"
