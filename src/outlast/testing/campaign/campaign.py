"""Many seeds of one test: run them, and tell what was found.

A campaign ends at the first failure unless told otherwise. Of all seeds that ran it tells the
smallest that failed: seeds are handed out in order, and those below a failing one are waited
for, so that the answer does not depend on the number of processes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from outlast.kernel import ConfigError, invariant
from outlast.testing.campaign.loading import Origin
from outlast.testing.campaign.model import Difference, Explanation, Runnable, SeedResult
from outlast.testing.campaign.repeat import SECOND_RUN, Repeats, compare_again
from outlast.testing.campaign.report import Report, Tally
from outlast.testing.campaign.single import HANG_SECONDS, seconds
from outlast.testing.campaign.workers import Here, Pool

TWICE_EVERY = 100
"""Of so many passing seeds one is run again, to see that runs repeat."""
_SHOW_SECONDS = 0.1
_KINDS_MAX = 5
_CHECKED_FAILURES_MAX = 10
_JUDGED_SEEDS_MIN = 50
"""From so many seeds on, a fault that was asked for and never injected makes a campaign void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a campaign goes.

    Args:
        seeds: How many; at least 1. With ``until_failure`` without meaning.
        first: The first of them.
        workers: Processes that run seeds; 1: this one. At least 1.
        until_failure: Go on without end.
        seconds: Stop handing out seeds after so long. Above 0.
        keep_going: Run all seeds, failures or not.
        only: Inject these steps of the schedule alone.
        sometimes: Share of the seeds, 0 to 1, in which each thing that should sometimes happen
            must have happened. 0: in at least one.
        hang_seconds: Real seconds that one run may take. Above 0.
        repeats: Whether to check that runs repeat in other processes.

    Raises:
        ConfigError: Definite. A value is out of range.
    """

    seeds: int = 1000
    first: int = 1
    workers: int = 2
    until_failure: bool = False
    seconds: float | None = None
    keep_going: bool = False
    only: frozenset[int] | None = None
    sometimes: float = 0.0
    hang_seconds: float = HANG_SECONDS
    repeats: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, value, least in (
            ("seeds", self.seeds, 1), ("workers", self.workers, 1), ("first", self.first, 0),
        ):  # fmt: skip
            if value < least:
                message = f"{name} is {value}; at least {least} would be right"
                raise ConfigError(message)
        if self.seconds is not None and not self.seconds > 0:
            message = f"seconds is {self.seconds:g}; above 0 would be right"
            raise ConfigError(message)
        if not self.hang_seconds > 0:
            message = f"hang_seconds is {self.hang_seconds:g}; above 0 would be right"
            raise ConfigError(message)
        if not 0 <= self.sometimes <= 1:
            message = f"sometimes is {self.sometimes:g}; a share from 0 to 1 would be right"
            raise ConfigError(message)


@dataclass(slots=True)
class View:
    """A campaign as it is now, for whoever shows it.

    Attributes:
        name: Of what runs.
        phase: What goes on.
        planned: How many seeds are to run, if that is known.
        done: How many have.
        failed: How many of them failed.
        elapsed: Real seconds so far.
        virtual: Virtual seconds so far.
    """

    name: str
    phase: str
    planned: int | None
    done: int = 0
    failed: int = 0
    elapsed: float = 0.0
    virtual: float = 0.0


Show = Callable[[View], None]


class _Runner(Protocol):
    def explain(self, seed: int, tick: Callable[[str], None]) -> Explanation: ...


class _Handing:
    """Hands out seeds in order until it is told to stop or time is up."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next = settings.first
        self._last = None if settings.until_failure else settings.first + settings.seeds - 1
        self._end = None if settings.seconds is None else seconds() + settings.seconds
        self.stopped = False

    def take(self, count: int) -> Sequence[int]:
        """Return up to ``count`` more seeds."""
        if self.stopped or (self._end is not None and seconds() >= self._end):
            return ()
        end = self._next + count
        if self._last is not None:
            end = min(end, self._last + 1)
        taken = range(self._next, end)
        self._next = end
        return taken

    @property
    def handed(self) -> int:
        """How many seeds were handed out."""
        return self._next - self._settings.first

    def twice(self, seed: int) -> bool:
        """Whether ``seed`` is one of those that are run twice: at least two, if there are two."""
        return (seed - self._settings.first) % TWICE_EVERY == 0 or seed == self._last


class Campaign:
    """Runs the seeds of one runnable.

    Args:
        runnable: A test made by ``@sim.test``, or a drill.
        origin: How other processes find it; without it everything runs in this one, and whether
            runs repeat under another hash seed is not checked.
        settings: How many seeds, in how many processes, and so on.
        show: Called now and then with how it stands.

    Attributes:
        report: What has been found so far, also when it is interrupted.
        show: As given.
    """

    def __init__(
        self,
        runnable: Runnable,
        *,
        origin: Origin | None = None,
        settings: Settings | None = None,
        show: Show = lambda view: None,
    ) -> None:
        self._runnable = runnable
        self._origin = origin
        self._settings = settings or Settings()
        self.show = show
        self._shown = 0.0
        self._begun = 0.0
        self._compared: dict[int, SeedResult] = {}
        planned = None if self._settings.until_failure else self._settings.seeds
        only = self._settings.only
        self.report = Report(
            runnable.name,
            runnable.command,
            only=None if only is None else tuple(sorted(only)),
            first=self._settings.first,
            planned=planned,
        )

    def run(self) -> Report:
        """Run the seeds, tell the failures in full, check that runs repeat.

        Raises:
            ConfigError: Definite. The runnable cannot be run at all.
        """
        self._begun = seconds()
        with self._runner() as runner:
            handing = _Handing(self._settings)
            self._tick("starting")
            for result in runner.run(handing, self._tick):
                self.report.add(result)
                if result.again:
                    self._compared[result.seed] = result
                stop = result.escape or not self._settings.keep_going
                handing.stopped |= stop and not result.passed
                self.report.seconds = seconds() - self._begun
                self._tick("running")
            counted = f"{self.report.seeds} of {handing.handed} seeds that were handed out ended"
            invariant(self.report.seeds == handing.handed, counted)
            if self.report.escape is None:
                self._explain(runner)
        if self.report.escape is None:
            self._repeat()
            self._judge()
        return self.report

    def _runner(self) -> Here | Pool:
        settings = self._settings
        single = settings.workers == 1 or (settings.seeds == 1 and not settings.until_failure)
        if single or self._origin is None:
            return Here(self._runnable, only=settings.only, hang_seconds=settings.hang_seconds)
        return Pool(
            self._origin,
            self._runnable.name,
            workers=settings.workers,
            only=settings.only,
            hang_seconds=settings.hang_seconds,
        )

    def _tick(self, phase: str) -> None:
        now = seconds()
        if now - self._shown < _SHOW_SECONDS:
            return
        self._shown = now
        report = self.report
        self.show(
            View(
                report.name,
                phase,
                report.planned,
                done=report.seeds,
                failed=len(report.failures),
                elapsed=now - self._begun,
                virtual=report.virtual_seconds,
            )
        )

    def _explain(self, runner: _Runner) -> None:
        """Tell the smallest seed of each kind of failure in full."""
        kinds: dict[str, SeedResult] = {}
        for result in self.report.failures:
            kinds.setdefault(result.kind, result)
        for result in list(kinds.values())[:_KINDS_MAX]:
            if not result.lost:
                self.report.told.append(runner.explain(result.seed, self._tick))
            if not self._settings.keep_going:
                return

    def _repeat(self) -> None:
        """Compare digests: of two runs in one process, and of runs in other processes."""
        report, settings = self.report, self._settings
        report.checked = len(self._compared)
        differs = compare_again(self._compared)
        if self._origin is None or not settings.repeats:
            if differs is not None:
                report.difference = Difference(differs, SECOND_RUN)
            return
        repeats = Repeats(
            self._origin,
            self._runnable.name,
            only=settings.only,
            hang_seconds=settings.hang_seconds,
            tick=self._tick,
        )
        if differs is not None:
            report.difference = repeats.second_run(differs)
        elif self._compared:
            failed = [s for s, result in sorted(self._compared.items()) if not result.passed]
            skipped = frozenset(failed[_CHECKED_FAILURES_MAX:])
            digests = {s: r.digest for s, r in self._compared.items() if s not in skipped}
            report.elsewhere = len(digests)
            report.difference = repeats.check(digests)

    def _judge(self) -> None:
        """Say why nothing is proven, if that is so."""
        report, settings = self.report, self._settings
        if not report.seeds:
            report.voids.append("no seed was run")
            return
        if settings.only is not None or (settings.seeds == 1 and not settings.until_failure):
            return  # a run to be looked at proves nothing, and nobody expects it to
        for name in self._runnable.sometimes:
            report.sometimes.setdefault(name, Tally())
        for name, tally in sorted(report.sometimes.items()):
            if not tally.missed and name not in self._runnable.sometimes:
                continue  # counted by the simulator: nobody has said that it should happen
            if not tally.seeds or tally.seeds < settings.sometimes * report.seeds:
                report.voids.append(f"{name!r} happened in {tally.seeds} of {report.seeds} seeds")
        asked = self._runnable.faults
        if asked and not report.faults:
            report.voids.append(f"no fault was injected in {report.seeds} seeds")
        elif asked and not any(tally.felt for tally in report.faults.values()):
            report.voids.append(f"no fault was felt in {report.seeds} seeds")
        elif report.seeds >= _JUDGED_SEEDS_MIN:
            report.voids += [
                f"{name} was never injected" for name in asked if name not in report.faults
            ]


def run_campaign(
    runnable: Runnable,
    *,
    origin: Origin | None = None,
    settings: Settings | None = None,
    show: Show = lambda view: None,
) -> Report:
    """Run the seeds of ``runnable`` and return the report; see :class:`Campaign`."""
    return Campaign(runnable, origin=origin, settings=settings, show=show).run()
