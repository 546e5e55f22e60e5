"""One instance of a child at work: tasks and threads; what all kinds have in common."""

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

from outlast.detect.child import Child, Grace
from outlast.detect.core.supervision import Exit
from outlast.detect.stop import Stamp, Stop, set_stamp
from outlast.kernel import World

_LINES_MAX: Final = 50
_STACK_BYTES_MAX: Final = 16_000


class Runner:
    """One instance of a child. Used on one loop."""

    pid = 0
    """Process id; 0 if it is no process."""
    stamp: Stamp
    """Where it leaves its stamps."""

    @property
    def over(self) -> bool:
        """Whether it has ended by now, though what it left may still be looked after."""
        return False

    def launch(self) -> None:
        """Start it. Raises what keeps it from being started."""
        raise NotImplementedError

    async def wait(self) -> Exit:
        """Wait for its end. Never cancelled."""
        raise NotImplementedError

    async def ready(self) -> None:
        """Wait until it is ready, if it knows that itself."""

    def ask(self, grace: Grace) -> None:
        """Ask it to stop."""
        raise NotImplementedError

    def kill(self) -> bool:
        """End it at once; whether that can be done at all."""
        return False

    def drop(self) -> None:
        """End it at once and wait for it, as the loop is being closed."""
        self.kill()

    def abort(self) -> bool:
        """End it so that it shows where it is; whether that can be done at all."""
        return False

    def lines(self) -> tuple[str, ...]:
        """Return the last lines that it wrote."""
        return ()

    def stack(self) -> str:
        """Return where it is, as far as that can be seen from here."""
        return ""

    async def line(self, text: str) -> None:
        """Wait until it has written a line that contains ``text``."""
        raise NotImplementedError


class TaskRunner(Runner):
    """A coroutine function as a task."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._task: asyncio.Task[Any] | None = None
        self._asked = False
        self._lines: tuple[str, ...] = ()
        self.stamp = [0]

    @property
    def over(self) -> bool:
        """Whether the task is done."""
        return self._task is not None and self._task.done()

    def launch(self) -> None:
        """Make the task."""
        context = copy_context()
        context.run(set_stamp, self.stamp)
        function: Any = self._child.function
        self._task = asyncio.get_running_loop().create_task(
            context.run(function, *self._child.args), name=self._child.name, context=context
        )

    async def wait(self) -> Exit:
        """Wait for its end; a task that was cancelled by somebody else has failed."""
        task = self._task
        if task is None:
            return Exit(False, 1, "not started")
        await asyncio.wait([task])
        if task.cancelled():
            return Exit(self._asked, 0 if self._asked else 1, "cancelled")
        error = task.exception()
        if error is None:
            return Exit(True, 0, "returned")
        self._lines = _last_lines(error)
        return Exit(False, 1, _raised(error))

    def ask(self, grace: Grace) -> None:
        """Cancel it."""
        self._asked = True
        if self._task is not None:
            self._task.cancel()

    def kill(self) -> bool:
        """Cancel it again: there is nothing else that can be done to a task."""
        self.ask(Grace())
        return False

    def lines(self) -> tuple[str, ...]:
        """Return the traceback that ended it."""
        return self._lines

    def stack(self) -> str:
        """Return where it waits."""
        if self._task is None:
            return ""
        frames = self._task.get_stack()
        return "".join(traceback.format_stack(frames[-1]))[-_STACK_BYTES_MAX:] if frames else ""


class ThreadRunner(Runner):
    """A function on a thread; in the simulator, in one step of its loop."""

    def __init__(self, child: Child, world: World, lane: str) -> None:
        self._child = child
        self._world = world
        self._lane = lane
        self._lines: tuple[str, ...] = ()
        self._ident = 0
        self._stop = Stop(world)
        self._asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._work: asyncio.Future[BaseException | None] | None = None
        self.stamp = [0]

    @property
    def over(self) -> bool:
        """Whether the function has returned, and is not called again."""
        again = self._child.every is not None and not self._stop.is_set
        return self._work is not None and self._work.done() and not again

    def launch(self) -> None:
        """Start the thread."""
        if self._child.every is None:
            self._work = self._begin(self._stop)

    async def wait(self) -> Exit:
        """Wait until the function returns, or has been called for the last time."""
        every = self._child.every
        if every is None:
            return self._exit(None if self._work is None else await self._work)
        while not self._stop.is_set:
            self._work = self._begin()
            error = await self._work
            if error is not None:
                return self._exit(error)
            if not self._asked.done():
                await asyncio.wait([self._asked], timeout=every)
        return self._exit(None)

    def _begin(self, *args: Any) -> "asyncio.Future[BaseException | None]":
        context = copy_context()
        context.run(set_stamp, self.stamp)
        function: Any = self._child.function

        def work() -> BaseException | None:
            self._ident = threading.get_ident()
            try:
                context.run(function, *args)
            except BaseException as error:
                return error
            finally:
                self._ident = 0
            return None

        return _beside(self._world, self._lane, work)

    def _exit(self, error: BaseException | None) -> Exit:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            return Exit(True, 0, "returned")
        self._lines = _last_lines(error)
        return Exit(False, 1, _raised(error))

    def ask(self, grace: Grace) -> None:
        """Set its :class:`Stop`."""
        self._stop.set()
        if not self._asked.done():
            self._asked.set_result(None)

    def kill(self) -> bool:
        """Ask: nothing else can be done to a thread."""
        self.ask(Grace())
        return False

    def lines(self) -> tuple[str, ...]:
        """Return the traceback that ended it."""
        return self._lines

    def stack(self) -> str:
        """Return where it is."""
        frame = sys._current_frames().get(self._ident)
        return "".join(traceback.format_stack(frame))[-_STACK_BYTES_MAX:] if frame else ""


def simulated(world: World) -> bool:
    """Whether time is simulated: there is one thread and no process."""
    return hasattr(world.clock, "beside")


def _beside(
    world: World, lane: str, call: Callable[[], BaseException | None]
) -> "asyncio.Future[BaseException | None]":
    if simulated(world):
        return asyncio.ensure_future(world.offload.run(lane, call))
    from outlast.host.spawn import run_aside

    return run_aside(lane, call)


def _raised(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return f"raised {type(error).__name__}" + (f": {text}" if text else "")


def _last_lines(error: BaseException) -> tuple[str, ...]:
    text = "".join(traceback.format_exception(error))
    return tuple(text.splitlines()[-_LINES_MAX:])
