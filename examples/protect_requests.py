"""Protect every request of a requests session: an adapter, which is urllib3 underneath."""

from typing import Any

import requests
from flaky import serving
from requests.adapters import HTTPAdapter

from outlast import Bulkhead, CircuitBreaker, Policy, Retry, happened
from outlast.protect import remaining
from outlast.protect.headers import inject

IDEMPOTENT = {"DELETE", "GET", "HEAD", "OPTIONS", "PUT"}


def repeatable(error: Exception) -> bool:
    """Whether what failed may be sent again; errors of requests know their request."""
    request: Any = getattr(error, "request", None)
    if request is None or not isinstance(request.body, bytes | str | None):
        return False  # not an error of requests, or a body that is read once
    if happened(error) == "no":  # not connected, or refused by a 429
        return True
    return request.method in IDEMPOTENT or "Idempotency-Key" in request.headers


def speaks_against_it(error: Exception) -> bool:
    """Whether the service failed: a status below 500 says that it works."""
    response: Any = getattr(error, "response", None)
    return response is None or response.status_code >= 500


class Protected(HTTPAdapter):
    """Sends requests under a policy. It has connections of its own, at most 20."""

    def __init__(self, policy: Policy, timeout: float = 10) -> None:
        self.policy, self.timeout = policy, timeout
        super().__init__(pool_maxsize=20, pool_block=True)

    def send(self, request: requests.PreparedRequest, *args: Any, **kw: Any) -> requests.Response:
        def attempt() -> requests.Response:
            inject(request.headers)  # the time left, the attempt, the key
            own = kw.get("timeout") or self.timeout  # seconds, or a pair of them
            pair = own if isinstance(own, tuple) else (own, own)
            more = {**kw, "timeout": tuple(map(remaining, pair))}
            response = HTTPAdapter.send(self, request, *args, **more)
            if response.status_code == 429 or response.status_code >= 500:
                _ = response.content  # read, so that the connection is free again
                response.raise_for_status()
            return response

        try:
            return self.policy.call(attempt)
        except requests.HTTPError as error:
            return error.response  # callers of requests look at the status themselves


def main() -> None:
    policy = Policy(
        "rates", timeout=5, retry=Retry(on=repeatable, base=0.01), limit=Bulkhead(20),
        breaker=CircuitBreaker(5, 30, counts=speaks_against_it))  # fmt: skip
    with serving(0, 503, 200, 503, 503, 200) as service, requests.Session() as session:
        session.mount(service.url, Protected(policy))
        print("GET:", session.get(service.url).text, service.asked)
        print("POST:", session.post(service.url, b"buy").status_code, service.asked[3:])
        key = {"Idempotency-Key": "order-17"}
        sold = session.post(service.url, b"buy", headers=key)
        print("POST with a key:", sold.text, service.asked[4:])


def test_it_runs() -> None:
    main()


if __name__ == "__main__":
    main()
