"""``Retry``: how often, after what wait, and when not; through real calls."""

import asyncio
import gc
import json
import weakref
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

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
from outlast.protect import (
    Backoff,
    Budget,
    CallInfo,
    GiveUp,
    Policy,
    Retry,
    RetryAfter,
    current_attempt,
    current_call,
)
from outlast.protect.call import current_call_var
from outlast.protect.core.retry import RetryRules
from outlast.protect.events import BudgetExhausted, RetryGaveUp, RetryScheduled
from tests.support.protected import Stage, play, stage

NS = 1_000_000_000


class Callee:
    """Fails a number of times, and notes when it was called."""

    def __init__(self, failures: int = 99, error: Any = ConnectionError) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0
        self.attempts: list[int] = []

    def ask(self) -> str:
        self.calls += 1
        self.attempts.append(current_attempt())
        if self.calls <= self.failures:
            raise self.error if isinstance(self.error, BaseException) else self.error("no answer")
        return "fine"

    async def ask_async(self) -> str:
        return self.ask()


def again(**settings: Any) -> Retry:
    return Retry(**{"on": ConnectionError, "base": 1.0, "jitter": "none", "cap": 60.0, **settings})


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


# --- between -----------------------------------------------------------------------------------


def test_the_hook_between_attempts_hears_the_error_before_the_wait() -> None:
    with stage() as here:
        heard: list[Any] = []
        retry = again(between=lambda error: heard.append((type(error), here.now)))
        assert retry.call(Callee(failures=2).ask) == "fine"
        assert heard == [(ConnectionError, 0.0), (ConnectionError, 1.0)]
        heard.clear()
        callee = Callee(failures=1)
        for attempt in Policy(retry=retry).attempts():
            with attempt:
                callee.ask()
        assert len(heard) == 1


def test_the_hook_between_attempts_may_be_a_coroutine_function() -> None:
    async def story(here: Stage) -> None:
        heard = []

        async def refresh(error: Exception) -> None:
            await asyncio.sleep(5)
            heard.append(type(error))

        policy = Policy(retry=again(between=refresh))
        assert await policy.call(Callee(failures=2).ask_async) == "fine"
        assert heard == [ConnectionError] * 2
        assert here.now == 5 + 1 + 5 + 2
        callee = Callee(failures=1)
        async for attempt in policy.attempts():
            async with attempt:
                await callee.ask_async()
        assert len(heard) == 3

        def items() -> Any:
            yield 1

        with pytest.raises(TypeError, match="refresh is a coroutine function; a plain one"):
            policy(callee.ask)
        with pytest.raises(TypeError, match="refresh is a coroutine function"):
            policy(items)
        with pytest.raises(TypeError, match="refresh is a coroutine function"):
            next(iter(policy.attempts()))

    play(story)


def test_a_hook_that_raises_ends_the_call_and_the_call_is_counted() -> None:
    with stage():
        policy = Policy("p", retry=again(between=lambda _: 1 / 0))
        callee = Callee()
        with pytest.raises(ZeroDivisionError):
            policy.call(callee.ask)
        assert callee.calls == 1
        assert policy.snapshot()["calls"]["failed"] == 1

        def by_attempts() -> None:
            for attempt in policy.attempts():
                with attempt:
                    callee.ask()

        with pytest.raises(ZeroDivisionError):
            by_attempts()
        assert policy.snapshot()["calls"]["failed"] == 2


# --- budgets -----------------------------------------------------------------------------------


def test_two_policies_share_a_budget() -> None:
    with stage() as here:
        budget = Budget(ratio=0.0, floor=0.3, window=10.0, name="b")  # three in ten seconds
        one = Policy("one", retry=again(budget=budget, attempts=3))
        two = Policy("two", retry=again(budget=budget, attempts=3))
        first, second = Callee(), Callee()
        with pytest.raises(ConnectionError):
            one.call(first.ask)
        with pytest.raises(ConnectionError) as caught:
            two.call(second.ask)
        assert (first.calls, second.calls) == (3, 2)
        assert caught.value.__notes__ == ["after 2 attempts: the budget is used up"]
        assert here.of(RetryGaveUp)[-1].reason == "the retry budget is used up"
        assert len(here.of(BudgetExhausted)) == 1


def test_every_way_of_calling_fills_the_budget_once_per_call() -> None:
    async def story(here: Stage) -> None:
        budget = Budget(ratio=1.0, floor=0.0, window=10.0)
        policy = Policy("p", retry=again(budget=budget))

        @policy
        def items() -> Any:
            yield 1

        @policy
        async def items_async() -> Any:
            yield 1

        await policy.call(Callee(0).ask_async)
        policy.call(Callee(0).ask)
        for attempt in policy.attempts():
            with attempt:
                pass
        async for one in policy.attempts():
            async with one:
                pass
        assert list(items()) == [1] == [item async for item in items_async()]
        assert budget.deposit() == 6

    play(story)


# --- retries within retries --------------------------------------------------------------------


def nested(nested: Any, **outer: Any) -> tuple[Callee, Any]:
    callee = Callee()
    inner = Policy("inner", retry=again(nested=nested))(callee.ask)
    return callee, Policy("outer", retry=again(nested=nested, **outer))(inner)


def test_nested_retries_do_not_multiply() -> None:
    with stage() as here:
        callee, ask = nested("collapse")
        with pytest.raises(ConnectionError) as caught:
            ask()
        assert callee.calls == 3
        reason = "an inner call has made 3 attempts already"
        assert here.of(RetryGaveUp)[-1].reason == reason
        assert len(caught.value.__notes__) == 1


def test_nested_retries_multiply_where_that_is_asked_for() -> None:
    with stage():
        callee, ask = nested("allow")
        with pytest.raises(ConnectionError):
            ask()
        assert callee.calls == 9


def test_an_inner_retry_is_seen_through_errors_that_wrap_it() -> None:
    with stage():
        callee = Callee()
        inner = again().alone()

        def wrapped() -> None:
            try:
                inner.call(callee.ask)
            except ConnectionError as error:
                raise RuntimeError("of the application") from error

        with pytest.raises(RuntimeError):
            again(on=RuntimeError).call(wrapped)
        assert callee.calls == 3


def test_inner_retries_of_a_repeated_attempt_are_not_made() -> None:
    with stage() as here:
        callee, calls = Callee(), 0
        inner = Policy("inner", retry=again())

        def outer() -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise ConnectionError("of the outer one")
            inner.call(callee.ask)

        with pytest.raises(ConnectionError):
            again(attempts=2).call(outer)
        assert callee.calls == 1
        assert here.of(RetryGaveUp)[0].reason == "this is within attempt 2 of another call"


def test_a_call_that_came_in_as_a_repeat_is_not_retried() -> None:
    with stage():
        token = current_call_var.set(CallInfo("key", 2))
        try:
            callee = Callee()
            with pytest.raises(ConnectionError):
                again().call(callee.ask)
            assert callee.calls == 1
            bad = Policy(retry=again(on_result=lambda _: True))
            assert bad.call(int) == 0
            assert again(nested="allow").call(Callee(2).ask) == "fine"
        finally:
            current_call_var.reset(token)


def test_one_exception_object_that_is_raised_again_and_again_is_retried_each_time() -> None:
    with stage():
        mock = Mock(side_effect=ConnectionError("always the same object"))
        ask = Policy("p", retry=again())(mock)
        other = Policy("q", retry=again())(mock)
        for number, one in enumerate((ask, other, ask), start=1):
            with pytest.raises(ConnectionError) as caught:
                one()
            assert mock.call_count == 3 * number
        assert caught.value.__notes__ == ["after 3 attempts: 3 of 3 attempts used"]


def test_notes_on_one_exception_object_do_not_grow_without_end() -> None:
    with stage():
        error = ConnectionError("always the same object")
        for number in range(30):
            error.add_note(f"note {number}")
        with pytest.raises(ConnectionError):
            again().call(Callee(error=error).ask)
        assert len(error.__notes__) == 30


# --- what the callee sees ----------------------------------------------------------------------


def test_the_callee_is_told_which_attempt_it_is_and_of_whom() -> None:
    with stage():
        seen: list[Any] = []

        def ask() -> None:
            call = current_call()
            seen.append(None if call is None else (call.attempt, call.policy, call.key))
            raise ConnectionError

        with pytest.raises(ConnectionError):
            Policy("p", retry=again())(ask)()
        assert seen == [None, (2, "p", None), (3, "p", None)]
        assert current_call() is None


def test_the_key_of_a_call_from_outside_stays_in_its_repeats() -> None:
    with stage():
        token = current_call_var.set(CallInfo("order-1", 1))
        keys = []

        def ask() -> None:
            call = current_call()
            assert call is not None
            keys.append((call.key, call.attempt))
            raise ConnectionError

        with suppress(ConnectionError):
            again(attempts=2).call(ask)
        current_call_var.reset(token)
        assert keys == [("order-1", 1), ("order-1", 2)]


def test_what_surely_did_nothing_at_last_may_have_done_something_before() -> None:
    with stage():
        errors = [ConnectionResetError("may have happened"), ConnectionRefusedError("surely not")]

        def ask() -> None:
            raise errors.pop(0)

        with pytest.raises(ConnectionRefusedError) as caught:
            again(attempts=2).call(ask)
        assert happened(caught.value) == "maybe"
        both: list[Exception] = [ConnectionRefusedError(), ConnectionRefusedError()]

        def refused() -> None:
            raise both.pop(0)

        with pytest.raises(ConnectionRefusedError) as surely:
            again(attempts=2).call(refused)
        assert happened(surely.value) == "no"


def test_errors_that_take_no_attributes_come_through_all_the_same() -> None:
    class Slotted(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    with stage(), pytest.raises(Slotted):
        again(on=Slotted).call(Callee(error=Slotted).ask)


def test_errors_are_gone_when_nobody_holds_them_any_more() -> None:
    class Mine(ConnectionError):
        pass

    async def story(here: Stage) -> None:
        policy = Policy(retry=again(on=Mine, attempts=2), attempt_timeout=50)
        plain = Policy(retry=again(on=Mine, attempts=2))

        async def by_attempts() -> None:
            async for attempt in policy.attempts():
                async with attempt:
                    raise Mine

        def by_blocking_attempts() -> None:
            for attempt in policy.attempts():
                with attempt:
                    raise Mine

        for one in (policy, plain):
            for ask in (by_attempts, Callee(error=Mine).ask_async):
                with pytest.raises(Mine) as caught:
                    await one.acall(ask)
                gone.append(weakref.ref(caught.value))
                del caught
            for blocking in (by_blocking_attempts, Callee(error=Mine).ask):
                with pytest.raises(Mine) as caught:
                    one.call(blocking)
                gone.append(weakref.ref(caught.value))
                del caught
        assert [ref() for ref in gone] == [None] * 8

    gone: list[Any] = []
    gc.disable()  # without its help
    try:
        play(story)
    finally:
        gc.enable()


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
