"""``Retry`` among others: hooks, budgets, retries within retries, what the callee sees."""

import asyncio
import gc
import weakref
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest

from outlast.kernel import happened
from outlast.protect import Budget, CallInfo, Policy, current_call
from outlast.protect.call import current_call_var
from outlast.protect.events import BudgetExhausted, RetryGaveUp
from tests.support.protect_retry import Callee, again
from tests.support.protected import Stage, play, stage

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
