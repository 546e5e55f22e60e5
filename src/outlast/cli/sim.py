"""The command that runs simulation tests under many seeds."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from outlast.cli import EXIT_CANNOT, EXIT_NO, EXIT_OK, EXIT_UNKNOWN, say, show
from outlast.cli.access import Flag
from outlast.cli.insistence import Insistence
from outlast.cli.sim_screen import SimScreen

if TYPE_CHECKING:
    from outlast.testing.campaign import Campaign, Origin, Report, Runnable, Settings

_EXITS = {"passed": EXIT_OK, "failed": EXIT_NO, "void": EXIT_UNKNOWN}


def sim(
    target: str,
    /,
    *,
    seeds: int = 1000,
    seed: int | None = None,
    first: int | None = None,
    only: str | None = None,
    workers: int = 2,
    until_failure: Flag = False,
    keep_going: Flag = False,
    seconds: float | None = None,
    hang_seconds: float = 60.0,
    sometimes: float = 0.0,
    trace: str | None = None,
    json: Flag = False,
) -> int:
    """Run simulation tests under many seeds; of a failure say what it takes to see it again.

    Exit: 0 all passed, 1 one failed or is not repeatable, 3 nothing was proven, 2 bad input.

    Args:
        target: FILE.py, FILE.py::test, package.module or package.module:test.
        seeds: How many.
        seed: Run this one alone.
        first: The first of them; the test's own by default.
        only: With --seed: inject these steps of its faults alone, N,N,… or none.
        workers: Processes that run seeds; with --seed only this one.
        until_failure: Go on until one fails.
        keep_going: Run all seeds, failures or not.
        seconds: Begin no more seeds after so long.
        hang_seconds: Real time that one seed may take.
        sometimes: Percentage of the seeds in which what should happen sometimes must happen; at
            least one seed in any case.
        trace: File for the whole trace of the seed given, or of the first that fails.
        json: Print JSON.
    """
    from outlast.kernel import ConfigError

    with Insistence():
        from outlast.testing.campaign import Settings, origin_of

    steps = steps_of(only, seed)
    if trace is not None:
        writable_trace(trace)
    for name in ("seed", "first"):
        given = {"seed": seed, "first": first}[name]
        if given is not None and given < 0:
            message = f"--{name} {given}: a seed is a whole number from 0 on"
            raise ConfigError(message)
    single = seed is not None
    if single and until_failure:
        raise ConfigError(f"--seed {seed} --until-failure: give one of them")
    origin = origin_of(target)
    settings = Settings(
        seeds=1 if single else seeds,
        first=seed if seed is not None else first or 0,
        workers=workers,
        until_failure=until_failure,
        keep_going=keep_going,
        seconds=seconds,
        only=steps,
        sometimes=sometimes / 100,
        hang_seconds=hang_seconds,
    )
    own_first = first is None and not single
    return run_origin(origin, settings, trace=trace, seed=seed, own_first=own_first, json=json)


def run_origin(
    origin: "Origin",
    settings: "Settings",
    *,
    trace: str | None,
    seed: int | None,
    own_first: bool,
    json: bool,
) -> int:
    """Run a campaign of each test that ``origin`` gives, tell of it, and return the exit code.

    Args:
        origin: Of the tests.
        settings: Of each campaign.
        trace: File for the trace of ``seed``, or of the first seed that fails.
        seed: The only one, if there is only one.
        own_first: Whether each test begins with its own first seed.
        json: Whether to print JSON.
    """
    with Insistence() as insistence:
        reports = _run_all(origin, settings, insistence, own_first=own_first, json=json)
        if trace is not None:
            insistence.last_words = _nothing
            _write_trace(origin, settings, reports, trace, seed)
    if json:
        worst = max((report.verdict for report in reports), key=_rank)
        print(show.as_text({"verdict": worst, "tests": [report.as_json() for report in reports]}))
    return max(map(_exit, reports), key=(EXIT_OK, EXIT_UNKNOWN, EXIT_NO, EXIT_CANNOT).index)


def _rank(verdict: str) -> int:
    return ("passed", "void", "failed").index(verdict)


def _exit(report: "Report") -> int:
    return EXIT_CANNOT if report.escape is not None else _EXITS[report.verdict]


def _run_all(
    origin: "Origin",
    settings: "Settings",
    insistence: Insistence,
    *,
    own_first: bool,
    json: bool,
) -> "list[Report]":
    """Run each test in turn; one that fails does not keep the next from running."""
    from dataclasses import replace

    from outlast.testing.campaign import Campaign

    reports: list[Report] = []
    for number, runnable in enumerate(origin.load()):
        chosen = replace(settings, first=_first(runnable)) if own_first else settings
        campaign = Campaign(runnable, origin=origin, settings=chosen)
        # The very file: a campaign in this process puts another in the place of sys.stdout.
        tell = partial(_tell_interrupted, campaign, sys.stdout, json=json)
        insistence.last_words = tell
        try:
            with SimScreen() as screen:
                campaign.show = screen.show
                report = campaign.run()
        except KeyboardInterrupt:
            insistence.last_words = _nothing
            tell()
            raise
        reports.append(report)
        if report.escape is not None:
            said = report.escape.error.removeprefix("EscapeError: ")
            say(f"{said} ({report.name}, seed {report.escape.seed})")
        elif not json:
            print(f"\n{report}" if number else report, flush=True)
    return reports


def _nothing() -> None:
    """All has been said."""


def _tell_interrupted(campaign: "Campaign", file: TextIO, *, json: bool) -> None:
    """Tell what was found until Ctrl-C."""
    if not json and campaign.report.seeds:
        print(f"{campaign.report}\n(interrupted)", file=file, flush=True)


def _first(runnable: "Runnable") -> int:
    return int(getattr(runnable, "first", 1))


def steps_of(only: str | None, seed: int | None) -> frozenset[int] | None:
    """Read ``--only 3,7`` or ``--only none``."""
    from outlast.kernel import ConfigError

    if only is None:
        return None
    if seed is None:
        message = f"--only {only}: steps are those of one seed; give --seed too"
        raise ConfigError(message)
    if only == "none":
        return frozenset()
    words = only.split(",")
    if not all(word.strip().isdecimal() for word in words):
        message = f"--only {only}: write numbers of steps with commas between them, or none"
        raise ConfigError(message)
    return frozenset(map(int, words))


def writable_trace(trace: str) -> None:
    """Refuse before the campaign a trace that could not be written after it."""
    from outlast.kernel import ConfigError

    path = Path(trace)
    if path.is_dir() or not path.parent.is_dir():
        message = f"--trace {trace}: name a file in a directory that exists, such as trace.txt"
        raise ConfigError(message)


def _write_trace(
    origin: "Origin",
    settings: "Settings",
    reports: "list[Report]",
    path: str,
    seed: int | None,
) -> None:
    """Write the trace of the seed given, or of the first that failed."""
    from outlast.testing.campaign import write_trace

    chosen = next((report for report in reports if report.failures), None)
    if chosen is None:
        if seed is None:
            print(f"{path} not written: no seed failed", file=sys.stderr)
            return
        chosen = reports[0]
    failed = [result for result in chosen.failures if not result.lost]
    number = seed if seed is not None else failed[0].seed if failed else None
    if number is None:
        print(f"{path} not written: the seed that failed did not end", file=sys.stderr)
        return
    write_trace(
        origin.one(chosen.name),
        number,
        path,
        only=settings.only,
        hang_seconds=settings.hang_seconds,
    )
    print(f"trace of {chosen.name}, seed {number}: {path}", file=sys.stderr)
