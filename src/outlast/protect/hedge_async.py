"""Hedging coroutines. The first attempt runs in the caller's task: most calls need no other."""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import wraps
from typing import TYPE_CHECKING, Any

from outlast.kernel import current_world
from outlast.protect.call import current_call_var
from outlast.protect.core.hedge import Sides

if TYPE_CHECKING:
    from outlast.protect.hedge import Hedge

_NS = 1_000_000_000


class _Race:
    """One call whose first attempt runs in ``task``; what ends beside it ends here.

    When another attempt wins, the first is interrupted by cancelling the task, and the
    cancellation is taken back in :meth:`settle`, as ``asyncio.timeout`` does.
    """

    __slots__ = ("args", "cancelling", "delay", "function", "hedge", "inline", "interrupted",
                 "kwargs", "loop", "name", "sides", "task", "tasks", "timer", "waiter",
                 "won")  # fmt: skip

    def __init__(
        self, hedge: "Hedge", function: Callable[..., Any], args: Any, kwargs: Any, *,
        name: str, loop: asyncio.AbstractEventLoop, delay: float,
    ) -> None:  # fmt: skip
        self.hedge = hedge
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.name = name
        self.loop = loop
        self.delay = delay
        self.inline = True
        self.interrupted = False
        self.sides: Sides | None = None
        self.task = task = asyncio.current_task(loop)
        self.cancelling = 0 if task is None else task.cancelling()
        self.timer: asyncio.TimerHandle | None = loop.call_later(delay, self.due)

    def due(self) -> None:
        """The latest attempt has had its time."""
        self.timer = None
        if self.task is None:
            return  # driven by hand: nothing could interrupt the first attempt
        self._sides()
        self.start()

    def _sides(self) -> Sides:
        sides = self.sides
        if sides is None:
            sides = self.sides = Sides(self.hedge.attempts)
            self.tasks: dict[asyncio.Task[Any], int] = {}
            self.won: tuple[int, Any] | None = None
            self.waiter: asyncio.Future[None] | None = None
        return sides

    def start(self) -> None:
        """Start another attempt, if there may be one."""
        sides, world = self._sides(), current_world()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if not sides.more or not self.hedge.grant(world.clock.monotonic_ns()):
            sides.stop()
            return
        from outlast.protect.hedge import hedge_context

        number = sides.start()
        context = copy_context()
        context.run(current_call_var.set, hedge_context(number, self.name))
        coroutine = self.function(*self.args, **self.kwargs)
        task = self.loop.create_task(coroutine, context=context)
        self.tasks[task] = number
        task.add_done_callback(self.ended)
        self.hedge.tell_started(world, self.name, number)
        if sides.more:
            self.timer = self.loop.call_later(self.delay, self.due)

    def ended(self, task: "asyncio.Task[Any]") -> None:
        """An attempt beside the first has ended."""
        sides, number = self._sides(), self.tasks.pop(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self.won is not None or sides.final is not None:
            return
        if error is None:
            sides.succeeded()
            self.won = (number, task.result())
            self.wake()
        else:
            following = self.hedge.failed(sides, number, error)
            if following == "start":
                self.start()
                following = sides.rest()
            if following == "end":
                self.wake()

    def wake(self) -> None:
        """Let the caller know: the call is decided."""
        if self.inline and self.task is not None:
            self.interrupted = True
            self.task.cancel()
        elif self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def taken_back(self) -> bool:
        """Take back our own cancellation; ``False`` if somebody else has cancelled, too."""
        self.inline = False
        if not self.interrupted or self.task is None:
            return True
        self.interrupted = False
        return self.task.uncancel() <= self.cancelling

    async def succeeded(self, result: Any) -> Any:
        """The first attempt has ended with ``result``."""
        ours = self.taken_back()
        sides = self._sides()
        if not ours:
            await self.clear()
            raise asyncio.CancelledError
        if self.won is None and sides.final is None:
            sides.succeeded()
            self.won = (0, result)
        return await self.outcome()

    async def failed(self, error: BaseException) -> Any:
        """The first attempt has ended with ``error``."""
        interrupted = self.interrupted
        ours = self.taken_back()
        if interrupted and ours and isinstance(error, Exception | asyncio.CancelledError):
            return await self.outcome()
        if not ours or not isinstance(error, Exception):
            await self.clear()
            raise error
        sides = self._sides()
        following = self.hedge.failed(sides, 0, error)
        if following == "start":
            if self.task is not None:
                self.start()
            following = sides.rest()
        try:
            while following == "wait" and self.won is None and sides.final is None:
                if not sides.running:
                    break
                self.waiter = self.loop.create_future()
                await self.waiter
        except BaseException:
            await self.clear()
            raise
        return await self.outcome()

    async def outcome(self) -> Any:
        """Return or raise what was decided, after all that runs has ended."""
        await self.clear()
        if self.won is None:
            raise self._sides().verdict()
        number, result = self.won
        if number:
            self.hedge.tell_won(current_world(), self.name, number)
        return result

    async def clear(self) -> None:
        """Cancel what runs and wait until it has ended, even if cancelled meanwhile."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.sides is None:
            return
        self.sides.stop()
        cancelled: asyncio.CancelledError | None = None
        for task in self.tasks:
            task.cancel()
        while self.tasks:
            try:
                await asyncio.wait(tuple(self.tasks))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled


def hedge_async(
    hedge: "Hedge", function: Callable[..., Any], name: str, *, deposit: bool
) -> Callable[..., Any]:
    """Return a coroutine function that hedges ``function``; see ``Hedge``."""
    get_loop = asyncio.get_running_loop

    @wraps(function)
    async def hedged(*args: Any, **kwargs: Any) -> Any:
        if deposit and hedge.budget is not None:
            hedge.budget.deposit()
        delay_ns = hedge.delay_ns
        clock = None if hedge.percentile is None else current_world().clock
        begun_ns = 0 if clock is None else clock.monotonic_ns()
        lost = False
        if delay_ns is None:
            result = await function(*args, **kwargs)
        else:
            race = _Race(
                hedge, function, args, kwargs, name=name, loop=get_loop(), delay=delay_ns / _NS
            )
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                lost = race.interrupted
                result = await race.failed(error)
                if not lost:  # it failed: how long it took says nothing
                    return result
            else:
                if race.sides is None:
                    if race.timer is not None:
                        race.timer.cancel()
                else:
                    lost = race.interrupted
                    result = await race.succeeded(result)
        if clock is not None:
            now_ns = clock.monotonic_ns()
            (hedge.learn_lost if lost else hedge.learn)(now_ns - begun_ns, now_ns)
        return result

    return hedged
