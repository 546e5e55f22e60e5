"""Injects the planned faults into a lab, heals them, and keeps the evidence.

A fault is injected, lasts its time, and is healed; then the nemesis waits until the load makes
progress again before the next one is due. Each injection is a lease: links heal, stopped
processes go on and full disks are freed by themselves soon after the planned end, whatever
becomes of this process.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from outlast.drill.core.evidence import cut_evidence, link_evidence
from outlast.drill.core.schedule import Planned
from outlast.drill.core.victims import Aim, aim
from outlast.drill.lab import CLIENTS, Lab
from outlast.inject import Direction, Link, LinkFault, crash, pause
from outlast.kernel import Prng, World

if TYPE_CHECKING:
    from outlast.inject import Journal, Volume

_NS = 1_000_000_000
_MS = 1_000_000
_SPARE_NS = 1_500_000_000
"""How much longer than planned a lease is: healing it in time is the nemesis' work."""
_LEADER_NS = 2_000_000_000
"""How long a fault that is meant for the leader waits until there is one."""
_POLL_NS = 50_000_000
_TOP_UP_SECONDS = 0.1
_CUT = LinkFault(cut=True)
LINK_FAULTS = {
    "slow": LinkFault(delay_ns=80 * _MS),
    "jitter": LinkFault(delay_ns=5 * _MS, jitter_ns=120 * _MS),
    "loss": LinkFault(loss_ppm=50_000),
    "drop": LinkFault(drop=True),
    "reset": LinkFault(reset=True),
    "bandwidth": LinkFault(bytes_per_second=64 * 1024),
}
"""What each ``link:`` fault does to each direction of each link of its victims."""


@dataclass(slots=True)
class Injected:
    """One fault that was injected. Times are nanoseconds since the load began.

    ``evidence`` shows that it happened; where it is empty, ``missing`` may say why.
    """

    planned: Planned
    aim: Aim
    start_ns: int
    leader: str = ""
    end_ns: int = 0
    healed: bool = False
    evidence: str = ""
    missing: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    recovered_ns: int | None = None
    asked: dict[str, int] = field(default_factory=dict)
    heals: AsyncExitStack = field(default_factory=AsyncExitStack)

    def lack(self, why: str) -> None:
        """Take its evidence back: ``why`` it shows nothing."""
        self.evidence, self.missing = "", why

    @property
    def active(self) -> bool:
        """Whether it is in force."""
        return not self.healed

    @property
    def cuts_off(self) -> bool:
        """Whether it cuts its victims off from the other nodes."""
        return self.planned.fault.kind == "partition"


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
        volumes: The nodes' disks, where they have small ones.
        pinned: Whether clients read at each node whatever happens.
    """

    world: World
    lab: Lab
    plan: Sequence[Planned]
    began_ns: int
    leader: Callable[[], str]
    progress: Callable[[int], Awaitable[int | None]]
    journal: "Journal"
    volumes: "dict[str, Volume]" = field(default_factory=dict)
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
                await self._inject(one)
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

    async def _inject(self, one: Injected) -> None:
        fault = one.planned.fault
        if fault.kind == "crash":
            await self._crash(one)
        elif fault.kind == "pause":
            await self._pause(one)
        elif fault.kind == "disk":
            await self._fill(one)
        elif fault.kind == "link":
            self._disturb(one, LINK_FAULTS[fault.variant])
        elif fault.variant == "flapping":
            self._flap(one)
        else:
            self._cut(one)

    # --- processes and disks -------------------------------------------------------------------

    async def _crash(self, one: Injected) -> None:
        pids = []
        for victim in one.aim.victims:
            node = self.lab.nodes[victim]
            one.heals.push_async_callback(self.lab.start_node, victim)
            node.wanted = False
            if node.process is None:
                continue
            with suppress(ProcessLookupError):  # it ended by itself just now
                found = await crash(self.world, node.process.pid)
                one.facts[victim] = found.facts
                pids += found.facts["pids"]
        gone = [facts for facts in one.facts.values() if facts.get("gone")]
        if len(gone) == len(one.aim.victims):
            one.evidence = f"SIGKILL; gone: pid {', '.join(map(str, pids))}"

    async def _pause(self, one: Injected) -> None:
        seconds = (one.planned.lasts_ns + _SPARE_NS) / _NS
        seen = []
        for victim in one.aim.victims:
            node = self.lab.nodes[victim]
            if node.process is None:
                continue
            pid = node.process.pid
            with suppress(ProcessLookupError):  # it ended by itself just now
                paused = await pause(self.world, pid, seconds=seconds, journal=self.journal)
                node.paused = True
                one.heals.push_async_callback(self._resume, one, victim, paused)
                one.facts[victim] = paused.evidence.facts
                if paused.evidence.facts.get("stopped"):
                    seen.append(str(pid))
        if len(seen) == len(one.aim.victims):
            one.evidence = f"SIGSTOP; state T: pid {', '.join(seen)}"

    async def _resume(self, one: Injected, victim: str, paused: Any) -> None:
        early = not paused.active and self.now() < one.start_ns + one.planned.lasts_ns + _SPARE_NS
        await paused.resume()
        self.lab.nodes[victim].paused = False
        if early and self.lab.nodes[victim].running:
            one.lack(f"somebody else let {victim} go on before its time")

    async def _fill(self, one: Injected) -> None:
        seconds = (one.planned.lasts_ns + _SPARE_NS) / _NS
        said = []
        for victim in one.aim.victims:
            volume = self.volumes[victim]
            used = volume.used()
            one.heals.push_async_callback(volume.free)
            found = await volume.fill(seconds=seconds)
            one.facts[victim] = {**found.facts, "used": used}
            if not used:
                one.missing = f"{victim} keeps nothing in its directory: a full disk is no harm"
            if used and found.facts.get("free_bytes") == 0:
                said.append(victim)
        if len(said) == len(one.aim.victims):
            one.evidence = f"0 bytes free on {', '.join(said)}"
        keeping = self.world.spawn.task(self._keep_full(one), name="keep full")
        one.heals.callback(keeping.cancel)

    async def _keep_full(self, one: Injected) -> None:
        """Take what the victims free, so that the disk stays full until it is healed."""
        while True:
            await self.world.timers.sleep(_TOP_UP_SECONDS)
            for victim in one.aim.victims:
                with suppress(OSError):
                    await self.volumes[victim].top_up()

    # --- links -----------------------------------------------------------------------------------

    def _ways(self, one: Injected) -> list[tuple[Link, Direction]]:
        """Return every direction of a link that carries what a cut withholds.

        Nodes that do not talk to each other are cut off from the clients in their place.
        """
        if not self.lab.nodes_talk:
            links = [
                self.lab.client_link(v, pinned=p) for v in one.aim.victims for p in (False, True)
            ]
            return [(link, way) for link in links for way in ("forward", "backward")]
        ways: list[tuple[Link, Direction]] = []
        for link in self.lab.peer_links():
            if (link.source, link.target) in one.aim.cuts:
                ways.append((link, "forward"))
            if (link.target, link.source) in one.aim.cuts:
                ways.append((link, "backward"))
        return ways

    def _cut(self, one: Injected) -> None:
        ways = self._ways(one)
        marks = {link.name: link.mark() for link, _ in ways}
        until_ns = self.world.clock.monotonic_ns() + one.planned.lasts_ns + _SPARE_NS
        for link, way in ways:
            link.set(way, _CUT, until_ns)

        def heal() -> None:
            facts = [
                link.evidence(marks[link.name]) for link in dict.fromkeys(each for each, _ in ways)
            ]
            one.facts["links"] = facts
            one.evidence = cut_evidence(facts)
            for link, way in ways:
                link.clear(way)

        one.heals.callback(heal)

    def _flap(self, one: Injected) -> None:
        ways = self._ways(one)
        marks = {link.name: link.mark() for link, _ in ways}
        prng = Prng(one.planned.draw)
        end_ns = one.start_ns + one.planned.lasts_ns
        cuts = 0

        async def flap() -> None:
            nonlocal cuts
            while self.now() < end_ns:
                until_ns = self.world.clock.monotonic_ns() + prng.between(200, 900) * _MS
                until_ns = min(until_ns, self.began_ns + end_ns)
                for link, way in ways:
                    link.set(way, _CUT, until_ns)
                cuts += 1
                await self._until(until_ns - self.began_ns + prng.between(100, 500) * _MS)

        task = self.world.spawn.task(flap(), name="flapping")

        def heal() -> None:
            task.cancel()
            facts = [
                link.evidence(marks[link.name]) for link in dict.fromkeys(each for each, _ in ways)
            ]
            one.facts["links"], one.facts["cuts"] = facts, cuts
            said = cut_evidence(facts)
            one.evidence = f"{cuts} cuts; {said}" if said else ""
            for link, way in ways:
                link.clear(way)

        one.heals.callback(heal)

    def _disturb(self, one: Injected, fault: LinkFault) -> None:
        links = list(dict.fromkeys(each for v in one.aim.victims for each in self.lab.links_of(v)))
        marks = {link.name: link.mark() for link in links}
        until_ns = self.world.clock.monotonic_ns() + one.planned.lasts_ns + _SPARE_NS
        for link in links:
            link.set("both", fault, until_ns)

        def heal() -> None:
            facts = [link.evidence(marks[link.name]) for link in links]
            one.facts["links"] = facts
            one.evidence = link_evidence(one.planned.fault.variant, facts)
            for link in links:
                link.clear("both")

        one.heals.callback(heal)


__all__ = ["CLIENTS", "Injected", "Nemesis"]
