"""A bit flips in the memory of one live replica: it is found, taken out, and rebuilt."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from outlast.cluster import Client, Node, NodeSettings
from outlast.cluster.layout import draw_cluster_id, make_plan
from outlast.host import make_world
from outlast.kernel import DivergedError
from outlast.state import ReplicaSettings
from outlast.state.ready.kv import Kv

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]


async def test_a_flipped_value_is_found_by_digest_and_the_replica_comes_back_whole(tmp_path: Path):
    world = make_world()
    plan = make_plan(
        world.storage, str(tmp_path), "kv", nodes=3, cluster=draw_cluster_id(world.prng),
        port=0, http_port=None,
    )  # fmt: skip
    settings = {
        name: NodeSettings(
            node=name, data=plan.directory(str(tmp_path), name), listen=address,
            peers=plan.addresses, cluster=plan.cluster, replica=ReplicaSettings(digest_every=4),
        )
        for name, address in plan.addresses.items()
    }  # fmt: skip
    nodes = {name: Node(world, Kv, one) for name, one in settings.items()}
    for node in nodes.values():
        await node.start()
    try:
        async with Client(Kv, list(plan.addresses.values()), world=world, timeout=60) as client:
            await client.call(Kv.put, "fragile", "whole")
            victim = next(n for n, node in nodes.items() if not node.status()["leading"])
            runner = nodes[victim]._replica._runner  # type: ignore[union-attr]
            await _until(lambda: "fragile" in runner.machine.items)
            dict.__setitem__(runner.machine.items, "fragile", "flipped")
            for n in range(12):
                await client.call(Kv.append, "fragile", str(n))
            error = await asyncio.wait_for(nodes[victim].failed(), 60)
            assert isinstance(error, DivergedError)
            await nodes[victim].stop()
            assert [n for n, node in nodes.items() if node.status()["phase"] == "failed"] == []
            nodes[victim] = Node(world, Kv, replace(settings[victim]))
            await nodes[victim].start()
            expected = await client.call(Kv.get, "fragile")
            fresh = nodes[victim]._replica._runner  # type: ignore[union-attr]
            await _until(lambda: fresh.machine.items.get("fragile") == expected)
            assert expected == "whole" + "".join(str(n) for n in range(12))
            assert int(nodes[victim].status()["incarnation"]) > 1
    finally:
        for node in nodes.values():
            await node.stop()


async def _until(condition, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await make_world().timers.sleep(0.02)
