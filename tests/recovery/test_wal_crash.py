"""Every crash state of a short workload recovers to what was acknowledged, or a later state.

The workload's calls to the disk are recorded; a crash is placed after each; what was not
synced by then is dropped, kept, or kept in part. The log is opened on each such disk, and
again on crash states of that opening. Bugs planted into disk or log must be noticed.
"""

import asyncio
import errno
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from outlast.kernel import CorruptionError, LogFailedError, OutlastError, Prng
from outlast.log.wal import Run, RunKind, Wal, WalIdentity, WalSettings
from outlast.log.wal.core.view import View
from outlast.log.wal.writer import SegmentWriter
from tests.recovery.wal_disk import MemoryDisk, MemoryFile, Step, crash, memory_world

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
ME = WalIdentity("c", "l", "n1.1")
DIR = "/data/log"
SETTINGS = WalSettings(
    segment_bytes=64 << 10, first_segment_bytes=64 << 10, hard_state_reserve_bytes=1024,
    disk_reserve_bytes=0, idle=0.0005, cache_bytes_max=4096,
)  # fmt: skip


@dataclass(frozen=True)
class State:
    """What the log must say: entries alive by index, hard state, highest trim permitted."""

    entries: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    last: int = 0
    hard: tuple[int, str | None] = (0, None)
    trimmed: int = 0
    reset: int = 0


@dataclass
class Story:
    base: MemoryDisk
    disk: MemoryDisk
    states: list[State]

    def acknowledged(self, steps: list[Step]) -> int:
        return max((step.note for step in steps if step.what == "ack"), default=0)


def grow(state: State, prng: Prng, term: int) -> tuple[list[Run], State]:
    """Return one drawn append and the state after it."""
    draw = prng.below(20)
    if draw < 2:
        hard = (term, f"n{prng.below(3)}")
        return [Run(RunKind.HARD_STATE, 0, term, [hard[1].encode()])], replace(state, hard=hard)
    runs: list[Run] = []
    entries, last = dict(state.entries), state.last
    low = max(state.trimmed, state.reset) + 1
    if draw < 4 and last > low:
        first = prng.between(max(low, last - 5), last)
        runs.append(Run(RunKind.TRUNCATE, first, 0, []))
        entries = {index: entry for index, entry in entries.items() if index < first}
        last = first - 1
    elif draw == 4:
        last += prng.between(1, 9)
        runs.append(Run(RunKind.RESET, last, term, []))
        entries, state = {}, replace(state, reset=last)
    payloads = [prng.bytes(prng.between(1, 3000)) for _ in range(prng.between(1, 3))]
    runs.append(Run(RunKind.ENTRIES, last + 1, term, payloads))
    for payload in payloads:
        last += 1
        entries[last] = (term, payload)
    return runs, replace(state, entries=entries, last=last)


async def tell(seed: int, disk: MemoryDisk, appends: int = 50) -> Story:
    """Run a drawn workload on ``disk`` and return what happened."""
    prng = Prng(seed)
    story = Story(disk.copy(), disk, [State()])
    wal = await Wal.open(memory_world(disk, seed), DIR, ME, SETTINGS)
    waiting: list[asyncio.Future[None]] = []
    for number in range(1, appends + 1):
        runs, state = grow(story.states[-1], prng, 1 + number // 8)
        if prng.chance(1, 12) and wal.durable[0] > 3:
            before = prng.between(1, min(wal.durable[0], state.last))
            if wal.trim(before) > 1:
                state = replace(state, trimmed=max(state.trimmed, before - 1))
        story.states.append(state)
        future = wal.append(runs)
        future.add_done_callback(lambda done, n=number: None if done.exception() else disk.ack(n))
        waiting.append(future)
        if prng.chance(1, 3):
            await asyncio.gather(*waiting, return_exceptions=True)
        if prng.chance(1, 10):
            await asyncio.sleep(0.002)
    await asyncio.gather(*waiting, return_exceptions=True)
    await wal.close()
    return story


def points(story: Story, prng: Prng, every: int) -> Iterator[tuple[int, str]]:
    for count in range(0, len(story.disk.steps) + 1):
        yield count, ("nothing", "everything", "random")[count % 3]
        if prng.below(every) == 0:
            yield count, "random"


async def judge(disk: MemoryDisk, story: Story, acknowledged: int, where: str) -> None:
    """Open the log on a crashed disk and compare it with the states that are allowed."""
    wal = await Wal.open(memory_world(disk), DIR, ME, SETTINGS)
    base, last = wal.base[0], wal.last[0]
    found = {
        index: (term, payload) for index, term, _, payload in wal.entries(base + 1, last, 1 << 40)
    }
    assert list(found) == list(range(base + 1, last + 1)), f"{where}: a hole"
    for state in story.states[acknowledged:]:
        if state.last != last or state.hard != wal.hard_state:
            continue
        alive = {index: entry for index, entry in state.entries.items() if index > base}
        kept = base <= max(story.states[-1].trimmed, state.reset)
        if kept and alive == found:
            break
    else:
        raise AssertionError(
            f"{where}: last {last}, base {base}, hard state {wal.hard_state} is no state"
            f" from {acknowledged} on"
        )
    await wal.append([Run(RunKind.ENTRIES, last + 1, 99, [b"after"])])
    await wal.close()


async def enumerate_crashes(seed: int, disk: MemoryDisk | None = None, every: int = 3) -> int:
    """Judge all crash states of one story; return how many there were."""
    story = await tell(seed, disk or MemoryDisk())
    prng, tried = Prng(seed), 0
    for count, keep in points(story, prng, every):
        steps = story.disk.steps[:count]
        crashed = crash(story.base, steps, prng, keep=keep, folders=story.disk.folders)
        again = crashed.copy()
        acknowledged = story.acknowledged(steps)
        where = f"seed {seed}, crash after step {count}, keeping {keep}"
        await judge(crashed, story, acknowledged, where)
        tried += 1
        if prng.below(8) == 0:
            cut = crashed.steps[: prng.below(len(crashed.steps) + 1)]
            if not any(step.data.endswith(b"after") or step.what == "ack" for step in cut):
                twice = crash(again, cut, prng, keep="random", folders=crashed.folders)
                await judge_reopened(twice, story, acknowledged, f"{where}, again while opening")
    return tried


async def judge_reopened(disk: MemoryDisk, story: Story, acknowledged: int, where: str) -> None:
    """As ``judge``; the entry that ``judge`` itself appended may be there as well."""
    wal = await Wal.open(memory_world(disk.copy()), DIR, ME, SETTINGS)
    extra = wal.last[1] == 99
    last = wal.last[0]
    await wal.close()
    if extra:
        wal = await Wal.open(memory_world(disk), DIR, ME, SETTINGS)
        await wal.append([Run(RunKind.TRUNCATE, last, 0, [])])
        await wal.close()
    await judge(disk, story, acknowledged, where)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
async def test_every_crash_state_recovers_what_was_acknowledged(seed: int) -> None:
    assert await enumerate_crashes(seed) > 150


# --- planted bugs: each must be noticed by the same enumeration --------------------------------


async def noticed(seeds: range, **flags: bool) -> None:
    async def judge_all() -> None:
        for seed in seeds:
            disk = MemoryDisk()
            for name, value in flags.items():
                setattr(disk, name, value)
            await enumerate_crashes(seed, disk, every=1)

    with pytest.raises((AssertionError, OutlastError, FileNotFoundError)):
        await judge_all()


async def test_a_forgotten_fsync_is_noticed() -> None:
    await noticed(range(1, 4), skip_fsync=True)


async def test_a_forgotten_directory_fsync_is_noticed() -> None:
    await noticed(range(1, 4), skip_fsync_dir=True)


async def test_hard_state_forgotten_at_a_segment_change_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch = SegmentWriter.switch

    def forgetful(self: SegmentWriter, spare: Any, state: View, identity: WalIdentity) -> None:
        blank = state.copy()
        blank.hard = (0, None)
        switch(self, spare, blank, identity)

    monkeypatch.setattr(SegmentWriter, "switch", forgetful)
    await noticed(range(1, 6))


class FailsOnce:
    """The n-th fsync of a segment fails, the next ones succeed."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, call: str, file: MemoryFile) -> None:
        if call == "fsync" and file.size() == SETTINGS.segment_bytes:
            self.left -= 1
            if self.left == 0:
                raise OSError(errno.EIO, "the disk failed", file.path)


@pytest.mark.parametrize("at", [5, 9, 14])
async def test_after_a_failed_fsync_nothing_is_acknowledged_that_is_lost(at: int) -> None:
    disk = MemoryDisk()
    disk.faults = FailsOnce(at)
    assert await enumerate_crashes(at, disk) > 10


async def test_an_fsync_repeated_after_it_failed_is_noticed() -> None:
    async def judge_all() -> None:
        for at in range(5, 15):
            disk = MemoryDisk()
            disk.retry_fsync = True
            disk.faults = FailsOnce(at)
            await enumerate_crashes(at, disk, every=1)

    with pytest.raises((AssertionError, CorruptionError)):
        await judge_all()


async def test_the_failed_log_says_so() -> None:
    disk = MemoryDisk()
    wal = await Wal.open(memory_world(disk), DIR, ME, SETTINGS)
    disk.faults = FailsOnce(1)
    with pytest.raises(LogFailedError):
        await wal.append([Run(RunKind.ENTRIES, 1, 1, [b"x"])])
    await wal.close()


async def test_a_torn_tail_survives_every_crash_while_it_is_being_cut() -> None:
    disk = MemoryDisk()
    wal = await Wal.open(memory_world(disk), DIR, ME, SETTINGS)
    for index in (1, 2, 3):
        await wal.append([Run(RunKind.ENTRIES, index, 1, [b"x" * 2000])])
    whole = disk.copy()
    await wal.close()
    name = max(name for name in whole.names if name.endswith(".seg"))
    data = whole.names[name].data
    del data[-(-(4096 + 3 * 2560) // 512) * 512 :]
    data.extend(b"torn" * 600 + bytes(SETTINGS.segment_bytes - len(data) - 2400))
    opened = whole.copy()
    await (await Wal.open(memory_world(opened), DIR, ME, SETTINGS)).close()
    cut = 0
    for count in range(len(opened.steps) + 1):
        for number, keep in enumerate(("nothing", "everything", "random", "random", "random")):
            crashed = crash(
                whole, opened.steps[:count], Prng(number), keep=keep, folders=opened.folders
            )
            wal = await Wal.open(memory_world(crashed), DIR, ME, SETTINGS)
            assert wal.last == (3, 1), f"crash after step {count} of the open, keeping {keep}"
            cut += any("quarantine/" in path for path in crashed.names)
            await wal.close()
    assert cut > 20
