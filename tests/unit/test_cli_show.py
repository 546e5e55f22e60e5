"""How results look: tables, verdicts, and that nothing is said by colour alone."""

import io
import json

import pytest

from outlast.cli import show
from outlast.cluster.overview import NodeOverview, Overview
from outlast.drill.core.ledger import Judgement
from outlast.drill.demo import DemoView, FaultRow, NodeRow
from outlast.kernel import HistoryEvent
from outlast.log.wal import Damage, ScanReport, Status
from outlast.state import Finding


def judgement(**changes: int) -> Judgement:
    facts = {
        "acknowledged": 1234, "unknown": 0, "lost": 0, "applied_twice": 0, "money_in": 10,
        "money_found": 10, **changes,
    }  # fmt: skip
    return Judgement(**facts, problems=())


def view(verdict: str | None, **changes: object) -> DemoView:
    made = DemoView(30.0, verdict=verdict, judgement=judgement())  # type: ignore[arg-type]
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_columns_align_numbers_to_the_right_and_show_the_missing() -> None:
    text = show.columns(["node", "lag"], [["n1", 5], ["n10", None], ["n2", 1000]])
    assert text == "node   lag\nn1       5\nn10      -\nn2    1000"


def test_columns_without_rows_are_the_header() -> None:
    assert show.columns(["node", "lag"], []) == "node  lag"


def test_a_survived_demonstration_says_what_held() -> None:
    assert show.sentence(view("survived")) == (
        "survived: 1,234 acknowledged transfers: all there, none applied twice, no money created"
    )


@pytest.mark.parametrize("verdict", ["failed", "void", "unknown", None])
def test_no_other_verdict_claims_that_all_is_there(verdict: str | None) -> None:
    said = show.sentence(view(verdict, why=["source-1 holds 5 where at most 3 is due"]))
    assert said.startswith(f"{verdict or 'unknown'}: ")
    assert "all there" not in said


def test_a_failed_demonstration_names_what_broke() -> None:
    said = show.sentence(view("failed", why=["10 was paid in and 12 is there"]))
    assert said == "failed: 1,234 acknowledged transfers: 10 was paid in and 12 is there"


def test_a_fault_without_evidence_is_marked() -> None:
    fault = FaultRow("crash@leader", ("n2",), 0)
    assert "NO EVIDENCE" in show.fault_line(fault)
    fault.evidence, fault.gap_ms = "kill -9, pid gone: 77", 147.4
    assert show.fault_line(fault) == (
        "crash@leader  n2        no write for 147 ms      kill -9, pid gone: 77"
    )


def test_progress_off_a_terminal_is_lines_that_do_not_repeat(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = view(None, phase="under load", elapsed=0.0)
    with show.DemoScreen() as screen:
        for elapsed in (0.0, 0.5, 1.0):
            now.elapsed = elapsed
            screen.show(now)
        now.faults.append(FaultRow("crash@leader", ("n2",), 0, evidence="pid gone: 7"))
        for elapsed in (1.5, 2.0):
            now.elapsed = elapsed
            screen.show(now)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("under load") == 1
    assert err.count("acknowledged") == 2
    assert err.count("crash@leader: n2: pid gone: 7") == 1


def test_the_live_table_shows_stale_cells_as_missing() -> None:
    from rich.console import Console

    now = view(None)
    now.nodes = [
        NodeRow("n1", 11, "running", "leader", 3, 5000, 0),
        NodeRow("n2", 0, "restarting", "leader", 2, 4000, 4),
    ]
    console = Console(file=io.StringIO(), width=100, no_color=True)
    console.print(show.demo_table(now))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    first = next(line for line in lines if "n1" in line).split()
    second = next(line for line in lines if "n2" in line).split()
    assert first == ["n1", "11", "running", "leader", "3", "5,000", "0"]
    assert second == ["n2", "-", "restarting", "-", "-", "-", "4"]


def overview(leader: str) -> Overview:
    nodes = (
        NodeOverview(
            "n1", "a:1", reachable=True, role="leader", term=3, commit=9, applied=9, lag=0
        ),
        NodeOverview("n2", "b:1", reachable=False, problem="connection refused"),
    )
    return Overview("c-1", "Bank", leader, 3, nodes, ("2 voters: losing one stops the cluster",))


def test_status_names_the_leader_and_who_does_not_answer() -> None:
    lines = show.status_text(overview("n1")).splitlines()
    assert lines[0] == "cluster c-1 (Bank): led by n1 in term 3"
    assert lines[3].split() == [
        "n2",
        "-",
        "-",
        "-",
        "-",
        "-",
        "b:1",
        "NO:",
        "connection",
        "refused",
    ]
    assert lines[4].startswith("warning: 2 voters")
    assert "NO LEADER" in show.status_text(overview(""))


def test_json_carries_the_schema_number() -> None:
    for text in (
        show.status_json(overview("n1")),
        show.result(b"\x01", as_json=True),
        show.findings_json([]),
        show.checks_json([]),
        show.done("n1 leads", {}, as_json=True),
        show.demo_json(view("survived")),
    ):
        assert json.loads(text)["schema"] == 1


def test_damage_is_listed_and_a_torn_tail_is_no_loss() -> None:
    torn = show.CheckedLog("n1/log", ScanReport(Status.TORN, (7, 2)))
    damage = [Damage("s1", 512, 3, 4, 2, "frame")]
    bad = show.CheckedLog("n2/log", ScanReport(Status.CORRUPT, (9, 2), damage))
    lines = show.checks_text([torn, bad]).splitlines()
    assert "nothing is lost" in lines[0]
    assert lines[0].endswith("last entry 7, term 2")
    assert "CORRUPT" in lines[1]
    assert lines[2].startswith("  s1: frame at byte 512")


def test_findings_are_lines_and_none_is_said_too() -> None:
    finding = Finding("error", "bank.py:Bank", "field gone", "raise version")
    assert show.findings_text([finding], "x") == "bank.py:Bank: error: field gone; raise version"
    assert show.findings_text([], "bank.py:Bank") == "bank.py:Bank: nothing found"


def test_history_lines_read_back() -> None:
    event = HistoryEvent(3, "ok", "transfer", {"id": "3-1"}, time=12)
    row = show.history_line(event)
    assert set(row) == {"process", "type", "f", "value", "time"}
    assert HistoryEvent(**row) == event
