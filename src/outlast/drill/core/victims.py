"""Whom a fault hits: names such as ``leader`` or ``minority`` become nodes, and cuts.

A drill knows each node's role only as far as its target tells. Where nobody is known to lead,
``leader`` and ``follower`` mean any node, drawn from the seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from outlast.kernel import Fault, Prng

Cut = tuple[str, str]
"""Source and target of packets that do not arrive."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a fault does to whom.

    Attributes:
        victims: The nodes that it is aimed at; for a partition those that are cut from the
            majority.
        cuts: Pairs of nodes between which nothing arrives, in one direction each.
        can_serve: Whether the nodes that are left can still form a majority that works.
    """

    victims: tuple[str, ...]
    cuts: frozenset[Cut] = frozenset()
    can_serve: bool = True


def aim(fault: Fault, nodes: Sequence[str], leader: str, draw: int) -> Aim:
    """Choose the victims of ``fault`` among ``nodes``.

    Args:
        fault: By name, with its target.
        nodes: All nodes, in order.
        leader: Who leads now, empty when not known.
        draw: Drawn number that makes the choice repeatable.
    """
    prng = Prng(draw)
    victims = choose(fault.target, nodes, leader, prng)
    if fault.kind == "partition":
        return _partition(fault.variant, victims, nodes, prng)
    if fault.kind in {"crash", "power-cut", "pause"}:
        return Aim(victims, can_serve=_majority(len(nodes) - len(victims), len(nodes)))
    breaks_all = fault.kind == "link" and fault.variant in {"reset", "drop"}
    hit_hard = len(victims) if breaks_all or fault.kind == "disk" else 0
    return Aim(victims, can_serve=_majority(len(nodes) - hit_hard, len(nodes)))


def choose(target: str, nodes: Sequence[str], leader: str, prng: Prng) -> tuple[str, ...]:
    """Return the nodes that ``target`` names, in their order."""
    others = [node for node in nodes if node != leader]
    if target == "all":
        return tuple(nodes)
    if target == "leader":
        return (leader,) if leader in nodes else (prng.choice(list(nodes)),)
    if target == "follower":
        return (prng.choice(others or list(nodes)),)
    if target in {"minority", "majority"}:
        count = (len(nodes) - 1) // 2 if target == "minority" else len(nodes) // 2 + 1
        drawn = list(nodes)
        prng.shuffle(drawn)
        kept = set(drawn[: max(1, count)])
        return tuple(node for node in nodes if node in kept)
    return (prng.choice(list(nodes)),)


def _partition(variant: str, victims: tuple[str, ...], nodes: Sequence[str], prng: Prng) -> Aim:
    if variant == "halves":
        others = [node for node in nodes if node not in victims]
        prng.shuffle(others)
        room = max(0, (len(nodes) - 1) // 2 - len(victims))
        return _split({*victims, *others[:room]}, nodes)
    if variant == "bridge":
        return _bridge(victims, nodes, prng)
    if variant == "one-way":
        cuts = {(other, v) for v in victims for other in nodes if other not in victims}
        left = len(nodes) - len(victims)
        return Aim(victims, frozenset(cuts), can_serve=_majority(left, len(nodes)))
    return _split(set(victims), nodes)


def _bridge(victims: tuple[str, ...], nodes: Sequence[str], prng: Prng) -> Aim:
    """Cut all but the victims into two halves, which only the victims can reach both of."""
    others = [node for node in nodes if node not in victims]
    prng.shuffle(others)
    left, right = others[: len(others) // 2], others[len(others) // 2 :]
    cuts = {pair for a in left for b in right for pair in ((a, b), (b, a))}
    larger = max(len(left), len(right)) + len(victims)
    return Aim(victims, frozenset(cuts), can_serve=_majority(larger, len(nodes)))


def _split(aside: set[str], nodes: Sequence[str]) -> Aim:
    cuts = {
        pair
        for one in nodes
        if one in aside
        for other in nodes
        if other not in aside
        for pair in ((one, other), (other, one))
    }
    left = len(nodes) - len(aside)
    return Aim(
        tuple(node for node in nodes if node in aside),
        frozenset(cuts),
        can_serve=_majority(max(left, len(aside)), len(nodes)),
    )


def _majority(count: int, of: int) -> bool:
    return count * 2 > of
