"""Engine ``raft``: the Log, replicated to the members of one group by consensus.

What is promised is said in ``outlast.log.api``; the rules are in ``core``, the order of disk,
network and answers in ``driver``. This file is the surface that callers see.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from outlast.kernel import (
    Deadline,
    DeadlineError,
    LogIndex,
    ReplicaId,
    SealedError,
    TooLateError,
    World,
    invariant,
)
from outlast.log.api import (
    AuthorityChange,
    Batch,
    FailureModel,
    Hold,
    LogTraits,
    Member,
    Membership,
    Progress,
    SnapshotStore,
)
from outlast.log.core.entry import check_size
from outlast.log.core.hold import Holds
from outlast.log.engines.raft.core.node import RaftNode
from outlast.log.engines.raft.core.types import (
    EntryKind,
    ProposeMembers,
    ProposeTransfer,
    Role,
    Trim,
)
from outlast.log.engines.raft.driver import RaftDriver
from outlast.log.engines.raft.reader import batch_of
from outlast.log.engines.raft.settings import RaftLogSettings, nanoseconds
from outlast.log.engines.raft.snapshots import NoSnapshots
from outlast.log.engines.raft.storage import RaftStore
from outlast.log.engines.raft.transport import PeerTransport
from outlast.log.reader import LogReader, Waiters, within
from outlast.log.wal import WalIdentity

_BATCH_BYTES_MAX = 1 << 20
_FOREVER = Deadline.never().at_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftStats:
    """What one replica counts, for status and metrics.

    ``voted_for`` is the replica that got its vote in ``voted_term``, both as they are durable:
    the term never goes back, and in one term the vote is given once and not forgotten.
    """

    role: str
    commit_index: int
    last_index: int
    sync_count: int
    bytes_written: int
    oldest_write_ns: int
    voted_term: int
    voted_for: str


class RaftLog:
    """One replica of a Raft log: a ``Log``, ``Replicated`` and an ``Authority``.

    The leader takes appends, tail questions and changes of members; other replicas answer
    them with ``ElsewhereError``, whose hint is the node of the leader if one is known. Reads
    work on every replica. Driven from one event loop; not thread-safe, not fork-safe.

    A replica whose disk or core fails stops: :attr:`failed` is done, everything under way
    ends as ``LogFailedError`` (indefinite), everything later as ``UnavailableError``.
    """

    def __init__(
        self, world: World, me: ReplicaId, driver: RaftDriver, settings: RaftLogSettings
    ) -> None:
        self.me = me
        self._world = world
        self._driver = driver
        self._settings = settings
        self._entry_max = settings.raft.entry_bytes_max
        self._holds = Holds()
        self._trimming = asyncio.Lock()
        self._closing: asyncio.Future[None] | None = None
        self._traits = LogTraits(
            engine="raft",
            failure_model=FailureModel.FAIL_RECOVERY,
            durable=settings.wal.fsync,
            shared=False,
            entry_bytes_max=settings.raft.entry_bytes_max,
            lease_reads=settings.raft.lease_reads,
        )

    @classmethod
    async def open(
        cls,
        world: World,
        directory: str,
        *,
        me: ReplicaId,
        membership: Membership,
        peers: PeerTransport,
        snapshots: SnapshotStore | None = None,
        settings: RaftLogSettings | None = None,
        may_vote: bool = True,
    ) -> "RaftLog":
        """Open the replica in ``directory``, or begin one there, and join its group.

        Args:
            world: Everything that touches the machine.
            directory: The replica's own; made if missing.
            me: Which replica this is; a directory belongs to one for ever.
            membership: The members that the group begins with; used only the first time.
            peers: Reaches the other replicas.
            snapshots: Where ``state`` keeps snapshots. Without it nothing is ever trimmed, as
                a member that is far behind could not be helped.
            settings: Sizes, limits and times.
            may_vote: ``False`` for a replica whose directory was lost: until the group admits
                it, it neither votes nor acknowledges anything.

        Raises:
            CorruptionError: Something acknowledged is damaged; names file and offset.
            DataError: Definite. The directory is another cluster's or replica's, or newer.
        """
        settings = settings or RaftLogSettings()
        identity = WalIdentity(settings.cluster, settings.name, me)
        lane = f"raft-wal-{me}"
        store = await RaftStore.open(
            world, directory, identity, settings.wal, bootstrap=membership, lane=lane
        )
        kept = snapshots if snapshots is not None else NoSnapshots()
        try:
            # Reads the whole log, and the newest snapshot: beside the loop.
            recovered = await world.offload.run(
                lane, lambda: store.recovered(kept.latest(), may_vote=may_vote)
            )
            now_ns = world.clock.monotonic_ns()
            prng = world.prng.fork()
            node = RaftNode(me, settings.raft, recovered, store, prng, now_ns)
            driver = RaftDriver(
                world, me, node, store, transport=peers, snapshots=kept,
                stall_ns=nanoseconds(settings.raft.stall),
                queue_bytes_max=settings.raft.uncommitted_bytes_max,
            )  # fmt: skip
            driver.start()
        except BaseException:
            await store.wal.close()
            raise
        return cls(world, me, driver, settings)

    def __repr__(self) -> str:
        node = self._driver.node
        state = str(self._driver.stopped or Role(node.role).name.lower())
        return (
            f"<RaftLog {self.me} {state}, term {node.term}, committed {self._driver.commit}, "
            f"{self._driver.pending.size_bytes} B under way>"
        )

    # --- reading ---------------------------------------------------------------------------

    @property
    def traits(self) -> LogTraits:
        """What this engine is."""
        return self._traits

    @property
    def first(self) -> LogIndex:
        """First index that is still readable here; the next index if there is none."""
        return self._driver.store.first

    @property
    def through(self) -> LogIndex:
        """Last index that readers here may see: committed, and known to be so."""
        driver = self._driver
        if driver.sealed is None:
            return driver.commit
        return LogIndex(min(driver.commit, driver.sealed[0] - 1))

    @property
    def ended(self) -> bool:
        """Whether the log is sealed, and nothing follows :attr:`through`."""
        sealed = self._driver.sealed
        return sealed is not None and self._driver.commit >= sealed[0] - 1

    @property
    def stopped(self) -> Exception | None:
        """Why this replica takes and gives nothing more, or ``None``."""
        return self._driver.stopped

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        """Done, with the cause as its result, when disk or core failed; not after ``close``."""
        return self._driver.failed

    @property
    def progress_made(self) -> Waiters:
        """Woken when something was committed, sealed, trimmed, or the replica stopped."""
        return self._driver.progress

    def batch(self, start: LogIndex) -> Batch:
        """Return committed entries from ``start``, which is readable; never waits."""
        entries = self._driver.store.entries(start, self.through, _BATCH_BYTES_MAX)
        invariant(entries and entries[0].index == start, f"entry {start} is committed, not kept")
        return batch_of(entries)

    def term_at(self, index: LogIndex) -> int | None:
        """Return the term of the entry at ``index``, which a snapshot through it must name.

        ``None`` if the entry is not here (trimmed, or not yet written).
        """
        return self._driver.store.term_at(index)

    def read(self, start: LogIndex) -> AsyncIterator[Batch]:
        """Yield committed entries from ``start`` on; see :meth:`outlast.log.Log.read`."""
        return LogReader(_Readable(self), start)

    async def tail(self, *, deadline: Deadline) -> LogIndex:
        """Return the index after the last committed entry, by one round shared by callers.

        Raises:
            ElsewhereError: Definite. This replica does not lead.
            UnavailableError: Definite. This replica has stopped, or no majority answers.
            DeadlineError: Nothing was changed.
        """
        if deadline.at_ns >= _FOREVER:
            return await self._driver.ask_tail()
        if deadline.passed(self._world.clock.monotonic_ns()):
            raise DeadlineError("the deadline had passed before the tail was asked for")
        return await within(self._world, self._driver.ask_tail(), deadline)

    # --- appending -------------------------------------------------------------------------

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Append ``entry`` and return its index once a majority has it on disk.

        Errors and cancellation as in :meth:`outlast.log.Log.append`.
        """
        if type(entry) is not bytes or not 0 < len(entry) <= self._entry_max:
            check_size(entry, self._entry_max)
        at_ns = deadline.at_ns
        if at_ns < _FOREVER and at_ns <= self._world.clock.monotonic_ns():
            raise TooLateError("the deadline had passed before the append began")
        sealed = self._driver.sealed
        if sealed is not None:
            raise SealedError(f"the log is sealed at {sealed[0]}", next=sealed[1])
        return await self._driver.propose(EntryKind.NORMAL, entry, at_ns)

    async def seal(self, next: bytes, *, deadline: Deadline) -> tuple[LogIndex, bytes]:
        """End this log for good and return ``(tail, next)`` of the seal that won.

        Errors and cancellation as in :meth:`append`.
        """
        if len(next) > self._entry_max:
            check_size(next, self._entry_max)
        driver = self._driver
        while driver.sealed is None:
            if deadline.passed(self._world.clock.monotonic_ns()):
                raise TooLateError("the deadline had passed before the log was sealed")
            try:
                await driver.propose(EntryKind.SEAL, next, deadline.at_ns)
            except SealedError:
                if driver.sealed is None:
                    raise
        return driver.sealed

    # --- trimming --------------------------------------------------------------------------

    async def trim(self, before: LogIndex) -> LogIndex:
        """Permit dropping entries below ``before`` on this replica; return the new ``first``.

        Whole segments go, and only as far as the snapshot store has a snapshot: members that
        would have needed the entries are sent that.
        """
        self._holds.permit(before)
        driver = self._driver
        async with self._trimming:
            below = self._trimmable()
            if below > self.first:
                driver.step(Trim(below))
                # What the core notes about the entries must be durable before they go.
                await driver.disk.settled()
                if driver.stopped is None:
                    driver.store.trim(below)
                    driver.progress.wake()
        return self.first

    def _trimmable(self) -> LogIndex:
        """Below which index entries may go: permitted, committed, in a snapshot, not held."""
        driver = self._driver
        if driver.stopped is not None or self._holds.permitted <= self.first:
            return self.first
        newer = driver.transfers.look()
        if newer is not None:
            driver.step(newer)
        tail = LogIndex(min(self.through, driver.transfers.covered) + 1)
        below, released = self._holds.settle(tail=tail, sizes=driver.store.sizes)
        for one in released:
            self._world.events.emit(one.event())
        sending = driver.node.hold_index
        return below if sending is None else min(below, sending)

    def hold(self, hold: Hold) -> None:
        """Set or move a hold; see :meth:`outlast.log.Log.hold`. Not kept across reopening.

        Raises:
            TrimmedError: Definite. The index is already trimmed.
            ConfigError: Definite. It would move back.
        """
        self._holds.put(hold, first=self.first)

    def release(self, name: str) -> None:
        """Remove the hold ``name``; no error if there is none."""
        self._holds.release(name)

    # --- members ---------------------------------------------------------------------------

    @property
    def membership(self) -> Membership:
        """The members in force (the new ones during a joint change)."""
        return self._driver.node.membership

    async def change_members(
        self, members: Sequence[Member], *, expect_version: int, deadline: Deadline
    ) -> Membership:
        """Change to ``members`` by joint consensus; returns once that is committed and final.

        Raises:
            ConfigError: Definite. No voter, duplicate ids, or the version is not current.
            ElsewhereError: Definite. Ask the leader.
            DeadlineError: Indefinite. Look at :attr:`membership`.
        """
        self._check_time(deadline)
        wanted = tuple(members)
        asked = self._driver.ask(lambda ticket: ProposeMembers(ticket, wanted, expect_version))
        await self._until(asked, deadline)
        return self.membership

    async def transfer(self, target: ReplicaId, *, deadline: Deadline) -> None:
        """Hand leadership to ``target``; returns once it leads.

        Raises:
            ConfigError: Definite. ``target`` is no voter.
            ElsewhereError: Definite. This replica does not lead.
            DeadlineError: Indefinite. Look at :attr:`authority`.
        """
        self._check_time(deadline)
        asked = self._driver.ask(lambda ticket: ProposeTransfer(ticket, target))
        await self._until(asked, deadline)

    def progress(self) -> Sequence[Progress]:
        """How far each member is; empty on a replica that does not lead."""
        return self._driver.node.progress()

    # --- authority -------------------------------------------------------------------------

    @property
    def authority(self) -> AuthorityChange:
        """Who takes appends, as far as this replica knows."""
        node = self._driver.node
        mine = self._driver.leads
        return AuthorityChange(term=node.term, holder=node.leader, mine=mine)

    def authority_changes(self) -> AsyncIterator[AuthorityChange]:
        """Yield the current authority and then each change; slow readers see the latest only.

        Ends when the replica stops.
        """
        return _AuthorityChanges(self)

    # --- counts ----------------------------------------------------------------------------

    @property
    def commit_index(self) -> LogIndex:
        """Highest index known here to be committed."""
        return self._driver.commit

    def stats(self) -> RaftStats:
        """Return the counts of this replica now."""
        driver = self._driver
        wal = driver.store.wal
        hard = driver.node.hard_state
        return RaftStats(
            role=Role(driver.node.role).name.lower(),
            commit_index=driver.commit,
            last_index=wal.last[0],
            sync_count=wal.sync_count,
            bytes_written=wal.bytes_written,
            oldest_write_ns=wal.oldest_write_ns(self._world.clock.monotonic_ns()),
            voted_term=hard.term,
            voted_for=hard.vote or "",
        )

    # --- end -------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop: a leader first hands over. What was pending ends as ``LogFailedError``."""
        if self._closing is not None:
            await asyncio.shield(self._closing)
            return
        self._closing = asyncio.get_running_loop().create_future()
        try:
            await self._driver.hand_over(nanoseconds(self._settings.handover))
        finally:
            self._driver.stop()
            try:
                await self._driver.store.wal.close()
            finally:
                self._closing.set_result(None)

    def _check_time(self, deadline: Deadline) -> None:
        if deadline.passed(self._world.clock.monotonic_ns()):
            raise TooLateError("the deadline had passed before the request was made")

    async def _until(self, asked: "asyncio.Future[LogIndex]", deadline: Deadline) -> LogIndex:
        return await (asked if deadline.endless else within(self._world, asked, deadline))


class _Readable:
    """What a reader sees of the log (``progress`` is taken by ``Replicated`` there)."""

    __slots__ = ("_log", "batch", "progress")

    def __init__(self, log: RaftLog) -> None:
        self._log = log
        self.batch = log.batch
        self.progress = log.progress_made

    @property
    def first(self) -> LogIndex:
        return self._log.first

    @property
    def through(self) -> LogIndex:
        return self._log.through

    @property
    def ended(self) -> bool:
        return self._log.ended

    @property
    def stopped(self) -> Exception | None:
        return self._log.stopped


class _AuthorityChanges:
    """The iterator behind ``authority_changes``."""

    def __init__(self, log: RaftLog) -> None:
        self._log = log
        self._seen: AuthorityChange | None = None

    def __aiter__(self) -> "_AuthorityChanges":
        return self

    async def __anext__(self) -> AuthorityChange:
        log = self._log
        while log.authority == self._seen:
            if log.stopped is not None:
                raise StopAsyncIteration
            await log._driver.authority_moved.wait()
        self._seen = log.authority
        return self._seen
