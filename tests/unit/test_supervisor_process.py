"""The supervisor with real short processes: restarts, crash loops, order, and no orphans."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from outlast.detect import (
    Child,
    ChildExited,
    ChildRestarting,
    ChildStarted,
    CrashLoop,
    RestartPolicy,
    Supervisor,
)
from outlast.host import make_world
from outlast.host.process import start_process
from outlast.kernel import ConfigError, Event, World

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

WAIT = "import signal; signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('set', flush=True);"
    "signal.pause(); signal.pause(); signal.pause()"
)
QUICK = RestartPolicy(base=0.01, cap=0.01, intensity=3, period=60.0)


def spec(name: str, code: str = WAIT, **given: Any) -> Child:
    line = (sys.executable, "-S", "-c", code)
    return Child.command(name, line, **{"policy": QUICK, **given})


class Story:
    """A world whose events can be awaited."""

    def __init__(self) -> None:
        self.world: World = make_world(seed=1)
        self.events: list[Event] = []
        self._more = asyncio.Event()
        self.world.events.subscribe(self._hear)  # type: ignore[attr-defined]

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    def of(self, kind: type[Event]) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind)]

    async def until(self, kind: type[Event], count: int) -> list[Any]:
        while len(self.of(kind)) < count:
            self._more.clear()
            await self._more.wait()
        return self.of(kind)


def run(story: Callable[[Story], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(100):
            await story(Story())

    asyncio.run(main())


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], bool]) -> int:
    """Wait for what only another process can bring about; bounded by the story."""
    looks = 1
    while not condition():
        await asyncio.sleep(0.01)
        looks += 1
    return looks


async def written(path: Path, text: str) -> None:
    await until(lambda: path.exists() and text in path.read_text())


def test_a_killed_child_is_started_again() -> None:
    async def story(s: Story) -> None:
        supervisor = Supervisor(spec("a"), world=s.world)
        await supervisor.start()
        child = supervisor.child("a")
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        started = await s.until(ChildStarted, 2)
        assert child.state == "running"
        assert child.pid == started[1].pid != first
        assert child.restarts == started[1].restarts == 1
        assert s.of(ChildExited)[0].reason == child.last_exit == "killed by SIGKILL"
        assert s.of(ChildRestarting)[0].count == 1
        await supervisor.stop()
        assert child.state == "stopped"
        assert not alive(started[1].pid)

    run(story)


def test_a_child_that_keeps_failing_is_given_up_and_can_be_restarted(tmp_path: Path) -> None:
    async def story(s: Story) -> None:
        log = tmp_path / "log"
        bad = spec("bad", "print('no'); raise SystemExit(3)", output=str(log))
        supervisor = Supervisor(spec("good"), bad, world=s.world)
        await supervisor.start()
        await supervisor.ended()
        status = supervisor.child("bad")
        assert status.state == "crash-loop"
        assert status.last_exit == "exited with 3"
        assert log.read_text() == "no\n" * 4
        (loop,) = s.of(CrashLoop)
        assert (loop.child, loop.count, loop.reason) == ("bad", 4, "exited with 3")
        assert supervisor.child("good").state == "running"
        supervisor.restart("bad")
        await s.until(CrashLoop, 2)
        await supervisor.stop()

    run(story)


def test_children_that_have_done_their_work_end_the_supervision() -> None:
    async def story(s: Story) -> None:
        once = RestartPolicy(restart="transient", base=0.01, cap=0.01)
        supervisor = Supervisor(spec("job", "pass", policy=once), world=s.world)
        await supervisor.start()
        await supervisor.ended()
        assert supervisor.child("job").state == "done"
        assert len(s.of(ChildStarted)) == 1
        await supervisor.stop()

    run(story)


def test_a_command_that_does_not_exist_says_so(tmp_path: Path) -> None:
    async def story(s: Story) -> None:
        log = tmp_path / "log"
        never = RestartPolicy(restart="temporary")
        child = Child.command("x", ["no-such-program-here"], policy=never, output=str(log))
        supervisor = Supervisor(child, world=s.world)
        await supervisor.start()
        await supervisor.ended()
        assert s.of(ChildExited)[0].code == 127
        assert log.read_text() == "no-such-program-here: No such file or directory\n"

    run(story)


def test_children_stop_in_reverse_order_and_the_stubborn_are_killed(tmp_path: Path) -> None:
    async def story(s: Story) -> None:
        log = tmp_path / "log"
        specs = [spec("one"), spec("two", STUBBORN, stop=0.2, output=str(log)), spec("three")]
        supervisor = Supervisor(*specs, world=s.world)
        await supervisor.start()
        await written(log, "set")
        await supervisor.stop()
        ends = [(e.child, e.reason) for e in s.of(ChildExited)]
        assert [name for name, _ in ends] == ["three", "two", "one"]
        assert ends[1] == ("two", "killed by SIGKILL")
        assert s.of(ChildRestarting) == []
        assert [c.state for c in supervisor.children] == ["stopped"] * 3

    run(story)


def test_what_a_child_started_dies_with_it(tmp_path: Path) -> None:
    async def story(s: Story) -> None:
        log = tmp_path / "log"
        code = (
            "import subprocess, sys;"
            f"p = subprocess.Popen([sys.executable, '-S', '-c', {WAIT!r}]);"
            "print('grandchild', p.pid, '.', flush=True);" + WAIT
        )
        supervisor = Supervisor(spec("a", code, output=str(log)), world=s.world)
        await supervisor.start()
        await written(log, ".")
        grandchild = int(log.read_text().split()[1])
        assert alive(grandchild)
        await supervisor.stop()
        await until(lambda: not alive(grandchild))

    run(story)


def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    async def story(s: Story) -> None:
        log = tmp_path / "log"
        program = f"""
import asyncio, signal, sys
from outlast.detect import Child, Supervisor
from outlast.host import make_world
async def main():
    world = make_world()
    command = (sys.executable, "-S", "-c", "print('up', flush=True); {WAIT}")
    out = {str(tmp_path)!r} + "/"
    children = [Child.command(n, command, output=out + n) for n in ("a", "b")]
    supervisor = Supervisor(*children, world=world)
    await supervisor.start()
    print(*(c.pid for c in supervisor.children), ".", flush=True)
    await supervisor.ended()
asyncio.run(main())
"""
        process = await start_process((sys.executable, "-c", program), log=str(log))
        for child in "ab":  # both are past their start and only wait
            await written(tmp_path / child, "up")
        await written(log, ".")
        pids = [int(word) for word in log.read_text().split()[:2]]
        assert all(alive(pid) for pid in pids)
        os.kill(process.pid, signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        await until(lambda: not any(alive(pid) for pid in pids))

    run(story)


def test_stopping_while_a_restart_waits_starts_nothing() -> None:
    async def story(s: Story) -> None:
        patient = RestartPolicy(base=1000.0, cap=1000.0)
        supervisor = Supervisor(spec("a", "raise SystemExit(1)", policy=patient), world=s.world)
        await supervisor.start()
        await s.until(ChildRestarting, 1)
        await supervisor.stop()
        assert supervisor.child("a").state == "stopped"
        assert len(s.of(ChildStarted)) == 1

    run(story)


def test_stopping_at_any_moment_of_a_restart_leaves_no_process() -> None:
    me = psutil.Process()
    others = set(me.children(recursive=True))  # of tests before this one

    async def story(s: Story) -> None:
        endless = RestartPolicy(base=1e-6, cap=1e-6, intensity=10_000)
        for turns in range(0, 40, 4):
            supervisor = Supervisor(spec("a", WAIT, policy=endless), world=s.world)
            await supervisor.start()
            pid = supervisor.child("a").pid
            assert pid is not None
            before = len(s.of(ChildExited))
            os.kill(pid, signal.SIGKILL)
            await s.until(ChildExited, before + 1)
            for _ in range(turns):
                await asyncio.sleep(0)
            await supervisor.stop()
        assert set(me.children(recursive=True)) <= others

    run(story)


def test_names_are_checked() -> None:
    with pytest.raises(ConfigError, match="two children are named 'a'"):
        Supervisor(spec("a"), spec("a"))
    with pytest.raises(ConfigError, match="children: a"):
        Supervisor(spec("a")).child("b")
    with pytest.raises(ConfigError, match="a list of program and arguments"):
        Child.command("a", ())
