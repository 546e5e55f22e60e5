"""Settings of a pool: when to eject, how to readmit, how to choose. Checked when they are made."""

from dataclasses import dataclass
from typing import Literal

from outlast.kernel import ConfigError
from outlast.protect.checks import DAY, check_number, check_whole

Load = Literal["in_flight", "peak_ewma"]
Kind = Literal["p2c", "least", "round_robin"]


@dataclass(frozen=True, slots=True)
class Mad:
    """When an instance is too slow for its pool; made by :func:`mad`.

    Attributes:
        deviations: How many median absolute deviations above the median of the pool.
        times: And at least so many times that median: where all are equal, the deviation is 0.
        floor: And at least so many seconds above it.
    """

    deviations: float
    times: float
    floor: float


def mad(deviations: float = 4.0, *, times: float = 2.0, floor: float = 0.005) -> Mad:
    """Eject an instance whose median latency is far above that of the others.

    The median absolute deviation, times 1.4826, is what a standard deviation would be if it were
    not drawn along by the very outlier that is looked for. All three bounds must be passed. At
    least three instances must have been asked enough, since of two that differ none is odd.

    Args:
        deviations: Deviations above the median of the instances' medians. 0.1 to 1000.
        times: Times that median. 1 to 1000.
        floor: Seconds above that median. 0 or more.

    Raises:
        ConfigError: A value is out of range.

    >>> mad(4)
    Mad(deviations=4.0, times=2.0, floor=0.005)
    """
    return Mad(
        check_number("mad", "deviations", deviations, 0.1, 1000.0, what="a number"),
        check_number("mad", "times", times, 1.0, 1000.0, what="a number"),
        check_number("mad", "floor", floor, 0.0, DAY, what="seconds"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """When an instance is ejected, judged by the outcomes of calls alone.

    The criteria and the growing time are Envoy's (its documentation, "Outlier detection"; gRPC
    proposal A50). Latency and lies are ours. The share of ejected instances is reckoned *after*
    the ejection and rounded down (Envoy lets one through whatever the share: its issue 27066), so
    two instances need ``max_ejected=0.5`` before one can be ejected.

    Args:
        consecutive: Failures in a row; 0 to leave it out.
        failure: Share of failed calls within ``window``, of ``min_requests`` at least; ``None``
            to leave it out.
        success_rate: Standard deviations of the success rates by which one may stay below their
            mean, among 5 instances or more; ``None`` to leave it out.
        latency: :func:`mad`, or ``None`` to leave it out.
        lies: Wrong answers since the last readmission; 0 to leave it out.
        min_requests: Calls within ``window`` below which shares and latencies mean nothing.
        window: Seconds that count for shares and latencies.
        every: Seconds between two looks at shares and latencies.
        base: Seconds of the first ejection; the n-th is n times as long. A time of ``base`` in
            good order takes one off n.
        cap: Ceiling for any one ejection, in seconds. The last fifth of the time is drawn at
            random, so that instances do not come back together.
        max_ejected: Share of all instances that may be ejected at a time.
        min_left: Instances that must be left, neither ejected nor failing their check.

    Raises:
        ConfigError: A value is out of range, or ``cap`` is below ``base``.
    """

    consecutive: int = 5
    failure: float | None = 0.5
    success_rate: float | None = 1.9
    latency: Mad | None = Mad(4.0, 2.0, 0.005)
    lies: int = 1
    min_requests: int = 20
    window: float = 10.0
    every: float = 1.0
    base: float = 30.0
    cap: float = 300.0
    max_ejected: float = 0.34
    min_left: int = 1

    def __post_init__(self) -> None:
        where = "Outlier"
        check_whole(where, "consecutive", self.consecutive, 0, 1_000_000)
        check_whole(where, "lies", self.lies, 0, 1_000_000)
        check_whole(where, "min_requests", self.min_requests, 1, 1_000_000)
        check_whole(where, "min_left", self.min_left, 0, 1_000_000)
        check_number(where, "max_ejected", self.max_ejected, 0.0, 1.0, what="a share")
        if self.failure is not None:
            check_number(where, "failure", self.failure, 0.01, 1.0, what="a share")
        if self.success_rate is not None:
            check_number(where, "success_rate", self.success_rate, 0.1, 100.0, what="deviations")
        if self.latency is not None and not isinstance(self.latency, Mad):
            raise ConfigError(f"{where}: latency is {self.latency!r}; mad(4) or None")
        for name in ("window", "every", "base", "cap"):
            check_number(where, name, getattr(self, name), 0.001, DAY, what="seconds")
        if self.cap < self.base:
            raise ConfigError(f"{where}: cap ({self.cap} s) is below base ({self.base} s)")


@dataclass(frozen=True, slots=True)
class Ramp:
    """How an instance that comes (back) is brought up; made by :func:`ramp`.

    Attributes:
        seconds: After which it has its full share.
        floor: Share of its weight with which it begins.
    """

    seconds: float
    floor: float


def ramp(seconds: float = 10.0, *, floor: float = 0.1) -> Ramp:
    """Give an instance that was readmitted or has joined its share little by little.

    Its weight grows evenly, in steps of a tenth of a second, from ``floor`` of it. Those that are
    there when the pool begins have no ramp.

    Args:
        seconds: After which it has its full share; 0 for at once.
        floor: Share with which it begins. 0.01 to 1.

    Raises:
        ConfigError: A value is out of range.
    """
    return Ramp(
        check_number("ramp", "seconds", seconds, 0.0, DAY, what="seconds"),
        check_number("ramp", "floor", floor, 0.01, 1.0, what="a share"),
    )


@dataclass(frozen=True, slots=True)
class LoadOf:
    """What makes one instance dearer than another."""

    kind: Load
    decay: float = 10.0


@dataclass(frozen=True, slots=True)
class Pick:
    """How an instance is chosen; made by :func:`p2c`, or named by a string."""

    kind: Kind
    load: LoadOf = LoadOf("in_flight")

    def __str__(self) -> str:
        """Return what a user would write."""
        if self.kind == "p2c":
            return "p2c" if self.load.kind == "in_flight" else "p2c(peak_ewma())"
        if self.kind == "least":
            return "least_loaded" if self.load.kind == "in_flight" else "peak_ewma"
        return "round_robin"


def peak_ewma(decay: float = 10.0) -> LoadOf:
    """Weigh instances by latency times calls in flight, and let a peak in latency count at once.

    A moving average that jumps up to a latency above it and comes down slowly (Finagle's
    "Peak EWMA"). Where a failure is quick (a refused connection) it does not count as a low
    latency: the average moves up on failures, never down.

    Args:
        decay: Seconds after which a peak has lost 63 % of its height. 0.001 or more.
    """
    return LoadOf(
        "peak_ewma", check_number("peak_ewma", "decay", decay, 0.001, DAY, what="seconds")
    )


def p2c(load: LoadOf | None = None) -> Pick:
    """Draw two instances and take the one with less load ("power of two choices").

    Two are enough: the longest queue then grows with log log n only (Mitzenmacher, "The Power of
    Two Choices in Randomized Load Balancing", 2001), and callers that do not know of each other
    do not run together to the one that is least loaded.

    Args:
        load: :func:`peak_ewma`, or ``None`` for calls in flight.
    """
    return Pick("p2c", load or LoadOf("in_flight"))


def pick_of(given: object) -> Pick:
    """Return how to choose, as given by name or as a value.

    Raises:
        ConfigError: Definite. It is neither.
    """
    named = {
        "p2c": p2c(),
        "round_robin": Pick("round_robin"),
        "least_loaded": Pick("least"),
        "peak_ewma": Pick("least", peak_ewma()),
    }
    if isinstance(given, Pick):
        return given
    if isinstance(given, LoadOf):
        return Pick("least", given)
    if isinstance(given, str) and given in named:
        return named[given]
    known = ", ".join(named)
    raise ConfigError(f"Pool: pick is {given!r}; one of {known}, or p2c(peak_ewma()), is right")
