"""What became of a request that carries a key: absent, in flight, or done.

A repeat must not run the work again, and must get the answer of the first run. So a key goes
through three states::

    absent --begin--> in flight (token, lease) --finish--> done (outcome, until its ttl)
       ^                  |  |
       +-----release------+  +--lease ran out, begin by another token--> in flight (that token)

Whoever begins holds the key under a token. A holder that dies stops renewing; its lease runs out
by the clock of the store, and the next repeat begins. From then on the first token is fenced:
what it finishes late is refused. That is the one way in which the work can run twice.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from outlast.kernel import ConfigError

FINGERPRINT_DEPTH_MAX = 32


class Begun:
    """The key was free and is now held by the token that asked."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Begun()"


class InFlight:
    """Another token holds the key, for ``left_ns`` unless it renews."""

    __slots__ = ("left_ns",)

    def __init__(self, left_ns: int) -> None:
        self.left_ns = left_ns

    def __repr__(self) -> str:
        return f"InFlight({self.left_ns})"


class Done:
    """The work was done; ``outcome`` is what was kept of it."""

    __slots__ = ("outcome",)

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def __repr__(self) -> str:
        return f"Done({self.outcome!r})"


class Mismatch:
    """The key belongs to a request with another fingerprint."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Mismatch()"


Answer = Begun | InFlight | Done | Mismatch

BEGUN: Final = Begun()
MISMATCH: Final = Mismatch()


class _Flight:
    """A key in flight."""

    __slots__ = ("fingerprint", "forget_ns", "lease_end_ns", "token")

    def __init__(self, token: str, fingerprint: str, now_ns: int, lease_ns: int) -> None:
        self.token = token
        self.fingerprint = fingerprint
        self.hold(now_ns, lease_ns)

    def hold(self, now_ns: int, lease_ns: int) -> None:
        self.lease_end_ns = now_ns + lease_ns
        self.forget_ns = now_ns + 2 * lease_ns


class _Kept:
    """A key that is done."""

    __slots__ = ("expires_ns", "fingerprint", "outcome", "size", "token")

    def __init__(
        self, token: str, fingerprint: str, outcome: Any, size: int, expires_ns: int
    ) -> None:
        self.token = token
        self.fingerprint = fingerprint
        self.outcome = outcome
        self.size = size
        self.expires_ns = expires_ns


class RecordTable:
    """The records of one process, bounded in number and in bytes.

    Time is passed in and only ever grows. Not thread-safe.

    When it is full, the outcome that was kept first is forgotten before its time (counted in
    ``evicted``), since the alternative is to refuse new work; keys in flight are never
    forgotten under a living lease.

    Args:
        capacity: Keys kept at most, in flight and done together.
        max_bytes: Outcomes kept at most, in bytes; of those that are not ``bytes`` their
            attribute ``size`` counts, or nothing.
    """

    __slots__ = ("_bytes", "_capacity", "_done", "_flights", "_max_bytes", "evicted")

    def __init__(self, capacity: int, max_bytes: int) -> None:
        if capacity < 1:
            raise ConfigError(f"RecordTable: capacity is {capacity!r}; it must be at least 1")
        if max_bytes < 1:
            raise ConfigError(f"RecordTable: max_bytes is {max_bytes!r}; it must be at least 1")
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._flights: OrderedDict[str, _Flight] = OrderedDict()
        self._done: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._flights) + len(self._done)

    def knows(self, key: str, now_ns: int) -> bool:
        """Whether there is a record of ``key``, in flight or done, and not past its time."""
        flight, kept = self._flights.get(key), self._done.get(key)
        return (flight is not None and now_ns < flight.forget_ns) or (
            kept is not None and now_ns < kept.expires_ns
        )

    def counts(self) -> tuple[int, int, int]:
        """Return how many keys are in flight, how many done, and the bytes of the latter."""
        return len(self._flights), len(self._done), self._bytes

    def begin(
        self, key: str, fingerprint: str, lease_ns: int, token: str, now_ns: int
    ) -> Answer | None:
        """Start the work of ``key``; ``None`` means that there is no room for it.

        What each answer means is told at :class:`outlast.protect.store.api.RecordStore`.
        """
        kept = self._done.get(key)
        if kept is not None:
            if now_ns < kept.expires_ns:
                return MISMATCH if _differ(kept.fingerprint, fingerprint) else Done(kept.outcome)
            self._forget(key)
        flight = self._flights.get(key)
        if flight is not None and now_ns < flight.lease_end_ns:
            if _differ(flight.fingerprint, fingerprint):
                return MISMATCH
            if flight.token != token:
                return InFlight(flight.lease_end_ns - now_ns)
        if flight is None and not self._room(now_ns):
            return None
        self._flights[key] = _Flight(token, fingerprint, now_ns, lease_ns)
        self._flights.move_to_end(key)
        return BEGUN

    def finish(self, key: str, token: str, outcome: Any, ttl_ns: int, now_ns: int) -> bool:
        """Keep ``outcome`` for ``ttl_ns``; ``False`` if ``token`` does not hold the key."""
        flight = self._flights.get(key)
        if flight is None or flight.token != token:
            kept = self._done.get(key)
            return kept is not None and kept.token == token
        del self._flights[key]
        size = len(outcome) if isinstance(outcome, bytes) else getattr(outcome, "size", 0)
        self._done[key] = _Kept(token, flight.fingerprint, outcome, size, now_ns + ttl_ns)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._evict(now_ns)
        return True

    def release(self, key: str, token: str) -> None:
        """Forget the key if ``token`` holds it in flight."""
        flight = self._flights.get(key)
        if flight is not None and flight.token == token:
            del self._flights[key]

    def renew(self, key: str, token: str, lease_ns: int, now_ns: int) -> bool:
        """Prolong the lease of ``token``; ``False`` if it holds none."""
        flight = self._flights.get(key)
        if flight is None or flight.token != token:
            return False
        flight.hold(now_ns, lease_ns)
        self._flights.move_to_end(key)
        return True

    def _room(self, now_ns: int) -> bool:
        """Make room for one more key: what expired goes first, then the oldest outcome."""
        while self._done:
            oldest = next(iter(self._done))
            if now_ns < self._done[oldest].expires_ns:
                break
            self._forget(oldest)
        while self._flights:
            oldest = next(iter(self._flights))
            if now_ns < self._flights[oldest].forget_ns:
                break
            del self._flights[oldest]
        if len(self) < self._capacity:
            return True
        if not self._done:
            return False
        self._evict(now_ns)
        return True

    def _evict(self, now_ns: int) -> None:
        oldest = next(iter(self._done))
        if now_ns < self._done[oldest].expires_ns:
            self.evicted += 1
        self._forget(oldest)

    def _forget(self, key: str) -> None:
        self._bytes -= self._done.pop(key).size


def _differ(one: str, other: str) -> bool:
    return bool(one) and bool(other) and one != other


def fingerprint_of(*parts: Any) -> str:
    """Return a digest of ``parts``: equal for equal plain data in any process.

    Plain data are ``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, and lists, tuples
    and dicts of them. Of anything else (such as ``self``) only the name of the type counts: an
    address or a hash would differ in a repeat.

    >>> fingerprint_of(1, {"a": 2, "b": [3]}) == fingerprint_of(1, {"b": [3], "a": 2})
    True
    >>> fingerprint_of(1, 23) == fingerprint_of(12, 3)
    False
    """
    import hashlib

    digest = hashlib.sha256()
    for piece in _pieces(parts, 0):
        digest.update(piece)
    return digest.hexdigest()[:32]


def _pieces(value: Any, depth: int) -> Iterable[bytes]:
    """Yield ``value`` as bytes that tell its kind and length first: no two values share them."""
    kind = type(value)
    if kind is bytes:
        yield b"y%d:" % len(value)
        yield value
    elif kind is str:
        text = value.encode("utf-8", "surrogatepass")
        yield b"s%d:" % len(text)
        yield text
    elif value is None or kind in {bool, int, float}:
        yield f"{kind.__name__}{value!r};".encode()
    elif depth < FINGERPRINT_DEPTH_MAX and kind in {list, tuple}:
        yield b"l%d:" % len(value)
        for item in value:
            yield from _pieces(item, depth + 1)
    elif depth < FINGERPRINT_DEPTH_MAX and kind is dict:
        pairs = sorted(
            (b"".join(_pieces(name, depth + 1)), b"".join(_pieces(item, depth + 1)))
            for name, item in value.items()
        )
        yield b"d%d:" % len(pairs)
        for name, item in pairs:
            yield name
            yield item
    else:
        yield f"o{kind.__module__}.{kind.__qualname__};".encode()
