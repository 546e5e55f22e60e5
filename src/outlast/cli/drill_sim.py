"""``outlast drill --world sim``: one seed for a report, or many for a campaign."""

import secrets  # noqa: TID251 - a seed for whoever gives none; it is printed
from contextlib import ExitStack
from typing import Any

from outlast.cli.drill import Histories, tell, writable
from outlast.cli.drill_screen import DrillScreen

_SEEDS = 1_000_000
_WORKERS = 2
_SECONDS = 20.0
"""Virtual seconds of load under each seed of a campaign, unless told otherwise."""
_HANG_SECONDS = 600.0
"""Real seconds that one seed may take."""


def simulated(
    name: str,
    *,
    faults: str | None,
    seconds: float | None,
    seed: int | None,
    nodes: int | None,
    target: str,
    seeds: int | None,
    workers: int | None,
    only: str | None,
    trace: str | None,
    report: str | None,
    history: str | None,
    json: bool,
) -> int:
    """Run a drill in the simulator; see the command for its options.

    Raises:
        ConfigError: Definite. Options that do not fit each other, or cannot be simulated.
    """
    from outlast.kernel import ConfigError

    if seeds is not None:
        for option, value in (("report", report), ("history", history), ("only", only)):
            if value is not None:
                message = f"--{option} {value}: of one seed; leave --seeds out"
                raise ConfigError(message)
        return _campaign(
            {
                "name": name,
                "nodes": nodes,
                "target": target,
                "seconds": _SECONDS if seconds is None else seconds,
                "faults": faults,
                "swarm": True,
            },
            seeds=seeds,
            first=1 if seed is None else seed,
            workers=_WORKERS if workers is None else workers,
            trace=trace,
            json=json,
        )
    if workers is not None:
        message = f"--workers {workers}: one seed runs in one process; give --seeds, too"
        raise ConfigError(message)
    seed = secrets.randbelow(_SEEDS) + 1 if seed is None else seed
    options = {
        "name": name, "nodes": nodes, "target": target,
        "seconds": 60.0 if seconds is None else seconds, "faults": faults, "swarm": False,
    }  # fmt: skip
    return _one(options, seed, only=only, trace=trace, report=report, history=history, json=json)


def _one(
    options: dict[str, Any],
    seed: int,
    *,
    only: str | None,
    trace: str | None,
    report: str | None,
    history: str | None,
    json: bool,
) -> int:
    """Run one seed, and tell of it as of a drill on real processes."""
    from outlast.cli.sim import steps_of, writable_trace
    from outlast.drill import Report
    from outlast.drill.sim_running import find_drill
    from outlast.kernel import InvariantError
    from outlast.testing.campaign import write_trace

    writable(report)
    if trace is not None:
        writable_trace(trace)
    chosen = steps_of(only, seed)
    (drill,) = find_drill(**options)
    with ExitStack() as stack:
        if history is not None:
            drill.record = stack.enter_context(Histories(history)).write
        drill.show = stack.enter_context(DrillScreen(seed)).show
        outcome = drill.run(seed, only=chosen)
    if trace is not None:
        write_trace(find_drill(**options)[0], seed, trace, only=chosen, hang_seconds=_HANG_SECONDS)
    found = outcome.value
    if not isinstance(found, Report):
        raise outcome.error or InvariantError("the drill ended without a report")
    return tell(found, report, json=json)


def _campaign(
    options: dict[str, Any],
    *,
    seeds: int,
    first: int,
    workers: int,
    trace: str | None,
    json: bool,
) -> int:
    """Run many seeds in several processes."""
    from outlast.cli.sim import run_origin
    from outlast.testing.campaign import Origin, Settings

    origin = Origin("outlast.drill.sim_running:find_drill", options)
    settings = Settings(
        seeds=seeds, first=first, workers=workers, keep_going=True, hang_seconds=_HANG_SECONDS
    )
    return run_origin(origin, settings, trace=trace, seed=None, own_first=False, json=json)
