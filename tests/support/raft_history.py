"""What clients saw of a list that every write appends to, and whether that is linearizable.

A write is told its place in the list, a read the length and a hash of what it saw. With the
final list known, no search is needed: every read must be a prefix of it, writes stand once and
where they were told, and nobody sees less than what had ended before he began.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.raft_disk import BrokenError


@dataclass(slots=True)
class Read:
    """One read, from ``asked`` to ``answered`` in the order of events."""

    asked: int
    answered: int
    length: int
    hash: int


class History:
    """All operations of all clients, by the order in which they began and ended."""

    def __init__(self) -> None:
        self.serial = 0
        self.begun: dict[bytes, int] = {}
        self.acked: dict[bytes, tuple[int, int]] = {}  # argument -> (when, place)
        self.asked: dict[int, int] = {}
        self.reads: list[Read] = []

    def _next(self) -> int:
        self.serial += 1
        return self.serial

    def write_begins(self, args: bytes) -> None:
        """A client wants ``args`` appended."""
        self.begun.setdefault(args, self._next())

    def write_ends(self, args: bytes, place: int) -> None:
        """It was told that ``args`` stands at ``place``."""
        known = self.acked.setdefault(args, (self._next(), place))
        if known[1] != place:
            raise BrokenError(f"history: {args!r} was told {known[1]}, then {place}")

    def read_begins(self, ticket: int) -> None:
        """A client asks for the list."""
        self.asked[ticket] = self._next()

    def read_ends(self, ticket: int, length: int, hash_: int) -> None:
        """It sees ``length`` items with this hash."""
        asked = self.asked.pop(ticket, None)
        if asked is not None:
            self.reads.append(Read(asked, self._next(), length, hash_))

    def judge(self, order: Sequence[bytes]) -> None:
        """Raise :class:`BrokenError` unless the history fits the final list.

        Raises:
            BrokenError: A write was lost, doubled or misplaced, or a read was stale or wrong.
        """
        if len(set(order)) != len(order):
            twice = next(args for at, args in enumerate(order) if args in order[:at])
            raise BrokenError(f"history: {twice!r} was executed twice")
        for args, (_, place) in self.acked.items():
            if place >= len(order) or order[place] != args:
                raise BrokenError(f"history: acknowledged write {args!r} is not at {place}")
        unknown = [args for args in order if args not in self.begun]
        if unknown:
            raise BrokenError(f"history: {unknown[0]!r} was never asked for")
        self._judge_writes(order)
        self._judge_reads(order)

    def _judge_writes(self, order: Sequence[bytes]) -> None:
        """A write that began after another ended stands behind it."""
        earliest_end = 1 << 62
        for args in reversed(order):
            if earliest_end < self.begun[args]:
                raise BrokenError(f"history: {args!r} stands before one that ended earlier")
            if args in self.acked:
                earliest_end = min(earliest_end, self.acked[args][0])

    def _judge_reads(self, order: Sequence[bytes]) -> None:
        hashes = [0]
        for args in order:
            hashes.append(zlib.crc32(args, hashes[-1]))
        latest_begin = [0]  # of the writes in each prefix
        for args in order:
            latest_begin.append(max(latest_begin[-1], self.begun[args]))
        ends = [(when, place + 1) for when, place in self.acked.values()]
        ends += [(read.answered, read.length) for read in self.reads]
        ends.sort()
        at = least = 0
        for read in sorted(self.reads, key=lambda read: read.asked):
            while at < len(ends) and ends[at][0] < read.asked:
                least = max(least, ends[at][1])
                at += 1
            if read.length < least:
                raise BrokenError(
                    f"history: stale read: {read.length} items, {least} were there before it began"
                )
            if read.length > len(order) or hashes[read.length] != read.hash:
                raise BrokenError(f"history: a read of {read.length} items saw another list")
            if latest_begin[read.length] > read.answered:
                raise BrokenError("history: a read saw a write that had not begun")
