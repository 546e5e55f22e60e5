"""Stacks of threads and tasks as bounded text, also of a process that does not run Python.

``sys._current_frames`` is enough while the watcher can run. When C code keeps the interpreter
lock nobody can, so :class:`DumpPad` has ``faulthandler`` write into memory from a thread of its
own, to be read later. That timer is one for the whole process: whoever else uses it (a test
runner's, say) and we would disarm each other, so ours is shared and has one owner.
"""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat
from types import FrameType
from typing import Any, Final

FRAMES_MAX: Final = 40
STACK_BYTES_MAX: Final = 8_000
STACKS_BYTES_MAX: Final = 32_000
_PAD_BYTES_MAX: Final = 256_000
_SLICE_SECONDS: Final = 0.1


def frame_text(frame: FrameType | None, frames_max: int = FRAMES_MAX) -> str:
    """Return a stack as text, the innermost call last. Reads no source files."""
    lines: list[str] = []
    while frame is not None and len(lines) < frames_max:
        lines.append(line_text(frame))
        frame = frame.f_back
    if frame is not None:
        lines.append("  …")
    return cut("\n".join(reversed(lines)), STACK_BYTES_MAX)


def line_text(frame: FrameType) -> str:
    """Return the place in which a frame is."""
    code = frame.f_code
    return f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_qualname}'


def cut(text: str, size: int) -> str:
    """Return the end of ``text``, which is where the innermost calls are."""
    return text if len(text) <= size else "…" + text[-size:]


def thread_name(ident: int) -> str:
    """Return the name of a thread; its number if Python did not start it."""
    thread = threading._active.get(ident)  # type: ignore[attr-defined]  # enumerate() locks
    return f"thread {ident}" if thread is None else str(thread.name)


def thread_text(ident: int) -> str:
    """Return the stack of a thread, empty if it has ended."""
    return frame_text(sys._current_frames().get(ident))


def all_text(skip: int = 0, only: "set[int] | None" = None) -> str:
    """Return the stacks of all threads, or of ``only`` these, but for the thread ``skip``.

    The main thread comes first, so that many others cannot crowd it out of the bound.
    """
    first = threading.main_thread().ident
    frames = sorted(sys._current_frames().items(), key=lambda one: one[0] != first)
    parts = [
        f"{thread_name(ident)}:\n{frame_text(frame)}"
        for ident, frame in frames
        if ident != skip and (only is None or ident in only)
    ]
    whole = "\n".join(parts)
    return whole if len(whole) <= STACKS_BYTES_MAX else whole[:STACKS_BYTES_MAX] + "…"


def task_text(task: Any, frames_max: int = FRAMES_MAX) -> str:
    """Return where a task waits, through all coroutines that it is in, the innermost last."""
    lines: list[str] = []
    at: Any = task.get_coro()
    while at is not None and len(lines) < frames_max:
        frame = getattr(at, "cr_frame", None) or getattr(at, "gi_frame", None)
        if frame is None:
            break
        lines.append(line_text(frame))
        at = getattr(at, "cr_await", None) or getattr(at, "gi_yieldfrom", None)
    return cut("\n".join(lines), STACK_BYTES_MAX)


class DumpPad:
    """Memory into which ``faulthandler`` writes, and from which we read.

    :meth:`arm` is process-wide: only one pad at a time is the timer's owner, and a second one
    that asks is refused until the first has disarmed it.

    Attributes:
        descriptor: The memory file; another process that has it can read what is written.
    """

    _owner: "DumpPad | None" = None
    _owning = threading.Lock()

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("outlast-stacks")
        set_append(self.descriptor)
        # Line by line from C: the file object only lends its descriptor.
        self._file = os.fdopen(self.descriptor, "wb", buffering=0, closefd=False)

    def arm(self, seconds: float, *, end: bool = False) -> bool:
        """Write all stacks after ``seconds`` unless armed again before; about 30 microseconds.

        Args:
            seconds: Time until then.
            end: End the process, too, with exit code 1; nothing in Python can stop that.

        Returns:
            Whether it is armed: another pad may own the timer.
        """
        import faulthandler

        with self._owning:
            if DumpPad._owner not in {None, self} and not end:
                return False
            DumpPad._owner = self
            faulthandler.dump_traceback_later(seconds, exit=end, file=self._file)
        return True

    def disarm(self) -> None:
        """Give the timer back, if it is ours."""
        with self._owning:
            if DumpPad._owner is self:
                import faulthandler

                faulthandler.cancel_dump_traceback_later()
                DumpPad._owner = None

    def register(self, number: int) -> None:
        """Write all stacks when signal ``number`` arrives, whatever the process is doing."""
        import faulthandler

        faulthandler.register(number, file=self._file, all_threads=True)

    @staticmethod
    def unregister(number: int) -> None:
        """Undo :meth:`register`: the signal does again what it did before."""
        import faulthandler

        faulthandler.unregister(number)

    def take(self) -> str:
        """Return what was written since the last time, and forget it."""
        return take_text(self.descriptor)

    def close(self) -> None:
        """Disarm and close."""
        self.disarm()
        self._file.close()
        with suppress(OSError):
            os.close(self.descriptor)


def set_append(descriptor: int) -> None:
    """Let every write go to the end, wherever another process has read or cut meanwhile."""
    import fcntl

    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)


def take_text(descriptor: int) -> str:
    """Read a memory file, and empty it."""
    size = os.fstat(descriptor).st_size
    if not size:
        return ""
    text = os.pread(descriptor, min(size, _PAD_BYTES_MAX), 0)
    os.ftruncate(descriptor, 0)
    return text.decode("utf-8", "replace")


def bounded(
    call: Callable[[], Any],
    seconds: float,
    name: str,
    alive: Callable[[], object] = lambda: None,
) -> str:
    """Make ``call`` on a thread of its own and wait at most ``seconds`` for it.

    Args:
        call: What to do.
        seconds: The longest wait.
        name: Of the thread.
        alive: Called at least ten times a second meanwhile, if the waiting thread can run.

    Returns:
        What went wrong, in words; empty if nothing did. A call that takes longer goes on.
    """
    wrong: list[str] = []
    done = threading.Lock()
    done.acquire()

    def work() -> None:
        try:
            call()
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
        finally:
            done.release()

    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError as error:  # there is no room for a thread
        return f"{type(error).__name__}: {error}"
    slices, rest = divmod(seconds, _SLICE_SECONDS)
    for wait in (*repeat(_SLICE_SECONDS, int(slices)), rest):
        if done.acquire(timeout=wait):
            return wrong[0] if wrong else ""
        alive()
    return f"took longer than {seconds} s"
