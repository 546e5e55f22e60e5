"""What a simulated run leaves behind: collected at its end, unheard, at a cost of its own size.

Counted are calls, not time: whoever looks through the objects that were there before makes each
run as slow as the process is large.
"""

import asyncio
import gc
import sys
import warnings
import weakref
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest

from outlast import sim
from outlast.sim.lab import Lab
from outlast.sim.running import Options, many_runs, quiet, run_case
from tests.support.simnet import simulate

pytestmark = pytest.mark.timeout(120)
OPTIONS = Options()


class Cell:
    """Refers to itself, so that the collector alone can end it."""

    def __init__(self) -> None:
        self.me = self


async def trivial(lab: Lab) -> None:
    await asyncio.sleep(1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the simulator asks of the collector, in order; a first run has made the searches."""
    run_case(trivial, 1, OPTIONS)
    made: list[str] = []

    def noting(name: str, real: Any) -> Any:
        def note(*args: Any) -> Any:
            made.append(name)
            return real(*args)

        return note

    for name in ("freeze", "unfreeze", "collect", "get_freeze_count", "get_objects"):
        monkeypatch.setattr(gc, name, noting(name, getattr(gc, name)))
    return made


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """What finalisers complain of."""
    found: list[str] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda what: found.append(str(what.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # which finalisers cannot raise: they tell the hook
        try:
            yield found
        finally:
            sys.unraisablehook = hook


def without_repeats(names: list[str]) -> list[str]:
    return [name for name, before in zip(names, ["", *names], strict=False) if name != before]


def test_a_run_collects_only_while_what_was_there_before_is_frozen(calls: list[str]) -> None:
    run_case(trivial, 1, OPTIONS)
    assert without_repeats(calls) == ["freeze", "collect", "unfreeze"]
    assert calls.count("collect") <= 5


def test_so_do_the_runs_of_tests_of_the_network(calls: list[str]) -> None:
    simulate(lambda: asyncio.sleep(1))
    assert without_repeats(calls) == ["freeze", "collect", "unfreeze"]


def test_many_runs_freeze_more_and_more_until_the_block_ends(calls: list[str]) -> None:
    with many_runs():
        for seed in range(1, 4):
            run_case(trivial, seed, OPTIONS)
        assert without_repeats(calls) == ["freeze", *["collect", "freeze"] * 3, "collect"]
    assert calls.count("unfreeze") == 1
    assert calls[-1] == "unfreeze"


def test_the_seeds_of_a_test_are_many_runs(calls: list[str]) -> None:
    @sim.test(seeds=3)
    async def three() -> None:
        await asyncio.sleep(1)

    three()
    assert calls.count("unfreeze") == 1
    assert "get_freeze_count" not in calls


def test_after_a_run_nothing_is_frozen() -> None:
    run_case(trivial, 1, OPTIONS)
    assert gc.get_freeze_count() == 0


def test_after_a_run_that_fails_nothing_is_frozen() -> None:
    def refuse(lab: Lab) -> Any:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        run_case(refuse, 1, OPTIONS)
    assert gc.get_freeze_count() == 0


def test_the_garbage_of_a_run_is_gone_when_it_ends() -> None:
    cells: list[weakref.ref[Cell]] = []

    async def litter(lab: Lab) -> Cell:
        cells.append(weakref.ref(Cell()))
        return Cell()

    outcome = run_case(litter, 1, OPTIONS)
    assert cells[0]() is None
    assert isinstance(outcome.value, Cell)


def test_the_garbage_of_a_run_that_imports_is_gone_too(
    monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    """The search after an import freezes what the run has made until then."""
    cells: list[weakref.ref[Cell]] = []

    async def bring(lab: Lab) -> None:
        monkeypatch.setitem(sys.modules, "brought", ModuleType("brought"))
        cells.append(weakref.ref(Cell()))

    run_case(bring, 1, OPTIONS)
    assert cells[0]() is None
    assert calls.count("get_freeze_count") == 1, "it is the search that has asked"
    calls.clear()
    with many_runs():
        monkeypatch.delitem(sys.modules, "brought")
        run_case(bring, 1, OPTIONS)
        assert cells[1]() is None
    assert gc.get_freeze_count() == 0


def test_a_search_that_is_due_is_made_before_anything_is_frozen(
    monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "brought", ModuleType("brought"))
    run_case(trivial, 1, OPTIONS)
    assert without_repeats(calls) == [
        "get_freeze_count", "unfreeze", "freeze", "collect", "unfreeze",
    ]  # fmt: skip


def test_an_inner_block_leaves_to_the_outer_one_what_that_has_frozen(calls: list[str]) -> None:
    with quiet():
        cell = weakref.ref(Cell())
        run_case(trivial, 1, OPTIONS)
        assert cell() is None, "it was made since the outer block began"
        assert "unfreeze" not in calls
        with many_runs():
            run_case(trivial, 1, OPTIONS)
        assert "unfreeze" not in calls
        cell = weakref.ref(Cell())
    assert cell() is None
    assert calls[-1] == "unfreeze"
    assert "get_freeze_count" not in calls


def test_nobody_hears_the_garbage_of_a_run(heard: list[str]) -> None:
    async def litter(lab: Lab) -> None:
        cell: Any = Cell()
        cell.never = asyncio.sleep(1)

    run_case(litter, 1, OPTIONS)
    gc.collect()
    assert not heard


def test_what_is_dropped_between_many_runs_is_collected_unheard_by_the_next(
    heard: list[str],
) -> None:
    async def litter(lab: Lab) -> Cell:
        cell: Any = Cell()
        cell.never = asyncio.sleep(1)
        return cell  # type: ignore[no-any-return]

    with many_runs():
        cell = weakref.ref(run_case(litter, 1, OPTIONS).value)
        run_case(trivial, 2, OPTIONS)
        assert cell() is None
        cell = weakref.ref(run_case(litter, 3, OPTIONS).value)
    assert cell() is None
    assert not heard


def test_the_hook_for_complaints_is_put_back() -> None:
    hook = sys.unraisablehook
    with suppress(ZeroDivisionError), quiet():
        assert sys.unraisablehook is not hook
        raise ZeroDivisionError
    assert sys.unraisablehook is hook
