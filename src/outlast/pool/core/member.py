"""What a pool knows of one instance: calls in flight, outcomes lately, latency, standing.

*live*: gets calls. *ejected*: gets none until an instant. *half-open*: that instant has passed;
one call at a time goes to it as a probe, and decides. Beside that it may fail its active check, be
avoided (suspected by the membership), or be draining (leaving, no new calls).
"""

import math
from collections import deque
from typing import Any, Final, Literal

from outlast.pool.core.instance import Instance

Standing = Literal["live", "ejected", "half-open"]
NS: Final = 1_000_000_000
PROBE_NS: Final = 30 * NS
"""A probe that has not ended by then is given up: its holder has forgotten it."""

_PARTS: Final = 10
_LATENCIES: Final = 64
_DEBT_MAX: Final = 16


class Window:
    """Good and bad outcomes within a span of time, in ten parts."""

    __slots__ = ("_bad", "_good", "_part", "_part_ns", "bad", "good")

    def __init__(self, span_ns: int) -> None:
        self._part_ns = max(span_ns // _PARTS, 1)
        self._part = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._good = [0] * _PARTS
        self._bad = [0] * _PARTS
        self.good = self.bad = 0

    def turn(self, now_ns: int) -> None:
        """Let go of what is older than the span."""
        part = now_ns // self._part_ns
        gone = min(part - self._part, _PARTS)
        for step in range(1, gone + 1):
            place = (self._part + step) % _PARTS
            self.good -= self._good[place]
            self.bad -= self._bad[place]
            self._good[place] = self._bad[place] = 0
        if gone > 0:
            # A jump over all parts leaves them empty, wherever it ends.
            self._part = part

    def add(self, good: bool, now_ns: int) -> None:
        """Count an outcome."""
        self.turn(now_ns)
        place = self._part % _PARTS
        if good:
            self._good[place] += 1
            self.good += 1
        else:
            self._bad[place] += 1
            self.bad += 1

    @property
    def total(self) -> int:
        """How many outcomes there are."""
        return self.good + self.bad


class Member:
    """One instance in a pool. Its methods keep its numbers; :class:`PoolCore` decides.

    Attributes:
        instance: Where it is.
        in_flight: Calls under way.
        debt: Calls that count as under way though they are not: one for each failure lately,
            halved by each success and each second since. A refused connection ends at once, and
            whoever has fewest calls in flight would otherwise be given ever more of them; and
            who gets no calls has no successes.
        streak: Failures in a row.
        lies: Wrong answers since it was admitted.
        standing: See the module.
        until_ns: When an ejection ends.
        times: How many ejections lengthen the next one.
        epoch: Grows with each change of standing: outcomes of calls from before do not count.
    """

    __slots__ = (
        "avoid",
        "check_fails",
        "check_passes",
        "credit",
        "debt",
        "drained_by_hand",
        "ejected_ns",
        "epoch",
        "ewma_at_ns",
        "ewma_ns",
        "good_since_ns",
        "in_flight",
        "instance",
        "latencies",
        "leave_ns",
        "lies",
        "measured",
        "owed_ns",
        "probe_ns",
        "ramp_from_ns",
        "share",
        "sick",
        "standing",
        "streak",
        "times",
        "until_ns",
        "why",
        "window",
    )  # fmt: skip

    def __init__(self, instance: Instance, window_ns: int, now_ns: int) -> None:
        self.instance = instance
        self.in_flight = self.debt = self.streak = self.lies = 0
        self.owed_ns = now_ns
        self.standing: Standing = "live"
        self.until_ns = self.ejected_ns = self.times = self.epoch = 0
        self.why = ""
        self.good_since_ns = now_ns
        self.probe_ns: int | None = None
        self.ramp_from_ns: int | None = None
        self.avoid = self.sick = self.drained_by_hand = False
        self.leave_ns: int | None = None
        self.check_fails = self.check_passes = 0
        self.credit = 0.0
        self.share = instance.weight
        self.window = Window(window_ns)
        self.latencies: deque[tuple[int, int]] = deque(maxlen=_LATENCIES)
        self.ewma_ns = 0.0
        self.ewma_at_ns = now_ns
        self.measured = False

    @property
    def address(self) -> str:
        """Its identity."""
        return self.instance.address

    @property
    def draining(self) -> bool:
        """Whether it gets no new calls because it is leaving."""
        return self.drained_by_hand or self.leave_ns is not None

    @property
    def usable(self) -> bool:
        """Whether it gets calls when the pool is calm."""
        return self.standing == "live" and not (self.sick or self.avoid or self.draining)

    def owed(self, now_ns: int) -> int:
        """Return the debt that is left."""
        if not self.debt:
            return 0
        return self.debt >> min(64, max(0, now_ns - self.owed_ns) // NS)

    def load(self, now_ns: int) -> float:
        """Return its calls in flight for its share."""
        return (self.in_flight + self.owed(now_ns)) / self.share

    def cost(self, now_ns: int, decay_ns: float) -> float:
        """Return its latency times the calls that a new one would stand beside, for its share.

        An instance that has not answered yet is asked once, and then waited for (Finagle).
        """
        waiting = self.in_flight + self.owed(now_ns)
        if not self.measured:
            return waiting * 1e18
        faded = self.ewma_ns * self._kept(now_ns, decay_ns)
        return (faded + 1.0) * (waiting + 1) / self.share

    def _kept(self, now_ns: int, decay_ns: float) -> float:
        """Return the share of the average that is left; all of it for a clock read before."""
        return math.exp(min(0, self.ewma_at_ns - now_ns) / decay_ns)

    def observe(self, latency_ns: int, now_ns: int, decay_ns: float, *, only_up: bool) -> None:
        """Move the average: at once if it goes up, slowly down, and not down if ``only_up``."""
        before = self.ewma_ns
        if latency_ns >= before:
            self.ewma_ns = float(latency_ns)
        elif only_up:
            return
        else:
            keep = self._kept(now_ns, decay_ns)
            self.ewma_ns = before * keep + latency_ns * (1 - keep)
        self.ewma_at_ns = now_ns
        self.measured = True

    def succeeded(self, latency_ns: int, now_ns: int) -> None:
        """Count a good outcome."""
        self.streak = 0
        self.debt >>= 1
        self.window.add(True, now_ns)
        self.latencies.append((now_ns, latency_ns))

    def failed(self, now_ns: int) -> None:
        """Count a bad outcome."""
        self.streak += 1
        self.owe(now_ns)
        self.window.add(False, now_ns)

    def owe(self, now_ns: int) -> None:
        """Count as more loaded, after a failure or because it says that it has too much to do."""
        self.debt = min(self.owed(now_ns) + 1, _DEBT_MAX)
        self.owed_ns = now_ns

    def median_ns(self, now_ns: int, window_ns: int) -> int | None:
        """Return the median latency of its good outcomes lately, ``None`` without any."""
        kept = self.latencies
        while kept and kept[0][0] <= now_ns - window_ns:
            kept.popleft()
        if not kept:
            return None
        ordered = sorted(latency for _, latency in kept)
        return ordered[len(ordered) // 2]

    def forget(self) -> None:
        """Forget outcomes: another life begins."""
        self.epoch += 1
        self.streak = self.debt = self.lies = 0
        self.window.clear()
        self.latencies.clear()
        self.ewma_ns, self.measured = 0.0, False
        self.probe_ns = None

    def snapshot(self, now_ns: int) -> dict[str, Any]:
        """Return what is known of it, as values that JSON knows."""
        self.window.turn(now_ns)
        left_ns = self.until_ns - now_ns if self.standing == "ejected" else 0
        return {
            "address": self.address,
            "zone": self.instance.zone,
            "standing": self.standing,
            "why": self.why if self.standing != "live" else "",
            "seconds_left": max(left_ns, 0) / NS,
            "times_ejected": self.times,
            "usable": self.usable,
            "check_failed": self.sick,
            "avoided": self.avoid,
            "draining": self.draining,
            "in_flight": self.in_flight,
            "share": round(self.share, 6),
            "good": self.window.good,
            "bad": self.window.bad,
            "failures_in_a_row": self.streak,
            "latency": self.ewma_ns / NS if self.measured else None,
        }
