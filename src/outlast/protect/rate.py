"""``RateLimit`` and ``SlidingWindow``: how many calls may start per second."""

import threading
from collections.abc import Callable
from typing import Any, ClassVar, Final, Generic, TypeVar

from outlast.kernel import RateLimitedError, World, current_deadline, current_world
from outlast.protect.checks import DAY, check_ns, check_number, check_whole
from outlast.protect.core.rate import MICRO, NS, Gcra, SlidingLog
from outlast.protect.forked import tell_of_forks
from outlast.protect.part import Part

_CALLS_MAX: Final = 1_000_000_000
_LOG_MAX: Final = 100_000
_PER_MAX: Final = 366 * DAY

Rule = TypeVar("Rule", bound=Gcra | SlidingLog)


class Pace(Part, Generic[Rule]):
    """The base of the rate limits: how a slot is asked for, waited for and given back.

    Attributes:
        core: The rule.
        listens: Whether it wants to hear how calls end: ``heard(error, started_ns)`` of
            failures, and ``succeeded()`` of successes.
    """

    position = "rate"
    listens: ClassVar[bool] = False

    __slots__ = ("_max_wait_ns", "core")

    def __init__(self, core: Rule, max_wait: float, name: str) -> None:
        super().__init__(name)
        self.core: Rule = core
        self._max_wait_ns = wait_ns(type(self).__name__, "max_wait", max_wait)
        tell_of_forks(self)

    @property
    def max_wait(self) -> float:
        """How long a call may wait for its slot, in seconds; 0: it is refused at once."""
        return self._max_wait_ns / NS

    @property
    def most(self) -> int:
        """The largest ``cost`` of one call."""
        raise NotImplementedError

    @property
    def quick(self) -> Callable[[int, int], int]:
        """``quick(now_ns, 0)`` takes the next slot if it is free now, and returns 0 then.

        If not, it has taken nothing: :meth:`reserve` says what follows. What a policy asks
        first, since most calls find a free slot and this costs least.
        """
        return self.core.quick

    # --- what policies ask --------------------------------------------------------------------

    def reserve(self, now_ns: int) -> int:
        """Take the next slot.

        The wait for it is at most ``max_wait`` and ends before the deadline of the context.

        Args:
            now_ns: Monotonic time.

        Returns:
            Nanoseconds after which the call may start; 0 for now. The slot is taken already: who
            does not use it should :meth:`give_back`.

        Raises:
            RateLimitedError: Definite. The wait would be too long; no slot was taken.
        """
        patience_ns = self._max_wait_ns
        if patience_ns:
            patience_ns = _before_deadline(now_ns, patience_ns)
        waits_ns = self.core.reserve(now_ns, patience_ns)
        if waits_ns < 0:
            raise self._refusal(-waits_ns, patience_ns)
        return waits_ns

    def give_back(self, due_ns: int, cost: int = 1) -> bool:
        """Give a slot back whose call will not start, for example because its wait was cancelled.

        Only the newest slot can be given back: calls behind it were told when to start. Any other
        stays taken, so that the rate is never exceeded; fewer calls start than might.

        Args:
            due_ns: When the slot begins: what :meth:`reserve` was given plus what it returned.
            cost: Of the call.

        Returns:
            Whether another call can have the slot.
        """
        return self.core.give_back(due_ns, cost)

    # --- what users ask -----------------------------------------------------------------------

    def try_acquire(self, cost: int = 1) -> bool:
        """Take ``cost`` slots if they are free now, without waiting; whether they were."""
        self._check_cost(cost)
        return self.core.reserve(current_world().clock.monotonic_ns(), 0, cost) == 0

    def acquire_blocking(self, cost: int = 1, *, timeout: float | None = None) -> None:
        """Wait in this thread until the next ``cost`` slots.

        Args:
            cost: How many slots the call takes.
            timeout: Longest wait in seconds; ``max_wait`` by default. The deadline of the
                context bounds it, too.

        Raises:
            RateLimitedError: Definite. The wait would be longer; no slot was taken.
            ConfigError: Definite. ``cost`` is more than there ever are, or no whole number.
        """
        world = current_world()
        due_ns, waits_ns = self._take(world, cost, timeout)
        if waits_ns:
            try:
                world.clock.pause(waits_ns / NS)
            except BaseException:
                self.core.give_back(due_ns, cost)
                raise

    async def acquire(self, cost: int = 1, *, timeout: float | None = None) -> None:
        """Wait in this coroutine until the next ``cost`` slots; see :meth:`acquire_blocking`.

        Cancelled, it gives its slots back if they are the newest.
        """
        world = current_world()
        due_ns, waits_ns = self._take(world, cost, timeout)
        if waits_ns:
            try:
                await world.timers.sleep(waits_ns / NS)
            except BaseException:
                self.core.give_back(due_ns, cost)
                raise

    def snapshot(self) -> dict[str, Any]:
        """Return how many calls could start now."""
        return {"free": self.core.free(current_world().clock.monotonic_ns())}

    def reset(self) -> None:
        """Forget all calls so far: as after a long pause. Waiters keep their slots."""
        self.core.reset()

    def forked(self) -> None:
        """This is the child of a fork: the counts go on, the lock is nobody's."""
        self.core.guard = threading.Lock()

    def begin_anew(self) -> None:
        """This is another world: nothing has started yet."""
        self.core.reset()

    # --- inside -------------------------------------------------------------------------------

    def _take(self, world: World, cost: int, timeout: float | None) -> tuple[int, int]:
        """Reserve; return when the slot begins and the wait until then."""
        self._check_cost(cost)
        kind = type(self).__name__
        patience_ns = self._max_wait_ns if timeout is None else wait_ns(kind, "timeout", timeout)
        now_ns = world.clock.monotonic_ns()
        patience_ns = _before_deadline(now_ns, patience_ns)
        waits_ns = self.core.reserve(now_ns, patience_ns, cost)
        if waits_ns < 0:
            raise self._refusal(-waits_ns, patience_ns)
        return now_ns + waits_ns, waits_ns

    def _check_cost(self, cost: int) -> None:
        if cost != 1:
            check_whole(type(self).__name__, "cost", cost, 1, self.most)

    def _refusal(self, waits_ns: int, patience_ns: int) -> RateLimitedError:
        """Tell of a refusal and return the error for it.

        A call that comes ``retry_after`` later and is as patient gets its slot, unless others
        came before it.
        """
        from outlast.protect.events import CallRejected

        reason = f"the next slot is {waits_ns / NS:.3f} s away"
        if patience_ns:
            reason += f", and the call could wait {patience_ns / NS:.3f} s"
        event = CallRejected(name=self.name, part="rate", reason=reason)
        current_world().events.emit(event)
        shown = self.name or type(self).__name__
        return RateLimitedError(f"{shown}: {reason}", retry_after=(waits_ns - patience_ns) / NS)


class RateLimit(Pace[Gcra]):
    """At most ``rate`` calls start per ``per`` seconds in the long run, ``burst`` of them at once.

    A token bucket (as GCRA: one number, no timer, no thread). After a pause ``burst`` calls may
    start together, so in the first period up to ``burst + rate`` do; ``burst=1`` spaces all calls
    evenly. Where no window may ever hold more than ``rate`` starts, use :class:`SlidingWindow`.

    Calls that may wait start in the order in which they came. A wait that is cancelled gives its
    slot back if it is the newest one; any other slot is lost, since those behind it have been
    told when to start. Safe to share between threads and event loops.

    Args:
        rate: Calls per ``per``, to a millionth. Above 0; fractions are fine.
        per: Seconds.
        burst: Calls that may start at once after a pause; by default ``rate``, at least 1.
        max_wait: Longest wait for a slot in seconds; 0: refuse at once.
        store: Where processes share it, by ``name``; see ``outlast.protect.store``. Slots are
            leased for 50 ms at a time: in a time ``W`` all processes start at most
            ``burst + rate * (W + 0.05 s)`` calls.
        name: In events and metrics.

    Raises:
        RateLimitedError: Definite. The wait would be too long; ``retry_after`` says how long
            until a call that is as patient gets a slot.
        ConfigError: Definite. A setting is wrong.

    >>> limit = RateLimit(10, per=1.0, burst=2)
    >>> [limit.try_acquire() for _ in range(3)]
    [True, True, False]
    """

    settings: ClassVar[tuple[str, ...]] = ("rate", "per", "burst", "max_wait")

    __slots__ = ("_burst",)

    def __init__(
        self,
        rate: float,
        per: float = 1.0,
        *,
        burst: int | None = None,
        max_wait: float = 0.0,
        store: Any = None,
        name: str = "",
    ) -> None:
        kind = type(self).__name__
        micro = rate_micro(kind, "rate", rate)
        period_ns = per_ns(kind, per)
        if burst is not None:
            burst = check_whole(kind, "burst", burst, 1, _CALLS_MAX)
        self._burst = burst
        core = Gcra(threading.Lock(), micro, period_ns, burst or default_burst(micro))
        if store is not None:
            from outlast.protect.shared_limits import shared_gcra

            core = shared_gcra(core, store, lambda: self.name)
        super().__init__(core, max_wait, name)

    @property
    def rate(self) -> float:
        """Calls per period."""
        return self.core.rate_micro / MICRO

    @property
    def per(self) -> float:
        """Length of the period in seconds."""
        return self.core.per_ns / NS

    @property
    def burst(self) -> int:
        """Calls that may start at once after a pause."""
        return self.core.burst

    @property
    def store(self) -> Any:
        """Where processes share it; ``None`` for this process alone."""
        return getattr(self.core, "store", None)

    @property
    def most(self) -> int:
        """The largest ``cost`` of one call."""
        return self.core.burst

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned.

        As many calls as were owed are owed. Slots given out keep their time, so for as long as
        the longest wait both the old and the new rate can be used up.
        """
        kind = type(self).__name__
        core = self.core
        micro, period_ns = core.rate_micro, core.per_ns
        if "rate" in changes:
            micro = rate_micro(kind, "rate", changes["rate"])
        if "per" in changes:
            period_ns = per_ns(kind, changes["per"])
        if "burst" in changes:
            self._burst = changes["burst"]
        if "max_wait" in changes:
            self._max_wait_ns = wait_ns(kind, "max_wait", changes["max_wait"])
        now_ns = current_world().clock.monotonic_ns()
        core.change(now_ns, micro, period_ns, self._burst or default_burst(micro))


class SlidingWindow(Pace[SlidingLog]):
    """At most ``limit`` calls start in any window of ``per`` seconds, wherever it begins.

    Exact: it remembers when the last ``limit`` calls started, 40 bytes each; a call ``per``
    seconds after another one is not in its window any more. Waiters, cancellation and sharing as
    in :class:`RateLimit`.

    Args:
        limit: Calls per window, 100 000 at most; for more use :class:`RateLimit`.
        per: Seconds.
        max_wait: Longest wait for a slot in seconds; 0: refuse at once.
        name: In events and metrics.

    Raises:
        RateLimitedError: Definite. The wait would be too long; ``retry_after`` says how long
            until a call that is as patient gets a slot.
        ConfigError: Definite. A setting is wrong.

    >>> window = SlidingWindow(2, per=60)
    >>> [window.try_acquire() for _ in range(3)]
    [True, True, False]
    """

    settings: ClassVar[tuple[str, ...]] = ("limit", "per", "max_wait")

    __slots__ = ()

    def __init__(
        self, limit: int, per: float = 1.0, *, max_wait: float = 0.0, name: str = ""
    ) -> None:
        kind = type(self).__name__
        size = check_whole(kind, "limit", limit, 1, _LOG_MAX)
        super().__init__(SlidingLog(threading.Lock(), size, per_ns(kind, per)), max_wait, name)

    @property
    def limit(self) -> int:
        """Calls per window."""
        return self.core.limit

    @property
    def per(self) -> float:
        """Length of the window in seconds."""
        return self.core.per_ns / NS

    @property
    def most(self) -> int:
        """The largest ``cost`` of one call."""
        return self.core.limit

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned. What has started counts on."""
        kind = type(self).__name__
        if "max_wait" in changes:
            self._max_wait_ns = wait_ns(kind, "max_wait", changes["max_wait"])
        period_ns = per_ns(kind, changes["per"]) if "per" in changes else self.core.per_ns
        self.core.change(changes.get("limit", self.limit), period_ns)


def _before_deadline(now_ns: int, patience_ns: int) -> int:
    """Return the wait that also ends before the deadline of the context."""
    deadline = current_deadline.get()
    if deadline is None:
        return patience_ns
    return min(patience_ns, deadline.left_ns(now_ns))


def default_burst(micro: int) -> int:
    """Return the calls that may start at once where nothing is said: those of one period."""
    return max(1, micro // MICRO)


def rate_micro(kind: str, name: str, value: Any) -> int:
    """Return a rate in millionths of a call per period."""
    return round(check_number(kind, name, value, 1 / MICRO, _CALLS_MAX, what="calls") * MICRO)


def per_ns(kind: str, value: Any) -> int:
    """Return the length of a period."""
    return check_ns(kind, "per", value, 1e-6, _PER_MAX)


def wait_ns(kind: str, name: str, value: Any) -> int:
    """Return a longest wait."""
    return check_ns(kind, name, value, 0, _PER_MAX)
