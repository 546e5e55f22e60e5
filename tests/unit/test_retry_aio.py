"""The retry loop and ``deadline`` on a loop whose time is moved by its timers alone."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from outlast.host import make_world
from outlast.kernel import (
    ConfigError,
    Deadline,
    DeadlineError,
    Event,
    UnavailableError,
    World,
    current_deadline,
    happened,
    reset_world,
    use_world,
)
from outlast.protect import (
    Retry,
    RetryGaveUp,
    RetryScheduled,
    attempts,
    call_with_retry,
    deadline,
)

NS = 1_000_000_000


class JumpingTime:
    """A clock that jumps forward by each sleep; timers fire on the next turn once due."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.slept: list[float] = []
        self.waiting: list[tuple[int, Callable[[], None]]] = []

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns

    def boot_id(self) -> str:
        return ""

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> "JumpingTime.Handle":
        entry = (when_ns, callback)
        self.waiting.append(entry)
        return JumpingTime.Handle(self, entry)

    class Handle:
        def __init__(self, time: "JumpingTime", entry: tuple[int, Callable[[], None]]) -> None:
            self.time, self.entry = time, entry

        def cancel(self) -> None:
            if self.entry in self.time.waiting:
                self.time.waiting.remove(self.entry)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        end = self.now_ns + round(seconds * NS)
        loop = asyncio.get_running_loop()
        for entry in sorted(self.waiting, key=lambda e: e[0]):
            if entry[0] <= end:
                self.waiting.remove(entry)
                self.now_ns = max(self.now_ns, entry[0])
                loop.call_soon(entry[1])
                await loop.create_future()  # cancelled by the callback
        self.now_ns = end
        await asyncio.sleep(0)


def run(story: Callable[[JumpingTime, list[Event]], Awaitable[None]]) -> None:
    time, events = JumpingTime(), list[Event]()
    world: World = replace(make_world(seed=5), clock=time, timers=time)
    world.events.subscribe(events.append)  # type: ignore[attr-defined]

    async def main() -> None:
        token = use_world(world)
        try:
            async with asyncio.timeout(5):
                await story(time, events)
        finally:
            reset_world(token)

    asyncio.run(main())


class Flaky:
    """Fails a number of times, then returns."""

    def __init__(self, failures: int) -> None:
        self.calls = 0
        self.failures = failures

    async def __call__(self, value: int) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise UnavailableError(f"call {self.calls}")
        return value


POLICY = Retry(on=UnavailableError, attempts=3, base=0.5, cap=0.5)


def test_a_call_that_recovers() -> None:
    async def story(time: JumpingTime, events: list[Event]) -> None:
        call = Flaky(2)
        assert await call_with_retry(call, POLICY, 7) == 7
        assert call.calls == 3
        assert len(time.slept) == 2
        assert all(0 <= s <= 0.5 for s in time.slept)
        assert time.slept[0] != time.slept[1]
        assert [(type(e), e.attempt) for e in events] == [  # type: ignore[attr-defined]
            (RetryScheduled, 1),
            (RetryScheduled, 2),
        ]

    run(story)


def test_the_last_error_comes_through_itself_with_a_note() -> None:
    async def story(time: JumpingTime, events: list[Event]) -> None:
        call = Flaky(9)
        with pytest.raises(UnavailableError, match="call 3") as caught:
            await call_with_retry(call, POLICY, 7)
        assert call.calls == 3
        assert caught.value.__notes__ == ["after 3 attempts: 3 of 3 attempts used"]
        assert isinstance(events[-1], RetryGaveUp)

    run(story)


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([ConnectionResetError, ConnectionRefusedError], "maybe"),
        ([ConnectionRefusedError, ConnectionRefusedError], "no"),
        ([ConnectionRefusedError, ConnectionResetError], "maybe"),
    ],
)
def test_a_last_refusal_does_not_hide_that_an_earlier_attempt_may_have_happened(
    errors: list[type[OSError]], told: str
) -> None:
    policy = Retry(on=OSError, attempts=len(errors), repeat_indefinite=True)
    left = [cls() for cls in errors]

    async def call() -> None:
        raise left.pop(0)

    async def story(time: JumpingTime, events: list[Event]) -> None:
        with pytest.raises(OSError) as caught:
            await call_with_retry(call, policy)
        assert happened(caught.value) == told

    run(story)


def test_an_error_that_is_not_meant_comes_through_at_once() -> None:
    async def story(time: JumpingTime, events: list[Event]) -> None:
        async def call() -> None:
            raise KeyError("k")

        with pytest.raises(KeyError) as caught:
            await call_with_retry(call, POLICY)
        assert not hasattr(caught.value, "__notes__")
        assert time.slept == []

    run(story)


def test_without_a_limit_it_goes_on() -> None:
    async def story(time: JumpingTime, events: list[Event]) -> None:
        call = Flaky(200)
        got: list[int] = []
        async for attempt in attempts(Retry(on=UnavailableError, attempts=None)):
            with attempt:
                got.append(await call(attempt.number))
        assert got == [201]
        assert max(time.slept) > 3

    run(story)


def test_cancellation_is_never_retried() -> None:
    async def story(time: JumpingTime, events: list[Event]) -> None:
        calls = 0

        async def call() -> None:
            nonlocal calls
            calls += 1
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await call_with_retry(call, Retry(on=lambda _: True))
        assert calls == 1
        assert events == []

    run(story)


def test_the_deadline_ends_the_retrying_before_a_wait_that_does_not_fit() -> None:
    async def story(time: JumpingTime, events: list[Event]) -> None:
        call = Flaky(10**9)
        with pytest.raises(UnavailableError) as caught, deadline(3.0):
            await call_with_retry(call, Retry(on=UnavailableError, attempts=None, cap=1.0), 1)
        assert "does not fit" in caught.value.__notes__[0]
        assert time.now_ns < 3 * NS
        assert call.calls > 3

    run(story)


def test_a_deadline_ends_what_waits_inside() -> None:
    async def story(time: JumpingTime, events: list[Event]) -> None:
        with pytest.raises(DeadlineError, match=r"deadline of 2.0 s passed"), deadline(2.0):
            await time.sleep(9)
        assert time.now_ns == 2 * NS
        assert current_deadline.get() is None
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        async with deadline(2.0) as inside:
            await time.sleep(1)
        assert not inside.expired
        assert time.waiting == []

    run(story)


@pytest.mark.parametrize(("outer", "inner", "raises"), [(1.0, 5.0, "1.0"), (5.0, 1.0, "1.0")])
def test_nested_deadlines_only_shorten(outer: float, inner: float, raises: str) -> None:
    async def story(time: JumpingTime, events: list[Event]) -> None:
        caught_inside = False

        async def nested() -> None:
            nonlocal caught_inside
            with deadline(outer) as first:
                try:
                    with deadline(inner) as second:
                        assert second.at == Deadline(NS)
                        assert current_deadline.get() == Deadline(NS)
                        await time.sleep(9)
                except DeadlineError:
                    caught_inside = True
                    assert current_deadline.get() == first.at
                    raise

        with pytest.raises(DeadlineError, match=f"deadline of {raises} s"):
            await nested()
        assert caught_inside is (inner < outer)
        assert time.now_ns == NS

    run(story)


def test_a_cancellation_from_outside_stays_one() -> None:
    async def story(time: JumpingTime, events: list[Event]) -> None:
        async def work() -> None:
            with deadline(5.0):
                await asyncio.get_running_loop().create_future()

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.waiting == []

    run(story)


def test_without_a_loop_it_is_handed_down() -> None:
    with deadline(5.0) as mine:
        assert current_deadline.get() == mine.at
        with deadline(float("inf")):
            assert current_deadline.get() == mine.at
    assert current_deadline.get() is None


def test_misuse_is_refused() -> None:
    with pytest.raises(ConfigError, match="'soon'"):
        deadline("soon")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nan"):
        deadline(float("nan"))
    once = deadline(1.0)
    with once:
        pass
    with pytest.raises(RuntimeError, match="entered before"):
        once.__enter__()
