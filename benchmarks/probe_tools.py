"""What ``benchmarks.probes`` asks with: outcomes as values, threads, a callee that counts."""

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.calls import Function

OPEN = 0.2
"""Seconds that a breaker stays open here."""
HANG = 15 * OPEN
"""Seconds that a call hangs; a library that runs it in a thread keeps us waiting for it."""
LIMIT = 30.0
"""Seconds after which a probe has failed."""


@dataclass(frozen=True)
class Answer:
    """Whether a library does it right (None: it could not be asked), and what it did."""

    right: bool | None
    text: str


class Broken(ConnectionError):
    """The callee's own exception."""


def fail(*_: object) -> None:
    raise Broken


async def fail_async(*_: object) -> None:
    raise Broken


def attempt(call: Function, *args: Any) -> object:
    """Return what a call gives, or the exception that it raises."""
    try:
        return call(*args)
    except BaseException as error:
        return error


async def attempt_async(call: Callable[..., Awaitable[Any]], *args: Any) -> object:
    """The same for coroutine functions; cancellation included."""
    try:
        return await call(*args)
    except BaseException as error:
        return error


def refused(outcome: object) -> bool:
    """Whether an outcome is a refusal: an exception that is not the callee's."""
    return isinstance(outcome, BaseException) and not isinstance(outcome, Broken)


def in_threads(call: Callable[[], object], count: int, seconds: float = LIMIT) -> list[object]:
    """Call it in threads at the same time; the outcomes that there are in time."""
    outcomes: list[object] = []
    barrier = threading.Barrier(count)

    def caller() -> None:
        barrier.wait()
        outcomes.append(attempt(call))

    threads = [threading.Thread(target=caller, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    return outcomes


class Inside:
    """Counts calls, and how many of them are under way at the same time."""

    def __init__(self) -> None:
        self.calls = self.now = self.most = 0
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            self.calls += 1
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.now -= 1


class Entered:
    """A context manager as an asynchronous one."""

    def __init__(self, block: Any) -> None:
        self.block = block

    async def __aenter__(self) -> None:
        self.block.__enter__()

    async def __aexit__(self, *raised: Any) -> Any:
        return self.block.__exit__(*raised)
