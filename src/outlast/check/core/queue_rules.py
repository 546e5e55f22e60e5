"""Queues whose values go in once each: decided by rules, without a search.

After Henzinger, Sezgin and Vafeiadis, "Aspect-oriented linearizability proofs" (CONCUR 2013), and
Bouajjani, Emmi, Enea and Hamza, "On reducing linearizability to state reachability" (ICALP 2015).
A complete history of a queue has an order exactly when no value

- comes out that never went in, or before it went in, or twice;
- comes out after one that went in later, or stays inside while one that went in later comes out;

and no ``dequeue`` sees the queue empty while at every instant of it some value was surely inside.

An uncertain ``enqueue`` counts when its value came out. An uncertain ``dequeue`` may have taken
any value that is missing. Each value that must have left gets the instant by which it must; there
is an order when the uncertain dequeues, the first to begin for the first that must leave, all
begin before those instants.
"""

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from outlast.check.core.history import History
from outlast.check.core.model import VALID, Finding, Model, invalid
from outlast.check.core.operation import Operation
from outlast.check.core.values import freeze, show

_NEVER = float("inf")


@dataclass(slots=True)
class _Item:
    """A value: when it went in, and when it came out."""

    put: Operation
    take: Operation | None = None

    @property
    def put_end(self) -> float:
        return _NEVER if self.put.end is None else self.put.end

    @property
    def take_end(self) -> float:
        return _NEVER if self.take is None or self.take.end is None else self.take.end

    def members(self) -> list[Operation]:
        return [self.put] if self.take is None else [self.put, self.take]


def decide_by_rules(model: Model, part: History) -> Finding | None:
    """Decide queues whose values went in at most once each.

    Returns:
        The finding, or ``None`` when the history is of another kind or the rules leave it open.
    """
    items: dict[Hashable, _Item] = {}
    empties: list[Operation] = []
    unsure: list[Operation] = []
    for op in part.operations:
        if op.f == "enqueue":
            value = freeze(op.value)
            if value is None or value in items:
                return None
            items[value] = _Item(op)
    for op in part.operations:
        if op.f != "dequeue":
            continue
        if op.kind == "info":
            unsure.append(op)
        elif op.output is None:
            empties.append(op)
        else:
            found = _take(model, items, op)
            if found is not None:
                return found
    kept = [item for item in items.values() if item.take or item.put.kind == "ok"]
    found = _order(model, kept)
    if found is not None:
        return found
    return _Leaving(model, kept, empties, unsure).decide()


def _who(model: Model, op: Operation) -> str:
    return f"{model.describe(op)} by process {op.process}"


def _take(model: Model, items: dict[Hashable, _Item], op: Operation) -> Finding | None:
    item = items.get(freeze(op.output))
    who = f"{_who(model, op)} has no place"
    if item is None:
        return invalid(f"{who}: nobody put {show(op.output)} in", [op], op)
    if item.take is not None:
        reason = f"{who}: process {item.take.process} took {show(op.output)} as well"
        return invalid(reason, [item.put, item.take, op], op)
    if op.end is not None and op.end < item.put.start:
        return invalid(f"{who}: it ended before that value went in", [op, item.put], op)
    item.take = op
    return None


def _order(model: Model, items: Sequence[_Item]) -> Finding | None:
    """Find a value that surely went in before another and surely came out after it."""
    taken = sorted((item for item in items if item.take), key=lambda item: item.put.start)
    starts = [item.put.start for item in taken]
    soonest: list[_Item] = []  # from each place on, the one that came out first
    for item in reversed(taken):
        best = soonest[-1] if soonest else item
        soonest.append(item if item.take_end < best.take_end else best)
    soonest.reverse()
    for first in taken:
        place = bisect_right(starts, first.put_end)
        if place < len(taken) and first.take is not None:
            later = soonest[place]
            if later.take_end < first.take.start:
                reason = (
                    f"{_who(model, first.take)} has no place: {show(later.put.value)} went in "
                    "after it and came out before it"
                )
                return invalid(reason, [*first.members(), *later.members()], first.take)
    return None


class _Leaving:
    """Finds out which missing values must have left, and by when.

    A value must have left before one that went in after it came out, and before each instant at
    which the queue was seen empty. That instant may be chosen within the empty answer: the
    missing values that were inside by then must be as few as the uncertain dequeues begun.
    """

    def __init__(
        self,
        model: Model,
        items: Sequence[_Item],
        empties: Sequence[Operation],
        unsure: Sequence[Operation],
    ) -> None:
        self._model = model
        self._empties = empties
        self._taken = sorted((i for i in items if i.take), key=lambda item: item.put.start)
        self._missing = sorted((i for i in items if not i.take), key=lambda item: item.put_end)
        self._inside = [item.put_end for item in self._missing]
        self._unsure = sorted(unsure, key=lambda op: op.start)
        self._begun = [op.start for op in self._unsure]
        self._covered = _Cover(
            [(i.put_end, i.take.start, i) for i in self._taken if i.take is not None]
        )

    def decide(self) -> Finding | None:
        """Return the finding, or ``None`` when the instants chosen do not fit together."""
        overtaken = self._overtaken()
        instants = []
        for op in self._empties:
            fit = self._instants(op)
            if not fit:
                return self._never_empty(op)
            instants.append(fit)
        late = self._match(overtaken, [])
        if late is not None:
            return self._left_behind(late, overtaken)
        for choice in (0, -1):
            if self._match(overtaken, sorted(fit[choice] for fit in instants)) is None:
                return VALID
        return None

    def _overtaken(self) -> dict[int, tuple[float, _Item]]:
        """Return, by place of the missing value, when the first that went in later came out."""
        starts = [item.put.start for item in self._taken]
        soonest = [*self._taken]
        for place in range(len(soonest) - 2, -1, -1):
            if soonest[place + 1].take_end < soonest[place].take_end:
                soonest[place] = soonest[place + 1]
        found: dict[int, tuple[float, _Item]] = {}
        for number, item in enumerate(self._missing):
            place = bisect_right(starts, item.put_end)
            if place < len(soonest):
                found[number] = (soonest[place].take_end, soonest[place])
        return found

    def _instants(self, op: Operation) -> list[float]:
        """Return the instants within ``op`` at which the queue may have been empty."""
        end = op.end or 0
        low, high = bisect_right(self._begun, op.start), bisect_right(self._begun, end)
        marks = [op.start, *self._begun[low:high], *self._covered.ends(op.start, end)]
        return [
            at
            for at in sorted(mark + 0.5 for mark in marks)
            if not self._covered.holds(at)
            and bisect_right(self._inside, at) <= bisect_right(self._begun, at)
        ]

    def _match(
        self, overtaken: dict[int, tuple[float, _Item]], empty: list[float]
    ) -> float | None:
        """Return the first instant by which too few had begun, or ``None`` when all fit."""
        needs = []
        for number, item in enumerate(self._missing):
            place = bisect_right(empty, item.put_end)
            by = overtaken[number][0] if number in overtaken else _NEVER
            by = min(by, empty[place] if place < len(empty) else _NEVER)
            if by < _NEVER:
                needs.append(by)
        needs.sort()
        for number, by in enumerate(needs):
            if number >= len(self._begun) or self._begun[number] > by:
                return by
        return None

    def _left_behind(self, by: float, overtaken: dict[int, tuple[float, _Item]]) -> Finding:
        must = [number for number, (when, _) in overtaken.items() if when <= by]
        item, later = self._missing[must[-1]], overtaken[must[-1]][1]
        reason = (
            f"{show(item.put.value)} went in before {show(later.put.value)} and never came out, "
            "but the later one did"
        )
        shown = [op for op in self._unsure if op.start < by]
        if shown:
            reason += ", and fewer uncertain dequeues had begun than values had to leave"
        for number in must if shown else must[-1:]:
            shown += [self._missing[number].put, *overtaken[number][1].members()]
        return invalid(reason, shown, later.take)

    def _never_empty(self, op: Operation) -> Finding:
        """Show values that together were inside during all of ``op``."""
        end = op.end or 0
        begun = [helper for helper in self._unsure if helper.start < end]
        stayed = [item for item in self._missing if item.put_end < end]
        who = f"{_who(self._model, op)} found it empty"
        if not begun:
            spans = [(item.put_end, _NEVER, item) for item in stayed]
            cover = _Cover([*self._covered.spans, *spans]).chain(op.start, end)
            names = ", then ".join(show(item.put.value) for item in cover[:4])
            reason = f"{who}, but {names} was inside at every instant of it"
            members = [member for item in cover for member in item.members()]
            return invalid(reason, [op, *members], op)
        reason = f"{who}, but more values were inside than uncertain dequeues had begun"
        shown = [op, *begun, *(item.put for item in stayed)]
        for _, _, item in self._covered.spans:
            if item.take is not None and item.put_end < end and item.take.start > op.start:
                shown += item.members()
        return invalid(reason, shown, op)


class _Cover:
    """Times during which some value was surely inside."""

    def __init__(self, spans: Sequence[tuple[float, float, _Item]]) -> None:
        self.spans = sorted((s for s in spans if s[0] < s[1]), key=lambda span: span[:2])
        self._merged: list[tuple[float, float]] = []
        for low, high, _ in self.spans:
            if self._merged and low < self._merged[-1][1]:
                self._merged[-1] = (self._merged[-1][0], max(high, self._merged[-1][1]))
            else:
                self._merged.append((low, high))
        self._lows = [low for low, _ in self._merged]
        self._highs = [high for _, high in self._merged]

    def holds(self, at: float) -> bool:
        """Tell whether some value was surely inside at that instant."""
        place = bisect_right(self._lows, at) - 1
        return place >= 0 and at < self._merged[place][1]

    def ends(self, low: float, high: float) -> list[float]:
        """Return when such times end, between two instants."""
        return self._highs[bisect_right(self._highs, low) : bisect_right(self._highs, high)]

    def chain(self, start: int, end: int) -> list[_Item]:
        """Return few values that together were inside from ``start`` to ``end``."""
        chosen: list[_Item] = []
        reached: float = start
        while reached < end:
            near = (span for span in self.spans if span[0] <= reached)
            _, reached, item = max(near, key=lambda span: span[1])
            chosen.append(item)
        return chosen
