"""What a supervisor must not lose: a child, its grace, its own end; whatever goes wrong beside."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from math import inf, nan
from typing import Any

import pytest

from outlast.detect import (
    Child,
    ChildRestarting,
    ChildStopped,
    CrashLoop,
    Grace,
    Health,
    Ready,
    RestartPolicy,
    Status,
    Supervisor,
)
from outlast.detect.child_run import Runner
from outlast.detect.core.supervision import Exit
from outlast.detect.life import Life
from outlast.detect.supervisor_file import read_supervisor
from outlast.host import make_world, sweeper
from outlast.host import spawn as host_spawn
from outlast.host.crew import Crew
from outlast.kernel import ConfigError, UnavailableError
from tests.unit.test_detect_supervision_sim import Story, told


def test_a_child_that_is_asked_to_stop_before_it_is_ready_has_its_whole_grace() -> None:
    async def story(s: Story) -> None:
        ended: list[float] = []

        async def child() -> None:
            try:
                await s.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(6)
                ended.append(s.now)

        one = Child.task("a", child, ready=lambda: False, start_timeout=3.0, stop=10.0)
        supervisor = Supervisor(one)
        start = asyncio.ensure_future(supervisor.start())
        await asyncio.sleep(1)
        await supervisor.stop()
        with pytest.raises(UnavailableError):
            await start
        assert ended == [7.0]
        assert s.of(ChildStopped)[0].forced is False

    told(story)


def test_a_question_whether_it_is_ready_that_was_cancelled_is_a_not_yet() -> None:
    async def story(s: Story) -> None:
        async def odd() -> bool:
            raise asyncio.CancelledError

        child = Child.task("a", s.wait, ready=odd, start_timeout=2.0, restart="temporary")
        supervisor = Supervisor(child)
        start = asyncio.ensure_future(supervisor.start())
        await asyncio.wait([start], timeout=10)
        assert "not ready within 2 s" in supervisor.child("a").last_exit
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)

    told(story)


def test_a_port_of_a_host_that_has_no_possible_name_is_a_not_yet() -> None:
    async def main() -> None:
        life: Any = object.__new__(Life)
        assert await life._says_ready(Ready.port(80, f"{'a' * 70}.test")) is False

    asyncio.run(main())


def test_a_question_whether_it_is_ready_that_exits_is_a_not_yet() -> None:
    async def main() -> None:
        life: Any = object.__new__(Life)
        life._world, life.path = make_world(), "a"
        assert await life._says_ready(Ready.when(lambda: sys.exit(3))) is False

    asyncio.run(main())


def test_a_call_on_a_thread_that_raises_stop_iteration_is_answered() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wait_for(Crew().run("x", lambda: next(iter(()))), 5)

    asyncio.run(main())


def test_a_listener_that_kills_at_a_restart_ends_the_new_instance_too() -> None:
    async def story(s: Story) -> None:
        runs: list[int] = []

        async def child() -> None:
            runs.append(1)
            if len(runs) == 1:
                raise ValueError("first")
            await s.wait()

        supervisor = Supervisor(Child.task("a", child))

        def kill(event: object) -> None:
            if isinstance(event, ChildRestarting):
                supervisor.kill()

        s.world.events.subscribe(kill)  # type: ignore[attr-defined]
        start = asyncio.ensure_future(supervisor.start())
        await asyncio.sleep(1)
        assert supervisor.state == "ended"
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)

    told(story)


def test_a_listener_that_restarts_at_the_end_of_all_is_not_taken_for_ended() -> None:
    async def story(s: Story) -> None:
        runs: list[float] = []

        async def child() -> None:
            runs.append(s.now)
            if len(runs) == 1:
                raise ValueError("first")
            try:
                await s.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(2)
                raise

        supervisor = Supervisor(Child.task("a", child), intensity=0, on_limit="stop")

        def restart(event: object) -> None:
            if isinstance(event, CrashLoop):
                supervisor.restart("a")

        s.world.events.subscribe(restart)  # type: ignore[attr-defined]
        start = asyncio.ensure_future(supervisor.start())
        await asyncio.sleep(1)
        await asyncio.gather(start, return_exceptions=True)
        if supervisor.state == "ended":  # the start has failed, and stopped what it had started
            supervisor.restart("a")
        assert supervisor.ending is None
        await asyncio.sleep(1)
        await supervisor.stop()
        assert supervisor.state == "ended"
        assert supervisor.child("a").state == "stopped"

    told(story)


def test_a_listener_that_restarts_at_the_end_of_all_keeps_the_sweeper() -> None:
    async def story(s: Story) -> None:
        failed: list[bool] = []

        async def child() -> None:
            if not failed:
                failed.append(False)
                raise ValueError("first")
            await s.wait()

        supervisor = Supervisor(Child.task("a", child), intensity=0, on_limit="stop")
        patched: Any = supervisor
        running: list[bool] = []
        patched._dismiss_sweeper = lambda: running.append(supervisor.branch.core.running)

        def restart(event: object) -> None:
            if isinstance(event, CrashLoop):
                supervisor.restart("a")
                assert not running

        s.world.events.subscribe(restart)  # type: ignore[attr-defined]
        start = asyncio.ensure_future(supervisor.start())
        await asyncio.gather(start, return_exceptions=True)
        await supervisor.stop()
        assert s.world.events.dropped == []  # type: ignore[attr-defined]

    told(story)


def test_a_restart_of_a_child_that_hangs_leaves_nobody_to_sweep() -> None:
    async def story(s: Story) -> None:
        posted: list[str] = []

        async def stubborn() -> None:
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(100)
                    return

        supervisor = Supervisor(Child.task("a", stubborn, stop=1.0))
        await supervisor.start()
        await supervisor.stop()
        assert supervisor.child("a").state == "stuck"
        supervisor._mark = "mark"
        patched: Any = supervisor

        def post(mark: str) -> None:
            posted.append(mark)

        def dismiss() -> None:
            posted.clear()

        patched._post_sweeper, patched._dismiss_sweeper = post, dismiss
        supervisor.restart("a")
        assert supervisor.state == "ended"
        assert not posted

    told(story)


def test_a_health_that_takes_no_name_more_is_told_before_a_child_is_started() -> None:
    async def story(s: Story) -> None:
        health = Health(max_checks=1)
        health.report("full", Status.OK)
        supervisor = Supervisor(Child.task("a", s.wait), health=health)
        with pytest.raises(ConfigError, match="max_checks"):
            await supervisor.start()
        await asyncio.sleep(1)
        assert supervisor.state == "new"
        health.forget("full")
        await supervisor.start()
        await supervisor.stop()

    told(story)


def test_a_health_that_takes_no_report_later_keeps_nobody_from_starting_a_child() -> None:
    async def story(s: Story) -> None:
        health = Health(max_checks=1)
        supervisor = Supervisor(
            Child.task("a", s.fails_after(1)), health=health, intensity=0, on_limit="stop"
        )
        await supervisor.start()
        await asyncio.sleep(2)
        health.forget("supervisor")
        health.report("other", Status.OK)
        supervisor.restart("a")
        assert supervisor.state == "running"
        await supervisor.stop()

    told(story)


def test_a_start_during_a_stop_starts_afterwards() -> None:
    async def story(s: Story) -> None:
        async def slow() -> None:
            try:
                await s.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(2)
                raise

        supervisor = Supervisor(Child.task("a", slow))
        await supervisor.start()
        stop = asyncio.ensure_future(supervisor.stop())
        await asyncio.sleep(1)
        await supervisor.start()
        await stop
        assert supervisor.state == "running"
        assert supervisor.child("a").state == "running"
        await supervisor.stop()

    told(story)


def test_a_start_after_a_failed_one_and_a_restart_stops_nothing() -> None:
    async def story(s: Story) -> None:
        broken = [True]

        async def child() -> None:
            if broken:
                raise ValueError("broken")
            await s.wait()

        one = Child.task("a", child, ready=lambda: not broken)
        supervisor = Supervisor(one, intensity=0, on_limit="stop")
        with pytest.raises(UnavailableError):
            await supervisor.start()
        broken.clear()
        supervisor.restart("a")
        await supervisor.start()
        assert supervisor.state == "running"
        await supervisor.stop()

    told(story)


def test_a_child_whose_start_falls_into_the_closing_of_the_loop_lets_stop_return() -> None:
    loop = asyncio.new_event_loop()
    runs: list[int] = []

    async def child() -> None:
        runs.append(1)
        await asyncio.sleep(3600)

    async def once() -> None:
        runs.append(2)

    supervisor = Supervisor(Child.task("a", child), Child.task("b", once, restart="temporary"))

    async def main() -> None:
        await supervisor.start()

    async def stops() -> bool:
        stop = asyncio.ensure_future(supervisor.stop())
        for _ in range(20):
            await asyncio.sleep(0)
        done = stop.done()
        stop.cancel()
        return done

    loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.call_soon(loop.stop)
    loop.call_soon(supervisor.restart, "b")  # its task is made, and never takes a step
    loop.run_forever()
    for task in asyncio.all_tasks(loop):  # as asyncio.run does
        task.cancel()
    assert loop.run_until_complete(stops())
    assert supervisor.state == "ended"
    loop.close()


def test_a_cancelled_main_gives_the_signal_handlers_back_though_cancelled_twice() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if stubborn_over:
                    raise

    stubborn_over: list[int] = []

    async def main() -> None:
        supervisor = Supervisor(Child.task("a", stubborn, ready=lambda: False))
        task = asyncio.ensure_future(supervisor.main())
        while supervisor.child("a").state != "starting" or not supervisor.branch.lives:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for _ in range(2):
            task.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
        stubborn_over.append(1)
        await asyncio.gather(task, return_exceptions=True)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        supervisor.kill()
        await supervisor.stop()

    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_child_that_may_not_be_signalled_is_given_up_and_not_waited_for() -> None:
    async def main() -> None:
        process: Any = object.__new__(host_spawn.Spawned)
        process.pid = 1 << 22
        process.ended = asyncio.get_running_loop().create_future()
        with pytest.MonkeyPatch.context() as patch:

            def refuse(*_: object) -> None:
                raise PermissionError

            patch.setattr(os, "kill", refuse)
            process.signal(signal.SIGTERM)

    asyncio.run(main())


@pytest.mark.parametrize("number", [0, -9, 4000])
def test_a_signal_that_there_is_not_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match="signal"):
        Grace(1.0, number)


@pytest.mark.parametrize("value", [inf, nan, 1e300])
def test_times_that_cannot_be_counted_are_refused(value: float) -> None:
    with pytest.raises(ConfigError):
        Supervisor(Child.task("a", asyncio.sleep), period=value)
    for name in ("period", "base", "cap"):
        with pytest.raises(ConfigError):
            RestartPolicy(**{name: value})  # type: ignore[arg-type]


def test_a_supervisor_that_is_refused_leaves_those_inside_free() -> None:
    first = Supervisor(Child.task("x", asyncio.sleep), name="first")
    taken = Supervisor(Child.task("x", asyncio.sleep), name="taken")
    Supervisor(taken, name="parent")
    with pytest.raises(ConfigError, match="parent already"):
        Supervisor(first, taken)
    Supervisor(first)


@pytest.mark.parametrize(
    "line", ['command = "sh -c \'x"', 'command = ["x"]\nstop_signal = "from_bytes"']
)
def test_a_wrong_command_or_signal_in_a_file_is_told_as_a_setting(line: str) -> None:
    with pytest.raises(ConfigError, match=r"children\.a"):
        read_supervisor(f"[children.a]\n{line}\n")


def test_a_process_that_nobody_can_watch_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Process:
        pid = 1 << 22

        def __init__(self, *_: object, **__: object) -> None:
            self.calls: list[str] = []
            made.append(self)

        def kill(self) -> None:
            self.calls.append("kill")

        def wait(self, *_: object) -> int:
            self.calls.append("wait")
            return -9

    def refuse(*_: object) -> Any:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        monkeypatch.setattr(subprocess, "Popen", Process)
        monkeypatch.setattr(host_spawn, "_setpriv", str)
        monkeypatch.setattr(host_spawn, "_open_descriptor", lambda _: -1)
        monkeypatch.setattr(host_spawn._crew, "run", refuse)
        with pytest.raises(RuntimeError):
            host_spawn.spawn(["true"], environment={})

    asyncio.run(main())
    assert made[0].calls == ["kill", "wait"]


def test_a_sweep_without_a_thread_is_made_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(host_spawn, "LINUX", True)
    monkeypatch.setattr(host_spawn._crew, "run", refuse)
    monkeypatch.setattr(sweeper, "end_all", lambda mark: len(mark))
    assert asyncio.run(host_spawn.sweep("abc")) == 3


@pytest.mark.parametrize("where", ["list", "read"])
def test_a_sweep_without_a_descriptor_looks_again(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    failures = [OSError(24, "too many open files")] * 2
    rests: list[float] = []
    killed: list[int] = []

    def listed(_: str) -> list[str]:
        if where == "list" and failures:
            raise failures.pop()
        return [] if killed else ["7"]

    def opened(*_: object, **__: object) -> Any:
        if where == "read" and failures:
            raise failures.pop()
        raise FileNotFoundError

    monkeypatch.setattr("os.listdir", listed)
    monkeypatch.setattr("time.sleep", rests.append)
    if where == "read":
        monkeypatch.setattr(sweeper, "open", opened, raising=False)
    else:
        monkeypatch.setattr(sweeper, "bears", lambda pid, mark: True)
    monkeypatch.setattr(sweeper, "_end", lambda pid, mark: killed.append(pid))
    assert sweeper.end_all("m") == (1 if where == "list" else 0)
    assert not failures
    assert len(rests) >= 2


class Lingering(Runner):
    """Ends as soon as it is asked; looking after what it left takes longer than its grace."""

    def __init__(self) -> None:
        self.stamp = [0]
        self.asked = asyncio.Event()

    @property
    def over(self) -> bool:
        return self.asked.is_set()

    def launch(self) -> None:
        """Nothing to start."""

    async def wait(self) -> Exit:
        await self.asked.wait()
        await asyncio.sleep(3)
        return Exit(True)

    def ask(self, grace: Grace) -> None:
        self.asked.set()

    def kill(self) -> bool:
        raise AssertionError("it has ended")


class Deaf:
    """Who is told of a life, and does nothing about it."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_a_child_that_ended_within_its_grace_was_not_forced() -> None:
    async def story(s: Story) -> None:
        child = Child.task("a", s.wait, stop=2.0)
        life = Life(
            Deaf(), s.world, Lingering(), index=0, instance=1, path="a", settings=child
        )  # fmt: skip
        await asyncio.sleep(1)
        life.stop()
        await asyncio.sleep(5)
        assert life.over
        assert not life.forced

    told(story)
