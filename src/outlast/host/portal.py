"""An event loop in a background thread, through which blocking code calls coroutines.

The thread starts at the first call and lives until the process ends. After a fork the child
has no such thread, so its first call starts another, with a new loop: whatever belonged to the
old loop (connections, sessions) belongs to the parent, and is left alone.
"""

import asyncio
import atexit
import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Final, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_STOP_SECONDS: Final = 2.0


class Portal:
    """Runs coroutines for callers that have no event loop, or must not use theirs.

    Safe to use from any thread, also from one in which another event loop is running (Jupyter,
    Django), and after a fork. Not picklable. Context variables of the caller, and so its
    deadline and idempotency key, hold in the coroutine.
    """

    def __init__(self, name: str = "outlast-portal") -> None:
        self.name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._waiting: set[_Waiting[Any]] = set()
        _portals.add(self)

    def __repr__(self) -> str:
        """Show whether the thread runs."""
        running = self._thread is not None and self._thread.is_alive()
        return f"<Portal {self.name} {'running' if running else 'not started'}>"

    def call(
        self,
        function: Callable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run ``function(*args, **kwargs)`` on the portal's loop and return what it returns.

        An exception of the coroutine is raised here. If the wait is interrupted
        (``KeyboardInterrupt``), the coroutine is cancelled and the interrupt goes on at once;
        what the coroutine had sent is not recalled.

        Raises:
            RuntimeError: Called on the portal's own loop, where it would wait for itself, or
                after :meth:`close`.
        """
        loop = self._running()
        if threading.current_thread() is self._thread:
            message = f"{self.name}: a blocking call inside its own event loop never returns"
            raise RuntimeError(message)
        waiting: _Waiting[R] = _Waiting()
        context = contextvars.copy_context()
        try:
            self._waiting.add(waiting)
            # Within the try: an interrupt may come before this returns, and the task run by then.
            loop.call_soon_threadsafe(
                lambda: waiting.start(loop, lambda: function(*args, **kwargs), context)
            )
            return waiting.done.result()
        except BaseException:
            if not waiting.done.done():
                waiting.abandoned = True
                with suppress(RuntimeError):  # it is closed: nothing of it runs
                    loop.call_soon_threadsafe(waiting.cancel)
            raise
        finally:
            self._waiting.discard(waiting)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                message = f"{self.name} is closed: the process is ending"
                raise RuntimeError(message)
            alive = self._thread is not None and self._thread.is_alive()
            if self._loop is None or not alive:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop, self._waiting), name=self.name, daemon=True
                )
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """Cancel what runs, stop the loop and its thread; later calls are refused."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or not thread.is_alive():
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(_STOP_SECONDS)

    def _forked(self) -> None:
        """In the child: forget thread, loop and lock, all of which belong to the parent.

        The loop is kept from the garbage collector: closing it here would take its sockets out
        of the epoll set, which the parent shares.
        """
        if self._loop is not None:
            _of_the_parent.append(self._loop)
        self._lock = threading.Lock()
        self._loop = self._thread = None
        self._waiting = set()


class _Waiting(Generic[R]):
    """One call: its task on the loop, and the future for which the caller waits."""

    def __init__(self) -> None:
        self.done: Future[R] = Future()
        self.task: asyncio.Task[R] | None = None
        self.abandoned = False

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[], Coroutine[Any, Any, R]],
        context: contextvars.Context,
    ) -> None:
        """Start the task, in the caller's context; runs on the loop."""
        if self.abandoned:
            return
        try:
            self.task = loop.create_task(make(), context=context)
        except BaseException as error:
            self.done.set_exception(error)
        else:
            self.task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Cancel the task, as nobody waits for it any more; runs on the loop."""
        if self.task is not None:
            self.task.cancel()

    def refuse(self) -> None:
        """Tell the caller that the loop has ended before the call."""
        with suppress(InvalidStateError):
            self.done.set_exception(RuntimeError("the portal was closed before the call ended"))

    def _ended(self, task: asyncio.Task[R]) -> None:
        if task.cancelled():
            self.done.cancel()
            return
        error = task.exception()
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(task.result())


def _serve(loop: asyncio.AbstractEventLoop, waiting: "set[_Waiting[Any]]") -> None:
    """Run ``loop`` until it is stopped, then let its tasks end and close it.

    A call that comes in between, and of which the loop never hears, is refused.
    """
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=_STOP_SECONDS / 2))
        loop.close()
        for one in list(waiting):
            one.refuse()


_portals: "weakref.WeakSet[Portal]" = weakref.WeakSet()
_of_the_parent: list[asyncio.AbstractEventLoop] = []


def _close_all() -> None:
    for portal in list(_portals):
        portal.close()


def _forked_all() -> None:
    for portal in list(_portals):
        portal._forked()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked_all)

PORTAL: Final = Portal()
"""The portal that all blocking clients of a process share."""
