"""What a node does for clients and administrators: the channels ``client`` and ``admin``."""

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

import msgspec

from outlast.cluster.core import admission
from outlast.cluster.identity import check_node_id
from outlast.cluster.messages import (
    ADMIN_CHANNEL,
    CLIENT_CHANNEL,
    AdminRequest,
    Answer,
    Kind,
    Query,
    Register,
    Resolve,
    Seat,
    View,
)
from outlast.kernel import (
    ConfigError,
    Deadline,
    DefiniteError,
    ElsewhereError,
    IndefiniteError,
    OutlastError,
    OverloadedError,
    ProtocolError,
    ReplicaId,
    ReplyLostError,
    World,
    node_of,
)
from outlast.log import AuthorityChange, Membership
from outlast.log.engines.raft import RaftLog
from outlast.state import Replica, Reply, encode_error_reply, encode_reply
from outlast.wire import Connection, Scope, WireListener

_ENCODE = msgspec.msgpack.Encoder().encode
_QUERY = msgspec.msgpack.Decoder(Query)
_REGISTER = msgspec.msgpack.Decoder(Register)
_RESOLVE = msgspec.msgpack.Decoder(Resolve)
_ADMIN = msgspec.msgpack.Decoder(AdminRequest)
_REQUEST_TIMEOUT = 30.0
_TTL_MAX = 366 * 86_400.0
_REQUESTS_MAX = 1024
"""Requests of one connection that wait for their answers, commands aside."""
_COMMAND = int(Kind.COMMAND)
_REPLY_KIND = int(Kind.REPLY)


Work = Callable[[bytes], Awaitable[bytes]]
"""Makes the answer to a request of its body."""


class Host(Protocol):
    """What the service needs of its node."""

    def status(self) -> dict[str, Any]:
        """Return the node's status."""
        ...

    @property
    def cluster(self) -> str:
        """Id of the cluster."""
        ...

    def admission_facts(self, replica: ReplicaId) -> dict[str, object]:
        """Return what a node needs to start as ``replica``."""
        ...


class Service:
    """Serves the client and admin channels of one node."""

    def __init__(
        self,
        world: World,
        listener: WireListener,
        log: RaftLog,
        replica: Replica,
        host: Host,
        *,
        machine: str,
        machine_version: int,
    ) -> None:
        self.world = world
        self.log = log
        self.replica = replica
        self.host = host
        self._machine = (machine, machine_version)
        self._clients: dict[int, Connection] = {}
        self._number = 0
        self._view = b""
        self._changing = False
        listener.register(CLIENT_CHANNEL, lambda _: _ClientPort(self), Scope.CLIENT)
        listener.register(ADMIN_CHANNEL, lambda _: _AdminPort(self, Scope.ADMIN), Scope.ADMIN)
        listener.register(JOIN_CHANNEL, lambda _: _AdminPort(self, Scope.PEER), Scope.PEER)
        self.renew_view()

    # --- views -------------------------------------------------------------------------------

    def renew_view(self) -> None:
        """Tell every client who leads now; nothing if nothing changed."""
        authority: AuthorityChange = self.log.authority
        membership: Membership = self.log.membership
        seats: dict[str, Seat] = {}
        for member in membership.members:
            node = node_of(member.replica)
            if node not in seats or member.voter:
                seats[node] = Seat(node, member.address, member.voter)
        leader = node_of(authority.holder) if authority.holder is not None else ""
        view = _ENCODE(View(authority.term, leader, list(seats.values()), *self._machine))
        if view == self._view:
            return
        self._view = view
        for connection in list(self._clients.values()):
            connection.send(Kind.VIEW, 0, view)

    def joined(self, connection: Connection) -> int:
        """Remember a client and greet it with the view."""
        self._number += 1
        self._clients[self._number] = connection
        connection.send(Kind.VIEW, 0, self._view)
        return self._number

    def left(self, number: int) -> None:
        """Forget a client."""
        self._clients.pop(number, None)

    # --- requests ----------------------------------------------------------------------------

    def run(self, port: "_Port", stream: int, work: Work, body: bytes, kind: Kind) -> None:
        """Answer ``stream`` with what ``work`` makes of ``body``, or raises."""
        connection = port.connection
        if connection is None:
            return
        if port.running >= _REQUESTS_MAX:
            message = f"{port.running} requests of this connection wait already; at most that many"
            error = OverloadedError(message, retry_after=0.05)
            connection.send(kind, stream, _error_body(error, kind))
            return
        port.running += 1

        async def answer() -> None:
            try:
                found = await work(body)
                try:
                    connection.send(kind, stream, found)
                except ProtocolError as error:
                    raise _too_large(ProtocolError, found) from error
            except OutlastError as error:
                connection.send(kind, stream, _error_body(error, kind))
            except Exception as error:
                told = IndefiniteError(f"{type(error).__name__}: {error}")
                connection.send(kind, stream, _error_body(told, kind))
                raise  # a bug of ours: whoever asked knows, and so must whoever runs the node
            finally:
                port.running -= 1

        self.world.spawn.task(answer(), name=f"answer {stream}")

    async def query(self, body: bytes) -> bytes:
        """Run a query."""
        query = _decode(_QUERY, body, "query")
        return encode_reply(
            await answer_query(self.replica, query.name, query.args, stale=query.stale)
        )

    async def register(self, body: bytes) -> bytes:
        """Open a session."""
        ttl = _decode(_REGISTER, body, "register").ttl
        if not 0 <= ttl <= _TTL_MAX:  # not a number is neither
            raise ConfigError(f"ttl {ttl} s: give 0 for the default, to {_TTL_MAX:g}")
        session = await self.replica.register(ttl)
        return encode_reply(Reply(0, session, b"", _ENCODE(session)))

    async def resolve(self, body: bytes) -> bytes:
        """Settle what became of a request."""
        ask = _decode(_RESOLVE, body, "resolve")
        return encode_reply(await self.replica.resolve(ask.session, ask.seq))

    async def administer(self, body: bytes, scope: Scope) -> bytes:
        """Carry out an administrator's request, on the leader."""
        request = _decode(_ADMIN, body, "admin request")
        if scope is Scope.PEER and request.op != "admit":
            raise ProtocolError(f"{request.op!r} needs the scope admin")
        authority = self.log.authority
        if not authority.mine:
            raise self._elsewhere(authority)
        asked = request.timeout
        timeout = asked if 0 < asked < _REQUEST_TIMEOUT else _REQUEST_TIMEOUT
        deadline = Deadline.after(timeout, self.world.clock.monotonic_ns())
        message, facts = await self._carry_out(request, deadline)
        return _ENCODE(Answer("", message, facts))

    def _peers(self) -> str:
        rows = {node_of(m.replica): m.address for m in self.log.membership.members}
        return ",".join(f"{node}={address}" for node, address in rows.items())

    def _elsewhere(self, authority: AuthorityChange) -> ElsewhereError:
        hint = node_of(authority.holder) if authority.holder is not None else None
        error = ElsewhereError("this node does not lead", hint=hint)
        for member in self.log.membership.members:
            if member.replica == authority.holder:
                error.__dict__["address"] = member.address
        return error

    async def _carry_out(
        self, request: AdminRequest, deadline: Deadline
    ) -> tuple[str, dict[str, object]]:
        node = check_node_id(request.node)
        membership = self.log.membership
        if request.op == "transfer":
            targets = [m.replica for m in membership.members if node_of(m.replica) == node]
            if not targets:
                admission.remove(membership, node)
            await self.log.transfer(targets[-1], deadline=deadline)
            return f"{node} leads", {}
        if request.op == "admit":
            alive = [one.replica for one in self.log.progress() if one.reachable]
            replica, members = admission.admit(membership, node, request.address, alive)
            await self.log.change_members(
                members, expect_version=membership.version, deadline=deadline
            )
            return f"admitted as {replica}", self.host.admission_facts(replica)
        if request.op == "member-add":
            members = admission.add(membership, node, request.address)
            message = (
                f"{node} added: start it with an empty data directory,"
                f" --peers {self._peers()} and --cluster {self.host.cluster}"
            )
        elif request.op == "member-remove":
            members = admission.remove(membership, node)
            message = f"{node} removed"
        else:
            raise ProtocolError(f"unknown request {request.op!r}")
        changed = await self.log.change_members(
            members, expect_version=membership.version, deadline=deadline
        )
        return message, {"version": changed.version}

    async def promote_due(self) -> None:
        """On the leader: make the next caught-up learner a voter."""
        if self._changing or not self.log.authority.mine:
            return
        members = admission.promote(
            self.log.membership, self.log.progress(), self.log.commit_index
        )
        if members is None:
            return
        self._changing = True
        try:
            deadline = Deadline.after(10.0, self.world.clock.monotonic_ns())
            with contextlib.suppress(OutlastError):
                await self.log.change_members(
                    members, expect_version=self.log.membership.version, deadline=deadline
                )
        finally:
            self._changing = False


JOIN_CHANNEL = "join"
"""Where a node without an identity asks to be admitted; needs the scope ``peer``."""


async def answer_query(replica: Replica, name: str, args: bytes, *, stale: bool) -> Reply:
    """Run a query; what would stop a node in a command is only this caller's problem here.

    Raises:
        DefiniteError: It ended with MemoryError, RecursionError or OSError.
        OutlastError: As of :meth:`Replica.query`.
    """
    try:
        return await replica.query(name, args, "stale" if stale else "linearizable")
    except (MemoryError, RecursionError, OSError) as error:
        if isinstance(error, OutlastError):
            raise
        message = f"query {name!r} ended with {type(error).__name__}: {error}"
        raise DefiniteError(message) from error


def _too_large(kind: type[OutlastError], body: bytes) -> OutlastError:
    return kind(f"the answer has {len(body)} bytes, more than one frame takes; return less")


def _decode(decoder: msgspec.msgpack.Decoder[Any], body: bytes, what: str) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"{what} of {len(body)} bytes: {error}") from error


def _sorry(error: OutlastError) -> Answer:
    hint = getattr(error, "hint", None) or ""
    return Answer(type(error).__name__, str(error), {"address": _address(error)}, hint)


def _address(error: OutlastError) -> str:
    return str(getattr(error, "address", ""))


def _error_body(error: OutlastError, kind: Kind) -> bytes:
    return encode_error_reply(error) if kind is Kind.REPLY else _ENCODE(_sorry(error))


def _nowhere(kind: int, stream: int, body: bytes) -> None:
    """Drop an answer: the connection is not there yet."""


class _Port:
    """One connection; ``running`` requests on it are not answered yet."""

    __slots__ = ("connection", "running")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.running = 0


class _ClientPort(_Port):
    """One client's connection."""

    __slots__ = ("_handlers", "_number", "_send", "_service", "_submit")

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service
        self._submit = service.replica.submit
        self._number = 0
        self._send: Callable[[int, int, bytes], Any] = _nowhere
        self._handlers: dict[int, Work] = {
            Kind.QUERY: service.query,
            Kind.REGISTER: service.register,
            Kind.RESOLVE: service.resolve,
        }

    def opened(self, connection: Connection) -> None:
        self.connection = connection
        self._send = connection.send
        self._number = self._service.joined(connection)

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        if kind == _COMMAND:
            self._submit(body, partial(self._answer, stream))
            return
        connection = self.connection
        if connection is None:
            return
        handler = self._handlers.get(kind)
        if handler is not None:
            self._service.run(self, stream, handler, body, Kind.REPLY)
        elif kind == Kind.STATUS:
            facts = self._service.host.status()
            connection.send(Kind.ANSWER, stream, _ENCODE(Answer("", "", facts)))
        else:
            raise ProtocolError(f"unknown kind {kind} on channel {CLIENT_CHANNEL}")

    def _answer(self, stream: int, reply: bytes) -> None:
        """Send the reply to a command; one that is too large must not stop who applies it."""
        try:
            self._send(_REPLY_KIND, stream, reply)
        except ProtocolError:
            self._send(_REPLY_KIND, stream, encode_error_reply(_too_large(ReplyLostError, reply)))

    def closed(self, error: BaseException | None) -> None:
        self.connection = None
        self._service.left(self._number)


class _AdminPort(_Port):
    """One administrator's connection, or that of a node that asks to be admitted."""

    __slots__ = ("_service", "_work")

    def __init__(self, service: Service, scope: Scope) -> None:
        super().__init__()
        self._service = service
        self._work = partial(service.administer, scope=scope)

    def opened(self, connection: Connection) -> None:
        self.connection = connection

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        if kind != Kind.ADMIN:
            raise ProtocolError(f"unknown kind {kind} on channel {ADMIN_CHANNEL}")
        self._service.run(self, stream, self._work, body, Kind.ANSWER)

    def closed(self, error: BaseException | None) -> None:
        self.connection = None
