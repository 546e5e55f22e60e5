"""Real processes share a breaker through a real store; one is killed while it probes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlast.kernel import CircuitOpenError, Event, current_world
from outlast.protect.breaker import CircuitBreaker
from outlast.protect.events import StoreLost, StoreRegained
from outlast.protect.shared import shared_of
from outlast.protect.store import RedisStore, open_store
from tests.support.store_redis import RedisServer

PROGRAM = Path(__file__).parent.parent / "support" / "programs" / "prober.py"
pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]


class Prober:
    def __init__(self, url: str, node: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), url, node],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ,
        )  # fmt: skip
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, word: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._read()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def until(seen: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.01)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.engine)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'state.db'}"
        return
    server = RedisServer(tmp_path)
    server.start()
    yield server.url
    server.kill()


@pytest.fixture
def probers(url: str) -> Iterator[list[Prober]]:
    made = [Prober(url, node) for node in ("one", "two", "three")]
    yield made
    for prober in made:
        prober.kill()


def test_the_fleet_recovers_when_the_process_with_the_probe_is_killed(
    probers: list[Prober],
) -> None:
    one, two, three = probers
    for prober in (one, two):
        until(lambda who=prober: who.ask("fail") == "refused")  # type: ignore[misc]
    until(lambda: three.ask("state") != "CLOSED")  # it made no call that failed
    until(lambda: all(prober.ask("follows") == "ok" for prober in probers))
    until(lambda: one.ask("hold") == "ok")  # the one probe of the fleet
    assert two.ask("succeed") == three.ask("succeed") == "refused"
    one.kill()
    until(lambda: two.ask("succeed") == "ok")
    until(lambda: three.ask("state") == "CLOSED")
    assert three.ask("succeed") == "ok"


def test_one_bad_process_opens_alone(probers: list[Prober]) -> None:
    bad, *good = probers
    until(lambda: bad.ask("fail") == "refused")
    time.sleep(0.3)
    assert [prober.ask("succeed") for prober in good] == ["ok", "ok"]


@pytest.fixture
def events() -> Iterator[list[Event]]:
    seen: list[Event] = []
    bus = current_world().events
    forget = bus.subscribe(seen.append)  # type: ignore[attr-defined]
    yield seen
    forget()


@pytest.mark.engine
def test_calls_go_on_while_redis_is_killed_and_it_is_told(
    tmp_path: Path, events: list[Event]
) -> None:
    server = RedisServer(tmp_path)
    server.start()
    store = RedisStore(server.url, interval=0.02, timeout=10)
    breaker = CircuitBreaker(failure_threshold=2, recovery_timeout=1, name="api", store=store)
    shared = shared_of(store)
    try:
        until(lambda: breaker.shared is not None and breaker.try_admit() is not None)
        server.kill()
        until(lambda: shared.lost)
        for _ in range(2):
            breaker.try_admit().fail(OSError())
        with pytest.raises(CircuitOpenError):
            breaker.try_admit()
        until(lambda: breaker.state == "HALF_OPEN")
        breaker.try_admit().succeed()
        assert breaker.state == "CLOSED"
        server.start()
        until(lambda: not shared.lost)
        until(lambda: any(isinstance(event, StoreRegained) for event in events))
        assert [type(event) for event in events].count(StoreLost) == 1
    finally:
        shared.close()
        server.kill()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_takes_part_under_a_name_of_its_own(tmp_path: Path) -> None:
    store = open_store(f"sqlite:{tmp_path / 'state.db'}", interval=0.02, timeout=10.0)
    breaker = CircuitBreaker(failure_threshold=1, name="api", store=store)
    until(lambda: store.view("api").reporters == 1)
    name = shared_of(store).node
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            until(lambda: store.view("api").reporters == 2)
            breaker.try_admit().fail(OSError())
            until(lambda: store.view("api").bad == 1)
            os._exit(0 if shared_of(store).node != name else 3)
        except BaseException:
            os._exit(4)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert breaker.state == "CLOSED"
    shared_of(store).close()
    assert store.view("api").reporters <= 1  # that of the child may not have expired yet
    store.close()
