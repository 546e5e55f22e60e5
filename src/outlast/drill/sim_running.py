"""Runs a drill in the simulator: one seed for one report, or many for a campaign."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlast.drill.api import Drill
from outlast.drill.core.schedule import QUIET_END, QUIET_START, SLOT_MIN
from outlast.drill.report import Report
from outlast.drill.runner import DrillRun
from outlast.drill.sim_ground import SimGround
from outlast.drill.summary import Found
from outlast.drill.watching import View
from outlast.inject import parse_faults
from outlast.kernel import HistoryEvent, Prng
from outlast.sim import Lab, Options, Outcome, run_case

Record = Callable[[str, Mapping[str, Any], HistoryEvent], None]
_LIMIT_SPARE = 600.0


@dataclass(slots=True)
class SimDrill:
    """A drill that can be run in the simulator, seed by seed.

    Args:
        drill: What people wrote.
        seconds: How long the load runs, in virtual time.
        faults: Names; those of the drill by default.
        swarm: Whether each seed draws which of the faults exist, as many as fit; otherwise all
            must fit.
        command: What repeats a seed, without ``--seed``.
        show: Called with the view a few times per virtual second.

    Raises:
        ConfigError: Definite. A fault is unknown, or something else about the drill is wrong.
    """

    drill: type[Drill]
    seconds: float
    faults: Sequence[str] = ()
    swarm: bool = False
    command: str = ""
    show: Callable[[View], None] = lambda _: None
    record: Record | None = None
    _names: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        """Check what can be checked before anything runs."""
        given = parse_faults(self.faults or self.drill.faults, simulated=True)
        self._names = tuple(str(fault) for fault in given)
        self._chosen(0)

    @property
    def name(self) -> str:
        """Of the drill."""
        return self.drill.name or self.drill.__name__

    def _chosen(self, seed: int) -> list[str]:
        """Return the faults of a seed."""
        room = int((self.seconds - QUIET_START - QUIET_END) / SLOT_MIN)
        if not self.swarm or room >= len(self._names):
            return list(self._names)
        drawn = list(self._names)
        Prng(seed).shuffle(drawn)
        return drawn[: max(1, room)]

    def run(
        self,
        seed: int,
        only: frozenset[int] | None = None,
        trace: Callable[[int, str, str], None] | None = None,
    ) -> Outcome:
        """Run one seed; ``value`` of the outcome is the report.

        Args:
            seed: Of latencies, schedule, victims and operations.
            only: Numbers of the faults of the plan that are injected; ``None`` for all.
            trace: Called with each event: virtual nanoseconds, host, text.
        """
        runs: list[DrillRun] = []

        async def main(lab: Lab) -> Found:
            world = lab.world()
            run = DrillRun(
                world,
                self.drill(),
                self.seconds,
                seed,
                self._chosen(seed),
                command=f"{self.command} --seed {seed}".strip(),
                show=self.show,
                record=self.record,
                ground=SimGround(lab, world, self.drill.nodes),
                only=only,
            )
            runs.append(run)
            return await run.find()

        limit = self.seconds * 3 + _LIMIT_SPARE
        outcome = run_case(main, seed, Options(limit=limit), trace=trace)
        if outcome.error is None:
            report: Report = runs[0].judge(outcome.value)
            outcome.value = report
            if report.verdict == "failed":
                outcome.error = AssertionError(f"failed: {report.why}")
        return outcome
