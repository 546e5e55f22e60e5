"""``Hedge``: a second attempt beside one that is slow, the first answer wins."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final, Protocol

from outlast.kernel import (
    CommandError,
    ConfigError,
    InvariantError,
    RejectedError,
    World,
)
from outlast.protect.beside import Crew
from outlast.protect.call import CallInfo, current_call_var
from outlast.protect.checks import DAY, NS, check_ns, check_whole
from outlast.protect.core.hedge import Sides
from outlast.protect.core.percentile import Percentile
from outlast.protect.forked import tell_of_forks
from outlast.protect.if_free import if_free
from outlast.protect.part import Part

ErrorTypes = type[BaseException] | tuple[type[BaseException], ...]

_WINDOW_NS: Final = 60 * NS
_FOLD: Final = 32
_DEFAULT: Final = 0.95


class Allowance(Protocol):
    """The part of ``Budget`` that a hedge needs."""

    def deposit(self) -> Any:
        """Count one logical call."""
        ...

    def try_spend(self, now_ns: int) -> bool:
        """Take the allowance for one extra attempt; ``False`` if there is none."""
        ...


class Hedge(Part):
    """Starts another attempt beside one that is slow; the first success wins.

    It cuts the slow tail of a service where each call may find a slow replica (Dean and Barroso,
    "The Tail at Scale", 2013): with the 95th percentile as the delay, one call in twenty is made
    twice. **Only for calls that may be made twice**; all attempts have the same
    ``current_call().key``, and ``current_call().hedge`` tells which one it is (0 is the first).

    Attempt *k* + 1 starts when attempt *k* has not ended after the delay, or failed with an error
    of ``on``. An error does not end the call while another attempt runs, except an answer: a
    ``CommandError``, or with ``on`` given any error that is not of it. If all fail, the error
    of the first comes out, with notes about the others.

    *Coroutines*: the first attempt runs in the caller's own task, the others in tasks with a copy
    of its context. The losers are cancelled, and awaited before the answer is returned, as is
    everything if the caller is cancelled.

    *Plain functions*: while hedging is possible the attempts run on threads of this hedge, at
    most ``max_threads``; a call that finds none free runs unhedged in the caller's thread. A
    thread cannot be stopped: the loser runs on until it returns, holding its thread. It can ask
    :func:`outlast.protect.abandoned`, and it has the caller's deadline, at which the caller
    stops waiting.

    *The learned delay* is a percentile of the first attempts that succeeded within the last one
    to two minutes. An attempt that lost counts with twice the time that it had, since it took
    longer than that: if it were left out, the percentile would creep towards zero.

    Args:
        after: The delay in seconds. With ``percentile``, that for as long as nothing is learned.
        percentile: Learn the delay, such as 0.95. Default: 0.95 without ``after``, else none.
        attempts: How many attempts may be started, the first included. 2 or more.
        budget: Asked for each attempt but the first; if it denies, that attempt is not made.
        min_samples: How many calls must be known before a learned delay is used.
        on: Errors after which the next attempt starts at once. Default: none.
        max_threads: How many threads there may be, for plain functions.
        name: Shown in events and metrics; by default that of the policy.

    Raises:
        ConfigError: Definite. A setting is wrong.
        DeadlineError: Indefinite. Plain functions: the deadline of the context passed.
    """

    position: ClassVar[str] = "hedge"
    settings = ("after", "percentile", "attempts", "budget", "min_samples", "on", "max_threads")

    __slots__ = (
        "_fold_at_ns", "_lock", "_pending", "_tracker", "after", "attempts", "budget", "crew",
        "delay_ns", "min_samples", "on", "percentile", "started", "won",
    )  # fmt: skip

    def __init__(
        self,
        after: float | None = None,
        *,
        percentile: float | None = None,
        attempts: int = 2,
        budget: Allowance | None = None,
        min_samples: int = 20,
        on: ErrorTypes | None = None,
        max_threads: int = 32,
        name: str = "",
    ) -> None:
        super().__init__(name)
        self._lock = threading.Lock()
        self._pending: list[int] = []
        self._fold_at_ns = 0
        self._tracker: Percentile | None = None
        self.crew = Crew(check_whole("Hedge", "max_threads", max_threads, 1, 10_000))
        self.started = 0
        self.won = 0
        self._set(
            after=after, percentile=percentile, attempts=attempts, budget=budget,
            min_samples=min_samples, on=on,
        )  # fmt: skip
        tell_of_forks(self)

    def _set(
        self,
        *,
        after: float | None,
        percentile: float | None,
        attempts: int,
        budget: Allowance | None,
        min_samples: int,
        on: ErrorTypes | None,
    ) -> None:
        """Check everything, then take it."""
        if percentile is None and after is None:
            percentile = _DEFAULT
        number = isinstance(percentile, int | float) and not isinstance(percentile, bool)
        if percentile is not None and not (number and 0.0 < percentile < 1.0):
            message = f"Hedge: percentile is {percentile!r}; a share such as 0.95 would be right"
            raise ConfigError(message)
        after_ns = None if after is None else check_ns("Hedge", "after", after, 0.0, DAY)
        check_whole("Hedge", "attempts", attempts, 2, 100)
        check_whole("Hedge", "min_samples", min_samples, 1, 1_000_000)
        kinds = on if isinstance(on, tuple) else (on,)
        if on is not None and not all(
            isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds
        ):
            raise ConfigError(f"Hedge: on is {on!r}; error classes would be right")
        for method in ("deposit", "try_spend"):
            if budget is not None and not callable(getattr(budget, method, None)):
                raise ConfigError(f"Hedge: budget is {budget!r}; a Budget would be right")
        self.after, self.percentile, self.attempts = after, percentile, attempts
        self.budget, self.min_samples, self.on = budget, min_samples, on
        if percentile is None:
            self._tracker = None
            self.delay_ns = after_ns
            return
        tracker = self._tracker
        if tracker is None:
            tracker = Percentile(1, window_ns=_WINDOW_NS, min_samples=1)
        tracker.ppm, tracker.min_samples = max(round(percentile * 1_000_000), 1), min_samples
        learned = tracker.value_ns()
        self.delay_ns = after_ns if learned is None else learned
        self._tracker = tracker

    @property
    def max_threads(self) -> int:
        """How many threads there may be."""
        return self.crew.max_threads

    @property
    def delay(self) -> float | None:
        """The delay now, in seconds; ``None`` while nothing is known."""
        delay_ns = self.delay_ns
        return None if delay_ns is None else delay_ns / NS

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned; what was learned stays."""
        names = ("after", "percentile", "attempts", "budget", "min_samples", "on")
        self._set(**{name: changes.get(name, getattr(self, name)) for name in names})
        self.crew.max_threads = changes.get("max_threads", self.crew.max_threads)

    def snapshot(self) -> dict[str, Any]:
        """Return the delay, what it rests on, and how many extra attempts ran and won."""
        tracker = self._tracker
        return {
            "delay": self.delay,
            "samples": 0 if tracker is None else tracker.samples,
            "started": self.started,
            "won": self.won,
            "threads": self.crew.threads,
        }

    def forked(self) -> None:
        """This is the child of a fork: what was learned stays, the lock is nobody's."""
        self._lock = threading.Lock()

    def begin_anew(self) -> None:
        """This is another world: nothing is learned yet."""
        with self._lock:
            self._pending, self._fold_at_ns, self._tracker = [], 0, None
            self.started = self.won = 0
            self.apply({})

    # --- for the drivers ---------------------------------------------------------------------

    def learn(self, latency_ns: int, now_ns: int) -> None:
        """Count how long a first attempt took; nothing happens without a percentile."""
        pending = self._pending
        pending.append(latency_ns)
        if len(pending) >= _FOLD or now_ns >= self._fold_at_ns or self.delay_ns is None:
            self._fold(now_ns)

    def learn_lost(self, elapsed_ns: int, now_ns: int) -> None:
        """Count a first attempt that lost after ``elapsed_ns``: as twice that.

        Whatever stands above the percentile does not move it. Where more attempts lose than
        there should, the delay is too short, and this lets it grow quickly.
        """
        self.learn(2 * elapsed_ns, now_ns)

    def _fold(self, now_ns: int) -> None:
        """Let the tracker have what was gathered; another thread that does it now suffices."""
        tracker = self._tracker
        if tracker is None:
            self._pending.clear()
            return
        if_free(self._lock, partial(self._fold_locked, tracker, now_ns))

    def _fold_locked(self, tracker: Percentile, now_ns: int) -> None:
        pending, self._pending = self._pending, []
        for latency_ns in pending:
            tracker.record(latency_ns, now_ns)
        learned = tracker.value_ns()
        if learned is None and self.after is not None:
            learned = round(self.after * NS)
        self.delay_ns = learned
        self._fold_at_ns = now_ns + NS

    def grant(self, now_ns: int) -> bool:
        """Whether the budget allows one more attempt; it is charged for it."""
        return self.budget is None or self.budget.try_spend(now_ns)

    def failed(self, sides: Sides, number: int, error: BaseException) -> str:
        """Say what follows the failure of an attempt; see ``Sides.failed``."""
        again = self.on is not None and isinstance(error, self.on)
        answer = isinstance(error, CommandError | InvariantError) or (
            # An attempt that was refused, or found another one under way, is no answer.
            self.on is not None and not again and not isinstance(error, RejectedError)
        )
        return sides.failed(number, error, again=again, answer=answer)

    def tell_started(self, world: World, name: str, number: int) -> None:
        """Count and tell an attempt beside the first."""
        from outlast.protect.events import HedgeStarted

        self.started += 1
        world.events.emit(HedgeStarted(name=self.name or name, attempt=number + 1))

    def tell_won(self, world: World, name: str, number: int) -> None:
        """Count and tell that another attempt than the first has won."""
        from outlast.protect.events import HedgeWon

        self.won += 1
        world.events.emit(HedgeWon(name=self.name or name, attempt=number + 1))

    # --- wrapping ----------------------------------------------------------------------------

    def wrap_async(
        self, function: Callable[..., Any], policy_name: str, *, deposit: bool = True
    ) -> Callable[..., Any]:
        """Return a coroutine function that hedges ``function``.

        Args:
            function: A coroutine function.
            policy_name: For events, unless the hedge has a name.
            deposit: Whether to count each call in the budget; not where a retry of the same
                policy has the same budget and does so.
        """
        from outlast.protect.hedge_async import hedge_async

        return hedge_async(self, function, policy_name, deposit=deposit)

    def wrap_blocking(
        self, function: Callable[..., Any], policy_name: str, *, deposit: bool = True
    ) -> Callable[..., Any]:
        """Return a function that hedges ``function``, which blocks; see :meth:`wrap_async`."""
        from outlast.protect.hedge_blocking import hedge_blocking

        return hedge_blocking(self, function, policy_name, deposit=deposit)


def hedge_context(number: int, name: str) -> CallInfo:
    """Return what the attempt ``number`` is to know of the call."""
    outer = current_call_var.get()
    if outer is None:
        return CallInfo(hedge=number, policy=name)
    return CallInfo(outer.key, outer.attempt, number, outer.policy or name)
