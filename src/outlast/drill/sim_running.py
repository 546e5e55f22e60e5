"""Runs a drill in the simulator: one seed for one report, or many for a campaign."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlast.drill.api import Drill, Nodes
from outlast.drill.core.schedule import QUIET_END, QUIET_START, SLOT_MIN
from outlast.drill.injected import Injected
from outlast.drill.report import Report
from outlast.drill.runner import DrillRun
from outlast.drill.sim_ground import SimGround
from outlast.drill.summary import Found
from outlast.drill.watching import View
from outlast.inject import parse_faults
from outlast.kernel import HistoryEvent, Prng
from outlast.sim import Lab, Options, Outcome, quiet, run_case

Record = Callable[[str, Mapping[str, Any], HistoryEvent], None]
_NS = 1_000_000_000
_LIMIT_SPARE = 600.0


class UnprovenError(AssertionError):
    """Definite. A drill of a campaign proved nothing: its verdict is void or unknown."""


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault of a drill, as a campaign tells it.

    Attributes:
        index: Its number in the plan.
        fault: Its name.
        felt: Whether there is evidence.
        text: When, on whom, how long, with which evidence.
    """

    index: int
    fault: str
    felt: bool
    text: str

    def __str__(self) -> str:
        """Return the text."""
        return self.text


@dataclass(slots=True)
class SimDrill:
    """A drill that can be run in the simulator, seed by seed.

    Args:
        drill: What people wrote.
        seconds: How long the load runs, in virtual time.
        asked: Names of faults; those of the drill by default.
        swarm: Whether each seed draws which of the faults exist, as many as fit; otherwise all
            must fit.
        place: How the command line names it.
        options: What else stands on the command line that repeats a seed.
        show: Called with the view a few times per virtual second.
        record: Called with the workload's name, its header and each history event.
        home: Where command lines are meant: the directory of the drill's file.

    Raises:
        ConfigError: Definite. A fault is unknown, or something else about the drill is wrong.
    """

    drill: type[Drill]
    seconds: float
    asked: Sequence[str] = ()
    swarm: bool = False
    place: str = ""
    options: Sequence[str] = ()
    show: Callable[[View], None] = lambda _: None
    record: Record | None = None
    home: str = "."
    sometimes: Sequence[str] = ()
    first: int = 1
    name: str = field(default="", init=False)
    command: str = field(default="", init=False)
    faults: Sequence[str] = field(default=(), init=False)

    def __post_init__(self) -> None:
        """Check what can be checked before anything runs."""
        given = parse_faults(self.asked or self.drill.faults, simulated=True)
        self.faults = tuple(dict.fromkeys(str(fault) for fault in given))
        self.name = self.drill.name or self.drill.__name__
        words = ["outlast", "drill", self.place, "--world", "sim", "--seconds"]
        self.command = shlex.join([*words, f"{self.seconds:g}", *self.options])

    def chosen(self, seed: int) -> list[str]:
        """Return the faults of a seed: all, or in a swarm as many as fit, drawn."""
        room = int((self.seconds - QUIET_START - QUIET_END) / SLOT_MIN)
        if not self.swarm or room >= len(self.faults):
            return list(self.faults)
        drawn = list(self.faults)
        Prng(seed).shuffle(drawn)
        return drawn[: max(1, room)]

    def run(
        self,
        seed: int,
        *,
        only: frozenset[int] | None = None,
        trace: Callable[[int, str, str], None] | None = None,
    ) -> Outcome:
        """Run one seed; ``value`` of the outcome is the report.

        A drill that failed, or proved nothing, is an error of the outcome.

        Args:
            seed: Of latencies, schedule, victims and operations.
            only: Numbers of the faults of the plan that are injected; ``None`` for all.
            trace: Called with each event: virtual nanoseconds, host, text.
        """
        with quiet():  # what the judges looked at is garbage of the run
            return self._run(seed, only, trace)

    def _run(
        self,
        seed: int,
        only: frozenset[int] | None,
        trace: Callable[[int, str, str], None] | None,
    ) -> Outcome:
        runs: list[DrillRun] = []

        async def main(lab: Lab) -> Found:
            world = lab.world()
            run = DrillRun(
                world,
                self.drill(),
                self.seconds,
                seed,
                self.chosen(seed),
                command=f"{self.command} --seed {seed}",
                show=self.show,
                record=self.record,
                ground=SimGround(lab, world, self.drill.nodes, self.home),
                only=only,
            )
            runs.append(run)
            return await run.find()

        limit = self.seconds * 3 + _LIMIT_SPARE
        files = isinstance(self.drill.nodes, Nodes)  # ours keep theirs on the disk they are given
        outcome = run_case(main, seed, Options(limit=limit, files=files), trace=trace)
        if outcome.error is not None:
            return outcome
        found: Found = outcome.value
        report: Report = runs[0].judge(found)
        outcome.value = report
        struck: Any = outcome.faults
        struck[:] = [_struck(one) for one in found.injected]
        outcome.error = _error(report, partial=only is not None)
        return outcome


def _struck(one: Injected) -> Struck:
    lasted = (one.end_ns - one.start_ns) / _NS
    said = one.evidence or one.missing or "no evidence"
    text = f"{one.start_ns / _NS:8.3f} s  {one.planned.fault} {' '.join(one.aim.victims)}"
    return Struck(
        one.planned.number, str(one.planned.fault), bool(one.evidence),
        f"{text} for {lasted:.3f} s: {said}",
    )  # fmt: skip


def _error(report: Report, *, partial: bool) -> AssertionError | None:
    """Return what a verdict means for a campaign; with a part of the faults, void is nothing."""
    if report.verdict == "survived" or (partial and report.verdict in {"void", "unknown"}):
        return None
    made = AssertionError if report.verdict == "failed" else UnprovenError
    error = made(f"{report.verdict}: {report.why}")
    for drawing in (workload.drawing for workload in report.workloads if workload.drawing):
        error.add_note(drawing)
    return error


def find_drill(
    *, name: str, nodes: int | None, target: str, seconds: float, faults: str | None, swarm: bool
) -> list[SimDrill]:
    """Return the drill that a command line names, for one process of a campaign.

    Raises:
        ConfigError: Definite. There is no such drill, or it cannot be simulated.
    """
    from outlast.drill.choosing import choose_drill

    chosen, home = choose_drill(name, nodes, target)
    options = [
        word
        for option, value in (("--faults", faults), ("--nodes", nodes))
        if value is not None
        for word in (option, str(value))
    ]
    if target != "outlast":
        options += ["--target", target]
    asked = faults.split(",") if faults is not None else ()
    made = SimDrill(chosen, seconds, asked, swarm=swarm, place=name, options=options, home=home)
    return [made]
