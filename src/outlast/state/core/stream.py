"""The bytes of a snapshot: frames of any length, cut into chunks of at most 1 MiB.

A snapshot is one stream: a head, the system machine, then the user's machine as its runner
gives it. Frames are of very different lengths, chunks are what is written, sent, checked and
resumed; so the stream is cut without regard to frames, and equal frames give equal chunks.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from outlast.kernel import CorruptionError, DataError

CHUNK_BYTES = 1 << 20
FORMAT = 1
_MAGIC = "outlast-snapshot"
_LENGTH = struct.Struct("<I")

_encode = msgspec.msgpack.Encoder().encode


class Head(msgspec.Struct, array_like=True):
    """First frame of a snapshot: what it is, so that a foreign one is refused by name."""

    magic: str
    format: int
    cluster: str
    machine: str
    machine_version: int
    schema: dict[str, Any]
    index: int


def make_head(
    *, cluster: str, machine: str, machine_version: int, schema: dict[str, Any], index: int
) -> bytes:
    """Return the first frame."""
    return _encode(Head(_MAGIC, FORMAT, cluster, machine, machine_version, schema, index))


def read_head(frame: bytes, *, cluster: str, machine: str) -> Head:
    """Return the head in ``frame`` if it belongs here.

    Raises:
        DataError: No snapshot, a newer format, or of another cluster or machine.
    """
    try:
        fields = msgspec.msgpack.decode(frame, type=list[Any])
        known = fields[:2] == [_MAGIC, FORMAT]
        head = msgspec.msgpack.decode(frame, type=Head) if known else None
    except msgspec.MsgspecError as error:
        raise DataError(f"snapshot: the head cannot be read: {error}") from error
    if head is None:
        raise DataError(f"snapshot: head {fields[:2]!r}, expected {[_MAGIC, FORMAT]!r}")
    if head.cluster != cluster:
        raise DataError(f"snapshot of cluster {head.cluster!r}; this one is {cluster!r}")
    if head.machine != machine:
        raise DataError(f"snapshot of machine {head.machine!r}; this one is {machine!r}")
    return head


class Cutter:
    """Collects frames and gives whole chunks."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, frame: bytes) -> list[bytes]:
        """Take one frame and return the chunks that are complete now."""
        self._parts += (_LENGTH.pack(len(frame)), frame)
        self._size += _LENGTH.size + len(frame)
        if self._size < CHUNK_BYTES:
            return []
        whole = b"".join(self._parts)
        end = self._size - self._size % CHUNK_BYTES
        self._parts = [whole[end:]]
        self._size -= end
        return [whole[at : at + CHUNK_BYTES] for at in range(0, end, CHUNK_BYTES)]

    def finish(self) -> list[bytes]:
        """Return the last chunk, which is shorter, if anything is left."""
        last = b"".join(self._parts)
        self._parts, self._size = [], 0
        return [last] if last else []


def frames(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the frames of a snapshot's chunks.

    Raises:
        CorruptionError: The stream ends within a frame.
    """
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        at = 0
        while len(buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, at)
            end = at + _LENGTH.size + length
            if end > len(buffer):
                break
            yield bytes(memoryview(buffer)[at + _LENGTH.size : end])
            at = end
        del buffer[:at]
    if buffer:
        raise CorruptionError(f"snapshot: the stream ends {len(buffer)} bytes into a frame")
