"""Blocking calls side by side: threads that take a call at once or not at all."""

import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import partial
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple, Protocol

from outlast.kernel import DeadlockError, World
from outlast.protect.forked import tell_of_forks

_NS: Final = 1_000_000_000
_IDLE_SECONDS: Final = 10.0


class Ended(NamedTuple):
    """How one of the calls ended."""

    number: int
    answer: Any
    error: BaseException | None


class _Flag:
    __slots__ = ("lost",)

    def __init__(self) -> None:
        self.lost = False


_flag: ContextVar[_Flag | None] = ContextVar("outlast_abandoned", default=None)


def abandoned() -> bool:
    """Tell a blocking function whether nobody waits for it any more.

    A thread cannot be stopped from outside: what lost a hedge or a vote goes on until it returns.
    A function that works in steps asks between them, and gives up when it was abandoned.
    """
    flag = _flag.get()
    return flag is not None and flag.lost


class _Worker:
    __slots__ = ("gate", "job")

    def __init__(self, job: Callable[[], None]) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.job: Callable[[], None] | None = job


class Crew:
    """Up to ``max_threads`` daemon threads. A call finds a free one or is refused: none waits.

    Threads start when they are needed, end after ten idle seconds, and start anew in the child of
    a fork.
    """

    __slots__ = ("__weakref__", "_count", "_idle", "_lock", "max_threads")

    def __init__(self, max_threads: int) -> None:
        self.max_threads = max_threads
        self.forked()
        tell_of_forks(self)

    def forked(self) -> None:
        """The threads of the parent are not here."""
        self._count = 0
        self._idle: deque[_Worker] = deque()
        self._lock = threading.Lock()

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self._count

    @property
    def busy(self) -> int:
        """How many of them work."""
        return max(self._count - len(self._idle), 0)

    @property
    def full(self) -> bool:
        """Whether a call that comes now would be refused."""
        return not self._idle and self._count >= self.max_threads

    def try_start(self, job: Callable[[], None]) -> bool:
        """Run ``job``, which raises nothing, on a free thread; ``False`` if there is none."""
        try:
            worker = self._idle.pop()
        except IndexError:
            return self._hire(job)
        worker.job = job
        worker.gate.release()
        return True

    def _hire(self, job: Callable[[], None]) -> bool:
        if self._count >= self.max_threads:
            return False
        thread = threading.Thread(
            target=self._work, args=(_Worker(job),), name="outlast-beside", daemon=True
        )
        counted = False
        try:
            with self._lock:
                if self._count >= self.max_threads:
                    return False
                self._count += 1
                counted = True
            thread.start()
        except BaseException:
            if counted and thread.ident is None:  # one that has begun counts itself out
                self._gone()
            raise
        return True

    def _gone(self) -> None:
        with self._lock:
            self._count -= 1

    def _work(self, worker: _Worker) -> None:
        while True:
            job, worker.job = worker.job, None
            if job is not None:
                job()
            job = None
            self._idle.append(worker)
            if worker.gate.acquire(timeout=_IDLE_SECONDS):
                continue
            try:
                self._idle.remove(worker)
            except ValueError:  # it was taken at this very moment
                worker.gate.acquire()
                continue
            self._gone()
            return


class Race(Protocol):
    """Calls that were started side by side, and their caller, who waits."""

    def start(self, number: int, call: Callable[[], Any]) -> bool:
        """Start ``call`` in a copy of the caller's context; ``False`` if no thread is free."""
        ...

    def next(self, until_ns: int | None) -> Ended | None:
        """Wait for the next that ends; ``None`` if none has until then."""
        ...

    def leave(self) -> None:
        """Wait no longer: what still runs is abandoned."""
        ...


class _ThreadRace:
    __slots__ = ("_crew", "_ended", "_flag", "_gate", "_world")

    def __init__(self, crew: Crew, world: World) -> None:
        self._crew = crew
        self._world = world
        self._ended: deque[Ended] = deque()
        self._flag = _Flag()
        self._gate = threading.Lock()
        self._gate.acquire()

    def start(self, number: int, call: Callable[[], Any]) -> bool:
        context = copy_context()
        context.run(_flag.set, self._flag)
        return self._crew.try_start(partial(self._run, number, context.run, call))

    def _run(self, number: int, run: Callable[..., Any], call: Callable[[], Any]) -> None:
        try:
            ended = Ended(number, run(call), None)
        except BaseException as error:
            ended = Ended(number, None, error)
        if self._flag.lost:
            return
        self._ended.append(ended)
        try:
            self._gate.release()
        except RuntimeError:  # it is open already
            return

    def next(self, until_ns: int | None) -> Ended | None:
        clock = self._world.clock
        while not self._ended:
            left = None if until_ns is None else max(until_ns - clock.monotonic_ns(), 0) / _NS
            if not clock.wait(self._gate, left) and not self._ended:
                return None
        return self._ended.popleft()

    def leave(self) -> None:
        self._flag.lost = True


Beside = Callable[[Callable[[], Any]], tuple[Any, BaseException | None, int]]
"""Makes a call as if beside the caller: answer, error, and the instant at which it ends."""


class _TurnRace:
    """One thread, virtual time: each call is made at once, and ends at its own later instant."""

    __slots__ = ("_beside", "_clock", "_ended")

    def __init__(self, beside: Beside, world: World) -> None:
        self._beside = beside
        self._clock = world.clock
        self._ended: list[tuple[int, int, Ended]] = []

    def start(self, number: int, call: Callable[[], Any]) -> bool:
        answer, error, end_ns = self._beside(partial(copy_context().run, call))
        heappush(self._ended, (end_ns, number, Ended(number, answer, error)))
        return True

    def next(self, until_ns: int | None) -> Ended | None:
        if self._ended and (until_ns is None or self._ended[0][0] <= until_ns):
            end_ns, _, ended = heappop(self._ended)
            self._pass(end_ns)
            return ended
        if until_ns is None:
            raise DeadlockError("blocking code waits for ever for calls that were never started")
        self._pass(until_ns)
        return None

    def _pass(self, until_ns: int) -> None:
        left_ns = until_ns - self._clock.monotonic_ns()
        if left_ns > 0:
            self._clock.pause(left_ns / _NS)

    def leave(self) -> None:
        self._ended.clear()


def side_by_side(crew: Crew, world: World) -> Race:
    """Return a race on the threads of ``crew``, or on virtual time where the world has it."""
    beside: Beside | None = getattr(world.clock, "beside", None)
    return _ThreadRace(crew, world) if beside is None else _TurnRace(beside, world)
