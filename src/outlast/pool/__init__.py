"""Several equal instances of a service: choosing, ejecting, readmitting, failing over.

Names are imported on first use. All but the httpx transports need the standard library alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlast.pool.check import Check as Check
    from outlast.pool.check import call_check as call_check
    from outlast.pool.check import http_check as http_check
    from outlast.pool.core.instance import Found as Found
    from outlast.pool.core.instance import Instance as Instance
    from outlast.pool.core.settings import Outlier as Outlier
    from outlast.pool.core.settings import mad as mad
    from outlast.pool.core.settings import p2c as p2c
    from outlast.pool.core.settings import peak_ewma as peak_ewma
    from outlast.pool.core.settings import ramp as ramp
    from outlast.pool.discovery import Dns as Dns
    from outlast.pool.discovery import Membership as Membership
    from outlast.pool.endpoint import Endpoint as Endpoint
    from outlast.pool.events import DiscoveryFailed as DiscoveryFailed
    from outlast.pool.events import InstanceCheckFailed as InstanceCheckFailed
    from outlast.pool.events import InstanceCheckPassed as InstanceCheckPassed
    from outlast.pool.events import InstanceEjected as InstanceEjected
    from outlast.pool.events import InstanceReadmitted as InstanceReadmitted
    from outlast.pool.events import PoolCalmed as PoolCalmed
    from outlast.pool.events import PoolChanged as PoolChanged
    from outlast.pool.events import PoolPanicked as PoolPanicked
    from outlast.pool.httpx_transport import AsyncHttpxPoolTransport as AsyncHttpxPoolTransport
    from outlast.pool.httpx_transport import HttpxPoolTransport as HttpxPoolTransport
    from outlast.pool.pool import Pool as Pool

_NAMES = {
    "check": "Check call_check http_check",
    "core.instance": "Found Instance",
    "core.settings": "Outlier mad p2c peak_ewma ramp",
    "discovery": "Dns Membership",
    "endpoint": "Endpoint",
    "events": (
        "DiscoveryFailed InstanceCheckFailed InstanceCheckPassed InstanceEjected "
        "InstanceReadmitted PoolCalmed PoolChanged PoolPanicked"
    ),
    "httpx_transport": "AsyncHttpxPoolTransport HttpxPoolTransport",
    "pool": "Pool",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [*sorted(_HOME)]  # noqa: PLE0604 - the table's names; checkers read the imports above


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"outlast.pool.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
