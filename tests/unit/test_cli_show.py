"""How results look: tables, verdicts, and that nothing is said by colour alone."""

import json

from outlast.cli import show
from outlast.cluster.overview import NodeOverview, Overview
from outlast.log.wal import Damage, ScanReport, Status
from outlast.state import Finding


def test_columns_align_numbers_to_the_right_and_show_the_missing() -> None:
    text = show.columns(["node", "lag"], [["n1", 5], ["n10", None], ["n2", 1000]])
    assert text == "node   lag\nn1       5\nn10      -\nn2    1000"


def test_columns_without_rows_are_the_header() -> None:
    assert show.columns(["node", "lag"], []) == "node  lag"


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
