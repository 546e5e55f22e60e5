"""The report as text: what the command line prints, and what ``str(report)`` is."""

from collections.abc import Sequence
from typing import Any

from outlast.drill.report import FaultReport, Report

_DRAWING_LINES_MAX = 40
_ERRORS_MAX = 3


def sentence(report: Report) -> str:
    """Return the verdict as one sentence that starts with its word."""
    word = report.verdict
    if word == "survived":
        counts = report.operations
        return (
            f"{word}: {len(report.faults)} faults, {counts.get('ok', 0):,} operations"
            " acknowledged: nothing lost, nothing doubled, every history has an order"
        )
    return f"{word}: {report.why[0] if report.why else 'no reason was recorded'}"


def table(report: Report) -> str:
    """Return the whole report as text."""
    lines = [
        f"drill {report.name} of {report.target}: {len(report.nodes)} nodes,"
        f" {report.seconds:g} s, seed {report.seed}",
        "",
        columns(
            ["at s", "fault", "victims", "s", "gap ms", "back ms", "verdict", "evidence"],
            [_fault(fault) for fault in report.faults],
        ),
        "",
        columns(
            ["workload", "model", "ok", "fail", "info", "history", "how"],
            [[w.name, w.model, w.ok, w.fail, w.info, w.verdict, w.how] for w in report.workloads],
        ),
        "",
        columns(
            ["invariant", "holds", "detail"],
            [[i.name, _holds(i.holds), i.detail] for i in report.invariants],
        ),
        "",
        _numbers(report),
        sentence(report),
        *(f"  also: {why}" for why in report.why[1:]),
    ]
    if report.verdict != "survived":
        lines += _errors(report)
    for workload in report.workloads:
        if workload.drawing:
            drawing = workload.drawing.splitlines()
            lines += ["", f"{workload.name}: {workload.why}", *drawing[:_DRAWING_LINES_MAX]]
            if len(drawing) > _DRAWING_LINES_MAX:
                lines.append("…: the report has all of it")
    if report.verdict != "survived" and report.command:
        lines += ["", f"again: {report.command}"]
    return "\n".join(lines)


def _fault(fault: FaultReport) -> Sequence[Any]:
    return [
        round(fault.start, 1),
        fault.name,
        " ".join(fault.victims),
        round(fault.end - fault.start, 1),
        _whole(fault.gap_ms),
        _whole(fault.recovered_ms),
        fault.verdict,
        fault.evidence or "NONE",
    ]


def _errors(report: Report) -> list[str]:
    """Return what operations raised: often the reason why too little was seen."""
    return [
        f"  {workload.name}: {count:,} × {text}"
        for workload in report.workloads
        for text, count in list(workload.errors.items())[:_ERRORS_MAX]
    ]


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _holds(value: bool | None) -> str:
    return "unknown" if value is None else ("yes" if value else "NO")


def _numbers(report: Report) -> str:
    counts = report.operations
    text = (
        f"{counts.get('ok', 0):,} acknowledged, {counts.get('fail', 0):,} refused,"
        f" {counts.get('info', 0):,} without a known outcome;"
        f" a write in {report.availability:.0%} of the seconds"
    )
    phases = [
        f"{phase} {row.p50_ms:.1f}/{row.p99_ms:.0f}"
        for phase, row in report.latency.items()
        if row.count
    ]
    if phases:
        text += f"; p50/p99 ms {', '.join(phases)} faults"
    return text


def columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table of aligned columns; numbers to the right, ``None`` as ``-``."""
    cells = [[("-" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[n], int | float | None) for row in rows)
        for n in range(len(header))
    ]

    def line(row: Sequence[str]) -> str:
        parts = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        )
        return "  ".join(parts).rstrip()

    return "\n".join(line(row) for row in (header, *cells))
