"""Supervised processes and threads on the real machine: what is noticed, what is left behind."""

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from outlast.detect import (
    Child,
    ChildAbandoned,
    ChildExited,
    ChildReady,
    ChildStarted,
    ChildStopped,
    ChildStuck,
    Grace,
    OrphansEnded,
    Ready,
    RestartBackoff,
    Stop,
    Supervisor,
    life,
)
from outlast.host import spawn as spawning
from outlast.host.sweeper import bears, end_all
from outlast.kernel import ConfigError
from tests.support import supervised
from tests.support.supervised import Heard

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

SECONDS = 120  # for anything that another process has to do; only reached on failure
WAIT = "import signal; signal.pause()"
QUICK = RestartBackoff(base=0.01, cap=0.05)
PY = (sys.executable, "-S", "-c")
# Starts a process that leaves the group and the session of its parent, and is nobody's child.
DAEMON = (
    "import os, subprocess, sys;"
    f"p = subprocess.Popen([{sys.executable!r}, '-S', '-c', {WAIT!r}], start_new_session=True);"
    "print('daemon', p.pid, '.', flush=True);"
)


def told(story: Callable[[Heard], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS):
            await story(Heard())

    asyncio.run(main())


@pytest.fixture(autouse=True)
def before() -> Iterator[set[int]]:
    """Processes that were there before, whoever started them; a test leaves none behind."""
    there = descendants()
    yield there
    assert descendants() <= there


def descendants() -> set[int]:
    return {one.pid for one in psutil.Process().children(recursive=True)}


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], Any]) -> Any:
    """Wait for what only another process can bring about; bounded by the story."""
    found = condition()
    while not found:
        await asyncio.sleep(0.01)
        found = condition()
    return found


async def word(path: Path, mark: str = ".") -> list[str]:
    """The words of a log, once ``mark`` stands in it."""
    found: str = await until(
        lambda: path.read_text() if path.exists() and mark in path.read_text() else ""
    )
    return found.split()


def start(program: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", program])


def command(name: str, code: str, **settings: Any) -> Child:
    return Child.command(name, [*PY, code], **settings)


def test_a_line_of_output_says_that_a_child_is_ready_and_the_last_lines_are_told() -> None:
    async def story(h: Heard) -> None:
        code = "print('listening on 80', flush=True);" + WAIT
        children = (
            command("a", code, ready="listening", output="keep"),
            command("b", "print('x' * 5000); print('bye'); raise SystemExit(3)",
                    output="keep", restart="temporary"),
        )  # fmt: skip
        async with Supervisor(*children, world=h.world):
            ended = await h.until(ChildExited)
            assert h.of(ChildReady)[0].child == "a"
            assert (ended.child, ended.code, ended.reason) == ("b", 3, "exited with 3")
            assert ended.lines == ("x" * 1000, "bye")
        assert h.of(ChildExited)[1].lines == ("listening on 80",)

    told(story)


def test_the_last_lines_are_found_in_a_log_file_and_only_those_of_this_instance(
    tmp_path: Path,
) -> None:
    async def story(h: Heard) -> None:
        log = tmp_path / "log"
        log.write_text("of another time\n")
        child = command(
            "a", "print('here', flush=True); print('last', flush=True);" + WAIT,
            output=str(log), ready="last", restart="temporary",
        )  # fmt: skip
        async with Supervisor(child, world=h.world):
            pass
        assert h.of(ChildExited)[0].lines == ("here", "last")

    told(story)


def test_output_can_be_kept_and_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    async def story(h: Heard) -> None:
        child = command("a", "print('to all', flush=True);" + WAIT, ready="to all")
        assert child.output == "tee"
        async with Supervisor(child, world=h.world):
            pass
        assert h.of(ChildExited)[0].lines == ("to all",)

    told(story)
    assert capfd.readouterr().out == "to all\n"


def test_a_function_runs_in_an_interpreter_of_its_own(tmp_path: Path) -> None:
    async def story(h: Heard) -> None:
        pids = tmp_path / "pids"
        child = Child.process(
            "worker", supervised.say_and_wait, args=("hello", str(pids)), output="keep",
            ready=Ready.line("hello"),
        )  # fmt: skip
        async with Supervisor(child, world=h.world) as supervisor:
            pid = supervisor.child("worker").pid
            assert pid not in {None, os.getpid()}
            assert int(pids.read_text()) == pid
        assert h.of(ChildExited)[0].lines == (f"hello {pid} ''",)

    told(story)


def test_a_function_that_raises_has_failed_and_one_that_exits_says_its_code() -> None:
    async def story(h: Heard) -> None:
        children = (
            Child.process("bad", supervised.fail, args=("oh",), output="keep",
                          restart="temporary"),
            Child.process("good", supervised.finish, args=(0,), output="keep",
                          restart="transient"),
        )  # fmt: skip
        supervisor = Supervisor(*children, world=h.world)
        await supervisor.start()
        await supervisor.ended()
        found = {event.child: event for event in h.of(ChildExited)}
        assert found["bad"].code == 1
        assert found["bad"].lines[-1] == "ValueError: oh"
        assert (found["good"].code, found["good"].lines) == (0, ("finished",))

    told(story)


def test_a_function_of_the_program_itself_is_found(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("""
import sys
from outlast.detect import Child, Supervisor

class Box:
    def __init__(self, text): self.text = text

def work(box):
    print("works", box.text, __name__, flush=True)

if __name__ == "__main__":
    child = Child.process("w", work, args=(Box("x"),), restart="transient")
    sys.exit(Supervisor(child).run())
""")
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (0, "works x __mp_main__\n"), done.stderr


def test_arguments_that_do_not_pickle_are_refused_at_the_start() -> None:
    async def story(h: Heard) -> None:
        lock = threading.Lock()
        child = Child.process("a", supervised.fail, args=(lock,))
        supervisor = Supervisor(command("b", WAIT), child, world=h.world)
        with pytest.raises(ConfigError, match="args cannot be pickled"):
            await supervisor.start()
        assert supervisor.child("b").state == "stopped"

    told(story)


def test_what_cannot_be_started_at_first_is_an_error_and_leaves_nothing(
    tmp_path: Path, before: set[int]
) -> None:
    async def story(h: Heard) -> None:
        bad = command("b", WAIT, directory=str(tmp_path / "missing"))
        supervisor = Supervisor(command("a", WAIT), bad, world=h.world)
        with pytest.raises(FileNotFoundError):
            await supervisor.start()
        assert [child.state for child in supervisor.children] == ["stopped", "stopped"]
        assert h.of(ChildExited)[0].code == 126
        assert descendants() <= before

    told(story)


def test_what_cannot_be_started_again_is_tried_again(tmp_path: Path) -> None:
    async def story(h: Heard) -> None:
        home = tmp_path / "home"
        home.mkdir()
        child = command("a", WAIT, directory=str(home))
        async with Supervisor(child, world=h.world, backoff=QUICK, intensity=100) as supervisor:
            home.rmdir()
            os.kill(supervisor.child("a").pid or 0, signal.SIGKILL)
            await until(lambda: "cannot be started" in supervisor.child("a").last_exit)
            home.mkdir()
            await until(lambda: supervisor.child("a").state == "running")

    told(story)


def test_a_stopped_process_is_noticed_and_started_again() -> None:
    async def story(h: Heard) -> None:
        child = Child.process(
            "a", supervised.stamp_for_ever, progress=0.5, ready=Ready.stamp(), output="keep"
        )
        # One that the machine holds up for half a second is started again, too.
        async with Supervisor(child, world=h.world, backoff=QUICK, intensity=1000) as supervisor:
            pid = await until(lambda: supervisor.child("a").pid)
            os.kill(pid, signal.SIGSTOP)
            (stuck,) = await until(lambda: [e for e in h.of(ChildStuck) if e.pid == pid])
            assert stuck.child == "a"
            assert stuck.seconds >= 0.5
            seen = len(h.of(ChildStuck))
            await h.until(ChildReady, seen + 1)
            assert not alive(pid)

    told(story)


def test_a_process_that_hangs_shows_where_before_it_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(life, "_ABORT_SECONDS", SECONDS)  # to write where it is takes its time

    async def story(h: Heard) -> None:
        child = Child.process(
            "a", supervised.stamp_once_and_hang, progress=0.2, ready=Ready.stamp(),
            output="keep", restart="temporary",
        )  # fmt: skip
        supervisor = Supervisor(child, world=h.world)
        await supervisor.start()
        ended = await h.until(ChildExited)
        assert ended.reason.startswith("no progress for ")
        assert ended.reason.endswith("killed by SIGABRT")
        assert any("in hang_here" in line for line in ended.lines)
        await supervisor.stop()

    told(story)


def test_a_child_that_ignores_the_signal_is_killed_after_its_grace() -> None:
    async def story(h: Heard) -> None:
        deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        child = command("a", deaf + "print('up', flush=True);" + WAIT + ";" + WAIT,
                        ready="up", output="keep", stop=0.1)  # fmt: skip
        async with Supervisor(child, world=h.world):
            pass
        (stopped,) = h.of(ChildStopped)
        assert stopped.forced
        assert stopped.seconds >= 0.1
        assert h.of(ChildExited)[0].reason == "killed by SIGKILL"

    told(story)


def test_another_signal_can_ask_a_child_to_stop() -> None:
    async def story(h: Heard) -> None:
        child = command("a", WAIT, stop=Grace(SECONDS, signal.SIGUSR1))
        async with Supervisor(child, world=h.world):
            pass
        assert h.of(ChildExited)[0].reason == "killed by SIGUSR1"

    told(story)


def test_what_has_left_the_group_of_a_child_ends_with_it(tmp_path: Path) -> None:
    async def story(h: Heard) -> None:
        log = tmp_path / "log"
        child = command("a", DAEMON + "raise SystemExit(1)", output=str(log), restart="temporary")
        other = command("b", WAIT)
        async with Supervisor(child, other, world=h.world) as supervisor:
            orphans = await h.until(OrphansEnded)
            assert (orphans.child, orphans.count) == ("a", 1)
            assert not alive(int((await word(log))[1]))
            assert alive(supervisor.child("b").pid or 0)

    told(story)


def test_nothing_outlives_a_killed_supervisor_not_even_what_has_left_the_group(
    tmp_path: Path,
) -> None:
    async def story(h: Heard) -> None:
        log = tmp_path / "log"
        program = f"""
from outlast.detect import Child, Supervisor
code = {DAEMON + WAIT!r}
Supervisor(Child.command("a", [{sys.executable!r}, "-S", "-c", code], output={str(log)!r})).run()
"""
        process = start(program)
        daemon = int((await word(log))[1])
        sweeper = await until(lambda: sweeper_of(process.pid))
        assert alive(daemon)
        process.kill()
        process.wait()
        await until(lambda: not alive(daemon))
        await until(lambda: not alive(sweeper))

    told(story)


def sweeper_of(pid: int) -> int:
    """The child that runs the sweeper's file; 0 as long as none has got so far."""
    for one in psutil.Process(pid).children():
        if any("sweeper" in word for word in one.cmdline()):
            return one.pid
    return 0


def test_only_what_bears_the_mark_is_ended() -> None:
    one, other = (
        subprocess.Popen([*PY, WAIT], env={"OUTLAST_SUPERVISED": mark})
        for mark in ("mine.1;", "mine.12;")
    )
    try:
        while not (bears(one.pid, "mine.1;") and bears(other.pid, "mine.12;")):
            time.sleep(0.005)
        assert end_all("mine.1;") == 1
        assert one.wait() == -signal.SIGKILL
        assert other.poll() is None
        assert not bears(1 << 22, "mine.1;")
    finally:
        other.kill()
        other.wait()


def test_a_supervised_supervisor_adds_its_mark_to_the_outer_one(tmp_path: Path) -> None:
    async def story(h: Heard) -> None:
        log = tmp_path / "log"
        show = "import os; print(os.environ['OUTLAST_SUPERVISED'], '.', flush=True)"
        child = command("a", show, output=str(log), restart="temporary",
                        environment={**os.environ, "OUTLAST_SUPERVISED": "outer.1;"})  # fmt: skip
        supervisor = Supervisor(child, world=h.world)
        await supervisor.start()
        await supervisor.ended()
        assert (await word(log, " ."))[0].startswith("outer.1;/")

    told(story)


def test_a_setpriv_that_does_not_answer_in_time_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hang(command: list[str], *, timeout: float, **more: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(spawning.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(spawning.subprocess, "run", hang)
    assert spawning._setpriv.__wrapped__() == ""


def test_a_thread_that_does_not_return_is_abandoned_and_holds_up_nothing() -> None:
    async def story(h: Heard) -> None:
        let_go = threading.Event()

        def deaf(stop: Stop) -> None:
            let_go.wait(SECONDS)

        def listens(stop: Stop) -> None:
            while not stop.wait(60):
                pass

        children = Child.thread("deaf", deaf, stop=0.1), Child.thread("good", listens)
        supervisor = Supervisor(*children, world=h.world)
        await supervisor.start()
        await supervisor.stop()
        (abandoned,) = h.of(ChildAbandoned)
        assert abandoned.child == "deaf"
        assert "let_go.wait" in abandoned.stack
        assert supervisor.child("deaf").state == "stuck"
        let_go.set()
        await until(lambda: supervisor.child("deaf").state == "stopped")

    told(story)


def test_without_setpriv_and_process_descriptors_it_works_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spawning, "_setpriv", lambda: "")
    monkeypatch.setattr(spawning, "_open_descriptor", lambda pid: -1)

    async def story(h: Heard) -> None:
        child = command("a", "print('up', flush=True);" + WAIT, ready="up", output="keep")
        async with Supervisor(child, world=h.world) as supervisor:
            os.kill(supervisor.child("a").pid or 0, signal.SIGKILL)
            await h.until(ChildReady, 2)
        assert [event.reason for event in h.of(ChildExited)] == [
            "killed by SIGKILL", "killed by SIGTERM",
        ]  # fmt: skip

    told(story)


PROGRAM = """
import sys
from outlast.detect import Child, Supervisor
deaf = "import signal; signal.signal(15, signal.SIG_IGN);"
stubborn = deaf + "print('up', flush=True); {wait}; {wait}"
stubborn = stubborn.replace("signal.SIG_IGN", "lambda *_: print('asked', flush=True)")
plain = "print('up', flush=True); {wait}"
children = [Child.command(n, [sys.executable, "-S", "-c", c], ready="up", stop={grace})
            for n, c in (("a", plain), ("b", {second}))]
sys.exit(Supervisor(*children).run())
"""


def serve(second: str, grace: float) -> "subprocess.Popen[str]":
    text = PROGRAM.format(wait=WAIT, second=second, grace=grace)
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in "ab"] == ["up\n", "up\n"]
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_stops_everything_in_order(number: int, code: int) -> None:
    with serve("plain", SECONDS) as process:
        left = psutil.Process(process.pid).children(recursive=True)
        assert len(left) == 3  # two children and the sweeper
        process.send_signal(number)
        assert process.wait(SECONDS) == code
        assert not [one for one in left if alive(one.pid)]


def test_a_second_signal_kills_at_once() -> None:
    with serve("stubborn", 10 * SECONDS) as process:
        left = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"  # or both might arrive as one
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert not [one for one in left if alive(one.pid)]


def test_a_program_whose_restarts_do_not_help_ends_with_1() -> None:
    text = (
        "import sys; from outlast.detect import Child, Supervisor;"
        "sys.exit(Supervisor(Child.command('a', ['false']), on_limit='stop', intensity=1).run())"
    )
    done = subprocess.run([sys.executable, "-c", text], timeout=SECONDS, check=False)
    assert done.returncode == 1


def test_stopping_at_any_moment_of_a_start_leaves_no_process(before: set[int]) -> None:
    async def story(h: Heard) -> None:
        for turns in (0, 1, 2, 3, 5, 8):
            children = [command(name, WAIT) for name in "ab"]
            supervisor = Supervisor(*children, world=h.world)
            start = asyncio.create_task(supervisor.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            start.cancel()
            await asyncio.wait([start])
            await supervisor.stop()
        assert descendants() <= before
        assert len(h.of(ChildStarted)) == len(h.of(ChildExited))

    told(story)


def test_the_command_supervises_a_file_and_says_what_happens(tmp_path: Path) -> None:
    (tmp_path / "tree.toml").write_text("""
[children.web]
command = ["python3", "-S", "-c", "print('up', flush=True); import signal; signal.pause()"]
ready = "up"
output = "keep"
[children.job]
command = ["python3", "-S", "-c", "print('oh no'); raise SystemExit(3)"]
restart = "temporary"
output = "keep"
""")
    with subprocess.Popen(
        [sys.executable, "-m", "outlast", "supervise", "tree.toml"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = [process.stderr.readline() for _ in range(4)]
        assert said[0].startswith("web: runs as pid ")
        assert said[1].startswith("job: runs as pid ")
        assert said[2:] == ["job: exited with 3\n", "  | oh no\n"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert process.stderr.read() == "web: killed by SIGTERM\n"


def test_the_command_ends_with_1_when_restarts_do_not_help(tmp_path: Path) -> None:
    (tmp_path / "tree.toml").write_text("""
[supervisor]
on_limit = "stop"
intensity = 1
[children.bad]
command = ["false"]
""")
    done = subprocess.run(
        [sys.executable, "-m", "outlast", "supervise", "tree.toml", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert '"event": "SupervisorEscalated"' in done.stdout.splitlines()[-1]


def test_the_end_of_the_loop_ends_all_children_whoever_holds_the_supervisor(
    before: set[int],
) -> None:
    pids: list[int] = []

    async def hold(h: Heard) -> None:
        inner = Supervisor(command("x", WAIT), Child.task("y", asyncio.Event().wait), name="inner")
        async with Supervisor(command("a", DAEMON + WAIT), inner, world=h.world) as supervisor:
            pids.extend(supervisor.child(name).pid or 0 for name in ("a", "inner/x"))
            await asyncio.Event().wait()

    async def main() -> None:
        h = Heard()
        holder = asyncio.create_task(hold(h))
        await until(lambda: pids)
        assert all(alive(pid) for pid in pids)
        assert not holder.done()
        # The loop is closed now, which cancels every task at the same time.

    asyncio.run(main())
    assert not any(alive(pid) for pid in pids)
    assert descendants() <= before


def test_the_end_of_the_loop_in_the_middle_of_a_start_ends_what_was_started(
    before: set[int],
) -> None:
    async def main() -> None:
        children = command("a", WAIT), command("b", WAIT, ready="never")
        start = asyncio.create_task(Supervisor(*children).start())
        await until(lambda: len(descendants() - before) >= 3)  # with the sweeper
        assert not start.done()

    asyncio.run(main())
    assert descendants() <= before


def test_a_function_is_found_by_its_file_if_its_module_is_on_no_path(tmp_path: Path) -> None:
    file = tmp_path / "off_the_path.py"
    file.write_text("def work():\n    print('worked', flush=True)\n")
    spec = importlib.util.spec_from_file_location("off_the_path", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["off_the_path"] = module
    spec.loader.exec_module(module)

    async def story(h: Heard) -> None:
        child = Child.process("w", module.work, output="keep", restart="temporary")
        supervisor = Supervisor(child, world=h.world)
        await supervisor.start()
        await supervisor.ended()
        assert h.of(ChildExited)[0].lines == ("worked",)

    try:
        told(story)
    finally:
        del sys.modules["off_the_path"]
