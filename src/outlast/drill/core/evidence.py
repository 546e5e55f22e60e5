"""From the counts of links to a sentence that shows that a fault happened, or to none."""

from collections.abc import Iterable, Mapping
from typing import Any

_WAYS = ("forward", "backward")


def _sum(facts: Iterable[Mapping[str, Any]], name: str) -> int:
    return sum(int(link[way][name]) for link in facts for way in _WAYS)


def cut_evidence(facts: list[dict[str, Any]]) -> str:
    """Return what a cut withheld, empty if it withheld nothing."""
    held = _sum(facts, "withheld_bytes")
    stalled = sum(int(link["attempts_stalled"]) for link in facts)
    parts = []
    if held:
        parts.append(f"{held:,} bytes withheld")
    if stalled:
        parts.append(f"{stalled} connections stalled")
    return f"{', '.join(parts)} on {len(facts)} links" if parts else ""


def link_evidence(variant: str, facts: list[dict[str, Any]]) -> str:
    """Return what a fault of links did to what passed, empty if it did nothing."""
    if variant in {"slow", "jitter", "bandwidth"}:
        delayed = _sum(facts, "chunks_delayed")
        longest = max((link[way]["delay_ms_max"] for link in facts for way in _WAYS), default=0)
        return f"{delayed:,} chunks late, by up to {longest:.0f} ms" if delayed else ""
    if variant == "loss":
        lost = _sum(facts, "chunks_lost")
        return f"{lost:,} chunks lost and sent again" if lost else ""
    if variant == "drop":
        dropped = _sum(facts, "bytes_dropped")
        return f"{dropped:,} bytes swallowed" if dropped else ""
    resets = sum(int(link["resets"]) for link in facts)
    return f"{resets} connections reset" if resets else ""
