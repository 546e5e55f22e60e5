"""4,000 random faults: a torn tail is told from damage to acknowledged data every time."""

from dataclasses import dataclass

import pytest

from outlast.kernel import CorruptionError, Prng
from outlast.log.wal import Damage, Run, RunKind, Status, Wal, WalIdentity, WalSettings, check
from outlast.log.wal.core import scan as scanning
from outlast.log.wal.core.frame import (
    FLAG_MARK,
    HEADER_BYTES,
    FrameHeader,
    decode_header,
    encode_frame,
)
from outlast.log.wal.core.runs import encode_runs, merge, span
from outlast.log.wal.core.scan import SegmentScan
from outlast.log.wal.core.segment import SEGMENT_HEADER_BYTES, decode_segment_header
from outlast.log.wal.recovery import CURRENT, read_log
from tests.recovery.wal_disk import MemoryDisk, memory_world

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
ME = WalIdentity("c", "l", "n1.1")
DIR = "/data/log"
SETTINGS = WalSettings(
    segment_bytes=64 << 10, first_segment_bytes=64 << 10, hard_state_reserve_bytes=1024,
    disk_reserve_bytes=0, idle=30.0,
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    name: str
    offset: int
    header: FrameHeader
    newest: bool

    @property
    def extent(self) -> int:
        return HEADER_BYTES + self.header.length


@dataclass(frozen=True)
class Base:
    """A stopped log: two sealed segments and one that was being written, no mark at its end."""

    disk: MemoryDisk
    frames: list[Frame]
    end: int
    seed: int
    last: int
    seq: int

    def name(self) -> str:
        return self.frames[-1].name


async def make_base(seed: int) -> Base:
    disk, prng, index = MemoryDisk(), Prng(seed), 0
    wal = await Wal.open(memory_world(disk, seed), DIR, ME, SETTINGS)
    left = prng.between(4, 6)
    while left:
        left -= len([name for name in disk.names if name.endswith(".seg")]) == 3
        payloads = [prng.bytes(prng.between(1, 2500)) for _ in range(prng.between(1, 4))]
        await wal.append([Run(RunKind.ENTRIES, index + 1, 3, payloads)])
        index += len(payloads)
    stopped = disk.copy()
    await wal.close()
    frames: list[Frame] = []
    names = sorted(name for name in stopped.names if name.endswith(".seg"))
    offset = seed32 = 0
    for name in names:
        data = bytes(stopped.names[name].data)
        header = decode_segment_header(data)
        assert header is not None
        seed32, offset = header.seed, SEGMENT_HEADER_BYTES
        while (frame := decode_header(memoryview(data), offset, seed32)) is not None:
            frames.append(Frame(name, offset, frame, name == names[-1]))
            offset += frame.size
    assert len([frame for frame in frames if frame.newest]) > 2
    return Base(stopped, frames, offset, seed32, index, frames[-1].header.seq)


def next_frame(base: Base, prng: Prng, *, flags: int = 0) -> bytes:
    """The frame that the writer would have written next."""
    payloads = [prng.bytes(prng.between(1, 2000)) for _ in range(prng.between(1, 4))]
    runs = merge([Run(RunKind.ENTRIES, base.last + 1, 3, payloads)])
    body = b"" if flags else encode_runs(runs)
    return encode_frame(
        body, base.seed, seq=base.seq + 1, durable=base.seq, flags=flags,
        span=(0, 0, 0, 0) if flags else span(runs),
    )[0]  # fmt: skip


def add_mark(base: Base, disk: MemoryDisk, prng: Prng) -> None:
    data = next_frame(base, prng, flags=FLAG_MARK)
    disk.names[base.name()].data[base.end : base.end + len(data)] = data


def tear(base: Base, disk: MemoryDisk, prng: Prng) -> tuple[Status, int]:
    """Let some sectors of an unsynced frame land; return what must be found."""
    data = next_frame(base, prng)
    content, landed = disk.names[base.name()].data, 0
    for at in range(0, len(data), 512):
        if prng.chance(1, 2):
            content[base.end + at : base.end + at + 512] = data[at : at + 512]
            landed += 1
    if landed * 512 == len(data):
        return Status.CLEAN, 1
    return (Status.TORN if landed else Status.CLEAN), 0


def flip(disk: MemoryDisk, frame: Frame, prng: Prng) -> None:
    at = frame.offset + prng.below(frame.extent)
    disk.names[frame.name].data[at] ^= 1 << prng.below(8)


def zero(disk: MemoryDisk, frame: Frame, prng: Prng) -> None:
    at = frame.offset + 512 * prng.below((frame.extent + 511) // 512)
    data = disk.names[frame.name].data
    assert any(data[at : at + 512])
    data[at : at + 512] = bytes(512)


def garbage(disk: MemoryDisk, frame: Frame, prng: Prng) -> None:
    at = frame.offset + 512 * prng.below((frame.extent + 511) // 512)
    disk.names[frame.name].data[at : at + 512] = prng.bytes(512)


def judge(disk: MemoryDisk) -> tuple[Status, int, list[Damage]]:
    log = read_log(disk, DIR, ME, settle=False)
    if not log.damage:
        return Status.CLEAN, log.view.last, []
    torn = all(one.kind == "torn" for one in log.damage)
    return (Status.TORN if torn else Status.CORRUPT), log.view.last, log.damage


def damaged(base: Base, seed: int) -> str:
    """Plant one fault; return '' if it is classified rightly, else what went wrong."""
    prng, disk = Prng(seed), base.disk.copy()
    draw = prng.below(10)
    if draw < 3:
        status, more = tear(base, disk, prng)
        found, last, damage = judge(disk)
        if found is not status or (not more and last != base.last):
            return f"torn tail: {status} but found {found} last {last} {damage}"
        return ""
    protected = base.frames
    if prng.chance(1, 2):
        add_mark(base, disk, prng)
        if prng.chance(1, 2):
            protected = [frame for frame in base.frames if frame.newest]
    else:
        tear(base, disk, prng)
        protected = base.frames[:-1]
    frame = prng.choice(protected)
    (flip, zero, garbage)[draw % 3](disk, frame, prng)
    found, _, damage = judge(disk)
    if found is not Status.CORRUPT:
        return f"damage to {frame} was taken for {found}"
    (one,) = damage
    if one.segment != frame.name.rpartition("/")[2] or one.offset != frame.offset:
        return f"damage to {frame} was reported as {one}"
    wanted = (frame.header.first, frame.header.last)
    if frame.header.flags == 0 and one.first not in {wanted[0]}:
        return f"entries {wanted} were reported as {one}"
    if one.last and frame.header.flags == 0 and one.last < wanted[1]:
        return f"entries {wanted} were reported as {one}"
    return ""


async def misclassified(count: int, bases: int = 4) -> list[str]:
    made = [await make_base(seed) for seed in range(1, bases + 1)]
    return [
        f"fault {seed}: {problem}"
        for seed in range(count)
        if (problem := damaged(made[seed % bases], seed))
    ]


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_of_4000_faults_none_is_misclassified() -> None:
    assert await misclassified(4000) == []


async def test_a_classifier_that_cuts_the_corrupt_middle_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def careless(scan: SegmentScan, name: str, *_: object, **__: object) -> None:
        scan.status = Status.TORN
        scan.damage.append(Damage(name, scan.end, 0, 0, 0, "torn", scan.next_seq))

    monkeypatch.setattr(scanning, "_classify", careless)
    assert len(await misclassified(60)) > 20


async def test_a_classifier_that_ignores_later_frames_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scanning, "next_frame", lambda *_, **__: None)
    assert len(await misclassified(200)) > 5


async def test_a_classifier_that_calls_torn_tails_corrupt_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scanning, "zeros_from", lambda *_: False)
    assert len(await misclassified(200)) > 5


async def test_flips_in_padding_are_harmless() -> None:
    base = await make_base(1)
    for seed in range(50):
        prng, disk = Prng(seed), base.disk.copy()
        frame = prng.choice(base.frames)
        room = frame.header.size - frame.extent
        if room:
            disk.names[frame.name].data[frame.offset + frame.extent + prng.below(room)] ^= 1
        assert judge(disk) == (Status.CLEAN, base.last, [])


async def test_zeros_over_the_end_are_noticed_by_what_current_says() -> None:
    disk = MemoryDisk()
    wal = await Wal.open(memory_world(disk), DIR, ME, SETTINGS)
    for index in range(1, 9):
        await wal.append([Run(RunKind.ENTRIES, index, 1, [b"x" * 600])])
    wal._writer.mark()
    stopped = disk.copy()
    name = max(name for name in stopped.names if name.endswith(".seg"))
    data = stopped.names[name].data
    at = SEGMENT_HEADER_BYTES + 3 * 1024
    data[at:] = bytes(len(data) - at)
    status, last, (damage,) = judge(stopped)
    assert (status, last, damage.offset) == (Status.CORRUPT, 3, at)
    await wal.close()


async def test_a_damaged_segment_header_or_chain_is_named() -> None:
    base = await make_base(2)
    names = sorted({frame.name for frame in base.frames})
    for name in names:
        disk = base.disk.copy()
        disk.names[name].data[30] ^= 1
        status, _, (damage,) = judge(disk)
        assert (status, damage.kind) == (Status.CORRUPT, "segment header")
    other = await make_base(3)
    disk = base.disk.copy()
    disk.names[names[1]].data[:] = other.disk.names[sorted({f.name for f in other.frames})[1]].data
    status, _, (damage,) = judge(disk)
    assert status is Status.CORRUPT
    assert damage.kind in {"chain", "missing segment", "segment header"}


async def test_one_lost_slot_of_current_is_survived_and_two_are_corruption() -> None:
    base = await make_base(1)
    disk = base.disk.copy()
    slots = disk.names[f"{DIR}/{CURRENT}"].data
    slots[:512] = bytes(512)
    assert judge(disk)[0] is Status.CLEAN
    slots[:1024] = bytes(1024)
    status, _, (damage,) = judge(disk)
    assert (status, damage.kind) == (Status.CORRUPT, "CURRENT")


async def test_an_entry_that_holds_a_copy_of_the_log_is_not_taken_for_a_later_frame() -> None:
    base = await make_base(1)
    disk, prng = base.disk.copy(), Prng(5)
    content = disk.names[base.name()].data
    first = next(frame for frame in base.frames if frame.newest)
    copy = bytes(content[first.offset : first.offset + first.header.size])
    content[base.end + 512 : base.end + 512 + len(copy)] = copy
    content[base.end] = 1 + prng.below(200)
    assert judge(disk)[:2] == (Status.TORN, base.last)


async def test_open_names_file_offset_and_entries_and_changes_nothing() -> None:
    base = await make_base(4)
    disk = base.disk.copy()
    frame = base.frames[len(base.frames) // 2]
    disk.names[frame.name].data[frame.offset + HEADER_BYTES] ^= 1
    before = {name: bytes(inode.data) for name, inode in disk.names.items()}
    with pytest.raises(CorruptionError) as caught:
        await Wal.open(memory_world(disk), DIR, ME, SETTINGS)
    error = caught.value
    assert (error.file, error.offset) == (frame.name, frame.offset)
    assert (error.first, error.last) == (frame.header.first, frame.header.last)
    after = {name: bytes(inode.data) for name, inode in disk.names.items()}
    assert after == before


async def test_check_lists_all_damage_and_where_it_is() -> None:
    base = await make_base(3)
    disk = base.disk.copy()
    hit = [base.frames[3], base.frames[8], base.frames[-3]]
    for frame in hit:
        disk.names[frame.name].data[frame.offset + 70] ^= 1
    report = await check(memory_world(disk), DIR)
    assert report.status is Status.CORRUPT
    assert [(f"{DIR}/{one.segment}", one.offset) for one in report.damage] == [
        (frame.name, frame.offset) for frame in hit
    ]


async def test_a_frame_of_another_segment_is_never_taken_for_one_of_this() -> None:
    base, other = await make_base(1), await make_base(2)
    runs = merge([Run(RunKind.ENTRIES, base.last + 1, 3, [b"stale"])])
    stale, _ = encode_frame(
        encode_runs(runs), other.seed, seq=base.seq + 1, durable=base.seq, span=span(runs)
    )
    disk = base.disk.copy()
    disk.names[base.name()].data[base.end : base.end + len(stale)] = stale
    assert judge(disk)[:2] == (Status.TORN, base.last)
