"""A clock and readings of a system that are set by hand, for tests of watchdogs."""

from typing import Any

NS = 1_000_000_000
MIB = 1 << 20


class HandClock:
    """A clock that is set by hand. ``beside`` says that it is no real one."""

    beside = None

    def __init__(self) -> None:
        self.now_ns = 1000 * NS
        self.ahead_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns + self.ahead_ns

    def boot_id(self) -> str:
        return ""

    def pause(self, seconds: float) -> None:
        self.now_ns += round(seconds * NS)

    def wait(self, gate: Any, seconds: float | None) -> bool:
        raise AssertionError("nothing waits here")


class Readings:
    """What the system says, set by hand."""

    def __init__(self) -> None:
        self.memory, self.fds, self.thread_count, self.disk = 100.0 * MIB, 10, 3, 50
        self.cpu = self.held = self.boot = 0

    def rss_bytes(self) -> float:
        return self.memory

    def uss_bytes(self) -> int:
        return 7

    def memory_limit_bytes(self) -> int:
        return 1000 * MIB

    def descriptors(self) -> int:
        return self.fds

    def descriptors_limit(self) -> int:
        return 100

    def threads(self) -> int:
        return self.thread_count

    def threads_limit(self) -> None:
        return None

    def disk_bytes(self, path: str) -> tuple[int, int] | None:
        return (self.disk, 100) if path == "." else None

    def cpu_ns(self) -> int:
        return self.cpu

    def cpus(self) -> float:
        return 2.0

    def throttled_ns(self) -> int:
        return self.held

    def boot_ns(self) -> int:
        return self.boot

    def close(self) -> None:
        pass
