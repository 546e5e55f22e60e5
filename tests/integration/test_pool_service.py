"""A pool of real processes over HTTP: one is killed, one is slow, one hangs, one lies."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from outlast.kernel import Event, current_world
from outlast.pool import (
    AsyncHttpxPoolTransport,
    HttpxPoolTransport,
    InstanceCheckFailed,
    InstanceEjected,
    Outlier,
    Pool,
    http_check,
    mad,
)
from outlast.protect import Policy
from tests.support.pool_service import Instance, is_right, running

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

WAIT = 60
# On a busy machine any instance may be slow for a while: that is for the one test of slowness.
QUICK = Outlier(every=0.1, window=3, base=600, cap=600, latency=None)
GOOD: tuple[str, ...] = ()
SLOW = ("--slow", "0.5")
LIAR = ("--lie",)


def listen() -> tuple[list[Event], Callable[[], None]]:
    told: list[Event] = []
    return told, current_world().events.subscribe(told.append)  # type: ignore[attr-defined]


def ejected(told: list[Event]) -> dict[str, str]:
    return {one.endpoint: one.why for one in told if isinstance(one, InstanceEjected)}


class Load:
    """Callers in a closed loop; counts answers that are right, wrong, and errors."""

    def __init__(self) -> None:
        self.right = self.wrong = 0
        self.errors: list[str] = []
        self.who: set[int] = set()

    def take(self, number: int, response: httpx.Response) -> None:
        body = response.json()
        good = response.status_code == 200 and body["square"] == number * number
        self.right += good
        self.wrong += not good
        self.who.add(body["who"])

    async def run(self, client: httpx.AsyncClient, calls: int, callers: int = 8) -> None:
        numbers = iter(range(calls))

        async def call() -> None:
            for number in numbers:
                try:
                    self.take(number, await client.get(f"/square/{number}"))
                except Exception as error:
                    self.errors.append(repr(error))

        await asyncio.gather(*(call() for _ in range(callers)))


def client_of(pool: Pool) -> httpx.AsyncClient:
    inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=64))
    transport = AsyncHttpxPoolTransport(pool, inner)
    return httpx.AsyncClient(transport=transport, base_url="http://shop", timeout=WAIT)


def drive(
    made: list[Instance],
    before: Callable[[], None],
    *,
    ejects: Instance | None = None,
    **settings: Any,
) -> Any:
    """Call for a while, let something happen, and call on; return events and the second load.

    The second load goes on until an instance was ejected, if that ``ejects``.
    """
    told, end = listen()
    first, second = Load(), Load()

    async def main() -> None:
        settings.setdefault("eject", QUICK)
        pool = Pool("shop", [one.url for one in made], **settings)
        async with client_of(pool) as client:
            await first.run(client, 120)
            before()
            await second.run(client, 1200)
            while ejects is not None and ejects.url not in ejected(told):
                await second.run(client, 100)

    try:
        asyncio.run(main())
    finally:
        end()
    assert (first.wrong, second.wrong) == (0, 0)
    return told, second


def test_calls_go_on_when_an_instance_is_killed() -> None:
    with running(GOOD, GOOD, GOOD) as made:
        told, load = drive(made, made[0].kill)
        assert (load.right, load.errors) == (1200, [])
        assert ejected(told) == {made[0].url: "consecutive failures"}
        assert made[0].pid not in load.who


def test_an_instance_that_lies_is_found_out_and_none_of_its_answers_believed() -> None:
    with running(GOOD, GOOD, LIAR) as made:
        told, load = drive(made, lambda: None, valid=is_right)
        assert (load.right, load.errors) == (1200, [])
        assert ejected(told) == {made[2].url: "lies"}


def test_a_slow_instance_is_ejected_for_its_latency() -> None:
    with running(GOOD, GOOD, SLOW) as made:
        slowness = replace(QUICK, latency=mad(4, floor=0.02))
        told, load = drive(made, lambda: None, ejects=made[2], pick="round_robin", eject=slowness)
        assert load.errors == []
        assert ejected(told).get(made[2].url) == "latency"


def test_with_one_killed_one_slow_and_one_that_lies_every_call_is_answered_rightly() -> None:
    many = replace(QUICK, max_ejected=0.67)
    with running(GOOD, ("--slow", "0.01"), LIAR) as made:
        told, load = drive(made, made[0].kill, valid=is_right, eject=many, attempts=3, panic=0.0)
        assert load.right >= 1200 * 0.999
        assert ejected(told) == {made[0].url: "consecutive failures", made[2].url: "lies"}


def test_an_instance_that_hangs_is_left_after_the_time_of_an_attempt() -> None:
    with running(GOOD, GOOD, GOOD) as made:
        policy = Policy("shop", timeout=WAIT, attempt_timeout=1.0)
        many = replace(QUICK, max_ejected=0.67)
        told, load = drive(
            made, made[0].freeze, ejects=made[0], policy=policy, attempts=10, eject=many
        )
        assert load.errors == []
        assert made[0].url in ejected(told)


def test_checks_find_a_killed_instance_without_any_call() -> None:
    async def main() -> None:
        seen = asyncio.Event()
        failed: list[str] = []

        def hear(event: Event) -> None:
            if isinstance(event, InstanceCheckFailed):
                failed.append(event.endpoint)
                seen.set()

        end = current_world().events.subscribe(hear)  # type: ignore[attr-defined]
        with running(GOOD, GOOD, GOOD) as made:
            check = http_check("/readyz", every=0.1, timeout=WAIT, fail_after=2)
            async with Pool("shop", [one.url for one in made], check=check) as pool:
                await asyncio.sleep(0.3)
                assert pool.snapshot()["usable"] == 3
                made[1].kill()
                await asyncio.wait_for(seen.wait(), WAIT)
                assert failed == [made[1].url]
        end()

    asyncio.run(main())


def test_threads_share_a_pool_of_processes_while_one_is_killed() -> None:
    load = Load()
    with running(GOOD, GOOD, LIAR) as made:
        pool = Pool("shop", [one.url for one in made], valid=is_right, eject=QUICK, attempts=3)
        transport = HttpxPoolTransport(pool)
        with httpx.Client(transport=transport, base_url="http://shop", timeout=WAIT) as client:

            def work() -> None:
                for number in range(100):
                    try:
                        load.take(number, client.get(f"/square/{number}"))
                    except Exception as error:
                        load.errors.append(repr(error))

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            made[0].kill()
            for thread in threads:
                thread.join()
    assert load.wrong == 0
    assert load.right >= 380  # the only good one left takes all; a lie and a refusal in a row
    assert pool.snapshot()["in_flight"] == 0
