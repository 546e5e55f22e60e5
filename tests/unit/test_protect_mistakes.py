"""What is easily written by mistake is said at once, where it was written."""

import asyncio
import threading

import pytest

from outlast import sim
from outlast.kernel import ConfigError, DeadlineError
from outlast.protect import (
    CircuitBreaker,
    Hard,
    Policy,
    Retry,
    ThreadBulkhead,
    current_call,
    deadline,
    detached,
    remaining,
)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Policy(Retry(on=ValueError)), "name is Retry.*give it as retry="),
        (lambda: Policy(5), "name is 5; a string"),
        (lambda: Policy(None), "name is None"),
        (lambda: Policy(retry=Retry), "is the class Retry; give an object"),
        (lambda: Policy(retry=CircuitBreaker()), "give it as breaker="),
        (lambda: Retry(on=()), "on names no exception"),
    ],
)
def test_a_part_in_a_wrong_place_is_refused(made: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made()  # type: ignore[operator]


def test_attempts_are_begun_as_they_were_asked_for() -> None:
    policy = Policy(retry=Retry(on=OSError))

    async def main() -> None:
        async for attempt in policy.attempts():
            with pytest.raises(TypeError, match="async with"), attempt:
                pass
            break
        for attempt in policy.attempts():
            with pytest.raises(TypeError, match="async for"):
                async with attempt:
                    pass
            break

    sim.run(main)


def test_work_that_outlives_a_call_can_be_detached_from_its_deadline() -> None:
    left: list[float | None] = []

    async def later() -> None:
        left.append(remaining())
        assert current_call() is None

    async def main() -> None:
        with deadline(1.0):
            with detached():
                task = asyncio.create_task(later())
            inside = remaining()
            assert inside is not None
            assert inside <= 1.0
        await task

    sim.run(main)
    assert left == [None]


def test_threads_are_for_plain_functions() -> None:
    async def coroutine() -> None: ...

    def items():  # type: ignore[no-untyped-def]
        yield 1

    for function, said in ((coroutine, "a coroutine function"), (items, "a generator")):
        with pytest.raises(TypeError, match=said):
            ThreadBulkhead(1)(function)


def test_a_hard_limit_counts_as_a_timeout() -> None:
    policy, gate = Policy(attempt_timeout=Hard(0.01)), threading.Event()
    with pytest.raises(DeadlineError):
        policy.call(gate.wait)
    gate.set()
    assert policy.snapshot()["calls"]["timed_out"] == 1
