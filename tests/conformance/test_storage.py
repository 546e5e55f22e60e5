"""Every storage keeps the promises of ``outlast.kernel.Storage``: the real one and its twins."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast.host import HostStorage, LossyStorage
from outlast.kernel import Prng, Storage
from outlast.testing.disk import FaultyDisk
from tests.support.sim_disk import make_disk

MAKERS: dict[str, Callable[[], Storage]] = {
    "host": HostStorage,
    "lossy": lambda: LossyStorage(HostStorage(), Prng(3)),
    "faulty": lambda: FaultyDisk(HostStorage()),
    "sim": lambda: make_disk()[0],
    "faulty-sim": lambda: FaultyDisk(make_disk()[0]),
    "lossy-sim": lambda: LossyStorage(make_disk()[0], Prng(3)),
}


@pytest.fixture(params=MAKERS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    storage = MAKERS[request.param]()
    storage.makedirs(str(tmp_path))
    return storage


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


def put(storage: Storage, path: str, data: bytes) -> None:
    file = storage.open(path, create=True)
    file.pwrite(data, 0)
    file.fsync()
    file.close()
    storage.fsync_dir(path.rpartition("/")[0])


def get(storage: Storage, path: str) -> bytes:
    file = storage.open(path, write=False)
    try:
        return file.pread(file.size(), 0)
    finally:
        file.close()


def test_a_missing_file_is_not_found_unless_it_is_to_be_created(storage: Storage, root: str):
    with pytest.raises(FileNotFoundError):
        storage.open(f"{root}/f")
    assert not storage.exists(f"{root}/f")
    file = storage.open(f"{root}/f", create=True)
    assert storage.exists(f"{root}/f")
    assert file.path == f"{root}/f"
    assert (file.size(), file.pread(9, 0)) == (0, b"")


def test_a_file_is_not_created_in_a_directory_that_is_missing(storage: Storage, root: str):
    with pytest.raises(FileNotFoundError):
        storage.open(f"{root}/none/f", create=True)


def test_what_was_written_is_read_through_every_handle(storage: Storage, root: str):
    first = storage.open(f"{root}/f", create=True)
    second = storage.open(f"{root}/f")
    first.pwrite(b"abcdef", 0)
    second.pwrite(bytearray(b"XY"), 2)
    first.pwrite(memoryview(b"-z-")[1:2], 5)
    assert first.pread(99, 0) == second.pread(99, 0) == b"abXYez"
    assert first.pread(3, 1) == b"bXY"
    assert first.size() == second.size() == 6


def test_a_read_is_short_only_at_the_end(storage: Storage, root: str):
    put(storage, f"{root}/f", b"abc")
    file = storage.open(f"{root}/f", write=False)
    assert [file.pread(2, at) for at in (0, 1, 2, 3, 99)] == [b"ab", b"bc", b"c", b"", b""]
    assert file.pread(0, 1) == b""


def test_a_gap_reads_as_zeros(storage: Storage, root: str):
    file = storage.open(f"{root}/f", create=True)
    file.pwrite(b"x", 10_000)
    assert file.size() == 10_001
    assert file.pread(20_000, 0) == bytes(10_000) + b"x"


def test_truncation_cuts_and_extends_with_zeros(storage: Storage, root: str):
    file = storage.open(f"{root}/f", create=True)
    file.pwrite(b"a" * 9000, 0)
    file.fsync()
    file.truncate(5000)
    file.truncate(9000)
    assert file.pread(9000, 0) == b"a" * 5000 + bytes(4000)
    file.fdatasync()
    file.truncate(0)
    file.pwrite(b"b", 3)
    assert file.pread(9, 0) == b"\0\0\0b"


def test_large_writes_keep_every_byte(storage: Storage, root: str):
    data = Prng(5).bytes(300_001)
    file = storage.open(f"{root}/f", create=True)
    file.pwrite(data, 12_345)
    file.pwrite(bytes(100_000), 50_000)
    file.fsync()
    want = bytearray(bytes(12_345) + data)
    want[50_000:150_000] = bytes(100_000)
    assert file.pread(400_000, 0) == want


def test_opening_to_create_keeps_what_is_there(storage: Storage, root: str):
    put(storage, f"{root}/f", b"kept")
    storage.open(f"{root}/f", create=True).close()
    assert get(storage, f"{root}/f") == b"kept"


def test_rename_replaces_and_handles_follow_the_file(storage: Storage, root: str):
    put(storage, f"{root}/a", b"a")
    put(storage, f"{root}/b", b"b")
    file = storage.open(f"{root}/a")
    storage.rename(f"{root}/a", f"{root}/b")
    file.pwrite(b"+", 1)
    assert storage.listdir(root) == ["b"]
    assert get(storage, f"{root}/b") == b"a+"
    storage.fsync_dir(root)
    assert get(storage, f"{root}/b") == b"a+"
    with pytest.raises(FileNotFoundError):
        storage.rename(f"{root}/a", f"{root}/c")


def test_an_unlinked_file_is_gone_but_for_its_handles(storage: Storage, root: str):
    put(storage, f"{root}/f", b"old")
    file = storage.open(f"{root}/f")
    storage.unlink(f"{root}/f")
    assert not storage.exists(f"{root}/f")
    assert file.pread(9, 0) == b"old"
    with pytest.raises(FileNotFoundError):
        storage.unlink(f"{root}/f")
    storage.fsync_dir(root)
    file.close()
    assert storage.open(f"{root}/f", create=True).size() == 0


def test_names_are_listed_in_order_directories_included(storage: Storage, root: str):
    for name in ("c", "a", "b"):
        put(storage, f"{root}/{name}", b"")
    storage.makedirs(f"{root}/aa/bb")
    assert storage.listdir(root) == ["a", "aa", "b", "c"]
    assert storage.listdir(f"{root}/aa") == ["bb"]
    assert storage.exists(f"{root}/aa/bb")
    with pytest.raises(FileNotFoundError):
        storage.listdir(f"{root}/none")


def test_making_a_directory_again_changes_nothing(storage: Storage, root: str):
    storage.makedirs(f"{root}/d")
    put(storage, f"{root}/d/f", b"x")
    storage.makedirs(f"{root}/d")
    assert get(storage, f"{root}/d/f") == b"x"


def test_rmtree_removes_everything_and_nothing_else(storage: Storage, root: str):
    storage.makedirs(f"{root}/d/e")
    put(storage, f"{root}/d/e/f", b"x")
    put(storage, f"{root}/dd", b"y")
    storage.open(f"{root}/d/unsynced", create=True).close()
    storage.rmtree(f"{root}/d")
    storage.rmtree(f"{root}/d")
    assert storage.listdir(root) == ["dd"]
    storage.makedirs(f"{root}/d")
    assert storage.listdir(f"{root}/d") == []


def test_a_lock_excludes_others_until_its_handle_is_closed(storage: Storage, root: str):
    first = storage.open(f"{root}/LOCK", create=True)
    second = storage.open(f"{root}/LOCK", create=True)
    assert first.lock()
    assert not second.lock()
    first.close()
    assert second.lock()
    second.close()


def test_a_closed_handle_refuses_and_closing_again_is_harmless(storage: Storage, root: str):
    file = storage.open(f"{root}/f", create=True)
    file.close()
    file.close()
    for call in (
        lambda: file.pread(1, 0),
        lambda: file.pwrite(b"x", 0),
        file.fsync,
        file.size,
        lambda: file.truncate(0),
    ):
        with pytest.raises((OSError, ValueError)) as caught:  # fsync(-1) is a ValueError
            call()
        assert getattr(caught.value, "errno", errno.EBADF) in {errno.EBADF, errno.EIO}


def test_dropping_the_cache_changes_no_content(storage: Storage, root: str):
    file = storage.open(f"{root}/f", create=True)
    file.pwrite(b"x" * 5000, 0)
    file.drop_cache()
    file.fsync()
    file.drop_cache()
    assert file.pread(5000, 0) == b"x" * 5000


def test_there_is_room(storage: Storage, root: str):
    assert storage.free_bytes(root) > 1 << 20


# --- what a power cut leaves -----------------------------------------------------------------

CUTTERS = ("lossy", "sim", "lossy-sim")


def cut(storage: Storage, seed: int) -> None:
    if isinstance(storage, LossyStorage):
        storage.power_cut(Prng(seed))
    else:
        storage.power_cut()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", CUTTERS)
@pytest.mark.parametrize("seed", range(4))
def test_what_was_synced_under_a_durable_name_survives(kind: str, seed: int, tmp_path: Path):
    storage, root = MAKERS[kind](), str(tmp_path)
    storage.makedirs(f"{root}/d")
    put(storage, f"{root}/d/f", b"old" * 1000)
    put(storage, f"{root}/gone", b"")
    file = storage.open(f"{root}/d/f")
    file.pwrite(b"new" * 1000, 3000)
    file.fdatasync()
    storage.unlink(f"{root}/gone")
    storage.fsync_dir(root)
    cut(storage, seed)
    assert get(storage, f"{root}/d/f") == b"old" * 1000 + b"new" * 1000
    assert storage.listdir(root) == ["d"]


@pytest.mark.parametrize("kind", CUTTERS)
def test_what_was_not_synced_is_lost_now_and_then(kind: str, tmp_path: Path):
    found = set()
    for seed in range(12):
        storage, root = MAKERS[kind](), f"{tmp_path}/{seed}"
        if kind == "sim":
            storage = make_disk(seed)[0]
        storage.makedirs(root)
        put(storage, f"{root}/f", b"o" * 1024)
        storage.open(f"{root}/f").pwrite(b"n" * 1024, 0)
        fresh = storage.open(f"{root}/fresh", create=True)
        fresh.pwrite(b"synced", 0)
        fresh.fsync()
        cut(storage, seed)
        data = get(storage, f"{root}/f")
        assert {data[:512], data[512:]} <= {b"o" * 512, b"n" * 512}
        found.add((data, storage.exists(f"{root}/fresh")))
    assert len({data for data, _ in found}) > 1
    assert {there for _, there in found} == {True, False}


@pytest.mark.parametrize("kind", CUTTERS)
def test_handles_do_not_survive_a_power_cut(kind: str, tmp_path: Path):
    storage, path = MAKERS[kind](), f"{tmp_path}/LOCK"
    storage.makedirs(str(tmp_path))
    put(storage, path, b"")
    file = storage.open(path)
    assert file.lock()
    cut(storage, 1)
    with pytest.raises(OSError):
        file.pread(1, 0)
    if kind == "sim":  # the locks of the other two are those of the disk below: it was not cut
        assert storage.open(path).lock()
