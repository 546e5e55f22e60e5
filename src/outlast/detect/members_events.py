"""Events of the membership driver, beside those of membership itself."""

from dataclasses import dataclass

from outlast.kernel import Event
from outlast.kernel.events import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsMissed(Event):
    """A reader of events was too slow: ``count`` of the oldest were dropped."""

    level: Level = "warning"
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedsUnanswered(Event):
    """No seed answered within ``after`` seconds; the node is alone, and goes on asking."""

    level: Level = "warning"
    seeds: tuple[str, ...]
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmFailed(Event):
    """The hook failed to say whether an unreachable member is dead; it is kept for now."""

    level: Level = "error"
    member: str
    reason: str
