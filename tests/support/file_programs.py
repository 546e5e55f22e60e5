"""Small programs that use files in every common way; each returns what it saw."""

# ruff: noqa: SIM115, PLW1501 - files that are left open and modes that are wrong are the point

import bz2
import contextlib
import dbm.dumb
import fcntl
import glob
import io
import logging
import logging.handlers
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

from outlast.sim.disk import SimDisk
from outlast.sim.files import patch_files


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
