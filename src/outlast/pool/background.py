"""What a pool does beside its calls: looks up instances, and checks them."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from outlast.kernel import World
from outlast.pool.check import Checker
from outlast.pool.core.instance import Found
from outlast.pool.discovery import Static
from outlast.pool.events import DiscoveryFailed

if TYPE_CHECKING:
    from outlast.pool.pool import Pool

_FIRST: Final = 5.0


class Background:
    """The work of one pool beside its calls, on one event loop.

    Args:
        pool: Whose work it is.
        world: Timers, threads and events.
    """

    def __init__(self, pool: "Pool", world: World) -> None:
        self._pool = pool
        self._world = world
        self._tasks: list[asyncio.Task[Any]] = []
        self._first: asyncio.Event | None = None
        self._failing = ""
        self._portal: Any = None

    async def start(self) -> None:
        """Begin, and wait for the first list of instances, for a while."""
        pool, loop = self._pool, asyncio.get_running_loop()
        first = self._first = asyncio.Event()
        if not isinstance(pool.source, Static):
            self._tasks.append(loop.create_task(self._follow(), name=f"pool {pool.name} source"))
            try:
                async with asyncio.timeout(_FIRST):
                    await first.wait()
            except TimeoutError:
                pass  # the event has told of it, or the source has nothing to tell yet
            except BaseException:
                await self.stop()
                raise
        if pool.check is not None:
            self._tasks.append(loop.create_task(self._checks(), name=f"pool {pool.name} checks"))

    async def stop(self) -> None:
        """End all of it."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start_thread(self) -> None:
        """Begin on a thread of its own."""
        from outlast.host.portal import Portal

        portal = self._portal = Portal(f"outlast-pool-{self._pool.name}")
        try:
            portal.call(self.start)
        except BaseException:
            self._portal = None
            portal.close()
            raise

    def stop_thread(self) -> None:
        """End all of it, and the thread."""
        portal, self._portal = self._portal, None
        if portal is not None:
            try:
                portal.call(self.stop)
            finally:
                portal.close()

    # --- looking up -----------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            try:
                await self._pool.source.follow(self._world, self._told)
            except Exception as error:
                failed = error
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # What the source waited for was cancelled, and not the source.
                failed = RuntimeError(f"CancelledError: {error}")
            else:
                return  # what it has told last stays
            self._told(failed)
            await self._world.timers.sleep(_FIRST)

    def _told(self, answer: Found | Exception) -> None:
        """Take an answer of the source. One that names nobody is none."""
        if self._first is not None:
            self._first.set()
        pool = self._pool
        if isinstance(answer, Found):
            if len(answer.instances) > pool.instances_max:
                answer = ValueError(f"more than instances_max={pool.instances_max} instances")
            elif answer.instances:
                self._failing = ""
                pool.tell_found(answer)
                return
            else:
                answer = LookupError("nobody was found")
        shown = f"{type(answer).__name__}: {answer}"[:200]
        if shown != self._failing:
            self._failing = shown
            self._world.events.emit(
                DiscoveryFailed(
                    name=pool.name, source=pool.source.describe(), error=shown,
                    kept=len(pool.addresses),
                )
            )  # fmt: skip

    # --- checking -------------------------------------------------------------------------------

    async def _checks(self) -> None:
        """Check every instance at its own moment within the period, again and again."""
        pool = self._pool
        check = pool.check
        if check is None:
            return
        checker = Checker(pool.name, check, self._world, pool.tell_checked)
        running: dict[str, asyncio.Task[None]] = {}
        loop = asyncio.get_running_loop()
        try:
            while True:
                there = {instance.address: instance for instance in pool.instances}
                for address in [address for address in running if address not in there]:
                    running.pop(address).cancel()
                step = check.every / max(len(there), 1)
                for address, instance in there.items():
                    before = running.get(address)
                    if before is None or before.done():
                        running[address] = loop.create_task(checker.run(instance))
                    await self._world.timers.sleep(step)
                if not there:
                    await self._world.timers.sleep(check.every)
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)
