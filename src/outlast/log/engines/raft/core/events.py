"""What a Raft node reports to whoever listens."""

from dataclasses import dataclass

from outlast.kernel import Event, Level, LogIndex, ReplicaId, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionStarted(Event):
    """A node asks for votes; ``pre`` when it only asks whether it would get them."""

    term: Term
    pre: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderElected(Event):
    """This node won the election of ``term``."""

    term: Term


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderSteppedDown(Event):
    """This node led ``term`` and no longer does."""

    level: Level = "warning"
    term: Term
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersChanged(Event):
    """Another configuration is in force on this node, committed or not."""

    version: int
    joint: bool
    members: tuple[ReplicaId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTruncated(Event):
    """Uncommitted entries from ``first`` on were replaced by another leader's."""

    first: LogIndex
    last: LogIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaIgnored(Event):
    """A voter says that it lost its data under the same id; it is neither counted nor fed.

    Remove it, and add it again under its next incarnation.
    """

    level: Level = "error"
    replica: ReplicaId


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotOffered(Event):
    """The leader began to send a snapshot to a member that is too far behind."""

    replica: ReplicaId
    index: LogIndex
