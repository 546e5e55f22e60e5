"""What a program does with threads, where there is only one: executors, and waiting for others.

Calls that are handed to an executor run in the thread of the simulation, and their results are
late by the time that they spend. A blocking wait for such a result runs the call there and then.
Whoever waits for anything else that another thread should do would wait for ever: that is
refused, where a real loop would hang.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from outlast.sim import escape, fakes
from outlast.sim.foreign import stand_ins
from outlast.sim.hosts import LIFE, Life

if TYPE_CHECKING:
    from outlast.sim.loop import SimLoop

_WAITING: Final = (
    "to wait for another thread",
    "nobody could wake it, since all runs in one thread; await something instead",
)
_wait, _submit = threading.Condition.wait, ThreadPoolExecutor.submit
_shutdown = ThreadPoolExecutor.shutdown


@contextmanager
def simulated_threads() -> Iterator[None]:
    """Let executors, and waiting for a thread, be simulated until the block ends.

    Only in threads that run a simulation; others keep the real ones. The worker threads of anyio
    are simulated too, if it was imported before.
    """
    patches = [
        (threading.Condition, "wait", _condition_wait),
        (ThreadPoolExecutor, "submit", _pool_submit),
        (ThreadPoolExecutor, "shutdown", _pool_shutdown),
    ]
    with replaced(patches), replaced(stand_ins()):
        yield


@contextmanager
def replaced(patches: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Replace attributes (owner, name, stand-in) until the block ends."""
    patches = list(patches)
    before = [(owner, name, owner.__dict__[name]) for owner, name, _ in patches]
    for owner, name, fake in patches:
        setattr(owner, name, fake)
    try:
        yield
    finally:
        for owner, name, real in before:
            setattr(owner, name, real)


# --- how many calls of an executor run at a time -------------------------------------------------


class Workers:
    """The workers of one executor, as one run of a host's program sees them.

    Args:
        count: How many there are.
    """

    __slots__ = ("free", "waiting")

    def __init__(self, count: int) -> None:
        self.free = count
        self.waiting: deque[Callable[[], object]] = deque()

    def take(self, start: Callable[[], object]) -> None:
        """Call ``start`` once a worker is free."""
        if self.free:
            self.free -= 1
            start()
        else:
            self.waiting.append(start)

    def give_back(self) -> None:
        """A worker is free again."""
        if self.waiting:
            self.waiting.popleft()()
        else:
            self.free += 1


def workers_of(executor: Any, life: Life) -> Workers | None:
    """Return the workers of an executor; ``None`` if it has no limit that we know."""
    count = getattr(executor, "_max_workers", 0)
    if not count:
        return None
    found: Workers | None = life.workers.get(executor)
    if found is None:
        found = life.workers[executor] = Workers(count)
    return found


# --- calls without a loop between ----------------------------------------------------------------


class _Call:
    """A call that was submitted to a thread pool, and the future that its caller holds."""

    __slots__ = ("args", "func", "future", "kwargs", "late", "pool", "started")

    def __init__(self, pool: Any, func: Any, args: Any, kwargs: Any) -> None:
        self.pool = pool
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.future: Future[Any] = Future()
        self.started = False
        self.late: tuple[int, Any, BaseException | None] = (0, None, None)

    def run(self) -> None:
        """Do it, unless somebody has; its result is there, and late."""
        if self.started:
            return
        self.started = True
        if not self.future.set_running_or_notify_cancel():
            return
        answer: Any = None
        error: BaseException | None = None
        try:
            answer = self.func(*self.args, **self.kwargs)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:
            error = raised
        self.late = (_loop().sim.moment_ns, answer, error)

    def end(self, *_: object) -> None:
        """Give the caller its result."""
        if self.future.done():
            return
        answer, error = self.late[1:]
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(answer)

    def finish(self) -> None:
        """Do it and wait for it, as one who blocks."""
        self.run()
        sim = _loop().sim
        sim.spend(max(0, self.late[0] - sim.moment_ns))
        self.end()


def _loop() -> "SimLoop":
    loop: Any = asyncio.get_running_loop()
    found: SimLoop = loop
    return found


def _open_calls(pool: Any = None) -> list[_Call]:
    """Return the calls of this program, or of one pool, that have not ended."""
    life = LIFE.get(None)
    if life is None:
        return []
    calls = life.calls
    calls[:] = [call for call in calls if not call.future.done()]
    return [call for call in calls if pool is None or call.pool is pool]


def _pool_submit(
    self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Future[Any]:
    """Submit as ``ThreadPoolExecutor.submit``; the call runs in this thread, a little later."""
    if not fakes.here() or (life := LIFE.get(None)) is None:
        return _submit(self, fn, *args, **kwargs)
    if getattr(self, "_shutdown", False):
        message = "cannot schedule new futures after shutdown"
        raise RuntimeError(message)
    call = _Call(self, fn, args, kwargs)
    _open_calls()  # forgets those that have ended
    life.calls.append(call)
    _loop().run_in_executor(self, call.run).add_done_callback(call.end)
    return call.future


def _pool_shutdown(
    self: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False
) -> None:
    if fakes.here():
        for call in _open_calls(self):
            if cancel_futures and call.future.cancel():
                continue
            if wait:
                call.finish()
    _shutdown(self, wait, cancel_futures=cancel_futures)


def _condition_wait(self: threading.Condition, timeout: float | None = None) -> bool:
    """Wait as ``threading.Condition.wait``: for our own calls, or until time has passed."""
    if not fakes.here():
        return _wait(self, timeout)
    if calls := _open_calls():
        held: Any = self  # its lock is free meanwhile, as in any wait
        state = held._release_save()
        try:
            for call in calls:
                call.finish()
        finally:
            held._acquire_restore(state)
        return True
    if timeout is None:
        escape.refuse(*_WAITING)
    else:
        time.sleep(timeout)
    return False


__all__ = ["Workers", "replaced", "simulated_threads", "workers_of"]
