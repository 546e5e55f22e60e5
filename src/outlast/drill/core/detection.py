"""When the target itself noticed a fault: the first sign in what the other nodes say."""

from collections.abc import Mapping
from typing import Any


def sign(
    statuses: Mapping[str, Mapping[str, Any] | None],
    victims: tuple[str, ...],
    leader: str,
    term: int,
) -> str:
    """Return the first sign, among nodes that were not hit, that they noticed; empty for none.

    Args:
        statuses: What each node says now, ``None`` if it says nothing.
        victims: Whom the fault hit.
        leader: Who led when it was injected.
        term: The highest term then.
    """
    for node, facts in statuses.items():
        if facts is None or (node in victims and len(victims) < len(statuses)):
            continue
        if leader in victims:
            if int(facts.get("term", 0)) > term:
                return f"{node} moved to term {facts['term']}"
            if facts.get("leader") != leader:
                return f"{node} no longer follows {leader}"
        for member in facts.get("members", ()):
            if member.get("node") in victims and member.get("reachable") is False:
                return f"{node} reports {member['node']} unreachable"
    return ""


def who_leads(statuses: Mapping[str, Mapping[str, Any] | None]) -> tuple[str, int]:
    """Return the leader of the highest term that a node claims, and the highest term seen."""
    leader, led, highest = "", 0, 0
    for node, facts in statuses.items():
        if facts is None:
            continue
        term = int(facts.get("term", 0))
        highest = max(highest, term)
        if facts.get("role") == "leader" and term >= led:
            leader, led = node, term
    return leader, highest
