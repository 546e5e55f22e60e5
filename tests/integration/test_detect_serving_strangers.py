"""The health server and those who come to it: slow ones, many, gone ones, ones that ask at once.

Whatever they do, the next probe is answered, and nothing of them stays.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from textwrap import dedent

import pytest

from outlast.detect import Health, HealthServer, Status

WAIT = 60
pytestmark = pytest.mark.timeout(300)

ASK = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def health() -> Health:
    health = Health()
    health.report("db", Status.OK)
    return health


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    with HealthServer(health, ":0", connections=8, header_bytes=1024, idle=0.3) as server:
        yield server


@pytest.fixture
def patient(health: Health) -> Iterator[HealthServer]:
    with HealthServer(health, ":0", connections=8, header_bytes=1024, idle=2 * WAIT) as server:
        yield server


def connect(server: HealthServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), WAIT)


def read_all(one: socket.socket) -> bytes:
    got = b""
    with suppress(ConnectionResetError):
        while piece := one.recv(65536):
            got += piece
    return got


def probe(server: HealthServer, page: bytes = b"livez") -> bytes:
    """The first line of an answer on a new connection."""
    with connect(server) as one:
        one.sendall(LAST % page)
        return read_all(one).partition(b"\r\n")[0]


def open_now(server: HealthServer) -> int:
    thread = server._thread
    assert thread is not None
    return len(thread._open)


@contextmanager
def much(idle: float) -> Iterator[tuple[HealthServer, socket.socket]]:
    """A server with a long page, and a connection to it that holds little of it."""
    health = Health()
    for number in range(100):
        health.report(f"check {number}", Status.OK, "x" * 290)
    with HealthServer(health, ":0", idle=idle) as server, socket.socket() as one:
        assert server._thread is not None
        server._thread._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(WAIT)
        one.connect(("127.0.0.1", server.port))
        yield server, one


def waits_to_write(server: HealthServer) -> bool:
    thread = server._thread
    assert thread is not None
    return any(connection._unsent for connection in list(thread._open))


def until(is_so: Callable[[], bool]) -> bool:
    """Whether ``is_so`` becomes true; waited for only when it does not."""
    end = time.monotonic() + WAIT
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def reset(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def test_a_request_in_pieces_is_answered_once_it_is_whole(patient: HealthServer) -> None:
    with connect(patient) as one:
        for byte in LAST % b"livez":
            one.sendall(bytes([byte]))
        assert read_all(one).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_connection_that_says_nothing_is_closed_in_time(server: HealthServer) -> None:
    begun = time.monotonic()
    with connect(server) as one:
        assert read_all(one) == b""
    assert time.monotonic() - begun >= 0.25


def test_who_sends_a_header_a_moment_is_cut_off_and_others_are_answered(
    server: HealthServer,
) -> None:
    def trickle(one: socket.socket) -> bool:
        """Whether it was cut off."""
        try:
            one.sendall(b"X-A: b\r\n")
        except ConnectionError:
            return True
        time.sleep(0.002)
        return False

    with ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(4)]
        for one in slow:
            one.sendall(b"GET /livez HTTP/1.1\r\n")
        assert until(lambda: probe(server) == b"HTTP/1.1 200 OK")
        assert until(lambda: all([trickle(one) for one in slow]))
    assert until(lambda: open_now(server) == 0)


def test_a_crowd_that_says_nothing_does_not_keep_a_probe_out(patient: HealthServer) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(patient))
        assert probe(patient) == b"HTTP/1.1 200 OK"
        assert open_now(patient) <= 8


def test_a_crowd_of_probes_is_answered_to_the_last(health: Health) -> None:
    answered: list[bytes] = []

    def ask() -> None:
        answered.extend(probe(server) for _ in range(20))

    with HealthServer(health, ":0", connections=16, idle=2 * WAIT) as server:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answered == [b"HTTP/1.1 200 OK"] * 160


def test_no_more_connections_stay_than_may(patient: HealthServer) -> None:
    with ExitStack() as stack:
        kept = []
        for _ in range(20):
            one = stack.enter_context(connect(patient))
            one.sendall(ASK % b"livez")
            assert one.recv(65536).startswith(b"HTTP/1.1 200")
            kept.append(one)
        assert open_now(patient) == 8
        assert [read_all(one) for one in kept[:12]] == [b""] * 12
        kept[12].sendall(ASK % b"livez")
        assert kept[12].recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("asked", "stays"), [(16, True), (17, False)])
def test_sixteen_requests_at_once_are_answered_and_the_next_is_one_too_many(
    asked: int, stays: bool, patient: HealthServer
) -> None:
    with connect(patient) as one:
        one.sendall(ASK % b"livez" * asked)
        got = b""
        while got.count(b"\r\n\r\nok\n") < 16:
            got += one.recv(65536)
        assert got.count(b"HTTP/1.1 200") == 16
        one.settimeout(0.1)
        if stays:
            with pytest.raises(TimeoutError):
                one.recv(1)
        else:
            assert read_all(one) == b""


def test_who_stops_sending_after_its_request_is_answered(patient: HealthServer) -> None:
    for request in (ASK % b"livez", LAST % b"livez"):
        with connect(patient) as one:
            one.sendall(request)
            one.shutdown(socket.SHUT_WR)
            assert read_all(one).startswith(b"HTTP/1.1 200 OK\r\n")


def test_who_stops_sending_within_its_request_is_let_go_at_once(patient: HealthServer) -> None:
    with connect(patient) as one:
        one.sendall(b"GET /livez HT")
        one.shutdown(socket.SHUT_WR)
        assert read_all(one) == b""


@pytest.mark.parametrize(
    "said", [b"", b"GET /li", ASK % b"livez", LAST % b"livez", b"POST / HTTP/1.1\r\n\r\nx"]
)
def test_who_resets_its_connection_leaves_nothing(said: bytes, patient: HealthServer) -> None:
    for _ in range(20):
        one = connect(patient)
        one.sendall(said)
        reset(one)
    assert probe(patient) == b"HTTP/1.1 200 OK"
    assert until(lambda: open_now(patient) == 0)


def test_what_was_asked_badly_is_answered_without_a_reset(patient: HealthServer) -> None:
    with connect(patient) as one:
        one.sendall(b"NO SUCH\r\n\r\n")
        time.sleep(0.05)
        with suppress(ConnectionError):
            for _ in range(10):
                one.sendall(b"more of it")
        assert one.recv(65536).startswith(b"HTTP/1.1 400")
        assert one.recv(1) == b""  # the end, not a reset
    assert until(lambda: open_now(patient) == 0)


@pytest.mark.parametrize("last", [False, True])
def test_who_asks_for_much_and_reads_late_gets_all_of_it(last: bool) -> None:
    page = b"readyz?verbose"
    with much(idle=2 * WAIT) as (server, one):
        one.sendall((ASK % page) * 15 + (LAST if last else ASK) % page)
        assert until(lambda: waits_to_write(server))
        assert probe(server) == b"HTTP/1.1 200 OK"  # others are answered meanwhile
        got = b""
        while got.count(b"[+]check 99 ok") < 16 or not got.endswith(b"\n"):
            piece = one.recv(65536)
            assert piece
            got += piece
        assert got.count(b"HTTP/1.1 200 OK") == 16
        if not last:
            one.sendall(LAST % b"livez")
            assert one.recv(65536).endswith(b"ok\n")
        assert read_all(one) == b""


def test_who_asks_for_much_and_does_not_read_is_cut_off() -> None:
    with much(idle=0.3) as (server, one):
        one.sendall(ASK % b"readyz?verbose" * 16)
        assert until(lambda: waits_to_write(server))
        assert until(lambda: open_now(server) == 0)
        assert probe(server) == b"HTTP/1.1 200 OK"


def test_who_goes_while_it_is_answered_leaves_nothing() -> None:
    with much(idle=2 * WAIT) as (server, one):
        one.sendall(ASK % b"readyz?verbose" * 16)
        assert until(lambda: waits_to_write(server))
        reset(one)
        assert until(lambda: open_now(server) == 0)
        assert probe(server) == b"HTTP/1.1 200 OK"


def test_an_error_in_what_is_read_ends_one_connection_and_is_told(
    monkeypatch: pytest.MonkeyPatch, health: Health
) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda given: told.append(given.exc_value))
    error = LookupError("a bug")

    def read(group: str) -> object:
        raise error

    monkeypatch.setattr(health, "read", read)
    with HealthServer(health, ":0") as server:
        assert probe(server) == b""
        assert probe(server, b"other") == b"HTTP/1.1 404 Not Found"
    assert told == [error]


def test_a_server_without_a_thread_gives_its_port_back(
    monkeypatch: pytest.MonkeyPatch, health: Health
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = HealthServer(health, ":0")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            server.start()
    assert not server.serving
    with server:
        assert probe(server) == b"HTTP/1.1 200 OK"


def in_a_process(program: str) -> subprocess.Popen[str]:
    begin = """
        import os, resource, select, signal, sys, time
        from outlast.detect import Health, HealthServer
        health = Health()
    """
    return subprocess.Popen(
        [sys.executable, "-c", dedent(begin) + dedent(program)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate("\n", timeout=WAIT)[0]
    finally:
        process.kill()
        process.wait()


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def answered_at(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), WAIT) as one:
        one.sendall(LAST % b"livez")
        return read_all(one).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(sys.platform != "linux", reason="it counts descriptors under /proc")
def test_a_process_without_descriptors_left_answers_and_does_not_spin() -> None:
    process = in_a_process("""
        from outlast.detect.health_thread import HealthThread
        looks, accept = [], HealthThread._accept
        HealthThread._accept = lambda self: (looks.append(0), accept(self))
        server = HealthServer(health, ":0", connections=1000).start()
        print(server.port, flush=True)
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, used + 20))
        print("limited", flush=True)
        sys.stdin.readline()
        while server._thread._open:
            time.sleep(0.01)
        held = []
        try:
            while True:
                held.append(open("/dev/null"))
        except OSError:
            pass
        del looks[:]
        print("full", flush=True)
        while not looks:
            time.sleep(0.01)
        time.sleep(0.5)
        print(len(looks), flush=True)
        held.clear()
        sys.stdin.readline()
    """)
    try:
        port = port_of(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "limited\n"
        with ExitStack() as stack:
            for _ in range(40):  # they stay; it can hold half of them
                stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT))
            assert answered_at(port)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "full\n"
        with socket.create_connection(("127.0.0.1", port), WAIT) as one:
            one.sendall(LAST % b"livez")
            assert int(process.stdout.readline()) < 20
            assert read_all(one).startswith(b"HTTP/1.1 200")
    finally:
        finish(process)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_a_child_of_a_fork_does_not_end_the_server_of_its_parent() -> None:
    process = in_a_process("""
        server = HealthServer(health, ":0").start()
        print(server.port, flush=True)
        child = os.fork()
        if not child:
            assert not server.serving
            server.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        woken = server._thread._woken  # by the child: heard, and not for ever
        end = time.monotonic() + 30
        while (told := select.select([woken], [], [], 0)[0]) and time.monotonic() < end:
            time.sleep(0.01)
        print(server.serving and not told, flush=True)
        sys.stdin.readline()
    """)
    try:
        port = port_of(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert answered_at(port)
    finally:
        finish(process)


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="a signal of POSIX")
def test_a_stranger_that_goes_does_not_have_the_process_killed_by_sigpipe() -> None:
    process = in_a_process("""
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        server = HealthServer(health, ":0").start()
        print(server.port, flush=True)
        print("up", flush=True)
        sys.stdin.readline()
        print("here")
    """)
    try:
        port = port_of(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        os.kill(process.pid, signal.SIGSTOP)
        for _ in range(5):
            one = socket.create_connection(("127.0.0.1", port), WAIT)
            one.sendall(LAST % b"livez")
            one.shutdown(socket.SHUT_WR)
            reset(one)
        os.kill(process.pid, signal.SIGCONT)
        assert answered_at(port)
        assert "here" in finish(process)
    finally:
        finish(process) if process.poll() is None else None
