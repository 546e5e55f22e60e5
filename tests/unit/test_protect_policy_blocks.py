"""``with policy:``, ``async with policy:`` and ``policy.attempts()``."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from outlast import deadline
from outlast.kernel import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineError,
    RejectedError,
    TooLateError,
)
from outlast.protect import (
    Bulkhead,
    Cache,
    CircuitBreaker,
    Fallback,
    Hard,
    Hedge,
    Idempotency,
    Inject,
    Keyed,
    Policy,
    RateLimit,
    Retry,
    current_attempt,
    current_call,
    remaining,
)
from outlast.protect.events import RetryGaveUp, RetryScheduled
from tests.support.protected import Stage, play, stage


def policy_of(**parts: Any) -> Policy:
    return Policy("p", **{"limit": Bulkhead(1), "breaker": CircuitBreaker(9, 10), **parts})


def left_nothing(policy: Policy) -> bool:
    parts = policy.parts
    return not parts["limit"].in_flight and not parts["breaker"].snapshot()["probes_live"]


def again(**settings: Any) -> Retry:
    return Retry(**{"on": ConnectionError, "base": 1.0, "jitter": "none", **settings})


# --- blocks ------------------------------------------------------------------------------------


def test_a_block_holds_a_permit_and_is_counted() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of()
        with policy:
            assert policy.parts["limit"].in_flight == 1
        async with policy:
            assert policy.parts["limit"].in_flight == 1
        with pytest.raises(ConnectionError), policy:
            raise ConnectionError
        with pytest.raises(ConnectionError):
            async with policy:
                raise ConnectionError
        assert left_nothing(policy)
        assert policy.parts["breaker"].failure_count == 2
        calls = policy.snapshot()["calls"]
        assert (calls["succeeded"], calls["failed"]) == (2, 2)

    play(story)


def test_a_block_that_is_refused_leaves_nothing_behind() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of()
        policy.parts["breaker"].trip(1)
        with pytest.raises(CircuitOpenError), policy:
            raise AssertionError
        await asyncio.sleep(1)
        permit = policy.parts["limit"].pop()
        with pytest.raises(BulkheadFullError), policy:
            raise AssertionError
        with pytest.raises(BulkheadFullError):
            async with policy:
                raise AssertionError
        policy.parts["limit"].release(permit)
        assert left_nothing(policy)  # the probe that was let through is given back
        assert policy.parts["breaker"].state == "HALF_OPEN"
        with policy:
            pass
        assert policy.parts["breaker"].state == "CLOSED"
        calls = policy.snapshot()["calls"]
        assert (calls["rejected"], calls["failed"], calls["succeeded"]) == (3, 0, 1)

    play(story)


@pytest.mark.parametrize(
    "part",
    [
        {"hedge": Hedge(after=1)}, {"cache": Cache(1)}, {"fallback": Fallback(1)},
        {"inject": Inject()}, {"breaker": Keyed(lambda: CircuitBreaker(5, 10), by=str)},
        {"attempt_timeout": Hard(1)}, {"retry": again()},
    ],
    ids=str,
)  # fmt: skip
def test_a_block_cannot_mean_what_some_parts_say(part: dict[str, Any]) -> None:
    policy = Policy(**part)
    with pytest.raises(TypeError), policy:
        raise AssertionError
    coroutine: Any = policy.__aenter__()
    with pytest.raises(TypeError):
        coroutine.send(None)
    if "retry" in part:
        with pytest.raises(TypeError, match=r"use `for attempt in policy.attempts\(\):`"), policy:
            raise AssertionError
    else:
        with pytest.raises(TypeError, match=r"attempts\(\)"):
            policy.attempts()


def test_a_block_needs_the_canonical_order() -> None:
    policy = Policy(breaker=CircuitBreaker(5, 10), limit=Bulkhead(1), order=("limit", "breaker"))
    with pytest.raises(TypeError, match="a block needs a policy in canonical order"), policy:
        raise AssertionError


def test_blocks_of_one_policy_within_each_other_are_two_calls() -> None:
    policy = policy_of(limit=Bulkhead(2))
    with policy:
        with pytest.raises(BulkheadFullError), policy, policy:
            raise AssertionError
        assert policy.parts["limit"].in_flight == 1
    assert left_nothing(policy)
    calls = policy.snapshot()["calls"]
    assert (calls["succeeded"], calls["failed"], calls["rejected"]) == (1, 1, 1)


def test_blocks_that_generators_leave_in_any_order_are_settled_each_by_its_policy() -> None:
    one, two = policy_of(), policy_of()

    def within(policy: Policy, *, fail: bool) -> Iterator[int]:
        with policy:
            yield 1
            if fail:
                raise ConnectionError

    first, second = within(one, fail=True), within(two, fail=False)
    next(first)
    next(second)
    with pytest.raises(ConnectionError):
        next(first)
    assert left_nothing(one)
    assert two.parts["limit"].in_flight == 1
    assert list(second) == []
    assert left_nothing(two)
    assert one.parts["breaker"].failure_count == 1
    assert two.parts["breaker"].failure_count == 0


def test_a_block_left_in_another_context_says_so() -> None:
    policy = Policy()
    copy_context().run(policy.__enter__)
    with pytest.raises(RuntimeError, match="left in another context than it was entered in"):
        policy.__exit__(None, None, None)


def test_tasks_have_blocks_of_their_own() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(limit=Bulkhead(5))

        async def within(seconds: float, *, fail: bool) -> None:
            async with policy:
                await asyncio.sleep(seconds)
                if fail:
                    raise ConnectionError

        async with policy:
            results = await asyncio.gather(
                within(3, fail=True), within(1, fail=False), within(2, fail=True),
                return_exceptions=True,
            )  # fmt: skip
        assert [type(result) for result in results] == [
            ConnectionError, type(None), ConnectionError,
        ]  # fmt: skip
        assert left_nothing(policy)

    play(story)


def test_a_block_of_a_task_is_cut_off_when_its_time_is_up() -> None:
    async def within(policy: Policy) -> None:
        async with policy:
            assert remaining() == pytest.approx(2.0)
            await asyncio.sleep(60)

    async def story(here: Stage) -> None:
        for part in ("timeout", "attempt_timeout"):
            policy = policy_of(**{part: 2.0})
            with pytest.raises(DeadlineError, match=f"p: {part} of 2 s passed") as caught:
                await within(policy)
            assert isinstance(caught.value.__cause__, asyncio.CancelledError)
            assert policy.parts["breaker"].failure_count == 1
            assert left_nothing(policy)
            calls = policy.snapshot()["calls"]
            assert (calls["timed_out"], calls["failed"], calls["cancelled"]) == (1, 1, 0)
        assert here.now == 4.0
        assert remaining() is None
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    play(story)


def test_a_block_of_a_task_waits_for_its_turn_within_its_time() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=2.0, limit=Bulkhead(1, queue=5))
        async with policy:
            with pytest.raises(TooLateError):
                async with policy:
                    raise AssertionError
        assert left_nothing(policy)
        assert policy.parts["breaker"].failure_count == 0

    play(story)


def test_waiting_for_a_permit_or_a_turn_in_a_block_ends_when_it_comes() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(limit=Bulkhead(1, queue=5), rate=RateLimit(1, 2.0, max_wait=9))

        async def within() -> None:
            async with policy:
                await asyncio.sleep(3)

        await asyncio.gather(within(), within())
        assert here.now == 6.0
        with policy:
            pass
        assert here.now == 6.0
        with policy:
            pass
        assert here.now == 8.0
        assert left_nothing(policy)

    play(story)


def test_a_block_that_cannot_wait_for_the_whole_time_is_too_late() -> None:
    async def story(here: Stage) -> None:
        class Slow(RateLimit):
            @property
            def quick(self) -> Any:
                return lambda now_ns, max_wait_ns: -1

            def reserve(self, now_ns: int) -> int:
                return 60 * 10**9

        policy = policy_of(timeout=2.0, rate=Slow(1))
        with pytest.raises(TooLateError, match=r"timeout of 2 s passed before it began") as caught:
            async with policy:
                raise AssertionError
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        retried = policy.replace(retry=again())

        async def ask() -> None:
            async for attempt in retried.attempts():
                async with attempt:
                    raise AssertionError

        with pytest.raises(TooLateError):
            await ask()
        assert policy.snapshot()["calls"]["rejected"] == 1
        assert left_nothing(policy)

    play(story)


def test_a_blocking_block_is_told_of_its_time_and_not_interrupted() -> None:
    with stage() as here:
        policy = policy_of(timeout=5.0, attempt_timeout=2.0)
        with policy:
            assert remaining() == 2.0
            here.pause(9)
        assert remaining() is None
        with deadline(1), policy:
            assert remaining() == 1.0
        with policy.replace(attempt_timeout=None):
            assert remaining() == 5.0
        assert policy.snapshot()["calls"]["succeeded"] == 2


def test_cancellation_in_a_block_is_no_failure() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=50.0)

        async def within() -> None:
            async with policy:
                await asyncio.sleep(10)

        task = asyncio.ensure_future(within())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        with pytest.raises(KeyboardInterrupt), policy:
            raise KeyboardInterrupt
        assert policy.parts["breaker"].failure_count == 0
        assert policy.snapshot()["calls"]["cancelled"] == 2
        assert left_nothing(policy)

    play(story)


def test_a_block_has_a_key_of_its_own_where_the_policy_mints_them() -> None:
    async def story(here: Stage) -> None:
        policy = Policy("p", idempotency=Idempotency())
        keys = []
        for _ in range(2):
            with policy:
                call = current_call()
                assert call is not None
                keys.append(call.key)
            async with policy:
                call = current_call()
                assert call is not None
                keys.append(call.key)
        assert len(set(keys)) == 4
        assert current_call() is None

    play(story)


def test_a_slow_block_is_slow() -> None:
    with stage() as here:
        breaker = CircuitBreaker(slow_call=2.0, slow_rate=1.0, min_calls=1)
        with breaker:
            here.pause(2)
        assert breaker.state == "OPEN"


# --- attempts ----------------------------------------------------------------------------------


def test_attempts_go_on_until_one_succeeds() -> None:
    with stage() as here:
        policy, numbers = policy_of(retry=again(attempts=5)), []
        for attempt in policy.attempts():
            with attempt:
                numbers.append((attempt.number, current_attempt(), here.now))
                if len(numbers) < 3:
                    raise ConnectionError
            assert attempt.succeeded == (len(numbers) == 3)
        assert numbers == [(1, 1, 0.0), (2, 2, 1.0), (3, 3, 3.0)]
        calls = policy.snapshot()["calls"]
        assert (calls["succeeded"], calls["retried"]) == (1, 2)
        assert left_nothing(policy)


def test_the_error_that_ends_the_attempts_comes_through_itself() -> None:
    async def story(here: Stage) -> None:
        policy, own = policy_of(retry=again(attempts=2)), ConnectionError("mine")

        async def ask() -> None:
            async for attempt in policy.attempts():
                async with attempt:
                    raise own

        def ask_blocking() -> None:
            for attempt in policy.attempts():
                with attempt:
                    raise own

        with pytest.raises(ConnectionError) as caught:
            await ask()
        assert caught.value is own
        assert own.__notes__ == ["after 2 attempts: 2 of 2 attempts used"]
        with pytest.raises(ConnectionError):
            ask_blocking()
        assert policy.snapshot()["calls"]["failed"] == 2

    play(story)


def test_nothing_of_an_attempt_stays_in_the_context_after_the_loop() -> None:
    async def story(here: Stage) -> None:
        policy = Policy("p", timeout=9.0, retry=again(attempts=2), idempotency=Idempotency())

        async def ask() -> None:
            async for attempt in policy.attempts():
                async with attempt:
                    raise ConnectionError

        with pytest.raises(ConnectionError):
            await ask()
        assert (current_call(), remaining(), current_attempt()) == (None, None, 1)
        async for attempt in policy.attempts():
            async with attempt:
                if attempt.number == 1:
                    raise ConnectionError
            if not attempt.succeeded:
                assert (current_call(), remaining()) == (None, None)
                break  # the caller has had enough
        assert (current_call(), remaining(), current_attempt()) == (None, None, 1)

    play(story)


def test_attempts_that_the_caller_leaves_are_counted_as_cancelled() -> None:
    with stage():
        policy = policy_of(retry=again())
        for attempt in policy.attempts():
            with attempt:
                raise ConnectionError
            break
        for attempt in policy.attempts():
            with attempt:
                break  # this is a success
        for _ in policy.attempts():
            break
        calls = policy.snapshot()["calls"]
        assert (calls["cancelled"], calls["succeeded"], calls["failed"]) == (2, 1, 0)


def test_the_whole_time_holds_for_all_attempts_together() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=3.5, retry=again(attempts=9))
        seen = []

        async def ask() -> None:
            async for attempt in policy.attempts():
                async with attempt:
                    seen.append(remaining())
                    if attempt.number < 3:
                        raise ConnectionError
                    await asyncio.sleep(60)

        with pytest.raises(DeadlineError, match=r"p: timeout of 3.5 s passed"):
            await ask()
        assert here.now == 3.5
        assert seen == [pytest.approx(left) for left in (3.5, 2.5, 0.5)]
        assert policy.parts["breaker"].failure_count == 3
        assert left_nothing(policy)

    play(story)


def test_a_wait_that_does_not_fit_into_the_whole_time_ends_the_attempts() -> None:
    with stage() as here:
        policy = policy_of(timeout=2.5, retry=again(attempts=9))

        def ask() -> None:
            for attempt in policy.attempts():
                with attempt:
                    raise ConnectionError

        with pytest.raises(ConnectionError):
            ask()
        assert here.now == 1.0
        assert here.of(RetryGaveUp)[0].reason == (
            "the next wait of 2.000 s does not fit in 1.500 s"
        )


def test_an_attempt_after_the_whole_time_is_too_late() -> None:
    with stage() as here:
        policy = policy_of(timeout=2.0, retry=again())

        def ask() -> None:
            for attempt in policy.attempts():
                here.pause(3)
                with attempt:
                    raise AssertionError

        with pytest.raises(TooLateError):
            ask()
        assert policy.snapshot()["calls"]["rejected"] == 1


def test_a_refused_attempt_ends_the_attempts_and_promises_no_other() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(retry=again(on=RejectedError))
        policy.parts["breaker"].trip()

        def ask_blocking() -> None:
            for attempt in policy.attempts():
                with attempt:
                    raise AssertionError

        async def ask() -> None:
            async for attempt in policy.attempts():
                async with attempt:
                    raise AssertionError

        with pytest.raises(CircuitOpenError):
            ask_blocking()
        with pytest.raises(CircuitOpenError):
            await ask()
        assert here.of(RetryScheduled) == []
        assert [event.reason for event in here.of(RetryGaveUp)] == [
            "a block that was not begun cannot be repeated"
        ] * 2
        assert policy.snapshot()["calls"]["rejected"] == 2

    play(story)


def test_attempts_of_an_attempt_timeout() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(
            attempt_timeout=2.0, retry=again(on=DeadlineError, repeat_indefinite=True)
        )
        async for attempt in policy.attempts():
            async with attempt:
                if attempt.number < 3:
                    await asyncio.sleep(60)
        assert here.now == 2 + 1 + 2 + 2
        assert policy.snapshot()["calls"]["timed_out"] == 2
        assert policy.parts["breaker"].failure_count == 0

    play(story)


def test_attempts_without_a_retry_are_one() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of()
        numbers = []
        for attempt in policy.attempts():
            with attempt:
                numbers.append(attempt.number)
        async for attempt in policy.attempts():
            async with attempt:
                numbers.append(attempt.number)
        assert numbers == [1, 1]

    play(story)


def test_a_cancelled_wait_between_attempts_is_counted_once() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(retry=again(base=5.0))

        async def ask() -> None:
            async for attempt in policy.attempts():
                async with attempt:
                    raise ConnectionError

        task = asyncio.ensure_future(ask())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        calls = policy.snapshot()["calls"]
        assert (calls["cancelled"], calls["failed"]) == (1, 0)

    play(story)


def test_errors_of_blocks_are_gone_when_nobody_holds_them() -> None:
    gone: list[Any] = []

    async def story(here: Stage) -> None:
        for part in ("timeout", "attempt_timeout"):
            with pytest.raises(DeadlineError) as caught:
                async with Policy(**{part: 1.0}):  # type: ignore[arg-type]
                    await asyncio.sleep(9)
            gone.append(weakref.ref(caught.value))
            del caught
        assert [ref() for ref in gone] == [None, None]

    gc.disable()  # without its help
    try:
        play(story)
    finally:
        gc.enable()
