"""Breaking things on purpose, with evidence, and without leaving anything behind.

The fault catalogue, a TCP fault proxy, signals to processes, full disks; every fault is a lease,
and its undo is written to a journal before it begins. Knows nothing of what it breaks.
"""

from outlast.inject.bypass import bypasses, find_listeners
from outlast.inject.core.catalogue import CATALOGUE, FaultRow, fault_row, parse_faults
from outlast.inject.core.linkfault import Direction, LinkFault
from outlast.inject.core.undo import (
    Continue,
    KillMarked,
    ProcessId,
    RemoveFile,
    RemoveTree,
    Undo,
    Unmount,
)
from outlast.inject.disk import Volume, volume_permitted
from outlast.inject.heal import HealReport, LivingDrill, heal
from outlast.inject.identity import MARKER, identify, is_alive, process_tree
from outlast.inject.journal import Journal
from outlast.inject.machine import FaultPermit, permits
from outlast.inject.process import Pause, crash, pause
from outlast.inject.proxy import Link, Proxy
from outlast.inject.tally import LinkMark
from outlast.inject.undoing import HealStep

__all__ = [
    "CATALOGUE",
    "MARKER",
    "Continue",
    "Direction",
    "FaultPermit",
    "FaultRow",
    "HealReport",
    "HealStep",
    "Journal",
    "KillMarked",
    "Link",
    "LinkFault",
    "LinkMark",
    "LivingDrill",
    "Pause",
    "ProcessId",
    "Proxy",
    "RemoveFile",
    "RemoveTree",
    "Undo",
    "Unmount",
    "Volume",
    "bypasses",
    "crash",
    "fault_row",
    "find_listeners",
    "heal",
    "identify",
    "is_alive",
    "parse_faults",
    "pause",
    "permits",
    "process_tree",
    "volume_permitted",
]
