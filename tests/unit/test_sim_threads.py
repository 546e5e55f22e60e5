"""Executors, waiting for other threads, and packages of others that need a hand."""

import asyncio
import ctypes.util
import gc
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from types import ModuleType
from typing import Any

import pytest

from outlast import sim
from outlast.kernel import EscapeError

REFUSED = "cannot be simulated"


def work(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


async def refused(call: Callable[[], Any], lab: sim.Lab) -> str:
    """Return how a call is refused; a refusal is a problem of the run, which is taken back."""
    with pytest.raises(EscapeError) as caught:
        call()
    lab.sim.problems.clear()
    return str(caught.value)


# --- executors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "seconds"), [(1, 6), (2, 3), (4, 2), (9, 1)])
def test_an_executor_runs_no_more_calls_at_a_time_than_it_has_workers(
    workers: int, seconds: float
) -> None:
    async def main(lab: sim.Lab) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(workers) as pool:
            calls = (loop.run_in_executor(pool, work, 1) for _ in range(6))
            await asyncio.gather(*calls)
        assert lab.now == pytest.approx(seconds, abs=0.01)

    sim.run(main)


def test_the_default_executor_of_a_loop_has_the_workers_that_it_was_given() -> None:
    async def main(lab: sim.Lab) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        await asyncio.gather(*(asyncio.to_thread(work, 1) for _ in range(6)))
        assert lab.now == pytest.approx(3, abs=0.01)

    sim.run(main)


def test_a_crash_gives_the_workers_of_a_shared_executor_back() -> None:
    pool = ThreadPoolExecutor(1)
    done = []

    async def program() -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(pool, work, 5)
        done.append(1)
        await asyncio.Event().wait()

    async def main(lab: sim.Lab) -> None:
        lab.host("a", program)
        await lab.sleep(1)
        lab.restart("a")
        await lab.sleep(5.5)
        assert done == [1]

    sim.run(main)


def test_calls_that_a_shared_executor_never_did_do_not_outlive_the_run() -> None:
    pool = ThreadPoolExecutor(1)
    runs: list[weakref.ref[Any]] = []

    async def main(lab: sim.Lab) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            loop.run_in_executor(pool, work, 100)
            pool.submit(lambda: (loop, work(100)))
        runs.append(weakref.ref(lab.sim))
        await lab.sleep(1)

    sim.run(main)
    gc.collect()
    assert [run() for run in runs] == [None]


def test_what_is_submitted_to_a_pool_can_be_awaited() -> None:
    async def main(lab: sim.Lab) -> None:
        with ThreadPoolExecutor(2) as pool:
            futures = [asyncio.wrap_future(pool.submit(work, 1)) for _ in range(4)]
            ticks = 0
            while not futures[-1].done():
                await asyncio.sleep(0.5)
                ticks += 1
            assert await asyncio.gather(*futures) == [1] * 4
        assert ticks in {4, 5}, "the loop was free meanwhile"
        assert lab.now < 2.6

    sim.run(main)


def test_a_blocking_wait_for_what_was_submitted_takes_its_time() -> None:
    async def main(lab: sim.Lab) -> None:
        def block() -> list[Any]:
            with ThreadPoolExecutor(2) as pool:
                first = pool.submit(work, 2).result()
                mapped = list(pool.map(work, [1, 3]))
                late = [future.result() for future in as_completed([pool.submit(work, 1)])]
                failing = pool.submit(int, "x")
            assert isinstance(failing.exception(), ValueError)
            return [first, mapped, late]

        assert await asyncio.to_thread(block) == [2, [1, 3], [1]]
        assert lab.now == pytest.approx(7, abs=0.01)

    sim.run(main)


def test_a_pool_that_was_shut_down_takes_nothing() -> None:
    async def main(lab: sim.Lab) -> None:
        pool = ThreadPoolExecutor(1)
        later: Future[float] = pool.submit(work, 1)
        pool.shutdown(wait=False, cancel_futures=True)
        assert later.cancelled()
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(work, 1)

    sim.run(main)


# --- waiting -------------------------------------------------------------------------------------


def test_a_wait_with_a_timeout_lets_virtual_time_pass() -> None:
    async def main(lab: sim.Lab) -> None:
        start = time.monotonic()
        assert not threading.Event().wait(3600)
        with pytest.raises(queue.Empty):
            queue.Queue[int]().get(timeout=60)
        assert time.monotonic() - start == pytest.approx(3660)

    before = time.monotonic()
    sim.run(main)
    assert time.monotonic() - before < 600


def test_a_wait_for_ever_is_refused_and_told_where() -> None:
    async def main(lab: sim.Lab) -> None:
        loop = asyncio.get_running_loop()

        def ask() -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(1), loop).result()

        for call in (threading.Event().wait, queue.Queue[int]().get, ask):
            told = await refused(call, lab)
            assert "to wait for another thread" in told
            assert "test_sim_threads.py" in told
        assert "in ask" in told
        lab.sim.problems.clear()

    sim.run(main)


def test_other_threads_wait_as_ever() -> None:
    woken, heard = threading.Event(), threading.Event()

    def wait() -> None:
        if woken.wait(20):
            heard.set()

    thread = threading.Thread(target=wait)
    thread.start()

    async def main(lab: sim.Lab) -> None:
        await lab.sleep(3600)
        woken.set()

    sim.run(main)
    thread.join(20)
    assert heard.is_set()


def test_everything_is_put_back() -> None:
    def look() -> list[Any]:
        return [threading.Condition.wait, ThreadPoolExecutor.submit, ThreadPoolExecutor.shutdown]

    async def main(lab: sim.Lab) -> None:
        assert not set(look()) & set(before)
        raise LookupError

    before = look()
    with pytest.raises(LookupError):
        sim.run(main)
    assert look() == before


# --- packages of others --------------------------------------------------------------------------


def test_grpc_is_refused_before_its_core_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("grpc._cython.cygrpc")
    module.AioChannel = module.Channel = lambda *_: "a channel"
    monkeypatch.setitem(sys.modules, module.__name__, module)

    async def main(lab: sim.Lab) -> None:
        told = await refused(module.AioChannel, lab)
        assert "gRPC, whose core is C code" in told
        assert "drill on real processes" in told
        lab.sim.problems.clear()

    sim.run(main)
    assert module.AioChannel() == "a channel"


def test_a_package_may_look_for_a_library_when_it_is_imported() -> None:
    """``ctypes.util`` runs the linker's tools; that is no process of the program."""

    async def main(lab: sim.Lab) -> None:
        ctypes.util.find_library("c")
        assert REFUSED in await refused(lambda: subprocess.run(["true"], check=False), lab)

    sim.run(main)


# --- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("drift_ppm", [0, 200, -350])
def test_a_timer_is_never_early_on_the_clock_of_its_host(drift_ppm: int) -> None:
    """A callback that finds it too early would set its timer again, for ever (anyio's does)."""

    async def main(lab: sim.Lab) -> None:
        loop = asyncio.get_running_loop()
        lab.clock("test", drift_ppm=drift_ppm)
        for _ in range(300):
            when = loop.time() + lab.prng.bits64() / 2**64
            future: asyncio.Future[float] = loop.create_future()
            loop.call_at(when, lambda future=future: future.set_result(loop.time()))
            assert await future >= when

    sim.run(main)


def test_a_program_that_waits_for_time_with_timers_of_no_length_gets_there() -> None:
    async def main(lab: sim.Lab) -> None:
        end = time.monotonic() + 0.001
        while time.monotonic() < end:  # noqa: ASYNC110 - that is what it is about
            await asyncio.sleep(1e-13)

    sim.run(main)


def test_what_ends_a_test_is_not_swallowed_in_a_callback() -> None:
    """Such as the limit of real time that pytest sets."""

    async def main(lab: sim.Lab) -> None:
        asyncio.get_running_loop().call_soon(pytest.fail, "out of time")
        await lab.sleep(1)

    with pytest.raises(pytest.fail.Exception, match="out of time"):
        sim.run(main)


def test_a_task_can_be_started_on_the_host_of_the_test_itself() -> None:
    async def main(lab: sim.Lab) -> None:
        assert await lab.spawn("test", asyncio.sleep(1, "slept")) == "slept"

    sim.run(main)
