"""Small files that are replaced as a whole: after a crash the old content stands, or the new."""

from collections.abc import Callable

from outlast.kernel import Storage


def write_atomically(
    storage: Storage, path: str, data: bytes, before_rename: Callable[[], None] = lambda: None
) -> None:
    """Replace the file at ``path``, durable on return; blocks.

    Written beside, synced, renamed, directory synced. ``before_rename`` is called in between,
    for tests that end the process there.

    Raises:
        OSError: Before the rename the old content stands; after it, it is not known which.
    """
    beside = f"{path}.new"
    file = storage.open(beside, create=True)
    try:
        file.truncate(0)
        file.pwrite(data, 0)
        file.fsync()
    finally:
        file.close()
    before_rename()
    storage.rename(beside, path)
    storage.fsync_dir(path.rpartition("/")[0])


def read_whole(storage: Storage, path: str) -> bytes | None:
    """Return the content of the file at ``path``, ``None`` if there is none; blocks."""
    if not storage.exists(path):
        return None
    file = storage.open(path, write=False)
    try:
        return file.pread(file.size(), 0)
    finally:
        file.close()


def read_tail(storage: Storage, path: str, size: int) -> str:
    """Return the last ``size`` bytes of a file as text; empty if there is no such file."""
    if not storage.exists(path):
        return ""
    file = storage.open(path, write=False)
    try:
        return file.pread(size, max(0, file.size() - size)).decode(errors="replace")
    finally:
        file.close()
