"""What benchmarks.protect and benchmarks.probes say is computed as it says."""

import asyncio
import math
from typing import Any

import pytest

from benchmarks import probes, protect, protect_measure
from benchmarks.peers.calls import FOUR, GROUPS, OURS, THREE, Table
from benchmarks.peers.calls_async import ASYNC
from benchmarks.peers.calls_async import work as work_async
from benchmarks.peers.calls_sync import SYNC, work
from benchmarks.probes import Answer
from benchmarks.protect_measure import Candidate, Row


def row(who: str, ratio: float, *, group: str = "retry", kind: str = "sync") -> Row:
    return Row(kind, group, who, ratio=ratio, ns=100 * ratio)


def test_a_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    bare = Candidate(Row("sync", "bare", "bare"), work, costs=[100.0, 200.0, 10.0])
    ours = Candidate(Row("sync", "retry", OURS), work, costs=[150.0, 280.0, 90.0])
    rows = protect_measure.settle([bare, ours], [])
    assert rows[0].ratio == 1.0
    assert (rows[1].ratio, rows[1].ns) == (1.5, 150.0)


def test_every_group_is_measured_for_ours_in_both_kinds() -> None:
    for table in (SYNC, ASYNC):
        assert [group for group in GROUPS if not any(
            case.who == OURS for case in table.of(group)
        )] == []  # fmt: skip
        assert table.of("retry")[0].who == OURS


@pytest.mark.parametrize("who", ["bare", "direct"])
def test_the_floor_returns_what_the_function_returns(who: str) -> None:
    plain = next(case for case in SYNC.of("bare") if case.who == who)
    awaited = next(case for case in ASYNC.of("bare") if case.who == who)
    assert plain.build(work)(7) == 7
    assert asyncio.run(awaited.build(work_async)(7)) == 7


def test_what_is_not_installed_or_does_not_work_is_named_and_not_measured() -> None:
    table = Table()

    @table.case("retry", "absent")
    def absent(function: Any) -> Any:
        import no_such_library

        return no_such_library.retry(function)

    @table.case("retry", "wrong")
    def wrong(function: Any) -> Any:
        return lambda value: function(value) + 1

    assert (absent, wrong) == tuple(case.build for case in table.cases)
    cases = [*SYNC.of("bare"), *table.cases]
    rows = protect_measure.cost_blocking(cases, rounds=1, seconds=0.0001)
    missing = {one.who: one.missing for one in rows if one.missing}
    assert missing == {
        "absent": "no_such_library is not installed",
        "wrong": "ValueError: the result is not the function's",
    }
    assert any(" no_such_library " in line for line in protect.show_costs(rows))


def test_a_bar_against_peers_names_the_best_of_them_and_leaves_out_parts_of_the_library() -> None:
    rows = [row(OURS, 2.0), row("quick", 3.0), row("slow", 9.0), row("asyncio.timeout", 1.0)]
    judged = protect.against_peers("sync", "retry", rows)
    assert judged == {
        "bar": "sync retry is cheaper than every peer's",
        "found": "2.00 x, quick 3.00 x",
        "met": True,
    }


@pytest.mark.parametrize(("ours", "met"), [(2.9, True), (3.1, True), (3.2, False)])
def test_what_differs_by_less_than_rounds_do_counts_as_equal(ours: float, met: bool) -> None:
    judged = protect.against_peers("sync", "retry", [row(OURS, ours), row("quick", 3.0)])
    assert judged is not None
    assert judged["met"] is met
    assert ("equal within noise" in judged["found"]) == met


def test_a_bar_is_not_measured_without_ours_and_none_without_peers() -> None:
    judged = protect.against_peers("sync", "retry", [row("quick", 3.0)])
    assert judged is not None
    assert judged["met"] is None
    assert protect.against_peers("sync", "retry", [row(OURS, 3.0)]) is None


def test_a_timeout_of_plain_functions_is_compared_thread_with_thread() -> None:
    rows = [
        row(OURS, 2.0, group="timeout"), row(f"{OURS} Hard", 90.0, group="timeout"),
        row("pool", 80.0, group="timeout"),
    ]  # fmt: skip
    judged = protect.against_peers("sync", "timeout", rows)
    assert judged is not None
    assert (judged["found"], judged["met"]) == ("90.00 x, pool 80.00 x", False)


def test_every_bar_of_cost_contention_memory_and_import_is_judged() -> None:
    rows = [
        row(OURS, 1.4), row(OURS, 7.5, group=THREE), row(OURS, 4.0, group=THREE, kind="async"),
        row(OURS, 8.0, group=FOUR, kind="async"),
    ]  # fmt: skip
    found = {
        "contention": [{"group": "retry", "who": OURS, "ratio": 2.5}, {"who": "x", "ratio": 9.0}],
        "memory": [{"who": OURS, "bytes": 1000.0}],
        "import": [{"who": OURS, "ms": 15.5, "foreign": ["rich"]}],
    }
    judged = protect.bars(rows, found)
    assert [one["met"] for one in judged] == [True, False, True, True, False, True, False, False]
    assert protect.show_bars(judged)[2].startswith("  NOT MET")


def test_the_import_is_measured_in_a_process_of_its_own() -> None:
    took, loaded, reason = protect_measure.import_once("import this_is_missing")
    assert (took, loaded) == (0.0, set())
    assert "this_is_missing" in reason
    took, loaded, reason = protect_measure.import_once("import fileinput")
    assert took > 0
    assert "fileinput" in loaded
    assert not reason


def test_bytes_are_those_of_one_instance() -> None:
    size = protect_measure.bytes_each(lambda: bytearray(5000))
    assert math.isclose(size, 5057, abs_tol=60)


def test_the_table_of_probes_says_who_is_wrong_in_what() -> None:
    lines = probes.report({
        "P2": {OURS: Answer(True, "1 of 20"), "other": Answer(False, "20 of 20")},
        "P12": {OURS: Answer(True, "3 calls"), "third": Answer(None, "third is not installed")},
    })  # fmt: skip
    assert lines.index("P2  half-open stampede") < lines.index("P12  attempts are calls")
    assert "  WRONG  other              20 of 20" in lines
    assert "  other              P2" in lines
    assert "  third              none" in lines


def test_all_eighteen_probes_are_asked_or_said_to_be_elsewhere() -> None:
    asked = {*probes.PROBES, *probes.ELSEWHERE}
    assert asked == {f"P{number}" for number in range(1, 19)}
    assert all(OURS in makers for _, _, makers in probes.PROBES.values())


def test_a_probe_that_cannot_be_asked_is_no_failure_of_the_library() -> None:
    def absent(_: object) -> Answer:
        raise ModuleNotFoundError("no", name="library")

    def broken(_: object) -> Answer:
        raise ValueError("no")

    assert probes.ask(absent, None) == Answer(None, "library is not installed")
    assert probes.ask(broken, None) == Answer(False, "ValueError: no")
