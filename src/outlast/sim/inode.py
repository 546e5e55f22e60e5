"""One file of a simulated disk: what is on the platter, and the changes that are not yet.

The *durable* image (``base``) holds what no crash takes away any more. Over it lie the
``changes`` in the order in which they were made, each with the instant at which it was written
and, once a sync covers it, the instant from which it is durable. ``dirty`` pages are the
durable pages with all changes carried out: what a program reads. Changes whose durability can
no longer be undone are settled: merged into the durable image and forgotten.

Pages that hold only zeros need not exist, so that a preallocated file costs nothing.
"""

from collections.abc import Iterable
from typing import Final

from outlast.kernel import Prng

SECTOR: Final = 512
PAGE: Final = 4096
NEVER: Final = 1 << 62
"""The durable instant of what no sync has covered."""

_FAR: Final = 1 << 60
_Pages = dict[int, bytearray]
_NOTHING: Final[_Pages] = {}


class Change:
    """A write (``data``; ``None`` for zeros) at ``offset``, or a truncation (offset -1)."""

    __slots__ = ("data", "durable_ns", "lost", "offset", "size", "written_ns")

    def __init__(self, offset: int, size: int, data: bytes | None, written_ns: int) -> None:
        self.offset = offset
        self.size = size
        self.data = data
        self.written_ns = written_ns
        self.durable_ns = NEVER
        self.lost = False
        """Whether a failed sync has dropped it: still in the page cache, never on the disk."""


class Loss:
    """What a crash did to the content of one file or of all."""

    __slots__ = ("lost_bytes", "lost_writes", "torn_writes")

    def __init__(self) -> None:
        self.lost_bytes = 0
        self.lost_writes = 0
        self.torn_writes = 0


class Inode:
    """The content of one file, its locks and its facts. Not thread-safe."""

    __slots__ = (
        "_covered",
        "base",
        "base_size",
        "busy_until_ns",
        "changes",
        "dirty",
        "handles",
        "holders",
        "links",
        "mode",
        "mtime_ns",
        "number",
        "size",
        "stale",
        "sync_end_ns",
        "unsynced_bytes",
    )

    def __init__(self, number: int, mode: int = 0o640, mtime_ns: int = 0) -> None:
        self.number = number
        self.mode = mode
        self.mtime_ns = mtime_ns
        self.base: _Pages = {}
        self.base_size = 0
        self.dirty: _Pages = {}
        self.size = 0
        self.changes: list[Change] = []
        self._covered = 0
        self.unsynced_bytes = 0
        self.links = 0
        self.handles = 0
        self.holders: dict[object, bool] = {}
        """Who holds a lock, and whether it is exclusive."""
        self.busy_until_ns = 0
        """The instant of the last change: a later call on this file waits for it."""
        self.sync_end_ns = 0
        self.stale = False
        """Whether the page cache shows something that a failed sync has lost."""

    # --- what programs see ---------------------------------------------------------------------

    def read(self, size: int, offset: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``."""
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        number, start = divmod(offset, PAGE)
        if start + size <= PAGE:
            page = self.dirty.get(number) or self.base.get(number)
            return bytes(size) if page is None else bytes(page[start : start + size])
        end = offset + size
        out = bytearray(size)
        for other in _numbers(number, (end - 1) // PAGE, self.dirty, self.base):
            page = self.dirty.get(other) or self.base.get(other)
            if page is not None:
                at = other * PAGE
                low, high = max(offset, at), min(end, at + PAGE)
                out[low - offset : high - offset] = page[low - at : high - at]
        return bytes(out)

    def write(self, offset: int, data: bytes | None, size: int, written_ns: int) -> None:
        """Write ``data``, or ``size`` zeros if it is ``None``."""
        self.changes.append(Change(offset, size, data, written_ns))
        self.busy_until_ns = written_ns
        if data is None:
            _zero(self.dirty, self.base, offset, offset + size)
        else:
            _put(self.dirty, self.base, offset, data)
            self.unsynced_bytes += size
        self.size = max(self.size, offset + size)

    def truncate(self, size: int, written_ns: int) -> None:
        """Cut, or extend with zeros."""
        self.changes.append(Change(-1, size, None, written_ns))
        self.busy_until_ns = written_ns
        if size < self.size:
            _zero(self.dirty, self.base, size, _FAR)
        self.size = size

    def fill(self, data: bytes) -> None:
        """Make ``data`` the whole, durable content, as if it had always been there."""
        self.forget_changes()
        self.base = {}
        _put(self.base, _NOTHING, 0, data)
        self.base_size = self.size = len(data)

    # --- durability ------------------------------------------------------------------------------

    @property
    def unsynced(self) -> int:
        """How many changes no sync has covered."""
        return len(self.changes) - self._covered

    def cover(self, end_ns: int, count: int = _FAR) -> None:
        """Let the changes so far (or only the first ``count``) be durable from ``end_ns`` on."""
        for change in self.changes[self._covered : count]:
            change.durable_ns = end_ns
        self._recount()

    def _recount(self) -> None:
        changes = self.changes
        while self._covered < len(changes) and changes[self._covered].durable_ns < NEVER:
            self._covered += 1
        self.unsynced_bytes = sum(
            change.size for change in changes[self._covered :] if change.data is not None
        )

    def lose(self, end_ns: int, prng: Prng) -> int:
        """Let a sync of the changes so far fail at ``end_ns``; return the bytes lost.

        The page cache goes on showing them, but takes them for written: no later sync brings
        them back. A random part had reached the disk.
        """
        kept = self.changes[: self._covered]
        lost = 0
        for change in self.changes[self._covered :]:
            change.lost, change.durable_ns = True, end_ns
            kept.append(change)
            for piece in _landed(change, prng):
                piece.durable_ns = end_ns
                kept.append(piece)
                lost -= piece.size if piece.offset >= 0 else 0
            lost += change.size if change.offset >= 0 else 0
        self.changes = kept
        self._covered = len(kept)
        self.unsynced_bytes = 0
        return lost

    def settle(self, floor_ns: int) -> int:
        """Merge what is durable at ``floor_ns``, before which no crash comes any more.

        Returns the instant from which the last of it was durable, 0 if there was nothing.
        """
        count = 0
        stale = self.stale
        for change in self.changes:
            if change.durable_ns > floor_ns:
                break
            stale = stale or change.lost
            count += 1
        if not count:
            return 0
        durable_ns = self.changes[count - 1].durable_ns
        if count == len(self.changes) and not stale:
            self.base.update(self.dirty)
            self.dirty = {}
            if self.size < self.base_size:
                _zero(self.base, _NOTHING, self.size, _FAR)
            self.base_size = self.size
            self.changes = []
        else:
            for change in self.changes[:count]:
                self._merge(change)
            self.stale = stale
            del self.changes[:count]
        self._covered = max(0, self._covered - count)
        return durable_ns

    def forget_cache(self) -> None:
        """Drop what only the page cache knew: what a failed sync has lost."""
        if self.stale or any(change.lost for change in self.changes):
            self.changes = [change for change in self.changes if not change.lost]
            self._covered = 0
            self._recount()
            self._rebuild()

    def kill(self, at_ns: int) -> None:
        """Undo what was to be written after ``at_ns``, and syncs that had not ended by then."""
        undone = bool(self.changes) and self.changes[-1].written_ns > at_ns
        self.changes = [change for change in self.changes if change.written_ns <= at_ns]
        for change in self.changes:
            if change.durable_ns > at_ns:
                change.durable_ns, change.lost = NEVER, False
        self._covered = 0
        self._recount()
        self.busy_until_ns = min(self.busy_until_ns, at_ns)
        self.sync_end_ns = min(self.sync_end_ns, at_ns)
        self.holders, self.handles = {}, 0
        if undone:
            self._rebuild()

    def cut(self, at_ns: int, prng: Prng, loss: Loss) -> None:
        """Leave what is on the platter when the power goes at ``at_ns``; count in ``loss``."""
        for change in self.changes:
            if change.written_ns > at_ns:
                break
            if change.durable_ns <= at_ns:
                self._merge(change)
                continue
            landed = 0
            for piece in _landed(change, prng):
                landed += piece.size
                self._merge(piece)
            if change.offset >= 0 and not change.lost:
                loss.lost_bytes += change.size - landed
                loss.lost_writes += landed == 0 < change.size
                loss.torn_writes += 0 < landed < change.size
        self.forget_changes()
        self.busy_until_ns = self.sync_end_ns = 0
        self.holders, self.handles = {}, 0

    def forget_changes(self) -> None:
        """Go back to the durable image."""
        self.changes, self._covered, self.unsynced_bytes = [], 0, 0
        self.dirty, self.size, self.stale = {}, self.base_size, False

    def _merge(self, change: Change) -> None:
        """Carry out ``change`` on the durable image."""
        if not change.lost:
            self.base_size = _apply(change, self.base, _NOTHING, self.base_size)

    def _rebuild(self) -> None:
        """Make the dirty pages anew."""
        self.dirty, self.size, self.stale = {}, self.base_size, False
        for change in self.changes:
            self.size = _apply(change, self.dirty, self.base, self.size)

    # --- bit rot ---------------------------------------------------------------------------------

    def rot(self, prng: Prng) -> int:
        """Flip a bit of a durable byte and return the byte's offset, -1 if there is none."""
        numbers = [n for n in sorted(self.base) if n * PAGE < self.base_size]
        numbers = [n for n in numbers if n not in self.dirty] or numbers
        if not numbers:
            return -1
        number = prng.choice(numbers)
        at = prng.below(min(PAGE, self.base_size - number * PAGE))
        self.base[number][at] ^= 1 << prng.below(8)
        return number * PAGE + at


# --- pages -----------------------------------------------------------------------------------


def _numbers(first: int, last: int, *images: _Pages) -> Iterable[int]:
    """Return the page numbers from ``first`` to ``last``, or those of them that exist."""
    if last - first < sum(map(len, images)):
        return range(first, last + 1)
    found = dict.fromkeys(n for image in images for n in image if first <= n <= last)
    return sorted(found)


def _page(pages: _Pages, below: _Pages, number: int) -> bytearray:
    page = pages.get(number)
    if page is None:
        under = below.get(number)
        page = pages[number] = bytearray(PAGE) if under is None else bytearray(under)
    return page


def _put(pages: _Pages, below: _Pages, offset: int, data: bytes) -> None:
    number, start = divmod(offset, PAGE)
    size = len(data)
    if start + size <= PAGE:
        if size:
            _page(pages, below, number)[start : start + size] = data
        return
    at = 0
    while at < size:
        count = min(PAGE - start, size - at)
        if count == PAGE:
            pages[number] = bytearray(data[at : at + PAGE])
        else:
            _page(pages, below, number)[start : start + count] = data[at : at + count]
        at, start, number = at + count, 0, number + 1


def _zero(pages: _Pages, below: _Pages, start: int, end: int) -> None:
    """Make zeros from ``start`` to ``end``: pages that do not exist need not begin to."""
    if (not pages and not below) or start >= end:
        return
    for number in _numbers(start // PAGE, (end - 1) // PAGE, pages, below):
        low, high = max(start - number * PAGE, 0), min(end - number * PAGE, PAGE)
        if high - low == PAGE:
            if below is _NOTHING:
                pages.pop(number, None)
            elif number in pages or number in below:
                # Also over nothing: what is still to be merged below must not show through.
                pages[number] = bytearray(PAGE)
        elif number in pages or number in below:
            _page(pages, below, number)[low:high] = bytes(high - low)


def _apply(change: Change, pages: _Pages, below: _Pages, size: int) -> int:
    """Carry out ``change`` on ``pages`` and return the size of the file after it."""
    if change.offset < 0:
        if change.size < size:
            _zero(pages, below, change.size, _FAR)
        return change.size
    end = change.offset + change.size
    if change.data is None:
        _zero(pages, below, change.offset, end)
    else:
        _put(pages, below, change.offset, change.data)
    return max(size, end)


def _landed(change: Change, prng: Prng) -> list[Change]:
    """Draw what of an unsynced change has reached the disk: all, nothing, or some sectors."""
    fate = prng.below(4)
    if change.offset < 0:
        return [Change(-1, change.size, None, change.written_ns)] if fate & 1 else []
    if fate == 0:
        return []
    end = change.offset + change.size
    if fate == 1:
        return [Change(change.offset, change.size, change.data, change.written_ns)]
    pieces = []
    bits, left = 0, 0
    low = change.offset
    while low < end:
        if not left:
            bits, left = prng.bits64(), 64
        high = min(end, low - low % SECTOR + SECTOR)
        if bits & 1:
            data = change.data
            if data is not None:
                data = data[low - change.offset : high - change.offset]
            pieces.append(Change(low, high - low, data, change.written_ns))
        bits, left, low = bits >> 1, left - 1, high
    return pieces
