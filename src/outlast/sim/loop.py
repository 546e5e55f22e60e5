"""An asyncio event loop with virtual time: one thread, many hosts, no machine.

Time stands still while anything can run and jumps to the next timer when nothing can. Each
callback belongs to the life of a host: it is dropped when that life is over, and waits while
the host is paused or busy. Everything else (tasks, futures, streams, ``asyncio.timeout``) is
asyncio's own and knows nothing of it.

The class builds on ``asyncio.BaseEventLoop``, whose inside it replaces: the queue of what is
ready, the timers and everything that would touch a socket. That base has kept its shape since
Python 3.4; what we rely on is named in this file, in ``handles`` and, for the tasks of a crashed
host, in ``simulation``.
"""

import asyncio
import gc
import io
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import redirect_stderr, redirect_stdout
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Any, NoReturn

from outlast.kernel import DeadlockError, EscapeError
from outlast.sim.ambient import ambient
from outlast.sim.clocks import SimSource
from outlast.sim.handles import SimHandle, SimTimer
from outlast.sim.hosts import LIFE, Life
from outlast.sim.interrupts import GUARD
from outlast.sim.netloop import NetworkMethods
from outlast.sim.simulation import LIVES_BITS, TEST, TRAIL_MAX, Simulation
from outlast.sim.sockets import simulated_poll
from outlast.sim.tasks import SimTask
from outlast.sim.threads import Workers, simulated_threads, workers_of

_NS = 1_000_000_000
_PURGE_MIN = 200
_SAME_INSTANT_MAX = 5_000
"""So many callbacks at one instant look like a program that waits for time in a busy loop."""
_SPIN_NS = 1_000
_READS_MAX = 5_000
"""So often may one callback ask for the time before the asking itself takes time."""
_COLLECT_EVERY = 500_000
_HARMLESS = (Exception, SystemExit, asyncio.CancelledError, GeneratorExit)
_EXECUTOR_NS = (5_000, 60_000)
_NEVER = 1 << 62
_NEVER_S = _NEVER / _NS


class SimLoop(NetworkMethods, asyncio.BaseEventLoop):  # type: ignore[misc]
    """The event loop of one simulation: ``asyncio.Runner(loop_factory=SimLoop)``.

    While it runs, ``time``, ``datetime``, ``random``, ``uuid``, ``os.urandom`` and the like are
    simulated in its thread, and what cannot be simulated (sockets, processes, threads) raises
    :class:`outlast.EscapeError`. Not thread-safe.

    Args:
        seed: From which everything is drawn.
        trace: Called with each event as ``(moment_ns, host, text)``.
        limit: Virtual seconds after which the run fails.

    Attributes:
        sim: Hosts, network, virtual time.

    Raises:
        DeadlockError: Nothing can ever happen again, and the coroutine that runs still waits.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        trace: Callable[[int, str, str], None] | None = None,
        limit: float = 24 * 3600.0,
    ) -> None:
        super().__init__()
        self.sim = Simulation(seed, trace)
        self.sim.loop = self
        self.source = SimSource(self.sim)
        self._soon: deque[SimHandle | SimTimer] = deque()
        self._ready = self._soon
        self._timers: list[tuple[int, int, SimHandle | SimTimer]] = []
        self._serial = 0
        self._tasks_made = 0
        self._cancelled = 0
        self._reads = 0
        self._limit_ns = int(limit * _NS)
        self._draws = self.sim.prng.fork()
        self.sim.new_life(self.sim.add_host(TEST))
        self._test = self.sim.test_life

    # --- time ----------------------------------------------------------------------------------

    def time(self) -> float:
        """Return the monotonic time of the host that runs now, in seconds."""
        sim = self.sim
        self._reads += 1
        if self._reads > _READS_MAX:  # it waits for time in a loop of its own
            sim.spend(_SPIN_NS)
        life = LIFE.get(None) or self._test
        return life.host.clock.monotonic_ns(sim.now_ns + sim.ahead_ns) / _NS

    # --- callbacks -----------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run ``callback`` after what is ready already."""
        if self._closed:  # type: ignore[attr-defined]
            self._check_closed()  # type: ignore[attr-defined]
        life = (LIFE.get(None) if context is None else context.get(LIFE)) or self._test
        handle = SimHandle(callback, args, self, context, life)
        self._soon.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run ``callback`` after what is ready already; there is only one thread."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run ``callback`` after ``delay`` seconds of its host's clock."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run ``callback`` when its host's clock shows ``when`` seconds."""
        if self._closed:  # type: ignore[attr-defined]
            self._check_closed()  # type: ignore[attr-defined]
        life = (LIFE.get(None) if context is None else context.get(LIFE)) or self._test
        handle = SimTimer(when, callback, args, self, context, life)
        if when > _NEVER_S:
            when_ns = _NEVER
        else:
            local_ns = round(when * _NS)
            if local_ns / _NS < when:  # by then time() must show `when`: callers rely on it
                local_ns += 1
            when_ns = life.host.clock.moment_ns(local_ns)
        now_ns = self.sim.now_ns
        self._serial += 1
        heappush(self._timers, (when_ns if when_ns > now_ns else now_ns, self._serial, handle))
        return handle

    def schedule(
        self,
        when_ns: int,
        life: Life | None,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: Context,
    ) -> asyncio.Handle:
        """Run ``callback`` at a moment of virtual time, in ``life`` if there is one."""
        handle = SimHandle(callback, args, self, context, life)
        now_ns = self.sim.now_ns
        self._serial += 1
        heappush(self._timers, (when_ns if when_ns > now_ns else now_ns, self._serial, handle))
        return handle

    def first(self, handles: Iterable[asyncio.Handle]) -> None:
        """Run these before anything that is ready."""
        self._soon.extendleft(reversed(list(handles)))  # type: ignore[arg-type]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._cancelled += 1
        if self._cancelled > _PURGE_MIN and self._cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[2]._cancelled]
            heapify(self._timers)
            self._cancelled = 0

    # --- running -------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Run until stopped, with the time and randomness of the simulation."""
        collecting = gc.isenabled()
        gc.disable()  # a finaliser that runs at another moment would be another run
        try:
            with (
                simulated_threads(),
                ambient(self.source, self.sim.escaped, self.sim.refused),
                simulated_poll(self.sim.network),
            ):
                super().run_forever()
        finally:
            if collecting:
                gc.enable()

    def _run_once(self) -> None:
        """Run all that is ready, then let time jump. Called again until stopped."""
        opened = GUARD.open
        try:
            GUARD.open = True
            GUARD.let_through()
            self._run_on()
        finally:
            GUARD.open = opened

    def _run_on(self) -> None:
        sim, soon = self.sim, self._soon
        trail = sim.trail
        spins = 0
        while not self._stopping:  # type: ignore[attr-defined]
            if not soon:
                before_ns = sim.now_ns
                self._jump()
                if sim.now_ns != before_ns:
                    spins = 0
            handle = soon.popleft()
            callback = handle._callback
            if callback is None:  # it was taken back
                continue
            life = handle.life
            if life is None:
                try:
                    handle._context.run(callback, *handle._args)
                except BaseException as error:
                    self._raised(handle, error)
                sim.ahead_ns = 0
                continue
            if not life.alive:
                continue
            host = life.host
            if host.blocked:
                host.backlog.append(handle)
                continue
            sim.steps += 1
            self._reads = 0
            trail.append((sim.now_ns << LIVES_BITS) + life.number)
            try:
                handle._context.run(callback, *handle._args)
            except BaseException as error:
                self._raised(handle, error)
            if sim.ahead_ns or host.step_ns:
                spent = sim.ahead_ns + host.step_ns
                sim.ahead_ns = 0
                if life.alive:
                    sim.busy_until(host, sim.now_ns + spent)
            spins += 1
            if spins > _SAME_INSTANT_MAX:
                self._spin()

    def _raised(self, handle: SimHandle | SimTimer, error: BaseException) -> None:
        """Do what asyncio does with an error that a callback has let out."""
        life = handle.life
        if not isinstance(error, _HARMLESS):  # KeyboardInterrupt, and what ends a test
            raise error
        if isinstance(error, SystemExit):  # the process of one host ends, and no other
            if life is None or life is self._test:
                raise error
            code = error.code or 0
            self.sim.exited(life, f"it exited with {code}", error if code else None)
            return
        name = getattr(handle._callback, "__qualname__", type(handle._callback).__name__)
        message = f"exception in callback {name}"
        self.call_exception_handler({"message": message, "exception": error, "handle": handle})

    def end(self) -> None:
        """End all lives, let nothing more happen, and close the loop.

        What the programs held is closed inside of the simulation, so that a ``finally`` that
        opens a file or reads a clock does no harm.
        """
        sim = self.sim
        if self.is_closed():
            return
        for host in sim.hosts.values():
            sim.end_life(host)
        self._soon.clear()
        self._timers.clear()
        sim.at(sim.now_ns, self._bury)
        try:
            self.run_forever()
        finally:
            self._soon.clear()
            self._timers.clear()
            self.close()

    def _bury(self) -> None:
        """Close what is left. Whatever it logs or prints, a killed program would not have."""
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        nobody = io.StringIO()
        try:
            with redirect_stdout(nobody), redirect_stderr(nobody):
                self.sim.bury()
                gc.collect()
        finally:
            logging.disable(level)
            self.stop()

    def _spin(self) -> None:
        """Let a little time pass for a program that waits for time without letting any pass."""
        timers = self._timers
        now_ns = self.sim.now_ns
        limit = timers[0][0] if timers and timers[0][0] > now_ns else _NEVER
        self.sim.now_ns = min(now_ns + _SPIN_NS, limit)
        while timers and timers[0][0] <= self.sim.now_ns:
            self._soon.append(heappop(timers)[2])

    def _jump(self) -> None:
        """Let time pass to the next timer, and make all that is due then ready."""
        sim, timers, soon = self.sim, self._timers, self._soon
        if len(sim.trail) > TRAIL_MAX:
            sim.fold()
            if sim.steps // _COLLECT_EVERY != sim.collected:
                sim.collected = sim.steps // _COLLECT_EVERY
                gc.collect()
        while timers and timers[0][2]._cancelled:
            heappop(timers)
            if self._cancelled:
                self._cancelled -= 1
        if not timers or timers[0][0] >= _NEVER:
            self._deadlock()
        now_ns, _, handle = heappop(timers)
        if now_ns > self._limit_ns:
            limit = f"{self._limit_ns / _NS:,.0f} virtual seconds"
            raise DeadlockError(f"the run has not ended after {limit}{self._waiting()}")
        sim.now_ns = now_ns
        handle._scheduled = False
        soon.append(handle)
        while timers and timers[0][0] <= now_ns:
            handle = heappop(timers)[2]
            handle._scheduled = False
            soon.append(handle)

    def _deadlock(self) -> NoReturn:
        message = f"nothing can ever happen again{self._waiting()}"
        raise DeadlockError(message)

    def _waiting(self) -> str:
        """Say what the test's own tasks wait for."""
        found = []
        for task in sorted(asyncio.all_tasks(self), key=lambda task: task.get_name()):
            stack = task.get_stack(limit=1)
            if stack and task in self._test.tasks:
                code = stack[-1].f_code
                found.append(
                    f"{task.get_name()} waits in {code.co_name} at line {stack[-1].f_lineno}"
                )
        return f": {'; '.join(found[:5])}" if found else ""

    # --- tasks ---------------------------------------------------------------------------------

    def create_task(self, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        """Start a task in the life that runs now, or in that of its context."""
        context = kwargs.get("context")
        task: asyncio.Task[Any]
        if self._task_factory is None:  # type: ignore[attr-defined]
            self._check_closed()  # type: ignore[attr-defined]
            self._tasks_made += 1
            task = SimTask(coro, serial=self._tasks_made, loop=self, **kwargs)
        else:
            task = super().create_task(coro, **kwargs)
        life = (LIFE.get(None) if context is None else context.get(LIFE)) or self._test
        life.tasks.add(task)
        return task

    def set_debug(self, enabled: bool) -> None:
        """Switch asyncio's debug mode on or off."""
        super().set_debug(enabled)
        # Each future asks for it: bool(), which answers no, is the quickest thing to ask.
        self.get_debug = super().get_debug if enabled else bool  # type: ignore[method-assign]

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Remember what nobody caught."""
        self.sim.note("error", str(context.get("message")))
        if len(self.sim.errors) < 50:
            self.sim.errors.append(context)

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is nobody to wake."""

    # --- what blocks ---------------------------------------------------------------------------

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Run ``func`` in this thread, a little later; its result is late by what it spends.

        An executor with a limit of workers runs no more calls at a time than it has workers.
        """
        sim, life = self.sim, self.sim.life
        future: asyncio.Future[Any] = self.create_future()
        delay_ns = self._draws.between(*_EXECUTOR_NS)
        if executor is None:
            executor = self._default_executor  # type: ignore[attr-defined]
        workers = None if executor is None else workers_of(executor, life)
        if workers is None:
            sim.at_host(sim.moment_ns + delay_ns, life, self._execute, future, func, args, None)
        else:
            workers.take(
                lambda: sim.at_host(
                    sim.moment_ns + delay_ns, life, self._execute, future, func, args, workers
                )
            )
        return future

    def _execute(
        self,
        future: "asyncio.Future[Any]",
        func: Callable[..., Any],
        args: Any,
        workers: Workers | None,
    ) -> None:
        sim, life = self.sim, self.sim.life
        answer: Any = None
        error: BaseException | None = None
        if not future.cancelled():
            try:
                answer = func(*args)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as raised:
                error = raised
        end_ns, sim.ahead_ns = sim.moment_ns, 0
        sim.at_host(end_ns, life, _answer, future, answer, error)
        if workers is not None:
            sim.at_host(end_ns, life, workers.give_back)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    # --- signals -------------------------------------------------------------------------------

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """Call ``callback`` when the lab sends ``sig`` to this host."""
        self.sim.life.signals[int(sig)] = lambda *_: callback(*args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Take a handler back."""
        return self.sim.life.signals.pop(int(sig), None) is not None

    # --- what cannot be simulated ----------------------------------------------------------------

    async def subprocess_exec(self, *args: Any, **_: Any) -> Any:
        """Refuse.

        Raises:
            EscapeError: Definite. A process is no part of a simulation.
        """
        _refuse("a subprocess", "run its code as another host: lab.host(name, main)")

    async def subprocess_shell(self, *args: Any, **_: Any) -> Any:
        """Refuse; see :meth:`subprocess_exec`."""
        _refuse("a subprocess", "run its code as another host: lab.host(name, main)")

    async def connect_read_pipe(self, *_: Any) -> Any:
        """Refuse: there are no pipes."""
        _refuse("a pipe", "use asyncio streams between hosts")

    async def connect_write_pipe(self, *_: Any) -> Any:
        """Refuse: there are no pipes."""
        _refuse("a pipe", "use asyncio streams between hosts")

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """Refuse: there are no descriptors to watch."""
        _refuse("add_reader on a descriptor", "use asyncio streams or protocols")

    def add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """Refuse: there are no descriptors to watch."""
        _refuse("add_writer on a descriptor", "use asyncio streams or protocols")

    def remove_reader(self, fd: Any) -> bool:
        """Nothing is ever watched."""
        return False

    def remove_writer(self, fd: Any) -> bool:
        """Nothing is ever watched."""
        return False


def _refuse(what: str, instead: str) -> NoReturn:
    from outlast.sim.escape import place

    message = f"{place()}: {what} cannot be simulated: {instead}"
    raise EscapeError(message)


def _answer(future: "asyncio.Future[Any]", answer: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)
