"""``Retry``: how often, after what wait, and when not; through real calls."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from outlast import deadline
from outlast.kernel import (
    BulkheadFullError,
    CommandError,
    ConfigError,
    ConnectionLostError,
    InvariantError,
    Prng,
    RateLimitedError,
    happened,
)
from outlast.protect import Backoff, GiveUp, Policy, Retry, RetryAfter
from outlast.protect.core.retry import RetryRules
from outlast.protect.events import RetryGaveUp, RetryScheduled
from tests.support.protect_retry import NS, Callee, again
from tests.support.protected import Stage, play, stage

# --- how often and when ------------------------------------------------------------------------


def test_it_calls_until_it_succeeds_and_waits_longer_each_time() -> None:
    with stage() as here:
        callee = Callee(failures=3)
        assert again(attempts=5).call(callee.ask) == "fine"
        assert (callee.attempts, here.now) == ([1, 2, 3, 4], 1.0 + 2.0 + 4.0)
        assert [(e.attempt, e.delay, e.error) for e in here.of(RetryScheduled)] == [
            (1, 1.0, "ConnectionError"), (2, 2.0, "ConnectionError"), (3, 4.0, "ConnectionError"),
        ]  # fmt: skip


def test_the_last_exception_comes_through_itself_with_a_note() -> None:
    with stage() as here:
        own = ConnectionError("mine")
        callee = Callee(error=own)
        with pytest.raises(ConnectionError) as caught:
            again(attempts=3).call(callee.ask)
        assert caught.value is own
        assert own.__notes__ == ["after 3 attempts: 3 of 3 attempts used"]
        (gave_up,) = here.of(RetryGaveUp)
        assert (gave_up.attempt, gave_up.reason) == (3, "3 of 3 attempts used")


def test_an_error_that_is_not_retried_gets_no_note() -> None:
    with stage() as here:
        with pytest.raises(ValueError, match="no answer") as caught:
            again().call(Callee(error=ValueError).ask)
        assert not hasattr(caught.value, "__notes__")
        (gave_up,) = here.of(RetryGaveUp)
        assert gave_up.reason == "ValueError is not among the errors to retry"


def test_attempts_of_one_means_no_retry() -> None:
    with stage():
        callee = Callee()
        with pytest.raises(ConnectionError):
            again(attempts=1).call(callee.ask)
        assert callee.calls == 1


def test_attempts_of_none_go_on_to_the_deadline() -> None:
    with stage() as here:
        callee = Callee()
        with deadline(100), pytest.raises(ConnectionError) as caught:
            again(attempts=None, cap=10.0).call(callee.ask)
        assert here.now <= 100
        assert callee.calls == 13  # 1 + 2 + 4 + 8 and then ten each
        assert "does not fit" in caught.value.__notes__[0]


def test_a_wait_that_would_not_end_in_time_is_not_begun() -> None:
    with stage() as here:
        callee = Callee()
        with pytest.raises(ConnectionError):
            Policy(timeout=2.5, retry=again(attempts=9)).call(callee.ask)
        assert (callee.calls, here.now) == (2, 1.0)
        assert here.of(RetryGaveUp)[0].reason == "the next wait of 2.000 s does not fit in 1.500 s"


# --- jitter ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jitter", "low", "high"), [("full", 0.0, 4.0), ("equal", 2.0, 4.0), ("none", 4.0, 4.0)]
)
def test_jitter_draws_evenly_within_its_bounds(jitter: Any, low: float, high: float) -> None:
    backoff, prng = Backoff(1.0, 60.0, jitter=jitter), Prng(2)
    draws = [backoff.draw_ns(4, prng) / NS for _ in range(2000)]
    assert low <= min(draws) <= low + 0.02
    assert high - 0.02 <= max(draws) <= high
    assert sum(draws) / len(draws) == pytest.approx((low + high) / 2, abs=0.06)


def test_decorrelated_jitter_goes_from_the_wait_before() -> None:
    backoff, prng = Backoff(1.0, 20.0, jitter="decorrelated"), Prng(2)
    first = [backoff.draw_ns(2, prng) / NS for _ in range(1000)]
    assert 1.0 <= min(first) < 1.02
    assert 2.98 < max(first) <= 3.0
    then = [backoff.draw_ns(3, prng, 5 * NS) / NS for _ in range(1000)]
    assert 1.0 <= min(then) < 1.1
    assert 14.9 < max(then) <= 15.0
    capped = [backoff.draw_ns(4, prng, 19 * NS) / NS for _ in range(1000)]
    assert max(capped) == 20.0
    assert backoff.draw_ns(1, prng) == 0  # nothing is waited before the first attempt


def test_a_wait_that_was_asked_for_is_what_decorrelated_jitter_goes_from() -> None:
    with stage() as here:
        callee = Callee(error=RateLimitedError("slow down", retry_after=10.0))
        with pytest.raises(RateLimitedError):
            again(on=RateLimitedError, jitter="decorrelated", attempts=2).call(callee.ask)
        assert here.of(RetryScheduled)[0].delay == 10.0


def test_the_factor_is_what_waits_grow_by() -> None:
    backoff = Backoff(1.0, 50.0, factor=3.0)
    assert [backoff.ceiling(n) for n in range(1, 8)] == [0, 1, 3, 9, 27, 50, 50]
    flat = Backoff(0.5, 50.0, factor=1)
    assert [flat.ceiling(n) for n in (2, 9, 10_000)] == [0.5] * 3
    assert Backoff(1.0, 1e9, factor=1e300).ceiling(10_000) == 1e9


def test_backoffs_are_values() -> None:
    assert Backoff(1, 2) == Backoff(1, 2) != Backoff(1, 2, jitter="none")
    assert len({Backoff(1, 2), Backoff(1, 2), Backoff(1, 3)}) == 2
    assert repr(Backoff(0.5, 2)) == "Backoff(0.5, 2, jitter='full')"
    assert Backoff(1, 2) != 1


def test_decisions_are_values() -> None:
    assert RetryAfter(5) == RetryAfter(5) != RetryAfter(6)
    assert GiveUp("x") == GiveUp("x") != GiveUp("y")
    assert len({RetryAfter(5), RetryAfter(5), GiveUp("x"), GiveUp("x")}) == 2
    assert (repr(RetryAfter(5)), repr(GiveUp("x"))) == (
        "RetryAfter(delay_ns=5)", "GiveUp(reason='x')",
    )  # fmt: skip


# --- what the callee asks for ------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "waited"), [(7.0, 7.0), (500.0, 60.0), (0.2, 1.0), (-3.0, 1.0)])
def test_what_a_refusal_asks_for_is_done_up_to_a_cap(asked: float, waited: float) -> None:
    with stage() as here:
        callee = Callee(failures=1, error=BulkheadFullError("full", retry_after=asked))
        assert again(on=BulkheadFullError).call(callee.ask) == "fine"
        assert here.now == waited


def test_what_the_headers_of_an_error_ask_for_is_done() -> None:
    class HTTPStatusError(Exception):
        def __init__(self, message: str) -> None:
            super().__init__(message)
            self.response = SimpleNamespace(status_code=503, headers={"Retry-After": "9"})

    with stage() as here:
        assert again(on=HTTPStatusError).call(Callee(1, HTTPStatusError).ask) == "fine"
        assert here.now == 9.0


def test_what_the_headers_of_a_response_ask_for_is_done() -> None:
    responses = [
        SimpleNamespace(status_code=503, headers={"retry-after": "4"}),
        SimpleNamespace(status_code=200, headers={}),
    ]
    with stage() as here:
        policy = Policy(retry=again(on_result=lambda response: response.status_code == 503))
        assert policy.call(responses.pop, 0).status_code == 200
        assert here.now == 4.0


def test_a_wish_that_does_not_fit_in_the_deadline_ends_the_call() -> None:
    with stage() as here:
        callee = Callee(error=RateLimitedError("slow down", retry_after=30.0))
        with deadline(20), pytest.raises(RateLimitedError):
            again(on=RateLimitedError).call(callee.ask)
        assert (callee.calls, here.now) == (1, 0.0)


# --- which errors ------------------------------------------------------------------------------


def test_a_function_tells_which_errors_are_meant() -> None:
    with stage():
        callee = Callee(failures=1, error=ConnectionError)
        assert again(on=lambda error: "answer" in str(error)).call(callee.ask) == "fine"
        other = Callee(failures=1, error=ConnectionError)
        with pytest.raises(ConnectionError):
            again(on=lambda error: "else" in str(error)).call(other.ask)


@pytest.mark.parametrize("error", [CommandError("no"), InvariantError("bug")])
def test_answers_and_our_own_bugs_are_never_retried(error: Exception) -> None:
    with stage():
        callee = Callee(error=error)
        with pytest.raises(type(error)):
            again(on=Exception).call(callee.ask)
        assert callee.calls == 1


def test_what_may_have_happened_is_repeated_only_where_that_was_said() -> None:
    with stage():
        callee = Callee(failures=1, error=ConnectionLostError("lost"))
        with pytest.raises(ConnectionLostError):
            again(on=Exception).call(callee.ask)
        assert callee.calls == 1
        assert again(on=Exception, repeat_indefinite=True).call(Callee(1).ask) == "fine"


@pytest.mark.parametrize(
    "stop", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit]
)
def test_cancellation_and_the_end_of_the_program_are_never_retried(stop: Any) -> None:
    with stage() as here:
        policy = Policy("p", retry=Retry(on=lambda _: True))
        callee = Callee(error=stop)
        with pytest.raises(stop):
            policy.call(callee.ask)
        assert callee.calls == 1
        assert here.told() == []
        assert policy.snapshot()["calls"]["cancelled"] == 1

    async def story(here: Stage) -> None:
        callee = Callee(error=stop)
        with pytest.raises(stop):
            await policy.call(callee.ask_async)
        assert callee.calls == 1

    play(story)


def test_an_interruption_in_a_wait_ends_the_call() -> None:
    async def story(here: Stage) -> None:
        callee, policy = Callee(), Policy("p", retry=again(base=10))
        task = asyncio.ensure_future(policy.call(callee.ask_async))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert callee.calls == 1
        assert policy.snapshot()["calls"]["cancelled"] == 1

    play(story)


# --- results -----------------------------------------------------------------------------------


def test_results_can_be_retried_and_the_last_one_is_returned_as_it_is() -> None:
    with stage() as here:
        policy = Policy("p", retry=again(on_result=lambda result: result is None, attempts=3))
        answers = [None, None, "fine"]
        assert policy.call(answers.pop, 0) == "fine"
        assert here.now == 3.0
        nothing: list[Any] = [None] * 3
        assert policy.call(nothing.pop, 0) is None
        assert nothing == []
        calls = policy.snapshot()["calls"]
        assert (calls["succeeded"], calls["failed"], calls["retried"]) == (1, 1, 4)
        assert here.of(RetryGaveUp)[0].error == "NoneType"


def test_results_of_coroutines_are_judged_too() -> None:
    async def story(here: Stage) -> None:
        answers = [503, 503, 200]
        policy = Policy(retry=again(on_result=lambda status: status == 503))

        async def ask() -> int:
            return answers.pop(0)

        assert await policy(ask)() == 200
        assert here.now == 3.0

    play(story)


def test_a_judge_that_raises_is_counted_and_comes_through() -> None:
    with stage():
        policy = Policy("p", retry=again(on_result=lambda result: result.missing))
        with pytest.raises(AttributeError):
            policy.call(int)
        assert policy.snapshot()["calls"]["failed"] == 1


# --- settings ----------------------------------------------------------------------------------


def test_settings_change_live() -> None:
    with stage():
        retry = again(attempts=3)
        ask, callee = retry(Callee().ask), Callee()
        with pytest.raises(ConnectionError):
            ask()
        retry.configure(attempts=5, on=(ConnectionError, ValueError), nested="allow", factor=3.0)
        with pytest.raises(ConnectionError):
            retry.call(callee.ask)
        assert callee.calls == 5
        assert (retry.nested, retry.factor, retry.backoff.factor) == ("allow", 3.0, 3.0)
        before = retry.describe()
        for wrong in ({"attempts": 7, "cap": 0.1}, {"attempts": 0}, {"jitter": "some"}, {"x": 1}):
            with pytest.raises(ConfigError):
                retry.configure(**wrong)  # type: ignore[arg-type]
        assert retry.describe() == before


def test_what_it_says_of_itself_can_be_written_as_json() -> None:
    retry = Retry(on=(ConnectionError, RateLimitedError), attempts=None)
    assert json.loads(json.dumps(retry.describe())) == {
        "on": ["ConnectionError", "outlast.kernel.errors.RateLimitedError"], "attempts": None,
        "base": 0.1, "cap": 5.0, "retry_after_cap": 60.0, "repeat_indefinite": False,
        "jitter": "full", "factor": 2.0, "nested": "collapse",
    }  # fmt: skip
    named = Retry(on=happened)  # type: ignore[arg-type]
    assert named.describe()["on"] == "happened"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"attempts": 0}, "Retry: attempts is 0; it counts the first call, so 1 or more"),
        ({"attempts": 2.5}, "attempts is 2.5"),
        ({"attempts": True}, "attempts is True"),
        ({"attempts": "3"}, "attempts is '3'"),
        ({"base": "1"}, "base is 1; it must be above 0"),
        ({"base": 0}, "base is 0"),
        ({"cap": 0.01}, r"cap \(0.01 s\) is below base \(1.0 s\)"),
        ({"factor": 0.5}, "factor is 0.5; 1 or more"),
        ({"factor": float("inf")}, "factor is inf"),
        ({"jitter": "some"}, "jitter is 'some'; one of full, equal, decorrelated, none"),
        ({"retry_after_cap": -1}, "retry_after_cap is -1; 0 or more"),
        ({"retry_after_cap": None}, "retry_after_cap is None"),
        ({"nested": "never"}, "nested is 'never'; collapse or allow"),
        ({"on": "ConnectionError"}, "Retry: on is 'ConnectionError'"),
        ({"on": ()}, "Retry: on names no exception; give at least one class"),
        ({"on": KeyboardInterrupt}, "on names KeyboardInterrupt"),
        ({"on": ConnectionLostError}, "on names ConnectionLostError, after which the call may"),
    ],
)
def test_settings_are_checked(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        again(**given)


def test_rules_tell_why_they_refuse() -> None:
    class Done(ConnectionLostError):
        happened = "yes"

    rules = RetryRules(Exception, 3, Backoff(), 60.0, False)
    decide: Any = rules.decide
    told = {"attempt": 1, "now_ns": 0, "deadline": None, "prng": Prng(1)}
    assert decide(Done("x"), **told) == GiveUp("the call has happened")
    assert decide(KeyboardInterrupt(), **told) == GiveUp(
        "KeyboardInterrupt is not a failure of the call"
    )
    assert decide(ConnectionLostError("x"), **told) == GiveUp(
        "the call may have happened, and repeat_indefinite is not set"
    )
    assert Retry(on=OSError).decide(OSError(), **told).__class__ is RetryAfter
