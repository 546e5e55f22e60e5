"""Breaks real processes: signals, fault proxies on every link, disks that are full.

Each injection is a lease: links heal, stopped processes go on and full disks are freed by
themselves soon after the planned end, whatever becomes of this process.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from outlast.drill.core.evidence import cut_evidence, link_evidence
from outlast.drill.injected import Injected
from outlast.drill.process_lab import ProcessLab
from outlast.inject import Direction, Link, LinkFault, crash, pause
from outlast.kernel import Prng, World

if TYPE_CHECKING:
    from outlast.inject import Journal, Volume

_NS = 1_000_000_000
_MS = 1_000_000
_SPARE_NS = 1_500_000_000
"""How much longer than planned a lease is: healing it in time is the nemesis' work."""
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
class ProcessBreaker:
    """Injects faults into the processes and links of a lab.

    Args:
        world: Clock and timers.
        lab: What it breaks.
        journal: Where each fault is written down before it is injected.
        volumes: The nodes' disks, where they have small ones.
    """

    world: World
    lab: ProcessLab
    journal: "Journal"
    volumes: "dict[str, Volume]" = field(default_factory=dict)
    began_ns: int = 0

    async def inject(self, one: Injected, began_ns: int) -> None:
        """Inject a fault; what heals it is pushed onto its ``heals``."""
        self.began_ns = began_ns
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

    def now(self) -> int:
        """Return nanoseconds since the load began."""
        return self.world.clock.monotonic_ns() - self.began_ns

    async def _until(self, at_ns: int) -> None:
        left = at_ns - self.now()
        if left > 0:
            await self.world.timers.sleep(left / _NS)

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
