"""What benchmarks.sim says is computed as it says, and its gossip program talks."""

import sys

import pytest

from benchmarks import sim
from benchmarks.peers import gossip
from outlast.sim.running import Options, run_case

pytestmark = pytest.mark.timeout(180)


def test_the_middle_is_taken_of_each_number_by_itself() -> None:
    runs = [
        {"speed": 3.0, "steps": 10, "loop": "x", "ok": True},
        {"speed": 1.0, "steps": 30, "loop": "x", "ok": True},
        {"speed": 2.0, "steps": 20, "loop": "x", "ok": True},
    ]
    assert sim.middle(runs) == {"speed": 2.0, "steps": 20}


def test_gossip_is_told_with_ratios_to_ours_and_with_who_could_not_run() -> None:
    one = {"steps_per_second": 50.0, "steps": 5, "pushes_per_second": 9.0, "mib": 30.0}
    lines = sim.show(
        "gossip",
        {
            "runs": {"outlast 1": {"speed": 300.0, **one}, "other 2": {"speed": 150.0, **one}},
            "missing": {"later 3": "needs another Python"},
        },
    )
    assert [line.split()[:6] for line in lines[1:3]] == [
        ["outlast", "1", "ours", "is", "1.00", "×"],
        ["other", "2", "ours", "is", "2.00", "×"],
    ]
    assert lines[3].split() == ["later", "3", "needs", "another", "Python"]


def test_a_section_that_could_not_be_measured_says_why() -> None:
    assert sim.show("idle", {"error": "no such program"}) == [
        "idle: not measured: no such program"
    ]


def test_what_fails_in_a_process_of_its_own_is_told_by_its_last_line() -> None:
    with pytest.raises(RuntimeError, match="could not convert"):
        sim.apart("benchmarks.peers.gossip", "outlast", "long", 1)


def test_simulators_that_are_not_installed_or_need_a_later_python_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sim.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(gossip, "LOOPS", {})
    found = sim.gossip(1, 1.0)
    assert found["runs"] == {}
    assert {"detangle", "async-solipsism", "simloom 0.5.0"} <= found["missing"].keys()
    if sys.version_info < (3, 12):
        assert "needs Python 3.12" in found["missing"]["simloop 0.2.2"]


def test_the_gossip_program_talks_in_the_simulator() -> None:
    outcome = run_case(lambda _: gossip.gossip(5.0), 1, Options())
    assert outcome.error is None
    assert outcome.value > 200
