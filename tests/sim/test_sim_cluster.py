"""Our own cluster in the simulator, in short.

The long form is ``outlast sim tests/sim/spine.py --seeds 2000``; ``make soak`` goes on with it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outlast import sim
from tests.sim.spine import test_cluster as campaign
from tests.sim.spine import test_damage as damage_campaign

campaign.__test__ = damage_campaign.__test__ = False  # they run here, seed by seed

NEW = range(7_000, 7_012)


def run(seed: int, case: sim.Case) -> sim.Outcome:
    outcome = case.run(seed)
    if outcome.error is not None:
        outcome.error.add_note(f"again: outlast sim tests/sim/spine.py --seed {seed}")
        raise outcome.error
    return outcome


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", NEW)
def test_promises_hold_under_every_fault(seed: int) -> None:
    run(seed, campaign.__outlast_sim__)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(8_000, 8_004))
def test_one_lost_or_rotten_disk_costs_nothing_that_was_promised(seed: int) -> None:
    run(seed, damage_campaign.__outlast_sim__)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_life_of_the_cluster_is_the_same_in_every_process() -> None:
    root = Path(__file__).parents[2]
    code = (
        "from tests.sim.spine import test_cluster as t; print(t.__outlast_sim__.run(7_003).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            cwd=root, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1, digests
