"""An error as people want to read it: one line, the program's own lines, and the same in short."""

import re
import sysconfig
import traceback
from asyncio import CancelledError
from collections.abc import Iterator
from pathlib import Path
from reprlib import Repr
from types import FrameType, TracebackType
from typing import Any

_FRAMES_MAX = 12
_LINE_MAX = 400
_VALUE_MAX = 200
_VALUES_MAX = 8
_ROOM = Path(__file__).resolve().parents[2]
_OURS = tuple(str(_ROOM / room) for room in ("sim", "testing", "kernel", "host"))
_LIBRARY = tuple(
    {
        str(Path(path).resolve()): None
        for name, path in sysconfig.get_paths().items()
        if name in {"stdlib", "platstdlib", "purelib", "platlib"}
    }
)


def one_line(error: BaseException) -> str:
    """Return type and message in one line."""
    said = " ".join(str(error).split())
    name = type(error).__name__
    text = f"{name}: {said}" if said else name
    return text if len(text) <= _LINE_MAX else text[: _LINE_MAX - 1] + "…"


def kind_of(error: BaseException) -> str:
    """Return what two errors have in common that are the same failure: type and place.

    Of an error that no line of the program raised, the message without its numbers counts.
    """
    error = _leaf(error)
    cls = type(error)
    where = ""
    for file, line, _ in _frames(error.__traceback__):
        if is_own(file):
            where = f"{Path(file).name}:{line}"
    if not where:
        where = re.sub(r"\d+", "#", " ".join(str(error).split()))[:_LINE_MAX]
    return f"{cls.__module__}.{cls.__qualname__} {where}"


def is_own(file: str) -> bool:
    """Whether a file belongs to the program, and not to Python, its packages or the simulator."""
    if file.startswith("<"):
        return False
    path = str(Path(file).resolve())
    if path.startswith(_OURS):
        return False
    return "site-packages" not in path and not path.startswith(_LIBRARY)


def place_of(error: BaseException) -> str:
    """Return ``file:line in function`` of the innermost of the program's own frames.

    Of an error that none of them raised, of the innermost of all.
    """
    frames = list(_frames(error.__traceback__))
    own = [frame for frame in frames if is_own(frame[0])]
    for file, line, name in (own or frames)[-1:]:
        return f"{short(file)}:{line} in {name}"
    return "an unknown place"


def own_lines(error: BaseException) -> list[str]:
    """Return the program's own lines that led to ``error``, outermost first, then the error."""
    leaf = _leaf(error)
    lines: list[str] = []
    if leaf.__cause__ is not None and not isinstance(leaf.__cause__, CancelledError):
        lines += [*own_lines(leaf.__cause__), "which led to"]
    stack = traceback.extract_tb(leaf.__traceback__)
    frames = [frame for frame in stack if is_own(frame.filename)] or stack[-3:]
    for frame in frames[-_FRAMES_MAX:]:
        lines.append(f"{short(frame.filename)}:{frame.lineno} in {frame.name}")
        if frame.line:
            lines.append(f"    {frame.line}")
    lines.append(one_line(leaf))
    if leaf is not error:
        lines.append(f"(inside {one_line(error)})")
    for note in getattr(leaf, "__notes__", ()):
        lines += [f"  {line}" for line in str(note).splitlines()]
    if isinstance(leaf, AssertionError) and not leaf.args:
        lines += values(leaf)
    return lines


def values(error: BaseException) -> list[str]:
    """Return the values of the names in the line that raised ``error``.

    A bare ``assert`` says nothing by itself where pytest does not rewrite it.
    """
    raised = _last_own(error.__traceback__)
    if raised is None:
        return []
    frame, number = raised
    source = traceback.FrameSummary(frame.f_code.co_filename, number, "").line or ""
    show = Repr()
    show.maxother = show.maxstring = show.maxlong = _VALUE_MAX
    show.maxset = show.maxdict = show.maxlist = show.maxtuple = 12
    lines: list[str] = []
    for name in dict.fromkeys(re.findall(r"(?<![.\w\"'])[A-Za-z_]\w*", source)):
        if name in frame.f_locals and len(lines) < _VALUES_MAX:
            lines.append(f"  {name} = {show.repr(frame.f_locals[name])}")
    return lines


def verdict_of(error: BaseException) -> str:
    """Return what the checker of a history said, if the error carries it.

    It may be an attribute ``result`` or ``history`` of the error or one of its arguments:
    anything with a ``verdict``, such as what :func:`outlast.check.check` returns.
    """
    error = _leaf(error)
    found: list[Any] = [getattr(error, name, None) for name in ("result", "history")]
    for judged in (*found, *error.args):
        verdict = getattr(judged, "verdict", None)
        if not isinstance(verdict, str):
            continue
        lines = [f"{verdict}: {getattr(judged, 'why', '')}".rstrip(": ")]
        example = getattr(judged, "counterexample", None)
        if example is not None:
            lines += [str(example.text())]
        return "\n".join(lines)
    return ""


def short(file: str) -> str:
    """Return a path relative to the current directory where that is shorter."""
    try:
        return str(Path(file).resolve().relative_to(Path.cwd()))
    except ValueError:
        return file


def _leaf(error: BaseException) -> BaseException:
    """Return the first error inside of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield code.co_filename, trace.tb_lineno, code.co_name
        trace = trace.tb_next


def _last_own(trace: TracebackType | None) -> tuple[FrameType, int] | None:
    found = None
    while trace is not None:
        if is_own(trace.tb_frame.f_code.co_filename):
            found = trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next
    return found
