"""Noticing failure: health checks and supervision. Needs the standard library alone.

``health_routes`` needs the extra ``cluster`` (starlette) and is imported on first use.
"""

from typing import TYPE_CHECKING, Any

from outlast.detect.core.supervisor import (
    InCrashLoop,
    RestartAfter,
    RestartDecider,
    RestartPolicy,
    StayDown,
)
from outlast.detect.events import (
    ChildExited,
    ChildRestarting,
    ChildStarted,
    CrashLoop,
    HealthChanged,
)
from outlast.detect.health import CheckResult, GroupHealth, Health, Status
from outlast.detect.supervisor import Child, ChildSpec, Supervisor

if TYPE_CHECKING:
    from outlast.detect.asgi import health_routes

__all__ = [
    "CheckResult",
    "Child",
    "ChildExited",
    "ChildRestarting",
    "ChildSpec",
    "ChildStarted",
    "CrashLoop",
    "GroupHealth",
    "Health",
    "HealthChanged",
    "InCrashLoop",
    "RestartAfter",
    "RestartDecider",
    "RestartPolicy",
    "Status",
    "StayDown",
    "Supervisor",
    "health_routes",
]


def __getattr__(name: str) -> Any:
    if name == "health_routes":
        from outlast.detect.asgi import health_routes

        return health_routes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
