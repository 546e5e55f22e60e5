"""Permits and their queue: order, refusals, cancellation, threads with loops, forks."""

import asyncio
import gc
import os
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

import outlast.host  # noqa: F401 - threads here find the real world
from outlast import sim
from outlast.kernel import BulkheadFullError, ConfigError, DeadlockError, TooLateError
from outlast.kernel.world import current_world
from outlast.protect import Bulkhead, deadline
from outlast.protect.waiter import TaskWaiter
from outlast.testing import virtual_time


def start(coroutine: Coroutine[Any, Any, int]) -> "asyncio.Task[int]":
    return asyncio.get_running_loop().create_task(coroutine)


async def turn(times: int = 3) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


def test_a_call_above_the_limit_is_refused_at_once() -> None:
    with virtual_time() as time:
        bulkhead = Bulkhead(1, name="rates")
        bulkhead.pop()
        with pytest.raises(BulkheadFullError, match="'rates': 1 calls are running and the queue"):
            bulkhead.acquire_blocking()
        assert time.now == 0
        assert bulkhead.try_acquire() is None


def test_waiters_get_permits_in_order_of_arrival() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(1, queue=3)
        permit = await bulkhead.acquire()
        order: list[int] = []

        async def call(number: int) -> int:
            held = await bulkhead.acquire()
            order.append(number)
            bulkhead.release(held)
            return number

        tasks = [start(call(number)) for number in range(3)]
        await turn()
        assert bulkhead.snapshot() == {"in_flight": 1, "waiting": 3}
        bulkhead.release(permit)
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2]
        assert bulkhead.snapshot() == {"in_flight": 0, "waiting": 0}
        assert not bulkhead.attention

    sim.run(main)


def test_a_released_permit_goes_to_the_waiter_and_not_to_who_comes_next() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(1, queue=1)
        permit = await bulkhead.acquire()
        waiting = start(bulkhead.acquire())
        await turn()
        bulkhead.release(permit)
        assert bulkhead.try_acquire() is None
        assert await waiting

    sim.run(main)


def test_a_cancelled_waiter_leaves_the_queue_at_once() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(1, queue=2)
        permit = await bulkhead.acquire()
        first, second = start(bulkhead.acquire()), start(bulkhead.acquire())
        await turn()
        first.cancel()
        await turn()
        assert bulkhead.waiting == 1
        bulkhead.release(permit)
        assert await second
        bulkhead.release(second.result())
        assert bulkhead.in_flight == 0

    sim.run(main)


def test_a_waiter_that_is_cancelled_when_it_was_handed_a_permit_passes_it_on() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(1, queue=2)
        permit = await bulkhead.acquire()
        first, second = start(bulkhead.acquire()), start(bulkhead.acquire())
        await turn()
        bulkhead.release(permit)
        first.cancel()
        assert await second
        assert first.cancelled()
        assert bulkhead.in_flight == 1

    sim.run(main)


def test_max_wait_ends_the_wait_of_a_coroutine() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(1, queue=1, max_wait=2.0)
        await bulkhead.acquire()
        before = current_world().clock.monotonic_ns()
        with pytest.raises(BulkheadFullError, match="within max_wait"):
            await bulkhead.acquire()
        assert current_world().clock.monotonic_ns() - before == 2_000_000_000
        assert bulkhead.waiting == 0

    sim.run(main)


def test_max_wait_ends_the_wait_of_a_thread() -> None:
    with virtual_time() as time:
        bulkhead = Bulkhead(1, queue=1, max_wait=2.0)
        bulkhead.pop()
        with pytest.raises(BulkheadFullError, match="within max_wait"):
            bulkhead.acquire_blocking()
        assert time.now == 2
        assert bulkhead.waiting == 0


def test_the_deadline_ends_the_wait_before_max_wait_does() -> None:
    with virtual_time() as time:
        bulkhead = Bulkhead(1, queue=1, max_wait=2.0)
        bulkhead.pop()
        with pytest.raises(TooLateError), deadline(0.5):
            bulkhead.acquire_blocking()
        assert time.now == 0.5
        with deadline(5), pytest.raises(BulkheadFullError):
            bulkhead.acquire_blocking()


def test_a_deadline_that_has_passed_is_told_before_the_queue() -> None:
    with virtual_time():
        bulkhead = Bulkhead(1, queue=1)
        bulkhead.pop()
        with deadline(0), pytest.raises(TooLateError, match="before the call began"):
            bulkhead.acquire_blocking()
        assert bulkhead.waiting == 0


def test_the_deadline_of_a_coroutine_in_the_queue_says_that_nothing_was_sent() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(1, queue=1)
        await bulkhead.acquire()
        with pytest.raises(TooLateError, match="in the queue"):
            async with deadline(1):
                await bulkhead.acquire()
        assert bulkhead.waiting == 0

    sim.run(main)


def test_waiting_for_ever_in_one_thread_is_refused_and_leaves_no_waiter() -> None:
    with virtual_time():
        bulkhead = Bulkhead(1, queue=1)
        bulkhead.pop()
        with pytest.raises(DeadlockError):
            bulkhead.acquire_blocking()
        assert bulkhead.waiting == 0


def test_a_larger_limit_lets_waiters_go() -> None:
    async def main() -> None:
        bulkhead = Bulkhead(1, queue=2)
        await bulkhead.acquire()
        tasks = [start(bulkhead.acquire()) for _ in range(2)]
        await turn()
        bulkhead.configure(max_concurrent=3)
        await asyncio.gather(*tasks)
        assert (bulkhead.in_flight, bulkhead.max_concurrent) == (3, 3)

    sim.run(main)


def test_a_smaller_limit_withdraws_permits_as_they_come_back() -> None:
    bulkhead = Bulkhead(3)
    permits = [bulkhead.pop() for _ in range(3)]
    bulkhead.configure(max_concurrent=1)
    bulkhead.release(permits.pop())
    bulkhead.release(permits.pop())
    assert bulkhead.try_acquire() is None
    assert bulkhead.in_flight == 1
    bulkhead.configure(max_concurrent=2)
    assert bulkhead.try_acquire() is not None
    assert bulkhead.try_acquire() is None


def test_a_limit_that_is_raised_again_forgives_what_was_to_be_withdrawn() -> None:
    bulkhead = Bulkhead(3)
    permits = [bulkhead.pop() for _ in range(3)]
    bulkhead.configure(max_concurrent=1)
    bulkhead.configure(max_concurrent=3)
    for permit in permits:
        bulkhead.release(permit)
    assert len(bulkhead._free) == 3
    assert not bulkhead.attention


def test_free_permits_are_withdrawn_at_once() -> None:
    bulkhead = Bulkhead(3)
    bulkhead.configure(max_concurrent=1, queue=4, max_wait=1.5)
    assert not bulkhead.attention
    assert bulkhead.describe() == {"max_concurrent": 1, "queue": 4, "max_wait": 1.5}


@pytest.mark.parametrize(
    "settings",
    [
        {"max_concurrent": 0}, {"max_concurrent": True}, {"max_concurrent": 1.5},
        {"max_concurrent": 1, "queue": -1}, {"max_concurrent": 1, "queue": 1, "max_wait": 0},
        {"max_concurrent": 1, "queue": 1, "max_wait": "1"}, {"max_concurrent": 1, "max_wait": 1},
    ],
)  # fmt: skip
def test_a_wrong_setting_is_told_by_its_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"Bulkhead: (max_concurrent|queue|max_wait) is"):
        Bulkhead(**settings)


def test_an_endless_max_wait_is_none() -> None:
    assert Bulkhead(1, queue=1, max_wait=float("inf")).max_wait is None


def test_a_wrong_change_changes_nothing() -> None:
    bulkhead = Bulkhead(2)
    with pytest.raises(ConfigError):
        bulkhead.configure(queue=3, max_concurrent=0)
    assert (bulkhead.queue, bulkhead.max_concurrent) == (0, 2)


def test_a_waiter_of_a_closed_loop_is_passed_over() -> None:
    bulkhead = Bulkhead(1, queue=2)
    permit = bulkhead.pop()
    loop = asyncio.new_event_loop()
    task = loop.create_task(bulkhead.acquire())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert bulkhead.waiting == 1
    bulkhead.release(permit)
    assert (bulkhead.waiting, bulkhead.in_flight) == (0, 0)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()
    del task, coroutine
    gc.collect()
    assert bulkhead.in_flight == 0


def test_a_waiter_that_is_thrown_away_leaves_the_queue() -> None:
    bulkhead = Bulkhead(1, queue=2)
    bulkhead.pop()

    async def main() -> None:
        waiting = bulkhead.acquire()
        waiting.send(None)
        assert bulkhead.waiting == 1
        waiting.close()

    asyncio.run(main())
    assert bulkhead.waiting == 0


def test_a_permit_given_back_inside_a_section_is_handed_out_when_the_section_ends() -> None:
    class Interrupted(Bulkhead):
        __slots__ = ()

        def _victim_locked(self, level: int) -> None:
            self.release(permit)  # as a destructor would that runs in the middle
            assert self.waiting == 1

    bulkhead = Interrupted(1, queue=1)
    permit = 0

    async def main() -> None:
        nonlocal permit
        permit = bulkhead.pop()
        waiting = start(bulkhead.acquire())
        await turn()
        with pytest.raises(BulkheadFullError):
            await bulkhead.acquire()
        assert bulkhead.waiting == 0
        assert await waiting

    sim.run(main)


def test_threads_and_two_loops_share_one_limit() -> None:
    bulkhead = Bulkhead(2, queue=100)
    running: list[int] = []
    most: list[int] = []
    done: list[int] = []

    def work(held: int) -> None:
        running.append(held)
        most.append(len(running))
        running.pop()

    def by_thread() -> None:
        for _ in range(300):
            permit = bulkhead.acquire_blocking()
            work(permit)
            bulkhead.release(permit)
            done.append(1)

    async def by_task() -> None:
        for index in range(60):
            permit = await bulkhead.acquire()
            work(permit)
            if index % 7 == 0:
                await asyncio.sleep(0)
            bulkhead.release(permit)
            done.append(1)

    async def loop() -> None:
        tasks = [asyncio.create_task(by_task()) for _ in range(5)]
        extra = asyncio.create_task(by_task())
        await asyncio.sleep(0.001)
        extra.cancel()
        await asyncio.gather(*tasks)

    threads = [threading.Thread(target=by_thread) for _ in range(3)]
    threads += [threading.Thread(target=lambda: asyncio.run(loop())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) >= 3 * 300 + 2 * 5 * 60
    assert max(most) <= 2
    assert bulkhead.snapshot() == {"in_flight": 0, "waiting": 0}
    assert not bulkhead.attention


def test_a_waiting_thread_is_woken_by_another() -> None:
    bulkhead = Bulkhead(1, queue=1)
    permit = bulkhead.pop()
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(bulkhead.acquire_blocking()))
    thread.start()
    while not bulkhead.waiting:
        pass
    bulkhead.release(permit)
    thread.join()
    assert got == [1]


def test_a_waiter_wakes_only_once() -> None:
    async def main() -> None:
        waiter = TaskWaiter(1)
        assert waiter.wake()
        assert waiter.wake()
        await waiter.future

    sim.run(main)


def test_the_child_of_a_fork_has_all_permits_and_no_waiters() -> None:
    bulkhead = Bulkhead(2, queue=1)
    mine = bulkhead.pop()
    bulkhead.pop()
    bulkhead._lock.acquire()  # as another thread might at that moment
    bulkhead.forked()
    assert bulkhead.snapshot() == {"in_flight": 0, "waiting": 0}
    assert [bulkhead.pop(), bulkhead.pop()] == [2, 2]
    bulkhead.release(mine)  # from before the fork: dropped
    assert bulkhead.try_acquire() is None
    bulkhead.release(2)
    assert bulkhead.in_flight == 1
    bulkhead.release(2)
    assert bulkhead.in_flight == 0


def test_a_fork_reaches_each_limit() -> None:
    bulkhead = Bulkhead(1)
    permit = bulkhead.pop()
    child = os.fork()
    if child == 0:
        os._exit(0 if bulkhead.try_acquire() == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    bulkhead.release(permit)
    assert bulkhead.in_flight == 0
