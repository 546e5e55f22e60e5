"""A failing seed told in full: again, with fewer faults, and with its trace."""

from collections.abc import Callable

from outlast.sim.core.shrink import Shrinker
from outlast.testing.campaign.model import Explanation, Outcome, Runnable
from outlast.testing.campaign.single import (
    HANG_SECONDS,
    HangError,
    Tail,
    TraceTail,
    failure,
    fault_steps,
    run_once,
    seconds,
)
from outlast.testing.campaign.telling import own_lines, verdict_of

RUNS_MAX = 200
SECONDS_MAX = 30.0

_PATIENCE, _PATIENCE_SECONDS = 10, 5.0
"""A run with fewer faults that takes so many times as long, and more, does not end."""

Progress = Callable[[int, int], None]
"""Called with how many runs there were, and how many steps are left."""


def explain(
    runnable: Runnable,
    seed: int,
    *,
    only: frozenset[int] | None = None,
    runs_max: int = RUNS_MAX,
    seconds_max: float = SECONDS_MAX,
    hang_seconds: float = HANG_SECONDS,
    progress: Progress = lambda runs, left: None,
) -> Explanation:
    """Run a seed that failed again, find out which of its faults are needed, and trace it.

    Args:
        runnable: What failed.
        seed: With which seed.
        only: And with which fault steps alone, if it was so.
        runs_max: How many runs shortening may take.
        seconds_max: How many real seconds it may take.
        hang_seconds: Real seconds that one run may take.
        progress: Called after each run.
    """
    begun = seconds()
    try:
        outcome = run_once(runnable, seed, only=only, hang_seconds=hang_seconds)
    except HangError as hung:
        return Explanation(seed, f"hung: {hung}", lines=own_lines(hung), came_back=False)
    error, kind = failure(outcome)
    if not error:
        return Explanation(seed, "a second run in another process passed", came_back=False)
    told = Explanation(seed, error, faults=fault_steps(outcome))
    steps = [step.index for step in told.faults if step.index >= 0]
    del outcome  # with it the objects of that run: the next one must not meet them
    shrinker = Shrinker(steps, runs_max=runs_max)
    end = seconds() + seconds_max
    patience = min(hang_seconds, _PATIENCE_SECONDS + _PATIENCE * (seconds() - begun))
    while seconds() < end and (asked := shrinker.ask()) is not None:
        shrinker.tell(_fails(runnable, seed, frozenset(asked), kind, patience))
        progress(shrinker.runs, len(shrinker.kept))
    told.kept, told.runs = list(shrinker.kept), shrinker.runs
    told.minimal = shrinker.minimal
    if len(told.kept) < len(steps):
        only = frozenset(told.kept)
    _trace(runnable, told, only, hang_seconds)
    return told


def _fails(
    runnable: Runnable, seed: int, only: frozenset[int], kind: str, hang_seconds: float
) -> bool:
    try:
        outcome = run_once(runnable, seed, only=only, hang_seconds=hang_seconds)
    except HangError:
        return False
    return failure(outcome)[1] == kind


def _trace(
    runnable: Runnable, told: Explanation, only: frozenset[int] | None, hang_seconds: float
) -> None:
    """Run once more, for the trace, what was printed, and the error as it is in that run."""
    trace, printed = TraceTail(), Tail()
    outcome: Outcome
    try:
        outcome = run_once(
            runnable,
            told.seed,
            only=only,
            trace=trace,
            hang_seconds=hang_seconds,
            printed=printed,
        )
    except HangError:
        return
    told.trace, told.printed = trace.lines(), printed.lines()
    told.shortened = fault_steps(outcome)
    if outcome.error is not None:
        told.lines = own_lines(outcome.error)
        told.verdict = verdict_of(outcome.error)
    told.lines += [f"problem: {text}" for text in outcome.problems if text not in told.error]
