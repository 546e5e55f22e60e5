"""``AdaptiveRate``: a rate limit that finds the rate which the callee bears."""

import threading
from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar, Final

from outlast.kernel import ConfigError, current_world
from outlast.protect.checks import DAY, check_ns, check_number
from outlast.protect.core.rate import MICRO, NS, Aimd
from outlast.protect.rate import RateLimit, default_burst, per_ns, rate_micro, wait_ns

_STEPS_MAX: Final = 100_000


class AdaptiveRate(RateLimit):
    """A rate limit that is cut when the callee says "too many" and grows while it does not.

    A throttled answer (429, ``RESOURCE_EXHAUSTED``, our ``RateLimitedError`` …) cuts the rate to
    ``cut`` of what it was; each period's worth of successes at the present rate raises it by
    ``step`` (AIMD: Chiu and Jain, 1989). One overload cuts once: answers to calls that began
    before the cut, or, where that is not known, answers within one period after it, do not count.
    If the callee says when to come again, nothing starts before that, and then one call per
    interval. A callee that is hardly called is not taken to bear more: only successes raise the
    rate. They are counted when next a call finds no free slot; until then the rate does not
    matter.

    Policies tell it how calls end. Alone: call :meth:`succeeded` and :meth:`throttled`.

    Args:
        rate: Calls per ``per`` to begin with.
        per: Seconds.
        floor: Never cut below this rate; a hundredth of ``rate`` by default.
        ceiling: Never raised above this rate; ``rate`` by default.
        step: By how much the rate is raised; a twentieth of ``ceiling`` by default.
        cut: What is left after a cut, between 0 and 1.
        burst: Calls that may start at once after a pause; by default those of one period.
        max_wait: Longest wait for a slot in seconds; 0: refuse at once.
        retry_after_cap: Longest pause that a callee may ask for, in seconds.
        name: In events and metrics.

    Raises:
        RateLimitedError: Definite. The wait would be too long.
        ConfigError: Definite. A setting is wrong, or two contradict each other.

    >>> limit = AdaptiveRate(100)
    >>> limit.throttled()
    >>> limit.current
    50.0
    """

    listens: ClassVar[bool] = True
    settings: ClassVar[tuple[str, ...]] = (
        "rate", "per", "floor", "ceiling", "step", "cut", "burst", "max_wait", "retry_after_cap",
    )  # fmt: skip

    __slots__ = (
        "_aimd", "_ceiling", "_cut", "_floor", "_learning", "_nominal", "_read", "_step",
        "retry_after_cap", "succeeded",
    )  # fmt: skip

    def __init__(
        self,
        rate: float,
        per: float = 1.0,
        *,
        floor: float | None = None,
        ceiling: float | None = None,
        step: float | None = None,
        cut: float = 0.5,
        burst: int | None = None,
        max_wait: float = 0.0,
        retry_after_cap: float = 60.0,
        name: str = "",
    ) -> None:
        super().__init__(rate, per, burst=burst, max_wait=max_wait, name=name)
        self._nominal, self._floor, self._ceiling, self._step = rate, floor, ceiling, step
        self._cut = cut
        check_ns("AdaptiveRate", "retry_after_cap", retry_after_cap, 0, DAY)
        self.retry_after_cap = retry_after_cap
        self._learning = threading.Lock()
        # Counted without a lock; our own readings are counted too, and subtracted.
        self._read = 0
        self.succeeded: Callable[[], int] = count().__next__
        """Call it after each success. Atomic, and next to free."""
        self._aimd = Aimd(self.core.rate_micro, per_ns=self.core.per_ns, **self._bounds())

    def _bounds(self) -> dict[str, int]:
        """Check the settings together and return them as the rule takes them."""
        kind = "AdaptiveRate"
        low = rate_micro(kind, "floor", self.floor)
        high = rate_micro(kind, "ceiling", self.ceiling)
        step = rate_micro(kind, "step", self.step)
        if not low <= rate_micro(kind, "rate", self._nominal) <= high:
            message = (
                f"AdaptiveRate: rate is {self._nominal!r}, floor {self.floor!r} and ceiling "
                f"{self.ceiling!r}; floor <= rate <= ceiling would be right"
            )
            raise ConfigError(message)
        if step * _STEPS_MAX < high:
            least = high / MICRO / _STEPS_MAX
            message = f"AdaptiveRate: step is {self.step!r}; {least:g} or more would be right"
            raise ConfigError(message)
        cut = round(check_number(kind, "cut", self._cut, 0.01, 0.99, what="a share") * MICRO)
        return {"low": low, "high": high, "step": step, "cut": cut}

    @property
    def rate(self) -> float:
        """Calls per period to begin with; :attr:`current` is what it has come to."""
        return self._nominal

    @property
    def current(self) -> float:
        """Calls per period now. Successes since the last full use are not yet in it."""
        return self._aimd.rate / MICRO

    @property
    def floor(self) -> float:
        """Lowest rate."""
        return max(1 / MICRO, self._nominal / 100) if self._floor is None else self._floor

    @property
    def ceiling(self) -> float:
        """Highest rate."""
        return self._nominal if self._ceiling is None else self._ceiling

    @property
    def step(self) -> float:
        """By how much the rate is raised."""
        return max(1 / MICRO, self.ceiling / 20) if self._step is None else self._step

    @property
    def cut(self) -> float:
        """What is left after a cut."""
        return self._cut

    def reserve(self, now_ns: int) -> int:
        """Take the next slot; see :meth:`RateLimit.reserve`."""
        if self.core.reserve(now_ns, 0) == 0:
            return 0
        self._learn(now_ns)
        return super().reserve(now_ns)

    def throttled(
        self, retry_after: float | None = None, *, started_ns: int | None = None
    ) -> None:
        """The callee has refused a call because there were too many.

        Args:
            retry_after: When the callee wants to be called again, in seconds, if it said so.
            started_ns: Monotonic time at which the call began, if known.
        """
        world = current_world()
        now_ns = world.clock.monotonic_ns()
        self._learn(now_ns)
        with self._learning:
            before = self._aimd.rate
            if self._aimd.throttled(now_ns, started_ns):
                self._put(now_ns)
            after = self._aimd.rate
        if retry_after is not None and retry_after > 0:
            self.core.hold(now_ns + round(min(retry_after, self.retry_after_cap) * NS))
        self._tell(before, after)

    def heard(self, error: Exception, started_ns: int | None = None) -> None:
        """A call has failed with ``error``; whether that is a throttled answer is found out here.

        Only for what the protected function raised: a refusal by a part of its own policy says
        nothing of the callee.
        """
        from outlast.protect.core.classify import classify, retry_after

        if classify(error) == "throttled":
            wall_ns = current_world().clock.wall_ns()
            self.throttled(retry_after(error, wall_ns), started_ns=started_ns)

    def snapshot(self) -> dict[str, Any]:
        """Return how many calls could start now, the rate, and how often it was cut."""
        return {**super().snapshot(), "current": self.current, "cuts": self._aimd.cuts}

    def reset(self) -> None:
        """Forget all calls so far, and what was learned."""
        super().reset()
        with self._learning:
            self._aimd.rate = rate_micro("AdaptiveRate", "rate", self._nominal)
            self._put(current_world().clock.monotonic_ns())

    def forked(self) -> None:
        """This is the child of a fork: what was learned stays, the locks are nobody's."""
        super().forked()
        self._learning = threading.Lock()

    def begin_anew(self) -> None:
        """This is another world: what was learned is forgotten."""
        with self._learning:
            self._read = self.succeeded() + 1
            nominal = rate_micro("AdaptiveRate", "rate", self._nominal)
            self._aimd = Aimd(nominal, per_ns=self.core.per_ns, **self._bounds())
            self._put(0)
        super().begin_anew()

    def check(self, **changes: Any) -> dict[str, Any]:
        """Return ``changes``, checked together with the settings that stay."""
        if not changes.keys() <= set(self.settings):
            return super().check(**changes)
        # What was not said follows from what is said now.
        given = {
            "rate": self._nominal, "per": self.per, "floor": self._floor,
            "ceiling": self._ceiling, "step": self._step, "cut": self._cut, "burst": self._burst,
        }  # fmt: skip
        AdaptiveRate(**{**given, **changes})
        return changes

    def apply(self, changes: dict[str, Any]) -> None:
        """Take settings that :meth:`check` returned.

        A rate that was cut stays where it is, within the bounds; one that was not is the new
        ``rate`` at once.
        """
        kind = "AdaptiveRate"
        if "burst" in changes:
            self._burst = changes["burst"]
        if "max_wait" in changes:
            self._max_wait_ns = wait_ns(kind, "max_wait", changes["max_wait"])
        with self._learning:
            aimd = self._aimd
            untouched = aimd.rate == rate_micro(kind, "rate", self._nominal)
            self._nominal = changes.get("rate", self._nominal)
            self._floor = changes.get("floor", self._floor)
            self._ceiling = changes.get("ceiling", self._ceiling)
            self._step = changes.get("step", self._step)
            self._cut = changes.get("cut", self._cut)
            self.retry_after_cap = changes.get("retry_after_cap", self.retry_after_cap)
            period_ns = per_ns(kind, changes["per"]) if "per" in changes else self.core.per_ns
            if untouched:
                aimd.rate = rate_micro(kind, "rate", self._nominal)
            aimd.change(per_ns=period_ns, **self._bounds())
            self._put(current_world().clock.monotonic_ns())

    # --- inside -------------------------------------------------------------------------------

    def _learn(self, now_ns: int) -> None:
        """Let the successes since the last time raise the rate."""
        with self._learning:
            before = self._aimd.rate
            counted = self.succeeded()
            fresh = counted - self._read
            self._read = counted + 1
            if fresh and self._aimd.succeeded(fresh):
                self._put(now_ns)
            after = self._aimd.rate
        self._tell(before, after)

    def _put(self, now_ns: int) -> None:
        """Let the limit have the rate that was learned."""
        rate = self._aimd.rate
        burst = self._burst or default_burst(rate)
        self.core.change(now_ns, rate, self._aimd.per_ns, burst)

    def _tell(self, before: int, after: int) -> None:
        if before == after:
            return
        from outlast.protect.events import RateCut, RateRaised

        kind = RateRaised if after > before else RateCut
        event = kind(name=self.name, before=before / MICRO, rate=after / MICRO)
        current_world().events.emit(event)
