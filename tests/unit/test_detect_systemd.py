"""What systemd is told and when; above all, when the watchdog is not fed."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from outlast.detect import Health, Status, SystemdNotifier, notify
from outlast.detect.core.health import CheckResult, Group, GroupHealth, verdict
from outlast.detect.core.sd_state import SdState, encode, proves_life, status_line
from outlast.detect.systemd import watchdog_seconds
from outlast.kernel import ConfigError

NS = 1_000_000_000


def result(status: Status, name: str = "x", detail: str = "") -> CheckResult:
    return CheckResult(name, status, detail, True, 0.0)


def groups(
    liveness: tuple[Status, ...] = (Status.OK,),
    startup: tuple[Status, ...] = (),
    readiness: tuple[Status, ...] = (),
) -> dict[Any, GroupHealth]:
    given: dict[Group, tuple[Status, ...]] = {
        "startup": startup, "liveness": liveness, "readiness": readiness,
    }  # fmt: skip
    return {
        group: verdict(group, tuple(result(s, f"{group[0]}{i}") for i, s in enumerate(statuses)))
        for group, statuses in given.items()
    }


def state(watchdog: float | None = 10.0, start: float = 0.0, stop: float = 0.0) -> SdState:
    return SdState(
        0,
        watchdog_ns=None if watchdog is None else round(watchdog * NS),
        every_ns=NS // 2,
        start_ns=round(start * NS),
        stop_ns=round(stop * NS),
    )


def test_ready_is_told_once_startup_has_passed() -> None:
    one = state(None)
    assert one.step(groups(startup=(Status.UNKNOWN,)), False, 0) == {
        "STATUS": "starting: s0 unknown"
    }
    assert not one.ready
    assert one.step(groups(), False, NS) == {"READY": 1, "STATUS": "ready"}
    assert one.ready
    assert one.step(groups(), False, 2 * NS) == {}


@pytest.mark.parametrize("pace", [0.3, 0.49, 0.5])
def test_the_watchdog_is_fed_by_half_of_its_interval(pace: float) -> None:
    one = state(10.0)
    times = [round(tick * pace, 2) for tick in range(100)]
    fed = [at for at in times if "WATCHDOG" in one.step(groups(), False, round(at * NS))]
    gaps = {b - a for a, b in pairwise(fed)}
    assert fed[0] == 0
    assert max(gaps) <= 5.0
    assert min(gaps) >= 2.5


def test_the_watchdog_is_not_fed_before_ready() -> None:
    assert "WATCHDOG" not in state().step(groups(startup=(Status.UNKNOWN,)), False, 0)


def test_the_watchdog_is_not_fed_while_liveness_fails() -> None:
    one = state()
    assert "WATCHDOG" not in one.step(groups((Status.OK, Status.FAILED)), False, 0)
    assert "WATCHDOG" in one.step(groups((Status.OK, Status.DEGRADED)), False, 1)


@pytest.mark.parametrize("liveness", [(), (Status.UNKNOWN,), (Status.UNKNOWN, Status.UNKNOWN)])
def test_the_watchdog_is_not_fed_when_nothing_proves_life(liveness: tuple[Status, ...]) -> None:
    found = groups(liveness)
    assert found["liveness"].passing
    assert not proves_life(found["liveness"])
    assert "WATCHDOG" not in state().step(found, False, 0)


def test_one_result_that_is_known_proves_life() -> None:
    assert proves_life(groups((Status.UNKNOWN, Status.OK))["liveness"])


def test_without_a_watchdog_none_is_fed() -> None:
    assert "WATCHDOG" not in state(None).step(groups(), False, 0)


def test_a_short_watchdog_shortens_the_steps() -> None:
    assert state(0.4).every_ns == NS // 10
    assert state(None).every_ns == NS // 2


def test_stopping_is_told_once() -> None:
    one = state(None)
    one.step(groups(), False, 0)
    assert one.step(groups(), True, NS) == {"STOPPING": 1, "STATUS": "stopping"}
    assert one.step(groups(), True, 2 * NS) == {}


def test_a_long_start_asks_for_time_but_not_for_ever() -> None:
    one = state(None, start=10.0)
    slow = groups(startup=(Status.UNKNOWN,))
    assert one.step(slow, False, 0)["EXTEND_TIMEOUT_USEC"] == 2_000_000
    assert one.step(slow, False, 9 * NS)["EXTEND_TIMEOUT_USEC"] == 1_000_000
    assert "EXTEND_TIMEOUT_USEC" not in one.step(slow, False, 11 * NS)
    assert "EXTEND_TIMEOUT_USEC" not in one.step(groups(), False, 12 * NS)


def test_a_long_stop_asks_for_time_too() -> None:
    one = state(None, stop=30.0)
    assert "EXTEND_TIMEOUT_USEC" not in one.step(groups(), False, 0)
    assert one.step(groups(), True, 100 * NS)["EXTEND_TIMEOUT_USEC"] == 2_000_000
    assert "EXTEND_TIMEOUT_USEC" not in one.step(groups(), True, 131 * NS)


def test_the_status_names_what_is_not_well() -> None:
    bad = groups(readiness=(Status.FAILED, Status.OK, Status.DEGRADED, *[Status.UNKNOWN] * 3))
    assert status_line(bad, starting=False, stopping=False) == (
        "not ready: r0 failed, r2 degraded, r3 unknown and 2 more"
    )
    readiness = verdict("readiness", (result(Status.DEGRADED, "db", "slow\nREADY=1"),))
    found = {**groups(), "readiness": readiness}
    assert status_line(found, starting=False, stopping=False) == (
        "ready: db degraded (slow READY=1)"
    )


def test_a_value_cannot_add_a_line() -> None:
    assert encode({"STATUS": "a\nWATCHDOG=1\r", "READY": 1}) == b"STATUS=a WATCHDOG=1\nREADY=1"


def test_without_systemd_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify(READY=1)
    with SystemdNotifier(Health()) as notifier:
        assert not notifier.start()
        assert repr(notifier) == "<SystemdNotifier not running>"


@pytest.mark.parametrize("address", ["vsock:2:1234", "relative", "/nowhere/at/all"])
def test_a_socket_that_cannot_be_used_is_no_error(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify(READY=1)


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("2000000", "", 2.0),
        ("2000000", "1", None),
        ("0", "", None),
        ("x", "", None),
        ("", "", None),
    ],
)
def test_the_watchdog_of_another_process_is_not_ours(
    usec: str, pid: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert watchdog_seconds() == seconds


def test_a_watchdog_that_nothing_can_prove_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with pytest.raises(ConfigError, match=r"liveness is empty.*health\.progress"):
        SystemdNotifier(Health()).start()


@pytest.mark.parametrize(
    "settings", [{"every": 0.0}, {"start_within": -1.0}, {"stop_within": -1.0}]
)
def test_times_that_cannot_be_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="above 0, and at least 0"):
        SystemdNotifier(Health(), **settings)
