"""The retry decider: which errors, how often, after what wait."""

import pytest

from outlast.kernel import (
    CommandError,
    ConfigError,
    ConnectionLostError,
    Deadline,
    DeadlineError,
    IndefiniteError,
    InvariantError,
    OutlastError,
    Prng,
    RejectedError,
    ReplyLostError,
)
from outlast.protect import Backoff, GiveUp, Retry, RetryAfter

NS = 1_000_000_000


def decide(
    policy: Retry,
    error: BaseException,
    attempt: int = 1,
    *,
    deadline: Deadline | None = None,
    seed: int = 1,
) -> RetryAfter | GiveUp:
    return policy.decide(
        error, attempt=attempt, now_ns=100 * NS, deadline=deadline, prng=Prng(seed)
    )


def test_ceilings_double_up_to_the_cap() -> None:
    backoff = Backoff(base=0.1, cap=5.0)
    assert [backoff.ceiling(n) for n in range(1, 9)] == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert backoff.ceiling(10_000) == 5.0


def test_draws_are_even_over_the_whole_range() -> None:
    backoff, prng = Backoff(base=1.0, cap=8.0), Prng(3)
    draws = [backoff.draw_ns(4, prng) for _ in range(4000)]
    assert backoff.delay(4, Prng(3)) == draws[0] / NS
    assert 0 <= min(draws) < 0.01 * NS
    assert 3.99 * NS < max(draws) <= 4 * NS
    for quarter in range(4):
        share = sum(quarter * NS <= d < (quarter + 1) * NS for d in draws)
        assert 900 < share < 1100


@pytest.mark.parametrize(
    ("base", "cap", "says"),
    [
        (0, 1, "base is 0"),
        (1, 0, "cap is 0"),
        (2, 1, r"cap \(1 s\) is below base \(2 s\)"),
        (float("inf"), float("inf"), "finite"),
        (float("nan"), 1, "base is nan"),
    ],
)
def test_backoff_is_checked(base: float, cap: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Backoff(base=base, cap=cap)


def test_attempts_count_the_first_call() -> None:
    policy = Retry(on=OSError, attempts=3)
    kinds = [type(decide(policy, OSError(), n)) for n in (1, 2, 3)]
    assert kinds == [RetryAfter, RetryAfter, GiveUp]
    assert decide(policy, OSError(), 3) == GiveUp("3 of 3 attempts used")
    assert isinstance(decide(Retry(on=OSError, attempts=None), OSError(), 10**6), RetryAfter)


def test_only_named_errors() -> None:
    policy = Retry(on=(OSError, KeyError))
    assert isinstance(decide(policy, TimeoutError()), RetryAfter)
    assert isinstance(decide(policy, KeyError()), RetryAfter)
    assert decide(policy, ValueError()) == GiveUp("ValueError is not among the errors to retry")
    picky = Retry(on=lambda error: "busy" in str(error))
    assert isinstance(decide(picky, ValueError("busy")), RetryAfter)
    assert isinstance(decide(picky, ValueError("bad")), GiveUp)


@pytest.mark.parametrize(
    "error",
    [CommandError("no"), InvariantError("bug"), ReplyLostError(), KeyboardInterrupt()],
)
def test_what_is_never_retried(error: BaseException) -> None:
    policy = Retry(on=lambda _: True, repeat_indefinite=True)
    assert isinstance(decide(policy, error), GiveUp)


@pytest.mark.parametrize("error", [ConnectionLostError(), DeadlineError(), IndefiniteError()])
def test_indefinite_errors_need_a_word(error: OutlastError) -> None:
    assert isinstance(decide(Retry(on=OutlastError), error), GiveUp)
    assert isinstance(decide(Retry(on=OSError), ConnectionLostError()), GiveUp)
    assert isinstance(decide(Retry(on=OutlastError, repeat_indefinite=True), error), RetryAfter)
    with pytest.raises(ConfigError, match=f"on names {type(error).__name__}"):
        Retry(on=type(error))
    Retry(on=type(error), repeat_indefinite=True)


def test_retry_after_is_honoured_and_cut() -> None:
    policy = Retry(on=RejectedError, base=0.1, cap=0.1, retry_after_cap=30)
    assert decide(policy, RejectedError(retry_after=2.5)) == RetryAfter(int(2.5 * NS))
    assert decide(policy, RejectedError(retry_after=9e9)) == RetryAfter(30 * NS)
    drawn = decide(policy, RejectedError())
    for asked in (0, -5):
        assert decide(policy, RejectedError(retry_after=asked)) == drawn


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    policy = Retry(on=RejectedError)
    error = RejectedError(retry_after=2)
    assert isinstance(decide(policy, error, deadline=Deadline(102 * NS + 1)), RetryAfter)
    refused = decide(policy, error, deadline=Deadline(102 * NS))
    assert refused == GiveUp("the next wait of 2.000 s does not fit in 2.000 s")
    assert isinstance(decide(policy, error, deadline=Deadline.never()), RetryAfter)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"on": OSError, "attempts": 0}, "attempts is 0"),
        ({"on": OSError, "retry_after_cap": -1}, "retry_after_cap is -1"),
        ({"on": OSError, "base": 3, "cap": 2}, "cap"),
        ({"on": BaseException}, "BaseException"),
        ({"on": (OSError, 5)}, "5"),
    ],
)
def test_settings_are_checked(given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Retry(**given)  # type: ignore[arg-type]
