"""Values with an age: fresh, stale, gone.

A value is *fresh* for ``ttl``, then *stale* for ``stale`` longer: shown only in place of an
error (RFC 5861, ``stale-if-error``), then *gone*. The age is compared at each question, so that
a changed ``ttl`` counts for what is kept already.

At most ``max_entries`` are kept. What was not asked for since the hand last passed goes first:
the second chance algorithm, which comes close to least recently used, and whose hits change
nothing but a mark, so that they need no lock.
"""

from collections.abc import Hashable
from typing import Any, Literal

State = Literal["fresh", "ahead", "stale", "gone"]


class Entry:
    """One kept value.

    Attributes:
        claimed: Holds something while one caller fetches it anew.
    """

    __slots__ = ("claimed", "stored_ns", "used", "value")

    def __init__(self, value: Any, stored_ns: int) -> None:
        self.value = value
        self.stored_ns = stored_ns
        self.used = False
        self.claimed: dict[bool, object] = {}

    def claim(self) -> bool:
        """Return ``True`` to one caller, until ``claimed`` is cleared. Atomic."""
        mine = object()
        return self.claimed.setdefault(True, mine) is mine


class Shelf:
    """A bounded map of values with an age.

    ``find`` and ``state`` may be called while another thread changes the shelf; changes need a
    lock around them.

    Args:
        ttl_ns: How long a value is fresh.
        stale_ns: How much longer it may stand in for an error.
        ahead_ns: In the last so many nanoseconds of being fresh a value is ``ahead``: still fresh,
            and to be fetched again by one caller. 0 for never.
        max_entries: How many are kept; at least 1.
    """

    __slots__ = ("_entries", "ahead_ns", "evicted", "max_entries", "stale_ns", "ttl_ns")

    def __init__(self, *, ttl_ns: int, stale_ns: int, ahead_ns: int, max_entries: int) -> None:
        self.ttl_ns = ttl_ns
        self.stale_ns = stale_ns
        self.ahead_ns = ahead_ns
        self.max_entries = max_entries
        self.evicted = 0
        self._entries: dict[Hashable, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: Hashable) -> Entry | None:
        """Return what is kept for ``key``, of whatever age, and mark it as used."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.used = True
        return entry

    def state(self, entry: Entry, now_ns: int) -> State:
        """Return what ``entry`` is good for at ``now_ns``."""
        left_ns = entry.stored_ns + self.ttl_ns - now_ns
        if left_ns > 0:
            return "ahead" if left_ns <= self.ahead_ns else "fresh"
        return "stale" if left_ns + self.stale_ns > 0 else "gone"

    def put(self, key: Hashable, value: Any, now_ns: int) -> None:
        """Keep ``value``; what was kept longest and not used since goes if there is no room."""
        entries = self._entries
        if key not in entries and len(entries) >= self.max_entries:
            self.make_room(self.max_entries - 1)
        entries[key] = Entry(value, now_ns)

    def make_room(self, count: int) -> None:
        """Let go until no more than ``count`` are kept."""
        entries = self._entries
        while len(entries) > count:
            key = next(iter(entries))
            entry = entries.pop(key)
            if entry.used:
                entry.used = False
                entries[key] = entry
            else:
                self.evicted += 1

    def drop(self, key: Hashable) -> bool:
        """Forget ``key``; return whether anything was kept for it."""
        return self._entries.pop(key, None) is not None

    def unclaim(self) -> None:
        """Let every value be fetched anew by whoever is next."""
        for entry in self._entries.values():
            entry.claimed.clear()

    def keys(self) -> list[Hashable]:
        """Return the keys, those that go first at the front."""
        return list(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
