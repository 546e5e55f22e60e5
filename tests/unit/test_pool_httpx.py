"""The httpx transports of a pool: where requests go, what is repeated, what is not believed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import httpx
import pytest

from outlast import sim
from outlast.kernel import ConfigError, current_world
from outlast.pool import AsyncHttpxPoolTransport, HttpxPoolTransport, Instance, Outlier, Pool
from outlast.protect import Hedge, Idempotency, Policy, deadline
from outlast.testing import virtual_time

Kind = Literal["blocking", "async"]
pytestmark = pytest.mark.parametrize("kind", ["blocking", "async"])
URLS = ["http://a:80", "http://b:8080/api", "http://c"]


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body without a length."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Servers(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers for each host as told: a status, an error, seconds, or a function of the request."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.seen: list[httpx.Request] = []
        self.closed = False

    @property
    def hosts(self) -> list[str]:
        return [request.url.host for request in self.seen]

    def _respond(self, request: httpx.Request) -> httpx.Response:
        answer = self.answers.get(request.url.host, 200)
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(answer, text=request.url.host)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        answer = self.answers.get(request.url.host)
        if isinstance(answer, float):
            current_world().clock.pause(answer)
            return httpx.Response(200, text=request.url.host)
        return self._respond(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        answer = self.answers.get(request.url.host)
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return httpx.Response(200, text=request.url.host)
        return self._respond(request)

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class Story:
    """A client of either kind, on a pool."""

    def __init__(self, kind: Kind, servers: Servers, *, settings: Any = None, **pool: Any) -> None:
        self.kind = kind
        self.servers = servers
        self.settings = settings or {}
        source = pool.pop("source", URLS)
        self.pool = Pool("shop", source, **{"pick": "round_robin", **pool})
        self.state: Any = None

    def ask(
        self, *calls: tuple[str, str], then: Callable[[], None] = lambda: None, **more: Any
    ) -> list[Any]:
        """Send requests one after another; return responses or errors."""
        ended: list[Any] = []
        asked = calls or (("GET", "/"),)

        def blocking() -> None:
            transport = HttpxPoolTransport(self.pool, self.servers, **self.settings)
            with httpx.Client(transport=transport, base_url="http://shop", **more) as client:
                for method, path in asked:
                    try:
                        ended.append(client.request(method, path))
                    except Exception as error:
                        ended.append(error)
                then()
                self.state = self.pool.snapshot()

        async def aio() -> None:
            transport = AsyncHttpxPoolTransport(self.pool, self.servers, **self.settings)
            made = httpx.AsyncClient(transport=transport, base_url="http://shop", **more)
            async with made as client:
                for method, path in asked:
                    try:
                        ended.append(await client.request(method, path))
                    except Exception as error:
                        ended.append(error)
                then()
                self.state = self.pool.snapshot()

        if self.kind == "async":
            sim.run(aio)
        else:
            with virtual_time():
                blocking()
        return ended


def test_requests_go_to_instances_with_their_path_and_host(kind: Kind) -> None:
    servers = Servers()
    Story(kind, servers).ask(("GET", "/x?q=1"), ("POST", "/x"), ("GET", "/x"))
    shown = [(str(request.url), request.headers["Host"]) for request in servers.seen]
    assert shown == [
        ("http://a/x?q=1", "a"), ("http://b:8080/api/x", "b:8080"), ("http://c/x", "c"),
    ]  # fmt: skip
    assert servers.closed


def test_an_instance_that_is_a_number_is_called_by_its_name(kind: Kind) -> None:
    servers = Servers()
    source = [Instance("https://10.0.0.1:8443", host="shop.example")]
    Story(kind, servers, source=source).ask()
    (request,) = servers.seen
    assert request.headers["Host"] == "shop.example:8443"
    assert request.extensions["sni_hostname"] == "shop.example"


def test_a_closed_port_is_left_for_another_instance_even_by_a_post(kind: Kind) -> None:
    servers = Servers(a=httpx.ConnectError("refused"))
    (response,) = Story(kind, servers).ask(("POST", "/"))
    assert response.status_code == 200
    assert servers.hosts == ["a", "c"]


def test_a_broken_connection_is_left_by_a_get_and_not_by_a_post(kind: Kind) -> None:
    servers = Servers(a=httpx.ReadError("reset"))
    story = Story(kind, servers)
    (response,) = story.ask(("GET", "/"))
    assert response.status_code == 200
    servers = Servers(a=httpx.ReadError("reset"))
    (error,) = Story(kind, servers).ask(("POST", "/"))
    assert isinstance(error, httpx.ReadError)
    assert servers.hosts == ["a"]


def test_a_post_with_a_key_is_repeated_elsewhere_with_the_same_key(kind: Kind) -> None:
    servers = Servers(a=httpx.ReadError("reset"))
    story = Story(kind, servers, policy=Policy("orders", idempotency=Idempotency()))
    (response,) = story.ask(("POST", "/"))
    assert response.status_code == 200
    keys = {request.headers["Idempotency-Key"] for request in servers.seen}
    assert (len(servers.seen), len(keys)) == (2, 1)


def test_a_503_is_asked_for_elsewhere_at_once_and_the_last_one_returned(kind: Kind) -> None:
    servers = Servers(a=lambda _: httpx.Response(503, headers={"Retry-After": "60"}))
    (response,) = Story(kind, servers).ask()
    assert (response.status_code, servers.hosts) == (200, ["a", "c"])
    servers = Servers(**dict.fromkeys("abc", 503))
    (response,) = Story(kind, servers, attempts=3).ask()
    assert (response.status_code, sorted(servers.hosts)) == (503, ["a", "b", "c"])


def test_errors_of_the_server_eject_and_those_of_the_client_do_not(kind: Kind) -> None:
    servers = Servers(a=500, b=404)
    story = Story(kind, servers)
    story.ask(*[("GET", "/")] * 30)
    states = [one["standing"] for one in story.state["instances"]]
    assert states == ["ejected", "live", "live"]
    assert servers.hosts.count("a") == 5


def test_an_instance_that_hangs_is_left_after_the_time_of_an_attempt(kind: Kind) -> None:
    # Of plain functions that is what sockets are told, which these here do not listen to.
    servers = Servers(a=60.0)
    (response,) = Story("async", servers, policy=Policy("orders", attempt_timeout=1)).ask()
    assert response.text == "c"


def test_a_hedge_asks_another_instance(kind: Kind) -> None:
    servers = Servers(a=60.0)
    (response,) = Story(kind, servers, policy=Policy("orders", hedge=Hedge(after=1))).ask()
    assert response.text == "c"


def test_what_is_left_of_a_deadline_bounds_the_sockets(kind: Kind) -> None:
    servers = Servers()
    story = Story(kind, servers)
    with virtual_time(), deadline(3):
        transport = HttpxPoolTransport(story.pool, servers)
        with httpx.Client(transport=transport, base_url="http://shop", timeout=30) as client:
            client.get("/")
    assert servers.seen[0].extensions["timeout"]["read"] <= 3


def test_a_wrong_answer_is_not_returned_and_ejects(kind: Kind) -> None:
    servers = Servers(
        a=lambda _: httpx.Response(200, json={"left": -5}),
        b=lambda _: httpx.Response(200, json={"left": 5}),
        c=lambda _: httpx.Response(200, stream=Stream(b'{"left":', b"5}")),
    )
    story = Story(kind, servers, valid=lambda response: response.json()["left"] >= 0)
    answers = story.ask(*[("GET", "/")] * 12)
    assert {answer.json()["left"] for answer in answers} == {5}
    assert servers.hosts.count("a") == 1
    assert story.state["instances"][0]["why"] == "lies"


def test_a_wrong_answer_to_a_post_is_an_error(kind: Kind) -> None:
    story = Story(kind, Servers(a=200), valid=lambda response: response.text != "a")
    (error,) = story.ask(("POST", "/"))
    assert isinstance(error, httpx.RemoteProtocolError)
    assert "http://a:80 gave a wrong answer" in str(error)


def test_an_answer_too_long_to_be_judged_is_not_believed(kind: Kind) -> None:
    streams = [Stream(b"x" * 60, b"x" * 60) for _ in range(3)]
    servers = Servers(a=lambda _: httpx.Response(200, stream=streams[0]))
    story = Story(kind, servers, valid=lambda _: True, settings={"read_max": 100})
    (error,) = story.ask()
    assert isinstance(error, httpx.DecodingError)
    assert streams[0].closed


def test_an_instance_is_busy_until_a_streamed_body_is_closed(kind: Kind) -> None:
    body = Stream(b"a", b"b")
    servers = Servers(a=lambda _: httpx.Response(200, stream=body))
    story = Story(kind, servers)

    states: list[Any] = []

    def check(before: int, state: dict[str, Any]) -> None:
        assert state["in_flight"] == before

    def blocking() -> None:
        transport = HttpxPoolTransport(story.pool, servers)
        with httpx.Client(transport=transport, base_url="http://shop") as client:
            with client.stream("GET", "/") as response:
                check(1, story.pool.snapshot())
                current_world().clock.pause(7)
                assert list(response.iter_bytes()) == [b"a", b"b"]
            check(0, story.pool.snapshot())
            states.append(story.pool.snapshot())

    async def aio() -> None:
        transport = AsyncHttpxPoolTransport(story.pool, servers)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            async with client.stream("GET", "/") as response:
                check(1, story.pool.snapshot())
                await asyncio.sleep(7)
                assert [chunk async for chunk in response.aiter_bytes()] == [b"a", b"b"]
            check(0, story.pool.snapshot())
            states.append(story.pool.snapshot())

    if kind == "async":
        sim.run(aio)
    else:
        with virtual_time():
            blocking()
    (a, *_) = states[0]["instances"]
    assert (a["good"], a["latency"] < 1) == (1, True)  # the reader's own time is not latency


def test_a_body_that_breaks_off_is_a_failure_of_the_instance(kind: Kind) -> None:
    error = httpx.RemoteProtocolError("broke off")
    servers = Servers(a=lambda _: httpx.Response(200, stream=Stream(b"a", error=error)))
    story = Story(kind, servers)
    (ended,) = story.ask()
    assert ended is error
    (a, *_) = story.state["instances"]
    assert (a["bad"], a["good"], a["in_flight"]) == (1, 0, 0)


def test_other_hosts_are_left_alone_and_redirects_to_an_instance_go_to_the_pool(
    kind: Kind,
) -> None:
    servers = Servers(a=lambda _: httpx.Response(302, headers={"Location": "http://c/y"}))
    story = Story(kind, servers)
    elsewhere, redirected = story.ask(
        ("GET", "http://other/z"), ("GET", "/x"), follow_redirects=True
    )
    assert (elsewhere.text, redirected.status_code) == ("other", 200)
    assert [str(one.url) for one in servers.seen] == [
        "http://other/z", "http://a/x", "http://b:8080/api/y",
    ]  # fmt: skip


def test_a_limit_that_is_changed_live_counts(kind: Kind) -> None:
    policy = Policy("orders", timeout=5)
    story = Story(kind, Servers(), policy=policy)
    story.ask(("GET", "/"), then=lambda: policy.configure(timeout=9))
    story.ask(("GET", "/"))
    assert policy.snapshot()["calls"]["succeeded"] == 1  # worlds begin anew


def test_what_is_no_pool_is_refused(kind: Kind) -> None:
    made: Any = HttpxPoolTransport if kind == "blocking" else AsyncHttpxPoolTransport
    with pytest.raises(ConfigError, match="a Pool would be right"):
        made("shop")
    with pytest.raises(ConfigError, match="replay_max"):
        made(Pool("shop", URLS, eject=Outlier(lies=0)), replay_max=-1)
