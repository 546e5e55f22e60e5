"""``Bulkhead``: a part of the ship that may flood alone (Nygard, *Release It!*, chapter 5)."""

from typing import Any

from outlast.kernel import BulkheadFullError, RejectedError
from outlast.protect.checks import check_whole
from outlast.protect.permits import PERMITS_MAX, Permits

_WHY = {
    "full": "and the queue is full",
    "evicted": "and a call of higher priority took the place in the queue",
    "waited": "and none came free within max_wait",
}


class Bulkhead(Permits):
    """At most ``max_concurrent`` calls at a time, over all threads and event loops.

    A service that hangs can then hold no more than so many of your threads, tasks and
    connections. Callers that find no free permit wait in order of arrival if the queue has room,
    and are refused at once if not. A running call keeps its permit until it ends.

    Args:
        max_concurrent: How many calls may run. 1 or more.
        queue: How many callers may wait for one of them to end; 0: none.
        max_wait: How long one of them may wait, in seconds; ``None``: as long as the deadline of
            its context (:func:`outlast.deadline`, ``Policy(timeout=…)``) lets it.
        name: Shown in events and metrics; by default that of the policy.

    Raises:
        BulkheadFullError: Definite. No permit was to be had; nothing was sent.
        TooLateError: Definite. The deadline passed in the queue; nothing was sent.
        ConfigError: Definite. A setting is wrong.

    >>> bulkhead = Bulkhead(1)
    >>> permit = bulkhead.try_acquire()
    >>> bulkhead.in_flight, bulkhead.try_acquire()
    (1, None)
    >>> bulkhead.release(permit)
    """

    settings = ("max_concurrent", "queue", "max_wait")

    __slots__ = ()

    def __init__(
        self, max_concurrent: int, *, queue: int = 0, max_wait: float | None = None, name: str = ""
    ) -> None:
        size = check_whole("Bulkhead", "max_concurrent", max_concurrent, 1, PERMITS_MAX)
        super().__init__(size, queue=queue, max_wait=max_wait, name=name)

    @property
    def max_concurrent(self) -> int:
        """How many calls may run at a time."""
        return self._size

    def snapshot(self) -> dict[str, Any]:
        """Return how many calls run and how many wait."""
        return {"in_flight": self.in_flight, "waiting": self.waiting}

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned.

        Calls that run go on if there are now more than ``max_concurrent`` of them: no other
        begins before enough of them have ended. Waiters keep their places and their ``max_wait``.
        """
        self._change_queue(changes)
        if "max_concurrent" in changes:
            self._resize(changes["max_concurrent"])

    def _refusal(self, reason: str) -> RejectedError:
        return BulkheadFullError(f"{self._shown()}: {self._size} calls are running {_WHY[reason]}")
