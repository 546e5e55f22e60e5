"""The faults of the simulator and the rows of the catalogue are the same, name by name."""

from outlast.inject import CATALOGUE
from outlast.sim.core.plan import FAULT_KINDS


def test_what_the_catalogue_calls_simulated_is_what_the_simulator_has() -> None:
    rows = {row.name for row in CATALOGUE if row.simulated}
    assert rows == {kind.name for kind in FAULT_KINDS}


def test_what_real_processes_suffer_can_be_simulated() -> None:
    assert not [row.name for row in CATALOGUE if row.built and not row.simulated]
