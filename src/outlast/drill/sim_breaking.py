"""Breaks the hosts of a simulated lab: the same faults by name as on real processes, and more.

Whom a fault hits, for how long and what counts as evidence is the drill's business, as it is on
real processes; how it is done is the simulated lab's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outlast.drill.breaking import LINK_FAULTS
from outlast.drill.injected import Injected
from outlast.drill.sim_lab import SimLab
from outlast.kernel import Prng
from outlast.sim import TEST, Undo

_NS = 1_000_000_000
_MS = 1_000_000
_STEP_US = (200, 2_000)
_SKEW_SECONDS = 3600
_DRIFT_PPM = 20_000
"""A clock that gains or loses up to 2 %: a hundred times what a bad quartz does, and less than
what the rules of leases allow for."""

Pairs = Sequence[tuple[str, str]]


@dataclass(slots=True)
class SimBreaker:
    """Injects faults into the hosts and ways of a simulated lab."""

    lab: SimLab

    async def inject(self, one: Injected, began_ns: int) -> None:
        """Inject a fault; what heals it is pushed onto its ``heals``."""
        fault = one.planned.fault
        how: dict[str, Callable[[Injected], None]] = {
            "crash": self._crash,
            "power-cut": self._crash,
            "pause": self._pause,
            "disk": self._disk,
            "clock": self._clock,
            "slow": self._slow,
            "link": self._disturb,
            "dns": self._dns,
        }
        if fault.kind in how:
            how[fault.kind](one)
        elif fault.variant == "flapping":
            self._flap(one)
        else:
            self._cut(one)

    # --- hosts ---------------------------------------------------------------------------------

    def _crash(self, one: Injected) -> None:
        # A node that forgets what it synced loses it in a kill too, as it does on processes.
        power = one.planned.fault.kind == "power-cut" or self.lab.target.forgets
        lab = self.lab.lab
        ended = []
        for victim in one.aim.victims:
            node = self.lab.nodes[victim]
            one.heals.callback(self.lab.start_node, victim)
            node.wanted = False
            before = node.host.disk.tally.facts()
            (lab.power_cut if power else lab.crash)(victim)
            lost = _since(node.host.disk.tally.facts(), before)
            one.facts[victim] = {"life": node.starts, **lost}
            if not node.running:
                ended.append(f"life {node.starts} of {victim}")
        if len(ended) == len(one.aim.victims):
            how = "power cut: what was not synced is gone" if power else "SIGKILL"
            one.evidence = f"{how}; over: {', '.join(ended)}"

    def _pause(self, one: Injected) -> None:
        lab = self.lab.lab
        for victim in one.aim.victims:
            lab.pause(victim)
            one.heals.callback(lab.resume, victim)
        if all(self.lab.nodes[victim].paused for victim in one.aim.victims):
            one.evidence = f"SIGSTOP; nothing runs on {', '.join(one.aim.victims)}"

    def _disk(self, one: Injected) -> None:
        variant = one.planned.fault.variant
        for victim in one.aim.victims:
            disk = self.lab.nodes[victim].host.disk
            before = disk.tally.facts()
            undo = self.lab.lab.disk(victim, variant)
            one.heals.callback(self._heal_disk, one, victim, before, undo)
            if variant == "full" and disk.free_bytes("/") == 0:
                one.evidence = f"{one.evidence}; 0 bytes free on {victim}".removeprefix("; ")
            elif variant == "readonly" and disk.faults.readonly:
                one.evidence = f"{one.evidence}; {victim} is read-only".removeprefix("; ")

    def _heal_disk(
        self, one: Injected, victim: str, before: Mapping[str, int], undo: Undo
    ) -> None:
        found = _since(self.lab.nodes[victim].host.disk.tally.facts(), before)
        undo.undo()
        one.facts[victim] = found
        counts = {name: count for name, count in found.items() if count and name in _OF_DISKS}
        if counts:
            said = ", ".join(f"{count:,} {_OF_DISKS[name]}" for name, count in counts.items())
            one.evidence = f"{one.evidence}; {victim}: {said}".removeprefix("; ")

    def _clock(self, one: Injected) -> None:
        variant, prng, lab = one.planned.fault.variant, Prng(one.planned.draw), self.lab.lab
        said = []
        for victim in one.aim.victims:
            sign = 1 if prng.chance(1, 2) else -1
            ppm, seconds = (
                sign * prng.between(100, _DRIFT_PPM),
                sign * prng.between(1, _SKEW_SECONDS),
            )
            if variant == "drift":
                undo = lab.clock(victim, drift_ppm=ppm)
                said.append(f"{victim} {ppm:+,d} ppm")
            elif variant == "skew":
                undo = lab.clock(victim, skew=seconds)
                said.append(f"{victim} {seconds:+,d} s")
            else:
                undo = lab.clock(victim, jump=seconds)
                said.append(f"{victim} by {seconds:+,d} s")
            one.heals.callback(undo.undo)
        one.evidence = f"clocks: {', '.join(said)}"

    def _slow(self, one: Injected) -> None:
        prng = Prng(one.planned.draw)
        said = []
        for victim in one.aim.victims:
            micros = prng.between(*_STEP_US)
            one.heals.callback(self.lab.lab.burden(victim, step=micros / 1_000_000).undo)
            said.append(f"{victim} {micros:,} µs")
        one.evidence = f"each callback takes longer: {', '.join(said)}"

    def _dns(self, one: Injected) -> None:
        tally = self.lab.lab.sim.network.dns.tally
        before = tally.facts()
        variant: Any = one.planned.fault.variant
        undo = self.lab.lab.dns(variant)

        def heal() -> None:
            undo.undo()
            found = _since(tally.facts(), before)
            spoilt = sum(count for name, count in found.items() if name != "lookups")
            one.facts["names"] = found
            one.evidence = f"{spoilt:,} look-ups of names went wrong" if spoilt else ""
            one.missing = "" if spoilt else "nobody looked a name up"

        one.heals.callback(heal)

    # --- links ---------------------------------------------------------------------------------

    def _pairs(self, one: Injected) -> Pairs:
        """Return whom a cut keeps from whom; nodes that do not talk lose their clients."""
        if self.lab.nodes_talk:
            return sorted(one.aim.cuts)
        others = [name for name in self.lab.lab.hosts if name not in self.lab.names]
        ways = [(victim, other) for victim in one.aim.victims for other in others]
        return [*ways, *((other, victim) for victim, other in ways)]

    def _cut_pairs(self, pairs: Pairs) -> list[Undo]:
        return [self.lab.lab.cut(a, b, one_way=True) for a, b in pairs]

    def _measured(self, one: Injected, pairs: Pairs) -> Callable[[], dict[str, int]]:
        """Return what counts what the ways between ``pairs`` did from now on."""
        ways = [self.lab.way(a, b) for a, b in pairs]
        before = [way.tally.facts() for way in ways]

        def measure() -> dict[str, int]:
            total: dict[str, int] = {}
            for way, counts in zip(ways, before, strict=True):
                found = _since(way.tally.facts(), counts)
                one.facts[f"{way.source} to {way.target}"] = found
                for name, count in found.items():
                    total[name] = total.get(name, 0) + count
            return total

        return measure

    def _cut(self, one: Injected) -> None:
        pairs = self._pairs(one)
        measure = self._measured(one, pairs)
        undone = self._cut_pairs(pairs)

        def heal() -> None:
            one.evidence = _withheld(measure(), len(pairs))
            for undo in undone:
                undo.undo()

        one.heals.callback(heal)

    def _flap(self, one: Injected) -> None:
        pairs, world = self._pairs(one), self.lab.world
        measure = self._measured(one, pairs)
        prng = Prng(one.planned.draw)
        cuts = 0
        undone: list[Undo] = []

        def mend() -> None:
            while undone:
                undone.pop().undo()

        async def flap() -> None:
            nonlocal cuts
            while True:
                undone.extend(self._cut_pairs(pairs))
                cuts += 1
                await world.timers.sleep(prng.between(200, 900) / 1000)
                mend()
                await world.timers.sleep(prng.between(100, 500) / 1000)

        task = world.spawn.task(flap(), name="flapping")

        def heal() -> None:
            task.cancel()
            said = _withheld(measure(), len(pairs))
            mend()
            one.facts["cuts"] = cuts
            one.evidence = f"{cuts} cuts; {said}" if said else ""

        one.heals.callback(heal)

    def _disturb(self, one: Injected) -> None:
        variant = one.planned.fault.variant
        fault = LINK_FAULTS[variant]
        pairs = list(
            dict.fromkeys(
                pair
                for victim in one.aim.victims
                for other in self.lab.lab.hosts
                if other not in {victim, TEST}
                for pair in ((victim, other), (other, victim))
            )
        )
        measure = self._measured(one, pairs)
        undone = [
            self.lab.lab.slow(
                a,
                b,
                delay=fault.delay_ns / _NS,
                jitter=fault.jitter_ns / _NS,
                loss=fault.loss_ppm / 1_000_000,
                bytes_per_second=fault.bytes_per_second,
                drop=fault.drop,
                reset=fault.reset,
                one_way=True,
            )
            for a, b in pairs
        ]

        def heal() -> None:
            name, said = _OF_LINKS[variant]
            count = measure().get(name, 0)
            one.evidence = f"{count:,} {said}" if count else ""
            for undo in undone:
                undo.undo()

        one.heals.callback(heal)


_OF_LINKS: Mapping[str, tuple[str, str]] = {
    "slow": ("delayed", "segments late"),
    "jitter": ("delayed", "segments late"),
    "bandwidth": ("delayed", "segments late"),
    "loss": ("lost", "segments lost and sent again"),
    "drop": ("dropped", "segments swallowed"),
    "reset": ("reset", "connections reset"),
}
"""Which count shows each fault of links, and how it is told."""
_OF_DISKS: Mapping[str, str] = {
    "eio": "calls failed with EIO",
    "enospc": "writes refused with ENOSPC",
    "erofs": "writes refused with EROFS",
    "slow_ns": "ns waited longer",
    "rotted": "bits flipped",
}
"""Counts of a disk that show a fault of it."""


def _withheld(found: Mapping[str, int], ways: int) -> str:
    """Tell what a cut has kept: segments under way, and connections that were not answered."""
    parts = []
    if found.get("held"):
        parts.append(f"{found['held']:,} segments withheld")
    if found.get("lost"):
        parts.append(f"{found['lost']:,} connection attempts unanswered")
    return f"{', '.join(parts)} on {ways} ways" if parts else ""


def _since(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, int]:
    """Return what was counted since ``before``."""
    return {name: count - before.get(name, 0) for name, count in now.items()}
