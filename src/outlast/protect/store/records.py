"""Idempotency records in the memory of this process."""

import threading
from collections import deque
from typing import Any, Final

from outlast.kernel import OverloadedError, current_world
from outlast.protect.core.idempotency import Answer, RecordTable
from outlast.protect.forked import tell_of_forks
from outlast.protect.if_free import if_free


class MemoryRecords:
    """A :class:`~outlast.protect.store.api.RecordStore` for the calls of one process.

    Outcomes are kept as the objects that they are: a repeat gets the same object. Safe to share
    between threads and event loops. A forked child has a copy that goes its own way.

    Past ``capacity`` or ``max_bytes`` the outcome that was kept first is forgotten, and a repeat
    of it would run again: :meth:`snapshot` counts how many went before their time.

    Args:
        capacity: Keys kept at most, in flight and done together. At least 1.
        max_bytes: Outcomes kept at most, in bytes. Those of the middlewares count; return
            values of functions count 0, since their size is not known.

    Raises:
        ConfigError: An argument is below 1.
    """

    local: Final = True

    __slots__ = ("__weakref__", "_bounds", "_lock", "_released", "_table")

    def __init__(self, *, capacity: int = 10_000, max_bytes: int = 64 << 20) -> None:
        self._bounds = (capacity, max_bytes)
        self._table = RecordTable(capacity, max_bytes)
        self._lock = threading.Lock()
        self._released: deque[tuple[str, str]] = deque()  # found the lock taken; see release
        tell_of_forks(self)

    def forked(self) -> None:
        """This is the child of a fork: the records are a copy, the lock is nobody's."""
        self._lock = threading.Lock()

    def begin_anew(self) -> None:
        """This is another world: there are no records."""
        with self._lock:
            self._released.clear()
            self._table = RecordTable(*self._bounds)

    def _settle_locked(self) -> None:
        """Free the keys whose release found the lock taken."""
        while self._released:
            self._table.release(*self._released.popleft())

    def begin(self, key: str, fingerprint: str, lease_ns: int, token: str) -> Answer:
        """Start the work of ``key``; see ``RecordStore.begin``."""
        now_ns = current_world().clock.monotonic_ns()
        with self._lock:
            self._settle_locked()
            answer = self._table.begin(key, fingerprint, lease_ns, token, now_ns)
        if answer is None:
            raise OverloadedError("idempotency records: no room for another key in flight")
        return answer

    def finish(self, key: str, token: str, outcome: Any, ttl_ns: int) -> bool:
        """Keep ``outcome``; see ``RecordStore.finish``."""
        now_ns = current_world().clock.monotonic_ns()
        with self._lock:
            self._settle_locked()
            return self._table.finish(key, token, outcome, ttl_ns, now_ns)

    def release(self, key: str, token: str) -> None:
        """Forget a key in flight; see ``RecordStore.release``."""
        self._released.append((key, token))
        if_free(self._lock, self._settle_locked)

    def renew(self, key: str, token: str, lease_ns: int) -> bool:
        """Prolong a lease; see ``RecordStore.renew``."""
        now_ns = current_world().clock.monotonic_ns()
        with self._lock:
            self._settle_locked()
            return self._table.renew(key, token, lease_ns, now_ns)

    def knows(self, key: str) -> bool:
        """Whether there is a record of ``key``, in flight or done, and not past its time."""
        now_ns = current_world().clock.monotonic_ns()
        with self._lock:
            self._settle_locked()
            return self._table.knows(key, now_ns)

    def snapshot(self) -> dict[str, int]:
        """Return how many keys are in flight and done, their bytes, and how many were evicted."""
        with self._lock:
            self._settle_locked()
            flights, done, size = self._table.counts()
            return {
                "in_flight": flights,
                "done": done,
                "bytes": size,
                "evicted": self._table.evicted,
            }
