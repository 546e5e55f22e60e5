"""Judging a history: model, parts, exact rules, search, counter-example."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from outlast.check.core.history import History
from outlast.check.core.model import DeltaModel, Finding, Model
from outlast.check.core.models import MODELS
from outlast.check.core.operation import Operation
from outlast.check.core.plan import Plan
from outlast.check.core.result import CounterExample, Result
from outlast.check.core.search import Outcome, Over, Search
from outlast.check.core.shrink import longest, shrink
from outlast.check.core.sums import SumSearch
from outlast.check.core.values import BadValueError, show
from outlast.kernel import ConfigError

SHRINK_SHARE = 0.2
"""At most this share of the time limit goes into making a counter-example smaller."""

SEARCHED_MAX = 24
"""A finding of a cheap rule is given a longest order, to be drawn, up to so many operations."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a judgement may use. The clock is given: cores read none.

    Attributes:
        seconds: Time for the whole judgement.
        memory_bytes: For what the search remembers.
        now: Returns seconds since the judgement began.
        grown: Returns by how many bytes the process has grown since then, as far as that can
            be measured: what the search itself counts is an estimate.
    """

    seconds: float
    memory_bytes: int
    now: Callable[[], float]
    grown: Callable[[], int] = lambda: 0

    def over(self, held: int) -> str:
        """Return which limit is reached when the search holds ``held`` bytes, or nothing."""
        if self.now() >= self.seconds:
            return f"the time limit of {self.seconds:g} s"
        if max(held, self.grown()) > self.memory_bytes:
            return f"the memory limit of {self.memory_bytes >> 20} MiB"
        return ""


def model_of(model: str | Model) -> Model:
    """Return the model of that name, or the one given.

    Raises:
        ConfigError: There is none; near names are offered.
    """
    if isinstance(model, Model):
        return model
    if model in MODELS:
        return MODELS[model]()
    near = get_close_matches(str(model), MODELS, n=2, cutoff=0.5)
    right = " or ".join(near) if near else f"one of {', '.join(MODELS)}"
    raise ConfigError(f"unknown model {model!r}; {right} would be right")


def judge(history: History, model: str | Model, limits: Limits) -> Result:
    """Judge ``history``; the first object without an order decides.

    Raises:
        ConfigError: The model is unknown, or an operation does not fit it.
    """
    chosen = model_of(model).prepare(history)
    try:
        chosen.check(history)
    except BadValueError as error:
        raise ConfigError(f"{history.name}:{error}") from None
    parts = chosen.partition(history)
    parts.sort(key=lambda part: len(part[1].operations))
    left: list[tuple[Any, History]] = []
    for key, part in parts:  # what can be decided at once comes first
        finding = chosen.decide(key, part)
        if finding is None:
            left.append((key, part))
        elif finding.verdict == "invalid":
            return _invalid(history, chosen, len(parts), limits, key=key, finding=finding)
    unknown: list[str] = []
    for key, part in left:
        finding = find_order(chosen, key, part.operations, limits.over)
        if finding.verdict == "invalid":
            return _invalid(history, chosen, len(parts), limits, key=key, finding=finding)
        if finding.verdict == "unknown":
            unknown.append(f"{finding.reason} was reached" + _at(key))
            if limits.over(0):
                break
    if unknown:
        return _result(
            history, chosen, len(parts), limits, verdict="unknown", why=_help(unknown, history)
        )
    why = "" if history.operations else "no operation was judged: the history is empty"
    return _result(history, chosen, len(parts), limits, verdict="valid", why=why)


def _at(key: Any) -> str:
    return "" if key is None else f" at key {show(key)}"


def _help(unknown: Sequence[str], history: History) -> str:
    infos = history.counts.get("info", 0)
    fewer = f", or fewer info operations (there are {infos})" if infos else ""
    raised = "--memory" if "memory" in unknown[0] else "--seconds"
    return (
        f"{unknown[0]} before an order was found or ruled out; a higher {raised}, "
        f"operations spread over more keys{fewer} would help"
    )


def _result(
    history: History, model: Model, parts: int, limits: Limits, *, verdict: Any, why: str
) -> Result:
    return Result(
        verdict=verdict,
        model=model.name,
        counts=dict(history.counts),
        parts=parts,
        how=model.how,
        why=why,
        seconds=limits.now(),
    )


def _invalid(
    history: History,
    model: Model,
    parts: int,
    limits: Limits,
    *,
    key: Any,
    finding: Finding,
) -> Result:
    """Return the result with the smallest counter-example found."""
    shown, best = finding.operations, finding.best
    reason, stuck = finding.reason, finding.stuck
    if not finding.small and stuck is not None:
        deadline = limits.now() + max(1.0, limits.seconds * SHRINK_SHARE / 6)
        smaller = shrink(
            model,
            key,
            finding.operations,
            stuck,
            in_time=lambda: limits.now() < deadline,
            run=run_search,
        )
        shown, best, reason = smaller.operations, smaller.best, smaller.reason
    elif not best and len(shown) <= SEARCHED_MAX:
        best = longest(model, key, [op for op in shown if op is not stuck], run_search)
    example = CounterExample(model.name, key, shown, stuck, reason, best)
    return Result(
        verdict="invalid",
        model=model.name,
        counts=dict(history.counts),
        parts=parts,
        how=model.how,
        why=reason + _at(key),
        seconds=limits.now(),
        counterexample=example,
    )


def run_search(
    model: Model,
    key: Any,
    operations: Sequence[Operation],
    optional: Sequence[Operation],
    over: Over,
) -> Outcome:
    """Search for an order of ``operations``, of which ``optional`` may be left out."""
    plan = Plan(model, model.relevant(operations, frozenset(optional)), optional)
    first = model.init(key)
    if isinstance(model, DeltaModel):
        return SumSearch(model, plan, first, over).run()  # type: ignore[arg-type]
    return Search(model, plan, first, over).run()


def find_order(model: Model, key: Any, operations: Sequence[Operation], over: Over) -> Finding:
    """Search for an order; an invalid finding holds what happened up to where it got stuck."""
    outcome = run_search(model, key, operations, (), over)
    if outcome.verdict == "valid":
        return Finding("valid")
    if outcome.verdict == "unknown":
        return Finding("unknown", outcome.limit)
    stuck = outcome.stuck
    end = operations[-1].start if stuck is None or stuck.end is None else stuck.end
    shown = tuple(op for op in operations if op.start < end)
    return Finding("invalid", "", shown, stuck)
