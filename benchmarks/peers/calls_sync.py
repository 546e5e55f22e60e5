"""Blocking functions, guarded by ours and by every peer that has the policy.

Each is set up in its cheapest way that still guards: no hooks, no events, no logging; three
attempts for ValueError, five failures, twenty permits, two seconds, rates never reached.
"""

from datetime import timedelta
from fractions import Fraction
from typing import Any

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

SYNC = Table()


@SYNC.case("bare", BARE, "closure, try/except and a counter")
def bare(function: Function) -> Function:
    calls = 0

    def guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        try:
            value = function(*args, **kwargs)
        except Exception:
            calls += 1
            raise
        calls += 1
        return value

    return guarded


@SYNC.case("bare", "direct", "the function itself")
def direct(function: Function) -> Function:
    return function


def work(value: int) -> int:
    """What is guarded."""
    return value


# --- ours --------------------------------------------------------------------------------------


for _group, _kinds in OUR_KINDS:
    SYNC.case(_group, OURS)(ours(*_kinds))
SYNC.case("timeout", OURS, "cooperative: the deadline is handed to sockets")(
    ours("attempt_timeout")
)
SYNC.case("timeout", f"{OURS} Hard", "in a worker thread, as the peers' is")(ours("hard"))
SYNC.case(FOUR, OURS, "cooperative")(ours("retry", "breaker", "limit", "attempt_timeout"))
SYNC.case(FOUR, f"{OURS} Hard", "in a worker thread, as the peers' is")(
    ours("retry", "breaker", "limit", "hard")
)


# --- retry -------------------------------------------------------------------------------------


@SYNC.case("retry", "tenacity")
def tenacity_retry(function: Function) -> Function:
    import tenacity

    return tenacity.retry(
        retry=tenacity.retry_if_exception_type(ValueError), stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random_exponential(0.1), reraise=True,
    )(function)  # fmt: skip


@SYNC.case("retry", "stamina")
def stamina_retry(function: Function) -> Function:
    import stamina

    return stamina.retry(on=ValueError, attempts=3, timeout=None)(function)


@SYNC.case("retry", "backoff")
def backoff_retry(function: Function) -> Function:
    import backoff

    return backoff.on_exception(backoff.expo, ValueError, max_tries=3, logger=None)(function)


@SYNC.case("retry", "nopanic")
def nopanic_retry(function: Function) -> Function:
    import nopanic

    return nopanic.retry(3, ValueError)(function)


@SYNC.case("retry", "pyresilience")
def pyresilience_retry(function: Function) -> Function:
    return pyresilience(function, "retry")


@SYNC.case("retry", "redress")
def redress_retry(function: Function) -> Function:
    from redress.policy.decorator import retry

    return retry(max_attempts=3)(function)


@SYNC.case("retry", "resilient-circuit")
def resilient_retry(function: Function) -> Function:
    return resilient_policies("retry")[0](function)


# --- breaker -----------------------------------------------------------------------------------


@SYNC.case("breaker", "pybreaker", "lock held during the call")
def pybreaker_breaker(function: Function) -> Function:
    import pybreaker

    return pybreaker.CircuitBreaker(fail_max=5, reset_timeout=30)(function)


@SYNC.case("breaker", "circuitbreaker", "no lock")
def circuitbreaker_breaker(function: Function) -> Function:
    import circuitbreaker

    return circuitbreaker.CircuitBreaker(5, 30, ValueError, name="bench").decorate(function)


@SYNC.case("breaker", "purgatory")
def purgatory_breaker(function: Function) -> Function:
    import purgatory

    return purgatory.SyncCircuitBreakerFactory(default_threshold=5, default_ttl=30)("bench")(
        function
    )


@SYNC.case("breaker", "nopanic")
def nopanic_breaker(function: Function) -> Function:
    import nopanic

    return nopanic.circuit_breaker()(function)


@SYNC.case("breaker", "interlock")
def interlock_breaker(function: Function) -> Function:
    import interlock

    return interlock.CircuitBreaker(name="bench")(function)


@SYNC.case("breaker", "pyresilience")
def pyresilience_breaker(function: Function) -> Function:
    return pyresilience(function, "circuit_breaker")


@SYNC.case("breaker", "redress")
def redress_breaker(function: Function) -> Function:
    import redress

    call = redress.Policy(circuit_breaker=redress.CircuitBreaker()).call
    return lambda value: call(lambda: function(value))


@SYNC.case("breaker", "fluxgate")
def fluxgate_breaker(function: Function) -> Function:
    import fluxgate

    return fluxgate.CircuitBreaker()(function)


@SYNC.case("breaker", "resilient-circuit")
def resilient_breaker(function: Function) -> Function:
    return resilient_policies("breaker")[0](function)


@SYNC.case("slow-call", "nopanic")
def nopanic_slow(function: Function) -> Function:
    import nopanic

    return nopanic.circuit_breaker(slow_call_duration=1.0, slow_call_threshold=0.5)(function)


@SYNC.case("slow-call", "interlock")
def interlock_slow(function: Function) -> Function:
    import interlock

    config = interlock.Config(slow_call_duration_threshold=1.0, slow_call_rate_threshold=0.5)
    return interlock.CircuitBreaker(name="bench", config=config)(function)


@SYNC.case("slow-call", "pyresilience")
def pyresilience_slow(function: Function) -> Function:
    import pyresilience as library

    breaker = library.CircuitBreakerConfig(
        sliding_window_size=100, slow_call_duration=1.0, slow_call_rate_threshold=0.5
    )
    return library.resilient(circuit_breaker=breaker)(function)


@SYNC.case("slow-call", "fluxgate")
def fluxgate_slow(function: Function) -> Function:
    import fluxgate
    from fluxgate.trippers import FailureRate, MinRequests, SlowRate

    tripper = MinRequests(10) & (FailureRate(0.5) | SlowRate(0.5, threshold=1.0))
    return fluxgate.CircuitBreaker(tripper=tripper)(function)


# --- limits ------------------------------------------------------------------------------------


@SYNC.case("bulkhead", "nopanic")
def nopanic_bulkhead(function: Function) -> Function:
    import nopanic

    return nopanic.bulkhead(20)(function)


@SYNC.case("bulkhead", "pyresilience")
def pyresilience_bulkhead(function: Function) -> Function:
    return pyresilience(function, "bulkhead")


@SYNC.case("bulkhead", "interlock")
def interlock_bulkhead(function: Function) -> Function:
    import interlock

    return interlock.Pipeline.builder().bulkhead(20).build()(function)


@SYNC.case("rate", "nopanic")
def nopanic_rate(function: Function) -> Function:
    import nopanic

    return nopanic.rate_limit(MANY)(function)


@SYNC.case("rate", "nopanic adaptive")
def nopanic_adaptive_rate(function: Function) -> Function:
    import nopanic

    return nopanic.adaptive_rate_limit(MANY)(function)


@SYNC.case("rate", "pyresilience")
def pyresilience_rate(function: Function) -> Function:
    return pyresilience(function, "rate_limiter")


@SYNC.case("rate", "limits fixed")
def limits_fixed(function: Function) -> Function:
    return limits_rate(function, "FixedWindowRateLimiter")


@SYNC.case("rate", "limits sliding")
def limits_sliding(function: Function) -> Function:
    return limits_rate(function, "SlidingWindowCounterRateLimiter")


def limits_rate(function: Function, strategy: str) -> Function:
    import limits

    limiter = getattr(limits.strategies, strategy)(limits.storage.MemoryStorage())
    hit, item = limiter.hit, limits.RateLimitItemPerSecond(MANY)

    def guarded(value: int) -> Any:
        if not hit(item, "bench"):
            raise RuntimeError("rate limited")
        return function(value)

    return guarded


@SYNC.case("rate", "pyrate-limiter", "a helper thread; its log of calls is bounded here")
def pyrate_rate(function: Function) -> Function:
    import pyrate_limiter

    limiter = pyrate_limiter.Limiter(pyrate_limiter.Rate(MANY, 20))  # per 20 ms
    take = limiter.try_acquire

    def guarded(value: int) -> Any:
        if not take("bench"):
            raise RuntimeError("rate limited")
        return function(value)

    return guarded


# --- timeout, fallback, cache --------------------------------------------------------------------


@SYNC.case("timeout", "nopanic", "a thread for each call")
def nopanic_timeout(function: Function) -> Function:
    import nopanic

    return nopanic.timeout(SECONDS)(function)


@SYNC.case("timeout", "pyresilience", "four threads")
def pyresilience_timeout(function: Function) -> Function:
    return pyresilience(function, "timeout")


@SYNC.case("timeout", "interlock", "a thread for each call")
def interlock_timeout(function: Function) -> Function:
    import interlock

    return interlock.sync_timeout(SECONDS)(function)


@SYNC.case("fallback", "nopanic")
def nopanic_fallback(function: Function) -> Function:
    import nopanic

    return nopanic.fallback(0)(function)


@SYNC.case("fallback", "pyresilience")
def pyresilience_fallback(function: Function) -> Function:
    return pyresilience(function, "fallback")


@SYNC.case("fallback", "interlock")
def interlock_fallback(function: Function) -> Function:
    import interlock

    return interlock.Pipeline.builder().fallback(lambda _: 0).build()(function)


@SYNC.case("cache", "nopanic")
def nopanic_cache(function: Function) -> Function:
    import nopanic

    return nopanic.cache(3600.0)(function)


@SYNC.case("cache", "pyresilience")
def pyresilience_cache(function: Function) -> Function:
    return pyresilience(function, "cache")


# --- stacks ------------------------------------------------------------------------------------


def pyresilience(function: Function, *kinds: str) -> Function:
    """One decorator of pyresilience with these parts."""
    import pyresilience as library

    parts = {
        "retry": library.RetryConfig(max_attempts=3, retry_on=(ValueError,)),
        "circuit_breaker": library.CircuitBreakerConfig(failure_threshold=5, recovery_timeout=30),
        "bulkhead": library.BulkheadConfig(max_concurrent=20),
        "rate_limiter": library.RateLimiterConfig(max_calls=MANY),
        "timeout": library.TimeoutConfig(seconds=SECONDS),
        "fallback": library.FallbackConfig(handler=0),
        "cache": library.CacheConfig(ttl=3600.0),
    }
    return library.resilient(**{kind: parts[kind] for kind in kinds})(function)


def resilient_policies(*kinds: str) -> list[Any]:
    """Policies of resilient-circuit, kept in this process."""
    import resilient_circuit as library
    from resilient_circuit.storage import InMemoryStorage

    def make(kind: str) -> Any:
        if kind == "retry":
            delay = library.ExponentialDelay(timedelta(seconds=0.1), timedelta(seconds=5))
            return library.RetryWithBackoffPolicy(backoff=delay, max_retries=2)
        return library.CircuitProtectorPolicy(
            resource_key="bench", storage=InMemoryStorage(), failure_limit=Fraction(5, 10),
            cooldown=timedelta(seconds=30),
        )  # fmt: skip

    return [make(kind) for kind in kinds]


def nopanic_stack(function: Function, *kinds: str) -> Function:
    """nopanic's composition of these parts, outermost first."""
    import nopanic

    parts = {
        "retry": lambda: nopanic.retry(3, ValueError),
        "breaker": nopanic.circuit_breaker,
        "bulkhead": lambda: nopanic.bulkhead(20),
        "timeout": lambda: nopanic.timeout(SECONDS),
    }
    return nopanic.compose(*(parts[kind]() for kind in kinds))(function)


def interlock_stack(function: Function, *kinds: str) -> Function:
    """interlock's pipeline of these parts, outermost first; its retry is tenacity's."""
    import interlock
    import tenacity

    builder = interlock.Pipeline.builder()
    for kind in kinds:
        if kind == "retry":
            builder.retry(attempts=3, retry=tenacity.retry_if_exception_type(ValueError))
        elif kind == "breaker":
            builder.circuit_breaker(interlock.CircuitBreaker(name="bench"))
        elif kind == "bulkhead":
            builder.bulkhead(20)
        else:
            builder.timeout(SECONDS)
    return builder.build()(function)


@SYNC.case(STACK, "tenacity + pybreaker")
def tenacity_pybreaker(function: Function) -> Function:
    return tenacity_retry(pybreaker_breaker(function))


@SYNC.case(STACK, "stamina + circuitbreaker")
def stamina_circuitbreaker(function: Function) -> Function:
    return stamina_retry(circuitbreaker_breaker(function))


@SYNC.case(STACK, "backoff + circuitbreaker", "no lock")
def backoff_circuitbreaker(function: Function) -> Function:
    return backoff_retry(circuitbreaker_breaker(function))


@SYNC.case(STACK, "nopanic")
def nopanic_two(function: Function) -> Function:
    return nopanic_stack(function, "retry", "breaker")


@SYNC.case(STACK, "pyresilience")
def pyresilience_two(function: Function) -> Function:
    return pyresilience(function, "retry", "circuit_breaker")


@SYNC.case(STACK, "redress")
def redress_two(function: Function) -> Function:
    import redress

    call = redress.Policy(
        retry=redress.Retry(
            classifier=redress.default_classifier, strategy=redress.decorrelated_jitter(),
            max_attempts=3,
        ),
        circuit_breaker=redress.CircuitBreaker(),
    ).call  # fmt: skip
    return lambda value: call(lambda: function(value))


@SYNC.case(STACK, "resilient-circuit")
def resilient_two(function: Function) -> Function:
    import resilient_circuit as library

    return library.SafetyNet(policies=resilient_policies("retry", "breaker"))(function)


@SYNC.case(THREE, "nopanic")
def nopanic_three(function: Function) -> Function:
    return nopanic_stack(function, "retry", "breaker", "bulkhead")


@SYNC.case(THREE, "pyresilience")
def pyresilience_three(function: Function) -> Function:
    return pyresilience(function, "retry", "circuit_breaker", "bulkhead")


@SYNC.case(THREE, "interlock + tenacity")
def interlock_three(function: Function) -> Function:
    return interlock_stack(function, "retry", "breaker", "bulkhead")


@SYNC.case(FOUR, "nopanic", "a thread for each call")
def nopanic_four(function: Function) -> Function:
    return nopanic_stack(function, "retry", "breaker", "bulkhead", "timeout")


@SYNC.case(FOUR, "pyresilience", "four threads")
def pyresilience_four(function: Function) -> Function:
    return pyresilience(function, "retry", "circuit_breaker", "bulkhead", "timeout")
