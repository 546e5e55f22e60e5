"""Ctrl-C and time limits strike where a run can be left, and nowhere else.

Python runs a signal's handler between any two steps of whatever runs then, and most handlers
raise: that of Ctrl-C, the limit of real time of a campaign, that of pytest-timeout. While a
simulation takes the place of the machine's clocks, or gives it back, that would leave half of
them simulated for good; in a finaliser that the collector runs, the exception would be lost. So
the handlers wait there, and run when the program under test goes on, or the run is over. Only a
second signal of the same kind does not wait.

Signals whose handler is not Python's business (ignored, or the default) are left alone, and so
is every thread but the main one, which alone runs handlers.
"""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final

_NUMBERS: Final = tuple(
    getattr(signal, name) for name in ("SIGALRM", "SIGINT") if hasattr(signal, name)
)


class Guard:
    """What is known of the signals of this process.

    Attributes:
        open: Whether handlers run at once. Whoever sets it back does so as the first thing in a
            ``finally``, without a call, so that no handler can come between.
        before: The handlers of those who were there first; empty while nobody holds any.
        waiting: Signals whose handlers have not run yet.
        interrupted: Whether Ctrl-C has been let through: the program may have swallowed it.
    """

    __slots__ = ("before", "interrupted", "open", "waiting")

    def __init__(self) -> None:
        self.open = True
        self.before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self.waiting: list[int] = []
        self.interrupted = False

    def let_through(self) -> None:
        """Run the handlers that have waited, if they may run now."""
        while self.open and self.waiting:
            self.ring(self.waiting.pop(0), sys._getframe())

    def ring(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: now or later.

        One that comes again while it waits is handled now: whatever holds it takes too long.
        """
        if number in self.waiting:
            self.waiting.remove(number)
        elif not self.open:
            self.waiting.append(number)
            return
        self.interrupted |= number == signal.SIGINT
        self.before[number](number, frame)


GUARD: Final = Guard()
"""Of this process."""


class held:
    """Let no handler run until the block ends, but where the guard is opened in between.

    Entering returns whether the guard was open before. When the outermost block ends, the handlers
    that have waited run, and that of Ctrl-C again if the program under test has swallowed what it
    raised.
    """

    __slots__ = ("_opened", "_outermost")

    def __enter__(self) -> bool:
        """Close the guard."""
        self._opened = GUARD.open
        self._outermost = False
        if not GUARD.before and threading.current_thread() is threading.main_thread():
            self._outermost = _install()
        GUARD.open = False
        return self._opened

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the guard as it was.

        Raises:
            BaseException: What a handler that has waited raises.
        """
        if not self._outermost:
            GUARD.open = self._opened
            GUARD.let_through()
            return
        GUARD.open = False
        before = GUARD.before
        try:
            _put_back(before)
        finally:
            GUARD.before = {}
            GUARD.open = True
        missed = dict.fromkeys(GUARD.waiting)
        if GUARD.interrupted and (kind is None or not issubclass(kind, KeyboardInterrupt)):
            missed[signal.SIGINT] = None
        for number in missed:
            before[number](number, sys._getframe())


def _install() -> bool:
    """Come before the handlers that are there, and return whether there are any."""
    found = {number: signal.getsignal(number) for number in _NUMBERS}
    before = {
        number: handler
        for number, handler in found.items()
        if callable(handler) and not isinstance(handler, signal.Handlers)
    }
    if not before:
        return False
    GUARD.waiting.clear()
    GUARD.interrupted = False
    GUARD.open = True
    GUARD.before = before
    try:
        for number in before:
            signal.signal(number, GUARD.ring)
    except BaseException:  # a handler has run: it is not too late to leave all as it was
        _put_back(before)
        GUARD.before = {}
        raise
    return True


def _put_back(before: dict[int, Any]) -> None:
    """Let those handle signals who were there first, unless others have come since."""
    rest = dict(before)
    if not rest:
        return
    number, handler = rest.popitem()
    try:
        if signal.getsignal(number) == GUARD.ring:
            signal.signal(number, handler)
    finally:  # the handler just put back may have raised
        _put_back(rest)
