"""Runs processes and starts them again when they end."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from outlast.detect.core.supervisor import (
    InCrashLoop,
    RestartDecider,
    RestartPolicy,
    StayDown,
    exit_reason,
)
from outlast.detect.events import ChildExited, ChildRestarting, ChildStarted, CrashLoop
from outlast.host.process import ChildProcess, start_process
from outlast.kernel import ConfigError, World, current_world

_NS: Final = 1_000_000_000
_SIGNALS: Final = {int(number): number.name for number in signal.Signals}

_NOT_STARTED: Final = 126

ChildState = Literal["new", "running", "waiting", "done", "crash-loop", "stopped"]


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One process to keep running.

    Args:
        name: Its name in events; unique within the supervisor.
        command: Program and arguments.
        environment: Its whole environment; ours by default.
        directory: Where it runs; ours by default.
        log: File that its output is appended to; by default it shares our output.
        policy: When it is started again.
        grace: Seconds from SIGTERM to SIGKILL when it is stopped.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    directory: str | None = None
    log: str | None = None
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    grace: float = 5.0

    def __post_init__(self) -> None:
        """Check that there is a name and a command."""
        if not self.name or not self.command:
            raise ConfigError(f"child {self.name!r}: name or command {self.command!r} is empty")


class Child:
    """What is known of one supervised process. Only to be read.

    Attributes:
        spec: What was asked for.
        state: ``new``, ``running``, ``waiting`` (for its restart), ``done``, ``crash-loop`` or
            ``stopped``.
        pid: Process id while running, else ``None``.
        restarts: How often it was started again.
        last_exit: How it last ended, such as ``killed by SIGKILL``; empty before.
    """

    __slots__ = (
        "_decider", "_process", "_started_ns", "_watch", "last_exit", "pid", "restarts", "spec",
        "state",
    )  # fmt: skip

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.state: ChildState = "new"
        self.pid: int | None = None
        self.restarts = 0
        self.last_exit = ""
        self._decider = RestartDecider(spec.policy)
        self._process: ChildProcess | None = None
        self._started_ns = 0
        self._watch: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Return name and live state."""
        return f"<Child {self.spec.name} {self.state} pid={self.pid} restarts={self.restarts}>"


class Supervisor:
    """Starts processes in order, restarts those that end, stops them in reverse order.

    Children never outlive the process of the supervisor (Linux), and each is the head of a
    process group that is ended with it. Not thread-safe: use it on one loop.

    Args:
        world: Clock, timers, draws and events; the current world by default.
        specs: The children, in the order in which they start.

    Raises:
        ConfigError: Definite. Two children have the same name.
    """

    def __init__(self, world: World | None, specs: Sequence[ChildSpec]) -> None:
        self._world = world or current_world()
        self._children: dict[str, Child] = {}
        self._stopping = False
        self._ended: asyncio.Event = asyncio.Event()
        for spec in specs:
            if spec.name in self._children:
                raise ConfigError(f"Supervisor: two children are named {spec.name!r}")
            self._children[spec.name] = Child(spec)

    def __repr__(self) -> str:
        """Return the children with their live state."""
        return f"<Supervisor {list(self._children.values())}>"

    @property
    def children(self) -> tuple[Child, ...]:
        """The children, in order of start."""
        return tuple(self._children.values())

    def child(self, name: str) -> Child:
        """Return what is known of one child.

        Raises:
            ConfigError: Definite. There is none of that name.
        """
        found = self._children.get(name)
        if found is None:
            known = ", ".join(self._children) or "none"
            raise ConfigError(f"child {name!r} is not supervised here; children: {known}")
        return found

    async def start(self) -> None:
        """Start every child that does not run; returns when all processes run.

        If one cannot be started, those that were started are stopped again.

        Raises:
            OSError: Definite. A log cannot be opened, or there is no room for a process.
        """
        self._stopping = False
        self._ended.clear()
        try:
            for child in self._children.values():
                await self._begin(child)
        except BaseException:
            await self.stop()
            raise

    async def restart(self, name: str) -> None:
        """Start a child again that is done or in a crash loop, counting afresh."""
        child = self.child(name)
        if child._watch is not None and not child._watch.done():
            return
        child._decider.forget()
        child.restarts += 1
        self._ended.clear()
        await self._begin(child)

    async def stop(self) -> None:
        """Stop all children, the last started first: SIGTERM, ``grace`` seconds, SIGKILL.

        Every process has ended when this returns. Cancelled, it kills at once what is left.
        """
        self._stopping = True
        left = [child for child in reversed(self._children.values())]
        try:
            while left:
                await self._stop_one(left[0])
                left.pop(0)
        finally:
            for child in left:
                if child._process is not None:
                    child._process.kill_group()
        self._ended.set()

    async def ended(self) -> None:
        """Wait until a child is in a crash loop and stays down, or all are done or stopped."""
        await self._ended.wait()

    # --- inside -----------------------------------------------------------------------------

    async def _begin(self, child: Child) -> None:
        if child._watch is not None and not child._watch.done():
            return
        await self._launch(child)
        child._watch = asyncio.get_running_loop().create_task(
            self._watch(child), name=f"supervise {child.spec.name}"
        )

    async def _launch(self, child: Child) -> None:
        spec = child.spec
        child._process = await start_process(
            spec.command, environment=spec.environment, directory=spec.directory, log=spec.log
        )
        child._started_ns = self._world.clock.monotonic_ns()
        child.pid = child._process.pid
        child.state = "running"
        self._world.events.emit(
            ChildStarted(child=spec.name, pid=child.pid, restarts=child.restarts)
        )

    async def _watch(self, child: Child) -> None:
        """Wait for each end of the child, and start it again as its policy says."""
        while True:
            if child._process is not None:
                code = await child._process.wait()
                self._note_exit(child, code)
            else:
                code = _NOT_STARTED
            if self._stopping:
                return
            delay_ns = self._decide(child, code)
            if delay_ns is None:
                self._note_end(child)
                return
            await self._world.timers.sleep(delay_ns / _NS)
            child.restarts += 1
            await self._launch_again(child)

    async def _launch_again(self, child: Child) -> None:
        """Start the child; what cannot be started counts as ended at once."""
        launch = asyncio.get_running_loop().create_task(self._launch(child))
        try:
            await asyncio.shield(launch)
        except OSError as error:
            child.last_exit = f"cannot be started: {error}"
        except asyncio.CancelledError:
            # Stopped in the middle of a start: the process must not be left behind.
            await asyncio.wait([launch])
            if child._process is not None:
                child._process.kill_group()
                self._note_exit(child, await child._process.wait())
            raise

    def _decide(self, child: Child, code: int) -> int | None:
        """Return the wait before the next start, ``None`` if there is none."""
        world = self._world
        decision = child._decider.on_exit(code, world.clock.monotonic_ns(), world.prng)
        if isinstance(decision, StayDown):
            child.state = "done"
            return None
        if isinstance(decision, InCrashLoop):
            child.state = "crash-loop"
            world.events.emit(
                CrashLoop(
                    child=child.spec.name,
                    count=decision.count,
                    period=child.spec.policy.period,
                    reason=child.last_exit,
                )
            )
            return decision.delay_ns
        child.state = "waiting"
        world.events.emit(
            ChildRestarting(
                child=child.spec.name, delay=decision.delay_ns / _NS, count=decision.count
            )
        )
        return decision.delay_ns

    def _note_exit(self, child: Child, code: int) -> None:
        process, pid = child._process, child.pid or 0
        child._process, child.pid = None, None
        child.last_exit = exit_reason(code, _SIGNALS)
        if process is not None:
            process.kill_group()  # what it started and left behind
        uptime_ns = self._world.clock.monotonic_ns() - child._started_ns
        self._world.events.emit(
            ChildExited(
                level="info" if self._stopping else "warning",
                child=child.spec.name,
                pid=pid,
                code=code,
                reason=child.last_exit,
                uptime=uptime_ns / _NS,
            )
        )

    def _note_end(self, child: Child) -> None:
        over = all(c.state in {"done", "crash-loop", "stopped"} for c in self._children.values())
        if child.state == "crash-loop" or over:
            self._ended.set()

    async def _stop_one(self, child: Child) -> None:
        watch, process = child._watch, child._process
        if process is not None:
            process.terminate()
            killer = self._world.timers.call_at(
                self._world.clock.monotonic_ns() + round(child.spec.grace * _NS),
                process.kill_group,
            )
            try:
                if watch is not None:
                    await asyncio.wait([watch])
                else:
                    self._note_exit(child, await process.wait())
            finally:
                killer.cancel()
        if watch is not None and not watch.done():
            watch.cancel()
            await asyncio.wait([watch])
        child._watch = None
        if child.state not in {"new", "done", "crash-loop"}:
            child.state = "stopped"
