"""Bounds on sums: what a later read may show, given an earlier one and the changes between.

Cheap and only ever refuses: a read outside the bounds has no place, whatever the order.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from outlast.check.core.operation import Operation

Vector = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Outside:
    """A read that shows too little or too much in one part of the sum.

    Attributes:
        part: Which part of the sum.
        read: The read.
        before: The read that it is compared with, ``None`` for the first state.
        changes: The changes that the bound rests on.
        bound: The bound, and whether the read is below it.
        below: Whether the read shows less than ``bound``.
    """

    part: int
    read: Operation
    before: Operation | None
    changes: tuple[Operation, ...]
    bound: Any
    below: bool


def find_outside(
    first: Vector,
    reads: Sequence[Operation],
    changes: Sequence[Operation],
    target: Callable[[Operation], Vector],
    change: Callable[[Operation], Vector],
) -> Outside | None:
    """Compare each read with the last one that ended before it began, and with the start.

    Args:
        first: The state at the start.
        reads: Reads that are ``ok``, by start.
        changes: Changes, by start.
        target: What a read shows.
        change: What a change adds.
    """
    ended = sorted(reads, key=lambda op: op.end or 0)
    place = 0
    sweep = _Sweep(changes)
    for read in reads:
        while place < len(ended) and (ended[place].end or 0) < read.start:
            place += 1
        before = ended[place - 1] if place else None
        base = first if before is None else target(before)
        sure, maybe = sweep.between(before, read)
        found = _compare(
            read,
            before,
            base=base,
            shown=target(read),
            sure=sure,
            maybe=maybe,
            change=change,
        )
        if found is not None:
            return found
    return None


class _Sweep:
    """Finds the changes that may lie between two reads without looking at all of them."""

    def __init__(self, changes: Sequence[Operation]) -> None:
        self._changes = changes
        self._starts = [op.start for op in changes]
        self._longest = max((op.end - op.start for op in changes if op.end is not None), default=0)
        self._unsure = [op for op in changes if op.end is None]

    def between(
        self, before: Operation | None, read: Operation
    ) -> tuple[list[Operation], list[Operation]]:
        """Return the changes surely, and those possibly, between the two."""
        begin = -1 if before is None else before.start
        done = -1 if before is None or before.end is None else before.end
        low = 0 if before is None else bisect_left(self._starts, begin - self._longest)
        high = bisect_left(self._starts, read.end or 0)
        sure: list[Operation] = []
        maybe: list[Operation] = []
        for op in self._changes[low:high]:
            if op.end is None or op.end < begin:
                continue
            inside = op.start > done and op.end < read.start
            (sure if inside else maybe).append(op)
        maybe += [op for op in self._unsure if op.start < (read.end or 0)]
        return sure, maybe


def _compare(
    read: Operation,
    before: Operation | None,
    *,
    base: Vector,
    shown: Vector,
    sure: Sequence[Operation],
    maybe: Sequence[Operation],
    change: Callable[[Operation], Vector],
) -> Outside | None:
    certain = [(op, change(op)) for op in sure]
    unsure = [(op, change(op)) for op in maybe]
    for part, value in enumerate(shown):
        fixed = base[part] + sum(delta[part] for _, delta in certain)
        low = fixed + sum(min(0, delta[part]) for _, delta in unsure)
        high = fixed + sum(max(0, delta[part]) for _, delta in unsure)
        if low <= value <= high:
            continue
        below = value < low
        used = [op for op, delta in certain if delta[part]]
        used += [op for op, delta in unsure if (delta[part] < 0) == below and delta[part]]
        bound = low if below else high
        return Outside(part, read, before, tuple(used), bound, below)
    return None
