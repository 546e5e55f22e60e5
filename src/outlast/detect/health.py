"""Health: named checks, run in the background, read as a snapshot.

A probe never runs a check: it reads what the last run found, so that probing costs nothing and a
hung dependency cannot hang the probe. A result that has become old counts as unknown, because
"nothing was found" is not "all is well".
"""

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from outlast.detect.core.health import CheckResult, Group, GroupHealth, Status, read_groups
from outlast.detect.core.health_record import Progress, Record, Rule
from outlast.detect.events import HealthThreadsUsedUp
from outlast.detect.health_board import Board, read_seconds
from outlast.detect.health_runner import Checker, Runner
from outlast.kernel import ConfigError, World, current_world

if TYPE_CHECKING:
    from outlast.detect.health_server import HealthServer

_NS: Final = 1_000_000_000
_STOP_SECONDS: Final = 2.0

Finding = Status | bool | None | tuple[Status, str]
"""What a check returns: a status, with a detail if it likes; ``True`` or ``None`` is ok,
``False`` failed; an exception is failed as well, with its type as the detail."""

Check = Callable[[], Finding | Awaitable[Finding]]
_C = TypeVar("_C", bound=Check)


class Health(Board):
    """A registry of checks in three groups: startup, liveness, readiness.

    * *startup* has passed once all its checks passed, and then stays so.
    * *liveness* fails only when something says ``failed``, such as progress that stays away: its
      answer restarts the process, which an unknown does not justify. Dependencies belong in
      readiness: an outage must not restart everybody who feels it.
    * *readiness* needs every critical check to be known and not failed.

    Coroutine checks run on the loop of :meth:`run`; plain ones on a thread each, so that one that
    hangs costs one thread, and is not started again before it returns. A program without a loop
    calls :meth:`start` instead.

    :meth:`read`, :meth:`snapshot`, :meth:`status`, :meth:`report`, :meth:`drain` and stamps may be
    called from any thread, and answer while the loop hangs; reading takes no lock. The other
    methods belong to the program's main thread or loop. A forked child has a copy: its results
    grow old until the child runs the checks itself. Does not pickle.

    Args:
        world: Clock, timers, threads and events; by default the current world at the moment
            when the checks begin to run.
        name: In events, and under which it is found by those who watch the process.
        max_threads: How many plain checks may be at it at once. Beyond it a check is unknown.
        max_checks: How many names there may be.

    Raises:
        ConfigError: Definite. A bound is below 1.

    >>> health = Health()
    >>> health.report("cache", Status.DEGRADED, "cold", critical=False)
    >>> health.read("readiness").status, health.read("readiness").passing
    (<Status.DEGRADED: 'degraded'>, True)
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        name: str = "",
        max_threads: int = 16,
        max_checks: int = 256,
    ) -> None:
        if max_threads < 1 or max_checks < 1:
            raise ConfigError(
                f"Health: max_threads is {max_threads}, max_checks {max_checks}; 1 or more"
            )
        super().__init__(world, name, max_checks)
        self._max_threads = max_threads
        self._own: _Own | None = None
        self._task: asyncio.Task[None] | None = None
        self._runner = Runner(
            name, max_threads, note=self._note, sweep=self._sweep, used_up=self._used_up
        )
        _all.add(self)

    # --- what there is -------------------------------------------------------------------------

    def add(
        self,
        name: str,
        check: Check,
        *,
        groups: Sequence[Group] | Group = ("readiness",),
        timeout: float = 1.0,
        every: float = 1.0,
        stale_after: float | None = None,
        critical: bool = True,
        fail_after: int = 1,
        pass_after: int = 1,
        even_though: str = "",
        needs_network: bool | None = None,
    ) -> None:
        """Add a check.

        Args:
            name: Its name; unique.
            check: Plain or coroutine function without arguments; see :data:`Finding`.
            groups: Where it counts: ``startup``, ``liveness``, ``readiness``.
            timeout: Seconds after which a run counts as failed. If this process was paused
                meanwhile, a run gets that time again, at most ``timeout`` once.
            every: Seconds from the end of a run to the next. The first is run at once, the
                second up to 40 % earlier, by chance, so that checks do not stay together.
            stale_after: Seconds after which its last result counts as unknown; by default
                three runs and one timeout.
            critical: Whether it decides; otherwise it can only degrade its groups.
            fail_after: Findings in a row that must be worse before it is shown as worse.
            pass_after: The same for better. The first good finding of all counts at once.
            even_though: Why a check that needs the network may be in liveness.
            needs_network: Whether it asks something outside of this process; what the check says
                of itself (its attribute ``needs_network``) by default.

        Raises:
            ConfigError: Definite. Name taken, group unknown, a time not positive, or a check
                that needs the network in liveness without a reason.
        """
        if needs_network is None:
            needs_network = bool(getattr(check, "needs_network", False))
        stale = 3 * every + timeout if stale_after is None else stale_after
        rule = Rule(
            name,
            groups=read_groups(groups),
            critical=critical,
            timeout_ns=read_seconds(name, "timeout", timeout),
            every_ns=read_seconds(name, "every", every),
            stale_ns=read_seconds(name, "stale_after", stale),
            fail_after=fail_after,
            pass_after=pass_after,
            needs_network=needs_network,
            even_though=even_though,
        )
        with self._lock:
            record = Record(rule, self._now_ns())
            self._keep_locked(record)
            self._runner.checkers[name] = Checker(record, check)
        self._runner.nudge()

    def check(
        self, name: str, *, group: Group | None = None, **settings: Any
    ) -> Callable[[_C], _C]:
        """Add the function below as a check; a decorator.

        Args:
            name: Its name; unique.
            group: Where it counts; ``groups=`` for several. Readiness by default.
            settings: As of :meth:`add`.

        Raises:
            ConfigError: Definite. As of :meth:`add`, or both ``group`` and ``groups``.
        """
        if group is not None:
            if "groups" in settings:
                raise ConfigError(f"check {name!r}: give group or groups, not both")
            settings["groups"] = (group,)

        def decorate(function: _C) -> _C:
            self.add(name, function, **settings)
            return function

        return decorate

    def forget(self, name: str) -> None:
        """Remove a check, report or progress; nothing happens if there is none of that name.

        A run that hangs keeps its thread until it returns.
        """
        with self._lock:
            self._runner.checkers.pop(name, None)
            self._drop_locked(name)
        self._runner.nudge()

    # --- running -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run all checks, each at its pace, until cancelled. Checks added later are taken up.

        Raises:
            ConfigError: Definite. They are being run already.
        """
        self._runner.check_idle()
        await self._runner.run(self._begin())

    async def __aenter__(self) -> Self:
        """Run the checks until the block ends."""
        self._runner.check_idle()
        task = self._task
        if task is not None and not task.done() and not task.get_loop().is_closed():
            raise ConfigError(f"health {self.name}".strip() + ": the checks run already")
        self._task = asyncio.create_task(self.run(), name=f"health {self.name}".strip())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop running them."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])  # who is cancelled meanwhile hears of it
            if not task.cancelled():
                task.result()

    def serve(self, address: str = ":9090", **settings: Any) -> "HealthServer":
        """Answer probes over HTTP from a thread and port of its own, and return the server.

        Args:
            address: ``":9090"`` (this machine only) or ``"host:port"``; port 0 takes a free one.
            settings: Those of :class:`~outlast.detect.HealthServer`.

        Raises:
            ConfigError: Definite. A setting is out of range, or the extra ``health`` is missing.
            OSError: Definite. The address is in use or not ours.
        """
        from outlast.detect.health_server import serve

        return serve(self, address, **settings)

    def start(self) -> None:
        """Run all checks on a daemon thread with a loop of its own; returns when it runs.

        Nothing happens if it runs. Coroutine checks run on that loop: clients that belong to
        another loop are checked by :meth:`run` there.

        Raises:
            ConfigError: Definite. The checks are being run on a loop already.
            RuntimeError: Definite. The system has no room for another thread.
        """
        if self._own is not None and self._own.is_alive():
            return
        self._runner.check_idle()
        name = f"outlast-health-{self.name}" if self.name else "outlast-health"
        self._own = _Own(name, self._runner, self._begin())
        try:
            self._own.begin()
        except RuntimeError:  # there is no room for a thread
            self._own = None
            raise

    def stop(self) -> None:
        """Stop the thread of :meth:`start`; checks that hang are left behind on their threads."""
        own, self._own = self._own, None
        if own is not None:
            own.end()

    async def refresh(self) -> None:
        """Run every check once, together, and wait for them; bounded by the longest timeout.

        What runs already is joined, not started again.
        """
        loop = self._runner.loop
        if loop is None or loop.is_closed() or loop is asyncio.get_running_loop():
            await self._refresh()
            return
        longest_ns = max((r.rule.timeout_ns for r in self._records.copy().values()), default=0)
        there = self._refresh()
        try:
            elsewhere = asyncio.run_coroutine_threadsafe(there, loop)
        except RuntimeError:  # it was closed just now
            there.close()
            await self._refresh()
            return
        await asyncio.wait([asyncio.wrap_future(elsewhere)], timeout=longest_ns / _NS)

    # --- inside --------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the live state of everything, as values that JSON knows."""
        return super().status() | {"threads": self._runner.threads}

    def describe(self) -> dict[str, Any]:
        """Return the settings, as values that JSON knows."""
        return super().describe() | {"max_threads": self._max_threads}

    def _begin(self) -> World:
        """Choose the world; what was found in another one means nothing in it."""
        world = self._given if self._given is not None else current_world()
        with self._lock:
            if self._renew_locked(world):
                self._runner.forget()
                for name, checker in self._runner.checkers.items():
                    checker.record = self._records[name]
        return world

    def _used_up(self, check: str, holders: tuple[str, ...]) -> None:
        event = HealthThreadsUsedUp(
            health=self.name, check=check, threads=len(holders), holders=holders
        )
        self._here().events.emit(event)

    async def _refresh(self) -> None:
        world = self._world
        if world is None or self._runner.loop is None:
            world = self._begin()
        checkers = self._runner.checkers.copy().values()
        await asyncio.gather(*(self._runner.once(world, checker) for checker in checkers))
        self._sweep()

    def _forked(self) -> None:
        """In the child: no thread and no run of the parent is here, and no lock is held."""
        self._lock = threading.Lock()
        self._own = self._task = None
        self._runner.forget()


class _Own(threading.Thread):
    """A thread whose loop runs the checks. It ends when it is told to, even before it began."""

    def __init__(self, name: str, runner: Runner, world: World) -> None:
        super().__init__(name=name, daemon=True)
        self._runner, self._world = runner, world
        self._task: asyncio.Task[None] | None = None
        self._over = False
        self._begun = threading.Lock()
        self._begun.acquire()

    def begin(self) -> None:
        """Start it, and wait until it runs the checks."""
        self.start()
        self._world.clock.wait(self._begun, _STOP_SECONDS)

    def end(self) -> None:
        """Let it end, and wait for that."""
        self._over = True
        task = self._task
        if task is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                task.get_loop().call_soon_threadsafe(task.cancel)
        if self is not threading.current_thread():
            self.join(_STOP_SECONDS)

    def run(self) -> None:
        """Run the checks."""
        asyncio.run(self._main())

    async def _main(self) -> None:
        task = self._task = asyncio.ensure_future(self._runner.run(self._world))
        self._begun.release()
        if self._over:  # who told us so may not have seen the task
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


_all: "weakref.WeakSet[Health]" = weakref.WeakSet()


def _forked_all() -> None:
    for health in list(_all):
        health._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked_all)

__all__ = [
    "Check", "CheckResult", "Finding", "Group", "GroupHealth", "Health", "Progress", "Status",
]  # fmt: skip
