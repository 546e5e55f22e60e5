"""Frames over TCP between processes: handshake, TLS, tokens and limits, on one listener.

Needs the extra ``client`` (msgspec, crc32c).
"""

from outlast.wire.address import Address, is_loopback, parse_address, parse_addresses
from outlast.wire.connection import Connection
from outlast.wire.core.frame import CONTROL, HEADER_BYTES, FrameDecoder, encode_frame
from outlast.wire.core.handshake import VERSIONS, Identity, Scope
from outlast.wire.dial import dial
from outlast.wire.events import (
    ConnectionClosed,
    ConnectionOpened,
    HandshakeRefused,
    ListenerStarted,
    ProtocolBroken,
)
from outlast.wire.handler import FrameHandler
from outlast.wire.limits import Limits
from outlast.wire.listener import Accept, WireListener
from outlast.wire.security import Security, Token, parse_tokens

__all__ = [
    "CONTROL",
    "HEADER_BYTES",
    "VERSIONS",
    "Accept",
    "Address",
    "Connection",
    "ConnectionClosed",
    "ConnectionOpened",
    "FrameDecoder",
    "FrameHandler",
    "HandshakeRefused",
    "Identity",
    "Limits",
    "ListenerStarted",
    "ProtocolBroken",
    "Scope",
    "Security",
    "Token",
    "WireListener",
    "dial",
    "encode_frame",
    "is_loopback",
    "parse_address",
    "parse_addresses",
    "parse_tokens",
]
