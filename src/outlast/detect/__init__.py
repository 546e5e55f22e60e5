"""Noticing failure: detectors, membership, health, watchdogs, supervision.

Names are imported on first use, so that each costs only what it needs: detectors, health,
watchdogs and supervision the standard library, membership the extra ``members``, and what serves
or speaks to others the extra that its page names.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlast.detect.asgi import health_routes as health_routes
    from outlast.detect.core.supervisor import InCrashLoop as InCrashLoop
    from outlast.detect.core.supervisor import RestartAfter as RestartAfter
    from outlast.detect.core.supervisor import RestartDecider as RestartDecider
    from outlast.detect.core.supervisor import RestartPolicy as RestartPolicy
    from outlast.detect.core.supervisor import StayDown as StayDown
    from outlast.detect.events import ChildExited as ChildExited
    from outlast.detect.events import ChildRestarting as ChildRestarting
    from outlast.detect.events import ChildStarted as ChildStarted
    from outlast.detect.events import CrashLoop as CrashLoop
    from outlast.detect.events import HealthChanged as HealthChanged
    from outlast.detect.health import CheckResult as CheckResult
    from outlast.detect.health import GroupHealth as GroupHealth
    from outlast.detect.health import Health as Health
    from outlast.detect.health import Status as Status
    from outlast.detect.supervisor import Child as Child
    from outlast.detect.supervisor import ChildSpec as ChildSpec
    from outlast.detect.supervisor import Supervisor as Supervisor

_NAMES = {
    # detectors
    # membership
    # health
    "outlast.detect.health": "CheckResult GroupHealth Health Status",
    "outlast.detect.asgi": "health_routes",
    # watchdogs
    # supervision
    "outlast.detect.core.supervisor": (
        "InCrashLoop RestartAfter RestartDecider RestartPolicy StayDown"
    ),
    "outlast.detect.supervisor": "Child ChildSpec Supervisor",
    # events
    "outlast.detect.events": "ChildExited ChildRestarting ChildStarted CrashLoop HealthChanged",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [*sorted(_HOME)]  # noqa: PLE0604 - the table's names; checkers read the imports above


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
