"""What the machine says of our own starvation: run delay, throttling, pressure, sleep.

Files of ``/proc`` and ``/sys`` are opened once and read again at offset 0, which costs a few
microseconds each. What is absent (another system, an old kernel, no right) reads as ``None``.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

_BYTES = 1024
_US = 1000


class _Counter:
    """One number of one file."""

    __slots__ = ("_fd", "_parse")

    def __init__(self, path: str, parse: Callable[[bytes], int | None]) -> None:
        self._parse = parse
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if self.read() is None:
            self.close()

    def read(self) -> int | None:
        if self._fd < 0:
            return None
        try:
            return self._parse(os.pread(self._fd, _BYTES, 0))
        except (OSError, ValueError, IndexError):
            return None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _word(index: int) -> Callable[[bytes], int | None]:
    return lambda text: int(text.split()[index])


def _after(name: bytes, scale: int) -> Callable[[bytes], int | None]:
    """Return what finds the number after ``name``, in whatever line, times ``scale``."""

    def parse(text: bytes) -> int | None:
        _, found, rest = text.partition(name)
        return int(rest.split(None, 1)[0]) * scale if found else None

    return parse


def cpu_stat_files(cgroup: str, root: str = "/sys/fs/cgroup") -> Iterator[tuple[str, bytes, int]]:
    """Yield where the throttled time may stand: path, name of the field, nanoseconds per unit.

    Args:
        cgroup: The text of ``/proc/self/cgroup``. Version 2 groups come before those of
            version 1; inside a container the group's own path is not to be seen, but its root is.
        root: Where control groups are mounted.
    """
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        path = path.rstrip("/")
        if number == "0" and not controllers:
            for place in dict.fromkeys((path, "")):
                yield f"{root}{place}/cpu.stat", b"throttled_usec ", _US
        elif "cpu" in controllers.split(","):
            for place in dict.fromkeys((path, "")):
                yield f"{root}/{controllers}{place}/cpu.stat", b"throttled_time ", 1
                yield f"{root}/cpu{place}/cpu.stat", b"throttled_time ", 1


class Pressure:
    """Reads the counters of the thread that made it. Close it when done; a fork needs a new one.

    Reading from another thread is safe, and still tells of the thread that made it.
    """

    __slots__ = ("_delay", "_pressure", "_throttled")

    def __init__(self) -> None:
        thread = threading.get_native_id()
        self._delay = _Counter(f"/proc/self/task/{thread}/schedstat", _word(1))
        self._pressure = _Counter("/proc/pressure/cpu", _after(b"total=", _US))
        self._throttled = _throttled()

    def read(self) -> tuple[int | None, int | None, int | None, int | None]:
        """Return run delay, throttled time, pressure and time asleep, in nanoseconds each."""
        return (
            self._delay.read(),
            self._throttled.read() if self._throttled is not None else None,
            self._pressure.read(),
            asleep_ns(),
        )

    def close(self) -> None:
        """Close the files."""
        for counter in (self._delay, self._pressure, self._throttled):
            if counter is not None:
                counter.close()


def _throttled() -> _Counter | None:
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            text = file.read(65_536)
    except OSError:
        return None
    for path, name, scale in cpu_stat_files(text):
        counter = _Counter(path, _after(name, scale))
        if counter.read() is not None:
            return counter
        counter.close()
    return None


def asleep_ns() -> int | None:
    """Return how long the machine has slept since it started, where the system tells."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None:
        return None
    return time.clock_gettime_ns(clock) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
