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

WAIT = 60
pytestmark = pytest.mark.timeout(300)


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
    one = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
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
    one = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    with closing(one):
        one.request("GET", "/livez", headers={"Accept": "application/health+json"})
        answer = one.getresponse()
        assert answer.headers["content-type"] == "application/health+json"
        assert answer.headers["server"] is None
        assert json.loads(answer.read())["status"] == "pass"


def test_probes_start_no_threads(server: HealthServer) -> None:
    get(server, "/readyz")
    before = set(threading.enumerate())
    for _ in range(50):
        get(server, "/readyz?verbose")
        assert set(threading.enumerate()) <= before


def test_it_stops_and_gives_its_port_back(health: Health) -> None:
    for left in range(5, 0, -1):
        first = HealthServer(health, ":0").start()
        port = first.port
        first.stop()
        first.stop()
        assert not first.serving
        try:
            with HealthServer(health, f"127.0.0.1:{port}") as again:
                assert again.port == port
        except OSError:  # somebody else on this machine may have taken it
            assert left > 1
        else:
            return


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
                for path in ("/readyz", "/livez"):
                    while (answer := get(server, path))[0] == 200:
                        time.sleep(0.02)
                    seen.append(answer)

            async def until_ready() -> None:
                while (await asyncio.to_thread(get, server, "/readyz"))[0] != 200:
                    pass

            async with health:
                await until_ready()
                watcher = threading.Thread(target=watch)
                watcher.start()
                watcher.join()  # the loop is blocked: that is the subject
                await until_ready()

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
            one.settimeout(WAIT)
            with suppress(ConnectionResetError):
                assert one.recv(100) == b""


def test_a_connection_that_trickles_does_not_stay(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as one:

        def trickle() -> None:
            for _ in range(200):
                one.send(b"X")
                time.sleep(0.05)

        with pytest.raises(ConnectionError):
            trickle()


def test_a_connection_that_goes_on_asking_is_kept(server: HealthServer) -> None:
    for _ in range(10):
        kept, silent = ask_again_and_again(server)
        if silent < 0.5:  # else it was idle for too long, as the machine is busy
            assert kept
            return
    pytest.fail("the machine is too busy to ask twice in half a second")


def ask_again_and_again(server: HealthServer) -> tuple[bool, float]:
    """Return whether one connection was enough for it, and the longest time without an answer."""
    last, silent = time.monotonic(), 0.0
    one = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    with closing(one):
        one.connect()
        first = one.sock
        for _ in range(5):
            time.sleep(0.15)
            try:
                one.request("GET", "/livez")
                assert one.getresponse().read() == b"ok\n"
            except ConnectionError:
                first = None
            now = time.monotonic()
            last, silent = now, max(silent, now - last)
            if one.sock is not first:
                return False, silent
    return True, silent


def test_headers_without_end_are_refused(server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as one:
        one.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 3000)
        assert one.recv(100).startswith(b"HTTP/1.1 431")


def test_pipelined_requests_are_answered_in_order_and_not_without_end(
    server: HealthServer,
) -> None:
    one = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as connection:
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
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as one:
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

    with socket.create_connection(("127.0.0.1", server.port), WAIT) as one:
        one.sendall(b"POST /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            pour()


@pytest.mark.parametrize(
    "junk",
    [b"\x16\x03\x01" + bytes(200), b"GET\r\n\r\n", b"\r\n" * 9],
    ids=["tls", "half", "empty"],
)
def test_garbage_does_not_stop_it(junk: bytes, server: HealthServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), WAIT) as one:
        one.sendall(junk)
        one.settimeout(WAIT)
        with suppress(ConnectionResetError):
            one.recv(100)
    assert get(server, "/livez")[0] == 200


def test_ipv6_is_served_where_there_is_any(health: Health) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with HealthServer(health, "[::1]:0") as server:
        assert probe_health(f"{server.url}/readyz", within=WAIT).passing
        assert probe_health(server.url, within=WAIT).passing, "its page is that of the group"
        assert not probe_health(f"{server.url}/", within=WAIT).passing, "a path is taken as it is"


def test_the_probe_asks_it(health: Health, server: HealthServer) -> None:
    found = probe_health(f"{server.url}/readyz", within=WAIT)
    assert (found.passing, found.status) == (True, "ok")
    assert found.checks[0]["name"] == "db"
    assert main(["health", f"{server.url}/readyz", "--within", "60"]) == 0
    health.drain("SIGTERM")
    assert main(["health", f"{server.url}/readyz", "--within", "60"]) == 1
    assert main(["health", f"{server.url}/livez", "--json", "--within", "60"]) == 0


def test_the_probe_gives_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/readyz"
        found = probe_health(url, within=0.2)
        assert found.passing is None
        assert "no answer within 0.2 s" in found.status
        assert main(["health", url, "--within", "0.1"]) == 2
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # nobody listens there
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/readyz"
        assert "refused" in probe_health(url).status


def test_the_probe_gives_up_on_an_answer_that_trickles() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def trickle() -> None:
            one, _ = listening.accept()
            with one, suppress(OSError):
                while True:  # until the probe has given up
                    one.send(b"H")
                    time.sleep(0.02)

        thread = threading.Thread(target=trickle)
        thread.start()
        port = listening.getsockname()[1]
        assert probe_health(f"http://127.0.0.1:{port}/", within=0.3).passing is None
        thread.join()
