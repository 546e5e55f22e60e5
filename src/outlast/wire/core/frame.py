"""Frames: how messages are cut out of a stream of bytes.

A frame is a header of 16 bytes and a body, little-endian::

    length u32 | crc32c u32 | kind u8 | flags u8 | 0 u16 | stream u32 | body (length bytes)

The checksum covers everything after itself (kind, flags, the two zero bytes, stream, body), so
it is one pass over contiguous memory. The length is not in it: a wrong length moves the end of
the body and so fails the check as well, or is above the limit and refused before any buffering.
A damaged stream is never resynchronised: the decoder fails once and for all.
"""

import struct
from typing import Final

from crc32c import crc32c

from outlast.kernel import ProtocolError
from outlast.wire.limits import Limits

HEADER_BYTES: Final = 16

CONTROL: Final = 0xF0
"""Kinds from here on belong to the wire itself; users of a channel have 0 to 0xEF."""

HELLO: Final = 0xF0
WELCOME: Final = 0xF1
REFUSE: Final = 0xF2
PING: Final = 0xF3

Frame = tuple[int, int, bytes]
"""Kind, stream and body of one frame."""

_HEAD = struct.Struct("<II")
_TAIL = struct.Struct("<BBHI")
_HEADER = struct.Struct("<IIBBHI")
_head = _HEAD.pack
_tail = _TAIL.pack
_header_from = _HEADER.unpack_from
_JOIN_BYTES = 8192


def encode_frame(kind: int, stream: int, body: bytes) -> bytes:
    """Return one frame. ``kind`` is 0 to 255, ``stream`` 0 to 2**32 - 1.

    Raises:
        ProtocolError: Definite. A number does not fit its field.

    >>> encode_frame(1, 7, b"hi").hex(" ", -4)
    '02000000 73d93eaa 01000000 07000000 6869'
    """
    try:
        tail = _tail(kind, 0, 0, stream)
        if len(body) < _JOIN_BYTES:
            rest = tail + body
            return _head(len(body), crc32c(rest)) + rest
        return b"".join((_head(len(body), crc32c(body, crc32c(tail))), tail, body))
    except struct.error as error:
        raise ProtocolError(
            f"frame: kind {kind}, stream {stream}, body of {len(body)} bytes: kind has 8 bits, "
            "stream and length 32"
        ) from error


def _refuse_length(length: int, limit: int, head: bytes) -> ProtocolError:
    looks = ""
    if head[:3] in {b"\x16\x03\x01", b"\x16\x03\x03"}:
        looks = "; this looks like TLS, and this listener speaks plain frames"
    elif head[:4] in {b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"HTTP"}:
        looks = "; this looks like HTTP, which has its own port"
    return ProtocolError(f"frame of {length} bytes; at most {limit} are allowed here{looks}")


class FrameDecoder:
    """Turns received bytes into frames, however they were cut into pieces.

    Holds at most one incomplete frame: ``frame_bytes_max`` and one received piece. After the
    first error every further call raises the same error again. Frames that came complete in
    the same piece as the damage are dropped with it.

    Args:
        limits: Gives ``frame_bytes_max``.
        bytes_max: Another bound on the body, such as that of the handshake.
    """

    __slots__ = ("_buffer", "_failed", "_limit", "_need")

    def __init__(self, limits: Limits, bytes_max: int | None = None) -> None:
        self._limit = limits.frame_bytes_max if bytes_max is None else bytes_max
        self._buffer = bytearray()
        self._need = HEADER_BYTES
        self._failed: ProtocolError | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of an incomplete frame now held."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that ``data`` completes, in order.

        Raises:
            ProtocolError: Definite. Length above the limit, reserved bits set, or checksum
                wrong. The stream cannot be used any more.
        """
        if self._buffer:
            return self._feed_held(data)
        if self._failed is not None:
            raise self._failed
        frames: list[Frame] = []
        self._cut(data, frames, -1)
        return frames

    def feed_one(self, data: bytes) -> tuple[Frame | None, bytes]:
        """Return the first complete frame, if any, and the bytes after it, not looked at.

        For a handshake: what follows the first message is under other limits.

        Raises:
            ProtocolError: As :meth:`feed`.
        """
        if self._failed is not None:
            raise self._failed
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer)
            self._buffer.clear()
        frames: list[Frame] = []
        end = self._cut(data, frames, 1)
        return (frames[0], data[end:]) if frames else (None, b"")

    def _feed_held(self, data: bytes) -> list[Frame]:
        if self._failed is not None:
            raise self._failed
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._need:
            return []
        whole = bytes(buffer)
        buffer.clear()
        frames: list[Frame] = []
        self._cut(whole, frames, -1)
        return frames

    def _cut(self, data: bytes, frames: list[Frame], count: int) -> int:
        """Append up to ``count`` frames (all if negative); keep an incomplete rest."""
        size = len(data)
        limit = self._limit
        at = 0
        while size - at >= HEADER_BYTES and count:
            length, crc, kind, flags, zero, stream = _header_from(data, at)
            if length > limit:
                raise self._fail(_refuse_length(length, limit, data[at : at + 4]))
            if flags or zero:
                raise self._fail(
                    ProtocolError(f"frame with reserved bits set: flags {flags}, zero {zero}")
                )
            begin = at + HEADER_BYTES
            end = begin + length
            if end > size:
                self._need = HEADER_BYTES + length
                break
            covered = (
                data[at + 8 : end] if length < _JOIN_BYTES else memoryview(data)[at + 8 : end]
            )
            if crc32c(covered) != crc:
                raise self._fail(
                    ProtocolError(
                        f"frame of kind {kind}, {length} bytes: checksum is {crc:#010x}, "
                        f"computed {crc32c(covered):#010x}"
                    )
                )
            frames.append((kind, stream, data[begin:end]))
            at = end
            count -= 1
        else:
            self._need = HEADER_BYTES
        if at < size and count:
            self._buffer += data[at:] if at else data
        return at

    def _fail(self, error: ProtocolError) -> ProtocolError:
        self._failed = error
        self._buffer.clear()
        return error
