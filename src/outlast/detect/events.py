"""Events of supervision and health."""

from dataclasses import dataclass

from outlast.kernel import Event
from outlast.kernel.events import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStarted(Event):
    """A supervised process runs; ``restarts`` counts how often it was started again."""

    child: str
    pid: int
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildExited(Event):
    """A supervised process has ended, after ``uptime`` seconds."""

    level: Level = "warning"
    child: str
    pid: int
    code: int
    reason: str
    uptime: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRestarting(Event):
    """A supervised process is started again in ``delay`` seconds."""

    child: str
    delay: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashLoop(Event):
    """A supervised process ended more often within ``period`` seconds than its policy allows."""

    level: Level = "error"
    child: str
    count: int
    period: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChanged(Event):
    """A named check has another status than ``since`` seconds ago; its run ``took`` so long."""

    level: Level = "info"
    check: str
    before: str
    after: str
    detail: str
    health: str = ""
    since: float = 0.0
    took: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthDraining(Event):
    """Readiness is off for good: the process is going to stop, for ``reason``."""

    health: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthThreadsUsedUp(Event):
    """``check`` could not run: ``holders`` have not returned and hold all ``threads``."""

    level: Level = "warning"
    health: str
    check: str
    threads: int
    holders: tuple[str, ...]
