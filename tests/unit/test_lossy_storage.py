"""LossyStorage keeps what is not fsynced in memory only, and loses it when the power goes."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from outlast.host import HostStorage, LossyStorage
from outlast.kernel import Prng


@pytest.fixture
def disk() -> LossyStorage:
    return LossyStorage(HostStorage(), Prng(7))


def durable_file(disk: LossyStorage, path: str, data: bytes) -> None:
    file = disk.open(path, create=True)
    file.pwrite(data, 0)
    file.fsync()
    disk.fsync_dir(str(Path(path).parent))
    file.close()


def test_a_write_is_seen_at_once_and_reaches_the_disk_only_with_fsync(
    disk: LossyStorage, tmp_path: Path
) -> None:
    path = str(tmp_path / "f")
    durable_file(disk, path, b"old")
    file = disk.open(path)
    file.pwrite(b"new", 0)
    assert disk.open(path).pread(9, 0) == b"new"
    assert Path(path).read_bytes() == b"old"
    file.fdatasync()
    assert Path(path).read_bytes() == b"new"


def test_a_created_file_exists_on_the_disk_only_after_fsync_dir(
    disk: LossyStorage, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    file = disk.open(str(path), create=True)
    file.pwrite(b"synced", 0)
    file.fsync()
    file.pwrite(b"unsynced", 6)
    assert disk.listdir(str(tmp_path)) == ["f"]
    assert not path.exists()
    disk.fsync_dir(str(tmp_path))
    assert path.read_bytes() == b"synced"
    assert file.pread(99, 0) == b"syncedunsynced"


def test_rename_and_unlink_wait_for_fsync_dir(disk: LossyStorage, tmp_path: Path) -> None:
    durable_file(disk, str(tmp_path / "a"), b"a")
    durable_file(disk, str(tmp_path / "b"), b"b")
    disk.rename(str(tmp_path / "a"), str(tmp_path / "c"))
    disk.unlink(str(tmp_path / "b"))
    assert disk.listdir(str(tmp_path)) == ["c"]
    assert not disk.exists(str(tmp_path / "b"))
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    disk.fsync_dir(str(tmp_path))
    assert os.listdir(tmp_path) == ["c"]
    with pytest.raises(FileNotFoundError):
        disk.unlink(str(tmp_path / "b"))


def test_a_power_cut_tears_a_write_into_sectors_and_keeps_what_was_synced(
    tmp_path: Path,
) -> None:
    kinds = set()
    for seed in range(40):
        disk, path = LossyStorage(HostStorage(), Prng(seed)), str(tmp_path / f"f{seed}")
        durable_file(disk, path, b"o" * 4096)
        file = disk.open(path)
        file.pwrite(b"n" * 4096, 0)
        disk.power_cut(Prng(seed))
        found = Path(path).read_bytes()
        assert {found[at : at + 512] for at in range(0, 4096, 512)} <= {b"o" * 512, b"n" * 512}
        kinds.add(frozenset(found))
        with pytest.raises(OSError, match="power was cut") as caught:
            file.pread(1, 0)
        assert caught.value.errno == errno.EIO
        assert disk.open(path).pread(4096, 0) == found
    assert len(kinds) >= 2, "some writes must land in part"


def test_part_of_an_unsynced_write_reaches_the_disk_early(tmp_path: Path) -> None:
    torn = 0
    for seed in range(20):
        disk, path = LossyStorage(HostStorage(), Prng(seed)), tmp_path / f"f{seed}"
        durable_file(disk, str(path), bytes(8192))
        disk.open(str(path)).pwrite(b"n" * 8192, 0)
        found = path.read_bytes().count(b"n")
        assert found < 8192
        torn += found > 0
    assert torn > 10


def test_truncation_is_seen_at_once_and_lost_without_fsync(
    disk: LossyStorage, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    durable_file(disk, str(path), b"abcdef")
    file = disk.open(str(path))
    file.truncate(2)
    file.truncate(4)
    assert file.pread(9, 0) == b"ab\0\0"
    assert file.size() == 4
    assert path.read_bytes() == b"abcdef"
    file.fsync()
    assert path.read_bytes() == b"ab\0\0"


def test_with_the_planted_bug_no_sync_reaches_the_disk(tmp_path: Path) -> None:
    disk = LossyStorage(HostStorage(), Prng(1), sync_is_noop=True)
    durable_file(disk, str(tmp_path / "f"), b"x" * 4096)
    assert disk.open(str(tmp_path / "f")).pread(4, 0) == b"xxxx"
    assert os.listdir(tmp_path) == []


def test_a_lock_excludes_a_second_holder(disk: LossyStorage, tmp_path: Path) -> None:
    first = disk.open(str(tmp_path / "LOCK"), create=True)
    assert first.lock()
    second = disk.open(str(tmp_path / "LOCK"), create=True)
    assert not second.lock()
    assert not LossyStorage(HostStorage()).open(str(tmp_path / "LOCK"), create=True).lock()
    first.close()
    assert second.lock()


def test_files_that_are_closed_and_durable_hold_no_descriptor(
    disk: LossyStorage, tmp_path: Path
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        durable_file(disk, str(tmp_path / f"{number}.tmp"), b"x")
        disk.rename(str(tmp_path / f"{number}.tmp"), str(tmp_path / "f"))
        disk.fsync_dir(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) <= before + 2


_VICTIM = """
import sys
from outlast.host import HostStorage, LossyStorage
disk = LossyStorage(HostStorage())
file = disk.open(sys.argv[1] + "/f", create=True)
file.pwrite(b"synced", 0)
file.fsync()
disk.fsync_dir(sys.argv[1])
file.pwrite(b"lost", 6)
disk.open(sys.argv[1] + "/g", create=True).fsync()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.process
@pytest.mark.timeout(120)
def test_sigkill_is_a_power_cut(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _VICTIM, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    assert os.listdir(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"synced"
