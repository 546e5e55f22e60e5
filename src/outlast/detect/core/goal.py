"""From the quality that is wanted to the parameters: nobody should have to guess a timeout.

Chen, Toueg and Aguilera (2002, sections 5 and 6) turn the question round. Given how quickly a stop
must be noticed and how rarely a living sender may be accused, and given how many beats get lost
and how much their delays vary, they compute how often to beat and how long to wait. Only the
variance enters, through the one-sided Chebyshev inequality, so that the answer holds for every
distribution of delays: usually far better is had than asked for.

What it assumes is that beats are lost and delayed independently. A frozen process or a cut link is
neither; against those helps only more time, and a plan from a trace says what the trace held.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal, get_args

from outlast.detect.core.chen import Chen
from outlast.detect.core.detector import Detector
from outlast.detect.core.fixed import Fixed
from outlast.detect.core.phi import PhiAccrual
from outlast.detect.core.quality import score
from outlast.detect.core.scale import EVICT, NS, normal_z, number
from outlast.kernel import ConfigError

Kind = Literal["phi", "chen", "fixed"]
Beat = tuple[int | None, int]

_DAY: Final = 86_400.0
_SHORTEST: Final = 0.001
_FLOOR: Final = 0.001
_TRACE_MIN: Final = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """Parameters that meet a goal. Times are in seconds.

    >>> plan = for_goal(detect_within=1.0, mistakes_per_day=1.0, loss=0.01, deviation=0.01)
    >>> round(plan.interval, 2), round(plan.margin, 2), plan.detector().describe()["kind"]
    (0.31, 0.69, 'Chen')
    """

    kind: Kind
    interval: float
    """How often to beat."""
    margin: float
    """What is left of ``detect_within`` for lateness, after delay and interval."""
    detect_within: float
    mistakes_per_day: float
    """The bound that follows; 0 if the beats were assumed to be perfect."""
    loss: float
    deviation: float
    delay: float

    def detector(self) -> Detector:
        """Return a new detector with these parameters, for one sender."""
        within = self.detect_within - self.delay
        if self.kind == "fixed":
            return Fixed(within, interval=min(self.interval, within / 2))
        if self.kind == "chen":
            return Chen(self.margin, interval=self.interval)
        floor = max(_FLOOR, math.sqrt(2.0) * self.deviation)
        pause = max(0.0, self.margin - normal_z(EVICT) * floor)
        return PhiAccrual(interval=self.interval, pause=pause, floor=floor, cap=within)


@dataclass(frozen=True, slots=True)
class _Net:
    """What is wanted of which network. ``within`` has no delay in it any more."""

    within: float
    loss: float
    variance: float
    wanted: float
    """Logarithm of the mean seconds between mistakes."""

    def recurrence_log(self, interval: float) -> float:
        """Return the logarithm of the least mean time between mistakes (theorem of section 5)."""
        total = math.log(interval)
        for n in range(1, math.ceil(self.within / interval)):
            late = self.within - n * interval
            least = self.variance + self.loss * late * late
            if least <= 0.0:
                return math.inf
            total += math.log((self.variance + late * late) / least)
        return total

    def enough(self, interval: float) -> bool:
        """Whether a beat each ``interval`` will do."""
        return interval < self.within and self.recurrence_log(interval) >= self.wanted

    def longest_interval(self) -> float | None:
        """Return the longest interval that will do: by a 200th, then by a 6000th."""
        step = self.within / 200
        coarse = self._first(range(199, 0, -1), step)
        if coarse is None:
            return None
        above = round(coarse / step) * 30
        return self._first(range(above + 29, above, -1), step / 30) or coarse

    def _first(self, steps: range, size: float) -> float | None:
        for part in steps:
            if size * part < _SHORTEST:
                break
            if self.enough(size * part):
                return size * part
        return None


def for_goal(
    *,
    detect_within: float,
    mistakes_per_day: float,
    interval: float | None = None,
    loss: float | None = None,
    deviation: float | None = None,
    delay: float = 0.0,
    from_trace: Sequence[Beat] | None = None,
    kind: Kind = "chen",
) -> Plan:
    """Compute how often to beat and how long to wait, or say why it cannot be had.

    Args:
        detect_within: From the stop of the sender to ``evict``, in seconds, at most.
        mistakes_per_day: Accusations of a living sender per day, at most, on average.
        interval: Seconds between beats, if that is not to be chosen; the longest that will do
            otherwise.
        loss: Part of the beats that get lost, 0 to 1; from the trace, or 0.
        deviation: Standard deviation of the delay in seconds; from the trace, or 0.01.
        delay: Mean delay on the way in seconds: it is part of ``detect_within``.
        from_trace: Beats as they arrived, number and nanoseconds: loss, deviation and interval
            are taken from it unless given, and the plan must do on it what it promises.
        kind: ``"chen"``, which the computation is about. ``"fixed"`` and ``"phi"`` count from the
            last arrival, which may have been early: they are given twice the variance.

    Raises:
        ConfigError: Definite. An argument is out of range, or the goal cannot be had: the
            message says why, and the nearest that can.
    """
    where = "for_goal"
    number(where, "detect_within", detect_within, 2 * _SHORTEST, _DAY)
    number(where, "mistakes_per_day", mistakes_per_day, 1e-9, 1e6)
    number(where, "delay", delay, 0.0, _DAY)
    if kind not in get_args(Kind):
        message = f"for_goal: kind is {kind!r}; 'chen', 'phi' or 'fixed' would be right"
        raise ConfigError(message)
    if from_trace is not None:
        pace, lost, spread = _learn(from_trace, interval)
        interval = interval or pace
        loss = lost if loss is None else loss
        deviation = spread if deviation is None else deviation
    loss = number(where, "loss", 0.0 if loss is None else loss, 0.0, 0.99)
    deviation = number(where, "deviation", 0.01 if deviation is None else deviation, 0.0, _DAY)
    within = detect_within - delay
    if within < 2 * _SHORTEST:
        message = (
            f"for_goal: detect_within is {detect_within:g} s and the delay alone is {delay:g} s;"
            f" {delay + 2 * _SHORTEST:g} s or more would be right"
        )
        raise ConfigError(message)
    variance = deviation * deviation * (1.0 if kind == "chen" else 2.0)
    net = _Net(within, loss, variance, math.log(_DAY / mistakes_per_day))
    if interval is None:
        chosen = net.longest_interval()
    else:
        number(where, "interval", interval, _SHORTEST, _DAY)
        chosen = interval if net.enough(interval) else None
    if chosen is None:
        goal = f"{mistakes_per_day:g} mistakes a day within {detect_within:g} s"
        raise ConfigError(f"for_goal: {goal} {_refusal(net, interval, delay)}")
    bound = _DAY * math.exp(-net.recurrence_log(chosen))
    plan = Plan(
        kind=kind,
        interval=chosen,
        margin=round(within - chosen, 9),
        detect_within=detect_within,
        mistakes_per_day=bound,
        loss=loss,
        deviation=deviation,
        delay=delay,
    )
    _check_phi(plan)
    if from_trace is not None:
        _check_trace(plan, from_trace, mistakes_per_day)
    return plan


def _learn(trace: Sequence[Beat], interval: float | None) -> tuple[float, float, float]:
    """Return interval, loss and deviation of a trace, in seconds."""
    if len(trace) < _TRACE_MIN:
        message = f"for_goal: from_trace has {len(trace)} beats; {_TRACE_MIN} or more"
        raise ConfigError(message)
    numbers = [index if seq is None else seq for index, (seq, _) in enumerate(trace)]
    count = numbers[-1] - numbers[0]
    if count < len(trace) - 1:
        raise ConfigError("for_goal: from_trace has repeated numbers; each beat once, in order")
    steps = [one - numbers[0] for one in numbers]
    times = [(at_ns - trace[0][1]) / NS for _, at_ns in trace]
    pace = interval or _slope(steps, times)
    offsets = [time - step * pace for step, time in zip(steps, times, strict=True)]
    mean = math.fsum(offsets) / len(offsets)
    variance = math.fsum((one - mean) ** 2 for one in offsets) / len(offsets)
    return pace, max(0.0, 1 - len(trace) / (count + 1)), math.sqrt(variance)


def _slope(steps: list[int], times: list[float]) -> float:
    """Return the slope of the straight line that fits best (least squares)."""
    middle, centre = sum(steps) / len(steps), math.fsum(times) / len(times)
    both = math.fsum((x - middle) * (y - centre) for x, y in zip(steps, times, strict=True))
    return both / math.fsum((x - middle) ** 2 for x in steps)


def _refusal(net: _Net, interval: float | None, delay: float) -> str:
    """Say why not, and what could be had instead."""

    def enough(within: float) -> bool:
        other = replace(net, within=within)
        if interval is None:
            return other.longest_interval() is not None
        return other.enough(interval)

    low, high = net.within, net.within * 2
    while high < _DAY and not enough(high):
        low, high = high, high * 2
    near = f"at no detection time below {high:.3g} s"
    if enough(high):
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        near = f"within {high + delay:.3g} s"
    paces = [net.within * n / 200 for n in range(1, 200)] if interval is None else [interval]
    logs = [net.recurrence_log(one) for one in paces if _SHORTEST <= one < net.within]
    fewest = f", or {_DAY * math.exp(-max(logs)):.3g} mistakes a day as quickly" if logs else ""
    pace = "however often it beats" if interval is None else f"with a beat every {interval:g} s"
    return (
        f"cannot be promised {pace}, with {net.loss:.2g} of the beats lost and a deviation of"
        f" {math.sqrt(net.variance):.3g} s; so few mistakes can be had {near}{fewest}"
    )


def _check_phi(plan: Plan) -> None:
    if plan.kind != "phi":
        return
    spread = normal_z(EVICT) * max(_FLOOR, math.sqrt(2.0) * plan.deviation)
    if spread > plan.margin:
        least = plan.detect_within - plan.margin + spread
        message = (
            f"for_goal: detect_within is {plan.detect_within:g} s; with a deviation of"
            f" {plan.deviation:g} s phi itself waits longer than that: {least:.3g} s or more,"
            " or kind='chen', would be right"
        )
        raise ConfigError(message)


def _check_trace(plan: Plan, trace: Sequence[Beat], mistakes_per_day: float) -> None:
    seen = score(trace, plan.detector(), skip=1)
    allowed = mistakes_per_day * seen.seconds / _DAY
    if seen.mistakes > max(allowed, 0.0):
        longest = max(b[1] - a[1] for a, b in pairwise(trace)) / NS
        message = (
            f"for_goal: {mistakes_per_day:g} mistakes a day within {plan.detect_within:g} s: the"
            f" trace alone, of {seen.seconds:.4g} s, would have had {seen.mistakes}; its longest"
            f" silence is {longest:.3g} s, so {longest + plan.delay:.3g} s or more would be right"
        )
        raise ConfigError(message)
