"""Leaders that die, are cut off or come back, with callers on all replicas all the while."""

import asyncio
from collections import Counter

import pytest

from outlast.kernel import (
    ElsewhereError,
    IndefiniteError,
    LogFailedError,
    LogIndex,
    LostError,
    RejectedError,
    UnavailableError,
)
from outlast.log.engines.raft import RaftLog
from tests.support.raft_cluster import QUICK, RaftCluster, read_all, with_raft

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


async def append_anywhere(cluster: RaftCluster, entry: bytes) -> LogIndex:
    """Append on whoever leads, repeating only what was definitely refused."""
    while True:
        log = cluster.leader_now()
        if log is None:
            await asyncio.sleep(0.005)
            continue
        try:
            return await log.append(entry, deadline=cluster.deadline())
        except (RejectedError, ElsewhereError, LostError):
            await asyncio.sleep(0.005)


async def test_a_follower_names_the_node_that_leads() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        await leader.append(b"x", deadline=cluster.deadline())
        for log in cluster.followers():
            with pytest.raises(ElsewhereError) as refused:
                await log.append(b"y", deadline=cluster.deadline())
            assert refused.value.hint == leader.me.partition("#")[0]
            with pytest.raises(ElsewhereError):
                await log.tail(deadline=cluster.deadline())


async def test_what_a_killed_leader_acknowledged_is_on_the_next_one() -> None:
    async with RaftCluster() as cluster:
        kept = {}
        for number in range(3):
            leader = await cluster.leader()
            for part in range(5):
                entry = f"{number}.{part}".encode()
                kept[await leader.append(entry, deadline=cluster.deadline())] = entry
            await cluster.crash(leader.me)
            successor = await cluster.leader()
            assert successor.authority.term > leader.authority.term
            tail = await successor.tail(deadline=cluster.deadline())
            found = await read_all(successor, tail - 1)
            assert {index: found.get(index) for index in kept} == kept
            await cluster.start(leader.me)


async def test_an_isolated_leader_steps_down_and_its_entry_is_lost_for_good() -> None:
    async with RaftCluster() as cluster:
        old = await cluster.leader()
        await old.append(b"before", deadline=cluster.deadline())
        cluster.net.isolate(old.me)
        stranded = asyncio.ensure_future(old.append(b"stranded", deadline=cluster.deadline(60)))
        rest = [name for name in cluster.logs if name != old.me]
        leader = await cluster.leader(rest)
        await cluster.until(lambda: not old.authority.mine, "the isolated leader to step down")
        with pytest.raises(UnavailableError):
            await old.tail(deadline=cluster.deadline())
        assert not stranded.done()
        index = await leader.append(b"after", deadline=cluster.deadline())
        cluster.net.heal()
        with pytest.raises(LostError):
            await stranded
        await cluster.caught_up(index)
        assert b"stranded" not in cluster.same_states().values()


async def test_an_entry_that_left_one_log_but_commits_later_is_not_called_lost() -> None:
    """Truncation is no proof: only a commit at the same index decides (paper figure 8)."""
    async with RaftCluster(5) as cluster:
        old = await cluster.leader()
        await old.append(b"before", deadline=cluster.deadline())
        others = [name for name in cluster.logs if name != old.me]
        friend, rest = others[0], others[1:]
        # The entry reaches one other replica only, then the leader is cut off alone.
        for name in rest:
            cluster.net.cut(old.me, name)
            cluster.net.cut(friend, name)
        stranded = asyncio.ensure_future(old.append(b"maybe", deadline=cluster.deadline(60)))
        last = old._driver.node.last_index + 1
        await cluster.until(
            lambda: cluster.logs[friend]._driver.node.durable_index >= last,
            "the friend to have it",
        )
        await cluster.leader(rest)
        old._driver.pending.truncate(0)  # as if a passing leader had cut it from this log
        cluster.net.cut(old.me, friend)
        assert not stranded.done()
        cluster.net.heal()
        with pytest.raises((LostError, IndefiniteError)):
            await stranded


async def test_256_appends_across_a_change_of_leader_are_there_once_or_not_at_all() -> None:
    async with RaftCluster() as cluster:
        acknowledged: dict[int, bytes] = {}
        unknown: set[bytes] = set()
        stop = asyncio.Event()

        async def caller(number: int) -> None:
            count = 0
            while not stop.is_set():
                count += 1
                entry = f"{number}:{count}".encode()
                try:
                    index = await append_anywhere(cluster, entry)
                except IndefiniteError:
                    unknown.add(entry)
                else:
                    assert index not in acknowledged
                    acknowledged[index] = entry

        callers = [asyncio.ensure_future(caller(number)) for number in range(256)]
        for _ in range(2):
            before = len(acknowledged)
            await cluster.until(lambda: len(acknowledged) > before + 600, "progress")  # noqa: B023
            leader = await cluster.leader()
            await cluster.crash(leader.me)
            await cluster.leader()
            await cluster.start(leader.me)
        before = len(acknowledged)
        await cluster.until(lambda: len(acknowledged) > before + 600, "progress at last")
        stop.set()
        await asyncio.gather(*callers)
        await cluster.caught_up(max(acknowledged))
        found = cluster.same_states()
        assert {index: found.get(index) for index in acknowledged} == acknowledged
        counts = Counter(found.values())
        assert max(counts.values()) == 1
        assert set(found.values()) <= set(acknowledged.values()) | unknown


async def test_a_restart_of_all_continues_where_they_stopped() -> None:
    async with RaftCluster() as cluster:
        kept: dict[int, bytes] = {}
        for round_ in range(3):
            leader = await cluster.leader()
            entries = [f"{round_}.{number}".encode() for number in range(20)]
            indices = await asyncio.gather(
                *(leader.append(entry, deadline=cluster.deadline()) for entry in entries)
            )
            kept.update(zip(indices, entries, strict=True))
            term = leader.authority.term
            for name in list(cluster.logs):
                await cluster.crash(name)
            await cluster.start_all()
            assert (await cluster.leader()).authority.term > term
        await cluster.caught_up(max(kept))
        assert cluster.same_states() == kept


async def test_a_closing_leader_hands_over_first() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        await leader.append(b"x", deadline=cluster.deadline())
        term = leader.authority.term
        await cluster.close(leader.me)
        successor = cluster.leader_now()
        assert successor is not None, "closing waited for the successor"
        assert successor.authority.term == term + 1
        with pytest.raises(UnavailableError):
            await leader.append(b"y", deadline=cluster.deadline())


async def test_transfer_makes_the_target_lead() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        await leader.append(b"x", deadline=cluster.deadline())
        target = cluster.followers()[0]
        await leader.transfer(target.me, deadline=cluster.deadline())
        await cluster.until(lambda: target.authority.mine, "the target to lead")


async def test_authority_changes_end_with_the_replica_and_show_the_latest() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        watched = cluster.followers()[0]
        seen = []

        async def watch() -> None:
            async for change in watched.authority_changes():
                seen.append(change)

        watching = asyncio.ensure_future(watch())
        await cluster.until(lambda: seen and seen[-1].holder == leader.me, "the holder")
        await cluster.crash(leader.me)
        await cluster.until(lambda: seen[-1].holder not in (None, leader.me), "the next holder")
        assert seen[-1].term > leader.authority.term or seen[-1].mine
        await cluster.close(watched.me)
        await asyncio.wait_for(watching, 30)


async def test_a_failed_disk_stops_the_replica_and_the_group_goes_on() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        await leader.append(b"x", deadline=cluster.deadline())
        for log in cluster.followers():
            cluster.net.cut(leader.me, log.me)
        cluster.disks[leader.me].sync_fails = True
        pending = asyncio.ensure_future(leader.append(b"y", deadline=cluster.deadline()))
        with pytest.raises(LogFailedError):
            await pending
        cause = await asyncio.wait_for(leader.failed, 30)
        assert "EIO" in str(cause) or "fails every flush" in str(cause)
        with pytest.raises(UnavailableError):
            await leader.append(b"z", deadline=cluster.deadline())
        rest = [log.me for log in cluster.logs.values() if log is not leader]
        successor = await cluster.leader(rest)
        await successor.append(b"on", deadline=cluster.deadline())


async def test_a_leader_whose_disk_hangs_steps_down() -> None:
    async with RaftCluster(settings=with_raft(QUICK, stall=0.6)) as cluster:
        leader = await cluster.leader()
        await leader.append(b"x", deadline=cluster.deadline())
        cluster.disks[leader.me].stall()
        try:
            going = asyncio.ensure_future(leader.append(b"y", deadline=cluster.deadline(60)))
            rest = [log.me for log in cluster.followers()]
            successor = await cluster.leader(rest)
            index = await successor.append(b"z", deadline=cluster.deadline())
            await cluster.caught_up(index, rest)
        finally:
            cluster.disks[leader.me].resume()
        assert await going < index


async def test_deadlines_and_cancellation_leave_nothing_counted() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        for log in cluster.followers():
            cluster.net.cut(leader.me, log.me)
        late = [
            asyncio.ensure_future(leader.append(b"late", deadline=cluster.deadline(0.3)))
            for _ in range(3)
        ]
        gone = asyncio.ensure_future(leader.append(b"gone", deadline=cluster.deadline()))
        await asyncio.sleep(0)
        gone.cancel()
        for result in await asyncio.gather(*late, return_exceptions=True):
            assert isinstance(result, IndefiniteError)
        assert size_under_way(leader) > 0
        cluster.net.heal()
        await cluster.leader()
        for _ in range(5):  # past the places that they had in the old leader's log
            await append_anywhere(cluster, b"next")
        await cluster.until(lambda: size_under_way(leader) == 0, "the bytes to be given back")


def size_under_way(log: RaftLog) -> int:
    return log._driver.pending.size_bytes
