"""What waits to be called: callbacks and timers of the simulated loop.

They are asyncio's own handles, made without asking the loop whether to debug: a simulation makes
thousands of them a second.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlast.sim.hosts import Life
    from outlast.sim.loop import SimLoop


class SimHandle(asyncio.Handle):
    """A callback and the life that it belongs to; ``None`` for the simulator itself."""

    __slots__ = ("_scheduled", "life")

    _scheduled: bool

    def __init__(
        self,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        loop: "SimLoop",
        context: Context | None,
        life: "Life | None",
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop: SimLoop = loop
        self._callback: Any = callback
        self._args: Any = args
        self._cancelled = False
        self._repr = self._source_traceback = None
        self.life = life

    def cancel(self) -> None:
        """Take it back."""
        self._cancelled = True
        self._callback = self._args = None


class SimTimer(asyncio.TimerHandle):
    """A callback, the life that it belongs to, and when it is due on that life's clock."""

    __slots__ = ("life",)

    def __init__(  # noqa: PLR0917 - called for every timer
        self,
        when: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        loop: "SimLoop",
        context: Context | None,
        life: "Life",
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop: SimLoop = loop
        self._callback: Any = callback
        self._args: Any = args
        self._cancelled = False
        self._repr = self._source_traceback = None
        self._when = when
        self._scheduled = True  # until it is due
        self.life = life

    def cancel(self) -> None:
        """Take it back, and let the loop know that one of its timers is void."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None
            if self._scheduled:
                self._loop._timer_handle_cancelled(self)
