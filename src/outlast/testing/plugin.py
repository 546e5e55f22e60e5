"""The pytest plugin: seeds from the command line, fixtures, and how to repeat a failure.

pytest loads it by itself (entry point ``pytest11``) where outlast is installed. Loading it
imports pytest and nothing else of weight; the simulator is loaded when something asks for it.
"""

import re
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from outlast.testing.virtual import VirtualTime

T = TypeVar("T")

_MARK = "__outlast_sim__"
_SEEDS = 20
_FIRST = 1
_CLOCK = pytest.StashKey["VirtualTime"]()
_SAID = re.compile(r"^(seed \d+; to repeat it: .*|or: outlast sim .*)$", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, in a group of their own."""
    group = parser.getgroup("outlast sim", "simulation tests (outlast.sim)")
    group.addoption(
        "--sim-seed",
        type=_seed,
        metavar="SEED",
        help="run simulation tests with this seed alone, as a failure has printed it",
    )
    group.addoption(
        "--sim-seeds",
        type=_count,
        metavar="N",
        help="run each simulation test with N seeds instead of its own number",
    )


def _seed(text: str) -> int:
    return _number(text, 0, "a whole number from 0 on")


def _count(text: str) -> int:
    return _number(text, 1, "a whole number from 1 on")


def _number(text: str, least: int, right: str) -> int:
    from argparse import ArgumentTypeError

    if not text.isdecimal() or int(text) < least:
        message = f"{text!r}: {right} would be right"
        raise ArgumentTypeError(message)
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marker means, and tell ``@sim.test`` which seeds are wanted."""
    config.addinivalue_line(
        "markers",
        "sim(seeds=N): runs in the simulator (outlast.sim); N seeds for the fixtures sim_seed and"
        " sim_run. Tests made by @sim.test have it.",
    )
    seed, seeds = config.getoption("--sim-seed"), config.getoption("--sim-seeds")
    if seed is not None and seeds is not None:
        message = f"--sim-seed {seed} --sim-seeds {seeds}: give one of them"
        raise pytest.UsageError(message)
    if seed is not None or seeds is not None:
        from outlast.sim.case import overrides

        overrides.seed, overrides.seeds = seed, seeds


def pytest_unconfigure(config: pytest.Config) -> None:
    """Forget the seeds: another session may follow in this process."""
    if config.getoption("--sim-seed") is None and config.getoption("--sim-seeds") is None:
        return
    from outlast.sim.case import overrides

    overrides.seed = overrides.seeds = None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let no test see what the simulated time of an earlier one has left in policies."""
    registry = sys.modules.get("outlast.kernel.registry")
    if registry is not None:
        registry.fresh_world(after_another=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``@sim.test`` has made."""
    for item in items:
        if hasattr(getattr(item, "obj", None), _MARK):
            item.add_marker(pytest.mark.sim)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that wants ``sim_seed`` once for each seed."""
    if "sim_seed" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("sim")
        seeds = _seeds_of(metafunc.config, mark)
        metafunc.parametrize("sim_seed", seeds, ids=[f"seed{seed}" for seed in seeds])


def _seeds_of(config: pytest.Config, mark: pytest.Mark | None) -> Sequence[int]:
    """Return the seeds by command line, marker or default."""
    seed: int | None = config.getoption("--sim-seed")
    if seed is not None:
        return (seed,)
    seeds: int | None = config.getoption("--sim-seeds")
    if seeds is None and mark is not None:
        seeds = mark.kwargs.get("seeds")
    return range(_FIRST, _FIRST + (seeds or _SEEDS))


# --- fixtures ----------------------------------------------------------------------------------


class SimRun:
    """Runs a coroutine function in the simulator, under the seeds of the session.

    Args:
        seeds: Which.
        place: How pytest names the test, for whoever wants to repeat a failure.
    """

    def __init__(self, seeds: Sequence[int], place: str) -> None:
        self.seeds = seeds
        self._place = place

    def __call__(
        self,
        main: "Callable[..., Coroutine[Any, Any, T]]",
        *,
        faults: str | Iterable[str] = (),
        **options: Any,
    ) -> list[T]:
        """Run ``main`` once for each seed, until one fails.

        Args:
            main: A coroutine function, without parameters or with one for the lab.
            faults: Those that may strike.
            options: More, as :func:`outlast.sim.run` takes them.

        Returns:
            What ``main`` has returned for each seed, in order.
        """
        __tracebackhide__ = True
        from outlast.sim import run

        answers: list[T] = []
        for seed in self.seeds:
            try:
                answers.append(run(main, seed=seed, faults=faults, **options))
            except Exception as error:
                error.add_note(
                    f"seed {seed}; to repeat it: pytest '{self._place}' --sim-seed {seed}"
                )
                raise
        return answers


@pytest.fixture
def sim_run(request: pytest.FixtureRequest) -> SimRun:
    """Run coroutine functions in the simulator under each seed: ``sim_run(main, faults=…)``."""
    if "sim_seed" in request.fixturenames:
        seeds: Sequence[int] = (request.getfixturevalue("sim_seed"),)
    else:
        seeds = _seeds_of(request.config, request.node.get_closest_marker("sim"))
    return SimRun(seeds, request.node.nodeid)


@pytest.fixture
def virtual_time(request: pytest.FixtureRequest) -> 'Generator["VirtualTime", None, None]':
    """Run this blocking test in virtual time: time.sleep(3600) returns at once."""
    from outlast.testing.virtual import VirtualTime

    seed: int | None = request.config.getoption("--sim-seed")
    clock = VirtualTime(0 if seed is None else seed)
    request.node.stash[_CLOCK] = clock
    yield clock
    clock.close()


@pytest.fixture
def force_open() -> "Generator[Callable[..., None], None, None]":
    """Open circuits until the end of the test: ``force_open("rates", breaker)``.

    Takes names of policies, policies and breakers, as ``outlast.testing.forced_open`` does.
    """
    with ExitStack() as stack:

        def force(*targets: Any) -> None:
            from outlast.testing.forcing import forced_open

            stack.enter_context(forced_open(*targets))

        yield force


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Let the time of a test with ``virtual_time`` be virtual: of its body, not of pytest."""
    clock = pyfuncitem.stash.get(_CLOCK, None)
    if clock is None:
        return (yield)
    with clock.running():
        return (yield)


# --- failures ----------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failed report how to repeat it."""
    report = yield
    if report.failed and call.excinfo is not None:
        notes = "\n".join(map(str, getattr(call.excinfo.value, "__notes__", ())))
        said = _SAID.findall(notes)
        if said:
            report.sections.append(("outlast sim", "\n".join(said)))
    return report
