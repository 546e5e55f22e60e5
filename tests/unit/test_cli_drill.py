"""``outlast drill``: exit codes, JSON, files, and what is refused before anything starts."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outlast.cli import main
from outlast.drill import running as module
from outlast.drill.report import Report
from outlast.kernel import ConfigError, HistoryEvent
from tests.support import drill_reports as made

Ran = Callable[..., list[Any]]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OUTLAST_DEBUG", raising=False)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Make the run return, or raise, something at once; what was to run is kept."""

    def install(found: Report | BaseException) -> list[Any]:
        ran: list[Any] = []

        def run_in_thread(prepared: Any) -> Report:
            ran.append(prepared)
            if isinstance(found, BaseException):
                raise found
            return found

        monkeypatch.setattr(module, "run_in_thread", run_in_thread)
        return ran

    return install


# --- verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"), [("survived", 0), ("failed", 1), ("void", 3), ("unknown", 3)]
)
@pytest.mark.parametrize("json_asked", [False, True])
def test_the_exit_code_is_the_verdict(
    stub: Ran, capsys: pytest.CaptureFixture[str], name: str, code: int, json_asked: bool
) -> None:
    stub(made.SAMPLES[name]())
    assert main(["drill", "--seed", "7", *(["--json"] if json_asked else [])]) == code
    out, err = capsys.readouterr()
    assert err == "seed 7\n"
    if json_asked:
        assert json.loads(out)["verdict"] == name
    else:
        assert out == f"{made.SAMPLES[name]()}\n"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError("n1 ended before it was ready"), 2, "outlast: n1 ended before it was ready"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_drill_that_did_not_end_has_an_exit_code_of_its_own(
    stub: Ran, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, says: str
) -> None:
    stub(error)
    assert main(["drill", "--seed", "7"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.removeprefix("seed 7\n").strip() == says


# --- output ------------------------------------------------------------------------------------


def test_the_json_has_what_is_promised(stub: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    stub(made.failed())
    main(["drill", "--seed", "7", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    for name in ("seed", "target", "faults", "operations", "lost", "linearizable", "invariant",
                 "availability", "verdict"):  # fmt: skip
        assert name in found
    assert set(found["operations"]) == {"ok", "fail", "info"}
    for fault in found["faults"]:
        for name in ("name", "start", "end", "detected_ms", "recovered_ms", "evidence", "verdict",
                     "gap_ms"):  # fmt: skip
            assert name in fault
    assert (found["lost"], found["linearizable"], found["verdict"]) == (3, False, "failed")


def test_values_that_json_does_not_know_are_printed_as_text(
    stub: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    report = made.survived()
    odd = replace(report.faults[0], facts={"path": Path("x"), "set": frozenset({1})})
    stub(replace(report, faults=(odd,)))
    assert main(["drill", "--seed", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"][0]["facts"]["path"] == "x"


def test_the_report_is_one_page_of_what_was_found(
    stub: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(made.failed())
    assert main(["drill", "--seed", "7", "--report", "shop.html"]) == 1
    page = (tmp_path / "shop.html").read_text(encoding="utf-8")
    assert "failed" in page
    assert "</html>" in page
    assert capsys.readouterr().out.endswith("report: shop.html\n")


@pytest.mark.parametrize("report", ["nowhere/shop.html", "."])
def test_a_report_that_could_not_be_written_is_refused_before_the_drill(
    stub: Ran, capsys: pytest.CaptureFixture[str], report: str
) -> None:
    ran = stub(made.survived())
    assert main(["drill", "--seed", "7", "--report", report]) == 2
    assert ran == []
    assert f"outlast: --report {report}: name a file in a directory" in capsys.readouterr().err


def test_histories_are_written_as_check_reads_them(
    stub: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_in_thread(prepared: Any) -> Report:
        header = {"model": "bank", "accounts": {"a": 5, "b": 0}}
        value = {"from": "a", "to": "b", "amount": 5, "id": "t1"}
        for kind in ("invoke", "ok"):
            prepared.record("bank", header, HistoryEvent(0, kind, "transfer", value, time=1))  # type: ignore[arg-type]
        return made.survived()

    monkeypatch.setattr(module, "run_in_thread", run_in_thread)
    assert main(["drill", "--seed", "7", "--history", "kept/here"]) == 0
    assert main(["check", str(tmp_path / "kept/here/bank.jsonl"), "--model", "bank"]) == 0


# --- options -----------------------------------------------------------------------------------


def test_options_reach_the_drill_and_the_command_that_repeats_it(stub: Ran) -> None:
    ran = stub(made.survived())
    words = ["--seconds", "30", "--seed", "7", "--faults", "crash@leader,pause", "--nodes", "5"]
    assert main(["drill", "bank", *words]) == 0
    (prepared,) = ran
    assert prepared.command == f"outlast drill bank {' '.join(words)}"
    assert (prepared.seconds, prepared.seed) == (30.0, 7)
    assert prepared.faults == ["crash@leader", "pause"]
    assert type(prepared.drill).nodes.count == 5


def test_a_seed_is_drawn_and_printed_when_none_is_given(
    stub: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = stub(made.survived())
    main(["drill"])
    main(["drill"])
    seeds = [prepared.seed for prepared in ran]
    assert capsys.readouterr().err.splitlines() == [f"seed {seed}" for seed in seeds]
    assert all(f"--seed {prepared.seed}" in prepared.command for prepared in ran)
    assert seeds[0] != seeds[1]


def test_a_canary_runs_broken_nodes_and_says_which_promise_they_break(stub: Ran) -> None:
    ran = stub(made.failed())
    assert main(["drill", "--target", "broken-stale-reads", "--seed", "7"]) == 1
    nodes = type(ran[0].drill).nodes
    assert nodes.program == "outlast.testing.broken.node"
    assert nodes.environment == {"OUTLAST_BROKEN": "stale-reads"}
    assert "broken cluster on purpose (stale-reads)" in nodes.label
    assert ran[0].command.endswith("--target broken-stale-reads")


def test_the_healthy_drill_runs_no_broken_node(stub: Ran) -> None:
    ran = stub(made.survived())
    main(["drill", "--seed", "7"])
    nodes = type(ran[0].drill).nodes
    assert (nodes.program, dict(nodes.environment), nodes.label) == ("outlast", {}, "")


SHOP = """
from outlast import drill

class Shop(drill.Drill):
    \"\"\"Keeps orders.\"\"\"
    nodes = drill.Nodes("shop", count=3)
    model = "set"

    @drill.operation
    async def add(self, client, value): ...
"""


def test_the_number_of_nodes_of_a_drill_of_ones_own_can_be_given(
    stub: Ran, tmp_path: Path
) -> None:
    (tmp_path / "drill_mine.py").write_text(SHOP)
    ran = stub(made.survived())
    assert main(["drill", "drill_mine.py:Shop", "--nodes", "5", "--seed", "7"]) == 0
    assert type(ran[0].drill).nodes.count == 5
    assert type(ran[0].drill).promise() == "Keeps orders."
    assert ran[0].home == str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("bnak", "drill 'bnak': did you mean bank?"),
        ("drill_none.py:Shop", "drill_none.py: no such file"),
        ("bank --nodes 0", "--nodes 0: give 1 to 9"),
        ("bank --nodes 10", "--nodes 10: give 1 to 9"),
        ("bank --seconds 0", "--seconds 0: give more than 0"),
        ("bank --seconds -5", "--seconds -5: give more than 0"),
        ("bank --seconds 10", "--seconds 10: 9 faults need at least"),
        ("bank --seconds nan", "--seconds nan: give more than 0"),
        ("bank --faults crahs", "did you mean crash"),
        ("bank --faults partition:halvs", "did you mean partition:halves"),
        ("bank --faults crash@everyone", "crash@everyone"),
        ("bank --faults ''", "fault"),
        ("bank --target broken-stale", "--target broken-stale: did you mean broken-stale-reads?"),
        ("bank --target zebra", "--target zebra: there is outlast, broken-forgets-fsync"),
        ("drill_mine.py:Shop --target outlast2", "--target outlast2: only for the drill bank"),
        ("bank --nodes 1 --faults partition:halves", "needs at least 2 nodes; there is 1"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_starts(
    stub: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, says: str
) -> None:
    import shlex

    (tmp_path / "drill_mine.py").write_text(SHOP)
    ran = stub(made.survived())
    assert main(["drill", *shlex.split(arguments), "--seed", "7"]) == 2
    err = capsys.readouterr().err.removeprefix("seed 7\n")
    assert ran == []
    assert says in err
    assert err.startswith("outlast: ")
    assert err.count("\n") == 1


def test_the_demo_is_the_drill_with_a_report(
    stub: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = stub(made.survived())
    assert main(["demo", "--seed", "7"]) == 0
    assert ran[0].name == "bank"
    assert (tmp_path / "outlast-demo.html").is_file()
    assert "report: outlast-demo.html" in capsys.readouterr().out


def test_a_report_for_which_the_disk_has_no_room_is_named_after_the_verdict(
    stub: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(made.SAMPLES["survived"]())
    assert main(["drill", "--seed", "7", "--report", "/dev/full"]) == 2
    out, err = capsys.readouterr()
    assert "survived: " in out
    assert err.splitlines()[-1] == (
        "outlast: --report /dev/full: No space left on device; name a place with room"
    )
