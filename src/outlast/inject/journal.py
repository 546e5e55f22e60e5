"""The journal of a drill: what would end each fault, on disk before the fault begins.

One file a drill, in a private directory (:mod:`outlast.inject.place`); its format is told in
:mod:`outlast.inject.core.undo`. After the drill has died, at any moment, ``heal`` reads it.
"""

import os
import tempfile
from contextlib import suppress
from typing import Self

from outlast.inject.core.undo import (
    PREFIX,
    Header,
    KillMarked,
    RemoveTree,
    Undo,
    done_line,
    drill_id,
    header_line,
    undo_line,
)
from outlast.inject.identity import MARKER, identify, require_linux
from outlast.inject.place import boot_word, open_place
from outlast.inject.tree import make_marked
from outlast.inject.undoing import HealStep, carry_out, in_order
from outlast.kernel import ConfigError, World

SUFFIX = ".journal"
NEW_SUFFIX = ".new"


class Journal:
    """The undos of one running drill. Not thread-safe; calls block for one fsync.

    Attributes:
        drill: The drill's id, never used again.
        path: The journal's file.
    """

    def __init__(self, world: World, drill: str, path: str, descriptor: int) -> None:
        self.drill = drill
        self.path = path
        self._world = world
        self._file = descriptor
        self._open: dict[int, Undo] = {}
        self._number = 0

    @classmethod
    def open(cls, world: World, *, directory: str | None = None) -> Self:
        """Begin a journal that this process owns; its first undo kills the drill's processes.

        The file appears under its name once its first lines are on disk, so that heal never
        sees a journal without an owner.

        Args:
            world: For the id and the time.
            directory: Private directory for it; the well-known one by default.

        Raises:
            ConfigError: The directory is not private, or this is not Linux.
            OSError: It cannot be written.
        """
        require_linux("a drill")
        place = open_place(directory)
        owner = identify(os.getpid())
        drill = drill_id(owner, world.prng.bits64())
        path = os.path.join(place, drill + SUFFIX)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(path + NEW_SUFFIX, flags, 0o600)
        journal = cls(world, drill, path, file)
        header = Header(drill, owner, boot_word(), world.clock.wall_ns())
        try:
            journal._append(header_line(header))
            journal.before(KillMarked())
            os.rename(path + NEW_SUFFIX, path)
        except BaseException:
            os.close(file)
            with suppress(OSError):
                os.unlink(path + NEW_SUFFIX)
            raise
        fsync_directory(place)
        world.fault_point("inject.journal.opened")
        return journal

    def __repr__(self) -> str:
        """Show whose it is and how much is open."""
        return f"<Journal {self.drill} {len(self._open)} open>"

    @property
    def environment(self) -> dict[str, str]:
        """What every process of the drill must have in its environment, to be found by heal."""
        return {MARKER: self.drill}

    @property
    def open_undos(self) -> tuple[Undo, ...]:
        """What is not undone yet, oldest first."""
        return tuple(self._open.values())

    def before(self, undo: Undo) -> int:
        """Write down what will end a fault and return its number; then inject the fault.

        On return it is on disk.

        Raises:
            OSError: It could not be written; the fault must not be injected.
        """
        self._number += 1
        self._append(undo_line(self._number, undo))
        self._open[self._number] = undo
        self._world.fault_point("inject.journal.before")
        return self._number

    def done(self, number: int) -> None:
        """Note that the undo of that number is not needed any more."""
        if self._open.pop(number, None) is not None:
            self._append(done_line(number))

    def make_directory(self, name: str = "data", *, parent: str | None = None) -> str:
        """Make a private directory that ends with the drill, and return its path.

        Args:
            name: Tells it from others of the drill: letters, digits, ``-`` and ``_``.
            parent: Where it is made; the system's directory for temporary files by default.

        Raises:
            ConfigError: The name has other characters.
            OSError: It exists, or cannot be made.
        """
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            raise ConfigError(f"directory name {name!r}: use letters, digits, - and _")
        where = os.path.realpath(parent or tempfile.gettempdir())
        path = os.path.join(where, f"{PREFIX}{self.drill}-{name}")
        self.before(RemoveTree(path))
        self._world.fault_point("inject.journal.make")
        make_marked(path, self.drill)
        return path

    def keep(self, path: str) -> None:
        """Leave a directory of :meth:`make_directory` to the user: it will not be removed."""
        for number, undo in list(self._open.items()):
            if undo == RemoveTree(path):
                self.done(number)

    def undo(self) -> tuple[HealStep, ...]:
        """Undo all that is open, as heal would, and return what was done.

        The drill's processes are killed first, then the newest is undone first. What could not
        be undone stays open.
        """
        steps = []
        for number, undo in in_order(tuple(self._open.items())):
            step = carry_out(self._world, self.drill, undo)
            steps.append(step)
            if step.over:
                self.done(number)
        return tuple(steps)

    def close(self) -> None:
        """Kill what is left of the drill's processes and end the journal. Again: no effect.

        Its file is removed if nothing else is open, and stays for heal otherwise.
        """
        if self._file < 0:
            return
        for number, undo in list(self._open.items()):
            if isinstance(undo, KillMarked) and carry_out(self._world, self.drill, undo).over:
                self.done(number)
        os.close(self._file)
        self._file = -1
        if not self._open:
            os.unlink(self.path)
            fsync_directory(os.path.dirname(self.path))

    def _append(self, line: bytes) -> None:
        if self._file < 0:
            raise ConfigError(f"journal {self.drill} is closed; open another")
        before = os.fstat(self._file).st_size
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError:
            # Half a line, as a full disk leaves it, would damage the one that is written next.
            with suppress(OSError):
                os.ftruncate(self._file, before)
            raise


def fsync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
