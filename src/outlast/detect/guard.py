"""The outside guard: a small process that sees what this one cannot see of itself (Linux).

A process that is stopped, or whose interpreter lock is kept by C code, runs none of its
watchdogs. The guard does: it reads stamps in shared memory, which cost the guarded no call into
the system, and sees their age whatever the guarded does. It has its own log, since a process that
does not run cannot be told anything.
"""

import json
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from outlast.detect.core import guard_rules
from outlast.detect.core.ladder import Action, Ladder, make_ladder
from outlast.detect.watchdog import Watchdog, Watchdogs
from outlast.detect.watchdog_events import GuardLost, GuardReported, GuardStarted
from outlast.detect.watchdog_stack import STACKS_BYTES_MAX, DumpPad
from outlast.kernel import ConfigError

_NS: Final = 1_000_000_000
_REST_MAX_NS: Final = 250_000_000
_LATE_NS: Final = 100_000_000
_LINE_BYTES_MAX: Final = 1 << 18
_BACKOFF_NS: Final = (_NS, 60 * _NS)
_STOP_SECONDS: Final = 2.0
_LEAST_SECONDS: Final = 0.05


class Guard(Watchdog):
    """A child process that watches this one through a page of stamps.

    Give it to :class:`Watchdogs` as ``guard=``. It watches the watcher's thread (slot
    ``process``), every :class:`LoopWatchdog` of that engine, and what you stamp yourself
    (:meth:`slot`). It tells three kinds: ``stopped`` (SIGSTOP), ``frozen`` (no Python runs: C
    code keeps the interpreter lock, or the machine gives no turn) and ``stalled`` (only this slot
    gets no further). It writes to its log at once, and the process emits
    :class:`GuardReported` as soon as it runs again.

    The guard ends with the process, however that ends, and is started again if it is lost, after
    a second at first and a minute at most. It ends with a program that replaces this one by
    ``exec``. A child of a fork is not guarded. Off in simulated time and elsewhere than on Linux.

    Args:
        stall: Seconds without a stamp of the watcher's thread that are bad. At least 0.05.
        act: What is done, a ladder or actions that are done at once: ``event`` (log, and told
            afterwards), ``stacks`` (asked for by a signal, which works while C code runs; not
            while stopped), ``restart`` (SIGABRT, and SIGKILL two seconds later; a supervisor
            must start it again). ``not_ready`` and ``dump`` cannot be done from outside.
        log: File to which it appends; by default it writes to our standard error.
        signal: Signal that asks for stacks; ours while the guard runs, so it must have no other
            use. ``None`` takes none, and then there are no stacks. A real-time one by default.
        name: What the process is called in the log.

    Raises:
        ConfigError: A time or an action is out of range.
    """

    def __init__(
        self,
        stall: float = 0.5,
        *,
        act: "Ladder | Sequence[Action]" = ("event", "stacks"),
        log: str | None = None,
        signal: int | None = -1,
        name: str = "guard",
    ) -> None:
        super().__init__(name, None)
        if stall < _LEAST_SECONDS:
            raise ConfigError(f"Guard: stall is {stall} s; at least {_LEAST_SECONDS}")
        self.rules = make_ladder(act)
        inside = [one for one in self.rules.act if one in {"not_ready", "dump"}]
        if inside:
            raise ConfigError(
                f"Guard: act has {inside[0]!r}, which cannot be done from outside; give "
                "event, stacks or restart"
            )
        self.stall = stall
        self._stall_ns = round(stall * _NS)
        self._rest_ns = min(_REST_MAX_NS, self._stall_ns // 2)
        self._log = None if log is None else str(Path(log).absolute())
        self._signal = _usual_signal() if signal == -1 else signal
        self._page: memoryview | None = None
        self._words: memoryview | None = None
        self._page_fd = -1
        self._pad: DumpPad | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._slots = 0
        self._quiet: set[str] = set()
        self._clock: Callable[[], int] = int
        self._stamp: Callable[[int], None] = _nothing
        self._text = b""
        self._restarts = 0
        self._again_ns = 0
        self._backoff_ns = _BACKOFF_NS[0]
        self._since_ns = 0

    @property
    def pid(self) -> int | None:
        """The guard's process id, if it runs."""
        return None if self._child is None else self._child.pid

    @property
    def takes_stacks(self) -> bool:
        """Whether it asks for the stacks of a process that stalls."""
        return not self.off and self._pad is not None and "stacks" in self.rules.act

    def slot(self, name: str, limit: float, *, tell: bool = True) -> Callable[[int], None]:
        """Return a function that leaves a stamp, to be called with ``clock.monotonic_ns()``.

        The slot is bad when no stamp came for ``limit`` seconds, beginning now. Call it only once
        the guard runs. It costs a fifth of a microsecond. With ``tell=False`` a stall of this slot
        alone is only logged, as somebody else emits an event of it.

        Raises:
            ConfigError: There are more than 63, or the limit is below 0.05 s.
        """
        if self.off:
            return _nothing
        if limit < _LEAST_SECONDS:
            raise ConfigError(f"Guard: limit of {name!r} is {limit} s; at least {_LEAST_SECONDS}")
        if not tell:
            self._quiet.add(name)
        return self._add(name, round(limit * _NS), 0)

    def _add(self, name: str, limit_ns: int, rest_ns: int) -> Callable[[int], None]:
        page, words = self._page, self._words
        if page is None or words is None:
            raise ConfigError(f"Guard: slot {name!r} is asked for, and the guard does not run")
        if self._slots >= guard_rules.SLOTS_MAX:
            raise ConfigError(f"Guard: slot {name!r} is one too many; {self._slots} are there")
        self._slots += 1
        place = self._slots * guard_rules.SLOT_WORDS + guard_rules.STAMP
        guard_rules.write_slot(page, self._slots, name, limit_ns, self._clock(), rest_ns=rest_ns)

        def stamp(now_ns: int) -> None:
            with suppress(ValueError):  # the page has been given back
                words[place] = now_ns

        return stamp

    # --- life ------------------------------------------------------------------------------------

    def begin(self, engine: Watchdogs) -> None:
        """Make the page and start the child.

        Raises:
            ConfigError: The signal is used by something else.
            OSError: There is no room for a process.
        """
        if engine.simulated:
            self.off = "simulated time has one process"
            return
        if sys.platform != "linux":
            self.off = "the guard needs Linux"
            return
        self.off = ""
        self._check_signal()
        self._clock = engine._live_world().clock.monotonic_ns
        self._page_fd = os.memfd_create("outlast-guard")
        os.ftruncate(self._page_fd, guard_rules.PAGE_BYTES)
        self._page = memoryview(mmap.mmap(self._page_fd, guard_rules.PAGE_BYTES))
        self._words = self._page.cast("q")
        self._slots = 0
        self._stamp = self._add("process", self._stall_ns, self._rest_ns + _LATE_NS)
        if self._signal is not None:
            self._pad = DumpPad()
            self._pad.register(self._signal)
        self._backoff_ns = _BACKOFF_NS[0]
        self._start_child()

    def _check_signal(self) -> None:
        number = self._signal
        if number is not None and signal.getsignal(number) not in {signal.SIG_DFL, None}:
            raise ConfigError(
                f"Guard: signal is {number}, which something else handles; give another, or None"
            )

    def _start_child(self) -> None:
        stacks = -1 if self._pad is None else self._pad.descriptor
        settings = {
            "pid": os.getpid(),
            "name": Path(sys.argv[0] or "python").name[:64],
            "page": self._page_fd,
            "stacks": stacks,
            "signal": self._signal or 0,
            "log": self._log,
            "ladder": [
                (round(time * _NS), action)
                for time, action in zip(self.rules.times(), self.rules.act, strict=True)
            ],
        }
        program = str(Path(__file__).with_name("guard_main.py"))
        kept = tuple(one for one in (self._page_fd, stacks) if one >= 0)
        self._child = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", program, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=kept,
        )
        if self._child.stdout is not None:
            os.set_blocking(self._child.stdout.fileno(), False)
        self._text = b""
        self._since_ns = self._clock()

    def look(self, engine: Watchdogs, now_ns: int) -> int:
        """Leave a stamp, read what the guard says, and replace it if it is gone."""
        self._stamp(now_ns)
        child = self._child
        if child is None:
            if now_ns >= self._again_ns:
                self._restarts += 1
                self._start_child()
            return now_ns + self._rest_ns
        self._read(engine, child)
        code = child.poll()
        if code is not None:
            self._drop_child()
            if now_ns - self._since_ns > _BACKOFF_NS[1]:
                self._backoff_ns = _BACKOFF_NS[0]
            self._again_ns = now_ns + self._backoff_ns
            self._backoff_ns = min(self._backoff_ns * 2, _BACKOFF_NS[1])
            engine.emit(GuardLost(pid=child.pid, code=code))
        return now_ns + self._rest_ns

    def _read(self, engine: Watchdogs, child: "subprocess.Popen[bytes]") -> None:
        if child.stdout is None:
            return
        with suppress(OSError):
            self._text += os.read(child.stdout.fileno(), 1 << 16)
        *lines, self._text = self._text.split(b"\n")
        self._text = self._text[-_LINE_BYTES_MAX:]
        for line in lines:
            report = read_report(line)
            if report is None:
                continue
            if report.kind == "ready":
                engine.emit(GuardStarted(pid=child.pid, restarts=self._restarts))
            elif report.kind != "stalled" or report.slot not in self._quiet:
                engine.emit(report)

    def _drop_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def end(self) -> None:
        """Let the guard go, and wait for its end."""
        child = self._child
        self._drop_child()
        if child is not None:
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                with suppress(subprocess.TimeoutExpired):  # it is reaped by a later wait
                    child.wait(_STOP_SECONDS)
        if self._pad is not None and self._signal is not None:
            self._pad.unregister(self._signal)
        self._release()

    def _release(self) -> None:
        pad, self._pad = self._pad, None
        if pad is not None:
            pad.close()
        if self._page_fd >= 0:
            os.close(self._page_fd)
            self._page_fd = -1
        for view in (self._words, self._page):
            if view is not None:
                view.release()
        self._words = self._page = None

    def forked(self) -> None:
        """Close what the parent shares with its guard, and no more."""
        child, self._child = self._child, None
        if child is not None:
            child.returncode = 0  # it is no child of ours, so there is nothing to wait for
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        if self._pad is not None and self._signal is not None:
            self._pad.unregister(self._signal)
        self._release()
        self.off = "this is the child of a fork"

    def describe(self) -> dict[str, Any]:
        """Return the settings."""
        return {
            "name": self.name,
            "stall": self.stall,
            "act": list(self.rules.act),
            "after": list(self.rules.times()),
            "log": self._log,
        }

    def snapshot(self) -> dict[str, Any]:
        """Return the live state."""
        return {
            **super().snapshot(),
            "pid": self.pid,
            "restarts": self._restarts,
            "slots": self._slots,
        }


def read_report(line: bytes) -> GuardReported | None:
    """Return what a line of the guard says, or ``None`` if it is not one of its lines."""
    try:
        found = json.loads(line)
        return GuardReported(
            kind=str(found["kind"])[:32],
            slot=str(found["slot"])[:64],
            seconds=float(found["seconds"]),
            stack=str(found["stack"])[-STACKS_BYTES_MAX:],
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _usual_signal() -> int | None:
    lowest = getattr(signal, "SIGRTMIN", None)
    return None if lowest is None else int(lowest) + 9


def _nothing(now_ns: int) -> None:
    """Leave no stamp."""
