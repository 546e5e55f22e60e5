"""Permits with a bounded queue: one limit for all threads and event loops of a process.

The free permits lie in a ``deque``. To take one is ``deque.pop`` and to give it back is
``deque.append``: operations that are atomic by themselves, so that the way of a call that finds
a free permit passes no lock. Everything else happens under one lock, and only when
``attention`` is set: while callers wait, and while permits are to be withdrawn.

No wake-up is lost: a waiter is in the queue and ``attention`` is set *before* free permits are
looked at once more; a releaser puts its permit back *before* it looks at ``attention``. Whoever
comes second sees what the first one did.

A releaser never waits for the lock. If somebody else holds it, the releaser leaves a mark and
goes; the holder looks at the mark after it has let go. So a permit can be given back from a
destructor or a ``finally`` that the garbage collector runs in the middle of a section under the
lock, and there is nothing to form a convoy behind.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

from outlast.kernel import (
    ConfigError,
    RejectedError,
    TooLateError,
    World,
    current_deadline,
    current_world,
)
from outlast.protect.checks import check_whole
from outlast.protect.forked import tell_of_forks
from outlast.protect.if_free import if_free
from outlast.protect.part import Part
from outlast.protect.waiter import TaskWaiter, ThreadWaiter, Waiter

NORMAL = 1
"""The priority of a call for which none was said."""

PERMITS_MAX = 1_000_000

_NS = 1_000_000_000
_EARLY_NS = 100_000
"""So long before its deadline a coroutine leaves the queue: it says that nothing was sent, where
the deadline's own cancellation could not."""


class Permits(Part):
    """The base of the limits: permits, and a queue ordered by priority and then by arrival.

    Fair but for one window: between a permit's return and its handing over, a caller in another
    thread may take it without having waited. In one event loop there is no such window.

    Cancelled and timed out waiters leave the queue at once; one that was handed a permit at the
    same moment passes it on. After a fork the child has an empty queue and all permits: those
    that other threads held are free, and what the forking thread brings back from before the
    fork is dropped.

    Attributes:
        attention: Whether whoever gives a permit back must call :meth:`settle_up` afterwards.
        timed: Whether it wants :meth:`sample` to be called for each call.
        pop: Takes a free permit; ``IndexError`` if there is none.
        taking: The same as an iterator. Signals are looked for after a call, and a ``for`` makes
            none: Ctrl-C cannot come in between taking a permit and knowing of it.
        push: Gives a permit back; see ``attention``.
    """

    position = "limit"
    timed: ClassVar[bool] = False

    __slots__ = (
        "_debt", "_dirty", "_free", "_generation", "_left", "_levels", "_lock", "_max_wait_ns",
        "_queue", "_reserve", "_reserved", "_size", "_strays", "_waiting", "attention", "pop",
        "push", "taking",
    )  # fmt: skip

    def __init__(self, size: int, *, queue: int, max_wait: float | None, name: str) -> None:
        super().__init__(name)
        kind = type(self).__name__
        self._queue = check_whole(kind, "queue", queue, 0, PERMITS_MAX)
        self._max_wait_ns = _wait_ns(kind, max_wait, queue)
        self._size = size
        self._generation = 1
        self._free: deque[int] = deque([1] * size)
        self.pop: Callable[[], int] = self._free.pop
        self.taking: Iterator[int] = iter(self._free.pop, 0)
        self.push: Callable[[int], None] = self._free.append
        self.attention = False
        self._clear()
        tell_of_forks(self)

    def _clear(self) -> None:
        """Begin with an empty queue and a lock that nobody holds."""
        self._lock = threading.Lock()
        self._dirty = False  # somebody wanted to settle up and found the lock taken
        self._levels: dict[int, OrderedDict[Waiter, None]] = {}
        self._waiting = 0
        self._left: deque[Waiter] = deque()  # waiters that go away; settled under the lock
        self._debt = 0  # permits to withdraw when they come back
        self._strays = 0  # permits from before a fork that may come back
        self._reserve = 0  # how many permits are kept for priorities above NORMAL
        self._reserved: list[int] = []  # those of them that are free

    # --- what users see ---------------------------------------------------------------------

    @property
    def queue(self) -> int:
        """How many callers may wait."""
        return self._queue

    @property
    def max_wait(self) -> float | None:
        """How long one of them may wait, in seconds; ``None``: as long as its deadline lets it."""
        return None if self._max_wait_ns is None else self._max_wait_ns / _NS

    @property
    def in_flight(self) -> int:
        """How many permits are held now."""
        return max(0, self._size + self._debt - len(self._free) - len(self._reserved))

    @property
    def waiting(self) -> int:
        """How many callers wait now."""
        return self._waiting

    def try_acquire(self) -> int | None:
        """Take a permit if one is free, without waiting; ``None`` if not.

        The permit must be given back with :meth:`release`.
        """
        try:
            for permit in self.taking:
                return permit
        except IndexError:
            pass
        return None

    def release(self, permit: int) -> None:
        """Give back what :meth:`try_acquire`, :meth:`acquire` or its twin returned."""
        self.push(permit)
        if self.attention:
            self.settle_up()

    def acquire_blocking(self, *, priority: int | None = None) -> int:
        """Take a permit; wait in the calling thread if none is free and the queue has room.

        Args:
            priority: Larger goes first; that of the limit or of the context by default.

        Raises:
            RejectedError: Definite. The queue is full, or ``max_wait`` has passed
                (``BulkheadFullError``, ``OverloadedError``).
            TooLateError: Definite. The deadline of the context came first.
        """
        permit = self.try_acquire()
        if permit is not None:
            return permit
        world = current_world()
        now_ns = world.clock.monotonic_ns()
        ends_ns, late = self._until(now_ns)
        waiter = ThreadWaiter(self._level(priority))
        try:
            self._enter(waiter, world)
            if not waiter.permit:
                seconds = None if ends_ns is None else (ends_ns - now_ns) / _NS
                world.clock.wait(waiter.gate, seconds)
            return waiter.permit or self._outcome(waiter, world, late=late)
        except BaseException:
            self._leave(waiter)
            raise

    async def acquire(self, *, priority: int | None = None) -> int:
        """Take a permit; wait in the event loop if none is free and the queue has room.

        Cancellation leaves nothing behind. See :meth:`acquire_blocking`.
        """
        permit = self.try_acquire()
        if permit is not None:
            return permit
        world = current_world()
        ends_ns, late = self._until(world.clock.monotonic_ns())
        waiter = TaskWaiter(self._level(priority))
        timer = None
        try:
            self._enter(waiter, world)
            if not waiter.permit:
                if ends_ns is not None:
                    wake_ns = ends_ns - _EARLY_NS if late else ends_ns
                    timer = world.timers.call_at(wake_ns, waiter.look)
                await waiter.future
            return waiter.permit or self._outcome(waiter, world, late=late)
        except BaseException:
            self._leave(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def settle_up(self) -> None:
        """Hand free permits to waiters, and withdraw those that are too many.

        To be called after a permit was given back while ``attention`` is set. Never waits.
        """
        while True:
            self._dirty = True
            woken: list[Waiter] = []
            if not if_free(self._lock, partial(self._settle_into_locked, woken)):
                return  # whoever holds it sees the mark, and settles up
            self._wake(woken)
            if not self._dirty:
                return

    # --- what limits decide -----------------------------------------------------------------

    def _level(self, priority: int | None) -> int:
        """Return the priority of a caller."""
        return NORMAL if priority is None else priority

    def _refusal(self, reason: str) -> RejectedError:
        """Return the error for a caller that gets no permit.

        ``reason`` is ``"full"``, ``"evicted"`` (for one of higher priority) or ``"waited"``.
        """
        raise NotImplementedError

    def _change_queue(self, changes: dict[str, Any]) -> None:
        """Take checked settings of the queue."""
        self._queue = changes.get("queue", self._queue)
        if "max_wait" in changes:
            self._max_wait_ns = _wait_ns(type(self).__name__, changes["max_wait"], self._queue)

    def _resize(self, size: int, reserve: int = 0) -> None:
        """Have ``size`` permits from now on, ``reserve`` of them for priorities above normal."""
        with self._lock:
            more = size - self._size
            self._size = size
            self._reserve = reserve
            if more > 0:
                forgiven = min(more, self._debt)
                self._debt -= forgiven
                self._free.extend([self._generation] * (more - forgiven))
            else:
                self._debt -= more
            while len(self._reserved) > reserve:
                self._free.append(self._reserved.pop())
            self.attention = True
        self.settle_up()

    # --- the queue --------------------------------------------------------------------------

    def _until(self, now_ns: int) -> tuple[int | None, bool]:
        """Return when waiting ends, and whether the deadline is what ends it."""
        ends_ns = None if self._max_wait_ns is None else now_ns + self._max_wait_ns
        deadline = current_deadline.get()
        if deadline is None or deadline.endless:
            return ends_ns, False
        if deadline.at_ns <= now_ns:
            raise TooLateError(f"{self._shown()}: the deadline passed before the call began")
        if ends_ns is not None and ends_ns < deadline.at_ns:
            return ends_ns, False
        return deadline.at_ns, True

    def _enter(self, waiter: Waiter, world: World) -> None:
        """Give ``waiter`` a permit or a place in the queue; raise if there is neither."""
        victim, refused = None, False
        with self._lock:
            if self._reserved and waiter.level > NORMAL:
                waiter.permit = self._reserved.pop()
                self.attention = True
            elif self._waiting < self._queue or (victim := self._victim_locked(waiter.level)):
                self._levels.setdefault(waiter.level, OrderedDict())[waiter] = None
                waiter.linked = True
                self._waiting += 1
                self.attention = True
            else:
                refused = True
        if victim is not None:
            victim.wake()
        if self.attention or self._dirty:
            self.settle_up()
        if refused:
            raise self._rejected("full", world)

    def _victim_locked(self, level: int) -> Waiter | None:
        """Take the newest waiter of the lowest priority below ``level`` out of the queue."""
        lowest = min(self._levels, default=level)
        if lowest >= level:
            return None
        victim = next(reversed(self._levels[lowest]))
        self._unlink_locked(victim)
        victim.evicted = True
        return victim

    def _unlink_locked(self, waiter: Waiter) -> None:
        line = self._levels[waiter.level]
        del line[waiter]
        if not line:
            del self._levels[waiter.level]
        waiter.linked = False
        self._waiting -= 1

    def _leave(self, waiter: Waiter) -> None:
        """Forget ``waiter``; a permit that it holds passes on. May run in a destructor."""
        self._left.append(waiter)
        self.settle_up()

    def _outcome(self, waiter: Waiter, world: World, *, late: bool) -> int:
        """Return the permit of a waiter that was woken or has waited too long, or raise."""
        with self._lock:
            if waiter.linked:
                self._unlink_locked(waiter)
        if self._dirty:
            self.settle_up()
        if waiter.permit:
            return waiter.permit
        if late and not waiter.evicted:
            self._emit_rejection("late", world)
            raise TooLateError(f"{self._shown()}: the deadline passed in the queue")
        raise self._rejected("evicted" if waiter.evicted else "waited", world)

    def _settle_into_locked(self, woken: list[Waiter]) -> None:
        woken += self._settle_locked()

    def _settle_locked(self) -> list[Waiter]:
        """Hand out, withdraw and put aside; return the waiters to wake after the lock."""
        self._dirty = False
        free, woken = self._free, []
        while self._left:
            waiter = self._left.popleft()
            if waiter.linked:
                self._unlink_locked(waiter)
            elif waiter.permit:
                free.append(waiter.permit)
                waiter.permit = 0
        if self._strays and free and free[-1] != self._generation:
            self._drop_stray_locked()
        while self._debt or self._waiting or len(self._reserved) < self._reserve:
            try:
                permit = free.pop()
            except IndexError:
                if not self._debt or not self._reserved:
                    break
                permit = self._reserved.pop()
            if self._debt:
                self._debt -= 1
                continue
            best = max(self._levels, default=NORMAL - 1)
            if best <= NORMAL and len(self._reserved) < self._reserve:
                self._reserved.append(permit)
                continue
            waiter = next(iter(self._levels[best]))
            self._unlink_locked(waiter)
            waiter.permit = permit
            woken.append(waiter)
        self.attention = bool(
            self._debt or self._waiting or self._strays or len(self._reserved) < self._reserve
        )
        return woken

    def _drop_stray_locked(self) -> None:
        """Drop the permit on top if it is from before a fork."""
        permit = self._free.pop()
        if permit == self._generation:
            self._free.append(permit)
        else:
            self._strays -= 1

    def _wake(self, woken: list[Waiter]) -> None:
        for waiter in woken:
            if not waiter.wake():
                self._left.append(waiter)  # its loop is closed: the permit is for the next one
                self._dirty = True

    # --- refusals and forks -----------------------------------------------------------------

    def _shown(self) -> str:
        kind = type(self).__name__
        return f"{kind} {self.name!r}" if self.name else kind

    def _rejected(self, reason: str, world: World) -> RejectedError:
        self._emit_rejection(reason, world)
        return self._refusal(reason)

    def _emit_rejection(self, reason: str, world: World) -> None:
        from outlast.protect.events import CallRejected

        world.events.emit(CallRejected(name=self.name, part=self.position, reason=reason))

    def forked(self) -> None:
        """In the child of a fork: forget the waiters and free all permits."""
        held = self.in_flight
        reserve = self._reserve
        self._clear()
        self._reserve = reserve
        if held or reserve:
            self._generation += 1
            self._free.clear()
            self._free.extend([self._generation] * self._size)
        self._strays = held
        self.attention = bool(held or reserve)

    def begin_anew(self) -> None:
        """In another world: all permits are free, and nobody of a closed loop waits.

        A permit from before that comes back after all is dropped.
        """
        with self._lock:
            held = self.in_flight
            for waiter in [waiter for line in self._levels.values() for waiter in line]:
                if waiter.gone:
                    self._unlink_locked(waiter)
            if held:
                self._generation += 1
                self._free.clear()
                self._free.extend([self._generation] * self._size)
                self._reserved.clear()
                self._strays += held
                self._debt = 0
            self.attention = True
        self.settle_up()


def _wait_ns(part: str, seconds: Any, queue: int) -> int | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        message = f"{part}: max_wait is {seconds!r}; seconds above 0, or None, would be right"
        raise ConfigError(message)
    if not queue:
        message = f"{part}: max_wait is {seconds!r} and queue is 0; queue=1 or more would be right"
        raise ConfigError(message)
    return None if seconds == float("inf") else round(seconds * _NS)
