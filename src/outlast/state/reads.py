"""Linearizable reads: one question to the log answers all that asked before it was put."""

import asyncio

from outlast.kernel import Deadline, OutlastError, World
from outlast.log import Log
from outlast.state.applier import Applier

_NS = 1_000_000_000
_ROUND_SECONDS = 10.0


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
        self._applier.fresh_ns = max(self._applier.fresh_ns, now_ns)
        for future in asked:
            if not future.done():
                future.set_result(tail - 1)
