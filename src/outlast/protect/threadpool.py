"""``ThreadBulkhead`` and ``Hard``: blocking calls in threads that can be left behind.

Nothing in Python stops a thread that hangs. What can be done is to stop waiting for it, to say
so, and to count it: a call that was abandoned keeps its permit until it really ends, so that a
dead service takes up at most ``max_threads`` threads and no more calls are sent to it.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial, wraps
from typing import Any, ClassVar, ParamSpec, TypeVar

from outlast.kernel import (
    DeadlineError,
    RejectedError,
    TooLateError,
    World,
    current_deadline,
    current_world,
)
from outlast.protect.beside import Crew
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.checks import DAY, check_number, check_whole
from outlast.protect.core.note import sign
from outlast.protect.forked import tell_of_forks
from outlast.protect.kinds import check_function, kind_of
from outlast.protect.part import Part

P = ParamSpec("P")
R = TypeVar("R")

_NS = 1_000_000_000
_THREADS_MAX = 10_000
_STEP = 0.001
_NOTE = "its worker thread still runs: Python cannot stop it, and its permit is not free"


class _Job:
    """One call in a worker thread, and who waits for it.

    Attributes:
        permit: What it holds; 0 before it has one.
    """

    __slots__ = (
        "_crew", "_lock", "_run", "abandoned", "answer", "begun", "ended", "error", "future",
        "gate", "permit",
    )  # fmt: skip

    def __init__(self, crew: "ThreadBulkhead", run: Callable[[], Any]) -> None:
        self._crew = crew
        self.permit = 0
        self._run: Callable[[], Any] = partial(copy_context().run, run)
        self.begun = False
        self._lock = threading.Lock()
        self.abandoned = self.ended = False
        self.answer: Any = None
        self.error: BaseException | None = None
        self.gate = threading.Lock()
        self.gate.acquire()
        self.future: asyncio.Future[None] | None = None

    def work(self) -> None:
        """Make the call; in the worker thread, which must not see it fail."""
        try:
            answer, error = self._run(), None
        except BaseException as raised:
            answer, error = None, raised
        self.finish(answer, error)

    def finish(self, answer: Any, error: BaseException | None) -> None:
        """Take the result to whoever waits, or drop it; the permit is free in any case.

        Once: a call that was interrupted as it began may have begun all the same.
        """
        with self._lock:
            if self.ended:
                return
            self.ended = True
            if not self.abandoned:
                self.answer, self.error = answer, error
        self._crew._ended(self)
        if self.permit:
            self._crew._permits.release(self.permit)
        self.gate.release()
        future = self.future
        if future is not None and not self.abandoned:
            with suppress(RuntimeError):  # the loop was closed: nobody waits
                future.get_loop().call_soon_threadsafe(_resume, future)

    def abandon(self) -> bool:
        """Wait for it no longer; ``False`` if it has ended."""
        if not self.begun:
            self.finish(None, None)  # it never will, and must not keep its permit
        with self._lock:
            if not self.ended:
                self.abandoned = True
        if self.abandoned:
            self._crew._left(self)
        return self.abandoned

    def outcome(self) -> Any:
        """Return or raise what the call did."""
        error, self.error = self.error, None
        if error is None:
            return self.answer
        try:
            raise error
        finally:
            del error  # no cycle through the traceback


def _resume(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class ThreadBulkhead(Part):
    """Runs blocking calls in at most ``max_threads`` worker threads of its own.

    From a thread, a call can be bounded in time although nothing can interrupt it; from a
    coroutine, it does not block the loop. Both may share one. The deadline of the context
    bounds the wait for a thread and the call. Threads start when they are needed, end after ten
    idle seconds, never keep the process from ending, and start anew in the child of a fork.
    Context variables of the caller are copied into the call.

    In a simulation there are no threads: a call is made at once and ends at its own later
    instant of virtual time.

    Args:
        max_threads: How many calls may run. From 1 to 10000.
        queue: How many callers may wait for a thread; 0: none.
        name: Shown in events, metrics and errors.

    Raises:
        BulkheadFullError: Definite. All threads are busy and the queue is full.
        TooLateError: Definite. The deadline passed before the call began.
        DeadlineError: Indefinite. The deadline passed during the call. Its thread still runs,
            and holds its permit until it ends.
        ConfigError: Definite. A setting is wrong.
    """

    settings: ClassVar[tuple[str, ...]] = ("max_threads", "queue")
    position = ""

    __slots__ = ("_crew", "_later", "_lost", "_permits", "_shut")

    def __init__(self, max_threads: int, *, queue: int = 0, name: str = "") -> None:
        check_whole(type(self).__name__, "max_threads", max_threads, 1, _THREADS_MAX)
        super().__init__(name)
        self._permits = Bulkhead(max_threads, queue=queue, name=name)
        self._crew = Crew(max_threads)
        self._lost: dict[_Job, None] = {}  # abandoned, and still running
        self._later: deque[tuple[int, Callable[[], None]]] = deque()  # ends, in virtual time
        self._shut = False
        tell_of_forks(self)

    @property
    def max_threads(self) -> int:
        """How many calls may run."""
        return self._permits.max_concurrent

    @property
    def queue(self) -> int:
        """How many callers may wait for a thread."""
        return self._permits.queue

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``function`` in a worker thread, wait for it, and return what it returns."""
        return self.run(partial(function, *args, **kwargs))

    async def acall(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``function``, which blocks, in a worker thread, and await its end.

        Cancellation abandons the call: it goes on in its thread, and its result is dropped.
        """
        world = current_world()
        self._refuse(world)
        self._settle(world)
        job = _Job(self, partial(function, *args, **kwargs))
        deadline = current_deadline.get()
        until_ns = None if deadline is None or deadline.endless else deadline.at_ns
        timer = None
        try:
            job.permit = await self._permits.acquire()
            job.future = asyncio.get_running_loop().create_future()
            if not self._beside(job, world, in_loop=True):
                while not self._start(job):
                    await world.timers.sleep(_STEP)  # a thread is between two calls
            if until_ns is not None:
                timer = world.timers.call_at(until_ns, partial(_resume, job.future))
            if not job.ended:
                await job.future
        except BaseException:
            job.abandon()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if job.abandon():
            raise self._too_slow()
        return job.outcome()  # type: ignore[no-any-return]

    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Return ``function``, which blocks, as one that runs in a worker thread.

        Raises:
            TypeError: It is a coroutine function, which needs no thread, or a generator, whose
                items would be made in the caller's.
        """
        check_function(function)
        kind = kind_of(function)
        if kind != "blocking":
            shown = getattr(function, "__qualname__", repr(function))
            what = "a coroutine function" if kind == "async" else f"a {kind}"
            raise TypeError(f"{type(self).__name__}: {shown} is {what}; use Bulkhead")

        @wraps(function)
        def in_thread(*args: P.args, **kwargs: P.kwargs) -> Any:
            return self.run(partial(function, *args, **kwargs))

        return in_thread

    def asynchronous(self, function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
        """Return ``function``, which blocks, as a coroutine function that awaits its thread."""

        @wraps(function)
        async def in_thread(*args: P.args, **kwargs: P.kwargs) -> R:
            return await self.acall(function, *args, **kwargs)

        return in_thread

    def run(self, function: Callable[[], R], *, seconds: float | None = None) -> R:
        """Call ``function`` in a worker thread, and wait for ``seconds`` after it has begun.

        The wait for a thread is no part of ``seconds``.
        """
        world = current_world()
        self._refuse(world)
        self._settle(world)
        job = _Job(self, function)
        try:
            job.permit = self._permits.acquire_blocking()
            if not self._beside(job, world, in_loop=False):
                while not self._start(job):
                    world.clock.pause(_STEP)  # a thread is between two calls
            until_ns = self._until(world, seconds)
            now_ns = world.clock.monotonic_ns()
            left = None if until_ns is None else max(0, until_ns - now_ns) / _NS
            self._wait(job, world, left)
        except BaseException:
            job.abandon()
            raise
        if job.abandon():
            raise self._too_slow()
        return job.outcome()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Take no more calls. Those that run end by themselves; idle threads end soon."""
        self._shut = True

    def snapshot(self) -> dict[str, Any]:
        """Return how many calls run and wait, and how many of them nobody waits for any more."""
        return {**self._permits.snapshot(), "threads": self._crew.threads,
                "abandoned": len(self._lost)}  # fmt: skip

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned. Calls that run go on."""
        if "max_threads" in changes:
            self._crew.max_threads = changes["max_threads"]
        names = {"max_threads": "max_concurrent", "queue": "queue"}
        self._permits.apply({names[name]: value for name, value in changes.items()})

    # --- inside -----------------------------------------------------------------------------

    def forked(self) -> None:
        """In the child of a fork: no call that was abandoned runs here."""
        self._lost = {}

    def begin_anew(self) -> None:
        """In another world: the simulated calls of the last one have ended with it."""
        for _, finish in self._later:
            finish()
        self._later.clear()
        self._lost = {}

    def _until(self, world: World, seconds: float | None) -> int | None:
        deadline = current_deadline.get()
        until_ns = None if deadline is None or deadline.endless else deadline.at_ns
        if seconds is None:
            return until_ns
        ends_ns = world.clock.monotonic_ns() + round(seconds * _NS)
        return ends_ns if until_ns is None else min(ends_ns, until_ns)

    def _start(self, job: _Job) -> bool:
        job.begun = self._crew.try_start(job.work)
        return job.begun

    def _refuse(self, world: World) -> None:
        """Refuse a call where nobody would make it, or wait for it."""
        if self._shut:
            raise RejectedError(f"{self._shown()}: closed")
        deadline = current_deadline.get()
        if deadline is not None and deadline.passed(world.clock.monotonic_ns()):
            self._permits._emit_rejection("late", world)
            raise TooLateError(f"{self._shown()}: the deadline passed before the call began")

    def _shown(self) -> str:
        kind = type(self).__name__
        return f"{kind} {self.name!r}" if self.name else kind

    def _too_slow(self) -> DeadlineError:
        error = DeadlineError(f"{self._shown()}: the call did not end in time")
        error.add_note(_NOTE)
        return error

    def _left(self, job: _Job) -> None:
        """Count an abandoned job, unless it ends at this very moment."""
        self._lost[job] = None
        if job.ended:
            self._lost.pop(job, None)

    def _ended(self, job: _Job) -> None:
        self._lost.pop(job, None)

    # --- virtual time -----------------------------------------------------------------------

    def _beside(self, job: _Job, world: World, *, in_loop: bool) -> bool:
        """In a simulation, make the call now and let it end at its later instant."""
        beside = getattr(world.clock, "beside", None)
        if beside is None:
            return False
        job.begun = True
        answer, error, end_ns = beside(job._run)
        finish = partial(job.finish, answer, error)
        if in_loop:
            world.timers.call_at(end_ns, finish)
        else:
            self._later.append((end_ns, finish))
        return True

    def _settle(self, world: World) -> None:
        """End the simulated calls whose instants have come."""
        if self._later:
            now_ns = world.clock.monotonic_ns()
            due = [finish for end_ns, finish in self._later if end_ns <= now_ns]
            self._later = deque(item for item in self._later if item[0] > now_ns)
            for finish in due:
                finish()

    def _wait(self, job: _Job, world: World, left: float | None) -> None:
        if not self._later:
            world.clock.wait(job.gate, left)
            return
        end_ns, finish = self._later.pop()
        needed = max(0, end_ns - world.clock.monotonic_ns()) / _NS
        if left is not None and left < needed:
            self._later.append((end_ns, finish))
            world.clock.pause(left)
        else:
            world.clock.pause(needed)
            finish()


class Hard(ThreadBulkhead):
    """A limit on one attempt of a blocking call that holds whatever the call does.

    ``Policy(attempt_timeout=2.0)`` hands its limit down and relies on the call to keep to it;
    ``Policy(attempt_timeout=Hard(2.0))`` makes each attempt in a worker thread and stops waiting
    after two seconds. The seconds begin when the attempt does: no thread free is
    ``BulkheadFullError`` and not a timeout.

    Args:
        seconds: How long an attempt may take. Above 0.
        max_threads: How many attempts may run, those that were abandoned among them.
        queue: How many callers may wait for a thread; 0: none.
        name: Shown in events, metrics and errors.

    Raises:
        DeadlineError: Indefinite. The attempt took longer. Its thread still runs, and holds its
            permit until it ends.
        BulkheadFullError: Definite. All threads are busy and the queue is full.
        ConfigError: Definite. A setting is wrong.
    """

    settings = ("seconds", "max_threads", "queue")
    position = "attempt_timeout"

    __slots__ = ("seconds",)

    def __init__(
        self, seconds: float, *, max_threads: int = 32, queue: int = 0, name: str = ""
    ) -> None:
        self.seconds = check_number("Hard", "seconds", seconds, 1e-6, DAY, what="seconds")
        super().__init__(max_threads, queue=queue, name=name)

    def wrap_blocking(
        self,
        function: Callable[P, R],
        policy_name: str,
        timed_out: Callable[[], object] | None = None,
    ) -> Callable[P, R]:
        """Return ``function`` bounded; the name of the policy is taken if there is none yet.

        ``timed_out`` is called when an attempt has taken too long.
        """
        if not self.name:
            self.name = policy_name

        @wraps(function)
        def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
            started = partial(function, *args, **kwargs)
            if timed_out is None:
                return self.run(started, seconds=self.seconds)
            ended = False

            def run() -> R:
                nonlocal ended
                try:
                    return started()
                finally:
                    ended = True

            try:
                return self.run(run, seconds=self.seconds)
            except (DeadlineError, RejectedError) as error:
                if not ended:
                    # The pool has made it, and not the function.
                    sign(error, timed_out)
                    if isinstance(error, DeadlineError):
                        timed_out()
                raise

        return bounded

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``function`` in a worker thread, and wait for at most ``seconds``."""
        return self.run(partial(function, *args, **kwargs), seconds=self.seconds)

    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Return ``function``, which blocks, bounded."""
        return self.wrap_blocking(function, self.name)

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned."""
        rest = dict(changes)
        self.seconds = rest.pop("seconds", self.seconds)
        super().apply(rest)
