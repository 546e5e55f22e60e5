"""Parts of each library, made for ``benchmarks.probes``: breakers, retries, limits, timeouts.

A maker takes settings and returns a decorator. Where a library lets one choose, it is given the
settings that fit the question best.
"""

from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Any

from benchmarks.peers.calls import OURS, Function

Decorator = Callable[[Function], Function]
Makers = dict[str, Callable[..., Decorator]]


# --- breakers: (failures that open it, seconds open) ---------------------------------------------


def ours_breaker(failures: int, recovery: float) -> Decorator:
    from outlast import CircuitBreaker

    return CircuitBreaker(failures, recovery, recovery_cap=recovery, probe_timeout=3 * recovery)


def pybreaker_breaker(failures: int, recovery: float) -> Decorator:
    import pybreaker

    return pybreaker.CircuitBreaker(failures, recovery)


def circuitbreaker_breaker(failures: int, recovery: float) -> Decorator:
    import circuitbreaker

    return circuitbreaker.CircuitBreaker(failures, recovery, Exception, name="probe").decorate


def purgatory_breaker(failures: int, recovery: float) -> Decorator:
    import purgatory

    return purgatory.SyncCircuitBreakerFactory(failures, recovery)("probe")


def purgatory_async(failures: int, recovery: float) -> Decorator:
    import purgatory

    return purgatory.AsyncCircuitBreakerFactory(failures, recovery)("probe")


def nopanic_breaker(failures: int, recovery: float) -> Decorator:
    import nopanic

    return nopanic.circuit_breaker(min_calls=failures, reset_timeout=recovery)


def interlock_breaker(failures: int, recovery: float) -> Decorator:
    import interlock

    return interlock.CircuitBreaker(name="probe", config=interlock.Config(
        minimum_number_of_calls=failures, wait_duration_in_open=recovery,
        permitted_calls_in_half_open=1,
    ))  # fmt: skip


def pyresilience_breaker(failures: int, recovery: float) -> Decorator:
    import pyresilience

    return pyresilience.resilient(circuit_breaker=pyresilience.CircuitBreakerConfig(
        failure_threshold=failures, recovery_timeout=recovery, success_threshold=1
    ))  # fmt: skip


def redress_core(failures: int, recovery: float) -> Any:
    import redress

    every = set(redress.ErrorClass)
    return redress.CircuitBreaker(
        failure_threshold=failures, recovery_timeout_s=recovery, trip_on=every
    )


def redress_breaker(failures: int, recovery: float) -> Decorator:
    import redress

    call = redress.Policy(circuit_breaker=redress_core(failures, recovery)).call
    return lambda function: lambda *args: call(lambda: function(*args))


def redress_async(failures: int, recovery: float) -> Decorator:
    import redress

    call = redress.AsyncPolicy(circuit_breaker=redress_core(failures, recovery)).call
    return lambda function: lambda *args: call(lambda: function(*args))


def fluxgate_settings(failures: int, recovery: float) -> dict[str, Any]:
    from fluxgate import permits, retries, trippers

    return {
        "tripper": (trippers.Closed() & trippers.MinRequests(failures)
                    | trippers.HalfOpened() & trippers.MinRequests(1))
        & trippers.FailureRate(0.5),
        "retry": retries.Cooldown(recovery), "permit": permits.All(),
    }  # fmt: skip


def fluxgate_breaker(failures: int, recovery: float) -> Decorator:
    import fluxgate

    return fluxgate.CircuitBreaker(**fluxgate_settings(failures, recovery))


def fluxgate_async(failures: int, recovery: float) -> Decorator:
    import fluxgate

    settings = fluxgate_settings(failures, recovery)
    return fluxgate.AsyncCircuitBreaker(max_half_open_calls=1, **settings)


def resilient_breaker(failures: int, recovery: float) -> Decorator:
    import resilient_circuit
    from resilient_circuit.storage import InMemoryStorage

    return resilient_circuit.CircuitProtectorPolicy(
        resource_key="probe", storage=InMemoryStorage(), cooldown=timedelta(seconds=recovery),
        failure_limit=Fraction(failures, failures + 1), success_limit=Fraction(1, 1),
    )  # fmt: skip


def hyx_breaker(failures: int, recovery: float) -> Decorator:
    from hyx.circuitbreaker import consecutive_breaker

    return consecutive_breaker(
        failure_threshold=failures, recovery_time_secs=recovery, recovery_threshold=1
    )


def aioresilience_breaker(failures: int, recovery: float) -> Decorator:
    import aioresilience

    breaker = aioresilience.CircuitBreaker(config=aioresilience.CircuitConfig(
        failure_threshold=failures, recovery_timeout=recovery, success_threshold=1
    ))  # fmt: skip
    return lambda function: lambda *args: breaker.call(function, *args)


BREAKERS: Makers = {
    OURS: ours_breaker, "pybreaker": pybreaker_breaker, "circuitbreaker": circuitbreaker_breaker,
    "purgatory": purgatory_breaker, "nopanic": nopanic_breaker, "interlock": interlock_breaker,
    "pyresilience": pyresilience_breaker, "redress": redress_breaker,
    "fluxgate": fluxgate_breaker, "resilient-circuit": resilient_breaker,
}  # fmt: skip
BREAKERS_ASYNC: Makers = {
    OURS: ours_breaker, "circuitbreaker": circuitbreaker_breaker, "purgatory": purgatory_async,
    "hyx": hyx_breaker, "nopanic": nopanic_breaker, "interlock": interlock_breaker,
    "pyresilience": pyresilience_breaker, "redress": redress_async, "fluxgate": fluxgate_async,
    "resilient-circuit": resilient_breaker, "aioresilience": aioresilience_breaker,
}  # fmt: skip


# --- retries: (attempts), of any exception -------------------------------------------------------


def ours_retry(attempts: int) -> Decorator:
    from outlast import Retry

    return Retry(on=lambda _: True, attempts=attempts, base=0.001, cap=0.001)


def tenacity_retry(attempts: int) -> Decorator:
    import tenacity

    return tenacity.retry(
        retry=tenacity.retry_if_not_exception_type(ZeroDivisionError), reraise=True,
        stop=tenacity.stop_after_attempt(attempts), wait=tenacity.wait_fixed(0.001),
    )  # fmt: skip


def stamina_retry(attempts: int) -> Decorator:
    import stamina

    return stamina.retry(
        on=lambda _: True, attempts=attempts, wait_initial=0.001, wait_max=0.001, wait_jitter=0
    )


def backoff_retry(attempts: int) -> Decorator:
    import backoff

    return backoff.on_exception(
        backoff.constant, Exception, interval=0.001, max_tries=attempts, logger=None
    )


def nopanic_retry(attempts: int) -> Decorator:
    import nopanic

    return nopanic.retry(attempts, Exception, backoff=0.001)


def pyresilience_retry(attempts: int) -> Decorator:
    import pyresilience

    return pyresilience.resilient(
        retry=pyresilience.RetryConfig(max_attempts=attempts, delay=0.001)
    )


def redress_retry(attempts: int) -> Decorator:
    import redress
    from redress.policy.decorator import retry

    return retry(
        classifier=lambda _: redress.ErrorClass.TRANSIENT, max_attempts=attempts,
        strategy=redress.decorrelated_jitter(0.001, 0.001),
    )  # fmt: skip


def resilient_retry(attempts: int) -> Decorator:
    import resilient_circuit

    return resilient_circuit.RetryWithBackoffPolicy(max_retries=attempts - 1)


def hyx_retry(attempts: int) -> Decorator:
    from hyx.retry import retry

    return retry(attempts=attempts, backoff=0.001)


def aioresilience_retry(attempts: int) -> Decorator:
    import aioresilience

    policy = aioresilience.RetryPolicy(config=aioresilience.RetryConfig(
        max_attempts=attempts, initial_delay=0.001, max_delay=0.001
    ))  # fmt: skip
    return lambda function: lambda *args: policy.execute(function, *args)


RETRIES: Makers = {
    OURS: ours_retry, "tenacity": tenacity_retry, "stamina": stamina_retry,
    "backoff": backoff_retry, "nopanic": nopanic_retry, "pyresilience": pyresilience_retry,
    "redress": redress_retry, "resilient-circuit": resilient_retry,
}  # fmt: skip
RETRIES_ASYNC: Makers = RETRIES | {"hyx": hyx_retry, "aioresilience": aioresilience_retry}


# --- total time: (seconds) for five attempts; bulkheads: (permits); timeouts: (seconds) ----------


def ours_total(seconds: float) -> Decorator:
    from outlast import Policy, Retry

    return Policy("probe", timeout=seconds, retry=Retry(on=Exception, attempts=5))


def tenacity_total(seconds: float) -> Decorator:
    import tenacity

    return tenacity.retry(stop=tenacity.stop_after_delay(seconds), reraise=True)


def stamina_total(seconds: float) -> Decorator:
    import stamina

    return stamina.retry(on=Exception, attempts=5, timeout=seconds)


def backoff_total(seconds: float) -> Decorator:
    import backoff

    return backoff.on_exception(
        backoff.constant, Exception, interval=0.01, max_tries=5, max_time=seconds, logger=None
    )


def nopanic_total(seconds: float) -> Decorator:
    import nopanic

    return nopanic.compose(nopanic.deadline(seconds), nopanic.retry(5, Exception))


def pyresilience_total(seconds: float) -> Decorator:
    import pyresilience

    return pyresilience.resilient(
        retry=pyresilience.RetryConfig(max_attempts=5, delay=0.01),
        timeout=pyresilience.TimeoutConfig(seconds=seconds, per_attempt=False),
    )


def redress_total(seconds: float) -> Decorator:
    from redress.policy.decorator import retry

    return retry(max_attempts=5, deadline_s=seconds)


TOTALS: Makers = {
    OURS: ours_total, "tenacity": tenacity_total, "stamina": stamina_total,
    "backoff": backoff_total, "nopanic": nopanic_total, "pyresilience": pyresilience_total,
    "redress": redress_total,
}  # fmt: skip


def ours_bulkhead(permits: int) -> Decorator:
    from outlast import Bulkhead

    return Bulkhead(permits, queue=2)


def nopanic_bulkhead(permits: int) -> Decorator:
    import nopanic

    return nopanic.bulkhead(permits)


def pyresilience_bulkhead(permits: int) -> Decorator:
    import pyresilience

    return pyresilience.resilient(
        bulkhead=pyresilience.BulkheadConfig(max_concurrent=permits, max_wait=5.0)
    )


def interlock_bulkhead(permits: int) -> Decorator:
    import interlock

    return interlock.Pipeline(interlock.BulkheadStrategy(permits, max_wait=5.0))


def hyx_bulkhead(permits: int) -> Decorator:
    from hyx.bulkhead import bulkhead

    limit = bulkhead(permits, permits + 2)

    def decorate(function: Function) -> Function:
        async def guarded(*args: Any) -> Any:
            async with limit:
                return await function(*args)

        return guarded

    return decorate


def aioresilience_bulkhead(permits: int) -> Decorator:
    import aioresilience

    limit = aioresilience.Bulkhead(
        config=aioresilience.BulkheadConfig(max_concurrent=permits, max_waiting=2)
    )
    return lambda function: lambda *args: limit.execute(function, *args)


BULKHEADS: Makers = {
    OURS: ours_bulkhead, "hyx": hyx_bulkhead, "nopanic": nopanic_bulkhead,
    "pyresilience": pyresilience_bulkhead, "interlock": interlock_bulkhead,
    "aioresilience": aioresilience_bulkhead,
}  # fmt: skip


def ours_timeout(seconds: float) -> Decorator:
    from outlast import Hard, Policy

    return Policy("probe", attempt_timeout=Hard(seconds))


def nopanic_timeout(seconds: float) -> Decorator:
    import nopanic

    return nopanic.timeout(seconds)


def pyresilience_timeout(seconds: float) -> Decorator:
    import pyresilience

    return pyresilience.resilient(timeout=pyresilience.TimeoutConfig(seconds=seconds))


def interlock_timeout(seconds: float) -> Decorator:
    import interlock

    return interlock.sync_timeout(seconds)


TIMEOUTS: Makers = {
    OURS: ours_timeout, "nopanic": nopanic_timeout, "pyresilience": pyresilience_timeout,
    "interlock": interlock_timeout,
}  # fmt: skip


# --- attempts as an iterator over one shared object ----------------------------------------------


def ours_attempts() -> Callable[[], Any]:
    from outlast import Policy, Retry

    return Policy("probe", retry=Retry(on=ConnectionError, base=0.001, cap=0.001)).attempts


def tenacity_attempts() -> Callable[[], Any]:
    import tenacity

    shared = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.001), reraise=True
    )
    return lambda: shared


def stamina_attempts() -> Callable[[], Any]:
    import stamina

    return lambda: stamina.retry_context(  # as documented: one for each use
        on=ConnectionError, attempts=3, wait_initial=0.001, wait_jitter=0
    )


ATTEMPTS: dict[str, Callable[[], Callable[[], Any]]] = {
    OURS: ours_attempts, "tenacity": tenacity_attempts, "stamina": stamina_attempts,
}  # fmt: skip
