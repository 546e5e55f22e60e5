"""What a simulation cannot carry is told where it happened: sockets, processes, threads, files.

A program that leaves the simulation by a side door still seems to work, and then its runs differ.
Python tells an audit hook of most of what a process can ask of the machine; inside a simulation,
and only in the thread that runs it, the hook here refuses what would break the run and notes what
merely weakens it. Socket *objects* may be made, since clients make one and hand it to the loop;
only their real use is refused.
"""

import asyncio
import os
import sys
import sysconfig
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from outlast.kernel.errors import ConfigError, EscapeError


@dataclass(frozen=True, slots=True)
class Escape:
    """One way out of the simulation that a program took or tried to take.

    Args:
        what: What it asked for, such as ``a real socket``.
        where: The place in the program, such as ``shop.py:41 in connect``.
        advice: What to use instead.
    """

    what: str
    where: str
    advice: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.advice}"


Tell = Callable[[Escape], None]
"""Where escapes are reported; called in the simulation's thread, must return at once."""


def ignore(escape: Escape) -> None:
    """Drop ``escape``."""


# --- where it happened -----------------------------------------------------------------------

_STDLIB: Final = (os.path.dirname(os.path.abspath(os.__file__)) + os.sep,)
_ASYNCIO: Final = os.path.dirname(os.path.abspath(asyncio.__file__)) + os.sep
_SIM: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep
_SITE: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_ROOTS: Final = (sysconfig.get_path("purelib") + os.sep,)
_LIBRARY_SEARCH: Final = os.path.join("ctypes", "util.py")
_LOOP_CALLS: Final = frozenset({"run_forever", "run_until_complete", "_run_once", "_run"})


def _site_part(name: str) -> str | None:
    """Return the path of ``name`` inside the folder of installed packages, if it is in one."""
    for mark in _SITE:
        _, found, rest = name.rpartition(mark)
        if found:
            return rest
    for root in _ROOTS:
        if name.startswith(root):
            return name[len(root) :]
    return None


def _guilty_frame() -> FrameType | None:
    """Return the frame that a reader should look at.

    The innermost of the program itself; else the innermost of an installed package, else of
    the standard library. Frames outside the callback that runs now belong to somebody else.
    """
    packaged: FrameType | None = None
    library: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        ours = name.startswith((_SIM, _ASYNCIO))
        if ours:
            if frame.f_code.co_name in _LOOP_CALLS:
                break
        elif name.startswith("<"):
            pass
        elif _site_part(name) is not None:
            packaged = packaged or frame
        elif name.startswith(_STDLIB):
            library = library or frame
        else:
            return frame
        frame = frame.f_back
    return packaged or library


def _name_frame(frame: FrameType | None) -> str:
    """Return ``file:line in function`` of ``frame``, the file as a reader would name it."""
    if frame is None:
        return "an unknown place"
    name = frame.f_code.co_filename
    short = _site_part(name)
    if short is None:
        here = os.getcwd() + os.sep
        short = name[len(here) :] if name.startswith(here) else name
    return f"{short}:{frame.f_lineno} in {frame.f_code.co_name}"


def place() -> str:
    """Return where the running program is, as ``shop.py:41 in connect``.

    The innermost frame of the program itself, or else of an installed package; the path is
    relative to the current directory or to the folder of packages.
    """
    return _name_frame(_guilty_frame())


def _looks_for_library() -> bool:
    """Whether ``ctypes.util`` asks the linker for a library, as some packages do on import."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.endswith(_LIBRARY_SEARCH):
            return True
        frame = frame.f_back
    return False


# --- the watch --------------------------------------------------------------------------------


class _Watch:
    """The simulation that is watched now: its thread and whom to tell."""

    __slots__ = ("notes", "quiet", "refused", "seen", "thread")

    def __init__(self, notes: Tell, refused: Tell) -> None:
        self.notes = notes
        self.refused = refused
        self.thread = get_ident()
        self.quiet = 0
        self.seen: set[tuple[str, str, int]] = set()  # asked only, never iterated

    def refuse(self, what: str, advice: str) -> None:
        if what == _PROCESS and _looks_for_library():
            return
        self.quiet += 1
        try:
            escape = Escape(what, _name_frame(_guilty_frame()), advice)
            self.refused(escape)
        finally:
            self.quiet -= 1
        raise EscapeError(f"{escape.where}: {what} cannot be simulated: {advice}")

    def note(self, what: str, advice: str) -> None:
        self.quiet += 1
        try:
            frame = _guilty_frame()
            key = (what, frame.f_code.co_filename, frame.f_lineno) if frame else (what, "", 0)
            if key not in self.seen:
                self.seen.add(key)
                self.notes(Escape(what, _name_frame(frame), advice))
        finally:
            self.quiet -= 1


_watch: _Watch | None = None
_hooked = False


def _watching_here() -> _Watch | None:
    watch = _watch
    if watch is None or watch.quiet or watch.thread != get_ident():
        return None
    return watch


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _watch is None:
        return
    rule = _RULES.get(event)
    if rule is None:
        return
    watch = _watching_here()
    if watch is not None:
        rule(watch, args)


@contextmanager
def watching(notes: Tell = ignore, refused: Tell = ignore) -> Iterator[None]:
    """Watch this thread until the block ends; other threads keep the machine.

    Args:
        notes: Told once of each place that does what weakens a simulation.
        refused: Told of each refusal just before the :class:`EscapeError` is raised, since a
            program may swallow that.

    Raises:
        ConfigError: A simulation is being watched already.
    """
    global _watch, _hooked  # noqa: PLW0603  (a hook cannot be removed: one per process)
    if _watch is not None:
        raise ConfigError("escape: a simulation is watched already; simulations do not nest")
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    _watch = _Watch(notes, refused)
    try:
        yield
    finally:
        _watch = None


@contextmanager
def allowed() -> Iterator[None]:
    """Let the simulator itself use the machine in this block, for example to write a trace.

    Time and randomness stay simulated. Without a simulation in this thread it does nothing.
    """
    watch = _watch
    if watch is None or watch.thread != get_ident():
        yield
        return
    watch.quiet += 1
    try:
        yield
    finally:
        watch.quiet -= 1


def refuse(what: str, advice: str) -> None:
    """Refuse ``what`` if this thread runs a simulation; otherwise return.

    Raises:
        EscapeError: Definite. Names the place in the program and gives ``advice``.
    """
    watch = _watching_here()
    if watch is not None:
        watch.refuse(what, advice)


def note(what: str, advice: str) -> None:
    """Note ``what`` if this thread runs a simulation, once for each place that does it."""
    watch = _watching_here()
    if watch is not None:
        watch.note(what, advice)


# --- the rules ---------------------------------------------------------------------------------

_Rule = Callable[[_Watch, tuple[Any, ...]], None]

_SOCKET = "a real socket"
_NAME = "a real name lookup"
_PROCESS = "a real process"
THREAD: Final = ("a real thread", "use asyncio.to_thread or loop.run_in_executor, run in line")
PROCESS_ADVICE: Final = "run its coroutine as a host of its own: lab.host(name, main)"
_CONNECT = "use asyncio.open_connection or loop.create_connection"
_LISTEN = "use asyncio.start_server or loop.create_server"
_DATAGRAM = "use loop.create_datagram_endpoint"
_LOOKUP = "use await loop.getaddrinfo(...)"
_FILE_ADVICE = "use sim.patch_files() or world.storage; otherwise a crash of the host keeps it"
_DATABASE_ADVICE = 'use ":memory:" or a file opened with mode=ro'
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MMAP_READ, _MMAP_COPY = 1, 3
_OWN_IO = {
    "uvloop": "an event loop of its own: run under SimLoop instead",
    "gevent": "an event loop of its own: run under SimLoop instead",
    "eventlet": "an event loop of its own: run under SimLoop instead",
    "grpc": "threads and sockets of its own in C, which the simulation cannot see",
    "zmq": "threads and sockets of its own in C, which the simulation cannot see",
    "confluent_kafka": "threads and sockets of its own in C, which the simulation cannot see",
    "pycurl": "sockets of its own in C, which the simulation cannot see",
    "MySQLdb": "sockets of its own in C, which the simulation cannot see",
    "psycopg2": "sockets of its own in C, which the simulation cannot see",
    "psycopg_c": "sockets of its own in C, which the simulation cannot see",
    "psycopg_binary": "sockets of its own in C, which the simulation cannot see",
}


AFTER_IMPORT: Final[dict[str, Callable[[], None]]] = {}
"""What to call when a simulated program begins to import a module, by the module's name."""


def _refusal(what: str, advice: str) -> _Rule:
    def rule(watch: _Watch, _args: tuple[Any, ...]) -> None:
        watch.refuse(what, advice)

    return rule


def _real_path(path: object) -> str:
    """Return ``path`` as text if a crash of its file matters, else nothing."""
    if isinstance(path, int) or path is None:
        return ""
    text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    if text.startswith(("/dev/", "/proc/")) or "__pycache__" in text:
        return ""
    return text


def _change(verb: str) -> _Rule:
    what = f"a real file that is {verb}"

    def rule(watch: _Watch, args: tuple[Any, ...]) -> None:
        if _real_path(args[0]):
            watch.note(what, _FILE_ADVICE)

    return rule


def _on_open(watch: _Watch, args: tuple[Any, ...]) -> None:
    path, _mode, flags = args
    if flags & _WRITE_FLAGS and _real_path(path):
        watch.note("a real file that is written", _FILE_ADVICE)


def _on_kill(watch: _Watch, args: tuple[Any, ...]) -> None:
    if args[1]:  # 0 only asks whether the process is there
        watch.refuse("a real signal", "use lab.crash, lab.pause or lab.restart")


def _on_database(watch: _Watch, args: tuple[Any, ...]) -> None:
    name = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | os.PathLike) else ""
    query = name.partition("?")[2] if name.startswith("file:") else ""
    if name in {"", ":memory:"} or name.startswith("file::memory:"):
        return
    if not {"mode=memory", "mode=ro", "immutable=1"}.isdisjoint(query.split("&")):
        return
    watch.refuse("a real database file", _DATABASE_ADVICE)


def _on_mmap(watch: _Watch, args: tuple[Any, ...]) -> None:
    if args[0] != -1 and args[2] not in {_MMAP_READ, _MMAP_COPY}:
        watch.note("a real file that is mapped for writing", _FILE_ADVICE)


def _on_import(watch: _Watch, args: tuple[Any, ...]) -> None:
    reason = _OWN_IO.get(args[0])
    if reason is not None:
        watch.note(f"import {args[0]}", f"it has {reason}")
    hook = AFTER_IMPORT.get(args[0])
    if hook is not None:
        hook()


def _on_library(watch: _Watch, args: tuple[Any, ...]) -> None:
    if args[0] is not None:  # None is this process itself
        watch.note("a foreign library", "its clocks, sockets and files stay real")


_RULES: Final[dict[str, _Rule]] = {
    "socket.connect": _refusal(_SOCKET, _CONNECT),
    "socket.bind": _refusal(_SOCKET, _LISTEN),
    "socket.sendto": _refusal(_SOCKET, _DATAGRAM),
    "socket.sendmsg": _refusal(_SOCKET, _DATAGRAM),
    "socket.getaddrinfo": _refusal(_NAME, _LOOKUP),
    "socket.gethostbyname": _refusal(_NAME, _LOOKUP),
    "socket.gethostbyaddr": _refusal(_NAME, _LOOKUP),
    "socket.getnameinfo": _refusal(_NAME, "use await loop.getnameinfo(...)"),
    "subprocess.Popen": _refusal(_PROCESS, PROCESS_ADVICE),
    "os.fork": _refusal(_PROCESS, PROCESS_ADVICE),
    "os.forkpty": _refusal(_PROCESS, PROCESS_ADVICE),
    "os.system": _refusal(_PROCESS, PROCESS_ADVICE),
    "os.posix_spawn": _refusal(_PROCESS, PROCESS_ADVICE),
    "os.exec": _refusal(_PROCESS, PROCESS_ADVICE),
    "os.spawn": _refusal(_PROCESS, PROCESS_ADVICE),
    "os.startfile": _refusal(_PROCESS, PROCESS_ADVICE),
    "pty.spawn": _refusal(_PROCESS, PROCESS_ADVICE),
    "_thread.start_new_thread": _refusal(*THREAD),
    "_thread.start_joinable_thread": _refusal(*THREAD),
    "os.kill": _on_kill,
    "os.killpg": _on_kill,
    "signal.pthread_kill": _on_kill,
    "sqlite3.connect": _on_database,
    "mmap.__new__": _on_mmap,
    "open": _on_open,
    "os.remove": _change("removed"),
    "os.rename": _change("renamed"),
    "os.mkdir": _change("made (a directory)"),
    "os.rmdir": _change("removed (a directory)"),
    "os.link": _change("linked"),
    "os.symlink": _change("linked"),
    "os.truncate": _change("truncated"),
    "os.chmod": _change("given other rights"),
    "os.chown": _change("given another owner"),
    "os.utime": _change("given other times"),
    "import": _on_import,
    "ctypes.dlopen": _on_library,
}
