"""A service that answers httpx clients as told, for both transports, in virtual time."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import httpx

import outlast.host
from outlast import sim
from outlast.protect import Policy, deadline
from outlast.protect.httpx_transport import AsyncHttpxTransport, HttpxTransport
from outlast.testing import virtual_time

assert outlast.host

Kind = Literal["blocking", "async"]
KINDS: tuple[Kind, ...] = ("blocking", "async")
SHOP = "http://shop/"
ENDLESS = httpx.Timeout(None)


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of an answer: chunks, each after a while, perhaps with an error at the end."""

    def __init__(
        self, *chunks: bytes, takes: float = 0, error: BaseException | None = None
    ) -> None:
        self.chunks = chunks
        self.takes = takes
        self.error = error
        self.read = 0
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            time.sleep(self.takes)
            self.read += 1
            yield chunk
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            await asyncio.sleep(self.takes)
            self.read += 1
            yield chunk
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Service(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Gives its answers one after another, the last again and again.

    An answer is a status, a status with headers, a body (of a 200, or with its status), an error,
    or a number of seconds after which comes a 200.

    Attributes:
        seen: The requests, as they were sent.
        bodies: What was sent in them.
        at: When each came, in seconds from the first.
    """

    def __init__(self, *answers: Any, reads: bool = True) -> None:
        self.answers = list(answers)
        self.reads = reads
        self.seen: list[httpx.Request] = []
        self.bodies: list[bytes] = []
        self.at: list[float] = []
        self.cancelled = 0
        self.closed = False

    def _answer(self) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def _note(self, request: httpx.Request) -> None:
        self.seen.append(request)
        self.at.append(time.monotonic())

    def _respond(self, answer: Any) -> httpx.Response:
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, int):
            return httpx.Response(
                answer, content=b"said", extensions={"http_version": b"HTTP/1.1"}
            )
        if isinstance(answer, float):
            return httpx.Response(200, content=b"late")
        status, rest = answer if isinstance(answer, tuple) else (200, answer)
        if isinstance(rest, Body):
            length = {"Content-Length": str(sum(map(len, rest.chunks)))}
            return httpx.Response(status, stream=rest, headers=length)
        return httpx.Response(status, headers=rest, content=b"said")

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._note(request)
        if self.reads:
            self.bodies.append(request.read())
        answer = self._answer()
        if isinstance(answer, float):
            limit = request.extensions["timeout"]["read"]
            time.sleep(answer if limit is None else min(answer, limit))
            if limit is not None and limit < answer:
                raise httpx.ReadTimeout("timed out")
        return self._respond(answer)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._note(request)
        if self.reads:
            self.bodies.append(await request.aread())
        answer = self._answer()
        if isinstance(answer, float):
            try:
                await asyncio.sleep(answer)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return self._respond(answer)

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class Story:
    """Requests to a service through a policy, by one of the two transports."""

    def __init__(self, kind: Kind, policy: Policy, service: Service, **settings: Any) -> None:
        self.kind = kind
        self.policy = policy
        self.service = service
        self.settings = settings

    def ask(self, method: str = "GET", **request: Any) -> httpx.Response:
        """Make one request; how it ends is what comes out."""
        (ended,) = self.asks((method, request))
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def asks(self, *requests: tuple[str, dict[str, Any]]) -> list[Any]:
        """Make requests one after another and return how they end."""
        ended: list[Any] = []
        if self.kind == "blocking":
            with virtual_time():
                made = HttpxTransport(self.policy, self.service, **self.settings)
                with httpx.Client(transport=made, trust_env=False, timeout=ENDLESS) as client:
                    for method, request in requests:
                        ended.append(self._blocking(client, method, **request))
        else:
            sim.run(lambda: self._async(ended, requests))
        first = self.service.at[0] if self.service.at else 0
        self.service.at = [round(at - first, 6) for at in self.service.at]
        return ended

    def _blocking(
        self, client: httpx.Client, method: str, *, within: float | None = None,
        streamed: bool = False, after: float = 0, **request: Any,
    ) -> Any:  # fmt: skip
        time.sleep(after)
        try:
            with deadline(float("inf") if within is None else within):
                if not streamed:
                    return client.request(method, SHOP, **request)
                with client.stream(method, SHOP, **request) as response:
                    return response
        except Exception as error:  # it is what the test looks at
            return error

    async def _async(self, ended: list[Any], requests: Any) -> None:
        made = AsyncHttpxTransport(self.policy, self.service, **self.settings)
        async with httpx.AsyncClient(transport=made, trust_env=False, timeout=ENDLESS) as client:
            for method, request in requests:
                ended.append(await self._one(client, method, **request))

    async def _one(
        self, client: httpx.AsyncClient, method: str, *, within: float | None = None,
        streamed: bool = False, after: float = 0, **request: Any,
    ) -> Any:  # fmt: skip
        await asyncio.sleep(after)
        try:
            with deadline(float("inf") if within is None else within):
                if not streamed:
                    return await client.request(method, SHOP, **request)
                async with client.stream(method, SHOP, **request) as response:
                    return response
        except Exception as error:  # it is what the test looks at
            return error
