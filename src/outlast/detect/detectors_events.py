"""Events of detectors, heartbeats and of our own health as an observer."""

from dataclasses import dataclass

from outlast.kernel import Event
from outlast.kernel.events import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSuspected(Event):
    """A peer was silent for ``silence`` seconds and its suspicion has reached another level."""

    level: Level = "warning"
    monitor: str
    peer: str
    reached: str
    suspicion: float
    silence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTrusted(Event):
    """A suspected peer was heard again, after ``silence`` seconds."""

    monitor: str
    peer: str
    before: str
    silence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AccusationPostponed(Event):
    """A peer is due to be suspected, and the observer is too unwell itself to judge."""

    monitor: str
    peer: str
    suspicion: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatsMissed(Event):
    """A sender was late by ``late`` seconds: so many beats were never sent."""

    level: Level = "warning"
    heartbeat: str
    count: int
    late: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatFailed(Event):
    """Beats cannot be sent; told once, until one could be sent again."""

    level: Level = "warning"
    heartbeat: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPaused(Event):
    """This process stood still for ``seconds``; it accuses nobody for ``clean`` more."""

    level: Level = "warning"
    local: str
    seconds: float
    clean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalExcused(Event):
    """The program says that it is slow on purpose from now on, and accuses nobody."""

    local: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalExcuseEnded(Event):
    """The program is done with what it was slow for, after ``seconds``."""

    local: str
    reason: str
    seconds: float
