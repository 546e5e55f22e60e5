"""What a store of shared state offers, and what each call of it promises.

All calls block, each for a bounded time. A call that cannot be answered raises
:class:`~outlast.kernel.UnavailableError`; whether it took effect is then unknown, and every call
may be repeated with the same arguments (the same token): the repeat has no further effect.
"""

from typing import Any, Protocol, runtime_checkable

from outlast.protect.core.fleet import FleetRules, Lease, View
from outlast.protect.core.idempotency import Answer
from outlast.protect.core.shares import Taken

# --- idempotency records -------------------------------------------------------------------


@runtime_checkable
class RecordStore(Protocol):
    """Keeps what became of each idempotency key: absent, in flight, or done with an outcome.

    A key in flight is held under a lease by one token. All instants are the store's own time.
    Each call is atomic: of two that begin the same key at once, one gets ``Begun``.
    """

    @property
    def local(self) -> bool:
        """Whether it lives in this process (a plain attribute will do).

        Then its calls never wait, and an outcome is kept as the object that it is. Otherwise
        outcomes are ``bytes``, and coroutines make the calls in a thread.
        """
        ...

    def begin(self, key: str, fingerprint: str, lease_ns: int, token: str) -> Answer:
        """Start the work of ``key``, or tell why not.

        Args:
            key: At most 512 characters; stores may hash it.
            fingerprint: What the request asks for; compared as a whole, at most 128
                characters. Empty here or in the record: not compared.
            lease_ns: How long the key is held without a sign of life.
            token: Who asks; never used for another run.

        Returns:
            ``Begun()``: absent, expired, or in flight under a lease that ran out; the key is now
            in flight for ``token``, for ``lease_ns``. The same for the token that holds it.
            ``InFlight(left_ns)``: another token holds it for so long. ``Done(outcome)``: as
            ``finish`` was given it. ``Mismatch()``: there is a record, in flight under a living
            lease or done, with another fingerprint; it is looked at before the other two.

        Raises:
            OverloadedError: Definite. There is no room for another key in flight.
        """
        ...

    def finish(self, key: str, token: str, outcome: Any, ttl_ns: int) -> bool:
        """Keep ``outcome`` for ``ttl_ns`` and end the lease.

        Returns ``False`` and changes nothing unless ``token`` holds the key: the late outcome
        of a run that was replaced is fenced off. A lease that ran out is still held while no
        other token has begun the key, for at least as long again (a record in flight is not
        forgotten sooner than ``2 * lease_ns`` after it was begun or renewed). Repeated by the
        token that finished it: ``True``, without effect.
        """
        ...

    def release(self, key: str, token: str) -> None:
        """Forget the key if ``token`` holds it in flight: the next ``begin`` may run."""
        ...

    def renew(self, key: str, token: str, lease_ns: int) -> bool:
        """Let the lease of ``token`` last ``lease_ns`` from now; ``False`` if it holds none."""
        ...


# --- breakers, rates, budgets --------------------------------------------------------------------


@runtime_checkable
class FleetStore(Protocol):
    """Keeps what processes share of their breakers, rates and budgets.

    Every record expires by itself when it is not used. All instants are the store's own time.

    Attributes:
        timeout: Seconds that a call takes at most.
        quorum: Share of the nodes that reported lately that must have tripped before all do.
        min_nodes: And how many nodes at least.
        interval: Seconds between two reports of a process.
        node: Name of this process to the others; drawn if empty. One that stays the same from
            run to run keeps a process that starts again and again from counting as many.
    """

    timeout: float
    quorum: float
    min_nodes: int
    interval: float
    node: str

    def view(self, name: str) -> View:
        """Return what the fleet knows of the breaker ``name``."""
        ...

    def report(self, name: str, node: str, epoch: int, bad: bool, rules: FleetRules) -> View:
        """Tell whether the breaker of ``node`` has tripped; the fleet trips if enough have.

        ``bad`` counts only if ``epoch`` is current.
        """
        ...

    def leave(self, name: str, node: str) -> None:
        """Take back what ``node`` reported: it ends."""
        ...

    def lease_probe(
        self, name: str, node: str, epoch: int, ttl_ms: int, rules: FleetRules
    ) -> Lease | None:
        """Give ``node`` the right to one probe of an open breaker, for ``ttl_ms``.

        ``None`` if ``epoch`` is not current, probes are not due, ``rules.probes`` leases are out,
        or ``node`` failed the last probe and others have not had their turn.
        """
        ...

    def settle(self, lease: Lease, ok: bool | None, rules: FleetRules) -> View:
        """End a probe; ``None`` is inconclusive. No effect once the lease or epoch is over."""
        ...

    def take(
        self, name: str, interval_ns: int, burst_ns: int, cost: int, max_wait_ns: int
    ) -> Taken:
        """Take ``cost`` slots of a rate, one per ``interval_ns``, if the wait is not too long.

        Repeated after an answer was lost, it takes them again: a rate is never exceeded so.
        """
        ...

    def spend(
        self, name: str, deposit_milli: int, floor_milli_per_s: int, cap_milli: int, want: int
    ) -> int:
        """Put thousandths of tokens into a budget, take up to ``want`` tokens out of it.

        A deposit whose answer was lost may count twice, up to ``cap_milli``.
        """
        ...

    def close(self) -> None:
        """Give back connections; a later call opens them again."""
        ...


@runtime_checkable
class Store(RecordStore, FleetStore, Protocol):
    """Everything that processes share: ``MemoryStore``, ``SqliteStore``, ``RedisStore``."""
