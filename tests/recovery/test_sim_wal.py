"""The log on a simulated disk: the power goes at any instant, also in the middle of a call."""

import asyncio
from dataclasses import dataclass, field

import pytest

from outlast.kernel import Prng, current_world
from outlast.log.wal import Run, Wal, WalIdentity, WalSettings
from outlast.sim import Lab, Options, Outcome, run_case

ME = WalIdentity("c", "l", "n1.1")
SETTINGS = WalSettings(
    segment_bytes=64 << 10, first_segment_bytes=64 << 10, hard_state_reserve_bytes=1024,
    disk_reserve_bytes=0, idle=0.001,
)  # fmt: skip
ROUNDS = 12


def payload(index: int) -> bytes:
    return b"%d" % index * 300


@dataclass
class Writer:
    """A program that appends and notes what was acknowledged; ``trouble`` is what it lost."""

    acked: int = 0
    opened: int = 0
    torn: int = 0
    trouble: list[str] = field(default_factory=list)

    async def main(self) -> None:
        world = current_world()
        wal = await Wal.open(world, "/data/wal", ME, SETTINGS)
        self.opened += 1
        last = wal.last[0]
        found = [entry[3] for entry in wal.entries(1, last, 1 << 30)]
        if last < self.acked:
            self.trouble.append(f"opening {self.opened}: {self.acked} acknowledged, {last} there")
        if found != [payload(index) for index in range(1, last + 1)]:
            self.trouble.append(f"opening {self.opened}: entries differ")
        if world.storage.exists("/data/wal/quarantine"):
            self.torn = len(world.storage.listdir("/data/wal/quarantine"))
        while True:
            last += 1
            await wal.append([Run(0, last, 1, [payload(last)])])
            self.acked = last


def run_seed(seed: int, *, noop: bool = False) -> tuple[Writer, Outcome]:
    """Cut the power of a writer again and again."""
    writer = Writer()

    async def cut_again_and_again(lab: Lab) -> None:
        prng = Prng(seed)
        host = lab.host("writer", writer.main)
        host.disk.sync_is_noop = noop
        for number in range(ROUNDS):
            await asyncio.sleep(prng.between(1, 300_000) / 1e6)
            if number % 3 == 2:
                lab.crash("writer")
            else:
                lab.power_cut("writer")
            lab.restart("writer")
        await asyncio.sleep(1)

    outcome = run_case(cut_again_and_again, seed, Options(files=False))
    return writer, outcome


def test_nothing_acknowledged_is_lost_whenever_the_power_goes() -> None:
    torn = 0
    for seed in range(12):
        writer, outcome = run_seed(seed)
        assert outcome.error is None, (seed, outcome.error)
        assert not writer.trouble, (seed, writer.trouble)
        assert not outcome.problems, (seed, outcome.problems)
        assert writer.opened > 2
        assert writer.acked > 20
        torn += writer.torn
    assert torn > 0, "some writes must have been torn"


def test_a_seed_gives_the_same_run_again() -> None:
    assert run_seed(3)[1].digest == run_seed(3)[1].digest


def test_a_disk_whose_syncs_do_nothing_is_noticed() -> None:
    noticed = 0
    for seed in range(4):
        writer, outcome = run_seed(seed, noop=True)
        noticed += bool(writer.trouble or outcome.problems or outcome.error)
    assert noticed == 4


pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
