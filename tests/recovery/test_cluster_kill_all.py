"""Every node is killed at once, again and again, while clients move money."""

from pathlib import Path

import pytest

from tools.kill_rounds import kill_rounds

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]
ROUNDS = 3


@pytest.mark.parametrize("storage", ["disk", "lossy"])
async def test_nothing_acknowledged_is_lost_when_all_nodes_die_at_once(
    tmp_path: Path, storage: str
) -> None:
    report = await kill_rounds(
        str(tmp_path / "data"), rounds=ROUNDS, storage=storage, seed=7, within=60.0
    )
    assert report.survived, report
    assert report.rounds == ROUNDS
    assert report.acknowledged > 0


async def test_a_cluster_that_fsyncs_nothing_is_found_out(tmp_path: Path) -> None:
    report = await kill_rounds(
        str(tmp_path / "data"), rounds=1, seed=7, within=4.0,
        program="outlast.testing.broken.node",
    )  # fmt: skip
    assert not report.survived
    assert report.lost > 0, report
    assert any("paid in" in problem for problem in report.problems), report
