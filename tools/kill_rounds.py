"""Kill a whole cluster again and again while clients move money, and judge what is left.

Every round lets the load run for a drawn time, kills every node at once (SIGKILL), and waits
until transfers are acknowledged again. With ``--storage lossy`` a kill is a power cut: what was
not fsynced is gone, the last write torn. In the end the books must balance, and all replicas
must have equal digests at equal applied indices. Exit code 0 survived, 1 failed.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from outlast.cluster import Client, LocalCluster
from outlast.cluster.connect import connect
from outlast.drill.bank import BankWorkload
from outlast.drill.replicas import compare_digests
from outlast.host import make_world
from outlast.kernel import OutlastError, Prng, World

_NS = 1_000_000_000
_IMPATIENCE = 0.25


@dataclass(slots=True)
class RoundsReport:
    """What a run found. ``problems`` is empty when everything that was promised was kept."""

    seed: int
    storage: str
    rounds: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    lost: int = 0
    applied_twice: int = 0
    recovery_ms: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def survived(self) -> bool:
        """Whether nothing is wrong, and there was something to be judged."""
        return not self.problems

    def __str__(self) -> str:
        times = sorted(self.recovery_ms) or [0]
        lines = [
            f"{self.rounds} rounds of kill -9 of all nodes, storage {self.storage},"
            f" seed {self.seed}",
            f"{self.acknowledged} transfers acknowledged, {self.refused} refused,"
            f" {self.unknown} without an answer",
            f"{self.lost} lost, {self.applied_twice} applied twice",
            f"from kill to the next acknowledgement: median {times[len(times) // 2]} ms,"
            f" worst {times[-1]} ms",
            *self.problems,
            "survived" if self.survived else "failed",
        ]
        return "\n".join(lines)


async def kill_rounds(
    data: str,
    *,
    rounds: int,
    storage: str = "disk",
    seed: int = 1,
    clients: int = 8,
    program: str = "outlast",
    within: float = 20.0,
    say: Callable[[str], None] = lambda _: None,
) -> RoundsReport:
    """Run ``rounds`` rounds on a new cluster in ``data`` and judge them.

    A quarter of the clients give up on a call after 0.25 s, so that some outcomes stay unknown.
    The moments of the kills follow from ``seed``. A round that does not recover ``within``
    seconds ends the run.
    """
    world = make_world()
    prng = Prng(seed)
    report = RoundsReport(seed, storage)
    cluster = LocalCluster(
        world, "bank", data, port=0, http_port=None, storage=storage, program=program
    )

    def client() -> Client[Any]:
        return connect(None, cluster.addresses, timeout=60.0)

    async with _running(cluster):
        await cluster.ready(within=60.0)
        workload = BankWorkload(world, client, clients, timeout=60.0, impatience=_IMPATIENCE)
        await workload.start()
        for _ in range(rounds):
            await world.timers.sleep(prng.between(200, 1500) / 1000)
            if not await _round(world, cluster, workload, report, within):
                break
            say(f"round {report.rounds}: again after {report.recovery_ms[-1]} ms")
        await _judge(world, cluster, workload, report, within)
    return report


@asynccontextmanager
async def _running(cluster: LocalCluster) -> AsyncIterator[None]:
    try:
        await cluster.start()
        yield
    finally:
        await cluster.stop()


async def _round(
    world: World,
    cluster: LocalCluster,
    workload: BankWorkload,
    report: RoundsReport,
    within: float,
) -> bool:
    """Kill all nodes, wait for the next acknowledgement; whether it came."""
    killed = [(node, cluster.kill(node)) for node in cluster.nodes]
    at_ns = world.clock.monotonic_ns()
    for node, pid in killed:
        if not pid or not await cluster.gone(pid):
            report.problems.append(f"round {report.rounds + 1}: {node} was not running")
    acknowledged = workload.counts.ok
    end_ns = at_ns + int(within * _NS)
    while workload.counts.ok == acknowledged:
        if world.clock.monotonic_ns() > end_ns:
            report.problems.append(
                f"round {report.rounds + 1}: no transfer was acknowledged within {within:g} s"
            )
            return False
        await world.timers.sleep(0.005)
    report.rounds += 1
    report.recovery_ms.append((workload.acks.times[acknowledged] - at_ns) // 1_000_000)
    return True


async def _judge(
    world: World,
    cluster: LocalCluster,
    workload: BankWorkload,
    report: RoundsReport,
    within: float,
) -> None:
    try:
        judgement = await workload.finish(within=within)
    except (OutlastError, OSError) as error:
        report.problems.append(f"the books cannot be read: {type(error).__name__}: {error}")
        return
    report.acknowledged = judgement.acknowledged
    report.refused = sum(account.refused for account in workload.accounts)
    report.unknown = workload.counts.info
    report.lost, report.applied_twice = judgement.lost, judgement.applied_twice
    report.problems += judgement.problems
    if report.refused:
        report.problems.append(f"{report.refused} transfers were refused; no account was empty")
    if not report.acknowledged:
        report.problems.append("nothing was acknowledged, so nothing was shown")
    report.problems += await compare_digests(world, cluster.addresses.split(","), within)


def main() -> int:
    """Run as asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--storage", choices=("disk", "lossy"), default="disk")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument(
        "--canary", action="store_true", help="nodes that fsync nothing: must fail"
    )
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outlast-rounds-") as data:
        report = asyncio.run(
            kill_rounds(
                f"{data}/cluster",
                rounds=chosen.rounds,
                storage=chosen.storage,
                seed=chosen.seed,
                clients=chosen.clients,
                program="outlast.testing.broken.node" if chosen.canary else "outlast",
                say=lambda text: print(text, file=sys.stderr, flush=True),
            )
        )
    print(json.dumps({"schema": 1, **asdict(report)}) if chosen.json else report)
    return 0 if report.survived else 1


if __name__ == "__main__":
    sys.exit(main())
