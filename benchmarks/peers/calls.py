"""The table of ways to guard a function: what guards it, who, and what to say about it.

An adapter takes the function to guard and returns the guarded one, called as the function is. It
imports its library itself: one that is not installed raises ModuleNotFoundError.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MANY = 1_000_000_000
"""Calls a second under every rate limit: never reached."""
SECONDS = 2.0
"""Every limit of time: never reached."""
Function = Callable[..., Any]
Build = Callable[[Function], Function]

OURS = "outlast"
BARE = "bare"
STACK = "retry+breaker"
THREE = "retry+breaker+bulkhead"
FOUR = "retry+breaker+bulkhead+timeout"
GROUPS = (
    "retry", "breaker", "slow-call", "bulkhead", "rate", "timeout", "hedge", "fallback", "cache",
    "adaptive", STACK, THREE, FOUR,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One library's way to have one policy, or one stack of them."""

    group: str
    who: str
    build: Build
    note: str = ""


@dataclass
class Table:
    """Cases in the order of their definition."""

    cases: list[Case] = field(default_factory=list)

    def case(self, group: str, who: str, note: str = "") -> Callable[[Build], Build]:
        """Enter the decorated adapter."""

        def enter(build: Build) -> Build:
            self.cases.append(Case(group, who, build, note))
            return build

        return enter

    def of(self, group: str) -> list[Case]:
        """Cases of one group, ours first."""
        found = [case for case in self.cases if case.group == group]
        return sorted(found, key=lambda case: not case.who.startswith(OURS))


# --- ours --------------------------------------------------------------------------------------


def our_parts(*kinds: str) -> dict[str, Any]:
    """Keywords of Policy for some kinds of parts; each part is new."""
    import outlast

    makers: dict[str, Callable[[], Any]] = {
        "retry": lambda: outlast.Retry(on=ValueError),
        "breaker": lambda: outlast.CircuitBreaker(failure_threshold=5, recovery_timeout=30),
        "slow": lambda: outlast.CircuitBreaker(
            failure_threshold=5, recovery_timeout=30, slow_call=1.0, slow_rate=0.5
        ),
        "limit": lambda: outlast.Bulkhead(20),
        "adaptive": lambda: outlast.AdaptiveLimit(initial=20, max=200),
        "rate": lambda: outlast.RateLimit(MANY),
        "attempt_timeout": lambda: SECONDS,
        "hard": lambda: outlast.Hard(SECONDS),
        "hedge": lambda: outlast.Hedge(after=SECONDS),
        "fallback": lambda: outlast.Fallback(0),
        "cache": lambda: outlast.Cache(ttl=3600.0),
    }
    positions = {"slow": "breaker", "adaptive": "limit", "hard": "attempt_timeout"}
    return {positions.get(kind, kind): makers[kind]() for kind in kinds}


def ours(*kinds: str) -> Callable[[Function], Function]:
    """Return an adapter: one policy with these parts."""

    def build(function: Function) -> Function:
        from outlast import Policy

        guarded: Function = Policy("bench", **our_parts(*kinds))(function)
        return guarded

    return build


OUR_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("retry", ("retry",)),
    ("breaker", ("breaker",)),
    ("slow-call", ("slow",)),
    ("bulkhead", ("limit",)),
    ("rate", ("rate",)),
    ("hedge", ("hedge",)),
    ("fallback", ("fallback",)),
    ("cache", ("cache",)),
    ("adaptive", ("adaptive",)),
    (STACK, ("retry", "breaker")),
    (THREE, ("retry", "breaker", "limit")),
)
