"""Replicas that are far behind are sent a snapshot, through crashes of either side."""

import asyncio

import pytest

from outlast.kernel import LogIndex, ReplicaId
from outlast.log.engines.raft import BULK_CHANNEL, RaftLog
from tests.support.raft_cluster import RaftCluster

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


async def fill(cluster: RaftCluster, log: RaftLog, count: int = 60, size: int = 20_000) -> int:
    """Append more than a segment of entries and return the last index."""
    last = 0
    for start in range(0, count, 20):
        indices = await asyncio.gather(
            *(
                log.append(number.to_bytes(4, "big") * (size // 4), deadline=cluster.deadline())
                for number in range(start, start + 20)
            )
        )
        last = max(last, *indices)
    return last


async def leave_behind(cluster: RaftCluster) -> tuple[ReplicaId, int]:
    """Crash a follower, then fill, snapshot and trim the others; return who is behind."""
    leader = await cluster.leader()
    await leader.append(b"first", deadline=cluster.deadline())
    behind = cluster.followers()[0].me
    await cluster.crash(behind)
    last = await fill(cluster, leader)
    await cluster.caught_up(last)
    # Equal snapshots on both: a new leader can go on where the old one was stopped.
    for name in cluster.logs:
        cluster.states[name].take()
        first = await cluster.logs[name].trim(LogIndex(last))
        assert first > 2, "a segment was dropped"
    return behind, last


async def test_a_replica_far_behind_is_sent_a_snapshot_and_goes_on_from_it() -> None:
    async with RaftCluster() as cluster:
        behind, last = await leave_behind(cluster)
        await cluster.start(behind)
        await cluster.caught_up(last)
        assert cluster.states[behind].installed == [last]
        index = await (await cluster.leader()).append(b"on", deadline=cluster.deadline())
        await cluster.caught_up(index)
        cluster.same_states()
        # It lasts: after a crash of all, everything is still there.
        for name in list(cluster.logs):
            await cluster.crash(name)
        await cluster.start_all()
        assert cluster.logs[behind].first == last + 1
        await cluster.caught_up(index)
        cluster.same_states()


async def test_a_receiver_killed_in_the_middle_resumes_at_its_chunk() -> None:
    async with RaftCluster() as cluster:
        behind, last = await leave_behind(cluster)
        kept = cluster.kept[behind]
        await cluster.start(behind)
        await cluster.until(lambda: len(kept.stored) >= 40, "forty chunks")
        await cluster.crash(behind)
        held = len(kept.stored)
        assert kept.partial is not None, "it was in the middle"
        await cluster.start(behind)
        await cluster.caught_up(last)
        assert held > 0
        assert kept.stored == list(range(len(kept.stored))), "no chunk was stored twice"


async def test_after_the_leader_dies_the_next_one_goes_on_at_the_same_chunk() -> None:
    async with RaftCluster() as cluster:
        behind, last = await leave_behind(cluster)
        kept = cluster.kept[behind]
        sender = await cluster.leader()
        await cluster.start(behind)
        await cluster.until(lambda: len(kept.stored) >= 40, "forty chunks")
        await cluster.crash(sender.me)
        held = len(kept.stored)
        await cluster.caught_up(last)
        assert kept.stored == list(range(len(kept.stored))), "no chunk was stored twice"
        assert len(kept.stored) > held
        index = await (await cluster.leader()).append(b"on", deadline=cluster.deadline())
        await cluster.start(sender.me)
        await cluster.caught_up(index)
        cluster.same_states()


async def test_lost_and_damaged_chunks_are_sent_again() -> None:
    async with RaftCluster() as cluster:
        behind, last = await leave_behind(cluster)
        dropped = 0

        def drop(sender: str, receiver: str, channel: str, kind: int, body: bytes) -> bool:
            nonlocal dropped
            lose = channel == BULK_CHANNEL and dropped < 3
            dropped += lose
            return lose

        cluster.net.drop = drop
        await cluster.start(behind)
        await cluster.until(lambda: dropped == 3, "three chunks to be lost")
        end = cluster.net.ends[behind]
        assert end.handler is not None
        leader = await cluster.leader()
        end.handler.received(leader.me, BULK_CHANNEL, 17, b"\x95garbage")
        await cluster.caught_up(last)
        cluster.same_states()


async def test_a_snapshot_that_is_gone_at_the_sender_is_replaced_by_a_newer_one() -> None:
    async with RaftCluster() as cluster:
        behind, _ = await leave_behind(cluster)
        leader = await cluster.leader()
        index = await leader.append(b"newer", deadline=cluster.deadline())
        await cluster.caught_up(index, [leader.me])
        stale = set(cluster.kept[leader.me].snapshots)
        await cluster.start(behind)
        await cluster.until(lambda: cluster.kept[behind].stored, "the first chunk")
        cluster.states[leader.me].take()
        for ref in stale:
            del cluster.kept[leader.me].snapshots[ref]
        await cluster.caught_up(index)
        assert cluster.states[behind].installed[-1] == index


async def test_heartbeats_do_not_wait_for_chunks() -> None:
    async with RaftCluster() as cluster:
        behind, last = await leave_behind(cluster)
        term = (await cluster.leader()).authority.term
        cluster.net.drop = lambda s, r, channel, k, b: channel == BULK_CHANNEL
        await cluster.start(behind)
        await cluster.until(lambda: cluster.logs[behind].authority.holder, "a leader known")
        index = await (await cluster.leader()).append(b"on", deadline=cluster.deadline())
        assert index > last
        cluster.net.drop = None
        await cluster.caught_up(index)
        assert (await cluster.leader()).authority.term == term


async def test_trim_keeps_what_no_snapshot_covers() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        last = await fill(cluster, leader)
        assert await leader.trim(LogIndex(last)) == 1
