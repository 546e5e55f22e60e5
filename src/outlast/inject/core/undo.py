"""Undo records: what ends a fault, written down before the fault begins.

A journal is text: one record a line, each line with a checksum. The first says whose journal it
is. ``undo`` lines have a number; a ``done`` line with that number takes one back. An undo can be
carried out any number of times, from any state that an interruption leaves behind, so that heal
may be killed and started again at any step.
"""

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from outlast.kernel import ConfigError

FORMAT: Final = 1
LINE_BYTES_MAX: Final = 1 << 20
PREFIX: Final = "outlast-drill-"
"""What every directory and file that a drill makes for itself is called first."""


@dataclass(frozen=True, slots=True, order=True)
class ProcessId:
    """One process for ever: a pid that was given away again is another one.

    Args:
        pid: Its number.
        started: When it started, in the system's clock ticks since boot.
    """

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class KillMarked:
    """Kill all processes that carry the drill's marker in their environment."""

    def __str__(self) -> str:
        """Return it as heal reports it."""
        return "kill the drill's processes"


@dataclass(frozen=True, slots=True)
class Continue:
    """Continue (SIGCONT) processes that were stopped."""

    processes: tuple[ProcessId, ...]

    def __str__(self) -> str:
        """Return it as heal reports it."""
        return f"continue pid {', '.join(str(process.pid) for process in self.processes)}"


@dataclass(frozen=True, slots=True)
class RemoveTree:
    """Remove a directory that the drill made, with all it holds."""

    path: str

    def __str__(self) -> str:
        """Return it as heal reports it."""
        return f"remove directory {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Remove a file; it lies in a directory that the drill made."""

    path: str

    def __str__(self) -> str:
        """Return it as heal reports it."""
        return f"remove file {self.path}"


@dataclass(frozen=True, slots=True)
class Unmount:
    """Unmount what is mounted at ``path``, in or at a directory that the drill made."""

    path: str

    def __str__(self) -> str:
        """Return it as heal reports it."""
        return f"unmount {self.path}"


Undo = KillMarked | Continue | RemoveTree | RemoveFile | Unmount


@dataclass(frozen=True, slots=True)
class Header:
    """Whose journal it is.

    Args:
        drill: The drill's id, which is also the value of its marker.
        owner: The process that runs the drill.
        boot: The system's boot id; after another boot no process of it is left.
        wall_ns: When it was opened.
    """

    drill: str
    owner: ProcessId
    boot: str
    wall_ns: int


@dataclass(frozen=True, slots=True)
class JournalText:
    """What a journal says.

    Args:
        header: Whose it is.
        open: Numbers and undos that are not done, oldest first.
        numbers: The highest number used.
        torn: Whether the last line was cut short: what it announced was never begun.
        damage: What is wrong with other lines, one message each; they are not among the undos.
    """

    header: Header
    open: tuple[tuple[int, Undo], ...]
    numbers: int
    torn: bool
    damage: tuple[str, ...] = ()


def drill_id(owner: ProcessId, draw: int) -> str:
    """Return the id of a drill: it names its owner, so that no journal can claim another's.

    Args:
        owner: The process that runs it.
        draw: 32 random bits.
    """
    return f"{owner.pid:08x}{owner.started:012x}{draw & 0xFFFF_FFFF:08x}"


# --- writing ---------------------------------------------------------------------------------


def _line(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def header_line(header: Header) -> bytes:
    """Return the first line of a journal."""
    return _line(
        {
            "journal": FORMAT,
            "drill": header.drill,
            "pid": header.owner.pid,
            "started": header.owner.started,
            "boot": header.boot,
            "wall_ns": header.wall_ns,
        }
    )


def undo_line(number: int, undo: Undo) -> bytes:
    """Return the line that announces an undo."""
    record: dict[str, Any] = {"undo": number, "do": type(undo).__name__}
    if isinstance(undo, Continue):
        record["processes"] = [[process.pid, process.started] for process in undo.processes]
    elif not isinstance(undo, KillMarked):
        record["path"] = undo.path
    return _line(record)


def done_line(number: int) -> bytes:
    """Return the line that says that an undo is done."""
    return _line({"done": number})


# --- reading ---------------------------------------------------------------------------------


def read_journal(data: bytes, name: str) -> JournalText | None:
    """Read a journal; ``None`` if not even its first line was written in full.

    A damaged line does not hide those after it: every undo that can be read is carried out, as
    each stands for itself, and the damage is named.

    Args:
        data: The file's content.
        name: For messages.

    Raises:
        ConfigError: The first line is damaged or not that of a journal.
    """
    lines = data.split(b"\n")
    torn = bool(lines.pop())
    if not lines:
        return None
    header = _read_header(_record(lines[0], name, 1), name)
    found: dict[int, Undo] = {}
    damage: list[str] = []
    highest = 0
    for number, line in enumerate(lines[1:], 2):
        try:
            record = _record(line, name, number)
            if "done" in record:
                found.pop(_whole(record, "done", name, number), None)
                continue
            which = _whole(record, "undo", name, number)
            highest = max(highest, which)
            found[which] = _read_undo(record, name, number)
        except ConfigError as error:
            damage.append(str(error))
    return JournalText(header, tuple(found.items()), highest, torn, tuple(damage))


def _record(line: bytes, name: str, number: int) -> dict[str, Any]:
    checksum, _, text = line.partition(b" ")
    try:
        sound = len(line) <= LINE_BYTES_MAX and int(checksum, 16) == zlib.crc32(text)
        record: Any = json.loads(text) if sound else None
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise ConfigError(
            f"{name}:{number}: the line is damaged (its checksum does not fit);"
            " what it announced cannot be undone by heal"
        )
    return record


def _read_header(record: dict[str, Any], name: str) -> Header:
    if record.get("journal") != FORMAT:
        raise ConfigError(
            f"{name}:1: not a journal of format {FORMAT}; heal with the version that wrote it"
        )
    drill, boot = (_text(record, key, name, 1) for key in ("drill", "boot"))
    if not (drill.isascii() and drill.isalnum()):
        raise ConfigError(f"{name}:1: drill is {drill!r}; use letters and digits")
    pid, started, wall = (_whole(record, key, name, 1) for key in ("pid", "started", "wall_ns"))
    owner = ProcessId(pid, started)
    if drill[:-8] != drill_id(owner, 0)[:-8]:
        raise ConfigError(f"{name}:1: drill {drill} is not one of pid {pid}; remove it by hand")
    return Header(drill, owner, boot, wall)


def _read_undo(record: dict[str, Any], name: str, number: int) -> Undo:
    kind = record.get("do")
    if kind == "KillMarked":
        return KillMarked()
    if kind == "Continue":
        return Continue(tuple(_processes(record.get("processes"), name, number)))
    if kind in {"RemoveTree", "RemoveFile", "Unmount"}:
        path = _text(record, "path", name, number)
        if not _is_plain(path):
            raise ConfigError(f"{name}:{number}: path {path!r} is not absolute and plain")
        if kind == "Unmount":
            return Unmount(path)
        return RemoveTree(path) if kind == "RemoveTree" else RemoveFile(path)
    raise ConfigError(f"{name}:{number}: unknown undo {kind!r}")


def _processes(value: Any, name: str, number: int) -> Iterable[ProcessId]:
    for pair in value if isinstance(value, list) else [None]:
        match pair:
            case [int(pid), int(started)] if pid > 1 and started >= 0:
                yield ProcessId(pid, started)
            case _:
                raise ConfigError(f"{name}:{number}: processes are pairs of pid and start")


def _text(record: dict[str, Any], key: str, name: str, number: int) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise ConfigError(f"{name}:{number}: {key} is {value!r}; it must be text")
    return value


def _whole(record: dict[str, Any], key: str, name: str, number: int) -> int:
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError(f"{name}:{number}: {key} is {value!r}; it must be a whole number")
    return value


# --- what a drill may remove -----------------------------------------------------------------


def _is_plain(path: str) -> bool:
    """Whether ``path`` is absolute and has no empty, ``.`` or ``..`` part."""
    parts = path.split("/")
    return path.startswith("/") and len(parts) > 1 and not {"", ".", ".."} & set(parts[1:])


def tagged_root(path: str, drill: str) -> str | None:
    """Return the directory made by ``drill`` that ``path`` is or lies in; ``None``: neither.

    Directories of a drill carry its id in their name, so that a record can name nothing else.

    >>> tagged_root("/tmp/outlast-drill-7-data/n1/log", "7")
    '/tmp/outlast-drill-7-data'
    """
    if not _is_plain(path):
        return None
    parts = path.split("/")
    for count, part in enumerate(parts):
        if part == f"{PREFIX}{drill}" or part.startswith(f"{PREFIX}{drill}-"):
            return "/".join(parts[: count + 1])
    return None
