"""A new version of the machine, node by node, under work: nobody is taken for diverged."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from outlast.cluster import Client, Node, NodeSettings
from outlast.cluster.layout import draw_cluster_id, make_plan
from outlast.host import make_world
from outlast.state import Limits, ReplicaSettings, StateMachine, Table, command, query

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(400)]


@dataclass
class Counter(StateMachine):
    counts: Table[str, int] = field(default_factory=Table)

    @command
    def add(self, name: str) -> int:
        self.counts[name] = self.counts.get(name, 0) + 1
        return self.counts[name]

    @query
    def read(self, name: str) -> int:
        return self.counts.get(name, 0)


First = Counter


@dataclass
class Counter(StateMachine):  # type: ignore[no-redef]  # the same machine, later
    version: ClassVar[int] = 2
    totals: Table[str, int] = field(default_factory=Table)
    renamed: int = 1

    @classmethod
    def migrate(cls, state: dict[str, Any], version: int) -> dict[str, Any]:
        return {"totals": state["counts"], "renamed": 1}

    @command
    def add(self, name: str) -> int:
        self.totals[name] = self.totals.get(name, 0) + 1
        return self.totals[name]

    @command(since=2)
    def double(self, name: str) -> int:
        self.totals[name] = self.totals.get(name, 0) * 2
        return self.totals[name]

    @query
    def read(self, name: str) -> int:
        return self.totals.get(name, 0)


Second = Counter


async def test_a_rolling_upgrade_that_renames_a_field_condemns_nobody(tmp_path: Path):
    world = make_world()
    plan = make_plan(
        world.storage, str(tmp_path), "counter", nodes=3, cluster=draw_cluster_id(world.prng),
        port=0, http_port=None,
    )  # fmt: skip
    replica = ReplicaSettings(digest_every=4, limits=Limits(checkpoint_entries=8))

    def make(name: Any, machine: type[StateMachine]) -> Node:
        return Node(
            world,
            machine,
            NodeSettings(
                node=name, data=plan.directory(str(tmp_path), name),
                listen=plan.addresses[name], peers=plan.addresses, cluster=plan.cluster,
                replica=replica,
            ),
        )  # fmt: skip

    nodes = {name: make(name, First) for name in plan.addresses}
    for node in nodes.values():
        await node.start()
    try:
        async with Client(First, list(plan.addresses.values()), world=world, timeout=60) as client:
            due = 0

            async def work(times: int) -> None:
                nonlocal due
                for _ in range(times):
                    due += 1
                    assert await client.call(First.add, "visits") == due

            await work(30)
            for name in list(nodes):
                await nodes[name].stop()
                nodes[name] = make(name, Second)
                await nodes[name].start()
                await work(30)
                await world.timers.sleep(1.2)  # two looks of each node at the others' digests
            await _until(
                lambda: all(n.status()["machine_version_active"] == 2 for n in nodes.values())
            )
            assert await client.call_json("double", {"name": "visits"}) == due * 2
            due *= 2
            await work(30)
            await world.timers.sleep(1.2)
            for name, node in nodes.items():
                facts = node.status()
                assert facts["phase"] == "serving", name
                assert facts["incarnation"] == 1, name
    finally:
        for node in nodes.values():
            await node.stop()


async def _until(condition, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await make_world().timers.sleep(0.05)
