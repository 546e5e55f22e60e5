"""Layout of charts: scales, ticks, paths, rows. Numbers in, text for SVG out.

A chart is :data:`WIDTH` by :data:`HEIGHT` units, and the page stretches it to the room that it
has. Text would be stretched with it, so text is never drawn here: labels come as shares of the
whole, and the page sets them over the drawing in their own size.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH = 1000.0
HEIGHT = 100.0
SLOTS_MAX = 400
"""Slots of time that one curve shows; more are merged, so a page does not grow with a drill."""

_NICE = (1.0, 2.0, 5.0, 10.0)
_TIMES = (
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    15.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    1800.0,
    3600.0,
)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values from ``low`` to ``high`` to shares from 0 to 1, evenly or by their logarithm."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Return where ``value`` lies, held within 0 and 1.

        >>> Scale(0.0, 60.0).share(15.0)
        0.25
        >>> Scale(1.0, 1000.0, log=True).share(0.0)
        0.0
        """
        if self.high <= self.low:
            return 0.0
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def percent(self, value: float) -> float:
        """Return the same in per cent, rounded for a style sheet."""
        return round(100 * self.share(value), 3)


@dataclass(frozen=True, slots=True)
class Frame:
    """Two scales: time to the right, values upward."""

    x: Scale
    y: Scale

    def place(self, at: float, value: float) -> str:
        """Return the coordinates of one point as text."""
        return f"{_short(self.x.share(at) * WIDTH)} {_short((1 - self.y.share(value)) * HEIGHT)}"

    def line(self, points: Iterable[Point | None]) -> str:
        """Return a path through ``points``, interrupted at each ``None``.

        A point that stands alone becomes a line of no length, which round ends show as a dot.
        """
        parts: list[str] = []
        run: list[str] = []
        for point in [*points, None]:
            if point is not None:
                run.append(self.place(*point))
            elif run:
                parts.append("M" + ("L".join(run) if len(run) > 1 else f"{run[0]}h0"))
                run = []
        return "".join(parts)

    def band(self, tops: Sequence[Point | None], bottoms: Sequence[Point | None]) -> str:
        """Return the area between two curves that are interrupted at the same places."""
        parts: list[str] = []
        upper: list[str] = []
        lower: list[str] = []
        for top, bottom in zip([*tops, None], [*bottoms, None], strict=True):
            if top is not None and bottom is not None:
                upper.append(self.place(*top))
                lower.append(self.place(*bottom))
            else:
                if len(upper) > 1:
                    parts.append("M" + "L".join([*upper, *reversed(lower)]) + "Z")
                upper, lower = [], []
        return "".join(parts)

    def steps(self, values: Sequence[float], step: float) -> str:
        """Return the outline of columns ``step`` wide that stand on the lowest value."""
        if not any(values):
            return ""
        path = [f"M{self.place(0.0, self.y.low)}"]
        last = -1.0
        for slot, value in enumerate(values):
            if value != last:
                path.append(f"L{self.place(slot * step, max(last, self.y.low))}")
                path.append(f"L{self.place(slot * step, value)}")
                last = value
        end = len(values) * step
        return "".join([*path, f"L{self.place(end, last)}L{self.place(end, self.y.low)}Z"])

    def dots(self, points: Iterable[Point]) -> str:
        """Return lines of no length: dots as wide as their stroke, however the chart is bent."""
        return "".join(f"M{self.place(*point)}h0" for point in points)


def nice_ceiling(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, … that is not below ``value``.

    >>> nice_ceiling(37.0)
    50.0
    """
    if value <= 0:
        return 1.0
    base = 10.0 ** math.floor(math.log10(value))
    return next(nice * base for nice in (*_NICE, 20.0) if nice * base >= value * (1 - 1e-9))


def even_ticks(high: float, count: int = 4) -> tuple[float, ...]:
    """Return about ``count`` round values from 0, the last of them at or above ``high``.

    >>> even_ticks(530.0)
    (0.0, 200.0, 400.0, 600.0)
    """
    high = high if high > 0 else 1.0
    step = nice_ceiling(high / count)
    return tuple(round(i * step, 9) for i in range(max(1, math.ceil(high / step - 1e-9)) + 1))


def log_range(low: float, high: float) -> tuple[Scale, tuple[float, ...]]:
    """Return a scale from one of 1, 2, 5, 10, … to another that holds both, and its ticks.

    Ticks are the powers of ten; where fewer than two lie in the range, its ends too.

    >>> log_range(0.8, 2140.0)
    (Scale(low=0.5, high=5000.0, log=True), (1.0, 10.0, 100.0, 1000.0))
    """
    top = nice_ceiling(high)
    bottom = 1 / nice_ceiling(1 / low)
    if top <= bottom:
        top = bottom * 10
    powers = range(math.ceil(math.log10(bottom) - 1e-9), math.floor(math.log10(top) + 1e-9) + 1)
    ticks = tuple(float(f"1e{power}") for power in powers)
    if len(ticks) < 2:
        ticks = (bottom, *(tick for tick in ticks if bottom < tick < top), top)
    return Scale(bottom, top, log=True), ticks


def time_ticks(end: float, count: int = 12) -> tuple[float, ...]:
    """Return at most about ``count`` round instants from 0 to ``end``, in seconds.

    >>> time_ticks(60.0, 6)
    (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0)
    """
    step = next((step for step in _TIMES if end / step <= count), nice_ceiling(end / count))
    return tuple(round(i * step, 6) for i in range(int(end / step + 1e-9) + 1))


def merged(values: Sequence[int], size: int) -> list[int]:
    """Return the sums of ``size`` neighbours each.

    >>> merged([1, 2, 3, 4, 5], 2)
    [3, 7, 5]
    """
    return [sum(values[i : i + size]) for i in range(0, len(values), size)]


def pack(spans: Sequence[Point]) -> list[int]:
    """Return a row for each span, the topmost in which it touches none of those before.

    >>> pack([(0.0, 3.0), (1.0, 2.0), (3.5, 4.0)])
    [0, 1, 0]
    """
    ends: list[float] = []
    rows: list[int] = []
    for start, end in spans:
        row = next((row for row, taken in enumerate(ends) if taken <= start), len(ends))
        if row == len(ends):
            ends.append(end)
        else:
            ends[row] = end
        rows.append(row)
    return rows


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
