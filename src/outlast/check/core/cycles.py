"""Transactions on lists, decided by the circles of their dependencies.

After Kingsbury and Alvaro, "Elle: inferring isolation anomalies from experimental observations"
(VLDB 2020). Where each value is appended to a list once, the longest read of a list shows the
order of its versions, so every read says which additions it follows and which it precedes. What
nobody read comes after every read. With "was acknowledged before it began" these edges order all
that an answer depends on: an order of the transactions exists exactly when there is no circle.
"""

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any

from outlast.check.core.graph import Edge, knots, short_circle
from outlast.check.core.model import VALID, Finding, invalid
from outlast.check.core.operation import Operation
from outlast.check.core.values import show

Key = Hashable
Transaction = tuple[Operation, tuple[tuple[str, Any, Any], ...]]
"""A transaction with its parts: ``append`` or ``r``, key, and value or list read."""

_Read = tuple[Key, tuple[Hashable, ...], Operation]


def decide_by_cycles(parts: Sequence[Transaction]) -> Finding | None:
    """Decide transactions whose values are appended to their lists once each.

    Returns:
        The finding, or ``None`` when a value was appended to a list twice.
    """
    story = _Story(parts)
    if story.repeated:
        return None
    return story.inside() or story.versions() or _judge_graph(story)


def _who(op: Operation) -> str:
    return f"the txn of process {op.process} at {op.start}"


class _Story:
    """What the transactions appended and read."""

    def __init__(self, parts: Sequence[Transaction]) -> None:
        self.writers: dict[tuple[Key, Hashable], Operation] = {}
        self.repeated = False
        self.appends: dict[Operation, dict[Key, list[Hashable]]] = {}
        self.parts = parts
        self.reads: list[_Read] = []  # of what others had appended
        self.longest: dict[Key, tuple[tuple[Hashable, ...], Operation]] = {}
        for op, micros in parts:
            own: dict[Key, list[Hashable]] = {}
            for f, key, value in micros:
                if f == "append":
                    self.repeated |= (key, value) in self.writers
                    self.writers[key, value] = op
                    own.setdefault(key, []).append(value)
                elif value is not None:
                    here = self.longest.get(key)
                    if here is None or len(value) > len(here[0]):
                        self.longest[key] = (value, op)
            self.appends[op] = own

    def inside(self) -> Finding | None:
        """Compare each read with what its own transaction did before it."""
        for op, parts in self.parts:
            own: dict[Key, tuple[Hashable, ...]] = {}
            outer: dict[Key, tuple[Hashable, ...]] = {}
            for f, key, value in parts:
                if f == "append":
                    own[key] = (*own.get(key, ()), value)
                    continue
                if value is None:
                    continue
                mine = own.get(key, ())
                rest = value[: len(value) - len(mine)]
                if value[len(rest) :] != mine:
                    reason = f"{_who(op)} does not see its own addition to {show(key)} last"
                    return invalid(reason, [op], op)
                if any(added in rest for added in self.appends[op].get(key, ())):
                    reason = f"{_who(op)} sees its own addition to {show(key)} before making it"
                    return invalid(reason, [op], op)
                if outer.setdefault(key, rest) != rest:
                    reason = f"{_who(op)} sees two different versions of {show(key)}"
                    return invalid(reason, [op], op)
            self.reads += [(key, rest, op) for key, rest in outer.items()]
        return None

    def versions(self) -> Finding | None:
        """Find values from nowhere, values shown twice, and reads that no one order explains."""
        for key, (values, op) in self.longest.items():
            found = self._strange(key, values, op) or self._own_order(key, values, op)
            if found is not None:
                return found
        for key, values, op in self.reads:
            longest, other = self.longest[key]
            if longest[: len(values)] != values:
                found = self._strange(key, values, op)
                reason = (
                    f"{_who(op)} and {_who(other)} read orders of {show(key)} that cannot both be"
                )
                return found or invalid(reason, [op, other], op)
        return None

    def _strange(self, key: Key, values: Sequence[Hashable], op: Operation) -> Finding | None:
        seen: set[Hashable] = set()
        for value in values:
            if value in seen:
                return invalid(f"{_who(op)} reads {show(value)} twice in {show(key)}", [op], op)
            seen.add(value)
            if (key, value) not in self.writers:
                reason = f"{_who(op)} reads {show(value)} in {show(key)}, which nobody appended"
                return invalid(f"{reason} (or only one that failed)", [op], op)
        return None

    def _own_order(self, key: Key, values: Sequence[Hashable], op: Operation) -> Finding | None:
        shown: dict[Operation, list[Hashable]] = {}
        for value in values:
            shown.setdefault(self.writers[key, value], []).append(value)
        for writer, here in shown.items():
            if self.appends[writer][key][: len(here)] != here:
                reason = f"{_who(op)} reads the additions of {_who(writer)} in another order"
                return invalid(reason, [op, writer], op)
        return None


class _Graph:
    """Edges between transactions; further nodes stand for instants and for "all of these"."""

    def __init__(self, story: _Story) -> None:
        seen = {(key, value) for key, (values, _) in story.longest.items() for value in values}
        self.story = story
        self.operations = [
            op
            for op, _ in story.parts
            if op.kind == "ok"
            or any((key, v) in seen for key, vs in story.appends[op].items() for v in vs)
        ]
        self.number = {op: n for n, op in enumerate(self.operations)}
        self.edges: list[list[Edge]] = [[] for _ in self.operations]
        self._add_instants()
        self._add_versions(seen)

    def _node(self) -> int:
        self.edges.append([])
        return len(self.edges) - 1

    def _edge(self, one: Operation, other: Operation, *label: Any) -> None:
        if one is not other:
            self.edges[self.number[one]].append((self.number[other], label))

    def _add_instants(self) -> None:
        """Add "was acknowledged before it began", by way of one node for each return."""
        returns = sorted((op for op in self.operations if op.end), key=lambda op: op.end or 0)
        at = 0
        last: int | None = None
        for n, op in enumerate(self.operations):  # by start
            while at < len(returns) and (returns[at].end or 0) < op.start:
                node = self._node()
                self.edges[self.number[returns[at]]].append((node, ("time",)))
                if last is not None:
                    self.edges[last].append((node, ("time",)))
                last = node
                at += 1
            if last is not None:
                self.edges[last].append((n, ("time",)))

    def _add_versions(self, seen: set[tuple[Key, Hashable]]) -> None:
        writers = self.story.writers
        unread: dict[Key, list[Operation]] = {}
        for op in self.operations:
            for key, added in self.story.appends[op].items():
                if any((key, value) not in seen for value in added):
                    unread.setdefault(key, []).append(op)
        rest = {key: _Rest(self, ops) for key, ops in unread.items()}
        for key, (values, _) in self.story.longest.items():
            for one, other in pairwise(values):
                self._edge(writers[key, one], writers[key, other], "follows", key, other)
            if values and key in rest:
                rest[key].precede(writers[key, values[-1]], ("unread", key, values[-1]))
        for key, values, op in self.story.reads:
            longest = self.story.longest[key][0]
            if values:
                self._edge(writers[key, values[-1]], op, "read", key, values[-1])
            if len(values) < len(longest):
                value = longest[len(values)]
                self._edge(op, writers[key, value], "missed", key, value)
            elif key in rest:
                rest[key].precede(op, ("missed", key, None))


class _Rest:
    """Transactions whose additions to one list nobody read: all come after every reader.

    Two rows of nodes, one leading to all transactions up to a place and one to all from it on,
    let one of them precede all others without an edge to itself.
    """

    def __init__(self, graph: _Graph, operations: list[Operation]) -> None:
        self._graph = graph
        self._place = {op: n for n, op in enumerate(operations)}
        self._until = [graph._node() for _ in operations]
        self._since = [graph._node() for _ in operations]
        for place, op in enumerate(operations):
            target = (graph.number[op], ("pass",))
            graph.edges[self._until[place]].append(target)
            graph.edges[self._since[place]].append(target)
            if place:
                graph.edges[self._until[place]].append((self._until[place - 1], ("pass",)))
                graph.edges[self._since[place - 1]].append((self._since[place], ("pass",)))

    def precede(self, op: Operation, label: tuple[Any, ...]) -> None:
        """Put ``op`` before all of them but itself."""
        edges = self._graph.edges[self._graph.number[op]]
        place = self._place.get(op)
        if place is None:
            edges.append((self._since[0], label))
            return
        if place:
            edges.append((self._until[place - 1], label))
        if place + 1 < len(self._since):
            edges.append((self._since[place + 1], label))


def _judge_graph(story: _Story) -> Finding:
    graph = _Graph(story)
    found = knots(graph.edges)
    if not found:
        return VALID
    knot = min(found, key=len)
    circle = short_circle(graph.edges, knot, len(graph.operations))
    members = [graph.operations[node] for node, _ in circle]
    shown = list(members)
    parts = []
    for place, (_, label) in enumerate(circle):
        one, other = members[place], members[(place + 1) % len(members)]
        parts.append(_say(one, other, label))
        if label[0] in {"follows", "unread"}:
            shown.append(story.longest[label[1]][1])
    stuck = max(members, key=lambda op: op.start)
    reason = f"{len(members)} transactions each have to come before the next: {'; '.join(parts)}"
    return invalid(reason, shown, stuck)


def _say(one: Operation, other: Operation, label: tuple[Any, ...]) -> str:
    kind, *rest = label
    if kind == "time":
        return f"{_who(one)} was acknowledged before {_who(other)} began"
    key, value = show(rest[0]), show(rest[1])
    if kind == "read":
        return f"{_who(other)} read {value} of {_who(one)} in {key}"
    if kind == "follows":
        return f"{value} of {_who(other)} follows what {_who(one)} appended to {key}"
    if kind == "unread":
        return f"what {_who(other)} appended to {key} was not there after {value} of {_who(one)}"
    return f"{_who(one)} did not see what {_who(other)} appended to {key}"
