"""What clients, administrators and nodes say to each other above the wire's frames.

Every request frame carries a ``stream`` number of the sender's choosing, which comes back on
the answer. Bodies are msgpack arrays of typed structs: nothing else is decoded.
"""

from enum import IntEnum

import msgspec


class Kind(IntEnum):
    """Frame kinds of the channels ``client`` and ``admin``."""

    COMMAND = 1
    """Body: an encoded ``Command``; answered by REPLY."""
    QUERY = 2
    """Body: :class:`Query`; answered by REPLY."""
    REGISTER = 3
    """Body: :class:`Register`; answered by REPLY whose body is the session id."""
    RESOLVE = 4
    """Body: :class:`Resolve`; answered by REPLY."""
    REPLY = 5
    """Body: an encoded ``Reply``."""
    VIEW = 6
    """Pushed by a node on connection and at every change: :class:`View`."""
    STATUS = 7
    """Empty body; answered by ANSWER with the node's status."""
    ADMIN = 8
    """Body: :class:`AdminRequest`, on channel ``admin``; answered by ANSWER."""
    ANSWER = 9
    """Body: :class:`Answer`."""


class Query(msgspec.Struct, array_like=True, frozen=True):
    """A read: ``linearizable`` (a read round) or ``stale`` (this replica's own state)."""

    name: str
    args: bytes
    stale: bool = False


class Register(msgspec.Struct, array_like=True, frozen=True):
    """Opens a session that expires after ``ttl`` seconds of log time without use; 0: default."""

    ttl: float = 0.0


class Resolve(msgspec.Struct, array_like=True, frozen=True):
    """Asks what became of a request: its cached answer, or a bar against it for ever."""

    session: int
    seq: int


class Seat(msgspec.Struct, array_like=True, frozen=True):
    """Where a member can be reached."""

    node: str
    address: str
    voter: bool = True


class View(msgspec.Struct, array_like=True, frozen=True):
    """Who leads and who is a member, as one node sees it.

    A view with a higher ``term`` replaces one with a lower. ``leader`` is empty while no leader
    of ``term`` is known.
    """

    term: int
    leader: str
    seats: list[Seat]
    machine: str = ""
    machine_version: int = 0


class AdminRequest(msgspec.Struct, array_like=True, frozen=True):
    """An administrator's request: ``member-add``, ``member-remove``, ``transfer``, ``admit``."""

    op: str
    node: str
    address: str = ""
    timeout: float = 30.0


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """Answer to an :class:`AdminRequest` or STATUS; ``error`` is empty on success."""

    error: str
    message: str
    facts: dict[str, object]
    hint: str = ""


CLIENT_CHANNEL = "client"
ADMIN_CHANNEL = "admin"
RAFT_CHANNEL = "raft"
BULK_CHANNEL = "bulk"
