"""``Stop``: how a supervised thread hears that it shall end; stamps of progress."""

import mmap
import os
import threading
from contextvars import ContextVar
from typing import Final, Protocol

from outlast.kernel import ConfigError, World

PROGRESS_VARIABLE: Final = "OUTLAST_PROGRESS"
STAMP_BYTES: Final = 8
_WAITS_MAX: Final = 100_000


class Stamp(Protocol):
    """A number that is counted up: item 0 of it."""

    def __getitem__(self, index: int, /) -> int:
        """Return the number."""
        ...

    def __setitem__(self, index: int, value: int, /) -> None:
        """Set the number."""
        ...


_here: ContextVar[Stamp | None] = ContextVar("outlast_progress", default=None)
_process: list[Stamp | None] = []


def progress_stamp() -> None:
    """Say that a piece of work is done, in a child that is supervised with ``progress=``.

    In a task or thread it counts for that child, in a process for the process. Anywhere else
    nothing happens. Call it where work gets *done*; a timer that stamps proves nothing. It costs
    less than a microsecond, takes no lock and may be called from any thread.
    """
    stamp = _here.get()
    if stamp is None:
        if not _process:
            _process.append(_open(os.environ.get(PROGRESS_VARIABLE, "")))
        stamp = _process[0]
        if stamp is None:
            return
    stamp[0] = (stamp[0] + 1) & 0x7FFF_FFFF_FFFF_FFFF or 1


def set_stamp(stamp: Stamp) -> None:
    """Let :func:`progress_stamp` count on ``stamp`` in this context."""
    _here.set(stamp)


def _open(number: str) -> Stamp | None:
    """Map the memory that the supervisor shares with us, if it does."""
    if not number.isdigit():
        return None
    try:
        if os.fstat(int(number)).st_size != STAMP_BYTES:
            return None  # a descendant, where the number means something else
        memory = mmap.mmap(int(number), STAMP_BYTES)
    except (OSError, ValueError):
        return None
    return memoryview(memory).cast("q")


class Stop:
    """Tells a supervised thread that it shall end. Safe to use from any thread.

    A thread cannot be ended from outside: it must look at :attr:`is_set` between two pieces of
    work, or wait by :meth:`wait`.
    """

    __slots__ = ("_gate", "_set", "_waits", "_world")

    def __init__(self, world: World) -> None:
        self._world = world
        self._set = False
        self._waits = 0
        self._gate = threading.Lock()
        self._gate.acquire()

    def __repr__(self) -> str:
        """Show whether it is set."""
        return f"<Stop {'set' if self._set else 'not set'}>"

    @property
    def is_set(self) -> bool:
        """Whether the thread shall end."""
        return self._set

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the thread shall end; whether it shall.

        Raises:
            ConfigError: Definite. In the simulator a thread runs from its start to its end in one
                step, and this one waits again and again: give it ``every=`` instead.
        """
        if not self._set and self._world.clock.wait(self._gate, seconds):
            self._gate.release()
        elif hasattr(self._world.clock, "beside"):
            self._waits += 1
            if self._waits > _WAITS_MAX:
                raise ConfigError(
                    "Stop.wait: a simulated thread cannot be told to stop while it runs;"
                    " Child.thread(..., every=SECONDS) calls a function again and again"
                )
        return self._set

    def set(self) -> None:
        """Let the thread end; again changes nothing."""
        if not self._set:
            self._set = True
            self._gate.release()
