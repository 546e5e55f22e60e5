"""Ctrl-C ends a command soon, whatever becomes of the exception that it raises.

Python raises ``KeyboardInterrupt`` in the middle of whatever runs. An import, a finaliser or a
program under test may swallow it, and then the command would go on as if nothing had happened.
"""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from outlast.cli import EXIT_INTERRUPTED

AGAIN_SECONDS = 0.8
"""So long after Ctrl-C the exception is raised a second time."""
END_SECONDS = 0.8
"""And so long after that the process ends."""


def _nothing() -> None:
    """Say nothing."""


class Insistence:
    """Sees to it that Ctrl-C ends this process within two seconds until the block ends.

    A thread hears of the signal from the system. If the block has not ended soon, it raises the
    exception again, in case that somebody has swallowed it; and if that does not help either,
    it ends the process with exit code 130. No effect outside of the main thread, nor on Windows.

    Args:
        again_seconds: How long the first exception may take.
        end_seconds: How long the second may.

    Attributes:
        last_words: Called before the process is ended by force, in that other thread.
    """

    def __init__(
        self, *, again_seconds: float = AGAIN_SECONDS, end_seconds: float = END_SECONDS
    ) -> None:
        self.last_words: Callable[[], None] = _nothing
        self._again = again_seconds
        self._end = end_seconds
        self._over = _thread.allocate_lock()  # held as long as the block lasts
        self._ends: tuple[int, int] | None = None
        self._before = -1

    def __enter__(self) -> Self:
        """Begin to listen."""
        if os.name == "posix" and threading.current_thread() is threading.main_thread():
            self._ends = os.pipe()
            for end in self._ends:
                os.set_blocking(end, end == self._ends[0])
            self._over.acquire()
            # Not one that threading lists: a program under test must not see another number of
            # threads in this process than in a worker.
            _thread.start_new_thread(self._listen, (self._ends[0],))
            self._before = signal.set_wakeup_fd(self._ends[1], warn_on_full_buffer=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening."""
        if self._ends is not None:
            self._over.release()
            signal.set_wakeup_fd(self._before)
            os.close(self._ends[1])  # which the thread hears, and closes the other end

    def _listen(self, source: int) -> None:
        try:
            while heard := os.read(source, 64):
                if signal.SIGINT in heard:
                    self._insist()
                    return
        finally:
            os.close(source)

    def _insist(self) -> None:
        if self._over.acquire(timeout=self._again):
            return
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, signal.SIGINT)  # which also wakes it where it waits
        if self._over.acquire(timeout=self._end):
            return
        with suppress(Exception):
            self.last_words()
        for stream in (sys.__stdout__, sys.__stderr__):
            with suppress(Exception):
                if stream is not None:
                    stream.flush()
        os._exit(EXIT_INTERRUPTED)
