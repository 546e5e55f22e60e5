"""What a process writes: read through a pipe or found in its log; the last lines are kept."""

import asyncio
import os
import select
from collections import deque
from contextlib import suppress
from typing import Final

from outlast.kernel import World

LINES_MAX: Final = 50
_LINE_MAX: Final = 1_000
_READ_BYTES: Final = 1 << 16
_READS_MAX: Final = 64
_TAIL_BYTES: Final = 1 << 15
_TEE_BYTES: Final = 4096
_LOOK_SECONDS: Final = 0.05
_STDOUT: Final = 1


class Output:
    """The output of one instance of a process. Used on one loop.

    Args:
        how: ``inherit``, ``keep``, ``tee`` or a path.

    Raises:
        OSError: Definite. The file cannot be opened.
    """

    def __init__(self, how: str) -> None:
        self._how = how
        self._lines: deque[str] = deque(maxlen=LINES_MAX)
        self._rest = b""
        self._read = -1
        self._wanted: list[tuple[str, asyncio.Future[None]]] = []
        self._file = ""
        self._begin = 0
        self.descriptor: int | None = None
        if how in {"keep", "tee"}:
            self._read, self.descriptor = os.pipe()
            os.set_blocking(self._read, False)
        elif how != "inherit":
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self.descriptor = os.open(how, flags, 0o644)
            self._file, self._begin = how, os.fstat(self.descriptor).st_size

    def begun(self, *, runs: bool) -> None:
        """The process has the descriptor, or could not be started."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        if runs and self._read >= 0:
            asyncio.get_running_loop().add_reader(self._read, self._on_data)
        elif self._read >= 0:
            os.close(self._read)
            self._read = -1

    def finish(self) -> None:
        """The process has ended: take what is left, and wait for nobody who has the pipe, too."""
        if self._read >= 0:
            with suppress(BlockingIOError):
                for _ in range(_READS_MAX):
                    if not self._take():
                        break
            self._close()
        if self._rest:
            self._add(self._rest)
            self._rest = b""

    def lines(self) -> tuple[str, ...]:
        """Return the last lines."""
        if self._file:
            return tuple(self._tail()[-LINES_MAX:])
        return tuple(self._lines)

    async def line(self, text: str, world: World) -> None:
        """Wait until a line contains ``text``; those that are gone from memory are not seen."""
        if self._file:
            while not any(text in line for line in self._tail()):
                await world.timers.sleep(_LOOK_SECONDS)
            return
        if any(text in line for line in self._lines):
            return
        found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted.append((text, found))
        await found

    def _on_data(self) -> None:
        with suppress(BlockingIOError):
            if not self._take():
                self._close()

    def _take(self) -> bool:
        """Read once; ``False`` at the end of the pipe."""
        data = os.read(self._read, _READ_BYTES)
        if not data:
            return False
        if self._how == "tee":
            _pass_on(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._add(line)
        if len(self._rest) > _READ_BYTES:
            self._add(self._rest)
            self._rest = b""
        return True

    def _add(self, raw: bytes) -> None:
        line = raw[:_LINE_MAX].decode("utf-8", "replace").rstrip("\r")
        self._lines.append(line)
        for text, found in self._wanted:
            if text in line and not found.done():
                found.set_result(None)

    def _close(self) -> None:
        if self._read >= 0:
            asyncio.get_running_loop().remove_reader(self._read)
            os.close(self._read)
            self._read = -1

    def _tail(self) -> list[str]:
        try:
            with open(self._file, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                begin = self._begin if size >= self._begin else 0  # it was rotated
                file.seek(max(begin, size - _TAIL_BYTES))
                text = file.read(_TAIL_BYTES)
        except OSError:
            return []
        return [line[:_LINE_MAX] for line in text.decode("utf-8", "replace").splitlines()]


def _pass_on(data: bytes) -> None:
    """Write to our own output what it takes at once: a reader that hangs must not hang us."""
    with suppress(OSError):
        poll = select.poll()
        poll.register(_STDOUT, select.POLLOUT)
        for begin in range(0, len(data), _TEE_BYTES):
            if not poll.poll(0):
                return
            os.write(_STDOUT, data[begin : begin + _TEE_BYTES])
