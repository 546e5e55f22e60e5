"""Drills of foreign services: real processes that keep what they promise, and some that do not."""

import asyncio
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outlast import drill
from outlast.drill import runner
from outlast.drill.loader import load_drill
from outlast.kernel import ConfigError
from tests.support.drill_lab import EXAMPLES, Lab, odd, under_load
from tests.support.nodes import WAIT, complaint, until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(600)]

SHOP = f"{EXAMPLES / 'drill_shop.py'}:Shop"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A lab for this test, also for drills that run in this process."""
    made = Lab(tmp_path / "lab")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(made.temporary))
    yield made
    left = made.remains()
    made.close()
    assert left == []


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[drill.Drill]]:
    """The example's class."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield load_drill(SHOP)
    sys.modules.pop("drill_shop", None)


def judged(kind: type[drill.Drill], **settings: Any) -> drill.Report:
    """Run a drill; again where it cannot say, as when the machine itself stood still."""
    for _ in range(3):
        report = drill.run(kind, **settings)
        if report.verdict != "unknown":
            break
    return report


# --- verdicts ----------------------------------------------------------------------------------


def test_the_example_survives_all_its_faults_with_evidence_for_each(lab: Lab) -> None:
    for _ in range(3):  # on a busy machine it may be slow to come back, and is asked again
        ended = lab.run("drill", SHOP, "--seconds", "20", "--seed", "7", "--report", "shop.html",
                        "--history", "kept", "--json")  # fmt: skip
        if ended.broken or ended.code == 0:
            break
    found = ended.report
    assert (ended.code, found["verdict"]) == (0, "survived"), found["why"]
    assert {fault["name"].partition("@")[0] for fault in found["faults"]} == {
        "crash", "pause", "partition:halves", "disk:full",
    }  # fmt: skip
    for fault in found["faults"]:
        assert fault["evidence"]
        assert fault["victims"]
        assert fault["verdict"] == "survived"
        assert fault["recovered_ms"] is not None
    assert (found["lost"], found["linearizable"], found["invariant"]) == (0, True, True)
    assert found["operations"]["ok"] > 200
    assert "survived" in (lab.folder / "shop.html").read_text(encoding="utf-8")
    judged = lab.run("check", "kept/Shop.jsonl", "--model", "set")
    assert judged.code == 0, judged.out
    assert ended.left == []


def test_a_shop_that_answers_before_anything_is_safe_is_condemned(
    lab: Lab, shop: type[drill.Drill]
) -> None:
    class Losing(shop):  # type: ignore[misc, valid-type]
        nodes = replace(shop.nodes, environment={"SHOP_LOSES": "1", "PYTHONPATH": str(EXAMPLES)})

    report = judged(Losing, seconds=10, seed=7, faults=["crash"])
    assert report.verdict == "failed", report
    assert report.lost is not None
    assert report.lost > 0
    assert report.linearizable is False
    assert any("lost" in why for why in report.why)


def test_nodes_that_go_around_the_proxy_make_the_drill_void(lab: Lab) -> None:
    report = judged(odd("around"), seconds=8, seed=1)
    assert report.verdict == "void", report
    assert any("went around the fault proxy: n" in why for why in report.why)


def test_a_cut_that_nothing_ran_into_is_void(lab: Lab) -> None:
    """Clients use n1 and nodes ask nobody: cutting off n2 or n3 withholds nothing."""
    report = judged(odd("", clients=2), seconds=8, seed=hitting("partition:isolate", "n2"),
                       faults=["partition:isolate@one"])  # fmt: skip
    (fault,) = report.faults
    assert fault.victims == ("n2",)
    assert (report.verdict, fault.verdict, fault.evidence) == ("void", "void", ""), report


def hitting(name: str, victim: str) -> int:
    """The first seed whose first fault hits ``victim`` where nobody is known to lead."""
    from outlast.drill.core.schedule import plan
    from outlast.drill.core.victims import aim
    from outlast.inject import parse_faults

    faults = parse_faults([f"{name}@one"])
    for seed in range(100):
        (first, *_) = plan(faults, 8, seed)
        if aim(first.fault, ["n1", "n2", "n3"], "", first.draw).victims == (victim,):
            return seed
    raise AssertionError(f"no seed hits {victim}")


def test_a_node_that_ends_by_itself_fails_the_drill_with_its_last_words(lab: Lab) -> None:
    report = judged(odd("dies"), seconds=8, seed=hitting("crash", "n1"))
    assert report.verdict == "failed", report
    (invariant,) = [one for one in report.invariants if one.name == "no node ends by itself"]
    assert invariant.holds is False
    assert "n2 ended by itself with exit code 3; its last output: the disk is on fire" in (
        invariant.detail
    )


def test_a_node_that_may_end_by_itself_is_started_again_and_nothing_is_said(lab: Lab) -> None:
    report = judged(odd("dies", may_exit=True), seconds=8, seed=hitting("crash", "n3"))
    assert report.verdict == "survived", report


def test_a_service_that_never_serves_again_after_a_crash_fails_the_drill(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_FINAL_SECONDS", 2.0)
    report = judged(odd("never-again", count=1, recover_within=5.0), seconds=8, seed=1)
    assert report.verdict == "failed", report
    assert any("no progress within 5 s after healing (Odd write" in why for why in report.why)


# --- what cannot run ---------------------------------------------------------------------------


def test_a_target_that_does_not_start_is_refused_with_its_own_last_words(
    lab: Lab, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        judged(odd("no-start"), seconds=8, seed=1)
    assert "n1 ended before it was ready; its last output: " in str(caught.value)
    assert "cannot open the safe: no key" in str(caught.value)
    (tmp_path / "mine.py").write_text(
        "from outlast import drill\n"
        "class Mine(drill.Drill):\n"
        "    nodes, model = drill.Nodes('no-such-program {port}', count=2), 'set'\n"
        "    @drill.operation\n"
        "    async def add(self, client, value): ...\n"
    )
    ended = lab.run("drill", f"{tmp_path / 'mine.py'}", "--seconds", "8", "--seed", "1")
    assert ended.code == 2
    line = complaint(ended.err)
    assert line.startswith("n1 ended before it was ready; its last output: no-such-program: No su")
    assert ended.left == []


# --- how it is called --------------------------------------------------------------------------


def test_a_drill_runs_inside_a_running_loop_and_from_a_thread(lab: Lab) -> None:
    reports: list[Any] = []

    async def main() -> None:
        reports.append(judged(odd("", count=1), seconds=8, seed=1))

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(300)
    (report,) = reports
    assert report.verdict == "survived", report


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("early", [True, False])
def test_an_interrupted_drill_ends_in_order_and_leaves_nothing(
    lab: Lab, number: signal.Signals, early: bool
) -> None:
    process = lab.start("drill", SHOP, "--seconds", "60", "--seed", "7")
    if early:
        until(lambda: "starting the nodes" in lab.said(), "the nodes are started")
    else:
        under_load(lab, process)
    process.send_signal(number)
    assert process.wait(WAIT) == 130, lab.said()
    assert "Traceback" not in lab.said()
    assert lab.remains() == []
