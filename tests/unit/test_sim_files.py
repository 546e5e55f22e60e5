"""Unmodified programs behave on a simulated disk as they do on real files."""

# ruff: noqa: SIM115, PLW1501 - files that are left open and modes that are wrong are the point

import bz2
import contextlib
import dbm.dumb
import fcntl
import glob
import io
import json
import logging
import logging.handlers
import mmap
import os
import pathlib
import shelve
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from outlast.kernel import ConfigError, EscapeError
from outlast.sim.disk import SimDisk
from outlast.sim.files import installed, patch_files
from tests.support.sim_disk import content, make_disk

# --- small programs: each returns what it saw ----------------------------------------------------


def text_and_bytes(root: str) -> Any:
    with open(f"{root}/t", "w", encoding="utf-8") as file:
        seen: list[Any] = [file.write("één\ntwo\n"), file.tell(), file.mode]
    with open(f"{root}/t", encoding="utf-8", newline="") as file:
        seen += [file.readline(), list(file), file.readable(), file.writable(), file.encoding]
    with open(f"{root}/t", "rb+") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"T")
        seen += [file.read(), file.tell(), file.truncate(5), file.mode]
    with open(f"{root}/t", "ab", buffering=0) as raw:
        seen += [raw.tell(), raw.write(b"!"), isinstance(raw, io.RawIOBase), raw.mode]
    with open(f"{root}/t", "rb") as file:
        seen += [file.read(2), file.read(), file.read(), os.path.basename(file.name)]
    return seen


def use(path: str, mode: str, call: Callable[[Any], object]) -> None:
    with open(path, mode) as file:
        call(file)


def modes_and_errors(root: str) -> Any:
    seen: list[Any] = []
    for call in (
        lambda: open(f"{root}/none"),
        lambda: open(f"{root}/none/f", "w"),
        lambda: open(root),
        lambda: open(root, "w"),
        lambda: open(f"{root}/x", "q"),
        lambda: open(f"{root}/x", "rw"),
        lambda: open(f"{root}/x", "wb", encoding="utf-8"),
        lambda: open(f"{root}/x", "w", buffering=0),
        lambda: open(f"{root}/x", "x").close(),
        lambda: open(f"{root}/x", "x").close(),
        lambda: open(f"{root}/x/y", "w"),
        lambda: use(f"{root}/x", "r", lambda file: file.write("a")),
        lambda: use(f"{root}/x", "w", lambda file: file.read()),
        lambda: os.mkdir(f"{root}/x"),
        lambda: os.mkdir(f"{root}/none/d"),
        lambda: os.rmdir(f"{root}/x"),
        lambda: os.unlink(f"{root}/none"),
        lambda: os.rename(f"{root}/none", f"{root}/m"),
        lambda: os.listdir(f"{root}/x"),
        lambda: os.listdir(f"{root}/none"),
        lambda: os.stat(f"{root}/none"),
        lambda: os.stat(f"{root}/x/y"),
        lambda: os.truncate(f"{root}/none", 1),
        lambda: os.link(f"{root}/none", f"{root}/z"),
        lambda: os.readlink(f"{root}/x"),
        lambda: os.scandir(f"{root}/none"),
        lambda: os.open(f"{root}/x", os.O_RDONLY | os.O_DIRECTORY),
        lambda: open(""),
        lambda: open("a\0b"),
    ):
        try:
            call()
            seen.append("fine")
        except (OSError, ValueError) as error:
            seen.append((type(error), getattr(error, "errno", None)))
    return seen


def descriptors(root: str) -> Any:
    fd = os.open(f"{root}/f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    seen: list[Any] = [os.write(fd, b"hello world"), os.lseek(fd, 0, os.SEEK_CUR)]
    seen += [os.pread(fd, 5, 6), os.pwrite(fd, b"W", 6), os.lseek(fd, 2, os.SEEK_SET)]
    seen += [os.read(fd, 3), os.fstat(fd).st_size, stat.filemode(os.fstat(fd).st_mode)]
    os.ftruncate(fd, 20)
    os.fsync(fd)
    os.fdatasync(fd)
    other = os.dup(fd)
    seen += [os.read(other, 99), os.read(fd, 99), os.isatty(fd), os.get_inheritable(fd)]
    os.close(fd)
    seen += [os.writev(other, [b"a", b"b"]), os.preadv(other, [bytearray(3), bytearray(9)], 18)]
    with os.fdopen(other, "rb") as file:
        file.seek(0)
        seen.append(file.read())
    with pytest.raises(OSError):
        os.read(other, 1)
    fd = os.open(f"{root}/f", os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"end")
    with pytest.raises(OSError):
        os.read(fd, 1)
    os.posix_fallocate(fd, 0, 100)
    seen += [os.fstat(fd).st_size]
    os.close(fd)
    with open(f"{root}/f", "rb") as file, open(file.fileno(), "rb", closefd=False) as again:
        seen += [again.read(5), file.fileno() == again.fileno()]
    return seen


def names(root: str) -> Any:
    os.makedirs(f"{root}/a/b/c")
    os.makedirs(f"{root}/a/b", exist_ok=True)
    for name in ("a/1", "a/b/2", "a/b/c/3"):
        pathlib.Path(root, name).write_text(name)
    seen: list[Any] = [sorted((d[len(root) :], sorted(ds), fs) for d, ds, fs in os.walk(root))]
    os.rename(f"{root}/a/b", f"{root}/moved")
    os.replace(f"{root}/a/1", f"{root}/moved/2")
    seen += [sorted(glob.glob(f"{root}/**/*", recursive=True)), os.listdir(f"{root}/a")]
    seen[-2] = [name[len(root) :] for name in seen[-2]]
    seen += [sorted(p.name for p in pathlib.Path(root).rglob("*"))]
    seen += [pathlib.Path(root, "moved/2").read_text(), os.path.isdir(f"{root}/moved/c")]
    with os.scandir(root) as entries:
        facts = [(e.name, e.is_dir(), e.is_file(), e.is_symlink(), e.path[len(root) :])
                 for e in entries]  # fmt: skip
    seen.append(sorted(facts))
    os.link(f"{root}/moved/2", f"{root}/two")
    seen += [os.stat(f"{root}/two").st_nlink, os.path.samefile(f"{root}/two", f"{root}/moved/2")]
    shutil.rmtree(f"{root}/moved")
    os.rmdir(f"{root}/a")
    seen += [sorted(os.listdir(root)), os.path.exists(f"{root}/a"), os.access(root, os.W_OK)]
    seen += [os.listdir(os.fsencode(root)), os.path.getsize(f"{root}/two")]
    for wrong in (lambda: os.rmdir(root), lambda: os.rename(f"{root}", f"{root}/in")):
        with pytest.raises(OSError) as caught:
            wrong()
        seen.append(caught.value.errno)
    return seen


def copies(root: str) -> Any:
    data = os.urandom(1) * 70_000
    path = pathlib.Path(root, "f")
    path.write_bytes(data)
    path.chmod(0o640)
    os.utime(path, ns=(1, 1_500_000_000_000_000_000))
    shutil.copyfile(path, f"{root}/g")
    shutil.copy2(path, f"{root}/h")
    shutil.move(f"{root}/g", f"{root}/i")
    os.mkdir(f"{root}/d")
    shutil.move(f"{root}/h", f"{root}/d")
    shutil.copytree(f"{root}/d", f"{root}/e")
    moved = pathlib.Path(root, "e/h")
    seen: list[Any] = [moved.read_bytes() == data, moved.stat().st_mtime_ns, moved.stat().st_mode]
    seen += [sorted(os.listdir(root)), shutil.disk_usage(root).free > 0]
    path.touch()
    path.unlink()
    path.unlink(missing_ok=True)
    with path.open("x") as file:
        print("a", "b", sep="\n", file=file)
    return [*seen, path.read_text(), path.exists(), path.with_name("no").exists()]


def temporary(root: str) -> Any:
    with tempfile.TemporaryDirectory(dir=root) as folder:
        fd, name = tempfile.mkstemp(dir=folder)
        os.write(fd, b"x")
        os.close(fd)
        seen: list[Any] = [os.path.getsize(name), stat.filemode(os.stat(name).st_mode)]
        with tempfile.NamedTemporaryFile("w+", dir=folder) as file:
            file.write("abc")
            file.flush()
            seen += [pathlib.Path(file.name).read_text(), len(os.listdir(folder))]
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"none")
            file.seek(0)
            seen += [file.read(), len(os.listdir(folder))]
        with tempfile.SpooledTemporaryFile(max_size=2, dir=folder) as file:
            file.write(b"spooled")
            file.seek(0)
            seen.append(file.read())
    return [*seen, os.listdir(root)]


def stores(root: str) -> Any:
    with dbm.dumb.open(f"{root}/db", "c") as db:
        db["a"] = b"1"
        db["b"] = b"2"
        del db["a"]
    with shelve.Shelf(dbm.dumb.open(f"{root}/shelf", "c")) as shelf:  # type: ignore[arg-type]
        shelf["key"] = {"x": [1, 2]}
    with shelve.Shelf(dbm.dumb.open(f"{root}/shelf", "r")) as shelf:  # type: ignore[arg-type]
        seen: list[Any] = [dict(shelf)]
    with dbm.dumb.open(f"{root}/db", "r") as db:
        seen += [db.keys(), db["b"]]
    with zipfile.ZipFile(f"{root}/z.zip", "w") as archive:
        archive.writestr("member", "text")
        archive.write(f"{root}/db.dat", "db.dat")
    with zipfile.ZipFile(f"{root}/z.zip") as archive:
        seen += [archive.namelist(), archive.read("member")]
    with bz2.open(f"{root}/b.bz2", "wt") as packed:
        packed.write("packed")  # type: ignore[arg-type]
    with bz2.open(f"{root}/b.bz2", "rt") as packed:
        seen.append(packed.read())
    return [*seen, sorted(os.listdir(root))]


def logs(root: str) -> Any:
    logger = logging.Logger("program")
    handler = logging.handlers.RotatingFileHandler(f"{root}/log", maxBytes=60, backupCount=2)
    logger.addHandler(handler)
    for number in range(12):
        logger.error("message %d", number)
    handler.close()
    return [(name, pathlib.Path(root, name).read_text()) for name in sorted(os.listdir(root))]


def locks(root: str) -> Any:
    seen: list[Any] = []
    with open(f"{root}/l", "w") as first, open(f"{root}/l") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(first, fcntl.LOCK_SH)
        fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_UN)
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(fcntl.fcntl(first, fcntl.F_GETFL) & os.O_ACCMODE)
    with open(f"{root}/l", "w") as third:
        fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return seen


PROGRAMS = (text_and_bytes, modes_and_errors, descriptors, names, copies, temporary, stores, logs,
            locks)  # fmt: skip


@contextlib.contextmanager
def simulated(disk: SimDisk, *roots: str) -> Iterator[None]:
    with patch_files(*roots, disk_of=lambda: disk):
        yield


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
