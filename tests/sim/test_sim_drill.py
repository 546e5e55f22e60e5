"""The same drill in the simulator: same faults by name, same judges, same report."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from outlast.drill.api import Drill, Nodes
from outlast.drill.choosing import choose_drill
from outlast.drill.cluster_drill import Counter, Map, Members, Transfers, bank_drill
from outlast.drill.loader import load_drill
from outlast.drill.report import Report
from outlast.drill.sim_nodes import SimCluster
from outlast.drill.sim_running import SimDrill
from outlast.drill.target import OwnNodes
from outlast.kernel import ConfigError
from outlast.sim import Outcome

EXAMPLES = Path(__file__).parents[2] / "examples"


def quieter(drill: type[Drill]) -> type[Drill]:
    """The same drill with fewer operations per second."""

    class Quiet(drill):  # type: ignore[valid-type,misc]
        __doc__ = drill.__doc__
        workloads = tuple(
            type(one.__name__, (one,), {"rate": 6.0, "__doc__": one.__doc__})
            for one in (Transfers, Map, Members, Counter)
        )

    return Quiet


def run(
    drill: type[Drill], *faults: str, seconds: float = 8.0, seed: int = 1, **more: object
) -> Outcome:
    return SimDrill(quieter(drill), seconds, faults, place="bank").run(seed, **more)  # type: ignore[arg-type]


def verdict(outcome: Outcome) -> str:
    assert isinstance(outcome.value, Report), outcome.error
    return outcome.value.verdict


ALL = (
    "crash@leader", "power-cut@all", "pause@leader", "partition:halves", "partition:bridge",
    "partition:flapping@leader", "partition:one-way@leader", "link:slow", "link:loss",
    "link:reset", "disk:full", "disk:slow", "clock:jump", "clock:drift", "slow@follower",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_our_cluster_survives_every_kind_of_fault_with_evidence_for_each() -> None:
    outcome = run(bank_drill(nodes=3), *ALL, seconds=4.0 + 3.6 * len(ALL))
    report = outcome.value
    assert verdict(outcome) == "survived", str(report)
    assert {fault.name.partition("@")[0] for fault in report.faults} == {
        name.partition("@")[0] for name in ALL
    }
    assert all(fault.evidence for fault in report.faults)
    assert report.lost == report.doubled == 0
    assert report.linearizable is True


def test_a_seed_gives_the_same_report_again() -> None:
    first, second, other = (
        run(bank_drill(nodes=3), "crash@leader", seed=seed) for seed in (4, 4, 5)
    )
    assert first.digest == second.digest != other.digest
    assert first.value.operations == second.value.operations
    assert first.value.as_json()["faults"] == second.value.as_json()["faults"]


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ("forgets-fsync", "crash@all"),
        ("acks-early", "partition:isolate@leader"),
        ("forgets-vote", "crash@all"),
        ("stale-reads", "partition:isolate@leader"),
        ("drops-sessions", "partition:one-way@leader"),
        ("forgets-writes", "crash@follower"),
    ],
)
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_canary_is_condemned(broken: str, fault: str) -> None:
    chosen, _ = choose_drill("bank", 3, f"broken-{broken}")
    assert any(verdict(SimDrill(chosen, 8.0, [fault]).run(seed)) == "failed" for seed in (1, 2, 3))


def test_what_a_canary_broke_is_mended_when_its_drill_is_over() -> None:
    chosen, _ = choose_drill("bank", 3, "broken-acks-early")
    assert verdict(SimDrill(chosen, 8.0, ["partition:isolate@leader"]).run(1)) == "failed"
    assert verdict(run(bank_drill(nodes=3), "partition:isolate@leader")) == "survived"


def test_somebody_elses_drill_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line of its nodes is executed on each simulated host."""
    shop = load_drill(str(EXAMPLES / "drill_shop.py:Shop"))
    drill = SimDrill(shop, 20.0, place="drill_shop.py:Shop")
    assert verdict(drill.run(7)) == "survived"
    monkeypatch.setenv("SHOP_LOSES", "1")
    assert verdict(drill.run(7)) == "failed"


def test_only_some_of_the_faults_of_a_seed() -> None:
    drill = SimDrill(quieter(bank_drill(nodes=3)), 12.0, ["crash", "pause"])
    whole, second, none = (
        drill.run(3),
        drill.run(3, only=frozenset({1})),
        drill.run(3, only=frozenset()),
    )
    assert [fault.index for fault in whole.faults] == [0, 1]
    assert [fault.fault for fault in second.faults] == [whole.faults[1].fault]
    assert not none.faults
    assert none.error is None, "without faults it proves nothing, and fails nothing"


def test_a_swarm_draws_as_many_faults_as_fit() -> None:
    drill = SimDrill(bank_drill(nodes=3), 12.0, swarm=True)
    drawn = {tuple(drill.chosen(seed)) for seed in range(20)}
    assert len(drawn) > 5
    assert {len(faults) for faults in drawn} == {2}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("redis-server --port {port}", "write python -m MODULE"),
        ("python", "write python -m MODULE"),
        ("python -c pass", "write python -m MODULE"),
    ],
)
def test_a_command_that_cannot_be_simulated_is_refused(command: str, says: str) -> None:
    class Other(quieter(bank_drill())):  # type: ignore[misc]
        nodes = Nodes(command)

    outcome = SimDrill(Other, 8.0, ["crash"]).run(1)
    assert isinstance(outcome.error, ConfigError)
    assert says in str(outcome.error)


def test_a_program_without_asyncio_is_told_so(tmp_path: Path) -> None:
    program = tmp_path / "plain.py"
    program.write_text("print('done')\n", encoding="utf-8")

    class Plain(quieter(bank_drill())):  # type: ignore[misc]
        nodes = Nodes(f"python {program}", start_seconds=0.5)

    outcome = SimDrill(Plain, 8.0, ["crash"]).run(1)
    assert "only asyncio programs can be simulated" in str(outcome.error)


def test_a_fault_that_the_simulator_lacks_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="not built yet"):
        SimDrill(bank_drill(), 20.0, ["memory:flip"])


PROGRAM = """
import asyncio, os, sys

async def main():
    assert os.environ["OUTLAST_NODE"] == "n1" and os.environ["COLOUR"] == "blue", "environment"
    await asyncio.sleep(0.1)
    os.environ["COLOUR"] = "red"
    await asyncio.sleep(0.1)
    assert os.environ["COLOUR"] == "red", "what it has set itself"
    raise SystemExit(f"arguments {sys.argv[1:]}")

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_command_line_runs_beside_its_drill_with_arguments_and_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("COLOUR", "green")
    before = sys.argv, dict(os.environ)

    class Own(Drill):
        """The program reads its arguments and its environment."""

        nodes = Nodes(
            "python program.py --port {port}",
            environment={"COLOUR": "blue"},
            start_seconds=0.5,
            count=1,
        )
        workloads = (Members,)
        faults = ("crash",)

    outcome = SimDrill(Own, 10.0, home=str(tmp_path)).run(1)
    assert "n1 ended by itself: it exited with arguments ['--port', '7400']" in str(outcome.error)
    assert (sys.argv, dict(os.environ)) == before


def test_what_a_canary_broke_is_mended_even_if_the_wait_before_is_given_up() -> None:
    class Watch:
        async def close(self) -> None:
            await asyncio.sleep(1)

    class Owner:
        promise = "broken"

    broken: Any = SimCluster(OwnNodes("bank"))
    broken._watch, broken._broken = Watch(), [(Owner, "promise", "kept")]

    async def give_up() -> None:
        closing = asyncio.ensure_future(broken.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])

    asyncio.run(give_up())
    assert Owner.promise == "kept"
