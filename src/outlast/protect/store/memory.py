"""State shared by the breakers, limits and budgets of one process, in its memory."""

import threading
from typing import Any

from outlast.kernel import current_world
from outlast.protect.core.idempotency import Answer
from outlast.protect.forked import tell_of_forks
from outlast.protect.store.keyed import KeyedStore, Rule
from outlast.protect.store.records import MemoryRecords

_KEYS_MAX = 10_000


class MemoryStore(KeyedStore):
    """A store in the memory of this process; for tests, simulations, and one process.

    Its clock is the monotonic one of the current world. Outcomes of idempotency records are kept
    as the objects that they are. At most 10,000 records of breakers, rates and budgets are kept:
    past that, the one that would expire first is forgotten. A forked child has a copy.

    Args:
        **settings: As for every store; see ``KeyedStore``.

    Raises:
        ConfigError: A value is out of range.
    """

    local = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.records = MemoryRecords()
        self._values: dict[str, tuple[bytes, int]] = {}
        self._lock = threading.Lock()
        tell_of_forks(self)

    def forked(self) -> None:
        """This is the child of a fork: the values are a copy, the lock is nobody's."""
        self._lock = threading.Lock()

    def begin_anew(self) -> None:
        """This is another world: nothing is kept. Idempotency records see to themselves."""
        with self._lock:
            self._values.clear()

    def transact(self, key: str, rule: Rule) -> Any:
        """Apply ``rule`` under a lock."""
        now_ns = current_world().clock.monotonic_ns()
        values = self._values
        with self._lock:
            data, expires_ns = values.get(key, (None, 0))
            data, keep_ns, answer = rule(data if now_ns < expires_ns else None, now_ns)
            if data:
                if key not in values and len(values) >= _KEYS_MAX:
                    del values[min(values, key=lambda one: values[one][1])]
                values[key] = (data, now_ns + keep_ns)
            elif data is not None:
                values.pop(key, None)
        return answer

    def begin(self, key: str, fingerprint: str, lease_ns: int, token: str) -> Answer:
        """Start the work of a key; see ``RecordStore.begin``."""
        return self.records.begin(key, fingerprint, lease_ns, token)

    def finish(self, key: str, token: str, outcome: Any, ttl_ns: int) -> bool:
        """Keep an outcome, any object; see ``RecordStore.finish``."""
        return self.records.finish(key, token, outcome, ttl_ns)

    def release(self, key: str, token: str) -> None:
        """Forget a key in flight; see ``RecordStore.release``."""
        self.records.release(key, token)

    def renew(self, key: str, token: str, lease_ns: int) -> bool:
        """Prolong a lease; see ``RecordStore.renew``."""
        return self.records.renew(key, token, lease_ns)

    def where(self) -> str:
        """Return ``"memory"``."""
        return "memory"
