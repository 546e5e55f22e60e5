"""Protected calls whose time is limited, or that are cancelled."""

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest

from outlast import deadline
from outlast.kernel import DeadlineError, TooLateError
from outlast.protect import Bulkhead, Policy, Retry, remaining
from outlast.protect.events import CallRejected, DeadlinePassed
from tests.support.protect_calls import hang, left_nothing, policy_of
from tests.support.protected import Stage, play, stage

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
