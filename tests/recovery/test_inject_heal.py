"""Heal: what a dead drill left is gone, what is alive or not ours is not touched.

Drills here are real processes that are killed; heal is killed too, at its first step, its second,
and so on until none is left, and then run to the end.
"""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outlast.host import make_world
from outlast.inject import (
    Continue,
    HealReport,
    Journal,
    KillMarked,
    ProcessId,
    RemoveFile,
    RemoveTree,
    Unmount,
    heal,
    identify,
    is_alive,
)
from outlast.inject.core.undo import Header, drill_id, header_line, read_journal, undo_line
from outlast.inject.identity import is_stopped, marked, send
from outlast.inject.place import boot_word, open_place
from outlast.kernel import ConfigError, World

pytestmark = pytest.mark.process

DRILL = """
import os, signal, subprocess, sys, time
from outlast.host import make_world
from outlast.inject import Continue, Journal, RemoveFile, identify
journal = Journal.open(make_world(), directory=sys.argv[1])
environment = {**os.environ, **journal.environment}
sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
nodes = [subprocess.Popen(sleep, env=environment, start_new_session=True) for _ in range(3)]
stopped = identify(nodes[2].pid)
journal.before(Continue((stopped,)))
os.kill(nodes[2].pid, signal.SIGSTOP)
data = journal.make_directory(parent=sys.argv[2])
os.makedirs(data + "/n1/log")
for name in ("n1/log/1", "n1/log/2", "n2"):
    open(f"{data}/{name}", "w").write("x")
open(data + "/sock", "w").close()
journal.before(RemoveFile(data + "/sock"))
print(journal.drill, data, *(node.pid for node in nodes), flush=True)
time.sleep(60)
"""


class Drill:
    """A drill with three nodes, one of them stopped, and a directory."""

    def __init__(self, tmp_path: Path) -> None:
        self.state = str(tmp_path / "state")
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRILL, self.state, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.id, self.data, *pids = self.process.stdout.readline().split()
        self.nodes = [identify(int(pid)) for pid in pids]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)

    def close(self) -> None:
        self.kill()
        for node in self.nodes:
            send(node, signal.SIGKILL)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def nothing_is_left(self) -> bool:
        return (
            not any(map(is_alive, self.nodes))
            and not marked(self.id)
            and not os.path.exists(self.data)
            and os.listdir(self.state) == []
        )


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    made = Drill(tmp_path)
    yield made
    made.close()


def run_heal(place: str, world: World | None = None) -> HealReport:
    return heal(world or make_world(), directories=[place])


def wait_for(holds, what: str) -> None:
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.01)


# --- the whole story ---------------------------------------------------------------------------


def test_what_a_killed_drill_left_is_gone_after_heal(drill):
    drill.kill()
    assert all(map(is_alive, drill.nodes)), "otherwise this test shows nothing"
    report = run_heal(drill.state)
    assert report.clean
    assert {step.outcome for step in report.steps} <= {"done", "nothing"}
    assert drill.nothing_is_left()
    assert run_heal(drill.state).steps == ()


def test_a_drill_that_is_alive_is_left_alone(drill):
    report = run_heal(drill.state)
    assert report.steps == ()
    (living,) = report.alive
    assert (living.drill, living.pid) == (drill.id, drill.process.pid)
    assert f"remove directory {drill.data}" in living.open
    assert all(map(is_alive, drill.nodes))
    assert is_stopped(drill.nodes[2])
    assert os.path.exists(drill.data + "/n1/log/1")


def test_healing_a_dead_drill_leaves_the_processes_of_a_living_one(drill, tmp_path):
    other = Drill(tmp_path)
    try:
        other.kill()
        assert run_heal(drill.state).clean
        assert all(map(is_alive, drill.nodes))
        assert not any(map(is_alive, other.nodes))
        assert os.path.exists(drill.data)
    finally:
        other.close()


class Killed(BaseException):
    """Stands for SIGKILL at a fault point: nothing after it runs, as there is no handler."""


class KillAt:
    """Fault points that end heal at the n-th."""

    def __init__(self, number: int) -> None:
        self.left = number

    def fault_point(self, name: str) -> None:
        if not name.startswith("inject.heal."):
            return
        self.left -= 1
        if self.left < 0:
            raise Killed(name)


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_heal_that_is_killed_at_any_step_is_finished_by_the_next(tmp_path):
    number = 0
    while True:
        drill = Drill(tmp_path)
        drill.kill()
        try:
            ended = False
            try:
                run_heal(drill.state, replace(make_world(), faults=KillAt(number)))
                ended = True
            except Killed:
                pass
            report = run_heal(drill.state)
            assert report.clean, f"killed at step {number}: {report.steps}"
            assert drill.nothing_is_left(), f"killed at step {number}"
        finally:
            drill.close()
        if ended:
            break
        number += 1
    assert number > 10


def test_heal_killed_for_real_is_finished_by_the_next(drill):
    program = (
        "import os, signal, sys\n"
        "from dataclasses import replace\n"
        "from outlast.host import make_world\n"
        "from outlast.inject import heal\n"
        "class Kill:\n"
        "    def fault_point(self, name):\n"
        "        if name == 'inject.heal.entry':\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "heal(replace(make_world(), faults=Kill()), directories=[sys.argv[1]])\n"
    )
    drill.kill()
    done = subprocess.run([sys.executable, "-c", program, drill.state], check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.path.exists(drill.data)
    assert run_heal(drill.state).clean
    assert drill.nothing_is_left()


def test_a_drill_killed_at_any_step_of_its_start_leaves_nothing_after_heal(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from dataclasses import replace\n"
        "from outlast.host import make_world\n"
        "from outlast.inject import Journal\n"
        "class Kill:\n"
        "    left = int(sys.argv[3])\n"
        "    def fault_point(self, name):\n"
        "        self.left -= 1\n"
        "        if self.left < 0:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "journal = Journal.open(replace(make_world(), faults=Kill()), directory=sys.argv[1])\n"
        "data = journal.make_directory(parent=sys.argv[2])\n"
    )
    state = str(tmp_path / "state")
    for number in range(10):
        done = subprocess.run(
            [sys.executable, "-c", program, state, str(tmp_path), str(number)], check=False
        )
        if done.returncode == 0:
            break
        for name in os.listdir(state):  # as if a minute had passed
            os.utime(os.path.join(state, name), (0, 0))
        assert run_heal(state).clean
        assert os.listdir(state) == []
        assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert number > 2


def test_a_directory_without_its_mark_yet_is_removed_if_it_is_empty(tmp_path):
    state, path = _dead_journal(tmp_path, "data")
    path.mkdir()
    assert run_heal(state).clean
    assert not path.exists()


def test_a_closed_journal_leaves_no_file_and_kills_what_is_left(tmp_path):
    journal = Journal.open(make_world(), directory=str(tmp_path / "state"))
    node = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env={**os.environ, **journal.environment},
    )
    wait_for(lambda: marked(journal.drill) != [], "the node started")
    data = journal.make_directory(parent=str(tmp_path))
    kept = journal.make_directory("kept", parent=str(tmp_path))
    journal.keep(kept)
    steps = journal.undo()
    assert all(step.over for step in steps)
    assert node.wait(5) == -signal.SIGKILL
    journal.close()
    journal.close()
    assert not os.path.exists(data)
    assert os.path.exists(kept)
    assert os.listdir(tmp_path / "state") == []


def test_a_journal_with_open_undos_stays_for_heal_when_it_is_closed(tmp_path):
    journal = Journal.open(make_world(), directory=str(tmp_path / "state"))
    journal.make_directory(parent=str(tmp_path))
    journal.close()
    assert os.path.exists(journal.path)
    with pytest.raises(ConfigError, match="is closed"):
        journal.make_directory("more", parent=str(tmp_path))


# --- torn, damaged and hostile journals --------------------------------------------------------


def _dead_owner() -> ProcessId:
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    owner = identify(child.pid)
    child.communicate(b"\n", timeout=10)
    return owner


def _dead_journal(tmp_path: Path, *names: str, more: bytes = b"") -> tuple[str, Path]:
    """Write the journal of a drill that is dead; return its place and the first directory."""
    state = open_place(str(tmp_path / "state"))
    owner = _dead_owner()
    drill = drill_id(owner, 5)
    text = header_line(Header(drill, owner, boot_word(), 0))
    first = tmp_path / f"outlast-drill-{drill}-{names[0] if names else 'data'}"
    for number, name in enumerate(names, 1):
        text += undo_line(number, RemoveTree(str(tmp_path / f"outlast-drill-{drill}-{name}")))
    path = Path(state) / f"{drill}.journal"
    path.write_bytes(text + more)
    path.chmod(0o600)
    return state, first


def _dead_with(tmp_path: Path, undo) -> str:
    state, _ = _dead_journal(tmp_path, more=undo_line(1, undo))
    return state


def test_a_torn_last_line_is_no_damage(tmp_path):
    state, path = _dead_journal(tmp_path, "data", more=b'0badc0de {"undo":2,"do"')
    path.mkdir()
    with pytest.raises(Killed):  # heal itself writes behind the torn line, and is read again
        run_heal(state, replace(make_world(), faults=KillAt(4)))
    assert run_heal(state).clean
    assert not path.exists()
    assert os.listdir(state) == []


def test_a_line_that_a_full_disk_cut_short_does_not_damage_the_next(tmp_path, monkeypatch):
    journal = Journal.open(make_world(), directory=str(tmp_path / "state"))
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) <= 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, bytes(data)[: len(data) - 20])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        journal.before(RemoveTree(str(tmp_path / f"outlast-drill-{journal.drill}-lost")))
    monkeypatch.setattr(os, "write", write)
    kept = RemoveTree(str(tmp_path / f"outlast-drill-{journal.drill}-kept"))
    journal.before(kept)
    text = read_journal(Path(journal.path).read_bytes(), journal.path)
    assert text is not None
    assert text.damage == ()
    assert [undo for _, undo in text.open] == [KillMarked(), kept]
    assert all(step.over for step in journal.undo())
    journal.close()


def test_damage_elsewhere_is_named_and_hides_nothing(tmp_path):
    state, first = _dead_journal(tmp_path, "a", "b")
    (journal,) = Path(state).iterdir()
    second = Path(str(first).removesuffix("-a") + "-b")
    for each in (first, second):
        each.mkdir()
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"RemoveTree", b"removeTree")
    journal.write_bytes(b"".join(lines))
    report = run_heal(state)
    assert not report.clean
    (bad,) = [step for step in report.steps if not step.over]
    assert bad.outcome == "refused"
    assert f"{journal}:2: the line is damaged" in bad.detail
    assert first.exists()
    assert not second.exists()
    assert journal.exists()


@pytest.mark.parametrize(
    "path",
    [
        "{tmp}/precious",
        "{tmp}/outlast-drill-0-data",
        "{tmp}/link/outlast-drill-{id}-data",
        "{tmp}/outlast-drill-{id}-data/inner",
    ],
)
def test_a_directory_that_the_drill_did_not_make_is_not_removed(tmp_path, path):
    owner = _dead_owner()
    drill = drill_id(owner, 5)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    target = Path(path.format(tmp=tmp_path, id=drill))
    target.mkdir(parents=True)
    (target / "file").write_text("x")
    state = _write(tmp_path, owner, drill, undo_line(1, RemoveTree(str(target))))
    report = run_heal(state)
    assert [step.outcome for step in report.steps] == ["refused"]
    assert (target / "file").exists()


def _write(tmp_path: Path, owner: ProcessId, drill: str, more: bytes) -> str:
    state = open_place(str(tmp_path / "state"))
    path = Path(state) / f"{drill}.journal"
    path.write_bytes(header_line(Header(drill, owner, boot_word(), 0)) + more)
    path.chmod(0o600)
    return state


def test_a_directory_with_files_and_no_mark_is_not_removed(tmp_path):
    state, path = _dead_journal(tmp_path, "data")
    path.mkdir()
    (path / "file").write_text("x")
    (step,) = run_heal(state).steps
    assert step.outcome == "refused"
    assert "no .outlast-drill of the drill" in step.detail
    assert (path / "file").exists()


def test_links_in_a_directory_are_removed_and_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    state, path = _dead_journal(tmp_path, "data")
    path.mkdir()
    (path / ".outlast-drill").write_text(path.name.split("-")[2])
    (path / "link").symlink_to(precious)
    (path / "deep").mkdir()
    (path / "deep" / "link").symlink_to(precious)
    assert run_heal(state).clean
    assert (precious / "file").exists()
    assert not path.exists()


def test_a_file_outside_or_behind_a_link_is_not_removed(tmp_path):
    owner = _dead_owner()
    drill = drill_id(owner, 5)
    precious = tmp_path / "precious"
    precious.write_text("x")
    inside = tmp_path / f"outlast-drill-{drill}-data"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    lines = undo_line(1, RemoveFile(str(precious)))
    lines += undo_line(2, RemoveFile(str(inside / "link" / "precious")))
    lines += undo_line(3, Unmount("/proc"))
    report = run_heal(_write(tmp_path, owner, drill, lines))
    assert [step.outcome for step in report.steps] == ["refused"] * 3
    assert precious.exists()
    assert os.path.ismount("/proc")


def test_a_journal_cannot_claim_the_id_of_another_drill(drill, tmp_path):
    """Else it could have the processes of a living drill killed."""
    owner = _dead_owner()
    place = open_place(str(tmp_path / "other"))
    path = Path(place) / f"{drill.id}.journal"
    path.write_bytes(header_line(Header(drill.id, owner, boot_word(), 0)))
    path.chmod(0o600)
    (step,) = run_heal(place).steps
    assert step.outcome == "refused"
    assert "is not one of pid" in step.detail
    assert all(map(is_alive, drill.nodes))


def test_a_journal_under_another_name_is_refused(tmp_path):
    state, _ = _dead_journal(tmp_path, "data")
    (path,) = Path(state).iterdir()
    path.rename(path.with_name("other.journal"))
    (step,) = run_heal(state).steps
    assert step.outcome == "refused"
    assert "remove it by hand" in step.detail


@pytest.mark.parametrize("kind", ["link", "writable", "directory", "fifo", "empty", "noise"])
def test_what_is_not_a_journal_of_ours_is_refused_and_named(tmp_path, kind):
    state, _ = _dead_journal(tmp_path, "data")
    (good,) = Path(state).iterdir()
    path = Path(state) / "x.journal"
    if kind == "link":
        path.symlink_to(good)
    elif kind == "writable":
        path.write_bytes(good.read_bytes())
        path.chmod(0o622)
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "empty":
        path.touch(0o600)
    else:
        path.write_bytes(os.urandom(500) + b"\n")
        path.chmod(0o600)
    report = run_heal(state)
    (bad,) = [step for step in report.steps if not step.over]
    assert bad.outcome == "refused"
    assert "x.journal" in bad.detail
    assert not good.exists(), "a bad neighbour does not keep a good journal from being healed"


def test_a_place_that_others_can_enter_is_refused(tmp_path):
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        Journal.open(make_world(), directory=str(place))
    (step,) = run_heal(str(place)).steps
    assert step.outcome == "refused"
    link = tmp_path / "link"
    place.chmod(0o700)
    link.symlink_to(place)
    with pytest.raises(ConfigError, match="symbolic link"):
        Journal.open(make_world(), directory=str(link))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_a_place_of_somebody_else_is_refused(tmp_path):
    place = tmp_path / "theirs"
    place.mkdir(0o700)
    os.chown(place, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to uid 12345"):
        Journal.open(make_world(), directory=str(place))


def test_the_journal_and_its_place_are_private(tmp_path):
    journal = Journal.open(make_world(), directory=str(tmp_path / "state"))
    assert stat.S_IMODE(os.stat(journal.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tmp_path / "state").st_mode) == 0o700
    journal.close()


def test_pids_of_before_a_restart_of_the_system_are_not_touched(tmp_path):
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
    try:
        process = identify(child.pid)
        os.kill(child.pid, signal.SIGSTOP)
        wait_for(lambda: is_stopped(process), "stopped")
        state = open_place(str(tmp_path / "state"))
        owner = identify(os.getpid())  # alive under the same number: still another boot's
        drill = drill_id(owner, 5)
        text = header_line(Header(drill, owner, "another-boot/pid:[1]", 0))
        path = Path(state) / f"{drill}.journal"
        path.write_bytes(text + undo_line(1, Continue((process,))))
        path.chmod(0o600)
        (step,) = run_heal(state).steps
        assert step.outcome == "nothing"
        assert is_stopped(process)
    finally:
        child.kill()
        child.wait(5)


def test_a_journal_of_another_pid_namespace_is_left_alone(tmp_path):
    state = open_place(str(tmp_path / "state"))
    owner = _dead_owner()
    drill = drill_id(owner, 5)
    boot = boot_word().partition("/")[0] + "/pid:[1]"
    path = Path(state) / f"{drill}.journal"
    path.write_bytes(header_line(Header(drill, owner, boot, 0)))
    path.chmod(0o600)
    report = run_heal(state)
    assert report.steps == ()
    assert "another pid namespace" in report.alive[0].why


def test_two_heals_do_not_work_on_one_journal(tmp_path):
    import fcntl

    state, _ = _dead_journal(tmp_path, "data")
    (path,) = Path(state).iterdir()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        report = run_heal(state)
    assert report.steps == ()
    assert report.alive[0].why == "another heal works on it"


# --- the command -------------------------------------------------------------------------------


def outlast(*arguments: str, state: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "outlast", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
        env={**os.environ, "OUTLAST_STATE": state},
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_cleans_up_and_says_what_it_did(drill):
    drill.kill()
    code, out, err = outlast("heal", state=drill.state)
    assert (code, err) == (0, "")
    assert "kill the drill's processes" in out
    assert drill.nothing_is_left()
    code, out, _ = outlast("heal", state=drill.state)
    assert (code, out) == (0, "nothing to heal\n")


def test_the_command_says_in_json_what_it_did(drill):
    drill.kill()
    code, out, _ = outlast("heal", "--json", state=drill.state)
    report = json.loads(out)
    assert code == 0
    assert report["schema"] == 1
    assert report["clean"] is True
    assert {step["outcome"] for step in report["steps"]} <= {"done", "nothing"}


def test_the_command_names_what_it_could_not_undo_and_exits_1(tmp_path):
    state = _dead_with(tmp_path, RemoveTree(str(tmp_path / "precious")))
    (tmp_path / "precious").mkdir()
    code, out, _ = outlast("heal", state=state)
    assert code == 1
    assert f"remove directory {tmp_path}/precious" in out
    assert "refused" in out


def test_the_command_shows_living_drills_if_asked(drill):
    code, out, _ = outlast("heal", state=drill.state)
    assert (code, out) == (0, "nothing to heal\n")
    code, out, _ = outlast("heal", "--all", state=drill.state)
    assert code == 0
    assert f"pid {drill.process.pid}" in out
    assert all(map(is_alive, drill.nodes))


# --- planted bugs ------------------------------------------------------------------------------


def test_a_heal_that_does_not_ask_whether_the_drill_lives_is_noticed(drill, monkeypatch):
    from outlast.inject import heal as module

    monkeypatch.setattr(sys.modules["outlast.inject.heal"], "_why_alive", lambda text: "")
    assert callable(module)
    with pytest.raises(AssertionError):
        test_a_drill_that_is_alive_is_left_alone(drill)


def test_a_heal_that_forgets_stopped_processes_is_noticed(drill, monkeypatch):
    undoing = sys.modules["outlast.inject.undoing"]
    monkeypatch.setattr(
        undoing, "marked", lambda drill_: [p for p in marked(drill_) if not is_stopped(p)]
    )
    with pytest.raises(AssertionError):
        test_what_a_killed_drill_left_is_gone_after_heal(drill)


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_heal_that_notes_a_step_before_it_is_done_is_noticed(tmp_path, monkeypatch):
    module = sys.modules["outlast.inject.heal"]
    real = module.carry_out
    drills: list[Drill] = []

    def early(world, drill, undo):
        for path in (tmp_path / "state").iterdir():
            text = module.read_journal(path.read_bytes(), "j")
            (number,) = [each for each, other in text.open if other == undo]
            with path.open("ab") as file:
                file.write(module.done_line(number))
        return real(world, drill, undo)

    class Noted(Drill):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            drills.append(self)

    monkeypatch.setattr(module, "carry_out", early)
    monkeypatch.setattr(sys.modules[__name__], "Drill", Noted)
    with pytest.raises(AssertionError, match="killed at step"):
        test_heal_that_is_killed_at_any_step_is_finished_by_the_next(tmp_path)
    assert drills
