"""What health and heartbeats must not lose: a cancellation, their threads, the next beat."""

import asyncio
import threading
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from outlast import sim
from outlast.detect import (
    Fixed,
    Health,
    HealthFile,
    Heartbeat,
    HeartbeatMonitor,
    LocalHealth,
    checks,
    health_file,
)
from outlast.detect.watchdog_stack import bounded
from outlast.kernel import ConfigError
from tests.support.health_story import OK, status, story


def no_thread(*_: object) -> Any:
    raise RuntimeError("can't start new thread")


# --- health --------------------------------------------------------------------------------------


def test_who_is_cancelled_while_leaving_the_block_of_a_health_hears_of_it() -> None:
    async def main() -> None:
        leaving = asyncio.Event()
        went_on: list[int] = []

        async def block() -> None:
            async with Health():
                await asyncio.sleep(0)
                leaving.set()
            went_on.append(1)

        task = asyncio.ensure_future(block())
        await leaving.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert not went_on

    story(main)


def test_a_block_within_the_block_of_the_same_health_is_refused_and_leaves_nothing() -> None:
    async def main() -> None:
        health = Health()
        health.add("a", lambda: True)
        async with health:
            await asyncio.sleep(1)
            with pytest.raises(ConfigError, match="run already"):
                await health.__aenter__()
        await asyncio.sleep(1)
        assert health._runner.loop is None
        assert [one for one in asyncio.all_tasks() if one is not asyncio.current_task()] == []

    story(main)


def test_a_refresh_goes_on_here_when_the_loop_of_the_checks_was_closed() -> None:
    health = Health()
    health.add("a", lambda: True)
    closed = asyncio.new_event_loop()
    closed.close()
    health._runner.loop = closed
    asyncio.run(health.refresh())
    assert status(health, "a") is OK


def test_a_refresh_goes_on_here_when_that_loop_is_being_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Closing:
        def is_closed(self) -> bool:
            return False

        def call_soon_threadsafe(self, *_: object) -> None:
            raise RuntimeError("Event loop is closed")

    health = Health()
    health.add("a", lambda: True)
    monkeypatch.setattr(health._runner, "loop", Closing())
    asyncio.run(health.refresh())
    assert status(health, "a") is OK


def test_a_health_whose_thread_could_not_be_started_can_be_stopped_and_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health = Health()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="new thread"):
            health.start()
    health.stop()
    health.start()
    health.stop()


def test_a_health_file_whose_thread_could_not_be_started_is_gone_and_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "health"
    file = HealthFile(Health(), path)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="new thread"):
            file.start()
    assert not path.exists()
    with file:
        assert file._ticker is not None
        assert file._ticker.running


def test_a_health_file_that_is_written_late_does_not_come_back_after_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "health"
    file = HealthFile(Health(), path, every=0.001)
    real = health_file.write_health_file
    hangs, goes_on = threading.Event(), threading.Event()

    def slow(*args: Any, **settings: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            hangs.set()
            goes_on.wait(10)
        real(*args, **settings)

    monkeypatch.setattr(health_file, "write_health_file", slow)
    file.start()
    ticker = file._ticker
    assert ticker is not None
    assert hangs.wait(10)
    monkeypatch.setattr(ticker._thread, "join", lambda _: None)  # it takes too long
    file.stop()
    goes_on.set()
    threading.Thread.join(ticker._thread, 10)
    assert not path.exists()


def test_a_probe_of_a_host_that_has_no_possible_name_cannot_tell() -> None:
    probed = health_file.probe_health(f"http://{'a' * 70}.test/readyz")
    assert probed.passing is None


def test_a_probe_with_a_time_that_never_ends_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="within"):
        health_file.probe_health(str(tmp_path / "health"), within=inf)


@pytest.mark.parametrize("url", ["http://host:99999/", "http://[::1/", "http://host:x/"])
def test_a_check_of_what_is_no_url_is_refused_as_a_setting(url: str) -> None:
    with pytest.raises(ConfigError, match="http"):
        checks.http(url)


def test_a_check_with_a_time_that_never_ends_is_refused() -> None:
    with pytest.raises(ConfigError, match="timeout"):
        checks.tcp("127.0.0.1:1", timeout=inf)


def test_a_check_is_not_blamed_for_a_pause_of_its_own_process() -> None:
    class Clock:
        """The machine's clock, after a pause of this process: it shows a later time."""

        ahead_ns = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def __init__(self, real: Any) -> None:
            self.real = real

        def monotonic_ns(self) -> int:
            return int(self.real.monotonic_ns()) + self.ahead_ns

    async def main() -> None:
        from dataclasses import replace

        from outlast.kernel import current_world

        real = current_world()
        clock = Clock(real.clock)

        class Timers:
            def call_at(self, when_ns: int, callback: Callable[[], None]) -> Any:
                return real.timers.call_at(max(when_ns - clock.ahead_ns, 0), callback)

            async def sleep(self, seconds: float) -> None:
                await real.timers.sleep(seconds)

        async def check() -> None:
            await asyncio.sleep(0.5)

        health = Health(replace(real, clock=clock, timers=Timers()))
        health.add("a", check, timeout=0.4, every=100)
        paused: list[int] = []

        async def pause() -> None:
            await asyncio.sleep(0.3)
            paused.append(1)
            clock.ahead_ns = 5_000_000_000

        task = asyncio.ensure_future(pause())
        await health.refresh()
        await task
        assert paused
        assert status(health, "a") is OK

    story(main)


def test_an_action_of_a_watchdog_without_a_thread_is_told_as_not_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert "new thread" in bounded(lambda: None, 1.0, "x")


# --- heartbeats ------------------------------------------------------------------------------


def test_a_beat_whose_send_was_cancelled_by_others_is_not_the_last() -> None:
    async def main() -> None:
        async def send(_: int) -> None:
            raise asyncio.CancelledError

        async with Heartbeat(send, 0.1) as heartbeat:
            await asyncio.sleep(1.05)
        assert heartbeat.failed == 11

    sim.run(main, seed=5)


def test_a_send_that_swallows_its_cancellation_does_not_go_on_after_the_stop() -> None:
    async def main() -> None:
        sent: list[int] = []

        async def send(seq: int) -> None:
            sent.append(seq)
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                return

        heartbeat = Heartbeat(send, 0.1)
        heartbeat.start()
        await asyncio.sleep(0.02)
        heartbeat.stop()
        await asyncio.sleep(1)
        assert len(sent) == 1

    sim.run(main, seed=5)


def test_a_monitor_whose_start_failed_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        local = LocalHealth()
        monitor = HeartbeatMonitor(lambda: Fixed(0.5, interval=0.1), local=local)
        with monkeypatch.context() as patch:
            patch.setattr(local, "start", no_thread)
            with pytest.raises(RuntimeError, match="new thread"):
                monitor.start()
        async with monitor:
            assert local.running

    sim.run(main, seed=5)


def test_a_monitor_that_is_stopped_by_its_own_news_tells_no_more() -> None:
    async def main() -> None:
        told: list[Any] = []

        def stop(change: Any) -> None:
            told.append(change)
            monitor.stop()

        monitor = HeartbeatMonitor(lambda: Fixed(0.5, interval=0.1), on_change=stop)
        monitor.start()
        for peer in "abc":
            monitor.beat(peer)
        await asyncio.sleep(30)
        assert len(told) == 1

    sim.run(main, seed=5)
