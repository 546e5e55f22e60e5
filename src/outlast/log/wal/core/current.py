"""The ``CURRENT`` file: which segments there should be, and what is surely durable.

Two slots of one sector each are written in turn, each with a serial number, each fsynced:
whichever write a crash tears, the other slot stands. A third slot is a *hint*, written
without fsync when the log falls idle: it may be lost, but if it is there, it testifies.
"""

from typing import Final

import msgspec

from outlast.log.wal.core.segment import decode_checked, encode_checked

CURRENT_MAGIC: Final = b"OUTLCUR1"
SLOT_BYTES: Final = 512
HINT_SLOT: Final = 2
CURRENT_BYTES: Final = 3 * SLOT_BYTES
IDENTITY_BYTES_MAX: Final = 300


class Current(msgspec.Struct, frozen=True):
    """What one slot says.

    ``oldest`` and ``newest`` are first sequences of segments: everything from ``oldest`` on
    must be there (below it, segments were trimmed); ``newest`` 0 means none was made yet.
    """

    serial: int
    cluster: str
    log: str
    replica: str
    incarnation: int
    oldest: int
    newest: int
    durable: int


def encode_slot(current: Current) -> tuple[bytes, int]:
    """Return the slot's bytes and the offset where a synced write of it belongs."""
    body = msgspec.msgpack.encode(current)
    return encode_checked(CURRENT_MAGIC, body, SLOT_BYTES), current.serial % 2 * SLOT_BYTES


def decode_current(data: bytes) -> Current | None:
    """Return the newest slot, its ``durable`` raised by the hint; ``None`` if none stands.

    Raises:
        NewerFormatError: A slot was written in a newer format.
    """
    slots = []
    for number in range(3):
        body = decode_checked(CURRENT_MAGIC, data[number * SLOT_BYTES :][:SLOT_BYTES])
        slots.append(None if body is None else msgspec.msgpack.decode(body, type=Current))
    synced = [slot for slot in slots[:HINT_SLOT] if slot is not None]
    if not synced:
        return None
    best = max(synced, key=lambda slot: slot.serial)
    hint = slots[HINT_SLOT]
    if hint is not None and hint.durable > best.durable:
        best = msgspec.structs.replace(best, durable=hint.durable)
    return best
