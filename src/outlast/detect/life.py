"""The life of one instance of a child: started, watched, asked to stop, ended."""

import asyncio
from dataclasses import replace
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Final, Protocol

from outlast.detect.child import Child, Grace, Ready
from outlast.detect.child_run import Runner, simulated
from outlast.detect.core.child_progress import ProgressDecider
from outlast.detect.core.supervision import Exit
from outlast.detect.events import ChildStuck
from outlast.kernel import World

_NS: Final = 1_000_000_000
_LOOK_SECONDS: Final = 0.05
_CONNECT_SECONDS: Final = 1.0
_ABORT_SECONDS: Final = 1.0
_KILL_SECONDS: Final = 10.0


class Told(Protocol):
    """Who is told how an instance is doing."""

    def on_started(self, life: "Life") -> None:
        """It runs."""
        ...

    def on_ready(self, life: "Life") -> None:
        """It is ready."""
        ...

    def on_abandoned(self, life: "Life") -> None:
        """It does not end and cannot be made to."""
        ...

    def on_ended(self, life: "Life", exit_: Exit) -> None:
        """It has ended."""
        ...

    def on_dropped(self, life: "Life") -> None:
        """Its loop is being closed, and it was ended."""
        ...

    def on_failed_start(self, life: "Life", error: Exception) -> None:
        """It could not be started at all."""
        ...


class Life:
    """One instance of a child, from its start to its end. Used on one loop.

    Attributes:
        index: Which child of the supervisor.
        instance: Which instance of the child.
        asked_ns: When it was asked to stop; 0 before.
        forced: Whether it had to be killed for that.
        started_ns: When it was started; 0 before.
    """

    def __init__(
        self,
        told: Told,
        world: World,
        runner: Runner,
        *,
        index: int,
        instance: int,
        path: str,
        settings: Child | None,
    ) -> None:
        self.index, self.instance, self.path = index, instance, path
        self.runner = runner
        self.started_ns = self.asked_ns = 0
        self.forced = False
        self._told = told
        self._world = world
        self._settings = settings
        self._why = ""
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._beside: list[Any] = []
        self._begun = False
        task = world.spawn.task(self._run(), name=f"supervise {path}")
        if isinstance(task, asyncio.Task):
            task.add_done_callback(self._see_unbegun)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over.done()

    def stop(self) -> None:
        """Ask it to stop, and end it after its grace."""
        self.asked_ns = self._world.clock.monotonic_ns()
        if self.started_ns and not self.over:
            self._aside(self._halt(), "stop")

    def drop(self) -> None:
        """End it at once: its loop is being closed, and tasks of its own would not be run."""
        self.asked_ns = self.asked_ns or self._world.clock.monotonic_ns()
        if self.started_ns and not self.over:
            self.runner.drop()

    def kill(self) -> None:
        """End it at once, as far as that can be done."""
        self.asked_ns = self.asked_ns or self._world.clock.monotonic_ns()
        self.forced = True
        if self.started_ns and not self.over:
            self.runner.kill()

    # --- inside --------------------------------------------------------------------------------

    def _see_unbegun(self, _: object) -> None:
        """Its task was cancelled before its first step: the loop is being closed."""
        if not self._begun:
            self._over.set_result(None)
            self._told.on_dropped(self)

    async def _run(self) -> None:
        self._begun = True
        try:
            if self.asked_ns:  # stopped before it was started
                self._over.set_result(None)
                self._told.on_ended(self, Exit(True, 0, "not started"))
                return
            try:
                self.runner.launch()
            except Exception as error:
                self._over.set_result(None)
                self._told.on_failed_start(self, error)
                return
            self.started_ns = self._world.clock.monotonic_ns()
            self._told.on_started(self)
            self._watch()
            exit_ = await self.runner.wait()
        except asyncio.CancelledError:  # nobody cancels it but the end of the loop
            self.runner.drop()
            self._over.set_result(None)
            self._told.on_dropped(self)
            raise
        finally:
            for task in self._beside:
                task.cancel()
        self._over.set_result(None)
        if self._why:
            exit_ = replace(exit_, ok=False, reason=f"{self._why}; {exit_.reason}")
        self._told.on_ended(self, exit_)

    def _watch(self) -> None:
        settings = self._settings
        if settings is None:  # a supervisor, whose children have times of their own
            self._aside(self._await_ready(), "ready")
            return
        if settings.ready is None:
            self._told.on_ready(self)
        else:
            self._aside(self._get_ready(settings), "ready")
        if settings.progress is not None:
            self._aside(self._watch_progress(settings, settings.progress), "progress")

    def _aside(self, coroutine: Any, what: str) -> None:
        name = f"supervise {self.path} {what}"
        self._beside.append(self._world.spawn.task(coroutine, name=name))

    async def _await_ready(self) -> None:
        await self.runner.ready()
        self._told.on_ready(self)

    async def _get_ready(self, settings: Child) -> None:
        try:
            async with asyncio.timeout(settings.start_timeout):
                await self._until_ready(settings.ready)
        except TimeoutError:
            if self.asked_ns:  # it has its grace, and need not become ready any more
                return
            self._why = f"not ready within {settings.start_timeout:g} s"
            await self._end(settings.grace)
        else:
            self._told.on_ready(self)

    async def _until_ready(self, ready: Any) -> None:
        if not isinstance(ready, Ready) or ready.how == "line":
            await self.runner.line(ready.text)
            return
        while not await self._says_ready(ready):
            await self._world.timers.sleep(_LOOK_SECONDS)

    async def _says_ready(self, ready: Ready) -> bool:
        if ready.how == "stamp":
            return self.runner.stamp[0] != 0
        try:
            if ready.how == "port":
                return await self._listens(ready.host, ready.number)
            return _means_yes(await self._ask(ready.call))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return False  # what was asked has been cancelled, not we
        except Exception:
            return False

    async def _ask(self, call: Any) -> Any:
        """Ask what says whether a child is ready; what may block, on a thread."""
        if simulated(self._world):
            answer = getattr(call, "simulated", call)()
        elif iscoroutinefunction(call):
            answer = call()
        else:
            from outlast.host.spawn import run_aside

            answer = await run_aside(f"{self.path} ready", lambda: _call(call))
        return await answer if isawaitable(answer) else answer

    async def _listens(self, host: str, port: int) -> bool:
        try:
            _, writer = await asyncio.wait_for(
                asyncio.open_connection(host, port), _CONNECT_SECONDS
            )
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def _watch_progress(self, settings: Child, progress: float) -> None:
        now_ns = self._world.clock.monotonic_ns
        decider = ProgressDecider(
            round(progress * _NS), round(settings.start_timeout * _NS), now_ns()
        )
        silent_ns = None
        while silent_ns is None:
            await self._world.timers.sleep(decider.rest_ns / _NS)
            if self.asked_ns:
                return
            silent_ns = decider.look(self.runner.stamp[0], now_ns())
        seconds = silent_ns / _NS
        self._why = f"no progress for {seconds:.2f} s"
        self._world.events.emit(
            ChildStuck(
                child=self.path, pid=self.runner.pid, seconds=round(seconds, 3),
                stack=self.runner.stack(),
            )
        )  # fmt: skip
        if self.runner.abort() and await self._ends_within(_ABORT_SECONDS):
            return
        await self._end(settings.grace)

    async def _halt(self) -> None:
        """Ask it to stop, wait for its grace, end it."""
        grace = None if self._settings is None else self._settings.grace
        self.runner.ask(grace or Grace())
        if not await self._ends_within(None if grace is None else grace.seconds):
            self.forced = not self.runner.over
            await self._end(Grace(0))

    async def _end(self, grace: Grace) -> None:
        """End it; one that can only be asked has its grace for that."""
        seconds = _KILL_SECONDS
        if not self.runner.over and not self.runner.kill():
            seconds = grace.seconds
        if not await self._ends_within(seconds):
            self._told.on_abandoned(self)

    async def _ends_within(self, seconds: float | None) -> bool:
        await asyncio.wait([self._over], timeout=seconds)
        return self._over.done()


def _call(call: Any) -> Any:
    """Call it on its thread; an exit there is an exception here, and ends nobody."""
    try:
        return call()
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"raised {type(error).__name__}") from error


def _means_yes(answer: Any) -> bool:
    """Whether an answer says ready; a status, or one with a detail, as a check gives it."""
    if isinstance(answer, tuple) and answer:
        answer = answer[0]
    value = getattr(answer, "value", answer)
    if isinstance(value, str):
        return value in {"ok", "degraded"}
    return value is None or bool(value)
