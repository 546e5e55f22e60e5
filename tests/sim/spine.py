"""The campaign of our own cluster: ``outlast sim tests/sim/spine.py::test_cluster --seeds N``."""

from outlast import sim
from tests.support.spine import FAULTS, Spine
from tests.support.spine_damage import DamagedSpine


@sim.test(seeds=20, faults=FAULTS, limit=600.0)
async def test_cluster(lab: sim.Lab) -> None:
    """Nothing acknowledged is lost, doubled or out of order, and healed it makes progress."""
    await Spine(lab).run()


@sim.test(seeds=10, faults=FAULTS, limit=600.0)
async def test_damage(lab: sim.Lab) -> None:
    """The same with one disk that is lost, or rots: a minority costs nothing that was promised."""
    await DamagedSpine(lab).run()
