"""Watchdogs of threads and tasks that get no further.

For locks of our own kinds (:mod:`outlast.detect.locks`) it is known who waits for whom. Of other
people's ``threading.Lock`` nothing tells the owner, so a thread counts as stuck when the place
in its code is one that takes a lock and it has not been given a processor since; and a task when
what it awaits is known to nothing else, so that nobody can ever set it.
"""

import asyncio
import dis
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from types import CodeType, FrameType, MethodType
from typing import Any, Final

from outlast.detect.core.ladder import Action, Ladder
from outlast.detect.core.stuck import StuckTracker
from outlast.detect.core.waits import circles
from outlast.detect.watchdog import Finding, Watchdog, Watchdogs
from outlast.detect.watchdog_events import TaskStuck, ThreadsStuck
from outlast.detect.watchdog_stack import all_text, task_text, thread_name
from outlast.kernel import ConfigError

_NS: Final = 1_000_000_000
_TASKS_MAX: Final = 10_000
_SHARE: Final = 50
_TOLD_MAX: Final = 32
_DEPTH_MAX: Final = 50

_FILE: Final = threading.__file__
# Waits of ours: for a time, for a permit, or for a watched lock, of which more is known.
_OURS: Final = ("host/clock.py", "host\\clock.py")
_WAITS_FOR_A_PERMIT: Final = {"Semaphore.acquire", "BoundedSemaphore.acquire"}


class ThreadWatchdog(Watchdog):
    """Notices threads that wait for a lock and have not run for ``stuck`` seconds.

    Emits one :class:`ThreadsStuck` with the stacks of all of them. It sees waits of ``acquire``
    and ``with`` on locks and semaphores, not those for work (``Event``, ``Condition``, ``Queue``,
    ``join``), which idle threads are in for ever. A lock that its owner keeps for that long looks
    the same as a deadlock: it is worth a look, too. Off in simulated time.

    Args:
        stuck: Seconds without running that are too long. Above 0. Default 1.
        every: Seconds between looks. Above 0. Default 0.5.
        name: What it is called.
        act: See :class:`Watchdog`.

    Raises:
        ConfigError: A time is not above 0.
    """

    def __init__(
        self,
        stuck: float = 1.0,
        *,
        every: float = 0.5,
        name: str = "threads",
        act: "Ladder | Sequence[Action] | None" = None,
    ) -> None:
        super().__init__(name, act)
        if stuck <= 0 or every <= 0:
            raise ConfigError(f"ThreadWatchdog: stuck is {stuck} s, every {every} s; above 0")
        self.stuck = stuck
        self.every = every
        self._tracker = StuckTracker()
        self._stuck_now = 0

    def begin(self, engine: Watchdogs) -> None:
        """Begin anew; off in simulated time."""
        self.off = "simulated time has one thread" if engine.simulated else ""
        self._tracker.forget()

    def look(self, engine: Watchdogs, now_ns: int) -> int:
        """Look at the place and the time slices of every thread."""
        if engine.slept_ns > round((self.every + self.stuck) * _NS):
            self._tracker.forget()  # nothing could run, so standing still says nothing
        marks: dict[Hashable, Hashable] = {
            ident: (id(frame), frame.f_lasti, _slices(ident))
            for ident, frame in sys._current_frames().items()
            if waits_for_lock(frame)
        }
        found = self._tracker.look(now_ns, marks, round(self.stuck * _NS))
        self._stuck_now = len(found)
        if found:
            idents = [one.who for one in found if isinstance(one.who, int)]
            engine.bad(self, "", now_ns, self._finding(idents, found[0].for_ns / _NS))
        else:
            engine.good(self, "", now_ns)
        return now_ns + round(self.every * _NS)

    def _finding(self, idents: list[int], seconds: float) -> Finding:
        names = tuple(sorted(thread_name(ident) for ident in idents))[:_TOLD_MAX]
        return Finding(
            f"{len(idents)} threads wait for a lock",
            lambda: ThreadsStuck(
                threads=names, seconds=seconds, stacks=all_text(only=set(idents))
            ),
        )

    def snapshot(self) -> dict[str, Any]:
        """Return the live state."""
        return {**super().snapshot(), "stuck": self._stuck_now}


def _slices(ident: int) -> int | None:
    from outlast.host.vitals import slices_of_thread

    thread = threading._active.get(ident)  # type: ignore[attr-defined]  # enumerate() locks
    native = None if thread is None else thread.native_id
    return None if native is None else slices_of_thread(native)


def waits_for_lock(frame: FrameType) -> bool:
    """Whether the code in which a thread is waits for a lock or a semaphore."""
    code = frame.f_code
    if code.co_filename == _FILE:
        # Inside of ``threading`` only the wait for a permit is one that somebody must end.
        caller = frame.f_back
        return (
            caller is not None
            and code.co_name == "wait"
            and caller.f_code.co_filename == _FILE
            and caller.f_code.co_qualname in _WAITS_FOR_A_PERMIT
        )
    return not code.co_filename.endswith(_OURS) and _takes_lock(code, frame.f_lasti)


@lru_cache(maxsize=1024)
def _takes_lock(code: CodeType, at: int) -> bool:
    """Whether the instruction at ``at`` enters a context or calls something named ``acquire``."""
    name = ""
    for one in dis.get_instructions(code):
        if one.opname in {"LOAD_METHOD", "LOAD_ATTR"}:
            name = str(one.argval)
        if one.offset >= at:
            if one.opname.startswith("CALL"):
                return name == "acquire"
            # 3.14 has no instruction of its own for entering
            return one.opname == "BEFORE_WITH" or (
                one.opname == "LOAD_SPECIAL" and "enter" in str(one.argval)
            )
    return False


class TaskWatchdog(Watchdog):
    """Notices tasks that will never be woken, and on request those that wait for long.

    Emits :class:`TaskStuck`, for a task once: ``circle`` if tasks await each other, ``orphaned``
    if nothing but the task itself knows the future that it awaits, and ``long`` if it has
    awaited one thing for ``stuck`` seconds. The last is off by default, because a task that waits
    for work is no fault; give ``only`` along with it. Works in the simulator, too.

    Tasks in a circle cannot be cancelled (asyncio follows the circle until Python's stack ends);
    the process must be started again. Looking costs a few microseconds a task, so with many tasks
    it is done less often: it takes two hundredths of the time at most. Of more than 10,000 tasks
    some are not looked at.

    Args:
        stuck: Seconds of waiting that are too long, or ``None``. Above 0.
        only: Of which tasks ``stuck`` holds: called with a task, for all by default.
        every: Seconds between looks. Above 0. Default 1.
        loop: The loop; by default that in which it is started.
        name: What it is called.
        act: See :class:`Watchdog`.

    Raises:
        ConfigError: A time is not above 0.
    """

    def __init__(
        self,
        stuck: float | None = None,
        *,
        only: Callable[[Any], bool] | None = None,
        every: float = 1.0,
        loop: asyncio.AbstractEventLoop | None = None,
        name: str = "tasks",
        act: "Ladder | Sequence[Action] | None" = None,
    ) -> None:
        super().__init__(name, act)
        if (stuck is not None and stuck <= 0) or every <= 0:
            raise ConfigError(f"TaskWatchdog: stuck is {stuck} s, every {every} s; above 0")
        self.stuck = stuck
        self.every = every
        self._only = only
        self._given = loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting = StuckTracker(_TASKS_MAX)
        self._lonely = StuckTracker(_TASKS_MAX)
        self._told: set[tuple[int, str]] = set()

    def begin(self, engine: Watchdogs) -> None:
        """Begin anew.

        Raises:
            ConfigError: No loop was given, and none is running here.
        """
        loop = self._given
        if loop is None:
            with suppress(RuntimeError):
                loop = asyncio.get_running_loop()
        if loop is None:
            raise ConfigError("TaskWatchdog: no event loop is running here; give loop=")
        self._loop, self.off = loop, ""
        self._waiting.forget()
        self._lonely.forget()
        self._told.clear()

    def look(self, engine: Watchdogs, now_ns: int) -> int:
        """Look at what every task awaits."""
        loop = self._loop
        if loop is None or loop.is_closed():
            self.off = "the loop is closed"
            return now_ns + _NS
        tasks = {id(task): task for task in _tasks(loop)}
        awaited = {key: future for key, task in tasks.items() if (future := awaits(task))}
        stuck: dict[tuple[int, str], float] = {}
        self._find_circles(tasks, awaited, stuck)
        self._find_orphans(now_ns, tasks, awaited, stuck)
        self._find_long(now_ns, tasks, awaited, stuck)
        for (key, reason), seconds in stuck.items():
            finding = self._finding(tasks[key], reason, seconds)
            engine.bad(self, f"{reason} {tasks[key].get_name()} {key}", now_ns, finding)
        for key, reason in self._told - stuck.keys():
            self._told_good(engine, now_ns, key, reason)
        self._told = set(stuck)
        took_ns = engine._live_world().clock.monotonic_ns() - now_ns
        return now_ns + max(round(self.every * _NS), took_ns * _SHARE)

    def _told_good(self, engine: Watchdogs, now_ns: int, key: int, reason: str) -> None:
        for name, title in list(engine._states):
            if name == self.name and title.startswith(f"{reason} ") and title.endswith(f" {key}"):
                engine.good(self, title, now_ns)

    def _find_circles(
        self, tasks: dict[int, Any], awaited: dict[int, Any], stuck: dict[tuple[int, str], float]
    ) -> None:
        edges: dict[Hashable, Hashable] = {
            key: id(future) for key, future in awaited.items() if id(future) in tasks
        }
        for circle in circles(edges):
            stuck.update({(key, "circle"): 0.0 for key in circle if isinstance(key, int)})

    def _find_orphans(
        self,
        now_ns: int,
        tasks: dict[int, Any],
        awaited: dict[int, Any],
        stuck: dict[tuple[int, str], float],
    ) -> None:
        """Twice in a row, since a future may be on its way to whoever will set it."""
        futures = list(awaited.items())
        awaited.clear()  # or our own references would count
        lonely: dict[Hashable, Hashable] = {}
        while futures:
            key, future = futures.pop()
            if is_orphaned(tasks[key], future):
                lonely[key] = id(future)
            awaited[key] = future
        for one in self._lonely.look(now_ns, lonely, 1):
            if isinstance(one.who, int):
                stuck[one.who, "orphaned"] = one.for_ns / _NS

    def _find_long(
        self,
        now_ns: int,
        tasks: dict[int, Any],
        awaited: dict[int, Any],
        stuck: dict[tuple[int, str], float],
    ) -> None:
        if self.stuck is None:
            return
        only = self._only
        marks: dict[Hashable, Hashable] = {
            key: id(future) for key, future in awaited.items() if only is None or only(tasks[key])
        }
        for one in self._waiting.look(now_ns, marks, round(self.stuck * _NS)):
            if isinstance(one.who, int):
                stuck[one.who, "long"] = one.for_ns / _NS

    def _finding(self, task: Any, reason: str, seconds: float) -> Finding:
        name, stack = str(task.get_name())[:200], task_text(task)
        return Finding(
            f"task {name} is stuck: {reason}",
            lambda: TaskStuck(task=name, reason=reason, seconds=seconds, stack=stack),
        )

    def end(self) -> None:
        """Forget the loop."""
        self._loop = None

    forked = end

    def snapshot(self) -> dict[str, Any]:
        """Return the live state."""
        return {**super().snapshot(), "stuck": len(self._told)}


def _tasks(loop: asyncio.AbstractEventLoop) -> Iterable[Any]:
    try:
        found = asyncio.all_tasks(loop)
    except RuntimeError:  # tasks came and went too fast, a thousand times
        return ()
    # Not the order of a set: in the simulator it must repeat, so by name.
    chosen = list(found)[:_TASKS_MAX]
    return sorted(chosen, key=lambda task: task.get_name())


def awaits(task: Any) -> Any:
    """Return the future or task that ``task`` awaits, ``None`` if it is about to run."""
    future = getattr(task, "_fut_waiter", None)
    if future is None or future.done():
        return None
    return future


def is_orphaned(task: Any, future: Any) -> bool:
    """Whether nothing but the chain of coroutines of ``task`` refers to ``future``.

    Then nobody can set its result: it waits for ever, unless it is cancelled. The caller holds
    one reference. References are counted, not looked for: that costs a microsecond, and whatever
    is not understood counts as somebody who may set it.
    """
    if isinstance(future, asyncio.Task) or type(future) is not asyncio.Future:
        return False
    if weakref.getweakrefcount(future):
        return False
    # The caller's, our argument's and getrefcount's own; the task's; that of the iterator.
    mine = 5
    at: Any = task.get_coro()
    for _ in range(_DEPTH_MAX):
        code = getattr(at, "cr_code", None) or getattr(at, "gi_code", None)
        if code is None:
            break
        if code.co_filename == asyncio.tasks.__file__:
            return False  # gather, wait_for and the like wake it themselves
        # Its local variables and what is on its stack. Reading f_locals would make a copy that
        # stays, and count as somebody at the next look.
        for value in gc.get_referents(at):
            if value is future:
                mine += 1
            elif _ends_a_wait(value):
                return False
        at = getattr(at, "cr_await", None) or getattr(at, "gi_yieldfrom", None)
    return sys.getrefcount(future) <= mine


def _ends_a_wait(value: Any) -> bool:
    """Whether ``value`` is the exit of an open context that will cancel what is inside it."""
    owner = getattr(value, "__self__", None) if isinstance(value, MethodType) else None
    name = type(owner).__name__.lower()
    return any(word in name for word in ("timeout", "scope", "contextmanager"))
