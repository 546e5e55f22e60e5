"""Callers that wait in the queue of a limit: threads and coroutines."""

import asyncio
import threading


class Waiter:
    """A caller in the queue. Its fields change under the lock of the pool only.

    Attributes:
        level: Its priority; larger goes first.
        permit: What was handed to it; 0 while it waits.
        linked: Whether it stands in the queue.
        evicted: Whether it lost its place to a caller of higher priority.
    """

    __slots__ = ("evicted", "level", "linked", "permit")

    def __init__(self, level: int) -> None:
        self.level = level
        self.permit = 0
        self.linked = False
        self.evicted = False

    @property
    def gone(self) -> bool:
        """Whether it can never look at its fields."""
        return False

    def wake(self) -> bool:
        """Let it look at its fields; ``False`` if it can never do so."""
        raise NotImplementedError


class ThreadWaiter(Waiter):
    """A thread that waits."""

    __slots__ = ("gate",)

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.gate = threading.Lock()
        self.gate.acquire()

    def wake(self) -> bool:
        """Let the thread go on."""
        self.gate.release()
        return True


class TaskWaiter(Waiter):
    """A coroutine that waits in ``loop``."""

    __slots__ = ("future", "loop")

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    @property
    def gone(self) -> bool:
        """Whether its loop is closed."""
        return self.loop.is_closed()

    def wake(self) -> bool:
        """Let the coroutine go on, from any thread."""
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self.loop:
            self.look()
            return True
        try:
            self.loop.call_soon_threadsafe(self.look)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def look(self) -> None:
        """Resume the coroutine."""
        if not self.future.done():
            self.future.set_result(None)
