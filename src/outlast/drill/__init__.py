"""Workload, nemesis and judgement on real processes: what was promised is checked."""

from outlast.drill.bank import BankWorkload
from outlast.drill.core.ledger import Judgement
from outlast.drill.demo import Demo, DemoView, FaultRow, NodeRow, verdict_of

__all__ = [
    "BankWorkload",
    "Demo",
    "DemoView",
    "FaultRow",
    "Judgement",
    "NodeRow",
    "verdict_of",
]
