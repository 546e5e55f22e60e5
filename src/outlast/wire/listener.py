"""The one listener of a process: it greets callers and hands them to the channel they name."""

from collections.abc import Callable
from dataclasses import dataclass

from outlast.kernel import (
    ConfigError,
    HandshakeError,
    Listener,
    OutlastError,
    OverloadedError,
    ProtocolError,
    RejectedError,
    World,
)
from outlast.wire.connection import Connection
from outlast.wire.core.frame import HELLO, REFUSE, WELCOME
from outlast.wire.core.handshake import (
    MISFIT,
    OVERLOADED,
    Hello,
    Identity,
    Refuse,
    Scope,
    Welcome,
    decode_message,
    encode_message,
    judge_hello,
    peer_of,
    show,
)
from outlast.wire.events import HandshakeRefused, ListenerStarted
from outlast.wire.handler import FrameHandler
from outlast.wire.limits import Limits
from outlast.wire.security import Security

Accept = Callable[[Connection], FrameHandler]
"""Called after the handshake was judged good and before the welcome: returns the handler, or
raises an ``OutlastError`` whose text is sent as the refusal."""


@dataclass(frozen=True, slots=True)
class _Channel:
    accept: Accept
    scope: Scope


class WireListener:
    """Accepts connections and dispatches them by channel. Not thread-safe.

    Args:
        world: Network, timers and events.
        identity: Who this process is; ``cluster`` and ``node`` are compared in handshakes.
        security: TLS and tokens demanded.
        limits: Bounds on each connection and on their number.
    """

    def __init__(
        self,
        world: World,
        identity: Identity,
        security: Security | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.world = world
        self.identity = identity
        self.security = security or Security()
        self.limits = limits or Limits()
        self.refused_count = 0
        self._channels: dict[str, _Channel] = {}
        self._listeners: list[Listener] = []
        self._connections: dict[Connection, None] = {}
        self._closed = False

    def __repr__(self) -> str:
        """Return the node, ports, channels and number of connections."""
        ports = [listener.port for listener in self._listeners]
        return (
            f"<WireListener {self.identity.node} ports={ports} channels={list(self._channels)} "
            f"connections={len(self._connections)}>"
        )

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections now held, handshakes included, oldest first."""
        return tuple(self._connections)

    def register(self, channel: str, accept: Accept, scope: Scope) -> None:
        """Serve ``channel`` to callers that are granted ``scope``.

        Raises:
            ConfigError: Definite. The channel is registered already, or has no name.
        """
        if not channel or channel in self._channels:
            raise ConfigError(f"channel {channel!r}: empty or registered already")
        self._channels[channel] = _Channel(accept, scope)

    async def start(self, host: str, port: int) -> int:
        """Listen on ``host:port`` and return the port. May be called for several addresses.

        Raises:
            ConfigError: Definite. Not a loopback address, and neither TLS nor tokens.
            OSError: Definite. The address is in use or not ours.
        """
        self.security.check_bind(host)
        listener = await self.world.network.listen(
            self._accept, host, port, tls=self.security.server_tls
        )
        self._listeners.append(listener)
        self.world.events.emit(
            ListenerStarted(
                node=self.identity.node,
                host=host,
                port=listener.port,
                tls=self.security.server_tls is not None,
            )
        )
        return listener.port

    async def close(self) -> None:
        """Stop listening and close every connection, sending what is queued."""
        self._closed = True
        for listener in self._listeners:
            await listener.close()
        self._listeners.clear()
        for connection in tuple(self._connections):
            connection.close()

    # --- greeter --------------------------------------------------------------------------

    def _accept(self) -> Connection:
        return Connection(self.world, self.limits, self, node=self.identity.node)

    def began(self, connection: Connection) -> None:
        """Take a new connection in, if there is room and it may say hello at all."""
        full = len(self._connections) >= self.limits.connections_max
        self._connections[connection] = None
        if self._closed:
            raise RejectedError("this listener is closed")
        if full:
            raise OverloadedError(
                f"{self.limits.connections_max} connections are open, and no more are taken"
            )
        host = connection.address.rpartition(":")[0].strip("[]")
        if not self.security.may_accept(host):
            raise HandshakeError("only loopback callers are accepted without TLS or token")

    def greeted(self, connection: Connection, kind: int, body: bytes, more: bool) -> None:
        """Judge the first frame; welcome the caller or raise."""
        if kind != HELLO or more:
            what = "bytes after the hello and before the welcome" if more else f"kind {kind:#x}"
            raise ProtocolError(f"expected a hello and nothing else, received {what}")
        hello = decode_message(Hello, body)
        verdict = judge_hello(
            hello,
            identity=self.identity,
            channels={name: channel.scope for name, channel in self._channels.items()},
            credentials=self.security.credentials(hello.token, connection.ssl_object),
        )
        if isinstance(verdict, Refuse):
            raise HandshakeError(verdict.reason)
        connection.peer = peer_of(hello)
        connection.channel = hello.channel
        connection.scope = verdict.scope
        connection.version = verdict.version
        handler = self._channels[hello.channel].accept(connection)
        mine = self.identity
        welcome = Welcome(
            wire=verdict.wire,
            version=verdict.version,
            versions=mine.versions,
            cluster=mine.cluster,
            node=mine.node,
            incarnation=mine.incarnation,
            hash_seed=mine.hash_seed,
            purpose=mine.purpose,
        )
        connection.say(WELCOME, encode_message(welcome))
        connection.establish(handler, connection.peer, hello.channel)

    def failed(self, connection: Connection, error: OutlastError) -> None:
        """Turn a caller away: one line to it, one event here."""
        self.refused_count += 1
        reason = " ".join(str(error).split())
        code = OVERLOADED if isinstance(error, RejectedError) else MISFIT
        connection.say(REFUSE, encode_message(Refuse(code, reason[:500])))
        self.world.events.emit(
            HandshakeRefused(
                node=self.identity.node, address=show(connection.address), reason=reason
            )
        )

    def gone(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._connections.pop(connection, None)
