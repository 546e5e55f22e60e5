"""The watchdog of memory, descriptors, threads, disks, processor and clocks (Linux)."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from outlast.detect.core.ladder import Action, Ladder
from outlast.detect.core.resource import (
    ClockWatch,
    CpuLimit,
    DiskLimit,
    FdLimit,
    MemoryLimit,
    ResourceJudge,
    ResourceLimit,
    ShareMeter,
    ThreadLimit,
    Verdict,
)
from outlast.detect.watchdog import Finding, Watchdog, Watchdogs
from outlast.detect.watchdog_act import top_lines
from outlast.detect.watchdog_events import (
    ClockJumped,
    CpuThrottled,
    MachineSuspended,
    ResourceGrew,
    ResourceNearLimit,
    ResourceRecovered,
    WatchdogFailed,
)
from outlast.detect.watchdog_stack import bounded
from outlast.kernel import ConfigError

_NS: Final = 1_000_000_000
_PRIVATE_NS: Final = 60 * _NS
_LIMITS_NS: Final = 10 * _NS
_HELD_NS: Final = 2 * _NS
_THREADS: Final = 4096.0
_SPREAD: Final = 40
_PARTS: Final = 100
_CALM: Final = 5.0
_DISK_SECONDS: Final = 0.25

Reading = tuple[float, float | None] | None
"""A value and the limit that the system gives it, or ``None`` where there is none."""


class ResourceWatchdog(Watchdog):
    """Notices that a resource is about to run out, and that clocks were set.

    For each of memory, descriptors, threads and disks it emits :class:`ResourceNearLimit` when
    most of it is gone, :class:`ResourceGrew` when it grows as a leak does, and
    :class:`ResourceRecovered` when neither holds for five seconds. With ``tracemalloc`` on,
    the events of memory say which lines hold most. For the processor ``ResourceNearLimit`` with
    the name ``cpu``, and :class:`CpuThrottled`; for clocks :class:`ClockJumped` and
    :class:`MachineSuspended`.

    Off in simulated time and where there is no ``/proc``.

    Args:
        memory: Limits of resident memory; ``None`` looks away. So with all others.
        fds: Of open file descriptors.
        threads: Of threads.
        disks: Of file systems, each with its path; by default that of the working directory.
        cpu: Of processor time.
        clock_jump: Seconds by which the wall clock must move against the monotonic one, and for
            which the machine must have been suspended; ``None`` looks away. Above 0.
        every: Longest time between samples, in seconds; each is drawn, down to three fifths of
            it. Above 0. Default 0.5.
        name: What it is called.
        act: See :class:`Watchdog`.

    Raises:
        ConfigError: A time is not above 0.
    """

    def __init__(
        self,
        *,
        memory: MemoryLimit | None = MemoryLimit(),  # noqa: B008 - frozen
        fds: FdLimit | None = FdLimit(),  # noqa: B008 - frozen
        threads: ThreadLimit | None = ThreadLimit(),  # noqa: B008 - frozen
        disks: Sequence[DiskLimit] = (DiskLimit(),),
        cpu: CpuLimit | None = CpuLimit(),  # noqa: B008 - frozen
        clock_jump: float | None = 0.5,
        every: float = 0.5,
        name: str = "resources",
        act: "Ladder | Sequence[Action] | None" = None,
    ) -> None:
        super().__init__(name, act)
        if every <= 0 or (clock_jump is not None and clock_jump <= 0):
            raise ConfigError(
                f"ResourceWatchdog: every is {every} s, clock_jump {clock_jump} s; above 0"
            )
        self.every = every
        self._cpu = cpu
        self._jump_ns = None if clock_jump is None else round(clock_jump * _NS)
        self._rules: dict[str, ResourceLimit] = {}
        for key, rules in (("memory", memory), ("fds", fds), ("threads", threads)):
            if rules is not None:
                self._rules[key] = rules
        self._disks = tuple(disks)
        self._rules.update({f"disk {one.path}": one for one in disks})
        self._judges: dict[str, ResourceJudge] = {}
        self._vitals: Any = None
        self._private_ns: int | None = None
        self._private: int | None = None
        self._limits: dict[str, float | None] = {}
        self._limits_ns: int | None = None
        self._held_ns = 0
        self._values: dict[str, float] = {}
        self._hung: set[str] = set()

    def begin(self, engine: Watchdogs) -> None:
        """Open what is read; off where there is nothing to read."""
        if engine.simulated:
            self.off = "simulated time has no machine"
        elif sys.platform != "linux":
            self.off = "there is no /proc here"
        else:
            from outlast.host.vitals import Vitals

            self.off = ""
            self._vitals = Vitals()
        self._judges = {key: ResourceJudge(rules) for key, rules in self._rules.items()}
        cpu = self._cpu or CpuLimit()
        self._used = ShareMeter(round(cpu.lasting * _NS))
        self._throttled = ShareMeter(round(cpu.lasting * _NS))
        self._wall = ClockWatch(self._jump_ns or 1)
        self._boot = ClockWatch(self._jump_ns or 1)
        self._limits_ns = None
        self._held_ns = 0
        # A condition flickers at its edge, so by default it must be gone for a while.
        if self.ladder is None:
            of_engine = engine._ladder
            self.ladder = Ladder(of_engine.act, of_engine.after, max(of_engine.calm, _CALM))

    def look(self, engine: Watchdogs, now_ns: int) -> int:
        """Take a sample of everything."""
        if self._limits_ns is None or now_ns - self._limits_ns >= _LIMITS_NS:
            self._limits_ns = now_ns
            self._limits = self._read_limits()
        for key in self._rules:
            reading = self._read(engine, key)
            if reading is not None:
                self._judge(engine, key, self._judges[key].add(now_ns, *reading), now_ns)
        if self._private_ns is None or now_ns - self._private_ns >= _PRIVATE_NS:
            self._private_ns, self._private = now_ns, self._vitals.uss_bytes()
        if self._cpu is not None:
            self._look_at_cpu(engine, self._cpu, now_ns)
        if self._jump_ns is not None:
            self._look_at_clocks(engine, now_ns)
        # Uneven, or a saw-tooth of about this pace would look like slow growth.
        spread = engine._live_world().prng.below(_SPREAD)
        return now_ns + round(self.every * _NS) * (_PARTS - spread) // _PARTS

    def _read_limits(self) -> dict[str, float | None]:
        """Return where things end; seldom, as they hardly change and cost several files."""
        vitals = self._vitals
        return {
            "memory": vitals.memory_limit_bytes(),
            "threads": vitals.threads_limit() or _THREADS,
            "cpus": max(vitals.cpus(), 0.001),
        }

    # --- what can run out ----------------------------------------------------------------------

    def _read(self, engine: Watchdogs, key: str) -> Reading:
        vitals = self._vitals
        if key == "memory":
            return _pair(vitals.rss_bytes(), self._limits[key])
        if key == "fds":
            return _pair(vitals.descriptors(), vitals.descriptors_limit())
        if key == "threads":
            return _pair(vitals.threads(), self._limits[key])
        return self._read_disk(engine, key.removeprefix("disk "))

    def _read_disk(self, engine: Watchdogs, path: str) -> Reading:
        """Ask on another thread: a file system on a network that is gone may never answer."""
        if path in self._hung:
            return None
        found: list[tuple[int, int] | None] = []

        def ask() -> None:
            try:
                found.append(self._vitals.disk_bytes(path))
            finally:
                self._hung.discard(path)

        self._hung.add(path)
        wrong = bounded(ask, _DISK_SECONDS, "outlast-watchdog-disk", engine.alive)
        if wrong:
            engine.emit(WatchdogFailed(watchdog=self.name, reason=f"disk {path} {wrong}"))
        usable = next(iter(found), None)
        return None if usable is None else _pair(*usable)

    def _judge(self, engine: Watchdogs, key: str, verdict: Verdict, now_ns: int) -> None:
        self._values[key] = verdict.value
        if verdict.near:
            engine.bad(self, f"{key} near", now_ns, self._near(key, verdict))
        else:
            engine.good(self, f"{key} near", now_ns)
        if verdict.growing is not None:
            engine.bad(self, f"{key} grows", now_ns, self._grows(key, verdict))
        else:
            engine.good(self, f"{key} grows", now_ns)

    def _near(self, key: str, verdict: Verdict) -> Finding:
        value, limit = verdict.value, verdict.limit or 0.0
        return Finding(
            f"{value:,.0f} of {limit:,.0f}",
            lambda: ResourceNearLimit(resource=key, value=value, limit=limit, top=_top(key)),
            self._recovered(key),
        )

    def _grows(self, key: str, verdict: Verdict) -> Finding:
        growing = verdict.growing
        slope = 0.0 if growing is None else growing.slope
        left = None if growing is None else growing.seconds_to_limit
        until = "" if left is None else f", at the limit in {left:,.0f} s"
        return Finding(
            f"grows by {slope:,.0f} a second{until}",
            lambda: ResourceGrew(
                resource=key, value=verdict.value, slope=slope, limit=verdict.limit,
                seconds_to_limit=left, top=_top(key),
            ),
            self._recovered(key),
        )  # fmt: skip

    def _recovered(self, key: str) -> Callable[[float], ResourceRecovered]:
        return lambda _: ResourceRecovered(resource=key, value=self._values.get(key, 0.0))

    # --- processor and clocks --------------------------------------------------------------------

    def _look_at_cpu(self, engine: Watchdogs, rules: CpuLimit, now_ns: int) -> None:
        cpus = self._limits["cpus"] or 1.0
        share = self._used.add(now_ns, self._vitals.cpu_ns())
        if share is not None:
            self._values["cpu"] = share / cpus
            if share / cpus >= rules.share:
                engine.bad(self, "cpu", now_ns, Finding(
                    f"{share:.2f} of {cpus:.2f} processors",
                    lambda: ResourceNearLimit(resource="cpu", value=share, limit=cpus),
                    self._recovered("cpu"),
                ))  # fmt: skip
            else:
                engine.good(self, "cpu", now_ns)
        if now_ns - self._held_ns < min(_HELD_NS, round(rules.lasting * _NS) // 4):
            return
        self._held_ns = now_ns
        throttled_ns = self._vitals.throttled_ns()
        held = None if throttled_ns is None else self._throttled.add(now_ns, throttled_ns)
        if held is not None and held >= rules.throttled:
            engine.bad(self, "throttled", now_ns, Finding(
                f"held back for {held:.0%} of the time", lambda: CpuThrottled(share=held)
            ))  # fmt: skip
        else:
            engine.good(self, "throttled", now_ns)

    def _look_at_clocks(self, engine: Watchdogs, now_ns: int) -> None:
        clock = engine._live_world().clock
        boot_ns = self._vitals.boot_ns()
        steady_ns = clock.monotonic_ns()
        suspended_ns = 0 if boot_ns is None else self._boot.add(steady_ns, boot_ns)
        jumped_ns = self._wall.add(steady_ns, clock.wall_ns())
        if suspended_ns > 0:
            seconds = suspended_ns / _NS
            engine.tell(self, Finding(
                f"the machine was suspended for {seconds:.1f} s",
                lambda: MachineSuspended(seconds=seconds),
            ), now_ns)  # fmt: skip
            jumped_ns -= suspended_ns
        if self._jump_ns is not None and abs(jumped_ns) >= self._jump_ns:
            moved = jumped_ns / _NS
            engine.tell(self, Finding(
                f"the wall clock moved by {moved:.1f} s", lambda: ClockJumped(seconds=moved)
            ), now_ns)  # fmt: skip

    # --- being looked at -------------------------------------------------------------------------

    def end(self) -> None:
        """Close what is read."""
        vitals, self._vitals = self._vitals, None
        if vitals is not None:
            vitals.close()

    forked = end

    def describe(self) -> dict[str, Any]:
        """Return the settings."""
        return {"name": self.name, "every": self.every, "watches": list(self._rules)}

    def snapshot(self) -> dict[str, Any]:
        """Return the last samples; ``private`` is memory that only this process has.

        That number is read once a minute at most, since it costs half a millisecond.
        """
        limits = {
            key: judge.last.limit for key, judge in self._judges.items() if judge.last is not None
        }
        return {
            **super().snapshot(),
            "values": dict(self._values),
            "limits": limits,
            "private": self._private,
        }


def _pair(value: float | None, limit: float | None) -> Reading:
    return None if value is None else (float(value), None if limit is None else float(limit))


def _top(key: str) -> tuple[str, ...]:
    return top_lines() if key == "memory" else ()
