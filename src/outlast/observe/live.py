"""What is alive in this process, with settings and state, as values that JSON knows."""

from collections.abc import Iterable
from typing import Any

from outlast.kernel.registry import kind_of, watched


def live(things: Iterable[Any] | None = None) -> list[dict[str, Any]]:
    """Return one row for each policy and each named part that is alive.

    A row has ``kind`` (the class), ``name``, ``position`` (empty for a policy), ``settings`` (what
    ``describe()`` says) and ``state`` (what ``snapshot()`` says). What raises instead has an
    ``error``: looking never fails.

    Args:
        things: What to look at; everything that is watched by default.
    """
    return [_row(thing) for thing in (watched() if things is None else things)]


def _row(thing: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": kind_of(thing),
        "name": getattr(thing, "name", ""),
        "position": getattr(thing, "position", ""),
        "settings": {},
        "state": {},
    }
    try:
        row["settings"] = dict(thing.describe())
        row["state"] = dict(thing.snapshot())
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
    return row
