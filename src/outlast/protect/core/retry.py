"""Whether to call again, and when.

A retry helps when the failure is short and the call may be repeated; it harms when the callee is
overloaded, or when the first call did happen. So the decision asks in this order: is the error
one that the caller named, may the call have had an effect, are attempts left, is time left; and
the wait is drawn at random, so that callers which failed together do not come back together.

The decider holds no state: the attempt number is passed in, and one object serves any number of
calls, threads and loops.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from outlast.kernel import (
    CommandError,
    ConfigError,
    Deadline,
    InvariantError,
    OutlastError,
    Prng,
    RejectedError,
)

_NS: Final = 1_000_000_000

ErrorFilter = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]
"""Exception classes, or a plain function that tells of one exception whether it is meant."""


def _nanoseconds(seconds: float) -> int:
    return round(seconds * _NS)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full-jitter exponential backoff between attempts.

    Before attempt *n* (the first is 1), wait a time drawn evenly from zero to
    ``min(cap, base * 2**(n - 2))``. Even draws spread callers that failed together
    (Brooker, "Exponential Backoff and Jitter", 2015).

    Args:
        base: Widest wait before attempt 2, in seconds. Above 0.
        cap: Ceiling for any one wait, in seconds. At least ``base``.

    Raises:
        ConfigError: ``cap < base``, or either is not positive.

    >>> Backoff(base=0.1, cap=5.0).ceiling(attempt=4)
    0.4
    """

    base: float = 0.1
    cap: float = 5.0

    def __post_init__(self) -> None:
        """Check both values and their relation."""
        for name in ("base", "cap"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"Backoff: {name} is {value}; it must be above 0 and finite")
        if self.cap < self.base:
            raise ConfigError(f"Backoff: cap ({self.cap} s) is below base ({self.base} s)")

    def ceiling(self, attempt: int) -> float:
        """Return the widest wait before ``attempt``, in seconds; 0 before the first."""
        return self.ceiling_ns(attempt) / _NS

    def ceiling_ns(self, attempt: int) -> int:
        """Return the widest wait before ``attempt``, in nanoseconds; 0 before the first."""
        if attempt < 2:
            return 0
        cap = _nanoseconds(self.cap)
        # Beyond 64 doublings the cap has long been reached; do not build huge integers.
        return min(cap, _nanoseconds(self.base) << min(attempt - 2, 64))

    def draw_ns(self, attempt: int, prng: Prng) -> int:
        """Return the wait before ``attempt``, in nanoseconds: an even draw up to the ceiling."""
        return prng.between(0, self.ceiling_ns(attempt))

    def delay(self, attempt: int, prng: Prng) -> float:
        """Return the wait before ``attempt``, in seconds; :meth:`draw_ns` for drivers."""
        return self.draw_ns(attempt, prng) / _NS


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Wait ``delay_ns``, then call again."""

    delay_ns: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Let the error through. ``reason`` says why in a few words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Which errors are worth another attempt, how many, and after what wait.

    Args:
        on: Exception class, tuple of classes, or a function that tells of an exception whether
            it is meant. Naming a foreign exception here says that the call may be repeated
            after it. ``CommandError`` (an answer) and ``InvariantError`` (our bug) are never
            retried.
        attempts: Calls at most, the first included; ``None`` for no limit but the deadline.
        base: See :class:`Backoff`.
        cap: See :class:`Backoff`.
        retry_after_cap: Longest wait, in seconds, that a callee may ask for with
            ``RejectedError.retry_after``; what it asks beyond that is cut. A callee's wish
            below the drawn wait changes nothing.
        repeat_indefinite: Also repeat after errors of outlast whose ``happened`` is
            ``"maybe"``. Only for calls that may take effect twice, or that are recognised
            when repeated.

    Raises:
        ConfigError: A value is out of range, or ``on`` names only errors that may have
            happened and ``repeat_indefinite`` is not set.
    """

    on: ErrorFilter
    attempts: int | None = 3
    base: float = 0.1
    cap: float = 5.0
    retry_after_cap: float = 60.0
    repeat_indefinite: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if self.attempts is not None and self.attempts < 1:
            raise ConfigError(
                f"Retry: attempts is {self.attempts}; it counts the first call, so 1 or more, "
                "or None for no limit"
            )
        if self.retry_after_cap < 0:
            raise ConfigError(f"Retry: retry_after_cap is {self.retry_after_cap}; 0 or more")
        _ = self.backoff
        for named in _classes(self.on):
            self._check_named(named)

    def _check_named(self, named: object) -> None:
        if not (isinstance(named, type) and issubclass(named, BaseException)):
            raise ConfigError(f"Retry: on holds {named!r}; give exception classes or a function")
        if not issubclass(named, Exception):
            raise ConfigError(
                f"Retry: on names {named.__name__}, which ends programs and tasks; "
                "it is never retried"
            )
        if named is OutlastError or not issubclass(named, OutlastError):
            return
        if named.happened != "no" and not self.repeat_indefinite:
            raise ConfigError(
                f"Retry: on names {named.__name__}, after which the call may have happened; "
                "add repeat_indefinite=True if it can safely be repeated"
            )

    @property
    def backoff(self) -> Backoff:
        """The waits between attempts."""
        return Backoff(self.base, self.cap)

    def decide(
        self,
        error: BaseException,
        *,
        attempt: int,
        now_ns: int,
        deadline: Deadline | None,
        prng: Prng,
    ) -> RetryAfter | GiveUp:
        """Decide what follows a failed attempt.

        Args:
            error: What the attempt raised.
            attempt: Its number; the first is 1.
            now_ns: Monotonic time.
            deadline: When the whole call must have ended, ``None`` for never.
            prng: Where the wait is drawn from.
        """
        reason = self._refuses(error)
        if reason is not None:
            return GiveUp(reason)
        if self.attempts is not None and attempt >= self.attempts:
            return GiveUp(f"{attempt} of {self.attempts} attempts used")
        delay_ns = self.backoff.draw_ns(attempt + 1, prng)
        asked = error.retry_after if isinstance(error, RejectedError) else None
        if asked is not None:
            delay_ns = max(delay_ns, _nanoseconds(max(0.0, min(asked, self.retry_after_cap))))
        if deadline is not None and deadline.passed(now_ns + delay_ns):
            left = deadline.left_ns(now_ns) / _NS
            return GiveUp(f"the next wait of {delay_ns / _NS:.3f} s does not fit in {left:.3f} s")
        return RetryAfter(delay_ns)

    def _refuses(self, error: BaseException) -> str | None:
        if not isinstance(error, Exception):
            return f"{type(error).__name__} is not a failure of the call"
        if isinstance(error, (CommandError, InvariantError)):
            return f"{type(error).__name__} is never retried"
        on = self.on
        if isinstance(on, type | tuple):
            if not isinstance(error, on):
                return f"{type(error).__name__} is not among the errors to retry"
        elif not on(error):
            return f"{type(error).__name__} is not among the errors to retry"
        if isinstance(error, OutlastError) and error.happened != "no":
            if error.happened == "yes":
                return "the call has happened"
            if not self.repeat_indefinite:
                return "the call may have happened, and repeat_indefinite is not set"
        return None


def _classes(on: ErrorFilter) -> tuple[type[BaseException], ...]:
    if isinstance(on, tuple):
        return on
    return (on,) if isinstance(on, type) else ()
