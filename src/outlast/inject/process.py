"""Crash and pause: signals to a node's processes, with evidence that they took effect (Linux)."""

import signal
from collections.abc import Callable
from typing import Final

from outlast.inject.core.undo import Continue, ProcessId
from outlast.inject.guardian import Guardian
from outlast.inject.identity import is_alive, is_stopped, process_tree, require_linux, send
from outlast.inject.journal import Journal
from outlast.kernel import ConfigError, Evidence, World

_NS: Final = 1_000_000_000
_MS: Final = 1_000_000
_LOOK_SECONDS: Final = 0.002
_ROUNDS: Final = 20


async def crash(world: World, pid: int, *, timeout: float = 5.0) -> Evidence:
    """Kill a process and all its descendants (SIGKILL) and wait until they are gone.

    They are stopped first, so that none starts another while they are looked for.

    Args:
        world: Clock and timers.
        pid: The node's first process.
        timeout: Seconds to wait for the end. Default 5.

    Returns:
        Evidence ``killed``. ``gone`` is false if one was still there after ``timeout``: then
        nothing is proven.

    Raises:
        ConfigError: This is not Linux.
        ProcessLookupError: There is no such process: nothing was done.
        PermissionError: It is not ours.
    """
    require_linux("crash")
    begun = world.clock.monotonic_ns()
    victims = _stop(pid)
    for process in victims:
        send(process, signal.SIGKILL)
    gone = await _until(world, timeout, lambda: not any(map(is_alive, victims)))
    now = world.clock.monotonic_ns()
    facts = {
        "pid": pid,
        "pids": [process.pid for process in victims],
        "signal": "SIGKILL",
        "gone": gone,
        "ms": round((now - begun) / _MS, 3),
    }
    return Evidence("killed", now, facts)


class Pause:
    """A node that stands still until :meth:`resume`, or until its lease is over.

    Made by :func:`pause`. Not thread-safe.

    Attributes:
        evidence: That it stopped: ``stopped`` is true if state T was seen of every process.
        processes: What was stopped.
        until_ns: Monotonic instant at which the guardian continues it.
    """

    def __init__(
        self,
        world: World,
        processes: list[ProcessId],
        *,
        guardian: Guardian,
        evidence: Evidence,
        until_ns: int,
        release: Callable[[], None],
    ) -> None:
        self.evidence = evidence
        self.processes = processes
        self.until_ns = until_ns
        self._world = world
        self._guardian = guardian
        self._release = release
        self._resumed: Evidence | None = None

    def __repr__(self) -> str:
        """Show what stands still."""
        word = "active" if self.active else "over"
        return f"<Pause of pid {self.processes[0].pid} {word}>"

    @property
    def active(self) -> bool:
        """Whether any of the processes stands still right now."""
        return any(map(is_stopped, self.processes))

    async def resume(self, *, timeout: float = 5.0) -> Evidence:
        """Continue them (SIGCONT), wait until none stands still, and return the evidence.

        ``by_lease`` is true if the lease had ended the pause before. Again: the same evidence.

        Args:
            timeout: Seconds to wait. Default 5.
        """
        if self._resumed is not None:
            return self._resumed
        by_lease = not self.active
        for process in self.processes:
            send(process, signal.SIGCONT)
        await self._guardian.dismiss()
        running = await _until(self._world, timeout, lambda: not self.active)
        now = self._world.clock.monotonic_ns()
        if running:
            self._release()
        alive = [process.pid for process in self.processes if is_alive(process)]
        facts = {
            "pid": self.processes[0].pid,
            "alive": alive,
            "resumed": running,
            "by_lease": by_lease,
            "stopped_ms": round((now - self.evidence.at_ns) / _MS, 3),
        }
        self._resumed = Evidence("resumed", now, facts)
        return self._resumed


async def pause(
    world: World,
    pid: int,
    *,
    seconds: float,
    journal: Journal | None = None,
    timeout: float = 5.0,
) -> Pause:
    """Stop a process and all its descendants (SIGSTOP) for at most ``seconds``.

    A guardian process continues them when the time is over or when we die, whichever is first;
    it is started, and the undo journalled, before anything is stopped. If the time was over before
    all was stopped, it is continued at once, and the evidence says that nothing stood still.

    Args:
        world: Clock and timers.
        pid: The node's first process.
        seconds: The lease; above 0.
        journal: Where the undo is written first.
        timeout: Seconds to wait until they stand still. Default 5.

    Raises:
        ConfigError: ``seconds`` is not positive, or this is not Linux.
        ProcessLookupError: There is no such process: nothing was done.
        PermissionError: It is not ours.
    """
    require_linux("pause")
    if seconds <= 0:
        raise ConfigError(f"pause: seconds is {seconds}; a lease is longer than 0")
    tree = _tree(pid)
    undo = journal.before(Continue(tuple(tree))) if journal is not None else 0
    begun = world.clock.monotonic_ns()
    guardian = await Guardian.start(seconds, resume=tree)
    until_ns = begun + int(seconds * _NS)
    stopped = _stop(pid)
    late = world.clock.monotonic_ns() >= until_ns
    if late:  # the guardian may have acted before there was anything to continue
        for process in stopped:
            send(process, signal.SIGCONT)
    still = not late and await _until(
        world, timeout, lambda: all(is_stopped(p) or not is_alive(p) for p in stopped)
    )
    now = world.clock.monotonic_ns()
    facts = {
        "pid": pid,
        "pids": [process.pid for process in stopped],
        "signal": "SIGSTOP",
        "stopped": still and any(map(is_stopped, stopped)),
        "state": "T",
        "lease_s": seconds,
    }

    def release() -> None:
        if journal is not None:
            journal.done(undo)

    evidence = Evidence("stopped", now, facts)
    return Pause(
        world,
        stopped,
        guardian=guardian,
        evidence=evidence,
        until_ns=until_ns,
        release=release,
    )


def _tree(pid: int) -> list[ProcessId]:
    tree = process_tree(pid)
    if not tree:
        raise ProcessLookupError(f"no process {pid}")
    return tree


def _stop(pid: int) -> list[ProcessId]:
    """Stop a tree; look again until nobody was born meanwhile."""
    stopped: list[ProcessId] = []
    tree = _tree(pid)
    for _ in range(_ROUNDS):
        fresh = [process for process in tree if process not in stopped]
        if not fresh:
            break
        for process in fresh:
            send(process, signal.SIGSTOP)
        stopped.extend(fresh)
        tree = process_tree(pid)
    return stopped


async def _until(world: World, timeout: float, holds: Callable[[], bool]) -> bool:
    """Wait until ``holds()``; whether it did within ``timeout`` seconds."""
    end = world.clock.monotonic_ns() + int(timeout * _NS)
    while not holds():
        if world.clock.monotonic_ns() >= end:
            return False
        await world.timers.sleep(_LOOK_SECONDS)
    return True
