"""Protected generators: begun again until the first item, then let run."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from outlast import deadline
from outlast.kernel import CircuitOpenError, DeadlineError, TooLateError
from outlast.protect import (
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Hedge,
    Idempotency,
    Policy,
    Retry,
    current_attempt,
    current_call,
    remaining,
)
from outlast.protect.events import RetryGaveUp
from tests.support.protected import Stage, play, stage


def policy_of(**parts: Any) -> Policy:
    retry = Retry(on=ConnectionError, base=1.0, jitter="none")
    given = {"retry": retry, "limit": Bulkhead(1), "breaker": CircuitBreaker(9, 10), **parts}
    return Policy("p", **given)


def left_nothing(policy: Policy) -> bool:
    parts = policy.parts
    return not parts["limit"].in_flight and not parts["breaker"].snapshot()["probes_live"]


class Source:
    """Streams of three items that fail where they are told to."""

    def __init__(self, *, early: int = 0, late: bool = False) -> None:
        self.early = early
        self.late = late
        self.begun = 0
        self.closed = 0
        self.seen: list[Any] = []

    def _begin(self) -> None:
        self.begun += 1
        self.seen.append(current_attempt())
        if self.begun <= self.early:
            raise ConnectionError("early")

    def items(self) -> Iterator[int]:
        self._begin()
        try:
            for item in range(3):
                self.seen.append(remaining())
                yield item
                if self.late and item == 1:
                    raise ConnectionError("late")
        finally:
            self.closed += 1

    async def items_async(self) -> AsyncIterator[int]:
        self._begin()
        try:
            for item in range(3):
                self.seen.append(remaining())
                yield item
                if self.late and item == 1:
                    raise ConnectionError("late")
        finally:
            self.closed += 1


def test_a_stream_is_begun_again_until_its_first_item() -> None:
    async def story(here: Stage) -> None:
        policy, source, other = policy_of(), Source(early=2), Source(early=2)
        assert list(policy(source.items)()) == [0, 1, 2]
        assert (source.begun, here.now) == (3, 3.0)
        assert [item async for item in policy(other.items_async)()] == [0, 1, 2]
        assert (other.begun, here.now) == (3, 6.0)
        assert source.seen[:3] == other.seen[:3] == [1, 2, 3]  # it is told which attempt it is
        calls = policy.snapshot()["calls"]
        assert (calls["succeeded"], calls["retried"], calls["failed"]) == (2, 4, 0)
        assert left_nothing(policy)

    play(story)


def test_an_error_after_the_first_item_comes_through() -> None:
    async def story(here: Stage) -> None:
        policy, source, other = policy_of(), Source(late=True), Source(late=True)
        got: list[int] = []

        def drain() -> None:
            for item in policy(source.items)():
                got.append(item)

        async def drain_async() -> None:
            async for item in policy(other.items_async)():
                got.append(item)

        with pytest.raises(ConnectionError, match="late"):
            drain()
        with pytest.raises(ConnectionError, match="late"):
            await drain_async()
        assert got == [0, 1, 0, 1]
        assert (source.begun, other.begun) == (1, 1)
        assert [event.reason for event in here.of(RetryGaveUp)] == ["an item was delivered"] * 2
        assert policy.parts["breaker"].failure_count == 2
        assert policy.snapshot()["calls"]["failed"] == 2
        assert left_nothing(policy)

    play(story)


def test_the_last_early_error_comes_through_with_its_note() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of()
        with pytest.raises(ConnectionError, match="early") as caught:
            list(policy(Source(early=9).items)())
        with pytest.raises(ConnectionError, match="early") as other:
            await anext(policy(Source(early=9).items_async)())  # type: ignore[arg-type]
        for error in (caught.value, other.value):
            assert error.__notes__ == ["after 3 attempts: 3 of 3 attempts used"]

    play(story)


def test_the_permit_is_held_until_the_stream_ends() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of()
        stream = policy(Source().items)()
        assert policy.parts["limit"].in_flight == 0  # nothing has begun
        next(stream)
        assert policy.parts["limit"].in_flight == 1
        assert list(stream) == [1, 2]
        assert left_nothing(policy)
        other: Any = policy(Source().items_async)()
        await anext(other)
        assert policy.parts["limit"].in_flight == 1
        assert [item async for item in other] == [1, 2]
        assert left_nothing(policy)

    play(story)


def test_a_stream_that_is_closed_in_the_middle_was_cancelled() -> None:
    async def story(here: Stage) -> None:
        policy, source, other = policy_of(), Source(), Source()
        stream: Any = policy(source.items)()
        next(stream)
        stream.close()
        async with aclosing(policy(other.items_async)()) as items:  # type: ignore[type-var]
            await anext(items)
        assert (source.closed, other.closed) == (1, 1)
        assert left_nothing(policy)
        assert policy.parts["breaker"].failure_count == 0
        calls = policy.snapshot()["calls"]
        assert (calls["cancelled"], calls["failed"], calls["succeeded"]) == (2, 0, 0)

    play(story)


def test_a_stream_that_raises_when_it_is_closed_is_settled_too() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of()

        @policy
        def items() -> Any:
            try:
                yield 1
            finally:
                raise RuntimeError("cannot close")

        @policy
        async def items_async() -> Any:
            try:
                yield 1
            finally:
                raise RuntimeError("cannot close")

        stream, other = items(), items_async()
        next(stream)
        with pytest.raises(RuntimeError, match="cannot close"):
            stream.close()
        await anext(other)
        with pytest.raises(RuntimeError, match="cannot close"):
            await other.aclose()
        assert left_nothing(policy)

    play(story)


def test_what_is_sent_thrown_and_returned_passes_through() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of()

        @policy
        def echo() -> Any:
            got = []
            while len(got) < 3:
                try:
                    got.append((yield len(got)))
                except KeyError:
                    got.append("thrown")
            return got

        @policy
        async def echo_async() -> Any:
            number = 0
            while number < 3:
                try:
                    number += (yield number) or 0
                except KeyError:
                    number += 1

        def whole() -> Any:
            return (yield from echo())

        stream = whole()
        assert [next(stream), stream.send("x"), stream.throw(KeyError())] == [0, 1, 2]
        with pytest.raises(StopIteration) as end:
            stream.send("z")
        assert end.value.value == ["x", "thrown", "z"]
        other = echo_async()
        assert [await anext(other), await other.asend(1), await other.athrow(KeyError())] == [
            0,
            1,
            2,
        ]
        with pytest.raises(StopAsyncIteration):
            await other.asend(1)
        assert policy.snapshot()["calls"]["succeeded"] == 2
        assert left_nothing(policy)

    play(story)


def test_a_stream_without_items_is_a_success() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of()

        @policy
        def nothing() -> Any:
            return "answer"
            yield

        @policy
        async def nothing_async() -> Any:
            return
            yield

        def whole() -> Any:
            return (yield from nothing())

        with pytest.raises(StopIteration) as end:
            next(whole())
        assert end.value.value == "answer"
        assert [item async for item in nothing_async()] == []
        assert policy.snapshot()["calls"]["succeeded"] == 2
        assert left_nothing(policy)

    play(story)


def test_a_refused_stream_yields_nothing() -> None:
    async def story(here: Stage) -> None:
        policy, source = policy_of(), Source()
        policy.parts["breaker"].trip()
        with pytest.raises(CircuitOpenError):
            next(policy(source.items)())
        with pytest.raises(CircuitOpenError):
            await anext(policy(source.items_async)())  # type: ignore[arg-type]
        assert source.begun == 0
        assert policy.snapshot()["calls"]["rejected"] == 2

    play(story)


def test_the_attempt_timeout_bounds_the_time_to_the_first_item() -> None:
    async def story(here: Stage) -> None:
        retry = Retry(on=DeadlineError, repeat_indefinite=True, base=1, jitter="none")
        policy, begun = policy_of(attempt_timeout=2.0, retry=retry), 0

        @policy
        async def items() -> Any:
            nonlocal begun
            begun += 1
            if begun < 3:
                await asyncio.sleep(60)
            yield 1
            await asyncio.sleep(60)
            yield 2

        assert [item async for item in items()] == [1, 2]
        assert (begun, here.now) == (3, 2 + 1 + 2 + 2 + 60)
        assert policy.snapshot()["calls"]["timed_out"] == 2
        begun = 0
        policy.configure(attempt_timeout=None)
        always = policy.replace(attempt_timeout=1.0, retry=None)

        @always
        async def never() -> Any:
            await asyncio.sleep(60)
            yield 1

        with pytest.raises(DeadlineError, match="attempt_timeout of 1 s passed"):
            await anext(never())

    play(story)


def test_the_whole_time_cuts_a_stream_off_at_its_end() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=5.0)
        got = []

        @policy
        async def items() -> Any:
            for item in range(9):
                got.append((item, remaining()))
                yield item
                await asyncio.sleep(2)

        async def drain() -> None:
            async for _ in items():
                assert remaining() is None  # the consumer is not bound

        with pytest.raises(DeadlineError, match=r"p: timeout of 5 s passed") as caught:
            await drain()
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert here.now == 5.0
        assert got == [(0, 5.0), (1, 3.0), (2, 1.0)]
        assert policy.parts["breaker"].failure_count == 1
        assert left_nothing(policy)
        calls = policy.snapshot()["calls"]
        assert (calls["timed_out"], calls["failed"]) == (1, 1)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    play(story)


def test_a_blocking_stream_is_told_of_its_time_in_each_step() -> None:
    with stage() as here:
        policy, source = policy_of(timeout=5.0), Source()
        for _ in policy(source.items)():
            assert remaining() is None
            here.pause(2)
        assert source.seen == [1, 5.0, 3.0, 1.0]


def test_a_stream_that_is_cancelled_in_a_step_is_no_failure() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(timeout=50.0)

        @policy
        async def items() -> Any:
            yield 1
            await asyncio.sleep(60)
            yield 2

        async def drain() -> None:
            async for _ in items():
                pass

        task = asyncio.ensure_future(drain())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert left_nothing(policy)
        assert policy.parts["breaker"].failure_count == 0
        assert policy.snapshot()["calls"]["cancelled"] == 1

    play(story)


def test_a_stream_knows_its_key_in_each_step() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of(idempotency=Idempotency(key=lambda order: f"order-{order}"))

        @policy
        def items(order: int) -> Any:
            for _ in range(2):
                call = current_call()
                assert call is not None
                yield call.key

        @policy
        async def items_async(order: int) -> Any:
            for _ in range(2):
                call = current_call()
                assert call is not None
                yield call.key

        for key in items(7):
            assert (key, current_call()) == ("order-7", None)
        async for key in items_async(8):
            assert (key, current_call()) == ("order-8", None)

    play(story)


def test_two_streams_side_by_side_do_not_mix() -> None:
    with stage() as here:
        policy = policy_of(timeout=9.0, limit=Bulkhead(2))
        one, two = policy(Source(early=1).items)(), policy(Source(late=True).items)()
        got: list[int] = [next(one), next(two), next(one), next(two)]
        with pytest.raises(ConnectionError):
            next(two)
        got += one
        assert got == [0, 0, 1, 1, 2]
        assert left_nothing(policy)
        assert here.now == 1.0


def test_an_interrupted_wait_before_the_first_item_is_counted() -> None:
    async def story(here: Stage) -> None:
        policy = policy_of()
        task = asyncio.ensure_future(anext(policy(Source(early=9).items_async)()))  # type: ignore[arg-type]
        await asyncio.sleep(0.5)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert policy.snapshot()["calls"]["cancelled"] == 1

        async def boom(error: Exception) -> None:
            raise KeyError

        hooked = policy.replace(retry=Retry(on=ConnectionError, between=boom))
        with pytest.raises(KeyError):
            await anext(hooked(Source(early=9).items_async)())  # type: ignore[arg-type]
        blocking = policy.replace(retry=Retry(on=ConnectionError, between=lambda _: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            next(blocking(Source(early=9).items)())
        assert hooked.snapshot()["calls"]["failed"] == 1
        assert blocking.snapshot()["calls"]["failed"] == 1

    play(story)


def test_a_late_stream_is_not_begun() -> None:
    async def story(here: Stage) -> None:
        policy, source = policy_of(timeout=3.0, retry=None), Source()

        def slowly(order: int) -> str:
            here.pause(4)
            return "key"

        late = policy.replace(idempotency=Idempotency(key=slowly))

        @late
        async def items(order: int) -> Any:
            async for item in source.items_async():
                yield item

        assert [item async for item in items(1)] == [0, 1, 2]  # the key is made before the time

        @policy
        def once() -> Any:
            yield 1
            yield 2

        stream = once()
        assert next(stream) == 1
        here.pause(4)
        assert next(stream) == 2  # a plain function is not interrupted

    play(story)
    with stage() as here, deadline(1):
        here.pause(2)
        with pytest.raises(TooLateError):
            next(policy_of()(Source().items)())


@pytest.mark.parametrize("part", [{"fallback": Fallback([])}, {"hedge": Hedge(after=1)}])
def test_parts_that_mean_nothing_for_a_stream_are_refused(part: Any) -> None:
    policy = policy_of(**part)
    with pytest.raises(TypeError, match="a generator cannot be protected by"):
        policy(Source().items)
    with pytest.raises(TypeError, match="an async generator cannot be protected by"):
        policy(Source().items_async)


def test_errors_of_streams_are_gone_when_nobody_holds_them() -> None:
    class Mine(ConnectionError):
        pass

    gone: list[Any] = []

    async def story(here: Stage) -> None:
        policy = Policy(attempt_timeout=9.0, retry=Retry(on=Mine, attempts=2))

        @policy
        def early() -> Any:
            raise Mine
            yield

        @policy
        async def early_async() -> Any:
            raise Mine
            yield

        @policy
        def late() -> Any:
            yield 1
            raise Mine

        @policy
        async def late_async() -> Any:
            yield 1
            raise Mine

        for blocking in (early, late):
            with pytest.raises(Mine) as caught:
                list(blocking())
            gone.append(weakref.ref(caught.value))
            del caught
        for items in (early_async, late_async):
            with pytest.raises(Mine) as caught:
                _ = [item async for item in items()]
            gone.append(weakref.ref(caught.value))
            del caught
        assert [ref() for ref in gone] == [None] * 4

    gc.disable()  # without its help
    try:
        play(story)
    finally:
        gc.enable()
