"""The whole protect stack on a simulated fleet: its promises hold, and the checks can fail.

The long form is ``outlast sim tests/sim/protect_fleet.py::test_fleet --seeds 2000``.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outlast import sim
from outlast.protect.core.breaker import BreakerCore, Probe
from outlast.protect.core.budget import BudgetRules
from outlast.protect.core.idempotency import BEGUN, RecordTable
from outlast.protect.core.rate import Gcra, SlidingLog
from outlast.protect.permits import Permits
from outlast.protect.sender import Idempotency, mint_key
from outlast.protect.watch import Watch
from tests.sim.protect_fleet import test_fleet as campaign

CASE: sim.Case = campaign.__outlast_sim__  # type: ignore[attr-defined]
campaign.__test__ = False  # type: ignore[attr-defined]  # it runs here, once

ROOT = Path(__file__).parents[2]
KEPT = 159
FOUND_WITHIN = 40


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_promise_of_any_part_is_broken_in_a_fleet_under_faults() -> None:
    campaign()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_life_of_the_fleet_is_the_same_twice_and_in_every_process() -> None:
    here = CASE.run(KEPT).digest
    code = (
        "from tests.sim.protect_fleet import test_fleet as t;"
        f" print(t.__outlast_sim__.run({KEPT}).digest)"
    )
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert digests == {here}
    assert CASE.run(KEPT).digest == here


# --- the checks can fail -------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], object]


def lost_permits(patch: pytest.MonkeyPatch) -> None:
    """A waiter that goes away takes the permit along that it was just handed."""
    settle: Any = Permits._settle_locked

    def careless(self: Permits) -> Any:
        self._left.clear()
        return settle(self)

    patch.setattr(Permits, "_settle_locked", careless)


def uncapped_probes(patch: pytest.MonkeyPatch) -> None:
    def admit(self: BreakerCore, now_ns: int) -> Probe:
        probe = Probe(self.round, now_ns + self.rules.probe_ns)
        self._live.append(probe)
        return probe

    patch.setattr(BreakerCore, "_admit_probe", admit)


def probes_that_stay_out(patch: pytest.MonkeyPatch) -> None:
    def cancelled(self: BreakerCore, ticket: object) -> None:
        for probe in self._live:
            probe.expires_ns = 1 << 62

    patch.setattr(BreakerCore, "cancelled", cancelled)


def endless_budget(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BudgetRules, "ask", lambda self, now_ns: True)


def slots_for_all(patch: pytest.MonkeyPatch) -> None:
    for rule in (Gcra, SlidingLog):
        patch.setattr(rule, "reserve", lambda self, now_ns, wait_ns, cost=1: 0)


def late_watch(patch: pytest.MonkeyPatch) -> None:
    enter = Watch.enter
    patch.setattr(Watch, "enter", lambda self, at_ns: enter(self, at_ns + 5_000_000))


def work_that_is_begun_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RecordTable, "begin", lambda *_: BEGUN)


def one_key_for_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Idempotency, "key_for", lambda self, args, kwargs: mint_key()[:1])


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (lost_permits, "permits are (lost|held)|has not recovered"),
        (uncapped_probes, "probes at a time"),
        (probes_that_stay_out, "has not recovered"),
        (endless_budget, "extra attempts"),
        (slots_for_all, r"calls (in|within) \d+ ns"),
        (late_watch, r"took \d+ ns of \d+"),
        (work_that_is_begun_twice, "was done twice"),
        (one_key_for_all, "has the key of"),
    ],
)
def test_a_planted_bug_is_found_in_a_few_lives(
    monkeypatch: pytest.MonkeyPatch, plant: Plant, told: str
) -> None:
    plant(monkeypatch)
    errors = (CASE.run(seed).error for seed in range(1, FOUND_WITHIN + 1))
    found = next((error for error in errors if error is not None), None)
    assert re.search(told, str(found)), found
