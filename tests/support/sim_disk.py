"""A simulated disk with a clock of its own, for tests without a simulation."""

from outlast.kernel import Prng
from outlast.sim.disk import DiskSettings, SimDisk


class DiskClock:
    """Virtual time that only the disk spends."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.floor_ns = 0
        """No crash comes before this instant: the test moves it."""

    def now(self) -> int:
        return self.now_ns

    def floor(self) -> int:
        return self.floor_ns

    def spend(self, ns: int) -> None:
        self.now_ns += ns

    def settle(self) -> None:
        """Let everything up to now be past: no crash comes before."""
        self.floor_ns = self.now_ns


def make_disk(
    seed: int = 1, settings: DiskSettings | None = None, *, sync_is_noop: bool = False
) -> tuple[SimDisk, DiskClock]:
    """Return a disk and the clock that it spends."""
    clock = DiskClock()
    disk = SimDisk(
        Prng(seed), clock.now, clock.spend, settings, floor_ns=clock.floor,
        sync_is_noop=sync_is_noop,
    )  # fmt: skip
    return disk, clock


def durable_file(disk: SimDisk, path: str, data: bytes) -> None:
    """Put a file on the disk, its name included."""
    folder = path.rpartition("/")[0]
    disk.makedirs(folder)
    file = disk.open(path, create=True)
    file.truncate(0)
    file.pwrite(data, 0)
    file.fsync()
    file.close()
    disk.fsync_dir(folder)


def content(disk: SimDisk, path: str) -> bytes:
    """Return all that a file holds."""
    file = disk.open(path, write=False)
    try:
        return file.pread(file.size(), 0)
    finally:
        file.close()
