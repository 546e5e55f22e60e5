"""One timer for all calls of a policy: limits of time that cost no timer per call.

All calls of a policy have the same limit, so those that began first are due first: their
deadlines form a queue, and one timer, set for its head, is enough for all of them. A call that
ends takes nothing back; the head of the queue is cleared as calls end.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Token
from heapq import heapify, heappop, heappush
from typing import Any

from outlast.kernel import Deadline, TimerHandle, current_deadline, current_world

_ROOM = 256
"""How many blocks are kept before those that have left are looked for."""

_running_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.get_running_loop
_current_task = asyncio.current_task
_outer, _set, _reset = current_deadline.get, current_deadline.set, current_deadline.reset


class Watched(Deadline):
    """One block under a watch: a task that is cancelled when time is up.

    It is itself the deadline that is handed down to the calls inside.
    """

    __slots__ = ("cancelling", "fired", "task", "token", "watch")

    def __init__(self, at_ns: int, task: "asyncio.Task[Any]", watch: "Watch") -> None:
        self.at_ns = at_ns
        self.task: asyncio.Task[Any] | None = task
        self.cancelling = task.cancelling()
        self.fired = False
        self.watch = watch
        outer = _outer()
        # Nested limits only shorten.
        self.token: Token[Deadline | None] | None = (
            None if outer is not None and outer.at_ns <= at_ns else _set(self)
        )

    def leave(self, error: BaseException | None = None) -> bool:
        """The block has ended, with ``error`` if one was raised.

        Returns:
            Whether ``error`` is the cancellation by this watch and by nobody else, as
            ``asyncio.timeout`` counts it. ``False`` when called again.
        """
        task = self.task
        if task is None:
            return False
        self.task = None
        token, self.token = self.token, None
        if token is not None:
            try:  # noqa: SIM105 - each call comes by, and this costs nothing
                _reset(token)
            except ValueError:
                pass  # an abandoned coroutine is closed in whatever context it is found in
        queue = self.watch.queue
        while queue and queue[0].task is None:
            queue.popleft()
        if not self.fired:
            return False
        left = task.uncancel()
        return left <= self.cancelling and isinstance(error, asyncio.CancelledError)


class Watch:
    """The blocks of one limit of time in one event loop.

    Args:
        loop: In which they run.
        late: Whether to cancel two turns of the loop later, so that what is further in and due
            as well ends by itself: it knows what was sent.
    """

    __slots__ = ("_armed_ns", "_handle", "_late", "_others", "_room", "_serial", "loop", "queue")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, late: bool) -> None:
        self.loop = loop
        self._late = late
        self.queue: deque[Watched] = deque()
        # Blocks that are due before some that began earlier: a limit was shortened, or they are
        # steps of a call that has begun before. (instant, serial, block), a heap.
        self._others: list[tuple[int, int, Watched]] = []
        self._serial = 0
        self._room = _ROOM
        self._handle: TimerHandle | None = None
        self._armed_ns = 0

    def enter(self, at_ns: int) -> Watched:
        """Cancel the running task at monotonic instant ``at_ns`` unless it leaves before.

        Raises:
            RuntimeError: No task is running: a limit of time has nothing to cancel.
        """
        task = _current_task(self.loop)
        if task is None:
            raise RuntimeError("a limit of time needs an asyncio task; this runs in none")
        watched = Watched(at_ns, task, self)
        queue = self.queue
        if queue and queue[-1].at_ns > at_ns:
            self._serial += 1
            heappush(self._others, (at_ns, self._serial, watched))
        else:
            queue.append(watched)
        if len(queue) + len(self._others) > self._room:
            self._sweep()
        if self._handle is None:
            self._arm(at_ns)
        elif at_ns < self._armed_ns:  # for one that has left, or that is due later
            self._handle.cancel()
            self._arm(at_ns)
        return watched

    def __len__(self) -> int:
        return len(self.queue) + len(self._others)

    def _sweep(self) -> None:
        """Forget the blocks that have left behind one that has not: it may stay for long."""
        live = [watched for watched in self.queue if watched.task is not None]
        self.queue.clear()
        self.queue.extend(live)
        self._others = [entry for entry in self._others if entry[2].task is not None]
        heapify(self._others)
        self._room = 2 * len(self) + _ROOM

    def _arm(self, at_ns: int) -> None:
        self._armed_ns = at_ns
        self._handle = current_world().timers.call_at(at_ns, self._due)

    def _due(self) -> None:
        """Cancel every block whose time is up, and set the timer for the next one."""
        self._handle = None
        now_ns = current_world().clock.monotonic_ns()
        queue, others = self.queue, self._others
        while queue or others:
            other = bool(others) and (not queue or others[0][0] < queue[0].at_ns)
            watched = others[0][2] if other else queue[0]
            if watched.task is not None and watched.at_ns > now_ns:
                self._arm(watched.at_ns)
                return
            if other:
                heappop(others)
            else:
                queue.popleft()
            if watched.task is None:
                continue
            if self._late:
                self.loop.call_soon(self.loop.call_soon, _cancel, watched)
            else:
                _cancel(watched)


def _cancel(watched: Watched) -> None:
    task = watched.task
    if task is not None:
        watched.fired = True
        task.cancel()


class Watches:
    """The watches of one limit: one for each event loop in which its calls run."""

    __slots__ = ("_all", "_last", "_late")

    def __init__(self, *, late: bool = False) -> None:
        self._late = late
        self._last: Watch | None = None
        self._all: dict[asyncio.AbstractEventLoop, Watch] = {}

    def enter(self, at_ns: int) -> Watched:
        """Cancel the running task at monotonic instant ``at_ns`` unless it leaves before."""
        loop = _running_loop()
        watch = self._last
        if watch is None or watch.loop is not loop:
            watch = self._here(loop)
        return watch.enter(at_ns)

    def begin(self, limit_ns: int) -> Watched:
        """Cancel the running task in ``limit_ns`` unless it leaves before."""
        return self.enter(current_world().clock.monotonic_ns() + limit_ns)

    def _here(self, loop: asyncio.AbstractEventLoop) -> Watch:
        watch = self._all.get(loop)
        if watch is None:
            self.forget_closed()
            watch = self._all[loop] = Watch(loop, late=self._late)
        self._last = watch
        return watch

    def forget_closed(self) -> None:
        """Forget the loops that are over; what they hold would live as long as the policy."""
        self._last = None
        for loop in tuple(self._all):
            if loop.is_closed():
                self._all.pop(loop, None)
