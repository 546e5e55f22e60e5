"""Events of supervision and health."""

from dataclasses import dataclass

from outlast.kernel import Event
from outlast.kernel.events import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStarted(Event):
    """A supervised child runs; ``restarts`` counts how often it was started again."""

    child: str
    pid: int
    restarts: int
    kind: str = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildReady(Event):
    """A supervised child is ready, ``after`` seconds: those that waited for it may start."""

    child: str
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildExited(Event):
    """A supervised child has ended, after ``uptime`` seconds; ``lines`` are its last words."""

    level: Level = "warning"
    child: str
    pid: int
    code: int
    reason: str
    uptime: float
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStopped(Event):
    """A supervised child was asked to stop and did, in ``seconds``; ``forced``: it was killed."""

    child: str
    seconds: float
    forced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStuck(Event):
    """A supervised child has done nothing for ``seconds``; it is ended and started again."""

    level: Level = "error"
    child: str
    pid: int
    seconds: float
    stack: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildAbandoned(Event):
    """A thread or task does not stop and cannot be killed; it is not started before it ends."""

    level: Level = "error"
    child: str
    seconds: float
    stack: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRestarting(Event):
    """A supervised child is started again in ``delay`` seconds."""

    child: str
    delay: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashLoop(Event):
    """A supervised child ended more often within ``period`` seconds than is allowed."""

    level: Level = "error"
    child: str
    count: int
    period: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorEscalated(Event):
    """A supervisor has ended because restarts did not help; its parent decides, if it has one."""

    level: Level = "error"
    supervisor: str
    reason: str
    parent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphansEnded(Event):
    """Processes that a child had started and that had left its group were ended with it."""

    level: Level = "warning"
    child: str
    count: int


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
