"""Settings and identity of a physical log."""

from dataclasses import dataclass
from typing import Final

from outlast.kernel import ConfigError
from outlast.log.wal.core.current import IDENTITY_BYTES_MAX
from outlast.log.wal.core.frame import ALIGN
from outlast.log.wal.core.segment import SEGMENT_HEADER_BYTES

_MIB: Final = 1 << 20
SEGMENT_BYTES_MIN: Final = 16 * SEGMENT_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class WalIdentity:
    """Whose log it is. Written into every segment and compared at open.

    Raises:
        ConfigError: The three together take more than 300 bytes.
    """

    cluster: str
    log: str
    replica: str

    def __post_init__(self) -> None:
        size = sum(len(part.encode()) for part in (self.cluster, self.log, self.replica))
        if size > IDENTITY_BYTES_MAX:
            raise ConfigError(
                f"cluster, log and replica names take {size} bytes together;"
                f" at most {IDENTITY_BYTES_MAX} fit"
            )


@dataclass(frozen=True, slots=True)
class WalSettings:
    """Sizes and limits of a physical log.

    Args:
        segment_bytes: Size of a full-grown segment; at least 64 KiB, whole sectors. Also
            bounds what one ``append`` may carry.
        first_segment_bytes: Size of the segment that an open begins with; each next one is
            four times as large, up to ``segment_bytes``. Small logs stay small.
        frame_bytes_max: What is queued beyond this goes into the next frame.
        queue_bytes_max: Appends beyond this much waiting are refused (``OverloadedError``).
        cache_bytes_max: Newest entries kept in memory, for readers that are nearly up to date.
        hard_state_reserve_bytes: Room that only hard state may use once the disk is full.
        disk_reserve_bytes: Space on the file system that the log leaves to others.
        full_retry: Seconds between looks whether space has returned.
        idle: Seconds without an append after which a mark protects the last frame.
        fsync: Whether appends wait for the disk. ``False`` survives a crash of the process,
            not of the machine.

    Raises:
        ConfigError: A size does not fit the others.
    """

    segment_bytes: int = 64 * _MIB
    first_segment_bytes: int = 4 * _MIB
    frame_bytes_max: int = 4 * _MIB
    queue_bytes_max: int = 64 * _MIB
    cache_bytes_max: int = 64 * _MIB
    hard_state_reserve_bytes: int = 64 << 10
    disk_reserve_bytes: int = 16 * _MIB
    full_retry: float = 0.25
    idle: float = 0.05
    fsync: bool = True

    def __post_init__(self) -> None:
        if self.segment_bytes < SEGMENT_BYTES_MIN or self.segment_bytes % ALIGN:
            raise ConfigError(
                f"segment_bytes is {self.segment_bytes}; it must be a multiple of {ALIGN}"
                f" and at least {SEGMENT_BYTES_MIN}"
            )
        if self.hard_state_reserve_bytes * 4 > self.segment_bytes:
            raise ConfigError(
                f"hard_state_reserve_bytes {self.hard_state_reserve_bytes} is more than a"
                f" quarter of segment_bytes {self.segment_bytes}"
            )
        for name in ("frame_bytes_max", "queue_bytes_max", "full_retry", "idle"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")

    @property
    def first_bytes(self) -> int:
        """Size of the first segment of an open."""
        low = max(SEGMENT_BYTES_MIN, 4 * self.hard_state_reserve_bytes)
        return min(self.segment_bytes, max(self.first_segment_bytes, low) & -ALIGN)
