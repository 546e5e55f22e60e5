"""The physical log on disk, shared by the engines that keep their own entries."""

from outlast.log.wal.core.runs import Run, RunKind
from outlast.log.wal.core.scan import Damage, Status
from outlast.log.wal.events import TornTailCut, WalFailed, WalFull, WalRoomAgain
from outlast.log.wal.recovery import ScanReport, has_log
from outlast.log.wal.settings import WalIdentity, WalSettings
from outlast.log.wal.wal import Wal, check

__all__ = [
    "Damage",
    "Run",
    "RunKind",
    "ScanReport",
    "Status",
    "TornTailCut",
    "Wal",
    "WalFailed",
    "WalFull",
    "WalIdentity",
    "WalRoomAgain",
    "WalSettings",
    "check",
    "has_log",
]
