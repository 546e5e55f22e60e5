"""Engine ``raft``: one log replicated over the members of a group (Ongaro 2014)."""

from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.engine import RaftLog
from outlast.log.engines.raft.settings import RaftLogSettings
from outlast.log.engines.raft.snapshots import NoSnapshots
from outlast.log.engines.raft.storage import holds_replica
from outlast.log.engines.raft.transport import (
    BULK_CHANNEL,
    RAFT_CHANNEL,
    FrameKind,
    PeerHandler,
    PeerTransport,
)

__all__ = [
    "BULK_CHANNEL",
    "RAFT_CHANNEL",
    "FrameKind",
    "NoSnapshots",
    "PeerHandler",
    "PeerTransport",
    "RaftLog",
    "RaftLogSettings",
    "RaftSettings",
    "holds_replica",
]
