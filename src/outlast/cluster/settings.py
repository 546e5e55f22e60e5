"""Settings of one node."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from outlast.kernel import ConfigError, NodeId
from outlast.log.engines.raft import RaftSettings
from outlast.log.wal import WalSettings
from outlast.state import ReplicaSettings
from outlast.wire import Security, parse_address

EXIT_STOPPED = 0
"""Exit code of a node that was asked to stop."""
EXIT_FAILED = 1
"""It failed while running; another start may help."""
EXIT_CANNOT_RUN = 2
"""Settings, directory or corruption: another start would end the same."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How one node runs.

    Args:
        node: Its id.
        data: Its data directory.
        listen: ``HOST:PORT`` to bind for members and clients.
        advertise: What others are told to dial; ``listen`` by default.
        peers: Addresses of the other members by node, for a node that asks to be admitted.
        routes: Addresses that override everything learnt, by node.
        http: ``HOST:PORT`` of the HTTP gateway, ``None`` for no gateway.
        health: ``HOST:PORT`` where probes of health are answered from a thread of their own,
            ``None`` for none but the gateway's. Elsewhere than on loopback without details.
        cluster: Cluster id that the directory must belong to; empty for any.
        security: TLS and tokens.
        raft: Settings of the Raft engine.
        wal: Sizes and limits of the log on disk.
        replica: Settings of sessions, batches and checkpoints.
    """

    node: NodeId
    data: str
    listen: str
    advertise: str = ""
    peers: Mapping[NodeId, str] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)
    http: str | None = None
    health: str | None = None
    cluster: str = ""
    security: Security = field(default_factory=Security)
    raft: RaftSettings = field(default_factory=RaftSettings)
    wal: WalSettings = field(default_factory=WalSettings)
    replica: ReplicaSettings = field(default_factory=ReplicaSettings)

    def __post_init__(self) -> None:
        """Check what can be checked before anything is opened.

        Raises:
            ConfigError: Definite. An address cannot be read, or nobody could dial it.
        """
        for address in (self.listen, *self.peers.values(), *self.routes.values()):
            parse_address(address)
        if not _dialled(self.address):
            option, advice = "--listen", "add --advertise HOST:PORT"
            if self.advertise:
                option, advice = "--advertise", "give the HOST:PORT that reaches this node"
            message = f"{option} {self.address} names no address that others can dial: {advice}"
            raise ConfigError(message)
        for bound in (self.http, self.health):
            if bound is not None:
                parse_address(bound)

    @property
    def address(self) -> str:
        """What others dial."""
        return self.advertise or self.listen


def _dialled(address: str) -> bool:
    where = parse_address(address)
    return where.port != 0 and where.host not in {"0.0.0.0", "::"}  # noqa: S104 - compared
