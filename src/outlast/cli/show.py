"""How results and progress look. Results are plain text or JSON; verdicts are words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outlast.drill.core.table import columns

if TYPE_CHECKING:
    from outlast.cluster.identity import NodeIdentity
    from outlast.cluster.layout import LocalPlan
    from outlast.cluster.overview import Overview
    from outlast.log.wal import ScanReport
    from outlast.state import Finding

__all__ = ["columns"]

SCHEMA = 1
"""Version of all ``--json`` output; it grows when a field changes its meaning."""


def as_text(value: Mapping[str, Any]) -> str:
    """Return a result for ``--json``: the schema number first."""
    return json.dumps({"schema": SCHEMA, **value}, default=_plain)


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else str(value)


# --- Run -------------------------------------------------------------------------------------


def serving(plan: "LocalPlan", *, fresh: bool, health: str = "", as_json: bool) -> str:
    """Return what ``serve`` says once the cluster answers."""
    if as_json:
        facts = {
            "cluster": plan.cluster,
            "target": plan.target,
            "addresses": dict(plan.addresses),
            "http": dict(plan.http),
            "new": fresh,
        }
        return as_text(facts | ({"health": health} if health else {}))
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
            *([f"health: {health}/readyz"] if health else []),
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
