"""Coroutine functions, guarded by ours and by every peer that has the policy.

Adapters run inside a loop, since some peers ask for one when they decorate. Settings are those of
``calls_sync``; libraries whose object serves both kinds use its adapter.
"""

import asyncio
from typing import Any

from benchmarks.peers import calls_sync as blocking
from benchmarks.peers.calls import (
    BARE,
    FOUR,
    MANY,
    OUR_KINDS,
    OURS,
    SECONDS,
    STACK,
    THREE,
    Function,
    Table,
    ours,
)  # fmt: skip

ASYNC = Table()


async def work(value: int) -> int:
    """What is guarded. It never waits: what is measured is the guard."""
    return value


@ASYNC.case("bare", BARE, "closure, try/except and a counter")
def bare(function: Function) -> Function:
    calls = 0

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        try:
            value = await function(*args, **kwargs)
        except Exception:
            calls += 1
            raise
        calls += 1
        return value

    return guarded


@ASYNC.case("bare", "direct", "the function itself")
def direct(function: Function) -> Function:
    return function


for _group, _kinds in OUR_KINDS:
    ASYNC.case(_group, OURS)(ours(*_kinds))
ASYNC.case("timeout", OURS)(ours("attempt_timeout"))
ASYNC.case(FOUR, OURS)(ours("retry", "breaker", "limit", "attempt_timeout"))

BOTH = (
    ("retry", "tenacity", blocking.tenacity_retry),
    ("retry", "stamina", blocking.stamina_retry),
    ("retry", "backoff", blocking.backoff_retry),
    ("retry", "nopanic", blocking.nopanic_retry),
    ("retry", "pyresilience", blocking.pyresilience_retry),
    ("retry", "redress", blocking.redress_retry),
    ("retry", "resilient-circuit", blocking.resilient_retry),
    ("breaker", "nopanic", blocking.nopanic_breaker),
    ("breaker", "interlock", blocking.interlock_breaker),
    ("breaker", "pyresilience", blocking.pyresilience_breaker),
    ("breaker", "circuitbreaker", blocking.circuitbreaker_breaker),
    ("breaker", "resilient-circuit", blocking.resilient_breaker),
    ("slow-call", "nopanic", blocking.nopanic_slow),
    ("slow-call", "interlock", blocking.interlock_slow),
    ("slow-call", "pyresilience", blocking.pyresilience_slow),
    ("bulkhead", "nopanic", blocking.nopanic_bulkhead),
    ("bulkhead", "pyresilience", blocking.pyresilience_bulkhead),
    ("bulkhead", "interlock", blocking.interlock_bulkhead),
    ("rate", "nopanic", blocking.nopanic_rate),
    ("rate", "nopanic adaptive", blocking.nopanic_adaptive_rate),
    ("rate", "pyresilience", blocking.pyresilience_rate),
    ("timeout", "nopanic", blocking.nopanic_timeout),
    ("timeout", "pyresilience", blocking.pyresilience_timeout),
    ("fallback", "nopanic", blocking.nopanic_fallback),
    ("fallback", "pyresilience", blocking.pyresilience_fallback),
    ("fallback", "interlock", blocking.interlock_fallback),
    ("cache", "nopanic", blocking.nopanic_cache),
    ("cache", "pyresilience", blocking.pyresilience_cache),
    (STACK, "stamina + circuitbreaker", blocking.stamina_circuitbreaker),
    (STACK, "backoff + circuitbreaker", blocking.backoff_circuitbreaker),
    (STACK, "nopanic", blocking.nopanic_two),
    (STACK, "pyresilience", blocking.pyresilience_two),
    (STACK, "resilient-circuit", blocking.resilient_two),
    (THREE, "nopanic", blocking.nopanic_three),
    (THREE, "pyresilience", blocking.pyresilience_three),
    (THREE, "interlock + tenacity", blocking.interlock_three),
    (FOUR, "nopanic", blocking.nopanic_four),
    (FOUR, "pyresilience", blocking.pyresilience_four),
)
for _group, _who, _build in BOTH:
    ASYNC.case(_group, _who)(_build)


# --- hyx ---------------------------------------------------------------------------------------


def hyx_stack(function: Function, *kinds: str) -> Function:
    """hyx's decorators, one around the other, outermost first."""
    from hyx.bulkhead import bulkhead
    from hyx.circuitbreaker import consecutive_breaker
    from hyx.retry import retry
    from hyx.timeout import timeout

    parts = {
        "retry": lambda: retry(on=ValueError, attempts=2),  # makes three calls
        "breaker": consecutive_breaker,
        "bulkhead": lambda: bulkhead(20, 20),
        "timeout": lambda: timeout(SECONDS),
    }
    for kind in reversed(kinds):
        function = parts[kind]()(function)
    return function


@ASYNC.case("retry", "hyx")
def hyx_retry(function: Function) -> Function:
    return hyx_stack(function, "retry")


@ASYNC.case("breaker", "hyx")
def hyx_breaker(function: Function) -> Function:
    return hyx_stack(function, "breaker")


@ASYNC.case("bulkhead", "hyx")
def hyx_bulkhead(function: Function) -> Function:
    return hyx_stack(function, "bulkhead")


@ASYNC.case("timeout", "hyx")
def hyx_timeout(function: Function) -> Function:
    return hyx_stack(function, "timeout")


@ASYNC.case(STACK, "hyx")
def hyx_two(function: Function) -> Function:
    return hyx_stack(function, "retry", "breaker")


@ASYNC.case(THREE, "hyx")
def hyx_three(function: Function) -> Function:
    return hyx_stack(function, "retry", "breaker", "bulkhead")


@ASYNC.case(FOUR, "hyx")
def hyx_four(function: Function) -> Function:
    return hyx_stack(function, "retry", "breaker", "bulkhead", "timeout")


@ASYNC.case("fallback", "hyx")
def hyx_fallback(function: Function) -> Function:
    from hyx.fallback import fallback

    async def instead(*_: Any, **__: Any) -> int:
        return 0

    return fallback(instead)(function)


@ASYNC.case("rate", "hyx")
def hyx_rate(function: Function) -> Function:
    from hyx.ratelimit.api import ratelimiter
    from hyx.ratelimit.managers import TokenBucketLimiter

    return ratelimiter(TokenBucketLimiter(MANY, 1.0))(function)


# --- aioresilience -----------------------------------------------------------------------------


def aioresilience_with(function: Function, execute: Any) -> Function:
    """Call through an object's ``execute`` or ``call``."""

    async def guarded(value: int) -> Any:
        return await execute(function, value)

    return guarded


@ASYNC.case("retry", "aioresilience")
def aioresilience_retry(function: Function) -> Function:
    import aioresilience as library

    return aioresilience_with(function, library.RetryPolicy().execute)


@ASYNC.case("breaker", "aioresilience")
def aioresilience_breaker(function: Function) -> Function:
    import aioresilience as library

    return aioresilience_with(function, library.CircuitBreaker().call)


@ASYNC.case("bulkhead", "aioresilience")
def aioresilience_bulkhead(function: Function) -> Function:
    import aioresilience as library

    bulkhead = library.Bulkhead(config=library.BulkheadConfig(max_concurrent=20))
    return aioresilience_with(function, bulkhead.execute)


@ASYNC.case("timeout", "aioresilience")
def aioresilience_timeout(function: Function) -> Function:
    import aioresilience as library

    manager = library.TimeoutManager(config=library.TimeoutConfig(timeout=SECONDS))
    return aioresilience_with(function, manager.execute)


@ASYNC.case("fallback", "aioresilience")
def aioresilience_fallback(function: Function) -> Function:
    import aioresilience as library

    handler = library.FallbackHandler(config=library.FallbackConfig(fallback=0))
    return aioresilience_with(function, handler.execute)


@ASYNC.case("adaptive", "aioresilience", "by success ratio, not by latency")
def aioresilience_adaptive(function: Function) -> Function:
    import aioresilience as library

    limiter = library.AdaptiveConcurrencyLimiter()

    async def guarded(value: int) -> Any:
        async with limiter:
            return await function(value)

    return guarded


# --- others ------------------------------------------------------------------------------------


@ASYNC.case("breaker", "purgatory")
def purgatory_breaker(function: Function) -> Function:
    import purgatory

    return purgatory.AsyncCircuitBreakerFactory(default_threshold=5, default_ttl=30)("bench")(
        function
    )


@ASYNC.case("breaker", "redress")
def redress_breaker(function: Function) -> Function:
    import redress

    call = redress.AsyncPolicy(circuit_breaker=redress.CircuitBreaker()).call

    async def guarded(value: int) -> Any:
        return await call(lambda: function(value))

    return guarded


@ASYNC.case("breaker", "fluxgate")
def fluxgate_breaker(function: Function) -> Function:
    import fluxgate

    return fluxgate.AsyncCircuitBreaker()(function)


@ASYNC.case("slow-call", "fluxgate")
def fluxgate_slow(function: Function) -> Function:
    import fluxgate
    from fluxgate.trippers import FailureRate, MinRequests, SlowRate

    tripper = MinRequests(10) & (FailureRate(0.5) | SlowRate(0.5, threshold=1.0))
    return fluxgate.AsyncCircuitBreaker(tripper=tripper)(function)


@ASYNC.case("bulkhead", "asyncio.Semaphore", "the standard library, by hand")
def semaphore(function: Function) -> Function:
    limit = asyncio.Semaphore(20)

    async def guarded(value: int) -> Any:
        async with limit:
            return await function(value)

    return guarded


@ASYNC.case("timeout", "asyncio.timeout", "the standard library, by hand")
def asyncio_timeout(function: Function) -> Function:
    async def guarded(value: int) -> Any:
        async with asyncio.timeout(SECONDS):
            return await function(value)

    return guarded


@ASYNC.case("timeout", "interlock")
def interlock_timeout(function: Function) -> Function:
    import interlock

    async def guarded(value: int) -> Any:
        async with interlock.timeout(SECONDS):
            return await function(value)

    return guarded


@ASYNC.case("rate", "aiolimiter")
def aiolimiter_rate(function: Function) -> Function:
    import aiolimiter

    limiter = aiolimiter.AsyncLimiter(MANY, 1.0)

    async def guarded(value: int) -> Any:
        async with limiter:
            return await function(value)

    return guarded


@ASYNC.case("rate", "limits fixed")
def limits_rate(function: Function) -> Function:
    import limits
    import limits.aio

    limiter = limits.aio.strategies.FixedWindowRateLimiter(limits.aio.storage.MemoryStorage())
    hit, item = limiter.hit, limits.RateLimitItemPerSecond(MANY)

    async def guarded(value: int) -> Any:
        if not await hit(item, "bench"):
            raise RuntimeError("rate limited")
        return await function(value)

    return guarded


@ASYNC.case("hedge", "nopanic")
def nopanic_hedge(function: Function) -> Function:
    import nopanic

    return nopanic.hedge(delay=SECONDS)(function)


@ASYNC.case(STACK, "tenacity + circuitbreaker", "no lock")
def tenacity_circuitbreaker(function: Function) -> Function:
    return blocking.tenacity_retry(blocking.circuitbreaker_breaker(function))


@ASYNC.case(STACK, "redress")
def redress_two(function: Function) -> Function:
    import redress

    call = redress.AsyncPolicy(
        retry=redress.AsyncRetry(
            classifier=redress.default_classifier, strategy=redress.decorrelated_jitter(),
            max_attempts=3,
        ),
        circuit_breaker=redress.CircuitBreaker(),
    ).call  # fmt: skip

    async def guarded(value: int) -> Any:
        return await call(lambda: function(value))

    return guarded


@ASYNC.case(FOUR, "interlock + tenacity")
def interlock_four(function: Function) -> Function:
    return blocking.interlock_stack(function, "retry", "breaker", "bulkhead", "timeout")
