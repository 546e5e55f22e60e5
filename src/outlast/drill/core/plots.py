"""The three charts over the time of a drill: throughput, latency, errors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from outlast.drill.core import words
from outlast.drill.core.chart import (
    SLOTS_MAX,
    Frame,
    Point,
    Scale,
    even_ticks,
    log_range,
    merged,
)
from outlast.drill.core.figures import Tick, end_of
from outlast.drill.report import LatencyPoint, Report

_SHADES = 6


@dataclass(frozen=True, slots=True)
class Curve:
    """A path and the class that says how it is drawn."""

    path: str
    style: str


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend. ``kind`` and ``name`` say which value the crosshair shows there.

    ``of`` is what ``label`` belongs to; it is shown once for neighbours, and spoken for each.
    """

    label: str
    style: str
    kind: str
    name: str
    value: str = ""
    of: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart: what it is called, what is drawn, and what a screen reader says instead."""

    name: str
    title: str
    unit: str
    spoken: str
    ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    keys: tuple[Key, ...]
    empty: str = ""


def plots_of(report: Report) -> tuple[Plot, ...]:
    """Lay out the three charts of ``report``."""
    return (_throughput(report), _latency(report), _errors(report))


def _throughput(report: Report) -> Plot:
    step, size = _slots(report)
    rates = _rates(report.series.ok, step, size)
    totals = _sums(rates.values())
    ticks = even_ticks(max(totals, default=0.0))
    frame = _frame(report, Scale(0.0, ticks[-1]))
    curves = []
    below: list[float] = [0.0] * len(totals)
    for i, values in enumerate(rates.values()):
        above = [a + b for a, b in zip(below, _padded(values, len(below)), strict=True)]
        shade = f"w{i % _SHADES}"
        tops, bottoms = _middles(above, step), _middles(below, step)
        curves.append(Curve(frame.band(tops, bottoms), f"fill {shade}"))
        curves.append(Curve(frame.line(tops), f"line {shade}"))
        below = above
    keys = tuple(
        Key(name, f"w{i % _SHADES}", "ok", name, words.count(sum(report.series.ok[name])))
        for i, name in enumerate(rates)
    )
    spoken = "No operation was acknowledged."
    if any(totals):
        spoken = (
            f"Acknowledged operations per second, all workloads: median "
            f"{words.count(median(totals))}, least {words.count(min(totals))}, most "
            f"{words.count(max(totals))}."
        )
    return Plot(
        "throughput", "Throughput", "acknowledged per second", spoken,
        _ticks(ticks, frame.y, words.count), tuple(curves), keys,
        "" if any(totals) else "no operation was acknowledged",
    )  # fmt: skip


def _latency(report: Report) -> Plot:
    step, size = _slots(report)
    points = _thinned(report.series.latency, report.series.step, size)
    seen = [p for p in points if p.count > 0 and p.max_ms > 0]
    if not seen:
        return Plot(
            "latency", "Latency", "milliseconds, log scale", "No latency was measured.",
            (), (), (), "nothing was measured",
        )  # fmt: skip
    low = max(min(p.p50_ms for p in seen if p.p50_ms > 0), 0.001)
    scale, ticks = log_range(low, max(p.max_ms for p in seen))
    frame = _frame(report, scale)
    fills, lines, dots, keys = [], [], [], []
    for kind in ("read", "write"):
        own = {round(p.at / step): p for p in seen if p.kind == kind}
        if not own:
            continue
        slots = [own.get(i) for i in range(max(own) + 1)]
        middles = [(i + 0.5) * step for i in range(len(slots))]
        half = [(at, p.p50_ms) if p else None for at, p in zip(middles, slots, strict=True)]
        most = [(at, p.p99_ms) if p else None for at, p in zip(middles, slots, strict=True)]
        worst = [(at, p.max_ms) for at, p in zip(middles, slots, strict=True) if p]
        fills.append(Curve(frame.band(most, half), f"fill {kind}"))
        lines.append(Curve(frame.line(most), f"line thin {kind}"))
        lines.append(Curve(frame.line(half), f"line {kind}"))
        dots.append(Curve(frame.dots(worst), f"dots {kind}"))
        for key in ("p50", "p99", "max"):
            label = "worst" if key == "max" else key
            keys.append(Key(label, f"{kind} {key}", key, kind, of=kind))
    worst_of_all = max(seen, key=lambda p: p.max_ms)
    spoken = (
        f"Latency on a logarithmic scale: the median of the half is "
        f"{words.millis(median(p.p50_ms for p in seen))}, the highest 99th percentile "
        f"{words.millis(max(p.p99_ms for p in seen))}, the worst {worst_of_all.kind} "
        f"{words.millis(worst_of_all.max_ms)} at {words.seconds(worst_of_all.at)}."
    )
    return Plot(
        "latency", "Latency", "log scale", spoken,
        _ticks(ticks, frame.y, _round_millis), (*fills, *dots, *lines), tuple(keys),
    )  # fmt: skip


def _errors(report: Report) -> Plot:
    step, size = _slots(report)
    fail = _sums(_rates(report.series.fail, step, size).values())
    info = _sums(_rates(report.series.info, step, size).values())
    both = _sums((fail, info))
    ticks = even_ticks(max(both, default=0.0), 3)
    frame = _frame(report, Scale(0.0, ticks[-1]))
    totals = [
        sum(map(sum, counts.values())) for counts in (report.series.fail, report.series.info)
    ]
    keys = (
        Key("failed, surely without effect", "fail", "fail", "", words.count(totals[0])),
        Key("outcome not known", "info", "info", "", words.count(totals[1])),
    )
    curves = (
        Curve(frame.steps(both, step), "fill info"),
        Curve(frame.steps(fail, step), "fill fail"),
    )
    spoken = (
        f"{words.count(totals[0])} operations failed and surely had no effect, of "
        f"{words.count(totals[1])} the outcome is not known; at most "
        f"{words.count(max(both, default=0.0))} of both in a second."
    )
    return Plot(
        "errors", "Errors", "per second", spoken,
        _ticks(ticks, frame.y, words.count), curves, keys,
        "" if any(totals) else "none",
    )  # fmt: skip


# --- slots of time ---------------------------------------------------------------------------


def _slots(report: Report) -> tuple[float, int]:
    """Return how long one drawn slot is, and how many measured ones it holds."""
    series = report.series
    measured = max(
        (len(v) for c in (series.ok, series.fail, series.info) for v in c.values()), default=0
    )
    size = max(1, -(-measured // SLOTS_MAX))
    return series.step * size, size


def _rates(counts: Mapping[str, Sequence[int]], step: float, size: int) -> dict[str, list[float]]:
    return {name: [n / step for n in merged(values, size)] for name, values in counts.items()}


def _sums(rows: Iterable[Sequence[float]]) -> list[float]:
    rows = list(rows)
    length = max(map(len, rows), default=0)
    return [sum(column) for column in zip(*(_padded(row, length) for row in rows), strict=True)]


def _padded(values: Sequence[float], length: int) -> list[float]:
    return [*values, *[0.0] * (length - len(values))]


def _middles(values: Sequence[float], step: float) -> list[Point | None]:
    return [((i + 0.5) * step, value) for i, value in enumerate(values)]


def _thinned(points: Sequence[LatencyPoint], step: float, size: int) -> list[LatencyPoint]:
    """Return one point for ``size`` slots: median of the medians, highest of the others."""
    if size == 1:
        return list(points)
    groups: dict[tuple[int, str], list[LatencyPoint]] = {}
    for point in points:
        if point.count:
            groups.setdefault((round(point.at / step) // size, point.kind), []).append(point)
    return [
        LatencyPoint(
            slot * size * step,
            group[0].kind,
            sum(p.count for p in group),
            median(p.p50_ms for p in group),
            max(p.p99_ms for p in group),
            max(p.max_ms for p in group),
        )
        for (slot, _), group in groups.items()
    ]


def _frame(report: Report, y: Scale) -> Frame:
    return Frame(Scale(0.0, end_of(report)), y)


def _ticks(
    values: Sequence[float], scale: Scale, text: Callable[[float], str]
) -> tuple[Tick, ...]:
    return tuple(Tick(scale.percent(value), text(value)) for value in values)


def _round_millis(value: float) -> str:
    return f"{value / 1000:g} s" if value >= 1000 else f"{value:g} ms"
