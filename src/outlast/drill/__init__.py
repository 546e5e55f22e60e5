"""Workload, nemesis and judgement on real processes: what was promised is checked.

Write a class with operations, run it with :func:`run` or ``outlast drill``, read the report.
"""

from typing import TYPE_CHECKING, Any

from outlast.drill.api import Drill, Node, Nodes, Workload, operation
from outlast.drill.report import (
    FaultReport,
    InvariantReport,
    Latency,
    LatencyPoint,
    NodeSpan,
    Report,
    Series,
    WorkloadReport,
)
from outlast.kernel import NoEffectError

if TYPE_CHECKING:
    from outlast.drill.bank import BankWorkload
    from outlast.drill.core.ledger import Judgement
    from outlast.drill.running import run
    from outlast.drill.target import OwnNodes

_LAZY = {
    "BankWorkload": "bank",
    "Judgement": "core.ledger",
    "OwnNodes": "target",
    "run": "running",
}

__all__ = [
    "BankWorkload",
    "Drill",
    "FaultReport",
    "InvariantReport",
    "Judgement",
    "Latency",
    "LatencyPoint",
    "NoEffectError",
    "Node",
    "NodeSpan",
    "Nodes",
    "OwnNodes",
    "Report",
    "Series",
    "Workload",
    "WorkloadReport",
    "operation",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import what needs processes, the proxy or the page when it is asked for."""
    if name not in _LAZY:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
