"""A set that grows: ``add`` v, ``read`` -> [v...]. Decided exactly, without a search.

What a read shows says for every value on which side of the read it was added, so all reads and
additions are ordered but for reads that show the same. It is enough to give the reads, smallest
first, the earliest instants that their starts and the additions they show permit, and to see that
nothing is then too late: an earlier instant never makes a later one worse.
"""

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from outlast.check.core.history import History
from outlast.check.core.model import VALID, Finding, Model, invalid
from outlast.check.core.operation import Operation
from outlast.check.core.values import BadValueError, freeze, freeze_all, show

_Read = tuple[frozenset[Hashable], Operation]


class Set(Model):
    """A set of values, which starts empty and only grows."""

    name: ClassVar[str] = "set"
    functions: ClassVar[frozenset[str]] = frozenset({"add", "read"})
    reads: ClassVar[frozenset[str]] = frozenset({"read"})

    def init(self, key: Any) -> Hashable:
        """Return the empty set."""
        return frozenset()

    def token(self, op: Operation) -> Hashable | None:
        """Return the value added, or the values read."""
        if op.f == "add":
            return ("add", freeze(op.value))
        if op.kind == "info":
            return None
        return ("read", freeze_all(self._values(op)))

    @staticmethod
    def _values(op: Operation) -> Sequence[Any]:
        if op.output is None:
            return ()
        if not isinstance(op.output, list | tuple | set | frozenset):
            raise BadValueError(f"read has the value {show(op.output)}; a list would be right")
        return tuple(op.output)

    def step(self, state: Any, op: Operation) -> Sequence[Hashable]:
        """Add a value, or compare the values read; a value shown twice fits no set."""
        if op.f == "add":
            return (state | {freeze(op.value)},)
        values = freeze_all(self._values(op))
        return (state,) if len(values) == len(state) and frozenset(values) == state else ()

    def describe_state(self, state: Any) -> str:
        """Return the values in a fixed order."""
        return show(sorted(state, key=repr))

    def decide(self, key: Any, part: History) -> Finding | None:
        """Decide by the chain of reads."""
        adds: dict[Hashable, list[Operation]] = {}
        for op in part.operations:
            if op.f == "add":
                adds.setdefault(freeze(op.value), []).append(op)
        reads: list[_Read] = []
        for op in part.operations:
            if op.f == "read" and op.kind == "ok":
                values = freeze_all(self._values(op))
                shown = frozenset(values)
                found = self._impossible(op, values, shown, adds)
                if found is not None:
                    return found
                reads.append((shown, op))
        reads.sort(key=lambda item: (len(item[0]), item[1].start))
        for (less, one), (more, other) in pairwise(reads):
            if not less <= more:
                return self._fork(one, other, less - more, more - less, adds)
        return self._schedule(reads, adds)

    def _impossible(
        self,
        op: Operation,
        values: tuple[Hashable, ...],
        shown: frozenset[Hashable],
        adds: dict[Hashable, list[Operation]],
    ) -> Finding | None:
        who = f"a read by process {op.process}"
        if len(values) != len(shown):
            twice = next(value for value in values if values.count(value) > 1)
            return invalid(f"{who} shows {show(twice)} twice", [op], op)
        for value in values:
            makers = adds.get(value)
            if makers is None:
                return invalid(f"{who} shows {show(value)}, which nobody added", [op], op)
            if op.end is not None and makers[0].start > op.end:
                reason = f"{who} shows {show(value)} before its addition began"
                return invalid(reason, [op, makers[0]], op)
        return None

    def _fork(
        self,
        one: Operation,
        other: Operation,
        only_one: frozenset[Hashable],
        only_other: frozenset[Hashable],
        adds: dict[Hashable, list[Operation]],
    ) -> Finding:
        left, right = (min(values, key=repr) for values in (only_one, only_other))
        reason = (
            f"reads by processes {one.process} and {other.process} cannot be ordered: one shows "
            f"{show(left)} without {show(right)}, the other {show(right)} without {show(left)}"
        )
        return invalid(reason, [one, other, adds[left][0], adds[right][0]], other)

    def _schedule(
        self, reads: list[_Read], adds: dict[Hashable, list[Operation]]
    ) -> Finding | None:
        """Give each read its earliest instant, after the additions that it is first to show."""
        now = -1
        forced: tuple[Operation, ...] = ()  # what put the instant there
        at = 0
        have: frozenset[Hashable] = frozenset()
        while at < len(reads):
            shown, shower = reads[at]
            before, forced_before = now, forced
            for value in sorted(shown - have, key=repr):
                makers = adds[value]
                late = _ended_before(makers, before)
                if late is not None:
                    return self._lost(late, forced_before)
                if makers[0].start > now:
                    now, forced = makers[0].start, (makers[0], shower)
            while at < len(reads) and len(reads[at][0]) == len(shown):
                op = reads[at][1]
                if op.start > now:
                    now, forced = op.start, (op,)
                if op.end is not None and op.end < now:
                    return self._stale(op, forced)
                at += 1
            have = shown
        for value, makers in adds.items():
            late = None if value in have else _ended_before(makers, now)
            if late is not None:
                return self._lost(late, forced)
        return VALID

    def _lost(self, add: Operation, forced: tuple[Operation, ...]) -> Finding:
        read = forced[-1]
        what = f"a read by process {read.process} misses {show(add.value)}"
        if len(forced) == 1:
            reason = f"{what}, which was acknowledged before the read began"
        else:
            reason = (
                f"{what}, but shows {show(forced[0].value)}, whose addition began after that of "
                f"{show(add.value)} was acknowledged"
            )
        return invalid(reason, [add, *forced], read)

    def _stale(self, op: Operation, forced: tuple[Operation, ...]) -> Finding:
        later = forced[-1]
        reason = (
            f"a read by process {later.process} shows less than one by process {op.process} that "
            "ended before it began"
        )
        return invalid(reason, [op, *forced], later)


def _ended_before(makers: list[Operation], instant: int) -> Operation | None:
    return next((op for op in makers if op.end is not None and op.end < instant), None)
