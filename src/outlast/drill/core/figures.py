"""What the page of a drill draws: bands of faults, three charts, a lane per node, one axis.

Everything here is places in per cent and paths in the units of :mod:`~outlast.drill.core.chart`,
with the words that a screen reader says instead. Names come from the report as they are; the
template escapes them. Classes of the style sheet come from fixed lists and never from a report.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from outlast.drill.core import words
from outlast.drill.core.chart import Scale, pack, time_ticks
from outlast.drill.report import FaultReport, NodeSpan, NodeState, Report

_WIDE_PX = 640.0
_NARROW_PX = 270.0
_CHAR_PX = 6.9
_CHIP_PX = 26.0
_NAME_CHARS_MAX = 30
_ROWS_MAX = 6
_SPANS_SAID_MAX = 40

_KINDS = {
    "crash": "crash", "power-cut": "crash",
    "pause": "pause",
    "partition": "cut",
    "link": "link", "dns": "link",
    "disk": "disk", "memory": "disk", "clock": "disk",
}  # fmt: skip
STATES: dict[NodeState, str] = {
    "leader": "leads",
    "follower": "follows",
    "candidate": "stands for election",
    "up": "answers",
    "down": "process gone",
    "paused": "stopped, not gone",
    "cut": "cut off from others",
}


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on an axis; a ``minor`` one is left out where there is little room."""

    at: float
    text: str
    minor: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A fault on the axis. ``row`` is for labels with names, ``narrow_row`` for numbers alone."""

    number: int
    fault: FaultReport
    kind: str
    left: float
    width: float
    tail: float
    detected: float | None
    row: int
    narrow_row: int
    named: bool
    label_px: int
    title: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A node in one state."""

    left: float
    width: float
    state: NodeState
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """What one node was, from left to right; ``spoken`` says it in words."""

    node: str
    segments: tuple[Segment, ...]
    spoken: str


@dataclass(frozen=True, slots=True)
class Run:
    """All that stands over the time axis, but for the charts."""

    end: float
    unit: str
    ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    rows: int
    narrow_rows: int
    lanes: tuple[Lane, ...]
    states: tuple[NodeState, ...]
    long_names: bool


def end_of(report: Report) -> float:
    """Return where the axis ends: with the load, or with what was seen after it."""
    slots = max((len(values) for values in report.series.ok.values()), default=0)
    ends = [report.seconds, slots * report.series.step, *(fault.end for fault in report.faults)]
    return max(*ends, 1e-3)


def run_of(report: Report) -> Run:
    """Lay out axis, fault bands and lanes of ``report``."""
    end = end_of(report)
    scale = Scale(0.0, end)
    instants = time_ticks(end)
    every = 2 if len(instants) > 8 else 1
    marks = _marks(report.faults, scale)
    lanes = tuple(_lane(node, report.spans, scale) for node in _nodes(report))
    seen = {segment.state for lane in lanes for segment in lane.segments}
    return Run(
        end,
        words.clock_unit(end),
        tuple(
            Tick(scale.percent(at), words.clock(at, end), minor=i % every != 0)
            for i, at in enumerate(instants)
        ),
        marks,
        1 + max((mark.row for mark in marks), default=0),
        1 + max((mark.narrow_row for mark in marks), default=0),
        lanes,
        tuple(state for state in STATES if state in seen),
        any(len(node) > 7 for node in _nodes(report)),
    )


def kind_of(name: str) -> str:
    """Return the class of a fault's colour and hatch.

    >>> kind_of("partition:halves@leader"), kind_of("volcano")
    ('cut', 'other')
    """
    return _KINDS.get(name.partition("@")[0].partition(":")[0], "other")


def _marks(faults: Sequence[FaultReport], scale: Scale) -> tuple[Mark, ...]:
    named = True
    rows = _rows(faults, scale, _WIDE_PX, named=True)
    if max(rows, default=0) >= _ROWS_MAX:
        named, rows = False, _rows(faults, scale, _WIDE_PX, named=False)
    narrow = _rows(faults, scale, _NARROW_PX, named=False)
    marks = []
    for i, fault in enumerate(faults):
        left = scale.percent(fault.start)
        right = max(scale.percent(fault.end), left)
        back = scale.percent(_recovered(fault))
        seen = fault.detected_ms
        marks.append(
            Mark(
                i + 1,
                fault,
                kind_of(fault.name),
                left,
                round(right - left, 3),
                round(max(0.0, back - right), 3),
                None if seen is None else scale.percent(fault.start + seen / 1000),
                rows[i],
                narrow[i],
                named,
                _label_px(fault, named=named),
                _title(i + 1, fault),
            )
        )
    return tuple(marks)


def _rows(faults: Sequence[FaultReport], scale: Scale, pixels: float, *, named: bool) -> list[int]:
    spans = []
    for fault in faults:
        label = min(100.0, 100 * _label_px(fault, named=named) / pixels)
        start = scale.percent(fault.start)
        stop = max(scale.percent(max(fault.end, _recovered(fault))), start)
        left = min(start, 100 - label)
        spans.append((left, max(stop, left + label)))
    return pack(spans)


def _label_px(fault: FaultReport, *, named: bool) -> int:
    """Return about how wide the label is; the page moves it left where that is too much."""
    chars = min(len(fault.name), _NAME_CHARS_MAX) if named else 0
    return round(_CHIP_PX + chars * _CHAR_PX)


def _recovered(fault: FaultReport) -> float:
    return fault.end + (fault.recovered_ms or 0.0) / 1000


def _title(number: int, fault: FaultReport) -> str:
    parts = [
        f"{number} {fault.name}",
        f"{words.seconds(fault.start)} to {words.seconds(fault.end)}",
        f"gap {words.millis(fault.gap_ms)}" if fault.gap_ms is not None else "",
        fault.verdict,
    ]
    return " · ".join(part for part in parts if part)


def _nodes(report: Report) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*report.nodes, *(span.node for span in report.spans)]))


def _lane(node: str, spans: Sequence[NodeSpan], scale: Scale) -> Lane:
    segments = []
    said = []
    for span in spans:
        if span.node != node or span.end <= span.start:
            continue
        left = scale.percent(span.start)
        title = f"{span.state}, {words.seconds(span.start)} to {words.seconds(span.end)}"
        width = round(scale.percent(span.end) - left, 3)
        segments.append(Segment(left, width, span.state, title))
        said.append(title)
    more = len(said) - _SPANS_SAID_MAX
    spoken = "; ".join(said[:_SPANS_SAID_MAX]) + (f"; and {more} more" if more > 0 else "")
    return Lane(node, tuple(segments), spoken or "nothing is known of it")
