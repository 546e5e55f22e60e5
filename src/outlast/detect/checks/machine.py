"""Checks of the machine's own resources: disk, memory, files that should be young."""

import os
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

from outlast.detect.core.health import Status
from outlast.kernel import ConfigError, World, current_world

_NS: Final = 1_000_000_000
_READ_MAX: Final = 65_536
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")

Told = tuple[Status, str]


def disk_space(
    path: str | os.PathLike[str],
    *,
    min_free: int,
    warn_free: int | None = None,
    world: World | None = None,
) -> Callable[[], Told]:
    """Check that the file system of ``path`` has room.

    Args:
        path: Any file or directory on it.
        min_free: Bytes below which it has failed.
        warn_free: Bytes below which it is degraded; twice ``min_free`` by default.
        world: Whose storage; the current world's by default.

    Raises:
        ConfigError: Definite. A bound is not positive, or the second is below the first.
    """
    warn = 2 * min_free if warn_free is None else warn_free
    if min_free <= 0 or warn < min_free:
        raise ConfigError(
            f"disk_space: min_free is {min_free}, warn_free {warn}; bytes above 0, and the second"
            " at least the first"
        )
    place = os.fspath(path)

    def check() -> Told:
        storage = (world if world is not None else current_world()).storage
        try:
            free = storage.free_bytes(place)
        except OSError as error:
            return Status.UNKNOWN, f"{place}: {error.strerror or type(error).__name__}"
        told = f"{place}: {_size(free)} free"
        if free < min_free:
            return Status.FAILED, f"{told}, less than {_size(min_free)}"
        if free < warn:
            return Status.DEGRADED, f"{told}, less than {_size(warn)}"
        return Status.OK, told

    return check


def memory(
    max_share: float = 0.9, *, warn_share: float | None = None, root: str = "/"
) -> Callable[[], Told]:
    """Check how much of the memory that this process may have is used.

    In a container that is the limit of its control group (version 2), of which the tightest up
    the tree counts; pages of files that the kernel would give back are not counted as used, as
    the kubelet does it. Without such a limit it is the machine's memory. The machine's numbers in
    a container are the classic mistake: 12 % of the host may be all that the container has.

    Args:
        max_share: Share from which on it has failed, in (0, 1].
        warn_share: Share from which on it is degraded; nine tenths of ``max_share`` by default.
        root: Where ``/proc`` and ``/sys`` are, if not there.

    Raises:
        ConfigError: Definite. A share is out of range, or the second is above the first.
    """
    warn = 0.9 * max_share if warn_share is None else warn_share
    if not 0 < warn <= max_share <= 1:
        raise ConfigError(
            f"memory: max_share is {max_share:g}, warn_share {warn:g}; above 0, at most 1, and"
            " the second at most the first"
        )

    def check() -> Told:
        found = memory_used(root)
        if found is None:
            return Status.UNKNOWN, "memory: neither a control group nor /proc/meminfo tells"
        used, limit, whose = found
        share = used / limit
        told = f"memory: {_size(used)} of {_size(limit)} ({share:.0%}) of {whose} used"
        if share >= max_share:
            return Status.FAILED, f"{told}, {max_share:.0%} or more"
        if share >= warn:
            return Status.DEGRADED, f"{told}, {warn:.0%} or more"
        return Status.OK, told

    return check


def memory_used(root: str = "/") -> tuple[int, int, str] | None:
    """Return bytes used, bytes there are, and whose they are; ``None`` where nothing tells."""
    machine = _machine_memory(root)
    total = machine[1] if machine is not None else None
    best: tuple[int, int] | None = None
    for folder in _groups(root):
        limit = _number(f"{folder}/memory.max")
        used = _number(f"{folder}/memory.current")
        if not limit or used is None or (total is not None and limit >= total):
            continue
        used = max(0, used - _field(f"{folder}/memory.stat", "inactive_file"))
        if best is None or used * best[1] > best[0] * limit:
            best = used, limit
    if best is not None:
        return *best, "the control group's limit"
    return (*machine, "the machine") if machine is not None else None


def file_age(
    path: str | os.PathLike[str],
    *,
    max_age: float,
    warn_age: float | None = None,
    world: World | None = None,
) -> Callable[[], Told]:
    """Check that a file was written not long ago: the mark of a job that runs elsewhere.

    Ages are of the wall clock, so a clock that jumps is seen here.

    Args:
        path: The file.
        max_age: Seconds after which it has failed.
        warn_age: Seconds after which it is degraded; as ``max_age`` by default.
        world: Whose clock; the current world's by default.

    Raises:
        ConfigError: Definite. An age is not positive, or the second is above the first.
    """
    warn = max_age if warn_age is None else warn_age
    if not 0 < warn <= max_age:
        raise ConfigError(
            f"file_age: max_age is {max_age:g} s, warn_age {warn:g} s; above 0, and the second at"
            " most the first"
        )
    place = os.fspath(path)

    def check() -> Told:
        clock = (world if world is not None else current_world()).clock
        try:
            written_ns = os.stat(place).st_mtime_ns
        except FileNotFoundError:
            return Status.FAILED, f"{place}: is not there"
        except OSError as error:
            return Status.UNKNOWN, f"{place}: {error.strerror or type(error).__name__}"
        age = (clock.wall_ns() - written_ns) / _NS
        told = f"{place}: written {max(age, 0):.0f} s ago"
        if age > max_age:
            return Status.FAILED, f"{told}, more than {max_age:g} s"
        if age > warn:
            return Status.DEGRADED, f"{told}, more than {warn:g} s"
        return Status.OK, told

    return check


# --- the kernel's files --------------------------------------------------------------------------


def _groups(root: str) -> list[str]:
    """Return the folders of this process's control group, from its own to the topmost."""
    base = f"{root.rstrip('/')}/sys/fs/cgroup"
    for line in _lines(f"{root.rstrip('/')}/proc/self/cgroup"):
        number, _, path = line.partition("::")
        if number != "0":
            continue
        parts = [part for part in PurePosixPath(path).parts if part not in {"/", ""}]
        if ".." in parts:  # outside of what this namespace shows
            parts = []
        return ["/".join([base, *parts[:length]]) for length in range(len(parts), -1, -1)]
    return []


def _machine_memory(root: str) -> tuple[int, int] | None:
    facts: dict[str, int] = {}
    for line in _lines(f"{root.rstrip('/')}/proc/meminfo"):
        name, _, value = line.partition(":")
        words = value.split()
        if name in {"MemTotal", "MemAvailable"} and words and words[0].isdigit():
            facts[name] = int(words[0]) * 1024
    total = facts.get("MemTotal")
    if not total or "MemAvailable" not in facts:
        return None
    return total - facts["MemAvailable"], total


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_READ_MAX).splitlines()
    except OSError:
        return []


def _number(path: str) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _field(path: str, name: str) -> int:
    for line in _lines(path):
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


__all__ = ["disk_space", "file_age", "memory", "memory_used"]
