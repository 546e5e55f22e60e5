"""How results and progress look. Results are plain text or JSON; verdicts are words."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from outlast.cluster.identity import NodeIdentity
    from outlast.cluster.layout import LocalPlan
    from outlast.cluster.overview import Overview
    from outlast.drill.demo import DemoView, FaultRow
    from outlast.kernel import HistoryEvent
    from outlast.log.wal import ScanReport
    from outlast.state import Finding

SCHEMA = 1
"""Version of all ``--json`` output; it grows when a field changes its meaning."""


def as_text(value: Mapping[str, Any]) -> str:
    """Return a result for ``--json``: the schema number first."""
    return json.dumps({"schema": SCHEMA, **value}, default=_plain)


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)


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


# --- Run -------------------------------------------------------------------------------------


def serving(plan: "LocalPlan", *, fresh: bool, as_json: bool) -> str:
    """Return what ``serve`` says once the cluster answers."""
    if as_json:
        return as_text(
            {
                "cluster": plan.cluster,
                "target": plan.target,
                "addresses": dict(plan.addresses),
                "http": dict(plan.http),
                "new": fresh,
            }
        )
    machine = plan.target.rpartition(":")[2]
    rows = [
        [node, address, f"http://{plan.http[node]}" if node in plan.http else None]
        for node, address in plan.addresses.items()
    ]
    addresses = ",".join(plan.addresses.values())
    word = "new cluster" if fresh else "cluster"
    return "\n".join(
        [
            f"{word} {plan.cluster} serves {machine}; Ctrl-C stops it",
            columns(["node", "address", "gateway"], rows),
            f'outlast.connect({machine}, "{addresses}")',
        ]
    )


def initialised(
    identity: "NodeIdentity", data: str, peers: str, *, drawn: bool, as_json: bool
) -> str:
    """Return what ``init`` says."""
    if as_json:
        return as_text(
            {"cluster": identity.cluster, "node": identity.node, "replica": identity.replica}
        )
    lines = [f"{data}: node {identity.node} of cluster {identity.cluster}"]
    others = [m.replica for m in identity.members if m.replica != identity.replica]
    if drawn and others:
        lines.append(
            "on each of the other machines: outlast init --id NODE"
            f" --peers {peers} --cluster {identity.cluster} --data DIR"
        )
    return "\n".join(lines)


# --- Use -------------------------------------------------------------------------------------


def result(value: Any, *, as_json: bool) -> str:
    """Return the result of a call."""
    return as_text({"result": value}) if as_json else json.dumps(value, default=_plain)


def done(message: str, facts: Mapping[str, Any], *, as_json: bool) -> str:
    """Return what an administrator's request did."""
    return as_text({"message": message, **facts}) if as_json else message


def status_text(found: "Overview") -> str:
    """Return the cluster as a table with a line above it."""
    leader = f"led by {found.leader} in term {found.term}" if found.leader else "NO LEADER"
    rows = [
        [
            row.node,
            row.role or None,
            row.term,
            row.commit,
            row.applied,
            row.lag,
            row.address,
            "yes" if row.reachable else f"NO: {row.problem}",
        ]
        for row in found.nodes
    ]
    header = ["node", "role", "term", "commit", "applied", "lag", "address", "reachable"]
    name = f"cluster {found.cluster or '?'}" + (f" ({found.machine})" if found.machine else "")
    lines = [f"{name}: {leader}", columns(header, rows)]
    lines.extend(f"warning: {warning}" for warning in found.warnings)
    return "\n".join(lines)


def status_json(found: "Overview") -> str:
    """Return the cluster for ``--json``."""
    return as_text(
        {
            "cluster": found.cluster,
            "machine": found.machine,
            "leader": found.leader or None,
            "term": found.term,
            "warnings": list(found.warnings),
            "nodes": [
                {
                    "node": row.node,
                    "address": row.address,
                    "reachable": row.reachable,
                    "role": row.role,
                    "term": row.term,
                    "commit": row.commit,
                    "applied": row.applied,
                    "lag": row.lag,
                    "problem": row.problem,
                    "facts": dict(row.facts),
                }
                for row in found.nodes
            ],
        }
    )


# --- Inspect ---------------------------------------------------------------------------------


def findings_text(findings: "Sequence[Finding]", target: str) -> str:
    """Return what ``lint`` found."""
    if not findings:
        return f"{target}: nothing found"
    return "\n".join(str(finding) for finding in findings)


def findings_json(findings: "Sequence[Finding]") -> str:
    """Return what ``lint`` found, for ``--json``."""
    rows = [
        {"level": f.level, "where": f.where, "text": f.text, "advice": f.advice} for f in findings
    ]
    return as_text({"findings": rows})


@dataclass(frozen=True, slots=True)
class CheckedLog:
    """One log and what reading it found."""

    path: str
    report: "ScanReport"


_MEANING = {
    "clean": "clean",
    "torn": "torn: the last write was cut short; the next start cuts it off, nothing is lost",
    "corrupt": "CORRUPT: acknowledged entries may be damaged",
}


def checks_text(checked: Sequence[CheckedLog]) -> str:
    """Return what ``data check`` found."""
    lines = []
    for one in checked:
        index, term = one.report.last
        state = _MEANING.get(one.report.status, str(one.report.status))
        lines.append(f"{one.path}: {state}; last entry {index}, term {term}")
        lines.extend(f"  {damage}" for damage in one.report.damage)
    return "\n".join(lines)


def checks_json(checked: Sequence[CheckedLog]) -> str:
    """Return what ``data check`` found, for ``--json``."""
    rows = [
        {
            "path": one.path,
            "status": str(one.report.status),
            "last_index": one.report.last[0],
            "last_term": one.report.last[1],
            "damage": [
                {
                    "segment": damage.segment,
                    "offset": damage.offset,
                    "kind": damage.kind,
                    "first": damage.first,
                    "last": damage.last,
                }
                for damage in one.report.damage
            ],
        }
        for one in checked
    ]
    return as_text({"logs": rows})


# --- demo ------------------------------------------------------------------------------------


def history_line(event: "HistoryEvent") -> dict[str, Any]:
    """Return one history event as ``outlast check`` reads it."""
    row = {
        "process": event.process,
        "type": event.type,
        "f": event.f,
        "value": event.value,
        "time": event.time,
    }
    if event.key is not None:
        row["key"] = event.key
    if event.result is not None:
        row["result"] = event.result
    return row


def demo_json(view: "DemoView") -> str:
    """Return the demonstration's result for ``--json``."""
    return json.dumps(view.as_json(), default=_plain)


def sentence(view: "DemoView") -> str:
    """Return the verdict as one sentence that starts with its word.

    Only what the judgement holds is said: a failed one names what broke.
    """
    word = view.verdict or "unknown"
    judgement = view.judgement
    count = f"{judgement.acknowledged:,} acknowledged transfers" if judgement else ""
    if word == "survived":
        return f"{word}: {count}: all there, none applied twice, no money created"
    if word == "failed":
        reasons = "; ".join(view.why) or "the final balances do not fit"
        return f"{word}: {count}: {reasons}" if count else f"{word}: {reasons}"
    if word == "void":
        return f"{word}: no evidence that every fault happened, so nothing was proven"
    return f"{word}: too little was acknowledged to prove anything"


def fault_line(fault: "FaultRow") -> str:
    """Return one fault, its victims, its gap, and what shows that it happened."""
    gap = "still waiting" if fault.gap_ms is None else f"no write for {fault.gap_ms:,.0f} ms"
    evidence = fault.evidence or "NO EVIDENCE"
    return f"{fault.name:<13} {' '.join(fault.victims):<9} {gap:<24} {evidence}"


def rate_line(view: "DemoView") -> str:
    """Return load and latency."""
    return (
        f"{view.elapsed:5.1f} of {view.seconds:g} s  {view.acknowledged:,} acknowledged,"
        f" {view.rate:,.0f}/s, p50 {view.p50_ms:.1f} ms, p99 {view.p99_ms:.1f} ms"
    )


def demo_text(view: "DemoView") -> str:
    """Return the demonstration's result: faults, operations, verdict."""
    lines = [fault_line(fault) for fault in view.faults]
    if view.counts:
        ok, fail, info = (view.counts.get(name, 0) for name in ("ok", "fail", "info"))
        lines.append(
            f"{ok:,} transfers acknowledged, {fail:,} refused, {info:,} without an answer;"
            f" p50 {view.p50_ms:.1f} ms, p99 {view.p99_ms:.1f} ms"
        )
    lines.append(sentence(view))
    return "\n".join(lines)


class DemoScreen:
    """Progress on stderr: a live table on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._live: Any = None
        self._said: list[str] = []
        self._next = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.update("starting the cluster")
            self._live.start()
        else:
            print("starting the cluster", file=sys.stderr, flush=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; the table goes, the result comes on stdout."""
        if self._live is not None:
            self._live.stop()

    def show(self, view: "DemoView") -> None:
        """Show the view as it is now."""
        if self._live is not None:
            self._live.update(demo_table(view), refresh=True)
            return
        lines = [f"{view.phase}"] if view.phase not in self._said else []
        self._said.extend(lines)
        if view.elapsed >= self._next and view.phase == "under load":
            self._next = view.elapsed + 2.0
            lines.append(rate_line(view))
        for number, fault in enumerate(view.faults, 1):
            mark = f"fault {number}"
            if mark not in self._said:
                self._said.append(mark)
                lines.append(f"{fault.name}: {' '.join(fault.victims)}: {fault.evidence}")
        for line in lines:
            print(line, file=sys.stderr, flush=True)


def demo_table(view: "DemoView") -> Any:
    """Return the live view for rich: nodes, load, faults."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    nodes = Table("node", "pid", "state", "role", "term", "applied", "restarts", box=None)
    for row in view.nodes:
        style = "bold" if row.role == "leader" else ("dim" if row.state != "running" else "")
        known = row.state == "running" and bool(row.role)
        nodes.add_row(
            row.node,
            str(row.pid or "-"),
            row.state,
            row.role if known else "-",
            str(row.term) if known else "-",
            f"{row.applied:,}" if known else "-",
            str(row.restarts),
            style=style,
        )
    faults = [Text(fault_line(fault)) for fault in view.faults[-8:]]
    return Group(Text(view.phase), nodes, Text(rate_line(view)), *faults)
