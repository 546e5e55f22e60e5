"""``Retry``: calls again what failed, when that is worth it."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from outlast.kernel import ConfigError, Deadline, Prng
from outlast.protect.core.filter import ErrorFilter
from outlast.protect.core.retry import Backoff, GiveUp, Jitter, RetryAfter, RetryRules
from outlast.protect.kinds import kind_of
from outlast.protect.part import Part

if TYPE_CHECKING:
    from outlast.protect.budget import Budget

Nested = Literal["collapse", "allow"]


class Retry(Part):
    """Which errors are worth another attempt, how many, and after what wait.

    The last exception comes through itself, with a note of what was tried. Retries of policies
    inside each other do not multiply: an error that an inner one has already retried is not
    retried again, and in a repeated attempt (also one announced by a header) inner policies make
    one attempt.

    Args:
        on: Exception class, tuple of classes, or a function that tells of an exception whether
            it is meant. Naming a foreign exception here says that the call may be repeated
            after it. ``CommandError`` (an answer) and ``InvariantError`` (our bug) are never
            retried. A refusal by a part of the same policy (its breaker is open, its limit is
            full) is meant only by ``RejectedError`` or a class of it, not by ``Exception`` or a
            function. If a function raises, the error is not meant, and gets a note.
        attempts: Calls at most, the first included; ``None`` for no limit but the deadline.
        base: Widest wait before attempt 2, in seconds; see :class:`Backoff`.
        cap: Ceiling for any one wait, in seconds; see :class:`Backoff`.
        retry_after_cap: Longest wait, in seconds, that a callee may ask for with
            ``RejectedError.retry_after`` or a ``Retry-After`` header; what it asks beyond that is
            cut. A callee's wish below the drawn wait changes nothing.
        repeat_indefinite: Also repeat after errors of outlast whose ``happened`` is
            ``"maybe"``. Only for calls that may take effect twice, or that are recognised
            when repeated. Attempts that the policy's own ``attempt_timeout`` has cut off are
            such; with ``idempotency=`` in the policy they are repeated without it.
        jitter: ``"full"``, ``"equal"``, ``"decorrelated"`` or ``"none"``; see :class:`Backoff`.
        factor: By which the widest wait grows each time.
        on_result: A function that tells of a result whether to call again. The last result is
            returned as it is.
        budget: What all retries and hedges that share it may add to the load.
        nested: ``"collapse"``, or ``"allow"`` for retries of retries.
        between: Called with the error before each wait, for example to refresh a token; may be a
            coroutine function where coroutines are protected.
        name: In events and metrics.

    Raises:
        ConfigError: A value is out of range, or ``on`` names only errors that may have
            happened and ``repeat_indefinite`` is not set.
    """

    position: ClassVar[str] = "retry"
    settings: ClassVar[tuple[str, ...]] = (
        "on", "attempts", "base", "cap", "retry_after_cap", "repeat_indefinite", "jitter",
        "factor", "nested",
    )  # fmt: skip

    __slots__ = ("between", "budget", "nested", "on_result", "rules")

    def __init__(
        self,
        on: ErrorFilter,
        attempts: int | None = 3,
        *,
        base: float = 0.1,
        cap: float = 5.0,
        retry_after_cap: float = 60.0,
        repeat_indefinite: bool = False,
        jitter: Jitter = "full",
        factor: float = 2.0,
        on_result: Callable[[Any], bool] | None = None,
        budget: "Budget | None" = None,
        nested: Nested = "collapse",
        between: Callable[[Exception], Awaitable[object] | object] | None = None,
        name: str = "",
    ) -> None:
        super().__init__(name)
        backoff = Backoff(base, cap, jitter=jitter, factor=factor)
        self.rules = RetryRules(on, attempts, backoff, retry_after_cap, repeat_indefinite)
        if nested not in {"collapse", "allow"}:
            raise ConfigError(f"Retry: nested is {nested!r}; collapse or allow")
        self.on_result = on_result
        self.budget = budget
        self.nested: Nested = nested
        self.between = between

    def refuse_blocking(self) -> None:
        """Check at decoration that a plain function can be retried.

        Raises:
            TypeError: ``between`` is a coroutine function.
        """
        if self.between is not None and kind_of(self.between) == "async":
            shown = getattr(self.between, "__qualname__", repr(self.between))
            raise TypeError(f"Retry: {shown} is a coroutine function; a plain one is needed")

    def decide(
        self,
        error: BaseException,
        *,
        attempt: int,
        now_ns: int,
        deadline: Deadline | None,
        prng: Prng,
    ) -> RetryAfter | GiveUp:
        """Decide what follows a failed attempt; see ``RetryRules.decide``."""
        return self.rules.decide(
            error, attempt=attempt, now_ns=now_ns, deadline=deadline, prng=prng
        )

    @property
    def on(self) -> ErrorFilter:
        """Which errors are retried."""
        return self.rules.on

    @property
    def attempts(self) -> int | None:
        """Calls at most, the first included."""
        return self.rules.attempts

    @property
    def backoff(self) -> Backoff:
        """The waits between attempts."""
        return self.rules.backoff

    @property
    def base(self) -> float:
        """Widest wait before attempt 2, in seconds."""
        return self.rules.backoff.base

    @property
    def cap(self) -> float:
        """Ceiling for any one wait, in seconds."""
        return self.rules.backoff.cap

    @property
    def jitter(self) -> Jitter:
        """How a wait is drawn."""
        return self.rules.backoff.jitter

    @property
    def factor(self) -> float:
        """By which the widest wait grows each time."""
        return self.rules.backoff.factor

    @property
    def retry_after_cap(self) -> float:
        """Longest wait that a callee may ask for, in seconds."""
        return self.rules.retry_after_cap

    @property
    def repeat_indefinite(self) -> bool:
        """Whether calls that may have happened are repeated."""
        return self.rules.repeat_indefinite

    def apply(self, changes: dict[str, Any]) -> None:
        """Take new settings; calls under way go on with them."""
        merged = {name: getattr(self, name) for name in self.settings} | changes
        backoff = Backoff(
            merged["base"], merged["cap"], jitter=merged["jitter"], factor=merged["factor"]
        )
        self.rules = RetryRules(
            merged["on"], merged["attempts"], backoff, merged["retry_after_cap"],
            merged["repeat_indefinite"],
        )  # fmt: skip
        self.nested = merged["nested"]
