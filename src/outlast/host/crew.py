"""Threads for calls that may hang: made when needed, given back when idle."""

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")

_IDLE_SECONDS: Final = 5.0

_Work = tuple[str, Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Crew:
    """Daemon threads that each make one call at a time.

    A call that hangs costs its thread and nothing else: the next call gets another one. How many
    there are at once is bounded by whoever starts calls. A thread that has had nothing to do for
    some seconds ends. While it works it bears the call's name, for stack dumps.

    Safe to use from any thread; a forked child begins without any.
    """

    def __init__(self, *, idle: float = _IDLE_SECONDS) -> None:
        self._idle_seconds = idle
        self._lock = threading.Lock()
        self._resting: list[_Hand] = []
        self._live = 0
        _crews.add(self)

    @property
    def live(self) -> int:
        """Threads there are, at work or resting."""
        return self._live

    def run(self, name: str, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Start ``call`` at once and return a future of the running loop for its answer.

        Cancelling the future does not stop the call.

        Raises:
            RuntimeError: Definite. The system has no room for another thread.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._lock:
            hand = self._resting.pop() if self._resting else None
            if hand is None:
                self._live += 1
        if hand is None:
            hand = _Hand(self)
            try:
                threading.Thread(target=hand.work, name=name, daemon=True).start()
            except BaseException:
                self._leave()
                raise
        hand.calls.put((name, call, loop, future))
        return future

    def rest(self, hand: "_Hand") -> None:
        """``hand`` has nothing to do."""
        with self._lock:
            self._resting.append(hand)

    def may_leave(self, hand: "_Hand") -> bool:
        """Whether ``hand`` can end: nobody has just decided to give it a call."""
        with self._lock:
            if hand not in self._resting:
                return False
            self._resting.remove(hand)
            self._live -= 1
            return True

    @property
    def idle_seconds(self) -> float:
        """How long a thread rests before it ends."""
        return self._idle_seconds

    def _leave(self) -> None:
        with self._lock:
            self._live -= 1

    def _forked(self) -> None:
        self._lock = threading.Lock()
        self._resting = []
        self._live = 0


class _Hand:
    """One thread of a crew."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.calls: SimpleQueue[_Work] = SimpleQueue()

    def work(self) -> None:
        crew = self._crew
        while True:
            try:
                name, call, loop, future = self.calls.get(timeout=crew.idle_seconds)
            except Empty:
                if crew.may_leave(self):
                    return
                continue
            thread = threading.current_thread()
            thread.name = name
            answer: Any = None
            error: BaseException | None = None
            try:
                answer = call()
            except BaseException as raised:
                error = raised
            thread.name = f"{name} (resting)"
            crew.rest(self)
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(_answer, future, answer, error)
            del call, answer, error, future, loop  # a resting thread keeps nothing alive


def _answer(future: "asyncio.Future[Any]", answer: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if isinstance(error, StopIteration):  # no future takes it
        failure = RuntimeError(f"StopIteration: {error}")
        failure.__cause__ = error
        future.set_exception(failure)
    elif error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)


_crews: "weakref.WeakSet[Crew]" = weakref.WeakSet()


def _forked_all() -> None:
    for crew in list(_crews):
        crew._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked_all)
