"""Values that several faults change at the same time, and that must come back at the end.

Two partitions may cut the same way; when the first ends, the way stays cut. So every fault puts
its changes here under a lease of its own. The value in force is worked out of all leases; when
the last is lifted, what was there before comes back.
"""

from dataclasses import dataclass, field
from typing import Any

_LEAST = frozenset({"bytes_per_second", "capacity_bytes"})
_SUM = frozenset({"delay_ns", "drift_ppm"})


@dataclass(slots=True)
class _Changed:
    target: Any
    before: Any
    values: dict[int, Any] = field(default_factory=dict)


class Leases:
    """Changes of attributes, each held by a lease."""

    __slots__ = ("_by_key", "_by_lease", "_count")

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, str], _Changed] = {}
        self._by_lease: dict[int, list[tuple[str, str]]] = {}
        self._count = 0

    def new(self) -> int:
        """Return a new lease, which holds nothing yet."""
        self._count += 1
        return self._count

    def put(self, lease: int, key: str, target: Any, name: str, value: Any) -> None:
        """Let attribute ``name`` of ``target`` have ``value``, at least, while the lease lasts.

        Args:
            lease: Under which.
            key: What ``target`` is, the same for the same thing.
            target: Whose attribute.
            name: Of the attribute.
            value: Of several values the largest is in force; of bounds the smallest; delays and
                drifts add up.
        """
        place = (key, name)
        changed = self._by_key.get(place)
        if changed is None:
            changed = self._by_key[place] = _Changed(target, getattr(target, name))
        changed.values[lease] = value
        self._by_lease.setdefault(lease, []).append(place)
        setattr(target, name, _in_force(name, changed))

    def lift(self, lease: int) -> None:
        """Take back what a lease holds; nothing happens if it was lifted already."""
        for place in self._by_lease.pop(lease, ()):
            changed = self._by_key.get(place)
            if changed is None or lease not in changed.values:
                continue
            del changed.values[lease]
            if not changed.values:
                del self._by_key[place]
            setattr(changed.target, place[1], _in_force(place[1], changed))

    def clear(self) -> None:
        """Lift all leases."""
        for lease in tuple(self._by_lease):
            self.lift(lease)


def _in_force(name: str, changed: _Changed) -> Any:
    if not changed.values:
        return changed.before
    values = list(changed.values.values())
    if name in _LEAST:
        return min(values)
    if name in _SUM:
        return sum(values)
    return max(values)
