"""What callers wait for: proposals by ticket, then by index, then nothing.

One object and one future per append, no task and no timer each: deadlines share one timer, and
a commit resolves a run of entries from the front of a queue.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from outlast.kernel import (
    DeadlineError,
    LogFailedError,
    LogIndex,
    LostError,
    OutlastError,
    SealedError,
)

_SCAN_NS = 5_000_000
_SCAN_NS_PER_ITEM = 2_000
_NEVER = 1 << 63


class Waiter:
    """One proposal under way. It stays counted until its fate is known, even if nobody waits."""

    __slots__ = ("deadline_ns", "future", "index", "size", "term", "ticket")

    def __init__(
        self, ticket: int, future: "asyncio.Future[LogIndex]", size: int, deadline_ns: int
    ) -> None:
        self.ticket = ticket
        self.future = future
        self.size = size
        self.deadline_ns = deadline_ns
        self.index = 0
        self.term = 0


class Pending:
    """Proposals whose outcome is open, and the bytes they hold."""

    def __init__(self) -> None:
        self.by_ticket: dict[int, Waiter] = {}
        self.placed: deque[Waiter] = deque()
        self.doubtful: list[Waiter] = []
        self.size_bytes = 0
        self.earliest_ns = _NEVER

    def __len__(self) -> int:
        return len(self.by_ticket) + len(self.placed) + len(self.doubtful)

    def add(self, waiter: Waiter) -> bool:
        """Count ``waiter``; return whether its deadline comes before all others'."""
        self.by_ticket[waiter.ticket] = waiter
        self.size_bytes += waiter.size
        if waiter.deadline_ns < self.earliest_ns:
            self.earliest_ns = waiter.deadline_ns
            return True
        return False

    def place(self, ticket: int, index: int, term: int) -> None:
        """The leader's log has it at ``index``; proposals are placed in the order of indices."""
        waiter = self.by_ticket.pop(ticket, None)
        if waiter is not None:
            waiter.index = index
            waiter.term = term
            self.placed.append(waiter)

    def refuse(self, ticket: int, error: OutlastError) -> None:
        """End the proposal ``ticket`` with ``error``, placed or not."""
        waiter = self.by_ticket.pop(ticket, None)
        if waiter is None:  # it was placed behind a seal, which is committed now
            waiter = next((one for one in self.placed if one.ticket == ticket), None)
        if waiter is not None:
            self._end(waiter, error)

    def commit(
        self,
        index: int,
        term_at: Callable[[int], int | None],
        sealed: tuple[LogIndex, bytes] | None,
    ) -> None:
        """Resolve what is committed through ``index``.

        An entry of ours at its index has the term it was placed in; one check for the last of
        each term stands for those before it, as their leader wrote them all (log matching).
        What lies behind the seal has no effect.
        """
        if self.doubtful:
            self.doubtful.sort(key=lambda waiter: waiter.index)
            known = [waiter for waiter in self.doubtful if waiter.index <= index]
            self.doubtful = [waiter for waiter in self.doubtful if waiter.index > index]
            self._settle(known, term_at, sealed)
        placed = self.placed
        if not placed or placed[0].index > index:
            return
        done = []
        while placed and placed[0].index <= index:
            done.append(placed.popleft())
        self._settle(done, term_at, sealed)

    def _settle(
        self,
        done: list[Waiter],
        term_at: Callable[[int], int | None],
        sealed: tuple[LogIndex, bytes] | None,
    ) -> None:
        """End ``done``, which is in the order of indices."""
        good_term = 0
        size = 0
        for waiter in reversed(done):
            if sealed is not None and waiter.index > sealed[0]:
                self._end(waiter, SealedError(f"sealed at {sealed[0]}", next=sealed[1]))
                continue
            term = good_term if waiter.term == good_term else term_at(waiter.index)
            if term != waiter.term:
                self._end(waiter, _unknown(waiter) if term is None else _lost(waiter))
                continue
            good_term = term
            size += waiter.size
            if not waiter.future.done():
                waiter.future.set_result(LogIndex(waiter.index))
        self.size_bytes -= size

    def truncate(self, index: int) -> None:
        """What was placed at and above ``index`` is no longer in this replica's log.

        That alone is no proof that it is lost: another replica may hold it, come to lead and
        commit it (Raft paper figure 8). Its fate is known once its index is committed.
        """
        while self.placed and self.placed[-1].index >= index:
            self.doubtful.append(self.placed.pop())

    def reset(self) -> None:
        """The log was replaced by a snapshot: what became of the entries cannot be told."""
        for waiter in (*self.doubtful, *self.placed):
            self._end(waiter, _unknown(waiter))
        self.doubtful.clear()
        self.placed.clear()

    def expire(self, now_ns: int) -> int | None:
        """End waits whose deadline has passed; return when to look again, ``None``: never.

        The proposals stay under way: their bytes are counted until their fate is known.
        """
        earliest = _NEVER
        for waiters in (self.by_ticket.values(), self.placed, self.doubtful):
            for waiter in waiters:
                if waiter.deadline_ns > now_ns:
                    if waiter.deadline_ns < earliest and not waiter.future.done():
                        earliest = waiter.deadline_ns
                elif not waiter.future.done():
                    waiter.future.set_exception(
                        DeadlineError("the deadline passed before the entry was committed")
                    )
        self.earliest_ns = earliest
        if earliest == _NEVER:
            return None
        return max(earliest, now_ns + _SCAN_NS + len(self) * _SCAN_NS_PER_ITEM)

    def fail(self, make: Callable[[], OutlastError]) -> None:
        """End everything with an error of its own: what becomes of it is unknown."""
        for waiter in (*self.by_ticket.values(), *self.placed, *self.doubtful):
            self._end(waiter, make())
        self.by_ticket.clear()
        self.placed.clear()
        self.doubtful.clear()

    def _end(self, waiter: Waiter, error: OutlastError) -> None:
        self.size_bytes -= waiter.size
        waiter.size = 0
        if not waiter.future.done():
            waiter.future.set_exception(error)


def _lost(waiter: Waiter) -> LostError:
    return LostError(
        f"the entry proposed at index {waiter.index} in term {waiter.term} "
        "was overwritten by another leader's"
    )


def _unknown(waiter: Waiter) -> LogFailedError:
    return LogFailedError(
        f"the entry proposed at index {waiter.index} in term {waiter.term} may be committed: "
        "this replica's log was replaced by a snapshot before it could know"
    )
