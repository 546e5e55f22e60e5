"""Where a suspended task waits: its frames from the outside in, and the text of what it awaits."""

import asyncio
import functools
import gc
import linecache
from collections.abc import Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

_KINDS: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)
_TEXT_MAX: Final = 100
_BLOCKS: Final = ("async with ", "async for ")


def frames_of(task: "asyncio.Task[Any]") -> list[FrameType]:
    """Return the frames of a suspended task, the innermost last.

    Unlike ``Task.get_stack`` it goes through generators and asynchronous ones as well.
    """
    frames = []
    link: Any = task.get_coro()
    while link is not None and not isinstance(link, asyncio.Future):
        frame: FrameType | None = None
        if isinstance(link, CoroutineType):
            frame, link = link.cr_frame, link.cr_await
        elif isinstance(link, GeneratorType):
            frame, link = link.gi_frame, link.gi_yieldfrom
        elif isinstance(link, AsyncGeneratorType):
            frame, link = link.ag_frame, link.ag_await
        else:  # a step of an asynchronous generator, or what __await__ returns: both hide it
            link = next((one for one in gc.get_referents(link) if isinstance(one, _KINDS)), None)
        if frame is not None:
            frames.append(frame)
    return frames


def module_of(frame: FrameType) -> str:
    """Return the name of the module whose code a frame runs."""
    return str(frame.f_globals.get("__name__", ""))


@functools.cache
def awaited(code: CodeType, instruction: int) -> str:
    """Return the source of the expression at which a frame is suspended, on one line.

    Of a block only its first line counts, and of what is long the beginning.
    """
    places = list(code.co_positions())
    first, last, begin, end = places[min(instruction // 2, len(places) - 1)]
    if first is None or last is None:
        return "?"
    lines = [linecache.getline(code.co_filename, n).encode() for n in range(first, last + 1)]
    if lines[0].decode().lstrip().startswith(_BLOCKS):
        lines = [lines[0].strip().removesuffix(b":")]
    else:
        lines[-1] = lines[-1][:end]
        lines[0] = lines[0][begin:]
    text = " ".join(b" ".join(lines).decode(errors="replace").split())
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"


def held_by(frame: FrameType, kind: type) -> Iterator[Any]:
    """Go through the local variables of a frame that are of ``kind``."""
    return (value for value in frame.f_locals.values() if isinstance(value, kind))
