"""Locks that know who holds them, and so notice deadlocks when they happen or before.

A free lock costs a few attribute writes; only who must wait looks at the graph. What is noticed:

* a circle of threads and tasks that wait for each other, at the moment that closes it;
* locks taken in the reverse of an order that was seen before, which is a deadlock that only
  lacks the timing;
* a wait that is long, with the stack of whoever holds the lock.
"""

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Hashable
from types import TracebackType
from typing import Any, Final, Literal

from outlast.detect.core.waits import LockOrder, Wait, WaitGraph
from outlast.detect.watchdog_events import DeadlockFound, LockOrderReversed, LockWaited
from outlast.detect.watchdog_stack import (
    STACKS_BYTES_MAX,
    task_text,
    thread_name,
    thread_text,
)
from outlast.kernel import ConfigError, DeadlockError, Event, World, current_world
from outlast.kernel.registry import watch

_NS: Final = 1_000_000_000
_AGAIN_SECONDS: Final = 0.05
_STANDING_MAX: Final = 64
_HELD_MAX: Final = 64

OnDeadlock = Literal["event", "raise"]

_graph = WaitGraph()
_order = LockOrder()
_guard = threading.Lock()  # of the two, and of what stands
_standing: dict[frozenset[int], tuple[tuple[str, ...], Hashable]] = {}


class _Held(threading.local):
    def __init__(self) -> None:
        self.locks: list[_Watched] = []


_held = _Held()
_held_by_task: "weakref.WeakKeyDictionary[Any, list[_Watched]]" = weakref.WeakKeyDictionary()


class _Watched:
    """What the three kinds of locks share."""

    def __init__(
        self,
        name: str | None = None,
        *,
        long_wait: float | None = 10.0,
        on_deadlock: OnDeadlock = "event",
        order: bool = True,
        world: World | None = None,
    ) -> None:
        if on_deadlock not in {"event", "raise"}:
            raise ConfigError(
                f"{type(self).__name__}: on_deadlock is {on_deadlock!r}; 'event' or 'raise'"
            )
        if long_wait is not None and long_wait <= 0:
            raise ConfigError(
                f"{type(self).__name__}: long_wait is {long_wait} s; above 0, or None"
            )
        self.name = name or f"lock made at {_place(2)}"
        self.owner: Hashable | None = None
        self.carrier: Hashable | None = None
        self._long_wait = long_wait
        self._raises = on_deadlock == "raise"
        self._ordered = order
        self._given = world
        self._set_up()
        if name:
            watch(self)

    def _set_up(self) -> None:
        """Make the lock that is watched; each kind has its own."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Show the name and the owner."""
        owner = self.owner
        state = "free" if owner is None else f"held by {_who(owner)}"
        return f"<{type(self).__name__} {self.name!r} {state}>"

    def describe(self) -> dict[str, Any]:
        """Return the settings."""
        return {
            "name": self.name,
            "long_wait": self._long_wait,
            "on_deadlock": "raise" if self._raises else "event",
        }

    def snapshot(self) -> dict[str, Any]:
        """Return the live state."""
        owner = self.owner
        return {"name": self.name, "owner": None if owner is None else _who(owner)}

    def _world(self) -> World:
        return self._given or current_world()

    def _emit(self, event: Event) -> None:
        self._world().events.emit(event)

    # --- order -----------------------------------------------------------------------------------

    def _check_order(self, held: "list[_Watched]") -> None:
        """Note that this lock is asked for while others are held."""
        edges = _order.edges
        names = [
            one.name for one in held if one is not self and (one.name, self.name) not in edges
        ]
        if not names or self.name in names:
            return
        place = _place(3)
        with _guard:
            found = _order.note(names, self.name, place)
        if found is not None:
            self._emit(LockOrderReversed(locks=found.names, places=found.places))

    # --- circles ---------------------------------------------------------------------------------

    def _begin(self, who: Hashable) -> None:
        with _guard:
            circle = _graph.begin(who, self)
        if circle:
            self._tell_circle(circle)

    def _look_again(self, who: Hashable) -> None:
        """See a circle whose last owner had not left its name yet when it was looked for."""
        with _guard:
            circle = _graph.circle(who)
        if circle:
            self._tell_circle(circle)

    def _end(self, who: Hashable) -> None:
        with _guard:
            _graph.end(who)
            mine = id(self)
            for key in [one for one in _standing if mine in one]:
                if not _graph.circle(_standing[key][1]):
                    del _standing[key]

    def _tell_circle(self, circle: tuple[Wait, ...]) -> None:
        key = frozenset(id(wait.lock) for wait in circle)
        words = tuple(f"{_who(wait.who)} waits for {wait.lock.name}" for wait in circle)
        with _guard:
            if key in _standing or len(_standing) >= _STANDING_MAX:
                return
            _standing[key] = (words, circle[0].who)
        stacks = "\n".join(f"{_who(wait.who)}:\n{_stack(wait.who)}" for wait in circle)
        self._emit(DeadlockFound(circle=words, stacks=stacks[:STACKS_BYTES_MAX]))
        if self._raises:
            raise DeadlockError(f"{self.name}: taking it would deadlock: {'; '.join(words)}")

    def _tell_long(self, who: Hashable, seconds: float) -> None:
        owner = self.owner
        self._emit(LockWaited(
            lock=self.name,
            waiter=_who(who),
            holder="" if owner is None else _who(owner),
            seconds=seconds,
            stack="" if owner is None else _stack(owner),
        ))  # fmt: skip


class _ThreadLock(_Watched):
    """The part that threads wait in."""

    def _set_up(self) -> None:
        self._lock = threading.Lock()

    def _take(self, blocking: bool, timeout: float) -> bool:
        held = _held.locks
        if held and self._ordered and blocking and timeout < 0:
            held[:] = [one for one in held if one.owner == threading.get_ident()]
            self._check_order(held)
        if not self._lock.acquire(False) and not (blocking and self._wait(timeout)):
            return False
        self.owner = threading.get_ident()
        if len(held) >= _HELD_MAX:  # other threads have released what this one has taken
            held[:] = {id(one): one for one in held if one.owner == self.owner}.values()
        held.append(self)
        return True

    def _give(self) -> None:
        held = _held.locks
        if held and held[-1] is self:
            held.pop()
        elif self in held:
            held.remove(self)
        self.owner = None
        self._lock.release()

    def _wait(self, timeout: float) -> bool:
        """Wait for the lock; looks again a moment later, and tells a wait that is long once."""
        clock = self._world().clock
        me = threading.get_ident()
        begun_ns = clock.monotonic_ns()
        looks = [_AGAIN_SECONDS]
        if self._long_wait is not None:
            looks.append(self._long_wait)
        try:
            self._begin(me)
            for at in sorted(looks):
                waited = (clock.monotonic_ns() - begun_ns) / _NS
                left = None if timeout < 0 else timeout - waited
                if left is not None and left <= at - waited:
                    return clock.wait(self._lock, max(left, 0.0))
                if clock.wait(self._lock, max(at - waited, 0.0)):
                    return True
                self._look_again(me)
                if at == self._long_wait:
                    self._tell_long(me, (clock.monotonic_ns() - begun_ns) / _NS)
            waited = (clock.monotonic_ns() - begun_ns) / _NS
            return clock.wait(self._lock, None if timeout < 0 else max(timeout - waited, 0.0))
        finally:
            self._end(me)


class WatchedLock(_ThreadLock):
    """A ``threading.Lock`` that notices deadlocks, reversed orders and long waits.

    Safe for threads, as that is; not picklable; after a fork the child must not use it while the
    parent held it. Use it where a lock means ownership: one that is acquired by one thread and
    released by another, as a signal, looks like a deadlock of the first with itself.

    Locks of one name count as one in the order in which locks are taken. Orders are noted for
    waits without a timeout, up to 4096 pairs in a process.

    Args:
        name: What it is called; by default the place where it was made.
        long_wait: Seconds of waiting after which :class:`LockWaited` is emitted, once for each
            wait; ``None`` never. Above 0. Default 10.
        on_deadlock: ``event`` emits :class:`DeadlockFound` and goes on waiting; ``raise`` also
            raises :class:`DeadlockError` in the thread that has closed the circle, which then
            does not have the lock.
        order: Whether to note the order. Default yes.
        world: Clock and events; the current world, read when there is a wait, by default.

    Raises:
        ConfigError: A value is out of range.
    """

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, as ``threading.Lock.acquire`` does.

        Raises:
            DeadlockError: Definite, with ``on_deadlock="raise"``: it would never be free.
        """
        return self._take(blocking, timeout)

    def release(self) -> None:
        """Give the lock back.

        Raises:
            RuntimeError: It is not held.
        """
        if not self._lock.locked():
            raise RuntimeError(f"{self.name}: released and not held")
        self._give()

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self._take(True, -1)

    def __exit__(self, *exc_info: object) -> None:
        self._give()


class WatchedRLock(_ThreadLock):
    """A ``threading.RLock`` that notices deadlocks, reversed orders and long waits.

    Arguments and safety as those of :class:`WatchedLock`. It can stand below a
    ``threading.Condition``.
    """

    _count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, or once more if this thread has it.

        Raises:
            DeadlockError: Definite, with ``on_deadlock="raise"``: it would never be free.
        """
        if self.owner == threading.get_ident():
            self._count += 1
            return True
        if not self._take(blocking, timeout):
            return False
        self._count = 1
        return True

    def release(self) -> None:
        """Give the lock back once.

        Raises:
            RuntimeError: This thread does not hold it.
        """
        if self.owner != threading.get_ident():
            raise RuntimeError(f"{self.name}: released by a thread that does not hold it")
        self._count -= 1
        if not self._count:
            self._give()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    # What threading.Condition asks for.

    def _is_owned(self) -> bool:
        return self.owner == threading.get_ident()

    def _release_save(self) -> int:
        count, self._count = self._count, 0
        self._give()
        return count

    def _acquire_restore(self, count: int) -> None:
        self._take(True, -1)
        self._count = count


class WatchedAsyncLock(_Watched):
    """An ``asyncio.Lock`` that notices deadlocks, reversed orders and long waits.

    Used by the tasks of one loop. Arguments as those of :class:`WatchedLock`; with
    ``on_deadlock="raise"`` the task that closes a circle gets the error. A circle that goes
    through locks of threads, because a blocked thread runs the task, is seen, too.
    """

    _waiting = 0

    def _set_up(self) -> None:
        self._lock = asyncio.Lock()

    async def acquire(self) -> Literal[True]:
        """Wait until the lock is free and take it. Cancellation leaves nothing behind.

        Raises:
            DeadlockError: Definite, with ``on_deadlock="raise"``: it would never be free.
        """
        task = asyncio.current_task()
        held = _held_by_task.get(task, [])
        if self._ordered and (held or _held.locks):
            self._check_order([*_held.locks, *held])
        if self._waiting or self._lock.locked():
            await self._wait(task)
        else:
            await self._lock.acquire()
        self.owner, self.carrier = task, threading.get_ident()
        if task is not None:
            _held_by_task.setdefault(task, []).append(self)
        return True

    async def _wait(self, task: Hashable) -> None:
        world = self._world()
        begun_ns = world.clock.monotonic_ns()
        timer = None
        self._waiting += 1
        if self._long_wait is not None:
            timer = world.timers.call_at(
                begun_ns + round(self._long_wait * _NS),
                lambda: self._tell_long(task, (world.clock.monotonic_ns() - begun_ns) / _NS),
            )
        try:
            self._begin(task)
            await self._lock.acquire()
        finally:
            self._waiting -= 1
            if timer is not None:
                timer.cancel()
            self._end(task)

    def release(self) -> None:
        """Give the lock back.

        Raises:
            RuntimeError: It is not held.
        """
        owner = self.owner
        self._lock.release()
        self.owner = self.carrier = None
        held = _held_by_task.get(owner)
        if held is not None and self in held:
            held.remove(self)

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._lock.locked()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def standing_deadlocks() -> list[tuple[str, ...]]:
    """Return the circles of watched locks that hold at the moment, in words."""
    with _guard:
        return [words for words, _ in _standing.values()]


def forget_lock_order() -> None:
    """Forget in which order locks were taken, as between two tests."""
    global _order  # noqa: PLW0603 - one per process, as the locks' names are
    with _guard:
        _order = LockOrder()


def _who(who: Hashable) -> str:
    if isinstance(who, int):
        return thread_name(who)
    return f"task {who.get_name()}" if isinstance(who, asyncio.Task) else str(who)


def _stack(who: Hashable) -> str:
    if isinstance(who, int):
        return thread_text(who)
    return task_text(who) if isinstance(who, asyncio.Task) else ""


def _place(depth: int) -> str:
    """Return the first place above ``depth`` that is outside of this file."""
    frame = sys._getframe(depth)
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _forked() -> None:
    """In the child no other thread exists: who waited there does not wait here."""
    global _graph, _guard
    _graph, _guard = WaitGraph(), threading.Lock()
    _standing.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
