"""What the fleet has found, each in its smallest form."""

import asyncio

import pytest

from outlast import sim
from outlast.kernel import DeadlineError, InFlightError, TooLateError
from outlast.protect import (
    CircuitBreaker,
    Fallback,
    Hedge,
    Idempotency,
    Policy,
    Retry,
    current_call,
)


class Flop(Exception):
    pass


def test_a_limit_that_was_shortened_holds_for_the_next_call() -> None:
    async def main() -> float:
        policy = Policy("shortened", timeout=60.0)
        await policy.acall(asyncio.sleep, 0.001)
        policy.configure(timeout=1.0)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(DeadlineError):
            await policy.acall(asyncio.sleep, 3600)
        return loop.time() - begun

    assert sim.run(main) == pytest.approx(1.0, abs=0.001)


def test_a_second_attempt_as_a_block_ends_with_the_whole_time() -> None:
    """A call that began later has set the timer of the whole for its own, later end."""

    async def main() -> float:
        policy = Policy(timeout=1.0, retry=Retry(Flop, 2, base=0.5, jitter="none"))
        loop = asyncio.get_running_loop()

        async def blocks() -> None:
            async for attempt in policy.attempts():
                async with attempt:
                    if attempt.number == 1:
                        raise Flop
                    await asyncio.sleep(3600)

        async def twice() -> float:
            begun = loop.time()
            with pytest.raises(DeadlineError):
                await blocks()
            return loop.time() - begun

        async def later() -> None:
            await asyncio.sleep(0.2)
            await policy.acall(asyncio.sleep, 0.1)

        await policy.acall(asyncio.sleep, 0.1)
        await asyncio.sleep(0.8)  # its timer comes when neither of the others is under way
        took, _ = await asyncio.gather(twice(), later())
        return took

    assert sim.run(main) == pytest.approx(1.0, abs=0.001)


def test_a_fallback_after_a_retry_leaves_no_identity_behind() -> None:
    async def main() -> None:
        retry = Retry(Flop, 2, base=0.01)
        policy = Policy(retry=retry, fallback=Fallback(-1), idempotency=Idempotency())

        @policy
        async def fails() -> int:
            raise Flop

        assert await fails() == -1
        assert current_call() is None

        @policy
        def fails_too() -> int:
            raise Flop

        assert fails_too() == -1
        assert current_call() is None

    sim.run(main)


def test_a_retry_within_a_hedge_keeps_the_number_of_its_side() -> None:
    async def main() -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []
        policy = Policy(
            retry=Retry(Flop, 2, base=0.001), hedge=Hedge(0.01, attempts=2),
            idempotency=Idempotency(), order=("hedge", "retry"),
        )  # fmt: skip

        @policy
        async def ask() -> int:
            info = current_call()
            assert info is not None
            seen.append((info.attempt, info.hedge))
            await asyncio.sleep(0.05)
            if info.attempt == 1:
                raise Flop
            return 1

        await ask()
        return seen

    seen = sim.run(main)
    assert sorted(seen) == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_an_extra_attempt_that_is_refused_does_not_end_the_first() -> None:
    """With the key of the first the other side says that it is under way; that is no answer."""

    async def main() -> int:
        @Policy(hedge=Hedge(0.01, on=(ConnectionError,)), idempotency=Idempotency())
        async def ask() -> int:
            info = current_call()
            assert info is not None
            if info.hedge:
                raise InFlightError("the first call with this key is under way")
            await asyncio.sleep(0.05)
            return 1

        return await ask()

    assert sim.run(main) == 1


def test_a_call_that_is_under_way_elsewhere_speaks_not_against_the_callee() -> None:
    async def main() -> str:
        breaker = CircuitBreaker(failure_threshold=1, recovery_timeout=60)

        @Policy(breaker=breaker)
        async def ask() -> None:
            raise InFlightError("the first call with this key is under way")

        with pytest.raises(InFlightError):
            await ask()
        return breaker.state

    assert sim.run(main) == "CLOSED"


def test_a_probe_whose_caller_has_no_time_left_tells_nothing_of_the_callee() -> None:
    """Otherwise callers that wait out their whole time keep a breaker open for ever."""

    async def main() -> list[str]:
        breaker = CircuitBreaker(failure_threshold=1, recovery_timeout=1)
        states = []

        @Policy(breaker=breaker)
        async def ask(error: Exception) -> None:
            raise error

        with pytest.raises(Flop):
            await ask(Flop())
        await asyncio.sleep(1)
        with pytest.raises(TooLateError):
            await ask(TooLateError("the deadline leaves no time to send the request"))
        states.append(breaker.state)
        with pytest.raises(Flop):
            await ask(Flop())  # another one may probe at once
        return [*states, breaker.state]

    assert sim.run(main) == ["HALF_OPEN", "OPEN"]
