"""``retry_with_backoff``: the loop of the textbooks, as a function."""

from collections.abc import Callable
from typing import TypeVar

from outlast.kernel import ConfigError
from outlast.protect.policy import Policy
from outlast.protect.retry import Retry

R = TypeVar("R")


def retry_with_backoff(func: Callable[[], R], max_retries: int = 3, base_delay: float = 1.0) -> R:
    """Call ``func()`` until it succeeds, at most ``max_retries`` times, and return its result.

    Like the loop in the textbooks: ``max_retries`` is the number of calls, any ``Exception`` is
    retried, the widest wait doubles from ``base_delay`` seconds each time (drawn with full
    jitter), and the last exception comes through itself. :class:`Retry` can do more; above all it
    asks which errors are worth it. A coroutine function gives a coroutine.

    Args:
        func: Called without arguments.
        max_retries: Calls at most, the first included. 1 or more.
        base_delay: Widest wait before the second call, in seconds.

    Raises:
        ConfigError: Definite. A value is out of range.
        Exception: What the last call raised.
    """
    calls: object = max_retries
    if isinstance(calls, bool) or not isinstance(calls, int) or calls < 1:
        raise ConfigError(f"retry_with_backoff: max_retries is {max_retries!r}; 1 or more calls")
    delay: object = base_delay
    if not isinstance(delay, int | float) or not 0 < delay < float("inf"):
        raise ConfigError(f"retry_with_backoff: base_delay is {base_delay!r}; seconds above 0")
    cap = max(60.0, base_delay)
    retry = Retry(
        Exception, max_retries, base=base_delay, cap=cap, repeat_indefinite=True, nested="allow"
    )
    return Policy(retry=retry).call(func)
