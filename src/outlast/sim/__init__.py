"""Simulate asyncio programs: hosts, network, disks and clocks in one deterministic thread.

Unmodified programs run on simulated hosts, in virtual time, with faults drawn from a seed.
``@sim.test`` makes a plain test of an async function; :func:`run` is like ``asyncio.run``;
:class:`SimLoop` is the event loop below, for ``asyncio.Runner(loop_factory=…)``.
"""

from outlast.kernel import DeadlockError, EscapeError, World, current_world
from outlast.sim.case import Case, overrides, test
from outlast.sim.escape import Escape
from outlast.sim.files import patch_files
from outlast.sim.hands import Undo
from outlast.sim.hosts import Host
from outlast.sim.lab import Lab
from outlast.sim.loop import SimLoop
from outlast.sim.nemesis import Injected
from outlast.sim.recorder import Recorder
from outlast.sim.running import Options, Outcome, quiet, run, run_case
from outlast.sim.simulation import TEST, Simulation, current
from outlast.sim.waits import Wait, Waits
from outlast.sim.weather import Way

__all__ = [
    "TEST",
    "Case",
    "DeadlockError",
    "Escape",
    "EscapeError",
    "Host",
    "Injected",
    "Lab",
    "Options",
    "Outcome",
    "Recorder",
    "SimLoop",
    "Simulation",
    "Undo",
    "Wait",
    "Waits",
    "Way",
    "World",
    "current",
    "current_world",
    "overrides",
    "patch_files",
    "quiet",
    "run",
    "run_case",
    "test",
]
