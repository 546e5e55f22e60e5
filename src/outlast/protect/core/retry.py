"""Whether to call again, and when.

A retry helps when the failure is short and the call may be repeated; it harms when the callee is
overloaded, or when the first call did happen. So the decision asks in this order: is the error
one that the caller named, may the call have had an effect, are attempts left, is time left; and
the wait is drawn at random, so that callers which failed together do not come back together.

The decider holds no state: the attempt number is passed in, and one object serves any number of
calls, threads and loops.
"""

from typing import Final, Literal

from outlast.kernel import (
    CommandError,
    ConfigError,
    Deadline,
    InvariantError,
    OutlastError,
    Prng,
    RejectedError,
)
from outlast.protect.core.filter import ErrorFilter, check_filter, classes, matches

_NS: Final = 1_000_000_000
_LONGEST: Final = 1e9
"""Seconds, some thirty years: a longer wait is as long, and no clock overflows."""

Jitter = Literal["full", "equal", "decorrelated", "none"]
JITTERS: Final = ("full", "equal", "decorrelated", "none")

MAY_HAVE_HAPPENED: Final = "the call may have happened, and repeat_indefinite is not set"
"""Why an attempt is not repeated that a limit of time has cut off, for one."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _nanoseconds(seconds: float) -> int:
    return round(min(seconds, _LONGEST) * _NS)


class Backoff:
    """Exponential backoff between attempts, with jitter.

    The widest wait before attempt *n* (the first is 1) is ``min(cap, base * factor**(n - 2))``.
    What is waited is drawn from it (Brooker, "Exponential Backoff and Jitter", 2015):

    - ``"full"``: evenly from 0 to the widest. Spreads callers that failed together the most.
    - ``"equal"``: evenly from half of the widest to the widest.
    - ``"decorrelated"``: evenly from ``base`` to three times the wait before, at most ``cap``.
    - ``"none"``: the widest. Callers that failed together come back together.

    Args:
        base: Widest wait before attempt 2, in seconds. Above 0.
        cap: Ceiling for any one wait, in seconds. At least ``base``.
        jitter: How a wait is drawn.
        factor: By which the widest wait grows. At least 1.

    Raises:
        ConfigError: ``cap < base``, a value is out of range, or there is no such jitter.

    >>> Backoff(base=0.1, cap=5.0).ceiling(attempt=4)
    0.4
    """

    __slots__ = ("base", "cap", "factor", "jitter")

    def __init__(
        self, base: float = 0.1, cap: float = 5.0, *, jitter: Jitter = "full", factor: float = 2.0
    ) -> None:
        for name, value in (("base", base), ("cap", cap)):
            if not (_is_number(value) and 0 < value < float("inf")):
                raise ConfigError(f"Backoff: {name} is {value}; it must be above 0 and finite")
        if cap < base:
            raise ConfigError(f"Backoff: cap ({cap} s) is below base ({base} s)")
        if jitter not in JITTERS:
            raise ConfigError(f"Backoff: jitter is {jitter!r}; one of {', '.join(JITTERS)}")
        if not (_is_number(factor) and 1 <= factor < float("inf")):
            raise ConfigError(f"Backoff: factor is {factor!r}; 1 or more")
        self.base = base
        self.cap = cap
        self.jitter: Jitter = jitter
        self.factor = factor

    def __repr__(self) -> str:
        return f"Backoff({self.base:g}, {self.cap:g}, jitter={self.jitter!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Backoff) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[float, float, str, float]:
        return self.base, self.cap, self.jitter, self.factor

    def ceiling(self, attempt: int) -> float:
        """Return the widest wait before ``attempt``, in seconds; 0 before the first."""
        return self.ceiling_ns(attempt) / _NS

    def ceiling_ns(self, attempt: int) -> int:
        """Return the widest wait before ``attempt``, in nanoseconds; 0 before the first."""
        if attempt < 2:
            return 0
        cap = _nanoseconds(self.cap)
        # Beyond 64 doublings the cap has long been reached; do not build huge numbers.
        steps = min(attempt - 2, 64)
        if self.factor == 2.0:
            return min(cap, _nanoseconds(self.base) << steps)
        try:
            return _nanoseconds(min(self.cap, self.base * self.factor**steps))
        except OverflowError:
            return cap

    def draw_ns(self, attempt: int, prng: Prng, previous_ns: int = 0) -> int:
        """Return the wait before ``attempt``, in nanoseconds.

        Args:
            attempt: The attempt that follows the wait.
            prng: Where it is drawn from.
            previous_ns: The wait before the attempt before; 0 if there was none.
        """
        ceiling = self.ceiling_ns(attempt)
        if self.jitter == "full":
            return prng.between(0, ceiling)
        if self.jitter == "equal":
            return prng.between(ceiling // 2, ceiling)
        if self.jitter == "decorrelated" and ceiling:
            base = _nanoseconds(self.base)
            widest = max(3 * (previous_ns or base), base)
            return min(prng.between(base, widest), _nanoseconds(self.cap))
        return ceiling

    def delay(self, attempt: int, prng: Prng) -> float:
        """Return the wait before ``attempt``, in seconds; :meth:`draw_ns` for drivers."""
        return self.draw_ns(attempt, prng) / _NS


class RetryAfter:
    """Wait ``delay_ns``, then call again."""

    __slots__ = ("delay_ns",)

    def __init__(self, delay_ns: int) -> None:
        self.delay_ns = delay_ns

    def __repr__(self) -> str:
        return f"RetryAfter(delay_ns={self.delay_ns})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RetryAfter) and other.delay_ns == self.delay_ns

    def __hash__(self) -> int:
        return hash(self.delay_ns)


class GiveUp:
    """Let the error through. ``reason`` says why in a few words."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"GiveUp(reason={self.reason!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GiveUp) and other.reason == self.reason

    def __hash__(self) -> int:
        return hash(self.reason)


class RetryRules:
    """Which errors are worth another attempt, how many, and after what wait.

    Args: see :class:`outlast.protect.Retry`.

    Raises:
        ConfigError: A value is out of range, or ``on`` names only errors that may have
            happened and ``repeat_indefinite`` is not set.
    """

    __slots__ = ("attempts", "backoff", "on", "repeat_indefinite", "retry_after_cap")

    def __init__(
        self,
        on: ErrorFilter,
        attempts: int | None,
        backoff: Backoff,
        retry_after_cap: float,
        repeat_indefinite: bool,
    ) -> None:
        if attempts is not None and not (type(attempts) is int and attempts >= 1):
            raise ConfigError(
                f"Retry: attempts is {attempts!r}; it counts the first call, so 1 or more, "
                "or None for no limit"
            )
        if not (_is_number(retry_after_cap) and retry_after_cap >= 0):
            raise ConfigError(f"Retry: retry_after_cap is {retry_after_cap!r}; 0 or more")
        self.on = check_filter("Retry", "on", on)
        self.attempts = attempts
        self.backoff = backoff
        self.retry_after_cap = retry_after_cap
        self.repeat_indefinite = repeat_indefinite
        for named in classes(on):
            self._check_named(named)

    def _check_named(self, named: type[BaseException]) -> None:
        if named is OutlastError or not issubclass(named, OutlastError):
            return
        if named.happened != "no" and not self.repeat_indefinite:
            raise ConfigError(
                f"Retry: on names {named.__name__}, after which the call may have happened; "
                "add repeat_indefinite=True if it can safely be repeated"
            )

    def decide(
        self,
        error: BaseException,
        *,
        attempt: int,
        now_ns: int,
        deadline: Deadline | None,
        prng: Prng,
        previous_ns: int = 0,
        asked: float | None = None,
        recognised: bool = False,
    ) -> RetryAfter | GiveUp:
        """Decide what follows a failed attempt.

        Args:
            error: What the attempt raised.
            attempt: Its number; the first is 1.
            now_ns: Monotonic time.
            deadline: When the whole call must have ended, ``None`` for never.
            prng: Where the wait is drawn from.
            previous_ns: The wait before this attempt; 0 before the first.
            asked: Seconds after which the callee wants to be called again, if it said so.
            recognised: Whether the callee knows a repeat from a second call, by its key.
        """
        reason = self._refuses(error, recognised)
        if reason is not None:
            return GiveUp(reason)
        if asked is None and isinstance(error, RejectedError):
            asked = error.retry_after
        return self.again(
            attempt=attempt, now_ns=now_ns, deadline=deadline, prng=prng,
            previous_ns=previous_ns, asked=asked,
        )  # fmt: skip

    def again(
        self,
        *,
        attempt: int,
        now_ns: int,
        deadline: Deadline | None,
        prng: Prng,
        previous_ns: int = 0,
        asked: float | None = None,
    ) -> RetryAfter | GiveUp:
        """Decide whether attempts and time are left; see :meth:`decide`."""
        if self.attempts is not None and attempt >= self.attempts:
            return GiveUp(f"{attempt} of {self.attempts} attempts used")
        delay_ns = self.backoff.draw_ns(attempt + 1, prng, previous_ns)
        if asked is not None:
            delay_ns = max(delay_ns, _nanoseconds(max(0.0, min(asked, self.retry_after_cap))))
        if deadline is not None and deadline.passed(now_ns + delay_ns):
            left = deadline.left_ns(now_ns) / _NS
            return GiveUp(f"the next wait of {delay_ns / _NS:.3f} s does not fit in {left:.3f} s")
        return RetryAfter(delay_ns)

    def _refuses(self, error: BaseException, recognised: bool) -> str | None:
        if not isinstance(error, Exception):
            return f"{type(error).__name__} is not a failure of the call"
        if isinstance(error, (CommandError, InvariantError)):
            return f"{type(error).__name__} is never retried"
        if not matches(self.on, error):
            return f"{type(error).__name__} is not among the errors to retry"
        if isinstance(error, OutlastError) and error.happened != "no":
            if error.happened == "yes":
                return "the call has happened"
            if recognised:
                return None
            if not self.repeat_indefinite:
                return MAY_HAVE_HAPPENED
        return None
