"""``@sim.test``: a plain test function that runs under many seeds and explains its failures."""

import asyncio
import inspect
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import ConfigError
from outlast.sim.case import MARK, Case


async def idle() -> None:
    await asyncio.Event().wait()


async def works(lab: sim.Lab) -> None:
    lab.host("a", idle)
    await lab.sleep(1)


def case_of(test: Any) -> Case:
    return getattr(test, MARK)


@pytest.fixture
def command_line() -> Iterator[Any]:
    """What the command line says, put back afterwards."""
    seed, seeds = sim.overrides.seed, sim.overrides.seeds
    yield sim.overrides
    sim.overrides.seed, sim.overrides.seeds = seed, seeds


def seeds_of(test: Any, seen: list[int]) -> list[int]:
    seen.clear()
    test()
    return list(dict.fromkeys(seen))


# --- seeds ---------------------------------------------------------------------------------------


def test_the_seeds_are_always_the_same_ones(command_line: Any) -> None:
    seen: list[int] = []

    async def look(lab: sim.Lab) -> None:
        seen.append(lab.seed)

    assert seeds_of(sim.test(seeds=5)(look), seen) == [1, 2, 3, 4, 5]
    assert seeds_of(sim.test(seeds=3, seed=70)(look), seen) == [70, 71, 72]
    assert len(seeds_of(sim.test(look), seen)) == 200
    command_line.seeds = 2
    assert seeds_of(sim.test(seeds=5)(look), seen) == [1, 2]
    command_line.seed = 7319
    assert seeds_of(sim.test(seeds=5)(look), seen) == [7319]


def test_each_seed_draws_something_else() -> None:
    drawn: list[float] = []

    @sim.test(seeds=20)
    async def draw(lab: sim.Lab) -> None:
        drawn.append(random.random())

    draw()
    assert len(set(drawn)) == 20


# --- the function that it makes ------------------------------------------------------------------


@sim.test(seeds=3)
async def test_fixtures_and_names_pass_through(
    lab: sim.Lab, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """This is one."""
    assert request.node.name == "test_fixtures_and_names_pass_through"
    assert str(tmp_path)
    await lab.sleep(1)


@pytest.mark.parametrize("seconds", [1, 2])
@sim.test(seeds=2)
async def test_parameters_pass_through(there: sim.Lab, seconds: int) -> None:
    await there.sleep(seconds)
    assert there.now == seconds


class TestMethod:
    @sim.test(seeds=2)
    async def test_methods_are_tests_too(self, lab: sim.Lab) -> None:
        assert isinstance(self, TestMethod)
        await lab.sleep(1)

    def test_they_are_named_with_their_class(self) -> None:
        assert case_of(TestMethod.test_methods_are_tests_too).name == (
            "TestMethod::test_methods_are_tests_too"
        )


@sim.test
async def test_no_arguments_and_no_lab_are_needed() -> None:
    await asyncio.sleep(3600)


def test_the_function_is_plain_and_keeps_its_documentation() -> None:
    made = test_fixtures_and_names_pass_through
    assert not inspect.iscoroutinefunction(made)
    assert made.__doc__ == "This is one."
    assert list(inspect.signature(made).parameters) == ["tmp_path", "request"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds is 0; at least 1"),
        ({"budget": "all"}, "budget is 'all'; use 'minority' or 'any'"),
        ({"faults": ["crsh"]}, "fault 'crsh': did you mean crash"),
    ],
)
def test_wrong_options_are_refused_when_the_test_is_defined(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sim.test(**options)(works)


def test_a_plain_function_is_refused() -> None:
    def plain(lab: sim.Lab) -> None: ...

    with pytest.raises(ConfigError, match="'plain' is no async function"):
        sim.test(plain)  # type: ignore[call-overload]


def test_a_skip_is_a_skip() -> None:
    @sim.test(seeds=3)
    async def skips() -> None:
        pytest.skip("not here")

    with pytest.raises(pytest.skip.Exception) as caught:
        skips()
    assert not getattr(caught.value, "__notes__", [])


# --- failures ------------------------------------------------------------------------------------


def failure(test: Any, kind: type[BaseException] = AssertionError) -> tuple[BaseException, str]:
    with pytest.raises(kind) as caught:
        test()
    return caught.value, "\n".join(caught.value.__notes__)


def test_a_failure_names_seed_command_faults_and_last_events() -> None:
    @sim.test(seeds=50, faults=["pause", "crash"])
    async def fragile(lab: sim.Lab) -> None:
        host = lab.host("a", idle)
        for _ in range(100):
            await lab.sleep(0.01)
            if not host.up:
                raise LookupError("it is down")

    error, notes = failure(fragile, LookupError)
    assert str(error) == "it is down"
    seed = notes.partition("seed ")[2].partition(";")[0]
    place = "tests/unit/test_sim_case.py::test_a_failure_names_seed_command_faults_and_last_events"
    assert f"pytest '{place}' --sim-seed {seed}\n" in notes
    assert f"or: outlast sim tests/unit/test_sim_case.py:fragile --seed {seed}" in notes
    assert "crash@one a" in notes
    assert "faults " in notes
    assert "test       crash a" in notes
    assert "NOT REPEATABLE" not in notes
    outcome = case_of(fragile).run(int(seed))
    assert isinstance(outcome.error, LookupError)


def test_a_failure_without_any_fault_says_so() -> None:
    @sim.test(seeds=50, faults=["crash"])
    async def wrong(lab: sim.Lab) -> None:
        await works(lab)
        raise LookupError("always")

    _, notes = failure(wrong, LookupError)
    assert notes == "seed 1, and no fault was injected: it fails without"


def test_a_test_that_is_not_repeatable_is_told_with_the_first_difference() -> None:
    calls = itertools.count()

    @sim.test(seeds=5)
    async def drifts(lab: sim.Lab) -> None:
        lab.host("a", idle)
        await lab.sleep(1)
        lab.host(f"b{next(calls)}", idle)
        await lab.sleep(1)
        raise LookupError("never twice the same")

    _, notes = failure(drifts, LookupError)
    assert "NOT REPEATABLE" in notes
    assert "start b1 1" in notes
    assert "start b2 1" in notes


# --- void ----------------------------------------------------------------------------------------


def test_a_test_that_no_fault_reaches_is_void() -> None:
    @sim.test(seeds=20, faults=["partition:halves", "link:slow"])
    async def alone(lab: sim.Lab) -> None:
        lab.host("a", idle)
        lab.host("b", idle)
        lab.crash("b")  # by hand, and no evidence of what was asked for
        await lab.sleep(1)

    with pytest.raises(AssertionError, match="void: nothing felt a fault in 20 seeds") as caught:
        alone()
    assert "partition:halves@one, link:slow@one" in str(caught.value)
    assert "ends after 1,000.000 virtual ms" in str(caught.value)


def test_a_single_seed_proves_nothing_and_is_not_called_void(command_line: Any) -> None:
    @sim.test(seeds=20, faults=["partition:halves"])
    async def alone(lab: sim.Lab) -> None:
        await works(lab)

    command_line.seed = 5
    alone()


def test_a_test_of_less_than_a_millisecond_is_hit_as_well() -> None:
    felt: list[int] = []

    @sim.test(seeds=30, faults=["crash", "pause"])
    async def short(lab: sim.Lab) -> None:
        lab.host("a", idle)
        await lab.sleep(0.0003)
        felt.append(len(lab.events))

    short()
    assert sum(1 for count in felt if count) >= 5


def test_what_should_sometimes_happen_and_never_does_makes_the_test_void() -> None:
    @sim.test(seeds=20)
    async def hopes(lab: sim.Lab) -> None:
        lab.sometimes("it rained", condition=False)

    with pytest.raises(AssertionError, match="never happened in 20 seeds: it rained"):
        hopes()


# --- the case ------------------------------------------------------------------------------------


def test_a_case_runs_a_seed_by_itself_with_or_without_some_of_its_faults() -> None:
    case = case_of(sim.test(faults=["pause"])(works))
    seed = next(seed for seed in range(20) if case.run(seed).felt)
    whole = case.run(seed)
    assert whole.passed
    assert whole.digest == case.run(seed).digest
    none = case.run(seed, only=frozenset())
    assert none.faults == []
    assert none.digest != whole.digest
    events: list[str] = []
    case.run(seed, trace=lambda at, host, text: events.append(text))
    assert any(text.startswith("pause a") for text in events)


def test_a_case_that_needs_fixtures_says_how_to_run_it() -> None:
    case = case_of(test_fixtures_and_names_pass_through)
    with pytest.raises(ConfigError, match=r"needs tmp_path, request, which only pytest gives"):
        case.run(1)


def test_files_live_on_simulated_disks_unless_real_ones_are_asked_for(tmp_path: Path) -> None:
    real = tmp_path / "file"

    async def writes(lab: sim.Lab) -> None:
        real.write_text("x")
        assert real.read_text() == "x"

    sim.test(seeds=2)(writes)()
    assert not real.exists()
    sim.test(seeds=2, files=False)(writes)()
    assert real.exists()
