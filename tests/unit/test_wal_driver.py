"""The physical log as an engine sees it: appends, reads, truncation, refusals, failures."""

import asyncio
import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outlast.host import make_world
from outlast.kernel import (
    ConfigError,
    CorruptionError,
    DataError,
    DiskFullError,
    InvariantError,
    LogFailedError,
    OverloadedError,
    RejectedError,
    TrimmedError,
)
from outlast.log.wal import (
    Run,
    RunKind,
    Status,
    TornTailCut,
    Wal,
    WalFailed,
    WalFull,
    WalIdentity,
    WalRoomAgain,
    WalSettings,
    check,
)
from outlast.log.wal.core import segment
from tests.recovery.wal_disk import MemoryDisk, MemoryFile, memory_world

ME = WalIdentity("cluster-a", "main", "n1.1")
SMALL = WalSettings(
    segment_bytes=64 << 10,
    first_segment_bytes=64 << 10,
    hard_state_reserve_bytes=2048,
    disk_reserve_bytes=0,
    full_retry=0.001,
    idle=30.0,
)
DIR = "/data/log"
pytestmark = pytest.mark.anyio


def entries(first: int, *payloads: bytes, term: int = 1, kinds: bytes = b"") -> Run:
    return Run(RunKind.ENTRIES, first, term, list(payloads), kinds)


def hard_state(term: int, vote: str = "") -> Run:
    return Run(RunKind.HARD_STATE, 0, term, [vote.encode()])


def truncate(first: int) -> Run:
    return Run(RunKind.TRUNCATE, first, 0, [])


def reset(index: int, term: int) -> Run:
    return Run(RunKind.RESET, index, term, [])


async def open_wal(disk: Any, settings: WalSettings = SMALL, identity: WalIdentity = ME) -> Wal:
    return await Wal.open(memory_world(disk), DIR, identity, settings)


async def reopened(wal: Wal, disk: MemoryDisk, settings: WalSettings = SMALL) -> Wal:
    await wal.close()
    return await open_wal(disk.copy(), settings)


async def test_a_new_log_is_empty_and_says_that_it_was_created() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    assert (wal.created, wal.last, wal.base, wal.hard_state) == (True, (0, 0), (0, 0), (0, None))
    again = await reopened(wal, disk)
    assert (again.created, again.last, again.hard_state) == (False, (0, 0), (0, None))
    await again.close()


async def test_entries_and_hard_state_are_there_after_reopening() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    await wal.append([hard_state(3, "n2.1"), entries(1, b"a", b"b", term=3, kinds=b"\1\0")])
    again = await reopened(wal, disk)
    assert again.hard_state == (3, "n2.1")
    assert again.last == (2, 3)
    assert again.entries(1, 2, 99) == [(1, 3, 1, b"a"), (2, 3, 0, b"b")]
    await again.close()


async def test_the_view_changes_at_once_and_the_future_resolves_after_the_fsync() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    syncs: list[bool] = []
    future = wal.append([entries(1, b"a")])
    disk.faults = lambda call, _: syncs.append(future.done()) if call == "fsync" else None
    assert wal.last == (1, 1)
    assert wal.entries(1, 1, 99) == [(1, 1, 0, b"a")]
    assert wal.durable == (0, 0)
    await future
    assert syncs == [False]
    assert wal.durable == (1, 1)
    await wal.close()


async def test_what_queues_during_an_fsync_becomes_one_frame() -> None:
    wal = await open_wal(MemoryDisk())
    await wal.append([entries(1, b"a")])
    before = wal.sync_count
    await asyncio.gather(*(wal.append([entries(n, b"x" * n)]) for n in range(2, 102)))
    assert wal.sync_count == before + 1
    assert [entry[0] for entry in wal.entries(1, 101, 1 << 20)] == list(range(1, 102))
    await wal.close()


async def test_frames_are_bounded_and_appends_keep_their_order() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk, replace(SMALL, frame_bytes_max=500))
    done: list[int] = []
    for n in range(1, 31):
        wal.append([entries(n, b"x" * 100)]).add_done_callback(lambda _, n=n: done.append(n))
    await wal.append([entries(31, b"last")])
    assert done == list(range(1, 31))
    assert wal.sync_count > 8
    again = await reopened(wal, disk)
    assert again.last == (31, 1)
    await again.close()


async def test_truncation_and_rewriting_are_resolved_on_reading_and_reopening() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk, replace(SMALL, cache_bytes_max=1))
    await wal.append([entries(1, b"a", b"b", b"c", b"d", term=1)])
    await wal.append([truncate(3), entries(3, b"C", term=2)])
    expected = [(1, 1, 0, b"a"), (2, 1, 0, b"b"), (3, 2, 0, b"C")]
    assert wal.entries(1, 9, 99) == expected
    assert [wal.term_at(n) for n in range(5)] == [0, 1, 1, 2, None]
    again = await reopened(wal, disk)
    assert again.entries(1, 9, 99) == expected
    assert again.last == (3, 2)
    await again.close()


async def test_a_reset_begins_the_log_anew_after_its_index() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    await wal.append([hard_state(5), entries(1, b"a", b"b")])
    await wal.append([reset(100, 7), entries(101, b"x", term=8)])
    again = await reopened(wal, disk)
    for log in (wal, again):
        assert log.base == (100, 7)
        assert log.entries(101, 101, 9) == [(101, 8, 0, b"x")]
        assert log.term_at(100) == 7
        with pytest.raises(TrimmedError) as caught:
            log.entries(2, 2, 9)
        assert caught.value.first == 101
    assert again.hard_state == (5, None)
    await again.close()


async def test_gaps_and_overwriting_are_refused_as_our_bug() -> None:
    wal = await open_wal(MemoryDisk())
    await wal.append([entries(1, b"a")])
    for first in (1, 3):
        with pytest.raises(InvariantError, match="do not continue"):
            wal.append([entries(first, b"x")])
    await wal.close()


async def test_reading_stops_at_bytes_max_and_gives_at_least_one_entry() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    await wal.append([entries(1, b"x" * 10, b"y" * 10, b"z" * 10)])
    await wal.append([entries(4, b"w" * 10)])
    again = await reopened(wal, disk)
    for log in (wal, again):
        assert [entry[0] for entry in log.entries(1, 4, 0)] == [1]
        assert [entry[0] for entry in log.entries(1, 4, 20)] == [1, 2]
        assert [entry[0] for entry in log.entries(2, 4, 99)] == [2, 3, 4]
        assert log.entries(5, 9, 99) == []
    await again.close()


async def test_the_log_rolls_over_segments_and_reads_old_entries_from_disk() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk, replace(SMALL, cache_bytes_max=4096))
    for n in range(1, 301):
        await wal.append([entries(n, n.to_bytes(2, "big") * 500, term=1 + n // 100)])
    assert len([name for name in disk.names if name.endswith(".seg")]) > 4
    again = await reopened(wal, disk)
    for log in (wal, again):
        for n in (1, 99, 100, 250, 300):
            assert log.entries(n, n, 1) == [(n, 1 + n // 100, 0, n.to_bytes(2, "big") * 500)]
    await again.close()


async def test_trim_drops_whole_segments_and_keeps_hard_state_and_base() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    await wal.append([hard_state(4, "n3.1")])
    for n in range(1, 301):
        await wal.append([entries(n, b"x" * 1000, term=1 + n // 100)])
    count = len(disk.names)
    first = wal.trim(250)
    assert 150 < first <= 250
    assert wal.base == (first - 1, 1 + (first - 1) // 100)
    again = await reopened(wal, disk)
    assert len(disk.names) < count
    for log in (wal, again):
        assert log.hard_state == (4, "n3.1")
        assert log.base == (first - 1, 1 + (first - 1) // 100)
        assert log.last == (300, 4)
        assert len(log.entries(first, 300, 1 << 30)) == 301 - first
        with pytest.raises(TrimmedError):
            log.entries(first - 1, 300, 1)
    assert (await check(memory_world(disk), DIR)).status is Status.CLEAN
    await again.close()


async def test_a_truncation_into_a_trimmed_segment_moves_the_base_down_on_reopening() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    for n in range(1, 101):
        await wal.append([entries(n, b"x" * 1000, term=n)])
    await wal.append([truncate(61)])
    for n in range(61, 64):
        await wal.append([entries(n, b"y" * 20_000, term=200)])
    first = wal.trim(62)
    assert first == 61
    again = await reopened(wal, disk)
    assert again.base == wal.base == (60, 60)
    assert [entry[1] for entry in again.entries(61, 63, 1 << 20)] == [200] * 3
    await again.close()


async def test_a_full_disk_refuses_definitely_takes_hard_state_and_recovers() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    seen: list[object] = []
    wal._world.events.subscribe(seen.append)  # type: ignore[attr-defined]
    disk.capacity = disk.used
    acknowledged = 0

    async def fill() -> None:
        nonlocal acknowledged
        for n in range(1, 1000):
            await wal.append([entries(n, b"x" * 1000)])
            acknowledged = n

    with pytest.raises(DiskFullError) as caught:
        await fill()
    assert 10 < acknowledged < 70
    assert (caught.value.happened, caught.value.retry_after) == ("no", SMALL.full_retry)
    assert wal.full
    assert wal.last == (acknowledged, 1)
    assert wal.entries(acknowledged, acknowledged, 9) == [(acknowledged, 1, 0, b"x" * 1000)]
    with pytest.raises(DiskFullError):
        await wal.append([hard_state(9), entries(acknowledged + 1, b"x" * 1000)])
    await wal.append([hard_state(7, "n2.1")])
    twin = await open_wal(disk.copy())
    assert twin.hard_state == (7, "n2.1")
    assert twin.last == (acknowledged, 1)
    await twin.close()

    room = asyncio.Event()
    wal._world.events.subscribe(lambda _: room.set())  # type: ignore[attr-defined]
    disk.capacity = None
    await room.wait()
    await wal.append([entries(acknowledged + 1, b"back")])
    assert [type(event) for event in seen] == [WalFull, WalRoomAgain]
    again = await reopened(wal, disk)
    assert again.last == (acknowledged + 1, 1)
    assert again.hard_state == (7, "n2.1")
    await again.close()


async def test_what_waits_when_space_runs_out_is_refused_and_the_view_goes_back() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    await wal.append([entries(1, b"a", b"b", b"c")])
    disk.capacity = disk.used
    kept = wal.append([truncate(3), entries(3, b"C", term=2)])
    await kept
    batch = [entries(n, b"x" * 30_000, term=2) for n in (4, 5, 6)]
    results = await asyncio.gather(*(wal.append([run]) for run in batch), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), DiskFullError, DiskFullError]
    assert wal.last == (4, 2)
    assert wal.entries(1, 3, 99) == [(1, 1, 0, b"a"), (2, 1, 0, b"b"), (3, 2, 0, b"C")]
    await wal.append([entries(5, b"fits", term=2)])
    again = await reopened(wal, disk)
    assert again.last == (5, 2)
    await again.close()


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
async def test_a_failed_write_or_fsync_fails_the_log_for_good_and_is_not_repeated(
    call: str,
) -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    seen: list[object] = []
    wal._world.events.subscribe(seen.append)  # type: ignore[attr-defined]
    await wal.append([entries(1, b"a")])
    calls: list[str] = []

    def fail(what: str, file: MemoryFile) -> None:
        calls.append(what)
        if what == call:
            raise OSError(errno.EIO, "bad sector", file.path)

    disk.faults = fail
    flight = wal.append([entries(2, b"b")])
    queued = wal.append([entries(3, b"c")])
    for future in (flight, queued):
        with pytest.raises(LogFailedError, match="bad sector") as caught:
            await future
        assert caught.value.happened == "maybe"
    assert calls == (["pwrite"] if call == "pwrite" else ["pwrite", "fsync"])
    with pytest.raises(LogFailedError):
        await wal.append([entries(4, b"d")])
    assert isinstance(wal.failed, OSError)
    assert [type(event) for event in seen] == [WalFailed]
    disk.faults = lambda *_: None
    await wal.close()
    assert calls.count(call) == 1


async def test_a_second_opener_is_told_the_directory(tmp_path: Path) -> None:
    world = make_world()
    wal = await Wal.open(world, str(tmp_path), ME, SMALL)
    with pytest.raises(DataError, match=str(tmp_path)):
        await Wal.open(world, str(tmp_path), ME, SMALL)
    await wal.close()
    await (await Wal.open(world, str(tmp_path), ME, SMALL)).close()


@pytest.mark.parametrize("field", ["cluster", "log", "replica"])
async def test_the_log_of_another_identity_is_refused_naming_both(field: str) -> None:
    disk = MemoryDisk()
    await (await open_wal(disk)).close()
    other = replace(ME, **{field: "zebra"})
    with pytest.raises(DataError, match=f"{field} '{getattr(ME, field)}'.*{field} 'zebra'"):
        await open_wal(disk, identity=other)
    await (await open_wal(disk)).close()


async def test_a_newer_format_is_refused_naming_both_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = MemoryDisk()
    monkeypatch.setattr(segment, "FORMAT", 9)
    await (await open_wal(disk)).close()
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"format 9.*format 1"):
        await open_wal(disk)
    with pytest.raises(DataError, match=r"format 9.*format 1"):
        await check(memory_world(disk), DIR)


async def test_bounds_are_refused_definitely() -> None:
    wal = await open_wal(MemoryDisk(), replace(SMALL, queue_bytes_max=3000))
    first = wal.append([entries(1, b"x" * 2000)])
    with pytest.raises(OverloadedError):
        await wal.append([entries(2, b"x" * 2000)])
    with pytest.raises(ConfigError, match="segment_bytes"):
        await wal.append([entries(2, b"x" * 100_000)])
    await first
    assert wal.last == (1, 1)
    await wal.close()
    with pytest.raises(RejectedError, match="closed"):
        await wal.append([entries(2, b"x")])


async def test_a_mark_protects_the_last_frame_once_the_log_is_idle() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk, replace(SMALL, idle=0.001))
    await wal.append([entries(1, b"a" * 2000)])
    marked = asyncio.Event()
    disk.faults = lambda call, _: marked.set() if call == "fsync" else None
    await marked.wait()
    stopped = disk.copy()
    name = max(name for name in stopped.names if name.endswith(".seg"))
    stopped.names[name].data[segment.SEGMENT_HEADER_BYTES + 700] ^= 1
    with pytest.raises(CorruptionError) as caught:
        await open_wal(stopped)
    assert (caught.value.first, caught.value.last) == (1, 1)
    await wal.close()


async def test_a_torn_tail_is_moved_into_quarantine_and_reported() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    await wal.append([entries(1, b"a")])
    stopped = disk.copy()
    name = max(name for name in stopped.names if name.endswith(".seg"))
    at = segment.SEGMENT_HEADER_BYTES + 512
    stopped.names[name].data[at : at + 4] = b"torn"
    assert (await check(memory_world(stopped), DIR)).status is Status.TORN
    world = memory_world(stopped)
    seen: list[object] = []
    world.events.subscribe(seen.append)  # type: ignore[attr-defined]
    again = await Wal.open(world, DIR, ME, SMALL)
    (event,) = seen
    assert isinstance(event, TornTailCut)
    assert stopped.names[event.quarantine].data == b"torn"
    assert again.last == (1, 1)
    await again.close()
    assert (await check(world, DIR)).status is Status.CLEAN
    await wal.close()


async def test_a_cold_read_of_a_rotten_frame_is_named() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk, replace(SMALL, cache_bytes_max=1))
    await wal.append([entries(1, b"a" * 600)])
    await wal.append([entries(2, b"b" * 600)])
    name = max(name for name in disk.names if name.endswith(".seg"))
    disk.names[name].data[segment.SEGMENT_HEADER_BYTES + 200] ^= 4
    with pytest.raises(CorruptionError) as caught:
        wal.entries(1, 1, 9)
    assert caught.value.file == name
    assert caught.value.offset == segment.SEGMENT_HEADER_BYTES
    assert wal.entries(2, 2, 9)[0][0] == 2
    await wal.close()


@pytest.mark.parametrize("which", ["first", "middle", "last", "all", "CURRENT"])
async def test_a_removed_segment_is_missed(which: str) -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    for n in range(1, 200):
        await wal.append([entries(n, b"x" * 1000)])
    await wal.close()
    names = sorted(name for name in disk.names if name.endswith(".seg"))
    gone = {
        "first": names[:1], "middle": names[1:2], "last": names[-1:], "all": names,
        "CURRENT": [f"{DIR}/CURRENT"],
    }[which]  # fmt: skip
    for name in gone:
        del disk.names[name]
    with pytest.raises(CorruptionError, match="CURRENT" if which == "CURRENT" else "missing"):
        await open_wal(disk)


async def test_a_stuck_write_shows_its_age() -> None:
    wal = await open_wal(MemoryDisk())
    now = wal._world.clock.monotonic_ns
    assert wal.oldest_write_ns(now()) == 0
    future = wal.append([entries(1, b"a")])
    ages: list[int] = []
    disk = wal._world.storage
    disk.faults = lambda *_: ages.append(wal.oldest_write_ns(now() + 5))  # type: ignore[attr-defined]
    await future
    assert ages
    assert all(age >= 5 for age in ages)
    assert wal.oldest_write_ns(now()) == 0
    await wal.close()


async def test_every_fault_point_is_passed_in_order() -> None:
    passed: list[str] = []

    class Points:
        def fault_point(self, name: str) -> None:
            passed.append(name)

    world = replace(memory_world(MemoryDisk()), faults=Points())
    wal = await Wal.open(world, DIR, ME, SMALL)
    passed.clear()
    await wal.append([entries(1, b"a")])
    assert passed == [
        "wal.before_write", "wal.after_write", "wal.before_fsync", "wal.after_fsync",
    ]  # fmt: skip
    await wal.close()


async def test_it_works_on_real_files_and_threads(tmp_path: Path) -> None:
    world = make_world(seed=3)
    wal = await Wal.open(world, str(tmp_path / "log"), ME)
    await asyncio.gather(*(wal.append([entries(n, bytes([n]))]) for n in range(1, 101)))
    await wal.append([hard_state(2, "n1.1")])
    await wal.close()
    again = await Wal.open(world, str(tmp_path / "log"), ME)
    assert again.hard_state == (2, "n1.1")
    assert [entry[3] for entry in again.entries(1, 100, 1 << 20)] == [
        bytes([n]) for n in range(1, 101)
    ]
    await again.close()


async def test_an_open_that_is_cancelled_lets_go_of_the_directory(tmp_path: Path) -> None:
    world = make_world()
    task = asyncio.create_task(Wal.open(world, str(tmp_path), ME, SMALL))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.offload.run(f"wal-{tmp_path}", lambda: None)
    await asyncio.sleep(0)
    await (await Wal.open(world, str(tmp_path), ME, SMALL)).close()


async def test_a_segment_that_cannot_be_read_is_named() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    await wal.append([entries(1, b"a")])
    await wal.close()

    class Unreadable(MemoryFile):
        def pread(self, size: int, offset: int) -> bytes:
            if self.path.endswith(".seg"):
                raise OSError(errno.EIO, "unreadable sector", self.path)
            return super().pread(size, offset)

    bad = disk.copy()
    bad.open = lambda path, **_: Unreadable(
        bad, MemoryDisk.open(bad, path, create=True).inode, path
    )  # type: ignore[method-assign]
    with pytest.raises(CorruptionError, match="unreadable"):
        await open_wal(bad)


async def test_without_fsync_frames_claim_nothing() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk, replace(SMALL, fsync=False))
    for n in (1, 2, 3):
        await wal.append([entries(n, b"x" * 600)])
    stopped = disk.copy()
    name = max(name for name in stopped.names if name.endswith(".seg"))
    at = segment.SEGMENT_HEADER_BYTES + 1024
    stopped.names[name].data[at : at + 1024] = bytes(1024)
    again = await open_wal(stopped)
    assert again.last == (1, 1)
    await again.close()
    await wal.close()


async def test_a_cancelled_caller_recalls_nothing() -> None:
    wal = await open_wal(MemoryDisk())
    future = wal.append([entries(1, b"a")])
    later = wal.append([entries(2, b"b")])
    future.cancel()
    await later
    assert wal.durable == (2, 1)
    await wal.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"segment_bytes": 1000},
        {"segment_bytes": (64 << 10) + 1},
        {"hard_state_reserve_bytes": 32 << 10, "segment_bytes": 64 << 10},
        {"idle": 0.0},
    ],
)
async def test_settings_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        WalSettings(**wrong)


async def test_names_too_long_for_a_sector_are_refused() -> None:
    with pytest.raises(ConfigError, match="300"):
        WalIdentity("c" * 301, "l", "r")


async def test_entries_not_yet_on_disk_stay_readable_however_small_the_cache() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk, replace(SMALL, cache_bytes_max=1))
    futures: list[asyncio.Future[None]] = []
    seen: list[list[int]] = []

    def during_fsync(call: str, _: MemoryFile) -> None:
        if call == "fsync" and len(futures) < 5:
            futures.append(wal.append([entries(len(futures) + 1, b"x" * 900)]))

    disk.faults = during_fsync
    futures.append(wal.append([entries(1, b"x" * 900)]))
    for number in range(5):
        await futures[number]
        last = wal.last[0]
        seen.append([entry[0] for entry in wal.entries(1, last, 1 << 20)])
        assert seen[-1] == list(range(1, last + 1))
    assert wal.last[0] > 3
    await wal.close()


async def test_an_open_sees_the_disk_and_not_pages_that_a_failed_fsync_left_behind() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk)
    await wal.append([entries(1, b"a")])
    stopped = disk.copy()
    await wal.close()
    calls: list[tuple[str, str]] = []

    class Watched(MemoryFile):
        def fdatasync(self) -> None:
            calls.append((self.path, "fsync"))
            super().fdatasync()

        fsync = fdatasync

        def drop_cache(self) -> None:
            calls.append((self.path, "drop"))

        def pread(self, size: int, offset: int) -> bytes:
            calls.append((self.path, "read"))
            return super().pread(size, offset)

    def watch(path: str, *, create: bool = False, write: bool = True) -> MemoryFile:
        return Watched(stopped, MemoryDisk.open(stopped, path, create=create).inode, path)

    stopped.open = watch  # type: ignore[method-assign]
    newest = max(name for name in stopped.names if name.endswith(".seg"))
    await (await open_wal(stopped)).close()
    for path in (newest, f"{DIR}/CURRENT"):
        mine = [call for name, call in calls if name == path]
        assert mine[:3] == ["fsync", "drop", "read"]


async def test_a_rewrite_in_the_queue_is_readable_while_what_it_replaces_is_written() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk, replace(SMALL, cache_bytes_max=1))
    await wal.append([entries(1, b"a", b"b", b"c")])
    queued: list[asyncio.Future[None]] = []

    def during_fsync(call: str, _: MemoryFile) -> None:
        if call == "fsync" and not queued:
            queued.append(wal.append([truncate(2), entries(2, b"B", term=2)]))

    disk.faults = during_fsync
    await wal.append([entries(4, b"d")])
    assert wal.entries(1, 9, 99) == [(1, 1, 0, b"a"), (2, 2, 0, b"B")]
    await queued[0]
    assert wal.entries(1, 9, 99) == [(1, 1, 0, b"a"), (2, 2, 0, b"B")]
    await wal.close()


async def test_a_queue_larger_than_a_segment_goes_out_in_several_frames() -> None:
    disk = MemoryDisk()
    wal = await open_wal(disk, replace(SMALL, frame_bytes_max=4 << 20))
    waiting = [wal.append([entries(n, b"x" * 8192)]) for n in range(1, 41)]
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert wal.last == (40, 1)
    assert wal.sync_count >= 40 * 8192 // (64 << 10)
    await wal.close()
