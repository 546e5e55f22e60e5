"""A plan is what one fused frame works from: the parts of a policy between two wrapping ones."""

from typing import TYPE_CHECKING, Any

from outlast.protect.core.breaker import BreakerCore
from outlast.protect.core.tally import Tally
from outlast.protect.watch import Watches

if TYPE_CHECKING:
    from outlast.protect.breaker import CircuitBreaker
    from outlast.protect.fallback import Fallback
    from outlast.protect.permits import Permits
    from outlast.protect.rate import RateLimit
    from outlast.protect.retry import Retry
    from outlast.protect.sender import Idempotency

_NS = 1_000_000_000


class Plan:
    """Parts and limits of one fused frame, in canonical order.

    Frames read limits of time through it at each call, so that they can be changed live.

    Attributes:
        name: Of the policy.
        positions: Which stand in this frame.
        whole_ns: How long the whole call may take; 0 for no limit.
        attempt_ns: How long one attempt may take; 0 for no limit.
        bounded: Whether there is any of the two.
        failing: What a test has put in the place of ``attempt_ns``.
        core: The breaker's rules, whose ``round`` frames read.
        tally: How many calls ended how.
        succeeded: Counts a call that succeeded; atomic.
        wraps: Whether another frame of the policy stands inside of this one.
        keyed: Whether calls have a key of the policy, by which a repeat is recognised.
        judges: Whether results are looked at.
        learns: Whether the rate limit wants to know how calls end.
    """

    __slots__ = (
        "attempt_ns", "attempt_watches", "bounded", "breaker", "core", "failing", "fallback",
        "idempotency", "judges", "keyed", "learns", "limit", "name", "positions", "rate", "retry",
        "succeeded", "tally", "whole_ns", "whole_watches", "wraps",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        tally: Tally,
        positions: tuple[str, ...] = (),
        *,
        retry: "Retry | None" = None,
        breaker: "CircuitBreaker | None" = None,
        rate: "RateLimit | None" = None,
        limit: "Permits | None" = None,
        fallback: "Fallback | None" = None,
        idempotency: "Idempotency | None" = None,
    ) -> None:
        self.name = name
        self.positions = positions
        self.tally = tally
        self.succeeded = tally.succeeded
        self.retry = retry
        self.breaker = breaker
        self.core: BreakerCore | None = None if breaker is None else breaker.core
        self.rate = rate
        self.limit = limit
        self.fallback = fallback
        self.idempotency = idempotency
        self.whole_ns = 0
        self.attempt_ns = 0
        self.failing: Any = None
        self.bounded = False
        self.wraps = False
        self.keyed = idempotency is not None
        self.attempt_watches = Watches()
        self.whole_watches = Watches(late=True)
        self.learns: bool = rate is not None and rate.listens
        self.judges = (breaker is not None and breaker.counts_result is not None) or (
            retry is not None and retry.on_result is not None
        )

    @property
    def admits(self) -> bool:
        """Whether only errors matter: no call is refused or counted, no result is looked at."""
        return (
            self.breaker is None
            and self.rate is None
            and self.limit is None
            and self.idempotency is None
            and not self.judges
            and (self.retry is None or self.retry.budget is None)
        )

    @property
    def timed(self) -> bool:
        """Whether a part wants to know when an attempt began."""
        return (
            (self.breaker is not None and self.breaker.timed)
            or (self.limit is not None and self.limit.timed)
            or self.learns
        )

    def force(self, failing: Any) -> None:
        """Let attempts fail; see ``Policy.forced``.

        Every frame adds ``attempt_ns`` to the time, if there is a limit, and calls the function
        next. So a number that cannot be added is an attempt that fails, at no cost without it.
        """
        self.failing = failing
        if failing is not None:
            self.attempt_ns, self.bounded = failing, True

    def bound(self, whole: float | None, attempt: float | None) -> None:
        """Set the limits of time, in seconds; ``None`` for none."""
        self.whole_ns = 0 if whole is None else max(round(whole * _NS), 1)
        self.attempt_ns = 0 if attempt is None else max(round(attempt * _NS), 1)
        self.bounded = bool(self.whole_ns or self.attempt_ns)
