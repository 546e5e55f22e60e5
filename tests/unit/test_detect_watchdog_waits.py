"""Who waits for whom, the order of locks, and the locks themselves in virtual time."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from outlast import sim
from outlast.detect import locks
from outlast.detect.core.waits import LockOrder, WaitGraph, circles
from outlast.detect.locks import (
    WatchedAsyncLock,
    WatchedLock,
    WatchedRLock,
    forget_lock_order,
    standing_deadlocks,
)
from outlast.detect.watchdog_events import DeadlockFound, LockOrderReversed, LockWaited
from outlast.kernel import ConfigError, DeadlockError, Event, current_world
from outlast.testing import VirtualTime


@dataclass
class Lock:
    name: str
    owner: str | None = None
    carrier: str | None = None


@pytest.fixture(autouse=True)
def fresh_order() -> Iterator[None]:
    forget_lock_order()
    yield
    forget_lock_order()
    assert standing_deadlocks() == []
    assert len(locks._graph) == 0


# --- circles -----------------------------------------------------------------------------------


def test_whoever_waits_last_closes_the_circle() -> None:
    graph = WaitGraph()
    a, b, c = Lock("a", "t1"), Lock("b", "t2"), Lock("c", "t3")
    assert graph.begin("t1", b) == ()
    assert graph.begin("t2", c) == ()
    circle = graph.begin("t3", a)
    assert [(wait.who, wait.lock.name) for wait in circle] == [
        ("t3", "a"), ("t1", "b"), ("t2", "c"),
    ]  # fmt: skip


def test_who_waits_for_a_circle_is_not_in_it() -> None:
    graph = WaitGraph()
    a, b = Lock("a", "t1"), Lock("b", "t2")
    graph.begin("t1", b)
    assert graph.begin("t2", a)
    assert graph.begin("t3", a) == ()


def test_a_circle_is_broken_when_one_of_it_waits_no_longer() -> None:
    graph = WaitGraph()
    a, b = Lock("a", "t1"), Lock("b", "t2")
    graph.begin("t1", b)
    graph.begin("t2", a)
    graph.end("t1")
    graph.end("t1")
    assert graph.circle("t2") == ()
    assert len(graph) == 1


def test_a_lock_that_nobody_holds_any_more_ends_the_chain() -> None:
    graph = WaitGraph()
    a = Lock("a", "t1")
    graph.begin("t1", Lock("b", None))
    assert graph.begin("t2", a) == ()


def test_a_thread_that_waits_for_its_own_lock_is_a_circle_of_one() -> None:
    assert len(WaitGraph().begin("t1", Lock("a", "t1"))) == 1


def test_a_task_waits_for_what_the_thread_waits_for_that_runs_it() -> None:
    graph = WaitGraph()
    of_task = Lock("of task", "task", carrier="loop")
    of_thread = Lock("of thread", "worker")
    graph.begin("loop", of_thread)
    circle = graph.begin("worker", of_task)
    assert [wait.lock.name for wait in circle] == ["of task", "of thread"]


def test_circles_of_tasks_are_each_found_once() -> None:
    assert circles({1: 2, 2: 3, 3: 1, 4: 1, 5: 5, 6: 7}) == [(1, 2, 3), (5,)]
    assert circles({}) == []


# --- order -------------------------------------------------------------------------------------


def test_a_reversed_order_is_told_with_both_places() -> None:
    order = LockOrder()
    assert order.note(["a"], "b", "one.py:1") is None
    found = order.note(["b"], "a", "two.py:2")
    assert found is not None
    assert (found.names, found.places) == (("a", "b"), ("two.py:2", "one.py:1"))


def test_an_order_is_reversed_through_others_by_the_shortest_way() -> None:
    order = LockOrder()
    for held, name in (("a", "b"), ("b", "c"), ("c", "d"), ("a", "x"), ("x", "y"), ("y", "d")):
        assert order.note([held], name, f"{held}{name}") is None
    order.note(["a"], "d", "ad")
    found = order.note(["d"], "a", "da")
    assert found is not None
    assert found.names == ("a", "d")
    found = order.note(["d"], "b", "db")
    assert found is not None
    assert (found.names, found.places) == (("b", "c", "d"), ("db", "bc", "cd"))


def test_a_pair_of_locks_is_told_once() -> None:
    order = LockOrder()
    order.note(["a"], "b", "1")
    assert order.note(["b"], "a", "2") is not None
    assert order.note(["b"], "a", "3") is None
    assert order.note(["a"], "b", "4") is None


def test_locks_of_one_name_are_not_judged_against_each_other() -> None:
    order = LockOrder()
    assert order.note(["a"], "a", "1") is None
    assert order.edges == set()


def test_pairs_beyond_the_bound_are_counted_and_not_kept() -> None:
    order = LockOrder(edges_max=2)
    order.note(["a", "b", "c"], "d", "1")
    assert len(order.edges) == 2
    assert order.forgotten == 1


# --- locks -------------------------------------------------------------------------------------


def listen() -> list[Event]:
    found: list[Event] = []
    current_world().events.subscribe(found.append)  # type: ignore[attr-defined]
    return found


def test_a_thread_that_takes_its_own_lock_again_is_told_and_refused(
    virtual_time: VirtualTime,
) -> None:
    found = listen()
    lock = WatchedLock("a", on_deadlock="raise")
    with lock:
        with pytest.raises(DeadlockError, match="a: taking it would deadlock"):
            lock.acquire()
        assert lock.locked()
    assert not lock.locked()
    assert [type(event) for event in found] == [DeadlockFound]


def test_a_long_wait_is_told_once_with_the_holder_and_ends_at_its_timeout(
    virtual_time: VirtualTime,
) -> None:
    found = listen()
    lock = WatchedLock("a", long_wait=2.0)
    lock._lock.acquire()
    lock.owner = threading.get_ident() + 1
    begun = time.monotonic()
    assert not lock.acquire(timeout=30.0)
    assert time.monotonic() - begun == pytest.approx(30.0, abs=0.01)
    (event,) = found
    assert isinstance(event, LockWaited)
    assert (event.lock, event.seconds) == ("a", pytest.approx(2.0, abs=0.01))
    assert str(lock.owner) in event.holder
    lock._give()


@pytest.mark.parametrize("timeout", [0.0, 0.01, 1.0])
def test_a_wait_with_a_timeout_takes_that_long_and_no_longer(
    virtual_time: VirtualTime, timeout: float
) -> None:
    lock = WatchedLock("a", long_wait=None)
    lock._lock.acquire()
    begun = time.monotonic()
    assert not lock.acquire(timeout=timeout)
    assert time.monotonic() - begun == pytest.approx(timeout, abs=0.001)
    assert not lock.acquire(blocking=False)
    lock._lock.release()


def test_taking_locks_the_other_way_round_is_told_before_it_deadlocks(
    virtual_time: VirtualTime,
) -> None:
    found = listen()
    a, b = WatchedLock("a"), WatchedRLock("b")
    with a, b:
        pass
    with b, b, a:
        pass
    (event,) = found
    assert isinstance(event, LockOrderReversed)
    assert event.locks == ("a", "b")
    assert all(__file__ in place for place in event.places)


def test_trying_without_waiting_and_locks_that_do_not_care_have_no_order(
    virtual_time: VirtualTime,
) -> None:
    found = listen()
    a, b, c = WatchedLock("a"), WatchedLock("b"), WatchedLock("c", order=False)
    with a, b, c:
        pass
    with b:
        assert a.acquire(blocking=False)
        a.release()
        assert a.acquire(timeout=1.0)
        a.release()
    with c, a:
        pass
    with a, c:
        pass
    assert found == []


def test_a_lock_that_another_thread_released_is_not_held_any_more(
    virtual_time: VirtualTime,
) -> None:
    found = listen()
    a, b = WatchedLock("a"), WatchedLock("b")
    for _ in range(200):
        a.acquire()
        a._lock.release()  # as another thread would
        a.owner = None
    assert len(locks._held.locks) <= 65
    with b:
        pass
    with a:
        pass
    assert found == []
    locks._held.locks.clear()


def test_a_lock_that_may_be_taken_again_is_free_after_as_many_releases() -> None:
    lock = WatchedRLock("r")
    assert lock.acquire()
    assert lock.acquire(blocking=False)
    lock.release()
    assert lock.owner is not None
    lock.release()
    assert lock.owner is None
    with pytest.raises(RuntimeError, match="r: released by a thread"):
        lock.release()
    with pytest.raises(RuntimeError, match="released and not held"):
        WatchedLock("w").release()


def test_a_condition_can_stand_on_a_watched_lock(virtual_time: VirtualTime) -> None:
    for lock in (WatchedRLock("r"), WatchedLock("w")):
        condition = threading.Condition(lock)  # type: ignore[arg-type]
        with condition:
            condition.notify_all()
            assert lock.owner is not None
        assert lock.owner is None


def test_a_reentrant_lock_is_given_up_wholly_while_a_condition_waits() -> None:
    lock = WatchedRLock("r")
    lock.acquire()
    lock.acquire()
    saved = lock._release_save()
    assert not lock._is_owned()
    lock._acquire_restore(saved)
    lock.release()
    assert lock._is_owned()
    lock.release()


def test_locks_say_who_holds_them() -> None:
    lock = WatchedLock("orders")
    assert repr(lock) == "<WatchedLock 'orders' free>"
    with lock:
        assert lock.snapshot() == {"name": "orders", "owner": threading.current_thread().name}
        assert "held by" in repr(lock)
    assert lock.describe()["on_deadlock"] == "event"
    assert f"{__file__}:" in WatchedLock().name
    assert f"{__file__}:" in WatchedRLock().name


@pytest.mark.parametrize("kind", [WatchedLock, WatchedRLock, WatchedAsyncLock])
def test_settings_of_locks_that_do_not_fit_are_refused(kind: type[WatchedLock]) -> None:
    with pytest.raises(ConfigError, match="on_deadlock is 'stop'"):
        kind("a", on_deadlock="stop")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"long_wait is 0\.0 s"):
        kind("a", long_wait=0.0)


# --- locks of tasks ----------------------------------------------------------------------------


def test_tasks_that_take_two_locks_crosswise_are_told_and_one_is_refused() -> None:
    async def story() -> tuple[list[Event], list[object]]:
        found = listen()
        a, b = WatchedAsyncLock("a", on_deadlock="raise"), WatchedAsyncLock("b")

        async def both(first: WatchedAsyncLock, second: WatchedAsyncLock) -> str:
            async with first:
                await asyncio.sleep(0.1)
                async with second:
                    return "done"

        ended = await asyncio.gather(both(a, b), both(b, a), return_exceptions=True)
        return found, list(ended)

    found, ended = sim.run(story, seed=1)
    assert ended[0] == "done"
    assert isinstance(ended[1], DeadlockError)
    assert {type(event) for event in found} == {LockOrderReversed, DeadlockFound}
    deadlock = next(event for event in found if isinstance(event, DeadlockFound))
    assert len(deadlock.circle) == 2
    assert "both" in deadlock.stacks


def test_a_deadlock_stands_until_one_of_its_tasks_gives_up() -> None:
    async def story() -> list[int]:
        a, b = WatchedAsyncLock("a"), WatchedAsyncLock("b")
        stood = []

        async def both(first: WatchedAsyncLock, second: WatchedAsyncLock) -> None:
            async with first:
                await asyncio.sleep(0.1)
                async with second:
                    pass

        async def third() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await a.acquire()

        tasks = [asyncio.create_task(both(a, b)), asyncio.create_task(both(b, a))]
        await asyncio.sleep(1.0)
        stood.append(len(standing_deadlocks()))
        await third()
        stood.append(len(standing_deadlocks()))
        tasks[0].cancel()
        await asyncio.wait(tasks)
        stood.append(len(standing_deadlocks()))
        return stood

    assert sim.run(story, seed=1) == [1, 1, 0]


def test_a_long_wait_of_a_task_is_told_with_the_holders_stack() -> None:
    async def story() -> list[Event]:
        found = listen()
        lock = WatchedAsyncLock("a", long_wait=1.0)

        async def keep() -> None:
            async with lock:
                await asyncio.sleep(5.0)

        async def want() -> None:
            async with lock:
                assert lock.locked()

        keeper = asyncio.create_task(keep(), name="keeper")
        await asyncio.sleep(0.1)
        await asyncio.gather(want(), want())
        await keeper
        assert not lock.locked()
        return found

    found = sim.run(story, seed=1)
    assert [type(event) for event in found] == [LockWaited, LockWaited]
    assert isinstance(found[0], LockWaited)
    assert found[0].holder == "task keeper"
    assert "<locals>.keep" in found[0].stack


def test_a_task_that_is_cancelled_while_it_waits_leaves_nothing_behind() -> None:
    async def story() -> bool:
        lock = WatchedAsyncLock("a")
        async with lock:
            task = asyncio.create_task(lock.acquire())
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.wait([task])
        async with lock:
            pass
        with pytest.raises(RuntimeError):
            lock.release()
        return lock.locked()

    assert sim.run(story, seed=1) is False
