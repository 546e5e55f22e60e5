"""Failing over: the attempts of one logical call, each at another instance.

Nothing here repeats anything. A call of a pool is a function that takes an instance and asks it;
the policy around it decides about attempts, waits, budgets, deadlines, hedges, and each attempt
takes an instance that this call has not been to.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from outlast.kernel import (
    IndefiniteError,
    RejectedError,
    TooLateError,
    current_idempotency_key,
    happened,
)
from outlast.pool.endpoint import refuse_wrong
from outlast.protect.budget import Budget
from outlast.protect.call import current_call
from outlast.protect.core.classify import classify
from outlast.protect.policy import Policy
from outlast.protect.retry import Retry

if TYPE_CHECKING:
    from outlast.pool.pool import Pool

_WAIT: Final = 0.001
"""Another instance need not be waited for; this spreads those that have no other."""


def is_keyed() -> bool:
    """Whether a repeat of the call under way is recognised, by its key."""
    call = current_call()
    return bool((call is not None and call.key) or current_idempotency_key())


def may_repeat(error: BaseException, idempotent: bool) -> bool:
    """Whether a call that ended with ``error`` may be made again at another instance.

    After an error that surely had no effect; after any other only where two calls are as good as
    one, or are recognised by a key. Never after an answer, or what fails everywhere.
    """
    if isinstance(error, TooLateError) or not isinstance(error, Exception):
        return False
    if isinstance(error, RejectedError):
        return True
    if classify(error) in {"answer", "permanent"}:
        return False
    return idempotent or happened(error) == "no" or is_keyed()


def failover(attempts: int, on: Any) -> Retry:
    """Return the retry of a pool: other instances, at once, within a budget of its own.

    What an instance asks for by ``Retry-After`` is meant for itself, and others are asked.
    """
    return Retry(
        on, attempts, base=_WAIT, cap=0.1, retry_after_cap=0.0, repeat_indefinite=True,
        budget=Budget(ratio=0.5, floor=5.0),
    )  # fmt: skip


class Guard:
    """The policy of a pool, with failover where the user's own has no retry.

    Args:
        name: Of the pool.
        policy: The user's, if there is one.
        attempts: Calls at most.
        on: What to fail over after.
    """

    __slots__ = ("_given", "_made", "_retry")

    def __init__(self, name: str, policy: Policy | None, attempts: int, on: Any) -> None:
        self._given = policy
        self._made: Policy | None = None
        self._retry: Retry | None = None
        has_one = policy is not None and "retry" in policy.parts
        if attempts > 1 and not has_one:
            self._retry = failover(attempts, on)
        if policy is None:
            self._made = Policy(name, retry=self._retry)

    def policy(self) -> Policy:
        """Return it as it is now; limits of time may have been changed live."""
        given, retry = self._given, self._retry
        if given is None or retry is None:
            return self._made if given is None else given  # type: ignore[return-value]
        made = self._made
        if made is None or made.version != given.version:
            made = self._made = given.variant({"retry": retry})
        return made


def attempt_async(pool: "Pool", function: Callable[..., Any]) -> Callable[..., Any]:
    """Return one logical call: a coroutine function whose every call is an attempt."""
    tried: list[str] = []
    valid = pool.valid

    async def attempt(*args: Any, **kwargs: Any) -> Any:
        endpoint = pool.take(tried)
        try:
            result = await function(endpoint, *args, **kwargs)
            refuse_wrong(endpoint, valid, result)
        except BaseException as error:
            pool.end(endpoint, error)
            raise
        pool.end(endpoint, None)
        if endpoint.lie:
            raise wrong_answer(pool.name, endpoint.address, endpoint.lie)
        return result

    return attempt


def attempt_blocking(pool: "Pool", function: Callable[..., Any]) -> Callable[..., Any]:
    """Return one logical call: a function whose every call is an attempt."""
    tried: list[str] = []
    valid = pool.valid

    def attempt(*args: Any, **kwargs: Any) -> Any:
        endpoint = pool.take(tried)
        try:
            result = function(endpoint, *args, **kwargs)
            refuse_wrong(endpoint, valid, result)
        except BaseException as error:
            pool.end(endpoint, error)
            raise
        pool.end(endpoint, None)
        if endpoint.lie:
            raise wrong_answer(pool.name, endpoint.address, endpoint.lie)
        return result

    return attempt


def wrong_answer(name: str, address: str, lie: str) -> IndefiniteError:
    """Return the error for an answer that is not to be believed."""
    return IndefiniteError(f"{name}: {address} gave a wrong answer: {lie}")
