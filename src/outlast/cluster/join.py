"""How a node without an identity asks to be admitted, for as long as it takes."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from outlast.cluster.identity import NodeIdentity
from outlast.cluster.messages import AdminRequest, Answer, Kind
from outlast.cluster.service import JOIN_CHANNEL
from outlast.kernel import (
    ClusterId,
    ConfigError,
    ConnectionLostError,
    DataError,
    DeadlineError,
    ElsewhereError,
    HandshakeError,
    InvariantError,
    NodeId,
    OutlastError,
    ReplicaId,
    UnavailableError,
    World,
    incarnation_of,
    kernel_error,
)
from outlast.log import Member
from outlast.protect import Retry, attempts
from outlast.wire import Connection, Identity, Security, dial, parse_address

_ENCODE = msgspec.msgpack.Encoder().encode
_ANSWER = msgspec.msgpack.Decoder(Answer)
_TIMEOUT = 15.0
_ASK_AGAIN = Retry(on=UnavailableError, attempts=None, base=0.2, cap=2.0)
_SAY_EVERY_NS = 5_000_000_000


class _Asker:
    """Handler of one request on one connection."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def opened(self, connection: Connection) -> None:
        """Nothing to do."""

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        if kind == Kind.ANSWER and not self.answer.done():
            self.answer.set_result(_ANSWER.decode(body))

    def closed(self, error: BaseException | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionLostError("the connection was closed"))


async def ask(
    world: World,
    address: str,
    request: AdminRequest,
    *,
    channel: str,
    identity: Identity,
    security: Security,
) -> Answer:
    """Send one administrator's request to one node and return its answer.

    Raises:
        ElsewhereError: Definite. The node does not lead; ``hint`` names who does.
        OutlastError: What the node refused it with.
        OSError: Definite. The node cannot be reached.
    """
    where = parse_address(address)
    asker = _Asker()
    connection = await dial(
        world,
        where.host,
        where.port,
        channel=channel,
        identity=identity,
        expect_cluster=None,
        expect_node=None,
        security=security,
        handler=asker,
        timeout=2.0,
    )
    try:
        connection.send(Kind.ADMIN, 1, _ENCODE(request))
        async with asyncio.timeout(request.timeout + 1.0):
            answer = await asker.answer
    finally:
        asker.answer.cancel()
        connection.close()
    if answer.error:
        raise kernel_error(
            answer.error, answer.message, hint=answer.hint, address=answer.facts.get("address")
        )
    return answer


async def administer(
    world: World,
    addresses: Sequence[str],
    op: str,
    node: str,
    *,
    address: str = "",
    security: Security | None = None,
    timeout: float = 30.0,
) -> tuple[str, dict[str, object]]:
    """Find the leader among ``addresses`` and have it carry out ``op`` for ``node``.

    Args:
        world: Network and timers.
        addresses: Members to ask.
        op: ``member-add``, ``member-remove`` or ``transfer``.
        node: Which node it is about.
        address: Its address, for ``member-add``.
        security: TLS and a token with scope admin.
        timeout: Seconds until it counts as unknown.

    Returns:
        What was done, in words, and facts.

    Raises:
        UnavailableError: Definite. None of the addresses leads or answers.
        OutlastError: What the leader refused it with.
    """
    request = AdminRequest(op, node, address, timeout)
    reasons = []
    candidates = list(addresses)
    for candidate in candidates:  # grows by what the members tell
        try:
            answer = await ask(
                world,
                candidate,
                request,
                channel="admin",
                identity=Identity(node="admin", purpose="admin"),
                security=security or Security(),
            )
        except TimeoutError as error:
            message = f"{candidate} did not answer in {timeout:g} s; {op} may have happened"
            raise DeadlineError(message) from error
        except ElsewhereError as error:
            told = getattr(error, "address", "")
            if told and told not in candidates:
                candidates.append(told)
            reasons.append(f"{candidate}: {error}")
            continue
        except (HandshakeError, UnavailableError, OSError) as error:
            reasons.append(f"{candidate}: {error}")
            continue
        return answer.message, answer.facts
    message = "no leader answered (" + "; ".join(reasons) + ")"
    raise UnavailableError(message)


async def ask_admission(
    world: World,
    node: NodeId,
    address: str,
    addresses: Sequence[str],
    security: Security,
    *,
    cluster: str,
    waiting: Callable[[str], None],
) -> NodeIdentity:
    """Ask the members in turn until the leader admits ``node`` under a new incarnation.

    Raises:
        ConfigError: Definite. The cluster does not know this node.
    """
    request = AdminRequest("admit", node, address, _TIMEOUT)
    identity = Identity(cluster=cluster, node=node, purpose="join")
    said_ns = -_SAY_EVERY_NS

    async def ask_each() -> NodeIdentity:
        nonlocal said_ns
        reasons = []
        for candidate in addresses:
            try:
                answer = await ask(
                    world,
                    candidate,
                    request,
                    channel=JOIN_CHANNEL,
                    identity=identity,
                    security=security,
                )
            except ConfigError:
                raise
            except (OutlastError, OSError) as error:
                reasons.append(f"{candidate}: {error}")
                continue
            return _identity(node, answer.facts)
        now = world.clock.monotonic_ns()
        if now - said_ns >= _SAY_EVERY_NS:
            said_ns = now
            waiting("; ".join(reasons))
        raise UnavailableError("; ".join(reasons))

    async for attempt in attempts(_ASK_AGAIN, name=f"admit {node}", world=world):
        with attempt:
            return await ask_each()
    message = "attempts without a limit have ended"
    raise InvariantError(message)


def _identity(node: NodeId, facts: dict[str, Any]) -> NodeIdentity:
    try:
        replica = ReplicaId(facts["replica"])
        return NodeIdentity(
            cluster=ClusterId(facts["cluster"]),
            node=node,
            incarnation=incarnation_of(replica),
            hash_seed=int(facts["hash_seed"]),
            members=tuple(
                Member(ReplicaId(name), str(address), bool(voter))
                for name, address, voter in facts["members"]
            ),
            admitted=False,
        )
    except (KeyError, TypeError, ValueError) as error:
        message = f"the leader's admission cannot be read: {error}"
        raise DataError(message) from error
