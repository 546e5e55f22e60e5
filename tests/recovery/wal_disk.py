"""A disk in memory that records every call, so that every state a crash can leave is made.

In the manner of ALICE (OSDI 2014) and SQLite's crash tests: a crash state at step *n* has
everything that was synced before *n*, and any choice of what was not: sectors of writes, and
names of files. Acknowledgements are recorded in the same list of steps.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from outlast.host import make_world
from outlast.kernel import Prng, World

SECTOR = 512


class Inode:
    def __init__(self, number: int, data: bytes = b"") -> None:
        self.number = number
        self.data = bytearray(data)


@dataclass(frozen=True)
class Step:
    what: str  # write, truncate, fsync, lost, create, rename, unlink, fsync_dir, ack
    inode: int = 0
    offset: int = 0
    data: bytes = b""
    path: str = ""
    target: str = ""
    note: Any = None


class MemoryFile:
    def __init__(self, disk: "MemoryDisk", inode: Inode, path: str) -> None:
        self.disk, self.inode, self.path = disk, inode, path
        self.locked = False

    def pread(self, size: int, offset: int) -> bytes:
        return bytes(self.inode.data[offset : offset + size])

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        self.disk.fault("pwrite", self)
        content = self.inode.data
        if len(content) < offset + len(data):
            self.disk.take(offset + len(data) - len(content))
            content.extend(bytes(offset + len(data) - len(content)))
        content[offset : offset + len(data)] = data
        self.disk.record(Step("write", self.inode.number, offset, bytes(data)))

    def fdatasync(self) -> None:
        try:
            self.disk.fault("fsync", self)
        except OSError:
            # The kernel marks the pages clean: what was written is lost, a second try "works".
            self.disk.record(Step("lost", self.inode.number))
            if not self.disk.retry_fsync:
                raise
        if not self.disk.skip_fsync:
            self.disk.record(Step("fsync", self.inode.number))

    fsync = fdatasync

    def truncate(self, size: int) -> None:
        content = self.inode.data
        self.disk.take(max(0, size - len(content)))
        self.disk.used -= max(0, len(content) - size)
        del content[size:]
        content.extend(bytes(size - len(content)))
        self.disk.record(Step("truncate", self.inode.number, size))

    def size(self) -> int:
        return len(self.inode.data)

    def drop_cache(self) -> None:
        pass

    def lock(self) -> bool:
        if self.path in self.disk.locks:
            return False
        self.locked = True
        self.disk.locks.add(self.path)
        return True

    def close(self) -> None:
        if self.locked:
            self.disk.locks.discard(self.path)
            self.locked = False


class MemoryDisk:
    """``faults`` is called as (call, file) and may raise; ``capacity`` bounds all content."""

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        self.folders: set[str] = set()
        self.steps: list[Step] = []
        self.locks: set[str] = set()
        self.skip_fsync = self.skip_fsync_dir = self.retry_fsync = False
        self.capacity: int | None = None
        self.used = 0
        self.count = 0
        self.faults: Callable[[str, MemoryFile], None] = lambda *_: None

    def record(self, step: Step) -> None:
        self.steps.append(step)

    def ack(self, note: Any) -> None:
        self.record(Step("ack", note=note))

    def fault(self, call: str, file: MemoryFile) -> None:
        self.faults(call, file)

    def take(self, count: int) -> None:
        if self.capacity is not None and self.used + count > self.capacity:
            raise OSError(errno.ENOSPC, "the disk is full")
        self.used += count

    def open(self, path: str, *, create: bool = False, write: bool = True) -> MemoryFile:
        inode = self.names.get(path)
        if inode is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            self.count += 1
            inode = self.names[path] = Inode(self.count)
            self.record(Step("create", inode.number, path=path))
        return MemoryFile(self, inode, path)

    def exists(self, path: str) -> bool:
        return path in self.names or path in self.folders

    def listdir(self, path: str) -> list[str]:
        if path not in self.folders:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        names = [*self.names, *self.folders]
        return sorted(name.rpartition("/")[2] for name in names if name.rpartition("/")[0] == path)

    def makedirs(self, path: str) -> None:
        while path:
            self.folders.add(path)
            path = path.rpartition("/")[0]

    def rename(self, source: str, target: str) -> None:
        self.names[target] = self.names.pop(source)
        self.record(Step("rename", path=source, target=target))

    def unlink(self, path: str) -> None:
        self.used -= len(self.names.pop(path).data)
        self.record(Step("unlink", path=path))

    def rmtree(self, path: str) -> None:
        raise NotImplementedError

    def fsync_dir(self, path: str) -> None:
        if not self.skip_fsync_dir:
            self.record(Step("fsync_dir", path=path))

    def free_bytes(self, path: str) -> int:
        return (1 << 60) if self.capacity is None else max(0, self.capacity - self.used)

    def copy(self) -> "MemoryDisk":
        """The same content, as after an orderly stop of the machine."""
        twin = MemoryDisk()
        twin.folders = set(self.folders)
        for path, inode in self.names.items():
            twin.count = max(twin.count, inode.number)
            twin.names[path] = Inode(inode.number, bytes(inode.data))
        return twin


def crash(
    base: MemoryDisk, steps: list[Step], prng: Prng, *, keep: str, folders: set[str]
) -> MemoryDisk:
    """Return the disk after a power cut that came after ``steps`` were done on ``base``.

    ``keep``: ``nothing`` of what is unsynced, ``everything``, or a ``random`` choice.
    """
    contents = {inode.number: bytearray(inode.data) for inode in base.names.values()}
    names = {path: inode.number for path, inode in base.names.items()}
    pending: dict[int, list[Step]] = {}
    moves: list[Step] = []
    for step in steps:
        if step.what in {"write", "truncate"}:
            pending.setdefault(step.inode, []).append(step)
        elif step.what == "fsync":
            for one in pending.pop(step.inode, []):
                _apply(contents.setdefault(step.inode, bytearray()), one, _all)
        elif step.what == "lost":
            pending.pop(step.inode, None)
        elif step.what == "fsync_dir":
            mine = [move for move in moves if move.path.rpartition("/")[0] == step.path]
            moves = [move for move in moves if move not in mine]
            for move in mine:
                _move(names, move)
        elif step.what != "ack":
            moves.append(step)
    choose: dict[str, Callable[[], bool]] = {
        "nothing": lambda: False,
        "everything": lambda: True,
        "random": lambda: prng.chance(1, 2),
    }
    kept = choose[keep]
    for move in moves[: prng.below(len(moves) + 1)] if keep == "random" else moves:
        if keep == "random" or kept():
            _move(names, move)
    for number, changes in pending.items():
        for change in changes:
            _apply(contents.setdefault(number, bytearray()), change, kept)
    disk = MemoryDisk()
    disk.folders = set(folders)
    disk.count = max([0, *contents])
    for path, number in names.items():
        disk.names[path] = Inode(number, bytes(contents.get(number, b"")))
    return disk


def _all() -> bool:
    return True


def _move(names: dict[str, int], move: Step) -> None:
    if move.what == "create":
        names[move.path] = move.inode
    elif move.what == "rename" and move.path in names:
        names[move.target] = names.pop(move.path)
    elif move.what == "unlink":
        names.pop(move.path, None)


def _apply(content: bytearray, change: Step, kept: Callable[[], bool]) -> None:
    if change.what == "truncate":
        if kept():
            del content[change.offset :]
            content.extend(bytes(change.offset - len(content)))
        return
    end = change.offset + len(change.data)
    if kept is _all:
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        content[change.offset : end] = change.data
        return
    for at in range(change.offset, end, SECTOR):
        if not kept():
            continue
        piece = change.data[at - change.offset : at - change.offset + SECTOR]
        if len(content) < at + len(piece):
            content.extend(bytes(at + len(piece) - len(content)))
        content[at : at + len(piece)] = piece


class InlineOffload:
    """Runs each call in the loop's own thread, one at a time, when the loop next turns."""

    def run(self, lane: str, call: Callable[[], Any]) -> Awaitable[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def work() -> None:
            try:
                result = call()
            except Exception as error:
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)

        loop.call_soon(work)
        return future


def memory_world(disk: Any, seed: int = 1) -> World:
    """A world on ``disk`` whose offloaded calls run in order in the loop's thread."""
    return replace(make_world(storage=disk, seed=seed), offload=InlineOffload())
