"""Carrying out undos: each checks what it touches, and can be repeated from any half-way state."""

import ctypes
import os
import select
import signal
import stat
from dataclasses import dataclass
from typing import Final, Literal

from outlast.inject.core.undo import (
    Continue,
    KillMarked,
    ProcessId,
    RemoveFile,
    RemoveTree,
    Undo,
)
from outlast.inject.identity import is_stopped, marked, read_state, send
from outlast.inject.tree import Refused, mounts_in, owned_root, remove_tree
from outlast.kernel import World

Outcome = Literal["done", "nothing", "refused", "failed"]
_ROUNDS: Final = 50
_END_MS: Final = 2_000
_MNT_DETACH: Final = 2


@dataclass(frozen=True, slots=True)
class HealStep:
    """One thing that was undone, or not.

    Args:
        drill: Id of the drill, or the name of a journal that cannot be read.
        what: What was to be done.
        outcome: ``done``; ``nothing`` was left to do; ``refused``, as it is not to be touched;
            ``failed``.
        detail: What was found, or why not.
    """

    drill: str
    what: str
    outcome: Outcome
    detail: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing is left of it."""
        return self.outcome in {"done", "nothing"}


def in_order(undos: tuple[tuple[int, Undo], ...]) -> list[tuple[int, Undo]]:
    """Return undos in the order in which they are carried out.

    The newest first; but processes are killed before all else, as one that still runs would
    write into a directory while it is removed.
    """
    newest = list(reversed(undos))
    return sorted(newest, key=lambda item: not isinstance(item[1], KillMarked))


def carry_out(world: World, drill: str, undo: Undo) -> HealStep:
    """Carry out one undo of ``drill`` and say how it went; blocking."""
    world.fault_point("inject.heal.undo")
    try:
        outcome, detail = _carry_out(world, drill, undo)
    except Refused as reason:
        outcome, detail = "refused", str(reason)
    except OSError as error:
        outcome, detail = (
            "failed",
            f"{error.strerror or error}: {error.filename or ''}".rstrip(": "),
        )
    return HealStep(drill, str(undo), outcome, detail)


def _carry_out(world: World, drill: str, undo: Undo) -> tuple[Outcome, str]:
    if isinstance(undo, KillMarked):
        return _kill_marked(world, drill)
    if isinstance(undo, Continue):
        return _continue(undo)
    if isinstance(undo, RemoveTree):
        there = remove_tree(undo.path, drill, lambda: world.fault_point("inject.heal.entry"))
        return ("done", "") if there else ("nothing", "it is gone")
    if isinstance(undo, RemoveFile):
        return _remove_file(undo.path, drill)
    return _unmount(undo.path, drill)


def _kill_marked(world: World, drill: str) -> tuple[Outcome, str]:
    """Kill until none is found: one may have started another while we looked."""
    killed: list[int] = []
    spared = _ancestors()
    for _ in range(_ROUNDS):
        found = [process for process in marked(drill) if process.pid not in spared]
        if not found:
            word = f"killed pid {', '.join(map(str, killed))}" if killed else "none is left"
            return ("done" if killed else "nothing"), word
        for process in found:
            world.fault_point("inject.heal.kill")
            if _kill(process):
                killed.append(process.pid)
    left = ", ".join(str(process.pid) for process in marked(drill))
    return "failed", f"still running: pid {left}"


def _kill(process: ProcessId) -> bool:
    """Kill one process, stopped or not, and wait for its end."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not send(process, signal.SIGKILL):
            return False
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(_END_MS)
        return True
    finally:
        os.close(descriptor)


def _ancestors() -> set[int]:
    """Return our own pid and those above: a shell of the drill's may have started us."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        state = read_state(pid)
        pid = state.parent if state is not None else 0
    return found


def _continue(undo: Continue) -> tuple[Outcome, str]:
    stopped = [process for process in undo.processes if is_stopped(process)]
    sent = [process.pid for process in stopped if send(process, signal.SIGCONT)]
    if not sent:
        return "nothing", "none stands still"
    return "done", f"continued pid {', '.join(map(str, sent))}"


def _remove_file(path: str, drill: str) -> tuple[Outcome, str]:
    owned_root(path, drill)
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            raise Refused("it is a directory")
        os.unlink(path)
    except FileNotFoundError:
        return "nothing", "it is gone"
    return "done", ""


def _unmount(path: str, drill: str) -> tuple[Outcome, str]:
    owned_root(path, drill)
    if path not in mounts_in(path):
        return "nothing", "nothing is mounted there"
    libc = ctypes.CDLL(None, use_errno=True)
    while path in mounts_in(path):
        if libc.umount2(os.fsencode(path), _MNT_DETACH):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    return "done", ""
