"""redis-py under a policy: the example on real sockets, and its coroutines in the simulator."""

import socketserver
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as NoRetryAsync
from redis.backoff import NoBackoff

from outlast import sim
from outlast.kernel import CircuitOpenError, DeadlineError, happened
from outlast.protect import Bulkhead, CircuitBreaker, Policy, Retry, deadline
from tests.support.deadlines import ends_as
from tests.support.examples import example
from tests.support.programs import resp

pytestmark = pytest.mark.timeout(120)

shown = example("protect_redis")


@pytest.fixture
def server() -> Iterator[Any]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), shown.Server) as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        client = shown.client(*made.server_address, size=2)
        yield client
        client.close()
        made.shutdown()


def policy(**parts: Any) -> Policy:
    retry = Retry(on=shown.failed, base=0.001)
    breaker = CircuitBreaker(3, 30, counts=shown.failed)
    return Policy("redis", **{"retry": retry, "breaker": breaker, **parts})


def test_a_socket_waits_no_longer_than_the_deadline_and_its_connection_is_not_used_again(
    server: Any,
) -> None:
    guarded = policy()
    server.connection_pool.connection_kwargs["socket_timeout"] = 60
    guarded.call(server.set, "EUR", "1.08")
    begun = time.monotonic()

    def wait(seconds: float) -> None:
        with deadline(seconds):
            guarded.call(server.get, "slow")

    ends_as(redis.TimeoutError, wait)
    assert time.monotonic() - begun < 60
    assert guarded.call(server.get, "EUR") == b"1.08"


def test_without_a_deadline_the_timeouts_are_those_of_the_client(server: Any) -> None:
    with deadline(60):
        policy().call(server.set, "EUR", "1.08")
    policy().call(server.get, "EUR")
    (connection,) = server.connection_pool._available_connections
    assert connection._sock.gettimeout() == 2.0


def test_a_closed_port_is_tried_again_even_for_changes_and_opens_the_breaker() -> None:
    client = shown.client("127.0.0.1", 1, size=2)
    guarded = policy(retry=shown.UNSENT)
    with pytest.raises(redis.ConnectionError) as caught:
        guarded.call(client.incr, "count")
    assert caught.value.__notes__ == ["after 3 attempts: 3 of 3 attempts used"]
    with pytest.raises(CircuitOpenError):
        guarded.call(client.incr, "count")


# --- coroutines ----------------------------------------------------------------------------------


def async_client() -> redis.asyncio.Redis:
    return redis.asyncio.Redis(
        host="redis", protocol=2, socket_timeout=60, socket_connect_timeout=60,
        retry=NoRetryAsync(NoBackoff(), 0), max_connections=4,
    )  # fmt: skip


@sim.test(seeds=12, faults=["link:reset", "link:drop", "crash"])
async def test_what_is_repeated_only_if_it_was_not_sent_is_counted_once(lab: sim.Lab) -> None:
    lab.host("redis", partial(resp.main))
    await lab.sleep(0.1)
    guarded = policy(retry=shown.UNSENT, breaker=None, attempt_timeout=2)
    asked = acked = 0
    async with async_client() as client:
        for _ in range(10):
            asked += 1
            try:
                await guarded.acall(client.incr, "count")
                acked += 1
            except (redis.RedisError, DeadlineError) as error:
                asked -= happened(error) == "no"
    await lab.heal()
    async with async_client() as client:
        assert acked <= int(await client.get("count") or 0) <= asked


def test_a_command_that_hangs_is_cancelled_and_the_next_has_an_answer_of_its_own() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("redis", partial(resp.main))
        await lab.sleep(0.1)
        guarded = policy(attempt_timeout=2, limit=Bulkhead(1))
        async with async_client() as client:
            await guarded.acall(client.set, "a", "1")
            begun = lab.now
            with pytest.raises(DeadlineError):
                await guarded.acall(client.blpop, ["jobs"], 30)
            assert lab.now - begun == pytest.approx(2, abs=0.01)
            assert await guarded.acall(client.get, "a") == b"1"

    sim.run(main, files=True)
