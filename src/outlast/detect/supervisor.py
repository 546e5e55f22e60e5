"""Supervisor trees: keep processes, threads and tasks running, in order."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from outlast.detect.child import Child
from outlast.detect.child_run import simulated
from outlast.detect.child_status import ChildStatus, draw, trouble
from outlast.detect.core.restarting import (
    AutoShutdown,
    ChildRule,
    OnLimit,
    RestartBackoff,
    Strategy,
    TreeRules,
)
from outlast.detect.core.supervisor import Restart
from outlast.detect.supervisor_branch import Branch, BranchState, Ending, Top
from outlast.kernel import ConfigError, UnavailableError, World, current_world
from outlast.kernel.registry import watch

if TYPE_CHECKING:
    from outlast.detect.health import Health
    from outlast.host.spawn import SweeperProcess

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_FAILED: Final = 1
_INTERRUPTED: Final = 130


class Supervisor:
    """Starts children in order, starts those again that end, stops them in reverse order.

    Children are made by :meth:`Child.command`, :meth:`~Child.process`, :meth:`~Child.thread` and
    :meth:`~Child.task`; one may be another supervisor, which makes a tree. The next child is
    started when the one before is ready. Processes never outlive the process of the supervisor
    (Linux), nor does what they have started, whether it has left their group or not; elsewhere
    their process groups end with them.

    Not thread-safe: use it on one loop, in a thread that lives as long as the children do (the
    kernel ties them to it). A forked child of this process supervises nothing. Does not pickle.

    Args:
        children: In the order in which they start.
        strategy: When a child has ended and is started again, ``one_for_one``: it alone;
            ``one_for_all``: all are stopped and started; ``rest_for_one``: those after it, too.
        intensity: Restarts allowed within ``period``, over all children without a policy of
            their own. One more is a crash loop.
        period: Seconds over which they are counted.
        backoff: Waits between restarts.
        on_limit: In a crash loop, ``slow``: go on, one start per ``backoff.cap``; ``stop``: stop
            all for good; ``escalate``: stop all and let the parent treat this supervisor as a
            child that has failed. By default ``slow``, in another supervisor ``escalate``.
        auto_shutdown: ``never``, or end when ``any_significant`` or ``all_significant`` children
            have ended for good.
        name: In events and health, and under which it is found by those who watch the process.
            Needed inside another supervisor.
        restart: As a child of another supervisor: when it is started again.
        significant: The same: whether its end counts for ``auto_shutdown``.
        health: Where crash loops and stuck children are reported, as ``degraded``.
        world: Clock, timers, draws, threads and events; by default the current world at the
            start.

    Raises:
        ConfigError: Definite. A value is out of range, no child, or two have the same name.
    """

    kind: Final = "supervisor"

    def __init__(
        self,
        *children: "Child | Supervisor",
        strategy: Strategy = "one_for_one",
        intensity: int = 5,
        period: float = 60.0,
        backoff: RestartBackoff | None = None,
        on_limit: OnLimit | None = None,
        auto_shutdown: AutoShutdown = "never",
        name: str = "",
        restart: Restart = "permanent",
        significant: bool = False,
        health: "Health | None" = None,
        world: World | None = None,
    ) -> None:
        self.name = name
        self._specs = children
        self._rules = TreeRules(
            strategy, intensity, period, backoff or RestartBackoff(), on_limit or "slow",
            auto_shutdown,
        )  # fmt: skip
        self._on_limit = on_limit
        self._rule = ChildRule(name, restart, significant)
        self._given_world = world
        self._health = health
        self._has_parent = False
        self._mark = ""
        self._sweeper: SweeperProcess | None = None
        self._said = ""
        self._check_names()
        inner = [child for child in children if isinstance(child, Supervisor)]
        for child in inner:
            if child._has_parent:
                raise ConfigError(f"Supervisor: {child.name!r} has a parent already")
        for child in inner:
            child._adopt()
        self.branch = self._grow()
        if name:
            watch(self)

    def _check_names(self) -> None:
        if not self._specs:
            raise ConfigError("Supervisor: no children; at least one would be right")
        seen: set[str] = set()
        for child in self._specs:
            if not isinstance(child, Child | Supervisor):
                raise ConfigError(
                    f"Supervisor: {child!r} is no child; Child.command(...) and the like make one"
                )
            if not child.name or "/" in child.name:
                raise ConfigError(
                    f"Supervisor: a supervisor inside is named {child.name!r}; not empty, no '/'"
                )
            if child.name in seen:
                raise ConfigError(f"Supervisor: two children are named {child.name!r}")
            seen.add(child.name)

    def _adopt(self) -> None:
        self._has_parent = True
        if self._on_limit is None:
            self._rules = replace(self._rules, on_limit="escalate")
            self.branch = self._grow()

    def _grow(self) -> Branch:
        rules = [one._rule if isinstance(one, Supervisor) else one.rule() for one in self._specs]
        return Branch(self.name, self._specs, self._rules, rules)

    # --- what can be seen ----------------------------------------------------------------------

    def __repr__(self) -> str:
        """Return the children with their live state."""
        name = f" {self.name}" if self.name else ""
        return f"<Supervisor{name} {list(self.children)}>"

    def __str__(self) -> str:
        """Return the tree with its live state, a line for each child."""
        rules = self._rules
        head = f"{self.name or 'supervisor'} {rules.strategy} {self.state}"
        return "\n".join([head, *draw(self.children)])

    @property
    def state(self) -> BranchState:
        """``new``, ``running``, ``stopping`` or ``ended``."""
        return self.branch.state

    @property
    def children(self) -> tuple[ChildStatus, ...]:
        """The children, in order of start."""
        return self.branch.children

    @property
    def ending(self) -> Ending | None:
        """Why it has ended, ``None`` before."""
        return self.branch.ending

    def child(self, name: str) -> ChildStatus:
        """Return what is known of one child; ``inner/name`` for one of a supervisor inside.

        Raises:
            ConfigError: Definite. There is none of that name.
        """
        first, _, rest = name.partition("/")
        found = self.branch.statuses.get(first)
        if found is None:
            known = ", ".join(self.branch.statuses)
            raise ConfigError(f"child {first!r} is not supervised here; children: {known}")
        if rest and isinstance(found.spec, Supervisor):
            return found.spec.child(rest)
        return found

    def describe(self) -> dict[str, Any]:
        """Return the settings, as values that JSON knows."""
        rules = self._rules
        return {
            "kind": "supervisor", "name": self.name, "strategy": rules.strategy,
            "intensity": rules.intensity, "period": rules.period, "on_limit": rules.on_limit,
            "auto_shutdown": rules.auto_shutdown, "children": [one.name for one in self._specs],
        }  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        """Return the live state, as values that JSON knows."""
        return {
            "state": self.state,
            "ending": "" if self.ending is None else self.ending.reason,
            "children": [child.snapshot() for child in self.children],
        }

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all children in order; returns when all are ready. Nothing happens if it runs.

        While it is being stopped, it is started afterwards.
        A child that ends before it is ready is started again as the rules say, and those after
        it wait; put ``asyncio.timeout`` around it to give up. Cancelled, or if it raises,
        everything that was started is stopped again.

        Raises:
            OSError: Definite. A process, or its log, cannot be started at all.
            ConfigError: Definite. It is part of another supervisor; a process in simulated time;
                ``health`` does not take its report.
            UnavailableError: Definite. It ended because restarts did not help.
        """
        self._refuse_inner("start")
        while self.branch.state == "stopping":
            await self.branch.finished.wait()
        if not self.branch.core.running:
            self._begin(self._given_world or current_world())
        up = self.branch.up
        try:
            if up is not None:
                await asyncio.shield(up)
        except BaseException:
            await self.stop()
            raise

    def restart(self, name: str) -> None:
        """Start a child again that is down, at once and counting afresh.

        One of a supervisor inside that has ended is started with all of that supervisor. Nothing
        happens if it runs, if everything is being stopped, or if nothing was ever started.

        Raises:
            ConfigError: Definite. There is none of that name.
        """
        self.child(name)
        first, _, rest = name.partition("/")
        index = list(self.branch.statuses).index(first)
        spec = self._specs[index]
        if rest and isinstance(spec, Supervisor) and spec.state == "running":
            spec.restart(rest)
            return
        if self._mark and self._sweeper is None:
            self._post_sweeper(self._mark)
        if not self.branch.restart(index) and not self.branch.core.running:
            self._dismiss_sweeper()

    async def stop(self) -> None:
        """Stop all children, the last started first: each is asked, has its grace, is ended.

        Every process has ended when this returns. Cancelled, it kills at once what is left.

        Raises:
            ConfigError: Definite. It is part of another supervisor.
        """
        self._refuse_inner("stop")
        self.branch.shut()
        if not self.branch.core.running:
            return
        try:
            await self.branch.finished.wait()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End all processes at once, tasks and threads as far as they let themselves be ended."""
        self.branch.kill()

    async def ended(self) -> Ending:
        """Wait until it has ended, or a child stays down by its own policy; say why."""
        await self.branch.told.wait()
        return self.ending or Ending("stopped")

    async def __aenter__(self) -> Self:
        """Start it."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it."""
        await self.stop()

    def run(self) -> int:
        """Start it and supervise until a signal or its end; the whole of a program.

        The first SIGTERM or SIGINT stops everything in order, a second kills it at once.

        Returns:
            The exit code: 0 after SIGTERM or when it has ended well, 130 after SIGINT, 1 when it
            has ended because restarts did not help.
        """
        return asyncio.run(self.main())

    async def main(self) -> int:
        """The same as :meth:`run` in a running loop, whose signal handlers it takes."""
        loop = asyncio.get_running_loop()
        asked: list[int] = []
        begun = asyncio.Event()

        def on_signal(number: int) -> None:
            asked.append(number)
            begun.set()
            if len(asked) > 1:
                self.kill()

        for number in _SIGNALS:
            loop.add_signal_handler(number, on_signal, number)
        waits = [asyncio.ensure_future(begun.wait()), asyncio.ensure_future(self._serve())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not asked:
                await waits[1]
        finally:
            for wait in waits:
                wait.cancel()
            try:
                await asyncio.gather(*waits, return_exceptions=True)
                await self.stop()
            except BaseException:
                self.kill()
                raise
            finally:
                for number in _SIGNALS:
                    loop.remove_signal_handler(number)
        if asked:
            return _INTERRUPTED if asked[0] == signal.SIGINT else 0
        return _FAILED if self.ending is not None and self.ending.failed else 0

    async def _serve(self) -> None:
        try:
            await self.start()
        except UnavailableError:
            if self.ending is None or not self.ending.failed:
                raise
        await self.ended()

    # --- inside --------------------------------------------------------------------------------

    def _refuse_inner(self, what: str) -> None:
        if self._has_parent:
            raise ConfigError(f"Supervisor: {what} the outermost one, not {self.name!r} inside")

    def _leaves(self) -> Iterator[Child]:
        for one in self._specs:
            if isinstance(one, Supervisor):
                yield from one._leaves()
            else:
                yield one

    def _begin(self, world: World) -> None:
        self._mark = self._said = ""
        processes = any(one.kind in {"command", "process"} for one in self._leaves())
        if processes and simulated(world):
            message = "Supervisor: processes need the real machine; tasks and threads run here"
            raise ConfigError(message)
        self._report()
        if processes:
            now_ns = world.clock.monotonic_ns()
            self._mark = f"{os.getpid():x}-{now_ns:x}-{world.prng.bits64():016x}."
            self._post_sweeper(self._mark)
        self.branch.begin(world, _Root(self, self._mark))

    def _post_sweeper(self, mark: str) -> None:
        """Have what ends our processes when we are gone."""
        from outlast.host.spawn import SweeperProcess

        self._dismiss_sweeper()
        self._sweeper = SweeperProcess(mark)

    def _dismiss_sweeper(self) -> None:
        if self._sweeper is not None:
            self._sweeper.dismiss()
            self._sweeper = None

    def _changed(self) -> None:
        if not self.branch.core.running:
            self._dismiss_sweeper()
        with suppress(ConfigError):  # it was told at the start; children come first
            self._report()

    def _report(self) -> None:
        if self._health is None:
            return
        wrong = trouble(self.children)
        text = "; ".join(wrong) or f"{len(self._specs)} children"
        if text != self._said:
            from outlast.detect.health import Status

            status = Status.DEGRADED if wrong else Status.OK
            self._health.report(f"supervisor {self.name}".strip(), status, text, critical=False)
            self._said = text


class _Root(Top):
    """What the supervisors of one tree share."""

    def __init__(self, supervisor: Supervisor, mark: str) -> None:
        super().__init__(mark, supervisor.name)
        self._supervisor = supervisor

    def failed_start(self, error: Exception) -> None:
        """A child could not be started: if the tree is starting, that is the answer."""
        up = self._supervisor.branch.up
        if up is not None and not up.done() and self.error is None:
            self.error = error
            self._supervisor.branch.shut(f"it cannot be started: {error}")

    def changed(self) -> None:
        """Tell health what is wrong, if that is something else than before."""
        self._supervisor._changed()
