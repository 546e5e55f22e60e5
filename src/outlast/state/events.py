"""What state says has happened."""

from dataclasses import dataclass

from outlast.kernel import Event, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemRoleTaken(Event):
    """This replica holds role ``system`` under ``epoch`` and measures log time."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsExpired(Event):
    """Sessions ended because nobody used them for their time to live."""

    count: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotTaken(Event):
    """A checkpoint is on disk, read back and verified."""

    index: int
    size_bytes: int
    chunk_count: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFailed(Event):
    """A checkpoint could not be written; the log is kept and the next one is tried."""

    level: Level = "warning"
    index: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRefused(Event):
    """A snapshot on disk is damaged and was set aside; an older one is used."""

    level: Level = "error"
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotLoaded(Event):
    """The state was restored from a snapshot."""

    index: int
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestDiffered(Event):
    """The running digest here differs from the one that another replica marked."""

    level: Level = "error"
    index: int
    replica: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPoisoned(Event):
    """The process died repeatedly while applying this entry; it waits for an agreed skip."""

    level: Level = "error"
    index: int
    crashes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySkipped(Event):
    """An entry was passed without being executed, as agreed."""

    level: Level = "warning"
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFailed(Event):
    """The replica stopped: what it would do next is not certain to be right."""

    level: Level = "error"
    index: int
    reason: str
