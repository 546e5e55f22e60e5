"""Simulated machines: each has a name, an address, clocks, a disk and, while it is up, one life.

All hosts of a simulation share one thread and one loop. What tells them apart is a context
variable: a task inherits the :class:`Life` in which it was started, and so do the callbacks of
its futures and timers. A crash ends the life. From then on nothing of it runs again: no
``finally``, no cancellation, as after SIGKILL.
"""

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any

from outlast.kernel import Prng

if TYPE_CHECKING:
    from outlast.sim.disk import SimDisk

NS = 1_000_000_000
WALL_START_NS = 1_767_225_600 * NS
"""What wall clocks show when a simulation begins: 2026-01-01T00:00:00Z, before any skew."""
_PPM = 1_000_000
_UPTIME_MIN_NS = 100 * NS
_UPTIME_MAX_NS = 100_000 * NS
_TASKS_MIN = 64

Main = Callable[[], Coroutine[Any, Any, Any]]

LIFE: ContextVar["Life"] = ContextVar("outlast_sim_life")
"""Who runs now."""


class HostClock:
    """The clocks of one host: monotonic, which drifts, and wall, which also jumps.

    The monotonic clock of each host begins somewhere else, so that a program which compares
    instants of two hosts is found out.

    Args:
        prng: Draws how long the host has been up.

    Attributes:
        drift_ppm: How many parts per million the monotonic clock runs too fast.
        ahead_ns: While that is 0, how far the monotonic clock is ahead of virtual time.
        jumps: How often the wall clock has jumped.
    """

    __slots__ = ("_local_ns", "_since_ns", "_wall_ns", "ahead_ns", "drift_ppm", "jumps")

    def __init__(self, prng: Prng) -> None:
        self._local_ns = prng.between(_UPTIME_MIN_NS, _UPTIME_MAX_NS)
        self._since_ns = 0
        self._wall_ns = WALL_START_NS - self._local_ns
        self.ahead_ns = self._local_ns
        self.drift_ppm = 0
        self.jumps = 0

    def monotonic_ns(self, moment_ns: int) -> int:
        """Return this host's monotonic time at a moment of virtual time."""
        passed = moment_ns - self._since_ns
        if self.drift_ppm:
            passed += passed * self.drift_ppm // _PPM
        return self._local_ns + passed

    def wall_ns(self, moment_ns: int) -> int:
        """Return this host's wall time at a moment of virtual time."""
        if self.drift_ppm:
            return self._wall_ns + self.monotonic_ns(moment_ns)
        return self._wall_ns + self.ahead_ns + moment_ns

    def moment_ns(self, monotonic_ns: int) -> int:
        """Return the moment of virtual time at which this host's monotonic clock shows it."""
        passed = monotonic_ns - self._local_ns
        if self.drift_ppm:
            passed = -(-passed * _PPM // (_PPM + self.drift_ppm))
        return self._since_ns + passed

    def drift(self, ppm: int, moment_ns: int) -> None:
        """Let the clock run ``ppm`` parts per million too fast from ``moment_ns`` on."""
        self._local_ns = self.monotonic_ns(moment_ns)
        self._since_ns = moment_ns
        self.ahead_ns = self._local_ns - self._since_ns
        self.drift_ppm = ppm

    def jump(self, ns: int) -> None:
        """Let the wall clock jump; the monotonic one never does."""
        self._wall_ns += ns
        self.jumps += 1

    @property
    def skew_ns(self) -> int:
        """How far the wall clock is from where it would be without jumps."""
        return self._wall_ns + self._local_ns - self._since_ns - WALL_START_NS


class Tasks:
    """Tasks that are not done, as far as somebody still holds them, in the order of their start.

    Quicker than a ``WeakSet``, and in an order that is the same in every run.
    """

    __slots__ = ("_bound", "_refs")

    def __init__(self) -> None:
        self._refs: list[weakref.ref[asyncio.Task[Any]]] = []
        self._bound = _TASKS_MIN

    def add(self, task: asyncio.Task[Any]) -> None:
        """Take a new task in."""
        refs = self._refs
        refs.append(weakref.ref(task))
        if len(refs) > self._bound:
            self._refs = [weakref.ref(task) for task in self]
            self._bound = 2 * len(self._refs) + _TASKS_MIN

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        """Go through them."""
        for reference in self._refs:
            task = reference()
            if task is not None and not task.done():
                yield task


class Life:
    """One run of a host's program, from its start to its end or crash.

    Attributes:
        host: Whose.
        number: Grows with each life of a simulation.
        alive: Whether it still goes on.
        ended_ns: The moment of its end. What was computed ahead of it has not happened.
        context: In which its callbacks run.
        tasks: Those that were started in it, as far as somebody still holds them.
        main: The task of the program's coroutine.
        signals: Handlers that the program has set, by number.
        workers: Those of the executors that it uses.
        calls: What it has submitted to executors.
    """

    __slots__ = (
        "__weakref__", "alive", "calls", "context", "ended_ns", "host", "main", "number",
        "signals", "tasks", "workers",
    )  # fmt: skip

    def __init__(self, host: "Host", number: int, context: Context) -> None:
        self.host = host
        self.number = number
        self.alive = True
        self.ended_ns = -1
        self.tasks = Tasks()
        self.main: asyncio.Task[Any] | None = None
        self.signals: dict[int, Any] = {}
        self.workers: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self.calls: list[Any] = []
        self.context = context
        self.context.run(LIFE.set, self)

    def __repr__(self) -> str:
        """Show whose, which, and whether it goes on."""
        return f"<Life {self.number} of {self.host.name}{'' if self.alive else ', over'}>"


class Host:
    """One simulated machine. Made by the lab.

    Attributes:
        name: By which others find it.
        address: Its IPv4 address.
        clock: Its clocks.
        disk: Its disk, which outlives its lives.
        life: The run of its program, ``None`` while it is down.
        starts: How often its program was started.
        paused: Whether it is stopped, as by SIGSTOP.
        step_ns: What each callback costs beside what it spends itself, for a slow host.
    """

    __slots__ = (
        "__weakref__", "address", "backlog", "blocked", "clock", "disk", "free_ns", "lanes",
        "life", "main", "name", "paused", "prng", "starts", "step_ns",
    )  # fmt: skip

    def __init__(self, name: str, address: str, disk: "SimDisk", prng: Prng) -> None:
        self.name = name
        self.address = address
        self.prng = prng
        self.clock = HostClock(prng)
        self.disk = disk
        self.life: Life | None = None
        self.main: Main | None = None
        self.starts = 0
        self.paused = False
        self.step_ns = 0
        self.free_ns = 0
        self.blocked = False
        self.backlog: list[asyncio.Handle] = []
        self.lanes: dict[str, Any] = {}

    @property
    def up(self) -> bool:
        """Whether its program runs, paused or not."""
        return self.life is not None

    def __repr__(self) -> str:
        """Show name, address and state."""
        state = "down" if self.life is None else "paused" if self.paused else "up"
        return f"<Host {self.name} {self.address}, {state}>"
