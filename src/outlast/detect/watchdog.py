"""Watchdogs: one thread that looks whether the program still gets on, and acts if not.

Each watchdog looks at one thing (an event loop, the threads, the tasks, memory …) and says of it
good or bad. The engine keeps a ladder of actions for everything that is bad, and does what is
due. It sleeps until the earliest instant at which anything could become bad, so that a healthy
program pays for a few looks a second.
"""

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from outlast.detect.core.ladder import Action, Ladder, LadderState, make_ladder
from outlast.detect.watchdog_act import EXIT_CODE, Actor
from outlast.detect.watchdog_events import WatchdogFailed
from outlast.kernel import ConfigError, Event, World, current_world
from outlast.kernel.registry import watch

if TYPE_CHECKING:
    from outlast.detect.guard import Guard

_NS: Final = 1_000_000_000
_CONDITIONS_MAX: Final = 1000
_LOOK_MIN_NS: Final = 20_000_000
_SLACK_NS: Final = 80_000_000
_LOOK_MAX_NS: Final = _NS
_RETRY_NS: Final = 10 * _NS
_STOP_SECONDS: Final = 3.0
_GAP_NS: Final = 50_000_000
_GAPS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """What is bad, and the events that say so; they are made when they are needed.

    ``event`` may be missing if somebody else has told it already; ``recovered`` is given the
    seconds that it lasted.
    """

    detail: str
    event: Callable[[], Event] | None
    recovered: Callable[[float], Event] | None = None


class Watchdog:
    """Base of all watchdogs: looks at one thing when the engine asks.

    It can be used alone (``with LoopWatchdog(): …``, or ``start`` and ``stop``); then it has an
    engine, and so a thread, of its own. ``off`` says why it does not look, if it does not.

    Args:
        name: What it is called in events and health.
        act: What is done, a :class:`Ladder` or actions that are done at once; by default what
            the engine does.
    """

    def __init__(self, name: str, act: "Ladder | Sequence[Action] | None" = None) -> None:
        self.name = name
        self.ladder = None if act is None else make_ladder(act)
        self.off = ""
        self._alone: Watchdogs | None = None

    def begin(self, engine: "Watchdogs") -> None:
        """Get ready; called where the engine is started."""

    def look(self, engine: "Watchdogs", now_ns: int) -> int:
        """Look, tell the engine what is bad or good, and return when to look again."""
        raise NotImplementedError

    def end(self) -> None:
        """Give everything back."""

    def forked(self) -> None:
        """This is the child of a fork: let go what belongs to the parent."""

    def describe(self) -> dict[str, Any]:
        """Return the settings."""
        return {"name": self.name}

    def snapshot(self) -> dict[str, Any]:
        """Return the live state."""
        return {"name": self.name, "off": self.off}

    def __repr__(self) -> str:
        """Show the name, and why it is off."""
        return f"<{type(self).__name__} {self.name}{f' off: {self.off}' if self.off else ''}>"

    # --- used alone ------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to watch on a thread of its own."""
        if self._alone is None:
            self._alone = Watchdogs(self, name=self.name)
        self._alone.start()
        return self

    def stop(self) -> None:
        """Stop watching; no effect if it does not."""
        if self._alone is not None:
            self._alone.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(self, *exc_info: object) -> None:
        self.stop()


class Watchdogs:
    """Several watchdogs on one daemon thread named ``outlast-watchdog``.

    Without watchdogs of your own: the running loop (if there is one), its tasks, the process, its
    threads, and its resources, each with its defaults. Nothing that a watchdog or an action does
    reaches the program: what raises is told once as :class:`WatchdogFailed` and tried again after
    ten seconds, and an action is waited for one second at most.

    Events are emitted from threads of the engine. Start and stop it from one thread; snapshots
    may be read from any. After a fork the child is not watched until it starts its own. In the
    simulator it is a task, and watchdogs that need the machine are off; in virtual time without
    a loop, call :meth:`look`.

    Args:
        watchdogs: What to watch.
        health: Where ``not_ready`` reports (an object with ``report``, such as ``Health``).
        act: The ladder of watchdogs that have none of their own; ``event`` by default.
        guard: The outside guard, if there shall be one.
        dump_dir: Where ``dump`` writes, at most ten files; the system's temporary directory.
        exit_code: With what ``restart`` ends the process, 1 to 255. Default 86.
        name: What it is called.
        world: Clock and events; the current world, read when it starts, by default.

    Raises:
        ConfigError: Two watchdogs of one name, ``not_ready`` without health, or the exit code.
    """

    def __init__(
        self,
        *watchdogs: Watchdog,
        health: Any = None,
        act: "Ladder | Sequence[Action]" = ("event",),
        guard: "Guard | None" = None,
        dump_dir: str | None = None,
        exit_code: int = EXIT_CODE,
        name: str = "watchdogs",
        world: World | None = None,
    ) -> None:
        self.name = name
        self._given = watchdogs
        self._watchdogs: tuple[Watchdog, ...] = watchdogs
        self._ladder = make_ladder(act)
        self.guard = guard
        self._world = world
        self.world: World | None = world
        self._actor = Actor(health=health, dump_dir=dump_dir, exit_code=exit_code)
        self._states: dict[tuple[str, str], tuple[LadderState, Finding]] = {}
        self._retry_ns: dict[str, int] = {}
        self._due_ns: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._gate = threading.Lock()
        self._running = False
        self._rested_ns: int | None = None
        self._alive_ns: int | None = None
        self._gaps: deque[tuple[int, int]] = deque(maxlen=_GAPS_MAX)
        self._actor.alive = self.alive
        self.slept_ns = 0
        self.looks = 0
        self._check(watchdogs)
        watch(self)

    def _check(self, watchdogs: Sequence[Watchdog]) -> None:
        names = [one.name for one in watchdogs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"Watchdogs: two are named {twice[0]!r}; give each its own name")
        ladders = [self._ladder, *(one.ladder for one in watchdogs if one.ladder is not None)]
        if self._actor.health is None and any("not_ready" in one.act for one in ladders):
            raise ConfigError("Watchdogs: act has 'not_ready' and health is None; give health=")

    # --- life --------------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to watch; no effect if it does.

        Raises:
            ConfigError: A watchdog cannot work here, such as one of a loop without a loop.
        """
        if self._running:
            return self
        world = self.world = self._world or current_world()
        self._actor.world = world
        self._actor.inline = self.simulated
        loop = _running_loop()
        chosen = self._given or _usual(loop)
        self._watchdogs = chosen if self.guard is None else (*chosen, self.guard)
        begun: list[Watchdog] = []
        try:
            # The guard first: others ask it for slots.
            for one in reversed(self._watchdogs):
                begun.append(one)
                one.begin(self)
        except BaseException:
            for one in begun:
                one.end()
            raise
        self._running = True
        self._rested_ns = self._alive_ns = None
        self._gaps.clear()
        _engines.add(self)
        if not self.simulated:
            self._gate = threading.Lock()
            self._gate.acquire()
            self._thread = threading.Thread(
                target=self._work, name="outlast-watchdog", daemon=True
            )
            self._thread.start()
        elif loop is not None:
            self._task = loop.create_task(self._repeat(world), name="outlast-watchdog")
        return self

    def stop(self) -> None:
        """Stop watching, and wait up to three seconds for a look that is under way."""
        if not self._running:
            return
        self._running = False
        _engines.discard(self)
        if self._thread is not None:
            self._gate.release()
            if self._thread is not threading.current_thread():
                self._thread.join(_STOP_SECONDS)
        if self._task is not None:
            self._task.cancel()
        self._thread = self._task = None
        for one in self._watchdogs:
            with suppress(Exception):
                one.end()
        for key, (state, _) in self._states.items():
            if "not_ready" in state.done:
                self._told(key[0], self._actor.ready(_title(*key)))
        self._states.clear()
        self._due_ns.clear()
        self._actor.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def simulated(self) -> bool:
        """Whether time is simulated: there is one thread, and no machine to look at."""
        return self.world is not None and hasattr(self.world.clock, "beside")

    # --- looking -------------------------------------------------------------------------------

    def look(self) -> int:
        """Let every watchdog look whose time has come; return the instant of the next look.

        Those whose time is not far are looked at as well: one waking instead of several.
        """
        now_ns = self.alive()
        self.slept_ns = 0 if self._rested_ns is None else now_ns - self._rested_ns
        self.looks += 1
        next_ns = now_ns + _LOOK_MAX_NS
        for one in self._watchdogs:
            if one.off:
                continue
            due_ns = self._due_ns.get(one.name, now_ns)
            if due_ns <= now_ns + _SLACK_NS:
                due_ns = self._due_ns[one.name] = self._look_at(one, now_ns)
                self.alive()
            next_ns = min(next_ns, due_ns)
        for state, _ in self._states.values():
            next_ns = min(next_ns, state.deadline_ns() or next_ns)
        self._rested_ns = self.alive()
        return max(next_ns, self._rested_ns + _LOOK_MIN_NS)

    def alive(self) -> int:
        """Note that the thread of the engine runs, and return the instant.

        Called before, between and after looks, and ten times a second in a wait for an action:
        what lies longer apart was a stall, wherever in the engine it struck.
        """
        now_ns = self._live_world().clock.monotonic_ns()
        if self._alive_ns is not None and now_ns - self._alive_ns >= _GAP_NS:
            self._gaps.append((now_ns, now_ns - self._alive_ns))
        self._alive_ns = now_ns
        return now_ns

    def longest_gap_ns(self, since_ns: int) -> int:
        """Return the longest time between two signs of life that ended after ``since_ns``."""
        return max((length for ended, length in self._gaps if ended > since_ns), default=0)

    def _look_at(self, one: Watchdog, now_ns: int) -> int:
        retry_ns = self._retry_ns.get(one.name)
        if retry_ns is not None and now_ns < retry_ns:
            return retry_ns
        try:
            due_ns = one.look(self, now_ns)
        except Exception as error:
            if retry_ns is None:
                self._failed(one.name, f"{type(error).__name__}: {error}")
            self._retry_ns[one.name] = now_ns + _RETRY_NS
            return now_ns + _RETRY_NS
        self._retry_ns.pop(one.name, None)
        return due_ns

    def bad(self, one: Watchdog, key: str, now_ns: int, finding: Finding) -> None:
        """Take from a watchdog that ``key`` is bad, and do what is due."""
        known = self._states.get((one.name, key))
        if known is None:
            if len(self._states) >= _CONDITIONS_MAX:
                return
            known = (LadderState(one.ladder or self._ladder), finding)
        state = known[0]
        self._states[one.name, key] = (state, finding)
        for action in state.on_bad(now_ns):
            self._act(action, one.name, key, finding)

    def good(self, one: Watchdog, key: str, now_ns: int, seconds: float = 0.0) -> None:
        """Take from a watchdog that ``key`` is good; undo what was done if it had been bad."""
        known = self._states.get((one.name, key))
        if known is None:
            return
        state, finding = known
        done = state.on_good(now_ns)
        if not state.over:
            return
        del self._states[one.name, key]
        if "not_ready" in done:
            self._told(one.name, self._actor.ready(_title(one.name, key)))
        if done and finding.recovered is not None:
            self._told(one.name, self._actor.emit(finding.recovered(seconds)))

    def tell(self, one: Watchdog, finding: Finding, now_ns: int) -> None:
        """Take something that happened at one moment: what a ladder has at once is done."""
        for action in LadderState(one.ladder or self._ladder).on_bad(now_ns):
            if action != "not_ready":
                self._act(action, one.name, "", finding)

    def emit(self, event: Event) -> None:
        """Emit an event that is no condition, bounded in time."""
        self._told(self.name, self._actor.emit(event))

    def _act(self, action: Action, name: str, key: str, finding: Finding) -> None:
        self._told(name, self._actor.act(action, _title(name, key), finding))

    def _told(self, name: str, wrong: str) -> None:
        if wrong:
            self._failed(name, wrong)

    def _failed(self, name: str, reason: str) -> None:
        self._actor.emit(WatchdogFailed(watchdog=name, reason=reason[:500]))

    def _live_world(self) -> World:
        if self.world is None:
            self.world = self._world or current_world()
            self._actor.world = self.world
            self._actor.inline = self.simulated
        return self.world

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        world = self._live_world()
        gate = self._gate
        while self._running:
            try:
                next_ns = self.look()
            except Exception:  # nothing may end the watch
                next_ns = world.clock.monotonic_ns() + _LOOK_MAX_NS
            left = (next_ns - world.clock.monotonic_ns()) / _NS
            if world.clock.wait(gate, left):
                return

    async def _repeat(self, world: World) -> None:
        while self._running:
            next_ns = self.look()
            await world.timers.sleep(max(next_ns - world.clock.monotonic_ns(), 0) / _NS)

    def _forked(self) -> None:
        self._running = False
        self._thread = self._task = None
        self._states.clear()
        for one in self._watchdogs:
            with suppress(Exception):
                one.forked()

    # --- being looked at -------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return the settings."""
        return {
            "name": self.name,
            "act": list(self._ladder.act),
            "after": list(self._ladder.times()),
            "watchdogs": [one.describe() for one in self._watchdogs],
        }

    def snapshot(self) -> dict[str, Any]:
        """Return the live state."""
        return {
            "running": self._running,
            "looks": self.looks,
            "bad": sorted(_title(*key) for key, (state, _) in self._states.copy().items()
                          if state.bad),
            "watchdogs": [one.snapshot() for one in self._watchdogs],
        }  # fmt: skip

    def __repr__(self) -> str:
        """Show whether it runs, and what is bad."""
        running = "running" if self._running else "stopped"
        bad = ", ".join(self.snapshot()["bad"])
        return f"<Watchdogs {self.name} {running}{f' bad: {bad}' if bad else ''}>"


def _title(name: str, key: str) -> str:
    return f"{name} {key}" if key and key != name else name


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None


def _usual(loop: asyncio.AbstractEventLoop | None) -> tuple[Watchdog, ...]:
    from outlast.detect.watchdog_locks import LockWatchdog
    from outlast.detect.watchdog_loop import LoopWatchdog, ProcessWatchdog
    from outlast.detect.watchdog_resource import ResourceWatchdog
    from outlast.detect.watchdog_stuck import TaskWatchdog, ThreadWatchdog

    of_loop = () if loop is None else (LoopWatchdog(), TaskWatchdog())
    return (*of_loop, ProcessWatchdog(), ThreadWatchdog(), LockWatchdog(), ResourceWatchdog())


_engines: "weakref.WeakSet[Watchdogs]" = weakref.WeakSet()


def _forked_all() -> None:
    for engine in list(_engines):
        engine._forked()
    _engines.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked_all)
