"""``@sim.test``: an async test that runs under many seeds, each with faults of its own."""

import functools
import inspect
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, overload

from outlast.kernel import ConfigError
from outlast.sim.core.plan import read_faults
from outlast.sim.lab import Lab
from outlast.sim.nemesis import Budget
from outlast.sim.running import (
    LIMIT,
    Options,
    Outcome,
    Trace,
    lab_parameter,
    many_runs,
    run_case,
    with_lab,
)
from outlast.sim.waits import Waits

FIRST_SEED = 1
MARK = "__outlast_sim__"
_NS = 1_000_000_000
_TAIL = 25
_PROBLEM = " problem "
_LINES_MAX = 500_000
_VOID_MIN = 10
"""Fewer seeds than this are a look at something, and prove nothing by themselves."""

Coro = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(slots=True)
class Overrides:
    """What the command line says about all tests; the pytest plugin sets it.

    Attributes:
        seed: Run this seed and no other.
        seeds: Run so many seeds.
    """

    seed: int | None = None
    seeds: int | None = None


overrides = Overrides()
"""Of this process."""


@dataclass(slots=True)
class Case:
    """What ``@sim.test`` has made of a function.

    Attributes:
        function: The coroutine function.
        seeds: How many seeds make the test.
        first: The first of them.
        options: How each is run.
        parameters: What the function wants besides the lab: fixtures.
    """

    function: Coro
    seeds: int
    first: int
    options: Options
    parameters: tuple[str, ...]
    _measured: Options | None = None

    @property
    def file(self) -> str:
        """The file of the function, relative to the current directory if it lies below."""
        path = Path(self.function.__code__.co_filename)
        try:
            return str(path.relative_to(Path.cwd()))
        except ValueError:
            return str(path)

    @property
    def name(self) -> str:
        """The name of the function, with its class."""
        return self.function.__qualname__.rpartition("<locals>.")[2].replace(".", "::")

    def measure(
        self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> tuple[Options, Outcome | None]:
        """Learn how long the test takes without faults; their pace follows from it.

        It is the first seed that is measured, whichever seed is asked for later, so that a seed
        means the same in every process.

        Returns:
            The options with that length, and what came of the run; ``None`` if no faults are
            wanted, so that there was nothing to learn.
        """
        options = self.options
        if not options.faults:
            return options, None
        function = self._bound(args, kwargs)
        calm = run_case(function, self.first, replace(options, faults=()))
        length_ns = max(round(calm.healed_seconds * _NS), 1)
        return replace(options, length_ns=length_ns), calm

    def run(
        self,
        seed: int,
        *,
        only: frozenset[int] | None = None,
        trace: Trace | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Options | None = None,
    ) -> Outcome:
        """Run one seed and return what came of it; nothing that the test raises is raised here.

        Args:
            seed: From which everything is drawn.
            only: Indices of the steps of the nemesis that strike; ``None`` for all.
            trace: Called with each event: virtual nanoseconds, host, text.
            args: Positional arguments for the function, such as ``self``.
            kwargs: Fixtures and parameters.
            options: What :meth:`measure` has returned for the same arguments. Left out: it is
                called, once for all runs without arguments.

        Raises:
            ConfigError: Definite. The function wants fixtures that were not given.
        """
        __tracebackhide__ = True
        if options is None:
            if args or kwargs:
                options, _ = self.measure(args, kwargs)
            else:
                if self._measured is None:
                    self._measured, _ = self.measure()
                options = self._measured
        return run_case(self._bound(args, kwargs), seed, options, only=only, trace=trace)

    def _bound(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None
    ) -> Callable[[Lab], Coroutine[Any, Any, Any]]:
        given = dict(kwargs or {})
        missing = [name for name in self.parameters[len(args) :] if name not in given]
        if missing:
            message = (
                f"{self.file}::{self.name} needs {', '.join(missing)}, which only pytest gives;"
                f" run it with: pytest {self.file}::{self.name} --sim-seeds N"
            )
            raise ConfigError(message)
        return with_lab(self.function, *args, **given)

    # --- all seeds -----------------------------------------------------------------------------

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Run all seeds, and raise what the first that fails has raised.

        Raises:
            AssertionError: No fault was felt in any of them, or something that should sometimes
                happen never did: the test is void.
            Exception: What the test raises, with notes: the seed, how to repeat it, the faults,
                the last events.
        """
        __tracebackhide__ = True
        with many_runs():
            self._check(args, kwargs)

    def _check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        __tracebackhide__ = True
        options, calm = self.measure(args, kwargs)
        if calm is not None and calm.error is not None:
            calm.error.add_note(f"seed {calm.seed}, and no fault was injected: it fails without")
            raise calm.error
        first = self.first if overrides.seed is None else overrides.seed
        count = (overrides.seeds or self.seeds) if overrides.seed is None else 1
        felt = False
        sometimes: dict[str, int] = {}
        seconds = 0.0
        for seed in range(first, first + count):
            outcome = self.run(seed, args=args, kwargs=kwargs, options=options)
            if outcome.error is not None:
                again = functools.partial(
                    self.run, seed, args=args, kwargs=kwargs, options=options
                )
                explain(self, outcome, again)
                raise outcome.error
            felt = felt or outcome.felt
            seconds = max(seconds, outcome.healed_seconds)
            for name, times in outcome.sometimes.items():
                sometimes[name] = sometimes.get(name, 0) + times
        if count >= _VOID_MIN:
            self._refuse_void(count, seconds, sometimes, felt=felt)

    def _refuse_void(
        self, count: int, seconds: float, sometimes: Mapping[str, int], *, felt: bool
    ) -> None:
        __tracebackhide__ = True
        if self.options.faults and not felt:
            names = ", ".join(map(str, self.options.faults))
            message = (
                f"void: nothing felt a fault in {count} seeds (asked for: {names});"
                f" the test, or its part before heal, ends after {seconds * 1000:,.3f} virtual ms"
            )
            raise AssertionError(message)
        never = [name for name, times in sometimes.items() if not times]
        if never:
            message = f"void: this never happened in {count} seeds: {', '.join(never)}"
            raise AssertionError(message)


# --- a failure -----------------------------------------------------------------------------------


def explain(case: Case, outcome: Outcome, again: Callable[..., Outcome]) -> None:
    """Add to the error of ``outcome`` how to repeat it, and what happened before.

    The seed is run a second time, for its trace, and to see that it is the same run.
    """
    error = outcome.error
    if error is None or type(error).__name__ in _NO_FAILURES:
        return
    lines: list[str] = []
    second = again(trace=functools.partial(_keep, lines))
    place = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    place = place or f"{case.file}::{case.name}"
    notes = [
        f"seed {outcome.seed}; to repeat it: pytest '{place}' --sim-seed {outcome.seed}",
        f"or: outlast sim {case.file}:{case.name} --seed {outcome.seed}",
    ]
    if case.options.faults:
        drawn = ", ".join(f"{name} {value}" for name, value in outcome.options.items())
        injected = [f"  {fault}" for fault in outcome.faults[-_FAULTS_TOLD:]]
        notes += [f"drawn: {drawn}", "injected:", *(injected or ["  nothing"])]
    if lines:
        problem = next((n for n, line in enumerate(lines, 1) if _PROBLEM in line), 0)
        title = "the events up to the first problem:" if problem else "the last events:"
        shown = lines[: problem or len(lines)][-_TAIL:]
        notes += [title, *(f"  {line}" for line in shown)]
    if second.digest != outcome.digest:
        notes += _unrepeatable(lines, again)
    notes += [f"outside of the simulation: {escape}" for escape in outcome.notes[:_ESCAPES_TOLD]]
    error.add_note("\n".join(notes))


_NO_FAILURES = frozenset({"Skipped", "XFailed", "Exit"})
"""How pytest says something else by an exception."""
_FAULTS_TOLD = 20
_ESCAPES_TOLD = 10


def _keep(lines: list[str], moment_ns: int, host: str, text: str) -> None:
    if len(lines) >= _LINES_MAX:
        del lines[: _LINES_MAX // 2]
    lines.append(f"{moment_ns / _NS:14.6f} s  {host:<10} {text}")


def _unrepeatable(before: list[str], again: Callable[..., Outcome]) -> list[str]:
    """Say where two runs of the seed differ."""
    lines: list[str] = []
    again(trace=functools.partial(_keep, lines))
    notes = ["NOT REPEATABLE: a second run of this seed took another course."]
    for one, other in zip_longest(before, lines, fillvalue="(the end)"):
        if one != other:
            return [*notes, f"  it was  {one}", f"  and is  {other}"]
    return [
        *notes,
        "  Runs after it agree with each other. Does a module keep something from run to run?",
    ]


# --- the decorator -------------------------------------------------------------------------------


@overload
def simulated(function: Coro, /) -> Callable[..., None]: ...


@overload
def simulated(
    *,
    seeds: int = 200,
    faults: str | Iterable[str] = (),
    seed: int | None = None,
    limit: float = LIMIT,
    files: bool = True,
    budget: Budget = "minority",
    waits: Waits | None = None,
) -> Callable[[Coro], Callable[..., None]]: ...


def simulated(
    function: Coro | None = None,
    /,
    *,
    seeds: int = 200,
    faults: str | Iterable[str] = (),
    seed: int | None = None,
    limit: float = LIMIT,
    files: bool = True,
    budget: Budget = "minority",
    waits: Waits | None = None,
) -> Any:
    """Turn an async test into a plain one that runs under many seeds.

    The function takes a :class:`~outlast.sim.Lab`, by annotation or under the name ``lab``, and
    whatever fixtures and parameters it wants; these pass through, and are the same objects in
    all seeds. Each seed draws latencies, which of the faults exist, when they strike and whom,
    until ``await lab.heal()`` or the end of the test. A first run without faults measures how
    long the test takes, and the pace of the faults follows from that.

    Args:
        function: The test, when used without arguments.
        seeds: How many. At least 1; ``pytest --sim-seeds`` overrides it.
        faults: Those that may strike: ``crash``, ``partition:halves``, ``link:slow@api`` …
        seed: The first, 1 by default; the others follow. ``pytest --sim-seed`` runs one alone.
        limit: Virtual seconds after which a run fails.
        files: Whether files live on the simulated disk of the host that opens them, where faults
            can reach them. Otherwise they are real: a crash keeps all that was written, and one
            seed finds what the last has left.
        budget: How many hosts may be down, still or without a good disk at the same time:
            ``minority`` (or the only one there is), or ``any``.
        waits: Fails a seed in which code waits without an end; see :class:`~outlast.sim.Waits`.

    Raises:
        ConfigError: Definite. A fault is unknown, or the function is no coroutine function.
    """
    first = FIRST_SEED if seed is None else seed
    if function is None:
        return functools.partial(
            _decorate, seeds=seeds, faults=faults, first=first, limit=limit, files=files,
            budget=budget, waits=waits,
        )  # fmt: skip
    return _decorate(
        function, seeds=seeds, faults=faults, first=first, limit=limit, files=files,
        budget=budget, waits=waits,
    )  # fmt: skip


test = simulated
simulated.__name__ = simulated.__qualname__ = "test"
simulated.__test__ = False  # type: ignore[attr-defined]  # for pytest, which knows tests by name


def _decorate(
    function: Coro,
    *,
    seeds: int,
    faults: str | Iterable[str],
    first: int,
    limit: float,
    files: bool,
    budget: Budget,
    waits: Waits | None,
) -> Callable[..., None]:
    if not inspect.iscoroutinefunction(function):
        message = f"@sim.test: {getattr(function, '__name__', function)!r} is no async function"
        raise ConfigError(message)
    if seeds < 1:
        message = f"@sim.test: seeds is {seeds}; at least 1 is needed"
        raise ConfigError(message)
    if budget not in {"minority", "any"}:
        message = f"@sim.test: budget is {budget!r}; use 'minority' or 'any'"
        raise ConfigError(message)
    given = read_faults(faults)
    options = Options(faults=given, budget=budget, files=files, limit=limit, waits=waits)
    lab = lab_parameter(function)
    signature = inspect.signature(function)
    rest = [one for one in signature.parameters.values() if one.name != lab]
    wanted = tuple(one.name for one in rest if one.default is one.empty)
    case = Case(function, seeds, first, options, wanted)

    @functools.wraps(function)
    def run_all(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        case.check(args, kwargs)

    run_all.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=rest, return_annotation=None
    )
    setattr(run_all, MARK, case)
    return run_all
