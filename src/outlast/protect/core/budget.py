"""How much retries and hedges together may add to the load.

A retry helps when few calls fail. When many fail, because the callee is overloaded, retries are
what keeps it down: three attempts per call are three times the load. So extra attempts get an
allowance that grows with the calls: ``ratio`` of them, and ``floor`` per second besides, so that
a caller with few calls can retry at all. (As Finagle's retry budget and Envoy's; Bronson et al.,
"Metastable Failures in Distributed Systems", HotOS 2021, on why.)

The rule looks back over one window. An extra attempt is granted at *t* if, with it, those granted
in ``(t - window, t]`` are at most ``ratio`` of the calls begun in that time plus ``floor *
window``. Hence, if calls are known exactly, this holds for every window that ends in a grant, and
any window at all holds at most what the calls in it and in the one before it earn, plus the floor.

What is known of calls is how many began between two questions; between them they are taken to
have come evenly. Questions are asked by each failure, so while many calls fail the picture is
fine. The error is that of one span at most, the one in which the window begins: at most
``ratio`` of the calls that began in it. Calls from before the first question, when nothing is
known of time, do not count. Grants are never forgotten too early; they count for up to 1/64 of a
window too long.
"""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from typing import Any, Final

MICRO: Final = 1_000_000
_SECOND_NS: Final = 1_000_000_000
SPANS: Final = 64
"""Parts of a window: questions closer together than that are remembered as one."""


class Span:
    """What happened in ``(begin_ns, end_ns]``: calls, evenly; grants, at its end."""

    __slots__ = ("begin_ns", "calls", "end_ns", "grants")

    def __init__(self, begin_ns: int, end_ns: int, calls: int, grants: int) -> None:
        self.begin_ns = begin_ns
        self.end_ns = end_ns
        self.calls = calls
        self.grants = grants


class BudgetRules:
    """The allowance of extra attempts over a window. Holds ``2 * SPANS + 2`` spans at most.

    Args:
        guard: Entered for each question.
        ratio_micro: Extra attempts per call, in millionths.
        floor_micro: Extra attempts per window without any calls, in millionths.
        window_ns: How far it looks back.

    Attributes:
        deposit: To be called once per call, when it begins. Atomic, and next to free.
        calls: Calls in the spans that are kept.
        grants: Extra attempts granted in them.
        refused: How often a question was answered with no.
    """

    __slots__ = (
        "_read", "_seen_ns", "_spans", "calls", "deposit", "floor_micro", "grants", "guard",
        "ratio_micro", "refused", "window_ns",
    )  # fmt: skip

    def __init__(
        self,
        guard: AbstractContextManager[Any],
        ratio_micro: int,
        floor_micro: int,
        window_ns: int,
    ) -> None:
        self.guard = guard
        self._spans: deque[Span] = deque()
        self._seen_ns: int | None = None
        # Counted without a guard; our own readings are counted too, and subtracted.
        self.deposit: Callable[[], int] = count().__next__
        self._read = 0
        self.calls = 0
        self.grants = 0
        self.refused = 0
        self.change(ratio_micro, floor_micro, window_ns)

    def __len__(self) -> int:
        return len(self._spans)

    def change(self, ratio_micro: int, floor_micro: int, window_ns: int) -> None:
        """Change the allowance; what was granted counts on."""
        self.ratio_micro = ratio_micro
        self.floor_micro = floor_micro
        self.window_ns = window_ns

    def ask(self, now_ns: int) -> bool:
        """Return whether one extra attempt is granted.

        Args:
            now_ns: Monotonic time. One that is more than a second back is another clock's:
                what was known is forgotten.
        """
        with self.guard:
            span = self._learn(now_ns)
            # Millionths all along: no float takes part in the decision.
            if (self.grants + 1) * MICRO > self._allowance_micro(span.end_ns):
                self.refused += 1
                return False
            span.grants += 1
            self.grants += 1
            return True

    def left(self, now_ns: int) -> int:
        """Return how many extra attempts would be granted now, one after another."""
        with self.guard:
            span = self._learn(now_ns)
            return max(0, self._allowance_micro(span.end_ns) // MICRO - self.grants)

    def _allowance_micro(self, now_ns: int) -> int:
        """Return what may be granted in the window that ends now, in millionths, used or not."""
        calls = self.calls
        first = self._spans[0]
        outside_ns = now_ns - self.window_ns - first.begin_ns
        if outside_ns > 0:
            # What of an even stream lies outside, rounded up.
            calls -= -(-first.calls * outside_ns // (first.end_ns - first.begin_ns))
        return self.ratio_micro * calls + self.floor_micro

    def _learn(self, now_ns: int) -> Span:
        """Count the calls since the last question, forget what is old, return the last span."""
        counted = self.deposit()
        fresh = counted - self._read
        self._read = counted + 1
        begin_ns = self._seen_ns
        if begin_ns is None or now_ns < begin_ns - _SECOND_NS:
            self._forget()
            fresh, begin_ns = 0, now_ns
        now_ns = max(now_ns, begin_ns)  # a thread may have read the clock a little earlier
        self._seen_ns = now_ns
        spans = self._spans
        while spans and spans[0].end_ns <= now_ns - self.window_ns:
            gone = spans.popleft()
            self.calls -= gone.calls
            self.grants -= gone.grants
        self.calls += fresh
        last = spans[-1] if spans else None
        if last is not None and now_ns - last.begin_ns <= self.window_ns // SPANS:
            last.end_ns = now_ns
            last.calls += fresh
            return last
        last = Span(begin_ns, now_ns, fresh, 0)
        spans.append(last)
        return last

    def reset(self) -> None:
        """Forget all calls and grants."""
        with self.guard:
            self._forget()

    def _forget(self) -> None:
        self._spans.clear()
        self._seen_ns = None
        self.calls = self.grants = 0
