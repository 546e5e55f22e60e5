"""Storage that keeps what is not fsynced in this process's memory: SIGKILL is a power cut.

A kill leaves the kernel's page cache alone, so a program that forgets an fsync survives it.
Here nothing reaches the wrapped storage before it was asked for:

* a write stays in memory until ``fsync`` or ``fdatasync`` of its file;
* a create, rename or removal stays in memory until ``fsync_dir`` of its directory, and a file
  whose name is not durable has no content after a kill, fsynced or not;
* real disks also write back early. So of the sectors of each small write, a random part goes
  to the wrapped storage at once: a kill between a write and the end of its fsync finds the
  write *torn*, part old and part new.

``makedirs`` and ``rmtree`` are durable at once and locks are the wrapped storage's.
"""

import contextlib
import errno
import os
import threading

from outlast.kernel import File, Prng, Storage

SECTOR = 512
TORN_BYTES_MAX = 8 << 20
_EARLY_PIECES = 8

_Extent = tuple[int, bytes]


class _Inode:
    """One file: what is on the wrapped storage (if linked there), and what only we know."""

    __slots__ = ("backing", "handles", "lock", "path", "pending", "size", "synced", "synced_size")

    def __init__(self, backing: File | None, path: str) -> None:
        self.backing = backing
        self.path = path
        self.handles = 0
        self.lock = threading.RLock()
        self.size = backing.size() if backing is not None else 0
        self.pending: list[_Extent | int] = []
        """Unsynced writes and (as bare sizes) truncations, in order."""
        self.synced: list[_Extent | int] = []
        """Synced content of a file whose name is not durable yet."""
        self.synced_size = self.size


class LossyFile:
    """A handle on a file of :class:`LossyStorage`. Safe to use from any thread."""

    __slots__ = ("_closed", "_guard", "_inode", "_storage", "path")

    def __init__(self, storage: "LossyStorage", inode: _Inode, path: str) -> None:
        self._storage = storage
        self._inode = inode
        inode.handles += 1
        self._guard: File | None = None
        self._closed = False
        self.path = path

    def _use(self) -> _Inode:
        if self._closed or self._inode.path == "":
            raise OSError(errno.EIO, "closed, or the power was cut", self.path)
        return self._inode

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``, unsynced writes included."""
        inode = self._use()
        with inode.lock:
            return _read(inode, size, offset)

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write ``data`` at ``offset``: into memory, and a random part of it to the disk."""
        inode = self._use()
        with inode.lock:
            extent = (offset, bytes(data))
            inode.pending.append(extent)
            inode.size = max(inode.size, offset + len(extent[1]))
            if inode.backing is not None and len(extent[1]) <= TORN_BYTES_MAX:
                self._storage.leak(inode.backing, extent, inode.synced_size)

    def fdatasync(self) -> None:
        """Move what was written to the wrapped storage, and sync it there."""
        self._sync(full=False)

    def fsync(self) -> None:
        """Move what was written to the wrapped storage, and sync it there."""
        self._sync(full=True)

    def _sync(self, *, full: bool) -> None:
        inode = self._use()
        if self._storage.sync_is_noop:
            return
        with inode.lock:
            if inode.backing is None:
                inode.synced += inode.pending
            else:
                _apply(inode.backing, inode.pending)
                (inode.backing.fsync if full else inode.backing.fdatasync)()
            inode.pending = []
            inode.synced_size = inode.size

    def truncate(self, size: int) -> None:
        """Cut or extend (with zeros) to ``size`` bytes, in memory."""
        inode = self._use()
        with inode.lock:
            inode.pending.append(size)
            inode.size = size

    def size(self) -> int:
        """Return the size in bytes, unsynced writes included."""
        return self._use().size

    def drop_cache(self) -> None:
        """Ask the wrapped storage to forget cached pages."""
        inode = self._use()
        if inode.backing is not None:
            inode.backing.drop_cache()

    def lock(self) -> bool:
        """Take the wrapped storage's lock on the same path, which is created there."""
        inode = self._use()
        guard = self._storage.inner.open(inode.path, create=True)
        if guard.lock():
            self._guard = guard
            return True
        guard.close()
        return False

    def close(self) -> None:
        """Close the handle; what is unsynced stays in memory."""
        if not self._closed:
            self._closed = True
            if self._guard is not None:
                self._guard.close()
            self._storage.release(self._inode)


class LossyStorage:
    """Files that lose at a kill, or at :meth:`power_cut`, what was not fsynced.

    Safe to use from any thread. One process at a time may use a directory.

    Args:
        inner: Storage of what is durable.
        prng: Chooses which sectors go to the disk early.
        sync_is_noop: A planted bug: no sync moves anything, so everything is lost. Tests
            that claim to notice a forgotten fsync must fail with it.
    """

    def __init__(
        self, inner: Storage, prng: Prng | None = None, *, sync_is_noop: bool = False
    ) -> None:
        self.inner = inner
        self.sync_is_noop = sync_is_noop
        self._prng = prng or Prng(int.from_bytes(os.urandom(8), "little"))
        self._lock = threading.RLock()
        self._drawing = threading.Lock()
        self._nodes: dict[str, _Inode | None] = {}
        """What a path means, where that differs from (or is cached of) the inner storage."""
        self._ops: dict[str, list[tuple[str, str, _Inode | None]]] = {}
        """Unsynced directory operations: (what, path, inode or renamed-to)."""
        self._open: list[_Inode] = []

    # --- files -------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, write: bool = True) -> LossyFile:
        """Open ``path``; ``create`` makes it if missing, durable only after ``fsync_dir``."""
        path = os.path.abspath(path)
        with self._lock:
            if path in self._nodes:
                inode = self._nodes[path]
            else:
                try:
                    inode = self._adopt(path)
                except FileNotFoundError:
                    inode = None
            if inode is None:
                if not create:
                    raise FileNotFoundError(errno.ENOENT, "no such file", path)
                if not self.inner.exists(os.path.dirname(path)):
                    raise FileNotFoundError(errno.ENOENT, "no such directory", path)
                inode = _Inode(None, path)
                self._nodes[path] = inode
                self._open.append(inode)
                self._log(path, ("create", path, inode))
            return LossyFile(self, inode, path)

    def _adopt(self, path: str) -> _Inode:
        inode = _Inode(self.inner.open(path), path)
        self._nodes[path] = inode
        self._open.append(inode)
        return inode

    def release(self, inode: _Inode) -> None:
        """Count a handle as closed; forget a file of which nothing is only in memory."""
        with self._lock:
            inode.handles -= 1
            self._forget(inode)

    def _forget(self, inode: _Inode) -> None:
        folder = os.path.dirname(inode.path)
        if inode.handles or inode.backing is None or self._ops.get(folder) or not inode.path:
            return
        gone = self._nodes.get(inode.path) is not inode
        if inode.pending and not gone:
            return
        if not gone:
            del self._nodes[inode.path]
        self._open.remove(inode)
        inode.backing.close()

    def leak(self, backing: File, extent: _Extent, durable_size: int) -> None:
        """Let a random part of a write's sectors reach the disk early, within its size."""
        if self.sync_is_noop:
            return
        offset, data = extent
        sectors = min(len(data), durable_size - offset) // SECTOR
        if sectors <= 0:
            return
        with self._drawing:
            chosen = [self._prng.below(sectors) for _ in range(min(sectors, _EARLY_PIECES) // 2)]
        for sector in chosen:
            piece = data[sector * SECTOR : (sector + 1) * SECTOR]
            backing.pwrite(piece, offset + sector * SECTOR)

    # --- names -------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Whether a file or directory of that name exists."""
        path = os.path.abspath(path)
        with self._lock:
            if path in self._nodes:
                return self._nodes[path] is not None
        return self.inner.exists(path)

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        path = os.path.abspath(path)
        with self._lock:
            names = dict.fromkeys(self.inner.listdir(path))
            for node, inode in self._nodes.items():
                folder, name = os.path.split(node)
                if folder == path:
                    if inode is None:
                        names.pop(name, None)
                    else:
                        names[name] = None
        return sorted(names)

    def makedirs(self, path: str) -> None:
        """Create a directory and its parents, durably."""
        self.inner.makedirs(path)

    def rename(self, source: str, target: str) -> None:
        """Rename in memory; durable after ``fsync_dir``. Both must be in one directory."""
        source, target = os.path.abspath(source), os.path.abspath(target)
        with self._lock:
            inode = self._nodes.get(source) if source in self._nodes else self._adopt(source)
            if inode is None:
                raise FileNotFoundError(errno.ENOENT, "no such file", source)
            if os.path.dirname(source) != os.path.dirname(target):
                raise OSError(errno.EXDEV, "rename across directories is not supported", target)
            self._nodes[source] = None
            self._nodes[target] = inode
            inode.path = target
            self._log(source, (f"rename {source}", target, inode))

    def unlink(self, path: str) -> None:
        """Remove a file in memory; durable after ``fsync_dir``."""
        path = os.path.abspath(path)
        with self._lock:
            if not self.exists(path):
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            self._nodes[path] = None
            self._log(path, ("unlink", path, None))

    def rmtree(self, path: str) -> None:
        """Remove a directory with all it holds, durably."""
        path = os.path.abspath(path)
        with self._lock:
            for node in [node for node in self._nodes if node.startswith(path + os.sep)]:
                del self._nodes[node]
            for folder in [
                name for name in self._ops if (name + os.sep).startswith(path + os.sep)
            ]:
                del self._ops[folder]
            self.inner.rmtree(path)

    def fsync_dir(self, path: str) -> None:
        """Carry out the creates, renames and removals in ``path`` on the wrapped storage."""
        path = os.path.abspath(path or ".")
        if self.sync_is_noop:
            return
        with self._lock:
            self._carry_out(self._ops.pop(path, []))
            self.inner.fsync_dir(path)
            for node in [node for node, inode in self._nodes.items() if inode is None]:
                if os.path.dirname(node) == path:
                    del self._nodes[node]
            for inode in tuple(self._open):
                self._forget(inode)

    def free_bytes(self, path: str) -> int:
        """Return the bytes still free on the wrapped storage."""
        return self.inner.free_bytes(path)

    def _log(self, path: str, op: tuple[str, str, _Inode | None]) -> None:
        self._ops.setdefault(os.path.dirname(path), []).append(op)

    def _carry_out(self, ops: list[tuple[str, str, _Inode | None]]) -> None:
        for what, path, inode in ops:
            if what == "unlink":
                with contextlib.suppress(FileNotFoundError):
                    self.inner.unlink(path)
            elif what == "create" and inode is not None:
                self._materialize(inode, path)
            elif inode is not None:
                source = what.partition(" ")[2]
                if inode.backing is None:
                    self._materialize(inode, path)
                else:
                    self.inner.rename(source, path)

    def _materialize(self, inode: _Inode, path: str) -> None:
        """Give a file whose name becomes durable its synced content, and nothing else."""
        with inode.lock:
            backing = self.inner.open(path, create=True)
            backing.truncate(0)
            _apply(backing, inode.synced)
            backing.fsync()
            inode.backing, inode.synced = backing, []

    # --- for tests ---------------------------------------------------------------------------

    def power_cut(self, prng: Prng) -> None:
        """Do to this storage, in this process, what a power cut does to a machine.

        Of each directory's unsynced operations a random first part has happened (file systems
        keep their order), of each file's unsynced writes a random set of sectors has landed.
        Handles that are open fail from now on. Go on with the same storage object.
        """
        with self._lock:
            for ops in self._ops.values():
                self._carry_out(ops[: prng.below(len(ops) + 1)])
            for inode in self._open:
                with inode.lock:
                    if inode.backing is not None:
                        _tear(inode.backing, inode.pending, prng)
                        inode.backing.close()
                    inode.path, inode.pending = "", []
            self._nodes, self._ops, self._open = {}, {}, []


def _read(inode: _Inode, size: int, offset: int) -> bytes:
    """Return bytes as the program sees them: the durable ones under all writes since."""
    size = max(0, min(size, inode.size - offset))
    if not inode.pending and inode.backing is not None:
        return inode.backing.pread(size, offset)
    data = bytearray(size)
    if inode.backing is not None:
        found = inode.backing.pread(size, offset)
        data[: len(found)] = found
    for change in (*inode.synced, *inode.pending):
        if isinstance(change, int):
            if change < offset + size:
                start = max(0, change - offset)
                data[start:] = bytes(size - start)
        else:
            at, written = change
            low, high = max(at, offset), min(at + len(written), offset + size)
            if low < high:
                data[low - offset : high - offset] = written[low - at : high - at]
    return bytes(data)


def _apply(backing: File, changes: list[_Extent | int]) -> None:
    for change in changes:
        if isinstance(change, int):
            backing.truncate(change)
        else:
            backing.pwrite(change[1], change[0])


def _tear(backing: File, changes: list[_Extent | int], prng: Prng) -> None:
    """Let a random set of the sectors of unsynced writes reach the disk."""
    for change in changes:
        if isinstance(change, int):
            if prng.chance(1, 2):
                backing.truncate(change)
            continue
        offset, data = change
        everything = prng.chance(1, 8)
        for at in range(0, len(data), SECTOR):
            if everything or prng.chance(1, 2):
                backing.pwrite(data[at : at + SECTOR], offset + at)
