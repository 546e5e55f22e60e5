"""Dial a channel of another process."""

import asyncio

from outlast.kernel import (
    Deadline,
    HandshakeError,
    OutlastError,
    OverloadedError,
    ProtocolError,
    UnavailableError,
    World,
)
from outlast.wire.address import Address
from outlast.wire.connection import Connection
from outlast.wire.core.frame import HELLO, REFUSE, WELCOME
from outlast.wire.core.handshake import (
    OVERLOADED,
    Identity,
    Refuse,
    Welcome,
    decode_message,
    encode_message,
    hello_of,
    judge_welcome,
    peer_of,
    show,
)
from outlast.wire.handler import FrameHandler
from outlast.wire.limits import Limits
from outlast.wire.security import Security, certificate_names

_NS = 1_000_000_000


class _Dialler:
    """The dialling side's part in the handshake."""

    def __init__(
        self,
        *,
        channel: str,
        identity: Identity,
        expect_cluster: str | None,
        expect_node: str | None,
        security: Security,
        handler: FrameHandler,
    ) -> None:
        self.channel = channel
        self.identity = identity
        self.expect_cluster = expect_cluster
        self.expect_node = expect_node
        self.security = security
        self.handler = handler
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def began(self, connection: Connection) -> None:
        names = certificate_names(connection.ssl_object)
        if names is not None and self.expect_node not in {None, *names}:
            # Before the hello: a token is not shown to a stranger.
            shown = ", ".join(map(show, names)) or "nothing"
            raise HandshakeError(
                f"certificate: it names {shown}, expected node {show(self.expect_node)!r}"
            )
        hello = hello_of(
            self.identity,
            channel=self.channel,
            token=self.security.token,
            cluster=self.identity.cluster or self.expect_cluster or "",
            expect_node=self.expect_node,
        )
        connection.say(HELLO, encode_message(hello))

    def greeted(self, connection: Connection, kind: int, body: bytes, more: bool) -> None:
        if kind == REFUSE:
            refuse = decode_message(Refuse, body)
            reason = "".join(c if c.isprintable() else "?" for c in refuse.reason[:500])
            if refuse.code == OVERLOADED:
                raise OverloadedError(f"refused: {reason}")
            raise HandshakeError(f"refused: {reason}")
        if kind != WELCOME:
            raise ProtocolError(f"expected a welcome, received a frame of kind {kind:#x}")
        welcome = decode_message(Welcome, body)
        misfit = judge_welcome(
            welcome,
            identity=self.identity,
            expect_cluster=self.expect_cluster,
            expect_node=self.expect_node,
            names=certificate_names(connection.ssl_object),
        )
        if misfit is not None:
            raise HandshakeError(misfit)
        connection.version = welcome.version
        connection.establish(self.handler, peer_of(welcome), self.channel)
        if not self.done.done():
            self.done.set_result(None)

    def failed(self, connection: Connection, error: OutlastError) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def gone(self, connection: Connection) -> None:
        if not self.done.done():
            self.done.set_exception(HandshakeError("closed before the handshake"))


async def dial(
    world: World,
    host: str,
    port: int,
    *,
    channel: str,
    identity: Identity,
    handler: FrameHandler,
    expect_cluster: str | None = None,
    expect_node: str | None = None,
    security: Security | None = None,
    limits: Limits | None = None,
    timeout: float = 5.0,
) -> Connection:
    """Connect to ``host:port``, pass the handshake for ``channel`` and return the connection.

    ``handler.opened`` has been called when this returns. All errors are definite: no frame was
    sent. Cancellation closes what was opened.

    Args:
        world: Network, timers and events.
        host: Name or IP address.
        port: Port.
        channel: What to ask for.
        identity: Who this side is.
        handler: Gets the frames.
        expect_cluster: Cluster the other side must belong to; ``None`` for any.
        expect_node: Node the other side must be; ``None`` for any.
        security: TLS and token to use; none by default, which allows loopback only.
        limits: Bounds of the connection.
        timeout: Seconds for connecting and handshake together.

    Raises:
        HandshakeError: The two do not belong together, or the other side does not speak this
            protocol; the message says which of both sides' values differ.
        UnavailableError: Nobody answers there now, or not in time.
        OverloadedError: The other side has no room now.
        ConfigError: Not a loopback address, and neither TLS nor a token.
    """
    security = security or Security()
    limits = limits or Limits()
    security.check_dial(host)
    where = f"{expect_node or 'node'} at {Address(host, port)}"
    deadline = Deadline.after(timeout, world.clock.monotonic_ns())
    dialler = _Dialler(
        channel=channel,
        identity=identity,
        expect_cluster=expect_cluster,
        expect_node=expect_node,
        security=security,
        handler=handler,
    )
    made = Connection(world, limits, dialler, node=identity.node)
    try:
        await world.network.connect(
            lambda: made,
            host,
            port,
            tls=security.client_tls,
            server_hostname=host if security.client_tls is not None else None,
            timeout=timeout,
        )
    except TimeoutError:
        made.abort()
        _forget(dialler)
        raise UnavailableError(f"{where}: not connected within {timeout} s") from None
    except OSError as error:
        made.abort()
        _forget(dialler)
        if type(error).__module__ == "ssl":
            raise HandshakeError(f"{where}: TLS: {error}") from error
        raise UnavailableError(f"{where}: cannot connect: {error}") from error
    except BaseException:
        made.abort()
        _forget(dialler)
        raise
    late = world.timers.call_at(deadline.at_ns, lambda: _late(dialler, timeout))
    try:
        await dialler.done
    except ProtocolError as error:
        made.abort()
        raise HandshakeError(f"{where}: {error}") from error
    except OutlastError as error:
        made.abort()
        error.args = (f"{where}: {error}",)
        raise
    except BaseException:
        made.abort()
        raise
    finally:
        late.cancel()
    return made


def _late(dialler: _Dialler, timeout: float) -> None:
    if not dialler.done.done():
        dialler.done.set_exception(UnavailableError(f"no welcome within {timeout} s"))


def _forget(dialler: _Dialler) -> None:
    """Take the result out of a future that nobody will await."""
    if not dialler.done.cancel() and not dialler.done.cancelled():
        dialler.done.exception()
