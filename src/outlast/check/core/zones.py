"""Registers whose values are written once each: decided by zones, without a search.

After Gibbons and Korach, "Testing shared memories" (SIAM J. Comput. 1997). A cluster is a write
with the reads of its value. Its value is surely there from the first return in the cluster to the
last start, if they come in that order: a forward zone. Otherwise all of the cluster overlaps the
time between them: a backward zone, for which one instant is enough. An order exists exactly when
no two forward zones overlap, no backward zone lies inside a forward one, and no read ends before
its write begins.
"""

from bisect import bisect_left
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from outlast.check.core.history import History
from outlast.check.core.model import VALID, Finding, Model, invalid
from outlast.check.core.operation import Operation
from outlast.check.core.values import show

_NEVER = float("inf")


@dataclass(slots=True)
class _Cluster:
    write: Operation | None
    reads: list[Operation] = field(default_factory=list)

    def first_return(self) -> float:
        if self.write is None:
            return -_NEVER
        ends = [op.end for op in (self.write, *self.reads) if op.end is not None]
        return min(ends, default=_NEVER)

    def last_start(self) -> float:
        starts = [op.start for op in self.reads]
        if self.write is not None:
            starts.append(self.write.start)
        return max(starts)

    def ends(self) -> tuple[Operation, ...]:
        """Return the operations that bound the zone, and the write."""
        low, high = self.first_return(), self.last_start()
        members = [op for op in (self.write, *self.reads) if op is not None]
        return tuple(
            op for op in members if op is self.write or low == op.end or op.start == high
        )[:4]

    def value(self) -> str:
        return show(self.reads[0].output if self.write is None else self.write.value)


def decide_by_zones(model: Model, key: Any, part: History) -> Finding | None:
    """Decide registers that only read and write, each value written at most once.

    Returns:
        The finding, or ``None`` when the history is of another kind.
    """
    clusters = _clusters(model, part)
    if clusters is None:
        return None
    if isinstance(clusters, Finding):
        return clusters
    forward: list[tuple[float, float, _Cluster]] = []
    backward: list[tuple[float, float, _Cluster]] = []
    for cluster in clusters:
        low, high = cluster.first_return(), cluster.last_start()
        if low < high:
            forward.append((low, high, cluster))
        else:
            backward.append((high, low, cluster))
    forward.sort(key=lambda zone: zone[:2])
    for (_, high, one), (low, _, other) in pairwise(forward):
        if low < high:
            return _overlap(model, one, other)
    lows = [zone[0] for zone in forward]
    for low, high, inner in backward:
        place = bisect_left(lows, low) - 1
        if place >= 0 and high < forward[place][1]:
            return _inside(model, inner, forward[place][2])
    return VALID


def _clusters(model: Model, part: History) -> list[_Cluster] | Finding | None:
    writes: dict[Hashable, _Cluster] = {None: _Cluster(None)}
    reads: list[tuple[Hashable, Operation]] = []
    for op in part.operations:
        token: Any = model.token(op)
        if token is None:
            continue
        if token[0] == "read":
            reads.append((token[1], op))
        elif token[0] != "write" or token[1] in writes:
            return None
        else:
            writes[token[1]] = _Cluster(op)
    for value, op in reads:
        cluster = writes.get(value)
        who = f"{model.describe(op)} by process {op.process} has no place"
        if cluster is None:
            return invalid(f"{who}: no operation wrote {show(op.output)}", [op], op)
        write = cluster.write
        if write is not None and op.end is not None and op.end < write.start:
            reason = f"{who}: {model.describe(write)} began only after it had ended"
            return invalid(reason, [write, op], op)
        cluster.reads.append(op)
    return [
        cluster
        for cluster in writes.values()
        if cluster.reads or (cluster.write is not None and cluster.write.kind == "ok")
    ]


def _last(cluster: _Cluster) -> Operation:
    return max((op for op in (cluster.write, *cluster.reads) if op), key=lambda op: op.start)


def _overlap(model: Model, one: _Cluster, other: _Cluster) -> Finding:
    stuck = max(_last(one), _last(other), key=lambda op: op.start)
    reason = (
        f"{model.describe(stuck)} by process {stuck.process} has no place: {one.value()} and "
        f"{other.value()} would both have to be the value at one instant"
    )
    return invalid(reason, [*one.ends(), *other.ends()], stuck)


def _inside(model: Model, inner: _Cluster, outer: _Cluster) -> Finding:
    stuck = _last(outer)
    write = inner.write or inner.reads[0]
    reason = (
        f"{model.describe(stuck)} by process {stuck.process} has no place: "
        f"{model.describe(write)} by process {write.process} was done after {outer.value()} was "
        "there and before it began"
    )
    return invalid(reason, [*inner.ends(), *outer.ends()], stuck)
