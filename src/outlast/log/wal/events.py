"""What the physical log reports."""

from dataclasses import dataclass

from outlast.kernel import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class TornTailCut(Event):
    """A write that a crash had interrupted was cut from the log's end, into quarantine."""

    level: str = "warning"  # type: ignore[assignment]
    directory: str
    segment: str
    offset: int
    quarantine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WalFailed(Event):
    """A write or fsync failed: the log takes nothing more until it is opened anew."""

    level: str = "error"  # type: ignore[assignment]
    directory: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WalFull(Event):
    """No room for another segment: entries are refused, nothing is lost."""

    level: str = "error"  # type: ignore[assignment]
    directory: str
    free_bytes: int
    needed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WalRoomAgain(Event):
    """Space has returned: entries are taken again."""

    directory: str
