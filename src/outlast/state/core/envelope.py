"""The envelope: how commands, system operations and marks lie in the bytes of a log entry.

An entry is a header of 32 bytes and a body. The header says which format and kind the entry
has, so that a node that meets something newer than itself can stop and say what it met,
instead of skipping what others execute. The body of a ``COMMANDS`` entry is a msgpack array
put together from commands that clients encoded: nothing is encoded a second time, and one
call decodes them all.

Header, little-endian::

    format u8 | kind u8 | machine_version u16 | count u32 |
    system_epoch u64 | log_time_ns u64 | wall_ns u64

``system_epoch`` is the epoch of role ``system`` under which ``log_time_ns`` was measured, 0
if the writer held none: such an entry does not move log time.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec

from outlast.kernel import CorruptionError, DataError

FORMAT = 1
"""The newest entry format that this code reads and the one that it writes."""

HEADER_BYTES = 32
COUNT_MAX = 65_535
"""Most commands in one entry."""

_HEADER = struct.Struct("<BBHIQQQ")
_ARRAY = struct.Struct(">BI")
_ARRAY32 = 0xDD
_VERSION_MAX = 65_535


class Kind(IntEnum):
    """What an entry holds. Numbers are on disk for ever; a new kind gets a new number."""

    NOOP = 0
    COMMANDS = 1
    SYSTEM = 2
    TICK = 3
    MARK = 4
    SKIP = 5
    CHANGES = 6


class Command(msgspec.Struct, array_like=True, gc=False):
    """One command as its client encoded it.

    Args:
        session: Index of the session's Register entry.
        seq: Number of the request in the session, from 1.
        ack_below: The client has the answers of all requests below this one.
        name: Name of the command in the machine.
        args: Its arguments, a msgpack map by parameter name.
        key: Idempotency key, or empty. At most 255 characters.
    """

    session: int
    seq: int
    ack_below: int
    name: str
    args: bytes
    key: str = ""


class Header(NamedTuple):
    """The fields in front of every entry's body."""

    kind: int
    machine_version: int = 0
    command_count: int = 0
    system_epoch: int = 0
    log_time_ns: int = 0
    wall_ns: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode_commands = msgspec.msgpack.Decoder(list[Command]).decode
_decode_command = msgspec.msgpack.Decoder(Command).decode


def encode_command(  # noqa: PLR0917 - the fields of Command, in their order
    session: int, seq: int, ack_below: int, name: str, args: bytes, key: str = ""
) -> bytes:
    """Return the bytes of a :class:`Command` as a client sends them."""
    return _encode((session, seq, ack_below, name, args, key))


def decode_command(body: bytes) -> Command:
    """Return the command in ``body``.

    Raises:
        msgspec.DecodeError: It is not a command.
    """
    return _decode_command(body)


def pack_entry(header: Header, body: bytes = b"") -> bytes:
    """Return the entry with ``header`` and ``body``."""
    kind, machine_version, count, epoch, log_time_ns, wall_ns = header
    return _HEADER.pack(FORMAT, kind, machine_version, count, epoch, log_time_ns, wall_ns) + body


def pack_commands(
    commands: Sequence[bytes],
    *,
    machine_version: int,
    system_epoch: int,
    log_time_ns: int,
    wall_ns: int,
) -> bytes:
    """Return one entry that holds ``commands``, each already encoded, in that order."""
    count = len(commands)
    head = _HEADER.pack(
        FORMAT, Kind.COMMANDS, machine_version, count, system_epoch, log_time_ns, wall_ns
    )
    return b"".join((head, _ARRAY.pack(_ARRAY32, count), *commands))


def overhead_bytes() -> int:
    """Return how many bytes an entry of commands takes besides its commands."""
    return HEADER_BYTES + _ARRAY.size


def unpack_entry(entry: bytes, index: int) -> tuple[Header, memoryview]:
    """Return the header and the body of the entry at ``index``.

    Raises:
        DataError: A newer format or an unknown kind: this node must not go on past it.
        CorruptionError: Shorter than a header, or of format 0.
    """
    if len(entry) < HEADER_BYTES:
        message = f"entry {index}: {len(entry)} bytes is no entry, expected {HEADER_BYTES} or more"
        raise CorruptionError(message, first=index, last=index)
    version, kind, machine_version, count, epoch, log_time_ns, wall_ns = _HEADER.unpack_from(entry)
    if version > FORMAT:
        raise DataError(
            f"entry {index}: format {version} is newer than {FORMAT}, the newest known here; "
            "run a newer outlast on this node"
        )
    if version < 1:
        message = f"entry {index}: format {version} was never written; expected 1 to {FORMAT}"
        raise CorruptionError(message, first=index, last=index)
    if kind > Kind.CHANGES:
        raise DataError(
            f"entry {index}: unknown kind {kind}, the highest known here is "
            f"{int(Kind.CHANGES)}; run a newer outlast on this node"
        )
    header = Header(kind, machine_version, count, epoch, log_time_ns, wall_ns)
    return header, memoryview(entry)[HEADER_BYTES:]


def unpack_commands(body: bytes | memoryview, count: int, index: int) -> list[Command]:
    """Return the commands of an entry's ``body``.

    Raises:
        CorruptionError: The body does not hold ``count`` commands.
    """
    try:
        commands = _decode_commands(body)
    except msgspec.MsgspecError as error:
        message = f"entry {index}: the body holds no commands: {error}"
        raise CorruptionError(message, first=index, last=index) from error
    if len(commands) != count:
        message = f"entry {index}: {len(commands)} commands, the header says {count}"
        raise CorruptionError(message, first=index, last=index)
    return commands


def check_version(version: int) -> int:
    """Return ``version`` if it fits the header.

    Raises:
        DataError: Not from 1 to 65,535.
    """
    if not 1 <= version <= _VERSION_MAX:
        raise DataError(f"machine version {version} is not from 1 to {_VERSION_MAX}")
    return version
