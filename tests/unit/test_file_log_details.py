"""What the file log does beyond the promises that every engine keeps."""

import asyncio
from pathlib import Path

import pytest

from outlast.host import HostStorage, make_world
from outlast.kernel import (
    ConfigError,
    CorruptionError,
    DataError,
    Deadline,
    DeadlineError,
    LogFailedError,
    LogIndex,
    OverloadedError,
    UnavailableError,
    World,
)
from outlast.log.api import Hold
from outlast.log.engines.file import FileLog, FileLogSettings
from outlast.log.engines.memory import MemoryLog, MemoryLogSettings
from outlast.log.medium import QueueLimits
from outlast.log.wal import WalIdentity, WalSettings
from outlast.testing.disk import FaultyDisk
from outlast.testing.log_fixture import SMALL

FOREVER = Deadline.never()
pytestmark = pytest.mark.anyio


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk(HostStorage())


@pytest.fixture
def world(disk: FaultyDisk) -> World:
    return make_world(storage=disk)


async def turns(world: World, count: int = 20) -> None:
    for _ in range(count):
        await world.timers.sleep(0)


def flip_a_bit(directory: Path, where: bytes) -> tuple[Path, int]:
    """Damage the first segment at some content of it."""
    segment = sorted(directory.glob("*.seg"))[0]
    data = bytearray(segment.read_bytes())
    place = data.index(where)
    data[place] ^= 1
    segment.write_bytes(data)
    return segment, place


async def test_callers_of_one_turn_share_one_fsync(world: World, tmp_path: Path) -> None:
    log = await FileLog.open(world, str(tmp_path / "log"))
    before = log.wal.sync_count
    appends = (log.append(b"e%d" % number, deadline=FOREVER) for number in range(500))
    indices = await asyncio.gather(*appends)
    assert indices == list(range(1, 501))
    assert log.wal.sync_count - before == 1
    await log.close()


async def test_entries_that_queue_during_an_fsync_share_the_next(
    world: World, disk: FaultyDisk, tmp_path: Path
) -> None:
    log = await FileLog.open(world, str(tmp_path / "log"))
    before = log.wal.sync_count
    disk.stall()
    tasks = []
    for number in range(50):
        tasks.append(asyncio.ensure_future(log.append(b"e%d" % number, deadline=FOREVER)))
        await turns(world, 2)
    disk.resume()
    assert await asyncio.gather(*tasks) == list(range(1, 51))
    assert log.wal.sync_count - before == 2
    await log.close()


async def test_another_replicas_log_is_refused_by_name(world: World, tmp_path: Path) -> None:
    log = await FileLog.open(world, str(tmp_path), identity=WalIdentity("bank", "log", "n1#1"))
    await log.close()
    with pytest.raises(DataError, match="n2#1"):
        await FileLog.open(world, str(tmp_path), identity=WalIdentity("bank", "log", "n2#1"))


async def test_a_log_that_is_open_is_refused(world: World, tmp_path: Path) -> None:
    log = await FileLog.open(world, str(tmp_path))
    with pytest.raises(DataError, match="another process"):
        await FileLog.open(make_world(), str(tmp_path))
    await log.close()
    await (await FileLog.open(make_world(), str(tmp_path))).close()


async def test_damage_in_the_middle_is_named_and_stops_the_open(
    world: World, tmp_path: Path
) -> None:
    log = await FileLog.open(world, str(tmp_path))
    for number in range(5):
        await log.append(b"entry %d " % number * 100, deadline=FOREVER)
    await log.close()
    segment, place = flip_a_bit(tmp_path, b"entry 2 ")
    with pytest.raises(CorruptionError) as caught:
        await FileLog.open(world, str(tmp_path))
    assert caught.value.file == str(segment)
    assert 0 < caught.value.offset <= place
    assert caught.value.first == 3


async def test_a_seal_is_readable_by_position_only(world: World, tmp_path: Path) -> None:
    """The seal takes an index of its own, which is the tail and holds nothing for readers."""
    log = await FileLog.open(world, str(tmp_path))
    await log.append(b"only", deadline=FOREVER)
    assert await log.seal(b"", deadline=FOREVER) == (2, b"")
    assert await log.tail(deadline=FOREVER) == 2
    assert [list(batch.entries) async for batch in log.read(LogIndex(1))] == [[b"only"]]
    assert await log.trim(LogIndex(100)) <= 2
    await log.close()
    log = await FileLog.open(world, str(tmp_path))
    assert await log.seal(b"later", deadline=FOREVER) == (2, b"")
    await log.close()


async def test_failed_storage_ends_readers_and_refuses_the_rest(
    world: World, disk: FaultyDisk, tmp_path: Path
) -> None:
    log = await FileLog.open(world, str(tmp_path))
    await log.append(b"good", deadline=FOREVER)
    waiting = asyncio.ensure_future(anext(log.read(LogIndex(2))))
    await turns(world)
    disk.sync_fails = True
    with pytest.raises(LogFailedError):
        await log.append(b"lost", deadline=FOREVER)
    with pytest.raises(LogFailedError):
        await waiting
    disk.sync_fails = False
    with pytest.raises(UnavailableError):
        await log.append(b"refused", deadline=FOREVER)
    with pytest.raises(UnavailableError):
        await log.seal(b"refused", deadline=FOREVER)
    assert log.failed is not None
    assert list((await anext(log.read(LogIndex(1)))).entries) == [b"good"]
    await log.close()


async def test_the_byte_queue_is_bounded_and_empties(
    world: World, disk: FaultyDisk, tmp_path: Path
) -> None:
    settings = FileLogSettings(queue=QueueLimits(queue_bytes_max=100, retry_after=0.25))
    log = await FileLog.open(world, str(tmp_path), settings=settings)
    disk.stall()
    tasks = [
        asyncio.ensure_future(log.append(bytes([number]) * 25, deadline=FOREVER))
        for number in range(4)
    ]
    await turns(world)
    with pytest.raises(OverloadedError, match="queue_bytes_max") as caught:
        await log.append(b"x", deadline=FOREVER)
    assert caught.value.retry_after == 0.25
    disk.resume()
    await asyncio.gather(*tasks)
    assert await log.append(b"x" * 100, deadline=FOREVER) == 5
    await log.close()


async def test_a_deadline_under_way_does_not_recall_the_entry(
    world: World, disk: FaultyDisk, tmp_path: Path
) -> None:
    log = await FileLog.open(world, str(tmp_path))
    disk.stall()
    soon = Deadline.after(0.01, world.clock.monotonic_ns())
    with pytest.raises(DeadlineError):
        await log.append(b"slow", deadline=soon)
    disk.resume()
    assert await log.append(b"next", deadline=FOREVER) == 2
    assert list((await anext(log.read(LogIndex(1)))).entries) == [b"slow", b"next"]
    await log.close()


async def test_a_released_hold_lets_a_trim_go_on_by_itself(world: World, tmp_path: Path) -> None:
    log = await FileLog.open(world, str(tmp_path), settings=SMALL)
    for number in range(20):
        await log.append(bytes([number]) * 60_000, deadline=FOREVER)
    log.hold(Hold("reader", LogIndex(1), 1 << 40))
    assert await log.trim(LogIndex(20)) == 1
    log.release("reader")
    assert log.first > 1
    await log.close()


async def test_a_hold_counts_what_was_there_before_it_was_opened(
    world: World, tmp_path: Path
) -> None:
    log = await FileLog.open(world, str(tmp_path), settings=SMALL)
    for number in range(20):
        await log.append(bytes([number]) * 60_000, deadline=FOREVER)
    await log.close()
    log = await FileLog.open(world, str(tmp_path), settings=SMALL)
    log.hold(Hold("wide", LogIndex(1), 3_000_000))
    assert await log.trim(LogIndex(20)) == 1
    log.hold(Hold("narrow", LogIndex(1), 300_000))
    log.release("wide")
    assert log.first > 1
    await log.close()


def test_an_entry_must_fit_into_a_segment() -> None:
    with pytest.raises(ConfigError, match="entry_bytes_max is 1048576; it must be from 1 to"):
        FileLogSettings(wal=WalSettings(segment_bytes=1024 * 1024))


@pytest.mark.parametrize("name", ["queue_bytes_max", "run_bytes_max", "batch_bytes_max"])
def test_queue_limits_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        QueueLimits(**{name: 0})  # type: ignore[arg-type]


async def test_a_memory_log_counts_what_it_keeps() -> None:
    log = MemoryLog(make_world(), settings=MemoryLogSettings(entry_bytes_max=50, bytes_max=100))
    with pytest.raises(ConfigError, match="bytes, not bytearray"):
        await log.append(bytearray(b"x"), deadline=FOREVER)  # type: ignore[arg-type]
    for _ in range(10):
        index = await log.append(b"x" * 50, deadline=FOREVER)
        await log.trim(index)
    assert log.first == 10
    assert "10..10 open" in repr(log)
    await log.close()
