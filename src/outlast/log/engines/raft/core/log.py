"""The node's view of its log: a window of recent entries in memory, older ones behind a view.

The window holds everything that is not yet durable and committed, and then as much as
``cache_bytes_max`` allows, so that sending to a member that keeps up never reads the disk.
Sizes are kept as running totals: cutting a batch by bytes is one binary search.
"""

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import Protocol

from outlast.kernel import invariant
from outlast.log.engines.raft.core.types import Entry

ENTRY_OVERHEAD_BYTES = 24
"""What one entry counts for besides its payload, so that empty entries are bounded too."""


class LogView(Protocol):
    """What the driver's storage shows of the log, durable or not (given over the WAL)."""

    @property
    def first(self) -> int:
        """First index that ``entries`` can still give."""
        ...

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at ``index`` (also at ``first - 1``), if known."""
        ...

    def entries(self, first: int, last: int, bytes_max: int) -> list[Entry]:
        """Return entries from ``first`` to at most ``last``: at least one if it is kept."""
        ...


class NodeLog:
    """Entries ``base_index + 1`` to ``last_index``; the newest of them in memory."""

    __slots__ = (
        "_ends", "_entries", "_keep_bytes", "_origin", "_start", "_view", "base_index",
        "base_term", "floor", "last_index", "last_term",
    )  # fmt: skip

    def __init__(self, view: LogView, base_index: int, base_term: int, keep_bytes: int) -> None:
        self._view = view
        self._keep_bytes = keep_bytes
        self._entries: list[Entry] = []
        self._ends: list[int] = []  # bytes from the origin to the end of each entry
        self._origin = 0
        self._start = base_index + 1  # index of _entries[0]
        self.base_index = base_index
        self.base_term = base_term
        self.floor = 0  # nothing below it may be asked of the view (the log was reset)
        self.last_index = base_index
        self.last_term = base_term

    def recover(self, tail: list[Entry], last_index: int, last_term: int) -> None:
        """Take the recovered log, of which ``tail`` is the unbroken end."""
        self._start = tail[0].index if tail else last_index + 1
        self.last_index = last_index
        self.last_term = last_term
        if tail:
            self._take(tail)

    def _take(self, entries: list[Entry]) -> None:
        total = self._ends[-1] if self._ends else self._origin
        ends = list(
            accumulate([len(e.payload) + ENTRY_OVERHEAD_BYTES for e in entries], initial=total)
        )
        del ends[0]
        self._ends += ends
        self._entries += entries

    def append(self, entries: list[Entry]) -> None:
        """Add entries that follow ``last_index``."""
        last = entries[-1]
        invariant(
            entries[0].index == self.last_index + 1
            and last.index == self.last_index + len(entries),
            f"raft: entries {entries[0].index}..{last.index} do not follow {self.last_index}",
        )
        self._take(entries)
        self.last_index = last.index
        self.last_term = last.term

    def term_at(self, index: int) -> int | None:
        """Return the term at ``index``; ``None`` past the end and where it was trimmed."""
        if index >= self._start:
            return self._entries[index - self._start].term if index <= self.last_index else None
        if index == self.base_index:
            return self.base_term
        if index == self.last_index:
            return self.last_term
        if index < self.floor or index < 0:
            return None
        return 0 if index == 0 else self._view.term_at(index)

    @property
    def first(self) -> int:
        """First index that can still be sent to a member."""
        return min(self._start, max(self._view.first, self.floor + 1))

    def slice(self, first: int, bytes_max: int) -> tuple[list[Entry], int]:
        """Return entries from ``first`` within ``bytes_max`` (at least one), and their bytes.

        Empty when ``first`` is past the end or was trimmed.
        """
        if first > self.last_index:
            return [], 0
        if first < self._start:
            if first <= self.floor or first < self._view.first:
                return [], 0
            last = min(self._start - 1, self.last_index)
            older = self._view.entries(first, last, bytes_max)
            return older, sum(len(e.payload) + ENTRY_OVERHEAD_BYTES for e in older)
        at = first - self._start
        before = self._ends[at - 1] if at else self._origin
        end = max(at + 1, bisect_right(self._ends, before + bytes_max, at))
        return self._entries[at:end], self._ends[end - 1] - before

    def entry(self, index: int) -> Entry | None:
        """Return the entry at ``index``, or ``None`` if it is not kept."""
        found, _ = self.slice(index, 1)
        return found[0] if found else None

    def bytes_after(self, index: int) -> int:
        """Return the bytes of the entries above ``index`` that are in memory."""
        if not self._ends or index >= self.last_index:
            return 0
        at = index - self._start
        return self._ends[-1] - (self._ends[at] if at >= 0 else self._origin)

    def truncate(self, index: int) -> None:
        """Drop the entries at and above ``index``."""
        term = self.term_at(index - 1)
        invariant(term is not None, f"raft: truncation to {index} reaches below the log")
        at = max(0, index - self._start)
        del self._entries[at:]
        del self._ends[at:]
        self._start = min(self._start, index)
        self.last_index = index - 1
        self.last_term = term or 0

    def reset(self, index: int, term: int) -> None:
        """Drop everything: the log goes on after (``index``, ``term``), from a snapshot."""
        self._entries = []
        self._ends = []
        self._start = index + 1
        self.base_index = self.last_index = self.floor = index
        self.base_term = self.last_term = term

    def trim(self, before: int) -> None:
        """Note that entries below ``before`` may go from storage."""
        index = before - 1
        if index <= self.base_index:
            return
        term = self.term_at(index)
        invariant(term is not None, f"raft: trim below {before} is past the log's end")
        self.base_index = index
        self.base_term = term or 0
        if self._start <= index:
            self._drop(index - self._start + 1)

    def evict(self, through: int) -> None:
        """Let go of old entries in memory, none above ``through``, when there are too many."""
        if not self._ends or self._ends[-1] - self._origin <= 2 * self._keep_bytes:
            return
        count = bisect_left(self._ends, self._ends[-1] - self._keep_bytes)
        self._drop(min(count, through - self._start + 1))

    def _drop(self, count: int) -> None:
        if count <= 0:
            return
        self._origin = self._ends[count - 1]
        del self._entries[:count]
        del self._ends[:count]
        self._start += count

    def first_of_term(self, term: int, at: int) -> int:
        """Return the first index of ``term``, which the entry at ``at`` has (paper 5.3)."""
        low, high = self.base_index + 1, at
        while low < high:
            middle = (low + high) // 2
            if (self.term_at(middle) or 0) < term:
                low = middle + 1
            else:
                high = middle
        return low

    def last_at_most(self, term: int, below: int) -> int:
        """Return the last index under ``below`` whose term is at most ``term``."""
        low, high = self.base_index, min(below - 1, self.last_index)
        while low < high:
            middle = (low + high + 1) // 2
            if (self.term_at(middle) or 0) <= term:
                low = middle
            else:
                high = middle - 1
        return low
