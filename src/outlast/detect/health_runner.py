"""Runs health checks: each at its pace, once at a time, within its time, on few threads.

Coroutine checks run on the loop that runs the runner, and are cancelled when their time is up.
Plain ones may hang for good, so each runs on a thread: one that hangs keeps that one thread and is
not started again before it has returned. How many may be at it at once is bounded, so that a
network that swallows everything costs a known number of threads.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any, Final, cast

from outlast.detect.core.health import Status, read_finding
from outlast.detect.core.health_record import Record
from outlast.host.clock import HostOffload
from outlast.host.crew import Crew
from outlast.kernel import ConfigError, World

_NS: Final = 1_000_000_000
_TICK_NS: Final = _NS // 2
_LATE_NS: Final = _NS // 10
_SPREAD: Final = 400
"""Thousandths of ``every`` by which the second run may come earlier."""

Note = Callable[[Record, Status, str, int | None], None]


class Flight:
    """One run of one check. ``in_thread`` is set back by the thread, whatever became of us."""

    __slots__ = ("began_ns", "in_thread", "late", "loop", "name", "task")

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, began_ns: int) -> None:
        self.name = name
        self.loop = loop
        self.began_ns = began_ns
        self.in_thread = False
        self.late = False
        self.task: asyncio.Task[Any] | None = None

    def over(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether nothing of it goes on. What was left on a loop that is gone does not."""
        if self.in_thread:
            return False
        return self.loop is not loop or self.task is None or self.task.done()


class Checker:
    """One check: what is known of it, and its run if one is under way."""

    __slots__ = ("check", "flight", "on_loop", "record", "turn")

    def __init__(self, record: Record, check: Callable[[], Any]) -> None:
        self.record = record
        self.check = check
        self.on_loop = inspect.iscoroutinefunction(check) or inspect.iscoroutinefunction(
            getattr(check, "__call__", None)  # noqa: B004 - an object with a coroutine method
        )
        self.flight: Flight | None = None
        self.turn: asyncio.Task[None] | None = None


class Runner:
    """Runs the checks of one registry on one loop at a time.

    Args:
        name: Of the registry, for names of tasks and threads.
        max_threads: How many plain checks may be at it at the same time.
        note: Takes a finding: record, status, detail, nanoseconds that it took.
        sweep: Called twice a second, for what changes by the passing of time.
        used_up: Called with the names of the checks that hold all threads.
    """

    def __init__(
        self,
        name: str,
        max_threads: int,
        *,
        note: Note,
        sweep: Callable[[], None],
        used_up: Callable[[str, tuple[str, ...]], None],
    ) -> None:
        self.checkers: dict[str, Checker] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self._prefix = f"health {name} " if name else "health "
        self._max_threads = max_threads
        self._note = note
        self._sweep = sweep
        self._used_up = used_up
        self._crew = Crew()
        self._aside: list[Flight] = []
        self._told_full = False
        self._wake: asyncio.Future[None] | None = None

    @property
    def threads(self) -> int:
        """Threads that are at a check now."""
        return sum(flight.in_thread for flight in tuple(self._aside))

    def check_idle(self) -> None:
        """Raise if the checks are being run.

        Raises:
            ConfigError: Definite. They are.
        """
        if self.loop is not None and not self.loop.is_closed():
            raise ConfigError(f"{self._prefix.strip()}: the checks run already; run them once")

    async def run(self, world: World) -> None:
        """Run all checks, each at its pace, until cancelled."""
        loop = self.loop = asyncio.get_running_loop()
        tasks: dict[Checker, asyncio.Task[None]] = {}
        try:
            while True:
                present = self.checkers.copy()
                for name, checker in present.items():
                    if checker not in tasks:
                        tasks[checker] = loop.create_task(
                            self._repeat(world, checker), name=self._prefix + name
                        )
                for gone in [one for one in tasks if one not in present.values()]:
                    tasks.pop(gone).cancel()
                    _drop(gone)
                self._sweep()
                await self._tick(world, loop)
        finally:
            self.loop = self._wake = None
            for checker, task in tasks.items():
                task.cancel()
                _drop(checker)

    def nudge(self) -> None:
        """Look at once for checks that came or went; from any thread."""
        loop = self.loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(self._rouse)
        except RuntimeError:  # closed meanwhile
            return

    async def once(self, world: World, checker: Checker) -> None:
        """Run a check now, or join the run that is under way; returns when it is noted."""
        loop = asyncio.get_running_loop()
        turn = checker.turn
        if turn is None or turn.done() or turn.get_loop() is not loop:
            name = f"{self._prefix}{checker.record.rule.name} run"
            turn = checker.turn = loop.create_task(self._turn(world, checker), name=name)
        await asyncio.wait([turn])
        if not turn.cancelled():
            turn.result()

    def forget(self) -> None:
        """Forget all runs: they belong to another world, or to the parent of a fork."""
        self.loop = self._wake = None
        self._aside = []
        self._told_full = False
        for checker in self.checkers.values():
            checker.flight = checker.turn = None

    # --- inside ------------------------------------------------------------------------------

    async def _tick(self, world: World, loop: asyncio.AbstractEventLoop) -> None:
        self._wake = loop.create_future()
        timer = world.timers.call_at(world.clock.monotonic_ns() + _TICK_NS, self._rouse)
        try:
            await self._wake
        finally:
            timer.cancel()

    def _rouse(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    async def _repeat(self, world: World, checker: Checker) -> None:
        """Run a check for ever. The second run comes a little early, by chance.

        So checks that began together do not go on together, in this process or in a fleet.
        """
        every_ns = checker.record.rule.every_ns
        await self.once(world, checker)
        early = world.prng.below(_SPREAD + 1)
        await world.timers.sleep(every_ns * (1000 - early) // 1000 / _NS)
        while True:
            await self.once(world, checker)
            await world.timers.sleep(every_ns / _NS)

    async def _turn(self, world: World, checker: Checker) -> None:
        """Bring about one finding: from a new run, or from one that still hangs."""
        loop = asyncio.get_running_loop()
        record = checker.record
        while True:
            flight = checker.flight
            if flight is None or flight.over(loop):
                flight = checker.flight = self._launch(world, checker, loop)
                if flight is None:
                    return
            timeout_ns = record.rule.timeout_ns
            due_ns = world.clock.monotonic_ns() + timeout_ns
            await _wait(world, flight, timeout_ns)
            away_ns = world.clock.monotonic_ns() - due_ns
            if away_ns > _LATE_NS and not flight.late and not flight.over(loop):
                await _wait(world, flight, min(away_ns, timeout_ns))  # we were away, not it
            took_ns = world.clock.monotonic_ns() - flight.began_ns
            if not flight.over(loop):
                flight.late = True
                if not flight.in_thread and flight.task is not None:
                    flight.task.cancel()
                seconds = record.rule.timeout_ns / _NS
                self._note(record, Status.FAILED, f"no answer within {seconds} s", took_ns)
                return
            checker.flight = None
            if not flight.late:
                self._note(record, *_outcome(flight.task), took_ns)
                return
            # It answered after its time was up, which has been noted: ask anew.

    def _launch(
        self, world: World, checker: Checker, loop: asyncio.AbstractEventLoop
    ) -> Flight | None:
        """Start a run; ``None`` if there is no thread for it, which is noted."""
        name = checker.record.rule.name
        flight = Flight(name, loop, world.clock.monotonic_ns())
        coroutine: Any
        real = isinstance(world.offload, HostOffload)
        simulated = None if real else getattr(checker.check, "simulated", None)
        if checker.on_loop:
            coroutine = _await(checker.check)
        elif simulated is not None:
            coroutine = _await(simulated)
        else:
            answer = self._start_aside(world, checker.check, flight)
            if answer is None:
                self._note(checker.record, Status.UNKNOWN, self._no_thread(name), None)
                return None
            coroutine = _resolve(answer)
        flight.task = loop.create_task(coroutine, name=self._prefix + name + " check")
        flight.task.add_done_callback(_look)
        return flight

    def _start_aside(
        self, world: World, check: Callable[[], Any], flight: Flight
    ) -> Awaitable[Any] | None:
        self._aside = [one for one in self._aside if one.in_thread]
        if len(self._aside) >= self._max_threads:
            return None
        context = copy_context()
        name = self._prefix + flight.name
        flight.in_thread = True
        answer: asyncio.Future[Any]
        if not isinstance(world.offload, HostOffload):
            answer = asyncio.ensure_future(
                world.offload.run(name, lambda: context.run(_ask, check))
            )
            answer.add_done_callback(lambda _: _returned(flight))
        else:
            try:
                answer = self._crew.run(name, lambda: _aside(context, check, flight))
            except RuntimeError:  # the system has no room for another thread
                flight.in_thread = False
                return None
        self._aside.append(flight)
        if 2 * len(self._aside) <= self._max_threads:
            self._told_full = False  # only well below the limit: no event for each one that ends
        return answer

    def _no_thread(self, name: str) -> str:
        holders = tuple(flight.name for flight in self._aside if flight.in_thread)
        if not self._told_full:
            self._told_full = True
            self._used_up(name, holders)
        return f"no thread free: {len(holders)} checks have not returned ({', '.join(holders)})"


def _aside(context: Context, check: Callable[[], Any], flight: Flight) -> Any:
    try:
        return context.run(_ask, check)
    finally:
        _returned(flight)


def _returned(flight: Flight) -> None:
    """Say so from the thread itself: the loop that started it may be gone by then."""
    flight.in_thread = False


def _ask(check: Callable[[], Any]) -> Any:
    """Call a plain check; what it raises becomes a finding, as some things pass no future."""
    try:
        return check()
    except Exception as error:
        return Status.FAILED, type(error).__name__
    except BaseException as error:
        return Status.UNKNOWN, type(error).__name__


async def _await(check: Callable[[], Awaitable[Any]]) -> Any:
    return await check()


async def _resolve(answer: Awaitable[Any]) -> Any:
    """Await a plain check's answer, and the awaitable that it is, if it is one."""
    found = await answer
    return await found if inspect.isawaitable(found) else found


def _outcome(task: "asyncio.Task[Any] | None") -> tuple[Status, str]:
    try:
        return read_finding(cast("asyncio.Task[Any]", task).result())
    except asyncio.CancelledError:
        return Status.UNKNOWN, "cancelled"
    except Exception as error:
        return Status.FAILED, type(error).__name__


async def _wait(world: World, flight: Flight, timeout_ns: int) -> None:
    """Wait for the end of a run, or until its time is up."""
    loop = asyncio.get_running_loop()
    wake: asyncio.Future[None] = loop.create_future()

    def rouse(_: object = None) -> None:
        if not wake.done():
            wake.set_result(None)

    timer = world.timers.call_at(world.clock.monotonic_ns() + timeout_ns, rouse)
    task = flight.task
    ours = task is not None and flight.loop is loop and not task.done()
    if ours and task is not None:
        task.add_done_callback(rouse)
    try:
        await wake
    finally:
        timer.cancel()
        if ours and task is not None:
            task.remove_done_callback(rouse)


def _drop(checker: Checker) -> None:
    """Cancel what a check has on the loop. A thread is left to end by itself."""
    if checker.turn is not None:
        checker.turn.cancel()
    flight = checker.flight
    if flight is not None and flight.task is not None and not flight.in_thread:
        flight.task.cancel()


def _look(task: "asyncio.Task[Any]") -> None:
    """Look at what a run raised, even if nobody waits for it any more."""
    if not task.cancelled():
        task.exception()
