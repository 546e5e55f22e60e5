"""What a link has counted: the evidence that a fault was more than an intention."""

from dataclasses import dataclass, fields
from typing import Any

_MS = 1_000_000


@dataclass(slots=True)
class WayTally:
    """Counts of one direction of a link. They only grow, ``delay_max_ns`` apart."""

    bytes_passed: int = 0
    withheld_bytes: int = 0
    withheld_chunks: int = 0
    chunks_delayed: int = 0
    delay_sum_ns: int = 0
    delay_max_ns: int = 0
    chunks_lost: int = 0
    bytes_dropped: int = 0

    def copy(self) -> "WayTally":
        """Return the counts as they are now."""
        return WayTally(*(getattr(self, field.name) for field in fields(self)))

    def since(self, then: "WayTally") -> dict[str, Any]:
        """Return what was counted since ``then``, as facts for evidence.

        ``delay_ms_max`` is the longest since a fault was last set on the direction.
        """
        delayed = self.chunks_delayed - then.chunks_delayed
        total = self.delay_sum_ns - then.delay_sum_ns
        return {
            "bytes": self.bytes_passed - then.bytes_passed,
            "withheld_bytes": self.withheld_bytes - then.withheld_bytes,
            "withheld_chunks": self.withheld_chunks - then.withheld_chunks,
            "chunks_delayed": delayed,
            "delay_ms_mean": round(total / delayed / _MS, 3) if delayed else 0.0,
            "delay_ms_max": round(self.delay_max_ns / _MS, 3) if delayed else 0.0,
            "chunks_lost": self.chunks_lost - then.chunks_lost,
            "bytes_dropped": self.bytes_dropped - then.bytes_dropped,
        }


@dataclass(slots=True)
class LinkTally:
    """Counts of a link as a whole."""

    attempts: int = 0
    attempts_stalled: int = 0
    upstream_refused: int = 0
    over_limit: int = 0
    resets: int = 0

    def copy(self) -> "LinkTally":
        """Return the counts as they are now."""
        return LinkTally(*(getattr(self, field.name) for field in fields(self)))

    def since(self, then: "LinkTally") -> dict[str, Any]:
        """Return what was counted since ``then``."""
        return {
            field.name: getattr(self, field.name) - getattr(then, field.name)
            for field in fields(self)
        }


@dataclass(frozen=True, slots=True)
class LinkMark:
    """The counts of a link at an instant; evidence is what has changed since."""

    at_ns: int
    link: LinkTally
    forward: WayTally
    backward: WayTally
