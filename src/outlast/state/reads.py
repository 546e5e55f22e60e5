"""Linearizable reads: one question to the log answers all that asked before it was put."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from outlast.kernel import Deadline, DeadlineError, OutlastError, TooLateError, World
from outlast.log import Log
from outlast.state.applier import Applier

_NS = 1_000_000_000
_ROUND_SECONDS = 10.0

T = TypeVar("T")


async def within(world: World, waited: Awaitable[T], deadline: Deadline) -> T:
    """Wait for ``waited``, but not past ``deadline``.

    Raises:
        TooLateError: Definite. The deadline had passed already.
        DeadlineError: Indefinite. It passed during the wait.
    """
    now_ns = world.clock.monotonic_ns()
    if deadline.passed(now_ns):
        if asyncio.iscoroutine(waited):
            waited.close()
        raise TooLateError("the deadline has passed")
    try:
        async with asyncio.timeout(deadline.left(now_ns)):
            return await waited
    except DeadlineError:
        raise
    except TimeoutError as error:
        raise DeadlineError("the deadline passed before it was applied here") from error


class ReadRounds:
    """Shares rounds of ``log.tail``.

    Whoever comes while a round is under way waits for the next one: the answer of a round
    that began earlier might miss a command that was answered in between.
    """

    def __init__(self, world: World, log: Log, applier: Applier) -> None:
        self._world = world
        self._log = log
        self._applier = applier
        self._next: list[asyncio.Future[int]] = []
        self._running = False
        self.round_count = 0

    async def wait(self, deadline: Deadline) -> int:
        """Wait until all that was committed before the call is applied here; return the index.

        The caller bounds the wait. Errors as of ``Log.tail``.
        """
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._next.append(future)
        if not self._running:
            self._running = True
            self._world.spawn.task(self._run(), name="state-read")
        index = await future
        await self._applier.wait(index)
        return index

    async def _run(self) -> None:
        try:
            while self._next:
                asked, self._next = self._next, []
                await self._round(asked)
        finally:
            self._running = False

    async def _round(self, asked: list[asyncio.Future[int]]) -> None:
        self.round_count += 1
        now_ns = self._world.clock.monotonic_ns()
        try:
            tail = await self._log.tail(deadline=Deadline.after(_ROUND_SECONDS, now_ns))
        except OutlastError as error:
            for future in asked:
                if not future.done():
                    future.set_exception(error)
            return
        except BaseException:
            for future in asked:
                future.cancel()
            raise
        self._applier.learn(tail - 1, now_ns)
        for future in asked:
            if not future.done():
                future.set_result(tail - 1)
