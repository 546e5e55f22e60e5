"""What a simulated disk is like, what goes wrong with it, and what has gone wrong."""

from dataclasses import dataclass, fields

from outlast.kernel import ConfigError

_US = 1_000
_MS = 1_000_000
_PPM = 1_000_000

Span = tuple[int, int]
"""Shortest and longest, both included, in nanoseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSettings:
    """How quick and how large a simulated disk is. The defaults are like an SSD's.

    Attributes:
        lookup_ns: How long a look at a name takes.
        read_ns: How long a read takes.
        write_ns: How long a write into the page cache, or a change of a name, takes.
        sync_ns: How long a sync takes.
        stall_ns: How long a sync takes now and then.
        stall_ppm: How often that is, in parts per million.
        capacity_bytes: The size of all files together that fits; holes count.
        dirty_changes_max: Unsynced changes of one file or directory that are kept; beyond it
            the older half is written back, as operating systems do after a while.
        dirty_bytes_max: The same for the bytes of one file's unsynced writes.
        settle_lag_ns: For a disk without ``floor_ns``: how long before now a crash may come.

    Raises:
        ConfigError: Definite. A span is negative or its ends are in the wrong order, or a
            bound is not positive.
    """

    lookup_ns: Span = (500, 2 * _US)
    read_ns: Span = (5 * _US, 50 * _US)
    write_ns: Span = (5 * _US, 20 * _US)
    sync_ns: Span = (200 * _US, 2 * _MS)
    stall_ns: Span = (5 * _MS, 10 * _MS)
    stall_ppm: int = 10_000
    capacity_bytes: int = 1 << 40
    dirty_changes_max: int = 8192
    dirty_bytes_max: int = 32 << 20
    settle_lag_ns: int = 1_000 * _MS

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                if not 0 <= value[0] <= value[1]:
                    message = f"DiskSettings.{field.name} = {value}: want 0 <= low <= high"
                    raise ConfigError(message)
            elif value < 0 or (value == 0 and field.name.endswith("_max")):
                message = f"DiskSettings.{field.name} = {value}: want a positive number"
                raise ConfigError(message)


@dataclass(slots=True)
class DiskFaults:
    """What goes wrong with a disk now; change it at will while programs run.

    Attributes:
        read_eio_ppm: How many reads in a million fail with EIO.
        write_eio_ppm: The same for writes; nothing of them is written.
        sync_eio_ppm: The same for syncs; what they covered is lost.
        read_eio_next: How many of the next reads fail.
        write_eio_next: The same for writes.
        sync_eio_next: The same for syncs.
        full: Whether no file may grow (ENOSPC) and no byte is free.
        capacity_bytes: A smaller size of the disk.
        readonly: Whether every change fails with EROFS.
        slow_ns: What every operation takes longer, drawn from this span.
        stuck_until_ns: Until when (virtual time) no operation ends.
    """

    read_eio_ppm: int = 0
    write_eio_ppm: int = 0
    sync_eio_ppm: int = 0
    read_eio_next: int = 0
    write_eio_next: int = 0
    sync_eio_next: int = 0
    full: bool = False
    capacity_bytes: int | None = None
    readonly: bool = False
    slow_ns: Span = (0, 0)
    stuck_until_ns: int = 0

    @property
    def quiet(self) -> bool:
        """Whether no operation fails with EIO."""
        return not (
            self.write_eio_ppm
            or self.sync_eio_ppm
            or self.read_eio_ppm
            or self.write_eio_next
            or self.sync_eio_next
            or self.read_eio_next
        )

    def clear(self) -> None:
        """Let the disk be well again; what was lost or has rotted stays so."""
        for field in fields(self):
            setattr(self, field.name, field.default)


@dataclass(slots=True)
class DiskTally:
    """What has gone wrong so far: evidence that faults happened.

    Attributes:
        eio: Operations that failed with EIO.
        enospc: Operations that failed with ENOSPC.
        erofs: Operations that failed with EROFS.
        slow_ns: Time that faults added to operations.
        stuck: Operations that had to wait for a disk that was stuck.
        lost_bytes: Bytes written that power cuts and failed syncs have lost.
        lost_names: Creates, renames and removals that power cuts have undone.
        torn: Writes of which power cuts have left a part.
        rotted: Bits that have flipped.
        power_cuts: How often the power went.
    """

    eio: int = 0
    enospc: int = 0
    erofs: int = 0
    slow_ns: int = 0
    stuck: int = 0
    lost_bytes: int = 0
    lost_names: int = 0
    torn: int = 0
    rotted: int = 0
    power_cuts: int = 0

    def facts(self) -> dict[str, int]:
        """Return all counts by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class PowerLoss:
    """What a power cut took.

    Attributes:
        lost_writes: Unsynced writes of which nothing is left.
        torn_writes: Unsynced writes of which a part is left.
        lost_names: Unsynced creates, renames and removals that did not happen.
        lost_bytes: Bytes written that are gone.
    """

    lost_writes: int
    torn_writes: int
    lost_names: int
    lost_bytes: int
