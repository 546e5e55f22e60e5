"""The settings of a breaker: what opens it, for how long, and what closes it again."""

from typing import Final

from outlast.kernel import ConfigError, Prng
from outlast.protect.core.window import CountWindow, TimeWindow

_NS: Final = 1_000_000_000
_CAP: Final = 10
"""How many times ``recovery_timeout`` a breaker stays open at most, if nothing else is said."""


class Rules:
    """Settings of a breaker, in the units of the core. Checked at creation.

    Args:
        threshold: Failures one after another that open it; ``None`` for no such rule.
        recovery_ns: How long it stays open the first time.
        recovery_cap_ns: How long at most, after probes that failed again and again.
        window: Over which calls the rates are taken.
        failure_rate: Share of calls that fail, from which on it opens; ``None`` for no such rule.
        slow_ns: From which duration on a call is slow; ``None`` if none is.
        slow_rate: Share of calls that are slow, from which on it opens.
        min_calls: Rates of fewer calls mean nothing.
        probes: Probes that must succeed to close it.
        probes_concurrent: Probes at the same time.
        probe_ns: After which a probe's place is free again.
    """

    __slots__ = (
        "failure_rate", "min_calls", "probe_ns", "probes", "probes_concurrent", "recovery_cap_ns",
        "recovery_ns", "slow_ns", "slow_rate", "threshold", "window",
    )  # fmt: skip

    def __init__(
        self,
        *,
        threshold: int | None,
        recovery_ns: int,
        recovery_cap_ns: int,
        window: CountWindow | TimeWindow,
        failure_rate: float | None,
        slow_ns: int | None,
        slow_rate: float | None,
        min_calls: int,
        probes: int,
        probes_concurrent: int,
        probe_ns: int,
    ) -> None:
        self.threshold = threshold
        self.recovery_ns = recovery_ns
        self.recovery_cap_ns = recovery_cap_ns
        self.window = window
        self.failure_rate = failure_rate
        self.slow_ns = slow_ns
        self.slow_rate = slow_rate
        self.min_calls = min_calls
        self.probes = probes
        self.probes_concurrent = probes_concurrent
        self.probe_ns = probe_ns

    @property
    def rated(self) -> bool:
        """Whether a window has to be kept."""
        return self.failure_rate is not None or self.slow_rate is not None

    @property
    def timed(self) -> bool:
        """Whether outcomes need the time at which they came."""
        return self.slow_ns is not None or (self.rated and isinstance(self.window, TimeWindow))

    def open_ns(self, failed_rounds: int, prng: Prng) -> int:
        """Return how long to stay open after ``failed_rounds`` rounds of probes failed.

        The first time exactly ``recovery_ns``; then twice as long each time up to the cap, of
        which a random half is taken off, so that many callers do not probe together.
        """
        if failed_rounds <= 0:
            return self.recovery_ns
        widest = min(self.recovery_ns << min(failed_rounds, 62), self.recovery_cap_ns)
        return prng.between(max(widest // 2, 1), widest)


def read_rules(
    *,
    failure_threshold: int | None,
    recovery_timeout: float,
    failure_rate: float | None,
    slow_call: float | None,
    slow_rate: float | None,
    window: CountWindow | TimeWindow | None,
    min_calls: int | None,
    probes: int,
    probes_concurrent: int,
    probe_timeout: float,
    recovery_cap: float | None,
) -> Rules:
    """Return the settings in the units of the core.

    Raises:
        ConfigError: One of them is wrong, or two contradict each other.
    """
    if failure_threshold is None and failure_rate is None and slow_rate is None:
        failure_threshold = 5
    for name, whole in (
        ("failure_threshold", failure_threshold), ("min_calls", min_calls), ("probes", probes),
        ("probes_concurrent", probes_concurrent),
    ):  # fmt: skip
        if whole is not None and (isinstance(whole, bool) or not isinstance(whole, int)):
            raise ConfigError(f"CircuitBreaker: {name} is {whole!r}; a whole number of 1 or more")
        if whole is not None and whole < 1:
            raise ConfigError(f"CircuitBreaker: {name} is {whole}; 1 or more")
    for name, share in (("failure_rate", failure_rate), ("slow_rate", slow_rate)):
        if share is not None and not (_is_number(share) and 0 < share <= 1):
            raise ConfigError(f"CircuitBreaker: {name} is {share!r}; a share above 0 and up to 1")
    check_seconds("recovery_timeout", recovery_timeout)
    cap = recovery_timeout * _CAP if recovery_cap is None else recovery_cap
    for name, seconds in (
        ("slow_call", slow_call),
        ("probe_timeout", probe_timeout),
        ("recovery_cap", cap),
    ):
        if seconds is not None:
            check_seconds(name, seconds)
    given: object = window
    if given is not None and not isinstance(given, CountWindow | TimeWindow):
        message = (
            f"CircuitBreaker: window is {given!r}; give CountWindow(calls) or TimeWindow(seconds)"
        )
        raise ConfigError(message)
    window = CountWindow() if window is None else window
    if min_calls is None:
        min_calls = min(20, window.size) if isinstance(window, CountWindow) else 20
    rules = Rules(
        threshold=failure_threshold,
        recovery_ns=max(round(recovery_timeout * _NS), 1),
        recovery_cap_ns=max(round(cap * _NS), 1),
        window=window,
        failure_rate=failure_rate,
        slow_ns=None if slow_call is None else round(slow_call * _NS),
        slow_rate=slow_rate,
        min_calls=min_calls,
        probes=probes,
        probes_concurrent=probes_concurrent,
        probe_ns=round(probe_timeout * _NS),
    )
    check_rules(rules)
    return rules


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_seconds(name: str, seconds: object) -> None:
    """Check a length of time.

    Raises:
        ConfigError: Definite. It is not a finite number above 0.
    """
    if not (_is_number(seconds) and 0 < seconds < float("inf")):  # type: ignore[operator]
        raise ConfigError(f"CircuitBreaker: {name} is {seconds!r}; seconds above 0 and finite")


def check_rules(rules: Rules) -> None:
    """Check relations that no single value shows.

    Raises:
        ConfigError: Definite. Two values contradict each other.
    """
    if rules.slow_rate is not None and rules.slow_ns is None:
        message = "CircuitBreaker: slow_rate needs slow_call, the seconds that make a call slow"
        raise ConfigError(message)
    if rules.slow_ns is not None and rules.slow_rate is None:
        message = "CircuitBreaker: slow_call needs slow_rate, the share of calls that opens it"
        raise ConfigError(message)
    if rules.recovery_cap_ns < rules.recovery_ns:
        message = (
            f"CircuitBreaker: recovery_cap ({rules.recovery_cap_ns / _NS:g} s) is below "
            f"recovery_timeout ({rules.recovery_ns / _NS:g} s)"
        )
        raise ConfigError(message)
    window = rules.window
    if rules.rated and isinstance(window, CountWindow) and rules.min_calls > window.size:
        message = (
            f"CircuitBreaker: min_calls ({rules.min_calls}) can never be reached in a window "
            f"of {window.size} calls"
        )
        raise ConfigError(message)
    if rules.threshold is None and not rules.rated:
        message = (
            "CircuitBreaker: nothing would open it; give failure_threshold, failure_rate or "
            "slow_rate"
        )
        raise ConfigError(message)
