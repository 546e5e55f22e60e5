"""Checks ready-made: what they find, what they tell, and what they never tell."""

import asyncio
import socket
import sqlite3
import ssl
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from outlast import CircuitBreaker, Keyed, Policy, sim
from outlast.detect import Health, Status, checks
from outlast.detect.checks.machine import memory_used
from outlast.detect.checks.network import cause
from outlast.kernel import ConfigError
from outlast.testing import virtual_time

OK, DEGRADED, UNKNOWN, FAILED = Status.OK, Status.DEGRADED, Status.UNKNOWN, Status.FAILED
GB = 10**9


async def found(check: Any, *, timeout: float = 5.0) -> tuple[Status, str]:
    health = Health()
    health.add("x", check, timeout=timeout)
    await health.refresh()
    (result,) = health.read("readiness").results
    return result.status, result.detail


def ask(check: Any) -> tuple[Status, str]:
    return sim.run(lambda: found(check), seed=1)


# --- network, in the simulator -----------------------------------------------------------------


async def answering(status: bytes) -> asyncio.Server:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(status + b"\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 8080)


seen: list[bytes] = []


def test_tcp_tells_whether_somebody_listens() -> None:
    async def main() -> None:
        check = checks.tcp("127.0.0.1:8080")
        assert repr(check) == "<check tcp 127.0.0.1:8080>"
        assert await found(check) == (FAILED, "127.0.0.1:8080: refused, nothing listens there")
        server = await answering(b"")
        assert await found(check) == (OK, "127.0.0.1:8080")
        server.close()

    sim.run(main, seed=1)


def test_http_tells_what_was_answered_and_no_secret() -> None:
    async def main() -> None:
        seen.clear()
        url = "http://user:pass%20word@127.0.0.1:8080/readyz?token=abc"
        server = await answering(b"HTTP/1.1 503 Busy")
        check = checks.http(url, headers={"X-Probe": "1"})
        told = "http://127.0.0.1:8080/readyz"
        assert repr(check) == f"<check http {told}>"
        assert await found(check) == (FAILED, f"{told}: answered 503, not 200")
        request = seen[0].decode()
        assert request.startswith("GET /readyz?token=abc HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n")
        assert "X-Probe: 1\r\n" in request
        assert "Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n" in request
        assert await found(checks.http(url, expect=range(500, 600))) == (
            OK, f"{told}: answered 503",
        )  # fmt: skip
        many = await found(checks.http(url, expect=range(200, 300)))
        assert many[1].endswith("answered 503, not 200, 201, 202, 203, 204, …")
        server.close()

    sim.run(main, seed=1)


def test_http_does_not_wait_for_ever_nor_take_anything_for_an_answer() -> None:
    async def main() -> None:
        check = checks.http("http://127.0.0.1:8080/", timeout=0.5)
        assert (await found(check))[1].endswith(": refused, nothing listens there")

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(60)

        server = await asyncio.start_server(silent, "127.0.0.1", 8080)
        assert (await found(check))[1] == "http://127.0.0.1:8080/: no answer within 0.5 s"
        server.close()
        server = await answering(b"SSH-2.0-server")
        assert (await found(check))[1] == "http://127.0.0.1:8080/: no answer in HTTP"
        server.close()

    sim.run(main, seed=1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: checks.tcp("localhost"), "host:port"),
        (lambda: checks.tcp(":80"), "host:port"),
        (lambda: checks.tcp("h:70000"), "host:port"),
        (lambda: checks.tcp("h:80", timeout=0), "above 0"),
        (lambda: checks.http("ftp://u:secret@h/"), "'ftp://h/' is no address"),
        (lambda: checks.http("http://h/", expect=()), "statuses from 100"),
        (lambda: checks.http("http://h/", expect=99), "statuses from 100"),
        (lambda: checks.sql(3), "source is int"),
        (lambda: checks.redis(object()), "ping"),
        (lambda: checks.disk_space("/", min_free=0), "above 0"),
        (lambda: checks.disk_space("/", min_free=2, warn_free=1), "at least"),
        (lambda: checks.memory(1.5), "max_share is 1.5"),
        (lambda: checks.memory(0.5, warn_share=0.6), "warn_share 0.6"),
        (lambda: checks.file_age("f", max_age=0), "max_age"),
        (lambda: checks.breaker(object()), "object tells no state"),
        (lambda: checks.breaker(Policy("p", timeout=1.0)), "Policy tells no state"),
        (lambda: checks.supervisor(object()), "no children"),
    ],
)
def test_arguments_are_checked(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        make()
    assert "secret" not in str(caught.value)


def test_ipv6_addresses_stand_in_brackets() -> None:
    assert "[::1]:80" in repr(checks.tcp("[::1]:80"))
    assert "https://[::1]:8443/x" in repr(checks.http("https://[::1]:8443/x"))


class ConnectTimeout(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(), "no answer within 1 s"),
        (ConnectTimeout(), "no answer within 1 s"),
        (ConnectionRefusedError(), "refused, nothing listens there"),
        (socket.gaierror(-2, "secret.host"), "the name is not known"),
        (OSError(113, "No route to host"), "no route to host"),
        (ssl.SSLError(1, "[SSL: WRONG] text"), "[ssl: wrong] text"),
        (ValueError("secret"), "ValueError"),
    ],
)
def test_causes_are_told_in_words(error: Exception, told: str) -> None:
    assert cause(error, 1.0) == told


def test_certificates_that_do_not_verify_are_told_so() -> None:
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_message = "certificate has expired"
    assert cause(error, 1.0) == "TLS: certificate has expired"


class Client:
    """Answers like an httpx client."""

    def __init__(self, answer: int | Exception) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def get(self) -> None: ...

    def stream(self, method: str, url: str, **given: Any) -> "Client":
        self.asked.append((method, url, given))
        return self

    def __enter__(self) -> SimpleNamespace:
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(status_code=self.answer)

    def __exit__(self, *_: object) -> None: ...


class AsyncClient(Client):
    async def get(self) -> None: ...  # type: ignore[override]

    async def __aenter__(self) -> SimpleNamespace:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_http_asks_with_a_client_that_is_given(kind: type[Client]) -> None:
    client = kind(204)
    check = checks.http("http://h/ready", expect=204, client=client)
    assert ask(check) == (OK, "http://h/ready: answered 204")
    assert client.asked == [("GET", "http://h/ready", {"timeout": 1.0, "headers": {}})]
    client.answer = RuntimeError("token=abc")
    assert ask(check) == (FAILED, "http://h/ready: RuntimeError")


@pytest.mark.parametrize(
    "check",
    [
        checks.tcp("h:1"), checks.http("http://h/"), checks.sql(lambda: None),
        checks.redis(SimpleNamespace(ping=lambda: True)),
    ],
)  # fmt: skip
def test_dependencies_are_refused_by_liveness(check: Any) -> None:
    with pytest.raises(ConfigError, match="needs the network"):
        Health().add("x", check, groups=("liveness",))


# --- clients -----------------------------------------------------------------------------------


def test_sql_runs_a_statement_on_a_new_connection() -> None:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(":memory:")

    assert checks.sql(connect)() == (OK, "database")
    bad = checks.sql(connect, "SELECT secret FROM nowhere", target="orders")
    assert bad() == (FAILED, "orders: OperationalError")
    assert repr(bad) == "<check orders>"


class Pinged:
    def __init__(self, answer: Any, **settings: Any) -> None:
        self.answer = answer
        if settings:
            self.connection_pool = SimpleNamespace(connection_kwargs=settings)

    def ping(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class AsyncPinged(Pinged):
    async def ping(self) -> Any:
        return super().ping()


@pytest.mark.parametrize("kind", [Pinged, AsyncPinged])
def test_redis_is_asked_for_pong(kind: type[Pinged]) -> None:
    where = {"host": "cache", "port": 6380, "db": 2, "password": "secret"}
    assert ask(checks.redis(kind(True, **where))) == (OK, "redis cache:6380/2")
    assert ask(checks.redis(kind(False, **where))) == (
        FAILED, "redis cache:6380/2: did not answer PING with PONG",
    )  # fmt: skip
    broken = kind(OSError("secret"), path="/run/redis.sock")
    assert ask(checks.redis(broken)) == (FAILED, "redis /run/redis.sock: OSError")
    assert ask(checks.redis(kind(True))) == (OK, "redis")
    assert ask(checks.redis(kind(True, db=1), target="cache")) == (OK, "cache")
    assert ask(checks.redis(kind(True, db=1)))[1] == "redis"


# --- the machine -------------------------------------------------------------------------------


def disk(free: int | OSError) -> Any:
    def free_bytes(path: str) -> int:
        if isinstance(free, OSError):
            raise free
        return free

    return SimpleNamespace(storage=SimpleNamespace(free_bytes=free_bytes))


@pytest.mark.parametrize(
    ("free", "status", "told"),
    [
        (5 * GB, OK, "/data: 5.0 GB free"),
        (2 * GB, OK, "/data: 2.0 GB free"),
        (2 * GB - 1, DEGRADED, "/data: 2.0 GB free, less than 2.0 GB"),
        (GB, DEGRADED, "/data: 1.0 GB free, less than 2.0 GB"),
        (GB - 1, FAILED, "/data: 1000.0 MB free, less than 1.0 GB"),
        (7, FAILED, "/data: 7 B free, less than 1.0 GB"),
        (OSError(2, "No such file"), UNKNOWN, "/data: No such file"),
    ],
)
def test_disk_space(free: Any, status: Status, told: str) -> None:
    check = checks.disk_space(Path("/data"), min_free=GB, world=disk(free))
    assert check() == (status, told)


def test_disk_space_is_that_of_the_simulated_disk() -> None:
    async def main() -> None:
        assert (await found(checks.disk_space("/", min_free=1)))[0] is OK

    sim.run(main, seed=1)


class Kernel:
    """The kernel's files in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)
        self.group = root / "sys/fs/cgroup"
        self.group.mkdir(parents=True)

    def meminfo(self, total_kb: int, available_kb: int) -> None:
        text = f"MemTotal: {total_kb} kB\nMemFree: 1 kB\nMemAvailable: {available_kb} kB\n"
        (self.root / "proc/meminfo").write_text(text)

    def cgroup(self, text: str) -> None:
        (self.root / "proc/self/cgroup").write_text(text)

    def limit(self, path: str, limit: str, current: int, inactive_file: int = 0) -> None:
        folder = self.group / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text(f"anon 3\ninactive_file {inactive_file}\n")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    made = Kernel(tmp_path)
    made.meminfo(8_000_000, 6_000_000)
    return made


def test_memory_is_what_the_control_group_allows(kernel: Kernel) -> None:
    kernel.cgroup("0::/\n")
    kernel.limit("", str(GB), 700_000_000, 100_000_000)
    assert memory_used(str(kernel.root)) == (600_000_000, GB, "the control group's limit")


def test_the_tightest_limit_up_the_tree_counts(kernel: Kernel) -> None:
    kernel.cgroup("1:name=systemd:/x\n0::/a/b\n")
    kernel.limit("a/b", "max", 500_000_000)
    kernel.limit("a", str(2 * GB), 1_800_000_000)
    kernel.limit("", str(4 * GB), 2_000_000_000)
    used = memory_used(str(kernel.root))
    assert used is not None
    assert used[:2] == (1_800_000_000, 2 * GB)


@pytest.mark.parametrize("limit", ["max", str(10**15)])
def test_without_a_limit_it_is_the_machine(kernel: Kernel, limit: str) -> None:
    kernel.cgroup("0::/../../elsewhere\n")
    kernel.limit("", limit, 500_000_000)
    assert memory_used(str(kernel.root)) == (2_048_000_000, 8_192_000_000, "the machine")


@pytest.mark.parametrize(
    ("current", "status"), [(800, OK), (809, OK), (811, DEGRADED), (899, DEGRADED), (900, FAILED)]
)
def test_memory_is_judged_by_its_share(kernel: Kernel, current: int, status: Status) -> None:
    kernel.cgroup("0::/\n")
    kernel.limit("", "1000", current)
    assert checks.memory(0.9, root=str(kernel.root))()[0] is status


def test_memory_tells_of_how_much(kernel: Kernel) -> None:
    kernel.cgroup("0::/\n")
    kernel.limit("", str(GB), 950_000_000)
    assert checks.memory(root=str(kernel.root))()[1] == (
        "memory: 950.0 MB of 1.0 GB (95%) of the control group's limit used, 90% or more"
    )


def test_where_nothing_tells_memory_is_unknown(tmp_path: Path) -> None:
    assert checks.memory(root=str(tmp_path))()[0] is UNKNOWN
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: many kB\n")
    assert checks.memory(root=str(tmp_path))()[0] is UNKNOWN


@pytest.mark.parametrize(
    ("age", "status", "told"),
    [
        (9, OK, "written 9 s ago"), (20, DEGRADED, "more than 10 s"),
        (31, FAILED, "more than 30 s"), (-5, OK, "written 0 s ago"),
    ],
)  # fmt: skip
def test_a_file_should_have_been_written_lately(
    tmp_path: Path, age: int, status: Status, told: str
) -> None:
    file = tmp_path / "mark"
    file.write_text("")
    now_ns = file.stat().st_mtime_ns + age * 10**9
    world: Any = SimpleNamespace(clock=SimpleNamespace(wall_ns=lambda: now_ns))
    got = checks.file_age(file, max_age=30, warn_age=10, world=world)()
    assert got[0] is status
    assert told in got[1]


def test_a_file_that_is_missing_has_failed_and_one_that_cannot_be_seen_is_unknown(
    tmp_path: Path,
) -> None:
    assert checks.file_age(tmp_path / "x", max_age=1)() == (FAILED, f"{tmp_path}/x: is not there")
    (tmp_path / "file").write_text("")
    assert checks.file_age(tmp_path / "file" / "x", max_age=1)()[0] is UNKNOWN


# --- parts of ours -----------------------------------------------------------------------------


def drive(check: Any) -> tuple[Status, str]:
    """Run a coroutine that never waits."""
    step = check()
    try:
        step.send(None)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


def test_an_open_breaker_degrades_and_may_fail() -> None:
    with virtual_time() as clock:
        breaker = CircuitBreaker(recovery_timeout=10, name="rates")
        policy = Policy("pay", breaker=breaker)
        check, strict = checks.breaker(breaker), checks.breaker(breaker, fail=True)
        assert drive(check) == (OK, "rates: closed")
        breaker.trip()
        assert drive(check) == (DEGRADED, "rates: open, next try in 10 s")
        assert drive(strict)[0] is FAILED
        assert drive(checks.breaker(policy)) == (DEGRADED, "pay: open")
        clock.advance(11)
        assert drive(check) == (DEGRADED, "rates: half-open")
        assert drive(strict)[0] is DEGRADED


def test_breakers_by_key_are_counted() -> None:
    states = {"CLOSED": 3}
    keyed = SimpleNamespace(snapshot=lambda: {"keys": 3, "states": states})
    check = checks.breaker(keyed)
    assert drive(check) == (OK, "breaker: 0 of 3 open, 0 half-open")
    states["OPEN"] = 2
    assert drive(check) == (DEGRADED, "breaker: 2 of 5 open, 0 half-open")
    real = Keyed(CircuitBreaker, by=str, name="hosts")
    assert drive(checks.breaker(real))[1] == "hosts: 0 of 0 open, 0 half-open"


def child(name: str, state: str, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(spec=SimpleNamespace(name=name), state=state, **more)


def test_crash_loops_degrade_wherever_in_the_tree() -> None:
    inner = SimpleNamespace(name="in", state="running", children={"b": child("b", "crash_loop")})
    tree = SimpleNamespace(children=[child("a", "running"), inner])
    check = checks.supervisor(tree)
    assert drive(check) == (DEGRADED, "in a crash loop: b")
    assert drive(checks.supervisor(tree, fail=True))[0] is FAILED
    inner.children["b"].state = "running"
    assert drive(check) == (OK, "3 children, none in a crash loop")
    many = [child(f"c{n}", "crash-loop", last_exit="exit 1") for n in range(7)]
    told = drive(checks.supervisor(SimpleNamespace(children=many)))[1]
    assert told.startswith("in a crash loop: c0 (exit 1), c1 (exit 1)")
    assert told.endswith("c4 (exit 1), and 2 more")
