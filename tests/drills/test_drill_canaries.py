"""Nodes that break a promise on purpose are condemned, and nodes that keep it are not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.testing.broken.node import BROKEN
from tests.support.drill_lab import Ended, Lab

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(600)]

FAULTS = {
    "forgets-fsync": "crash@all",
    "acks-early": "partition:isolate@leader",
    "forgets-vote": "crash@all",
    "stale-reads": "partition:isolate@leader",
    "drops-sessions": "partition:one-way@leader",
    "forgets-writes": "crash",
}
"""What makes each broken promise show."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab for this test."""
    made = Lab(tmp_path / "lab")
    yield made
    made.close()


def bank(lab: Lab, faults: str, seconds: int, *more: str, seed: int = 1) -> Ended:
    """Run the drill of our own cluster."""
    ended = lab.run("drill", "bank", "--faults", faults, "--seconds", f"{seconds}",
                    "--seed", f"{seed}", "--json", *more, within=300.0)  # fmt: skip
    assert ended.code in {0, 1, 3}, ended.err
    assert ended.left == []
    return ended


def test_every_broken_node_has_faults_that_make_it_show() -> None:
    assert FAULTS.keys() == BROKEN.keys()
    for name, fault in FAULTS.items():
        assert not BROKEN[name].condemned_by or fault in BROKEN[name].condemned_by


@pytest.mark.parametrize("name", BROKEN)
def test_a_cluster_that_breaks_its_promise_is_condemned(lab: Lab, name: str) -> None:
    """Longer drills follow where clients did too little in 8 s to meet with what is broken."""
    for seconds in (8, 16, 32):
        ended = bank(lab, FAULTS[name], seconds, "--target", f"broken-{name}")
        if ended.broken:
            break
    found = ended.report
    assert (ended.code, found["verdict"]) == (1, "failed"), found["why"]
    assert "on purpose" in found["target"]
    assert ended.broken, "not merely slow to come back"
    for one in ended.broken:
        assert one.get("why") or one.get("detail")


def test_the_same_cluster_unbroken_survives_these_faults(lab: Lab) -> None:
    """On a busy machine it may be slow to come back, and is asked again; never may it lie."""
    for _ in range(3):
        ended = bank(lab, "crash@all,partition:isolate@leader,partition:one-way@leader", 15)
        if ended.broken or ended.code == 0:
            break
    found = ended.report
    assert (ended.code, found["verdict"]) == (0, "survived"), found["why"]
    assert [fault["verdict"] for fault in found["faults"]] == ["survived"] * 3
    assert all(fault["evidence"] for fault in found["faults"])
    assert {one["verdict"] for one in found["workloads"]} == {"valid"}
    assert (found["lost"], found["doubled"], found["linearizable"]) == (0, 0, True)
    cut = next(f for f in found["faults"] if f["name"] == "partition:isolate@leader")
    assert sum(cut["facts"]["reads_answered_while_cut_off"].values()) > 0
