"""Every wait of the product has an end, or a reason why it needs none: ``waits.toml``."""

import functools
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast import sim
from outlast.drill import sim_running
from outlast.drill.cluster_drill import bank_drill
from outlast.drill.sim_running import SimDrill
from outlast.sim.running import with_lab
from tests.sim.protect_fleet import test_fleet as fleet
from tests.sim.spine import test_cluster as spine
from tests.support.waits_scenes import ON_DISK, SCENES

fleet.__test__ = spine.__test__ = False

ALLOWED = Path(__file__).with_name("waits.toml")
THROUGH = (
    "outlast.log.reader:Waiters.wait", "outlast.log.reader:within", "outlast.state.reads:within"
)  # fmt: skip
"""Helpers that wait on behalf of whoever calls them."""
PLACES_MIN = 100
"""So many places at least are seen to wait: fewer, and the scenes have lost their way."""
SPINE_SEEDS, FLEET_SEEDS = (7_004, 7_005), (1, 2, 3)
_NS = 1_000_000_000


def allowed() -> dict[str, str]:
    rows = tomllib.loads(ALLOWED.read_text(encoding="utf-8"))["allowed"]
    return {place: row["reason"] for row in rows for place in row["places"]}


def outcomes(waits: sim.Waits, monkeypatch: pytest.MonkeyPatch) -> Iterator[sim.Outcome]:
    for name, scene in SCENES.items():
        options = sim.Options(waits=waits, files=name in ON_DISK, limit=1000.0)
        yield sim.run_case(scene, 1, options)
    for campaign, seeds, length in ((spine, SPINE_SEEDS, 8 * _NS), (fleet, FLEET_SEEDS, 2 * _NS)):
        case: sim.Case = campaign.__outlast_sim__
        options = sim.Options(
            faults=case.options.faults, files=case.options.files, limit=case.options.limit,
            length_ns=length, waits=waits,
        )  # fmt: skip
        for seed in seeds:
            yield sim.run_case(with_lab(case.function), seed, options)
    watched: Any = functools.partial(sim.Options, waits=waits)
    monkeypatch.setattr(sim_running, "Options", watched)
    yield SimDrill(bank_drill(nodes=3), 8.0, ["pause@leader"], place="bank").run(1)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_wait_has_an_end_or_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = sim.Waits("outlast", allowed=allowed(), through=THROUGH)
    found: dict[str, sim.Wait] = {}
    for outcome in outcomes(waits, monkeypatch):
        found |= {wait.place: wait for wait in outcome.waits}
        if outcome.error is not None and not outcome.waits:
            raise outcome.error
    assert not found, "\n".join(f"{one}\n    by {' > '.join(one.stack)}" for one in found.values())
    assert not waits.stale(), f"nothing waits there any more; take it off {ALLOWED.name}"
    assert len(waits.met) >= PLACES_MIN


@pytest.mark.timeout(60)
def test_a_request_that_stops_in_its_middle_is_answered_408_in_time() -> None:
    outcome = sim.run_case(SCENES["gateway"], 2, sim.Options(limit=1000.0))
    assert outcome.error is None, outcome.error


def test_each_allowed_wait_has_a_reason() -> None:
    assert all(len(reason.split()) >= 5 for reason in allowed().values())
