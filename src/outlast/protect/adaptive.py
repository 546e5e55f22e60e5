"""``AdaptiveLimit``: a limit that finds out by itself how much the other side can take."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from outlast.kernel import ConfigError, OverloadedError, Prng, RejectedError, current_world
from outlast.protect.checks import check_whole
from outlast.protect.core.adaptive import Algorithm, Gradient, LimitState
from outlast.protect.if_free import if_free
from outlast.protect.permits import NORMAL, PERMITS_MAX, Permits

_NS = 1_000_000_000
_SAMPLES_MAX = 4096
_BATCH_MAX = 16

_WHY = {
    "full": "and the queue is full",
    "evicted": "and a call of higher priority took the place in the queue",
    "waited": "and none ended within max_wait",
}

_priority: ContextVar[int] = ContextVar("outlast_priority", default=NORMAL)


def current_priority() -> int:
    """Return the priority of this context; 1 if none was said."""
    return _priority.get()


class priority:
    """Say how important the calls inside the block are, to every limit on their way.

    0 is shed first; 1 is what calls have without it; larger is kept longer. The innermost block
    counts. Usable with ``with`` and ``async with``, and again after it was left.

    Args:
        level: 0 or more.

    Raises:
        ConfigError: Definite. ``level`` is not a whole number from 0 to 1000000.

    >>> with priority(0):
    ...     current_priority()
    0
    """

    __slots__ = ("_level", "_tokens")

    def __init__(self, level: int) -> None:
        self._level = check_whole("priority", "level", level, 0, PERMITS_MAX)
        self._tokens: list[Token[int]] = []

    def __enter__(self) -> None:
        """Set the priority."""
        self._tokens.append(_priority.set(self._level))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the outer priority."""
        # An abandoned generator is closed in whatever context it is found in.
        with suppress(ValueError):
            _priority.reset(self._tokens.pop())

    async def __aenter__(self) -> None:
        """Set the priority."""
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the outer priority."""
        self.__exit__(kind, error, trace)


class AdaptiveLimit(Permits):
    """At most as many calls at a time as the other side can serve, learnt from their latency.

    Behaves as :class:`~outlast.protect.Bulkhead` does, with a limit that moves. Under pressure
    calls of low priority go first: the queue is ordered by priority and then by arrival, a full
    queue gives the place of its newest caller of the lowest priority to one of a higher, and a
    ``reserve`` of the permits is for priorities above 1 alone.

    Args:
        algorithm: ``Gradient()``, ``Vegas()`` or ``AIMD()``; ``Gradient()`` by default.
        initial: The limit to begin with.
        min: The limit never falls below it. 1 or more.
        max: The limit never grows above it.
        queue: How many callers may wait.
        max_wait: How long one of them may wait, in seconds; ``None``: as long as its deadline.
        priority: Returns the priority of a call; that of ``with priority(level):`` by default.
        reserve: The part of the permits that only calls of a priority above 1 can take, from 0
            to 0.9; one permit stays for all.
        name: Shown in events and metrics; by default that of the policy.

    Raises:
        OverloadedError: Definite. No permit was to be had; nothing was sent. ``retry_after`` is
            about when those that were before would have ended.
        TooLateError: Definite. The deadline passed in the queue; nothing was sent.
        ConfigError: Definite. A setting is wrong.
    """

    settings = ("algorithm", "initial", "min", "max", "queue", "max_wait", "priority", "reserve")
    timed = True

    __slots__ = (
        "_digesting", "_samples", "_share", "_state", "_told", "algorithm", "initial", "max",
        "min", "priority",
    )  # fmt: skip

    def __init__(
        self,
        algorithm: Algorithm | None = None,
        *,
        initial: int = 20,
        min: int = 1,
        max: int = 200,
        queue: int = 0,
        max_wait: float | None = None,
        priority: Callable[[], int] | None = None,
        reserve: float = 0.0,
        name: str = "",
    ) -> None:
        self.min = check_whole("AdaptiveLimit", "min", min, 1, PERMITS_MAX)
        self.max = check_whole("AdaptiveLimit", "max", max, min, PERMITS_MAX)
        self.initial = check_whole("AdaptiveLimit", "initial", initial, min, max)
        if not 0 <= reserve <= 0.9:
            message = f"AdaptiveLimit: reserve is {reserve!r}; from 0 to 0.9 would be right"
            raise ConfigError(message)
        self.algorithm: Algorithm = Gradient() if algorithm is None else algorithm
        begin: object = getattr(self.algorithm, "begin", None)
        if not callable(begin):
            right = "Gradient(), Vegas() or AIMD() would be right"
            raise ConfigError(f"AdaptiveLimit: algorithm is {algorithm!r}; {right}")
        given: object = priority
        if given is not None and not callable(given):
            right = "a function without arguments, or None, would be right"
            raise ConfigError(f"AdaptiveLimit: priority is {priority!r}; {right}")
        self.priority = priority
        super().__init__(initial, queue=queue, max_wait=max_wait, name=name)
        self._share = reserve
        self._state: LimitState | None = None  # made at the first sample, in the world of that
        self._told = initial
        self._samples: deque[tuple[int, int, bool, int]] = deque(maxlen=_SAMPLES_MAX)
        self._digesting = threading.Lock()
        if reserve:
            self._fit(initial)

    @property
    def limit(self) -> int:
        """How many calls may run at a time now."""
        return self._size

    @property
    def reserve(self) -> float:
        """The part of the permits that is kept for priorities above 1."""
        return self._share

    def sample(self, elapsed_ns: int, outcome: str, now_ns: int) -> None:
        """Take the time of a call that has ended and still holds its permit.

        Args:
            elapsed_ns: How long it took, without the wait for its permit.
            outcome: ``"ok"``, ``"failed"`` or ``"cancelled"``; the last says nothing of the
                other side and is passed over.
            now_ns: The monotonic time of its end.
        """
        if outcome == "cancelled":
            return
        flights = self._size + self._debt - len(self._free) - len(self._reserved)
        samples = self._samples
        samples.append((elapsed_ns, flights, outcome == "ok", now_ns))
        if len(samples) >= _BATCH_MAX or len(samples) * 2 > self._size:
            self._digest()

    def snapshot(self) -> dict[str, Any]:
        """Return the limit, how many calls run and wait, and their mean time in seconds."""
        rtt_ns = self._state.rtt_ns if self._state else 0
        return {
            "limit": self._size,
            "in_flight": self.in_flight,
            "waiting": self.waiting,
            "latency": rtt_ns / _NS,
        }

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned; another algorithm begins at this limit."""
        with self._digesting:
            self._change_queue(changes)
            self._share = changes.get("reserve", self._share)
            for key in ("initial", "min", "max", "priority"):
                if key in changes:
                    setattr(self, key, changes[key])
            if "algorithm" in changes:
                self.algorithm = changes["algorithm"] or Gradient()
                self._state = None
            if self._state is not None:
                self._state.bound(self.min, self.max)
            size = max(self.min, min(self.max, self._size))
        self._fit(size)

    def _level(self, priority: int | None) -> int:
        if priority is not None:
            return priority
        return _priority.get() if self.priority is None else self.priority()

    def _refusal(self, reason: str) -> RejectedError:
        message = f"{self._shown()}: {self._size} calls are running {_WHY[reason]}"
        rtt_ns = self._state.rtt_ns if self._state else 0
        after = rtt_ns / _NS * (self._waiting + 1) / self._size if rtt_ns else None
        return OverloadedError(message, retry_after=after)

    def _digest(self) -> None:
        """Show the samples to the algorithm, unless another thread does so now."""
        before = self._size
        if_free(self._digesting, self._digest_locked)
        limit = self._size
        if limit != before and abs(limit - self._told) * 10 >= self._told:
            self._tell(limit)

    def _digest_locked(self) -> None:
        """Take the limit that the algorithm makes of the samples."""
        state = self._state
        if state is None:
            prng = Prng(current_world().prng.bits64())
            state = self.algorithm.begin(self._size, self.min, self.max, prng)
            self._state = state
        # Others add to them meanwhile, and nobody else takes any away.
        take = self._samples.popleft
        samples = [take() for _ in range(len(self._samples))]
        at_once = getattr(state, "on_samples", None)
        limit = self._size
        if at_once is not None:
            limit = at_once(samples)
        else:
            for sample in samples:
                limit = state.on_sample(*sample)
        if limit != self._size:
            self._fit(limit)

    def _fit(self, limit: int) -> None:
        self._resize(limit, min(int(limit * self._share), limit - 1))

    def _tell(self, limit: int) -> None:
        """Emit an event for a change of a tenth or more since the last one."""
        from outlast.protect.events import LimitChanged

        before, self._told = self._told, limit
        current_world().events.emit(LimitChanged(name=self.name, before=before, after=limit))

    def begin_anew(self) -> None:
        """In another world: nothing is learned yet; see the base class."""
        with self._digesting:
            self._samples.clear()
            self._state = None
            self._told = self.initial
        self._fit(self.initial)
        super().begin_anew()

    def forked(self) -> None:
        """In the child of a fork: see the base class."""
        super().forked()
        self._digesting = threading.Lock()
        self._samples.clear()
