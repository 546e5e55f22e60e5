"""What is to be done when: keyed deadlines, the earliest first."""

from heapq import heapify, heappop, heappush
from typing import Final, TypeAlias

Key: TypeAlias = tuple[str, int | str]
NEVER: Final = 1 << 62
"""A time that does not come."""


class Agenda:
    """Deadlines by key. Setting a key again moves it; entries left behind are skipped.

    The heap holds at most about four times as many entries as there are keys.
    """

    __slots__ = ("_count", "_heap", "_when")

    def __init__(self) -> None:
        self._when: dict[Key, int] = {}
        self._heap: list[tuple[int, int, Key]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._when)

    def __contains__(self, key: Key) -> bool:
        return key in self._when

    def set(self, key: Key, when_ns: int) -> None:
        """Let ``key`` be due at ``when_ns``, and at no other time."""
        if self._when.get(key) == when_ns:
            return
        self._when[key] = when_ns
        self._count += 1
        heappush(self._heap, (when_ns, self._count, key))
        if len(self._heap) > 4 * len(self._when) + 64:
            self._heap = [(at, n, key) for at, n, key in self._heap if self._when.get(key) == at]
            heapify(self._heap)

    def cancel(self, key: Key) -> None:
        """Forget ``key`` if it is there."""
        self._when.pop(key, None)

    def next_ns(self) -> int:
        """Return the earliest deadline, `NEVER` if there is none."""
        heap = self._heap
        while heap:
            when, _, key = heap[0]
            if self._when.get(key) == when:
                return when
            heappop(heap)
        return NEVER

    def pop_due(self, now_ns: int) -> Key | None:
        """Take out and return the earliest key that is due, ``None`` if none is."""
        if self.next_ns() > now_ns:
            return None
        key = heappop(self._heap)[2]
        del self._when[key]
        return key
