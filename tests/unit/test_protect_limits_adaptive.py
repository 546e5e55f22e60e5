"""The adaptive limit as a part: priorities, shedding, samples, live changes."""

import asyncio
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import ConfigError, OverloadedError, Prng
from outlast.protect import Bulkhead, Policy
from outlast.protect.adaptive import AdaptiveLimit, current_priority, priority
from outlast.protect.core.adaptive import AIMD, Gradient, Vegas
from outlast.protect.events import CallRejected, LimitChanged
from outlast.testing import virtual_time

MS = 1_000_000


class Steps:
    """An algorithm that grows by one with each sample."""

    def begin(self, limit: int, low: int, high: int, prng: Prng) -> "StepsState":
        return StepsState(limit, high)


class StepsState:
    def __init__(self, limit: int, high: int) -> None:
        self.limit, self.high, self.rtt_ns = float(limit), high, 0

    def on_sample(self, rtt_ns: int, in_flight: int, ok: bool, now_ns: int) -> int:
        self.rtt_ns = rtt_ns
        self.limit = min(self.limit + 1, self.high)
        return int(self.limit)

    def bound(self, low: int, high: int) -> int:
        self.limit, self.high = min(max(self.limit, low), high), high
        return int(self.limit)


def test_the_context_says_the_priority_and_the_innermost_counts() -> None:
    async def main() -> None:
        async with priority(3):
            assert current_priority() == 3

    assert current_priority() == 1
    low = priority(0)
    with low, priority(2), low:
        assert current_priority() == 0
    assert current_priority() == 1
    asyncio.run(main())
    with pytest.raises(ConfigError, match="priority: level is -1"):
        priority(-1)


def test_waiters_of_higher_priority_go_first_and_equal_ones_in_order() -> None:
    async def main() -> None:
        limit = AdaptiveLimit(initial=1, queue=5)
        permit = await limit.acquire()
        order: list[str] = []

        async def call(name: str, level: int) -> None:
            with priority(level):
                held = await limit.acquire()
            order.append(name)
            limit.release(held)

        calls = [("a", 0), ("b", 1), ("c", 2), ("d", 1), ("e", 2)]
        tasks = [asyncio.create_task(call(*each)) for each in calls]
        await asyncio.sleep(0)
        limit.release(permit)
        await asyncio.gather(*tasks)
        assert order == ["c", "e", "b", "d", "a"]

    sim.run(main)


def test_a_full_queue_gives_the_newest_of_the_lowest_up_for_a_higher_one() -> None:
    async def main() -> None:
        limit = AdaptiveLimit(initial=1, queue=3)
        await limit.acquire()
        waiting = {
            name: asyncio.create_task(limit.acquire(priority=level))
            for name, level in [("old low", 0), ("new low", 0), ("normal", 1)]
        }
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="queue is full"):
            await limit.acquire(priority=0)
        high = asyncio.create_task(limit.acquire(priority=2))
        await asyncio.sleep(0.01)
        with pytest.raises(OverloadedError, match="higher priority took the place"):
            await waiting["new low"]
        assert limit.waiting == 3
        assert not waiting["old low"].done()
        for task in (high, *waiting.values()):
            task.cancel()
        await asyncio.sleep(0)
        assert limit.waiting == 0

    sim.run(main)


def test_the_reserve_is_for_priorities_above_normal() -> None:
    with virtual_time():
        limit = AdaptiveLimit(initial=4, reserve=0.5)
        held = [limit.pop(), limit.pop()]
        with pytest.raises(OverloadedError):
            limit.acquire_blocking()
        with priority(2):
            held += [limit.acquire_blocking(), limit.acquire_blocking()]
            with pytest.raises(OverloadedError):
                limit.acquire_blocking()
        assert limit.in_flight == 4
        for permit in held:
            limit.release(permit)
        assert len(limit._reserved) == 2
        assert len(limit._free) == 2
        assert not limit.attention


def test_a_returned_permit_goes_to_the_important_then_to_the_reserve_then_to_the_rest() -> None:
    async def main() -> None:
        limit = AdaptiveLimit(initial=2, queue=5, reserve=0.5)
        held = [await limit.acquire(), await limit.acquire(priority=2)]
        low = asyncio.create_task(limit.acquire())
        high = asyncio.create_task(limit.acquire(priority=2))
        await asyncio.sleep(0)
        limit.release(held.pop())
        await high
        limit.release(high.result())
        await asyncio.sleep(0)
        assert not low.done()
        limit.release(held.pop())
        await low
        assert limit.in_flight == 1

    sim.run(main)


def test_a_smaller_limit_has_a_smaller_reserve_and_one_permit_stays_for_all() -> None:
    limit = AdaptiveLimit(initial=10, reserve=0.5)
    limit._fit(1)
    assert limit.pop() == 1
    assert limit.in_flight == 1
    assert limit._reserved == []


def test_samples_move_the_limit_and_say_so() -> None:
    with virtual_time() as time:
        told: list[LimitChanged] = []
        time.world.events.subscribe(  # type: ignore[attr-defined]
            lambda event: told.append(event) if isinstance(event, LimitChanged) else None
        )
        limit = AdaptiveLimit(Steps(), initial=2, max=40, name="rates")
        for _ in range(30):
            limit.sample(5 * MS, "ok", 0)
        assert limit.limit > 20
        assert limit.snapshot()["latency"] == 0.005
        assert (told[0].name, told[0].before) == ("rates", 2)
        assert len(told) < 15


def test_cancelled_calls_are_no_samples() -> None:
    with virtual_time():
        limit = AdaptiveLimit(Steps(), initial=1)
        limit.sample(1, "cancelled", 0)
        assert limit.limit == 1
        limit.sample(1, "failed", 0)
        assert limit.limit == 2


def test_a_refusal_says_when_to_come_back() -> None:
    with virtual_time():
        limit = AdaptiveLimit(AIMD(threshold=1.0), initial=2)
        held = [limit.pop(), limit.pop()]
        with pytest.raises(OverloadedError) as caught:
            limit.acquire_blocking()
        assert caught.value.retry_after is None
        for _ in range(40):
            limit.sample(800 * MS, "ok", 0)
        held += [limit.acquire_blocking() for _ in range(limit.limit - 2)]
        with pytest.raises(OverloadedError) as caught:
            limit.acquire_blocking()
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after < 0.8


def test_refusals_are_events() -> None:
    with virtual_time() as time:
        told: list[Any] = []
        time.world.events.subscribe(told.append)  # type: ignore[attr-defined]
        limit = Bulkhead(1, name="rates")
        limit.pop()
        with pytest.raises(Exception, match="queue is full"):
            limit.acquire_blocking()
        assert told == [CallRejected(name="rates", part="limit", reason="full")]


def test_bounds_and_algorithms_change_live() -> None:
    with virtual_time():
        limit = AdaptiveLimit(Steps(), initial=10, priority=lambda: 0)
        limit.sample(1, "ok", 0)
        for _ in range(20):
            limit.sample(1, "ok", 0)
        limit.configure(initial=5, max=8)
        assert limit.limit == 8
        limit.configure(algorithm=Vegas(), reserve=0.25, queue=3, max_wait=1.0)
        assert limit.describe() == {
            "algorithm": "Vegas(alpha=2, beta=4, probe_interval=30.0)", "initial": 5, "min": 1,
            "max": 8, "queue": 3, "max_wait": 1.0, "priority": limit.describe()["priority"],
            "reserve": 0.25,
        }  # fmt: skip
        with pytest.raises(ConfigError):
            limit.configure(min=9)


def test_a_function_can_say_the_priority() -> None:
    limit = AdaptiveLimit(priority=lambda: 7)
    assert limit._level(None) == 7
    assert limit._level(2) == 2


def test_a_fork_drops_samples() -> None:
    limit = AdaptiveLimit(Steps(), initial=100)
    limit.sample(1, "ok", 0)
    limit.pop()
    limit._digesting.acquire()
    limit.forked()
    assert not limit._samples
    assert limit.in_flight == 0
    assert not limit._digesting.locked()


def test_samples_that_come_while_others_are_taken_in_are_left_for_the_next() -> None:
    with virtual_time():
        limit = AdaptiveLimit(Steps(), initial=1)
        with limit._digesting:
            limit.sample(1, "ok", 0)
            assert limit.limit == 1
        limit.sample(1, "ok", 0)
        assert limit.limit == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"initial": 0}, {"min": 0}, {"min": 5, "max": 4}, {"initial": 300}, {"reserve": 0.95},
        {"algorithm": "gradient"}, {"priority": 3}, {"max_wait": 1.0},
    ],
)  # fmt: skip
def test_a_wrong_setting_is_told_by_its_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"AdaptiveLimit: {next(reversed(settings))} is"):
        AdaptiveLimit(**settings)


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (Gradient, {"tolerance": 0.5}), (Gradient, {"probe_interval": 0}), (Vegas, {"alpha": 0}),
        (Vegas, {"alpha": 5}), (Vegas, {"probe_interval": -1}), (AIMD, {"threshold": 0}),
        (AIMD, {"backoff": 1}),
    ],
)  # fmt: skip
def test_a_wrong_setting_of_an_algorithm_is_told(algorithm: Any, settings: Any) -> None:
    with pytest.raises(ConfigError, match=f"{algorithm.__name__}: {next(iter(settings))} is"):
        algorithm(**settings)


def test_a_policy_feeds_its_limit() -> None:
    async def main() -> None:
        limit = AdaptiveLimit(Steps(), initial=1)
        policy = Policy("rates", limit=limit)

        async def call() -> None:
            await asyncio.sleep(0.1)

        await policy.acall(call)
        assert limit.limit == 2
        assert round(limit.snapshot()["latency"], 3) == 0.1
        assert limit.in_flight == 0

    sim.run(main)
