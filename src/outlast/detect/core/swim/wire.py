"""Packets and streams as bytes: a version, then one array of MessagePack.

Every field has a type and a bound, checked by the decoder before anything is believed. What is
too long, too deep, of another type or version, or has something behind it, is a `WireError`.
"""

from typing import Annotated, Final, TypeAlias, TypeVar, cast

import msgspec
from msgspec import Meta, Raw

_T = TypeVar("_T")

VERSION: Final = 1
PACKET_BYTES_MAX: Final = 1200
STREAM_BYTES_MAX: Final = (1 << 20) - 1024  # what seals it fits into a mebibyte, too
METADATA_BYTES_MAX: Final = 512
NAME_BYTES_MAX: Final = 64
INCARNATION_MAX: Final = 1 << 48
UPDATES_MAX: Final = 128
ACCUSATIONS_MAX: Final = 8

_Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
_Address: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
_Incarnation: TypeAlias = Annotated[int, Meta(ge=0, le=INCARNATION_MAX)]
_Session: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Seq: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Few: TypeAlias = Annotated[int, Meta(ge=0, le=255)]
_Key: TypeAlias = Annotated[str, Meta(max_length=128)]
_Value: TypeAlias = Annotated[str, Meta(max_length=METADATA_BYTES_MAX)]
_Metadata: TypeAlias = Annotated[dict[_Key, _Value], Meta(max_length=64)]


class WireError(ValueError):
    """Bytes that are no message of ours. Caught where they come in; never leaves the core."""


class Shape(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """What all messages have in common."""


class Accusation(Shape):
    """One accuser's word and what it saw; ``refused`` or silent for ``silence_ms``."""

    by: _Name
    refused: bool
    silence_ms: Annotated[int, Meta(ge=0, lt=1 << 40)]
    asked: _Few = 0
    nacks: _Few = 0
    observers: _Few = 0
    score: _Few = 0


_Accusations: TypeAlias = Annotated[list[Accusation], Meta(max_length=ACCUSATIONS_MAX)]


class AliveNews(Shape, tag=0):
    """A member says of itself that it lives."""

    name: _Name
    address: _Address
    incarnation: _Incarnation
    session: _Session
    metadata: _Metadata


class SuspectNews(Shape, tag=1):
    """Some could not reach a member."""

    name: _Name
    incarnation: _Incarnation
    accusations: _Accusations


class DeadNews(Shape, tag=2):
    """A member has been removed, on the word of these."""

    name: _Name
    incarnation: _Incarnation
    accusations: _Accusations


class LeftNews(Shape, tag=3):
    """A member has said good-bye."""

    name: _Name
    incarnation: _Incarnation


News: TypeAlias = AliveNews | SuspectNews | DeadNews | LeftNews
_Updates: TypeAlias = Annotated[list[News], Meta(max_length=UPDATES_MAX)]


class Ping(Shape, tag=0):
    """Are you there, ``target``?"""

    seq: _Seq
    sender: _Name
    incarnation: _Incarnation
    target: _Name
    updates: _Updates


class Ack(Shape, tag=1):
    """I am; ``unknown``: introduce yourself. ``sender`` is who was asked for, also if relayed."""

    seq: _Seq
    sender: _Name
    incarnation: _Incarnation
    unknown: bool
    updates: _Updates


class PingRequest(Shape, tag=2):
    """Try ``target`` for me."""

    seq: _Seq
    sender: _Name
    incarnation: _Incarnation
    target: _Name
    address: _Address
    updates: _Updates


class Nack(Shape, tag=3):
    """I have tried, and got no answer, or a refusal."""

    seq: _Seq
    sender: _Name
    incarnation: _Incarnation
    refused: bool
    updates: _Updates


class Gossip(Shape, tag=4):
    """News only."""

    sender: _Name
    incarnation: _Incarnation
    updates: _Updates


class Leaving(Shape, tag=5):
    """Good-bye; answer with `Ack`."""

    seq: _Seq
    sender: _Name
    incarnation: _Incarnation


Message: TypeAlias = Ping | Ack | PingRequest | Nack | Gossip | Leaving


class Entry(Shape):
    """One member in a full exchange. ``state``: 0 alive, 1 suspect, 2 dead, 3 left."""

    name: _Name
    address: _Address
    incarnation: _Incarnation
    session: _Session
    state: Annotated[int, Meta(ge=0, le=3)]
    metadata: _Metadata
    accusations: _Accusations


_Entries: TypeAlias = Annotated[list[Entry], Meta(max_length=10_001)]


class Exchange(Shape, tag=0):
    """All that the sender knows; answer with the same."""

    sender: _Name
    entries: _Entries


class ExchangeAnswer(Shape, tag=1):
    """All that is known, with what the question brought."""

    sender: _Name
    entries: _Entries


class StreamPing(Shape, tag=2):
    """Are you there? For when datagrams do not arrive."""

    seq: _Seq
    sender: _Name
    target: _Name


class StreamAck(Shape, tag=3):
    """I am."""

    seq: _Seq
    sender: _Name
    incarnation: _Incarnation


StreamBody: TypeAlias = Exchange | ExchangeAnswer | StreamPing | StreamAck

_encoder = msgspec.msgpack.Encoder()
_packets: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_streams: msgspec.msgpack.Decoder[StreamBody] = msgspec.msgpack.Decoder(StreamBody)
_HEAD: Final = bytes([VERSION])


def encode(message: Message | StreamBody) -> bytes:
    """Return a message as bytes."""
    return _HEAD + _encoder.encode(message)


def piece(news: News) -> bytes:
    """Return one piece of news as bytes, to be put into messages as it is."""
    return _encoder.encode(news)


def carried(pieces: list[bytes]) -> list[News]:
    """Return encoded news in the place of ``updates``: the encoder copies them as they are."""
    return cast("list[News]", [Raw(one) for one in pieces])


def metadata_bytes(metadata: object) -> int:
    """Return how many bytes metadata take in a message."""
    return len(_encoder.encode(metadata))


def decode_packet(data: bytes) -> Message:
    """Return the message in a datagram.

    Raises:
        WireError: It is none.
    """
    return _decode(_packets, data, PACKET_BYTES_MAX)


def decode_stream(data: bytes) -> StreamBody:
    """Return the message in a stream's body.

    Raises:
        WireError: It is none.
    """
    return _decode(_streams, data, STREAM_BYTES_MAX)


def _decode(decoder: "msgspec.msgpack.Decoder[_T]", data: bytes, most: int) -> _T:
    if len(data) > most:
        raise WireError("too long")
    if not data or data[0] != VERSION:
        raise WireError("unknown version")
    try:
        return decoder.decode(memoryview(data)[1:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError("malformed") from error
