"""Health on real threads: hung checks, a hung loop, a runner of its own, forks."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from outlast.detect import Health, Status
from outlast.detect import health as health_module
from outlast.host import make_world
from outlast.host.crew import Crew

pytestmark = pytest.mark.timeout(300)
OK, FAILED = Status.OK, Status.FAILED
WAIT = 60.0


def until(condition: Callable[[], Any], what: str, within: float = WAIT) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not within {within} s: {what}"
        time.sleep(0.005)


@contextmanager
def running(health: Health) -> Iterator[Health]:
    health.start()
    try:
        yield health
    finally:
        health.stop()


def threads(prefix: str) -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith(prefix)]


def result(health: Health, name: str) -> Any:
    found = [one for group in health.snapshot().values() for one in group.results]
    return next(one for one in found if one.name == name)


def test_a_program_without_a_loop_has_its_checks_run() -> None:
    health = Health(make_world(seed=1), name="t1")
    where: list[str] = []

    async def coroutine() -> None:
        where.append(threading.current_thread().name)

    def plain() -> None:
        where.append(threading.current_thread().name)

    health.add("plain", plain, every=1000.0, timeout=WAIT)
    health.add("coroutine", coroutine, every=1000.0, timeout=WAIT)
    with running(health):
        health.start()  # a second time changes nothing
        until(lambda: health.read("readiness").passing, "both ran")
        assert sorted(where) == ["health t1 plain", "outlast-health-t1"]
        health.add("late", lambda: True, every=1000.0, timeout=WAIT)
        until(lambda: result(health, "late").status is OK, "the late one ran")
    until(lambda: threads("outlast-health-t1") == [], "its thread has ended")
    with running(health):
        until(lambda: len(where) == 4, "it runs again")
    health.stop()


def test_a_thread_that_is_stopped_before_it_begins_runs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "_STOP_SECONDS", 0.01)
    let_begin = threading.Event()
    run = asyncio.run

    def late(main: Any) -> None:  # as on a machine that has no time for a new thread
        let_begin.wait(30)
        run(main)

    monkeypatch.setattr(asyncio, "run", late)
    health = Health(make_world(seed=1), name="t0")
    ran: list[int] = []
    health.add("x", lambda: ran.append(1))
    health.start()
    health.stop()
    let_begin.set()
    until(lambda: not threads("outlast-health-t0"), "it has ended")
    assert ran == []


def test_checks_that_hang_cost_a_thread_each_and_never_more() -> None:
    let_go = threading.Event()
    health = Health(make_world(seed=1), name="t2", max_threads=3)
    started: list[int] = []

    def hang() -> None:
        started.append(1)
        let_go.wait(WAIT)

    for number in range(5):
        health.add(f"h{number}", hang, timeout=0.05, every=0.05)
    health.add("good", lambda: True, timeout=0.05, every=0.05)
    with running(health):
        until(lambda: "no thread free" in result(health, "h4").detail, "no thread is left")
        time.sleep(0.5)
        for _ in range(1000):
            health.snapshot()
        assert len(started) == 3
        assert len(threads("health t2")) <= 4
        until(lambda: "no thread free" in result(health, "h4").detail, "it says so still")
        let_go.set()
        until(lambda: health.read("readiness").passing, "all recover")


def test_hung_checks_are_not_started_again_by_another_runner() -> None:
    let_go = threading.Event()
    started: list[int] = []

    def hang() -> None:
        started.append(1)
        let_go.wait(WAIT)

    health = Health(make_world(seed=1))
    health.add("x", hang, timeout=0.05, every=0.05)
    with running(health):
        until(lambda: result(health, "x").status is FAILED, "it hangs")
    asyncio.run(health.refresh())
    with running(health):
        time.sleep(0.3)
        assert len(started) == 1
        assert health.status()["threads"] == 1
        let_go.set()
        until(lambda: result(health, "x").status is OK, "it recovers")


def test_reading_answers_while_the_loop_hangs() -> None:
    async def main() -> None:
        health = Health(make_world(seed=1))
        loop = health.progress("loop", within=0.2)
        health.add("db", lambda: True, every=0.05, timeout=0.2)

        def read() -> tuple[bool, bool]:
            return health.read("liveness").passing, health.read("readiness").passing

        def wait_until_both_fail() -> None:
            until(lambda: read() == (False, False), "late progress, and results that are old")

        async with health:
            async with asyncio.timeout(WAIT):
                while read() != (True, True):
                    await asyncio.sleep(0.01)
                    loop.stamp()
            thread = threading.Thread(target=wait_until_both_fail)
            thread.start()
            thread.join()  # the hang

    asyncio.run(main())


def test_refreshing_from_another_thread_runs_checks_on_the_runners_loop() -> None:
    health = Health(make_world(seed=1), name="t5")
    where: list[str] = []

    async def check() -> None:
        where.append(threading.current_thread().name)

    health.add("x", check, every=1000.0, timeout=WAIT)
    with running(health):
        until(lambda: where, "it ran")
        asyncio.run(health.refresh())
        until(lambda: where == ["outlast-health-t5"] * 2, "it ran there again")


def test_reports_and_stamps_come_from_any_thread() -> None:
    health = Health(make_world(seed=1))
    progress = health.progress("work", within=WAIT)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(200):
                health.report(f"r{turn % 7}", (OK, FAILED)[number % 2])
                progress.stamp()
                health.snapshot()
                if turn % 50 == 0:
                    health.forget("r3")
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(WAIT)
    assert errors == []
    assert {one.name for one in health.read("readiness").results} <= {f"r{n}" for n in range(7)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_runs_its_own_checks() -> None:
    health = Health(make_world(seed=1), name="t6")
    let_go = threading.Event()
    hung: list[int] = []

    def check() -> None:
        if not hung:
            hung.append(1)
            let_go.wait(WAIT)

    health.add("x", check, timeout=0.1, every=0.1)
    with running(health):
        until(lambda: result(health, "x").status is FAILED, "it hangs")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with running(health):
                    until(lambda: result(health, "x").status is OK, "it runs in the child")
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        let_go.set()


# --- the crew ----------------------------------------------------------------------------------


def test_threads_are_used_again_and_named_after_their_call() -> None:
    crew = Crew(idle=WAIT)
    seen: list[tuple[int, str]] = []

    def look() -> None:
        seen.append((threading.get_ident(), threading.current_thread().name))

    async def main() -> None:
        for number in range(5):
            await crew.run(f"crew call {number}", look)

    asyncio.run(main())
    assert [name for _, name in seen] == [f"crew call {number}" for number in range(5)]
    assert len({ident for ident, _ in seen}) == crew.live == 1


def test_threads_with_nothing_to_do_are_given_back() -> None:
    crew = Crew(idle=0.01)

    async def main() -> None:
        await crew.run("crew rest", lambda: None)

    asyncio.run(main())
    until(lambda: crew.live == 0, "it has ended")
    until(lambda: not threads("crew rest"), "its thread is gone")


def test_a_crew_answers_raises_and_outlives_its_loop() -> None:
    crew = Crew(idle=0.1)
    go = threading.Event()

    async def main() -> None:
        assert await crew.run("a", lambda: 3) == 3
        with pytest.raises(KeyError):
            await crew.run("b", lambda: {}["x"])
        abandoned = crew.run("c", lambda: go.wait(WAIT))
        late = crew.run("d", lambda: 4)
        abandoned.cancel()
        assert await late == 4

    asyncio.run(main())
    go.set()
    until(lambda: crew.live == 0, "all are given back")


def test_calls_come_while_threads_leave() -> None:
    crew = Crew(idle=0.001)

    async def main() -> None:
        for _ in range(200):
            assert await asyncio.wait_for(crew.run("x", lambda: 1), WAIT) == 1
            await asyncio.sleep(0.001)

    asyncio.run(main())


def test_importing_health_needs_no_extra() -> None:
    import subprocess

    code = (
        "import sys, outlast.detect.health, outlast.detect.checks;"
        "print([m for m in ('starlette', 'httpx', 'psutil', 'sqlalchemy', 'redis', 'http.client')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=WAIT
    )
    assert done.stdout.strip() == "[]"
