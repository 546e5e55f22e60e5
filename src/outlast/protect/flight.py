"""One call under way per key: who leads it, who waits for it, across threads and event loops."""

import threading
from collections.abc import Hashable
from types import TracebackType
from typing import Any

from outlast.kernel import DeadlineError, World, current_deadline
from outlast.protect.forked import tell_of_forks
from outlast.protect.waiter import TaskWaiter, ThreadWaiter, Waiter

_NS = 1_000_000_000


class Flight:
    """One call under way.

    Attributes:
        ended: Whether nobody leads it any more.
        disowned: Whether its key was forgotten meanwhile, so that the answer is not to be kept.
    """

    __slots__ = ("_answer", "_error", "_flights", "_trace", "disowned", "ended", "key", "landed",
                 "task", "thread", "waiters")  # fmt: skip

    def __init__(self, flights: "Flights", key: Hashable, task: Any) -> None:
        self.key = key
        self.task = task
        self.thread = threading.get_ident()
        self.waiters: list[Waiter] = []
        self.disowned = False
        self.ended = False
        self.landed = False
        self._flights = flights
        self._answer: Any = None
        self._error: Exception | None = None
        self._trace: TracebackType | None = None

    def mine(self, task: Any) -> bool:
        """Whether the one who asks holds up this flight, and would wait for itself."""
        if task is not None:
            return self.task is task
        # A plain function stops its thread, and with it every task of a loop in that thread.
        return self.thread == threading.get_ident()

    def value(self) -> Any:
        """Return the answer of the leader, or raise its error."""
        if self._error is not None:
            # Otherwise everyone who raises it would add frames to those of all others.
            raise self._error.with_traceback(self._trace)
        return self._answer

    def land(self, answer: Any, error: Exception | None) -> None:
        """Set the outcome."""
        self._answer, self._error, self.landed = answer, error, True
        self._trace = None if error is None else error.__traceback__

    def wait(self, world: World) -> bool:
        """Block until it has landed; ``False`` if it was diverted and someone else is to lead.

        Raises:
            DeadlineError: The caller's deadline passed; the call goes on.
        """
        waiter = ThreadWaiter(0)
        if self._flights.enter(self, waiter):
            limit = current_deadline.get()
            left = None if limit is None else limit.left(world.clock.monotonic_ns())
            try:
                if not world.clock.wait(waiter.gate, left):
                    raise DeadlineError("the deadline passed while another's call was under way")
            finally:
                self._flights.leave(self, waiter)
        return self.landed

    async def wait_async(self) -> bool:
        """Wait until it has landed; ``False`` if it was diverted and someone else is to lead."""
        waiter = TaskWaiter(0)
        if self._flights.enter(self, waiter):
            try:
                await waiter.future
            finally:
                self._flights.leave(self, waiter)
        return self.landed


class Flights:
    """The calls under way, by key; as many as there are callers at most."""

    __slots__ = ("__weakref__", "_under_way", "lock")

    def __init__(self) -> None:
        self.forked()
        tell_of_forks(self)

    def forked(self) -> None:
        """Those who lead are threads of the parent."""
        self.lock = threading.RLock()  # a key may compare itself by asking this cache
        self._under_way: dict[Hashable, Flight] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def all_keys(self) -> list[Hashable]:
        """Return the keys of the calls under way."""
        return list(self._under_way)

    def join(self, mine: Flight) -> Flight:
        """Return the flight for the key of ``mine``: ``mine`` itself if the caller leads it."""
        with self.lock:
            return self._under_way.setdefault(mine.key, mine)

    def enter(self, flight: Flight, waiter: Waiter) -> bool:
        """Let ``waiter`` be woken at the end; ``False`` if that has come."""
        with self.lock:
            if flight.ended:
                return False
            flight.waiters.append(waiter)
        return True

    def leave(self, flight: Flight, waiter: Waiter) -> None:
        """Wake ``waiter`` no more."""
        with self.lock:
            if waiter in flight.waiters:
                flight.waiters.remove(waiter)

    def disown(self, key: Hashable) -> None:
        """Start anew for ``key``; with the lock held."""
        flight = self._under_way.pop(key, None)
        if flight is not None:
            flight.disowned = True

    def land(self, flight: Flight, answer: Any, error: Exception | None) -> None:
        """End ``flight`` with an outcome for all who wait."""
        with self.lock:
            flight.land(answer, error)
            waiters = self._end(flight)
        for waiter in waiters:
            waiter.wake()

    def divert(self, flight: Flight) -> None:
        """End ``flight`` without an outcome: of those who wait, the first to come leads."""
        with self.lock:
            waiters = self._end(flight)
        for waiter in waiters:
            waiter.wake()

    def _end(self, flight: Flight) -> list[Waiter]:
        if self._under_way.get(flight.key) is flight:
            del self._under_way[flight.key]
        flight.ended = True
        waiters, flight.waiters = flight.waiters, []
        return waiters
