"""Events of pools of redundant instances."""

from dataclasses import dataclass

from outlast.kernel import Event
from outlast.kernel.events import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceEjected(Event):
    """An instance gets no calls for ``seconds``: ``value`` of what ``why`` names met ``limit``."""

    level: Level = "warning"
    name: str
    endpoint: str
    why: str
    value: float
    limit: float
    seconds: float
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceReadmitted(Event):
    """An ejected instance gets calls again, after ``after`` seconds without."""

    name: str
    endpoint: str
    why: str
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCheckFailed(Event):
    """An active check of an instance has failed ``failures`` times in a row: no calls for it."""

    level: Level = "warning"
    name: str
    endpoint: str
    failures: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCheckPassed(Event):
    """An instance whose active check had failed passes it again, ``passes`` times in a row."""

    name: str
    endpoint: str
    passes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPanicked(Event):
    """So few instances are left that all get calls again, ejected or not."""

    level: Level = "error"
    name: str
    available: int
    instances: int
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCalmed(Event):
    """Enough instances are available again: only they get calls."""

    name: str
    available: int
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChanged(Event):
    """Instances have joined a pool, or are leaving it; ``instances`` counts those that stay."""

    name: str
    joined: tuple[str, ...]
    leaving: tuple[str, ...]
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryFailed(Event):
    """The instances of a pool could not be looked up; the last good answer of ``kept`` stays."""

    level: Level = "warning"
    name: str
    source: str
    error: str
    kept: int
