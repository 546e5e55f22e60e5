"""For people who test what they build on outlast, or write an engine or machine of their own.

Nothing here imports pytest when it is loaded, and names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlast.testing import broken, campaign, histories, log_suite
    from outlast.testing.forcing import forced, forced_open
    from outlast.testing.machine import MachineCheckError, check_machine
    from outlast.testing.virtual import VirtualTime, virtual_time

_MODULES = ("broken", "campaign", "histories", "log_suite")
_NAMES: dict[str, str] = {
    "MachineCheckError": "machine",
    "VirtualTime": "virtual",
    "check_machine": "machine",
    "forced": "forcing",
    "forced_open": "forcing",
    "virtual_time": "virtual",
}

__all__ = [
    "MachineCheckError",
    "VirtualTime",
    "broken",
    "campaign",
    "check_machine",
    "forced",
    "forced_open",
    "histories",
    "log_suite",
    "virtual_time",
]


def __getattr__(name: str) -> Any:
    """Load a module or name of this room on first use (PEP 562)."""
    if name in _MODULES:
        return import_module(f"outlast.testing.{name}")
    if name in _NAMES:
        return getattr(import_module(f"outlast.testing.{_NAMES[name]}"), name)
    message = f"module 'outlast.testing' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
