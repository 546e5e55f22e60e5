"""What the system says of this process: memory, descriptors, threads, processor, clocks (Linux).

Small reads of files that stay open, so that they work when no descriptor is left. Whatever is not
to be had is ``None``, never an error: a watchdog must not be what breaks.
"""

import errno
import os
import time
from contextlib import suppress
from typing import Final

_NS: Final = 1_000_000_000
_UNLIMITED: Final = 1 << 60
_CGROUP: Final = "/sys/fs/cgroup"


class Vitals:
    """Readings of the process that made it. Safe for threads: each reading stands alone.

    After a fork the child must make its own: the open files are those of the parent.
    """

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._files: dict[str, int] = {}
        for name in ("statm", "stat", "smaps_rollup"):
            with suppress(OSError):
                self._files[name] = os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC)
        self._dirs = _cgroup_dirs()
        self._count_by_stat = _size_counts_descriptors()

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _read(self, name: str, size: int = 1024) -> bytes | None:
        descriptor = self._files.get(name)
        if descriptor is None:
            return None
        try:
            return os.pread(descriptor, size, 0)
        except OSError:
            return None

    # --- memory ----------------------------------------------------------------------------

    def rss_bytes(self) -> int | None:
        """Return the resident memory."""
        text = self._read("statm", 128)
        return None if text is None else int(text.split()[1]) * self._page

    def uss_bytes(self) -> int | None:
        """Return the memory that only this process has; half a millisecond, so ask seldom."""
        text = self._read("smaps_rollup", 4096)
        if text is None:
            return None
        lines = (line.split() for line in text.splitlines())
        found = [int(line[1]) for line in lines if line and line[0].startswith(b"Private_")]
        return sum(found) * 1024

    def memory_limit_bytes(self) -> int | None:
        """Return where memory ends: the cgroup's limit if there is one, else the machine's."""
        limits = [
            _read_int(f"{path}/{name}")
            for path in self._dirs.get("memory", ())
            for name in ("memory.max", "memory.limit_in_bytes")
        ]
        limits.append(os.sysconf("SC_PHYS_PAGES") * self._page)
        return min((one for one in limits if one is not None and one < _UNLIMITED), default=None)

    # --- descriptors, threads, disk ----------------------------------------------------------

    def descriptors(self) -> int | None:
        """Return how many descriptors are open; the limit when there is none left to count."""
        try:
            if self._count_by_stat:
                return os.stat("/proc/self/fd").st_size
            return len(os.listdir("/proc/self/fd")) - 1
        except OSError as error:
            exhausted = error.errno in {errno.EMFILE, errno.ENFILE}
            return self.descriptors_limit() if exhausted else None

    def descriptors_limit(self) -> int | None:
        """Return the soft limit of open descriptors."""
        import resource

        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return None if soft == resource.RLIM_INFINITY else soft

    def threads(self) -> int | None:
        """Return the number of threads, those of C libraries included."""
        fields = self._stat()
        return None if fields is None else int(fields[17])

    def threads_limit(self) -> int | None:
        """Return the limit of processes and threads of the cgroup, if it has one."""
        limits = [_read_int(f"{path}/pids.max") for path in self._dirs.get("pids", ())]
        return min((one for one in limits if one is not None), default=None)

    def disk_bytes(self, path: str) -> tuple[int, int] | None:
        """Return what is used and what can be, on the file system of ``path``."""
        try:
            found = os.statvfs(path)
        except OSError:
            return None
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        return used, used + found.f_bavail * found.f_frsize

    # --- processor and clocks ------------------------------------------------------------------

    @staticmethod
    def cpu_ns() -> int:
        """Return the processor time of all threads so far."""
        return time.process_time_ns()

    def cpus(self) -> float:
        """Return how many processors the process may use, the cgroup's quota included."""
        count = float(len(os.sched_getaffinity(0)))
        for path in self._dirs.get("cpu", ()):
            with suppress(OSError, ValueError, ZeroDivisionError):
                quota, period = _read_text(f"{path}/cpu.max").split()
                count = count if quota == "max" else min(count, int(quota) / int(period))
            quota_us = _read_int(f"{path}/cpu.cfs_quota_us")
            period_us = _read_int(f"{path}/cpu.cfs_period_us")
            if quota_us and period_us and quota_us > 0:
                count = min(count, quota_us / period_us)
        return count

    def throttled_ns(self) -> int | None:
        """Return for how long the cgroup has held back its processes so far."""
        found = None
        for path in self._dirs.get("cpu", ()):
            with suppress(OSError, ValueError):
                for line in _read_text(f"{path}/cpu.stat").splitlines():
                    name, _, value = line.partition(" ")
                    if name == "throttled_usec":
                        found = max(found or 0, int(value) * 1000)
                    elif name == "throttled_time":
                        found = max(found or 0, int(value))
        return found

    def boot_ns(self) -> int | None:
        """Return the clock that goes on while the machine is suspended."""
        try:
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        except (AttributeError, OSError):
            return None

    def _stat(self) -> list[bytes] | None:
        text = self._read("stat")
        return None if text is None else text[text.rindex(b")") + 2 :].split()


def slices_of_thread(native_id: int) -> int | None:
    """Return how often a thread of ours was given a processor; it rises when it does anything."""
    try:
        with open(f"/proc/self/task/{native_id}/schedstat", "rb", buffering=0) as file:
            return int(file.read(128).split()[2])
    except (OSError, IndexError, ValueError):
        return None


def started_ticks(pid: int) -> int | None:
    """Return when a process was started; with its id it names a process for good."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(1024)
        return int(text[text.rindex(b")") + 2 :].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _read_text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read(4096)


def _read_int(path: str) -> int | None:
    try:
        return int(_read_text(path))
    except (OSError, ValueError):  # missing, or the word "max"
        return None


def _size_counts_descriptors() -> bool:
    """Whether the size of the directory is the number of its entries (Linux 6.2 and later)."""
    with suppress(OSError):
        return os.stat("/proc/self/fd").st_size > 0
    return False


def _cgroup_dirs() -> dict[str, list[str]]:
    """Return the directories that may hold limits of ours, by controller, the nearest first."""
    found: dict[str, list[str]] = {}
    with suppress(OSError):
        for line in _read_text("/proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            for name in controllers.split(",") if controllers else ("memory", "cpu", "pids"):
                root = f"{_CGROUP}/{name}" if controllers else _CGROUP
                parts = [part for part in path.split("/") if part]
                found.setdefault(name, []).extend(
                    "/".join([root, *parts[:count]]) for count in range(len(parts), -1, -1)
                )
    return found
