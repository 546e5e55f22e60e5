"""Checks ready-made against real servers and clients on loopback."""

import asyncio
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis as redis_client
import redis.asyncio as redis_asyncio
from sqlalchemy import create_engine

from outlast.detect import Health, Status, checks
from outlast.host import make_world

pytestmark = pytest.mark.timeout(300)
WAIT = 60.0
tcp, http = partial(checks.tcp, timeout=WAIT), partial(checks.http, timeout=WAIT)
OK, DEGRADED, UNKNOWN, FAILED = Status.OK, Status.DEGRADED, Status.UNKNOWN, Status.FAILED


@contextmanager
def serving(server: Any) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WAIT)


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        good = self.headers.get("Authorization") == "Basic dTpw"
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


class Pong(socketserver.StreamRequestHandler):
    """Answers every command of a Redis client; ``PING`` with PONG."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                self.rfile.readline()
                words.append(self.rfile.readline().strip().upper())
            answer = {b"PING": b"+PONG\r\n", b"HELLO": b"-ERR unknown command\r\n"}
            self.wfile.write(answer.get(words[0], b"+OK\r\n"))


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def page() -> Iterator[int]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Page)) as port:
        yield port


@contextmanager
def closed_port() -> Iterator[int]:
    """A port on which nothing listens, and that nobody else can take meanwhile."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield int(one.getsockname()[1])


def found(check: Any) -> tuple[Status, str]:
    async def main() -> tuple[Status, str]:
        health = Health(make_world(seed=1))
        health.add("x", check, timeout=WAIT)
        await health.refresh()
        (result,) = health.read("readiness").results
        return result.status, result.detail

    return asyncio.run(main())


def test_tcp(page: int) -> None:
    assert found(tcp(f"127.0.0.1:{page}")) == (OK, f"127.0.0.1:{page}")
    with closed_port() as port:
        assert found(tcp(f"127.0.0.1:{port}")) == (
            FAILED, f"127.0.0.1:{port}: refused, nothing listens there",
        )  # fmt: skip


def test_http(page: int) -> None:
    told = f"http://127.0.0.1:{page}/"
    assert found(http(told)) == (FAILED, f"{told}: answered 401, not 200")
    assert found(http(f"http://u:p@127.0.0.1:{page}/")) == (OK, f"{told}: answered 200")
    assert found(http(told, expect=(200, 401)))[0] is OK
    with closed_port() as port:
        assert found(http(f"http://127.0.0.1:{port}"))[0] is FAILED


def test_http_of_what_is_not_http_or_silent() -> None:
    with serving(Server(("127.0.0.1", 0), Pong)) as port:
        status, told = found(http(f"http://127.0.0.1:{port}/"))
        assert (status, told.startswith(f"http://127.0.0.1:{port}/: ")) == (FAILED, True)
        status, told = found(http(f"https://127.0.0.1:{port}/"))
        assert (status, told.startswith(f"https://127.0.0.1:{port}/: ")) == (FAILED, True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        told = found(checks.http(f"http://127.0.0.1:{port}/", timeout=0.1))[1]
        assert told == f"http://127.0.0.1:{port}/: no answer within 0.1 s"
        context = ssl.create_default_context()
        slow = checks.http(f"https://127.0.0.1:{port}/", timeout=0.1, context=context)
        assert found(slow)[1].endswith("no answer within 0.1 s")


def test_http_with_httpx(page: int) -> None:
    url = f"http://127.0.0.1:{page}/"
    with httpx.Client(auth=("u", "p")) as client:
        assert found(http(url, client=client)) == (OK, f"{url}: answered 200")
        with closed_port() as port:
            gone = f"http://127.0.0.1:{port}/"
            assert found(http(gone, client=client)) == (FAILED, f"{gone}: ConnectError")

    async def main() -> None:
        async with httpx.AsyncClient(auth=("u", "p")) as client:
            health = Health(make_world(seed=1))
            health.add("x", http(url, client=client), timeout=WAIT)
            await health.refresh()
            assert health.read("readiness").passing

    asyncio.run(main())


def test_sql_with_an_engine(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    assert found(checks.sql(engine)) == (OK, f"sqlite {tmp_path}/shop.db")
    status, told = found(checks.sql(engine, "SELECT * FROM secret"))
    assert (status, told) == (FAILED, f"sqlite {tmp_path}/shop.db: OperationalError")
    engine.dispose()


def test_redis_with_both_clients() -> None:
    with serving(Server(("127.0.0.1", 0), Pong)) as port:
        with redis_client.Redis(
            port=port, protocol=2, password="secret", host="127.0.0.1"
        ) as client:
            assert found(checks.redis(client)) == (OK, f"redis 127.0.0.1:{port}/0")

        async def main() -> tuple[Status, str]:
            async with redis_asyncio.Redis(port=port, protocol=2, host="127.0.0.1") as client:
                health = Health(make_world(seed=1))
                health.add("x", checks.redis(client), timeout=WAIT)
                await health.refresh()
                (result,) = health.read("readiness").results
                return result.status, result.detail

        assert asyncio.run(main()) == (OK, f"redis 127.0.0.1:{port}/0")
    with (
        closed_port() as port,
        redis_client.Redis(port=port, host="127.0.0.1", password="secret") as gone,
    ):
        status, told = found(checks.redis(gone))
        assert status is FAILED
        assert told.endswith("/0: ConnectionError")


def test_the_machine_itself() -> None:
    assert found(checks.disk_space("/", min_free=1))[0] in {OK, DEGRADED}
    status, told = found(checks.memory(1.0, warn_share=1.0))
    assert status is OK
    assert told.startswith("memory: ")
