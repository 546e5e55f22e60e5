"""The campaign of the whole stack: ``outlast sim tests/sim/protect_fleet.py::test_fleet``."""

from outlast import sim
from tests.support.protect_fleet import FAULTS, Fleet


@sim.test(seeds=200, faults=FAULTS, limit=300.0, budget="any")
async def test_fleet(lab: sim.Lab) -> None:
    """Services fail, clients are protected: no promise of any part is broken under faults."""
    await Fleet(lab).run()
