"""A durable Python object in this process: the same client as a cluster's, without a server."""

import asyncio
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, Generic, ParamSpec, Self, TypeVar

import msgspec

from outlast.kernel import (
    CommandTypeError,
    ConfigError,
    DataError,
    Deadline,
    DeadlineError,
    NodeId,
    SessionExpiredError,
    TooLateError,
    UnavailableError,
    World,
    current_deadline,
    current_idempotency_key,
    replica_id,
)
from outlast.log import Log, SnapshotRef
from outlast.state.client_session import ClientSession
from outlast.state.core.client_session import result_of
from outlast.state.core.envelope import encode_command
from outlast.state.core.reply import DEFINITE, Reply, decode_reply, decode_reply_error
from outlast.state.faults import decode_error
from outlast.state.machine import Operation, StateMachine
from outlast.state.reads import within
from outlast.state.replica import Consistency, Replica
from outlast.state.runner import Runner
from outlast.state.settings import ReplicaSettings
from outlast.state.snapshot_store import DiskSnapshotStore
from outlast.state.spec import machine_spec
from outlast.state.status import ReplicaStatus

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=StateMachine)

_encode = msgspec.msgpack.Encoder().encode


class Embedded(Generic[M]):
    """A machine on a log of this process. Made by :func:`open`.

    Belongs to one event loop; not thread-safe, not picklable. One process at a time may have
    a directory open. Up to 256 commands may be in flight; further ones wait.
    """

    def __init__(
        self,
        machine: type[M],
        path: str | None = None,
        *,
        world: World | None = None,
        timeout: float = 10.0,
        settings: ReplicaSettings | None = None,
        skip: int = 0,
    ) -> None:
        if timeout <= 0:
            raise ConfigError(f"timeout is {timeout}; it must be above 0 seconds")
        self._spec = machine_spec(machine)
        self._path = path
        self._timeout = timeout
        self._skip = skip
        self._settings = settings or ReplicaSettings(cluster="embedded")
        self._world = world or _host_world()
        self._log: Log | None = None
        self._replica: Replica | None = None
        self._session: ClientSession | None = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        where = self._path or "memory"
        state = "closed" if self._replica is None else f"at {self._replica.applied}"
        return f"<Embedded {self._spec.name} in {where} {state}>"

    # --- life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the log, restore the state, and apply the log to its end.

        Raises:
            DataError: Definite. The directory is in use, or belongs to another class; or an
                entry killed the process each time that it was applied.
            CorruptionError: Acknowledged data is damaged; names file and offset.
        """
        log = await self._open_log()
        store = None
        if self._path is not None:
            store = DiskSnapshotStore(self._world, f"{self._path}/snapshots")
        me = replica_id(NodeId("embedded"), 1)
        replica = Replica(
            self._world, log, Runner(self._spec), store, me=me, settings=self._settings
        )
        try:
            await replica.start()
            await self._catch_up(replica)
        except BaseException:
            await replica.stop()
            await log.close()
            raise
        self._log, self._replica = log, replica
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close; see :meth:`close`."""
        await self.close()

    async def close(self) -> None:
        """Stop. Calls under way end as indefinite; what was acknowledged is on disk."""
        replica, self._replica = self._replica, None
        log, self._log = self._log, None
        if replica is not None:
            await replica.stop()
        if log is not None:
            await log.close()

    # --- calling -----------------------------------------------------------------------------

    async def call(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a command or query of the machine and return what it returned.

        A command is on disk and applied when this returns. Limits: ``outlast.deadline(s)``
        or ``timeout=`` of :func:`open`.

        Raises:
            CommandError: The command ran and raised this.
            CommandTypeError: Definite. Arguments do not fit.
            DiskFullError: Definite. No room; queries go on.
            DeadlineError: Indefinite. It may be applied yet.

        Cancellation is like ``DeadlineError``.
        """
        name = operation.name
        body = self._spec.encode_args(name, args, kwargs)
        reply = await self.reply(name, body, query=operation.kind == "query")
        result: R = result_of(
            reply,
            lambda found: self._spec.decode_result(name, found),
            lambda found: decode_error(found, self._spec),
        )
        return result

    async def call_json(
        self, name: str, arguments: Mapping[str, Any], *, query: bool = False
    ) -> Any:
        """Run a command, or a query, by name with plain values; errors as :meth:`call`."""
        spec = self._spec
        found = spec.operation(name)
        if (found.kind == "query") != query:
            use = "query=True" if found.kind == "query" else "no query=True"
            raise CommandTypeError(f"{spec.name}.{name} is a {found.kind}; call it with {use}")
        body = _encode(dict(arguments))
        spec.check_args(name, body)
        reply = await self.reply(name, body, query=query)
        return result_of(reply, msgspec.msgpack.decode, lambda told: decode_error(told, spec))

    async def reply(
        self, name: str, args: bytes, *, query: bool = False, stale: bool = False
    ) -> Reply:
        """Run an already encoded call and return its reply: result, index and digest."""
        replica = self._live()
        deadline = self._deadline()
        if query:
            consistency: Consistency = "stale" if stale else "linearizable"
            return await replica.query(name, args, consistency, deadline=deadline)
        while True:
            session = self._session or await self._register(deadline)
            reply = await self._command(session, name, args, deadline)
            if not _expired(reply):
                return reply
            # Never executed under that session, and sent once only: safe under a new one.
            if self._session is session:
                self._session = None

    async def checkpoint(self) -> SnapshotRef:
        """Save the state now, so that the next open need not apply the log so far."""
        return await self._live().checkpoint(deadline=self._deadline())

    def status(self) -> ReplicaStatus:
        """Return a picture of the replica now."""
        return self._live().status()

    # --- inside ------------------------------------------------------------------------------

    def _live(self) -> Replica:
        if self._replica is None:
            raise UnavailableError(f"{self!r}: use it within `async with`")
        return self._replica

    def _deadline(self) -> Deadline:
        now_ns = self._world.clock.monotonic_ns()
        own = Deadline.after(self._timeout, now_ns)
        outer = current_deadline.get()
        own = own if outer is None else own.earlier(outer)
        if own.passed(now_ns):
            raise TooLateError("the deadline had passed before the call began")
        return own

    async def _catch_up(self, replica: Replica) -> None:
        """Apply the log to its end, or raise what stops that."""
        task = asyncio.ensure_future(replica.catch_up(deadline=Deadline.never()))
        ends: list[asyncio.Future[Any]] = [task, replica.failed, replica.held]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if replica.failure is not None:
                raise replica.failure
            if replica.held.done() and not task.done():
                index = replica.held.result()
                if index != self._skip:
                    raise DataError(
                        f"{self._path}: entry {index} killed the process each time that it was "
                        f"applied; correct the command, or leave it out: open(…, skip={index})"
                    )
                await replica.skip(index)
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _register(self, deadline: Deadline) -> ClientSession:
        async with self._opening:
            if self._session is None:
                session = await self._live().register(deadline=deadline, label="embedded")
                self._session = ClientSession(session)
            return self._session

    async def _command(
        self, session: ClientSession, name: str, args: bytes, deadline: Deadline
    ) -> Reply:
        if session.full:
            seq = await self._await_number(session, deadline)
        else:
            seq = await session.take()
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def answered(body: bytes) -> None:
            # Also when the caller has gone: until then the number stays in the window.
            session.give_back(seq)
            if not answer.done():
                answer.set_result(body)

        key = current_idempotency_key()
        body = encode_command(session.session, seq, session.ack_below, name, args, key)
        self._live().submit(body, answered)
        try:
            async with asyncio.timeout(deadline.left(self._world.clock.monotonic_ns())):
                return decode_reply(await answer)
        except TimeoutError as error:
            message = f"{self._spec.name}.{name}: the deadline passed; it may be applied yet"
            raise DeadlineError(message) from error

    async def _await_number(self, session: ClientSession, deadline: Deadline) -> int:
        try:
            return await within(self._world, session.take(), deadline)
        except DeadlineError as error:
            message = "too many commands were in flight until the deadline; nothing was sent"
            raise TooLateError(message) from error

    async def _open_log(self) -> Log:
        """Return the log in memory, or the one in the directory under its class's name."""
        if self._path is None:
            from outlast.log.engines.memory import MemoryLog

            return MemoryLog(self._world)
        from outlast.log.engines.file import FileLog
        from outlast.log.wal import WalIdentity

        identity = WalIdentity(f"embedded {self._spec.name}", "state", "embedded")
        return await FileLog.open(self._world, f"{self._path}/log", identity=identity)


def open(
    machine: type[M],
    path: str | PathLike[str] | None = None,
    *,
    timeout: float = 10.0,
    world: World | None = None,
    settings: ReplicaSettings | None = None,
    skip: int = 0,
) -> Embedded[M]:
    """Return a client of ``machine`` as a durable object of this process.

    Use it with ``async with``. It survives a crash of the process and of its computer: what
    was acknowledged is on disk. For a cluster, write ``outlast.connect`` instead; the rest of
    the program stays.

    Args:
        machine: The class, a :class:`StateMachine`.
        path: Its directory, made if missing; ``None`` keeps everything in memory.
        timeout: Seconds that a call may take unless its deadline is earlier.
        world: Where it runs; the real machine by default.
        settings: See :class:`ReplicaSettings`.
        skip: Index of an entry that killed the process whenever it was applied, as the error
            of an earlier open said: it is left out for good.

    Raises:
        ConfigError: Definite. ``machine`` is no StateMachine class, or ``timeout`` is not
            positive.
    """
    given: object = machine
    if not (isinstance(given, type) and issubclass(given, StateMachine)):
        raise ConfigError(f"open: {machine!r} is no StateMachine class")
    directory = None if path is None else fspath(path)
    return Embedded(machine, directory, world=world, timeout=timeout, settings=settings, skip=skip)


def _host_world() -> World:
    from outlast.host import default_world

    return default_world()


def _expired(reply: Reply) -> bool:
    return reply.status == DEFINITE and isinstance(decode_reply_error(reply), SessionExpiredError)
