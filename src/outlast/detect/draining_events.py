"""Events of a graceful stop."""

from dataclasses import dataclass

from outlast.kernel import Event
from outlast.kernel.events import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainStarted(Event):
    """The process is going to stop: readiness is off, ``in_flight`` pieces of work run."""

    reason: str
    in_flight: int
    delay: float
    within: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainEnded(Event):
    """A drain is over after ``seconds``; ``in_flight_left`` pieces of work were given up."""

    level: Level = "info"
    in_flight_left: int
    seconds: float
