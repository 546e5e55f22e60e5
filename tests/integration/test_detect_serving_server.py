"""The health server on real sockets: it answers while the application cannot, and stays free."""

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from outlast.cli import main
from outlast.detect import Health, HealthServer, Status, probe_health


@pytest.fixture
def health() -> Health:
    health = Health()
    health.report("db", Status.OK)
    return health


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    with HealthServer(health, ":0", connections=4, header_bytes=1024, idle=0.5) as server:
        yield server


def get(server: HealthServer, path: str, **headers: str) -> tuple[int, str]:
    one = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    with closing(one):
        one.request("GET", path, headers=headers)
        answer = one.getresponse()
        return answer.status, answer.read().decode()


def test_it_answers_from_a_thread_of_its_own(health: Health, server: HealthServer) -> None:
    assert get(server, "/readyz") == (200, "ok\n")
    health.report("db", Status.FAILED, "refused")
    assert get(server, "/readyz") == (503, "failed\n[-]db failed: refused\n")
    assert server.url == f"http://127.0.0.1:{server.port}"
    assert "serving" in repr(server)
    assert server.start() is server


def test_health_serves_itself_in_a_block_of_either_kind(health: Health) -> None:
    with health.serve(":0") as server:
        assert get(server, "/readyz")[0] == 200

    async def main() -> None:
        async with health.serve(":0") as other:
            assert (await asyncio.to_thread(get, other, "/readyz"))[0] == 200

    asyncio.run(main())


def test_headers_say_nothing_about_the_server(server: HealthServer) -> None:
    one = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    with closing(one):
        one.request("GET", "/livez", headers={"Accept": "application/health+json"})
        answer = one.getresponse()
        assert answer.headers["content-type"] == "application/health+json"
        assert answer.headers["server"] is None
        assert json.loads(answer.read())["status"] == "pass"


def test_probes_start_no_threads(server: HealthServer) -> None:
    get(server, "/readyz")
    before = threading.active_count()
    for _ in range(50):
        get(server, "/readyz?verbose")
    assert threading.active_count() == before


def test_it_stops_and_gives_its_port_back(health: Health) -> None:
    first = HealthServer(health, ":0").start()
    port = first.port
    first.stop()
    first.stop()
    assert not first.serving
    with HealthServer(health, f"127.0.0.1:{port}") as again:
        assert again.port == port


def test_an_address_in_use_is_told_where_it_is_started(
    health: Health, server: HealthServer
) -> None:
    with pytest.raises(OSError, match="in use"):
        HealthServer(health, f":{server.port}").start()


def test_a_blocked_loop_is_answered_for_and_its_results_grow_old() -> None:
    seen: list[tuple[int, str]] = []

    async def app() -> None:
        health = Health()
        progress = health.progress("loop", within=0.4)

        @health.check("db", every=0.05, timeout=0.1)
        async def db() -> None:
            progress.stamp()

        with HealthServer(health, ":0") as server:

            def watch() -> None:
                time.sleep(0.7)
                seen.append(get(server, "/readyz"))
                seen.append(get(server, "/livez"))

            async with health:
                await asyncio.sleep(0.2)
                assert get_blocking(server, "/readyz") == 200
                watcher = threading.Thread(target=watch)
                watcher.start()
                time.sleep(1.0)  # noqa: ASYNC251 - the loop is blocked: that is the subject
                watcher.join()
                await asyncio.sleep(0.3)
                assert get_blocking(server, "/readyz") == 200

    def get_blocking(server: HealthServer, path: str) -> int:
        return get(server, path)[0]

    asyncio.run(app())
    (ready, why), (live, stuck) = seen
    assert ready == 503
    assert "[?]db unknown" in why
    assert live == 503
    assert "[-]loop failed: no progress" in stuck


def test_connections_that_ask_nothing_are_closed_for_the_next_probe(server: HealthServer) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.socket()) for _ in range(20)]
        for one in idle:
            one.connect(("127.0.0.1", server.port))
            one.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n")
        assert get(server, "/readyz")[0] == 200
        for one in idle:
            one.settimeout(5)
            with suppress(ConnectionResetError):
                assert one.recv(100) == b""


def test_a_connection_that_trickles_does_not_stay(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as one:
        begun = time.monotonic()

        def trickle() -> None:
            for _ in range(100):
                one.send(b"X")
                time.sleep(0.05)

        with pytest.raises(ConnectionError):
            trickle()
        assert time.monotonic() - begun < 3


def test_a_connection_that_goes_on_asking_is_kept(server: HealthServer) -> None:
    one = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    with closing(one):
        for _ in range(5):
            one.request("GET", "/livez")
            assert one.getresponse().read() == b"ok\n"
            kept = one.sock
            time.sleep(0.15)
        assert one.sock is kept


def test_headers_without_end_are_refused(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as one:
        one.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 3000)
        assert one.recv(100).startswith(b"HTTP/1.1 431")


def test_pipelined_requests_are_answered_in_order_and_not_without_end(
    server: HealthServer,
) -> None:
    one = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        connection.sendall(one % b"livez" + one % b"other" + one % b"readyz")
        got = b""
        while got.count(b"HTTP/1.1") < 3 or not got.endswith(b"ok\n"):
            got += connection.recv(65536)
        assert [part[:3] for part in got.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]
        connection.sendall(one % b"livez" * 500)
        with suppress(ConnectionResetError):
            while got := connection.recv(65536):
                pass
    assert get(server, "/livez")[0] == 200


def test_a_request_with_a_body_is_answered_and_closed(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as one:
        one.sendall(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nGET /livez")
        answer = b""
        while piece := one.recv(65536):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 405")
        assert answer.count(b"HTTP/1.1") == 1


def test_a_body_without_end_is_not_read_for_ever(server: HealthServer) -> None:
    def pour() -> None:
        for _ in range(10_000):
            one.sendall(bytes(65536))

    with socket.create_connection(("127.0.0.1", server.port), 5) as one:
        one.sendall(b"POST /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            pour()


@pytest.mark.parametrize(
    "junk",
    [b"\x16\x03\x01" + bytes(200), b"GET\r\n\r\n", b"\r\n" * 9],
    ids=["tls", "half", "empty"],
)
def test_garbage_does_not_stop_it(junk: bytes, server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as one:
        one.sendall(junk)
        one.settimeout(5)
        with suppress(ConnectionResetError):
            one.recv(100)
    assert get(server, "/livez")[0] == 200


def test_ipv6_is_served_where_there_is_any(health: Health) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with HealthServer(health, "[::1]:0") as server:
        assert probe_health(f"{server.url}/readyz").passing


def test_the_probe_asks_it(health: Health, server: HealthServer) -> None:
    found = probe_health(f"{server.url}/readyz")
    assert (found.passing, found.status) == (True, "ok")
    assert found.checks[0]["name"] == "db"
    assert main(["health", f"{server.url}/readyz"]) == 0
    health.drain("SIGTERM")
    assert main(["health", f"{server.url}/readyz"]) == 1
    assert main(["health", f"{server.url}/livez", "--json"]) == 0


def test_the_probe_gives_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/readyz"
        begun = time.monotonic()
        found = probe_health(url, within=0.2)
        assert found.passing is None
        assert "no answer within 0.2 s" in found.status
        assert time.monotonic() - begun < 2
        assert main(["health", url, "--within", "0.1"]) == 2
    assert "refused" in probe_health(url).status


def test_the_probe_gives_up_on_an_answer_that_trickles() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def trickle() -> None:
            one, _ = listening.accept()
            with one:
                try:
                    for _ in range(200):
                        one.send(b"H")
                        time.sleep(0.02)
                except OSError:
                    pass

        thread = threading.Thread(target=trickle)
        thread.start()
        port = listening.getsockname()[1]
        begun = time.monotonic()
        assert probe_health(f"http://127.0.0.1:{port}/", within=0.3).passing is None
        assert time.monotonic() - begun < 2
        thread.join()
