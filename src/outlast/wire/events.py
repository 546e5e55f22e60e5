"""Events of the wire."""

from dataclasses import dataclass

from outlast.kernel import Event
from outlast.kernel.events import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerStarted(Event):
    """A listener accepts connections at this address."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOpened(Event):
    """A handshake succeeded."""

    level: Level = "debug"
    channel: str
    peer: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed(Event):
    """A connection that had been opened has ended; ``reason`` is empty if this side closed it."""

    level: Level = "debug"
    channel: str
    peer: str
    address: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeRefused(Event):
    """A caller was turned away before anything it sent was acted on."""

    level: Level = "warning"
    address: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolBroken(Event):
    """A peer that had been admitted sent bytes that break the protocol; it was cut off."""

    level: Level = "warning"
    channel: str
    peer: str
    address: str
    reason: str
