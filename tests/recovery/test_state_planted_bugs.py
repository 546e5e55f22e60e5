"""Each planted bug in sessions and snapshots is noticed; the real thing passes the same check."""

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from outlast.host import HostStorage
from outlast.host.lossy import LossyStorage
from outlast.kernel import BarredError, CorruptionError, File, KeyReusedError, Prng
from outlast.state import DiskSnapshotStore
from outlast.state.core.operation import Register
from outlast.state.core.system import SystemMachine
from outlast.testing.broken.state import (
    FingerprintIgnored,
    PublishedBeforeFsync,
    ReplyKeptBeforeApply,
    SessionsNotSaved,
    TrimmedBeforeVerified,
    WindowCutTooEarly,
)
from tests.support.state_bank import Host, add, caught_up, send, value
from tests.support.state_system import Driver, Make, error_of

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


def repeats_after_a_restore_run_once(make: Make) -> None:
    driver = Driver(make)
    session = driver.operate(Register())
    first = driver.call(session, 1)
    after = driver.restored()
    again = after.call(session, 1)
    assert after.machine.counts == {b"a": 1}
    assert again.body == first.body


def other_arguments_are_refused(make: Make) -> None:
    driver = Driver(make)
    session = driver.operate(Register())
    driver.call(session, 1)
    assert isinstance(error_of(driver.call(session, 1, b"other")), KeyReusedError)


def unacknowledged_replies_are_there(make: Make) -> None:
    driver = Driver(make)
    session = driver.operate(Register())
    driver.call(session, 1, b"one")
    driver.call(session, 2, b"two")
    driver.call(session, 3, b"three", ack=2)
    assert driver.call(session, 2, b"two", ack=2).status == 0
    assert set(driver.machine.counts.values()) == {1}


def a_refusal_is_repeated_as_a_refusal(make: Make) -> None:
    driver = Driver(make)
    session = driver.operate(Register())

    def refuse(*_: object) -> tuple[int, bytes]:
        raise BarredError("not now")

    driver.machine.execute = refuse  # type: ignore[method-assign]
    first = driver.call(session, 1)
    again = driver.call(session, 1)
    assert (first.status, first.body) == (again.status, again.body)


CHECKS: list[tuple[Callable[[Make], None], type[SystemMachine]]] = [
    (repeats_after_a_restore_run_once, SessionsNotSaved),
    (other_arguments_are_refused, FingerprintIgnored),
    (unacknowledged_replies_are_there, WindowCutTooEarly),
    (a_refusal_is_repeated_as_a_refusal, ReplyKeptBeforeApply),
]


@pytest.mark.parametrize(("check", "broken"), CHECKS, ids=lambda one: one.__name__)
def test_a_bug_in_sessions_is_noticed(
    check: Callable[[Make], None], broken: type[SystemMachine]
) -> None:
    check(SystemMachine)
    with pytest.raises(AssertionError):
        check(broken)


# --- snapshots ----------------------------------------------------------------------------------


async def a_published_snapshot_survives_a_power_cut(
    path: Path, make: type[DiskSnapshotStore]
) -> None:
    for seed in range(1, 6):  # which sectors of an unsynced write land is up to the seed
        await one_power_cut(path / str(seed), make, seed)


async def one_power_cut(path: Path, make: type[DiskSnapshotStore], seed: int) -> None:
    storage = LossyStorage(HostStorage(), Prng(seed))
    host = Host(str(path), storage)
    log = host.log()
    replica = host.replica(log, store=make(host.world, str(path)))
    await replica.start()
    await caught_up(replica)
    session = await replica.register()
    await send(replica, add(session, 1, "a"))
    ref = await replica.checkpoint()
    await replica.stop()
    await log.close()
    storage.power_cut(Prng(seed))
    again = Host(str(path), LossyStorage(HostStorage(), Prng(seed))).store()
    assert again.latest() == ref
    assert list(again.chunks(ref))


class _BadDisk(HostStorage):
    """Flips a bit of each chunk written after ``broken`` is set, and reports success."""

    broken = False

    def open(self, path: str, *, create: bool = False, write: bool = True) -> "File":  # type: ignore[override]
        file = super().open(path, create=create, write=write)
        if self.broken and create and "chunk-" in path:
            return _BadFile(file)
        return file


class _BadFile:
    def __init__(self, file: File) -> None:
        self._file = file
        self.path = file.path

    def pwrite(self, data: bytes, offset: int) -> None:
        self._file.pwrite(data[:-1] + bytes([data[-1] ^ 1]), offset)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


async def a_log_is_kept_until_its_snapshot_was_read_back(
    path: Path, make: type[DiskSnapshotStore]
) -> None:
    storage = _BadDisk()
    host = Host(str(path), storage)
    log = host.log()
    replica = host.replica(log, store=make(host.world, str(path)))
    await replica.start()
    await caught_up(replica)
    session = await replica.register()
    await send(replica, add(session, 1, "a"))
    storage.broken = True
    for seq in (2, 3):
        await send(replica, add(session, seq, "a"))
        with contextlib.suppress(CorruptionError):
            await replica.checkpoint()
    await replica.stop()
    storage.broken = False
    assert log.first == 1
    again = host.replica(log, me="n1#2")
    await again.start()
    await caught_up(again)
    assert value(await send(again, add(session, 4, "a"))) == 4
    await again.stop()
    await log.close()


SNAPSHOT_CHECKS: list[
    tuple[Callable[[Path, type[DiskSnapshotStore]], Awaitable[None]], type[DiskSnapshotStore]]
] = [
    (a_published_snapshot_survives_a_power_cut, PublishedBeforeFsync),
    (a_log_is_kept_until_its_snapshot_was_read_back, TrimmedBeforeVerified),
]


@pytest.mark.parametrize(("check", "broken"), SNAPSHOT_CHECKS, ids=lambda one: one.__name__)
async def test_a_bug_in_snapshots_is_noticed(
    tmp_path: Path,
    check: Callable[[Path, type[DiskSnapshotStore]], Awaitable[None]],
    broken: type[DiskSnapshotStore],
) -> None:
    await check(tmp_path / "good", DiskSnapshotStore)
    with pytest.raises(AssertionError):
        await check(tmp_path / "bad", broken)
