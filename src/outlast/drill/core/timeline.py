"""The run over time: what was acknowledged when, how quickly, and for how long nothing was."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from outlast.drill.core.gaps import AckTimes, percentile
from outlast.drill.report import Latency, LatencyPoint, Series

_NS = 1_000_000_000
_MS = 1_000_000

Outcome = Literal["ok", "fail", "info"]


@dataclass(frozen=True, slots=True)
class Done:
    """One operation that ended. Times are nanoseconds since the load began.

    Attributes:
        workload: Which one ran it.
        read: Whether it changes nothing.
        start_ns: When it was invoked.
        end_ns: When it ended, or was given up.
        outcome: How it ended.
    """

    workload: str
    read: bool
    start_ns: int
    end_ns: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, in nanoseconds since the load began."""

    start_ns: int
    end_ns: int

    def holds(self, done: Done) -> bool:
        """Whether the operation began and ended inside."""
        return self.start_ns <= done.start_ns and done.end_ns <= self.end_ns


def series(records: Sequence[Done], seconds: float, workloads: Sequence[str]) -> Series:
    """Return counts and latencies in slots of half a second; of whole ones in long runs."""
    step = 0.5 if seconds <= 180 else max(1.0, round(seconds / 240))
    step_ns = int(step * _NS)
    slots = max(1, -(-int(seconds * _NS) // step_ns))
    counts = {
        outcome: {name: [0] * slots for name in workloads} for outcome in ("ok", "fail", "info")
    }
    took: dict[tuple[int, bool], list[int]] = {}
    for done in records:
        slot = min(slots - 1, done.end_ns // step_ns)
        counts[done.outcome][done.workload][slot] += 1
        if done.outcome == "ok":
            took.setdefault((slot, done.read), []).append(done.end_ns - done.start_ns)
    points = tuple(
        LatencyPoint(
            round(slot * step, 3),
            "read" if read else "write",
            len(values),
            _ms(percentile(values, 50)),
            _ms(percentile(values, 99)),
            _ms(max(values)),
        )
        for (slot, read), values in sorted(took.items())
    )
    ok, fail, info = (
        {name: tuple(slots) for name, slots in counts[outcome].items()} for outcome in counts
    )
    return Series(step, ok, fail, info, points)


def latencies(records: Iterable[Done], faults: Sequence[Window]) -> dict[str, Latency]:
    """Return latency before the first fault, during faults, and between or after them."""
    first = min((window.start_ns for window in faults), default=1 << 62)
    values: dict[str, list[int]] = {"before": [], "during": [], "after": []}
    for done in records:
        if done.outcome != "ok":
            continue
        if any(w.start_ns < done.end_ns and done.start_ns < w.end_ns for w in faults):
            phase = "during"
        else:
            phase = "before" if done.end_ns <= first else "after"
        values[phase].append(done.end_ns - done.start_ns)
    return {
        phase: Latency(
            len(took),
            _ms(percentile(took, 50)),
            _ms(percentile(took, 99)),
            _ms(max(took, default=0)),
        )
        for phase, took in values.items()
    }


def availability(records: Iterable[Done], seconds: float) -> tuple[float, tuple[float, ...]]:
    """Return the share of whole seconds in which a write was acknowledged, and of operations.

    The second is the share of the operations that ended in each second which were acknowledged;
    1.0 for a second in which none ended because all were waiting counts as 0.
    """
    count = max(1, int(seconds))
    ok, ended, wrote = [0] * count, [0] * count, [False] * count
    for done in records:
        second = done.end_ns // _NS
        if second >= count:
            continue
        ended[second] += 1
        if done.outcome == "ok":
            ok[second] += 1
            wrote[second] = wrote[second] or not done.read
    shares = tuple(round(o / e, 4) if e else 0.0 for o, e in zip(ok, ended, strict=True))
    return round(sum(wrote) / count, 4), shares


def gaps(records: Iterable[Done], faults: Sequence[Window], end_ns: int) -> list[float]:
    """Return for each fault the longest time without an acknowledged write, in milliseconds.

    A gap counts for the fault in which it began; it is followed past the fault's end, up to the
    next fault.
    """
    if not faults:
        return []
    times = AckTimes(sorted(d.end_ns for d in records if d.outcome == "ok" and not d.read))
    ends = [*(window.start_ns for window in faults[1:]), end_ns]
    return [
        round(times.longest_gap_ns(window.start_ns, until) / _MS, 1)
        for window, until in zip(faults, ends, strict=True)
    ]


def recovered(
    records: Iterable[Done], needed: Iterable[tuple[str, bool]], at_ns: int
) -> int | None:
    """Return when every needed kind of operation had succeeded once after ``at_ns``.

    Only operations that were invoked after it count.

    Args:
        records: What ended.
        needed: Pairs of workload and whether a read is meant.
        at_ns: When the fault was healed.

    Returns:
        Nanoseconds from ``at_ns``, ``None`` if some kind never succeeded.
    """
    first: dict[tuple[str, bool], int] = {}
    for done in records:
        if done.outcome == "ok" and done.start_ns >= at_ns:
            kind = (done.workload, done.read)
            first[kind] = min(first.get(kind, done.end_ns), done.end_ns)
    found = [first.get(kind) for kind in needed]
    if any(one is None for one in found):
        return None
    return max((one - at_ns for one in found if one is not None), default=0)


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / _MS, 3)
