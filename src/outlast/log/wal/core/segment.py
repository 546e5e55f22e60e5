"""Segments: the header at the start, the footer (seal) at the end, and their names.

A segment's header is durable before its file has its final name, so a segment whose header
does not read was damaged. The header repeats what a reader needs when all earlier segments
have been trimmed: hard state and the last entry before it. The footer of a sealed segment
holds the place, checksum and index of every frame, away from the frames themselves, and a
digest that the next segment's header repeats: segments form a chain.
"""

import hashlib
import struct
from typing import Final

import msgspec
from crc32c import crc32c

FORMAT: Final = 1
"""The newest format that this version reads and the one it writes."""

SEGMENT_MAGIC: Final = b"OUTLSEG1"
SEGMENT_HEADER_BYTES: Final = 4096
SUFFIX: Final = ".seg"
_PREFIX: Final = struct.Struct("<8sIII")  # magic, checksum, format, length
_ROW: Final = struct.Struct("<IIQQ")  # offset / 512, body checksum, first index, term
ROW_BYTES: Final = _ROW.size


class SegmentHeader(msgspec.Struct, frozen=True):
    """What the first sectors of a segment say; keys are written by name."""

    uuid: bytes
    cluster: str
    log: str
    replica: str
    incarnation: int
    first_seq: int
    chain: bytes
    """Digest of the previous segment's footer; empty for the first segment."""
    last_index: int
    last_term: int
    term: int
    vote: str

    @property
    def seed(self) -> int:
        """What every checksum of a frame in this segment begins with."""
        return crc32c(self.uuid)


class NewerFormatError(Exception):
    """The bytes were written in a newer format, named by ``args[0]``."""


def encode_segment_header(header: SegmentHeader) -> bytes:
    """Return the header padded to ``SEGMENT_HEADER_BYTES``."""
    return encode_checked(SEGMENT_MAGIC, msgspec.msgpack.encode(header), SEGMENT_HEADER_BYTES)


def decode_segment_header(data: bytes) -> SegmentHeader | None:
    """Return the header in ``data``, ``None`` if it is damaged.

    Raises:
        NewerFormatError: It is whole, and of a newer format.
    """
    body = decode_checked(SEGMENT_MAGIC, data)
    return None if body is None else msgspec.msgpack.decode(body, type=SegmentHeader)


def encode_checked(magic: bytes, body: bytes, size: int) -> bytes:
    """Return ``body`` behind magic, checksum, format and length, padded to ``size``."""
    rest = FORMAT.to_bytes(4, "little") + len(body).to_bytes(4, "little") + body
    data = magic + crc32c(rest).to_bytes(4, "little") + rest
    return data.ljust(size, b"\0")


def decode_checked(magic: bytes, data: bytes) -> bytes | None:
    """Return the body that :func:`encode_checked` wrapped, ``None`` if it is damaged.

    Raises:
        NewerFormatError: The bytes are whole, and of a newer format.
    """
    if len(data) < _PREFIX.size:
        return None
    found, checksum, version, length = _PREFIX.unpack_from(data)
    end = _PREFIX.size + length
    if found != magic or end > len(data) or crc32c(memoryview(data)[12:end]) != checksum:
        return None
    if version > FORMAT:
        raise NewerFormatError(version)
    return data[_PREFIX.size : end]


def segment_name(first_seq: int, incarnation: int) -> str:
    """Return the file name of a segment; names sort by first sequence."""
    return f"{first_seq:020d}-{incarnation:08x}{SUFFIX}"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """Return (first sequence, incarnation) of a segment's file name, ``None`` of another."""
    stem, dot, suffix = name.partition(".")
    seq, dash, incarnation = stem.partition("-")
    if dot + suffix != SUFFIX or not dash or not seq.isdigit():
        return None
    try:
        return int(seq), int(incarnation, 16)
    except ValueError:
        return None


class FooterIndex:
    """The rows of a segment's footer: one per frame, in order."""

    __slots__ = ("_rows", "count")

    def __init__(self, rows: bytes = b"") -> None:
        self._rows = bytearray(rows)
        self.count = len(rows) // ROW_BYTES

    def add(self, offset: int, body_crc: int, first: int, term: int) -> None:
        """Add the next frame."""
        self._rows += _ROW.pack(offset // 512, body_crc, first, term)
        self.count += 1

    def row(self, number: int) -> tuple[int, int, int, int]:
        """Return (offset, body checksum, first index, term) of frame ``number`` from 0."""
        sector, body_crc, first, term = _ROW.unpack_from(self._rows, number * ROW_BYTES)
        return sector * 512, body_crc, first, term

    def digest(self, chain: bytes) -> bytes:
        """Return the digest over all frames so far and the segments before (``chain``)."""
        return hashlib.blake2b(bytes(self._rows), digest_size=16, key=chain).digest()

    def encode(self, chain: bytes) -> bytes:
        """Return the footer's body."""
        return msgspec.msgpack.encode((self.digest(chain), bytes(self._rows)))


def decode_footer(body: bytes | memoryview) -> tuple[bytes, FooterIndex]:
    """Return (digest, index) of a footer's body."""
    digest, rows = msgspec.msgpack.decode(body, type=tuple[bytes, bytes])
    return digest, FooterIndex(rows)
