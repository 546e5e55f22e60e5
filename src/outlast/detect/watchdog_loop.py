"""Watchdogs of event loops and of the process itself.

A callback on the loop leaves a stamp ten times a second. The watcher sleeps until the stamp would
be too old, so it sees a stall at the limit and not a poll later, and takes the stack of the loop's
thread while it stalls. If C code keeps the interpreter lock the watcher cannot run either: then
``faulthandler`` writes the stacks from a thread in C, and they are told afterwards. What is to be
told meanwhile needs :class:`~outlast.detect.Guard`.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from outlast.detect.core.ladder import Action, Ladder
from outlast.detect.watchdog import Finding, Watchdog, Watchdogs
from outlast.detect.watchdog_events import LoopRecovered, LoopStalled, ProcessStalled
from outlast.detect.watchdog_stack import DumpPad, thread_text
from outlast.kernel import ConfigError

_NS: Final = 1_000_000_000
_AGAIN_NS: Final = 50_000_000
_LATE: Final = 0.05
_REST_MAX_NS: Final = 250_000_000
_LEAST_SECONDS: Final = 0.05


class LoopWatchdog(Watchdog):
    """Notices that an event loop does not run, while it does not.

    Emits :class:`LoopStalled` with the stack of the loop's thread and the running task once the
    loop has not run for ``stall`` seconds, and :class:`LoopRecovered` when it runs again. A loop
    that is not running (between two ``run_until_complete``) or closed does not stall. One object
    watches one loop at a time; for several loops use several, with names.

    In the simulator, where there is one thread, a stall is told when it is over, without a stack.

    Args:
        stall: Seconds without running that are a stall. At least 0.05. Default 0.5.
        every: Seconds between stamps; at least 0.1 and at most half of ``stall``, if that is more.
            By default a fifth of ``stall``, at least 0.1.
        loop: The loop; by default that in which it is started.
        name: What it is called.
        act: See :class:`Watchdog`.

    Raises:
        ConfigError: A time is out of range.
    """

    def __init__(
        self,
        stall: float = 0.5,
        *,
        every: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        name: str = "loop",
        act: "Ladder | Sequence[Action] | None" = None,
    ) -> None:
        super().__init__(name, act)
        if stall < _LEAST_SECONDS:
            raise ConfigError(f"LoopWatchdog: stall is {stall} s; at least {_LEAST_SECONDS}")
        self._every = min(max(stall / 5, 0.1), stall / 2) if every is None else every
        if not 0.01 <= self._every <= stall / 2:
            raise ConfigError(
                f"LoopWatchdog: every is {every} s and stall {stall} s; every from 0.01 to half "
                "of stall"
            )
        self.stall = stall
        self._stall_ns = round(stall * _NS)
        self._given = loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ident = 0
        self._clock: Callable[[], int] = int
        self._stamp_ns = 0
        self._gap_ns = 0
        self._worst_ns = 0
        self._stalls = 0
        self._bad = False
        self._handle: asyncio.TimerHandle | None = None
        self._slot: Callable[[int], None] | None = None

    def begin(self, engine: Watchdogs) -> None:
        """Put the first stamp on the loop.

        Raises:
            ConfigError: No loop was given, and none is running here.
        """
        loop = self._given
        if loop is None:
            with suppress(RuntimeError):
                loop = asyncio.get_running_loop()
        if loop is None:
            raise ConfigError("LoopWatchdog: no event loop is running here; give loop=")
        world = engine._live_world()
        self._loop, self._clock, self.off = loop, world.clock.monotonic_ns, ""
        self._stamp_ns, self._gap_ns, self._bad, self._ident = self._clock(), 0, False, 0
        if engine.guard is not None:
            self._slot = engine.guard.slot(self.name, self.stall, tell=False)
        loop.call_soon_threadsafe(self._beat)

    def _beat(self) -> None:
        """Leave a stamp; runs on the loop."""
        loop = self._loop
        if loop is None:
            return
        now_ns = self._clock()
        gap_ns = now_ns - self._stamp_ns
        self._worst_ns = max(self._worst_ns, gap_ns)
        if not self._ident:
            self._ident = threading.get_ident()
        elif gap_ns >= self._stall_ns:
            self._gap_ns = gap_ns
        self._stamp_ns = now_ns
        if self._slot is not None:
            self._slot(now_ns)
        self._handle = loop.call_later(self._every, self._beat)

    def look(self, engine: Watchdogs, now_ns: int) -> int:
        """Compare the stamp with the time."""
        loop = self._loop
        if loop is None or loop.is_closed():
            self.off = "the loop is closed"
            engine.good(self, "", now_ns)
            return now_ns + _NS
        if not loop.is_running():
            self._stamp_ns, self._gap_ns = now_ns, 0
            if self._slot is not None:
                self._slot(now_ns)
        since_ns = self._stamp_ns
        if self._ident and now_ns - since_ns >= self._stall_ns:
            if not self._bad:
                self._bad = True
                self._stalls += 1
            engine.bad(self, "", now_ns, self._finding(loop, now_ns - since_ns, during=True))
            return now_ns + _AGAIN_NS
        gap_ns, self._gap_ns = self._gap_ns, 0
        if gap_ns and not self._bad:  # it was over before we could look
            self._stalls += 1
            engine.bad(self, "", now_ns, self._finding(loop, gap_ns, during=False))
        if gap_ns or self._bad:
            self._bad = False
            engine.good(self, "", now_ns, (gap_ns or now_ns - since_ns) / _NS)
        return self._stamp_ns + self._stall_ns

    def _finding(self, loop: asyncio.AbstractEventLoop, late_ns: int, *, during: bool) -> Finding:
        seconds = late_ns / _NS

        def event() -> LoopStalled:
            task = asyncio.current_task(loop) if during else None
            return LoopStalled(
                loop=self.name,
                seconds=seconds,
                stack=thread_text(self._ident) if during else "",
                task="" if task is None else task.get_name(),
            )

        return Finding(
            f"the loop has not run for {seconds:.2f} s",
            event,
            lambda lasted: LoopRecovered(loop=self.name, seconds=lasted),
        )

    def end(self) -> None:
        """Take the stamps off the loop."""
        loop, self._loop = self._loop, None
        handle, self._handle = self._handle, None
        if handle is not None and loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(handle.cancel)
        self._slot = None

    def forked(self) -> None:
        """Stop: the loop is the parent's."""
        self._loop = self._slot = None

    def describe(self) -> dict[str, Any]:
        """Return the settings."""
        return {"name": self.name, "stall": self.stall, "every": self._every}

    def snapshot(self) -> dict[str, Any]:
        """Return the live state; ``worst`` is the longest time between two stamps, in seconds."""
        return {**super().snapshot(), "stalls": self._stalls, "worst": self._worst_ns / _NS}


class ProcessWatchdog(Watchdog):
    """Notices that no thread of the process could run Python, not even the watcher's.

    Afterwards it emits :class:`ProcessStalled`: ``gil`` if a thread kept the interpreter lock in
    C code (its stack was written meanwhile by ``faulthandler``), ``not running`` if the process
    used no processor time (stopped, swapped out, or the machine was paused or has too much to do).

    ``faulthandler.dump_traceback_later`` exists once in a process. With ``dump`` it is ours while
    this runs, armed four times a second; give ``dump=False`` if something else uses it. It writes
    stacks while Python may be running, if the machine is so busy that the watcher gets no turn:
    CPython does not promise that this is safe, though it is widely done. An outside guard needs
    no timer: it asks for the stacks when it sees the stall, and tells them as
    :class:`GuardReported`.

    Args:
        stall: Seconds without running that are a stall. At least 0.05. Default 0.5.
        dump: Whether to have the stacks written by a timer; by default if the engine has no guard
            that asks for them.
        name: What it is called.
        act: See :class:`Watchdog`.

    Raises:
        ConfigError: ``stall`` is too short.
    """

    def __init__(
        self,
        stall: float = 0.5,
        *,
        dump: bool | None = None,
        name: str = "process",
        act: "Ladder | Sequence[Action] | None" = None,
    ) -> None:
        super().__init__(name, act)
        if stall < _LEAST_SECONDS:
            raise ConfigError(f"ProcessWatchdog: stall is {stall} s; at least {_LEAST_SECONDS}")
        self.stall = stall
        self._dump = dump
        self._stall_ns = round(stall * _NS)
        self._rest_ns = min(_REST_MAX_NS, self._stall_ns // 2)
        self._pad: DumpPad | None = None
        self._cpu_ns = self._turns = 0
        self._looked_ns = 0
        self._stalls = 0

    def begin(self, engine: Watchdogs) -> None:
        """Get the memory for stacks; off in simulated time."""
        self.off = "simulated time has one thread" if engine.simulated else ""
        guard = engine.guard
        dump = (guard is None or not guard.takes_stacks) if self._dump is None else self._dump
        if dump and not self.off and hasattr(os, "memfd_create"):
            self._pad = DumpPad()
        self._cpu_ns = _cpu_ns()

    def look(self, engine: Watchdogs, now_ns: int) -> int:
        """See whether we come when we should, and arm the timer in C again."""
        cpu_ns, turns = _cpu_ns(), _turns()
        used_ns, self._cpu_ns = cpu_ns - self._cpu_ns, cpu_ns
        came, self._turns = turns - self._turns, turns
        slept_ns = engine.longest_gap_ns(self._looked_ns)
        self._looked_ns = now_ns
        text = "" if self._pad is None else self._pad.take()
        if slept_ns >= self._stall_ns + self._rest_ns // 2 or (
            text and slept_ns >= self._stall_ns
        ):
            self._stalls += 1
            late_ns = max(slept_ns - self._rest_ns, 0)
            held = kept_from_running(late_ns, used_ns, came if turns else None)
            cause, stack = ("gil", text) if held else ("not running", "")
            engine.tell(self, self._finding(cause, slept_ns / _NS, stack), now_ns)
        if self._pad is not None:
            self._pad.arm(self.stall + _LATE)
        return now_ns + self._rest_ns

    def _finding(self, cause: str, seconds: float, stack: str) -> Finding:
        return Finding(
            f"{cause} for {seconds:.2f} s",
            lambda: ProcessStalled(cause=cause, seconds=seconds, stack=stack),
        )

    def end(self) -> None:
        """Give the timer and the memory back."""
        pad, self._pad = self._pad, None
        if pad is not None:
            pad.close()

    forked = end

    def describe(self) -> dict[str, Any]:
        """Return the settings."""
        return {"name": self.name, "stall": self.stall, "dump": self._dump}

    def snapshot(self) -> dict[str, Any]:
        """Return the live state."""
        return {**super().snapshot(), "stalls": self._stalls}


def kept_from_running(late_ns: int, used_ns: int, turns: int | None) -> bool:
    """Whether a watcher was late because another thread kept the interpreter lock.

    Who waits for the lock wakes up again and again to ask for it, once in each
    ``sys.getswitchinterval()``; who is stopped or gets no processor does not. On a machine with
    too much to do each time takes longer, so a tenth of them is enough.

    Args:
        late_ns: How late it is.
        used_ns: Processor time of the process meanwhile.
        turns: How often the watcher was given a processor, if the system tells.
    """
    if turns is None:
        return 4 * used_ns >= late_ns
    wakes = late_ns / _NS / sys.getswitchinterval()
    return 10 * turns >= wakes and 20 * used_ns >= late_ns


def _turns() -> int:
    """Return how often this thread was given a processor, 0 if nobody tells."""
    from outlast.host.vitals import slices_of_thread

    return slices_of_thread(threading.get_native_id()) or 0


def _cpu_ns() -> int:
    used = os.times()
    return round((used.user + used.system) * _NS)
