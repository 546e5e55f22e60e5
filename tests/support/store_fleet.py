"""A fleet of processes in one thread, drawn from a seed: breakers that share one store.

Each node has its own skewed clock, its own partition from the store, and its own view of the
service. Real breakers, the real link, the real rules; only time and the store's reach are made.
"""

from collections.abc import Callable
from typing import Any

from outlast.kernel import CircuitOpenError, Event, EventBus, Prng
from outlast.protect.breaker import BreakerPermit, CircuitBreaker
from outlast.protect.core.fleet import FleetRules, Lease, View
from outlast.protect.shared import Shared, share_breaker
from outlast.protect.store.keyed import Rule
from tests.support.store_bench import Bytes, HandClock, hand_world

MS = 1_000_000
TICK_MS = 50


class FleetLab:
    """The store that all nodes talk to, with a clock of its own, and what it has given out."""

    def __init__(self, seed: int, *, probes: int = 1) -> None:
        self.prng = Prng(seed)
        self.now_ms = 1_000_000
        self.probes = probes
        self.store_ahead_ms = 0
        self.live: dict[tuple[int, int], int] = {}
        self.most_live = 0
        self.nodes: list[FleetNodeLab] = []
        self.data = Bytes(node="lab")
        self.clock = HandClock(self.now_ms * MS)
        self.down = False
        self.asked = 0

    def store(self, node: "FleetNodeLab") -> Any:
        """The store as one node reaches it."""
        lab = self

        class Reached(Bytes):
            def transact(self, key: str, rule: Rule) -> Any:
                if node.cut:
                    raise ConnectionError("cut off")
                lab.asked += 1
                with hand_world(lab.clock, prng=lab.prng):
                    return lab.data.transact(key, rule)

            def lease_probe(
                self, name: str, node: str, epoch: int, ttl_ms: int, rules: FleetRules
            ) -> Lease | None:
                lease = super().lease_probe(name, node, epoch, ttl_ms, rules)
                if lease is not None:
                    lab.granted(lease)
                return lease

            def settle(self, lease: Lease, ok: bool | None, rules: FleetRules) -> View:
                view = super().settle(lease, ok, rules)
                lab.live.pop((lease.epoch, lease.token), None)
                return view

        return Reached(node=node.name)

    def granted(self, lease: Lease) -> None:
        self.live[lease.epoch, lease.token] = lease.expires_ms
        alive = [
            key
            for key, end in self.live.items()
            if end > self.now_ms + self.store_ahead_ms and key[0] == lease.epoch
        ]
        self.most_live = max(self.most_live, len(alive))

    def add(self, name: str, **how: Any) -> "FleetNodeLab":
        node = FleetNodeLab(self, name, **how)
        self.nodes.append(node)
        return node

    def run(self, ms: int, each: Callable[[], None] = lambda: None) -> None:
        """Let time pass."""
        for _ in range(ms // TICK_MS):
            self.now_ms += TICK_MS
            self.clock.now_ns = (self.now_ms + self.store_ahead_ms) * MS
            for node in list(self.nodes):
                node.tick()
            each()

    def state(self) -> str:
        with hand_world(self.clock):
            return self.data.view("api").state


class FleetNodeLab:
    """One process."""

    def __init__(self, lab: FleetLab, name: str, *, bad: bool = False, skew: int = 0) -> None:
        self.lab = lab
        self.name = name
        self.bad = bad
        self.cut = False
        self.frozen = False
        self.skew = skew
        self.events: list[Event] = []
        self.open_permits: list[tuple[int, BreakerPermit]] = []
        self.next_sync_ms = lab.now_ms + lab.prng.below(500)
        self.clock = HandClock()
        self.events_bus = EventBus()
        self.events_bus.subscribe(self.events.append)
        with self.here():
            self.breaker = CircuitBreaker(
                failure_threshold=3, recovery_timeout=2.0, probe_timeout=1.0, recovery_cap=8.0,
                probes=lab.probes, probes_concurrent=lab.probes, name="api",
            )  # fmt: skip
            self.shared = Shared(lab.store(self))
            share_breaker(self.breaker, self.shared)

    def here(self) -> Any:
        """Its world: a clock that is off by an offset and by up to 1 % in speed."""
        at_ms = self.lab.now_ms
        self.clock.now_ns = (at_ms + self.skew * 1_000 + at_ms * self.skew // 10_000) * MS
        return hand_world(self.clock, self.events_bus, self.lab.prng)

    def crash(self) -> None:
        """Stop without a word: leases and reports stay as they are."""
        self.lab.nodes.remove(self)

    def tick(self) -> None:
        if self.frozen:
            return
        lab = self.lab
        with self.here():
            for due, permit in [one for one in self.open_permits if one[0] <= lab.now_ms]:
                self.open_permits.remove((due, permit))
                self.end(permit)
            if lab.now_ms >= self.next_sync_ms:
                self.next_sync_ms = lab.now_ms + 400 + lab.prng.below(200)
                self.shared.sync()
            if lab.prng.chance(1, 2):
                self.call()

    def end(self, permit: BreakerPermit) -> None:
        if self.bad or self.lab.down:
            permit.fail(OSError("down"))
        elif self.lab.prng.chance(1, 40):
            permit.cancel()
        else:
            permit.succeed()

    def call(self) -> None:
        before = self.lab.asked
        state = self.breaker.state
        try:
            permit = self.breaker.try_admit()
        except CircuitOpenError:
            permit = None
        if state != "HALF_OPEN":
            assert self.lab.asked == before, f"admission while {state} asked the store"
        if permit is not None:
            self.open_permits.append((self.lab.now_ms + self.lab.prng.below(300), permit))

    @property
    def state(self) -> str:
        with self.here():
            return self.breaker.state
