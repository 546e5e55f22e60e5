"""Calls in worker threads that can be left behind."""

import asyncio
import threading
from contextvars import ContextVar
from functools import partial

import pytest

import outlast.host  # noqa: F401 - threads here find the real world
from outlast import sim
from outlast.kernel import (
    BulkheadFullError,
    ConfigError,
    DeadlineError,
    RejectedError,
    TooLateError,
    current_world,
    happened,
)
from outlast.protect import Policy, deadline
from outlast.protect.threadpool import Hard, ThreadBulkhead
from outlast.sim.world import SimClock
from outlast.testing import virtual_time

word: ContextVar[str] = ContextVar("word", default="")


def beside(self, call):  # type: ignore[no-untyped-def]
    """Stand in for the clock of the simulator: the call ends later, the caller goes on."""
    before = self._sim.ahead_ns
    answer, error = None, None
    try:
        answer = call()
    except Exception as raised:
        error = raised
    ends = self.monotonic_ns()
    self._sim.ahead_ns = before
    return answer, error, ends


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(SimClock, "beside"):
        monkeypatch.setattr(SimClock, "beside", beside, raising=False)


def until(condition) -> None:  # type: ignore[no-untyped-def]
    while not condition():  # bounded by the limit of the test
        threading.Event().wait(0.001)


def abandon_a_call(pool: ThreadBulkhead, gate: threading.Event) -> DeadlineError:
    """Leave a call behind, anew where a busy machine let the deadline pass before it began."""
    while True:
        try:
            with deadline(0.02):
                pool.call(gate.wait)
        except TooLateError:
            continue
        except DeadlineError as error:
            return error


def test_a_call_runs_in_another_thread_with_the_context_of_the_caller() -> None:
    pool = ThreadBulkhead(1)
    word.set("hello")
    name, said = pool.call(lambda: (threading.current_thread(), word.get()))
    assert name is not threading.current_thread()
    assert said == "hello"


def test_one_thread_makes_many_calls() -> None:
    pool = ThreadBulkhead(2)
    threads = {pool.call(threading.get_ident) for _ in range(50)}
    assert len(threads) <= 2
    assert pool.snapshot()["threads"] <= 2


def test_an_error_comes_through_itself() -> None:
    error = KeyError("x")

    def fails() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        ThreadBulkhead(1).call(fails)
    assert caught.value is error


def test_an_abandoned_call_keeps_its_permit_until_it_ends_and_says_that_it_runs() -> None:
    pool = ThreadBulkhead(1, name="old")
    gate = threading.Event()
    error = abandon_a_call(pool, gate)
    assert happened(error) == "maybe"
    assert "still runs" in error.__notes__[0]
    assert pool.snapshot() == {"in_flight": 1, "waiting": 0, "threads": 1, "abandoned": 1}
    with pytest.raises(BulkheadFullError):
        pool.call(int)
    gate.set()
    until(lambda: pool.snapshot()["abandoned"] == 0)
    until(lambda: pool.snapshot()["in_flight"] == 0)
    assert pool.call(int) == 0


def test_the_wait_for_a_thread_ends_at_the_deadline_and_sends_nothing() -> None:
    pool = ThreadBulkhead(1, queue=1)
    gate = threading.Event()
    thread = threading.Thread(target=pool.call, args=(gate.wait,))
    thread.start()
    until(lambda: pool.snapshot()["in_flight"] == 1)
    with pytest.raises(TooLateError), deadline(0.01):
        pool.call(int)
    gate.set()
    thread.join()


def test_coroutines_await_calls_in_threads() -> None:
    pool = ThreadBulkhead(2, queue=10)

    async def main() -> list[int]:
        return await asyncio.gather(*(pool.acall(abs, -number) for number in range(6)))

    assert asyncio.run(main()) == [0, 1, 2, 3, 4, 5]


def test_a_cancelled_coroutine_leaves_its_call_behind() -> None:
    pool = ThreadBulkhead(1)
    gate = threading.Event()

    async def main() -> None:
        task = asyncio.create_task(pool.acall(gate.wait))
        await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.snapshot()["abandoned"] == 1

    asyncio.run(main())
    gate.set()
    until(lambda: pool.snapshot()["in_flight"] == 0)


def test_decorators_keep_the_name_and_refuse_coroutine_functions() -> None:
    pool = ThreadBulkhead(1)

    @pool
    def twice(number: int) -> int:
        return 2 * number

    @pool.asynchronous
    def thrice(number: int) -> int:
        return 3 * number

    async def already() -> None: ...

    assert (twice.__name__, twice(2)) == ("twice", 4)
    assert asyncio.run(thrice(2)) == 6
    with pytest.raises(TypeError, match="already is a coroutine function"):
        pool(already)


def test_a_closed_pool_takes_no_calls() -> None:
    pool = ThreadBulkhead(1)
    pool.close()
    with pytest.raises(RejectedError, match="closed"):
        pool.call(int)


def test_settings_are_checked_and_changed_live() -> None:
    pool = ThreadBulkhead(1)
    pool.configure(max_threads=3, queue=2)
    assert pool.describe() == {"max_threads": 3, "queue": 2}
    with pytest.raises(ConfigError, match="ThreadBulkhead: max_threads is 0"):
        ThreadBulkhead(0)
    with pytest.raises(ConfigError, match="Hard: seconds is 0"):
        Hard(0)
    hard = Hard(1.0)
    hard.configure(seconds=2.0)
    assert hard.describe() == {"seconds": 2.0, "max_threads": 32, "queue": 0}


def test_a_hard_limit_ends_the_wait_for_a_call_that_hangs() -> None:
    gate = threading.Event()
    policy = Policy("legacy", attempt_timeout=Hard(0.02, max_threads=2))
    with pytest.raises(DeadlineError, match="'legacy': the call did not end in time"):
        policy.call(gate.wait)
    gate.set()


def test_healthy_calls_beyond_the_threads_are_refused_and_do_not_time_out() -> None:
    hard = Hard(600.0, max_threads=1)
    gate = threading.Event()
    thread = threading.Thread(target=hard.call, args=(gate.wait,))
    thread.start()
    until(lambda: hard.snapshot()["in_flight"] == 1)
    with pytest.raises(BulkheadFullError):
        hard(int)()
    gate.set()
    thread.join()


def test_a_fork_forgets_abandoned_calls() -> None:
    pool = ThreadBulkhead(1)
    gate = threading.Event()
    abandon_a_call(pool, gate)
    pool.forked()
    pool._permits.forked()
    pool._crew.forked()
    assert pool.snapshot() == {"in_flight": 0, "waiting": 0, "threads": 0, "abandoned": 0}
    gate.set()


def pause(seconds: float) -> float:
    current_world().clock.pause(seconds)
    return seconds


def test_in_virtual_time_a_slow_call_is_left_behind_and_ends_later() -> None:
    with virtual_time() as time:
        pool = Hard(1.0, max_threads=1)
        assert pool.call(pause, 0.5) == 0.5
        assert time.now == 0.5
        with pytest.raises(DeadlineError):
            pool.call(pause, 3.0)
        assert time.now == 1.5
        with pytest.raises(BulkheadFullError):
            pool.call(pause, 0.1)
        time.advance(2.1)
        assert pool.call(pause, 0.1) == 0.1


def test_in_a_simulation_coroutines_share_the_threads() -> None:
    async def main() -> None:
        pool = ThreadBulkhead(2, queue=10)
        clock = current_world().clock
        before = clock.monotonic_ns()
        await asyncio.gather(*(pool.acall(pause, 1.0) for _ in range(4)))
        assert round((clock.monotonic_ns() - before) / 1e9) == 2
        with pytest.raises(DeadlineError):
            async with deadline(0.5):
                await pool.acall(pause, 2.0)
        assert pool.snapshot()["abandoned"] == 1
        await asyncio.sleep(2)
        assert pool.snapshot()["in_flight"] == 0

    sim.run(main)


def test_a_call_that_never_got_a_thread_gives_its_permit_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = ThreadBulkhead(1)

    def no_thread(job: object) -> bool:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(type(pool._crew), "try_start", partial(no_thread))
        with pytest.raises(RuntimeError):
            pool.call(int)
        with pytest.raises(RuntimeError):
            asyncio.run(pool.acall(int))
    assert pool.snapshot() == {"in_flight": 0, "waiting": 0, "threads": 0, "abandoned": 0}
    assert pool.call(int) == 0
