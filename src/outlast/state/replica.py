"""One replica: a user's machine and the system machine on a log.

Commands come in as bytes, gather into entries, are appended, and are answered when the entry
is applied *here*: a reply always tells what every replica computes for it. Reads ask the log
for its tail first and wait until this replica has got there. Checkpoints are cut at agreed
indices and written beside the work; the log goes below the older of two verified ones.

The parts: :mod:`.batcher` (in), :mod:`.applier` (the loop), :mod:`.snapshotter` (checkpoints),
:mod:`.core.system` (every rule). This file joins them and holds the role ``system``.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from outlast.kernel import (
    ConfigError,
    Deadline,
    DivergedError,
    IndefiniteError,
    LogFailedError,
    LogIndex,
    OutlastError,
    ReplicaId,
    TaskHandle,
    UnavailableError,
    World,
)
from outlast.log import Log, SnapshotRef
from outlast.state.applier import Applier
from outlast.state.batcher import Batcher
from outlast.state.context import Context
from outlast.state.core.authority import SYSTEM
from outlast.state.core.envelope import (
    Header,
    Kind,
    check_version,
    pack_commands,
    pack_entry,
)
from outlast.state.core.log_time import HolderClock
from outlast.state.core.operation import (
    Announce,
    Fence,
    MarkBody,
    Operation,
    Register,
    Resolve,
    SkipBody,
    SystemBody,
    encode_body,
)
from outlast.state.core.reply import OK, Reply, decode_reply_error
from outlast.state.core.session import Kept
from outlast.state.core.system import Applied, SystemMachine
from outlast.state.events import (
    DigestDiffered,
    ReplicaFailed,
    SessionsExpired,
)
from outlast.state.poison import ApplyMarker
from outlast.state.reads import ReadRounds, within
from outlast.state.role import SystemRole, own_row
from outlast.state.runner import Runner
from outlast.state.settings import ReplicaSettings
from outlast.state.snapshot_store import DiskSnapshotStore
from outlast.state.snapshotter import Snapshotter
from outlast.state.status import ReplicaStatus, picture

Consistency = Literal["linearizable", "stale"]

_NS = 1_000_000_000


class Replica:
    """A machine on a log. Made and driven on one running event loop; not thread-safe.

    Args:
        world: Clock, timers, storage, tasks.
        log: An open log, which the caller closes after :meth:`stop`.
        runner: The user's machine.
        store: Where snapshots are kept; ``None`` for a log in memory, which is then trimmed
            behind the applied index instead.
        me: This replica; with its incarnation, so that no other start is taken for it.
        settings: See :class:`ReplicaSettings`.
    """

    def __init__(
        self,
        world: World,
        log: Log,
        runner: Runner,
        store: DiskSnapshotStore | None,
        *,
        me: ReplicaId,
        settings: ReplicaSettings | None = None,
    ) -> None:
        settings = settings or ReplicaSettings()
        check_version(runner.spec.version)
        self.me = me
        self.settings = settings
        self.failure: BaseException | None = None
        self._world = world
        self._log = log
        self._runner = runner
        self._store = store
        self._clock = HolderClock()
        self.system = SystemMachine(runner.execute, Context, supported=runner.spec.version)
        self._batcher = Batcher(world, log, self._pack, settings)
        self._applier = Applier(
            world,
            log,
            self.system,
            take_changes=runner.take_changes,
            settings=settings,
            deliver=self._deliver,
            failed=self._fail,
        )
        self._role = SystemRole(
            world,
            log,
            self.system,
            self._clock,
            settings=settings,
            me=own_row(me, settings, runner.spec.version),
            operate=self.operate,
            tick=lambda: self._append(Kind.TICK, b"", self._deadline()),
        )
        self._reads = ReadRounds(world, log, self._applier)
        parts = (world, log, self.system, runner)
        self._snapshotter = (
            None if store is None else Snapshotter(*parts, store, cluster=settings.cluster)
        )
        self._requests: dict[int, asyncio.Future[Kept]] = {}
        self._request = world.prng.bits64() >> 2
        self._tasks: list[TaskHandle] = []
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        """Resolves with what stopped this replica; the node should then stop too."""
        self._installing = asyncio.Lock()
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Replica {self.me} of {self._runner.spec.name} at {self.applied}>"

    @property
    def applied(self) -> int:
        """Index up to which the log is applied here."""
        return self._applier.passed

    @property
    def held(self) -> "asyncio.Future[int]":
        """Resolves with the index of an entry that killed the process, when it needs a skip."""
        return self._applier.held

    # --- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Restore the newest whole snapshot and begin to apply the log after it.

        Returns before the log is applied to its end; see :meth:`catch_up`.

        Raises:
            DataError: The snapshot is of another cluster, machine, schema or newer version.
        """
        if self._store is not None:
            await self._store.open()
            marker = ApplyMarker(self._world, self._store.directory)
            self._applier.marker = marker
            suspected = marker.deaths >= self.settings.poison_crashes
            snapshotter = self._snapshotter
            if snapshotter is not None:
                without = marker.suspect if suspected else 0
                loaded = await self._world.offload.run(
                    "snapshot", lambda: snapshotter.read_newest(without)
                )
                self._store.tell()
                if loaded is not None:
                    snapshotter.adopt(loaded)
            self._store.installer = self._install
        self._applier.start()
        self._tasks = [
            self._world.spawn.task(self._role.hold(), name="state-role"),
            self._world.spawn.task(self._role.tick(), name="state-tick"),
        ]

    async def stop(self) -> None:
        """Stop applying; what is under way ends as indefinite, what waited as definite."""
        self._stopping = True
        if self._store is not None:
            self._store.installer = None
        for task in self._tasks:
            task.cancel()
        await self._applier.stop()
        self._end(UnavailableError("this replica is stopping", retry_after=0.1))
        if self._applier.marker is not None:
            self._applier.marker.close()
            self._applier.marker = None

    async def catch_up(self, *, deadline: Deadline) -> int:
        """Wait until all that was committed when this was called is applied here.

        Raises:
            DeadlineError: Nothing was changed.
            ElsewhereError: Definite. The log's tail must be asked of another replica.
        """
        index: int = await within(self._world, self._reads.wait(deadline), deadline)
        return index

    # --- commands ----------------------------------------------------------------------------

    def submit(self, body: bytes, reply: Callable[[bytes], None]) -> None:
        """Take one encoded :class:`.Command`; ``reply`` is called once with a :class:`.Reply`.

        May call ``reply`` at once. All commands of one turn of the loop share an entry. A
        repeat gets the recorded reply, or waits for the apply of the first. Errors are
        replies too: definite ones (not the leader, full, too large, session expired) and
        indefinite ones (deadline, log failed).
        """
        self._batcher.submit(body, reply, self.system.sessions)

    async def register(
        self, ttl: float | None = None, *, label: str = "", deadline: Deadline | None = None
    ) -> int:
        """Open a session and return its id. ``ttl`` in seconds of log time, or the default.

        Raises:
            ElsewhereError: Definite. Another replica takes appends.
            DeadlineError: Indefinite; an unused session expires by itself.
        """
        operation = Register(int((ttl or 0.0) * _NS), label)
        session: int = await self.operate(operation, deadline=deadline)
        return session

    async def resolve(self, session: int, seq: int, *, deadline: Deadline | None = None) -> Reply:
        """Return the reply recorded for ``seq``, or bar it for ever.

        After this the request is decided: its own reply, or ``BarredError`` as the reply
        (definite). ``SessionExpiredError`` as the reply leaves it undecided.
        """
        kept = await self._operate(Resolve(session, seq), None, deadline)
        return Reply(kept.status, kept.index, kept.digest, kept.body)

    async def query(
        self,
        name: str,
        args: bytes,
        consistency: Consistency = "linearizable",
        *,
        deadline: Deadline | None = None,
    ) -> Reply:
        """Run one query here.

        ``linearizable`` sees every command that was answered before this was called, wherever
        it was answered. ``stale`` sees what is applied here; ``age_ns`` of the reply is how
        long ago this replica last knew that this was all, from a tail it asked for.

        Raises:
            ElsewhereError: Definite. Ask another replica.
            UnavailableError: Definite. No majority answers.
            DeadlineError: Nothing was changed.
            ConfigError: Definite. Unknown consistency.
        """
        if consistency == "linearizable":
            deadline = deadline or self._deadline()
            await within(self._world, self._reads.wait(deadline), deadline)
            age_ns = 0
        elif consistency == "stale":
            age_ns = self._world.clock.monotonic_ns() - self._applier.fresh_ns
        else:
            raise ConfigError(f"consistency {consistency!r}; it must be 'linearizable' or 'stale'")
        if self.failure is not None:
            raise UnavailableError(f"this replica has failed: {self.failure}")
        system = self.system
        version = system.members.machine_version or self._runner.spec.version
        context = Context(system.time.wall_ns, system.index, 0, version)
        status, body = self._runner.query(name, args, context)
        return Reply(status, self.applied, system.digest, body, age_ns)

    # --- the system machine --------------------------------------------------------------------

    async def operate(
        self,
        operation: Operation,
        *,
        fence: Fence | None = None,
        deadline: Deadline | None = None,
    ) -> Any:
        """Append a system operation and return its result, as plain data.

        Raises:
            OutlastError: What the operation answered, or what the append ended with.
        """
        kept = await self._operate(operation, fence, deadline)
        if kept.status != OK:
            raise decode_reply_error(Reply(kept.status, kept.index, kept.digest, kept.body))
        return msgspec.msgpack.decode(kept.body)

    async def announce(self, row: Announce) -> None:
        """Write a replica's row, then raise the active versions if all replicas support more.

        Raises:
            ConfigError: Definite. It supports less than what is active.
            ElsewhereError: Definite. Another replica takes appends.
        """
        await self._role.announce(row)

    async def skip(self, index: int, *, deadline: Deadline | None = None) -> None:
        """Let every replica pass the entry at ``index`` without executing it.

        To be called only for an entry that stopped a majority: replicas that executed it will
        find that they differ, and start again from a snapshot below it.
        """
        body = encode_body(SkipBody(index))
        await self._append(Kind.SKIP, body, deadline or self._deadline())

    async def retry_held(self) -> int:
        """Apply the entry that this replica holds at, and go on; return its index, 0 for none.

        To be called once a majority has executed the entry: nobody will skip it then. If it kills
        the process again, its deaths are counted anew, and the replica holds again.
        """
        async with self._installing:
            index = self._applier.poisoned
            if not index or self._stopping or self.failure is not None:
                return 0
            await self._applier.stop()
            self._applier.forgive(index)
            if not self._stopping:
                self._applier.start()
            return index

    async def checkpoint(self, *, deadline: Deadline | None = None) -> SnapshotRef:
        """Let every replica cut a checkpoint now; return this one's when it is verified.

        Raises:
            ConfigError: Definite. This replica keeps no snapshots.
            OutlastError: Why it could not be written.
        """
        store, snapshotter = self._store, self._snapshotter
        if store is None or snapshotter is None:
            raise ConfigError("this replica has no snapshot store")
        deadline = deadline or self._deadline()
        while snapshotter.is_busy():
            await within(self._world, snapshotter.finished(), deadline)
        at, digest = self._applier.digests[-1] if self._applier.digests else (0, b"")
        body = encode_body(MarkBody(self.me, at, digest))
        index = await self._append(Kind.MARK, body, deadline)
        await within(self._world, self._applier.wait(index), deadline)
        error = await within(self._world, snapshotter.finished(), deadline)
        ref = store.latest()
        if ref is None or ref.index < index:
            raise error or UnavailableError(
                f"no checkpoint was written at {index}: another was under way", retry_after=0.1
            )
        return ref

    def status(self) -> ReplicaStatus:
        """Return a picture of this replica now."""
        return picture(
            self.me,
            self.system,
            self._applier,
            self._batcher,
            now_ns=self._world.clock.monotonic_ns(),
            holds_system=self._clock.epoch != 0,
            snapshot=self._store.latest() if self._store is not None else None,
            snapshot_busy=self._snapshotter is not None and self._snapshotter.is_busy(),
            log_first=self._log.first,
            failure=self.failure,
        )

    # --- inside --------------------------------------------------------------------------------

    def _deadline(self) -> Deadline:
        now_ns = self._world.clock.monotonic_ns()
        return Deadline.after(self.settings.append_seconds, now_ns)

    def _stamps(self) -> tuple[int, int, int, int]:
        """Return machine version, system epoch, log time and wall time for an entry."""
        clock = self._world.clock
        version = self.system.members.machine_version or self._runner.spec.version
        epoch = self._clock.epoch
        return version, epoch, self._clock.stamp(clock.monotonic_ns()), clock.wall_ns()

    def _pack(self, bodies: list[bytes]) -> bytes:
        version, epoch, log_time_ns, wall_ns = self._stamps()
        return pack_commands(
            bodies,
            machine_version=version,
            system_epoch=epoch,
            log_time_ns=log_time_ns,
            wall_ns=wall_ns,
        )

    async def _append(self, kind: Kind, body: bytes, deadline: Deadline) -> LogIndex:
        version, epoch, log_time_ns, wall_ns = self._stamps()
        header = Header(kind, version, 0, epoch, log_time_ns, wall_ns)
        return await self._log.append(pack_entry(header, body), deadline=deadline)

    async def _operate(
        self, operation: Operation, fence: Fence | None, deadline: Deadline | None
    ) -> Kept:
        if self.failure is not None or self._stopping:
            raise UnavailableError(f"this replica has stopped: {self.failure or 'stop()'}")
        deadline = deadline or self._deadline()
        self._request += 1
        request = self._request
        future: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()
        self._requests[request] = future
        try:
            body = encode_body(SystemBody(request, operation, fence))
            await self._append(Kind.SYSTEM, body, deadline)
            kept: Kept = await within(self._world, future, deadline)
            return kept
        finally:
            self._requests.pop(request, None)

    def _deliver(self, index: int, header: Header, applied: Applied) -> None:
        """Hand out what applying one entry gave. Called between two entries."""
        if applied.commands:
            self._batcher.deliver(applied.commands, applied.replies)
        elif header.kind == Kind.SYSTEM:
            future = self._requests.get(applied.request)
            if future is not None and not future.done():
                future.set_result(applied.replies[0])
            if self._clock.epoch and self.system.authority.current(SYSTEM) != self._clock.epoch:
                self._clock.end()
        elif applied.mark is not None:
            self._compare(applied.mark)
        if applied.expired:
            self._world.events.emit(SessionsExpired(count=len(applied.expired), index=index))
        if applied.cut:
            self._cut(index)

    def _compare(self, mark: MarkBody) -> None:
        own = dict(self._applier.digests).get(mark.index)
        begins = self.system.comparable_from
        if begins is None or mark.index <= begins:
            return
        if own is not None and own != mark.digest:
            self._world.events.emit(DigestDiffered(index=mark.index, replica=mark.replica))

    def _cut(self, index: int) -> None:
        if self._snapshotter is not None:
            self._snapshotter.cut()
        else:
            self._world.spawn.task(self._log.trim(LogIndex(index + 1)), name="state-trim")

    def _fail(self, error: BaseException) -> None:
        """Stop: the state may be wrong from here on, and must not be served or saved."""
        if self.failure is not None or self._stopping:
            return
        self.failure = error
        marker = self._applier.marker
        if isinstance(error, DivergedError) and self.system.diverged_at and marker is not None:
            marker.accuse(self.system.diverged_at, self.settings.poison_crashes)
        for task in self._tasks:
            task.cancel()
        self._world.events.emit(
            ReplicaFailed(index=self.system.index, reason=f"{type(error).__name__}: {error}")
        )
        self._end(UnavailableError(f"this replica has failed: {error}"))
        if not self.failed.done():
            self.failed.set_result(error)

    def _end(self, error: OutlastError) -> None:
        self._clock.end()
        self._batcher.stop(error)
        unknown = LogFailedError(f"the replica stopped while it was under way: {error}")
        for future in self._requests.values():
            if not future.done():
                future.set_exception(unknown)
                future.exception()
        self._applier.reject(error)

    # --- snapshots from elsewhere ----------------------------------------------------------------

    async def _install(self, ref: SnapshotRef) -> None:
        """Replace the state by a snapshot that the engine received (it is published here)."""
        snapshotter = self._snapshotter
        if snapshotter is None:
            raise ConfigError("this replica has no snapshot store")
        async with self._installing:
            if ref.index <= self.system.index:
                return
            await self._applier.stop()
            try:
                # Stale queries run meanwhile: they see the old state until it is whole.
                loaded = await self._world.offload.run("snapshot", lambda: snapshotter.read(ref))
                snapshotter.adopt(loaded)
            except BaseException as error:
                self._fail(error)  # what would come next in the log may be gone
                raise
            self._batcher.settle(
                self.system.sessions,
                IndefiniteError("a snapshot took the place of the entries that would tell"),
            )
            self._applier.start()
