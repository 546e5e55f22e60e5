"""A Raft group in one process: in-memory network, real WAL files, faulty disks, power cuts."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from outlast.host import HostStorage, make_world
from outlast.host.lossy import LossyStorage
from outlast.kernel import Deadline, EventBus, LogIndex, Prng, ReplicaId, World
from outlast.log.api import Member, Membership
from outlast.log.engines.raft import RaftLog, RaftLogSettings, RaftSettings
from outlast.log.engines.raft.core.types import Wake
from outlast.log.wal import WalSettings
from outlast.testing.disk import FaultyDisk
from tests.support.raft_net import RaftNet, members_of
from tests.support.raft_state import Kept, KeptState

QUICK = RaftLogSettings(
    cluster="test",
    handover=0.5,
    raft=RaftSettings(
        # No wait for the processor or the disk of a busy machine shall unseat a leader: tests
        # that want another one break something that is noticed at once, or ask for it.
        election_timeout=1.5,
        accrual=False,
        heartbeat=0.04,
        stall=10.0,
        late_wake=0.1,
        entry_bytes_max=96 * 1024,
        uncommitted_bytes_max=2 << 20,
    ),
    wal=WalSettings(
        segment_bytes=512 * 1024,
        first_segment_bytes=512 * 1024,
        hard_state_reserve_bytes=16 * 1024,
        frame_bytes_max=128 * 1024,
        cache_bytes_max=64 * 1024,
        full_retry=0.02,
        disk_reserve_bytes=0,
    ),
)
"""Small segments, so that short tests cross their borders."""


class RaftCluster:
    """Replicas ``n1#1``, ``n2#1``, … that can be started, crashed and closed one by one."""

    def __init__(
        self,
        count: int = 3,
        *,
        settings: RaftLogSettings = QUICK,
        always: bool = False,
        seed: int = 1,
        sync_is_noop: bool = False,
    ) -> None:
        self.prng = Prng(seed)
        self.sync_is_noop = sync_is_noop
        self.lossies: dict[ReplicaId, LossyStorage] = {}
        self.settings = settings
        self.always = always
        self.names = [ReplicaId(f"n{number}#1") for number in range(1, count + 1)]
        self.directory = tempfile.mkdtemp(prefix="outlast-raft-")
        self.net = RaftNet()
        self.bus = EventBus()
        self.events: list[Any] = []
        self.bus.subscribe(self.events.append)
        self.disks: dict[ReplicaId, FaultyDisk] = {}
        self.worlds: dict[ReplicaId, World] = {}
        self.kept: dict[ReplicaId, Kept] = {}
        self.states: dict[ReplicaId, KeptState] = {}
        self.logs: dict[ReplicaId, RaftLog] = {}
        self.first_members = Membership(1, members_of(self.names))

    async def __aenter__(self) -> "RaftCluster":
        await self.start_all()
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.destroy()

    async def start_all(self) -> None:
        for name in self.names:
            await self.start(name)
        self.look_for_a_leader()

    def look_for_a_leader(self) -> None:
        """Let the first replica stand now, unless one leads: nobody waits for a timeout."""
        first = next(iter(self.logs.values()))
        if self.leader_now() is None:
            first._driver.node.state.election.election_at = 0
            first._driver.step(Wake())

    def path(self, name: ReplicaId) -> str:
        return f"{self.directory}/{name}"

    async def start(
        self,
        name: ReplicaId,
        *,
        may_vote: bool = True,
        membership: Membership | None = None,
        follow: bool = True,
    ) -> RaftLog:
        if name not in self.disks:
            if name not in self.lossies:
                self.lossies[name] = LossyStorage(
                    HostStorage(), self.prng.fork(), sync_is_noop=self.sync_is_noop
                )
            disk = self.disks[name] = FaultyDisk(self.lossies[name])
            self.worlds[name] = make_world(storage=disk, events=self.bus)
            self.kept.setdefault(name, Kept())
        state = self.states[name] = KeptState(self.kept[name], always=self.always)
        log = await RaftLog.open(
            self.worlds[name],
            self.path(name),
            me=name,
            membership=membership or self.first_members,
            peers=self.net.end(name),
            snapshots=state,
            settings=self.settings,
            may_vote=may_vote,
        )
        self.logs[name] = log
        if follow:
            state.start(log)
        else:
            state.log = log
        return log

    async def crash(self, name: ReplicaId) -> None:
        """Cut the power of one replica: no word to the others, unsynced writes torn or gone."""
        log = self.logs.pop(name)
        end = self.net.ends.pop(name)
        end.kill()
        await self.states[name].stop()
        disk = self.disks.pop(name)
        self.worlds.pop(name)
        disk.cut()
        log._driver.stop()
        with contextlib.suppress(Exception):
            await log._driver.store.wal.close()
        self.lossies[name].power_cut(self.prng)

    async def close(self, name: ReplicaId) -> None:
        await self.states[name].stop()
        await self.logs.pop(name).close()
        self.net.ends.pop(name).kill()

    def wipe(self, name: ReplicaId) -> None:
        shutil.rmtree(self.path(name), ignore_errors=True)
        self.kept[name] = Kept()

    async def destroy(self) -> None:
        for name in list(self.logs):
            with contextlib.suppress(Exception):
                await self.crash(name)
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- waiting -----------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
        """Wait until ``condition`` gives something true; looks every turn of a few ms."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            found = condition()
            if found:
                return found
            assert loop.time() < end, f"{what}: not within {seconds} s; {self.describe()}"
            await asyncio.sleep(0.002)

    def describe(self) -> str:
        return "; ".join(repr(log) for log in self.logs.values())

    def leader_now(self, among: Iterable[ReplicaId] | None = None) -> RaftLog | None:
        names = self.logs if among is None else among
        leading = [self.logs[name] for name in names if self.logs[name].authority.mine]
        return max(leading, key=lambda log: log.authority.term, default=None)

    async def leader(self, among: Sequence[ReplicaId] | None = None) -> RaftLog:
        """Wait for a leader that can commit."""
        found: RaftLog = await self.until(lambda: self.leader_now(among), "a leader")
        return found

    def followers(self) -> list[RaftLog]:
        return [log for log in self.logs.values() if not log.authority.mine]

    def deadline(self, seconds: float = 30.0) -> Deadline:
        return Deadline.after(seconds, make_world().clock.monotonic_ns())

    async def caught_up(self, index: int, names: Iterable[ReplicaId] | None = None) -> None:
        """Wait until the states of all (or these) replicas have applied through ``index``."""
        wanted = list(names if names is not None else self.logs)
        await self.until(
            lambda: all(self.states[name].applied >= index for name in wanted),
            f"replicas applied through {index}",
        )

    def same_states(self, names: Iterable[ReplicaId] | None = None) -> dict[int, bytes]:
        wanted = list(names if names is not None else self.logs)
        first = self.states[wanted[0]]
        through = min(self.states[name].applied for name in wanted)
        cut = {i: e for i, e in first.entries.items() if i <= through}
        for name in wanted[1:]:
            other = {i: e for i, e in self.states[name].entries.items() if i <= through}
            assert other == cut, f"{name} and {wanted[0]} differ below {through}"
        return cut


async def read_all(log: RaftLog, through: int) -> dict[int, bytes]:
    """Read everything from ``first`` to ``through``."""
    found: dict[int, bytes] = {}
    position: int = log.first
    reader = log.read(log.first)
    while position <= through:
        try:
            batch = await asyncio.wait_for(anext(reader), 30)
        except StopAsyncIteration:
            break
        found.update(enumerate(batch.entries, batch.first))
        position = batch.through + 1
    return found


def with_raft(settings: RaftLogSettings, **changes: Any) -> RaftLogSettings:
    """The same settings with other numbers for the protocol."""
    return replace(settings, raft=replace(settings.raft, **changes))


def member(name: str, *, voter: bool = True) -> Member:
    return Member(ReplicaId(name), f"{name}:0", voter)


__all__ = ["QUICK", "LogIndex", "RaftCluster", "member", "read_all", "with_raft"]
