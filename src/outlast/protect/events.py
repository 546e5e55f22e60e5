"""Events of protected calls."""

from dataclasses import dataclass

from outlast.kernel import Event
from outlast.kernel.events import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Event):
    """An attempt failed and another one follows after ``delay`` seconds."""

    level: Level = "debug"
    name: str
    attempt: int
    delay: float
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryGaveUp(Event):
    """An attempt failed and none follows: the error goes to the caller."""

    level: Level = "info"
    name: str
    attempt: int
    reason: str
    error: str
