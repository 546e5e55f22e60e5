"""How many calls a service can take at a time, learnt from how long they take.

By Little's law a service with room for C calls answers no more of them per second if it is given
L > C: the surplus waits in its queue, and every call takes L/C times as long. So the time of a
call without any queue, the *base*, tells all: at limit L and mean time T about L × base / T calls
are being served and the rest waits. ``Gradient`` (after the gradient limits of Netflix and of
Envoy) and ``Vegas`` (after TCP Vegas, Brakmo and Peterson 1995) both steer that rest to a small
number. They differ in the step.

Everything hangs on the base. The published algorithms take the least time ever seen, which never
ages, or a long average, which follows the queue that the limit itself has built, so that limit
and queue drift upward together. Here it is measured:

- *probe*: now and then (with jitter, lest a fleet does it in step) the limit is halved for a
  window. If calls become faster the limit is halved again; if not, there was no queue: that is
  the base, and the limit goes back to where it was.
- *idle*: while less than half of the limit is used there is no queue of ours; the time of those
  calls is the base for nothing, and the limit stays (it cannot prove itself).
- *in vain*: if the limit fell and calls did not become faster, they are not waiting for each
  other: the service itself has become slower. A probe follows at once.

After a change of the limit a round trip of calls is passed over. (To count only calls that began
since the change would be wrong: of those the short ones end first.) Calls that were cancelled are
never shown to an algorithm; those that failed count only if they were slow, since a quick error
says nothing.
"""

import math
from collections.abc import Iterable
from typing import Protocol

from outlast.kernel import ConfigError, Prng

_NS = 1_000_000_000
_WINDOW_SAMPLES = 50
_PROBE_SAMPLES_MAX = 200
_WEIGHT_MAX = 600
_QUICK_WINDOWS = 2
_SURPLUS = 0.7
"""After a probe the limit comes back in full unless less than this part of it was served."""
_HOLD_NS = 10 * _NS
_FALLS = 0.9
"""Calls have become faster if they take less than this part of the time before."""
_CLIP = 10
"""One call counts for no more than so many times the base."""
_NEVER_NS = 1 << 62

Sample = tuple[int, int, bool, int]
"""Time of a call, calls running at its end, whether it succeeded, its end: see ``on_sample``."""


class LimitState(Protocol):
    """An algorithm at work for one limit.

    One that also has ``on_samples(samples)`` is given several at once, each a tuple of what
    ``on_sample`` is called with.
    """

    limit: float
    rtt_ns: int

    def on_sample(self, rtt_ns: int, in_flight: int, ok: bool, now_ns: int) -> int:
        """Take the time of one call that has ended, and return the limit from now on.

        Args:
            rtt_ns: How long it took.
            in_flight: How many calls ran when it ended, itself among them.
            ok: Whether it succeeded.
            now_ns: When it ended.
        """
        ...

    def bound(self, low: int, high: int) -> int:
        """Keep the limit from ``low`` to ``high`` from now on, and return it."""
        ...


class Algorithm(Protocol):
    """The settings of an algorithm, from which each limit makes its own state."""

    def begin(self, limit: int, low: int, high: int, prng: Prng) -> LimitState:
        """Return the state that starts at ``limit`` and stays from ``low`` to ``high``."""
        ...


class Measuring:
    """Windows of calls, and the time of a call without a queue: what both algorithms need.

    States: measuring (``resume`` is 0) and probing (``resume`` is the limit to go back to).
    """

    __slots__ = (
        "_before", "_begun_ns", "_count", "_drain", "_fell_at", "_fell_from", "_flights", "_high",
        "_low", "_prng", "_probe_at_ns", "_probe_ns", "_quick", "_resume_at", "_skip", "_squares",
        "_total_ns", "_weight", "base", "limit", "resume", "rtt_ns",
    )  # fmt: skip

    def __init__(self, limit: int, low: int, high: int, prng: Prng, probe_ns: int) -> None:
        self.limit = float(limit)
        self.base = 0.0  # ns; 0 until it is known
        self._quick = 0  # windows in a row that were surely faster than the base
        self._weight = 0  # how many calls it was measured from
        self.resume = 0.0
        self.rtt_ns = 0
        self._low, self._high = low, high
        self._prng = prng
        self._probe_ns = probe_ns
        self._probe_at_ns = 0
        self._skip = limit  # so many calls still do not count
        self._drain = False  # whether more calls run than the limit allows
        self._resume_at = 0.0  # mean time before the probe
        self._before = 0.0  # mean time before the last halving of a probe
        self._fell_from = 0.0  # the limit before it began to fall, and the mean time at it
        self._fell_at = 0.0
        self._clear()

    def _clear(self) -> None:
        self._count = 0
        self._total_ns = 0
        self._squares = 0
        self._flights = 0
        self._begun_ns = 0

    def bound(self, low: int, high: int) -> int:
        """Keep the limit from ``low`` to ``high`` from now on, and return it."""
        self._low, self._high = low, high
        self.limit = self._clamped(self.limit)
        return int(self.limit)

    def on_sample(self, rtt_ns: int, in_flight: int, ok: bool, now_ns: int) -> int:
        """Take the time of one call; see :meth:`LimitState.on_sample`."""
        return self.on_samples(((rtt_ns, in_flight, ok, now_ns),))

    def on_samples(self, samples: Iterable[Sample]) -> int:
        """Take the times of calls, one after another; the same as ``on_sample`` for each."""
        # What changes only at the end of a window is looked up once for all of them.
        limit, base, needed = int(self.limit), self.base, self._needed()
        longest_ns, stale_ns = int(_CLIP * base) or _NEVER_NS, _HOLD_NS + _CLIP * base
        for rtt_ns, in_flight, ok, now_ns in samples:
            if self._drain:
                if in_flight > limit:
                    continue
                self._drain = False
            if self._skip:
                self._skip -= 1
                continue
            if not ok and rtt_ns < base:
                continue
            count = self._count
            if count and now_ns - self._begun_ns > stale_ns:
                self._starved()
                limit, needed, count = int(self.limit), self._needed(), 0
            if not count:
                self._begun_ns = now_ns
            count += 1
            self._count = count
            self._flights += in_flight
            clipped_ns = rtt_ns if rtt_ns < longest_ns else longest_ns
            self._total_ns += clipped_ns
            self._squares += clipped_ns * clipped_ns
            if count >= needed:
                self._close(now_ns)
                limit, base, needed = int(self.limit), self.base, self._needed()
                longest_ns, stale_ns = int(_CLIP * base) or _NEVER_NS, _HOLD_NS + _CLIP * base
        return limit

    def _needed(self) -> int:
        """Return how many calls make a window: about two round trips, ten in a probe."""
        if self.resume:
            return max(_WINDOW_SAMPLES, min(_PROBE_SAMPLES_MAX, 10 * int(self.limit)))
        return max(_WINDOW_SAMPLES, 2 * int(self.limit))

    def _starved(self) -> None:
        """Too few calls for a window: hold the limit, and end a probe without a result."""
        if self.resume:
            self.limit, self.resume = self._clamped(self.resume), 0.0
        self._clear()

    def _close(self, now_ns: int) -> None:
        # Of calls between which the clock did not move (simulated, or coarse) the mean is 0.
        count, mean = self._count, max(self._total_ns / self._count, 1.0)
        variance = max(0.0, self._squares / count - mean * mean)
        doubt = 3 * math.sqrt(variance / count)  # the mean is surely within
        idle = self._flights * 2 < count * int(self.limit)
        spent_ns = now_ns - self._begun_ns
        self.rtt_ns = int(mean)
        self._clear()
        if self.resume:
            self._probed(mean, count, now_ns, spent_ns)
        elif idle:
            self._learn(mean, count)
            self._fell_from = 0.0
            self._plan(now_ns, spent_ns)
        elif self._must_probe(mean, doubt, now_ns):
            self._probe(mean, count, now_ns, spent_ns)
        else:
            self._step(mean)

    def _must_probe(self, mean: float, doubt: float, now_ns: int) -> bool:
        self._quick = self._quick + 1 if mean + doubt < self.base else 0
        faster = self._quick == _QUICK_WINDOWS  # no chance: the service has become faster
        return faster or not self.base or now_ns >= self._probe_at_ns or self._in_vain(mean)

    def _step(self, mean: float) -> None:
        """Take a step of the algorithm."""
        before = self.limit
        self.limit = self._clamped(self._next(mean))
        if self.limit > self._fell_from:
            self._fell_from, self._fell_at = self.limit, 0.0
        if self.limit < before and not self._fell_at:
            self._fell_from, self._fell_at = before, mean
        self._changed(before)

    def _changed(self, before: float) -> None:
        """After the limit was changed: pass over the calls that began before."""
        if int(self.limit) != int(before):
            self._drain = self.limit < before
            self._skip = int(self.limit)

    def _in_vain(self, mean: float) -> bool:
        """Whether the limit has fallen, and calls have not become faster by it."""
        fallen = self.limit < 0.7 * self._fell_from
        return fallen and mean > _FALLS * self._fell_at

    def _probe(self, mean: float, count: int, now_ns: int, spent_ns: int) -> None:
        """Begin to look for the base."""
        self.resume = max(self.limit, self._fell_from) if self._in_vain(mean) else self.limit
        self._fell_from = 0.0
        self._quick = 0
        self._resume_at = mean
        self._halve(mean, count, now_ns, spent_ns)

    def _halve(self, mean: float, count: int, now_ns: int, spent_ns: int) -> None:
        if int(self.limit) <= self._low:
            self._found(mean, count, now_ns, spent_ns)
            return
        before, self._before = self.limit, mean
        self.limit = self._clamped(before / 2)
        self._changed(before)

    def _probed(self, mean: float, count: int, now_ns: int, spent_ns: int) -> None:
        if mean < _FALLS * self._before:
            self._halve(mean, count, now_ns, spent_ns)
        else:
            self._found(mean, count, now_ns, spent_ns)

    def _found(self, mean: float, count: int, now_ns: int, spent_ns: int) -> None:
        """End a probe: ``mean`` is the time of a call that waits for no other."""
        self._learn(mean, count)
        served = self.base / self._resume_at  # of the limit before, if the base is right
        if served < _SURPLUS:
            self.resume *= served
        before, self.limit, self.resume = self.limit, self._clamped(self.resume), 0.0
        self._resumed()
        self._changed(before)
        self._plan(now_ns, spent_ns)

    def _learn(self, mean: float, count: int) -> None:
        """Take a measured base: at once if it is far from the last, else by its weight."""
        if not 0.75 * self.base < mean < 1.33 * self.base:
            self._weight = 0
        self._weight += count
        self.base += (mean - self.base) * count / self._weight
        self._weight = min(self._weight, _WEIGHT_MAX)

    def _plan(self, now_ns: int, spent_ns: int) -> None:
        """Say when the next probe is due: the time given, but not for more than 2 % of it."""
        every_ns = max(self._probe_ns, 50 * spent_ns)
        self._probe_at_ns = now_ns + self._prng.between(every_ns * 3 // 4, every_ns * 5 // 4)

    def _clamped(self, limit: float) -> float:
        return float(min(max(limit, self._low), self._high))

    def _resumed(self) -> None:
        """A probe has ended, and the limit is what it was before or less."""

    def _next(self, mean: float) -> float:
        """Return the limit that follows a window with this mean time."""
        raise NotImplementedError


class _GradientState(Measuring):
    __slots__ = ("_clear_windows", "_served", "_tolerance")

    def __init__(
        self, limit: int, low: int, high: int, prng: Prng, probe_ns: int, *, tolerance: float
    ) -> None:
        super().__init__(limit, low, high, prng, probe_ns)
        self._tolerance = tolerance
        self._clear_windows = 0  # in a row without a queue
        self._served = float(limit)  # how many calls are served at a time, smoothed

    def _resumed(self) -> None:
        self._served = self.limit

    def _next(self, mean: float) -> float:
        # Not clamped at 1: a window that chance made quick makes up for one that it made slow.
        gradient = min(max(self._tolerance * self.base / mean, 0.5), 1.2)
        served = self.limit * gradient
        self._served += (served - self._served) * (0.5 if gradient < 0.8 else 0.25)
        room = max(1.0, math.sqrt(self.limit) * 2 / 3)
        self._clear_windows = self._clear_windows + 1 if gradient > 0.98 else 0
        if self._clear_windows >= 3:  # no queue for long: there is more to be had
            self._served = max(self._served, self.limit)
            room *= 2
        return self._served + room


class Gradient:
    """Keeps a queue of about two thirds of the square root of the limit at the service.

    The limit is the smoothed ``limit × tolerance × base / time``, the number of calls that are
    served at a time, and ``√limit × 2/3`` to try for more.

    Args:
        tolerance: How much longer than the base calls may take before the limit falls; 1.0 or
            more. 1.5 lets a queue of half the service's places stand.
        probe_interval: Seconds between two probes, about; longer where a probe takes long.

    Raises:
        ConfigError: Definite. A setting is wrong.
    """

    __slots__ = ("probe_interval", "tolerance")

    def __init__(self, *, tolerance: float = 1.0, probe_interval: float = 30.0) -> None:
        if not 1 <= tolerance <= 10:
            message = f"Gradient: tolerance is {tolerance!r}; from 1 to 10 would be right"
            raise ConfigError(message)
        _check_interval("Gradient", probe_interval)
        self.tolerance = tolerance
        self.probe_interval = probe_interval

    def begin(self, limit: int, low: int, high: int, prng: Prng) -> LimitState:
        """Return the state that starts at ``limit``."""
        every_ns = round(self.probe_interval * _NS)
        return _GradientState(limit, low, high, prng, every_ns, tolerance=self.tolerance)

    def __repr__(self) -> str:
        return f"Gradient(tolerance={self.tolerance}, probe_interval={self.probe_interval})"


class _VegasState(Measuring):
    __slots__ = ("_alpha", "_beta", "_ratio")

    def __init__(
        self, limit: int, low: int, high: int, prng: Prng, probe_ns: int, *, alpha: int, beta: int
    ) -> None:
        super().__init__(limit, low, high, prng, probe_ns)
        self._alpha, self._beta = alpha, beta
        self._ratio = 1.0  # the part of its time that a call is served, smoothed

    def _next(self, mean: float) -> float:
        self._ratio += (min(self.base / mean, 1.5) - self._ratio) / 3
        queue = self.limit * (1 - self._ratio)
        step = max(1, int(self.limit).bit_length() * 3 // 10)  # the decimal logarithm
        if queue < self._alpha * step:
            return self.limit + step
        surplus = queue - self._beta * step
        return self.limit - max(step, surplus / 2) if surplus > 0 else self.limit


class Vegas:
    """Keeps a queue of ``alpha`` to ``beta`` calls at the service, times log10 of the limit.

    Args:
        alpha: The limit grows while fewer wait there.
        beta: The limit falls while more wait there. At least ``alpha``.
        probe_interval: Seconds between two probes, about; longer where a probe takes long.

    Raises:
        ConfigError: Definite. A setting is wrong.
    """

    __slots__ = ("alpha", "beta", "probe_interval")

    def __init__(self, *, alpha: int = 2, beta: int = 4, probe_interval: float = 30.0) -> None:
        if not 1 <= alpha <= beta:
            message = f"Vegas: alpha is {alpha!r}, beta {beta!r}; 1 <= alpha <= beta is right"
            raise ConfigError(message)
        _check_interval("Vegas", probe_interval)
        self.alpha = alpha
        self.beta = beta
        self.probe_interval = probe_interval

    def begin(self, limit: int, low: int, high: int, prng: Prng) -> LimitState:
        """Return the state that starts at ``limit``."""
        every_ns = round(self.probe_interval * _NS)
        return _VegasState(limit, low, high, prng, every_ns, alpha=self.alpha, beta=self.beta)

    def __repr__(self) -> str:
        bounds = f"alpha={self.alpha}, beta={self.beta}"
        return f"Vegas({bounds}, probe_interval={self.probe_interval})"


class _AIMDState:
    __slots__ = ("_backoff", "_high", "_low", "_since_ns", "_threshold_ns", "limit", "rtt_ns")

    def __init__(
        self, limit: int, low: int, high: int, threshold_ns: int | None, backoff: float
    ) -> None:
        self.limit = float(limit)
        self.rtt_ns = 0
        self._low, self._high = low, high
        self._threshold_ns = threshold_ns
        self._backoff = backoff
        self._since_ns = -(1 << 63)  # calls that began before the last cut cause no other

    def bound(self, low: int, high: int) -> int:
        """Keep the limit from ``low`` to ``high`` from now on, and return it."""
        self._low, self._high = low, high
        self.limit = min(max(self.limit, low), high)
        return int(self.limit)

    def on_sample(self, rtt_ns: int, in_flight: int, ok: bool, now_ns: int) -> int:
        """Take the time of one call; see :meth:`LimitState.on_sample`."""
        self.rtt_ns += (rtt_ns - self.rtt_ns) // 8
        bad = not ok if self._threshold_ns is None else rtt_ns > self._threshold_ns
        if bad:
            if now_ns - rtt_ns >= self._since_ns:
                self._since_ns = now_ns
                self.limit = max(self.limit * self._backoff, self._low)
        elif ok and in_flight * 2 >= self.limit:
            self.limit = min(self.limit + 1 / self.limit, self._high)
        return int(self.limit)


class AIMD:
    """Grows by one a round trip, and falls by a part when a call is too slow (Chiu, Jain 1989).

    Args:
        threshold: Calls that take longer, in seconds, make the limit fall; ``None``: those that
            fail do.
        backoff: What is left of the limit after a fall; above 0 and below 1. One fall a round
            trip: calls that began before it cause no other.

    Raises:
        ConfigError: Definite. A setting is wrong.
    """

    __slots__ = ("backoff", "threshold")

    def __init__(self, *, threshold: float | None = None, backoff: float = 0.9) -> None:
        if threshold is not None and not threshold > 0:
            message = f"AIMD: threshold is {threshold!r}; seconds above 0, or None, are right"
            raise ConfigError(message)
        if not 0 < backoff < 1:
            raise ConfigError(f"AIMD: backoff is {backoff!r}; between 0 and 1 would be right")
        self.threshold = threshold
        self.backoff = backoff

    def begin(self, limit: int, low: int, high: int, prng: Prng) -> LimitState:
        """Return the state that starts at ``limit``; nothing is drawn."""
        threshold_ns = None if self.threshold is None else round(self.threshold * _NS)
        return _AIMDState(limit, low, high, threshold_ns, self.backoff)

    def __repr__(self) -> str:
        return f"AIMD(threshold={self.threshold}, backoff={self.backoff})"


def _check_interval(part: str, seconds: float) -> None:
    if not 0 < seconds < float("inf"):
        message = f"{part}: probe_interval is {seconds!r}; seconds above 0 would be right"
        raise ConfigError(message)
