"""``LocalHealth``: measures how well this process is itself, before it accuses another."""

import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from outlast.detect.core.local_health import LocalHealthCore, Readings, check_settings
from outlast.detect.core.scale import NS
from outlast.detect.detectors_events import LocalExcused, LocalExcuseEnded, LocalPaused
from outlast.kernel import ConfigError, Event, TaskHandle, World, current_world
from outlast.kernel.registry import watch

if TYPE_CHECKING:
    from outlast.host.pressure import Pressure


class LocalHealth:
    """How well this process is, measured: 0 is healthy, 1 is useless as a witness.

    ``async with local:`` ticks on the running loop and so measures what the loop's tasks feel;
    ``with local:`` ticks on a thread, for programs without a loop. A tick costs about
    10 to 15 microseconds, a question 1 to 2.

    It measures the lateness of its tick (loop lag, a busy GIL, SIGSTOP, a machine that was
    paused), the time the ticking thread waited for a processor (``schedstat``), throttling of
    the control group, pressure (PSI; a quarter of its weight, since it is of the whole machine),
    pauses of the garbage collector and sleep of the machine. What the machine does not tell is
    left out; under virtual time only the tick counts.

    Threads may ask, and begin and end excuses, at the same time. Not to be shared by two loops.
    In a child process nothing ticks any more until it is started there: nobody is accused.

    Args:
        interval: Seconds between ticks; take that of the heartbeats. 0.001 to 60.
        clean: Seconds without a pause before anybody may be accused again; ``3 * interval``.
        bound: The score above which nobody may be accused, 0 to 1.
        name: Shown in events; with one it is found by the metrics and the commands.
        machine: Whether to read what the machine says; by default on the real clock only.
        world: Clock, timers and events; those of the context by default.

    Raises:
        ConfigError: Definite. A value is out of range.
    """

    def __init__(
        self,
        interval: float = 0.1,
        *,
        clean: float | None = None,
        bound: float = 0.5,
        name: str = "",
        machine: bool | None = None,
        world: World | None = None,
    ) -> None:
        interval_ns, clean_ns, checked = check_settings(interval, clean, bound)
        self.name = name
        self._interval_ns, self._clean_ns, self._bound = interval_ns, clean_ns, checked
        self._core = LocalHealthCore(interval_ns, clean_ns, checked)
        self._machine = machine
        self._given = world
        self._active: World | None = None  # of the run: a thread inherits no context
        self._lock = threading.Lock()
        self._task: TaskHandle | None = None
        self._thread: threading.Thread | None = None
        self._stop: threading.Lock | None = None
        self._pressure: Pressure | None = None
        self._gc_began_ns: int | None = None
        if name:
            watch(self)

    # --- asking ------------------------------------------------------------------------------

    @property
    def score(self) -> float:
        """How unwell we are now: 0 healthy, 1 at worst; 0 while nothing ticks."""
        now_ns = self._now_ns()
        with self._lock:
            return self._core.score(now_ns)

    def may_accuse(self, now_ns: int | None = None) -> bool:
        """Whether silence may be blamed on others now.

        No while excused, in a pause of more than ``interval`` and for ``clean`` seconds after
        it, and while the score is above ``bound``. Yes while nothing ticks: nothing is known.
        """
        now_ns = self._now_ns() if now_ns is None else now_ns
        with self._lock:
            return self._core.may_accuse(now_ns)

    def retry_ns(self, now_ns: int) -> int:
        """Return when to ask again after a no."""
        with self._lock:
            return self._core.retry_ns(now_ns)

    def multiplier(self, now_ns: int | None = None) -> float:
        """Return by how much timeouts had better be longer: 1 (healthy) to 8 (Lifeguard)."""
        now_ns = self._now_ns() if now_ns is None else now_ns
        with self._lock:
            return self._core.multiplier(now_ns)

    @property
    def excuses(self) -> tuple[str, ...]:
        """Why we are slow on purpose now; what is sent to peers can say so."""
        with self._lock:
            return tuple(self._core.excuses)

    @contextmanager
    def excused(self, reason: str) -> Iterator[None]:
        """Say that the block makes this process slow, and that nobody else is to blame for it.

        Nobody is accused inside and for ``clean`` seconds after. Blocks may overlap.

        Raises:
            ConfigError: Definite. 64 are open already.
        """
        began_ns = self._now_ns()
        with self._lock:
            self._core.excuse(reason)
        self._emit(LocalExcused(local=self.name, reason=reason))
        try:
            yield
        finally:
            now_ns = self._now_ns()
            with self._lock:
                self._core.end_excuse(reason, now_ns)
            seconds = (now_ns - began_ns) / NS
            self._emit(LocalExcuseEnded(local=self.name, reason=reason, seconds=seconds))

    # --- ticking -----------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it ticks."""
        return self._task is not None or self._thread is not None

    def start(self) -> None:
        """Tick on the running loop; :meth:`stop` ends it.

        Raises:
            ConfigError: Definite. It ticks already.
        """
        world = self._begin()
        self._open(world)
        self._task = world.spawn.task(self._tick_on_loop(world), name=f"local health {self.name}")

    def start_thread(self) -> None:
        """Tick on a thread of its own; :meth:`stop` ends it.

        Raises:
            ConfigError: Definite. It ticks already.
        """
        world = self._begin()
        stop = self._stop = threading.Lock()
        stop.acquire()
        self._thread = threading.Thread(
            target=self._tick_on_thread, args=(world, stop), name="outlast-local-health",
            daemon=True,
        )  # fmt: skip
        self._thread.start()

    def stop(self) -> None:
        """End ticking; a thread is waited for. Nothing happens if it does not tick."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._thread is not None:
            if self._stop is not None:
                self._stop.release()
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._thread = self._stop = None
        with suppress(ValueError):
            gc.callbacks.remove(self._on_gc)
        if self._pressure is not None:
            self._pressure.close()
            self._pressure = None
        self._active = None
        with self._lock:
            self._core.end()

    async def __aenter__(self) -> "LocalHealth":
        """Tick on the running loop."""
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End ticking."""
        self.stop()

    def __enter__(self) -> "LocalHealth":
        """Tick on a thread."""
        self.start_thread()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End ticking."""
        self.stop()

    def _begin(self) -> World:
        if self.running:
            raise ConfigError(f"LocalHealth {self.name!r}: it ticks already; stop() it first")
        world = self._active = self._given or current_world()
        return world

    def _open(self, world: World) -> None:
        """Begin on the thread that ticks: what is read belongs to it."""
        machine = self._machine
        if machine is None:
            from outlast.host import HostClock

            machine = isinstance(world.clock, HostClock)
        if machine:
            from outlast.host.pressure import Pressure

            self._pressure = Pressure()
            gc.callbacks.append(self._on_gc)
        with self._lock:
            self._core.begin(world.clock.monotonic_ns(), self._read())

    def _read(self) -> Readings:
        pressure = self._pressure
        return Readings() if pressure is None else Readings(*pressure.read())

    def _tick(self, world: World) -> None:
        readings = self._read()
        with self._lock:
            pause_ns = self._core.tick(world.clock.monotonic_ns(), readings)
        if pause_ns:
            clean = self._clean_ns / NS
            self._emit(LocalPaused(local=self.name, seconds=pause_ns / NS, clean=clean))

    async def _tick_on_loop(self, world: World) -> None:
        seconds = self._interval_ns / NS
        while True:
            await world.timers.sleep(seconds)
            self._tick(world)

    def _tick_on_thread(self, world: World, stop: threading.Lock) -> None:
        self._open(world)
        seconds = self._interval_ns / NS
        while not world.clock.wait(stop, seconds):
            self._tick(world)

    def _on_gc(self, phase: str, _: Mapping[str, int]) -> None:
        # The collector may run anywhere, inside our own lock as well: so none is taken here.
        if phase == "start":
            self._gc_began_ns = self._now_ns()
        elif self._gc_began_ns is not None:
            self._core.gc_pause(self._now_ns() - self._gc_began_ns)
            self._gc_began_ns = None

    def _world(self) -> World:
        return self._active or self._given or current_world()

    def _now_ns(self) -> int:
        return self._world().clock.monotonic_ns()

    def _emit(self, event: Event) -> None:
        self._world().events.emit(event)

    # --- being looked at ---------------------------------------------------------------------

    def describe(self) -> Mapping[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {
            "kind": "LocalHealth",
            "name": self.name,
            "interval": self._interval_ns / NS,
            "clean": self._clean_ns / NS,
            "bound": self._bound,
        }

    def snapshot(self) -> Mapping[str, Any]:
        """Return the live state, as values that JSON knows."""
        now_ns = self._now_ns()
        with self._lock:
            return {"running": self.running, **self._core.snapshot(now_ns)}

    def __repr__(self) -> str:
        state = f"score={self.score:.2f}" if self.running else "stopped"
        return f"<LocalHealth {self.name!r} {state}>"
