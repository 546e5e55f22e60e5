"""aiohttp under a policy, by the client of the example, in the simulator."""

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from outlast import sim
from outlast.kernel import DeadlineError
from outlast.protect import CircuitBreaker, Idempotency, Policy, Retry
from tests.support.examples import example

pytestmark = pytest.mark.timeout(120)

shown = example("protect_aiohttp")

ANSWERS: list[int] = []
SEEN: list[tuple[str, str | None]] = []


async def answer(request: web.Request) -> web.Response:
    SEEN.append((request.method, request.headers.get("Idempotency-Key")))
    status = ANSWERS.pop(0) if ANSWERS else 200
    if status == 0:
        assert request.transport is not None
        request.transport.abort()
    if status == 1:
        await asyncio.sleep(3600)
    return web.Response(status=status or 200, text="1.08", headers={"Retry-After": "7"})


async def service() -> None:
    app = web.Application()
    app.router.add_route("*", "/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 80).start()
    await asyncio.Event().wait()


def policy(**parts: Any) -> Policy:
    retry = Retry(on=shown.worth_repeating, base=0.01)
    breaker = CircuitBreaker(3, 30, counts=shown.speaks_against_it)
    return Policy("shop", **{"retry": retry, "breaker": breaker, **parts})


def told(policy: Policy, *answers: int, method: str = "GET", **more: Any) -> tuple[Any, float]:
    """Return how a request ended, and after how long."""
    ANSWERS[:] = answers
    SEEN.clear()

    async def main(lab: sim.Lab) -> tuple[Any, float]:
        lab.host("shop", service)
        await lab.sleep(0.5)
        begun = lab.now
        async with aiohttp.ClientSession("http://shop") as session:
            client = shown.Client(session, policy)
            try:
                response = await client.request(method, "/", **more)
                return await response.text(), lab.now - begun
            except Exception as error:  # it is what the test looks at
                return error, lab.now - begun

    return sim.run(main)


def test_a_get_is_repeated_after_the_wait_that_the_server_asks_for() -> None:
    ended, took = told(policy(), 503, 429)
    assert ended == "1.08"
    assert took == pytest.approx(14, abs=0.1)
    assert len(SEEN) == 3


def test_a_post_is_repeated_after_a_refusal_and_not_after_what_may_have_been_done() -> None:
    assert told(policy(), 429, method="POST", data=b"buy")[0] == "1.08"
    for status in (503, 0):
        ended, _ = told(policy(), status, method="POST", data=b"buy")
        assert isinstance(ended, aiohttp.ClientError)
        assert len(SEEN) == 1


def test_with_a_key_a_post_is_repeated_under_the_same_one() -> None:
    guarded = policy(idempotency=Idempotency())
    assert told(guarded, 0, 503, method="POST", data=b"buy")[0] == "1.08"
    assert len(SEEN) == 3
    assert len(set(SEEN)) == 1
    assert SEEN[0][1]


def test_a_server_that_hangs_is_given_up() -> None:
    ended, took = told(policy(attempt_timeout=2), 1)
    assert isinstance(ended, DeadlineError)
    assert took == pytest.approx(2, abs=0.1)


def test_only_5xx_open_the_breaker() -> None:
    for status, failures in ((404, 0), (500, 1)):
        guarded = policy()
        told(guarded, status)
        assert guarded.parts["breaker"].failure_count == failures
