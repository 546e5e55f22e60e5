"""What findings of health checks mean for the groups that probes ask about.

No finding proves nothing: what is *unknown* is neither well nor dead. It keeps an instance from
traffic, and never has it restarted.

A name is a *check* (we ask), a *report* (the program says so) or *progress* (the program stamps
that it goes on). Statuses in order: ok, degraded, unknown, failed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, get_args

_DETAIL_MAX: Final = 300

Group = Literal["startup", "liveness", "readiness"]
GROUPS: Final[tuple[Group, ...]] = get_args(Group)
Kind = Literal["check", "report", "progress"]


class Status(StrEnum):
    """What a check found."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNKNOWN = "unknown"


_OK, _DEGRADED, _UNKNOWN, _FAILED = Status.OK, Status.DEGRADED, Status.UNKNOWN, Status.FAILED
RANKED: Final = (_OK, _DEGRADED, _UNKNOWN, _FAILED)
RANK: Final = {status: rank for rank, status in enumerate(RANKED)}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What is known of one name.

    Attributes:
        name: Its name.
        status: Its status.
        detail: Why, in one line.
        critical: Whether it decides its groups; otherwise it degrades them at worst.
        age: Seconds since the last finding, ``None`` before the first.
        since: Seconds for which it has had this status.
        took: Seconds that the last run took; ``None`` before it, and for what is not run.
        groups: Where it counts.
        kind: ``check``, ``report`` or ``progress``.
    """

    name: str
    status: Status
    detail: str
    critical: bool
    age: float | None
    since: float = 0.0
    took: float | None = None
    groups: tuple[Group, ...] = ()
    kind: Kind = "check"


@dataclass(frozen=True, slots=True)
class GroupHealth:
    """A group's verdict, and the results it rests on. ``passing`` is what a probe answers."""

    group: Group
    status: Status
    passing: bool
    results: tuple[CheckResult, ...]


def worst(results: Iterable[CheckResult]) -> Status:
    """Return the worst status; of checks that are not critical, degraded at worst."""
    found = 0
    for result in results:
        rank = RANK[result.status]
        if rank > found:
            found = rank if result.critical else max(found, 1)
    return RANKED[found]


def verdict(
    group: Group, results: tuple[CheckResult, ...], *, draining: str = "", started: bool = False
) -> GroupHealth:
    """Judge a group.

    * *startup* passes once nothing critical in it is unknown or failed, and then for good.
    * *liveness* fails only if something critical has failed: its answer has the process
      restarted, which not knowing does not justify.
    * *readiness* passes if everything critical is known and has not failed, unless the process
      is draining.

    Args:
        group: Which.
        results: Of the names that are in it.
        draining: Why the process is going to stop; empty if it is not.
        started: Whether startup has passed before.
    """
    status = worst(results)
    if group == "startup":
        if started and status not in {_OK, _DEGRADED}:
            status = _OK
        return GroupHealth(group, status, started or status in {_OK, _DEGRADED}, results)
    if group == "readiness":
        if draining:
            stopping = CheckResult("draining", _FAILED, draining, True, 0.0, groups=("readiness",))
            return GroupHealth(group, _FAILED, False, (*results, stopping))
        return GroupHealth(group, status, status in {_OK, _DEGRADED}, results)
    return GroupHealth(group, status, status is not _FAILED, results)


def read_finding(found: Any) -> tuple[Status, str]:
    """Return status and detail of what a check returned; anything unreadable has failed."""
    if isinstance(found, Status):
        return found, ""
    if found is None or isinstance(found, bool):
        return (_FAILED if found is False else _OK), ""
    if isinstance(found, tuple) and len(found) == 2:
        status, detail = found
        try:
            return Status(status), str(detail)
        except ValueError:
            return _FAILED, "the check returned a tuple without a Status; return (Status, detail)"
    return _FAILED, f"the check returned {type(found).__name__}; return a Status"


def one_line(text: str) -> str:
    """Return ``text`` in one line of printable characters, cut to a length for people."""
    line = " ".join(text[: 4 * _DETAIL_MAX].split())
    line = "".join(one if one.isprintable() else "?" for one in line)
    return line if len(line) <= _DETAIL_MAX else f"{line[: _DETAIL_MAX - 1]}…"


def read_groups(groups: Sequence[Group] | Group) -> tuple[Group, ...]:
    """Return the groups as a tuple; one alone may be given by its name."""
    return (groups,) if isinstance(groups, str) else tuple(groups)
