"""Probes P17 and P18: the time of tests, and time spent in a queue."""

import threading

import pytest

from outlast import (
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    Hard,
    Policy,
    Retry,
)
from outlast.testing import virtual_time


def test_p17_waits_and_breakers_agree_about_virtual_time() -> None:
    calls = 0

    @Policy(
        "p17", retry=Retry(on=(ConnectionError, CircuitOpenError), base=40, cap=40, jitter="none"),
        breaker=CircuitBreaker(failure_threshold=1, recovery_timeout=30),
    )  # fmt: skip
    def ask() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError
        return "fine"

    with virtual_time() as clock:
        assert ask() == "fine"  # the second attempt comes when the breaker lets it through
        assert clock.now == pytest.approx(40, abs=1)
    assert calls == 2


@pytest.mark.timeout(60)
def test_p18_healthy_calls_do_not_time_out_in_a_queue() -> None:
    together = threading.Barrier(16, timeout=15)  # in fewer threads they never meet
    ask = Policy("p18", attempt_timeout=Hard(30.0))(together.wait)
    outcomes: list[BaseException | None] = []

    def caller() -> None:
        try:
            ask()
        except BaseException as error:
            outcomes.append(error)
        else:
            outcomes.append(None)

    callers = [threading.Thread(target=caller) for _ in range(16)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert len(outcomes) == 16
    assert all(one is None or isinstance(one, BulkheadFullError) for one in outcomes)
    assert not any(isinstance(one, TimeoutError) for one in outcomes)
