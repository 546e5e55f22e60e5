"""systemd's side of the socket: what arrives, and what does not when the work has stopped."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlast.detect import Health, Status, SystemdNotifier, notify

WAIT = 60.0
pytestmark = pytest.mark.timeout(300)


class Manager:
    """A datagram socket in the place of systemd."""

    def __init__(self, address: str | bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self.got: dict[str, str] = {}
        self.count: dict[str, int] = {}

    def take(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            raw = self._socket.recv(4096)
        except TimeoutError:
            return False
        for line in raw.decode().splitlines():
            name, _, value = line.partition("=")
            self.got[name] = value
            self.count[name] = self.count.get(name, 0) + 1
        return True

    def until(self, seen: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT
        while not seen():
            assert self.take(max(end - time.monotonic(), 0.01)), f"only {self.got}"

    def drain(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.take(left)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    if request.param == "abstract":
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{path}")
        made = Manager(b"\0" + path.encode())
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        made = Manager(path)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    yield made
    made.close()


def test_states_arrive(manager: Manager) -> None:
    assert notify(READY=1, STATUS="two\nlines")
    assert manager.take(WAIT)
    assert manager.got == {"READY": "1", "STATUS": "two lines"}


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_service_tells_its_life(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    health = Health()
    health.report("loaded", Status.UNKNOWN, "reading", groups=("startup",))
    work = health.progress("work", within=0.3)
    with SystemdNotifier(health, every=0.05, start_within=30, stop_within=30) as notifier:
        manager.until(lambda: "STATUS" in manager.got)
        assert manager.got["STATUS"] == "starting: loaded unknown (reading)"
        assert int(manager.got["EXTEND_TIMEOUT_USEC"]) > 0
        assert "READY" not in manager.got
        health.report("loaded", Status.OK)
        work.stamp()
        manager.until(lambda: manager.got.get("READY") == "1")

        while manager.count.get("WATCHDOG", 0) < 5:  # it works
            work.stamp()
            manager.take(0.02)
        while health.read("liveness").passing:  # the work has stopped, the notifier has not
            manager.take(0.02)
        health.report("queue", Status.DEGRADED)
        manager.until(lambda: "queue degraded" in manager.got["STATUS"])
        stopped = manager.count["WATCHDOG"]
        manager.drain(0.5)
        assert manager.count["WATCHDOG"] == stopped

        with notifier.reloading():
            manager.until(lambda: "RELOADING" in manager.got)
            assert int(manager.got["MONOTONIC_USEC"]) > 0
            assert manager.count["READY"] == 1
        manager.until(lambda: manager.count["READY"] == 2)
        health.drain("SIGTERM")
        manager.until(lambda: manager.got.get("STOPPING") == "1")
        assert manager.got["STATUS"] == "stopping"


def test_the_last_word_is_said_before_it_stops(manager: Manager) -> None:
    health = Health()
    with SystemdNotifier(health, every=60) as notifier:
        assert notifier.start()
        assert repr(notifier) == "<SystemdNotifier running>"
        manager.until(lambda: "READY" in manager.got)
        health.drain("SIGTERM")
    manager.until(lambda: "STOPPING" in manager.got)
