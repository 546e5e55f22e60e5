"""Health: named checks, run in the background, read as a snapshot.

A probe never runs a check: it reads what the last run found, so that probing costs nothing and a
hung dependency cannot hang the probe. A result that has become old counts as unknown, because
"nothing was found" is not "all is well".
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, cast, get_args

from outlast.detect.events import HealthChanged
from outlast.kernel import ConfigError, World, current_world

_NS: Final = 1_000_000_000

Group = Literal["startup", "liveness", "readiness"]
_GROUPS: Final[tuple[Group, ...]] = get_args(Group)


class Status(StrEnum):
    """What a check found."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNKNOWN = "unknown"


Finding = Status | bool | None | tuple[Status, str]
"""What a check returns: a status, with a detail if it likes; ``True`` or ``None`` is ok,
``False`` failed; an exception is failed as well, with its type as the detail."""

Check = Callable[[], Finding | Awaitable[Finding]]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The last finding of one check. ``age`` is in seconds, ``None`` before the first."""

    name: str
    status: Status
    detail: str
    critical: bool
    age: float | None


@dataclass(frozen=True, slots=True)
class GroupHealth:
    """A group's verdict, and the results it rests on. ``passing`` is what a probe answers."""

    group: Group
    status: Status
    passing: bool
    results: tuple[CheckResult, ...]


class _Entry:
    def __init__(
        self,
        name: str,
        check: Check,
        groups: Sequence[Group],
        *,
        timeout: float,
        every: float,
        stale_after: float,
        critical: bool,
    ) -> None:
        self.name = name
        self.check = check
        self.groups = tuple(groups)
        self.timeout = timeout
        self.every = every
        self.stale_ns = round(stale_after * _NS)
        self.critical = critical
        self.status = Status.UNKNOWN
        self.detail = "not checked yet"
        self.at_ns: int | None = None
        self.running: asyncio.Future[Finding] | None = None


class Health:
    """A registry of checks in three groups: startup, liveness, readiness.

    * *startup* has passed once all its checks passed, and then stays so.
    * *liveness* fails only when a check says ``failed``: its answer restarts the process, which
      an unknown does not justify. Dependencies belong in readiness.
    * *readiness* needs every critical check to be known and not failed.

    Synchronous checks run on a thread of their own, so a check that hangs costs one thread
    and is not started again before it returns. Not thread-safe: use it on one loop, and read
    snapshots from anywhere.

    Args:
        world: Clock, timers, threads and events; the current world by default.
    """

    def __init__(self, world: World | None = None) -> None:
        self._world = world or current_world()
        self._entries: dict[str, _Entry] = {}
        self._started = False
        self._draining = False

    def add(
        self,
        name: str,
        check: Check,
        *,
        groups: Sequence[Group] = ("readiness",),
        timeout: float = 1.0,
        every: float = 1.0,
        stale_after: float | None = None,
        critical: bool = True,
    ) -> None:
        """Add a check.

        Args:
            name: Its name; unique.
            check: Plain or coroutine function without arguments; see :data:`Finding`.
            groups: Where it counts: ``startup``, ``liveness``, ``readiness``.
            timeout: Seconds after which a run counts as failed.
            every: Seconds between runs.
            stale_after: Seconds after which its last result counts as unknown; by default
                three runs and one timeout.
            critical: Whether it decides; otherwise it can only degrade its groups.

        Raises:
            ConfigError: Definite. Name taken, group unknown, or a time not positive.
        """
        if not name or name in self._entries:
            raise ConfigError(f"check {name!r}: the name is empty or taken")
        for group in groups:
            if group not in _GROUPS:
                raise ConfigError(f"check {name!r}: group {group!r}; one of {', '.join(_GROUPS)}")
        if not groups or timeout <= 0 or every <= 0:
            raise ConfigError(
                f"check {name!r}: groups {tuple(groups)}, timeout {timeout} s, every {every} s; "
                "give a group and times above 0"
            )
        stale = 3 * every + timeout if stale_after is None else stale_after
        if stale < every + timeout:
            raise ConfigError(
                f"check {name!r}: stale_after ({stale} s) is below every + timeout "
                f"({every + timeout} s), so a good result could be stale"
            )
        self._entries[name] = _Entry(
            name, check, groups, timeout=timeout, every=every, stale_after=stale,
            critical=critical,
        )  # fmt: skip

    def drain(self) -> None:
        """Fail readiness for good: this process is going to stop."""
        self._draining = True

    async def run(self) -> None:
        """Run all checks, each at its pace, until cancelled. Checks added later are taken up."""
        tasks: dict[str, asyncio.Task[None]] = {}
        loop = asyncio.get_running_loop()
        try:
            while True:
                for entry in tuple(self._entries.values()):
                    if entry.name not in tasks:
                        tasks[entry.name] = loop.create_task(
                            self._repeat(entry), name=f"health {entry.name}"
                        )
                await self._world.timers.sleep(1.0)
        finally:
            for task in tasks.values():
                task.cancel()

    async def refresh(self) -> None:
        """Run every check once, together, and wait for them; bounded by the longest timeout."""
        await asyncio.gather(*(self._run_once(entry) for entry in self._entries.values()))

    def read(self, group: Group) -> GroupHealth:
        """Return the health of ``group`` from the last results. Never waits."""
        now_ns = self._world.clock.monotonic_ns()
        results = tuple(
            _result(entry, now_ns)
            for entry in tuple(self._entries.values())
            if group in entry.groups
        )
        if group == "startup":
            return self._read_startup(results)
        status = _worst(results)
        if group == "readiness" and self._draining:
            stopping = CheckResult("draining", Status.FAILED, "going to stop", True, 0.0)
            return GroupHealth(group, Status.FAILED, False, (*results, stopping))
        bad = {Status.FAILED} if group == "liveness" else {Status.FAILED, Status.UNKNOWN}
        return GroupHealth(group, status, status not in bad, results)

    def snapshot(self) -> dict[Group, GroupHealth]:
        """Return the health of all groups. Never waits."""
        return {group: self.read(group) for group in _GROUPS}

    # --- inside -----------------------------------------------------------------------------

    def _read_startup(self, results: tuple[CheckResult, ...]) -> GroupHealth:
        status = _worst(results)
        if status in {Status.OK, Status.DEGRADED}:
            self._started = True
        elif self._started:
            status = Status.OK
        return GroupHealth("startup", status, self._started, results)

    async def _repeat(self, entry: _Entry) -> None:
        while True:
            await self._run_once(entry)
            await self._world.timers.sleep(entry.every)

    async def _run_once(self, entry: _Entry) -> None:
        if entry.running is None:
            entry.running = asyncio.ensure_future(self._call(entry))
        running = entry.running
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._world.timers.call_at(
            self._world.clock.monotonic_ns() + round(entry.timeout * _NS),
            lambda: None if wake.done() else wake.set_result(None),
        )
        try:
            either: list[asyncio.Future[Any]] = [running, wake]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        if not running.done():
            self._note(entry, Status.FAILED, f"no answer within {entry.timeout} s")
            if inspect.iscoroutinefunction(entry.check):
                running.cancel()
                entry.running = None
            return
        entry.running = None
        try:
            status, detail = _read_finding(running.result())
        except asyncio.CancelledError:
            status, detail = Status.UNKNOWN, "cancelled"
        except Exception as error:
            status, detail = Status.FAILED, type(error).__name__
        self._note(entry, status, detail)

    async def _call(self, entry: _Entry) -> Finding:
        if inspect.iscoroutinefunction(entry.check):
            return cast("Finding", await entry.check())
        check = cast("Callable[[], Finding]", entry.check)
        return await self._world.offload.run(f"health {entry.name}", check)

    def _note(self, entry: _Entry, status: Status, detail: str) -> None:
        before = entry.status
        entry.status, entry.detail = status, detail
        entry.at_ns = self._world.clock.monotonic_ns()
        if before is not status:
            self._world.events.emit(
                HealthChanged(
                    level="warning" if status is Status.FAILED else "info",
                    check=entry.name,
                    before=before,
                    after=status,
                    detail=detail,
                )
            )


def _read_finding(found: Any) -> tuple[Status, str]:
    if isinstance(found, tuple):
        status, detail = found
        return Status(status), str(detail)
    if isinstance(found, Status):
        return found, ""
    if found is None or isinstance(found, bool):
        return (Status.FAILED if found is False else Status.OK), ""
    return Status.FAILED, f"the check returned {type(found).__name__}; return a Status"


def _result(entry: _Entry, now_ns: int) -> CheckResult:
    if entry.at_ns is None:
        return CheckResult(entry.name, entry.status, entry.detail, entry.critical, None)
    age_ns = now_ns - entry.at_ns
    age = age_ns / _NS
    if age_ns > entry.stale_ns:
        detail = f"last result ({entry.status}) is {age:.0f} s old"
        return CheckResult(entry.name, Status.UNKNOWN, detail, entry.critical, age)
    return CheckResult(entry.name, entry.status, entry.detail, entry.critical, age)


_RANK: Final = (Status.OK, Status.DEGRADED, Status.UNKNOWN, Status.FAILED)


def _worst(results: tuple[CheckResult, ...]) -> Status:
    """Return the worst status; of checks that are not critical, degraded at worst."""
    worst = 0
    for result in results:
        rank = _RANK.index(result.status)
        worst = max(worst, rank if result.critical else min(rank, 1))
    return _RANK[worst]
