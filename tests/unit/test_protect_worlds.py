"""Parts that outlive a world: simulated runs that follow each other in one process are alike."""

import asyncio
import gc
import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

import outlast.host
from outlast import deadline, remaining, sim
from outlast.kernel import (
    CircuitOpenError,
    InFlightError,
    RateLimitedError,
    RejectedError,
    current_world,
)
from outlast.kernel import registry as worlds
from outlast.kernel.prng import Prng
from outlast.kernel.registry import fresh_world, on_fresh_world
from outlast.protect import forked
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
from outlast.protect.shared import shared_of
from outlast.protect.store.memory import MemoryStore
from outlast.protect.threadpool import ThreadBulkhead
from outlast.sim import Lab
from outlast.sim.running import Options, run_case, with_lab
from outlast.testing import virtual_time
from outlast.testing.plugin import pytest_runtest_setup

assert outlast.host


class Down(Exception):
    """The service is down."""


def failing() -> None:
    raise Down


async def failing_async() -> None:
    raise Down


def fail(part: Any, times: int) -> None:
    for _ in range(times):
        with suppress(Exception):
            part.call(failing)


# --- one seed, twice -----------------------------------------------------------------------------

# As a program makes it: when its module is imported.
BUDGET = Budget(0.5, 0.2, 5.0)
POLICY = Policy(
    "worlds",
    timeout=30.0,
    retry=Retry(Down, attempts=4, base=0.05, budget=BUDGET),
    hedge=Hedge(percentile=0.8, min_samples=5, budget=BUDGET),
    breaker=CircuitBreaker(5, 3.0),
    rate=AdaptiveRate(40, burst=3, max_wait=2.0),
    limit=AdaptiveLimit(initial=4, max=6, queue=5, max_wait=3.0),
    attempt_timeout=1.0,
    fallback=None,
    cache=Cache(0.5, stale=1.0),
)


async def busy(lab: Lab) -> tuple[Any, ...]:
    """Use every part; return what a program can see of them."""
    prng = current_world().prng
    told: list[str] = []
    current_world().events.subscribe(lambda event: told.append(repr(event)))  # type: ignore[attr-defined]

    @POLICY
    async def ask(item: int) -> int:
        await asyncio.sleep(0.02 + prng.below(100) / 200)
        if 20 < item < 45 or prng.chance(1, 5):
            raise Down
        return item

    async def one(item: int) -> str:
        try:
            return str(await ask(item))
        except Exception as error:
            return type(error).__name__

    answers = []
    for item in range(60):
        answers += await asyncio.gather(one(item), one(item + 1), one(item))
    seen = POLICY.snapshot()
    return answers, told, repr(seen), lab.now


def test_a_policy_from_import_time_meets_each_run_of_a_seed_as_new() -> None:
    first, second = (run_case(with_lab(busy), 7, Options()) for _ in range(2))
    assert first.error is second.error is None
    assert first.value == second.value
    assert first.digest == second.digest
    assert "CircuitOpened" in str(first.value[1])


def test_what_was_done_in_real_time_is_not_met_by_the_first_seed() -> None:
    calm = run_case(with_lab(busy), 8, Options())
    fresh_world()
    parts = POLICY.parts
    fail(parts["breaker"], 5)
    parts["rate"].throttled(30.0)
    parts["limit"].pop()
    for _ in range(5):
        parts["hedge"].learn(1_000_000, current_world().clock.monotonic_ns())
    assert parts["breaker"].state == "OPEN"
    again = run_case(with_lab(busy), 8, Options())
    assert (again.value, again.digest) == (calm.value, calm.digest)


def test_another_seed_in_between_changes_nothing() -> None:
    first = run_case(with_lab(busy), 9, Options())
    run_case(with_lab(busy), 10, Options())
    assert run_case(with_lab(busy), 9, Options()).value == first.value


def test_what_a_run_has_left_can_be_looked_at_until_the_next_world() -> None:
    breaker = CircuitBreaker(2, 60.0)

    async def main() -> None:
        fail(breaker, 2)

    sim.run(main)
    assert breaker.failure_count == 2
    assert breaker.alone().snapshot()["calls"]["failed"] == 2
    pytest_runtest_setup()  # of the next test
    assert breaker.failure_count == 0
    assert breaker.alone().snapshot()["calls"]["failed"] == 0


def test_a_deadline_of_the_real_clock_means_nothing_in_simulated_time() -> None:
    async def main() -> float | None:
        return remaining()

    with deadline(5.0):
        with virtual_time():
            assert remaining() is None
        assert sim.run(main) is None
        assert remaining() is not None


def test_a_block_of_virtual_time_begins_anew_after_another_and_keeps_what_was_prepared() -> None:
    fresh_world()
    breaker = CircuitBreaker(1, 60.0)
    breaker.trip()
    with virtual_time():
        assert breaker._core.state == "OPEN"
        fail(breaker, 1)
    assert breaker._core.state == "OPEN"
    with virtual_time():
        assert breaker.state == "CLOSED"
    breaker.trip()
    fresh_world()
    assert breaker.state == "CLOSED"


def test_nothing_is_told_or_drawn_when_parts_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with virtual_time() as clock:
        breaker, prng = CircuitBreaker(1, 60.0), clock.world.prng
        fail(breaker, 1)
        told: list[object] = []
        clock.world.events.subscribe(told.append)  # type: ignore[attr-defined]
        monkeypatch.setattr(Prng, "bits64", lambda _: pytest.fail("drawn"))
        fresh_world()
        monkeypatch.undo()
        assert breaker.state == "CLOSED"
        assert told == []
        assert prng.bits64() >= 0


# --- hooks ---------------------------------------------------------------------------------------


def test_hooks_are_called_in_order_until_they_are_removed() -> None:
    called: list[str] = []
    removes = [
        on_fresh_world(lambda: called.append("a")),
        on_fresh_world(lambda: called.append("b")),
    ]
    fresh_world()
    assert called == ["a", "b"]
    removes[0]()
    removes[0]()
    fresh_world()
    assert called == ["a", "b", "b"]
    removes[1]()


def test_after_another_means_only_if_one_has_ended_since() -> None:
    called: list[bool] = []
    remove = on_fresh_world(lambda: called.append(True))
    fresh_world()
    fresh_world(after_another=True)
    assert called == [True]
    worlds.world_ended()
    fresh_world(after_another=True)
    fresh_world(after_another=True)
    assert called == [True, True]
    remove()


def test_what_is_gone_is_not_called() -> None:
    class Thing:
        def forked(self) -> None:
            pass

        def begin_anew(self) -> None:
            called.append(True)

    called: list[bool] = []
    thing = Thing()
    forked.tell_of_forks(thing)
    fresh_world()
    assert called == [True]
    del thing
    gc.collect()
    fresh_world()
    assert called == [True]


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


# --- calls that were under way -------------------------------------------------------------------


def test_nobody_waits_for_a_fetch_that_ended_with_its_world() -> None:
    part, fetched = Cache(60.0), itertools.count()

    @Policy(cache=part)
    async def ask() -> int:
        number = next(fetched)
        if number == 0:
            await asyncio.Event().wait()
        return number

    loop = asyncio.new_event_loop()
    task = loop.create_task(ask())  # type: ignore[arg-type]
    loop.run_until_complete(asyncio.sleep(0))
    assert part.snapshot()["in_flight"] == 1
    loop.close()
    assert sim.run(ask) == 1
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()


def test_a_key_in_flight_is_free_in_another_world() -> None:
    once = Idempotent(key=lambda: "k", name="once")
    fingerprint = "f"
    once.begin("k", fingerprint)
    with pytest.raises(InFlightError):
        once.begin("k", fingerprint)
    fresh_world()
    assert once.begin("k", fingerprint)


def test_the_name_of_a_node_is_drawn_in_the_world_that_asks() -> None:
    store = MemoryStore()
    breaker = CircuitBreaker(1, 1.0, store=store, name="shared")

    async def main() -> tuple[str, str]:
        fail(breaker, 1)
        shared_of(store).sync()
        return shared_of(store).node, store.view("shared").state

    names = [sim.run(main, seed=seed) for seed in (1, 1, 2)]
    assert names[0] == names[1] != names[2]
    given = MemoryStore(node="one")
    assert shared_of(given).node == "one"
    fresh_world()
    assert shared_of(given).node == "one"


def test_loops_of_the_last_world_are_let_go() -> None:
    policy = Policy(timeout=5.0, attempt_timeout=1.0)

    @policy
    async def quick() -> None:
        await asyncio.sleep(0.01)

    sim.run(quick)
    fresh_world()
    plan = policy._layers.only("this test")
    assert not plan.attempt_watches._all
    assert not plan.whole_watches._all
    sim.run(quick)


def test_a_rate_refuses_in_the_second_run_as_in_the_first() -> None:
    limit = RateLimit(1, per=3600.0)

    async def main() -> list[bool]:
        granted = []
        for _ in range(3):
            try:
                await limit.acquire()
            except RateLimitedError:
                granted.append(False)
            else:
                granted.append(True)
            await asyncio.sleep(1800.0)
        return granted

    assert [sim.run(main) for _ in range(3)] == [[True, False, True]] * 3


def test_a_world_of_another_clock_does_not_close_a_breaker_by_itself() -> None:
    """Without ``fresh_world`` the state would be judged by an instant of another clock."""
    breaker = CircuitBreaker(1, 3600.0)
    with virtual_time() as clock:
        fail(breaker, 1)
        world = replace(clock.world)
        assert world.clock.monotonic_ns() > 0
        with pytest.raises(RejectedError):
            breaker.call(lambda: None)
    with virtual_time():
        assert breaker.call(lambda: 1) == 1
