"""What a data directory has promised is kept, whatever part of it is lost or used twice."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from outlast.cluster import Client, Node, NodeSettings
from outlast.cluster.events import WaitingForAdmission
from outlast.cluster.identity import NodeIdentity, load_identity, save_identity
from outlast.cluster.layout import draw_cluster_id, make_plan
from outlast.host import make_world
from outlast.kernel import DataError, DivergedError
from outlast.log.engines.raft import holds_replica
from outlast.state.ready.kv import Kv

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]


async def sockets_closed() -> None:
    """Let the loop close what the nodes closed or refused last."""
    loop = cast(Any, asyncio.get_running_loop())
    while len(loop._selector.get_map()) > 1:  # noqa: ASYNC110 - its own pipe is left
        await asyncio.sleep(0)


def lose(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


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
        return Client(Kv, list(self.plan.addresses.values()), world=self.world, timeout=60)

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
        await asyncio.wait_for(sockets_closed(), 60)


@pytest.mark.parametrize("part", ["log", "log/wal", "log/mark"])
async def test_a_node_that_lost_its_votes_or_members_comes_back_as_another_replica(
    tmp_path: Path, part: str
):
    async with running(tmp_path) as trio:
        name = trio.follower()
        assert trio.nodes[name].status()["incarnation"] == 1
        await trio.nodes[name].stop()
        lose(Path(trio.settings[name].data, part))
        node = await trio.start_again(name)
        assert int(node.status()["incarnation"]) > 1


async def test_what_admission_has_to_say_is_heard_before_anything_is_opened(tmp_path: Path):
    """Under the hash seed of another cluster no entry may be applied."""
    async with running(tmp_path) as trio:
        name = trio.follower()
        data = Path(trio.settings[name].data)
        await trio.nodes[name].stop()
        lose(data)

        def refuse(identity: NodeIdentity) -> None:
            assert identity == load_identity(trio.world.storage, str(data))
            raise LookupError(identity.hash_seed)

        trio.nodes[name] = Node(trio.world, Kv, trio.settings[name], admitted=refuse)
        with pytest.raises(LookupError):
            await trio.nodes[name].start()
        assert not trio.world.storage.exists(f"{data}/log")


async def test_a_directory_that_is_in_use_is_refused_before_anything_is_touched(tmp_path: Path):
    """Two that ask for admission at once would overwrite each other's identity."""
    async with running(tmp_path) as trio:
        name = trio.follower()
        twin = Node(trio.world, Kv, replace(trio.settings[name]))
        with pytest.raises(DataError, match=f"{name}: already open elsewhere"):
            await twin.start()
        await twin.stop()
        await trio.nodes[name].stop()
        assert (await trio.start_again(name)).status()["incarnation"] == 1


async def test_a_condemned_replica_stops_though_its_disk_takes_nothing(
    tmp_path: Path, monkeypatch
):
    async with running(tmp_path) as trio:
        name = trio.follower()
        node = trio.nodes[name]

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("outlast.cluster.node.save_identity", full)
        node._condemn(DivergedError("it computed something else"))
        assert isinstance(await node.failed(), DivergedError)
        assert node.status()["phase"] == "failed"


async def test_nothing_is_deleted_before_the_cluster_has_admitted_the_node(tmp_path: Path):
    """A condemned replica may hold the last copy of an entry while the others are down."""
    async with running(tmp_path) as trio:
        name = trio.follower()
        await trio.nodes[name].stop()
        identity = load_identity(trio.world.storage, trio.settings[name].data)
        assert identity is not None
        condemned = replace(identity, condemned="it computed something else")
        save_identity(trio.world.storage, trio.settings[name].data, condemned)
        for other in trio.nodes:
            if other != name:
                await trio.nodes[other].stop()
        trio.nodes[name] = node = Node(trio.world, Kv, replace(trio.settings[name]))
        refused = asyncio.Event()
        trio.world.events.subscribe(
            lambda event: refused.set() if isinstance(event, WaitingForAdmission) else None
        )
        starting = asyncio.ensure_future(node.start())
        await asyncio.wait_for(refused.wait(), 60)
        assert holds_replica(trio.world.storage, f"{trio.settings[name].data}/log")
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
