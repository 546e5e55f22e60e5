"""Random lives of a membership: faults for a while, then none; at the end all agree."""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field

from outlast.detect.core.swim.api import Leave, SetMetadata
from outlast.detect.core.swim.settings import SwimSettings
from outlast.detect.membership_events import MemberDead, NameConflict
from outlast.kernel import Prng
from tests.support.swim_sim import MS, SECOND, BrokenError, Net, Swim

FAULTS = (
    "kill", "power", "restart", "freeze", "slow", "halves", "alone", "oneway", "leave", "metadata",
)  # fmt: skip
SHORT = frozenset({"freeze", "metadata"})
"""With these faults alone nobody may be removed."""


@dataclass
class Life:
    """What a seed drew and what came of it."""

    seed: int
    size: int
    faults: tuple[str, ...]
    lost_per_mille: int
    profile: str
    sim: Swim
    done: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.size} members, {self.profile}, "
            f"{self.lost_per_mille} of 1000 lost, {', '.join(self.faults)}"
        )


def draw(seed: int, size_max: int = 24) -> Life:
    """Draw the options of a life."""
    prng = Prng(seed)
    size = prng.between(2, size_max)
    faults = tuple(one for one in FAULTS if prng.chance(1, 2)) or ("kill",)
    lost = prng.choice([0, 0, 10, 50])
    if prng.chance(1, 4):
        faults, lost = ("freeze", "metadata"), 0
    profile = prng.choice(["lan", "lan", "fast", "wan"])
    if profile != "lan" and set(faults) <= SHORT:
        profile = "lan"
    settings: SwimSettings = getattr(SwimSettings, profile)()
    high = prng.choice([MS, 5 * MS, 40 * MS])
    net = Net(high_ns=high, lost_per_mille=lost, icmp=prng.chance(1, 2))
    return Life(seed, size, faults, lost, profile, Swim(size, settings, seed=seed, net=net))


class Story:
    """Carries out one life."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.sim = life.sim
        self.prng = Prng(life.seed).fork()
        self.out: set[int] = set()
        self.busy: dict[int, int] = {}

    def run(self) -> Life:
        sim, life = self.sim, self.life
        wan = life.profile == "wan"
        sim.start_all()
        sim.run((60 if wan else 30) * SECOND)
        sim.check_agreed()
        end = sim.now_ns + 40 * SECOND
        while sim.now_ns < end:
            self._fault(self.prng.choice(life.faults))
            sim.run(self.prng.between(100, 4000) * MS)
        sim.heal()
        sim.net.lost_per_mille = min(sim.net.lost_per_mille, 10)
        for index in sorted(self.out):
            if self.prng.chance(1, 2):
                self._start(index)
        sim.run((300 if wan else 120) * SECOND)
        sim.check_agreed()
        if set(life.faults) <= SHORT and sim.events(MemberDead):
            raise BrokenError(f"removed by mistake: {sim.events(MemberDead)[0]}")
        if sim.events(NameConflict):
            raise BrokenError(f"a conflict without any: {sim.events(NameConflict)[0]}")
        return life

    def _fault(self, fault: str) -> None:
        sim, prng = self.sim, self.prng
        index = prng.below(self.life.size)
        free = index not in self.out and self.busy.get(index, 0) <= sim.now_ns
        live = self.life.size - len(self.out)
        self.life.done[fault] += 1
        match fault:
            case "kill" | "power" | "leave" if free and live > 1:
                self.out.add(index)
                if fault == "leave":
                    sim.tell(index, Leave())
                    sim.run(3 * SECOND)
                else:
                    sim.kill(index, refuses=fault == "kill")
            case "restart" if free or index in self.out:
                sim.kill(index)
                self._start(index)
            case "freeze" if free:
                length = prng.between(200, 2900) * MS
                self.busy[index] = sim.now_ns + length + 6 * SECOND
                sim.freeze(index, length)
            case "slow" if free:
                length = prng.between(1, 15) * SECOND
                self.busy[index] = sim.now_ns + length + SECOND
                sim.slow_down(index, length)
            case "halves":
                sim.partition({one: prng.below(2) for one in range(self.life.size)})
                sim.at(sim.now_ns + prng.between(1, 15) * SECOND, sim.heal)
            case "alone":
                sim.partition({index: 1})
                sim.at(sim.now_ns + prng.between(1, 15) * SECOND, sim.heal)
            case "oneway":
                other = sim.machines[prng.below(self.life.size)].address
                sim.net.cut.add((sim.machines[index].address, other))
            case "metadata" if free:
                sim.tell(index, SetMetadata({"at": str(sim.now_ns)}))

    def _start(self, index: int) -> None:
        others = [one for one in range(self.life.size) if one not in self.out and one != index]
        self.out.discard(index)
        self.sim.start(index, others[:3])


def live(seed: int, size_max: int = 24) -> Life:
    """Run one seed; a failure names it and its options."""
    life = draw(seed, size_max)
    try:
        return Story(life).run()
    except Exception as error:
        error.add_note(str(life))
        error.add_note(f"again: python -m tests.support.swim_campaign --first {seed} --seeds 1")
        raise


def main(arguments: list[str] | None = None) -> int:
    """Run many seeds, and stop at the first that fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=100)
    chosen = parser.parse_args(arguments)
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        live(seed)
    print(f"{chosen.seeds} lives from seed {chosen.first}: all agreed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
