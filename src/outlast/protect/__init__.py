"""Protecting calls to things that fail. Needs the standard library alone.

Names are imported on first use, so that who needs a retry does not pay for a store.
"""

from typing import TYPE_CHECKING, Any

from outlast.kernel import World, offer_default_world

# Eager: the first shares its name with a module, which would otherwise take its place here.
from outlast.protect.deadline import deadline as deadline
from outlast.protect.deadline import detached as detached
from outlast.protect.deadline import remaining as remaining

if TYPE_CHECKING:
    from outlast.protect.adaptive import AdaptiveLimit as AdaptiveLimit
    from outlast.protect.adaptive import current_priority as current_priority
    from outlast.protect.adaptive import priority as priority
    from outlast.protect.adaptive_rate import AdaptiveRate as AdaptiveRate
    from outlast.protect.beside import abandoned as abandoned
    from outlast.protect.block import Attempts as Attempts
    from outlast.protect.block import PolicyAttempt as PolicyAttempt
    from outlast.protect.breaker import CircuitBreaker as CircuitBreaker
    from outlast.protect.breaker_permit import BreakerPermit as BreakerPermit
    from outlast.protect.budget import Budget as Budget
    from outlast.protect.bulkhead import Bulkhead as Bulkhead
    from outlast.protect.cache import Cache as Cache
    from outlast.protect.call import CallInfo as CallInfo
    from outlast.protect.call import current_attempt as current_attempt
    from outlast.protect.call import current_call as current_call
    from outlast.protect.core.adaptive import AIMD as AIMD
    from outlast.protect.core.adaptive import Gradient as Gradient
    from outlast.protect.core.adaptive import Vegas as Vegas
    from outlast.protect.core.classify import Kind as Kind
    from outlast.protect.core.classify import classify as classify
    from outlast.protect.core.classify import classify_response as classify_response
    from outlast.protect.core.lint import Finding as Finding
    from outlast.protect.core.order import CANONICAL as CANONICAL
    from outlast.protect.core.pushback import retry_after as retry_after
    from outlast.protect.core.retry import Backoff as Backoff
    from outlast.protect.core.retry import GiveUp as GiveUp
    from outlast.protect.core.retry import RetryAfter as RetryAfter
    from outlast.protect.core.window import CountWindow as CountWindow
    from outlast.protect.core.window import TimeWindow as TimeWindow
    from outlast.protect.events import RetryGaveUp as RetryGaveUp
    from outlast.protect.events import RetryScheduled as RetryScheduled
    from outlast.protect.fallback import Fallback as Fallback
    from outlast.protect.headers import Incoming as Incoming
    from outlast.protect.headers import current_incoming as current_incoming
    from outlast.protect.headers import extract as extract
    from outlast.protect.headers import incoming as incoming
    from outlast.protect.hedge import Hedge as Hedge
    from outlast.protect.httpx_transport import AsyncHttpxTransport as AsyncHttpxTransport
    from outlast.protect.httpx_transport import HttpxTransport as HttpxTransport
    from outlast.protect.idempotent import Idempotent as Idempotent
    from outlast.protect.inject import Inject as Inject
    from outlast.protect.keyed import Keyed as Keyed
    from outlast.protect.policy import Policy as Policy
    from outlast.protect.rate import RateLimit as RateLimit
    from outlast.protect.rate import SlidingWindow as SlidingWindow
    from outlast.protect.retry import Retry as Retry
    from outlast.protect.retrying import Attempt as Attempt
    from outlast.protect.retrying import attempts as attempts
    from outlast.protect.retrying import call_with_retry as call_with_retry
    from outlast.protect.sender import Idempotency as Idempotency
    from outlast.protect.settings import configure as configure
    from outlast.protect.settings import policy_from_settings as policy_from_settings
    from outlast.protect.textbook import retry_with_backoff as retry_with_backoff
    from outlast.protect.threadpool import Hard as Hard
    from outlast.protect.threadpool import ThreadBulkhead as ThreadBulkhead
    from outlast.protect.vote import Vote as Vote

_NAMES = {
    "adaptive": "AdaptiveLimit current_priority priority",
    "adaptive_rate": "AdaptiveRate",
    "beside": "abandoned",
    "block": "Attempts PolicyAttempt",
    "breaker": "CircuitBreaker",
    "breaker_permit": "BreakerPermit",
    "budget": "Budget",
    "bulkhead": "Bulkhead",
    "cache": "Cache",
    "call": "CallInfo current_attempt current_call",
    "core.adaptive": "AIMD Gradient Vegas",
    "core.classify": "Kind classify classify_response",
    "core.lint": "Finding",
    "core.order": "CANONICAL",
    "core.retry": "Backoff GiveUp RetryAfter",
    "core.window": "CountWindow TimeWindow",
    "core.pushback": "retry_after",
    "events": "RetryGaveUp RetryScheduled",
    "fallback": "Fallback",
    "headers": "Incoming current_incoming extract incoming",
    "hedge": "Hedge",
    "httpx_transport": "AsyncHttpxTransport HttpxTransport",
    "idempotent": "Idempotent",
    "inject": "Inject",
    "keyed": "Keyed",
    "policy": "Policy",
    "rate": "RateLimit SlidingWindow",
    "retry": "Retry",
    "retrying": "Attempt attempts call_with_retry",
    "sender": "Idempotency",
    "settings": "configure policy_from_settings",
    "textbook": "retry_with_backoff",
    "threadpool": "Hard ThreadBulkhead",
    "vote": "Vote",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted([*_HOME, "deadline", "detached", "remaining"])  # noqa: PLE0605 - the table's names


def _host_world() -> World:
    from outlast.host import default_world

    return default_world()


# Who uses policies alone has imported no host; the machine is asked for at the first call.
offer_default_world(_host_world)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public name on first use."""
        if name not in _HOME:
            message = f"module 'outlast.protect' has no attribute {name!r}"
            raise AttributeError(message)
        from importlib import import_module

        value = getattr(import_module(f"outlast.protect.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the public names, whether imported yet or not."""
    return sorted({*globals(), *__all__})
