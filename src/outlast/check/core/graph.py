"""Directed graphs: is there a circle, and which is a short one?"""

from collections import deque
from collections.abc import Sequence
from typing import Any

Edge = tuple[int, Any]
"""The node that an edge leads to, and what the edge stands for."""


def knots(edges: Sequence[Sequence[Edge]]) -> list[list[int]]:
    """Return the strongly connected components of more than one node (Tarjan 1972).

    Args:
        edges: For each node, where its edges lead.
    """
    count = len(edges)
    number = [0] * count  # 1 and up in order of visit
    low = [0] * count
    inside = [False] * count
    stack: list[int] = []
    found: list[list[int]] = []
    clock = 0
    for root in range(count):
        if number[root]:
            continue
        work = [(root, 0)]
        while work:
            node, place = work.pop()
            if not number[node]:
                clock += 1
                number[node] = low[node] = clock
                stack.append(node)
                inside[node] = True
            for at in range(place, len(edges[node])):
                other = edges[node][at][0]
                if not number[other]:
                    work += [(node, at), (other, 0)]
                    break
                if inside[other]:
                    low[node] = min(low[node], low[other])
            else:
                if low[node] == number[node]:
                    knot = _pop_knot(stack, inside, node)
                    if len(knot) > 1:
                        found.append(knot)
    return found


def _pop_knot(stack: list[int], inside: list[bool], node: int) -> list[int]:
    knot = []
    while True:
        member = stack.pop()
        inside[member] = False
        knot.append(member)
        if member == node:
            return sorted(knot)


def short_circle(
    edges: Sequence[Sequence[Edge]], knot: Sequence[int], real: int, starts_max: int = 64
) -> list[tuple[int, Any]]:
    """Return a circle through few of the nodes below ``real``, each with the edge that leaves it.

    The nodes from ``real`` on only carry edges, and cost nothing.
    """
    members = set(knot)
    best: list[tuple[int, Any]] = []
    for start in [node for node in knot if node < real][:starts_max]:
        circle = _circle_from(edges, members, start, real)
        if circle and (not best or len(circle) < len(best)):
            best = circle
    return best


def _circle_from(
    edges: Sequence[Sequence[Edge]], members: set[int], start: int, real: int
) -> list[tuple[int, Any]]:
    came: dict[int, tuple[int, Any]] = {}
    queue: deque[int] = deque([start])
    while queue:
        node = queue.popleft()
        for other, label in edges[node]:
            if other not in members or other in came:
                continue
            came[other] = (node, label)
            if other == start:
                return _trace(came, start, real)
            if other < real:
                queue.append(other)
            else:
                queue.appendleft(other)
    return []


def _trace(came: dict[int, tuple[int, Any]], start: int, real: int) -> list[tuple[int, Any]]:
    circle: list[tuple[int, Any]] = []
    node = start
    while True:
        before, label = came[node]
        while before >= real:
            before, label = came[before]
        circle.append((before, label))
        node = before
        if node == start:
            return circle[::-1]
