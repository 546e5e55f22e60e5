"""From everything that was found to one report."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outlast.drill.core.losses import set_losses
from outlast.drill.core.timeline import Done, Window, availability, gaps, latencies, series
from outlast.drill.core.verdict import Seen, judge, judge_fault
from outlast.drill.injected import Injected
from outlast.drill.report import (
    FaultReport,
    InvariantReport,
    NodeSpan,
    Report,
    WorkloadReport,
)
from outlast.drill.workload import Running

_NS = 1_000_000_000
_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """What a run found. Times are nanoseconds since the load began.

    Attributes:
        started: Wall time of the start.
        load_ns: When the load ended.
        final_ns: When the final reads began.
        injected: The faults.
        signs: By number of the fault, when the target noticed it, and by what sign.
        running: The workloads.
        invariants: Checked beside the histories.
        around: Connections that went around the proxy.
        spans: What each node was.
        stall_ns: Longest time that the drill's own loop stood still, and so clients and proxies.
    """

    started: str
    load_ns: int
    final_ns: int
    injected: Sequence[Injected]
    signs: Mapping[int, tuple[int, str]]
    running: Sequence[Running]
    invariants: tuple[InvariantReport, ...]
    around: tuple[str, ...]
    spans: tuple[NodeSpan, ...]
    stall_ns: int = 0


def summarise(
    found: Found,
    workloads: tuple[WorkloadReport, ...],
    *,
    name: str,
    target: str,
    promise: str,
    nodes: tuple[str, ...],
    seed: int,
    seconds: float,
    recover_within: float,
    serves_with: str,
    command: str,
    versions: Mapping[str, str],
) -> Report:
    """Judge every fault and the whole, and return the report."""
    records = sorted((d for r in found.running for d in r.done), key=lambda d: d.end_ns)
    load = [done for done in records if done.end_ns <= found.load_ns]
    windows = [Window(one.start_ns, one.end_ns) for one in found.injected]
    faults = _faults(found, load, windows, recover_within, serves_with == "majority")
    invariants = found.invariants + _losses(found)
    unseen = [what for running in found.running for what in running.unseen]
    verdict, why = judge(faults, workloads, invariants, found.around, unseen)
    share, per_second = availability(load, seconds)
    verdicts = {workload.verdict for workload in workloads}
    holds = {invariant.holds for invariant in invariants}
    return Report(
        name=name,
        target=target,
        verdict=verdict,
        why=why,
        seed=seed,
        seconds=seconds,
        nodes=nodes,
        clients=sum(r.client_count for r in found.running),
        promise=promise,
        faults=faults,
        workloads=workloads,
        invariants=invariants,
        operations={
            kind: sum(r.counts[kind] for r in found.running) for kind in ("ok", "fail", "info")
        },
        lost=_lost(invariants, verdicts),
        doubled=sum(invariant.doubled for invariant in invariants),
        linearizable=False if "invalid" in verdicts else (None if "unknown" in verdicts else True),
        invariant=False if False in holds else (None if None in holds else True),
        availability=share,
        availability_per_second=per_second,
        latency=latencies(load, windows),
        series=series(load, found.load_ns / _NS, [r.name for r in found.running]),
        spans=found.spans,
        command=command,
        started=found.started,
        versions=versions,
        settings={
            "progress after healing within": f"{recover_within:g} s",
            "must serve with": serves_with,
            "longest stall of the drill itself": f"{found.stall_ns / _MS:.0f} ms",
            **{
                f"{r.name}: clients, operations per second of each, timeout": (
                    f"{r.workload.clients}, {r.workload.rate:g}, {r.workload.timeout:g} s"
                )
                for r in found.running
            },
        },
    )


def _lost(invariants: Sequence[InvariantReport], verdicts: Collection[str]) -> int | None:
    """Return how many acknowledged writes are known to be gone; a history may hide more."""
    found = sum(invariant.lost for invariant in invariants)
    return None if not found and "invalid" in verdicts else found


def _faults(
    found: Found,
    records: Sequence[Done],
    windows: Sequence[Window],
    within: float,
    serves: bool,
) -> tuple[FaultReport, ...]:
    needed = [kind for running in found.running for kind in running.needed]
    longest = gaps(records, windows, found.load_ns)
    reports = []
    for number, one in enumerate(found.injected):
        after = windows[number + 1].start_ns if number + 1 < len(windows) else found.load_ns
        before = windows[number - 1].end_ns if number else 0
        seen = Seen(
            windows[number],
            after,
            one.evidence,
            serves and one.aim.can_serve,
            one.recovered_ns,
            one.asked,
            one.missing,
            found.stall_ns,
        )
        verdict, why = judge_fault(seen, records, needed, int(within * _NS), before)
        noticed = found.signs.get(number)
        reports.append(
            FaultReport(
                name=str(one.planned.fault),
                victims=one.aim.victims,
                start=round(one.start_ns / _NS, 3),
                end=round(one.end_ns / _NS, 3),
                evidence=one.evidence,
                facts=_facts(one),
                gap_ms=longest[number],
                detected_ms=round(noticed[0] / _MS, 1) if noticed else None,
                detected_why=noticed[1] if noticed else "no node said anything about it",
                recovered_ms=None
                if one.recovered_ns is None
                else round(one.recovered_ns / _MS, 1),
                verdict=verdict,
                why=why,
            )
        )
    return tuple(reports)


def _facts(one: Injected) -> dict[str, Any]:
    asked = {"reads_answered_while_cut_off": dict(one.asked)} if one.asked else {}
    return {**one.facts, **asked}


def _losses(found: Found) -> tuple[InvariantReport, ...]:
    """Return the exact count for each set: what was acknowledged and is not there."""
    reports = []
    for running in found.running:
        if running.model != "set":
            continue
        counted = set_losses(running.events, found.final_ns)
        title = f"{running.name}: every acknowledged value is in the final reads, once"
        if counted is None:
            reports.append(InvariantReport(title, None, "there was no final read"))
            continue
        lost, twice = counted
        detail = f"{lost} lost, {twice} doubled"
        reports.append(InvariantReport(title, not (lost or twice), detail, lost, twice))
    return tuple(reports)
