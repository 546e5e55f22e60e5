"""How replicas of one Raft group reach each other: the protocol, and the bytes that travel.

Two channels per peer keep what is urgent apart from what is long: ``raft`` carries the core's
messages, ``bulk`` the chunks of snapshots, so that a heartbeat never queues behind a chunk.
Bodies are msgspec msgpack arrays; a peer of the next version may add fields at the end.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

import crc32c
import msgspec

from outlast.kernel import ProtocolError, ReplicaId
from outlast.log.api import Member
from outlast.log.engines.raft.core.types import AnyMessage

RAFT_CHANNEL = "raft"
"""Carries the messages of the core."""

BULK_CHANNEL = "bulk"
"""Carries chunks of snapshots."""


class FrameKind(IntEnum):
    """What a frame between replicas carries; one byte on the wire."""

    MESSAGE = 16
    CHUNK = 17
    CHUNK_GONE = 18


class PeerHandler(Protocol):
    """What a :class:`PeerTransport` calls, on the event loop, never from inside ``send``."""

    def received(self, sender: ReplicaId, channel: str, kind: int, body: bytes) -> None:
        """A frame has arrived from ``sender``."""
        ...

    def connected(self, replica: ReplicaId, channel: str) -> None:
        """Frames can now be sent to ``replica`` on ``channel``."""
        ...

    def lost(self, replica: ReplicaId, channel: str) -> None:
        """The connection is gone; frames under way may be lost."""
        ...


class PeerTransport(Protocol):
    """Sends frames to other replicas: in order, at most once, on two independent channels."""

    def send(self, replica: ReplicaId, channel: str, kind: int, body: bytes) -> bool:
        """Queue a frame. ``False``: not connected, or the send buffer is full; it is dropped.

        Never waits, and never calls the handler before it returns.
        """
        ...

    def set_handler(self, handler: PeerHandler | None) -> None:
        """Deliver what arrives to ``handler``; ``None`` drops it."""
        ...

    def update(self, members: Sequence[Member]) -> None:
        """Keep connections to ``members`` and drop those to others."""
        ...


class Chunk(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One chunk of a snapshot: chunk ``number`` of the one with ``index`` and ``digest``."""

    index: int
    digest: bytes
    number: int
    crc: int
    data: bytes


class ChunkGone(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The sender no longer keeps this snapshot, or cannot read it: ask for another one."""

    index: int
    digest: bytes


_encoder = msgspec.msgpack.Encoder()
_message_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)
_chunk_decoder = msgspec.msgpack.Decoder(Chunk)
_gone_decoder = msgspec.msgpack.Decoder(ChunkGone)

encode_message = _encoder.encode
"""Encode a message of the core."""


def decode_message(body: bytes) -> AnyMessage:
    """Return the message in ``body``.

    Raises:
        ProtocolError: Definite. Not a message of this protocol.
    """
    try:
        return _message_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"raft message of {len(body)} bytes: {error}") from error


def encode_chunk(index: int, digest: bytes, number: int, data: bytes) -> bytes:
    """Encode chunk ``number`` with its own CRC32C over ``data``."""
    return _encoder.encode(Chunk(index, digest, number, crc32c.crc32c(data), data))


def decode_chunk(body: bytes) -> Chunk:
    """Return the chunk in ``body``, its checksum verified.

    Raises:
        ProtocolError: Definite. Not a chunk, or damaged on the way.
    """
    try:
        chunk = _chunk_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"snapshot chunk of {len(body)} bytes: {error}") from error
    found = crc32c.crc32c(chunk.data)
    if found != chunk.crc:
        raise ProtocolError(
            f"snapshot {chunk.index}, chunk {chunk.number}: CRC32C is {found:08x}, "
            f"the sender wrote {chunk.crc:08x}"
        )
    return chunk


def encode_gone(index: int, digest: bytes) -> bytes:
    """Encode that the snapshot can no longer be sent."""
    return _encoder.encode(ChunkGone(index, digest))


def decode_gone(body: bytes) -> ChunkGone:
    """Return the :class:`ChunkGone` in ``body``.

    Raises:
        ProtocolError: Definite. Not one.
    """
    try:
        return _gone_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"snapshot notice of {len(body)} bytes: {error}") from error
