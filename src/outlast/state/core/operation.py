"""Operations on the system machine: what a ``SYSTEM`` entry may hold.

Tags are on disk for ever. A node that meets a tag it does not know stops and names the entry.
"""

import msgspec

from outlast.kernel import DataError
from outlast.state.core.limits import Limits


class Register(msgspec.Struct, array_like=True, tag=1):
    """Open a session; its id is the index of this entry. ``ttl_ns`` 0 takes the default."""

    ttl_ns: int = 0
    label: str = ""


class KeepAlive(msgspec.Struct, array_like=True, tag=2):
    """Use the sessions, so that they do not expire. Unknown ones are left out."""

    sessions: list[int]


class Close(msgspec.Struct, array_like=True, tag=3):
    """End a session; its replies are forgotten."""

    session: int


class Resolve(msgspec.Struct, array_like=True, tag=4):
    """Return the recorded reply of a request, or bar it for ever."""

    session: int
    seq: int


class TakeEpoch(msgspec.Struct, array_like=True, tag=5):
    """Take a role if its current epoch is ``expect`` (0 if nobody took it yet)."""

    role: str
    expect: int
    holder: str


class Announce(msgspec.Struct, array_like=True, tag=6):
    """Add or renew the row of a replica and say which versions it supports."""

    replica: str
    address: str = ""
    zone: str = ""
    machine_version: int = 1
    format_version: int = 1


class Forget(msgspec.Struct, array_like=True, tag=7):
    """Remove the row of a replica."""

    replica: str


class Raise(msgspec.Struct, array_like=True, tag=8):
    """Raise the active machine and format version, if every replica supports them."""

    machine_version: int
    format_version: int = 1


class AcquireLease(msgspec.Struct, array_like=True, tag=9):
    """Grant a lease if it is free, expired, or already this holder's."""

    name: str
    holder: str
    ttl_ns: int


class RenewLease(msgspec.Struct, array_like=True, tag=10):
    """Let a lease run ``ttl_ns`` from now, if ``token`` is still its token."""

    name: str
    token: int
    ttl_ns: int


class ReleaseLease(msgspec.Struct, array_like=True, tag=11):
    """Give a lease back, if ``token`` is still its token."""

    name: str
    token: int


class Configure(msgspec.Struct, array_like=True, tag=12):
    """Replace the limits."""

    limits: Limits


Operation = (
    Register
    | KeepAlive
    | Close
    | Resolve
    | TakeEpoch
    | Announce
    | Forget
    | Raise
    | AcquireLease
    | RenewLease
    | ReleaseLease
    | Configure
)


class Fence(msgspec.Struct, array_like=True):
    """Under which epoch an entry was written, and which of that epoch's it is, from 1."""

    role: str
    epoch: int
    seq: int


class SystemBody(msgspec.Struct, array_like=True):
    """Body of a ``SYSTEM`` entry. ``request`` lets its writer find the answer."""

    request: int
    operation: Operation
    fence: Fence | None = None


class MarkBody(msgspec.Struct, array_like=True):
    """Body of a ``MARK`` entry: every replica cuts a checkpoint here.

    ``index`` and ``digest`` are the writer's running digest at an earlier index (0 for none):
    a replica whose own differs there says so.
    """

    replica: str = ""
    index: int = 0
    digest: bytes = b""


class SkipBody(msgspec.Struct, array_like=True):
    """Body of a ``SKIP`` entry: the entry at ``index`` is not executed by anyone."""

    index: int


_encode = msgspec.msgpack.Encoder().encode
_decode_system = msgspec.msgpack.Decoder(SystemBody).decode
_decode_mark = msgspec.msgpack.Decoder(MarkBody).decode
_decode_skip = msgspec.msgpack.Decoder(SkipBody).decode


def encode_body(body: SystemBody | MarkBody | SkipBody) -> bytes:
    """Return the bytes of ``body``."""
    return _encode(body)


def _refused(what: str, index: int, error: Exception) -> DataError:
    return DataError(f"entry {index}: unknown {what} ({error}); run a newer outlast on this node")


def decode_system(body: bytes | memoryview, index: int) -> SystemBody:
    """Return the operation of a ``SYSTEM`` entry.

    Raises:
        DataError: An operation that this node does not know.
    """
    try:
        return _decode_system(body)
    except msgspec.MsgspecError as error:
        raise _refused("system operation", index, error) from error


def decode_mark(body: bytes | memoryview, index: int) -> MarkBody:
    """Return the body of a ``MARK`` entry; errors as :func:`decode_system`."""
    try:
        return _decode_mark(body)
    except msgspec.MsgspecError as error:
        raise _refused("mark", index, error) from error


def decode_skip(body: bytes | memoryview, index: int) -> SkipBody:
    """Return the body of a ``SKIP`` entry; errors as :func:`decode_system`."""
    try:
        return _decode_skip(body)
    except msgspec.MsgspecError as error:
        raise _refused("skip", index, error) from error
