"""The state of a machine as canonical chunks, and back.

A chunk is one byte of flag and a piece of a record; a record longer than a chunk goes on in the
next one (flag 1). Records, in msgpack: ``["plain", {field: value}]`` once, then for each Table,
in field order, ``["table", name, [[key, value], …]]`` in insertion order, then
``["end", {name: count}]``. How many keys go into a record depends on the sizes of the records
before it and on nothing else, so equal states give equal chunks on every replica.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from outlast.kernel import DataError

CHUNK_BYTES_MAX = 1 << 20
SLICE_KEYS_MAX = 1000
_SLICE_BYTES = 256 << 10

_encode = msgspec.msgpack.Encoder().encode
_LAST, _MORE = b"\0", b"\1"

Record = tuple[str, Any, msgspec.Raw]


def chunks_of(record: list[Any]) -> Iterator[bytes]:
    """Yield one record as chunks of at most :data:`CHUNK_BYTES_MAX`."""
    body = _encode(record)
    room = CHUNK_BYTES_MAX - 1
    if len(body) <= room:
        yield _LAST + body
        return
    for start in range(0, len(body), room):
        flag = _MORE if start + room < len(body) else _LAST
        yield flag + body[start : start + room]


def slice_step(step: int, size: int) -> int:
    """Return how many keys the next slice takes, after one of ``step`` keys and ``size`` bytes.

    >>> slice_step(1000, 20_000), slice_step(1000, 100 << 20)
    (1000, 2)
    """
    return max(1, min(SLICE_KEYS_MAX, step * _SLICE_BYTES // max(size, 1)))


def records_of(chunks: Iterable[bytes]) -> Iterator[list[Any]]:
    """Yield records, each with its last part still encoded (``msgspec.Raw``).

    Raises:
        DataError: A chunk is no chunk, or a record cannot be decoded.
    """
    parts: list[bytes] = []
    for number, chunk in enumerate(chunks):
        flag = chunk[:1]
        if flag not in {_LAST, _MORE}:
            raise DataError(f"checkpoint chunk {number} begins with {flag!r}; expected 0 or 1")
        parts.append(chunk[1:])
        if flag == _MORE:
            continue
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        try:
            record = msgspec.msgpack.decode(body, type=list[msgspec.Raw])
            kind = msgspec.msgpack.decode(record[0], type=str)
        except (msgspec.DecodeError, IndexError) as error:
            raise DataError(f"checkpoint chunk {number} cannot be decoded: {error}") from None
        yield [kind, *record[1:]]


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Say how the fields of two schemas differ, one phrase each, in field order.

    >>> differences({"a": "int"}, {"a": "str", "b": "int"})
    ["field 'a' was int and is str", "field 'b' (int) was added"]
    """
    said = []
    for name, kind in old.items():
        if name not in new:
            said.append(f"field {name!r} ({kind}) was removed")
        elif new[name] != kind:
            said.append(f"field {name!r} was {kind} and is {new[name]}")
    said.extend(
        f"field {name!r} ({kind}) was added" for name, kind in new.items() if name not in old
    )
    if not said and list(old) != list(new):
        said.append(f"the order of fields was {', '.join(old)} and is {', '.join(new)}")
    return said
