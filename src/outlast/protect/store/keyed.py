"""A whole store on top of one operation: change the value of one key, with the store's clock.

The rules are pure functions in ``core``; a backend only has to run one of them in a transaction
(:meth:`KeyedStore.transact`). So all backends keep the same promises, and a new one is short.
"""

from collections.abc import Callable
from typing import Any, Final

from outlast.kernel import ConfigError, InvariantError, RejectedError, UnavailableError
from outlast.protect.core import shares
from outlast.protect.core.fleet import FleetRecord, FleetRules, Lease, View
from outlast.protect.core.idempotency import Answer
from outlast.protect.core.shares import NS, OUTCOME_BYTES_MAX, Step, Taken

Rule = Callable[[bytes | None, int], Step]
"""From what is kept (``None``: nothing) and the store's time in ns, what to keep and answer."""

_MS: Final = 1_000_000
_KEY_MAX: Final = 200
_KEEP_SLACK_NS: Final = 60 * NS


class KeyedStore:
    """A :class:`~outlast.protect.store.api.Store` on :meth:`transact` alone.

    Safe to share between threads. Every call is bounded by ``timeout`` and raises
    ``UnavailableError`` when the store cannot answer.

    Args:
        timeout: Seconds that a call takes at most.
        quorum: Share of the nodes that reported lately that must agree before a breaker opens
            for all, in (0, 1].
        min_nodes: And how many at least. 1 lets a single node open it for all.
        interval: Seconds between two looks of a process at the store.
        node: Name of this process to the others; drawn if empty.

    Raises:
        ConfigError: A value is out of range.
    """

    local = False

    def __init__(
        self,
        *,
        timeout: float = 0.25,
        quorum: float = 0.5,
        min_nodes: int = 2,
        interval: float = 0.5,
        node: str = "",
    ) -> None:
        kind = type(self).__name__
        for name, seconds in (("timeout", timeout), ("interval", interval)):
            if not 0 < seconds < float("inf"):
                raise ConfigError(f"{kind}: {name} is {seconds!r}; seconds above 0")
        if not 0 < quorum <= 1:
            raise ConfigError(f"{kind}: quorum is {quorum!r}; a share above 0 and up to 1")
        if type(min_nodes) is not int or min_nodes < 1:
            raise ConfigError(f"{kind}: min_nodes is {min_nodes!r}; a whole number of 1 or more")
        if len(node) > 64:
            raise ConfigError(f"{kind}: node has {len(node)} characters; 64 at most")
        self.timeout = timeout
        self.quorum = quorum
        self.min_nodes = min_nodes
        self.interval = interval
        self.node = node
        self.shared: Any = None

    # --- what a backend does ---------------------------------------------------------------------

    def transact(self, key: str, rule: Rule) -> Any:
        """Apply ``rule`` to the value of ``key`` atomically and return its answer.

        The value is kept for ``keep_ns`` and may be forgotten after. ``rule`` may be called
        several times; it has no effects.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Give back connections; a later call opens them again."""

    def where(self) -> str:
        """Return what to call this store in messages; never holds a password."""
        return type(self).__name__

    def _run(self, key: str, rule: Rule) -> Any:
        try:
            return self.transact(key, rule)
        except (RejectedError, InvariantError):
            raise
        except Exception as error:
            message = f"the store {self.where()} cannot answer: {type(error).__name__}: {error}"
            raise UnavailableError(message) from error

    # --- breakers --------------------------------------------------------------------------------

    def _change(
        self, name: str, rules: FleetRules, change: Callable[[FleetRecord, int], Any]
    ) -> Any:
        def rule(data: bytes | None, now_ns: int) -> Step:
            now_ms = now_ns // _MS
            record = FleetRecord.decode(data, now_ms)
            answer = change(record, now_ms)
            return Step(record.encode(), record.keep_ms(now_ms, rules) * _MS, answer)

        return self._run(key_of("breaker", name), rule)

    def view(self, name: str) -> View:
        """Return what the fleet knows; see ``FleetStore.view``."""

        def rule(data: bytes | None, now_ns: int) -> Step:
            now_ms = now_ns // _MS
            return Step(None, 0, FleetRecord.decode(data, now_ms).view(now_ms))

        view: View = self._run(key_of("breaker", name), rule)
        return view

    def report(self, name: str, node: str, epoch: int, bad: bool, rules: FleetRules) -> View:
        """Report; see ``FleetStore.report``."""

        def change(record: FleetRecord, now_ms: int) -> View:
            record.report(node, epoch, bad, rules, now_ms)
            return record.view(now_ms)

        view: View = self._change(name, rules, change)
        return view

    def leave(self, name: str, node: str) -> None:
        """Take reports back; see ``FleetStore.leave``."""

        def change(record: FleetRecord, _: int) -> None:
            record.leave(node)

        self._change(name, FleetRules(), change)

    def lease_probe(
        self, name: str, node: str, epoch: int, ttl_ms: int, rules: FleetRules
    ) -> Lease | None:
        """Lease a probe; see ``FleetStore.lease_probe``."""

        def change(record: FleetRecord, now_ms: int) -> Lease | None:
            return record.lease_probe(name, node, epoch, rules, ttl_ms=ttl_ms, now_ms=now_ms)

        lease: Lease | None = self._change(name, rules, change)
        return lease

    def settle(self, lease: Lease, ok: bool | None, rules: FleetRules) -> View:
        """End a probe; see ``FleetStore.settle``."""

        def change(record: FleetRecord, now_ms: int) -> View:
            record.settle(lease, ok, rules, now_ms)
            return record.view(now_ms)

        view: View = self._change(lease.name, rules, change)
        return view

    # --- rates and budgets -----------------------------------------------------------------------

    def take(
        self, name: str, interval_ns: int, burst_ns: int, cost: int, max_wait_ns: int
    ) -> Taken:
        """Take slots; see ``FleetStore.take``."""

        def rule(data: bytes | None, now_ns: int) -> Step:
            reach, taken = shares.take(
                data, now_ns, interval_ns=interval_ns, burst_ns=burst_ns, cost=cost,
                max_wait_ns=max_wait_ns,
            )  # fmt: skip
            if not taken.granted:
                return Step(None, 0, taken)
            return Step(b"%d" % reach, reach - now_ns + _KEEP_SLACK_NS, taken)

        taken: Taken = self._run(key_of("rate", name), rule)
        return taken

    def spend(
        self, name: str, deposit_milli: int, floor_milli_per_s: int, cap_milli: int, want: int
    ) -> int:
        """Deposit and spend; see ``FleetStore.spend``."""

        def rule(data: bytes | None, now_ns: int) -> Step:
            kept, granted = shares.spend(
                data, now_ns, deposit_milli=deposit_milli, floor_milli_per_s=floor_milli_per_s,
                cap_milli=cap_milli, want=want,
            )  # fmt: skip
            return Step(kept, 600 * NS, granted)

        granted: int = self._run(key_of("budget", name), rule)
        return granted

    # --- idempotency records ---------------------------------------------------------------------

    def begin(self, key: str, fingerprint: str, lease_ns: int, token: str) -> Answer:
        """Start the work of a key; see ``RecordStore.begin``."""
        answer: Answer = self._run(
            key_of("record", key),
            lambda data, now_ns: shares.begin(data, now_ns, token, fingerprint[:128], lease_ns),
        )
        return answer

    def finish(self, key: str, token: str, outcome: Any, ttl_ns: int) -> bool:
        """Keep an outcome, at most 4 MiB of ``bytes``; see ``RecordStore.finish``."""
        if not isinstance(outcome, bytes):
            kind = type(outcome).__name__
            raise ConfigError(f"{type(self).__name__}: an outcome is {kind}; it keeps bytes only")
        if len(outcome) > OUTCOME_BYTES_MAX:
            raise ConfigError(
                f"{type(self).__name__}: an outcome has {len(outcome)} bytes; "
                f"{OUTCOME_BYTES_MAX} at most"
            )
        kept: bool = self._run(
            key_of("record", key),
            lambda data, now_ns: shares.finish(data, now_ns, token, outcome, ttl_ns),
        )
        return kept

    def release(self, key: str, token: str) -> None:
        """Forget a key in flight; see ``RecordStore.release``."""
        self._run(key_of("record", key), lambda data, _: shares.release(data, token))

    def renew(self, key: str, token: str, lease_ns: int) -> bool:
        """Prolong a lease; see ``RecordStore.renew``."""
        held: bool = self._run(
            key_of("record", key), lambda data, now_ns: shares.renew(data, now_ns, token, lease_ns)
        )
        return held

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.where()!r})"


def key_of(kind: str, name: str) -> str:
    """Return the key of a record; one that is long or odd is hashed."""
    if len(name) > _KEY_MAX or not name.isprintable():
        import hashlib

        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{kind}#{digest}"
    return f"{kind}:{name}"
