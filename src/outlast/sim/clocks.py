"""What the machine's own clocks and random sources give inside a simulation."""

from typing import Any

from outlast.sim.simulation import Simulation

_NS = 1_000_000_000
_READS_MAX = 2_000
"""So often may one callback read a clock before the reading itself takes time."""
_READ_NS = 1_000
_PID = 1_000


class SimSource:
    """Clocks of the host that runs now, and bytes drawn from the seed."""

    __slots__ = ("_draws", "_reads", "_sim", "_step")

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._draws = sim.prng.fork()
        self._reads = 0
        self._step = -1

    def _moment_ns(self) -> int:
        sim = self._sim
        if sim.steps != self._step:
            self._step, self._reads = sim.steps, 0
        self._reads += 1
        if self._reads > _READS_MAX:  # it waits for time in a loop of its own
            sim.spend(_READ_NS)
        return sim.moment_ns

    def monotonic_ns(self) -> int:
        """Return the monotonic time of the host that runs now."""
        return self._sim.here.clock.monotonic_ns(self._moment_ns())

    def wall_ns(self) -> int:
        """Return the wall time of the host that runs now."""
        return self._sim.here.clock.wall_ns(self._moment_ns())

    def sleep(self, seconds: float) -> None:
        """Block the host that runs now."""
        if seconds > 0:
            self._sim.spend(int(seconds * _NS))

    def random_bytes(self, count: int) -> bytes:
        """Return bytes drawn from the seed."""
        return self._draws.bytes(count)

    def seed(self) -> int:
        """Return a seed for ``random``, another one each time."""
        return self._draws.bits64()

    def pid(self) -> int:
        """Return a process id: another one for each life of a host."""
        return _PID + self._sim.life.number

    def hostname(self) -> str:
        """Return the name of the host that runs now."""
        return self._sim.here.name

    def signals(self) -> dict[int, Any]:
        """Return the signal handlers of the program that runs now."""
        return self._sim.life.signals
