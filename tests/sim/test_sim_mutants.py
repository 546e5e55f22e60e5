"""Planted bugs are found: a handful of the quickest ones, within the seeds on record."""

from pathlib import Path

import pytest

from tools.mutants import report
from tools.mutants.copy import make_copy
from tools.mutants.rows import ROWS
from tools.mutants.run import Campaign, judge, run_child
from tools.mutants.table import Mutant

SEEDS_MAX = 6
QUICK = (
    "acknowledged-before-durable",
    "follower-commits-what-it-gets",
    "read-without-round",
    "replies-not-recorded",
    "snapshot-installed-incomplete",
)


def row_of(name: str) -> Mutant:
    return next(row for row in ROWS if row.name == name)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", QUICK)
def test_a_planted_bug_is_found_within_the_seeds_on_record(name: str) -> None:
    recorded = report.load()[name]["node"]["seeds"]
    verdict = judge(row_of(name), Campaign(level="node", seeds=2 * recorded, seconds_max=50))
    assert verdict.status == "caught", verdict


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_product_itself_passes_the_same_seeds(tmp_path: Path) -> None:
    campaign = Campaign(level="node", seeds=SEEDS_MAX, seconds_max=50)
    verdict = run_child(make_copy(tmp_path / "copy"), campaign)
    assert (verdict.status, verdict.seeds) == ("survived", SEEDS_MAX), verdict


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("name", "black_box"),
    [("vote-won-by-too-few", False), ("budget-grants-forgotten", True)],
    ids=["by-its-tests", "by-the-fleet"],
)
def test_a_planted_bug_of_protected_calls_is_found(name: str, black_box: bool) -> None:
    campaign = Campaign(level="protect", seeds=20, seconds_max=50, black_box=black_box)
    verdict = judge(row_of(name), campaign)
    assert verdict.status == "caught", verdict


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_tests_that_are_not_there_judge_nothing(tmp_path: Path) -> None:
    copy = make_copy(tmp_path / "copy")
    verdict = run_child(copy, Campaign(level="protect", tests=("unit/test_protect_none.py",)))
    assert verdict.status == "unjudged"
    assert "no test file" in verdict.by


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_campaign_that_does_not_start_judges_nothing(tmp_path: Path) -> None:
    copy = make_copy(tmp_path / "copy")
    (copy / "tests" / "support" / "raft_campaign.py").write_text("1 / 0\n", encoding="utf-8")
    verdict = run_child(copy, Campaign(level="node", seeds=1))
    assert verdict.status == "unjudged"
    assert "division by zero" in verdict.by
