"""Three replicas of the Raft engine keep every promise of the log."""

import asyncio

import pytest

from outlast.host import make_world
from outlast.log.api import Log
from outlast.log.engines.raft import RaftLog
from outlast.testing.log_suite import (
    BY_NAME,
    CHECKS,
    Capability,
    Check,
    CheckFailed,
    LogFixture,
    run_check,
)
from tests.support.raft_cluster import RaftCluster

pytestmark = pytest.mark.timeout(180)
CASES = [pytest.param(check, id=check.name) for check in CHECKS]


class RaftFixture(LogFixture):
    """Three replicas in one process; faults hit all of them at once."""

    capabilities = frozenset(Capability)
    trim_bytes = 600 * 1024
    patience = 30.0

    def __init__(self, *, sync_is_noop: bool = False) -> None:
        self.cluster = RaftCluster(always=True, sync_is_noop=sync_is_noop)
        super().__init__(make_world(events=self.cluster.bus))

    async def _started(self) -> RaftLog:
        for name in self.cluster.names:
            await self.cluster.start(name, follow=False)
        self.cluster.look_for_a_leader()
        return await self.cluster.leader()

    async def make(self) -> Log:
        return await self._started()

    def replicas(self, log: Log) -> list[Log]:
        return list(self.cluster.logs.values())

    async def reopen(self, log: Log) -> Log:
        """The same replica leads again: each replica trims for itself."""
        assert isinstance(log, RaftLog)
        await asyncio.gather(*(self.cluster.close(name) for name in list(self.cluster.logs)))
        leader = await self._started()
        if leader.me != log.me:
            await leader.transfer(log.me, deadline=self.deadline())
        return await self.cluster.leader()

    async def crash(self, log: Log) -> Log:
        await asyncio.gather(*(self.cluster.crash(name) for name in list(self.cluster.logs)))
        return await self._started()

    async def stall(self) -> None:
        for disk in self.cluster.disks.values():
            disk.stall()

    async def resume(self) -> None:
        for disk in self.cluster.disks.values():
            disk.resume()

    async def fill(self) -> None:
        for disk in self.cluster.disks.values():
            disk.full = True

    async def free(self) -> None:
        for disk in self.cluster.disks.values():
            disk.full = False

    async def fail_sync(self) -> None:
        for disk in self.cluster.disks.values():
            disk.sync_fails = True

    async def close(self) -> None:
        await self.cluster.destroy()


@pytest.mark.anyio
@pytest.mark.parametrize("check", CASES)
async def test_raft_keeps_its_promises(check: Check) -> None:
    await run_check(check, RaftFixture(), timeout=150)


@pytest.mark.anyio
async def test_a_group_that_forgets_to_fsync_is_caught() -> None:
    check = BY_NAME["acknowledged_survives_a_crash"]
    fixture = RaftFixture(sync_is_noop=True)
    fixture.patience = 2.0
    with pytest.raises(CheckFailed):
        await run_check(check, fixture)
