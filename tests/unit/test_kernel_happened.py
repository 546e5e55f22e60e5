"""What foreign errors say of whether the operation may have had an effect."""

import asyncio
import contextlib
import http.client
import pickle
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from types import TracebackType
from typing import Any

import aiohttp
import httpcore
import httpx
import pytest
import redis
import redis.asyncio
import requests
import urllib3
from redis.backoff import NoBackoff
from redis.retry import Retry as RedisRetry
from requests.adapters import HTTPAdapter
from requests.auth import HTTPDigestAuth

from outlast.kernel import CircuitOpenError, CommandError, DeadlineError, happened

Reply = bytes | None
"""What a server says to one request; ``None``: it closes the connection without a word."""


class Server:
    """Answers one request per connection, each with the next reply, and is gone after the last.

    What comes after that finds the port closed.
    """

    def __init__(self, *replies: Reply) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(5)
        self._replies = replies
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Server":
        if not self._replies:
            self._listening.close()
        else:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        if self._replies:
            self._thread.join(5)

    def _serve(self) -> None:
        for number, reply in enumerate(self._replies, 1):
            with contextlib.suppress(OSError):
                connection, _ = self._listening.accept()
                with connection:
                    connection.settimeout(5)
                    self.answer(connection, reply, number == len(self._replies))

    def answer(self, connection: socket.socket, reply: Reply, last: bool) -> None:
        self.requests.append(connection.recv(65_536))
        if last:
            self._listening.close()
        if reply is not None:
            connection.sendall(reply)


class RedisServer(Server):
    """The same for Redis: what a client says of itself is agreed to, other commands count."""

    def answer(self, connection: socket.socket, reply: Reply, last: bool) -> None:
        while True:
            data = connection.recv(65_536)
            if not data:
                return
            if b"SETINFO" in data or b"HELLO" in data:
                connection.sendall(b"+OK\r\n" * data.count(b"*"))
                continue
            self.requests.append(data)
            if last:
                self._listening.close()
            if reply is None:
                return
            connection.sendall(reply)


def http_reply(status: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


CLOSED = "http://127.0.0.1:1/"
TO_NOBODY = http_reply("303 See Other", f"Location: {CLOSED}")


def raised(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


async def raised_in(call: Awaitable[object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        await call
    return caught.value


@contextlib.contextmanager
def session(retries: Any = None) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        if retries is not None:
            made.mount("http://", HTTPAdapter(max_retries=retries))
        yield made


# --- by themselves ------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [httpx, httpcore])
def test_what_http_clients_raise_before_they_send_is_definite(library: object) -> None:
    names = ["ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"]
    for name in names:
        assert happened(getattr(library, name)("x")) == "no", name
    for name in ["ReadError", "ReadTimeout", "WriteError", "WriteTimeout", "RemoteProtocolError"]:
        assert happened(getattr(library, name)("x")) == "maybe", name
    assert happened(httpx.InvalidURL("x")) == "no"
    assert happened(httpx.LocalProtocolError("x")) == "maybe"


def test_a_refused_connection_and_an_unknown_name_are_definite() -> None:
    assert happened(ConnectionRefusedError()) == "no"
    assert happened(socket.gaierror(-2, "Name or service not known")) == "no"
    assert happened(ssl.SSLCertVerificationError("x")) == "no"
    assert happened(http.client.InvalidURL("x")) == "no"
    for error in (ConnectionResetError(), BrokenPipeError(), TimeoutError(), OSError("x")):
        assert happened(error) == "maybe"
    for error in (ssl.SSLError("x"), http.client.BadStatusLine("x"), socket.herror("x")):
        assert happened(error) == "maybe"


def test_errors_that_answer_for_themselves_are_believed() -> None:
    assert happened(CommandError("x")) == "yes"
    error = ConnectionRefusedError()
    error.happened = "maybe"  # type: ignore[attr-defined]
    assert happened(error) == "maybe"


def test_a_class_of_the_same_name_from_elsewhere_is_not_believed() -> None:
    class ConnectError(Exception):
        """Ours by name only."""

    assert happened(ConnectError()) == "maybe"

    class OwnError(httpx.ConnectError):
        """Derived from one that is known."""

    assert happened(OwnError("x")) == "no"


def test_a_group_is_definite_if_all_in_it_are() -> None:
    refused = ConnectionRefusedError()
    assert happened(ExceptionGroup("x", [refused, httpx.ConnectError("x")])) == "no"
    assert happened(ExceptionGroup("x", [refused, TimeoutError()])) == "maybe"
    assert happened(ExceptionGroup("x", [CircuitOpenError("x"), refused])) == "no"
    assert happened(ExceptionGroup("x", [refused, DeadlineError("x")])) == "maybe"
    assert happened(BaseExceptionGroup("x", [refused, KeyboardInterrupt()])) == "maybe"


def test_a_group_with_an_answer_has_happened_unless_something_in_it_is_in_doubt() -> None:
    answer, inner = CommandError("no"), ExceptionGroup("y", [ConnectionRefusedError()])
    assert happened(ExceptionGroup("x", [inner, answer])) == "yes"
    assert happened(ExceptionGroup("x", [answer, TimeoutError()])) == "maybe"
    assert happened(ExceptionGroup("x", [inner, ExceptionGroup("y", [TimeoutError()])])) == "maybe"


@pytest.mark.parametrize("said", [[], 1, "perhaps"])
def test_an_attribute_of_that_name_that_means_something_else_is_not_asked(said: object) -> None:
    error = KeyError()
    error.happened = said  # type: ignore[attr-defined]
    assert happened(error) == "maybe"


def test_an_error_that_raises_when_it_is_asked_is_in_doubt() -> None:
    class Odd(Exception):
        @property
        def happened(self) -> str:
            raise LookupError

    assert happened(Odd()) == "maybe"


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, "no"), (405, "no"), (412, "no"), (421, "no"), (429, "no"),
        (200, "maybe"), (400, "maybe"), (403, "maybe"), (404, "maybe"), (408, "maybe"),
        (409, "maybe"), (422, "maybe"), (500, "maybe"), (502, "maybe"), (503, "maybe"),
    ],
)  # fmt: skip
def test_a_status_that_means_refused_is_definite_and_no_other(status: int, answer: str) -> None:
    request = httpx.Request("PUT", "http://a")
    response = httpx.Response(status, request=request, headers={"Retry-After": "1"})
    assert happened(httpx.HTTPStatusError("x", request=request, response=response)) == answer
    other = requests.Response()
    other.status_code = status
    assert happened(requests.HTTPError("x", response=other)) == answer
    third = aiohttp.ClientResponseError(None, (), status=status)  # type: ignore[arg-type]
    assert happened(third) == answer
    fourth = urllib.error.HTTPError("http://a", status, "x", None, None)  # type: ignore[arg-type]
    assert happened(fourth) == answer
    fourth.close()


def test_a_refusal_after_a_redirect_or_a_first_answer_is_not_definite() -> None:
    request = httpx.Request("GET", "http://a")
    response = httpx.Response(401, request=request, history=[httpx.Response(303)])
    assert happened(httpx.HTTPStatusError("x", request=request, response=response)) == "maybe"
    other = requests.Response()
    other.status_code, other.history = 429, [requests.Response()]
    assert happened(requests.HTTPError("x", response=other)) == "maybe"
    assert happened(requests.HTTPError("x")) == "maybe"


# --- httpx --------------------------------------------------------------------------------------


def httpx_story(*answers: httpx.Response | Exception) -> BaseException:
    told = iter(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        answer = next(told)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with httpx.Client(transport=httpx.MockTransport(handle), follow_redirects=True) as client:
        return raised(lambda: client.post("http://a").raise_for_status())


def test_httpx_that_could_not_connect_after_a_redirect_is_not_definite() -> None:
    away = httpx.Response(303, headers={"Location": "http://b"})
    assert happened(httpx_story(httpx.ConnectError("x"))) == "no"
    assert happened(httpx_story(away, httpx.ConnectError("x"))) == "maybe"
    assert happened(httpx_story(httpx.Response(429))) == "no"
    assert happened(httpx_story(away, httpx.Response(429))) == "maybe"


def test_httpx_finds_a_closed_port() -> None:
    assert happened(raised(lambda: httpx.post(CLOSED, trust_env=False))) == "no"


# --- requests, urllib3 --------------------------------------------------------------------------


def test_requests_that_cannot_connect_has_sent_nothing() -> None:
    with session() as client:
        error = raised(lambda: client.post(CLOSED))
    assert isinstance(error, requests.ConnectionError)
    assert happened(error) == "no"


def test_requests_that_repeats_what_it_could_not_send_has_sent_nothing() -> None:
    with session(urllib3.Retry(3, backoff_factor=0)) as client:
        assert happened(raised(lambda: client.put(CLOSED))) == "no"


def test_requests_whose_repeat_cannot_connect_may_have_sent_the_first() -> None:
    with Server(None) as server, session(urllib3.Retry(3, backoff_factor=0)) as client:
        error = raised(lambda: client.put(server.url))
        assert "refused" in str(error)
        assert len(server.requests) == 1
    assert happened(error) == "maybe"


def test_requests_that_was_redirected_to_a_closed_port_may_have_had_an_effect() -> None:
    with Server(TO_NOBODY) as server, session() as client:
        error = raised(lambda: client.post(server.url))
    assert isinstance(error, requests.ConnectionError)
    assert happened(error) == "maybe"


def test_requests_that_was_asked_for_a_digest_has_sent_something() -> None:
    ask = http_reply("401 X", 'WWW-Authenticate: Digest realm="a", nonce="b", qop="auth"')
    with Server(ask) as server, session() as client:
        error = raised(lambda: client.post(server.url, auth=HTTPDigestAuth("a", "b")))
    assert isinstance(error, requests.ConnectionError)
    assert happened(error) == "maybe"


def test_requests_that_lost_the_answer_is_not_definite() -> None:
    with Server(None) as server, session() as client:
        assert happened(raised(lambda: client.post(server.url))) == "maybe"


def test_requests_that_lost_its_traceback_is_not_definite_where_it_may_repeat() -> None:
    with session() as client:
        error = raised(lambda: client.post(CLOSED))
    inner = error.args[0]
    assert happened(inner) == "no"
    inner.__traceback__ = None
    assert happened(error) == "maybe"


def test_requests_that_refuses_arguments_has_sent_nothing() -> None:
    with session() as client:
        for url in ("http://", "no scheme", "ftp://a/"):
            assert happened(raised(lambda url=url: client.get(url))) == "no", url  # type: ignore[misc]
        assert happened(raised(lambda: client.get(CLOSED, headers={"a": "b\nc"}))) == "no"
    for error in (requests.ConnectTimeout(), requests.exceptions.InvalidSchema()):
        assert happened(error) == "no"
    for error in (requests.ReadTimeout(), requests.TooManyRedirects(), requests.ConnectionError()):
        assert happened(error) == "maybe"


def test_urllib3_tells_by_its_reason_and_its_history() -> None:
    with urllib3.PoolManager() as pool:
        error = raised(lambda: pool.request("PUT", CLOSED, retries=urllib3.Retry(2)))
        assert isinstance(error, urllib3.exceptions.MaxRetryError)
        assert happened(error) == "no"
        assert happened(raised(lambda: pool.request("PUT", CLOSED, retries=False))) == "no"
        with Server(None) as server:
            assert happened(raised(lambda: pool.request("PUT", server.url, retries=1))) == "maybe"
        with Server(TO_NOBODY) as server:
            assert happened(raised(lambda: pool.request("POST", server.url))) == "maybe"
        with Server(http_reply("503 X"), http_reply("503 X")) as server:
            again = urllib3.Retry(1, status_forcelist=[503], backoff_factor=0)
            error = raised(lambda: pool.request("GET", server.url, retries=again))
            assert happened(error) == "maybe"


def test_urllib3_errors_tell_by_what_is_in_them() -> None:
    pool = urllib3.HTTPConnectionPool("a")
    e = urllib3.exceptions
    connect = e.NewConnectionError(pool, "x")  # type: ignore[arg-type]
    verify = ssl.SSLCertVerificationError("x")
    definite = [
        connect, e.ConnectTimeoutError("x"), e.EmptyPoolError(pool, "x"),
        e.LocationParseError("x"), e.ProxyError("x", connect),
        e.SSLError(verify), e.URLSchemeUnknown("x"),
    ]  # fmt: skip
    for error in definite:
        assert happened(error) == "no", error
    unsure = [
        e.ProtocolError("x", ConnectionResetError()), e.ReadTimeoutError(pool, "/", "x"),
        e.ProxyError("x", OSError("Tunnel connection failed")), e.SSLError("x"), e.SSLError(),
        e.MaxRetryError(pool, "/", connect), e.MaxRetryError(pool, "/"),
    ]  # fmt: skip
    for error in unsure:
        assert happened(error) == "maybe", error


# --- aiohttp ------------------------------------------------------------------------------------


async def aiohttp_error(method: str, url: str, **settings: Any) -> BaseException:
    async with aiohttp.ClientSession(trust_env=False) as client:
        return await raised_in(client.request(method, url, **settings))


def test_aiohttp_that_cannot_connect_has_sent_nothing() -> None:
    for method in ("PUT", "POST"):
        assert happened(asyncio.run(aiohttp_error(method, CLOSED))) == "no"
    assert happened(asyncio.run(aiohttp_error("GET", "http://"))) == "no"
    assert happened(asyncio.run(aiohttp_error("GET", "ftp://a"))) == "no"


def test_aiohttp_that_was_redirected_may_have_had_an_effect() -> None:
    with Server(TO_NOBODY) as server:
        error = asyncio.run(aiohttp_error("POST", server.url))
        assert isinstance(error, aiohttp.ClientConnectorError)
        assert happened(error) == "maybe"
    with Server(http_reply("307 X", f"Location: {CLOSED}")) as server:  # stays a POST
        error = asyncio.run(aiohttp_error("POST", server.url))
        assert isinstance(error, aiohttp.ClientConnectorError)
        assert happened(error) == "maybe"
    with Server(http_reply("303 X", "Location: http://")) as server:
        error = asyncio.run(aiohttp_error("POST", server.url))
        assert isinstance(error, aiohttp.InvalidUrlRedirectClientError)
        assert happened(error) == "maybe"


def test_aiohttp_whose_repeat_cannot_connect_may_have_sent_the_first() -> None:
    with Server(None) as server:
        error = asyncio.run(aiohttp_error("PUT", server.url))
        assert isinstance(error, aiohttp.ClientConnectorError)
    assert happened(error) == "maybe"


def test_aiohttp_errors_tell_by_their_class() -> None:
    assert happened(aiohttp.ConnectionTimeoutError("x")) == "no"
    assert happened(aiohttp.ClientHttpProxyError(None, (), status=502)) == "no"  # type: ignore[arg-type]
    for error in (aiohttp.ServerDisconnectedError(), aiohttp.SocketTimeoutError("x")):
        assert happened(error) == "maybe"


# --- redis --------------------------------------------------------------------------------------


def redis_client(port: int, retries: int = 1) -> redis.Redis:
    again = RedisRetry(NoBackoff(), retries)
    return redis.Redis(port=port, protocol=2, retry=again, socket_timeout=5)


def redis_error(*replies: Reply, retries: int = 1) -> BaseException:
    with RedisServer(*replies) as server, redis_client(server.port, retries) as client:
        return raised(lambda: client.set("a", "b"))


READONLY = b"-READONLY You can't write against a read only replica.\r\n"


def test_redis_that_could_not_get_a_connection_has_sent_nothing() -> None:
    error = redis_error()
    assert isinstance(error, redis.ConnectionError)
    assert happened(error) == "no"


def test_redis_whose_repeat_cannot_connect_may_have_sent_the_first() -> None:
    error = redis_error(None)
    assert isinstance(error, redis.ConnectionError)
    assert "connecting to" in str(error)
    assert happened(error) == "maybe"
    assert happened(redis_error(None, retries=0)) == "maybe"


def test_redis_that_refused_the_first_attempt_has_done_nothing() -> None:
    error = redis_error(READONLY)
    assert isinstance(error, redis.ReadOnlyError)
    assert happened(error) == "no"
    assert happened(redis_error(b"-OOM command not allowed\r\n")) == "no"
    assert happened(redis_error(b"-LOADING Redis is loading\r\n", retries=0)) == "no"


def test_redis_that_refused_a_repeat_may_have_done_the_first() -> None:
    error = redis_error(None, READONLY)
    assert isinstance(error, redis.ReadOnlyError)
    assert happened(error) == "maybe"


def test_redis_that_answered_with_any_other_error_is_not_definite() -> None:
    assert happened(redis_error(b"-WRONGTYPE Operation\r\n")) == "maybe"


def test_redis_that_refused_one_command_of_a_pipeline_may_have_done_the_others() -> None:
    with RedisServer(b"+OK\r\n" + READONLY) as server, redis_client(server.port) as client:
        pipe = client.pipeline(transaction=False).set("a", "b").set("c", "d")
        error = raised(pipe.execute)
    assert isinstance(error, redis.ReadOnlyError)
    assert happened(error) == "maybe"


def test_redis_without_its_traceback_is_not_definite() -> None:
    error = redis_error(READONLY)
    assert happened(pickle.loads(pickle.dumps(error))) == "maybe"
    assert happened(redis.ReadOnlyError("x")) == "maybe"
    assert happened(redis.ConnectionError("Error 111 connecting to a:1.")) == "maybe"
    assert happened(redis.DataError("x")) == "no"


def test_redis_in_coroutines_tells_the_same() -> None:
    async def error(port: int) -> BaseException:
        again = redis.asyncio.retry.Retry(NoBackoff(), 1)
        client = redis.asyncio.Redis(port=port, protocol=2, retry=again, socket_timeout=5)
        async with client:
            return await raised_in(client.set("a", "b"))

    def told(*replies: Reply) -> str:
        with RedisServer(*replies) as server:
            return happened(asyncio.run(error(server.port)))

    assert [told(), told(None), told(READONLY), told(None, READONLY)] == [
        "no", "maybe", "no", "maybe",
    ]  # fmt: skip


def test_redis_clusters_repeat_on_other_nodes_and_are_never_definite() -> None:
    space: dict[str, Any] = {"__name__": "redis.cluster", "error": redis.DataError("x")}
    exec("def execute_command():\n    raise error", space)  # noqa: S102
    assert happened(raised(space["execute_command"])) == "maybe"


# --- gRPC ---------------------------------------------------------------------------------------


class Code(Enum):
    """As ``grpc.StatusCode``."""

    UNAVAILABLE = (14, "unavailable")
    UNIMPLEMENTED = (12, "unimplemented")
    UNAUTHENTICATED = (16, "unauthenticated")
    INVALID_ARGUMENT = (3, "invalid argument")
    RESOURCE_EXHAUSTED = (8, "resource exhausted")
    DEADLINE_EXCEEDED = (4, "deadline exceeded")


def grpc_error(code: object, name: str = "_InactiveRpcError") -> Exception:
    kind = type(name, (Exception,), {"__module__": "grpc._channel", "code": lambda _: code})
    made: Exception = kind("x")
    return made


def test_grpc_tells_by_what_its_framework_refuses() -> None:
    for code in Code:
        refused = code in {Code.UNIMPLEMENTED, Code.UNAUTHENTICATED}
        assert happened(grpc_error(code)) == ("no" if refused else "maybe"), code
    assert happened(grpc_error(None)) == "maybe"
    assert happened(grpc_error(Code.UNAUTHENTICATED, "_MultiThreadedRendezvous")) == "maybe"


def test_an_error_that_fails_when_looked_at_is_not_definite() -> None:
    error: Any = grpc_error(Code.UNIMPLEMENTED)

    def fail() -> object:
        raise RuntimeError("no code yet")

    error.code = fail
    assert happened(error) == "maybe"


# --- urllib -------------------------------------------------------------------------------------


def test_urllib_tells_by_its_reason_and_whether_it_was_redirected() -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert happened(raised(lambda: opener.open(CLOSED))) == "no"
    with Server(TO_NOBODY) as server:
        error = raised(lambda: opener.open(server.url, data=b"x"))
        assert isinstance(error, urllib.error.URLError)
        assert happened(error) == "maybe"
    assert happened(urllib.error.URLError(ConnectionResetError())) == "maybe"
    assert happened(urllib.error.URLError("x")) == "maybe"
