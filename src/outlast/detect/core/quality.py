"""How good is a detector? The measures of Chen, Toueg and Aguilera (2002, section 2).

Of a sender that stopped: how long until it is suspected (T_D). Of one that lives: how long from
mistake to mistake (T_MR), and how long each lasts (T_M). Query accuracy is the part of the time
in which the answer about a living sender was right.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from outlast.detect.core.detector import Detector
from outlast.detect.core.scale import EVICT, NEVER, NS, whole

Trace = Iterable[tuple[int | None, int]]
"""Beats in the order of arrival: number (or ``None``) and instant in nanoseconds."""

_DAY_NS = 86_400 * NS


def rank(ordered: list[int], share: float) -> int:
    """Return the least of the sorted values (one at least) that ``share`` do not exceed."""
    place = -int(-share * len(ordered) // 1)
    return ordered[min(len(ordered), max(place, 1)) - 1]


@dataclass(frozen=True, slots=True)
class Score:
    """What a detector did. Times are in seconds; ``None``: there was nothing to tell it from."""

    mistakes: int
    mistakes_per_day: float | None
    recurrence: float | None
    """Mean time between the beginnings of two mistakes that follow each other (T_MR)."""
    duration: float | None
    """Mean time that a mistake lasts (T_M)."""
    accuracy: float | None
    """Part of the time in which the sender, which lived, was trusted (P_A)."""
    detection: float | None
    """Median detection time (T_D)."""
    detection_p99: float | None
    seconds: float
    """How long was measured."""


class Quality:
    """Measures one detector while it works, in bounded memory.

    Tell it of each change of mind and, where it is known (a drill, an orderly stop), of each
    real stop of the sender. A suspicion that ends because a beat came was a mistake; one that
    began after :meth:`stopped` was a detection. Not thread-safe.

    Args:
        keep: How many detection times are remembered.

    Raises:
        ConfigError: Definite. ``keep`` is out of range.
    """

    __slots__ = (
        "_begun_ns", "_detections", "_first_mistake_ns", "_last_mistake_ns", "_lived_ns",
        "_mistakes", "_stopped_ns", "_suspected_ns", "_wrong_ns",
    )  # fmt: skip

    def __init__(self, *, keep: int = 1000) -> None:
        self._detections: deque[int] = deque(maxlen=whole("Quality", "keep", keep, 1, 1_000_000))
        self._begun_ns: int | None = None
        self._lived_ns = 0
        self._suspected_ns: int | None = None
        self._stopped_ns: int | None = None
        self._mistakes = 0
        self._wrong_ns = 0
        self._first_mistake_ns = 0
        self._last_mistake_ns = 0

    def begin(self, now_ns: int) -> None:
        """The sender lives, and is trusted; also after :meth:`stopped`."""
        self._suspected_ns = self._stopped_ns = None
        self._begun_ns = now_ns

    def suspected(self, now_ns: int) -> None:
        """The detector suspects it from now on."""
        if self._begun_ns is None or self._suspected_ns is not None:
            return
        self._suspected_ns = now_ns
        if self._stopped_ns is not None:
            self._detections.append(now_ns - self._stopped_ns)

    def trusted(self, now_ns: int) -> None:
        """The detector trusts it again: it was wrong, unless the sender had stopped."""
        if self._suspected_ns is not None and self._stopped_ns is None:
            self._mistake(self._suspected_ns, now_ns)
        self._suspected_ns = None

    def stopped(self, now_ns: int) -> None:
        """The sender has really stopped; a suspicion that is on was a mistake until now."""
        if self._begun_ns is None or self._stopped_ns is not None:
            return
        if self._suspected_ns is not None:
            self._mistake(self._suspected_ns, now_ns)
            self._detections.append(0)
        self._stopped_ns = now_ns
        self._lived_ns += now_ns - self._begun_ns

    def _mistake(self, from_ns: int, to_ns: int) -> None:
        if not self._mistakes:
            self._first_mistake_ns = from_ns
        self._last_mistake_ns = from_ns
        self._mistakes += 1
        self._wrong_ns += to_ns - from_ns

    def score(self, now_ns: int) -> Score:
        """Return the measures up to ``now_ns``."""
        lived_ns = self._lived_ns
        if self._begun_ns is not None and self._stopped_ns is None:
            lived_ns += now_ns - self._begun_ns
        count = self._mistakes
        times = sorted(self._detections)
        span_ns = self._last_mistake_ns - self._first_mistake_ns
        return Score(
            mistakes=count,
            mistakes_per_day=count * _DAY_NS / lived_ns if lived_ns > 0 else None,
            recurrence=span_ns / (count - 1) / NS if count > 1 else None,
            duration=self._wrong_ns / count / NS if count else None,
            accuracy=1 - min(1.0, self._wrong_ns / lived_ns) if lived_ns > 0 else None,
            detection=rank(times, 0.5) / NS if times else None,
            detection_p99=rank(times, 0.99) / NS if times else None,
            seconds=lived_ns / NS,
        )

    def snapshot(self) -> Mapping[str, Any]:
        """Return the counts, as values that JSON knows."""
        return {"mistakes": self._mistakes, "detections": len(self._detections)}


def score(
    trace: Trace,
    detector: Detector,
    *,
    level: float = EVICT,
    skip: int = 0,
    postpone: Callable[[int], int] | None = None,
) -> Score:
    """Replay a trace of a sender that lived, and tell what ``detector`` would have done.

    A mistake is a deadline that passed before the next beat came. The detection times are those
    of a sender that had stopped just after a beat, taken over all beats: the worst case, since
    it may as well stop just before the next.

    Args:
        trace: Beats in the order of arrival. It is read once, one beat at a time.
        detector: A new one.
        level: Where on the scale "suspected" is.
        skip: Beats at the beginning that are learnt and not counted.
        postpone: When an accusation that is due at an instant may be made: the same instant, or
            a later one (a gate such as ``LocalHealth``).
    """
    quality = Quality(keep=1)
    times: list[int] = []
    due_ns, last_ns = NEVER, 0
    for count, (seq, at_ns) in enumerate(trace):
        last_ns = at_ns
        if count == skip:
            quality.begin(at_ns)
        elif count > skip and due_ns < at_ns:
            quality.suspected(due_ns)
            quality.trusted(at_ns)
        detector.beat(seq, at_ns)
        due_ns = detector.deadline_ns(level)
        if postpone is not None:
            due_ns = postpone(due_ns)
        if count >= skip:
            times.append(due_ns - at_ns)
    times.sort()
    made = quality.score(last_ns)
    if not times:
        return made
    return Score(
        mistakes=made.mistakes,
        mistakes_per_day=made.mistakes_per_day,
        recurrence=made.recurrence,
        duration=made.duration,
        accuracy=made.accuracy,
        detection=rank(times, 0.5) / NS,
        detection_p99=rank(times, 0.99) / NS,
        seconds=made.seconds,
    )
