"""Queues whose values go in once each: decided by rules, without a search.

After Henzinger, Sezgin and Vafeiadis, "Aspect-oriented linearizability proofs" (CONCUR 2013), and
Bouajjani, Emmi, Enea and Hamza, "On reducing linearizability to state reachability" (ICALP 2015).
A complete history of a queue has an order exactly when no value

- comes out that never went in, or before it went in, or twice;
- comes out after one that went in later, or stays inside while one that went in later comes out;

and no ``dequeue`` sees the queue empty while at every instant of it some value was surely inside.

An uncertain ``enqueue`` counts when its value came out. An uncertain ``dequeue`` may have taken
any value that is missing; where the rules need one, it is matched with the value that must leave
first. With both uncertain dequeues and empty answers the rules only refuse; they do not accept.
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
    found = _order(model, kept) or _left_behind(model, kept, unsure)
    if found is None:
        found = _empty(model, kept, empties, unsure)
    if found is not None:
        return found
    return None if unsure and empties else VALID


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


def _left_behind(
    model: Model, items: Sequence[_Item], unsure: Sequence[Operation]
) -> Finding | None:
    """Find a value that stayed inside while one that went in later came out.

    Each uncertain dequeue may have taken one; those that must have left first are given the
    earliest. A value that stays needs one only when a later one came out.
    """
    taken = sorted((item for item in items if item.take), key=lambda item: item.put.start)
    starts = [item.put.start for item in taken]
    soonest = [*taken]
    for place in range(len(taken) - 2, -1, -1):
        if soonest[place + 1].take_end < soonest[place].take_end:
            soonest[place] = soonest[place + 1]
    needs: list[tuple[float, _Item, _Item]] = []
    for item in items:
        if item.take is None:
            place = bisect_right(starts, item.put_end)
            if place < len(taken):
                needs.append((soonest[place].take_end, item, soonest[place]))
    needs.sort(key=lambda need: need[0])
    helpers = iter(sorted(unsure, key=lambda op: op.start))
    for deadline, item, later in needs:
        helper = next(helpers, None)
        if helper is None or helper.start > deadline:
            stuck = later.take
            reason = (
                f"{show(item.put.value)} went in before {show(later.put.value)} and never came "
                "out, but the later one did"
            )
            extra = [op for op in unsure if op.start < deadline]
            others = [need[1].put for need in needs if need[0] <= deadline] if extra else []
            return invalid(reason, [item.put, *later.members(), *extra, *others], stuck)
    return None


def _empty(
    model: Model,
    items: Sequence[_Item],
    empties: Sequence[Operation],
    unsure: Sequence[Operation],
) -> Finding | None:
    """Find an empty answer during which some value was surely inside at every instant."""
    soonest = min((op.start for op in unsure), default=_NEVER)
    spans: list[tuple[float, float, _Item]] = []
    for item in items:
        low = item.put_end
        high = item.take.start if item.take else max(low, soonest)
        if low < high:
            spans.append((low, high, item))
    spans.sort(key=lambda span: span[:2])
    merged: list[tuple[float, float]] = []
    for low, high, _ in spans:
        if merged and low < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    lows = [span[0] for span in merged]
    for op in empties:
        place = bisect_right(lows, op.start) - 1
        if place >= 0 and op.end is not None and op.end < merged[place][1]:
            return _covered(model, op, op.end, spans)
    return None


def _covered(
    model: Model, op: Operation, end: int, spans: Sequence[tuple[float, float, _Item]]
) -> Finding:
    """Choose few values that together were inside during all of ``op``."""
    cover: list[_Item] = []
    reached: float = op.start
    while reached < end:
        _, reached, item = max((span for span in spans if span[0] <= reached), key=lambda s: s[1])
        cover.append(item)
    names = ", then ".join(show(item.put.value) for item in cover[:4])
    reason = f"{_who(model, op)} found it empty, but {names} was inside at every instant of it"
    members = [member for item in cover for member in item.members()]
    return invalid(reason, [op, *members], op)
