"""What cannot be simulated is refused or noted, with the place in the program."""

import asyncio
import contextlib
import ctypes
import gc
import mmap
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from outlast.kernel.errors import ConfigError, EscapeError
from outlast.sim import escape
from outlast.sim.ambient import ambient
from outlast.sim.escape import Escape, allowed, watching
from tests.unit.test_sim_ambient import FakeSource


def connect() -> None:
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", 9))


def bind() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))


def send_to() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", 9))


def unix_connect() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("/nowhere")


_REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "connect": (connect, "a real socket"),
    "connect to a path": (unix_connect, "a real socket"),
    "bind": (bind, "a real socket"),
    "sendto": (send_to, "a real socket"),
    "getaddrinfo": (lambda: socket.getaddrinfo("localhost", 80), "a real name lookup"),
    "gethostbyname": (lambda: socket.gethostbyname("localhost"), "a real name lookup"),
    "gethostbyname_ex": (lambda: socket.gethostbyname_ex("localhost"), "a real name lookup"),
    "gethostbyaddr": (lambda: socket.gethostbyaddr("127.0.0.1"), "a real name lookup"),
    "subprocess": (lambda: subprocess.run(["true"], check=False), "a real process"),
    "os.system": (lambda: os.system("true"), "a real process"),  # noqa: S605
    "os.fork": (os.fork, "a real process"),
    "os.forkpty": (os.forkpty, "a real process"),
    "os.posix_spawn": (lambda: os.posix_spawn("/bin/true", ["true"], {}), "a real process"),
    "os.exec": (lambda: os.execv("/bin/true", ["true"]), "a real process"),  # noqa: S606
    "os.spawn": (lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]), "a real process"),  # noqa: S606
    "thread": (lambda: threading.Thread(target=int).start(), "a real thread"),
    "pool": (lambda: ThreadPoolExecutor(1).submit(int), "a real thread"),
    "timer": (lambda: threading.Timer(1, int).start(), "a real thread"),
    "kill": (lambda: os.kill(os.getppid(), signal.SIGCONT), "a real signal"),
    "alarm": (lambda: signal.alarm(100), "a timer signal"),
    "setitimer": (lambda: signal.setitimer(signal.ITIMER_PROF, 100), "a timer signal"),
    "os._exit": (lambda: os._exit(3), "os._exit"),
    "sqlite3": (lambda: sqlite3.connect("/tmp/outlast-escape.db"), "a real database file"),
}


@pytest.mark.parametrize("name", sorted(_REFUSED))
def test_what_would_leave_the_simulation_is_refused_and_told_with_its_place(name):
    act, what = _REFUSED[name]
    refused: list[Escape] = []
    with ambient(FakeSource(), refused=refused.append), pytest.raises(EscapeError) as caught:
        act()
    (told,) = refused
    assert told.what == what
    assert told.where.startswith("tests/unit/test_sim_escape.py:")
    assert str(caught.value) == f"{told.where}: {what} cannot be simulated: {told.advice}"
    assert "\n" not in str(caught.value)


def test_a_refused_thread_leaves_no_trace():
    thread = threading.Thread(target=int)
    with ambient(FakeSource()):
        with pytest.raises(EscapeError):
            thread.start()
        assert not thread.is_alive()
    assert thread not in threading.enumerate()


def test_a_swallowed_refusal_is_still_told():
    refused: list[Escape] = []
    with ambient(FakeSource(), refused=refused.append), contextlib.suppress(Exception):
        connect()  # as careless programs do
    assert [told.what for told in refused] == ["a real socket"]


def test_sockets_may_be_made_and_asked_but_not_used():
    with ambient(FakeSource()), socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        assert sock.fileno() >= 0
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()


def test_a_database_in_memory_or_read_only_is_fine(tmp_path):
    path = tmp_path / "kept.db"
    sqlite3.connect(path).close()
    with ambient(FakeSource()):
        for name in (":memory:", "", "file::memory:", f"file:{path}?mode=ro"):
            sqlite3.connect(name, uri=True).close()
        for name in (str(path), path, f"file:{path}?cache=private"):
            with pytest.raises(EscapeError):
                sqlite3.connect(name, uri=True)


def test_asking_whether_a_process_is_there_is_fine():
    with ambient(FakeSource()):
        os.kill(os.getpid(), 0)
        signal.alarm(0)


# --- notes -------------------------------------------------------------------------------------


def notes_of(act: Callable[[], Any]) -> list[str]:
    told: list[Escape] = []
    with ambient(FakeSource(), told.append):
        told.clear()  # of who holds a real clock in this process
        act()
    return [note.what for note in told]


def test_changes_to_real_files_are_noted(tmp_path):
    path, other = tmp_path / "a", tmp_path / "b"

    def act() -> None:
        path.write_text("x")
        os.close(os.open(path, os.O_RDWR))
        os.chmod(path, 0o600)
        path.rename(other)
        other.unlink()
        (tmp_path / "d").mkdir()
        (tmp_path / "d").rmdir()

    assert notes_of(act) == [
        "a real file that is written",  # by pathlib, called here
        "a real file that is written",
        "a real file that is given other rights",
        "a real file that is renamed",
        "a real file that is removed",
        "a real file that is made (a directory)",
        "a real file that is removed (a directory)",
    ]


def test_reading_real_files_and_writing_to_devices_is_not_noted(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")

    def act() -> None:
        assert path.read_text() == "x"
        os.listdir(tmp_path)
        Path(os.devnull).write_text("x")
        read, write = os.pipe()
        os.fdopen(write, "w").close()
        os.close(read)

    assert notes_of(act) == []


def test_imports_do_not_count_as_writing_files(tmp_path, monkeypatch):
    (tmp_path / "escape_program_x.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def act() -> None:
        __import__("escape_program_x")

    assert notes_of(act) == []
    sys.modules.pop("escape_program_x")


def test_each_place_is_noted_once(tmp_path):
    def act() -> None:
        for _ in range(10):
            (tmp_path / "a").write_text("x")
        (tmp_path / "a").write_text("x")

    assert len(notes_of(act)) == 2


def test_mapping_a_real_file_for_writing_is_noted(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * mmap.PAGESIZE)

    def act() -> None:
        fd = os.open(path, os.O_RDONLY)
        mmap.mmap(fd, 0, access=mmap.ACCESS_READ).close()
        mmap.mmap(-1, mmap.PAGESIZE).close()
        mmap.mmap(fd, 0, access=mmap.ACCESS_COPY).close()
        os.close(fd)

    assert notes_of(act) == []

    def write() -> None:
        with path.open("r+b") as file:
            mmap.mmap(file.fileno(), 0).close()

    assert "a real file that is mapped for writing" in notes_of(write)


def test_foreign_libraries_and_modules_with_their_own_loops_are_noted(monkeypatch):
    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            return None

    def act() -> None:
        with pytest.raises(ImportError):
            __import__("gevent")
        with pytest.raises(OSError, match="nowhere"):
            ctypes.CDLL("libnowhere.so")
        ctypes.CDLL(None)

    monkeypatch.setattr(sys, "meta_path", [Finder])
    assert notes_of(act) == ["import gevent", "a foreign library"]


# --- who is told, and where --------------------------------------------------------------------


def test_outside_a_simulation_and_in_other_threads_nothing_is_watched(tmp_path):
    told: list[Escape] = []
    go, done = threading.Event(), threading.Event()

    def outsider() -> None:
        go.wait(10)
        bind()
        (tmp_path / "a").write_text("x")
        done.set()

    thread = threading.Thread(target=outsider)
    thread.start()
    with ambient(FakeSource(), told.append, told.append):
        told.clear()
        go.set()
        assert done.wait(10)
    thread.join(10)
    bind()
    assert told == []


def test_the_simulator_itself_may_use_the_machine_where_it_says_so(tmp_path):
    told: list[Escape] = []
    with ambient(FakeSource(), told.append):
        told.clear()
        with allowed():
            bind()
            (tmp_path / "a").write_text("x")
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
        with pytest.raises(EscapeError):
            bind()
    assert told == []
    with allowed():
        bind()


def test_watching_does_not_nest_and_ends_with_an_error():
    with pytest.raises(RuntimeError), watching():  # noqa: PT012
        with pytest.raises(ConfigError, match="do not nest"), watching():
            pass
        raise RuntimeError
    with watching():
        pass
    bind()


def module_at(path: str, text: str) -> types.ModuleType:
    """Return a module that seems to have been loaded from ``path``."""
    module = types.ModuleType("placed")
    exec(compile(text, path, "exec"), vars(module))  # noqa: S102  (to choose its path)
    return module


_CALLER = "def call(f):\n    return f()\nasync def later(f):\n    return f()\n"


def test_the_place_is_the_programs_line_and_not_that_of_a_package_it_uses():
    package = module_at("/x/site-packages/redis/connection.py", _CALLER)
    shop = module_at(f"{os.getcwd()}/shop.py", "def buy(g, f):\n    return g(f)\n")
    library = module_at(socket.__file__, _CALLER)
    generated = module_at("<string>", _CALLER)
    seen = shop.buy(
        package.call, lambda: library.call(functools_partial(generated.call, escape.place))
    )
    assert seen == f"tests/unit/test_sim_escape.py:{_line(-2)} in <lambda>"
    chain = functools_partial(library.call, functools_partial(generated.call, escape.place))
    assert shop.buy(package.call, chain) == "shop.py:2 in buy"


def test_a_package_that_runs_in_a_task_of_its_own_is_named_itself():
    package = module_at("/x/site-packages/redis/connection.py", _CALLER)

    async def main() -> str:
        return await asyncio.create_task(package.later(escape.place))

    assert asyncio.run(main()) == "redis/connection.py:4 in later"


def functools_partial(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """Like functools.partial, without a frame of this file when called."""
    import functools

    return functools.partial(function, *args)


def _line(offset: int) -> int:
    return sys._getframe(1).f_lineno + offset


def test_escapes_are_plain_values():
    one = Escape("a real socket", "shop.py:41 in connect", "use asyncio streams")
    assert one == Escape("a real socket", "shop.py:41 in connect", "use asyncio streams")
    assert str(one) == "shop.py:41 in connect: a real socket; use asyncio streams"
    assert not gc.is_tracked(one.what)
