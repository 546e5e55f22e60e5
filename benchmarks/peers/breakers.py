"""One breaker of each library, for its memory."""

from collections.abc import Callable
from typing import Any

from benchmarks.peers.calls import OURS
from benchmarks.peers.calls_sync import resilient_policies


def breakers() -> dict[str, Callable[[], Any]]:
    """By library: what makes one breaker; a missing library is left out by who calls it."""

    def of_ours() -> Any:
        from outlast import CircuitBreaker

        return CircuitBreaker(failure_threshold=5, recovery_timeout=30)

    def of_pybreaker() -> Any:
        import pybreaker

        return pybreaker.CircuitBreaker()

    def of_circuitbreaker() -> Any:
        import circuitbreaker

        return circuitbreaker.CircuitBreaker(name="bench")

    def of_nopanic() -> Any:
        import nopanic

        return nopanic.circuit_breaker()

    def of_interlock() -> Any:
        import interlock

        return interlock.CircuitBreaker(name="bench")

    def of_redress() -> Any:
        import redress

        return redress.CircuitBreaker()

    def of_fluxgate() -> Any:
        import fluxgate

        return fluxgate.CircuitBreaker()

    def of_resilient() -> Any:
        return resilient_policies("breaker")[0]

    def of_hyx() -> Any:
        from hyx.circuitbreaker import consecutive_breaker

        return consecutive_breaker()

    def of_aioresilience() -> Any:
        import aioresilience

        return aioresilience.CircuitBreaker()

    return {
        OURS: of_ours, "pybreaker": of_pybreaker, "circuitbreaker": of_circuitbreaker,
        "hyx": of_hyx, "nopanic": of_nopanic, "interlock": of_interlock, "redress": of_redress,
        "fluxgate": of_fluxgate, "resilient-circuit": of_resilient,
        "aioresilience": of_aioresilience,
    }  # fmt: skip
