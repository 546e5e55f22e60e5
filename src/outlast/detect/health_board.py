"""What is known of the health of a process: findings by name, and what they mean for its groups.

The part of :class:`outlast.detect.Health` that runs nothing. Findings come in under a lock, from
whatever thread; readers see each as a whole, and take no lock.
"""

import math
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Final

from outlast.detect.core.health import (
    GROUPS,
    CheckResult,
    Group,
    GroupHealth,
    Status,
    one_line,
    read_finding,
    read_groups,
    verdict,
)
from outlast.detect.core.health_record import Progress, Record, Rule
from outlast.detect.events import HealthChanged, HealthDraining
from outlast.kernel import ConfigError, World, current_world
from outlast.kernel.registry import watch

_NS: Final = 1_000_000_000


class Board:
    """Findings by name, in groups; see :class:`outlast.detect.Health`."""

    def __init__(self, world: World | None, name: str, max_checks: int) -> None:
        self.name = name
        self._given = world
        self._world = world
        self._begun = False
        self._max_checks = max_checks
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._by_group: dict[str, tuple[Record, ...]] = {group: () for group in GROUPS}
        self._started = False
        self._draining = ""
        if name:
            self._watched = _Watched(self)
            watch(self._watched)

    def __repr__(self) -> str:
        """Return name, number of checks and what the groups say now."""
        says = " ".join(f"{group}={self.read(group).status}" for group in GROUPS)
        draining = " draining" if self._draining else ""
        return f"<Health {self.name!r} {len(self._records)} checks {says}{draining}>"

    def report(
        self,
        name: str,
        status: Status,
        detail: str = "",
        *,
        groups: Sequence[Group] | Group | None = None,
        critical: bool | None = None,
        within: float | None = None,
    ) -> None:
        """Say how something is: a finding that the program publishes; nothing is run for it.

        From any thread. What is left out stays as it was the last time.

        Args:
            name: Its name; the first report adds it.
            status: How it is, from now on.
            detail: Why, in a line. Shown to whoever may read health: no secrets.
            groups: Where it counts; ``("readiness",)`` at first.
            critical: Whether it decides; ``True`` at first.
            within: Seconds after which it is unknown unless reported again; never at first.

        Raises:
            ConfigError: Definite. The name is that of a check or of progress, or a value is
                wrong, or there are too many names.
        """
        status, detail = read_finding((status, detail))
        with self._lock:
            now_ns = self._now_ns()
            record = self._records.get(name)
            if record is not None and record.rule.kind != "report":
                raise ConfigError(f"report {name!r}: the name is that of a {record.rule.kind}")
            if record is None or groups is not None or critical is not None or within is not None:
                record = self._report_locked(record, name, groups, critical, within)
            record.note(status, detail, now_ns)
            change = self._changed_locked(record, now_ns)
        self._emit(change)

    def progress(
        self, name: str, *, within: float, groups: Sequence[Group] | Group = ("liveness",)
    ) -> Progress:
        """Add progress stamps: failed when more than ``within`` seconds pass without one.

        Existence is no proof of work. Stamp where a piece of work is done, and tell when there
        is none to do; see :class:`Progress`. The time counts from when the checks begin to run.

        Args:
            name: Its name; unique.
            within: Longest time between two stamps, in seconds. Longer than any single piece of
                work, and than what the machine may be paused.
            groups: Where it counts. In liveness it gets a process restarted that hangs.

        Raises:
            ConfigError: Definite. Name taken, group unknown, or ``within`` not positive.
        """
        rule = Rule(
            name, kind="progress", groups=read_groups(groups),
            stale_ns=read_seconds(name, "within", within),
        )  # fmt: skip
        with self._lock:
            record = Progress(rule, self._here().clock.monotonic_ns)
            self._keep_locked(record)
        return record

    def drain(self, reason: str = "going to stop") -> None:
        """Fail readiness for good: this process is going to stop.

        A signal handler may call it. Liveness is left alone: what is in flight is to be finished.
        Only the first call counts.
        """
        if not self._draining:
            self._draining = one_line(reason) or "going to stop"
            event = HealthDraining(health=self.name, reason=self._draining)
            self._here().events.emit(event)

    @property
    def draining(self) -> bool:
        """Whether readiness was failed by :meth:`drain`."""
        return bool(self._draining)

    # --- reading -------------------------------------------------------------------------------

    def read(self, group: Group) -> GroupHealth:
        """Return the health of ``group`` from the last results. Never waits; from any thread.

        Raises:
            ConfigError: Definite. There is no such group.
        """
        records = self._by_group.get(group)
        if records is None:
            raise ConfigError(f"group {group!r}; one of {', '.join(GROUPS)}")
        now_ns = self._now_ns()
        results = tuple([record.result(now_ns) for record in records])
        found = verdict(group, results, draining=self._draining, started=self._started)
        if group == "startup" and found.passing:
            self._started = True
        return found

    def snapshot(self) -> dict[Group, GroupHealth]:
        """Return the health of all groups. Never waits; from any thread."""
        return {group: self.read(group) for group in GROUPS}

    def status(self) -> dict[str, Any]:
        """Return the live state of everything, as values that JSON knows."""
        found = self.snapshot()
        results = {one.name: one for group in found.values() for one in group.results}
        return {
            "name": self.name,
            "draining": self._draining or None,
            "groups": {
                group: {"status": str(one.status), "passing": one.passing}
                for group, one in found.items()
            },
            "checks": {name: _as_json(one) for name, one in results.items()},
        }

    def describe(self) -> dict[str, Any]:
        """Return the settings, as values that JSON knows."""
        return {
            "name": self.name,
            "max_checks": self._max_checks,
            "checks": {name: _settings(one.rule) for name, one in self._records.copy().items()},
        }

    # --- inside --------------------------------------------------------------------------------

    def _here(self) -> World:
        return self._world if self._world is not None else current_world()

    def _now_ns(self) -> int:
        return self._here().clock.monotonic_ns()

    def _renew_locked(self, world: World) -> bool:
        """Begin in ``world``; ``True`` if all that is known is of another one, and forgotten."""
        before, self._world = self._world, world
        other = before is not None and before is not world
        now_ns = world.clock.monotonic_ns()
        if other:
            self._started, self._draining = False, ""
            for name, record in self._records.items():
                if not isinstance(record, Progress):
                    self._records[name] = Record(record.rule, now_ns)
            self._regroup_locked()
        if other or not self._begun:
            self._begun = True
            for record in self._records.values():
                if isinstance(record, Progress):
                    record.begin(world.clock.monotonic_ns)
        return other

    def _drop_locked(self, name: str) -> None:
        if self._records.pop(name, None) is not None:
            self._regroup_locked()

    def _keep_locked(self, record: Record) -> None:
        name = record.rule.name
        if name in self._records:
            raise ConfigError(f"check {name!r}: the name is taken")
        if len(self._records) >= self._max_checks:
            raise ConfigError(
                f"check {name!r}: there are {len(self._records)} names, which is max_checks;"
                " forget() what is gone, or allow more"
            )
        self._records[name] = record
        self._regroup_locked()

    def _regroup_locked(self) -> None:
        records = tuple(self._records.values())
        self._by_group = {
            group: tuple(one for one in records if group in one.rule.groups) for group in GROUPS
        }

    def _report_locked(
        self,
        record: Record | None,
        name: str,
        groups: Sequence[Group] | Group | None,
        critical: bool | None,
        within: float | None,
    ) -> Record:
        """Return the record of a report, made or changed as is said now."""
        before = record.rule if record is not None else Rule(name, kind="report")
        rule = Rule(
            name, kind="report",
            groups=before.groups if groups is None else read_groups(groups),
            critical=before.critical if critical is None else critical,
            stale_ns=before.stale_ns if within is None else read_seconds(name, "within", within),
        )  # fmt: skip
        if record is None:
            record = Record(rule, self._now_ns())
            self._keep_locked(record)
        elif rule != before:
            record.rule = rule
            self._regroup_locked()
        return record

    def _note(self, record: Record, status: Status, detail: str, took_ns: int | None) -> None:
        with self._lock:
            now_ns = self._now_ns()
            record.note(status, detail, now_ns, took_ns)
            change = self._changed_locked(record, now_ns)
        self._emit(change)

    def _sweep(self) -> None:
        """Tell what has changed by the passing of time: late progress, results that are old."""
        with self._lock:
            now_ns = self._now_ns()
            changes = [self._changed_locked(one, now_ns) for one in self._records.values()]
        for change in changes:
            self._emit(change)

    def _changed_locked(self, record: Record, now_ns: int) -> HealthChanged | None:
        change = record.change(now_ns)
        if change is None or self._records.get(record.rule.name) is not record:
            return None
        if not self._started and "startup" in record.rule.groups:
            self.read("startup")  # it may pass now and no more when a probe looks
        return HealthChanged(
            level="warning" if change.after is Status.FAILED else "info",
            check=record.rule.name,
            before=change.before,
            after=change.after,
            detail=change.detail,
            health=self.name,
            since=change.lasted_ns / _NS,
            took=None if change.took_ns is None else change.took_ns / _NS,
        )

    def _emit(self, event: HealthChanged | None) -> None:
        if event is not None:
            self._here().events.emit(event)


class _Watched:
    """What the registry of living things sees of a health: its ``snapshot`` is plain values."""

    shown_as: Final = "Health"

    def __init__(self, health: Board) -> None:
        self.name = health.name
        self._health = weakref.ref(health)

    def describe(self) -> dict[str, Any]:
        health = self._health()
        return health.describe() if health is not None else {}

    def snapshot(self) -> dict[str, Any]:
        health = self._health()
        return health.status() if health is not None else {}


def read_seconds(name: str, what: str, seconds: float) -> int:
    """Return ``seconds`` in nanoseconds.

    Raises:
        ConfigError: Definite. It is no finite number.
    """
    if not math.isfinite(seconds):
        raise ConfigError(f"check {name!r}: {what} is {seconds!r}; seconds, above 0")
    return round(seconds * _NS)


def _as_json(result: CheckResult) -> dict[str, Any]:
    return {
        "status": str(result.status),
        "detail": result.detail,
        "critical": result.critical,
        "age": result.age,
        "since": result.since,
        "took": result.took,
        "groups": list(result.groups),
        "kind": result.kind,
    }


def _settings(rule: Rule) -> dict[str, Any]:
    stale = None if rule.stale_ns is None else rule.stale_ns / _NS
    known: dict[str, Any] = {
        "kind": rule.kind, "groups": list(rule.groups), "critical": rule.critical,
    }  # fmt: skip
    if rule.kind != "check":
        return known | {"within": stale}
    return known | {
        "timeout": rule.timeout_ns / _NS,
        "every": rule.every_ns / _NS,
        "stale_after": stale,
        "fail_after": rule.fail_after,
        "pass_after": rule.pass_after,
        "needs_network": rule.needs_network,
        "even_though": rule.even_though,
    }
