"""Each part that outlives a world is in another one as newly made, permits included."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress

import pytest

import outlast.host
from outlast import sim
from outlast.kernel import CircuitOpenError, current_world
from outlast.kernel.registry import fresh_world
from outlast.protect.adaptive import AdaptiveLimit
from outlast.protect.adaptive_rate import AdaptiveRate
from outlast.protect.breaker import CircuitBreaker
from outlast.protect.budget import Budget
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.cache import Cache
from outlast.protect.core.window import CountWindow
from outlast.protect.hedge import Hedge
from outlast.protect.idempotent import Idempotent
from outlast.protect.keyed import Keyed
from outlast.protect.policy import Policy
from outlast.protect.rate import RateLimit, SlidingWindow
from outlast.protect.retry import Retry
from outlast.protect.store.memory import MemoryStore
from outlast.protect.threadpool import ThreadBulkhead
from outlast.sim import Lab
from outlast.testing import virtual_time
from tests.support.protect_worlds import Down, fail

assert outlast.host


# --- each part -----------------------------------------------------------------------------------

AFTERWARDS: dict[str, Callable[[], Callable[[], object]]] = {}
"""By name: makes a part, uses it up, and returns what would tell that it was used."""


def case(make: Callable[[], Callable[[], object]]) -> Callable[[], Callable[[], object]]:
    AFTERWARDS[make.__name__] = make
    return make


@case
def breaker_in_streak() -> Callable[[], object]:
    breaker = CircuitBreaker(5, 60.0)
    fail(breaker, 4)
    return lambda: breaker.snapshot()


@case
def breaker_open_for_longer() -> Callable[[], object]:
    breaker = CircuitBreaker(1, 1.0)
    for _ in range(4):
        fail(breaker, 1)
        current_world().clock.pause(11.0)
    fail(breaker, 1)

    def use() -> object:
        fail(breaker, 1)
        number = breaker.round.number
        current_world().clock.pause(1.0)
        fail(breaker, 1)
        after = breaker.retry_after
        return number, after is not None and after <= 2.0

    return use


@case
def breaker_with_a_window() -> Callable[[], object]:
    breaker = CircuitBreaker(failure_rate=0.5, window=CountWindow(10), min_calls=4)
    fail(breaker, 3)

    def use() -> object:
        fail(breaker, 1)
        return breaker.state

    return use


@case
def rate() -> Callable[[], object]:
    limit = RateLimit(2, per=10.0, max_wait=30.0)
    for _ in range(5):
        limit.reserve(current_world().clock.monotonic_ns())
    return lambda: limit.reserve(current_world().clock.monotonic_ns())


@case
def sliding_window() -> Callable[[], object]:
    window = SlidingWindow(2, per=1e6)
    window.acquire_blocking(2)
    return lambda: window.try_acquire(2)


@case
def adaptive_rate() -> Callable[[], object]:
    limit = AdaptiveRate(100, burst=1)
    limit.throttled(retry_after=30.0)
    for _ in range(500):
        limit.succeeded()

    def use() -> object:
        free = limit.snapshot()
        limit.throttled()
        return free, limit.current, limit.snapshot()["cuts"]

    return use


@case
def bulkhead() -> Callable[[], object]:
    limit = Bulkhead(2)
    limit.pop()
    limit.pop()
    return lambda: (limit.try_acquire() is None, limit.in_flight)


@case
def adaptive_limit() -> Callable[[], object]:
    limit = AdaptiveLimit(initial=4, min=1, max=20)
    now_ns = current_world().clock.monotonic_ns()
    for step in range(2000):
        held = [limit.pop() for _ in range(min(4, limit.limit - limit.in_flight))]
        limit.sample(10_000_000 + 5_000_000 * (step % 7), "ok", now_ns + step * 10_000_000)
        for permit in held:
            limit.release(permit)
    return limit.snapshot


@case
def budget() -> Callable[[], object]:
    allowance = Budget(0.1, 0.2, 10.0)
    for _ in range(5):
        allowance.try_spend()
    return allowance.snapshot


@case
def hedge() -> Callable[[], object]:
    part = Hedge(2.0, percentile=0.9, min_samples=3)
    now_ns = current_world().clock.monotonic_ns()
    for _ in range(100):
        part.learn(1_000_000, now_ns)
    return lambda: (part.snapshot(), part.delay)


@case
def cache() -> Callable[[], object]:
    part = Cache(1e6)
    turns = itertools.count()
    ask = Policy(cache=part)(lambda: next(turns) and None)
    ask()
    return part.snapshot


@case
def records() -> Callable[[], object]:
    once = Idempotent(key=lambda: "k", name="once")
    work = once(lambda: 1)
    work()
    return lambda: once.store.snapshot()  # type: ignore[attr-defined]


@case
def store() -> Callable[[], object]:
    kept = MemoryStore()
    kept.take("rate", 1_000_000_000, 1_000_000_000, 1, 0)
    return lambda: kept.take("rate", 1_000_000_000, 1_000_000_000, 1, 0).granted


@case
def shared_rate() -> Callable[[], object]:
    limit = RateLimit(2, per=100.0, store=MemoryStore(), name="shared")
    limit.try_acquire()
    limit.try_acquire()
    return limit.try_acquire


@case
def shared_budget() -> Callable[[], object]:
    allowance = Budget(0.1, 0.1, 10.0, store=MemoryStore(), name="shared")
    for _ in range(100):
        allowance.deposit()
    while allowance.try_spend():
        pass
    return lambda: (allowance.snapshot(), allowance.try_spend())


@case
def keyed() -> Callable[[], object]:
    parts = Keyed(lambda: CircuitBreaker(1, 60.0), by=lambda key: key)
    fail(parts.part("a"), 1)
    return lambda: (len(parts), parts.part("a").state)


@case
def counts() -> Callable[[], object]:
    policy = Policy("counts", retry=Retry(Down, attempts=3, base=0.001))
    fail(policy, 2)
    policy.call(lambda: None)
    return policy.snapshot


@case
def thread_bulkhead() -> Callable[[], object]:
    pool = ThreadBulkhead(1)
    with suppress(Exception):
        pool.run(lambda: current_world().clock.pause(60.0), seconds=1.0)
    return pool.snapshot


@pytest.mark.parametrize("name", AFTERWARDS)
def test_a_part_is_in_another_world_as_newly_made(name: str) -> None:
    make = AFTERWARDS[name]
    with virtual_time() as clock:
        use = make()
    with virtual_time() as clock:  # which begins at an earlier instant than the first one ended
        used = use()
        now = clock.now
    with virtual_time() as clock:
        unused = make()  # as a part is after use ...
        fresh_world()
        clock.advance(now)
        assert used == unused()  # ... and the same part as new
    with virtual_time():
        assert make()() != used, "the case does not use anything up"


def test_modes_that_were_chosen_by_hand_stay() -> None:
    isolated, disabled, shadow = (CircuitBreaker(1, 60.0) for _ in range(3))
    isolated.isolate()
    disabled.disable()
    shadow.shadow()
    fail(shadow, 1)
    assert shadow.state == "OPEN"
    fresh_world()
    assert [one.mode for one in (isolated, disabled, shadow)] == ["isolated", "disabled", "shadow"]
    assert (isolated.state, shadow.state) == ("OPEN", "CLOSED")
    with pytest.raises(CircuitOpenError):
        isolated.call(lambda: None)
    assert disabled.round.passes
    parts = Keyed(lambda: CircuitBreaker(1, 60.0), by=lambda key: key)
    parts.part("a").isolate()
    kept = parts.part("a")
    parts.part("b")
    fresh_world()
    assert (len(parts), parts.part("a")) == (1, kept)


def test_a_breaker_is_open_for_no_longer_than_a_new_one() -> None:
    breaker = CircuitBreaker(1, 1.0)
    with virtual_time() as clock:
        for _ in range(5):
            fail(breaker, 1)
            clock.advance(11.0)
    with virtual_time() as clock:
        fail(breaker, 1)
        clock.advance(1.0)
        fail(breaker, 1)  # a probe
        after = breaker.retry_after
        assert after is not None
        assert 1.0 <= after <= 2.0


def test_settings_that_were_changed_stay() -> None:
    limit, rate_ = AdaptiveLimit(initial=4, max=10), AdaptiveRate(10)
    bulk, hedge_ = Bulkhead(2), Hedge(1.0)
    limit.configure(initial=6)
    rate_.configure(rate=20.0, ceiling=30.0)
    bulk.configure(max_concurrent=3)
    hedge_.configure(after=2.0)
    fresh_world()
    assert (limit.limit, rate_.current, rate_.ceiling) == (6, 20.0, 30.0)
    assert [bulk.try_acquire() is None for _ in range(4)] == [False] * 3 + [True]
    assert hedge_.delay == 2.0


def test_a_cut_of_a_later_instant_does_not_hide_one_in_the_new_world() -> None:
    limit = AdaptiveRate(100)
    with virtual_time() as clock:
        clock.advance(1e6)
        limit.throttled()
        assert limit.current == 50.0
    with virtual_time():
        assert limit.current == 100.0
        limit.throttled()
        assert limit.current == 50.0


# --- permits -------------------------------------------------------------------------------------


def test_a_host_that_was_killed_leaves_no_permit_lost_for_the_next_run() -> None:
    limit = Bulkhead(1, queue=4)

    @limit
    async def hang() -> None:
        await asyncio.sleep(1e6)

    async def main(lab: Lab) -> int:
        host = lab.host("client", hang)
        await asyncio.sleep(1.0)
        waiting = asyncio.ensure_future(hang())
        await asyncio.sleep(1.0)
        assert (limit.in_flight, limit.waiting) == (1, 1)
        lab.crash(host)
        waiting.cancel()
        await asyncio.sleep(1.0)
        return limit.in_flight

    first, second = sim.run(main), sim.run(main)
    assert first == second
    fresh_world()
    assert (limit.in_flight, limit.waiting, limit.attention) == (0, 0, False)
    assert limit.try_acquire() is not None
    assert limit.try_acquire() is None


def test_a_permit_that_comes_back_late_is_dropped() -> None:
    limit = Bulkhead(2)
    late = [limit.pop(), limit.pop()]
    fresh_world()
    first = limit.try_acquire()
    assert first is not None
    for permit in late:
        limit.release(permit)
    assert limit.in_flight == 1
    second = limit.try_acquire()
    assert second is not None
    assert limit.try_acquire() is None
    limit.release(first)
    limit.release(second)
    assert (limit.in_flight, limit.attention) == (0, False)


def test_a_limit_that_was_to_shrink_is_at_its_size() -> None:
    limit = Bulkhead(3)
    for _ in range(3):
        limit.pop()
    limit.configure(max_concurrent=1)
    fresh_world()
    assert limit.try_acquire() is not None
    assert limit.try_acquire() is None


def test_a_reserve_is_kept_anew() -> None:
    limit = AdaptiveLimit(initial=4, max=4, reserve=0.5)
    taken = limit.try_acquire()
    assert taken is not None
    fresh_world()
    assert [limit.try_acquire() is None for _ in range(3)] == [False, False, True]
    assert limit.acquire_blocking(priority=2)


def test_who_waits_in_a_closed_loop_is_forgotten_and_who_waits_elsewhere_is_served() -> None:
    limit = Bulkhead(1, queue=5)
    limit.pop()
    dead, alive = asyncio.new_event_loop(), asyncio.new_event_loop()
    waits = [dead.create_task(limit.acquire()), alive.create_task(limit.acquire())]
    for loop in (dead, alive):
        loop.run_until_complete(asyncio.sleep(0))
    assert limit.waiting == 2
    dead.close()
    fresh_world()
    assert alive.run_until_complete(waits[1])
    assert limit.waiting == 0
    alive.close()
    waits[0]._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = waits[0].get_coro()
    assert coroutine is not None
    with suppress(RuntimeError):
        coroutine.close()
