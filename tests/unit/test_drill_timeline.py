"""The run over time: rates, latencies, gaps, availability, and when everything worked again."""

import pytest

from outlast.drill.core.timeline import (
    Done,
    Outcome,
    Window,
    availability,
    gaps,
    latencies,
    recovered,
    series,
)

S = 1_000_000_000
MS = 1_000_000


def op(
    end: float, took: float = 0.01, outcome: Outcome = "ok", *, read: bool = False, of: str = "kv"
) -> Done:
    """An operation that ended at ``end`` seconds after ``took``."""
    return Done(of, read, round((end - took) * S), round(end * S), outcome)


# --- series ------------------------------------------------------------------------------------


def test_operations_count_in_the_half_second_in_which_they_ended() -> None:
    found = series(
        [op(0.2), op(0.49), op(0.6, took=0.5), op(1.2, outcome="fail"), op(1.3, of="set")],
        2,
        ["kv", "set"],
    )
    assert found.step == 0.5
    assert found.ok == {"kv": (2, 1, 0, 0), "set": (0, 0, 1, 0)}
    assert found.fail == {"kv": (0, 0, 1, 0), "set": (0, 0, 0, 0)}
    assert found.info == {"kv": (0, 0, 0, 0), "set": (0, 0, 0, 0)}


def test_what_ends_after_the_last_slot_counts_in_it() -> None:
    assert series([op(7.0)], 2, ["kv"]).ok == {"kv": (0, 0, 0, 1)}


@pytest.mark.parametrize(
    ("seconds", "step", "slots"), [(180, 0.5, 360), (200, 1.0, 200), (3600, 15.0, 240)]
)
def test_long_runs_have_wider_slots(seconds: float, step: float, slots: int) -> None:
    found = series([], seconds, ["kv"])
    assert found.step == step
    assert len(found.ok["kv"]) == slots


def test_latencies_of_a_slot_are_those_of_acknowledged_reads_and_writes_apart() -> None:
    records = [op(0.4, took=n / 1000) for n in range(1, 101)]
    records += [op(0.3, took=0.005, read=True), op(0.3, took=0.3, outcome="info")]
    write, read = series(records, 1, ["kv"]).latency
    assert (read.at, read.kind, read.count, read.p50_ms, read.max_ms) == (0.0, "read", 1, 5.0, 5.0)
    assert (write.kind, write.count) == ("write", 100)
    assert (write.p50_ms, write.p99_ms, write.max_ms) == (50.0, 99.0, 100.0)


# --- phases ------------------------------------------------------------------------------------

WINDOWS = [Window(10 * S, 12 * S), Window(20 * S, 22 * S)]


@pytest.mark.parametrize(
    ("end", "took", "phase"),
    [
        (9.9, 0.1, "before"), (10.0, 0.1, "before"), (10.1, 0.2, "during"),
        (11.0, 0.1, "during"), (12.1, 0.2, "during"), (12.1, 0.1, "after"),
        (15.0, 0.1, "after"), (23.0, 4.0, "during"), (30.0, 0.1, "after"),
    ],
)  # fmt: skip
def test_an_operation_that_overlaps_a_fault_is_one_of_its_latencies(
    end: float, took: float, phase: str
) -> None:
    found = latencies([op(end, took)], WINDOWS)
    assert {name: row.count for name, row in found.items() if row.count} == {phase: 1}
    assert found[phase].max_ms == pytest.approx(took * 1000)


def test_without_faults_everything_is_before_and_what_failed_has_no_latency() -> None:
    found = latencies([op(1), op(2, outcome="fail"), op(3, outcome="info")], [])
    assert {name: row.count for name, row in found.items()} == {
        "before": 1, "during": 0, "after": 0,
    }  # fmt: skip


# --- gaps --------------------------------------------------------------------------------------


def test_a_gap_is_the_longest_time_without_an_acknowledged_write_that_touches_the_fault() -> None:
    steady = [op(n / 10) for n in range(1, 300)]
    quiet = [d for d in steady if not 10.05 * S < d.end_ns < 11.45 * S]
    assert gaps(quiet, WINDOWS, 30 * S) == [1500.0, 100.0]


def test_a_gap_is_followed_past_healing_up_to_the_next_fault_and_no_further() -> None:
    records = [op(9.9)]
    assert gaps(records, WINDOWS, 30 * S)[0] == 10_100.0
    records = [op(9.9), op(15.0), op(21.0)]
    assert gaps(records, WINDOWS, 30 * S) == [5_100.0, 9_000.0]


def test_reads_and_refusals_do_not_fill_a_gap() -> None:
    writes = [op(9.9), op(13.9)]
    others = [op(11, read=True), op(12, outcome="fail"), op(12, outcome="info")]
    assert gaps([*writes, *others], WINDOWS[:1], 15 * S) == [4_000.0]


def test_without_any_write_the_gap_is_the_whole_time_from_the_fault() -> None:
    assert gaps([], WINDOWS, 30 * S) == [10_000.0, 10_000.0]


# --- availability ------------------------------------------------------------------------------


def test_a_second_is_available_if_a_write_was_acknowledged_in_it() -> None:
    share, seconds = availability(
        [op(0.5), op(1.5, read=True), op(2.5, outcome="fail"), op(2.6), op(9.0)], 4
    )
    assert share == 0.5
    assert seconds == (1.0, 1.0, 0.5, 0.0)


def test_a_run_without_operations_was_never_available() -> None:
    assert availability([], 3) == (0.0, (0.0, 0.0, 0.0))


# --- recovery ----------------------------------------------------------------------------------


def test_recovery_is_when_the_last_needed_kind_has_succeeded_once() -> None:
    records = [op(10.2, 0.1), op(10.7, 0.1, read=True), op(12, 0.1, of="set")]
    needed = [("kv", False), ("kv", True), ("set", False)]
    assert recovered(records, needed, 10 * S) == 2 * S
    assert recovered(records, needed[:2], 10 * S) == pytest.approx(0.7 * S)
    assert recovered(records, [], 10 * S) == 0


def test_there_is_no_recovery_while_one_needed_kind_has_not_succeeded() -> None:
    records = [op(10.2, 0.1), op(10.3, 0.1, "info", read=True), op(10.1, 0.2, read=True)]
    assert recovered(records, [("kv", False), ("kv", True)], 10 * S) is None


def test_a_window_holds_what_began_and_ended_inside_it() -> None:
    window = Window(10 * S, 12 * S)
    assert window.holds(op(11))
    assert not window.holds(op(10.05, took=0.1))
    assert not window.holds(op(12.05, took=0.1))
