"""The durable, totally ordered log: interface, physical frames, engines."""

from outlast.log.api import (
    Authority,
    AuthorityChange,
    Batch,
    FailureModel,
    Hold,
    Log,
    LogTraits,
    Member,
    Membership,
    Progress,
    Replicated,
    SnapshotRef,
    SnapshotSink,
    SnapshotStore,
)

__all__ = [
    "Authority",
    "AuthorityChange",
    "Batch",
    "FailureModel",
    "Hold",
    "Log",
    "LogTraits",
    "Member",
    "Membership",
    "Progress",
    "Replicated",
    "SnapshotRef",
    "SnapshotSink",
    "SnapshotStore",
]
