"""Stores to be checked, each with a clock that can be moved, and stores that are broken."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from outlast.host import default_world
from outlast.kernel import EventBus, Gate, Prng, World, reset_world, use_world
from outlast.protect.core.fleet import FleetRecord, FleetRules, Lease, View
from outlast.protect.core.shares import Step, Taken
from outlast.protect.store import KeyedStore, MemoryStore, RedisStore, SqliteStore
from outlast.protect.store.keyed import Rule
from tests.support.store_redis import RedisServer


class HandClock:
    """Time that passes only by hand."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000) -> None:
        self.now_ns = now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns

    def boot_id(self) -> str:
        return ""

    def pause(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1_000_000_000)

    def wait(self, gate: Gate, seconds: float | None) -> bool:
        self.pause(seconds or 0.0)
        return gate.acquire(False)


@contextmanager
def hand_world(
    clock: HandClock | None = None, events: EventBus | None = None, prng: Prng | None = None
) -> Iterator[World]:
    """A real world but for its clock, its draws and its events."""
    clock = clock or HandClock()
    world = replace(
        default_world(), clock=clock, prng=prng or Prng(7), events=events or EventBus()
    )
    token = use_world(world)
    try:
        yield world
    finally:
        reset_world(token)


class Bench:
    """A store and a way to let its time pass."""

    def __init__(self, store: Any, clock: HandClock | None) -> None:
        self.store = store
        self._clock = clock
        self._begun = time.monotonic()
        self._passed = 0.0

    @property
    def late(self) -> float:
        """How many seconds of real time have passed beside those that were asked for."""
        return time.monotonic() - self._begun - self._passed

    def pass_ms(self, ms: int) -> None:
        if self._clock is None:
            self._passed += ms / 1000
            time.sleep(ms / 1000)
        else:
            self._clock.now_ns += ms * 1_000_000


@contextmanager
def memory_bench(kind: type[KeyedStore] = MemoryStore) -> Iterator[Bench]:
    clock = HandClock()
    with hand_world(clock):
        yield Bench(kind(), clock)


@contextmanager
def sqlite_bench(folder: Path) -> Iterator[Bench]:
    clock = HandClock()
    with hand_world(clock):
        store = SqliteStore(folder / "state.db", timeout=30.0)
        yield Bench(store, clock)
        store.close()


@contextmanager
def redis_bench(server: RedisServer) -> Iterator[Bench]:
    store = RedisStore(server.url, timeout=30.0)
    store._client.flushdb()
    yield Bench(store, None)
    store.close()


# --- broken ------------------------------------------------------------------------------------


class Bytes(MemoryStore):
    """As a remote store: the records are bytes and go through the rules of the others."""

    local = False
    begin = KeyedStore.begin
    finish = KeyedStore.finish
    release = KeyedStore.release
    renew = KeyedStore.renew


class LeaseForEver(Bytes):
    """A probe lease without an end: a dead prober keeps its slot."""

    def lease_probe(
        self, name: str, node: str, epoch: int, ttl_ms: int, rules: FleetRules
    ) -> Lease | None:
        return super().lease_probe(name, node, epoch, 10**12, rules)


class Unfenced(Bytes):
    """Settles whatever lease it is shown."""

    def settle(self, lease: Lease, ok: bool | None, rules: FleetRules) -> View:
        def change(record: FleetRecord, now_ms: int) -> View:
            record.leases[lease.token] = (lease.node, now_ms + 1000)
            record.settle(lease._replace(epoch=record.epoch), ok, rules, now_ms)
            return record.view(now_ms)

        view: View = self._change(lease.name, rules, change)
        return view


class Hasty(Bytes):
    """Trips for the first node that reports."""

    def report(self, name: str, node: str, epoch: int, bad: bool, rules: FleetRules) -> View:
        return super().report(name, node, epoch, bad, rules._replace(min_nodes=1))


class Credulous(Bytes):
    """Counts evidence of an epoch that is over."""

    def report(self, name: str, node: str, epoch: int, bad: bool, rules: FleetRules) -> View:
        return super().report(name, node, self.view(name).epoch, bad, rules)


class Stampede(Bytes):
    """Gives a probe to everybody."""

    def lease_probe(
        self, name: str, node: str, epoch: int, ttl_ms: int, rules: FleetRules
    ) -> Lease | None:
        return super().lease_probe(name, node, epoch, ttl_ms, rules._replace(probes=60))


class Generous(Bytes):
    """Gives slots of a rate and tokens of a budget without writing them down."""

    def transact(self, key: str, rule: Rule) -> Any:
        if key.startswith(("rate", "budget")):
            return super().transact(key, lambda data, now: rule(data, now)._replace(data=None))
        return super().transact(key, rule)


class Torn(Bytes):
    """Reads and writes, but not as one."""

    def transact(self, key: str, rule: Rule) -> Any:
        seen: list[bytes | None] = []
        super().transact(key, lambda data, _: (seen.append(data), Step(None, 0, None))[1])
        time.sleep(0.001)
        return super().transact(key, lambda _, now: rule(seen[0], now))


class Forgetful(Bytes):
    """Forgets a record too soon."""

    def transact(self, key: str, rule: Rule) -> Any:
        return super().transact(key, lambda data, now: rule(data, now)._replace(keep_ns=1))


class AnyToken(Bytes):
    """Takes an outcome from whoever brings one."""

    def finish(self, key: str, token: str, outcome: Any, ttl_ns: int) -> bool:
        import json

        def rule(data: bytes | None, now_ns: int) -> Step:
            head = [1, True, token, "", now_ns + ttl_ns]
            return Step(json.dumps(head).encode() + b"\n" + outcome, ttl_ns, True)

        kept: bool = self.transact(f"record:{key}", rule)
        return kept


class Waitless(Bytes):
    """Says that a slot may be used at once, always."""

    def take(
        self, name: str, interval_ns: int, burst_ns: int, cost: int, max_wait_ns: int
    ) -> Taken:
        taken = super().take(name, interval_ns, burst_ns, cost, max_wait_ns)
        return taken._replace(wait_ns=0)


BROKEN: dict[type[KeyedStore], str] = {
    LeaseForEver: "dead_prober",
    Unfenced: "late_settle",
    Hasty: "one_bad_node",
    Credulous: "old_evidence",
    Stampede: "probes_capped",
    Generous: "rate_holds",
    Torn: "threads",
    Forgetful: "probe_closes",
    AnyToken: "fenced_outcome",
    Waitless: "rate_waits",
}
