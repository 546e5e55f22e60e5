"""Shrinking a schedule: which steps are enough to fail?"""

from collections.abc import Callable

import pytest

from outlast.kernel import Prng
from outlast.sim.core.shrink import Shrinker


def shrink(
    steps: range, fails: Callable[[frozenset[int]], bool], runs_max: int = 1000
) -> Shrinker:
    shrinker = Shrinker(steps, runs_max=runs_max)
    while (asked := shrinker.ask()) is not None:
        shrinker.tell(fails(frozenset(asked)))
    return shrinker


def test_a_failure_that_needs_no_fault_is_told_after_one_run() -> None:
    found = shrink(range(50), lambda _: True)
    assert (found.kept, found.runs, found.minimal) == ((), 1, True)


def test_one_needed_step_of_a_thousand_is_found_in_few_runs() -> None:
    found = shrink(range(1000), lambda steps: 617 in steps)
    assert found.kept == (617,)
    assert found.runs < 40


def test_steps_that_are_needed_together_are_all_kept() -> None:
    needed = {3, 40, 41, 77}
    found = shrink(range(80), lambda steps: needed <= steps)
    assert set(found.kept) == needed
    assert found.minimal


@pytest.mark.parametrize("seed", range(200))
def test_what_is_kept_fails_and_no_step_of_it_can_be_left_out(seed: int) -> None:
    """Also when a failure needs one of several combinations, as with real schedules."""
    prng = Prng(seed)
    count = prng.between(1, 30)
    causes = [
        frozenset(prng.below(count) for _ in range(prng.between(1, 4)))
        for _ in range(prng.between(1, 3))
    ]

    def fails(steps: frozenset[int]) -> bool:
        return any(cause <= steps for cause in causes)

    found = shrink(range(count), fails)
    kept = frozenset(found.kept)
    assert fails(kept), f"seed {seed}"
    assert not any(fails(kept - {step}) for step in kept), f"seed {seed}"
    assert found.minimal


def test_no_set_is_asked_about_twice() -> None:
    asked: list[frozenset[int]] = []

    def fails(steps: frozenset[int]) -> bool:
        asked.append(steps)
        return {1, 9, 14} <= steps

    shrink(range(16), fails)
    assert len(asked) == len(set(asked))


def test_the_budget_of_runs_is_kept_and_what_is_known_by_then_fails() -> None:
    needed = {5, 300, 301, 302, 303, 650}
    found = shrink(range(700), lambda steps: needed <= steps, runs_max=12)
    assert found.runs == 12
    assert not found.minimal
    assert needed <= set(found.kept)
    assert len(found.kept) < 700


def test_whoever_asks_may_stop_at_any_time() -> None:
    shrinker = Shrinker(range(10), runs_max=0)
    assert shrinker.ask() is None
    assert shrinker.kept == tuple(range(10))
    assert not shrinker.minimal


def test_asking_again_without_an_answer_gives_the_same_question() -> None:
    shrinker = Shrinker(range(10))
    assert shrinker.ask() == shrinker.ask() == ()


def test_a_failure_that_comes_and_goes_ends_all_the_same() -> None:
    """A program that is not repeatable gives answers that contradict each other."""
    prng = Prng(4)
    found = shrink(range(64), lambda _: prng.chance(1, 3))
    assert found.runs < 1000
