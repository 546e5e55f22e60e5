"""Injects the planned faults into a lab, heals them, and keeps the evidence.

A fault is injected, lasts its time, and is healed; then the nemesis waits until the load makes
progress again before the next one is due. How a fault is done is the lab's business: with
signals, proxies and disks on real processes, or in the simulator.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from outlast.drill.core.schedule import Planned
from outlast.drill.core.victims import aim
from outlast.drill.injected import Injected
from outlast.drill.lab import Breaker, Lab
from outlast.kernel import World

_NS = 1_000_000_000
_LEADER_NS = 2_000_000_000
"""How long a fault that is meant for the leader waits until there is one."""
_POLL_NS = 50_000_000


@dataclass(slots=True)
class Nemesis:
    """Carries out a plan.

    Args:
        world: Clock and timers.
        lab: What it breaks.
        plan: From the seed.
        began_ns: When the load began, on the monotonic clock.
        leader: Says who leads now, empty when nobody is known to.
        progress: Waits until the load makes progress after an instant; returns how long that
            took, ``None`` if it did not.
        breaker: How it breaks it.
        pinned: Whether clients read at each node whatever happens.
    """

    world: World
    lab: Lab
    plan: Sequence[Planned]
    began_ns: int
    leader: Callable[[], str]
    progress: Callable[[int], Awaitable[int | None]]
    breaker: Breaker
    pinned: bool = False
    injected: list[Injected] = field(default_factory=list)
    _led: bool = False

    @property
    def current(self) -> Injected | None:
        """The fault in force, if any."""
        return self.injected[-1] if self.injected and self.injected[-1].active else None

    def now(self) -> int:
        """Return nanoseconds since the load began."""
        return self.world.clock.monotonic_ns() - self.began_ns

    async def run(self) -> None:
        """Inject, hold, heal and wait for progress, fault by fault."""
        for planned in self.plan:
            await self._until(planned.at_ns)
            leader = await self._leader(planned)
            chosen = aim(planned.fault, list(self.lab.nodes), leader, planned.draw)
            one = Injected(planned, chosen, self.now(), leader)
            if one.cuts_off and self.pinned and self.lab.nodes_talk:
                one.asked = dict.fromkeys(chosen.victims, 0)
            self.injected.append(one)
            try:
                await self.breaker.inject(one, self.began_ns)
                await self._until(one.start_ns + planned.lasts_ns)
            finally:
                await one.heals.aclose()
                one.healed = True
                one.end_ns = self.now()
            if self._led and not leader and planned.fault.target == "leader":
                one.lack("nobody was known to lead: another node was hit")
            one.recovered_ns = await self.progress(one.end_ns)

    async def _leader(self, planned: Planned) -> str:
        """Return who leads; where roles are known at all, wait a moment for somebody who does."""
        end_ns = self.now() + _LEADER_NS
        while True:
            leader = self.leader()
            self._led = self._led or bool(leader)
            asked = self._led and planned.fault.target in {"leader", "follower"}
            if leader or not asked or self.now() >= end_ns:
                return leader
            await self._until(self.now() + _POLL_NS)

    async def _until(self, at_ns: int) -> None:
        left = at_ns - self.now()
        if left > 0:
            await self.world.timers.sleep(left / _NS)
