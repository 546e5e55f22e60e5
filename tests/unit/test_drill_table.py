"""The report as text: verdict, evidence and reasons are there, and the columns stand in line."""

from dataclasses import replace
from pathlib import Path

import pytest

from outlast.drill.core.table import columns, sentence, table
from outlast.drill.report import WorkloadReport
from tests.conftest import Golden
from tests.support import drill_reports as made

HERE = Path(__file__).parent.parent / "golden"
SHOWN = ("survived", "failed", "void", "unknown", "empty")


@pytest.mark.parametrize("name", SHOWN)
def test_the_text_of_a_report_is_the_one_that_was_reviewed(name: str, golden: Golden) -> None:
    golden(HERE / f"drill_table_{name}.txt", table(made.SAMPLES[name]()) + "\n")


@pytest.mark.parametrize("name", made.SAMPLES)
def test_the_text_of_a_report_is_what_str_gives_and_says_the_verdict_in_a_line(name: str) -> None:
    report = made.SAMPLES[name]()
    lines = str(report).splitlines()
    assert lines == table(report).splitlines()
    assert sum(line.startswith(f"{report.verdict}: ") for line in lines) == 1
    assert sentence(report) in lines


@pytest.mark.parametrize("name", ["failed", "void", "unknown"])
def test_every_reason_is_named_and_the_command_that_repeats_it(name: str) -> None:
    report = made.SAMPLES[name]()
    text = str(report)
    assert all(why in text for why in report.why)
    assert text.endswith(f"again: {report.command}")


def test_a_drill_that_survived_is_not_asked_for_again() -> None:
    assert "again:" not in str(made.survived())


def test_a_fault_without_evidence_says_so_in_capitals() -> None:
    report = made.void()
    (line,) = [one for one in str(report).splitlines() if "partition:halves  " in one]
    assert line.endswith("void      NONE")


@pytest.mark.parametrize(("holds", "word"), [(True, "yes"), (False, "NO"), (None, "unknown")])
def test_an_invariant_holds_or_does_not_or_nobody_knows(holds: bool | None, word: str) -> None:
    report = made.survived()
    report = replace(report, invariants=(replace(report.invariants[0], holds=holds),))
    (line,) = [one for one in str(report).splitlines() if one.startswith("money conserved")]
    assert line.split()[2] == word


def test_a_counter_example_is_drawn_and_a_long_one_is_cut_off() -> None:
    drawing = "\n".join(f"line {n}" for n in range(100))
    work = WorkloadReport("kv", "kv", 1, 0, 0, "invalid", why="stale", drawing=drawing)
    lines = str(replace(made.survived(), verdict="failed", workloads=(work,))).splitlines()
    start = lines.index("kv: stale")
    assert lines[start + 1] == "line 0"
    assert lines[start + 40] == "line 39"
    assert lines[start + 41] == "…: the report has all of it"


def test_columns_are_aligned_with_numbers_to_the_right() -> None:
    assert columns(["name", "n"], [["a", 1], ["longer", 100], ["b", None]]).splitlines() == [
        "name      n",
        "a         1",
        "longer  100",
        "b         -",
    ]
    assert columns(["name", "n"], []) == "name  n"
