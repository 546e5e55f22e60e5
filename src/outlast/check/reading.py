"""Reading histories from files, in whichever of the two notations they are written.

JSON lines are read one bounded line at a time. EDN has no lines of its own, so that such a file is
read whole, up to a bound.
"""

import re
from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import BinaryIO

from outlast.check.core.history import History, parse_lines
from outlast.check.edn import looks_like_edn
from outlast.check.jepsen import read_jepsen
from outlast.kernel import ConfigError

LINE_BYTES_MAX = 16 << 20
"""Longest line of JSON."""

EDN_BYTES_MAX = 512 << 20
"""Largest file of EDN."""

DEPTH_MAX = 64
"""Nesting beyond this is refused: no history has it, and comparing such values would not end."""

_HEAD = 64 << 10
_QUOTED = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


def read_history(path: str | PathLike[str], *, independent: bool | None = None) -> History:
    """Read a history from a file: JSON lines, or EDN as Jepsen and Knossos write it.

    A file is EDN when its name ends in ``.edn`` or when it begins as only EDN does.

    Args:
        path: The file.
        independent: For EDN: whether values are ``[key value]``; ``None`` decides by their looks.

    Raises:
        ConfigError: What it holds is no history; the message names file and line.
        OSError: The file cannot be read.
    """
    with Path(path).open("rb") as stream:
        name = fspath(path)
        return read_stream(stream, name, edn=name.endswith(".edn"), independent=independent)


def read_stream(
    stream: BinaryIO, name: str, *, edn: bool = False, independent: bool | None = None
) -> History:
    """Read a history from an open stream of bytes, such as stdin.

    Args:
        stream: Where the history comes from; read to its end.
        name: What errors call it.
        edn: Take it for EDN whatever it looks like.
        independent: As for :func:`read_history`.

    Raises:
        ConfigError: What it holds is no history; the message names ``name`` and the line.
    """
    head = stream.read(_HEAD)
    if edn or looks_like_edn(head.decode("utf-8", "replace").removeprefix("\ufeff")):
        history = read_jepsen(_whole(head, stream, name), name, independent=independent)
    else:
        history = parse_lines(_lines(head, stream, name), name)
    if not history.invoked:
        raise ConfigError(
            f"{name}: no operation in it; expected lines such as"
            ' {"process": 0, "type": "invoke", "f": "read", "value": null}'
        )
    return history


def _whole(head: bytes, stream: BinaryIO, name: str) -> str:
    data = head + stream.read(EDN_BYTES_MAX + 1 - len(head))
    if len(data) > EDN_BYTES_MAX:
        raise ConfigError(f"{name}: more than {EDN_BYTES_MAX >> 20} MiB of EDN; judge it in parts")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: not UTF-8, so not EDN") from None


def _lines(head: bytes, stream: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the lines of head and stream, each bounded in length and depth."""
    number = 0
    pieces = head.split(b"\n")
    pieces[-1] += stream.readline(LINE_BYTES_MAX + 1)
    while pieces:
        for line in pieces:
            number += 1
            if len(line) > LINE_BYTES_MAX:
                raise ConfigError(
                    f"{name}:{number}: a line of more than {LINE_BYTES_MAX >> 20} MiB;"
                    " one event a line would be right"
                )
            if line.count(b"[") + line.count(b"{") > DEPTH_MAX and _depth(line) > DEPTH_MAX:
                raise ConfigError(
                    f"{name}:{number}: nested more than {DEPTH_MAX} deep; that is no history"
                )
            yield line
        following = stream.readline(LINE_BYTES_MAX + 1)
        pieces = [following] if following else []


def _depth(line: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_QUOTED.sub(b"", line)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
