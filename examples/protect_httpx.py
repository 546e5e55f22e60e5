"""Protect calls by httpx: one object around the function, or one below every request."""

import asyncio

import httpx
from flaky import serving

from outlast import Bulkhead, CircuitBreaker, Policy, RejectedError, Retry
from outlast.protect import AsyncHttpxTransport

rates = Policy(
    "rates", timeout=5.0,
    retry=Retry(on=httpx.TransportError, attempts=3, base=0.01),
    breaker=CircuitBreaker(failure_threshold=5, recovery_timeout=30),
    limit=Bulkhead(20, queue=50), attempt_timeout=2.0)  # fmt: skip


@rates
async def rate(client: httpx.AsyncClient, currency: str) -> httpx.Response:
    return await client.get(f"/rates/{currency}")


async def view(client: httpx.AsyncClient) -> tuple[int, str]:
    try:
        return 200, (await rate(client, "EUR")).text
    except RejectedError as error:  # breaker open, queue full, too late: nothing was sent
        return 503, f"try again in {error.retry_after or 1:.0f} s"


async def around() -> None:
    """The function is protected, whatever it does inside."""
    with serving(0, 200, 200, 0) as service:  # it hangs up first, then answers twice, then dies
        async with httpx.AsyncClient(base_url=service.url) as client:
            for _ in range(2):
                print("around:", await view(client), len(service.asked))
            for _ in range(2):
                ended = await asyncio.gather(view(client), return_exceptions=True)
                print("around:", *ended, len(service.asked))
    rates.parts["breaker"].reset()


async def below() -> None:
    """Every request is protected: repeated after a 503, too, and never where that does harm."""
    policy = rates.replace(name="rates below")
    with serving(0, 503, 200, 503) as service:
        transport = AsyncHttpxTransport(policy)
        async with httpx.AsyncClient(base_url=service.url, transport=transport) as client:
            print("below:", (await client.get("/rates/EUR")).text, service.asked)
            print("below:", (await client.post("/rates/EUR")).status_code, service.asked[3:])


async def main() -> None:
    await around()
    await below()


def test_it_runs() -> None:
    asyncio.run(main())


if __name__ == "__main__":
    asyncio.run(main())
