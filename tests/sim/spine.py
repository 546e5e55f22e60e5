"""The campaign of our own cluster: ``outlast sim tests/sim/spine.py::test_cluster --seeds N``."""

from outlast import sim
from tests.support.spine import FAULTS, Spine


@sim.test(seeds=20, faults=FAULTS, limit=600.0)
async def test_cluster(lab: sim.Lab) -> None:
    """Nothing acknowledged is lost, doubled or out of order, and healed it makes progress."""
    await Spine(lab).run()
