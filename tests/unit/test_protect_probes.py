"""What other libraries of call protection get wrong, and ours does not: eighteen probes.

``python -m benchmarks.probes`` puts the same questions to the peers; the numbers are the same.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from outlast import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineError,
    Policy,
    RateLimitedError,
    Retry,
    sim,
)
from outlast.testing import virtual_time


class Callee:
    """A service that does as it is told and counts who called."""

    def __init__(self) -> None:
        self.calls = 0
        self.inside = 0
        self.most = 0
        self.broken = False

    def ask(self) -> str:
        self.calls += 1
        if self.broken:
            raise ConnectionError("no answer")
        return "fine"

    async def ask_slowly(self, seconds: float = 1.0) -> str:
        self.calls += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.inside -= 1
        if self.broken:
            raise ConnectionError("no answer")
        return "fine"


def opened(**settings: object) -> CircuitBreaker:
    """A breaker that has just opened for ten seconds."""
    breaker = CircuitBreaker(failure_threshold=3, recovery_timeout=10, **settings)  # type: ignore[arg-type]
    callee = Callee()
    callee.broken = True
    for _ in range(3):
        with pytest.raises(ConnectionError):
            breaker.call(callee.ask)
    assert breaker.state == "OPEN"
    return breaker


# --- P1, P2, P3, P15: the breaker --------------------------------------------------------------


def test_p1_a_call_from_before_the_trip_does_not_close_the_breaker() -> None:
    breaker = CircuitBreaker(failure_threshold=3, recovery_timeout=10)
    callee = Callee()
    callee.broken = True

    @breaker
    def slow() -> str:
        for _ in range(3):  # meanwhile others fail
            with pytest.raises(ConnectionError):
                breaker.call(callee.ask)
        return "late"

    with virtual_time():
        assert slow() == "late"
        assert breaker.state == "OPEN"
        with pytest.raises(CircuitOpenError):
            breaker.call(callee.ask)
    assert callee.calls == 3


def test_p1_a_call_from_before_the_trip_does_not_open_it_for_longer_either() -> None:
    breaker = CircuitBreaker(failure_threshold=3, recovery_timeout=10)
    callee = Callee()
    callee.broken = True

    @breaker
    def slow() -> str:
        for _ in range(3):
            with pytest.raises(ConnectionError):
                breaker.call(callee.ask)
        time.sleep(11)
        callee.broken = False
        assert breaker.call(callee.ask) == "fine"  # the probe closes it
        assert breaker.state == "CLOSED"
        raise ConnectionError("late")

    with virtual_time():
        with pytest.raises(ConnectionError, match="late"):
            slow()
        assert (breaker.state, breaker.failure_count) == ("CLOSED", 0)


def test_p2_a_half_open_breaker_lets_one_of_twenty_callers_through() -> None:
    async def story() -> None:
        breaker = opened()
        await asyncio.sleep(11)
        callee = Callee()
        ask = breaker(callee.ask_slowly)
        answers = await asyncio.gather(*(ask() for _ in range(20)), return_exceptions=True)
        assert callee.most == 1
        assert answers.count("fine") == 1
        assert sum(isinstance(answer, CircuitOpenError) for answer in answers) == 19

    sim.run(story)


def test_p3_a_cancelled_probe_neither_closes_nor_opens_nor_blocks_the_breaker() -> None:
    async def story() -> None:
        breaker = opened()
        await asyncio.sleep(11)
        callee = Callee()
        probe = asyncio.create_task(breaker(callee.ask_slowly)(60))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert breaker.state == "HALF_OPEN"
        assert await breaker(callee.ask_slowly)() == "fine"  # the next one is a probe at once
        assert breaker.state == "CLOSED"

    sim.run(story)


def test_p15_a_probe_that_hangs_gives_its_place_to_another_one() -> None:
    async def story() -> None:
        breaker = opened(probe_timeout=5)
        await asyncio.sleep(11)
        callee = Callee()
        ask = breaker(callee.ask_slowly)
        hung = asyncio.create_task(ask(1e6))  # type: ignore[arg-type]
        await asyncio.sleep(1)
        with pytest.raises(CircuitOpenError):
            await ask()
        await asyncio.sleep(5)
        assert await ask() == "fine"
        assert breaker.state == "CLOSED"
        hung.cancel()
        await asyncio.wait([hung])
        assert breaker.state == "CLOSED"

    sim.run(story)


def test_p15_a_probe_of_an_earlier_round_settles_nothing_in_a_later_one() -> None:
    async def story() -> None:
        breaker = opened(probes=2, probes_concurrent=2, probe_timeout=100)
        await asyncio.sleep(11)
        callee = Callee()
        early = asyncio.create_task(breaker(callee.ask_slowly)(40))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        callee.broken = True
        with pytest.raises(ConnectionError):
            await breaker(callee.ask_slowly)(0.1)  # opens again, for longer
        await asyncio.sleep(21)
        callee.broken = False
        second = asyncio.create_task(breaker(callee.ask_slowly)(30))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        assert breaker.state == "HALF_OPEN"
        assert await early == "fine"
        assert breaker.state == "HALF_OPEN"  # one of two is asked for, and early is none of them
        assert await breaker(callee.ask_slowly)() == "fine"
        assert breaker.state == "HALF_OPEN"
        assert await second == "fine"
        assert breaker.state == "CLOSED"

    sim.run(story)


# --- P4, P8, P9: what counts -------------------------------------------------------------------


def test_p4_guarded_calls_of_two_threads_run_at_the_same_time() -> None:
    together = threading.Barrier(2)
    breaker = CircuitBreaker(failure_threshold=3, recovery_timeout=10)

    @Policy("p4", retry=Retry(on=ConnectionError), breaker=breaker, limit=Bulkhead(2))
    def meet() -> None:
        together.wait(timeout=15)  # broken, unless the other thread is inside as well

    other = threading.Thread(target=meet)
    other.start()
    meet()
    other.join()
    assert breaker.failure_count == 0


def test_p8_failures_of_coroutines_are_counted() -> None:
    async def story() -> None:
        breaker = CircuitBreaker(failure_threshold=5, recovery_timeout=10)
        callee = Callee()
        callee.broken = True
        ask = breaker(callee.ask_slowly)
        for _ in range(5):
            with pytest.raises(ConnectionError):
                await ask()
        with pytest.raises(CircuitOpenError):
            await ask()
        assert callee.calls == 5

    sim.run(story)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_p9_a_program_that_is_stopped_is_no_failure_of_the_callee(
    stop: type[BaseException],
) -> None:
    breaker = CircuitBreaker(failure_threshold=2, recovery_timeout=10)
    policy = Policy("p9", retry=Retry(on=lambda _: True), breaker=breaker, limit=Bulkhead(1))
    calls = 0

    @policy
    def stopped() -> None:
        nonlocal calls
        calls += 1
        raise stop

    for _ in range(5):
        with pytest.raises(stop):
            stopped()
    assert calls == 5
    assert (breaker.state, breaker.failure_count) == ("CLOSED", 0)


def test_p9_the_same_holds_for_a_breaker_in_two_phases() -> None:
    breaker = CircuitBreaker(failure_threshold=2, recovery_timeout=10)
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt), breaker.try_admit():
            raise KeyboardInterrupt
    assert (breaker.state, breaker.failure_count) == ("CLOSED", 0)


# --- P5, P16: permits --------------------------------------------------------------------------


def test_p5_cancelled_waiters_take_no_permits_with_them() -> None:
    async def story() -> None:
        bulkhead = Bulkhead(3, queue=10)
        callee = Callee()
        ask = bulkhead(callee.ask_slowly)
        first = [asyncio.create_task(ask()) for _ in range(3)]
        await asyncio.sleep(0.1)
        waiters = [asyncio.create_task(ask()) for _ in range(2)]
        await asyncio.sleep(0.1)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.wait(waiters)
        await asyncio.gather(*first)
        assert (bulkhead.in_flight, bulkhead.waiting) == (0, 0)
        callee.most = 0
        await asyncio.gather(*(ask() for _ in range(6)))
        assert callee.most == 3

    sim.run(story)


def test_p5_a_call_that_fails_or_is_cancelled_gives_its_permit_back() -> None:
    async def story() -> None:
        bulkhead = Bulkhead(1)
        callee = Callee()
        ask = Policy("p5", retry=Retry(on=ConnectionError), limit=bulkhead)(callee.ask_slowly)
        running = asyncio.create_task(ask(60))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        assert bulkhead.in_flight == 1
        running.cancel()
        await asyncio.wait([running])
        assert bulkhead.in_flight == 0
        callee.broken = True
        with pytest.raises(ConnectionError):
            await ask()
        assert (callee.calls, bulkhead.in_flight) == (4, 0)

    sim.run(story)


def test_p16_one_limit_holds_across_event_loops() -> None:
    bulkhead = Bulkhead(1, queue=10)
    inside = most = 0

    @bulkhead
    async def count() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.005)
        inside -= 1

    async def several() -> None:
        await asyncio.gather(*(count() for _ in range(3)))

    loops = [threading.Thread(target=lambda: asyncio.run(several())) for _ in range(3)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    assert most == 1
    assert bulkhead.in_flight == 0


# --- P6, P7, P10, P11, P12, P14: retries and deadlines -----------------------------------------


def test_p6_tasks_that_share_a_policy_do_not_share_its_attempts() -> None:
    async def story() -> None:
        policy = Policy("p6", retry=Retry(on=ConnectionError, attempts=3))

        async def caller() -> int:
            calls = 0
            with suppress(ConnectionError):
                async for attempt in policy.attempts():
                    async with attempt:
                        calls += 1
                        await asyncio.sleep(0.01)
                        raise ConnectionError
            return calls

        assert await asyncio.gather(*(caller() for _ in range(5))) == [3] * 5

    sim.run(story)


def test_p7_a_retry_of_everything_does_not_retry_cancellation() -> None:
    async def story() -> None:
        callee = Callee()
        ask = Policy("p7", retry=Retry(on=lambda _: True, attempts=5))(callee.ask_slowly)
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(60), 0.05)
        assert asyncio.get_running_loop().time() - began < 0.1
        assert callee.calls == 1

    sim.run(story)


def test_p10_a_generator_is_not_begun_again_after_its_first_item() -> None:
    begun = 0

    @Policy("p10", retry=Retry(on=ConnectionError, attempts=3))
    def items() -> Iterator[int]:
        nonlocal begun
        begun += 1
        yield from range(3)
        raise ConnectionError

    seen: list[int] = []
    with virtual_time(), suppress(ConnectionError):
        for item in items():
            seen.append(item)  # one by one: what came before the error counts
    assert (seen, begun) == ([0, 1, 2], 1)


def test_p10_a_generator_that_fails_before_its_first_item_is_begun_again() -> None:
    begun = 0

    @Policy("p10", retry=Retry(on=ConnectionError, attempts=3))
    def items() -> Iterator[int]:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise ConnectionError
        yield from range(3)

    with virtual_time():
        assert list(items()) == [0, 1, 2]
    assert begun == 3


def test_p10_the_same_holds_for_asynchronous_generators() -> None:
    async def story() -> None:
        begun = 0

        @Policy("p10", retry=Retry(on=ConnectionError, attempts=3))
        async def items() -> AsyncIterator[int]:
            nonlocal begun
            begun += 1
            if begun < 3:
                raise ConnectionError
            for item in range(3):
                yield item
            raise ConnectionError

        seen: list[int] = []
        with suppress(ConnectionError):
            async for item in items():
                seen.append(item)
        assert (seen, begun) == ([0, 1, 2], 3)

    sim.run(story)


def test_p11_the_total_time_ends_an_attempt_that_hangs() -> None:
    async def story() -> None:
        callee = Callee()
        retry = Retry(on=(ConnectionError, DeadlineError), attempts=5, repeat_indefinite=True)
        ask = Policy("p11", timeout=0.2, retry=retry)(callee.ask_slowly)
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await ask(1.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.2, abs=0.02)
        assert (callee.calls, callee.inside) == (1, 0)

    sim.run(story)


@pytest.mark.parametrize("attempts", [1, 3, 5])
def test_p12_attempts_is_how_often_it_is_called(attempts: int) -> None:
    callee = Callee()
    callee.broken = True
    retry = Retry(on=ConnectionError, attempts=attempts)
    with virtual_time(), pytest.raises(ConnectionError):
        retry.call(callee.ask)
    assert callee.calls == attempts


def test_p14_the_exception_of_the_callee_comes_through_itself() -> None:
    own = ConnectionError("no answer")

    @Policy(
        "p14", retry=Retry(on=ConnectionError, attempts=3),
        breaker=CircuitBreaker(failure_threshold=3, recovery_timeout=10), limit=Bulkhead(1),
    )  # fmt: skip
    def ask() -> None:
        raise own

    with virtual_time(), pytest.raises(ConnectionError) as caught:
        ask()  # the third attempt is the last one, and it opens the breaker
    assert caught.value is own


def test_p14_a_refusal_tells_when_to_come_again() -> None:
    with virtual_time():
        breaker = opened()
        time.sleep(4)
        with pytest.raises(CircuitOpenError) as caught:
            breaker.call(Callee().ask)
        assert caught.value.retry_after == pytest.approx(6, abs=0.1)


def test_p14_what_a_callee_asks_with_retry_after_is_done() -> None:
    calls: list[float] = []

    @Policy("p14", retry=Retry(on=RateLimitedError, attempts=2))
    def ask() -> str:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise RateLimitedError("not so fast", retry_after=7.0)
        return "fine"

    with virtual_time():
        assert ask() == "fine"
    assert calls[1] - calls[0] >= 7.0
