"""What real clients raise: whether it happened, what kind it is, when to come again.

Each is let fail in the same ways on loopback.
"""

import asyncio
import socket
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import aiohttp
import grpc
import httpx
import pytest
import redis
import requests
import sqlalchemy
import urllib3
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.pool import QueuePool

from outlast.kernel import happened
from outlast.protect.core.classify import classify, retry_after

pytestmark = pytest.mark.timeout(120)

Fault = Literal["refused", "unknown name", "reset", "broken off", "silent", "429", "503"]
FAULTS: tuple[Fault, ...] = (
    "refused", "unknown name", "reset", "broken off", "silent", "429", "503",
)  # fmt: skip
LINGER = struct.pack("ii", 1, 0)


def response(status: str) -> bytes:
    head = [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close", "Retry-After: 7"]
    return "\r\n".join([*head, "", ""]).encode()


ANSWERS = {
    "broken off": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "429": response("429 Too Many Requests"),
    "503": response("503 Service Unavailable"),
}


@contextmanager
def failing(fault: Fault) -> Iterator[str]:
    """Yield ``host:port`` of a server that fails so, each time."""
    if fault == "refused":
        yield "127.0.0.1:1"
        return
    if fault == "unknown name":
        yield "no.such.host.invalid:80"
        return
    ended = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # the client may have gone
                connection.recv(65_536)
                if fault == "silent":
                    ended.wait(60)
                elif fault == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
                else:
                    connection.sendall(ANSWERS[fault])

    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        ended.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(60)


def by_requests(url: str, wait: float) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.get(url, timeout=(60, wait)).raise_for_status()


def by_urllib3(url: str, wait: float) -> None:
    timeout = urllib3.Timeout(connect=60, read=wait)
    with urllib3.PoolManager(retries=False, timeout=timeout) as pool:
        pool.request("GET", url)


def by_httpx(url: str, wait: float) -> None:
    httpx.get(url, timeout=httpx.Timeout(60, read=wait), trust_env=False).raise_for_status()


def by_aiohttp(url: str, wait: float) -> None:
    async def ask() -> None:
        timeout = aiohttp.ClientTimeout(total=wait)
        session = aiohttp.ClientSession(timeout=timeout, raise_for_status=True)
        async with session, session.get(url) as answer:
            await answer.read()

    asyncio.run(ask())


def raised(call: Callable[..., Any], *args: Any) -> Exception:
    with pytest.raises(Exception) as caught:
        call(*args)
    return caught.value


SAID = {
    "refused": ("no", "unreachable", None),
    "unknown name": ("no", "unreachable", None),
    "reset": ("maybe", "transient", None),
    "broken off": ("maybe", "transient", None),
    "silent": ("maybe", "transient", None),
    "429": ("no", "throttled", 7.0),
    "503": ("maybe", "throttled", 7.0),
}


def judged(error: BaseException) -> tuple[str, str, float | None]:
    return happened(error), classify(error), retry_after(error, 0)


@pytest.mark.parametrize(
    ("client", "fault"),
    [(client, fault) for client in (by_requests, by_httpx, by_aiohttp) for fault in FAULTS]
    + [(by_urllib3, fault) for fault in FAULTS if not fault.isdigit()],  # it raises no status
)
def test_http_clients_tell_the_same(client: Callable[[str, float], None], fault: Fault) -> None:
    wait = 0.1 if fault == "silent" else 60
    with failing(fault) as host:
        assert judged(raised(client, f"http://{host}/", wait)) == SAID[fault]


# --- gRPC ----------------------------------------------------------------------------------------


def by_grpc(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        channel.unary_unary("/Rates/Get")(b"", timeout=60)


def by_grpc_aio(target: str) -> None:
    async def ask() -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            await channel.unary_unary("/Rates/Get")(b"", timeout=60)

    asyncio.run(ask())


@pytest.mark.parametrize("client", [by_grpc, by_grpc_aio])
@pytest.mark.parametrize("fault", ["refused", "unknown name", "reset"])
def test_grpc_that_finds_no_server_is_unreachable_but_not_definite(
    client: Callable[[str], None], fault: Fault
) -> None:
    with failing(fault) as target:
        assert judged(raised(client, target)) == ("maybe", "unreachable", None)


# --- Redis ---------------------------------------------------------------------------------------


def by_redis(host: str) -> None:
    name, _, port = host.rpartition(":")
    with redis.Redis(
        name, int(port), socket_timeout=0.1, socket_connect_timeout=0.1, protocol=2,
        retry=Retry(NoBackoff(), 0),
    ) as client:  # fmt: skip
        client.incr("count")


@pytest.mark.parametrize("fault", ["refused", "unknown name", "reset", "silent"])
def test_redis_that_gets_no_connection_has_sent_nothing(fault: Fault) -> None:
    with failing(fault) as host:
        assert judged(raised(by_redis, host)) == ("no", "unreachable", None)


@pytest.mark.parametrize("kind", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_redis_whose_pool_is_used_up_is_throttled(kind: Any) -> None:
    with failing("silent") as host:
        name, _, port = host.rpartition(":")
        wait = {"timeout": 0.01} if kind is redis.BlockingConnectionPool else {}
        pool = kind(host=name, port=int(port), max_connections=1, **wait)
        taken = pool.make_connection()
        if kind is redis.BlockingConnectionPool:
            pool.pool.get_nowait()
        else:
            pool._in_use_connections.add(taken)
        client = redis.Redis(connection_pool=pool)
        assert judged(raised(client.incr, "count")) == ("no", "throttled", None)


# --- databases -----------------------------------------------------------------------------------


@pytest.fixture
def engine() -> Iterator[sqlalchemy.Engine]:
    made = sqlalchemy.create_engine(
        "sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.01
    )
    yield made
    made.dispose()


def test_sqlalchemy_that_gets_no_connection_has_done_nothing(
    engine: sqlalchemy.Engine, tmp_path: Path
) -> None:
    with engine.connect():
        assert judged(raised(engine.connect)) == ("no", "throttled", None)
    nowhere = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/none/x.db")
    assert judged(raised(nowhere.connect)) == ("no", "unreachable", None)

    def refuse() -> sqlite3.Connection:
        raise sqlite3.OperationalError("connection refused")

    refused = sqlalchemy.create_engine("sqlite://", creator=refuse)
    assert judged(raised(refused.connect)) == ("no", "unreachable", None)


def test_sqlalchemy_tells_what_can_pass_from_what_cannot(
    engine: sqlalchemy.Engine, tmp_path: Path
) -> None:
    with engine.connect() as connection:

        def run(query: str) -> Any:
            return connection.execute(sqlalchemy.text(query))

        run("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        run("INSERT INTO t VALUES (1)")
        for query in ("INSERT INTO t VALUES (1)", "SELECT * FROM u", "SELEC", "SELECT :a"):
            assert judged(raised(run, query)) == ("maybe", "permanent", None), query
        assert classify(raised(run("SELECT 1 WHERE 0").one)) == "permanent"
    files = [
        sqlalchemy.create_engine(f"sqlite:///{tmp_path}/x.db", connect_args={"timeout": 0.01})
        for _ in range(2)
    ]
    with files[0].connect() as one, files[1].connect() as other:
        one.exec_driver_sql("CREATE TABLE t (id INTEGER)")
        one.exec_driver_sql("BEGIN IMMEDIATE")
        error = raised(other.exec_driver_sql, "INSERT INTO t VALUES (1)")
        assert judged(error) == ("maybe", "transient", None)
    for each in files:
        each.dispose()
