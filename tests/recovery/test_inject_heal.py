"""Heal: what a dead drill left is gone, what is alive or not ours is not touched.

Drills here are real processes that are killed; heal is killed too, at its first step, its second,
and so on until none is left, and then run to the end.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outlast.host import make_world
from outlast.inject import (
    Journal,
    RemoveTree,
    is_alive,
)
from outlast.inject.identity import is_stopped, marked
from outlast.kernel import ConfigError
from tests.support.inject_drill import (
    Drill,
    KillAt,
    Killed,
    dead_journal,
    dead_with,
    run_heal,
    wait_for,
)

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    made = Drill(tmp_path)
    yield made
    made.close()


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
    wait_for(lambda: is_stopped(drill.nodes[2]), "the drill has stopped one")
    run_heal(drill.state)
    assert is_stopped(drill.nodes[2])
    assert os.path.exists(drill.data + "/n1/log/1")


def test_healing_adead_drill_leaves_the_processes_of_a_living_one(drill, tmp_path):
    other = Drill(tmp_path)
    try:
        other.kill()
        assert run_heal(drill.state).clean
        assert all(map(is_alive, drill.nodes))
        assert not any(map(is_alive, other.nodes))
        assert os.path.exists(drill.data)
    finally:
        other.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
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
    state, path = dead_journal(tmp_path, "data")
    path.mkdir()
    assert run_heal(state).clean
    assert not path.exists()


def test_a_closed_journal_leaves_no_file_and_kills_what_is_left(tmp_path):
    journal = Journal.open(make_world(), directory=str(tmp_path / "state"))
    node = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, **journal.environment},
    )
    wait_for(lambda: marked(journal.drill) != [], "the node started")
    data = journal.make_directory(parent=str(tmp_path))
    kept = journal.make_directory("kept", parent=str(tmp_path))
    journal.keep(kept)
    steps = journal.undo()
    assert all(step.over for step in steps)
    assert node.wait(60) == -signal.SIGKILL
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


# --- the command -------------------------------------------------------------------------------


def outlast(*arguments: str, state: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "outlast", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
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
    state = dead_with(tmp_path, RemoveTree(str(tmp_path / "precious")))
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
@pytest.mark.timeout(600)
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
