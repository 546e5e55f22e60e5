"""Health in a file: for probes that run a command where no port is to be opened.

The writer repeats itself, so that a file which has become old says that the writer is stuck or
gone. What is read was written by another process, maybe another version: it is checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from outlast.detect.core.health import GROUPS, GroupHealth

FORMAT: Final = 1
FILE_BYTES_MAX: Final = 1 << 20
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe found.

    Attributes:
        passing: The answer; ``None`` if there was nobody to ask, or nothing readable.
        status: ``ok``, ``degraded``, ``unknown``, ``failed``; or what is wrong, in one line.
        checks: The checks, as objects with ``name``, ``status``, ``detail`` and more.
    """

    passing: bool | None
    status: str
    checks: tuple[Mapping[str, Any], ...] = ()


def write_text(groups: Mapping[Any, GroupHealth], wall_ns: int, pid: int) -> str:
    """Return the text of the file: one JSON object."""
    from json import dumps

    return dumps(
        {
            "format": FORMAT,
            "written": wall_ns / _NS,
            "pid": pid,
            "groups": {
                str(name): {
                    "status": str(found.status),
                    "passing": found.passing,
                    "checks": [
                        {"name": r.name, "status": str(r.status), "detail": r.detail}
                        for r in found.results
                    ],
                }
                for name, found in groups.items()
            },
        }
    )


def read_text(text: str, group: str, wall_ns: int, within_ns: int) -> Probed:
    """Judge what a file says of ``group``.

    It does not pass if it was not written within ``within_ns``, in either direction: a wall clock
    may have jumped.
    """
    from json import loads

    try:
        value = loads(text)
    except (ValueError, RecursionError):
        return Probed(None, "not JSON: the file is damaged, or no health file")
    try:
        if value["format"] != FORMAT:
            return Probed(None, f"format {value['format']!r}; this version reads {FORMAT}")
        age = wall_ns / _NS - float(value["written"])
        found = value["groups"][group]
        status, passing = str(found["status"]), found["passing"] is True
        checks = tuple(_check(one) for one in found["checks"])
    except (KeyError, TypeError, ValueError):
        return Probed(None, f"no group {group!r} in it, or no health file; {', '.join(GROUPS)}")
    if not abs(age) * _NS <= within_ns:
        return Probed(False, f"unknown: written {age:.0f} s ago: its writer is stuck or gone")
    return Probed(passing, status, checks)


def _check(one: Any) -> dict[str, Any]:
    return {key: str(one[key]) for key in ("name", "status", "detail")}
