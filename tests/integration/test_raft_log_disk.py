"""What a replica says, and when: nothing that is not on its disk yet."""

import asyncio

import pytest

from outlast.kernel import DiskFullError, ReplicaId
from outlast.log.engines.raft import BULK_CHANNEL, RAFT_CHANNEL, FrameKind
from outlast.log.engines.raft.core.types import (
    AppendRequest,
    AppendResponse,
    Entry,
    VoteRequest,
    VoteResponse,
)
from outlast.log.engines.raft.driver import FrameRefused
from outlast.log.engines.raft.transport import decode_message, encode_message
from tests.support.raft_cluster import RaftCluster

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

OTHER = ReplicaId("n2#1")


class Puppet:
    """A member whose messages the test writes; what it is sent is kept."""

    def __init__(self, cluster: RaftCluster, name: ReplicaId = OTHER) -> None:
        self.got: list[object] = []
        self.me = name
        self.end = cluster.net.end(name)
        self.end.set_handler(self)

    def say(self, to: ReplicaId, message: object) -> None:
        self.end.send(to, RAFT_CHANNEL, FrameKind.MESSAGE, encode_message(message))

    def received(self, sender: ReplicaId, channel: str, kind: int, body: bytes) -> None:
        self.got.append(decode_message(body))

    def connected(self, replica: ReplicaId, channel: str) -> None: ...

    def lost(self, replica: ReplicaId, channel: str) -> None: ...

    def of(self, kind: type) -> list[object]:
        return [one for one in self.got if isinstance(one, kind)]


async def turns(count: int = 40) -> None:
    for _ in range(count):
        await asyncio.sleep(0.001)


async def test_a_vote_is_said_once_it_is_on_disk() -> None:
    cluster = RaftCluster()
    try:
        me = cluster.names[0]
        puppet = Puppet(cluster)
        await cluster.start(me)
        cluster.disks[me].stall()
        puppet.say(me, VoteRequest(7, 0, 0, False, False))
        await turns()
        assert not puppet.of(VoteResponse), "a vote that a crash would forget was said"
        cluster.disks[me].resume()
        await cluster.until(lambda: puppet.of(VoteResponse), "the vote")
        assert puppet.of(VoteResponse) == [VoteResponse(7, 7, False, True)]
        await cluster.crash(me)
        await cluster.start(me)
        puppet.got.clear()
        rival = Puppet(cluster, ReplicaId("n3#1"))
        rival.say(me, VoteRequest(7, 0, 0, False, False))
        await cluster.until(lambda: rival.of(VoteResponse), "an answer")
        assert rival.of(VoteResponse) == [VoteResponse(7, 7, False, False)], "it voted twice"
    finally:
        await cluster.destroy()


def entries(first: int, count: int, size: int = 10) -> list[Entry]:
    return [Entry(first + number, 3, 0, bytes(size)) for number in range(count)]


async def test_entries_are_acknowledged_once_they_are_on_disk() -> None:
    cluster = RaftCluster()
    try:
        me = cluster.names[0]
        puppet = Puppet(cluster)
        log = await cluster.start(me)
        puppet.say(me, AppendRequest(3, 0, 0, [], 0, 0))
        await cluster.until(lambda: puppet.of(AppendResponse), "an answer to the heartbeat")
        cluster.disks[me].stall()
        puppet.say(me, AppendRequest(3, 0, 0, entries(1, 5), 0, 0))
        await turns()
        assert max(one.match for one in puppet.of(AppendResponse)) == 0
        cluster.disks[me].resume()
        await cluster.until(
            lambda: max(one.match for one in puppet.of(AppendResponse)) == 5, "the match"
        )
        assert log.through == 0, "nothing was said to be committed"
        puppet.say(me, AppendRequest(3, 5, 3, [], 4, 0))
        await cluster.until(lambda: log.through == 4, "the commit that the leader told")
    finally:
        await cluster.destroy()


async def test_a_follower_with_a_full_disk_acknowledges_nothing_and_recovers() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        full = cluster.followers()[0]
        cluster.disks[full.me].full = True
        last = 0
        for _ in range(100):  # whatever room it had prepared is used up by then
            last = await leader.append(bytes(60_000), deadline=cluster.deadline())
            if full._driver.disk.refusal is not None:
                break
        await cluster.until(lambda: full._driver.disk.refusal is not None, "a refused write")
        seen = {one.replica: one.match for one in (await cluster.leader()).progress()}
        assert seen[full.me] < last
        assert full.stopped is None
        cluster.disks[full.me].full = False
        await cluster.caught_up(last)
        leader = await cluster.leader()
        await cluster.until(
            lambda: {one.match for one in leader.progress()} == {leader._driver.node.last_index},
            "all replicas to match",
        )


async def test_a_full_disk_of_the_leader_refuses_definitely_and_recovers() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        for disk in cluster.disks.values():
            disk.full = True
        kept: list[int] = []

        async def fill() -> None:
            while True:
                kept.append(await leader.append(bytes(40_000), deadline=cluster.deadline()))

        with pytest.raises(DiskFullError) as refused:
            await fill()
        assert refused.value.retry_after
        for disk in cluster.disks.values():
            disk.full = False

        async def again() -> int:
            while True:
                try:
                    now = await cluster.leader()
                    return await now.append(b"space", deadline=cluster.deadline())
                except DiskFullError:
                    await asyncio.sleep(0.01)

        index = await again()
        await cluster.caught_up(index)
        found = cluster.same_states()
        assert sorted(found) == [*kept, index]


async def test_garbage_from_a_peer_is_refused_by_name_and_harms_nothing() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        handler = cluster.net.ends[leader.me].handler
        assert handler is not None
        other = cluster.followers()[0].me
        handler.received(other, RAFT_CHANNEL, FrameKind.MESSAGE, b"\xc1garbage")
        handler.received(other, RAFT_CHANNEL, 99, b"")
        handler.received(other, BULK_CHANNEL, FrameKind.CHUNK, b"\xc1")
        refused = [one for one in cluster.events if isinstance(one, FrameRefused)]
        assert [one.sender for one in refused] == [other, other]
        await leader.append(b"on", deadline=cluster.deadline())


async def test_a_write_larger_than_the_wal_takes_goes_in_pieces() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        indices = await asyncio.gather(
            *(leader.append(bytes(90_000), deadline=cluster.deadline()) for _ in range(20))
        )
        await cluster.caught_up(max(indices))
        for name in list(cluster.logs):
            await cluster.crash(name)
        await cluster.start_all()
        await cluster.caught_up(max(indices))
        assert len(cluster.same_states()) == 20
