"""redis-py's asyncio client, unmodified, against a small server of its protocol."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as LateError

from outlast import sim
from tests.support.programs import resp
from tests.support.sim_programs import assert_repeatable, found

SEEDS = 200
FAULTS = [
    "crash", "power-cut", "pause", "partition:halves", "link:reset", "link:loss", "link:slow",
    "dns:wrong", "dns:nxdomain", "disk:slow",
]  # fmt: skip
pytestmark = pytest.mark.timeout(120)


def client(
    host: str = "redis", port: int = 6379, *, timeout: float = 1, retries: int = 0, **rest: Any
) -> Redis:
    retry = Retry(ConstantBackoff(0.1) if retries else NoBackoff(), retries)
    return Redis(
        host=host, port=port, protocol=2, socket_timeout=timeout, socket_connect_timeout=timeout,
        retry=retry, decode_responses=True, **rest,
    )  # fmt: skip


async def ready(lab: sim.Lab, **options: Any) -> None:
    lab.host("redis", partial(resp.main, **options))
    await lab.sleep(0.1)


def run(test: Callable[[sim.Lab], Any]) -> Any:
    return sim.run(test, files=True)


# --- the same program ----------------------------------------------------------------------------


async def tour(host: str, port: int) -> list[Any]:
    """Use everything once, and return what was seen."""
    async with client(host, port, timeout=30) as redis:
        seen: list[Any] = [await redis.ping(), await redis.set("a", "1"), await redis.get("a")]
        seen += [await redis.set("a", "2", nx=True), await redis.incr("a"), await redis.get("b")]
        seen += [await redis.sadd("s", "x", "y"), await redis.sadd("s", "x")]
        seen += [sorted(await redis.smembers("s")), await redis.delete("a", "b")]
        async with redis.pipeline(transaction=False) as pipe:
            for n in range(50):
                pipe.incrby("sum", n)
            seen.append((await pipe.execute())[-1])
        try:
            await redis.execute_command("FLY")
        except RedisError as error:
            seen.append(str(error))
        async with redis.pubsub() as listener:
            await listener.subscribe("news")
            seen.append(await listener.get_message(timeout=30))
            seen.append(await redis.publish("news", "hello"))
            seen.append(await listener.get_message(timeout=30, ignore_subscribe_messages=True))
        popping = asyncio.create_task(redis.blpop(["jobs"], timeout=30))
        await asyncio.sleep(0.05)
        seen += [await redis.rpush("jobs", "one"), await popping]
        seen += [await redis.blpop(["jobs"], timeout=0.1)]
    return seen


def test_it_is_the_same_program_on_the_real_loop(tmp_path: Path) -> None:
    async def simulated(lab: sim.Lab) -> Any:
        await ready(lab)
        return await tour("redis", 6379)

    async def real() -> Any:
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        path = tmp_path / "aof"
        serving = asyncio.create_task(resp.main("127.0.0.1", 0, path, ready=port.set_result))
        seen = await tour("127.0.0.1", await port)
        serving.cancel()
        return seen

    assert run(simulated) == asyncio.run(real())


# --- acknowledged data ---------------------------------------------------------------------------


async def keep_members(lab: sim.Lab, *, early: bool = False) -> None:
    await ready(lab, early=early)
    acked = set()
    async with client(retries=3) as redis:
        for n in range(20):
            with suppress(RedisError):
                await redis.sadd("words", n)
                acked.add(str(n))
    await lab.heal()
    async with client(retries=9, timeout=20) as redis:
        assert acked <= await redis.smembers("words")


@sim.test(seeds=20, faults=FAULTS)
async def test_acknowledged_members_survive(lab: sim.Lab) -> None:
    await keep_members(lab)


def test_a_server_that_answers_before_its_file_is_synced_is_found() -> None:
    @sim.test(seeds=SEEDS, faults=["crash"])
    async def kept(lab: sim.Lab) -> None:
        await keep_members(lab, early=True)

    found(kept)


async def count_to_ten(lab: sim.Lab, *, retries: int) -> None:
    """Each increment is made until it is acknowledged; with redis-py's retries, or by id."""
    await ready(lab)
    async with client(retries=retries) as redis:
        for n in range(10):
            while True:
                with suppress(RedisError):
                    await (redis.incr("count") if retries else redis.sadd("count", f"id-{n}"))
                    break
                await lab.sleep(0.1)
    await lab.heal()
    async with client(retries=9, timeout=20) as redis:
        assert int(await redis.get("count") if retries else await redis.scard("count")) == 10


def test_retries_of_redis_py_count_twice_and_are_found() -> None:
    """They repeat INCR as they repeat GET: what was not answered may have been done."""

    @sim.test(seeds=SEEDS, faults=["link:reset", "link:drop"])
    async def counted(lab: sim.Lab) -> None:
        await count_to_ten(lab, retries=5)

    found(counted)


def test_what_can_be_repeated_is_counted_once() -> None:
    @sim.test(seeds=15, faults=["link:reset", "link:drop"])
    async def counted(lab: sim.Lab) -> None:
        await count_to_ten(lab, retries=0)

    counted()


# --- connections ---------------------------------------------------------------------------------


def test_a_client_reconnects_after_a_crash() -> None:
    async def crashed(lab: sim.Lab) -> None:
        await ready(lab)
        async with client() as redis:
            await redis.set("a", "1")
            lab.crash("redis")
            with pytest.raises(LostError):
                await redis.get("a")
            lab.restart("redis")
            await lab.sleep(0.1)
            assert await redis.get("a") == "1"

    run(crashed)


def test_retries_bridge_a_restart() -> None:
    async def restarted(lab: sim.Lab) -> None:
        await ready(lab)
        async with client(retries=10) as redis:
            await redis.set("a", "1")
            lab.crash("redis")
            asking = asyncio.create_task(redis.get("a"))
            start = lab.now
            await lab.sleep(0.55)
            lab.restart("redis")
            assert await asking == "1"
            assert 0.5 < lab.now - start < 0.8

    run(restarted)


def test_a_subscriber_hears_again_after_a_crash() -> None:
    async def crashed(lab: sim.Lab) -> None:
        await ready(lab)
        heard = []

        async def listen() -> None:
            async with client(retries=50) as redis, redis.pubsub() as listener:
                await listener.subscribe("news")
                async for message in listener.listen():
                    heard.append(message["data"])

        lab.spawn("test", listen())
        async with client() as redis:
            await lab.sleep(0.5)
            assert await redis.publish("news", "one") == 1
            lab.restart("redis")
            await lab.sleep(2)
            assert await redis.publish("news", "two") == 1
            await lab.sleep(0.5)
        assert [word for word in heard if word in {"one", "two"}] == ["one", "two"]

    run(crashed)


def test_timeouts_end_when_they_should_in_virtual_time() -> None:
    async def cut_off(lab: sim.Lab) -> None:
        await ready(lab)
        async with client(timeout=3) as redis:
            start = lab.now
            assert await redis.blpop(["nothing"], timeout=2) is None
            assert lab.now - start == pytest.approx(2, abs=0.01)
            lab.cut("redis")
            for _ in range(2):  # on a connection that was open, and then on none
                start = lab.now
                with pytest.raises(LateError):
                    await redis.get("a")
                assert lab.now - start == pytest.approx(3, abs=0.01)
            await lab.heal()
            assert await redis.get("a") is None

    run(cut_off)


def test_a_health_check_finds_out_a_connection_that_a_power_cut_has_left() -> None:
    async def powerless(lab: sim.Lab) -> None:
        await ready(lab)
        async with client(health_check_interval=10, retries=1) as redis:
            await redis.set("a", "1")
            lab.power_cut("redis")
            lab.restart("redis")
            await lab.sleep(60)
            assert await redis.get("a") == "1"

    run(powerless)


def test_a_pool_lets_callers_wait_for_a_connection() -> None:
    async def pooled(lab: sim.Lab) -> None:
        await ready(lab)
        pool = BlockingConnectionPool(
            host="redis", max_connections=2, timeout=5, protocol=2, socket_timeout=9,
            decode_responses=True,
        )  # fmt: skip
        async with Redis(connection_pool=pool) as redis:
            start = lab.now
            await asyncio.gather(*(redis.blpop(["nothing"], timeout=1) for _ in range(6)))
            assert lab.now - start == pytest.approx(3, abs=0.1)
        await pool.disconnect()

    run(pooled)


# --- repeatable ----------------------------------------------------------------------------------


def test_a_seed_is_one_run_in_every_process() -> None:
    assert_repeatable(f"{__name__}:test_acknowledged_members_survive")
