"""A policy that shows what calls have left behind, and a callee that hangs."""

import asyncio
from typing import Any

from outlast.protect import Bulkhead, CircuitBreaker, Policy


def policy_of(**parts: Any) -> Policy:
    """A policy with a permit and a breaker, whose state tells what was left behind."""
    return Policy("p", **{"limit": Bulkhead(1), "breaker": CircuitBreaker(9, 10), **parts})


def left_nothing(policy: Policy) -> bool:
    """Whether all permits are back."""
    parts = policy.parts
    return not parts["limit"].in_flight and not parts["breaker"].snapshot()["probes_live"]


async def hang(seconds: float = 60.0) -> str:
    await asyncio.sleep(seconds)
    return "late"
