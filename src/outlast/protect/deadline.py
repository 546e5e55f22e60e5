"""``with deadline(seconds):`` bounds everything inside, calls of calls included."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from types import TracebackType
from typing import Any

from outlast.kernel import (
    ConfigError,
    Deadline,
    DeadlineError,
    TimerHandle,
    current_deadline,
    current_world,
)


class deadline:
    """Bound a block by time, and hand the bound down to the calls inside.

    Inside a task of an event loop the block is cancelled when time is up, and raises
    ``DeadlineError``, whatever waits inside. Without a loop nothing interrupts the block: the
    calls of outlast inside it read the deadline and keep to it.

    Nested deadlines only shorten; the one that is shorter raises. Usable with ``with`` and
    ``async with``. Not reusable and not to be shared between tasks.

    Args:
        seconds: Length of the block, in seconds; 0 or less has already passed.

    Raises:
        DeadlineError: Indefinite. Time was up inside the block.
        ConfigError: ``seconds`` is not a number.

    Attributes:
        at: The instant that counts inside: the earlier of this one and the context's.
        expired: Whether this deadline ended its block.
    """

    __slots__ = (
        "_cancelling", "_fired", "_own", "_seconds", "_task", "_timer", "_token", "at", "expired"
    )  # fmt: skip

    def __init__(self, seconds: float) -> None:
        try:
            self._seconds = float(seconds)
        except (TypeError, ValueError):
            self._seconds = math.nan
        if math.isnan(self._seconds):
            raise ConfigError(f"deadline: {seconds!r} is not a number of seconds")
        self._token: Token[Deadline | None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._timer: TimerHandle | None = None
        self._fired = False
        self._own = False
        self._cancelling = 0
        self.at = Deadline.never()
        self.expired = False

    def __enter__(self) -> "deadline":
        """Set the deadline."""
        if self._token is not None:
            raise RuntimeError("deadline: this object was entered before; make another one")
        world = current_world()
        outer = current_deadline.get()
        mine = (
            Deadline.never()
            if self._seconds == float("inf")
            else Deadline.after(self._seconds, world.clock.monotonic_ns())
        )
        self._own = outer is None or mine < outer
        self.at = mine if outer is None else mine.earlier(outer)
        self._token = current_deadline.set(self.at)
        if self._own and not mine.endless:
            self._task = _current_task()
            if self._task is not None:
                self._cancelling = self._task.cancelling()
                self._timer = world.timers.call_at(mine.at_ns, self._fire)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the outer deadline; turn our own cancellation into ``DeadlineError``."""
        if self._timer is not None:
            self._timer.cancel()
        if self._token is not None:
            try:  # noqa: SIM105 - most blocks come by here, and this costs nothing
                current_deadline.reset(self._token)
            except ValueError:
                pass  # an abandoned generator is closed in whatever context it is found in
        if not self._fired or self._task is None:
            return
        # Cancelled by us and by nobody else: as asyncio.timeout counts it.
        ours = self._task.uncancel() <= self._cancelling
        if ours and isinstance(error, asyncio.CancelledError):
            self.expired = True
            raise DeadlineError(f"deadline of {self._seconds} s passed") from error

    async def __aenter__(self) -> "deadline":
        """Set the deadline."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the outer deadline; see :meth:`__exit__`."""
        self.__exit__(kind, error, trace)

    def _fire(self) -> None:
        """Cancel the block one turn later: a call inside that is due as well ends by itself.

        It knows whether anything was sent, and says so.
        """
        self._timer = asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        self._fired = True
        if self._task is not None:
            self._task.cancel()


@contextmanager
def detached() -> Iterator[None]:
    """Run a block without the deadline and the call around it.

    For work that is started within a call and outlives it: a task that is made in the block
    inherits neither. The work should set a deadline of its own.

    >>> with deadline(1.0), detached():
    ...     remaining() is None
    True
    """
    from outlast.protect.call import current_call_var

    deadline_token = current_deadline.set(None)
    call_token = current_call_var.set(None)
    try:
        yield
    finally:
        current_call_var.reset(call_token)
        current_deadline.reset(deadline_token)


def remaining(limit: float | None = None) -> float | None:
    """Return the seconds left to the deadline of the context; for socket timeouts and the like.

    Args:
        limit: A timeout of one's own, in seconds: the smaller of the two is returned.

    Returns:
        0 or more; ``None`` if there is neither a deadline nor a limit.
    """
    deadline = current_deadline.get()
    if deadline is None or deadline.endless:
        return limit
    left = deadline.left_ns(current_world().clock.monotonic_ns()) / 1_000_000_000
    return left if limit is None else min(left, limit)


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
