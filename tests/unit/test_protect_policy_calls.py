"""What a protected call does, for every kind of function, and what it leaves behind."""

import asyncio
import gc
import weakref
from contextvars import copy_context
from functools import partial
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from outlast.kernel import BulkheadFullError, ConfigError, DeadlineError
from outlast.protect import (
    Bulkhead,
    CircuitBreaker,
    Hard,
    Idempotency,
    Policy,
    Retry,
    current_call,
)
from outlast.protect.kinds import kind_of
from tests.support.protect_calls import hang, left_nothing, policy_of
from tests.support.protected import Stage, play, stage

# --- kinds of functions ------------------------------------------------------------------------


class Client:
    """Methods of all kinds, decorated in the class."""

    policy = policy_of()

    def __init__(self, name: str) -> None:
        self.name = name

    @policy
    def ask(self, what: str, *, loud: bool = False) -> str:
        """Ask."""
        return f"{self.name} {what}{'!' if loud else ''}"

    @policy
    async def ask_async(self, what: str) -> str:
        return f"{self.name} {what}"

    @staticmethod
    @policy
    def fixed(what: str) -> str:
        return what

    @classmethod
    @policy
    def of(cls, name: str) -> "Client":
        return cls(name)

    @policy
    def items(self) -> Any:
        yield self.name

    async def __call__(self, what: str) -> str:
        return what


def test_methods_of_all_kinds_are_protected() -> None:
    async def story(here: Stage) -> None:
        client = Client.of("c")
        assert client.ask("x", loud=True) == "c x!"
        assert await client.ask_async("y") == "c y"
        assert Client.fixed("z") == "z"
        assert list(client.items()) == ["c"]
        assert client.ask.__doc__ == "Ask."
        assert client.ask.__name__ == "ask"
        assert Client.policy.snapshot()["calls"]["succeeded"] == 5

    play(story)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (staticmethod(len), "put the policy below @staticmethod"),
        (classmethod(len), "put the policy below @classmethod"),
        (Client, "Client is a class; protect its methods one by one"),
        (5, "a policy protects functions; 5 is none"),
    ],
)
def test_what_cannot_be_protected_is_refused_at_decoration(wrong: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        Policy()(wrong)


async def a_coroutine() -> int:
    return 1


def a_generator() -> Any:
    yield 1


async def an_async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (len, "blocking"),
        (lambda: 1, "blocking"),
        (int, "blocking"),
        (a_coroutine, "async"),
        (partial(a_coroutine), "async"),
        (partial(partial(a_generator)), "generator"),
        (partial(an_async_generator), "async generator"),
        (partial(len), "blocking"),
        (partial(Client("c")), "async"),
        (partial(AsyncMock()), "async"),
        (Client("c"), "async"),
        (Client("c").ask_async, "async"),
        (AsyncMock(), "async"),
        (Mock(), "blocking"),
        (MagicMock(), "blocking"),
        (a_generator, "generator"),
        (an_async_generator, "async generator"),
        ([].append, "blocking"),
    ],
)
def test_the_kind_of_a_function_is_seen_through_what_wraps_it(function: Any, kind: str) -> None:
    assert kind_of(function) == kind


def test_callables_partials_and_mocks_are_protected_as_what_they_are() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(retry=Retry(on=ConnectionError))
        assert await policy(Client("c"))("x") == "x"
        assert await policy(partial(a_coroutine))() == 1
        mock = AsyncMock(side_effect=[ConnectionError, "fine"])
        assert await policy(mock)(1, two=2) == "fine"
        assert mock.await_count == 2
        plain = Mock(side_effect=[ConnectionError, "fine"])
        assert policy(plain)(1) == "fine"
        assert plain.call_count == 2
        assert asyncio.iscoroutinefunction(policy(mock))

    play(story)


def test_call_gives_a_coroutine_for_a_coroutine_function_and_passes_all_arguments() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of()

        def plain(function: int, policy: int, /, *rest: int, **named: int) -> Any:
            return function, policy, rest, named

        assert policy.call(plain, 1, 2, 3, function=4, self=5) == (
            1, 2, (3,), {"function": 4, "self": 5},
        )  # fmt: skip
        assert await policy.call(hang, seconds=1) == "late"
        assert list(policy.call(a_generator)) == [1]
        assert [item async for item in policy.call(an_async_generator)] == [1]
        assert policy.call(plain, 1, 2) == (1, 2, (), {})

    play(story)


@pytest.mark.parametrize("settings", [{}, {"retry": Retry(on=Exception)}, {"limit": Bulkhead(1)}])
def test_a_plain_function_that_returns_a_coroutine_is_refused(settings: Any) -> None:
    with stage():
        policy = Policy(**settings)

        def sneaky() -> Any:
            return hang()

        for ask in (policy(sneaky), lambda: policy.call(sneaky)):
            with pytest.raises(TypeError, match=r"sneaky is a plain function and returned a coro"):
                ask()
        if "limit" in settings:
            assert settings["limit"].in_flight == 0


def test_a_coroutine_at_the_second_attempt_is_refused_by_its_name() -> None:
    with stage():
        acts = [True, False]

        def sneaky() -> Any:
            if acts.pop(0):
                raise ConnectionError
            return hang()

        with pytest.raises(TypeError, match=r"sneaky is a plain function and returned a coro"):
            Policy(retry=Retry(on=Exception))(sneaky)()
        assert acts == []  # and it is not repeated


def test_a_coroutine_that_was_refused_says_nothing_against_the_callee() -> None:
    with stage():
        policy = policy_of()
        with pytest.raises(TypeError):
            policy.call(lambda: hang())
        assert policy.parts["breaker"].failure_count == 0


def test_acall_awaits_whatever_a_function_returns() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=5.0)
        assert await policy.acall(lambda seconds: hang(seconds), 2) == "late"
        with pytest.raises(DeadlineError):
            await policy.acall(lambda: hang())
        keyed = policy_of(idempotency=Idempotency(key=lambda order: f"order-{order}"))

        def ask(order: int) -> Any:
            call = current_call()
            assert call is not None
            assert call.key == "order-7"
            return hang(1)

        assert await keyed.acall(ask, 7) == "late"

    play(story)


def test_hard_limits_are_for_plain_functions() -> None:
    policy = Policy(attempt_timeout=Hard(1.0))
    with pytest.raises(TypeError, match="a coroutine is cancelled: give the seconds"):
        policy(hang)
    with pytest.raises(TypeError, match=r"Hard\(…\) cannot bound a generator"):
        policy(a_generator)


# --- what is left behind -----------------------------------------------------------------------


def test_generator_exit_settles_without_waiting_for_anything() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=9.0, attempt_timeout=5.0, idempotency=Idempotency())
        coroutine: Any = policy.call(hang)

        async def begin() -> None:
            coroutine.send(None)

        await asyncio.create_task(begin())  # in a context of its own
        assert policy.parts["limit"].in_flight == 1
        copy_context().run(coroutine.close)
        assert left_nothing(policy)
        assert policy.snapshot()["calls"]["cancelled"] == 1

    play(story)


def test_errors_with_limits_of_time_are_gone_when_nobody_holds_them() -> None:
    gone: list[Any] = []

    async def story(here: Stage) -> None:
        for settings in ({"timeout": 1.0}, {"attempt_timeout": 1.0}):
            policy = policy_of(**settings)
            with pytest.raises(DeadlineError) as caught:
                await policy.call(hang)
            gone.append(weakref.ref(caught.value))
            del caught
        assert [ref() for ref in gone] == [None, None]

    gc.disable()  # without its help
    try:
        play(story)
    finally:
        gc.enable()


def test_a_key_that_cannot_be_made_is_told_and_counted() -> None:
    policy = policy_of(idempotency=Idempotency(key=lambda: "\n"))
    with pytest.raises(ConfigError, match="key is"):
        policy.call(lambda: 1)
    assert policy.snapshot()["calls"]["failed"] == 1


def test_a_slow_success_is_told_to_the_breaker_by_both_frames() -> None:
    async def story(here: Stage) -> None:
        breaker = CircuitBreaker(slow_call=2.0, slow_rate=1.0, min_calls=2)
        policy = Policy(breaker=breaker)
        await policy.call(hang, 2.0)
        policy.call(here.pause, 2.0)
        assert breaker.state == "OPEN"

    play(story)


def test_parts_are_shared_by_the_policies_that_hold_them() -> None:
    with stage():
        breaker, limit = CircuitBreaker(2, 10), Bulkhead(1)
        one, two = Policy(breaker=breaker, limit=limit), Policy(breaker=breaker, limit=limit)

        def inner() -> None:
            with pytest.raises(BulkheadFullError):
                two.call(len, "x")
            raise ConnectionError

        with pytest.raises(ConnectionError):
            one.call(inner)
        assert breaker.failure_count == 1
        assert limit.in_flight == 0
