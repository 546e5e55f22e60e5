"""Cancelled, closed or collected at an unlucky moment: nothing is lost, and nothing stays."""

import asyncio
import gc
import math
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest

import outlast.host  # noqa: F401 - threads here find the real world
from outlast.kernel import OverloadedError, Prng, RateLimitedError, TooLateError, current_world
from outlast.protect import (
    AIMD,
    AdaptiveLimit,
    Budget,
    CircuitBreaker,
    Gradient,
    Hedge,
    Policy,
    RateLimit,
    Retry,
    ThreadBulkhead,
    Vegas,
    deadline,
    priority,
)
from outlast.protect.hedge_blocking import _Caller
from outlast.protect.http import refusal
from outlast.protect.idempotent import Idempotent
from outlast.protect.shared import shared_of
from outlast.protect.shared_limits import SharedRate
from outlast.protect.store.memory import MemoryStore
from outlast.protect.store.records import MemoryRecords
from outlast.protect.wsgi import ProtectMiddleware
from outlast.testing import virtual_time
from tests.support.protected import Stage, play, stage
from tests.unit.test_protect_idempotent import Remote, under

MS = 1_000_000


# --- idempotency -------------------------------------------------------------------------------


def keyed(once: Idempotent, work: Callable[[], Any]) -> Callable[[], Any]:
    """Return ``work`` done once, always under the same key."""
    done = once(work)

    async def call() -> Any:
        with under("k"):
            return await done()

    return call


def test_work_whose_caller_is_cancelled_while_its_outcome_is_kept_is_not_done_again() -> None:
    async def story(here: Stage) -> None:
        remote, runs, done = Remote(), [], asyncio.Event()

        async def work() -> int:
            runs.append(1)
            done.set()
            return 5

        call = keyed(Idempotent(remote, name="x", lease=30), work)
        task = asyncio.ensure_future(call())
        await done.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await here.world.timers.sleep(31)
        assert await call() == 5
        assert len(runs) == 1

    play(story)


def test_work_that_is_cancelled_twice_frees_its_key() -> None:
    async def story(here: Stage) -> None:
        remote = Remote()

        async def work() -> None:
            await here.world.timers.sleep(5)

        task = asyncio.ensure_future(keyed(Idempotent(remote, name="x", lease=30), work)())
        await here.world.timers.sleep(1)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        await here.world.timers.sleep(1)
        assert remote.inner.snapshot()["in_flight"] == 0

    play(story)


@pytest.mark.parametrize("down", [False, True])
def test_what_becomes_of_an_outcome_for_which_nobody_waits_is_told(down: bool) -> None:
    async def story(here: Stage) -> None:
        remote, done = Remote(), asyncio.Event()

        async def work() -> None:
            done.set()
            remote.down = down
            if not down:  # the lease has run out, and another one has begun
                remote.inner.begin_anew()

        task = asyncio.ensure_future(keyed(Idempotent(remote, name="x"), work)())
        await done.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await here.world.timers.sleep(1)
        assert here.told() == ["OutcomeNotKept" if down else "OutcomeFenced"]

    play(story)


def test_an_error_about_which_the_filter_raises_is_kept_with_a_note() -> None:
    def wrong(error: Exception) -> bool:
        raise KeyError("filter")

    with stage() as here:
        runs = []

        @Idempotent(errors=wrong, name="x", lease=30)
        def work() -> None:
            runs.append(1)
            raise ValueError("mine")

        for _ in range(3):
            with under("k"), pytest.raises(ValueError, match="mine") as caught:
                work()
            assert "raised KeyError: 'filter'" in caught.value.__notes__[0]
            here.pause(20)
        assert len(runs) == 1


def test_a_record_from_when_the_store_was_down_is_asked_for_no_longer_than_its_time() -> None:
    async def story(here: Stage) -> None:
        remote = Remote()

        async def work() -> None:
            return None

        call = keyed(Idempotent(remote, name="x", lease=3, ttl=10), work)
        remote.down = True
        await call()
        remote.down = False
        remote.calls.clear()
        await here.world.timers.sleep(5)
        await call()
        assert remote.calls == []
        await here.world.timers.sleep(6)
        await call()
        assert remote.calls == ["begin", "finish"]

    play(story)


class _Body:
    """The body of a response, which cannot be closed."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"done"

    def close(self) -> None:
        raise OSError("close")


@pytest.mark.parametrize("fails", [False, True])
def test_a_body_that_cannot_be_closed_does_not_free_the_key(fails: bool) -> None:
    runs = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        runs.append(1)
        start_response("200 OK", [("Content-Length", "2" if fails else "4")])
        return _Body()

    with virtual_time() as clock:
        app_: Any = ProtectMiddleware(app, idempotent=Idempotent(lease=30))
        transport = httpx.WSGITransport(app_)
        with httpx.Client(transport=transport, base_url="http://x") as client:
            with pytest.raises(OSError, match="close"):
                client.post("/", headers={"Idempotency-Key": "k"})
            clock.advance(60)
            assert client.post("/", headers={"Idempotency-Key": "k"}).status_code == 500
        assert len(runs) == 1


# --- destructors -------------------------------------------------------------------------------


class Collecting:
    """A lock under which the garbage collector runs at once, as it may anywhere."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.release = lock.release

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return bool(self._lock.acquire(blocking, 1 if blocking else -1))

    def __enter__(self) -> None:
        if not self.acquire():
            raise RuntimeError("this thread waits for itself")
        gc.collect()

    def __exit__(self, *_: object) -> None:
        self.release()


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    seen: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: seen.append(told.exc_value))
    gc.disable()
    yield seen
    gc.enable()


def drop(thing: object) -> None:
    """Leave ``thing`` to the garbage collector."""
    cycle: dict[str, object] = {"thing": thing}
    cycle["cycle"] = cycle


def test_a_stream_that_is_collected_while_its_breaker_is_at_work_does_not_wait_for_itself(
    unraisable: list[object],
) -> None:
    with stage() as here:
        breaker = CircuitBreaker(1, 10.0)
        policy = Policy(breaker=breaker)

        @policy
        def stream() -> Iterator[int]:
            yield 1

        breaker.trip()
        here.pause(10)
        probe = stream()
        next(probe)
        drop(probe)
        del probe
        breaker._lock = Collecting(breaker._lock)  # type: ignore[assignment]
        breaker.failure_count  # noqa: B018 - takes the lock
        assert unraisable == []
        assert policy.call(str) == ""  # the place of the probe is free
        assert breaker.state == "CLOSED"


def test_work_that_is_collected_while_records_are_looked_at_does_not_wait_for_itself(
    unraisable: list[object],
) -> None:
    with stage():
        records = MemoryRecords()

        async def forever() -> None:
            await asyncio.Future(loop=loop)

        loop = asyncio.SelectorEventLoop()
        call = Idempotent(records, name="x").arun("k", "", forever)
        call.send(None)
        assert records.snapshot()["in_flight"] == 1
        drop(call)
        del call
        records._lock = Collecting(records._lock)  # type: ignore[assignment]
        records.knows("other")
        assert unraisable == []
        assert records.snapshot()["in_flight"] == 0
        loop.close()


# --- generators that are closed elsewhere ------------------------------------------------------


def closed_elsewhere(stream: AsyncIterator[int]) -> Callable[[Stage], Any]:
    async def story(here: Stage) -> None:
        await anext(stream)
        await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]
        await here.world.timers.sleep(10)

    return story


def test_a_deadline_in_a_generator_that_is_closed_elsewhere_cancels_nobody_later() -> None:
    async def stream() -> AsyncIterator[int]:
        with deadline(5):
            yield 1

    play(closed_elsewhere(stream()))


def test_a_priority_in_a_generator_that_is_closed_elsewhere_ends_quietly() -> None:
    async def stream() -> AsyncIterator[int]:
        with priority(0):
            yield 1

    play(closed_elsewhere(stream()))


# --- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [Gradient(), Vegas(), AIMD()])
def test_calls_that_take_no_time_teach_an_adaptive_limit_nothing_wrong(algorithm: Any) -> None:
    with stage():
        limit = AdaptiveLimit(algorithm, initial=1)
        ask = Policy(limit=limit)(lambda: 1)
        assert sum(ask() for _ in range(1000)) == 1000
        assert limit.in_flight == 0


class Wrong:
    """An algorithm that raises."""

    limit, rtt_ns = 1.0, 0

    def begin(self, limit: int, low: int, high: int, prng: Prng) -> "Wrong":
        return self

    def on_sample(self, rtt_ns: int, in_flight: int, ok: bool, now_ns: int) -> int:
        raise ZeroDivisionError

    def bound(self, low: int, high: int) -> int:
        return 1


def test_an_algorithm_that_raises_costs_no_permit() -> None:
    with stage():
        limit = AdaptiveLimit(Wrong(), initial=1)

        def ask() -> None:
            raise ValueError

        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                Policy(limit=limit).call(ask)
            assert limit.in_flight == 0


def test_a_call_in_a_thread_is_not_begun_after_the_deadline() -> None:
    ran: list[int] = []
    pool = ThreadBulkhead(1)

    async def story() -> None:
        with deadline(0), pytest.raises(TooLateError):
            await pool.acall(ran.append, 2)

    with deadline(0), pytest.raises(TooLateError):
        pool.call(ran.append, 1)
    asyncio.run(story())
    assert pool.call(len, ran) == 0


def test_a_hedge_for_which_no_thread_is_free_costs_the_budget_nothing() -> None:
    budget, over = Budget(ratio=0, floor=1, window=10), threading.Event()
    hedge = Hedge(0.0, budget=budget, max_threads=1)
    assert hedge.crew.try_start(lambda: over.wait(5) and None)
    caller = _Caller(hedge, int, "p", current_world())
    caller.start(current_world().clock.monotonic_ns())
    over.set()
    assert not caller.sides.more
    assert budget.snapshot()["granted"] == 0


def test_a_coroutine_that_no_task_drives_is_not_hedged_and_ends_as_it_does() -> None:
    async def story(here: Stage) -> None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()

        async def ask() -> int:
            return await answer

        call: Any = Policy(hedge=Hedge(0.01))(ask)()
        ended: list[BaseException] = []

        def step() -> None:
            try:
                call.send(None)
            except BaseException as error:
                ended.append(error)

        loop.call_soon(step)
        await here.world.timers.sleep(1)
        answer.set_result(3)
        loop.call_soon(step)
        await here.world.timers.sleep(1)
        assert [getattr(error, "value", error) for error in ended] == [3]

    play(story)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (math.inf, b"86400"), (1e300, b"86400"), (math.nan, b"1"), (-math.inf, b"1"), (-5.0, b"1"),
        (0.2, b"1"), (1.5, b"2"), (2.0, b"2"), (None, b"1"),
    ],
)  # fmt: skip
def test_whatever_an_error_says_the_client_is_told_seconds(
    said: float | None, told: bytes
) -> None:
    error = OverloadedError(retry_after=said)
    answer = refusal(error, shed_status=503, begun=False)
    assert dict(answer.headers)[b"retry-after"] == told


@pytest.mark.parametrize("asked", [1e300, math.inf, math.nan, -1.0])
def test_whatever_a_callee_asks_for_the_wait_is_one_that_clocks_can_count(asked: float) -> None:
    calls = []

    def ask() -> None:
        calls.append(1)
        raise RateLimitedError(retry_after=asked)

    with stage() as here, deadline(60):
        policy = Policy(retry=Retry(RateLimitedError, 2, retry_after_cap=math.inf))
        with pytest.raises(RateLimitedError):
            policy.call(ask)
        assert here.now < 1
        assert len(calls) == (1 if asked > 1 else 2)


# --- what processes share ----------------------------------------------------------------------


class Late(MemoryStore):
    """A store that decides ``way`` seconds after it was asked, and answers as long after that.

    Attributes:
        promised_ns: When the slots begin that it gave last.
    """

    def __init__(self, way: float) -> None:
        super().__init__()
        self.way = way
        self.promised_ns = 0

    def transact(self, key: str, rule: Any) -> Any:
        clock = current_world().clock
        clock.pause(self.way)
        answer = super().transact(key, rule)
        if answer.granted:
            self.promised_ns = clock.monotonic_ns() + answer.wait_ns
        clock.pause(self.way)
        return answer


@pytest.mark.parametrize(("way", "latest"), [(0.01, 0.05), (0.02, 0.05), (0.2, 0.2)])
def test_slots_of_a_store_that_answers_late_begin_no_sooner_than_it_said(
    way: float, latest: float
) -> None:
    with stage() as here:
        store = Late(way)
        rate = SharedRate(shared_of(store))
        clock = here.world.clock
        for _ in range(100):
            taken = rate.reserve(
                "r", clock.monotonic_ns(), interval_ns=10 * MS, burst=5, max_wait_ns=10**10
            )
            assert taken is not None
            assert taken.granted
            late_ns = clock.monotonic_ns() + taken.wait_ns - store.promised_ns
            assert 0 <= late_ns <= latest * 1000 * MS


class Raced(deque[Any]):
    """A queue that another thread empties between a look and a step."""

    def __bool__(self) -> bool:
        return True


def test_an_outbox_that_another_thread_has_emptied_is_no_failure() -> None:
    with stage():
        shared = shared_of(MemoryStore())
        shared._outbox = Raced()
        shared.sync()


def test_a_thread_that_could_not_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Far(MemoryStore):
        local = False

    store = Far()
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    with pytest.raises(RuntimeError):
        RateLimit(1, store=store, name="r")
    monkeypatch.setattr(threading.Thread, "start", start)
    limit = RateLimit(1, store=store, name="r")
    shared = shared_of(store)
    assert shared._thread is not None
    assert shared._thread.is_alive()
    assert limit.try_acquire()
    shared.close()


def _refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
