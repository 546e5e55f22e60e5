"""Scanning a segment, and telling a torn tail from damage.

Frames are read from the header on. At the first bad place there are three cases:

* *clean end*: zeros to the end, and nobody testifies that more was durable;
* *torn*: the write that a crash interrupted. It was never acknowledged: nothing later says
  that it had been durable. Only this may be cut, into quarantine;
* *corrupt*: a later frame of this segment, a seal, or ``CURRENT`` says that the sequence at
  the bad place was durable. It is named, and never dropped.

Frames are written one at a time, each after the fsync of the one before, so a valid frame
after a bad one always testifies against it. A sealed segment has no torn tail: every bad
frame in it is corrupt.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
from crc32c import crc32c

from outlast.kernel import InvariantError
from outlast.log.wal.core.frame import (
    ALIGN,
    FLAG_SEAL,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    MAGIC_BYTES,
    FrameHeader,
    body_holds,
    decode_header,
    frame_size,
)
from outlast.log.wal.core.runs import decode_heads
from outlast.log.wal.core.segment import SEGMENT_HEADER_BYTES, FooterIndex, decode_footer
from outlast.log.wal.core.view import Places, View, place_frame, replay_heads

_CHUNK = bytes(1 << 20)


class Status(StrEnum):
    """How a segment, or a whole log, ends."""

    CLEAN = "clean"
    TORN = "torn"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class Damage:
    """One bad place. ``seq`` is the physical sequence that should be there.

    ``first`` and ``last`` are the log indices touched, ``term`` their highest term; 0 where
    unknown. ``kind`` says what is wrong: ``torn``, ``frame``, ``sequence``, ``content``,
    ``segment header``, ``seal``, ``missing segment``, ``chain``, ``unreadable`` or ``CURRENT``.
    """

    segment: str
    offset: int
    first: int
    last: int
    term: int
    kind: str
    seq: int = 0

    def __str__(self) -> str:
        """Return the one line that an operator reads."""
        entries = f"entries {self.first} to {self.last or '?'}" if self.first else "no entries"
        return (
            f"{self.segment}: {self.kind} at byte {self.offset}"
            f" (sequence {self.seq}, {entries}, term {self.term})"
        )


@dataclass(slots=True)
class SegmentScan:
    """What was found in one segment. ``end`` is the offset after the last good frame."""

    status: Status
    end: int
    next_seq: int
    sealed: bool = False
    digest: bytes = b""
    damage: list[Damage] = field(default_factory=list)
    index: FooterIndex = field(default_factory=FooterIndex)


def scan_segment(
    name: str,
    number: int,
    data: bytes,
    *,
    seed: int,
    first_seq: int,
    chain: bytes,
    durable: int,
    must_be_sealed: bool,
    view: View,
    places: Places,
) -> SegmentScan:
    """Read all frames of a segment into ``view`` and ``places``, and classify its end.

    Args:
        name: The file's name, for messages.
        number: The segment's number in ``places``.
        data: The whole file.
        seed: The segment's checksum seed.
        first_seq: Sequence of its first frame.
        chain: Digest that its seal must be chained to.
        durable: Highest sequence that others (``CURRENT``) say was durable.
        must_be_sealed: Whether a later segment exists.
        view: Resolved view so far; extended in place.
        places: Places so far; extended in place.
    """
    mem = memoryview(data)
    size = len(data)
    unpack, seq, offset = HEADER.unpack_from, first_seq, SEGMENT_HEADER_BYTES
    scan = SegmentScan(Status.CLEAN, offset, seq)
    index = scan.index
    while offset + HEADER_BYTES <= size:
        start = offset + HEADER_BYTES
        magic, header_crc, body_crc, length, flags, _, found, _, term, first, _ = unpack(
            data, offset
        )
        if magic != MAGIC or found != seq or crc32c(mem[offset + 8 : start], seed) != header_crc:
            break
        end = start + length
        if end > size or crc32c(mem[start:end], seed) != body_crc:
            break
        if flags & FLAG_SEAL:
            scan.sealed = True
            scan.digest, footer = decode_footer(mem[start:end])
            if scan.digest != index.digest(chain) or footer.count != index.count:
                scan.damage.append(Damage(name, offset, 0, 0, term, "seal", seq))
                scan.status = Status.CORRUPT
        elif not flags:
            try:
                runs = decode_heads(mem[start:end])
                replay_heads(view, runs)
            except (msgspec.DecodeError, InvariantError):
                scan.damage.append(Damage(name, offset, first, 0, term, "content", seq))
                scan.status = Status.CORRUPT
                break
            place_frame(places, runs, number, offset, length)
        index.add(offset, body_crc, first, term)
        offset = (end + ALIGN - 1) & -ALIGN
        seq += 1
        if scan.sealed:
            break
    scan.end, scan.next_seq = offset, seq
    if scan.status is not Status.CORRUPT and not (scan.sealed and zeros_from(data, offset)):
        _classify(
            scan, name, data, seed,
            durable=durable, must_be_sealed=must_be_sealed, last=view.last,
        )  # fmt: skip
    return scan


def _classify(
    scan: SegmentScan,
    name: str,
    data: bytes,
    seed: int,
    *,
    durable: int,
    must_be_sealed: bool,
    last: int,
) -> None:
    """Decide what the bad place at ``scan.end`` is."""
    offset, seq = scan.end, scan.next_seq
    mem = memoryview(data)
    header = decode_header(mem, offset, seed)
    later = next_frame(data, seed, offset + ALIGN, above=seq)
    claimed = max(durable, later[1].durable if later else 0)
    if zeros_from(data, offset) and not must_be_sealed and claimed < seq:
        return
    wrong_seq = header is not None and header.seq != seq
    if must_be_sealed or scan.sealed or wrong_seq or claimed >= seq:
        scan.status = Status.CORRUPT
        scan.damage.append(
            _describe(name, offset, seq, header, later=later, last=last, data=data, seed=seed)
        )
        return
    scan.status = Status.TORN
    first, end, term = (header.first, header.last, header.term) if header else (0, 0, 0)
    scan.damage.append(Damage(name, offset, first, end, term, "torn", seq))


def _describe(
    name: str,
    offset: int,
    seq: int,
    header: FrameHeader | None,
    *,
    later: tuple[int, FrameHeader] | None,
    last: int,
    data: bytes,
    seed: int,
) -> Damage:
    """Name what was lost: by the frame's own header, the footer, or its neighbours."""
    if header is not None and header.seq == seq:
        return Damage(name, offset, header.first, header.last, header.term, "frame", seq)
    if header is not None:
        return Damage(name, offset, last + 1, 0, header.term, "sequence", seq)
    footer = find_footer(data, seed)
    if footer is not None:
        for number in range(footer.count):
            at, _, first, term = footer.row(number)
            if at == offset:
                after = [footer.row(n)[2] for n in range(number + 1, footer.count)]
                known = [index for index in after if index]
                return Damage(
                    name, offset, first, known[0] - 1 if known else 0, term, "frame", seq
                )
    if later is not None and later[1].first > last + 1:
        return Damage(name, offset, last + 1, later[1].first - 1, later[1].term, "frame", seq)
    return Damage(name, offset, last + 1, 0, 0, "frame", seq)


def next_frame(
    data: bytes, seed: int, start: int, *, above: int = 0, whole: bool = False
) -> tuple[int, FrameHeader] | None:
    """Return (offset, header) of the first frame from ``start`` whose header holds.

    Args:
        data: The whole segment.
        seed: Its checksum seed.
        start: Where to begin, a multiple of a sector.
        above: Pass over frames whose sequence is not higher: entries may hold copies of them.
        whole: Pass over frames whose body does not hold.
    """
    mem = memoryview(data)
    at = data.find(MAGIC_BYTES, start)
    while at >= 0:
        if at % ALIGN == 0:
            header = decode_header(mem, at, seed)
            if (
                header is not None
                and header.seq > above
                and (not whole or body_holds(mem, at, header, seed))
            ):
                return at, header
        at = data.find(MAGIC_BYTES, at + 1)
    return None


def all_damage(name: str, data: bytes, seed: int, first: SegmentScan) -> list[Damage]:
    """Return every bad place of a corrupt segment, going on after each."""
    found = list(first.damage)
    offset = first.end + ALIGN
    mem = memoryview(data)
    while True:
        later = next_frame(data, seed, offset, above=first.next_seq, whole=True)
        if later is None:
            return found
        offset, seq = later[0], later[1].seq
        header: FrameHeader | None = later[1]
        while header is not None and header.seq == seq and body_holds(mem, offset, header, seed):
            offset += frame_size(header.length)
            seq += 1
            if header.flags & FLAG_SEAL:
                return found
            header = decode_header(mem, offset, seed)
        later = next_frame(data, seed, offset + ALIGN, above=seq)
        if later is None and zeros_from(data, offset):
            return found
        found.append(
            _describe(name, offset, seq, header, later=later, last=0, data=data, seed=seed)
        )
        offset += ALIGN


def find_footer(data: bytes, seed: int) -> FooterIndex | None:
    """Return the index in the segment's seal, searched from the end."""
    mem = memoryview(data)
    at = data.rfind(MAGIC_BYTES)
    while at >= 0:
        if at % ALIGN == 0:
            header = decode_header(mem, at, seed)
            if header is not None and body_holds(mem, at, header, seed):
                if not header.flags & FLAG_SEAL:
                    return None
                body = mem[at + HEADER_BYTES : at + HEADER_BYTES + header.length]
                return decode_footer(body)[1]
        at = data.rfind(MAGIC_BYTES, 0, at)
    return None


def zeros_from(data: bytes, offset: int) -> bool:
    """Whether only zeros follow ``offset``."""
    for at in range(offset, len(data), len(_CHUNK)):
        part = data[at : at + len(_CHUNK)]
        if part != _CHUNK[: len(part)]:
            return False
    return True
