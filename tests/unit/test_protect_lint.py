"""What ``Policy.lint`` finds, and what it lets pass."""

from typing import Any

import pytest

from outlast.kernel import BulkheadFullError, CircuitOpenError, OutlastError, RejectedError
from outlast.protect import (
    Budget,
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Finding,
    Hard,
    Hedge,
    Idempotency,
    Keyed,
    Policy,
    RateLimit,
    Retry,
)


def codes(**parts: Any) -> list[str]:
    return [finding.code for finding in Policy("p", **parts).lint()]


def retry(**settings: Any) -> Retry:
    return Retry(**{"on": ConnectionError, **settings})


def breaker(**settings: Any) -> CircuitBreaker:
    return CircuitBreaker(5, 30, **settings)


def test_a_sound_policy_has_no_findings() -> None:
    assert codes(
        timeout=8.0, retry=retry(), breaker=breaker(), limit=Bulkhead(20, queue=50, max_wait=1.0),
        rate=RateLimit(100, max_wait=0.5), attempt_timeout=2.0, fallback=Fallback(0),
        hedge=Hedge(after=0.5, budget=Budget()), idempotency=Idempotency(),
    ) == []  # fmt: skip
    assert codes() == []


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"timeout": 2.0, "attempt_timeout": 2.0}, "attempt-timeout-idle"),
        ({"timeout": 2.0, "attempt_timeout": Hard(3.0)}, "attempt-timeout-idle"),
        ({"timeout": 5.0, "retry": retry()}, "one-attempt-takes-all"),
        ({"timeout": 5.0, "attempt_timeout": 2.0, "retry": retry(repeat_indefinite=True)},
         "attempts-do-not-fit"),
        ({"timeout": 5.0, "attempt_timeout": 2.0, "retry": retry(), "idempotency": Idempotency()},
         "attempts-do-not-fit"),
        ({"attempt_timeout": 2.0, "retry": retry(on=TimeoutError)},
         "attempt-timeouts-not-retried"),
        ({"attempt_timeout": Hard(2.0), "retry": retry(on=(KeyError, OSError))},
         "attempt-timeouts-not-retried"),
        ({"retry": retry(attempts=None)}, "retry-without-end"),
        ({"retry": retry(on=CircuitOpenError), "breaker": breaker(), "attempt_timeout": 1.0},
         "retry-of-refusals"),
        ({"retry": retry(on=(OSError, RejectedError)), "breaker": breaker(), "timeout": 1.0,
          "attempt_timeout": 0.1}, "retry-of-refusals"),
        ({"retry": retry(jitter="none")}, "retry-in-step"),
        ({"breaker": breaker(slow_call=2.0, slow_rate=0.5), "attempt_timeout": 2.0},
         "nothing-is-slow"),
        ({"breaker": breaker(probe_timeout=1.0), "attempt_timeout": 2.0}, "probe-given-up"),
        ({"breaker": breaker()}, "breaker-sees-no-hang"),
        ({"breaker": Keyed(breaker, by=str)}, "breaker-sees-no-hang"),
        ({"limit": Bulkhead(1, queue=1, max_wait=2.0), "timeout": 2.0}, "waits-too-long"),
        ({"rate": RateLimit(1, max_wait=3.0), "timeout": 2.0}, "waits-too-long"),
        ({"hedge": Hedge(after=2.0, budget=Budget()), "attempt_timeout": 1.0}, "hedge-too-late"),
        ({"hedge": Hedge(after=1.0)}, "hedge-without-budget"),
        ({"breaker": breaker(), "retry": retry(), "attempt_timeout": 1.0,
          "order": ("breaker", "retry")}, "breaker-outside-retry"),
        ({"limit": Bulkhead(1), "retry": retry(), "order": ("limit", "retry")},
         "permit-held-while-waiting"),
        ({"fallback": Fallback(1), "retry": retry(), "order": ("retry", "fallback")},
         "fallback-inside-retry"),
    ],
)  # fmt: skip
def test_what_is_probably_not_meant_is_found(parts: dict[str, Any], code: str) -> None:
    assert code in codes(**parts)


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"timeout": 2.1, "attempt_timeout": 2.0}, "attempt-timeout-idle"),
        ({"timeout": 6.0, "attempt_timeout": 2.0, "retry": retry(repeat_indefinite=True)},
         "attempts-do-not-fit"),
        ({"timeout": 5.0, "attempt_timeout": 2.0, "retry": retry()}, "attempts-do-not-fit"),
        ({"timeout": 1.0, "attempt_timeout": 0.5,
          "retry": retry(attempts=None, repeat_indefinite=True)}, "attempts-do-not-fit"),
        ({"attempt_timeout": 2.0, "retry": retry()}, "attempt-timeouts-not-retried"),
        ({"attempt_timeout": 2.0, "retry": retry(on=TimeoutError, repeat_indefinite=True)},
         "attempt-timeouts-not-retried"),
        ({"attempt_timeout": 2.0, "retry": retry(on=TimeoutError), "idempotency": Idempotency()},
         "attempt-timeouts-not-retried"),
        ({"timeout": 2.0, "retry": retry(on=TimeoutError)}, "attempt-timeouts-not-retried"),
        ({"retry": retry(on=OutlastError, repeat_indefinite=True), "breaker": breaker(),
          "attempt_timeout": 1.0}, "retry-of-refusals"),
        ({"retry": retry(on=(Exception, BulkheadFullError)), "breaker": breaker()},
         "retry-of-refusals"),
        ({"timeout": 9.0, "retry": retry(attempts=None)}, "retry-without-end"),
        ({"retry": retry(on=CircuitOpenError)}, "retry-of-refusals"),
        ({"breaker": breaker(slow_call=1.9, slow_rate=0.5), "attempt_timeout": 2.0},
         "nothing-is-slow"),
        ({"breaker": breaker(probe_timeout=2.0), "attempt_timeout": 2.0}, "probe-given-up"),
        ({"breaker": breaker(), "timeout": 1.0}, "breaker-sees-no-hang"),
        ({"limit": Bulkhead(1, queue=1, max_wait=1.9), "timeout": 2.0}, "waits-too-long"),
        ({"hedge": Hedge(after=0.9), "attempt_timeout": 1.0}, "hedge-too-late"),
    ],
)  # fmt: skip
def test_what_may_well_be_meant_is_let_pass(parts: dict[str, Any], code: str) -> None:
    assert code not in codes(**parts)


def test_a_finding_says_what_happens_and_what_would_be_right() -> None:
    (finding,) = Policy(timeout=2.0, attempt_timeout=3.0).lint()
    assert isinstance(finding, Finding)
    assert finding.severity == "warning"
    assert str(finding) == (
        "warning attempt-timeout-idle: attempt_timeout (3 s) is not below timeout (2 s): that "
        "ends first; make attempt_timeout shorter, or leave it out"
    )
