"""Three replicas over an in-memory network and real files: what callers of a RaftLog see."""

import pytest

from tests.support.raft_cluster import RaftCluster, read_all

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


async def test_an_entry_is_on_every_replica_at_the_same_index() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        index = await leader.append(b"hello", deadline=cluster.deadline())
        await cluster.caught_up(index)
        for log in cluster.logs.values():
            found = await read_all(log, index)
            assert found[index] == b"hello"
