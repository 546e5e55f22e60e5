"""What a data directory holds, read without touching it: ``outlast lint``, ``data check``.

A running node may own the directory, so nothing is locked, repaired, renamed or removed here.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from outlast.kernel import DataError, Storage
from outlast.state.core.stream import Head, frames
from outlast.state.snapshot_store import chunk_sum

_FIRST_CHUNK = "chunk-000000"
_SUM_BYTES = len(chunk_sum(b""))


def log_directories(storage: Storage, directory: str) -> list[str]:
    """Return the log directories in a node's, a cluster's or an embedded machine's directory.

    Raises:
        DataError: There is none; the message says what was looked for.
    """
    inner = [f"{path}/wal" for path in _parts(storage, directory, "log")]
    return [path if storage.exists(path) else path.removesuffix("/wal") for path in inner]


def stored_schema(storage: Storage, directory: str) -> dict[str, Any]:
    """Return the schema of the newest snapshot in a data directory.

    Raises:
        DataError: There is no snapshot yet, or it cannot be read.
    """
    heads = [
        head for path in _parts(storage, directory, "snapshots") for head in _heads(storage, path)
    ]
    if not heads:
        message = (
            f"{directory}: no snapshot there yet, so no schema to compare with: the first is"
            " written when the log has grown"
        )
        raise DataError(message)
    return max(heads, key=lambda head: head.index).schema


def _parts(storage: Storage, directory: str, name: str) -> list[str]:
    if not storage.exists(directory):
        message = f"{directory}: no such directory"
        raise DataError(message)
    candidates = [directory, *(f"{directory}/{child}" for child in storage.listdir(directory))]
    found = [f"{path}/{name}" for path in candidates if storage.exists(f"{path}/{name}")]
    if not found:
        message = (
            f"{directory}: not a data directory (no {name!r} in it or in its folders): name the"
            " --data of a node, of `outlast serve`, or the path given to outlast.open"
        )
        raise DataError(message)
    return found


def _heads(storage: Storage, directory: str) -> Iterator[Head]:
    """Yield the head of the newest snapshot that can be read; damaged ones are passed over."""
    for name in reversed(storage.listdir(directory)):
        if not name[:1].isdigit():
            continue
        try:
            file = storage.open(f"{directory}/{name}/{_FIRST_CHUNK}", write=False)
        except OSError:
            continue
        try:
            data = file.pread(file.size(), 0)
        finally:
            file.close()
        if chunk_sum(data[_SUM_BYTES:]) != data[:_SUM_BYTES]:
            continue
        try:
            yield msgspec.msgpack.decode(next(frames([data[_SUM_BYTES:]])), type=Head)
        except (msgspec.MsgspecError, StopIteration):
            continue
        return
