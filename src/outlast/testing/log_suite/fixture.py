"""What the log suite needs to know of an engine: how to make, reopen, crash and starve it."""

import asyncio
from collections.abc import Awaitable, Sequence
from enum import StrEnum
from typing import TypeVar

from outlast.kernel import Deadline, Event, World
from outlast.log.api import Log

T = TypeVar("T")


class CheckFailed(AssertionError):
    """An engine broke a promise of the log; the message says which and how."""


def require(condition: object, message: str) -> None:
    """Raise :class:`CheckFailed` unless ``condition`` holds."""
    if not condition:
        raise CheckFailed(message)


class Capability(StrEnum):
    """What a fixture can do to its engine. Checks that need more are skipped by name."""

    REOPEN = "reopen"
    """Close cleanly and open again."""
    CRASH = "crash"
    """Stop like a power cut: what was not durable is gone, and open again."""
    STALL = "stall"
    """Hold all durable writes, so that nothing can be committed, until told to go on."""
    FULL = "full"
    """Take away all disk space, and give it back."""
    FAIL_SYNC = "fail-sync"
    """Let every fsync fail from now on, until the next crash."""


class LogFixture:
    """One log under test, with everything that may be done to it. Derive from it.

    A fixture serves one check and is closed after it. ``make`` must be written; the others
    only for the capabilities that are declared.

    Args:
        world: The world that the engine was given; ``world.events`` is listened to.

    Attributes:
        capabilities: What this fixture can do.
        patience: How long a check waits for what must happen, in seconds. Failing engines are
            told by it, so keep it short for engines that are quick.
        trim_bytes: So many bytes of entries below the permission make any trim drop something.
            Engines that drop whole segments need more than one segment.
        entry_count: How many entries a check appends where any number would do.
    """

    capabilities: frozenset[Capability] = frozenset()
    patience: float = 5.0
    trim_bytes: int = 1
    entry_count: int = 40

    def __init__(self, world: World) -> None:
        self.world = world
        self.events: list[Event] = []
        subscribe = getattr(world.events, "subscribe", None)
        if subscribe is not None:
            subscribe(self.events.append)

    async def make(self) -> Log:
        """Return a new, empty log that takes appends. Called once."""
        raise NotImplementedError

    def replicas(self, log: Log) -> Sequence[Log]:
        """Return every open replica of ``log``, itself included."""
        return [log]

    async def reopen(self, log: Log) -> Log:
        """Close ``log`` cleanly, open it again and return what takes appends then."""
        raise NotImplementedError

    async def crash(self, log: Log) -> Log:
        """Stop every replica as a power cut would, start again, return what takes appends."""
        raise NotImplementedError

    async def stall(self) -> None:
        """Hold durable writes."""
        raise NotImplementedError

    async def resume(self) -> None:
        """Let held writes go on."""
        raise NotImplementedError

    async def fill(self) -> None:
        """Take away the disk space."""
        raise NotImplementedError

    async def free(self) -> None:
        """Give the disk space back."""
        raise NotImplementedError

    async def fail_sync(self) -> None:
        """Let every fsync fail from now on."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close and remove everything. Called once, also after a failed check."""

    # --- what checks use ----------------------------------------------------------------------

    def deadline(self, seconds: float | None = None) -> Deadline:
        """Return a deadline ``seconds`` from now; ``patience`` by default."""
        now_ns = self.world.clock.monotonic_ns()
        return Deadline.after(self.patience if seconds is None else seconds, now_ns)

    def passed(self) -> Deadline:
        """Return a deadline that has passed."""
        return Deadline(self.world.clock.monotonic_ns() - 1)

    async def soon(self, awaitable: Awaitable[T], what: str) -> T:
        """Wait for what must happen within ``patience``.

        Raises:
            CheckFailed: It did not.
        """
        timer = asyncio.timeout(self.patience)
        try:
            async with timer:
                return await awaitable
        except TimeoutError as error:
            if not timer.expired():
                raise  # the engine's own, such as DeadlineError
            message = f"{what}: not within {self.patience} s"
            raise CheckFailed(message) from error

    async def turns(self, count: int = 25) -> None:
        """Let other tasks run ``count`` times."""
        for _ in range(count):
            await self.world.timers.sleep(0)
