"""Journals that are torn, damaged, forged or not ours: what heal does with them, and refuses."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outlast.host import make_world
from outlast.inject import (
    Continue,
    Journal,
    KillMarked,
    ProcessId,
    RemoveFile,
    RemoveTree,
    Unmount,
    identify,
    is_alive,
)
from outlast.inject.core.undo import Header, drill_id, header_line, read_journal, undo_line
from outlast.inject.identity import is_stopped
from outlast.inject.place import boot_word, open_place
from outlast.kernel import ConfigError
from tests.support.inject_drill import (
    Drill,
    KillAt,
    Killed,
    dead_journal,
    dead_owner,
    run_heal,
    wait_for,
)

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    made = Drill(tmp_path)
    yield made
    made.close()


# --- torn, damaged and hostile journals --------------------------------------------------------


def test_a_torn_last_line_is_no_damage(tmp_path):
    state, path = dead_journal(tmp_path, "data", more=b'0badc0de {"undo":2,"do"')
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
    state, first = dead_journal(tmp_path, "a", "b")
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
    owner = dead_owner()
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
    state, path = dead_journal(tmp_path, "data")
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
    state, path = dead_journal(tmp_path, "data")
    path.mkdir()
    (path / ".outlast-drill").write_text(path.name.split("-")[2])
    (path / "link").symlink_to(precious)
    (path / "deep").mkdir()
    (path / "deep" / "link").symlink_to(precious)
    assert run_heal(state).clean
    assert (precious / "file").exists()
    assert not path.exists()


def test_a_file_outside_or_behind_a_link_is_not_removed(tmp_path):
    owner = dead_owner()
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
    owner = dead_owner()
    place = open_place(str(tmp_path / "other"))
    path = Path(place) / f"{drill.id}.journal"
    path.write_bytes(header_line(Header(drill.id, owner, boot_word(), 0)))
    path.chmod(0o600)
    (step,) = run_heal(place).steps
    assert step.outcome == "refused"
    assert "is not one of pid" in step.detail
    assert all(map(is_alive, drill.nodes))


def test_a_journal_under_another_name_is_refused(tmp_path):
    state, _ = dead_journal(tmp_path, "data")
    (path,) = Path(state).iterdir()
    path.rename(path.with_name("other.journal"))
    (step,) = run_heal(state).steps
    assert step.outcome == "refused"
    assert "remove it by hand" in step.detail


@pytest.mark.parametrize("kind", ["link", "writable", "directory", "fifo", "empty", "noise"])
def test_what_is_not_a_journal_of_ours_is_refused_and_named(tmp_path, kind):
    state, _ = dead_journal(tmp_path, "data")
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
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
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
        child.wait(60)


def test_a_journal_of_another_pid_namespace_is_left_alone(tmp_path):
    state = open_place(str(tmp_path / "state"))
    owner = dead_owner()
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

    state, _ = dead_journal(tmp_path, "data")
    (path,) = Path(state).iterdir()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        report = run_heal(state)
    assert report.steps == ()
    assert report.alive[0].why == "another heal works on it"
