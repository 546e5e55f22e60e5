"""Whether a child still gets anything done.

A child counts up a stamp whenever it has done a piece of work. One that runs and no longer counts
is stuck: stopped, deadlocked, in an endless loop. Until its first stamp it is allowed the longer
time that a start may take. A watcher that was away itself (paused, starved) accuses nobody of that
time: it begins to count anew.
"""

from typing import Final

_LOOKS: Final = 8
_LOOK_MAX_NS: Final = 250_000_000
_LATE_NS: Final = 100_000_000


class ProgressDecider:
    """Judges the stamps of one instance of a child. Not thread-safe.

    Args:
        limit_ns: How long a stamp may stay the same.
        first_ns: How long the first may take, from ``now_ns`` on.
        now_ns: When the child was started.
    """

    __slots__ = ("_count", "_first_ns", "_limit_ns", "_planned_ns", "_since_ns")

    def __init__(self, limit_ns: int, first_ns: int, now_ns: int) -> None:
        self._limit_ns = limit_ns
        self._first_ns = max(first_ns, limit_ns)
        self._count = 0
        self._since_ns = now_ns
        self._planned_ns = now_ns + self.rest_ns

    @property
    def rest_ns(self) -> int:
        """How long to rest between two looks: an eighth of the limit, 0.25 s at most."""
        return min(self._limit_ns // _LOOKS, _LOOK_MAX_NS)

    @property
    def begun(self) -> bool:
        """Whether it has stamped at all."""
        return self._count != 0

    def look(self, count: int, now_ns: int) -> int | None:
        """Return for how long it is stuck, ``None`` if it is not; call again after ``rest_ns``."""
        late_ns = now_ns - self._planned_ns
        self._planned_ns = now_ns + self.rest_ns
        if count != self._count:
            self._count, self._since_ns = count, now_ns
            return None
        if late_ns > max(self.rest_ns, _LATE_NS):
            self._since_ns += late_ns
        silent_ns = now_ns - self._since_ns
        return silent_ns if silent_ns >= (self._limit_ns if count else self._first_ns) else None
