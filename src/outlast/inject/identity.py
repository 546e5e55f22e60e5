"""Processes by pid and start, so that a pid that was given away again is never touched (Linux)."""

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from outlast.inject.core.undo import ProcessId
from outlast.kernel import ConfigError

MARKER = "OUTLAST_DRILL"
"""Environment variable that all processes of a drill carry; its value is the drill's id."""


class ProcessState(NamedTuple):
    """What /proc says of a process."""

    identity: ProcessId
    parent: int
    state: str


def read_state(pid: int) -> ProcessState | None:
    """Return what /proc says of ``pid`` now; ``None`` if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses and may hold anything, parentheses and spaces included.
    fields = text[text.rindex(b")") + 2 :].split()
    return ProcessState(ProcessId(pid, int(fields[19])), int(fields[1]), fields[0].decode())


def identify(pid: int) -> ProcessId:
    """Return the identity of a process that runs now.

    Raises:
        ProcessLookupError: There is none, or it has ended and only waits to be collected.
    """
    found = read_state(pid)
    if found is None or found.state in {"Z", "X"}:
        raise ProcessLookupError(f"no process {pid}")
    return found.identity


def is_alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs (one that waits to be collected does not)."""
    found = read_state(process.pid)
    return found is not None and found.identity == process and found.state not in {"Z", "X"}


def is_stopped(process: ProcessId) -> bool:
    """Whether exactly this process stands still (state T)."""
    found = read_state(process.pid)
    return found is not None and found.identity == process and found.state in {"T", "t"}


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; ``False`` if it is gone.

    The descriptor is opened first and the identity read after it: whatever happens to the pid
    meanwhile, the signal goes to the process that was looked at, or to none.

    Raises:
        PermissionError: It is not ours.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(process):
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
            return True
        return False
    finally:
        os.close(descriptor)


def pids() -> Iterator[int]:
    """Yield the pids of all processes that can be seen."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def process_tree(pid: int) -> list[ProcessId]:
    """Return ``pid`` and all its descendants, parents before children; empty if it is gone.

    A process whose parent has ended belongs to another one and is not found this way.
    """
    return process_trees([pid])[pid]


def process_trees(roots: Iterable[int]) -> dict[int, list[ProcessId]]:
    """Return the tree of each root, as :func:`process_tree` does, by one look at all."""
    children: dict[int, list[ProcessState]] = {}
    for each in pids():
        found = read_state(each)
        if found is not None and found.state not in {"Z", "X"}:
            children.setdefault(found.parent, []).append(found)
    return {pid: _tree(pid, children) for pid in roots}


def _tree(pid: int, children: Mapping[int, list[ProcessState]]) -> list[ProcessId]:
    root = read_state(pid)
    if root is None or root.state in {"Z", "X"}:
        return []
    tree = [root.identity]
    for process in tree:
        tree.extend(child.identity for child in children.get(process.pid, ()))
    return tree


def marked(value: str) -> list[ProcessId]:
    """Return all processes of ours whose environment has ``OUTLAST_DRILL=value``.

    Processes that may not be looked at, and this one, are left out. A process that wiped its
    environment is not found.
    """
    wanted = f"{MARKER}={value}".encode()
    found = []
    for pid in pids():
        if pid == os.getpid():
            continue
        before = read_state(pid)
        if before is None or before.state in {"Z", "X"}:
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read()
        except OSError:
            continue
        after = read_state(pid)
        if wanted in environment.split(b"\0") and after and after.identity == before.identity:
            found.append(before.identity)
    return found


def require_linux(what: str) -> None:
    """Refuse where /proc or process descriptors are missing.

    Raises:
        ConfigError: This is not Linux.
    """
    if not hasattr(os, "pidfd_open") or not os.path.exists("/proc/self/stat"):
        raise ConfigError(f"{what} needs Linux with /proc; this machine has none")
