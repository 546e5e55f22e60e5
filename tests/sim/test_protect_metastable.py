"""A short overload keeps a service down for as long as its clients repeat calls naively."""

from dataclasses import replace

import pytest

from benchmarks.metastable import NEVER, VARIANTS, Run, Scene, draw, simulate

pytestmark = pytest.mark.timeout(180)

SCENE = Scene(workers=5, queue=500, clients=10, peak_at=5, peak_for=8, seconds=35)
"""Half the service of the page, and less time."""
GOOD = [name for name in VARIANTS if name not in {"naive retries", "backoff only"}]


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    return {name: simulate(SCENE, name, seed=7) for name in VARIANTS}


@pytest.mark.parametrize("name", ["naive retries", "backoff only"])
def test_retries_without_a_budget_keep_the_service_down_after_the_overload(
    runs: dict[str, Run], name: str
) -> None:
    figures = runs[name].figures(SCENE)
    assert runs[name].recovery(SCENE) == NEVER
    assert figures["answered_at_the_end"] < 0.05
    assert figures["attempts_per_user"] * SCENE.load > 2  # of what it can do


def test_without_retries_it_comes_back_by_itself(runs: dict[str, Run]) -> None:
    assert runs["no retries"].recovery(SCENE) < NEVER


@pytest.mark.parametrize("name", ["budget and breaker", "deadlines, too"])
def test_a_budget_and_a_breaker_bring_it_back_in_seconds(runs: dict[str, Run], name: str) -> None:
    figures = runs[name].figures(SCENE)
    assert runs[name].recovery(SCENE) <= 3
    assert figures["answered_at_the_end"] > 0.99
    assert figures["attempts_per_user"] < 1.1 + 0.05


def test_a_budget_alone_needs_room_for_what_it_grants(runs: dict[str, Run]) -> None:
    assert runs["budget only"].recovery(SCENE) < NEVER
    tight = replace(SCENE, load=0.95)
    assert simulate(tight, "budget only", seed=7).recovery(tight) == NEVER
    assert simulate(tight, "budget and breaker", seed=7).recovery(tight) < NEVER


def test_deadlines_save_the_work_for_which_nobody_waits(runs: dict[str, Run]) -> None:
    wasted = {name: run.figures(SCENE)["served_for_nobody"] for name, run in runs.items()}
    assert wasted["deadlines, too"] < 0.01 < wasted["budget and breaker"]
    assert wasted["naive retries"] > 0.5


def test_one_seed_gives_one_result(runs: dict[str, Run]) -> None:
    name = "deadlines, too"
    assert simulate(SCENE, name, seed=7) == runs[name]
    assert simulate(SCENE, name, seed=8) != runs[name]


def test_the_picture_has_a_line_for_each_way_to_call(runs: dict[str, Run]) -> None:
    drawn = draw({name: runs[name] for name in GOOD}, SCENE)
    assert drawn.count("<path") == 2 * len(GOOD)
    assert all(name in drawn for name in GOOD)
