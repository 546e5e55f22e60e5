"""An unmodified Starlette application on uvicorn, and httpx: what they do in the simulator."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from outlast import sim
from outlast.kernel import EscapeError
from tests.support.programs import ledger
from tests.support.sim_programs import assert_repeatable, found, real_process, stop_process

SEEDS = 200
BASE = "http://ledger:8080"
FAULTS = [
    "crash", "power-cut", "partition:halves", "partition:one-way", "link:reset", "link:jitter",
    "dns:timeout", "disk:full", "disk:slow",
]  # fmt: skip
STOPPED = f"it exited with {128 + signal.SIGTERM}"
pytestmark = pytest.mark.timeout(120)


async def ready(lab: sim.Lab, **options: Any) -> httpx.AsyncClient:
    lab.host("ledger", partial(ledger.main, **options))
    await lab.sleep(0.1)
    return httpx.AsyncClient(base_url=BASE, timeout=2)


def run(test: Callable[[sim.Lab], Any]) -> Any:
    return sim.run(test, files=True)


# --- the same program ----------------------------------------------------------------------------


def test_it_is_the_same_program_on_the_real_loop(tmp_path: Path) -> None:
    async def simulated(lab: sim.Lab) -> Any:
        async with await ready(lab):
            seen = await ledger.tour(BASE)
        await lab.stop("ledger")
        return seen, lab.exits

    with real_process(ledger.__name__, "--data", str(tmp_path)) as (port, process):
        real = asyncio.run(ledger.tour(f"http://127.0.0.1:{port}"))
        assert stop_process(process) == -signal.SIGTERM
    seen, exits = run(simulated)
    assert seen == real
    assert exits == [("ledger", STOPPED)]


# --- acknowledged data ---------------------------------------------------------------------------


async def keep_entries(lab: sim.Lab, *, early: bool = False) -> None:
    acked = []
    async with await ready(lab, early=early) as client:
        for n in range(20):
            with suppress(httpx.HTTPError):
                if (await client.put(f"/entries/{n}")).status_code == 201:
                    acked.append(n)
    await lab.heal()
    entries = await all_entries()
    assert set(acked) <= set(entries)
    assert len(entries) == len(set(entries))


async def all_entries() -> list[int]:
    """Ask for them over a connection that no fault has seen."""
    async with httpx.AsyncClient(base_url=BASE, timeout=60) as client:
        found: list[int] = (await client.get("/entries")).json()
        return found


@sim.test(seeds=20, faults=FAULTS)
async def test_acknowledged_entries_survive(lab: sim.Lab) -> None:
    await keep_entries(lab)


def test_a_server_that_writes_in_the_background_is_found() -> None:
    @sim.test(seeds=SEEDS, faults=["crash", "power-cut"])
    async def kept(lab: sim.Lab) -> None:
        await keep_entries(lab, early=True)

    found(kept)


def test_a_client_that_repeats_what_is_not_idempotent_is_found() -> None:
    """httpx can be told to retry; only connecting is repeated. A loop around it repeats more."""

    @sim.test(seeds=SEEDS, faults=["link:reset", "link:drop"])
    async def once(lab: sim.Lab) -> None:
        async with await ready(lab) as client:
            for n in range(10):
                while True:
                    with suppress(httpx.HTTPError):
                        (await client.put(f"/entries/{n}")).raise_for_status()
                        break
                    await lab.sleep(0.1)
        await lab.heal()
        assert await all_entries() == list(range(10))

    found(once)


# --- worker threads ------------------------------------------------------------------------------


def test_plain_endpoints_run_beside_each_other_and_leave_the_loop_free() -> None:
    async def beside(lab: sim.Lab) -> None:
        async with await ready(lab) as client:
            start = lab.now
            blocking = [
                asyncio.create_task(client.get("/block?seconds=1", timeout=5)) for _ in range(40)
            ]
            await lab.sleep(0.2)
            await client.get("/ticks")
            assert lab.now - start < 0.5
            await asyncio.gather(*blocking)
            assert lab.now - start == pytest.approx(1, abs=0.1)

    run(beside)


def test_more_of_them_than_there_are_threads_wait_in_a_queue() -> None:
    async def queued(lab: sim.Lab) -> None:
        async with await ready(lab) as client:
            start = lab.now
            asking = (client.get("/block?seconds=1", timeout=9) for _ in range(60))
            await asyncio.gather(*asking)
            assert lab.now - start == pytest.approx(2, abs=0.1)

    run(queued)


def test_a_crash_gives_the_threads_back() -> None:
    """Each process has its own limit of threads: those of one that was killed are no loss."""

    async def crashed(lab: sim.Lab) -> None:
        async with await ready(lab) as client:
            asking = [
                asyncio.create_task(client.get("/block?seconds=60", timeout=90)) for _ in range(40)
            ]
            await lab.sleep(1)
            lab.restart("ledger")
            await asyncio.gather(*asking, return_exceptions=True)
            await lab.sleep(0.1)
            start = lab.now
            await client.get("/block?seconds=1")
            assert lab.now - start == pytest.approx(1, abs=0.1)

    run(crashed)


def test_anyio_called_from_a_worker_thread() -> None:
    import anyio
    import anyio.from_thread
    import anyio.to_thread

    async def program() -> None:
        def work() -> str:
            anyio.from_thread.check_cancelled()
            return anyio.from_thread.run_sync(str.upper, "done")

        def back() -> None:
            anyio.from_thread.run(anyio.sleep, 1)

        assert await anyio.to_thread.run_sync(work) == "DONE"
        with pytest.raises(EscapeError, match="called from a worker thread"):
            await anyio.to_thread.run_sync(back)

    with pytest.raises(AssertionError, match=r"test_sim_uvicorn\.py:.* in back"):
        sim.run(program)


# --- connections ---------------------------------------------------------------------------------


def test_a_pooled_connection_that_a_crash_has_broken_is_not_used_again() -> None:
    async def broken(lab: sim.Lab) -> None:
        async with await ready(lab) as client:
            await client.put("/entries/1")
            lab.restart("ledger")
            await lab.sleep(1)
            assert (await client.put("/entries/2")).status_code == 201
            assert (await client.get("/entries")).json() == [1, 2]

    run(broken)


def test_each_of_the_timeouts_ends_when_it_should() -> None:
    async def cut_off(lab: sim.Lab) -> None:
        async with await ready(lab) as client:
            start = lab.now
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/wait?seconds=9", timeout=httpx.Timeout(1, read=3))
            assert lab.now - start == pytest.approx(3, abs=0.01)
            lab.cut("ledger")
            start = lab.now
            with pytest.raises(httpx.ConnectTimeout):
                await client.get("/entries", timeout=httpx.Timeout(1, connect=7))
            assert lab.now - start == pytest.approx(7, abs=0.01)
            start = lab.now
            await lab.heal()
            tasks = [client.get("/entries", timeout=httpx.Timeout(9, pool=2)) for _ in range(5)]
            await asyncio.gather(*tasks)

    run(cut_off)


def test_a_reader_that_stops_holds_up_the_application() -> None:
    async def slow_reader(lab: sim.Lab) -> None:
        async with await ready(lab) as client:
            async with client.stream("GET", "/blocks?count=1000", timeout=600) as answer:
                body = answer.aiter_raw()
                got = len(await anext(body))
                await lab.sleep(60)
                assert 0 < (await client.get("/produced")).json() < 200
                async for part in body:
                    got += len(part)
            assert got == 1000 * len(ledger.BLOCK)

    run(slow_reader)


# --- the end -------------------------------------------------------------------------------------


def test_a_graceful_stop_answers_what_was_asked_before() -> None:
    async def stopped(lab: sim.Lab) -> None:
        async with await ready(lab) as client:
            asking = asyncio.create_task(client.get("/wait?seconds=3", timeout=9))
            await lab.sleep(0.5)
            start = lab.now
            await lab.stop("ledger")
            assert lab.now - start == pytest.approx(2.5, abs=0.3)  # it looks ten times a second
            assert (await asking).text == "done"
            await lab.sleep(0.1)
            with pytest.raises(httpx.ConnectError):
                await client.get("/entries")
            assert lab.exits == [("ledger", STOPPED)]
            lab.restart("ledger")
            look = lab.spawn("ledger", asyncio.to_thread(Path("ledger/closed").read_text))
            assert await look == "yes"  # the lifespan of the application has come to its end

    run(stopped)


def test_a_stop_does_not_wait_for_ever() -> None:
    async def stopped(lab: sim.Lab) -> None:
        async with await ready(lab) as client:
            asking = asyncio.create_task(client.get("/wait?seconds=100", timeout=200))
            await lab.sleep(0.5)
            start = lab.now
            await lab.stop("ledger")
            assert lab.now - start == pytest.approx(10, abs=0.5)
            with suppress(httpx.HTTPError):
                assert (await asking).status_code == 500

    run(stopped)


# --- repeatable ----------------------------------------------------------------------------------


def test_a_seed_is_one_run_in_every_process() -> None:
    assert_repeatable(f"{__name__}:test_acknowledged_entries_survive")
