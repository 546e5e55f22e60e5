"""What a protected call does, for every kind of function and every way out."""

import asyncio
import gc
import weakref
from contextvars import copy_context
from functools import partial
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from outlast import deadline
from outlast.kernel import (
    BulkheadFullError,
    ConfigError,
    DeadlineError,
    RateLimitedError,
    TooLateError,
)
from outlast.protect import (
    AdaptiveLimit,
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Hard,
    Idempotency,
    Policy,
    RateLimit,
    Retry,
    current_call,
    remaining,
)
from outlast.protect.adaptive_rate import AdaptiveRate
from outlast.protect.events import CallRejected, DeadlinePassed
from outlast.protect.kinds import kind_of
from tests.support.protected import Stage, play, stage


def policy_of(**parts: Any) -> Policy:
    """A policy with a permit and a breaker, whose state tells what was left behind."""
    return Policy("p", **{"limit": Bulkhead(1), "breaker": CircuitBreaker(9, 10), **parts})


def left_nothing(policy: Policy) -> bool:
    """Whether all permits are back."""
    parts = policy.parts
    return not parts["limit"].in_flight and not parts["breaker"].snapshot()["probes_live"]


async def hang(seconds: float = 60.0) -> str:
    await asyncio.sleep(seconds)
    return "late"


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


# --- limits of time ----------------------------------------------------------------------------


def test_a_call_that_is_too_late_before_it_began_is_refused() -> None:
    with stage() as here:
        policy, calls = policy_of(retry=Retry(on=Exception)), Mock(return_value=1)
        with deadline(1):
            here.pause(1)
            with pytest.raises(TooLateError, match="p: the deadline had passed before it began"):
                policy.call(calls)
            coroutine: Any = policy.acall(calls)
            with pytest.raises(TooLateError) as caught:
                coroutine.send(None)
        assert calls.call_count == 0
        assert caught.value.happened == "no"
        assert policy.snapshot()["calls"]["rejected"] == 2
        assert here.of(CallRejected)[0].part == "deadline"
        assert left_nothing(policy)


def test_the_whole_time_cancels_an_attempt_that_hangs() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=2.0)
        with pytest.raises(DeadlineError, match=r"^p: timeout of 2 s passed$") as caught:
            await policy.call(hang)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert (caught.value.happened, here.now) == ("maybe", 2.0)
        assert left_nothing(policy)
        (passed,) = here.of(DeadlinePassed)
        assert (passed.name, passed.part, passed.seconds) == ("p", "timeout", 2.0)
        calls = policy.snapshot()["calls"]
        assert (calls["failed"], calls["timed_out"], calls["cancelled"]) == (1, 1, 0)

    play(story)


def test_a_call_that_the_whole_time_cut_off_counts_against_the_callee() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=2.0)
        with pytest.raises(DeadlineError):
            await policy.call(hang)
        assert policy.parts["breaker"].failure_count == 1

    play(story)


def test_a_repeat_that_the_whole_time_cut_off_counts_against_the_callee_too() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=5.0, retry=Retry(on=ConnectionError, base=1, jitter="none"))
        acts = [ConnectionError, None]

        async def ask() -> None:
            act = acts.pop(0)
            if act is not None:
                raise act
            await hang()

        with pytest.raises(DeadlineError):
            await policy.call(ask)
        assert (here.now, policy.parts["breaker"].failure_count) == (5.0, 2)
        assert left_nothing(policy)

    play(story)


def test_time_that_is_up_in_a_queue_is_no_failure_of_the_callee() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=2.0, limit=Bulkhead(1, queue=1))
        permit = policy.parts["limit"].pop()
        with pytest.raises(TooLateError) as caught:
            await policy.call(hang)
        assert caught.value.happened == "no"
        assert policy.parts["breaker"].failure_count == 0
        policy.parts["limit"].release(permit)
        assert left_nothing(policy)
        assert policy.snapshot()["calls"]["rejected"] == 1

    play(story)


def test_whole_time_that_is_up_before_anything_was_sent_is_definite() -> None:
    async def story(here: Stage) -> None:
        class Slow:
            listens = False
            position = "rate"
            name = ""

            def quick(self, now_ns: int, max_wait_ns: int) -> int:
                return -1

            def reserve(self, now_ns: int) -> int:
                return 60 * 10**9

            def give_back(self, due_ns: int) -> None:
                given.append(due_ns)

            def snapshot(self) -> Any:
                return {}

        given: list[int] = []
        policy = policy_of(timeout=2.0, rate=Slow())
        with pytest.raises(TooLateError, match=r"p: timeout of 2 s passed before it began"):
            await policy.call(hang)
        assert len(given) == 1
        assert policy.snapshot()["calls"]["rejected"] == 1

    play(story)


def test_the_wait_between_attempts_is_within_the_whole_time() -> None:
    async def story(here: Stage) -> None:
        async def fail() -> None:
            raise ConnectionError

        async def refresh(error: Exception) -> None:
            await hang()

        policy = policy_of(timeout=3.0, retry=Retry(on=ConnectionError, between=refresh))
        with pytest.raises(DeadlineError):
            await policy.call(fail)
        assert here.now == 3.0
        assert policy.parts["breaker"].failure_count == 1

    play(story)


def test_an_attempt_that_takes_too_long_is_cancelled_and_may_be_retried() -> None:
    async def story(here: Stage) -> None:
        retry = Retry(on=DeadlineError, repeat_indefinite=True, base=1, jitter="none", attempts=2)
        policy = policy_of(attempt_timeout=2.0, retry=retry)
        with pytest.raises(DeadlineError, match=r"p: attempt_timeout of 2 s passed") as caught:
            await policy.call(hang)
        assert here.now == 5.0
        assert policy.parts["breaker"].failure_count == 2
        assert caught.value.__notes__ == ["after 2 attempts: 2 of 2 attempts used"]
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert left_nothing(policy)

    play(story)


def test_an_attempt_that_swallows_its_cancellation_has_its_answer_taken() -> None:
    async def story(here: Stage) -> None:
        async def stubborn() -> str:
            try:
                await hang()
            except asyncio.CancelledError:
                await asyncio.sleep(3)
            return "after all"

        for settings in ({"attempt_timeout": 2.0}, {"timeout": 2.0}):
            policy = policy_of(**settings)
            assert await policy.call(stubborn) == "after all"
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            assert left_nothing(policy)
            await asyncio.sleep(1)  # nobody cancels what comes after

    play(story)


def test_an_error_in_place_of_the_cancellation_comes_through() -> None:
    async def story(here: Stage) -> None:
        async def rude() -> None:
            try:
                await hang()
            finally:
                raise ConnectionError("instead")

        for settings in ({"attempt_timeout": 2.0}, {"timeout": 2.0}):
            policy = policy_of(**settings)
            with pytest.raises(ConnectionError, match="instead"):
                await policy.call(rude)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            assert policy.parts["breaker"].failure_count == 1

    play(story)


@pytest.mark.parametrize("settings", [{"attempt_timeout": 2.0}, {"timeout": 2.0}])
def test_who_is_cancelled_from_outside_at_the_same_instant_is_cancelled(settings: Any) -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(**settings)
        task = asyncio.ensure_future(policy.call(hang))
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        loop.call_at(loop.time() + 2.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert left_nothing(policy)

    play(story)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_is_no_failure_and_gives_all_back(stop: Any) -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=50.0, attempt_timeout=40.0, retry=Retry(on=lambda _: True))
        policy.parts["breaker"].trip(1)
        await asyncio.sleep(1)

        def ask() -> None:
            raise stop

        async def ask_async() -> None:
            raise stop

        with pytest.raises(stop):
            policy.call(ask)
        assert left_nothing(policy)
        with pytest.raises(stop):
            await policy.call(ask_async)
        assert left_nothing(policy)
        assert policy.parts["breaker"].state == "HALF_OPEN"
        assert policy.snapshot()["calls"]["cancelled"] == 2

    play(story)


def test_cancellation_from_outside_is_no_failure_and_gives_all_back() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=50.0, attempt_timeout=40.0, retry=Retry(on=lambda _: True))
        policy.parts["breaker"].trip(1)
        await asyncio.sleep(1)
        task = asyncio.ensure_future(policy.call(hang))
        await asyncio.sleep(0.1)
        assert policy.parts["breaker"].snapshot()["probes_live"] == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left_nothing(policy)
        assert policy.parts["breaker"].state == "HALF_OPEN"
        calls = policy.snapshot()["calls"]
        assert (calls["cancelled"], calls["failed"], calls["timed_out"]) == (1, 0, 0)

    play(story)


def test_a_timeout_outside_of_the_policy_still_works() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=50.0, attempt_timeout=40.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await policy.call(hang)
        assert here.now == 3.0
        assert left_nothing(policy)

    play(story)


def test_of_two_limits_at_the_same_instant_the_inner_one_ends_the_attempt() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=2.0, attempt_timeout=2.0)
        with pytest.raises(DeadlineError, match="attempt_timeout of 2 s"):
            await policy.call(hang)
        assert policy.parts["breaker"].failure_count == 1

    play(story)


def test_limits_are_handed_down_and_only_shorten() -> None:
    async def story(here: Stage) -> None:
        seen: list[float | None] = []

        async def look() -> None:
            left = remaining()
            seen.append(None if left is None else round(left, 3))

        def look_blocking() -> None:
            left = remaining()
            seen.append(None if left is None else round(left, 3))

        policy = Policy(timeout=5.0, attempt_timeout=2.0)
        await policy.call(look)
        policy.call(look_blocking)
        with deadline(1):
            await policy.call(look)
            policy.call(look_blocking)
        await Policy(timeout=5.0).call(look)
        await Policy(attempt_timeout=9.0).call(Policy(attempt_timeout=3.0)(look))
        assert seen == [2.0, 2.0, 1.0, 1.0, 5.0, 3.0]
        assert remaining() is None

    play(story)


def test_a_blocking_attempt_is_told_of_the_limit_and_not_interrupted() -> None:
    with stage() as here:
        policy = policy_of(timeout=2.0, attempt_timeout=1.0)
        policy.call(here.pause, 9)
        assert here.now == 9.0
        assert policy.snapshot()["calls"]["succeeded"] == 1


def test_a_limit_of_time_needs_a_task() -> None:
    policy = policy_of(attempt_timeout=1.0)
    coroutine: Any = policy.call(hang)

    async def begun() -> None:
        loop = asyncio.get_running_loop()
        failed: list[BaseException] = []

        def outside() -> None:
            try:
                coroutine.send(None)
            except RuntimeError as error:
                failed.append(error)

        loop.call_soon(outside)
        await asyncio.sleep(0.01)
        assert "needs an asyncio task" in str(failed[0])

    asyncio.run(begun())
    assert left_nothing(policy)


def test_hard_limits_are_for_plain_functions() -> None:
    policy = Policy(attempt_timeout=Hard(1.0))
    with pytest.raises(TypeError, match="a coroutine is cancelled: give the seconds"):
        policy(hang)
    with pytest.raises(TypeError, match=r"Hard\(…\) cannot bound a generator"):
        policy(a_generator)


# --- what follows a failure --------------------------------------------------------------------


def test_a_fallback_answers_when_the_time_is_up_and_has_time_itself() -> None:
    async def story(here: Stage) -> None:
        async def instead(error: BaseException) -> Any:
            await asyncio.sleep(10)
            return type(error).__name__, remaining()

        policy = policy_of(timeout=2.0, fallback=Fallback(instead))
        assert await policy.call(hang) == ("DeadlineError", None)
        assert here.now == 12.0
        calls = policy.snapshot()["calls"]
        assert (calls["fell_back"], calls["timed_out"], calls["failed"]) == (1, 1, 0)
        attempts = policy_of(timeout=2.0, attempt_timeout=1.0, fallback=Fallback(instead))
        assert await attempts.call(hang) == ("DeadlineError", None)
        assert attempts.snapshot()["calls"]["fell_back"] == 1

    play(story)


def test_a_fallback_of_a_repeated_call_leaves_nothing_in_the_context() -> None:
    async def story(here: Stage) -> None:
        async def fail() -> None:
            raise ConnectionError

        def fail_blocking() -> None:
            raise ConnectionError

        policy = policy_of(
            timeout=9.0, retry=Retry(on=ConnectionError), fallback=Fallback("instead"),
            idempotency=Idempotency(key=lambda: "key"),
        )  # fmt: skip
        assert await policy.call(fail) == "instead"
        assert (current_call(), remaining()) == (None, None)
        assert policy.call(fail_blocking) == "instead"
        assert (current_call(), remaining()) == (None, None)

    play(story)


def test_a_cancelled_fallback_was_a_fallback() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(fallback=Fallback(lambda error: hang()))
        task = asyncio.ensure_future(policy.acall(lambda: 1 / 0))  # type: ignore[arg-type, return-value]
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        calls = policy.snapshot()["calls"]
        assert (calls["fell_back"], calls["cancelled"]) == (1, 0)

    play(story)


def test_a_refusal_by_the_limit_gives_the_probe_back() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of()
        policy.parts["breaker"].trip(1)
        permit = policy.parts["limit"].pop()
        await asyncio.sleep(1)
        with pytest.raises(BulkheadFullError):
            policy.call(len, "x")
        with pytest.raises(BulkheadFullError):
            await policy.call(hang)
        policy.parts["limit"].release(permit)
        assert left_nothing(policy)
        assert policy.call(len, "x") == 1
        assert policy.snapshot()["calls"]["rejected"] == 2

    play(story)


def test_a_wait_for_the_rate_that_is_interrupted_gives_the_slot_back() -> None:
    async def story(here: Stage) -> None:
        rate = RateLimit(1, 10, max_wait=30)
        policy = policy_of(rate=rate)
        await policy.call(hang, 0)
        task = asyncio.ensure_future(policy.call(hang, 0))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left_nothing(policy)
        await policy.call(hang, 0)
        assert here.now == 10.0  # and not 20

    play(story)


def test_an_interrupted_blocking_wait_for_the_rate_gives_the_slot_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stage() as here:
        rate = RateLimit(1, 10, max_wait=30)
        policy = policy_of(rate=rate)
        policy.call(len, "x")

        def interrupted(seconds: float) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(type(here.world.clock), "pause", staticmethod(interrupted))
            with pytest.raises(KeyboardInterrupt):
                policy.call(len, "x")
        policy.call(len, "x")
        assert here.now == 10.0
        assert left_nothing(policy)
        assert policy.snapshot()["calls"]["cancelled"] == 1


def test_an_adaptive_rate_hears_how_calls_end() -> None:
    async def story(here: Stage) -> None:
        rate = AdaptiveRate(100)
        policy = policy_of(rate=rate)

        def throttled() -> None:
            raise RateLimitedError("slow down")

        async def throttled_async() -> None:
            raise RateLimitedError("slow down")

        with pytest.raises(RateLimitedError):
            policy.call(throttled)
        assert rate.current == 50.0
        await asyncio.sleep(5)
        with pytest.raises(RateLimitedError):
            await policy.call(throttled_async)
        assert rate.current == 25.0
        await asyncio.sleep(5)
        before = rate.succeeded()
        judged = policy.replace(retry=Retry(on=OSError, on_result=lambda result: result == 1))
        for _ in range(5):
            policy.call(int)
            await policy.call(hang, 0)
            judged.call(int)
            with policy:
                pass
        judged.call(len, "x")  # a result that is no success
        assert rate.succeeded() - before - 1 == 20

    play(story)


def test_an_adaptive_limit_is_told_how_long_each_attempt_took_and_how_it_ended() -> None:
    async def story(here: Stage) -> None:
        told: list[tuple[float, str]] = []

        class Told(AdaptiveLimit):
            def sample(self, elapsed_ns: int, outcome: str, now_ns: int) -> None:
                told.append((elapsed_ns / 10**9, outcome))
                super().sample(elapsed_ns, outcome, now_ns)

        limit = Told(initial=2)
        policy = Policy(limit=limit, retry=Retry(on=ConnectionError, attempts=2))

        def fail(seconds: float) -> None:
            here.pause(seconds)
            raise ConnectionError

        async def fail_async(seconds: float) -> None:
            await asyncio.sleep(seconds)
            raise ConnectionError

        policy.call(here.pause, 1)
        await policy.call(hang, 2)
        with pytest.raises(ConnectionError):
            policy.call(fail, 3)
        with pytest.raises(ConnectionError):
            await policy.call(fail_async, 4)
        task = asyncio.ensure_future(policy.call(hang))
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.wait([task])
        with Policy(limit=limit):
            here.pause(6)
        async with Policy(limit=limit):
            await asyncio.sleep(7)
        expected = [
            (1, "ok"), (2, "ok"), (3, "failed"), (3, "failed"), (4, "failed"), (4, "failed"),
            (5, "cancelled"), (6, "ok"), (7, "ok"),
        ]  # fmt: skip
        assert [(round(seconds), outcome) for seconds, outcome in told] == expected
        assert limit.in_flight == 0

    play(story)


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
