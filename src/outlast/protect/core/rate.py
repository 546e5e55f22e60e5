"""How many calls may start per time: two rules, one that counts debt and one that remembers.

A rate limit answers one question: how long must a call that comes now wait before it may start?
Both rules answer it by *reservation*: who is told to wait has its slot already, so waiters start
in the order in which they asked, without a queue, a timer or a thread. A slot may be taken back
if its owner does not start after all.

:class:`Gcra` is the generic cell rate algorithm (ITU-T I.371, the "virtual scheduling" form),
a token bucket in one number: the *theoretical arrival time*, up to when the slots given out so
far reach if they are laid one ``interval`` apart. It may run ahead of the clock by ``burst``
intervals; a call that would push it further waits until it does not.

:class:`SlidingLog` remembers when the last ``limit`` calls started, so that no window of ``per``,
wherever it is laid, holds more than ``limit`` starts.

:class:`Aimd` moves the rate of a ``Gcra``: a throttled answer cuts it by a factor, successes
raise it by a step (additive increase, multiplicative decrease: Chiu and Jain, 1989).

Neither knows of threads. What they are given as ``guard`` is entered for each change; between
entering and leaving nothing is called that is written in Python, so that no other thread is let
in between and no convoy forms behind it. A wait is returned as it is, a refusal as minus the
wait that would have been needed.
"""

from collections import deque
from contextlib import AbstractContextManager
from math import gcd
from typing import Any, Final

NS: Final = 1_000_000_000
MICRO: Final = 1_000_000
_LONG_AGO: Final = -(1 << 100)

Guard = AbstractContextManager[Any]


class Gcra:
    """A token bucket of ``burst`` calls that refills at ``rate`` calls per ``per_ns``.

    Exact: time is counted in fractions of a nanosecond of which an interval is a whole number.
    In any window of length *t* at most ``burst + t * rate / per`` calls start, reserved slots
    included. A slot is never early; it may be late by less than 1 ns.

    Args:
        guard: Entered for each change.
        rate_micro: Millionths of a call per ``per_ns``. 1 or more.
        per_ns: Nanoseconds. 1 or more.
        burst: Calls that may start at once after a pause. 1 or more.
    """

    __slots__ = (
        "_depth", "_held_ns", "_interval", "_tat", "_unit", "burst", "guard", "per_ns",
        "rate_micro",
    )  # fmt: skip

    def __init__(self, guard: Guard, rate_micro: int, per_ns: int, burst: int) -> None:
        self.guard = guard
        self._tat = _LONG_AGO
        self._held_ns = _LONG_AGO
        self._set(rate_micro, per_ns, burst)

    def _set(self, rate_micro: int, per_ns: int, burst: int) -> None:
        self.rate_micro = rate_micro
        self.per_ns = per_ns
        self.burst = burst
        # One call is per_ns * MICRO / rate_micro nanoseconds; in units of 1/_unit ns it is whole.
        common = gcd(per_ns * MICRO, rate_micro)
        self._unit = rate_micro // common
        self._interval = per_ns * MICRO // common
        self._depth = burst * self._interval

    def reserve(self, now_ns: int, max_wait_ns: int, cost: int = 1) -> int:
        """Take the next ``cost`` slots if the wait for them is at most ``max_wait_ns``.

        Returns:
            The wait in nanoseconds, 0 for none; or, if nothing was taken, minus the wait.
        """
        with self.guard:
            unit, tat = self._unit, self._tat
            # Numbers as large as these are slow: what most calls need comes first.
            now = now_ns if unit == 1 else now_ns * unit
            if tat <= now:
                if cost == 1:
                    self._tat = now + self._interval
                    return 0
                tat = now
            after = tat + cost * self._interval
            ahead = after - self._depth - now
            if ahead <= 0:
                self._tat = after
                return 0
            wait_ns = -(-ahead // unit)
            if wait_ns > max_wait_ns:
                return -wait_ns
            self._tat = after
            return wait_ns

    quick = reserve

    def give_back(self, due_ns: int, cost: int = 1) -> bool:
        """Take back the slots that start at ``due_ns``, if no later ones are given out.

        Slots in the middle stay taken: those behind them have been told when to start.
        """
        with self.guard:
            if -(-(self._tat - self._depth) // self._unit) != due_ns:
                return False
            self._tat -= cost * self._interval
            return True

    def hold(self, until_ns: int) -> None:
        """Let nothing new start before ``until_ns``, and from then on one call per interval."""
        with self.guard:
            tat = until_ns * self._unit + self._depth - self._interval
            if tat > self._tat:
                self._tat = tat
                self._held_ns = until_ns

    def change(self, now_ns: int, rate_micro: int, per_ns: int, burst: int) -> None:
        """Change the rate: as many calls as were owed are owed, at the new pace.

        Slots that were given out keep their time, and a hold lasts as long as it was to.
        """
        with self.guard:
            held = self._held_ns > now_ns
            debt = self._tat - self._start(now_ns, held)
            before = self._interval
            self._set(rate_micro, per_ns, burst)
            self._tat = self._start(now_ns, held) + max(0, -(-debt * self._interval // before))

    def _start(self, now_ns: int, held: bool) -> int:
        """Return the theoretical arrival time of a limit that owes nothing."""
        if held:
            return self._held_ns * self._unit + self._depth - self._interval
        return now_ns * self._unit

    def free(self, now_ns: int) -> int:
        """Return how many calls could start now without a wait."""
        with self.guard:
            now = now_ns * self._unit
            left = self._depth - max(0, self._tat - now)
            return max(0, left // self._interval)

    def reset(self) -> None:
        """Forget all calls, and a hold."""
        with self.guard:
            self._tat = self._held_ns = _LONG_AGO


class SlidingLog:
    """At most ``limit`` starts in any window of ``per_ns``, wherever it begins: exactly.

    A window is half open: a call ``per_ns`` after another one is not in its window any more.
    Keeps one number for each start in the last window, or of the last ``limit`` if that is more,
    and one for each slot that is still to come.

    Args:
        guard: Entered for each change.
        limit: Starts per window. 1 or more.
        per_ns: Nanoseconds. 1 or more.
    """

    __slots__ = ("_starts", "guard", "limit", "per_ns")

    def __init__(self, guard: Guard, limit: int, per_ns: int) -> None:
        self.guard = guard
        self._starts: deque[int] = deque()
        self.limit = limit
        self.per_ns = per_ns

    def __len__(self) -> int:
        return len(self._starts)

    def reserve(self, now_ns: int, max_wait_ns: int, cost: int = 1) -> int:
        """Take the next ``cost`` slots; as :meth:`Gcra.reserve`. ``cost`` is at most ``limit``."""
        with self.guard:
            starts, limit, per_ns = self._starts, self.limit, self.per_ns
            # Enough to forget: each call adds cost entries at most.
            spare = cost + 1
            while spare and len(starts) > limit and starts[0] + per_ns <= now_ns:
                starts.popleft()
                spare -= 1
            due_ns = now_ns
            if starts and starts[-1] > due_ns:
                due_ns = starts[-1]  # nobody starts before who asked before
            last = len(starts) + cost - 1 - limit
            if last >= 0 and starts[last] + per_ns > due_ns:
                due_ns = starts[last] + per_ns
            if due_ns - now_ns > max_wait_ns:
                return now_ns - due_ns
            if cost == 1:
                starts.append(due_ns)
            else:
                starts.extend([due_ns] * cost)
            return due_ns - now_ns

    quick = reserve

    def give_back(self, due_ns: int, cost: int = 1) -> bool:
        """Take back the slots that start at ``due_ns``, if no later ones are given out."""
        with self.guard:
            starts = self._starts
            if len(starts) < cost or starts[-1] != due_ns or starts[-cost] != due_ns:
                return False
            while cost:
                starts.pop()
                cost -= 1
            return True

    def change(self, limit: int, per_ns: int) -> None:
        """Change the limit; what has started counts on. Slots given out keep their time.

        A wider window does not bring back starts that were forgotten because they lay outside
        the old one, beyond the last ``limit`` of them.
        """
        with self.guard:
            self.limit = limit
            self.per_ns = per_ns

    def free(self, now_ns: int) -> int:
        """Return how many calls could start now without a wait."""
        with self.guard:
            starts = self._starts
            if starts and starts[-1] > now_ns:
                return 0
            since = now_ns - self.per_ns
            low, high = 0, len(starts)
            while low < high:  # the first start that lies in the window
                middle = (low + high) // 2
                if starts[middle] > since:
                    high = middle
                else:
                    low = middle + 1
            used = len(starts) - low
            return max(0, self.limit - used)

    def reset(self) -> None:
        """Forget all calls."""
        with self.guard:
            self._starts.clear()


class Aimd:
    """When a rate is cut and when it is raised; all in millionths of a call per period.

    One overload makes many calls fail at once, so it cuts once: after a cut, throttled answers
    to calls that began before it say nothing new; where the beginning is not known, those that
    come within one period do not count.

    The rate is raised by ``step`` for each period's worth of successes at the current rate, as
    TCP's congestion avoidance does per window: a callee that is hardly called is not taken to
    bear more. The successes counted for one raise are used up by it.

    Args:
        start: Rate to begin with.
        low: Never cut below this.
        high: Never raised above this.
        step: By how much it is raised.
        cut: What is left after a cut, in millionths, below one million.
        per_ns: Length of the period.

    Attributes:
        rate: The rate now.
        cuts: How often it was cut.
    """

    __slots__ = ("_cut", "_cut_at_ns", "_earned", "cuts", "high", "low", "per_ns", "rate", "step")

    def __init__(
        self, start: int, *, low: int, high: int, step: int, cut: int, per_ns: int
    ) -> None:
        self.rate = start
        self.cuts = 0
        self.low = low
        self.high = high
        self.step = step
        self.per_ns = per_ns
        self._cut = cut
        self._cut_at_ns = _LONG_AGO
        self._earned = 0

    def throttled(self, now_ns: int, started_ns: int | None = None) -> bool:
        """The callee has refused a call because there were too many; whether the rate was cut."""
        began_ns = now_ns - self.per_ns if started_ns is None else started_ns
        if began_ns < self._cut_at_ns:
            return False
        self._cut_at_ns = now_ns
        self._earned = 0
        before = self.rate
        self.rate = max(self.low, before * self._cut // MICRO)
        self.cuts += 1
        return self.rate != before

    def succeeded(self, count: int) -> bool:
        """``count`` more calls have succeeded; whether the rate was raised."""
        before = self.rate
        if before >= self.high:
            self._earned = 0
            return False
        self._earned += count * MICRO
        while self._earned >= self.rate and self.rate < self.high:
            self._earned -= self.rate
            self.rate = min(self.high, self.rate + self.step)
        return self.rate != before

    def change(self, *, low: int, high: int, step: int, cut: int, per_ns: int) -> None:
        """Take new settings; the rate stays where it is unless they exclude it."""
        self.low, self.high, self.step, self._cut, self.per_ns = low, high, step, cut, per_ns
        self.rate = min(high, max(low, self.rate))
