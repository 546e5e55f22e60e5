"""The directories of a simulated disk: names that are durable, and changes to them that are not.

A :class:`NameChange` is atomic, also when it concerns two directories (a rename across them).
The changes of one directory reach the disk in order, as journalling file systems keep it, with
one exception that callers ask for: a change may be durable ahead of those before it.
"""

from typing import Final, Union

from outlast.kernel import Prng
from outlast.sim.inode import NEVER, Inode

Node = Union[Inode, "Folder", "Whiteout"]


class Whiteout:
    """Stands for a real file that was removed, in the simulation only."""

    __slots__ = ()


WHITEOUT: Final = Whiteout()


class NameChange:
    """What some names mean from an instant on; ``None`` for names that mean nothing more."""

    __slots__ = ("durable_ns", "sets", "written_ns")

    def __init__(self, sets: list[tuple["Folder", str, Node | None]], written_ns: int) -> None:
        self.sets = sets
        self.written_ns = written_ns
        self.durable_ns = NEVER

    @property
    def folders(self) -> list["Folder"]:
        """The directories concerned, each once."""
        found: list[Folder] = []
        for folder, _, _ in self.sets:
            if folder not in found:
                found.append(folder)
        return found

    def apply(self, folder: "Folder", names: dict[str, Node]) -> None:
        """Carry out on ``names`` what concerns ``folder``."""
        for where, name, node in self.sets:
            if where is not folder:
                continue
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node


class Folder:
    """A directory. ``shows_real`` lets the real directory of that path show through."""

    __slots__ = (
        "base", "busy_until_ns", "changes", "mode", "mtime_ns", "names", "number", "shows_real",
    )  # fmt: skip

    def __init__(self, number: int, mode: int = 0o750, mtime_ns: int = 0) -> None:
        self.number = number
        self.mode = mode
        self.mtime_ns = mtime_ns
        self.base: dict[str, Node] = {}
        """The durable names."""
        self.names: dict[str, Node] = {}
        """The names that programs see."""
        self.changes: list[NameChange] = []
        self.busy_until_ns = 0
        self.shows_real = False

    def get(self, name: str) -> Union[Inode, "Folder", None]:
        """Return what ``name`` means."""
        node = self.names.get(name)
        return None if node is WHITEOUT else node  # type: ignore[return-value]

    def put(self, name: str, node: Node) -> None:
        """Let ``name`` mean ``node`` durably, as if it always had."""
        self.base[name] = self.names[name] = node

    def settle(self, floor_ns: int) -> int:
        """Merge what is durable at ``floor_ns``, before which no crash comes any more.

        Returns the instant from which the last of it was durable, 0 if there was nothing.
        """
        count = durable_ns = 0
        for change in self.changes:
            if change.durable_ns > floor_ns:
                break
            change.apply(self, self.base)
            durable_ns = max(durable_ns, change.durable_ns)
            count += 1
        del self.changes[:count]
        return durable_ns

    def kill(self, at_ns: int) -> None:
        """Undo what was to happen after ``at_ns``, and syncs that had not ended by then."""
        kept = [change for change in self.changes if change.written_ns <= at_ns]
        for change in kept:
            if change.durable_ns > at_ns:
                change.durable_ns = NEVER
        self.busy_until_ns = min(self.busy_until_ns, at_ns)
        if len(kept) < len(self.changes):
            self.changes = kept
            self.names = self.base.copy()
            for change in kept:
                change.apply(self, self.names)


def change_names(
    sets: list[tuple[Folder, str, Node | None]], written_ns: int, *, durable: bool = False
) -> NameChange:
    """Carry out and record a change; ``durable`` makes it so at once."""
    change = NameChange(sets, written_ns)
    if durable:
        change.durable_ns = written_ns
    for folder in change.folders:
        change.apply(folder, folder.names)
        folder.changes.append(change)
        folder.busy_until_ns = written_ns
    return change


def cover_names(folder: Folder, end_ns: int, count: int | None = None) -> None:
    """Let the changes of ``folder``, or the first ``count``, be durable from ``end_ns`` on.

    A change across directories takes with it what came before it in the other one.
    """
    todo = [(folder, len(folder.changes) if count is None else count)]
    while todo:
        where, limit = todo.pop()
        for change in where.changes[:limit]:
            if change.durable_ns != NEVER:
                continue
            change.durable_ns = end_ns
            for other in change.folders:
                if other is not where:
                    todo.append((other, other.changes.index(change)))


def cut_names(folders: list[Folder], at_ns: int, prng: Prng) -> int:
    """Leave of ``folders`` what is on the disk when the power goes at ``at_ns``.

    Of each directory's changes a random first part has happened, and what is durable. Returns
    how many changes are lost.
    """
    kept: dict[int, int] = {}
    for folder in folders:
        folder.changes = [change for change in folder.changes if change.written_ns <= at_ns]
        kept[folder.number] = prng.below(len(folder.changes) + 1)
    again = True
    while again:
        again = False
        for folder in folders:
            for position, change in enumerate(folder.changes[: kept[folder.number]]):
                if change.durable_ns > at_ns and not _everywhere(change, kept):
                    kept[folder.number], again = position, True
                    break
    lost: dict[int, NameChange] = {}
    for folder in folders:
        for position, change in enumerate(folder.changes):
            if position < kept[folder.number] or change.durable_ns <= at_ns:
                change.apply(folder, folder.base)
            else:
                lost[id(change)] = change
    for folder in folders:
        folder.changes, folder.names, folder.busy_until_ns = [], folder.base.copy(), 0
    return len(lost)


def _everywhere(change: NameChange, kept: dict[int, int]) -> bool:
    """Whether all directories of ``change`` keep it."""
    return all(change in folder.changes[: kept.get(folder.number, 0)] for folder in change.folders)
