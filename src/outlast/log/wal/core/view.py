"""The resolved view: what is in the log once truncations and resets are taken into account.

Raft overwrites; the disk log only appends. The view replays runs and knows, for every index
that is alive, its term and the frame that holds it. It is compact: one pair per change of
term and one row per frame, nothing per entry. Rows rise both in index and in place, because
an entry written again makes every row at or above it void.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from outlast.kernel import InvariantError
from outlast.log.wal.core.runs import RunHead, RunKind, StoredRun, decode_vote, vote_of


class Place(NamedTuple):
    """Where the entries from ``first`` on lie: frame of ``length`` body bytes at ``offset``."""

    first: int
    segment: int
    offset: int
    length: int


class View:
    """Terms of the entries alive: ``base`` is the last entry before them, ``last`` the last.

    ``hard`` is the (term, vote) last seen.
    """

    __slots__ = ("_starts", "_terms", "base", "hard", "last")

    last: int
    base: tuple[int, int]
    _starts: list[int]
    _terms: list[int]

    def __init__(
        self, base: tuple[int, int] = (0, 0), hard: tuple[int, str | None] = (0, None)
    ) -> None:
        self.hard = hard
        self.reset(*base)

    def copy(self) -> "View":
        """Return an independent view with the same content."""
        twin = View(self.base, self.hard)
        twin.last = self.last
        twin._starts = self._starts[:]
        twin._terms = self._terms[:]
        return twin

    @property
    def last_term(self) -> int:
        """Term of ``last``."""
        return self._terms[-1]

    def extend(self, first: int, count: int, term: int) -> None:
        """Add ``count`` entries of ``term`` from ``first``, which is the next index.

        Raises:
            InvariantError: They leave a gap, or overwrite without a truncation.
        """
        if first != self.last + 1:
            raise InvariantError(f"entries from {first} do not continue the log at {self.last}")
        if not count:
            return
        if term != self._terms[-1]:
            self._starts.append(first)
            self._terms.append(term)
        self.last += count

    def truncate(self, first: int, term: int) -> None:
        """Drop entries at and above ``first``; ``term`` is that of ``first - 1``.

        If ``first`` is at or below ``base`` (its segment has been trimmed), the base moves down.
        """
        if first > self.last:
            return
        if first <= self.base[0]:
            self.reset(first - 1, term)
            return
        self.last = first - 1
        while self._starts[-1] >= first:
            self._starts.pop()
            self._terms.pop()

    def reset(self, index: int, term: int) -> None:
        """Drop everything; the log goes on after ``(index, term)``."""
        self.base = (index, term)
        self.last = index
        self._starts = [index]
        self._terms = [term]

    def drop_through(self, index: int) -> None:
        """Forget entries through ``index``, which becomes the base."""
        term = self.term_at(index)
        if term is None or index <= self.base[0]:
            return
        keep = bisect_right(self._starts, index)
        self._starts[:keep] = [index]
        self._terms[:keep] = [term]
        self.base = (index, term)

    def term_at(self, index: int) -> int | None:
        """Return the term of ``index``, of the base too; ``None`` outside."""
        if index > self.last or index < self.base[0]:
            return None
        return self._terms[bisect_right(self._starts, index) - 1]

    def apply(self, runs: Iterable[StoredRun]) -> None:
        """Replay ``runs`` as they were stored."""
        for run in runs:
            if run.kind == RunKind.ENTRIES:
                self.extend(run.first, run.count, run.term)
            elif run.kind == RunKind.HARD_STATE:
                self.hard = (run.term, decode_vote(run.payloads))
            elif run.kind == RunKind.TRUNCATE:
                self.truncate(run.first, run.term)
            elif run.kind == RunKind.RESET:
                self.reset(run.first, run.term)


class Places:
    """Which frame holds each index alive; one row per frame."""

    __slots__ = ("_firsts", "_lengths", "_offsets", "_segments")

    def __init__(self) -> None:
        self._firsts = array("Q")
        self._segments = array("I")
        self._offsets = array("Q")
        self._lengths = array("I")

    def __len__(self) -> int:
        return len(self._firsts)

    def add(self, first: int, segment: int, offset: int, length: int) -> None:
        """Say that the entries from ``first`` on lie in this frame; later rows must be cut."""
        self._firsts.append(first)
        self._segments.append(segment)
        self._offsets.append(offset)
        self._lengths.append(length)

    def cut(self, first: int) -> None:
        """Forget the rows that begin at or above ``first``."""
        firsts = self._firsts
        count = len(firsts)
        while count and firsts[count - 1] >= first:
            count -= 1
        self._slice(slice(count, None))

    def drop_segments(self, keep: int) -> None:
        """Forget the rows of segments below ``keep``."""
        self._slice(slice(0, bisect_right(self._segments, keep - 1)))

    def _slice(self, gone: slice) -> None:
        for rows in (self._firsts, self._segments, self._offsets, self._lengths):
            del rows[gone]

    def first(self) -> int | None:
        """Return the lowest index that has a place."""
        return self._firsts[0] if self._firsts else None

    def find(self, index: int) -> tuple[Place, int | None] | None:
        """Return the place of ``index`` and the first index of the next place."""
        at = bisect_right(self._firsts, index) - 1
        if at < 0:
            return None
        following = self._firsts[at + 1] if at + 1 < len(self._firsts) else None
        place = Place(self._firsts[at], self._segments[at], self._offsets[at], self._lengths[at])
        return place, following


def place_frame(
    places: Places,
    runs: Iterable[StoredRun] | Iterable[RunHead],
    segment: int,
    offset: int,
    length: int,
) -> None:
    """Record in ``places`` what a frame with ``runs`` holds and makes void."""
    low = 0
    for run in runs:
        kind = run.kind
        if kind == RunKind.ENTRIES:
            if run.count and not low:
                low = run.first
        elif kind == RunKind.TRUNCATE:
            places.cut(run.first)
            if run.first <= low:
                low = 0
        elif kind == RunKind.RESET:
            places.cut(0)
            low = 0
    if low:
        places.add(low, segment, offset, length)


def replay_heads(view: View, runs: Iterable[RunHead]) -> None:
    """Replay runs whose entries were stepped over."""
    for run in runs:
        kind = run.kind
        if kind == RunKind.ENTRIES:
            view.extend(run.first, run.count, run.term)
        elif kind == RunKind.HARD_STATE:
            view.hard = (run.term, vote_of(run))
        elif kind == RunKind.TRUNCATE:
            view.truncate(run.first, run.term)
        elif kind == RunKind.RESET:
            view.reset(run.first, run.term)


def resolve(runs: list[StoredRun], first: int, last: int) -> list[tuple[int, int, int, bytes]]:
    """Return the entries ``first`` to ``last`` that a frame holds after all its own runs.

    Each is (index, term, kind, payload).
    """
    if len(runs) == 1:
        return _entries(runs[0], first, last)
    alive: dict[int, tuple[int, int, int, bytes]] = {}
    for run in runs:
        if run.kind == RunKind.ENTRIES:
            for entry in _entries(run, run.first, run.first + run.count - 1):
                alive[entry[0]] = entry
        elif run.kind == RunKind.TRUNCATE:
            alive = {index: entry for index, entry in alive.items() if index < run.first}
        elif run.kind == RunKind.RESET:
            alive = {}
    return [alive[index] for index in range(first, last + 1) if index in alive]


def _entries(run: StoredRun, first: int, last: int) -> list[tuple[int, int, int, bytes]]:
    low = max(first, run.first)
    start = low - run.first
    stop = max(start, last - run.first + 1)
    term = run.term
    payloads = run.payloads[start:stop]
    if not run.kinds:
        return [(index, term, 0, payload) for index, payload in enumerate(payloads, low)]
    return [
        (low + i, term, kind, payload)
        for i, (kind, payload) in enumerate(zip(run.kinds[start:stop], payloads, strict=True))
    ]
