"""The machine's clocks, timers, tasks and threads."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from queue import SimpleQueue
from typing import Any, TypeVar

from outlast.kernel import Gate, TimerHandle

T = TypeVar("T")

_NS = 1_000_000_000


class _Here(threading.local):
    loop: asyncio.AbstractEventLoop | None = None


_here = _Here()


def _running_loop() -> asyncio.AbstractEventLoop:
    """Return the running loop; asyncio asks the system for the process id each time."""
    loop = _here.loop
    if loop is None or not loop.is_running():
        loop = _here.loop = asyncio.get_running_loop()
    return loop


@cache
def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(64).strip()
    except (OSError, UnicodeDecodeError):
        return ""


class HostClock:
    """Reads the system clocks. Safe to use from any thread."""

    __slots__ = ()

    monotonic_ns = staticmethod(time.monotonic_ns)
    wall_ns = staticmethod(time.time_ns)
    pause = staticmethod(time.sleep)

    def boot_id(self) -> str:
        """Return the kernel's own id of this start of the machine, empty where it has none."""
        return _boot_id()

    def wait(self, gate: Gate, seconds: float | None) -> bool:
        """Block until ``gate`` is acquired or ``seconds`` have passed."""
        if seconds is None:
            return gate.acquire(True)
        # A lock takes no longer time than this, and a negative one means for ever.
        return gate.acquire(True, min(max(seconds, 0.0), threading.TIMEOUT_MAX))


class HostTimers:
    """Timers of the running asyncio loop."""

    __slots__ = ()

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` on the running loop at monotonic instant ``when_ns``."""
        delay = max(0, when_ns - time.monotonic_ns()) / _NS
        return _running_loop().call_later(delay, callback)

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``."""
        await asyncio.sleep(seconds)


class HostSpawn:
    """Starts asyncio tasks and keeps them referenced until they end."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def task(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run ``coroutine`` as a task on the running loop."""
        task = _running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            task.get_loop().call_exception_handler(
                {
                    "message": f"task {task.get_name()} failed",
                    "exception": error,
                    "task": task,
                }
            )


class _Lane:
    """One daemon thread that runs calls in order.

    Answers go straight to the loop's future: a ``concurrent.futures.Future`` in between, with
    its lock and condition, costs a third more per call (every fsync of a log is one).
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[
            tuple[Callable[[], Any], asyncio.AbstractEventLoop, asyncio.Future[Any]]
        ] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"outlast-{name}", daemon=True)
        self._thread.start()

    def put(self, call: Callable[[], T]) -> asyncio.Future[T]:
        loop = _running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._calls.put((call, loop, future))
        return future

    def _work(self) -> None:
        while True:
            call, loop, future = self._calls.get()
            if future.cancelled():
                continue
            answer: Any = None
            error: BaseException | None = None
            try:
                answer = call()
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(_answer, future, answer, error)


def _answer(future: asyncio.Future[Any], answer: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)


class HostOffload:
    """Runs blocking calls on one daemon thread per lane.

    The threads start on first use and end with the process: what is under way at exit is
    not waited for, as nothing that was not awaited counts as done.
    """

    __slots__ = ("_lanes", "_lock")

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._lock = threading.Lock()

    def run(self, lane: str, call: Callable[[], T]) -> Awaitable[T]:
        """Start ``call`` on ``lane`` and return an awaitable for its result."""
        with self._lock:
            thread = self._lanes.get(lane)
            if thread is None:
                thread = self._lanes[lane] = _Lane(lane)
        return thread.put(call)
