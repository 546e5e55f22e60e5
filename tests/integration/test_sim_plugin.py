"""The pytest plugin, in a pytest of its own: a directory of somebody's tests."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

INSTALLED = any(
    point.value == "outlast.testing.plugin" for point in entry_points(group="pytest11")
)
"""Whether pytest finds the plugin by itself here; otherwise it is named."""

TESTS = '''
import asyncio
import datetime
import time

import pytest

from outlast import sim

seen = []


@sim.test(seeds=5)
async def test_many(lab, tmp_path):
    """A fixture beside the lab."""
    seen.append(lab.seed)
    await asyncio.sleep(3600)
    print("seeds", seen, tmp_path.exists())


@pytest.mark.parametrize("value", [1, 2])
@sim.test(seeds=2)
async def test_parameters(value):
    await asyncio.sleep(value)


@sim.test(seeds=30)
async def test_fails(lab):
    await asyncio.sleep(1)
    assert lab.seed != 7, "at seven"


@pytest.mark.sim(seeds=3)
def test_one_each(sim_seed):
    print("each", sim_seed)


def test_runs(sim_run):
    async def main(lab):
        await asyncio.sleep(10)
        return lab.seed

    print("ran", sim_run(main))


@pytest.mark.sim(seeds=4)
def test_runs_fail(sim_run):
    async def main(lab):
        assert lab.seed != 3

    sim_run(main)


def test_waits(virtual_time):
    begun, wall = time.monotonic(), datetime.datetime.now()
    time.sleep(86_400)
    assert time.monotonic() - begun == pytest.approx(86_400)
    assert (datetime.datetime.now() - wall).days == 1
    virtual_time.advance(5)
    virtual_time.jump(-10)
    assert virtual_time.now == pytest.approx(86_405)


def test_no_coroutine(virtual_time):
    with pytest.raises(ValueError, match="is for blocking code"):
        asyncio.Runner().get_loop()


def test_plain():
    assert time.time() > 1_700_000_000
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "test_shop.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    return folder


def run(place: Path, *arguments: str) -> tuple[int, str]:
    named = [] if INSTALLED else ["-p", "outlast.testing.plugin"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", *named, "-rA",
         *arguments],
        cwd=place,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def whole(place: Path) -> str:
    code, said = run(place)
    assert code == 1
    return said


def test_simulation_tests_run_beside_others_with_fixtures_and_parameters(whole: str) -> None:
    assert "seeds [1, 2, 3, 4, 5] True" in whole
    for name in ("test_many", "test_parameters[1]", "test_parameters[2]", "test_plain"):
        assert f"PASSED test_shop.py::{name}" in whole
    assert "2 failed" in whole


def test_a_failure_says_how_to_repeat_it_in_a_section_of_its_own(whole: str) -> None:
    section = whole.partition("outlast sim -")[2]
    assert "seed 7; to repeat it: pytest 'test_shop.py::test_fails' --sim-seed 7" in section
    assert "or: outlast sim test_shop.py:test_fails --seed 7" in section


def test_a_failure_of_sim_run_says_how_to_repeat_it_too(whole: str) -> None:
    assert "seed 3; to repeat it: pytest 'test_shop.py::test_runs_fail' --sim-seed 3" in whole


def test_a_test_that_wants_sim_seed_runs_once_for_each(whole: str) -> None:
    for seed in (1, 2, 3):
        assert f"PASSED test_shop.py::test_one_each[seed{seed}]" in whole
    assert "test_one_each[seed4]" not in whole


def test_blocking_tests_run_in_virtual_time_and_pytest_does_not(whole: str) -> None:
    assert "PASSED test_shop.py::test_waits" in whole
    assert "PASSED test_shop.py::test_no_coroutine" in whole
    seconds = float(whole.rpartition(" in ")[2].split("s")[0])
    assert seconds < 3600, "it would take days"


def test_sim_seed_runs_one_seed_and_finds_the_failure_again(place: Path) -> None:
    code, said = run(place, "--sim-seed", "7", "-k", "fails or one_each or runs or many")
    assert code == 1
    assert "seeds [7]" in said
    assert "at seven" in said
    assert "test_one_each[seed7]" in said
    assert "ran [7]" in said
    assert "1 failed" in said


def test_sim_seeds_overrides_the_numbers_of_the_tests(place: Path) -> None:
    code, said = run(place, "--sim-seeds", "2", "-k", "fails or one_each or runs or many")
    assert code == 0, said
    assert "seeds [1, 2]" in said
    assert "ran [1, 2]" in said
    assert "test_one_each[seed3]" not in said


def test_the_marker_chooses_simulation_tests(place: Path) -> None:
    code, said = run(place, "-m", "sim", "--collect-only", "-q")
    assert code == 0
    assert "test_many" in said
    assert "test_one_each[seed1]" in said
    assert "test_plain" not in said


def test_it_works_with_xdist(place: Path) -> None:
    code, said = run(place, "-n", "2", "--sim-seeds", "2", "-k", "not runs_fail")
    assert code == 0, said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sim-seed", "-3"), "a whole number from 0 on would be right"),
        (("--sim-seeds", "0"), "a whole number from 1 on would be right"),
        (("--sim-seed", "1", "--sim-seeds", "2"), "--sim-seed 1 --sim-seeds 2: give one of them"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    place: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, text = run(place, *arguments)
    assert code == 4
    assert said in text


def test_the_options_stand_in_the_help_in_a_group_of_their_own(place: Path) -> None:
    code, said = run(place, "--help")
    assert code == 0
    group = said.partition("simulation tests (outlast.sim):")[2]
    assert group.index("--sim-seed=SEED") < group.index("--sim-seeds=N") < 400


def test_loading_it_imports_nothing_of_weight() -> None:
    program = (
        "import sys, pytest; before = set(sys.modules); import outlast.testing.plugin;"
        " print(sorted(m for m in set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "['outlast', 'outlast.testing', 'outlast.testing.plugin']"
