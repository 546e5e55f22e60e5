"""The verdict of a drill: nothing proves nothing."""

from dataclasses import replace
from typing import Any

import pytest

from outlast.drill.core.timeline import Done, Window, recovered
from outlast.drill.core.verdict import Seen, judge, judge_fault
from outlast.drill.report import FaultReport, InvariantReport, WorkloadReport
from outlast.kernel import Verdict

S = 1_000_000_000
NEEDED = [("kv", False), ("kv", True)]
CALM = Seen(Window(10 * S, 12 * S), 15 * S, "pid gone", True, S, {})


def ops(*seconds: float) -> list[Done]:
    """A read and a write that succeed at each second, 10 ms long."""
    return [
        Done("kv", read, int(at * S), int(at * S) + S // 100, "ok")
        for at in seconds
        for read in (False, True)
    ]


STEADY = ops(*(n / 2 for n in range(40)))


def fault(seen: Seen, records: list[Done] = STEADY) -> tuple[Verdict, str]:
    return judge_fault(seen, records, NEEDED, 5 * S, 8 * S)


def test_a_fault_with_evidence_and_progress_all_along_is_survived() -> None:
    assert fault(CALM) == ("survived", "")


def test_a_fault_without_evidence_is_void() -> None:
    assert fault(replace(CALM, evidence="")) == ("void", "no evidence that it happened")


@pytest.mark.parametrize("took", [None, 6 * S])
def test_no_progress_in_time_after_healing_fails_even_without_evidence(took: int | None) -> None:
    verdict, why = fault(replace(CALM, evidence="", recovered_ns=took), ops(1, 9, 11))
    assert verdict == "failed"
    assert "no progress within 5 s after healing (kv write, kv read" in why


@pytest.mark.parametrize(
    ("missing", "phase"), [((8, 10), "before"), ((10, 12), "during"), ((12, 15), "after")]
)
@pytest.mark.parametrize("read", [False, True])
def test_a_kind_of_operation_that_never_succeeded_in_a_phase_leaves_it_unknown(
    missing: tuple[int, int], phase: str, read: bool
) -> None:
    low, high = missing
    records = [d for d in STEADY if d.read is not read or not low * S <= d.start_ns < high * S]
    verdict, why = fault(CALM, records)
    assert verdict == "unknown"
    assert why == f"no successful kv {'read' if read else 'write'} {phase} it"


def test_nothing_need_be_served_while_no_majority_can() -> None:
    records = [d for d in STEADY if not 10 * S <= d.start_ns < 12 * S]
    assert fault(replace(CALM, can_serve=False), records)[0] == "survived"


def test_an_operation_that_began_before_the_fault_does_not_count_as_during_it() -> None:
    records = [d for d in STEADY if not 10 * S <= d.start_ns < 12 * S]
    records += [Done("kv", read, 9 * S, 11 * S, "ok") for read in (False, True)]
    assert fault(CALM, records)[0] == "unknown"


def test_a_node_that_answered_no_read_while_cut_off_leaves_it_unknown() -> None:
    assert fault(replace(CALM, asked={"n1": 3}))[0] == "survived"
    verdict, why = fault(replace(CALM, asked={"n1": 3, "n2": 0}))
    assert (verdict, why) == ("unknown", "no read was answered by n2 while cut off")


def test_recovery_counts_only_operations_that_began_after_healing() -> None:
    records = [
        Done("kv", False, 9 * S, 11 * S, "ok"),
        Done("kv", False, 10 * S, 13 * S, "ok"),
        Done("kv", True, 11 * S, 12 * S, "ok"),
        Done("kv", True, 10 * S, 11 * S, "fail"),
    ]
    assert recovered(records, NEEDED, 10 * S) == 3 * S
    assert recovered(records, [*NEEDED, ("set", False)], 10 * S) is None


WORK = WorkloadReport("kv", "kv", 80, 5, 5, "valid")
SHOWN = FaultReport("crash@one", ("n1",), 1, 2, "pid gone", verdict="survived")
HOLDS = InvariantReport("money is conserved", True)


def whole(
    faults: Any = (SHOWN,), workloads: Any = (WORK,), invariants: Any = (HOLDS,), around: Any = ()
) -> tuple[Verdict, tuple[str, ...]]:
    return judge(faults, workloads, invariants, around)


def test_a_drill_survives_when_everything_holds() -> None:
    assert whole() == ("survived", ())


@pytest.mark.parametrize(
    ("given", "verdict", "why"),
    [
        ({"workloads": [replace(WORK, verdict="invalid", why="stale")]}, "failed", "kv: stale"),
        ({"workloads": [replace(WORK, verdict="unknown", why="time")]}, "unknown", "kv: time"),
        ({"workloads": [replace(WORK, ok=0, info=0)]}, "unknown", "no operation was acknowl"),
        ({"workloads": [replace(WORK, ok=79, fail=0, info=20)]}, "unknown", "20 of 99"),
        ({"workloads": [replace(WORK, ok=80, fail=0, info=20)]}, "survived", ""),
        ({"invariants": [replace(HOLDS, holds=False)]}, "failed", "money is conserved"),
        ({"invariants": [replace(HOLDS, holds=None)]}, "unknown", "not checked"),
        ({"faults": []}, "void", "no fault was injected"),
        ({"faults": [replace(SHOWN, verdict="void", why="no")]}, "void", "crash@one: no"),
        ({"faults": [replace(SHOWN, verdict="failed", why="no")]}, "failed", "crash@one: no"),
        ({"around": ["n2 is connected to n1"]}, "void", "went around the fault proxy"),
    ],
)
def test_the_worst_finding_decides(given: dict[str, Any], verdict: str, why: str) -> None:
    found, reasons = whole(**given)
    assert found == verdict
    assert why in " ".join(reasons)


def test_a_loss_outweighs_missing_evidence_and_every_reason_is_kept() -> None:
    found, reasons = whole(
        faults=[replace(SHOWN, verdict="void", why="nothing seen")],
        workloads=[replace(WORK, verdict="invalid", why="lost")],
        invariants=[replace(HOLDS, holds=None)],
    )
    assert found == "failed"
    assert reasons == ("kv: lost", "crash@one: nothing seen", "money is conserved: not checked")


def test_a_drill_that_stood_still_itself_does_not_condemn_its_target() -> None:
    late = replace(CALM, recovered_ns=None, stall_ns=1_500_000_000)
    verdict, why = fault(late)
    assert verdict == "unknown"
    assert "the drill itself stood still for 1.5 s" in why
    assert fault(replace(late, stall_ns=900_000_000))[0] == "failed"
