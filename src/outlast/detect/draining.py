"""Leaving gracefully on SIGTERM: not ready, finish what runs, then go.

Two drivers over one core: ``with Drain(health)`` in the main thread of a program of threads,
``async with Drain(health)`` on its event loop.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from outlast.detect.core.draining import DrainDecider, DrainSettings, Phase
from outlast.detect.draining_events import DrainEnded, DrainStarted
from outlast.kernel import ConfigError, Event, RejectedError, World, current_world

if TYPE_CHECKING:
    from outlast.detect.health import Health
    from outlast.detect.health_pages import AsgiApp, WsgiApp

_NS: Final = 1_000_000_000
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Drain:
    """Turns a signal into a graceful stop; a latch: once begun, never ready again.

    On the first SIGTERM or SIGINT: readiness fails at once and work is still taken for ``delay``
    seconds, so that load balancers notice; then no more is taken, and what runs may finish, until
    ``within`` seconds after the signal. A second SIGINT ends it at once; a second SIGTERM changes
    nothing. Then it ends, in this order: ``on_end`` is called; who waits in :meth:`wait` (or
    :meth:`wait_blocking`) goes on; if nobody does, the signal is handed to the handler that was
    installed before (that of uvicorn, gunicorn, your own); where there was none, ``SystemExit``
    is raised in the main thread, with code 0, or 1 if work was left.

    Enter it after whatever else installs signal handlers: with uvicorn, in the application's
    lifespan. A handler that was given to the loop itself (``loop.add_signal_handler``) is
    replaced and not called. Leaving the block gives the handlers back and ends the drain.
    Python runs handlers in the main thread: while that is inside of C code, no signal is noticed.

    ``working``, ``asgi`` and ``wsgi`` count from any thread and any loop. One object, one drain.
    After a fork the child keeps the handlers of the parent; enter one of its own there.

    Args:
        health: Its readiness is failed; ``None`` if nothing is served.
        delay: Seconds to go on taking work. Longer than the period of the probes that look, times
            the failures that they want to see.
        within: Seconds from the signal to the end, ``delay`` included. By default below the 30 s
            after which Kubernetes kills.
        on_end: Called at the end with the number of pieces of work that were left; on the drain's
            thread, or on the loop. It must not wait.
        signals: Which signals begin it; ``()`` installs no handler: call :meth:`begin`.
        world: Clock, timers and events; by default the current world where it is entered.

    Raises:
        ConfigError: Definite. ``delay`` negative or above ``within``.
    """

    def __init__(
        self,
        health: "Health | None" = None,
        *,
        delay: float = 5.0,
        within: float = 25.0,
        on_end: Callable[[int], None] | None = None,
        signals: Sequence[int] = SIGNALS,
        world: World | None = None,
    ) -> None:
        self.delay, self.within = delay, within
        self._decider = DrainDecider(DrainSettings.of(delay, within))
        self._health = health
        self._on_end = on_end
        self._signals = tuple(signals)
        self._world = world
        self._lock = threading.Lock()
        self._asked: list[tuple[int | None, str]] = []
        self._before: dict[int, Any] = {}
        self._driver: _LoopDriver | _ThreadDriver | None = None
        self._signal: int | None = None
        self._waiting = 0
        self._left = 0

    def __repr__(self) -> str:
        """Show the phase and how much runs."""
        return f"<Drain {self.phase}, {self.in_flight} in flight>"

    @property
    def phase(self) -> Phase:
        """``serving``, ``leaving``, ``refusing`` or ``ended``."""
        return self._decider.phase

    @property
    def in_flight(self) -> int:
        """How many pieces of work run."""
        return self._decider.in_flight

    @property
    def left(self) -> int:
        """How many pieces of work ran at the end."""
        return self._left

    # --- work -------------------------------------------------------------------------------

    def working(self) -> "Working":
        """Count a piece of work while ``with drain.working():`` (or ``async with``) lasts.

        Raises:
            RejectedError: Definite, on entering. No more work is taken.
        """
        return Working(self)

    def try_enter(self) -> bool:
        """Count a piece of work; ``False`` if no more is taken. Then call :meth:`leave` once."""
        with self._lock:
            return self._decider.enter()

    def leave(self) -> None:
        """A piece of work that was counted is over."""
        with self._lock:
            wakes = self._decider.leave()
        if wakes and self._driver is not None:
            self._driver.wake()

    def asgi(self, app: "AsgiApp") -> "AsgiApp":
        """Return ``app`` with its HTTP requests counted; see :class:`~outlast.detect.DrainApp`."""
        from outlast.detect.drain_app import DrainApp

        return DrainApp(app, self)

    def wsgi(self, app: "WsgiApp") -> "WsgiApp":
        """Return the WSGI application ``app`` with its requests counted."""
        from outlast.detect.drain_app import drain_wsgi

        return drain_wsgi(app, self)

    # --- the stop ---------------------------------------------------------------------------

    def begin(self, reason: str = "asked to stop") -> None:
        """Begin without a signal; from any thread, inside the block. At the end nothing exits."""
        self._ask(None, reason)

    async def wait(self) -> int:
        """Wait for the end, on the loop on which it was entered; return how much work was left."""
        driver = self._driver
        if not isinstance(driver, _LoopDriver):
            raise ConfigError("Drain.wait: it was not entered with `async with` on this loop")
        self._waiting += 1
        try:
            await driver.ended.wait()
        finally:
            self._waiting -= 1
        return self._left

    def wait_blocking(self, timeout: float | None = None) -> bool:
        """Block until the end, at most ``timeout`` seconds; return whether it has come."""
        driver = self._driver
        if not isinstance(driver, _ThreadDriver):
            raise ConfigError("Drain.wait_blocking: it was not entered with `with`")
        self._waiting += 1
        try:
            return driver.ended.wait(timeout)
        finally:
            self._waiting -= 1

    def __enter__(self) -> Self:
        """Install the handlers and start the thread that waits for them."""
        self._enter(_ThreadDriver(self, self._world or current_world()))
        return self

    def __exit__(self, *exc: object) -> None:
        """Give the handlers back and end."""
        self._exit()

    async def __aenter__(self) -> Self:
        """Install the handlers on the running loop."""
        self._enter(_LoopDriver(self, self._world or current_world()))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Give the handlers back and end."""
        self._exit()

    # --- inside -----------------------------------------------------------------------------

    def _enter(self, driver: "_LoopDriver | _ThreadDriver") -> None:
        if self._driver is not None:
            raise ConfigError("Drain: it was entered before; one object is for one stop")
        try:
            for number in self._signals:
                self._before[number] = driver.install(number)
        except (ValueError, RuntimeError, NotImplementedError) as error:
            self._restore(driver)
            raise ConfigError(
                "Drain: signal handlers belong to the main thread; enter it there, or give"
                " signals=() and call begin()"
            ) from error
        self._driver = driver
        driver.start()

    def _exit(self) -> None:
        driver = self._driver
        if driver is not None:
            try:
                driver.stop()  # first: no signal is handed on to a handler that is not ours
            finally:
                self._restore(driver)

    def _restore(self, driver: "_LoopDriver | _ThreadDriver") -> None:
        while self._before:
            driver.uninstall(*self._before.popitem())

    def _ask(self, number: int | None, reason: str) -> None:
        """Note a signal, or a call of ``begin``. Takes no lock: it may have interrupted us."""
        self._asked.append((number, reason))
        if self._driver is not None:
            self._driver.wake()

    def _on_signal(self, number: int, frame: Any = None) -> None:
        if self._decider.phase == "ended":
            self._hand_on(number, frame)
        else:
            self._ask(number, signal.Signals(number).name)

    def _hand_on(self, number: int, frame: Any = None) -> None:
        """Do what would have been done without us; in the main thread."""
        if number not in self._before:
            return  # the block was left meanwhile
        before = self._before[number]
        if callable(before):
            before(number, frame)
        elif before != signal.SIG_IGN:
            raise SystemExit(1 if self._left else 0)

    def _advance(self, now_ns: int) -> tuple[int | None, list[Event]]:
        """Take in what was asked, go on; return when to come again, and what has happened."""
        events: list[Event] = []
        with self._lock:
            decider = self._decider
            while self._asked:
                number, reason = self._asked.pop(0)
                if decider.begin(now_ns):
                    self._signal = number
                    events.append(
                        DrainStarted(
                            reason=reason,
                            in_flight=decider.in_flight,
                            delay=self.delay,
                            within=self.within,
                        )
                    )
                elif number == signal.SIGINT:
                    decider.hurry()
            before = decider.phase
            due_ns = decider.advance(now_ns)
            if decider.phase == "ended" and before != "ended":
                left = self._left = decider.in_flight
                events.append(
                    DrainEnded(
                        level="warning" if left else "info",
                        in_flight_left=left,
                        seconds=(now_ns - (decider.began_ns or 0)) / _NS,
                    )
                )
        return due_ns, events

    def _tell(self, world: World, events: list[Event]) -> bool:
        """Act on what has happened, outside the lock; return whether it was the end."""
        ended = False
        for event in events:
            if isinstance(event, DrainStarted) and self._health is not None:
                self._health.drain(f"stopping: {event.reason}")
            world.events.emit(event)
            ended = ended or isinstance(event, DrainEnded)
        if ended and self._on_end is not None:
            self._on_end(self._left)
        return ended


class Working:
    """One piece of work, counted while the block lasts. Not to be entered twice."""

    __slots__ = ("_drain",)

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    def __enter__(self) -> None:
        """Count it, or refuse."""
        if not self._drain.try_enter():
            raise RejectedError("no more work is taken: the process is going to stop")

    def __exit__(self, *exc: object) -> None:
        """It is over."""
        self._drain.leave()

    async def __aenter__(self) -> None:
        """Count it, or refuse."""
        self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        """It is over."""
        self._drain.leave()


class _LoopDriver:
    """Runs a drain as a task, and takes signals as callbacks of the loop."""

    def __init__(self, drain: Drain, world: World) -> None:
        self._drain, self._world = drain, world
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._task: Any = None
        self.ended = asyncio.Event()

    def install(self, number: int) -> Any:
        """Install the handler and return the one before; one of the loop itself is gone."""
        before = signal.getsignal(number)
        self._loop.add_signal_handler(number, self._drain._on_signal, number)
        return signal.SIG_DFL if signal.getsignal(number) is before else before

    def uninstall(self, number: int, before: Any) -> None:
        """Give back the handler before; nothing is given back that was not taken."""
        during = signal.getsignal(number)
        self._loop.remove_signal_handler(number)
        if signal.getsignal(number) is not during:
            signal.signal(number, before)

    def start(self) -> None:
        self._task = self._world.spawn.task(self._run(), name="outlast drain")

    def stop(self) -> None:
        self._task.cancel()

    def wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _run(self) -> None:
        try:
            await self._advance()
        finally:
            drain = self._drain
            if drain.phase == "ended":
                self.ended.set()
                if drain._signal is not None and not drain._waiting:
                    # As a callback of the loop: there SystemExit ends more than one task.
                    self._loop.call_soon(drain._hand_on, drain._signal)

    async def _advance(self) -> None:
        drain, world = self._drain, self._world
        while True:
            due_ns, events = drain._advance(world.clock.monotonic_ns())
            if drain._tell(world, events):
                return
            timer = None if due_ns is None else world.timers.call_at(due_ns, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()
            self._wake.clear()


class _ThreadDriver:
    """Runs a drain on a thread of its own, and takes signals between two bytecodes.

    A handler may interrupt code that holds any lock, so it takes none: it appends to a list and
    releases a gate. The thread is there from the start, since starting one takes a lock, too.
    """

    def __init__(self, drain: Drain, world: World) -> None:
        self._drain, self._world = drain, world
        self._gate = threading.Lock()
        self._leaving = threading.Lock()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="outlast-drain", daemon=True)
        self.ended = threading.Event()

    def install(self, number: int) -> Any:
        """Install the handler and return the one before."""
        before = signal.signal(number, self._drain._on_signal)
        return signal.SIG_DFL if before is None else before

    def uninstall(self, number: int, before: Any) -> None:
        """Give back the handler before."""
        with suppress(ValueError):  # left on another thread than entered
            signal.signal(number, before)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._leaving:
            self._over = True
        self.wake()

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is open already
            self._gate.release()

    def _run(self) -> None:
        try:
            self._advance()
        finally:
            drain = self._drain
            if drain.phase == "ended":
                if drain._signal is not None and not drain._waiting:
                    self._hand_on(drain._signal)
                self.ended.set()  # only now: who waits for it leaves the block

    def _hand_on(self, number: int) -> None:
        """Send the signal on to the main thread, whatever it waits for, while we have it."""
        with self._leaving:  # else the handler before could get it, which is mostly death
            if not self._over:
                signal.pthread_kill(threading.main_thread().ident or 0, number)

    def _advance(self) -> None:
        drain, world = self._drain, self._world
        seconds: float | None = 0.0  # what was asked before the start
        while True:
            world.clock.wait(self._gate, seconds)
            if self._over:
                return
            now_ns = world.clock.monotonic_ns()
            due_ns, events = drain._advance(now_ns)
            if drain._tell(world, events):
                return
            seconds = None if due_ns is None else max(0.0, (due_ns - now_ns) / _NS)
