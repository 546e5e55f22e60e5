"""The rules by which a drill is judged: nothing proves nothing.

``failed`` when a promise was broken: an acknowledged write is lost, a history has no order, an
invariant does not hold, or there was no progress in time after healing. ``void`` when a fault
left no evidence, or traffic went around the fault proxy. ``unknown`` when too little was seen to
say: a workload that never reads or never writes, or that did not succeed in both before, during
and after a fault, more than a fifth of its operations without a known outcome, a history that
could not be judged within its limits. ``survived`` needs all of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from outlast.drill.core.timeline import Done, Window
from outlast.drill.report import FaultReport, InvariantReport, WorkloadReport
from outlast.kernel import Verdict

INFO_SHARE_MAX = 0.2
STALL_MAX_NS = 1_000_000_000
"""A drill that stood still for longer cannot say that its target did not recover in time."""
_WORST: Sequence[Verdict] = ("failed", "void", "unknown", "survived")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one fault when it is judged. Times as in :class:`Window`.

    Attributes:
        window: From injection to healing.
        next_ns: When the next fault began, or the load ended.
        evidence: What shows that it happened; empty when nothing does.
        can_serve: Whether clients had to be served meanwhile.
        recovered_ns: From healing to progress; ``None`` if there was none.
        asked: Reads that reached each node that was cut off, while it was; empty where that
            does not apply.
        missing: Why there is no evidence, where that is known.
        stall_ns: Longest time that the drill itself stood still during the whole run.
    """

    window: Window
    next_ns: int
    evidence: str
    can_serve: bool
    recovered_ns: int | None
    asked: Mapping[str, int]
    missing: str = ""
    stall_ns: int = 0


def judge_fault(
    seen: Seen,
    records: Sequence[Done],
    needed: Sequence[tuple[str, bool]],
    within_ns: int,
    before_ns: int,
) -> tuple[Verdict, str]:
    """Return the verdict of one fault and what is wrong, empty when nothing is.

    Args:
        seen: What is known of it.
        records: Every operation that ended.
        needed: Kinds of operation that must succeed: workload, and whether it is a read.
        within_ns: How soon after healing each of them must.
        before_ns: When the fault before was healed, or the load began.
    """
    if seen.recovered_ns is None or seen.recovered_ns > within_ns:
        missing = _missing(records, needed, Window(seen.window.end_ns, seen.next_ns))
        what = ", ".join(missing) or "every workload"
        took = (
            "not at all" if seen.recovered_ns is None else f"after {seen.recovered_ns / 1e9:.1f} s"
        )
        why = f"no progress within {within_ns / 1e9:g} s after healing ({what}: {took})"
        if seen.stall_ns > STALL_MAX_NS:
            stalled = f"the drill itself stood still for {seen.stall_ns / 1e9:.1f} s"
            return "unknown", f"{why}, but {stalled}"
        return "failed", why
    if not seen.evidence:
        return "void", seen.missing or "no evidence that it happened"
    phases = [("before", Window(before_ns, seen.window.start_ns))]
    if seen.can_serve:
        phases.append(("during", seen.window))
    phases.append(("after", Window(seen.window.end_ns, seen.next_ns)))
    for name, window in phases:
        missing = _missing(records, needed, window)
        if missing:
            return "unknown", f"no successful {', '.join(missing)} {name} it"
    unasked = [node for node, count in seen.asked.items() if not count]
    if unasked:
        return "unknown", f"no read was answered by {', '.join(unasked)} while cut off"
    return "survived", ""


def _missing(
    records: Iterable[Done], needed: Sequence[tuple[str, bool]], window: Window
) -> list[str]:
    seen = {(d.workload, d.read) for d in records if d.outcome == "ok" and window.holds(d)}
    return [
        f"{name} {'read' if read else 'write'}"
        for name, read in needed
        if (name, read) not in seen
    ]


def judge(
    faults: Sequence[FaultReport],
    workloads: Sequence[WorkloadReport],
    invariants: Sequence[InvariantReport],
    bypasses: Sequence[str],
    unseen: Sequence[str] = (),
) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict of the whole drill and every reason for it, the worst first.

    Args:
        faults: Each with its own verdict.
        workloads: What ran side by side.
        invariants: Checked beside the histories.
        bypasses: Connections that went around the proxy.
        unseen: What no workload ever did, such as to read: then its history proves nothing.
    """
    found: list[tuple[Verdict, str]] = []
    for workload in workloads:
        if workload.verdict == "invalid":
            found.append(("failed", f"{workload.name}: {workload.why}"))
        elif workload.verdict == "unknown":
            found.append(("unknown", f"{workload.name}: {workload.why}"))
        if not workload.ok:
            found.append(("unknown", f"{workload.name}: no operation was acknowledged"))
    for invariant in invariants:
        if invariant.holds is False:
            found.append(("failed", f"{invariant.name}: {invariant.detail}"))
        elif invariant.holds is None:
            found.append(("unknown", f"{invariant.name}: {invariant.detail or 'not checked'}"))
    found += [(fault.verdict, f"{fault.name}: {fault.why}") for fault in faults if fault.why]
    found += [("void", f"traffic went around the fault proxy: {what}") for what in bypasses]
    if not faults:
        found.append(("void", "no fault was injected"))
    found += [("unknown", what) for what in unseen]
    for workload in workloads:
        ended = workload.ok + workload.fail + workload.info
        if workload.info > INFO_SHARE_MAX * ended:
            share = f"{workload.info} of {ended} operations have no known outcome"
            found.append(("unknown", f"{workload.name}: {share}: more than a fifth"))
    found.sort(key=lambda one: _WORST.index(one[0]))
    verdict = found[0][0] if found else "survived"
    return verdict, tuple(dict.fromkeys(why for _, why in found))
