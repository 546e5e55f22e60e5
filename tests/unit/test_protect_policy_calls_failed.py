"""Protected calls that fail: fallbacks, permits, what the parts are told."""

import asyncio
from typing import Any

import pytest

from outlast.kernel import BulkheadFullError, RateLimitedError
from outlast.protect import (
    AdaptiveLimit,
    Fallback,
    Idempotency,
    Policy,
    RateLimit,
    Retry,
    current_call,
    remaining,
)
from outlast.protect.adaptive_rate import AdaptiveRate
from tests.support.protect_calls import hang, left_nothing, policy_of
from tests.support.protected import Stage, play, stage

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
