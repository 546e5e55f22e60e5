"""Parts that outlive a world: simulated runs that follow each other in one process are alike."""

import asyncio
import gc
import itertools
from dataclasses import replace
from typing import Any

import pytest

import outlast.host
from outlast import deadline, remaining, sim
from outlast.kernel import InFlightError, RateLimitedError, RejectedError, current_world
from outlast.kernel import registry as worlds
from outlast.kernel.prng import Prng
from outlast.kernel.registry import fresh_world, on_fresh_world
from outlast.protect import forked
from outlast.protect.adaptive import AdaptiveLimit
from outlast.protect.adaptive_rate import AdaptiveRate
from outlast.protect.breaker import CircuitBreaker
from outlast.protect.budget import Budget
from outlast.protect.cache import Cache
from outlast.protect.hedge import Hedge
from outlast.protect.idempotent import Idempotent
from outlast.protect.policy import Policy
from outlast.protect.rate import RateLimit
from outlast.protect.retry import Retry
from outlast.protect.shared import shared_of
from outlast.protect.store.memory import MemoryStore
from outlast.sim import Lab
from outlast.sim.running import Options, run_case, with_lab
from outlast.testing import virtual_time
from outlast.testing.plugin import pytest_runtest_setup
from tests.support.protect_worlds import Down, fail

assert outlast.host


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
