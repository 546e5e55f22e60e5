"""What a test is about is put there by hand: a circuit that is open, calls that fail."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Never

from outlast.kernel import ConfigError
from outlast.kernel.registry import watched
from outlast.protect.breaker import CircuitBreaker
from outlast.protect.policy import Policy


@contextmanager
def forced_open(*targets: CircuitBreaker | Policy | str) -> Iterator[None]:
    """Keep circuits open inside the block, in all threads, hosts and runs.

    Calls are refused with ``CircuitOpenError`` and reach nothing. Afterwards each breaker is in
    the mode in which it was, and closed.

    Args:
        targets: Breakers; policies that have one; names of such policies.

    Raises:
        ConfigError: Definite. There is no such policy, or it has no breaker that could be meant.

    >>> breaker = CircuitBreaker(5, 60)
    >>> with forced_open(breaker):
    ...     breaker.state
    'OPEN'
    >>> breaker.state
    'CLOSED'
    """
    breakers = [breaker for target in targets for breaker in _breakers(target)]
    with ExitStack() as stack:
        for breaker in breakers:
            back: dict[str, Callable[[], None]] = {
                "normal": breaker.enable, "disabled": breaker.disable, "shadow": breaker.shadow,
                "isolated": breaker.isolate,
            }  # fmt: skip
            stack.callback(back[breaker.mode])
            breaker.isolate()
        yield


@contextmanager
def forced(policy: Policy, error: BaseException | type[BaseException]) -> Iterator[None]:
    """Let every attempt under ``policy`` fail with ``error`` instead of being made.

    Everything around the attempt happens as if the function had raised: retries and their waits,
    the breaker, fallbacks, counts, events. It holds inside the block, in all threads and tasks;
    attempts that were under way go on.

    Args:
        policy: Which.
        error: An exception, or its class, of which each attempt raises a new one.

    Raises:
        TypeError: ``error`` is no exception, or a part of the policy is chosen by a key.

    >>> policy = Policy("rates")
    >>> with forced(policy, ConnectionResetError):
    ...     policy.call(print, "not printed")
    Traceback (most recent call last):
    ConnectionResetError
    """
    given: object = error
    kind = given if isinstance(given, type) else type(given)
    if not issubclass(kind, BaseException):
        raise TypeError(f"forced: {error!r} is no exception")
    with policy.forced(_Failing(error)):
        yield


class _Failing(int):
    """Stands for the nanoseconds that an attempt may take; nobody can reckon with it."""

    _error: Any

    def __new__(cls, error: Any) -> "_Failing":
        made = super().__new__(cls, 1)
        made._error = error
        return made

    def __radd__(self, other: object) -> Never:
        error = self._error
        if isinstance(error, type):
            raise error
        try:
            raise error
        finally:
            del error  # this frame is in its traceback

    def raised(self, error: BaseException) -> bool:
        """Whether ``error`` is the one."""
        return error is self._error or type(error) is self._error


def _breakers(target: Any) -> list[CircuitBreaker]:
    if isinstance(target, CircuitBreaker):
        return [target]
    if isinstance(target, Policy):
        breaker = target.parts.get("breaker")
        if isinstance(breaker, CircuitBreaker):
            return [breaker]
        if breaker is None:
            raise ConfigError(f"forced_open: {target!r} has no breaker")
        message = f"forced_open: {target!r} has a breaker for each key; give breakers.part(key)"
        raise ConfigError(message)
    policies = [one for one in watched() if isinstance(one, Policy)]
    named = [one for one in policies if one.name == target]
    if not named:
        known = ", ".join(sorted({one.name for one in policies if "breaker" in one.parts}))
        message = f"forced_open: no policy is called {target!r}; there is {known or 'none'}"
        raise ConfigError(message)
    return [breaker for one in named for breaker in _breakers(one)]
