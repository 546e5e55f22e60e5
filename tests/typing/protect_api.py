"""Protected calls as a user's type checker sees them; read by checkers, never run.

Each line with an ignore must be an error: both checkers are told to object to needless ones.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedCallResult=false

from collections.abc import AsyncIterator, Awaitable, Iterator
from functools import partial
from typing import assert_type

from outlast import Bulkhead, CircuitBreaker, Policy, Retry, retry_with_backoff
from outlast.protect import (
    AdaptiveLimit,
    Budget,
    Fallback,
    Finding,
    Hard,
    Hedge,
    Idempotency,
    Keyed,
    PolicyAttempt,
    RateLimit,
    SlidingWindow,
    TimeWindow,
)


def host_of(url: str) -> str:
    """A key."""
    return url


policy = Policy(
    "rates",
    timeout=5.0,
    retry=Retry(on=(ConnectionError, TimeoutError), attempts=3, budget=Budget()),
    breaker=CircuitBreaker(failure_threshold=5, recovery_timeout=30),
    rate=RateLimit(100, max_wait=0.5),
    limit=Bulkhead(20, queue=50),
    attempt_timeout=2.0,
    hedge=Hedge(after=0.5),
    fallback=Fallback([]),
    idempotency=Idempotency(),
)
other = Policy(
    limit=AdaptiveLimit(),
    rate=SlidingWindow(10, 1.0),
    attempt_timeout=Hard(1.0),
    breaker=Keyed(lambda: CircuitBreaker(window=TimeWindow(30)), by=host_of),
)


@policy
def rate(currency: str, *, digits: int = 2) -> float:
    """Plain."""
    return round(len(currency), digits)


@policy
async def rate_async(currency: str, *, digits: int = 2) -> float:
    """A coroutine."""
    return round(len(currency), digits)


@policy
def rates(currency: str) -> Iterator[float]:
    """A generator."""
    yield rate(currency)


@policy
async def rates_async(currency: str) -> AsyncIterator[float]:
    """An asynchronous generator."""
    yield await rate_async(currency)


class Client:
    """Methods."""

    @policy
    def ask(self, what: str) -> bytes:
        """Ask."""
        return what.encode()

    @policy
    async def ask_async(self, what: str) -> bytes:
        """Ask."""
        return what.encode()

    @staticmethod
    @policy
    def fixed(what: int) -> int:
        """Ask."""
        return what


@CircuitBreaker(5, 30)
def guarded(number: int) -> str:
    """By one part alone."""
    return str(number)


async def main(client: Client) -> None:
    """Signatures are kept: arguments and results."""
    assert_type(rate("EUR", digits=3), float)
    assert_type(await rate_async("EUR"), float)
    assert_type(rates("EUR"), Iterator[float])
    assert_type(rates_async("EUR"), AsyncIterator[float])
    assert_type(client.ask("x"), bytes)
    assert_type(await client.ask_async("x"), bytes)
    assert_type(Client.fixed(1), int)
    assert_type(guarded(1), str)

    rate(5)  # type: ignore[arg-type]
    rate("EUR", figures=3)  # type: ignore[call-arg]
    await rate_async()  # type: ignore[call-arg]
    client.ask(5)  # type: ignore[arg-type]
    guarded("x")  # type: ignore[arg-type]

    assert_type(policy.call(len, "x"), int)
    assert_type(await policy.call(rate_async, "EUR"), float)
    assert_type(policy.call(partial(rate, "EUR")), float)
    assert_type(await policy.acall(rate_async, "EUR", digits=1), float)
    assert_type(policy.acall(rate_async, "EUR"), Awaitable[float])
    assert_type(Retry(on=OSError).call(rate, "EUR"), float)
    policy.call(rate, 5)  # type: ignore[arg-type]
    policy.acall(rate, "EUR")  # type: ignore[arg-type]

    for attempt in policy.attempts():
        assert_type(attempt, PolicyAttempt)
        with attempt:
            assert_type(attempt.number, int)
    async for one in policy.attempts():
        async with one:
            assert_type(one.succeeded, bool)
    with other, CircuitBreaker(5, 30).try_admit() as permit:
        permit.fail(ValueError())
    async with policy:
        pass

    assert_type(policy.lint(), list[Finding])
    assert_type(policy.replace(timeout=3.0), Policy)
    assert_type(retry_with_backoff(lambda: 5, max_retries=3, base_delay=1), int)
    policy.timeout = 3.0  # type: ignore[misc]


assert_type(CircuitBreaker().failure_count, int)
assert CircuitBreaker().state in {"CLOSED", "OPEN", "HALF_OPEN"}
