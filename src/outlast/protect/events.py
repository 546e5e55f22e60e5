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


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOpened(Event):
    """A circuit breaker has opened for ``seconds``: calls are refused until then."""

    level: Level = "warning"
    name: str
    reason: str
    failures: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitHalfOpened(Event):
    """An open circuit breaker lets probes through."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitClosed(Event):
    """A circuit breaker has closed: calls pass again."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitModeChanged(Event):
    """A circuit breaker was isolated, disabled, put in shadow, or set back to normal by hand."""

    level: Level = "warning"
    name: str
    before: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRejected(Event):
    """A part of a policy has refused a call before it began."""

    level: Level = "debug"
    name: str
    part: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed(Event):
    """A call was ended, or not begun, because its time was up; ``part`` says which limit."""

    name: str
    part: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeReplayed(Event):
    """A repeat under an idempotency key got the outcome that was kept; nothing ran."""

    level: Level = "debug"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeFenced(Event):
    """Work went on past its lease and was replaced: its late outcome was not kept.

    The work has run twice under one idempotency key.
    """

    level: Level = "warning"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeNotKept(Event):
    """Work under an idempotency key was done, but its outcome could not be kept."""

    level: Level = "warning"
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsLost(Event):
    """The store of idempotency records gave no answer; ``kept`` says what happens meanwhile."""

    level: Level = "warning"
    name: str
    error: str
    kept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLost(Event):
    """The store that processes share did not answer; everything goes on with local state."""

    level: Level = "warning"
    name: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRegained(Event):
    """The store that processes share answers again."""

    level: Level = "info"
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChanged(Event):
    """Settings of a live policy were changed; ``keys`` are their full names."""

    name: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCut(Event):
    """A callee said "too many": an adaptive rate limit was cut; rates are calls per period."""

    level: Level = "warning"
    name: str
    before: float
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRaised(Event):
    """An adaptive rate limit was raised, since calls succeed; rates are calls per period."""

    level: Level = "debug"
    name: str
    before: float
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetExhausted(Event):
    """A retry budget is used up: no retry or hedge is made until calls or time fill it again."""

    level: Level = "warning"
    name: str
    calls: int
    granted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeStarted(Event):
    """Another attempt was started beside those that run; ``attempt`` is 2 for the first such."""

    level: Level = "debug"
    name: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeWon(Event):
    """An attempt other than the first was the first to succeed."""

    level: Level = "debug"
    name: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackUsed(Event):
    """A call failed with ``error`` and was answered by the fallback."""

    level: Level = "warning"
    name: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleServed(Event):
    """A call failed with ``error`` and was answered with a value ``age`` seconds old."""

    level: Level = "warning"
    name: str
    error: str
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshFailed(Event):
    """A value that was still fresh could not be fetched ahead of its end; it stays."""

    level: Level = "info"
    name: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteDissented(Event):
    """Some instances answered otherwise than the majority, or failed; both are named."""

    level: Level = "warning"
    name: str
    dissenting: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultInjected(Event):
    """A policy injected a fault into a call: ``latency``, ``error`` or ``result``."""

    level: Level = "info"
    name: str
    kind: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChanged(Event):
    """An adaptive limit has moved by a tenth or more since this was last said."""

    level: Level = "debug"
    name: str
    before: int
    after: int
