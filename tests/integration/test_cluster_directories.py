"""What a data directory has promised is kept, whatever part of it is lost or used twice."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from outlast.cluster import Client, Node, NodeSettings
from outlast.cluster.layout import draw_cluster_id, make_plan
from outlast.host import make_world
from outlast.state.ready.kv import Kv

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(60)]


class Trio:
    """Three nodes in this process, on loopback and real disks."""

    def __init__(self, folder: Path) -> None:
        self.world = world = make_world()
        self.plan = plan = make_plan(
            world.storage, str(folder), "kv", nodes=3, cluster=draw_cluster_id(world.prng),
            port=0, http_port=None,
        )  # fmt: skip
        self.settings = {
            name: NodeSettings(
                node=name, data=plan.directory(str(folder), name), listen=address,
                peers=plan.addresses, cluster=plan.cluster,
            )
            for name, address in plan.addresses.items()
        }  # fmt: skip
        self.nodes = {name: Node(world, Kv, one) for name, one in self.settings.items()}

    def client(self) -> Client[Kv]:
        return Client(Kv, list(self.plan.addresses.values()), world=self.world)

    def follower(self) -> str:
        return next(n for n, node in self.nodes.items() if not node.status()["leading"])

    async def start_again(self, name: str) -> Node:
        self.nodes[name] = node = Node(self.world, Kv, replace(self.settings[name]))
        await node.start()
        return node


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Trio]:
    trio = Trio(folder)
    try:
        for node in trio.nodes.values():
            await node.start()
        async with trio.client() as client:
            await client.call(Kv.put, "known", "before")
        yield trio
    finally:
        for node in trio.nodes.values():
            await node.stop()


@pytest.mark.parametrize("part", ["log", "log/wal", "log/mark"])
async def test_a_node_that_lost_its_votes_or_members_comes_back_as_another_replica(
    tmp_path: Path, part: str
):
    async with running(tmp_path) as trio:
        name = trio.follower()
        assert trio.nodes[name].status()["incarnation"] == 1
        await trio.nodes[name].stop()
        lost = Path(trio.settings[name].data, part)
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
        node = await trio.start_again(name)
        assert int(node.status()["incarnation"]) > 1
