"""The snapshot store: whole or absent, verified before it counts, resumed, bounded."""

import errno
from pathlib import Path
from typing import Any

import pytest

from outlast.host import HostStorage
from outlast.kernel import ConfigError, CorruptionError, DataError, LogIndex, ProtocolError, Term
from outlast.log import SnapshotRef
from outlast.state import DiskSnapshotStore
from outlast.state.core.stream import CHUNK_BYTES, Cutter, frames, make_head, read_head
from outlast.state.events import SnapshotRefused
from tests.support.state_bank import Host

pytestmark = pytest.mark.anyio

CHUNKS = [bytes([n]) * CHUNK_BYTES for n in range(3)] + [b"last"]


async def write(store: DiskSnapshotStore, index: int, chunks: list[bytes]) -> SnapshotRef:
    writer = store.begin(LogIndex(index), Term(4))
    for chunk in chunks:
        await writer.add(chunk)
    return await writer.publish()


def files(directory: Path, name: str = "chunk-*") -> list[Path]:
    return sorted(directory.rglob(name))


def test_frames_come_back_from_chunks_of_equal_size() -> None:
    given = [b"", b"x", b"y" * (CHUNK_BYTES * 2 + 3), b"z" * 100, b"w" * (CHUNK_BYTES - 4)]
    cutter = Cutter()
    chunks = [chunk for frame in given for chunk in cutter.add(frame)] + cutter.finish()
    assert all(len(chunk) == CHUNK_BYTES for chunk in chunks[:-1])
    assert list(frames(chunks)) == given
    with pytest.raises(CorruptionError, match="into a frame"):
        list(frames([*chunks[:-1], chunks[-1][:-1]]))


def test_a_foreign_head_is_refused_by_name() -> None:
    head = make_head(cluster="a", machine="Bank", machine_version=2, schema={}, index=7)
    assert read_head(head, cluster="a", machine="Bank").index == 7
    with pytest.raises(DataError, match="of cluster 'a'; this one is 'b'"):
        read_head(head, cluster="b", machine="Bank")
    with pytest.raises(DataError, match="of machine 'Bank'; this one is 'Shop'"):
        read_head(head, cluster="a", machine="Shop")
    with pytest.raises(DataError, match="expected"):
        read_head(b"\x92\x01\x02", cluster="a", machine="Bank")


def test_one_snapshot_is_not_enough_to_keep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kept: 1"):
        DiskSnapshotStore(Host(str(tmp_path)).world, str(tmp_path), keep=1)


async def test_a_snapshot_is_found_again_and_the_oldest_goes(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    store = host.store()
    refs = [await write(store, index, CHUNKS) for index in (10, 20, 30)]
    for one in (store, host.store()):
        assert one.refs() == refs[1:]
        assert one.latest() == refs[2]
        assert list(one.chunks(refs[2])) == CHUNKS
        with pytest.raises(FileNotFoundError):
            one.read_chunk(refs[0], 0)
    assert refs[2].size_bytes == 3 * CHUNK_BYTES + 4
    assert refs[2].term == 4


async def test_what_was_not_published_is_no_snapshot(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    writer = host.store().begin(LogIndex(10), Term(1))
    await writer.add(b"half")
    store = host.store()
    assert store.latest() is None
    assert files(tmp_path) == []


@pytest.mark.parametrize("pattern", ["chunk-000001", "MANIFEST"])
async def test_a_damaged_snapshot_is_refused_by_name_and_the_older_one_used(
    tmp_path: Path, pattern: str
) -> None:
    host = Host(str(tmp_path))
    store = host.store()
    older = await write(store, 10, CHUNKS)
    newer = await write(store, 20, CHUNKS)
    (path,) = [path for path in files(tmp_path, pattern) if "0020" in str(path)]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    if pattern != "MANIFEST":
        with pytest.raises(CorruptionError) as caught:
            store.read_chunk(newer, 1)
        assert caught.value.file == str(path)
    again = host.store()
    await again.open()
    assert again.latest() == older
    (refused,) = host.told(SnapshotRefused)
    assert refused.name == f"{20:020d}"
    assert path.name.partition("-")[0] in refused.reason or "manifest" in refused.reason


async def test_a_missing_chunk_is_damage(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    await write(host.store(), 10, CHUNKS)
    files(tmp_path)[0].unlink()
    store = host.store()
    await store.open()
    assert store.latest() is None
    assert "is missing" in host.told(SnapshotRefused)[0].reason


class Refusing(HostStorage):
    """A disk that does not let files of some names be opened."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self._name, self._number = name, number

    def open(self, path: str, **given: Any) -> Any:
        if path.endswith(self._name):
            raise OSError(self._number, "refused", path)
        return super().open(path, **given)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("name", ["MANIFEST", "chunk-000001"])
async def test_a_disk_that_refuses_to_read_damages_no_snapshot(
    tmp_path: Path, name: str, number: int
) -> None:
    refs = [await write(Host(str(tmp_path)).store(), index, CHUNKS) for index in (10, 20)]
    host = Host(str(tmp_path), Refusing(name, number))
    store = host.store()
    with pytest.raises(OSError, match=f"refused, while snapshot {20:020d} was read") as caught:
        await store.open()
    assert caught.value.errno == number
    store.tell()
    assert host.told(SnapshotRefused) == []
    assert Host(str(tmp_path)).store().refs() == refs


async def test_receiving_goes_on_after_a_restart_at_the_chunk_it_had_reached(
    tmp_path: Path,
) -> None:
    sender = Host(str(tmp_path / "a"))
    source = sender.store()
    ref = await write(source, 10, CHUNKS)
    receiver = Host(str(tmp_path / "b"))
    sink = receiver.store().receive(ref)
    await sink.write(0, CHUNKS[0])
    await sink.write(1, CHUNKS[1])
    (tmp_path / "b" / sink._name / "part").write_bytes(b"torn")

    store = receiver.store()
    assert store.latest() is None
    sink = store.receive(ref)
    assert sink.next_chunk == 2
    with pytest.raises(ProtocolError, match="expected chunk 2"):
        await sink.write(3, CHUNKS[3])
    with pytest.raises(ProtocolError, match="2 of 4 chunks"):
        await sink.finish()
    await sink.write(2, source.read_chunk(ref, 2))
    await sink.write(3, source.read_chunk(ref, 3))
    assert await sink.finish() == ref
    assert store.latest() == receiver.store().latest() == ref
    assert list(store.chunks(ref)) == CHUNKS


async def test_what_was_received_of_another_snapshot_is_forgotten(tmp_path: Path) -> None:
    source = Host(str(tmp_path / "a")).store()
    first = await write(source, 10, CHUNKS)
    second = await write(source, 20, CHUNKS)
    store = Host(str(tmp_path / "b")).store()
    await store.receive(first).write(0, CHUNKS[0])
    assert store.receive(second).next_chunk == 0
    assert store.receive(first).next_chunk == 0


async def test_a_wrong_chunk_shows_before_the_snapshot_counts(tmp_path: Path) -> None:
    source = Host(str(tmp_path / "a")).store()
    ref = await write(source, 10, CHUNKS)
    store = Host(str(tmp_path / "b")).store()
    sink = store.receive(ref)
    for number, chunk in enumerate([*CHUNKS[:3], b"lost"]):
        await sink.write(number, chunk)
    with pytest.raises(CorruptionError, match="received digest"):
        await sink.finish()
    assert store.latest() is None
    await sink.abandon()
    assert sink.next_chunk == 0
    for number, chunk in enumerate(CHUNKS):
        await sink.write(number, chunk)
    assert await sink.finish() == ref
