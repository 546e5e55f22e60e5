"""A client's connections: one to the leader, others only while it looks for one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from outlast.kernel import OutlastError, TaskHandle, World
from outlast.wire import Connection, Identity, Security, dial, parse_address

_LEAVE_NS = 250_000_000
_TURNS = 4


class LinkUser(Protocol):
    """Who is told what happens on the links."""

    def link_up(self, link: "Link") -> None:
        """The node at ``link.address`` has been reached."""
        ...

    def link_frame(self, link: "Link", kind: int, stream: int, body: bytes) -> None:
        """A frame has come in."""
        ...

    def link_down(self, link: "Link") -> None:
        """The connection is gone."""
        ...


@dataclass(eq=False, slots=True)
class Link:
    """One connection of a client to one node."""

    address: str
    user: LinkUser
    node: str = ""
    connection: Connection | None = None
    heard_ns: int = 0
    clock: Callable[[], int] = field(default=lambda: 0)

    def opened(self, connection: Connection) -> None:
        """The handshake is done."""
        self.connection = connection
        self.node = connection.peer.node
        self.heard_ns = self.clock()
        self.user.link_up(self)

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        """Pass a frame on."""
        self.heard_ns = self.clock()
        self.user.link_frame(self, kind, stream, body)

    def closed(self, error: BaseException | None) -> None:
        """The connection is gone."""
        self.connection = None
        self.user.link_down(self)

    @property
    def open(self) -> bool:
        """Whether frames can be sent."""
        return self.connection is not None

    def send(self, kind: int, stream: int, body: bytes) -> None:
        """Send a frame if the connection is up."""
        if self.connection is not None:
            self.connection.send(kind, stream, body)


class Links:
    """Dials addresses, each at most once at a time, and remembers what is open."""

    def __init__(
        self,
        world: World,
        user: LinkUser,
        *,
        channel: str,
        identity: Identity,
        security: Security,
        dial_timeout: float = 1.0,
    ) -> None:
        self._world = world
        self._user = user
        self._channel = channel
        self._identity = identity
        self._security = security
        self._dial_timeout = dial_timeout
        self._dialling: set[str] = set()
        self.by_address: dict[str, Link] = {}
        self.errors: dict[str, str] = {}
        self._tasks: dict[str, TaskHandle] = {}
        self._closed = False

    def to_node(self, node: str) -> Link | None:
        """Return the open link to ``node``, if any."""
        for link in self.by_address.values():
            if link.node == node and link.open:
                return link
        return None

    def open_links(self) -> list[Link]:
        """Return all open links."""
        return [link for link in self.by_address.values() if link.open]

    def want(self, address: str) -> None:
        """Have a link to ``address``: dial unless it is open or being dialled."""
        if self._closed or address in self._dialling:
            return
        link = self.by_address.get(address)
        if link is not None and link.open:
            return
        self._dialling.add(address)
        self._tasks[address] = self._world.spawn.task(self._dial(address), name=f"dial {address}")

    async def _dial(self, address: str) -> None:
        link = Link(address, self._user, clock=self._world.clock.monotonic_ns)
        self.by_address[address] = link
        try:
            where = parse_address(address)
            await dial(
                self._world,
                where.host,
                where.port,
                channel=self._channel,
                identity=self._identity,
                expect_cluster=None,
                expect_node=None,
                security=self._security,
                handler=link,
                timeout=self._dial_timeout,
            )
            self.errors.pop(address, None)
        except (OSError, OutlastError) as error:
            self.errors[address] = str(error) or type(error).__name__
            if not link.open:
                self._user.link_down(link)
        finally:
            self._dialling.discard(address)
            self._tasks.pop(address, None)
            if self._closed:
                self._abort(link)

    def drop(self, link: Link) -> None:
        """Close ``link`` and forget it."""
        if self.by_address.get(link.address) is link:
            del self.by_address[link.address]
        self._abort(link)

    @staticmethod
    def _abort(link: Link) -> None:
        if link.connection is not None:
            link.connection.abort()

    def close(self) -> None:
        """Close all links for good."""
        self._closed = True
        for task in list(self._tasks.values()):
            task.cancel()
        for link in list(self.by_address.values()):
            if link.connection is not None:
                link.connection.close()

    async def ended(self) -> None:
        """Wait until the sockets are closed: TLS takes its leave; cut off what takes long."""
        clock, timers = self._world.clock, self._world.timers
        end_ns = clock.monotonic_ns() + _LEAVE_NS
        while self._tasks or self.open_links():
            if clock.monotonic_ns() > end_ns:
                for link in self.open_links():
                    self._abort(link)
                break
            await timers.sleep(0.002)
        for _ in range(_TURNS):  # aborted transports close their sockets in the next turns
            await timers.sleep(0)
