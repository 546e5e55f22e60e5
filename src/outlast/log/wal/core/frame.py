"""Frames: one group commit each, aligned to sectors, with separate checksums.

::

    magic u32 | header crc u32 | body crc u32 | body length u32 | flags u32 | entries u32
    sequence u64 | durable u64 | term u64 | first index u64 | last index u64 | body | zeros

The header's checksum covers the rest of the header, the body's checksum included; both are
CRC32C begun with the segment's seed, so that bytes of another segment or an older use of the
same blocks never validate. A header that stands while its body does not still tells which
entries were lost and where the next frame starts (protocol-aware recovery, FAST 2018).
``durable`` is the highest sequence whose fsync had returned when this frame was written: a
later frame testifies that an earlier one had been acknowledged.
"""

import struct
from typing import Final, NamedTuple

from crc32c import crc32c

ALIGN: Final = 512
MAGIC: Final = 0x4D52464F  # "OFRM"
MAGIC_BYTES: Final = MAGIC.to_bytes(4, "little")
HEADER: Final = struct.Struct("<IIIIIIQQQQQ")
HEADER_BYTES: Final = HEADER.size
FLAG_MARK: Final = 1
FLAG_SEAL: Final = 2
_CHECKED: Final = struct.Struct("<IIIIQQQQQ")


class FrameHeader(NamedTuple):
    """The fields of a frame's header, without its magic and own checksum."""

    body_crc: int
    length: int
    flags: int
    records: int
    seq: int
    durable: int
    term: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """Bytes that the whole frame takes on disk."""
        return frame_size(self.length)


def frame_size(body_bytes: int) -> int:
    """Return the bytes that a frame with such a body takes on disk, padding included."""
    return (HEADER_BYTES + body_bytes + ALIGN - 1) & -ALIGN


def encode_frame(
    body: bytes,
    seed: int,
    *,
    seq: int,
    durable: int,
    flags: int = 0,
    span: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> tuple[bytes, int]:
    """Return the frame's bytes, padded to whole sectors, and its body's checksum.

    Args:
        body: The encoded runs.
        seed: The segment's seed.
        seq: The frame's place in the physical sequence.
        durable: Highest sequence known durable.
        flags: ``FLAG_MARK``, ``FLAG_SEAL`` or 0.
        span: First index, last index, highest term and count of the entries inside.
    """
    first, last, term, count = span
    body_crc = crc32c(body, seed)
    rest = _CHECKED.pack(body_crc, len(body), flags, count, seq, durable, term, first, last)
    head = MAGIC_BYTES + crc32c(rest, seed).to_bytes(4, "little") + rest
    padding = -(HEADER_BYTES + len(body)) % ALIGN
    return b"".join((head, body, bytes(padding))), body_crc


def decode_header(data: memoryview, offset: int, seed: int) -> FrameHeader | None:
    """Return the header at ``offset`` if its magic and checksum hold, else ``None``."""
    if offset + HEADER_BYTES > len(data):
        return None
    magic, header_crc, *fields = HEADER.unpack_from(data, offset)
    if magic != MAGIC:
        return None
    if crc32c(data[offset + 8 : offset + HEADER_BYTES], seed) != header_crc:
        return None
    return FrameHeader(*fields)


def body_holds(data: memoryview, offset: int, header: FrameHeader, seed: int) -> bool:
    """Whether the whole body is there and its checksum holds."""
    start = offset + HEADER_BYTES
    end = start + header.length
    return end <= len(data) and crc32c(data[start:end], seed) == header.body_crc
