"""Unmodified programs behave on a simulated disk as they do on real files."""

# ruff: noqa: SIM115 - files that are left open and modes that are wrong are the point

import bz2
import dbm.dumb
import fcntl
import io
import json
import logging
import logging.handlers
import mmap
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import pytest

from outlast.kernel import ConfigError, EscapeError
from outlast.sim.files import installed, patch_files
from tests.support.file_programs import PROGRAMS, names, simulated
from tests.support.sim_disk import content, make_disk


@pytest.mark.parametrize("kind", ["rooted", "overlay"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_sees_the_same_on_real_files_and_on_a_simulated_disk(
    program: Callable[[str], Any], kind: str, tmp_path: pathlib.Path
):
    real = tmp_path / "same"
    real.mkdir()
    want = program(str(real))
    shutil.rmtree(real)
    disk, clock = make_disk()
    if kind == "overlay":
        real.mkdir()
    with simulated(disk, *([str(real)] if kind == "rooted" else [])):
        got = program(str(real))
        assert not disk.descriptors, "every descriptor was closed"
    assert got == want
    assert not real.exists() or not os.listdir(real)
    assert clock.now_ns > 0


# --- what shows through --------------------------------------------------------------------------


def test_real_files_are_read_and_changed_only_in_the_simulation(tmp_path: pathlib.Path):
    (tmp_path / "kept").write_text("real")
    (tmp_path / "gone").write_text("real")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep").write_text("deep")
    disk, _ = make_disk()
    with simulated(disk):
        assert (tmp_path / "kept").read_text() == "real"
        with open(tmp_path / "kept", "a") as file:
            file.write("+sim")
        os.remove(tmp_path / "gone")
        os.rename(tmp_path / "sub", tmp_path / "moved")
        (tmp_path / "new").write_text("new")
        assert sorted(os.listdir(tmp_path)) == ["kept", "moved", "new"]
        assert [e.name for e in os.scandir(tmp_path)] == ["kept", "moved", "new"]
        assert (tmp_path / "kept").read_text() == "real+sim"
        assert (tmp_path / "moved" / "deep").read_text() == "deep"
        assert not (tmp_path / "gone").exists()
        assert not (tmp_path / "sub" / "deep").exists()
        os.mkdir(tmp_path / "sub")
        assert os.listdir(tmp_path / "sub") == []
        shutil.rmtree(tmp_path / "moved")
        with pytest.raises(FileNotFoundError):
            open(tmp_path / "gone")
        with pytest.raises(OSError, match="not empty"):
            os.rmdir(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["gone", "kept", "sub"]
    assert (tmp_path / "kept").read_text() == "real"
    assert (tmp_path / "sub" / "deep").read_text() == "deep"


def test_rmtree_of_a_real_directory_empties_it_in_the_simulation_only(tmp_path: pathlib.Path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_text("x")
    disk, _ = make_disk()
    with simulated(disk):
        shutil.rmtree(tmp_path / "d")
        assert not (tmp_path / "d").exists()
    assert (tmp_path / "d" / "e" / "f").exists()


def test_each_host_has_files_of_its_own(tmp_path: pathlib.Path):
    disks = [make_disk(seed)[0] for seed in (1, 2)]
    here = [0]
    with patch_files(disk_of=lambda: disks[here[0]]):
        (tmp_path / "f").write_text("first")
        fd = os.open(tmp_path / "f", os.O_RDONLY)
        here[0] = 1
        assert not (tmp_path / "f").exists()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.read(fd, 1)
        here[0] = 0
        assert os.read(fd, 9) == b"first"


def test_where_there_is_no_disk_files_are_real(tmp_path: pathlib.Path):
    with patch_files(disk_of=lambda: None):
        names(str(tmp_path))
        (tmp_path / "f").write_text("x")
    assert (tmp_path / "f").read_text() == "x"


def test_devices_are_real():
    with simulated(make_disk()[0]), open(os.devnull, "w") as null:
        null.write("x")
        assert null.fileno() < 1 << 24


def test_leaving_restores_every_function_and_nesting_is_refused():
    before = (
        open,
        io.open,
        os.open,
        os.stat,
        os.rename,
        fcntl.flock,
        mmap.mmap,
        bz2._builtin_open,
    )  # type: ignore[attr-defined]
    sets = (set(os.supports_dir_fd), set(os.supports_fd))
    with simulated(make_disk()[0]):
        kept = open
        assert installed()
        assert os.stat in os.supports_dir_fd
        with pytest.raises(ConfigError, match="nested"), simulated(make_disk()[0]):
            pass
        assert open is kept
    assert not installed()
    assert before == (
        open, io.open, os.open, os.stat, os.rename, fcntl.flock, mmap.mmap, bz2._builtin_open  # type: ignore[attr-defined]
    )  # fmt: skip
    assert sets == (set(os.supports_dir_fd), set(os.supports_fd))
    with kept(os.devnull) as file:
        assert file.fileno() < 1 << 24, "a function that was kept is real again"


def test_a_simulated_file_cannot_be_mapped():
    with simulated(make_disk()[0], "/data"), open("/data/f", "wb+") as file:
        file.write(b"x")
        with pytest.raises(EscapeError, match="mmap"):
            mmap.mmap(file.fileno(), 0)


def test_waiting_for_a_lock_that_nobody_can_give_back_is_an_error():
    with simulated(make_disk()[0], "/data"), open("/data/f", "w") as a, open("/data/f") as b:
        fcntl.flock(a, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="deadlock"):
            fcntl.flock(b, fcntl.LOCK_EX)


# --- crashes in the middle of small programs ---------------------------------------------------


class CrashError(BaseException):
    """The host goes down here."""


class Crashing:
    """Runs a program and stops it at the ``at``-th operation of its disk."""

    def __init__(self, seed: int, *, sync_is_noop: bool = False) -> None:
        self.disk, self.clock = make_disk(seed, sync_is_noop=sync_is_noop)
        self.left = -1
        spend = self.clock.spend

        def counted(ns: int) -> None:
            spend(ns)
            self.left -= 1
            if self.left == 0:
                raise CrashError

        self.disk._spend = counted

    def run(self, program: Callable[[], object], at: int) -> bool:
        """Return whether the program ended before the crash."""
        self.left = at
        try:
            with simulated(self.disk, "/data"):
                program()
        except CrashError:
            return False
        finally:
            self.left = -1
        return True


def save(value: int) -> None:
    """Replace a file as every tutorial says."""
    with open("/data/state.json.tmp", "w") as file:
        json.dump({"value": value, "fill": "x" * 3000}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace("/data/state.json.tmp", "/data/state.json")
    fd = os.open("/data", os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def save_without_fsync(value: int) -> None:
    """Replace a file and hope."""
    with open("/data/state.json.tmp", "w") as file:
        json.dump({"value": value, "fill": "x" * 3000}, file)
    os.replace("/data/state.json.tmp", "/data/state.json")


def crash_while_saving(program: Callable[[int], None], *, noop: bool = False) -> None:
    for seed in range(60):
        machine = Crashing(seed, sync_is_noop=noop)
        assert machine.run(lambda: program(1), -1)
        done = machine.run(lambda: program(2), 1 + seed % 12)
        machine.disk.power_cut()
        with simulated(machine.disk, "/data"):
            found = json.loads(pathlib.Path("/data/state.json").read_text())["value"]
        assert found in ({2} if done else {1, 2}), f"seed {seed}: {found}"


def test_a_careful_save_survives_a_cut_at_every_operation():
    crash_while_saving(save)


@pytest.mark.parametrize("noop", [False, True])
def test_a_careless_save_and_a_disk_that_lies_are_found_out(noop: bool):
    with pytest.raises((OSError, ValueError, AssertionError)):
        crash_while_saving(save if noop else save_without_fsync, noop=noop)


def append(line: str) -> None:
    with pathlib.Path("/data/log").open("a") as file:
        file.write(line)
        file.flush()
        os.fsync(file)


def test_an_append_log_keeps_acknowledged_lines_and_at_most_part_of_the_next():
    for seed in range(40):
        machine = Crashing(seed)
        machine.run(lambda: append("line 0\n"), -1)
        machine.disk.fsync_dir("/data")
        count = 1
        while machine.run(lambda n=count: append(f"line {n}\n"), 1 + seed % 4):  # type: ignore[misc]
            count += 1
            if count > 5:
                break
        machine.disk.power_cut()
        text = content(machine.disk, "/data/log").decode()
        sure = "".join(f"line {n}\n" for n in range(count))
        assert text.startswith(sure), f"seed {seed}"
        assert len(text) <= len(sure) + 7


def test_a_log_file_that_is_never_synced_loses_lines():
    lost = 0
    for seed in range(20):
        machine = Crashing(seed)

        def program() -> None:
            logger = logging.Logger("program")
            handler = logging.FileHandler("/data/app.log")
            logger.addHandler(handler)
            for number in range(200):
                logger.error("message %06d of the program", number)

        machine.run(program, -1)
        machine.disk.fsync_dir("/data")
        machine.disk.power_cut()
        lost += len(content(machine.disk, "/data/app.log")) < 200 * 33
    assert lost > 10


def test_a_dumb_database_is_damaged_by_a_cut_now_and_then():
    kept = []
    for seed in range(20):
        machine = Crashing(seed)

        def program() -> None:
            with dbm.dumb.open("/data/db", "c") as db:
                for number in range(20):
                    db[str(number)] = bytes(600)

        machine.run(program, 30 + seed)
        machine.disk.power_cut()
        kept.append(len(machine.disk.files("/data")))
    assert min(kept) < max(kept)


def test_a_temporary_file_without_a_name_is_gone_after_a_cut():
    machine = Crashing(1)

    def program() -> None:
        file = tempfile.TemporaryFile(dir="/data")
        file.write(b"x")
        file.flush()
        os.fsync(file)
        assert os.listdir("/data") == []
        machine.disk.power_cut()
        with pytest.raises(OSError, match="Bad file descriptor"):
            file.write(b"y" * 10_000)

    machine.run(program, -1)
    assert machine.disk.files("/data") == []
    assert machine.disk.used_bytes == 0


@pytest.mark.parametrize("power", [False, True])
def test_open_files_end_with_their_host(power: bool):
    disk, _ = make_disk()
    with simulated(disk, "/data"):
        file = open("/data/f", "w")
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("never flushed")
        fd = os.open("/data/f", os.O_RDONLY)
        (disk.power_cut if power else disk.process_killed)()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.read(fd, 1)
        with pytest.raises(OSError, match="Bad file descriptor"):
            file.flush()
        del file
        if not power:
            with open("/data/f") as again:
                fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
                assert again.read() == ""


def test_a_file_left_open_is_collected_in_silence_after_the_simulation():
    disk, _ = make_disk()
    with simulated(disk, "/data"):
        file = open("/data/f", "w")
        file.write("buffered")
    del file
    assert content(disk, "/data/f") == b"buffered"
    assert not disk.descriptors


def test_a_descriptor_that_was_closed_below_its_file_is_told():
    with simulated(make_disk()[0], "/data"):
        file = open("/data/f", "wb", buffering=0)
        os.close(file.fileno())
        with pytest.raises(OSError, match="Bad file descriptor"):
            file.close()


def test_faults_of_the_disk_reach_the_program():
    disk, _ = make_disk()
    with simulated(disk, "/data"):
        pathlib.Path("/data/f").write_text("x")
        disk.faults.full = True
        with pytest.raises(OSError, match="No space left"):
            pathlib.Path("/data/g").write_text("y")
        assert shutil.disk_usage("/data").free == 0
        disk.faults.clear()
        disk.faults.readonly = True
        for call in (
            lambda: open("/data/f", "w"),
            lambda: os.unlink("/data/f"),
            lambda: os.mkdir("/data/d"),
        ):
            with pytest.raises(OSError, match="Read-only"):
                call()
        assert not os.access("/data/f", os.W_OK)
        disk.faults.clear()
        disk.faults.read_eio_next = 1
        with pytest.raises(OSError, match="Input/output"):
            pathlib.Path("/data/f").read_text()
    assert disk.tally.enospc >= 1
    assert (disk.tally.erofs, disk.tally.eio) == (3, 1)
