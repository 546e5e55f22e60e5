"""The client of a replicated machine: typed calls in a session that survives failover.

Order of what surrounds a call: session > deadline > repeat (a redirect is not a repeat; an
attempt with unknown outcome is repeated only under its sequence number) > attempt. There is no
breaker around the whole cluster.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

import msgspec

from outlast.cluster.courier import Courier
from outlast.cluster.messages import Answer, Kind, Query, Register, Resolve
from outlast.kernel import (
    CommandError,
    CommandTypeError,
    ConfigError,
    Deadline,
    IndefiniteError,
    OutlastError,
    RejectedError,
    SessionExpiredError,
    TaskHandle,
    UnavailableError,
    World,
    current_deadline,
)
from outlast.state import (
    Operation,
    Reply,
    RequestWindow,
    StateMachine,
    current_idempotency_key,
    decode_error,
    machine_spec,
    result_of,
)
from outlast.state.core.client_session import Request
from outlast.state.core.reply import OK
from outlast.wire import Security, parse_address

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=StateMachine)

_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder().decode
_ANSWER = msgspec.msgpack.Decoder(Answer)
_SPARE_NS = 5_000_000


class Client(Generic[M]):
    """Calls commands and queries of a replicated machine. Made by :func:`outlast.connect`.

    Args:
        machine: The machine's class; ``None`` for :meth:`call_json` only.
        seeds: Addresses of some members, ``host:port``; the others are learnt.
        world: Network, timers, randomness.
        routes: Addresses that override everything learnt, by node.
        security: TLS and a token with scope client.
        timeout: Seconds that a call may take, where no nearer ``outlast.deadline`` is set.
        name: Shown in the nodes' connection lists.

    Belongs to one event loop; not thread-safe. Up to 256 commands may be unanswered; further
    ones wait. Closing ends what is under way with :class:`ConnectionLostError`.
    """

    def __init__(
        self,
        machine: type[M] | None,
        seeds: Sequence[str],
        *,
        world: World,
        routes: Mapping[str, str] | None = None,
        security: Security | None = None,
        timeout: float = 10.0,
        name: str = "client",
    ) -> None:
        if not seeds:
            message = "no addresses given: write HOST:PORT,…, such as n1:7400,n2:7400,n3:7400"
            raise ConfigError(message)
        if timeout <= 0:
            message = f"timeout {timeout} s: give more than 0"
            raise ConfigError(message)
        self._spec = machine_spec(machine) if machine is not None else None
        self._world = world
        self._clock_ns = world.clock.monotonic_ns
        self._timeout_ns = int(timeout * 1e9)
        self._courier = Courier(world, seeds, routes=routes, security=security, name=name)
        self._session: RequestWindow | None = None
        self._opening: asyncio.Task[RequestWindow] | None = None
        self._room = asyncio.Event()
        self._settling: TaskHandle | None = None

    # --- life ------------------------------------------------------------------------------

    async def __aenter__(self) -> "Client[M]":
        """Begin looking for the cluster; the first call waits for it."""
        self._courier.look()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close; calls under way end with an indefinite error. The session expires by itself."""
        if self._settling is not None:
            self._settling.cancel()
        self._courier.close()
        await self._courier.links.ended()

    def __repr__(self) -> str:
        """Show the leader and what is in flight."""
        routing = self._courier.routing
        leader = routing.leader or "looking for a leader"
        return f"<Client {leader}, term {routing.term}, {self._courier.in_flight} in flight>"

    # --- calling ---------------------------------------------------------------------------

    async def call(self, operation: Operation[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a command or query of the machine and return what it returned.

        A command is applied exactly once, however often it had to be sent. A query is
        linearizable. Limits: ``with outlast.deadline(s)`` or ``timeout=`` of ``connect``.

        Raises:
            CommandError: The command ran and raised this; equal on every replica.
            CommandTypeError: Definite. Arguments do not fit.
            UnavailableError: Definite. No leader was found, or took it, in time.
            DeadlineError: Indefinite. It was sent and not answered in time.
            SessionExpiredError: Never: a new session is opened if nothing was executed.
        """
        spec = self._spec
        if spec is None:
            message = "connect(None, …) has no class to check calls with: use call_json()"
            raise CommandTypeError(message)
        name = operation.name
        body = spec.encode_args(name, args, kwargs)
        if operation.kind == "query":
            reply = await self.reply(name, body, query=True)
        else:
            reply = await self._repeated(name, body)
        result: R
        if reply.status == OK:
            result = spec.decode_result(name, reply.body)
            return result
        result = result_of(
            reply,
            lambda raw: spec.decode_result(name, raw),
            lambda raw: decode_error(raw, spec),
        )
        return result

    async def call_json(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, query: bool = False
    ) -> Any:
        """Run command ``name`` (or a query) with plain values, without the machine's class.

        Returns plain data. Errors as :meth:`call`; those that the machine declares arrive as
        ``CommandError`` with ``type_name`` where the class is not known here.
        """
        reply = await self.reply(name, _plain(arguments or {}), query=query)
        return result_of(reply, _DECODE, lambda raw: decode_error(raw, self._spec))

    async def reply(
        self, name: str, args: bytes, *, query: bool = False, stale: bool = False
    ) -> Reply:
        """Run an encoded call and return the whole reply: result, log index and digest.

        Errors of commands are in the reply; all others are raised as by :meth:`call`.
        """
        if query:
            body = _ENCODE(Query(name, args, stale))
            return await self._courier.request(Kind.QUERY, lambda: body, self._deadline())
        return await self._repeated(name, args)

    async def read_at(
        self, address: str, name: str, arguments: Mapping[str, Any] | None = None
    ) -> Any:
        """Ask the node at ``address`` alone for query ``name``; returns plain data.

        The query is linearizable, so a node that does not lead refuses it. One attempt is made,
        on one connection: no redirect, no repeat. A client that was not entered and is used for
        nothing else talks to that node only. Limits as of :meth:`call`.

        Raises:
            CommandError: The query ran and raised this.
            ConfigError: Definite. ``address`` is not ``host:port``.
            ElsewhereError: Definite. The node does not lead.
            UnavailableError: Definite. It cannot be reached, or has no majority.
            DeadlineError: It was asked and did not answer in time.
            ConnectionLostError: The connection broke before the answer.
        """
        where = str(parse_address(address))
        body = _ENCODE(Query(name, _plain(arguments or {}), False))
        reply = await self._courier.query_at(where, body, self._deadline())
        return result_of(reply, _DECODE, lambda raw: decode_error(raw, self._spec))

    async def register(self) -> int:
        """Open the session now, which the first command would otherwise do; return its id."""
        session = await self._open_session(self._deadline())
        return session.id

    async def status(self, address: str) -> dict[str, object]:
        """Return the status of the node at ``address``, with plain values.

        Raises:
            UnavailableError: Definite. It did not answer in time.
        """
        raw = await self._courier.ask_node(address, Kind.STATUS, self._deadline())
        return _ANSWER.decode(raw).facts

    def _deadline(self) -> Deadline:
        now_ns = self._clock_ns()
        own = Deadline(now_ns + self._timeout_ns)
        outer = current_deadline.get()
        if outer is None or outer.endless:
            return own
        # Ends a little before the block around it does: this side knows whether it was sent.
        spare_ns = min(_SPARE_NS, outer.left_ns(now_ns) // 10)
        return own.earlier(Deadline(outer.at_ns - spare_ns))

    # --- commands in a session ---------------------------------------------------------------

    async def _repeated(self, name: str, args: bytes) -> Reply:
        deadline = self._deadline()
        while True:
            session = self._session
            if session is None:
                session = await self._open_session(deadline)
            while session.full:
                await self._wait_for_room(session, deadline)
            request = session.begin(name, args, current_idempotency_key())
            answered = False
            try:
                reply = await self._courier.request(
                    Kind.COMMAND, partial(session.attempt, request), deadline
                )
                answered = True
                return reply
            except SessionExpiredError:
                answered = True  # surely not executed: once more, under a new session
                if self._session is session:
                    self._session = None
            except OutlastError as error:
                answered = error.happened == "no"
                raise
            finally:
                self._close_request(session, request, answered)

    def _close_request(self, session: RequestWindow, request: Request, answered: bool) -> None:
        if answered or request.attempt_count == 0:
            session.end(request)
            self._room.set()
            return
        session.give_up(request)
        self._settle_due(session)

    def _settle_due(self, session: RequestWindow) -> None:
        if session.unresolved and self._settling is None and not self._courier.closed:
            self._settling = self._world.spawn.task(self._settle(session), name="settle")

    async def _wait_for_room(self, session: RequestWindow, deadline: Deadline) -> None:
        self._room.clear()
        left = deadline.left(self._clock_ns())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._room.wait(), left)
        if session.full and deadline.passed(self._clock_ns()):
            session.begin("", b"")  # raises OverloadedError: the window is used up

    async def _settle(self, session: RequestWindow) -> None:
        """Find out what became of the requests that were given up, to free the window."""
        try:
            while session.unresolved and not self._courier.closed:
                seq = session.unresolved[0]
                ask = partial(_ENCODE, Resolve(session.id, seq))
                deadline = Deadline(self._clock_ns() + self._timeout_ns)
                try:
                    await self._courier.request(Kind.RESOLVE, ask, deadline)
                except OutlastError as error:
                    if not _decides(error):
                        await self._world.timers.sleep(0.1)
                        continue
                session.resolved(seq)
                self._room.set()
        finally:
            self._settling = None
            if self._session is not None:  # another one may have been opened meanwhile
                self._settle_due(self._session)

    async def _open_session(self, deadline: Deadline) -> RequestWindow:
        if self._session is not None:
            return self._session
        if self._opening is None or self._opening.done():
            self._opening = asyncio.ensure_future(self._register())
            self._opening.add_done_callback(_look_at)
        opening = self._opening
        left = deadline.left(self._clock_ns())
        await asyncio.wait([opening], timeout=left)
        if not opening.done():
            message = f"no session yet, so nothing was sent: {self._courier.why_unreachable()}"
            raise UnavailableError(message, retry_after=1.0)
        try:
            return opening.result()
        except IndefiniteError as error:
            # Only the session may have been opened; the command was not sent.
            message = f"no session could be opened, so nothing was sent: {error}"
            raise UnavailableError(message, retry_after=1.0) from error

    async def _register(self) -> RequestWindow:
        """Open a session. Repeating is harmless: one that nobody uses expires."""
        body = _ENCODE(Register())
        reply = await self._courier.request(
            Kind.REGISTER, lambda: body, Deadline(self._clock_ns() + self._timeout_ns)
        )
        self._session = RequestWindow(int(result_of(reply, _DECODE, _no_command)))
        return self._session


def _decides(error: OutlastError) -> bool:
    """Whether ``error`` tells what became of a request, rather than why that is not known yet.

    The recorded answer may be an error itself; ``BarredError`` and an expired session say that
    the request will never run.
    """
    return error.happened != "maybe" and not isinstance(error, RejectedError)


def _plain(arguments: Mapping[str, Any]) -> bytes:
    try:
        return _ENCODE(dict(arguments))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        message = f"the arguments cannot be sent: {error}; give plain values by parameter name"
        raise CommandTypeError(message) from error


def _look_at(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()


def _no_command(raw: bytes) -> CommandError:
    return decode_error(raw, None)  # type: ignore[return-value]


Connector = Callable[..., Client[Any]]
