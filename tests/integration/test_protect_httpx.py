"""The httpx transports on httpx's real ones: sockets on loopback, and uvicorn in the simulator."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from socket import create_server

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from outlast import sim
from outlast.kernel import CircuitOpenError, DeadlineError
from outlast.protect import (
    Bulkhead,
    CircuitBreaker,
    Hedge,
    Idempotency,
    Idempotent,
    Policy,
    Retry,
    deadline,
)
from outlast.protect.asgi import ProtectMiddleware
from outlast.protect.headers import Style
from outlast.protect.httpx_transport import AsyncHttpxTransport, HttpxTransport
from tests.support.deadlines import ends_as
from tests.support.examples import example

serving = example("flaky").serving
pytestmark = pytest.mark.timeout(180)
TRANSIENT = Retry(httpx.TransportError, base=0.001)


def client(policy: Policy, url: str, **settings: object) -> httpx.Client:
    inner = httpx.HTTPTransport(limits=httpx.Limits(max_connections=1))
    made = HttpxTransport(policy, inner, **settings)  # type: ignore[arg-type]
    return httpx.Client(transport=made, base_url=url, trust_env=False, timeout=60)


# --- plain functions, on real sockets ------------------------------------------------------------


def test_a_get_outlives_a_server_that_hangs_up_and_one_that_is_busy() -> None:
    policy = Policy("shop", retry=TRANSIENT)
    with serving(0, 503, 200) as service, client(policy, service.url) as http:
        assert http.get("/").text == "1.08"
        assert service.asked == ["GET"] * 3


def test_failed_responses_give_the_only_connection_back_before_the_next_attempt() -> None:
    policy = Policy("shop", retry=TRANSIENT)
    for read_max in (0, 1000):
        with (
            serving(503, 503, 200) as service,
            client(policy, service.url, read_max=read_max) as h,
        ):
            assert h.get("/", timeout=httpx.Timeout(60, pool=0.2)).text == "1.08"


def test_a_post_is_not_sent_again_after_the_server_hung_up() -> None:
    policy = Policy("shop", retry=TRANSIENT)
    with serving(0, 200) as service, client(policy, service.url) as http:
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            http.post("/", content=b"buy")
        assert service.asked == ["POST"]
    assert "not repeated: POST may have taken effect" in caught.value.__notes__[0]


def test_a_closed_port_is_tried_again_and_opens_the_breaker() -> None:
    breaker = CircuitBreaker(3, 30)
    policy = Policy("shop", retry=TRANSIENT, breaker=breaker)
    with client(policy, "http://127.0.0.1:1") as http:
        with pytest.raises(httpx.ConnectError) as caught:
            http.post("/", content=b"buy")
        assert caught.value.__notes__ == ["after 3 attempts: 3 of 3 attempts used"]
        with pytest.raises(CircuitOpenError):
            http.post("/", content=b"buy")


def test_a_server_that_never_answers_is_given_up_at_the_deadline() -> None:
    with closing(create_server(("127.0.0.1", 0))) as silent:
        begun = time.monotonic()

        def wait(seconds: float) -> None:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with client(Policy("shop", timeout=seconds), url) as http:
                http.get("/")

        ends_as(httpx.ReadTimeout, wait)
        assert time.monotonic() - begun < 60


def test_a_body_that_breaks_off_is_asked_for_again() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    answers = [whole + b"ha", whole + b"half"]

    def serve(listening: object) -> None:
        for answer in answers:
            connection, _ = listening.accept()  # type: ignore[attr-defined]
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

    with closing(create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with client(Policy("shop", retry=TRANSIENT), url) as http:
            assert http.get("/").content == b"half"
        thread.join(60)


class Slow(httpx.BaseTransport):
    """The first request takes until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = 0
        self.closed: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        number = self.asked
        if number == 1:
            self.go.wait(60)
        return httpx.Response(200, stream=Noted(self.closed, f"answer {number}"))


class Noted(httpx.SyncByteStream):
    def __init__(self, closed: list[str], name: str) -> None:
        self.closed = closed
        self.name = name

    def __iter__(self) -> Iterator[bytes]:
        yield self.name.encode()

    def close(self) -> None:
        self.closed.append(self.name)


def test_a_slow_get_is_hedged_on_threads_and_the_late_response_is_closed() -> None:
    slow = Slow()
    transport = HttpxTransport(Policy("shop", hedge=Hedge(0.01)), slow)
    with httpx.Client(transport=transport, trust_env=False) as http:
        assert http.get("http://shop/").text == "answer 2"
        slow.go.set()
        until = time.monotonic() + 60
        while "answer 1" not in slow.closed and time.monotonic() < until:
            time.sleep(0.001)
    assert sorted(slow.closed) == ["answer 1", "answer 2"]


# --- coroutines, in the simulator ----------------------------------------------------------------

PAID: list[str] = []


async def pay(request: Request) -> Response:
    PAID.append((await request.body()).decode())
    return JSONResponse({"paid": len(PAID)})


async def hang(request: Request) -> Response:
    await asyncio.sleep(3600)
    return Response()


async def drip(request: Request) -> Response:
    async def chunks() -> object:
        for _ in range(20):
            await asyncio.sleep(1)
            yield b"drop"

    return StreamingResponse(chunks())  # type: ignore[arg-type]


ROUTES = [Route("/pay", pay, methods=["POST"]), Route("/hang", hang), Route("/drip", drip)]


async def shop() -> None:
    kept = Idempotent()
    app = ProtectMiddleware(Starlette(routes=ROUTES), idempotent=kept)  # type: ignore[arg-type]
    config = uvicorn.Config(app, host="0.0.0.0", port=80, log_config=None)  # type: ignore[arg-type]
    await uvicorn.Server(config).serve()


def patient(**parts: object) -> Policy:
    retry = Retry((httpx.TransportError, DeadlineError), None, base=0.5, repeat_indefinite=True)
    return Policy("shop", retry=retry, attempt_timeout=2, **parts)  # type: ignore[arg-type]


def async_client(policy: Policy, style: Style | None = "outlast") -> httpx.AsyncClient:
    made = AsyncHttpxTransport(policy, style=style)
    return httpx.AsyncClient(transport=made, base_url="http://shop", trust_env=False)


def test_a_payment_is_made_once_whatever_the_network_does() -> None:
    faults = ["link:reset", "link:drop", "link:slow", "partition:halves"]

    @sim.test(seeds=12, faults=faults)
    async def paid(lab: sim.Lab) -> None:
        PAID.clear()
        lab.host("shop", shop)
        await lab.sleep(0.5)
        async with async_client(patient(idempotency=Idempotency())) as http:
            for number in range(5):
                answer = await http.post("/pay", content=f"order {number}")
                while answer.status_code == 409:  # the first is still under way
                    await lab.sleep(1)
                    answer = await http.post("/pay", content=f"order {number}")
                assert answer.status_code == 200
        assert [f"order {number}" for number in range(5)] == PAID

    paid()


def test_a_get_bridges_a_restart_and_a_cut_ends_at_the_deadline() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("shop", shop)
        await lab.sleep(0.5)
        async with async_client(patient()) as http:
            assert (await http.get("/none")).status_code == 404
            lab.crash("shop")
            asking = asyncio.create_task(http.get("/none"))
            await lab.sleep(3)
            lab.restart("shop")
            assert (await asking).status_code == 404
            lab.cut("shop")
            begun = lab.now
            with pytest.raises(DeadlineError), deadline(9):
                await http.get("/none")
            assert lab.now - begun == pytest.approx(9, abs=2.1)

    sim.run(main)


def test_an_attempt_that_hangs_is_cancelled_and_its_connection_given_up() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("shop", shop)
        await lab.sleep(0.5)
        policy = Policy("shop", attempt_timeout=2, limit=Bulkhead(1))
        async with async_client(policy, style=None) as http:
            for _ in range(3):
                begun = lab.now
                with pytest.raises(DeadlineError):
                    await http.get("/hang")
                assert lab.now - begun == pytest.approx(2, abs=0.01)

    sim.run(main)


def test_a_stream_is_the_callers_to_read_and_no_attempt_bounds_it() -> None:
    async def main(lab: sim.Lab) -> None:
        lab.host("shop", shop)
        await lab.sleep(0.5)
        async with async_client(Policy("shop", attempt_timeout=2), style=None) as http:
            async with http.stream("GET", "/drip") as response:
                assert [chunk async for chunk in response.aiter_raw()] == [b"drop"] * 20
            assert lab.now > 20
            with suppress(DeadlineError):
                async with deadline(1.5), http.stream("GET", "/drip") as response:
                    await response.aread()

    sim.run(main)
