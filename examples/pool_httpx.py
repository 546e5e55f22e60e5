"""One client of four instances: a good one, one that is broken, one that hangs up, one gone."""

import asyncio

import httpx
from flaky import serving

from outlast import idempotency_key
from outlast.kernel import Event, current_world
from outlast.pool import AsyncHttpxPoolTransport, InstanceEjected, Outlier, Pool
from outlast.protect import Policy

GONE = "http://127.0.0.1:1"


def tell(event: Event) -> None:
    if isinstance(event, InstanceEjected):
        print(f"ejected after {event.value:.0f} {event.why}, {event.times} time")


def looks_right(response: httpx.Response) -> bool:
    """What a caller knows of an answer beforehand; one that is not so is never returned."""
    return 0.5 < float(response.text) < 2


async def by_transport(urls: list[str]) -> None:
    """Every request of an httpx client goes to an instance that works."""
    pool = Pool(
        "rates", urls,
        eject=Outlier(max_ejected=0.75),     # one good one is enough for this service
        panic=0.2,                           # below that share of usable ones all are asked
        policy=Policy("rates", timeout=5.0, attempt_timeout=1.0),
        attempts=4, valid=looks_right,
    )  # fmt: skip
    transport = AsyncHttpxPoolTransport(pool)
    async with httpx.AsyncClient(transport=transport, base_url="http://rates") as client:
        answers = [(await client.get("/EUR")).text for _ in range(60)]
        print("answers:", set(answers), "of", len(answers))
        with idempotency_key("order-17"):  # recognised by the server if it comes twice
            print("order:", (await client.post("/orders")).status_code)
    print("usable:", pool.snapshot()["usable"], "of", len(urls))


async def by_call(urls: list[str]) -> None:
    """The same for a function of any client: it is given the instance to ask."""
    pool = Pool("rates by call", urls, attempts=4, idempotent=True)

    async def rate(endpoint: object, currency: str) -> float:
        async with httpx.AsyncClient() as client:
            response = await client.get(f"{endpoint}/{currency}")
        return float(response.raise_for_status().text)

    print("call:", {await pool.call(rate, "EUR") for _ in range(5)})


async def main() -> None:
    end = current_world().events.subscribe(tell)  # type: ignore[attr-defined]
    with serving(200) as good, serving(503) as broken, serving(0) as rude:
        await by_transport([good.url, broken.url, rude.url, GONE])
        end()
        await by_call([good.url, broken.url, rude.url, GONE])


def test_it_runs() -> None:
    asyncio.run(main())


if __name__ == "__main__":
    asyncio.run(main())
