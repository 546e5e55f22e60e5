"""Remembers which entry was being applied when the process died.

Before an entry is applied its index is written to a small file, and taken back when a slice of
entries is done. The write is not made durable: it has to outlive the process, not the machine.
So what lies there is only believed while the machine has not been started anew: after a power
cut the file may be of any age, and say that an entry was under way which ended long before.
A start that finds an index there counts one more death at it. An entry that killed the process
that often is not applied again; the replica waits for the others to agree to skip it. The
counts of several entries are kept, as a start replays all of them again.
"""

import struct
from hashlib import sha256

from outlast.kernel import File, World

_INDEX = struct.Struct("<Q")
_SUSPECT = struct.Struct("<QQ")
_SUSPECTS_MAX = 16
_BOOT = struct.Struct("<Q")
_BOOT_AT = _INDEX.size + _SUSPECTS_MAX * _SUSPECT.size


class ApplyMarker:
    """The file ``applying``: the index under way, suspected indices with deaths, the boot.

    Attributes:
        suspects: Deaths by index; the one that was last found comes first.
    """

    def __init__(self, world: World, directory: str) -> None:
        world.storage.makedirs(directory)
        self._file: File = world.storage.open(f"{directory}/applying", create=True)
        data = self._file.pread(_BOOT_AT + _BOOT.size, 0)
        self._boot = _boot(world.clock.boot_id())
        whole = len(data) == _BOOT_AT + _BOOT.size
        if not whole or _BOOT.unpack_from(data, _BOOT_AT)[0] != self._boot:
            data = bytes(_BOOT_AT)
        under_way = _INDEX.unpack_from(data)[0]
        self.suspects: dict[int, int] = {
            index: deaths
            for index, deaths in _SUSPECT.iter_unpack(data[_INDEX.size : _BOOT_AT])
            if index
        }
        self._marked = False
        if under_way:
            self.accuse(under_way, self.suspects.get(under_way, 0) + 1)
        else:
            self._keep()

    @property
    def suspect(self) -> int:
        """The index that was last found under way, 0 for none."""
        return next(iter(self.suspects), 0)

    @property
    def deaths(self) -> int:
        """How often the process died at :attr:`suspect`."""
        return self.suspects.get(self.suspect, 0)

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
        others = {at: count for at, count in self.suspects.items() if at != index}
        kept = list(others.items())[: _SUSPECTS_MAX - 1]
        self.suspects = {index: deaths, **dict(kept)}
        self._keep()

    def forgive(self, index: int) -> None:
        """Forget all deaths at ``index``."""
        self.suspects.pop(index, None)
        self._keep()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _keep(self) -> None:
        """Write the whole file at once; a row of zeros in each place that is free now.

        At once, so that after a power cut no part of it says what another part does not.
        """
        self._marked = False
        rows = b"".join(_SUSPECT.pack(at, count) for at, count in self.suspects.items())
        suspects = rows.ljust(_SUSPECTS_MAX * _SUSPECT.size, b"\0")
        self._file.pwrite(_INDEX.pack(0) + suspects + _BOOT.pack(self._boot), 0)

    def _write(self, index: int) -> None:
        self._file.pwrite(_INDEX.pack(index), 0)


def _boot(boot_id: str) -> int:
    """Return a number that stands for a start of the machine."""
    return int.from_bytes(sha256(boot_id.encode()).digest()[:8], "little")
