"""The replicas table, and the versions that all of its replicas support.

A rolling upgrade replaces programs one by one. What an entry means may change only when
every replica understands the change: so the active version is state, raised by an entry, and
the raise is refused while one row says that its program does not support it.
"""

import msgspec

from outlast.kernel import ConfigError
from outlast.state.core.operation import Announce


class MemberTable:
    """Rows of all replicas, and the active versions. Deterministic."""

    __slots__ = ("format_version", "machine_version", "raised_at", "rows")

    def __init__(self) -> None:
        self.rows: dict[str, Announce] = {}
        self.machine_version = 0
        self.format_version = 1
        self.raised_at = 0

    def announce(self, row: Announce) -> None:
        """Add or replace a row.

        Raises:
            ConfigError: Definite. It supports less than what is already active.
        """
        if row.machine_version < self.machine_version or row.format_version < self.format_version:
            raise ConfigError(
                f"replica {row.replica} supports machine version {row.machine_version} and "
                f"format {row.format_version}; active are {self.machine_version} and "
                f"{self.format_version}: run the newer program there"
            )
        self.rows[row.replica] = row

    def forget(self, replica: str) -> bool:
        """Remove a row; ``False`` if there is none."""
        return self.rows.pop(replica, None) is not None

    def supported(self) -> tuple[int, int]:
        """Return the machine and format version that every replica supports."""
        machine = min((row.machine_version for row in self.rows.values()), default=0)
        format_ = min((row.format_version for row in self.rows.values()), default=0)
        return machine, format_

    def may_raise(self) -> bool:
        """Whether a raise would be accepted and change something."""
        machine, format_ = self.supported()
        return machine > self.machine_version or format_ > self.format_version

    def raise_to(self, machine_version: int, format_version: int) -> None:
        """Raise the active versions; lower ones than active change nothing.

        Raises:
            ConfigError: Definite. A replica does not support them; the message names it.
        """
        for row in self.rows.values():
            if row.machine_version < machine_version or row.format_version < format_version:
                raise ConfigError(
                    f"cannot raise to machine version {machine_version} and format "
                    f"{format_version}: replica {row.replica} supports {row.machine_version} "
                    f"and {row.format_version}"
                )
        self.machine_version = max(self.machine_version, machine_version)
        self.format_version = max(self.format_version, format_version)


class VersionState(msgspec.Struct, array_like=True):
    """The part of a snapshot that :class:`MemberTable` restores from."""

    rows: list[Announce]
    machine_version: int
    format_version: int
    raised_at: int = 0
