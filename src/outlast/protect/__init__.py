"""Protecting calls to things that fail. Needs the standard library alone."""

from outlast.protect.aio import Attempt, attempts, call_with_retry
from outlast.protect.core.retry import Backoff, GiveUp, Retry, RetryAfter
from outlast.protect.deadline import deadline
from outlast.protect.events import RetryGaveUp, RetryScheduled

__all__ = [
    "Attempt",
    "Backoff",
    "GiveUp",
    "Retry",
    "RetryAfter",
    "RetryGaveUp",
    "RetryScheduled",
    "attempts",
    "call_with_retry",
    "deadline",
]
