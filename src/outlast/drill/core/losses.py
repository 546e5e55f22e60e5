"""Acknowledged additions to a set that the final reads do not show, or show twice."""

from collections import Counter
from collections.abc import Iterable

from outlast.kernel import HistoryEvent


def set_losses(events: Iterable[HistoryEvent], final_ns: int) -> tuple[int, int] | None:
    """Return how many acknowledged values every final read misses, and how many come twice.

    Args:
        events: The history.
        final_ns: When the final reads began: reads that end later are final.

    Returns:
        ``None`` without a final read.
    """
    acknowledged, finals = set(), []
    for event in events:
        if event.type != "ok":
            continue
        if event.f == "add":
            acknowledged.add(event.value)
        elif event.f == "read" and event.time >= final_ns and isinstance(event.value, list):
            finals.append(event.value)
    if not finals:
        return None
    lost = max(len(acknowledged.difference(values)) for values in finals)
    twice = max(sum(n > 1 for n in Counter(values).values()) for values in finals)
    return lost, twice
