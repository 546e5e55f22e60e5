"""Rate limits as users and policies hold them, in virtual time."""

import asyncio
import os
import threading

import pytest

import outlast.host  # noqa: F401  (the real world, for tests without a virtual one)
from outlast import sim
from outlast.kernel import (
    BulkheadFullError,
    ConfigError,
    OverloadedError,
    RateLimitedError,
    current_world,
)
from outlast.protect import deadline
from outlast.protect.adaptive_rate import AdaptiveRate
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.events import CallRejected, RateCut, RateRaised
from outlast.protect.inject import Inject
from outlast.protect.policy import Policy
from outlast.protect.rate import Pace, RateLimit, SlidingWindow
from outlast.testing import virtual_time

NS = 1_000_000_000


def both(max_wait: float = 0.0) -> list[Pace]:
    return [RateLimit(2, per=10, max_wait=max_wait), SlidingWindow(2, per=10, max_wait=max_wait)]


def clock_ns() -> int:
    return current_world().clock.monotonic_ns()


def now() -> float:
    return clock_ns() / NS


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every event that is emitted inside ``virtual_time``."""
    found: list[object] = []
    from outlast.kernel.events import EventBus

    monkeypatch.setattr(EventBus, "emit", lambda _, event: found.append(event))
    return found


@pytest.mark.parametrize("number", [0, 1])
def test_what_is_free_is_taken_and_no_more(number: int) -> None:
    with virtual_time() as time:
        limit = both()[number]
        assert limit.snapshot()["free"] == 2
        assert [limit.try_acquire() for _ in range(3)] == [True, True, False]
        time.advance(10)
        assert limit.try_acquire(2)
        assert limit.snapshot()["free"] == 0


@pytest.mark.parametrize("number", [0, 1])
def test_a_refusal_says_when_to_come_again_and_then_the_call_passes(number: int) -> None:
    with virtual_time() as time:
        limit = both()[number]
        limit.try_acquire(2)
        time.advance(1)
        with pytest.raises(RateLimitedError) as refused:
            limit.acquire_blocking()
        after = refused.value.retry_after
        assert after is not None
        assert after == pytest.approx(4 if number == 0 else 9)
        time.advance(after)
        limit.acquire_blocking()


def test_a_refusal_of_a_patient_call_counts_its_patience() -> None:
    with virtual_time() as time:
        limit = RateLimit(1, per=10, max_wait=12)
        limit.acquire_blocking()
        limit.acquire_blocking()
        assert time.now == 10
        limit.reserve(clock_ns())
        with pytest.raises(RateLimitedError, match="could wait 12") as refused:
            limit.reserve(clock_ns())
        assert refused.value.retry_after == 8
        time.advance(8)
        assert limit.reserve(clock_ns()) == 12 * NS


def test_threads_wait_for_their_slot() -> None:
    with virtual_time() as time:
        limit = RateLimit(10, burst=1, max_wait=5)
        for _ in range(4):
            limit.acquire_blocking()
        assert time.now == pytest.approx(0.3)


def test_a_timeout_of_a_call_goes_before_max_wait() -> None:
    with virtual_time() as time:
        limit = RateLimit(1)
        limit.acquire_blocking()
        with pytest.raises(RateLimitedError):
            limit.acquire_blocking()
        limit.acquire_blocking(timeout=3)
        assert time.now == 1
        patient = RateLimit(1, max_wait=30)
        patient.acquire_blocking()
        with pytest.raises(RateLimitedError):
            patient.acquire_blocking(timeout=0.5)


def test_coroutines_wait_in_the_order_in_which_they_came() -> None:
    async def main() -> list[tuple[int, float]]:
        limit, begun, found = SlidingWindow(2, per=1, max_wait=9), now(), list[tuple[int, float]]()

        async def call(number: int) -> None:
            await limit.acquire()
            found.append((number, round(now() - begun, 6)))

        await asyncio.gather(*(call(number) for number in range(6)))
        return found

    assert sim.run(main) == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)]


def test_a_wait_that_does_not_fit_into_the_deadline_is_refused_at_once() -> None:
    with virtual_time() as time:
        limit = RateLimit(1, per=10, max_wait=60)
        limit.acquire_blocking()
        with deadline(4), pytest.raises(RateLimitedError):
            limit.acquire_blocking()
        with deadline(4), pytest.raises(RateLimitedError):
            limit.reserve(clock_ns())
        with deadline(10):
            assert limit.reserve(clock_ns()) == 10 * NS
        assert time.now == 0


def test_a_cancelled_wait_gives_the_newest_slot_back() -> None:
    async def main() -> tuple[float, float]:
        limit, begun = RateLimit(1, max_wait=60), now()
        await limit.acquire()
        first, second = (asyncio.ensure_future(limit.acquire()) for _ in range(2))
        await asyncio.sleep(0.1)
        second.cancel()
        await asyncio.sleep(0)
        await limit.acquire()
        third = now() - begun
        first.cancel()  # has long had its slot
        await limit.acquire()
        return third, now() - begun

    assert sim.run(main) == pytest.approx((2, 3))


def test_a_cancelled_wait_in_the_middle_keeps_its_slot() -> None:
    async def main() -> float:
        limit, begun = RateLimit(1, max_wait=60), now()
        await limit.acquire()
        first, second = (asyncio.ensure_future(limit.acquire()) for _ in range(2))
        await asyncio.sleep(0.1)
        first.cancel()
        await second
        return now() - begun

    assert sim.run(main) == pytest.approx(2)


def test_an_interrupted_thread_gives_its_slot_back() -> None:
    with virtual_time() as time:
        limit = RateLimit(1, max_wait=60)
        limit.acquire_blocking()
        clock = type(current_world().clock)
        pause = clock.pause

        def interrupted(self: object, seconds: float) -> None:
            raise KeyboardInterrupt

        clock.pause = interrupted  # type: ignore[method-assign,assignment]
        try:
            with pytest.raises(KeyboardInterrupt):
                limit.acquire_blocking()
        finally:
            clock.pause = pause  # type: ignore[method-assign]
        limit.acquire_blocking()
        assert time.now == 1


def test_policies_give_back_what_they_reserved_by_its_instant() -> None:
    limit = RateLimit(1, max_wait=9)
    assert limit.reserve(7 * NS) == 0
    wait = limit.reserve(7 * NS)
    assert not limit.give_back(7 * NS)
    assert limit.give_back(7 * NS + wait)
    assert limit.reserve(7 * NS) == wait


def test_a_refusal_is_told(told: list[object]) -> None:
    with virtual_time():
        limit = RateLimit(1, name="rates")
        limit.acquire_blocking()
        with pytest.raises(RateLimitedError, match=r"rates: the next slot is 1\.000 s away"):
            limit.acquire_blocking()
    [event] = told
    assert isinstance(event, CallRejected)
    assert (event.name, event.part) == ("rates", "rate")
    assert event.reason == "the next slot is 1.000 s away"


def test_settings_change_live_and_what_is_owed_stays() -> None:
    with virtual_time():
        limit = RateLimit(10, max_wait=100)
        limit.try_acquire(10)
        limit.configure(rate=1)
        assert limit.describe() == {"rate": 1.0, "per": 1.0, "burst": 1, "max_wait": 100.0}
        assert limit.reserve(clock_ns()) == 10 * NS
        limit.configure(burst=3, per=2.0, max_wait=0)
        assert (limit.burst, limit.per, limit.max_wait) == (3, 2.0, 0)
        limit.reset()
        assert limit.try_acquire(3)
        window = SlidingWindow(5)
        window.try_acquire(5)
        window.configure(limit=6, max_wait=2)
        assert [window.try_acquire(), window.try_acquire()] == [True, False]
        window.configure(per=0.5)
        assert (window.describe(), window.most) == ({"limit": 6, "per": 0.5, "max_wait": 2.0}, 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RateLimit(0), "RateLimit: rate is 0; calls from 1e-06 to 1e"),
        (lambda: RateLimit(True), "rate is True"),
        (lambda: RateLimit(float("nan")), "rate is nan"),
        (lambda: RateLimit("5"), "rate is '5'"),  # type: ignore[arg-type]
        (lambda: RateLimit(5, per=0), "per is 0; seconds from"),
        (lambda: RateLimit(5, burst=0), "burst is 0; a whole number from 1"),
        (lambda: RateLimit(5, burst=1.5), "burst is 1.5"),  # type: ignore[arg-type]
        (lambda: RateLimit(5, max_wait=-1), "max_wait is -1"),
        (lambda: RateLimit(5, max_wait=float("inf")), "max_wait is inf"),
        (lambda: RateLimit(5).configure(rate=-1), "rate is -1"),
        (lambda: RateLimit(5).configure(speed=1), "no setting 'speed'"),
        (lambda: RateLimit(5).try_acquire(6), "cost is 6; a whole number from 1 to 5"),
        (lambda: SlidingWindow(0), "SlidingWindow: limit is 0"),
        (lambda: SlidingWindow(100_001), "limit is 100001"),
        (lambda: SlidingWindow(2).try_acquire(0), "cost is 0"),
        (lambda: AdaptiveRate(5, floor=6), r"rate is 5, floor 6 and ceiling 5; floor <= rate"),
        (lambda: AdaptiveRate(5, ceiling=4), "ceiling 4"),
        (lambda: AdaptiveRate(5, cut=1), "cut is 1; a share from 0.01"),
        (lambda: AdaptiveRate(5, step=0.00001), "step is 1e-05; 5e-05 or more"),
        (lambda: AdaptiveRate(5, retry_after_cap=-1), "retry_after_cap is -1"),
        (lambda: AdaptiveRate(5).configure(speed=1), "no setting 'speed'"),
        (lambda: AdaptiveRate(5, floor=2).configure(rate=1), "rate is 1, floor 2"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(make: object, message: str) -> None:
    with virtual_time(), pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_threads_share_one_limit() -> None:
    limit, taken = RateLimit(1e-6, burst=500), list[bool]()

    def work() -> None:
        for _ in range(200):
            taken.append(limit.try_acquire())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), sum(taken)) == (800, 500)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_lock_that_another_thread_held_at_the_fork_is_free_in_the_child() -> None:
    limit, adaptive = RateLimit(5), AdaptiveRate(5)
    limit.core.guard.__enter__()
    adaptive._learning.acquire()
    child = os.fork()
    if not child:
        good = limit.try_acquire()
        adaptive.throttled()
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    limit.core.guard.__exit__(None, None, None)


# --- adaptive ---------------------------------------------------------------------------------


def test_a_throttled_answer_halves_the_rate_and_successes_raise_it(told: list[object]) -> None:
    with virtual_time():
        limit = AdaptiveRate(100, name="rates")
        limit.throttled()
        assert limit.current == 50
        assert limit.snapshot() == {"free": 50, "current": 50.0, "cuts": 1}
        for _ in range(50):
            limit.succeeded()
        assert limit.try_acquire(50)
        now_ns = clock_ns()
        assert [limit.reserve(now_ns) for _ in range(5)] == [0] * 5  # the burst grew with it
        with pytest.raises(RateLimitedError):
            limit.reserve(now_ns)
        assert limit.current == 55
        assert limit.rate == 100
    cut, raised, _ = told
    assert isinstance(cut, RateCut)
    assert (cut.name, cut.before, cut.rate, cut.level) == ("rates", 100, 50, "warning")
    assert isinstance(raised, RateRaised)
    assert (raised.before, raised.rate) == (50, 55)


def test_the_callee_says_when_to_come_again_and_nothing_starts_before() -> None:
    with virtual_time() as time:
        limit = AdaptiveRate(100, retry_after_cap=30)
        limit.throttled(retry_after=20)
        time.advance(19.9)
        assert not limit.try_acquire()
        time.advance(0.2)
        assert limit.try_acquire()
        time.advance(100)
        limit.throttled(retry_after=3600)
        time.advance(29)
        assert not limit.try_acquire()
        time.advance(1.1)
        assert limit.try_acquire()


def test_it_hears_a_throttled_answer_in_an_error() -> None:
    class TooMany(Exception):
        def __init__(self) -> None:
            self.headers, self.status = {"Retry-After": "7"}, 429

    with virtual_time() as time:
        limit = AdaptiveRate(100)
        limit.heard(ValueError("x"))
        assert limit.current == 100
        limit.heard(TooMany())
        assert limit.current == 50
        time.advance(6.9)
        assert not limit.try_acquire()
        time.advance(0.1)
        assert limit.try_acquire()


def test_a_refusal_from_further_in_is_a_throttled_answer_too() -> None:
    with virtual_time():
        limit = AdaptiveRate(100)
        limit.heard(RateLimitedError())
        assert limit.current == 50


def test_answers_to_calls_from_before_a_cut_do_not_cut_again() -> None:
    with virtual_time() as time:
        limit = AdaptiveRate(100)
        time.advance(5)
        limit.throttled(started_ns=clock_ns() - 4 * NS)
        time.advance(5)
        limit.throttled(started_ns=clock_ns() - 8 * NS)
        assert limit.current == 50


def test_settings_of_an_adaptive_rate_change_live() -> None:
    with virtual_time():
        limit = AdaptiveRate(100)
        limit.configure(rate=200)
        assert (limit.current, limit.ceiling, limit.floor, limit.step) == (200, 200, 2, 10)
        limit.throttled()
        limit.configure(rate=150, burst=7, max_wait=1.5, per=2.0, retry_after_cap=5)
        assert (limit.current, limit.burst, limit.max_wait, limit.per) == (100, 7, 1.5, 2.0)
        limit.configure(ceiling=160, floor=120, step=3, cut=0.25)
        assert limit.current == 120
        assert limit.describe() == {
            "rate": 150, "per": 2.0, "floor": 120, "ceiling": 160, "step": 3, "cut": 0.25,
            "burst": 7, "max_wait": 1.5, "retry_after_cap": 5,
        }  # fmt: skip
        limit.reset()
        assert limit.current == 150


def test_a_simulated_service_is_asked_for_what_it_bears() -> None:
    """It bears 40 per second; the limit begins with 200 and settles around that."""
    with virtual_time() as time:
        limit = AdaptiveRate(200, burst=1, max_wait=5)
        second, left, counts = -1, 0, list[int]()
        while time.now < 120:
            wait = limit.reserve(clock_ns())
            time.advance(wait / NS)
            if int(time.now) != second:
                second, left = int(time.now), 40
                counts.append(0)
            if left:
                left -= 1
                counts[-1] += 1
                limit.succeeded()
            else:
                limit.throttled()
        settled = counts[20:-1]
        assert sum(settled) / len(settled) > 0.7 * 40
        assert limit._aimd.cuts < 60


def test_an_adaptive_rate_does_not_hear_of_refusals_by_other_parts_of_its_policy() -> None:
    rate, limit = AdaptiveRate(100), Bulkhead(1)
    policy = Policy("p", rate=rate, limit=limit, order=("limit", "rate"))
    further_in = Policy(
        "p", rate=rate, limit=limit, inject=Inject(active=False), order=("rate", "inject", "limit")
    )
    permit = limit.pop()
    with virtual_time():
        for refused in (policy, further_in):
            with pytest.raises(BulkheadFullError):
                refused.call(print, "not printed")
        limit.release(permit)
        assert rate.current == 100.0

        def throttled() -> None:
            raise OverloadedError("from the other side")

        with pytest.raises(OverloadedError):
            policy.call(throttled)
        assert rate.current == 50.0
