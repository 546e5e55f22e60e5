"""Settings of a replica of a Raft log: the core's numbers, the disk's, and whose log it is."""

from dataclasses import dataclass, field

from outlast.log.engines.raft.core.settings import RaftSettings, nanoseconds
from outlast.log.wal import WalSettings

__all__ = ["RaftLogSettings", "RaftSettings", "WalSettings", "nanoseconds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftLogSettings:
    """What :meth:`RaftLog.open` takes besides where and with whom.

    Args:
        cluster: Id of the cluster; written into the log and compared when it is opened.
        name: Name of the log within the cluster.
        raft: Timing and bounds of the protocol; equal on all members.
        wal: Sizes and limits of the log on disk.
        handover: Seconds that ``close`` of a leader waits for another one to take over.
    """

    cluster: str = ""
    name: str = "main"
    raft: RaftSettings = field(default_factory=RaftSettings)
    wal: WalSettings = field(default_factory=WalSettings)
    handover: float = 1.0
