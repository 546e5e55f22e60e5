"""A worker that says how it is: what it depends on, whether it goes on, and that it will stop."""

import asyncio

from outlast import CircuitBreaker, sim
from outlast.detect import Health, Status, checks

health = Health(name="orders")
rates = CircuitBreaker(failure_threshold=3, recovery_timeout=30, name="rates")

# Dependencies belong in readiness: an outage of theirs must not restart us.
health.add("queue", checks.tcp("queue:5672"), every=2.0, fail_after=2)
health.add("rates", checks.breaker(rates), critical=False)
health.add("disk", checks.disk_space("/", min_free=200_000_000), every=30.0)

# Liveness is about ourselves: does work get done?
consumer = health.progress("consumer", within=10.0)


@health.check("warm", group="startup", every=0.5)
async def warm() -> tuple[Status, str]:
    return (Status.OK, "") if prices else (Status.FAILED, "no prices yet")


prices: dict[str, float] = {}


async def consume(items: "asyncio.Queue[str]") -> None:
    while True:
        with consumer.idle():  # waiting for work is no stall
            item = await items.get()
        await asyncio.sleep(30 if item == "poison" else 0.1)
        consumer.stamp()


def says(startup: bool, liveness: bool, readiness: bool) -> None:
    found = {group: one.passing for group, one in health.snapshot().items()}
    if found != {"startup": startup, "liveness": liveness, "readiness": readiness}:
        raise AssertionError(health.status())


async def day(lab: sim.Lab) -> None:
    """A day in the life of the worker, in virtual time."""

    async def queue() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), port=5672)
        await server.serve_forever()

    broker = lab.host("queue", queue)
    items: asyncio.Queue[str] = asyncio.Queue()
    working = asyncio.create_task(consume(items))
    async with health:
        await asyncio.sleep(1)
        says(startup=False, liveness=True, readiness=True)
        prices["EUR"] = 1.08
        await asyncio.sleep(60)  # nothing to do all the while
        says(startup=True, liveness=True, readiness=True)

        rates.trip()  # degrades, as the check is not critical
        await asyncio.sleep(10)
        says(startup=True, liveness=True, readiness=True)
        lab.crash(broker)
        await asyncio.sleep(10)
        says(startup=True, liveness=True, readiness=False)

        items.put_nowait("poison")
        await asyncio.sleep(15)  # it hangs on an item: restart it
        says(startup=True, liveness=False, readiness=False)
    working.cancel()


def test_the_worker_says_how_it_is() -> None:
    sim.run(day, seed=1, limit=600)
