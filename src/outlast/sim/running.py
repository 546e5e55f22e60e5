"""Runs one coroutine as the test of a simulation, from the first host to the last."""

import asyncio
import gc
import inspect
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from outlast.kernel import ConfigError, Fault
from outlast.kernel.registry import fresh_world, world_ended
from outlast.sim.core.plan import Plan, read_faults
from outlast.sim.disk import SimDisk
from outlast.sim.escape import Escape
from outlast.sim.files import patch_files, set_disk_of
from outlast.sim.interrupts import GUARD, held
from outlast.sim.lab import Lab
from outlast.sim.loop import SimLoop
from outlast.sim.nemesis import BY_HAND, Budget, Injected
from outlast.sim.search import found
from outlast.sim.waits import Wait, WaitingLoop, Waits

T = TypeVar("T")

Trace = Callable[[int, str, str], None]
"""Called with each event of a run: virtual nanoseconds, host, text."""

LIMIT = 24 * 3600.0
_NS = 1_000_000_000
_ERRORS_TOLD = 3
_COLLECTIONS_MAX = 4


def disk_here() -> SimDisk | None:
    """Return the disk of the simulated host that runs now; ``None`` outside of a simulation."""
    loop = asyncio._get_running_loop()  # unlike get_running_loop, it does not raise
    return loop.sim.here.disk if isinstance(loop, SimLoop) else None


set_disk_of(disk_here)


@dataclass(slots=True)
class Outcome:
    """What one run of a seed came to.

    Attributes:
        seed: Of the run.
        error: Why it failed; ``None`` if it passed.
        value: What its coroutine returned.
        digest: Of everything that happened, as hexadecimal digits: equal in two runs of a seed.
        steps: How many callbacks ran.
        virtual_seconds: How long it took in virtual time.
        healed_seconds: When the lab was healed, or the length of the run if it was not; counted
            from the start of the first host.
        problems: What fails a run whatever the test says, such as programs that ended.
        faults: What was injected, with evidence.
        sometimes: What should happen in some runs, and how often it did.
        options: What was drawn for the run: which faults exist, their pace.
        notes: What the program did outside the simulation.
        waits: Waits without an end that are not allowed, if they were looked for.
    """

    seed: int
    error: BaseException | None = None
    value: Any = None
    digest: str = ""
    steps: int = 0
    virtual_seconds: float = 0.0
    healed_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    faults: list[Injected] = field(default_factory=list)
    sometimes: dict[str, int] = field(default_factory=dict)
    options: dict[str, str | int | float] = field(default_factory=dict)
    notes: list[Escape] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether it passed."""
        return self.error is None

    @property
    def felt(self) -> bool:
        """Whether any fault of the nemesis was injected with evidence."""
        return any(fault.felt and fault.index != BY_HAND for fault in self.faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a seed is run.

    Args:
        faults: Those that the nemesis may inject.
        length_ns: How long the test takes without faults, from which their pace follows.
        budget: How many hosts may be lost at the same time.
        files: Whether files live on the simulated disk of the host that opens them.
        limit: Virtual seconds after which the run fails.
        waits: What looks for waits without an end, which fail the run.
    """

    faults: tuple[Fault, ...] = ()
    length_ns: int = 0
    budget: Budget = "minority"
    files: bool = False
    limit: float = LIMIT
    waits: Waits | None = None

    def __post_init__(self) -> None:
        """Check what a caller may have got wrong.

        Raises:
            ConfigError: Definite. No such budget, or no time at all.
        """
        if self.budget not in {"minority", "any"}:
            message = f"budget is {self.budget!r}; use minority or any"
            raise ConfigError(message)
        if not self.limit > 0:
            message = f"limit is {self.limit:g}; give virtual seconds above 0"
            raise ConfigError(message)


def run_case(
    function: Callable[[Lab], Coroutine[Any, Any, Any]],
    seed: int,
    options: Options,
    *,
    only: frozenset[int] | None = None,
    trace: Trace | None = None,
) -> Outcome:
    """Run ``function`` as the test of one simulation and return what came of it.

    Args:
        function: Called with the lab; its coroutine runs on the host ``test``.
        seed: From which everything is drawn.
        options: Everything else that decides what happens.
        only: Indices of the steps of the nemesis that strike; ``None`` for all.
        trace: Called with each event.

    Raises:
        KeyboardInterrupt: As it is.
    """
    __tracebackhide__ = True
    plan = None
    if options.faults:
        plan = Plan(options.faults, seed, length_ns=options.length_ns)
    outcome = Outcome(seed, options={} if plan is None else plan.describe())
    fresh_world()
    with held(), quiet():  # handlers of signals run when the program does
        loop = _make_loop(seed, options, trace)
        lab = Lab(loop.sim, plan=plan, budget=options.budget, only=only)
        with ExitStack() as stack:
            if options.files:
                stack.enter_context(patch_files())
            try:
                _execute(loop, lab, function, outcome)
            finally:
                world_ended()
                loop.end()
        if isinstance(loop, WaitingLoop):
            _judge_waits(outcome, loop)
        del lab, loop
    return outcome


def _make_loop(seed: int, options: Options, trace: Trace | None) -> SimLoop:
    if options.waits is None:
        return SimLoop(seed, trace=trace, limit=options.limit)
    return WaitingLoop(options.waits, seed, trace=trace, limit=options.limit)


def _judge_waits(outcome: Outcome, loop: WaitingLoop) -> None:
    """Let waits without an end fail a run that has not failed otherwise."""
    outcome.waits = loop.unbounded()
    told = "\n".join(map(str, outcome.waits))
    if told and outcome.error is None:
        outcome.error = AssertionError(told)
    elif told and outcome.error is not None:
        outcome.error.add_note(told)


def _execute(
    loop: SimLoop,
    lab: Lab,
    function: Callable[[Lab], Coroutine[Any, Any, Any]],
    outcome: Outcome,
) -> None:
    __tracebackhide__ = True
    sim = loop.sim
    main = loop.create_task(function(lab), name="the test", context=sim.test_life.context)
    try:
        outcome.value = loop.run_until_complete(main)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        outcome.error = error
    healed_ns = lab.healed_ns if lab.healed_ns >= 0 else sim.now_ns
    outcome.healed_seconds = max(healed_ns - max(lab.started_ns, 0), 0) / _NS
    lab.finish()
    outcome.digest = f"{sim.digest:016x}"
    outcome.steps = sim.steps
    outcome.virtual_seconds = sim.now_ns / _NS
    outcome.problems = list(sim.problems)
    outcome.faults = list(lab.events)
    outcome.sometimes = dict(sim.notes)
    outcome.notes = list(dict.fromkeys(sim.escapes))
    _judge(outcome, lab)


def _judge(outcome: Outcome, lab: Lab) -> None:
    """Let problems fail the run, and add to its error what else was found."""
    error = outcome.error
    problems = outcome.problems
    if problems and error is None:
        error = outcome.error = AssertionError("; ".join(problems))
        error.__cause__ = lab.cause
    elif problems and error is not None and error.__cause__ is not lab.cause:
        error.add_note(f"also: {'; '.join(problems)}")
    if error is None:
        return
    for context in lab.sim.errors[:_ERRORS_TOLD]:
        raised = context.get("exception")
        what = f": {type(raised).__name__}: {raised}" if raised is not None else ""
        error.add_note(f"nobody caught: {context.get('message')}{what}")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the garbage of a run from being heard, and collect it at a set point.

    Programs that were killed have closed nothing; nobody needs to be warned of that. What was
    there before the run is none of its garbage and is not looked through, so that the cost does
    not grow with the heap, unless modules were imported. A block inside of another collects what
    has been made since the outer one began.
    """
    with held() as opened, _hushed(), _frozen():
        try:
            GUARD.open = opened
            GUARD.let_through()
            yield
        finally:
            GUARD.open = False


@contextmanager
def many_runs() -> Iterator[None]:
    """Let what outlives one run stay out of the collector's sight until the block ends.

    So it costs the later runs nothing; what the caller has dropped between two runs is collected
    as quietly as what a run has dropped itself.
    """
    _many.append(True)
    try:
        gc.freeze()
        yield
    finally:
        _many.pop()
        if not _many and not _freezing:
            try:
                with held(), _hushed():
                    _collect()
            finally:
                gc.unfreeze()


_many: list[bool] = []
_freezing: list[bool] = []


@contextmanager
def _hushed() -> Iterator[None]:
    """Let nobody hear what finalisers complain of."""
    hook = sys.unraisablehook
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
        sys.unraisablehook = _ignore
        try:
            yield
        finally:
            sys.unraisablehook = hook


@contextmanager
def _frozen() -> Iterator[None]:
    """Keep what is there from the collector, and collect at the end what has come since."""
    if _freezing:
        try:
            yield
        finally:
            _collect()
        return
    if _many:
        _collect()  # the rest is still frozen: this is what the caller has kept until now
    search = found()  # it has to look at all objects; so it had better be over by now
    refreezes = search.refreezes
    _freezing.append(True)
    gc.freeze()
    try:
        yield
    finally:
        try:
            if search.refreezes != refreezes:
                gc.unfreeze()  # a search for clocks has frozen what this run had made
            _collect()
        finally:
            _freezing.pop()
            if not _many:
                gc.unfreeze()


def _collect() -> None:
    """Collect garbage, and what its finalisers have brought back to life."""
    for _ in range(_COLLECTIONS_MAX):
        if not gc.collect():
            break


def _ignore(_: Any) -> None:
    """Say nothing."""


def with_lab(
    function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any
) -> Callable[[Lab], Coroutine[Any, Any, T]]:
    """Return ``function`` as one that is called with the lab alone.

    Its parameter for the lab is the one annotated with :class:`Lab` or called ``lab``, if any.
    """
    name = lab_parameter(function)
    if name is None:
        return lambda _: function(*args, **kwargs)
    return lambda lab: function(*args, **{name: lab}, **kwargs)


def lab_parameter(function: Callable[..., Any]) -> str | None:
    """Return the name of the parameter that takes the lab, or ``None``."""
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        note = parameter.annotation
        text = note if isinstance(note, str) else getattr(note, "__name__", "")
        if note is Lab or text.strip("'\"").rpartition(".")[2] == "Lab":
            return parameter.name
    return next((parameter.name for parameter in parameters if parameter.name == "lab"), None)


def run(
    main: Callable[..., Coroutine[Any, Any, T]],
    *,
    seed: int = 0,
    faults: str | Iterable[str] = (),
    trace: Trace | None = None,
    limit: float = LIMIT,
    files: bool = False,
    budget: Budget = "minority",
) -> T:
    """Run ``main`` in a simulation and return what it returns; like ``asyncio.run``.

    With faults it is run a first time without them, to learn how long it takes. Policies and
    their parts begin each run as newly made, with the settings that they have by then and the
    modes that were chosen by hand; what a run has left in them can be looked at afterwards.

    Args:
        main: A coroutine function, without parameters or with one for the :class:`Lab`.
        seed: From which everything is drawn: latencies, faults, random numbers.
        faults: Those that the nemesis may inject, by name.
        trace: Called with each event: virtual nanoseconds, host, text.
        limit: Virtual seconds after which the run fails.
        files: Whether files live on the simulated disk of the host that opens them. Otherwise
            they are real.
        budget: How many hosts may be lost at the same time: ``minority`` or ``any``.

    Raises:
        ConfigError: Definite. A fault is unknown.
        AssertionError: A host's program ended with an exception, which is its cause.
        Exception: Whatever ``main`` raises.

    >>> import asyncio
    >>> async def main(lab):
    ...     await asyncio.sleep(3600)
    ...     return lab.now
    >>> run(main)
    3600.0
    """
    __tracebackhide__ = True
    function = with_lab(main)
    options = Options(faults=read_faults(faults), budget=budget, files=files, limit=limit)
    options = measured(function, seed, options)
    outcome = run_case(function, seed, options, trace=trace)
    if outcome.error is not None:
        raise outcome.error
    value: T = outcome.value
    return value


def measured(
    function: Callable[[Lab], Coroutine[Any, Any, Any]], seed: int, options: Options
) -> Options:
    """Return ``options`` with the length of the test, from a run of ``seed`` without faults."""
    if not options.faults:
        return options
    calm = run_case(function, seed, replace(options, faults=()))
    return replace(options, length_ns=max(round(calm.healed_seconds * _NS), 1))
