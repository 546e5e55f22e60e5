"""Opening a replica reads its whole log and a snapshot: the event loop must not wait for that."""

import asyncio
import threading
from pathlib import Path

import pytest

from outlast.host import make_world
from outlast.kernel import ReplicaId
from outlast.log import Member, Membership, SnapshotRef
from outlast.log.engines.raft import NoSnapshots, RaftLog
from tests.support.raft_net import RaftNet

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

ME = ReplicaId("n1#1")


class SlowSnapshots(NoSnapshots):
    """Takes as long to look as the loop takes for one turn, and notes whether there was one."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.turned = threading.Event()
        self.turns: list[bool] = []

    def latest(self) -> SnapshotRef | None:
        self.loop.call_soon_threadsafe(self.turned.set)
        self.turns.append(self.turned.wait(20))
        return None


async def test_the_loop_goes_on_while_a_replica_is_opened(tmp_path: Path):
    kept = SlowSnapshots()
    log = await RaftLog.open(
        make_world(), str(tmp_path), me=ME, peers=RaftNet().end(ME), snapshots=kept,
        membership=Membership(0, (Member(ME, "127.0.0.1:1"),)),
    )  # fmt: skip
    await log.close()
    assert kept.turns[0]
