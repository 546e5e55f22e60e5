"""Power cuts of the whole group under load, and in the middle of a trim."""

import asyncio
from collections import Counter

import pytest

from outlast.kernel import (
    CorruptionError,
    ElsewhereError,
    IndefiniteError,
    LogIndex,
    LostError,
    RejectedError,
)
from tests.support.raft_cluster import RaftCluster

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


async def load(cluster: RaftCluster, kept: dict[int, bytes], rounds: int) -> set[bytes]:
    """Append from 32 callers and cut all power ``rounds`` times; return what is unknown."""
    unknown: set[bytes] = set()
    stop = asyncio.Event()

    async def caller(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            entry = f"{number}:{count}".encode() * 20
            log = cluster.leader_now()
            try:
                if log is not None:
                    index = await log.append(entry, deadline=cluster.deadline())
                    assert index not in kept, "one place was given twice"
                    kept[index] = entry
                    continue
            except IndefiniteError:
                unknown.add(entry)
            except (RejectedError, ElsewhereError, LostError):
                pass
            await asyncio.sleep(0.005)

    callers = [asyncio.ensure_future(caller(number)) for number in range(32)]
    try:
        for _ in range(rounds):
            wanted = len(kept) + 100 + cluster.prng.below(400)
            await cluster.until(lambda: len(kept) >= wanted, "appends")  # noqa: B023
            await asyncio.gather(*(cluster.crash(name) for name in list(cluster.logs)))
            await cluster.start_all()
            await cluster.leader()
    finally:
        stop.set()
        await asyncio.gather(*callers)
    return unknown


async def run(cluster: RaftCluster, rounds: int) -> None:
    kept: dict[int, bytes] = {}
    async with cluster:
        unknown = await load(cluster, kept, rounds)
        await cluster.caught_up(max(kept))
        found = cluster.same_states()
    assert {index: found.get(index) for index in kept} == kept
    assert max(Counter(found.values()).values()) == 1
    assert set(found.values()) <= set(kept.values()) | unknown


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_acknowledged_is_lost_or_there_twice(seed: int) -> None:
    await run(RaftCluster(seed=seed), 4)


async def test_without_fsync_the_same_test_fails() -> None:
    with pytest.raises((AssertionError, CorruptionError)):
        await run(RaftCluster(sync_is_noop=True), 2)


async def test_entries_go_only_once_what_they_told_is_durable_elsewhere() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        last = max(
            await asyncio.gather(
                *(leader.append(bytes(60_000), deadline=cluster.deadline()) for _ in range(24))
            )
        )
        await cluster.caught_up(last)
        follower = cluster.followers()[0]
        cluster.states[follower.me].take()
        cluster.disks[follower.me].stall()
        trimming = asyncio.ensure_future(follower.trim(LogIndex(last)))
        await cluster.until(lambda: cluster.disks[follower.me].waiting, "the mark to be written")
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert follower.first == 1
        cluster.disks[follower.me].resume()
        assert await trimming > 1
