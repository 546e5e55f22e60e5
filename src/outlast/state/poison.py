"""Remembers which entry was being applied when the process died.

Before an entry is applied its index is written to a small file, and taken back when a slice of
entries is done. The write is not made durable: it has to outlive the process, not the machine.
A start that finds an index there counts one more death at it. An entry that killed the process
that often is not applied again; the replica waits for the others to agree to skip it.
"""

import struct

from outlast.kernel import File, World

_SLOTS = struct.Struct("<QQQ")


class ApplyMarker:
    """The file ``applying``: the index under way, the suspected index, and its deaths."""

    def __init__(self, world: World, directory: str) -> None:
        world.storage.makedirs(directory)
        self._file: File = world.storage.open(f"{directory}/applying", create=True)
        data = self._file.pread(_SLOTS.size, 0)
        under_way, suspect, deaths = _SLOTS.unpack(data) if len(data) == _SLOTS.size else (0, 0, 0)
        if under_way:
            deaths = deaths + 1 if under_way == suspect else 1
            suspect = under_way
        self.suspect: int = suspect
        self.deaths: int = deaths
        self._marked = False
        self._write(0)

    def begin(self, index: int) -> None:
        """The entry at ``index`` is about to be applied."""
        self._marked = True
        self._write(index)

    def end(self) -> None:
        """All entries begun so far are applied."""
        if self._marked:
            self._marked = False
            self._write(0)

    def accuse(self, index: int, deaths: int) -> None:
        """Treat the entry at ``index`` as one that killed the process ``deaths`` times."""
        self.suspect, self.deaths, self._marked = index, deaths, False
        self._write(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, index: int) -> None:
        self._file.pwrite(_SLOTS.pack(index, self.suspect, self.deaths), 0)
