"""The log on LossyStorage: power cuts in this process, and SIGKILL of another."""

import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from outlast.host import HostStorage, LossyStorage, make_world
from outlast.kernel import CorruptionError, Prng
from outlast.log.wal import Run, Wal, WalIdentity, WalSettings
from tests.recovery.wal_disk import memory_world

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
ME = WalIdentity("c", "l", "n1.1")
SETTINGS = WalSettings(
    segment_bytes=64 << 10, first_segment_bytes=64 << 10, hard_state_reserve_bytes=1024,
    disk_reserve_bytes=0, idle=0.001,
)  # fmt: skip


class CutAtFsync:
    """Cuts the power at the first fsync of a frame once it is armed."""

    def __init__(self, disk: LossyStorage, prng: Prng) -> None:
        self.disk, self.prng, self.armed = disk, prng, False

    def fault_point(self, name: str) -> None:
        if self.armed and name == "wal.before_fsync":
            self.armed = False
            self.disk.power_cut(self.prng)


def payload(index: int) -> bytes:
    return b"%d" % index * 300


async def one_round(directory: str, disk: LossyStorage, number: int, acked: int) -> int:
    """Open, compare, append, cut the power; return the last index acknowledged."""
    prng = Prng(number)
    power = CutAtFsync(disk, prng)
    wal = await Wal.open(
        replace(memory_world(disk, number), faults=power), directory, ME, SETTINGS
    )
    last = wal.last[0]
    assert last >= acked, f"round {number}: acknowledged entries are missing"
    found = wal.entries(1, last, 1 << 30)
    assert [entry[3] for entry in found] == [payload(index) for index in range(1, last + 1)]
    for index in range(last + 1, last + 1 + prng.between(1, 12)):
        future = wal.append([Run(0, index, 1, [payload(index)])])
        if prng.chance(2, 3):
            await future
            acked = index
    power.armed = True
    if prng.chance(3, 4):
        wal.append([Run(0, wal.last[0] + 1, 1, [payload(wal.last[0] + 1)])])
    await wal.close()
    if power.armed:
        disk.power_cut(prng)
    return acked


async def cut_again_and_again(directory: str, rounds: int, *, noop: bool = False) -> int:
    """Cut the power after drawn appends, round by round; return how many tails were torn."""
    disk, acked = LossyStorage(HostStorage(), Prng(1), sync_is_noop=noop), 0
    for number in range(rounds):
        acked = await one_round(directory, disk, number, acked)
    folder = Path(directory) / "quarantine"
    return len(list(folder.iterdir())) if folder.exists() else 0


@pytest.mark.slow
async def test_power_cuts_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    assert await cut_again_and_again(str(tmp_path), 40) > 5, "some writes must have been torn"


async def test_a_storage_whose_fsync_does_nothing_is_noticed(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, CorruptionError), match="missing"):
        await cut_again_and_again(str(tmp_path), 40, noop=True)


_WRITER = """
import asyncio, sys
from outlast.host import HostStorage, LossyStorage, make_world
from outlast.log.wal import Run, Wal, WalIdentity, WalSettings

async def main():
    storage = LossyStorage(HostStorage(), sync_is_noop=sys.argv[2] == "noop")
    settings = WalSettings(segment_bytes=1 << 20, first_segment_bytes=256 << 10)
    wal = await Wal.open(make_world(storage=storage), sys.argv[1],
                         WalIdentity("c", "l", "n1.1"), settings)
    index = wal.last[0]
    while True:
        first = index + 1
        futures = []
        for _ in range(20):
            index += 1
            futures.append(wal.append([Run(0, index, 1, [b"%d" % index * 300])]))
        await asyncio.gather(*futures)
        print(index, flush=True)

asyncio.run(main())
"""


def write_and_kill(directory: Path, lines: int, mode: str = "") -> int:
    """Run a writer, kill it after so many acknowledgements; return the last one printed."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(directory), mode], stdout=subprocess.PIPE
    ) as victim:
        assert victim.stdout is not None
        acknowledged = 0
        for _ in range(lines):
            acknowledged = int(victim.stdout.readline())
        victim.send_signal(signal.SIGKILL)
        rest = victim.stdout.read().split()
        victim.wait()
    whole = [int(number) for number in rest if len(number) >= len(str(acknowledged))]
    return max([acknowledged, *whole])


@pytest.mark.process
@pytest.mark.slow
async def test_sigkill_on_lossy_storage_loses_nothing_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    draw = random.Random(7)
    settings = WalSettings(segment_bytes=1 << 20, first_segment_bytes=256 << 10)
    for _ in range(4):
        acknowledged = write_and_kill(tmp_path, draw.randint(1, 40))
        wal = await Wal.open(make_world(), str(tmp_path), ME, settings)
        assert wal.last[0] >= acknowledged
        found = wal.entries(1, wal.last[0], 1 << 30)
        assert [entry[3] for entry in found] == [
            b"%d" % index * 300 for index in range(1, wal.last[0] + 1)
        ]
        await wal.close()


@pytest.mark.process
async def test_sigkill_notices_an_fsync_that_does_nothing(tmp_path: Path) -> None:
    assert write_and_kill(tmp_path, 5, "noop") > 0
    wal = await Wal.open(make_world(), str(tmp_path), ME, SETTINGS)
    assert wal.last[0] == 0
    await wal.close()
