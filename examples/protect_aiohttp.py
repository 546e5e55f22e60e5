"""Protect an aiohttp session: from outside, since aiohttp runs its middlewares twice at times."""

import asyncio
from typing import Any

import aiohttp
from flaky import serving

from outlast import Bulkhead, CircuitBreaker, Policy, Retry, happened
from outlast.protect import Idempotency
from outlast.protect.headers import inject

IDEMPOTENT = {"DELETE", "GET", "HEAD", "OPTIONS", "PUT"}
FAILURES = (aiohttp.ClientError, TimeoutError)


def speaks_against_it(error: Exception) -> bool:
    """Whether the service failed: a status below 500 says that it works."""
    return getattr(error, "status", 500) >= 500


def worth_repeating(error: Exception) -> bool:
    """Whether a repeat may help: after broken connections and these statuses."""
    return isinstance(error, FAILURES) and getattr(error, "status", 503) in {429, 502, 503, 504}


def surely_nothing_done(error: Exception) -> bool:
    """Whether the request did not get there, or was refused: then a POST is repeated, too."""
    return worth_repeating(error) and happened(error) == "no"


class Client:
    """Sends requests under a policy, which has a retry for what can be repeated."""

    def __init__(self, session: aiohttp.ClientSession, policy: Policy) -> None:
        self.session, self.policy = session, policy
        once = Retry(on=surely_nothing_done, base=policy.parts["retry"].base)
        self.once = policy.replace(name=f"{policy.name} once", retry=once)

    async def request(self, method: str, url: str, **more: Any) -> aiohttp.ClientResponse:
        headers = dict(more.pop("headers", ()))
        repeatable = method in IDEMPOTENT or "Idempotency-Key" in headers
        policy = self.policy if repeatable or "idempotency" in self.policy.parts else self.once

        async def attempt() -> aiohttp.ClientResponse:
            inject(headers)  # the time left, the attempt, the key
            response = await self.session.request(method, url, headers=headers, **more)
            if response.status == 429 or response.status >= 500:
                response.raise_for_status()  # and gives the connection back
            return response

        return await policy.call(attempt)


async def main() -> None:
    policy = Policy(
        "rates", timeout=5, attempt_timeout=2, retry=Retry(on=worth_repeating, base=0.01),
        breaker=CircuitBreaker(5, 30, counts=speaks_against_it), limit=Bulkhead(20))  # fmt: skip
    with serving(503, 429, 200, 503, 503, 200) as service:
        connector = aiohttp.TCPConnector(limit=20)  # connections of its own for this service
        async with aiohttp.ClientSession(service.url, connector=connector) as session:
            rates = Client(session, policy)
            print("GET:", await (await rates.request("GET", "/")).text(), service.asked)
            try:
                await rates.request("POST", "/", data=b"buy")
            except aiohttp.ClientResponseError as error:
                print("POST:", error.status, service.asked[3:])
            with_key = Client(session, policy.replace(name="orders", idempotency=Idempotency()))
            sold = await with_key.request("POST", "/", data=b"buy")
            print("POST with a key:", await sold.text(), service.asked[4:])


def test_it_runs() -> None:
    asyncio.run(main())


if __name__ == "__main__":
    asyncio.run(main())
