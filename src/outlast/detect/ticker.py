"""A thread that does one short thing again and again: what watches a snapshot needs no more."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from outlast.kernel import World


class Ticker:
    """Calls ``call`` at once and then every ``every()`` seconds, on a daemon thread.

    An exception of ``call`` ends the thread by way of ``threading.excepthook``. Not restarted in
    a child after a fork.
    """

    def __init__(
        self, name: str, world: World, every: Callable[[], float], call: Callable[[], Any]
    ) -> None:
        self._world, self._every, self._call = world, every, call
        self._gate = threading.Lock()
        self._gate.acquire()
        self._over = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread and wait for it, at most ``timeout`` seconds."""
        self._over = True
        self.wake()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def wake(self) -> None:
        """Call now rather than at the next time."""
        with suppress(RuntimeError):  # it is awake already
            self._gate.release()

    def _run(self) -> None:
        while not self._over:
            self._call()
            self._world.clock.wait(self._gate, self._every())
