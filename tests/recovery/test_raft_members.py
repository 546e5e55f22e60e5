"""Changing who is a member while callers go on, and what a wiped replica may not do."""

import asyncio

import pytest

from outlast.kernel import (
    ConfigError,
    ElsewhereError,
    IndefiniteError,
    LogIndex,
    LostError,
    RejectedError,
    ReplicaId,
    UnavailableError,
)
from outlast.log.api import Membership
from outlast.log.engines.raft.core.events import ReplicaIgnored
from tests.support.raft_cluster import RaftCluster, member

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


async def change(cluster: RaftCluster, remove: ReplicaId, add: ReplicaId) -> None:
    """Replace one member by another, whoever leads."""
    while True:
        leader = await cluster.leader()
        now = leader.membership
        if not any(one.replica == remove for one in now.members):
            return
        # A change that was broken off may have left the new one in, as a learner.
        wanted = [one for one in now.members if one.replica not in (remove, add)]
        wanted.append(member(add))
        try:
            await leader.change_members(
                wanted, expect_version=now.version, deadline=cluster.deadline(8)
            )
        except (RejectedError, ElsewhereError, IndefiniteError, ConfigError):
            await asyncio.sleep(0.02)


async def test_all_three_members_are_replaced_one_by_one_under_load() -> None:
    async with RaftCluster() as cluster:
        await cluster.leader()
        kept: dict[int, bytes] = {}
        stop = asyncio.Event()

        async def caller(number: int) -> None:
            count = 0
            while not stop.is_set():
                log = cluster.leader_now()
                entry = f"{number}:{count}".encode()
                count += 1
                try:
                    if log is not None:
                        kept[await log.append(entry, deadline=cluster.deadline())] = entry
                except (RejectedError, ElsewhereError, LostError, IndefiniteError):
                    await asyncio.sleep(0.005)
                else:
                    await asyncio.sleep(0.001)

        callers = [asyncio.ensure_future(caller(number)) for number in range(16)]
        for number in (1, 2, 3):
            old, new = ReplicaId(f"n{number}#1"), ReplicaId(f"n{number}#2")
            await cluster.start(new, membership=Membership(0, ()))
            before = len(kept)
            await change(cluster, old, new)
            await cluster.crash(old)
            await cluster.until(lambda: len(kept) > before + 20, "appends go on")  # noqa: B023
        stop.set()
        await asyncio.gather(*callers)
        names = {"n1#2", "n2#2", "n3#2"}
        leader = await cluster.leader()
        assert {one.replica for one in leader.membership.members} == names
        await cluster.caught_up(max(kept))
        found = cluster.same_states()
        assert {index: found.get(index) for index in kept} == kept
        # The members are known again after a crash of all, whatever they were begun with,
        # and although the entries that changed them were trimmed.
        last = max(
            await asyncio.gather(
                *(leader.append(bytes(60_000), deadline=cluster.deadline()) for _ in range(24))
            )
        )
        await cluster.caught_up(last)
        for name in list(cluster.logs):
            cluster.states[name].take()
            assert await cluster.logs[name].trim(LogIndex(last)) > max(kept)
        for name in list(cluster.logs):
            await cluster.crash(name)
        for name in sorted(names):
            await cluster.start(ReplicaId(name), membership=Membership(0, ()))
        again = await cluster.leader()
        assert {one.replica for one in again.membership.members} == names
        assert not again.membership.joint


async def test_the_version_must_be_the_current_one() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        await leader.append(b"x", deadline=cluster.deadline())
        with pytest.raises(ConfigError):
            await leader.change_members(
                leader.membership.members, expect_version=77, deadline=cluster.deadline()
            )


async def test_a_wiped_replica_neither_votes_nor_acknowledges() -> None:
    """One of three is down, another comes back empty: two logs are no majority of three."""
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        index = await leader.append(b"kept", deadline=cluster.deadline())
        await cluster.caught_up(index)
        wiped, down = (log.me for log in cluster.followers())
        await cluster.crash(wiped)
        await cluster.crash(down)
        term = leader.authority.term
        cluster.wipe(wiped)
        await cluster.start(wiped, may_vote=False)
        await cluster.until(lambda: not leader.authority.mine, "the leader without a quorum")
        with pytest.raises(UnavailableError, match="no leader") as refused:
            await leader.append(b"no", deadline=cluster.deadline())
        assert refused.value.retry_after
        with pytest.raises((UnavailableError, ElsewhereError)):
            await cluster.logs[wiped].append(b"no", deadline=cluster.deadline())
        named = [one.replica for one in cluster.events if isinstance(one, ReplicaIgnored)]
        assert named == [wiped], "the leader said which replica lost its data"
        await asyncio.sleep(2 * cluster.settings.raft.election_timeout)
        assert cluster.leader_now() is None
        assert leader.authority.term == term, "no term was begun without a quorum"
        assert cluster.logs[wiped].through == 0
        # With the lost majority back, it goes on, and nothing is missing.
        await cluster.start(down)
        now = await cluster.leader()
        assert now.me != wiped
        again = await now.append(b"on", deadline=cluster.deadline())
        await cluster.caught_up(again, [leader.me, down])
        assert b"kept" in cluster.states[down].entries.values()


async def test_a_wiped_replica_joins_under_its_next_incarnation() -> None:
    async with RaftCluster() as cluster:
        leader = await cluster.leader()
        index = await leader.append(b"kept", deadline=cluster.deadline())
        await cluster.caught_up(index)
        wiped = cluster.followers()[0].me
        await cluster.crash(wiped)
        cluster.wipe(wiped)
        new = ReplicaId(wiped.replace("#1", "#2"))
        await cluster.start(new, may_vote=False, membership=Membership(0, ()))
        await change(cluster, wiped, new)
        index = await (await cluster.leader()).append(b"on", deadline=cluster.deadline())
        await cluster.caught_up(index)
        other = next(log.me for log in cluster.followers() if log.me != new)
        await cluster.crash(other)
        # Its vote counts now: two of three are a majority.
        index = await (await cluster.leader()).append(b"two", deadline=cluster.deadline())
        await cluster.caught_up(index)
