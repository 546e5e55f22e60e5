"""Noticing failure: detectors, membership, health, watchdogs, supervision.

Names are imported on first use, so that each costs only what it needs: detectors, health,
watchdogs and supervision the standard library, membership the extra ``members``, and what serves
or speaks to others the extra that its page names.
"""

from typing import TYPE_CHECKING, Any

from outlast.kernel import World, offer_default_world

if TYPE_CHECKING:
    from outlast.detect.asgi import health_routes as health_routes
    from outlast.detect.child import Child as Child
    from outlast.detect.child import Grace as Grace
    from outlast.detect.child import Ready as Ready
    from outlast.detect.child_status import ChildStatus as ChildStatus
    from outlast.detect.core.chen import Bertier as Bertier
    from outlast.detect.core.chen import Chen as Chen
    from outlast.detect.core.detector import Detector as Detector
    from outlast.detect.core.fixed import Fixed as Fixed
    from outlast.detect.core.goal import Plan as Plan
    from outlast.detect.core.goal import for_goal as for_goal
    from outlast.detect.core.health_file import Probed as Probed
    from outlast.detect.core.health_record import Progress as Progress
    from outlast.detect.core.ladder import Ladder as Ladder
    from outlast.detect.core.phi import PhiAccrual as PhiAccrual
    from outlast.detect.core.quality import Quality as Quality
    from outlast.detect.core.quality import Score as Score
    from outlast.detect.core.quality import score as score
    from outlast.detect.core.quantile import Quantile as Quantile
    from outlast.detect.core.resource import CpuLimit as CpuLimit
    from outlast.detect.core.resource import DiskLimit as DiskLimit
    from outlast.detect.core.resource import FdLimit as FdLimit
    from outlast.detect.core.resource import MemoryLimit as MemoryLimit
    from outlast.detect.core.resource import ResourceLimit as ResourceLimit
    from outlast.detect.core.resource import ThreadLimit as ThreadLimit
    from outlast.detect.core.restarting import RestartBackoff as RestartBackoff
    from outlast.detect.core.scale import LevelName as LevelName
    from outlast.detect.core.scale import Levels as Levels
    from outlast.detect.core.supervisor import InCrashLoop as InCrashLoop
    from outlast.detect.core.supervisor import RestartAfter as RestartAfter
    from outlast.detect.core.supervisor import RestartDecider as RestartDecider
    from outlast.detect.core.supervisor import RestartPolicy as RestartPolicy
    from outlast.detect.core.supervisor import StayDown as StayDown
    from outlast.detect.core.swim.api import Evidence as Evidence
    from outlast.detect.core.swim.api import EvidenceKind as EvidenceKind
    from outlast.detect.core.swim.api import Member as Member
    from outlast.detect.core.swim.api import MemberState as MemberState
    from outlast.detect.core.swim.settings import SwimSettings as SwimSettings
    from outlast.detect.detectors_events import AccusationPostponed as AccusationPostponed
    from outlast.detect.detectors_events import HeartbeatFailed as HeartbeatFailed
    from outlast.detect.detectors_events import HeartbeatsMissed as HeartbeatsMissed
    from outlast.detect.detectors_events import LocalExcused as LocalExcused
    from outlast.detect.detectors_events import LocalExcuseEnded as LocalExcuseEnded
    from outlast.detect.detectors_events import LocalPaused as LocalPaused
    from outlast.detect.detectors_events import PeerSuspected as PeerSuspected
    from outlast.detect.detectors_events import PeerTrusted as PeerTrusted
    from outlast.detect.drain_app import DrainApp as DrainApp
    from outlast.detect.draining import Drain as Drain
    from outlast.detect.draining_events import DrainEnded as DrainEnded
    from outlast.detect.draining_events import DrainStarted as DrainStarted
    from outlast.detect.events import ChildAbandoned as ChildAbandoned
    from outlast.detect.events import ChildExited as ChildExited
    from outlast.detect.events import ChildReady as ChildReady
    from outlast.detect.events import ChildRestarting as ChildRestarting
    from outlast.detect.events import ChildStarted as ChildStarted
    from outlast.detect.events import ChildStopped as ChildStopped
    from outlast.detect.events import ChildStuck as ChildStuck
    from outlast.detect.events import CrashLoop as CrashLoop
    from outlast.detect.events import HealthChanged as HealthChanged
    from outlast.detect.events import HealthDraining as HealthDraining
    from outlast.detect.events import HealthThreadsUsedUp as HealthThreadsUsedUp
    from outlast.detect.events import OrphansEnded as OrphansEnded
    from outlast.detect.events import SupervisorEscalated as SupervisorEscalated
    from outlast.detect.guard import Guard as Guard
    from outlast.detect.health import CheckResult as CheckResult
    from outlast.detect.health import GroupHealth as GroupHealth
    from outlast.detect.health import Health as Health
    from outlast.detect.health import Status as Status
    from outlast.detect.health_file import HealthFile as HealthFile
    from outlast.detect.health_file import probe_health as probe_health
    from outlast.detect.health_file import write_health_file as write_health_file
    from outlast.detect.health_grpc import GrpcHealth as GrpcHealth
    from outlast.detect.health_pages import HealthMiddleware as HealthMiddleware
    from outlast.detect.health_pages import health_app as health_app
    from outlast.detect.health_pages import health_wsgi as health_wsgi
    from outlast.detect.health_server import HealthServer as HealthServer
    from outlast.detect.heartbeat import Heartbeat as Heartbeat
    from outlast.detect.heartbeat_monitor import HeartbeatMonitor as HeartbeatMonitor
    from outlast.detect.local_health import LocalHealth as LocalHealth
    from outlast.detect.locks import WatchedAsyncLock as WatchedAsyncLock
    from outlast.detect.locks import WatchedLock as WatchedLock
    from outlast.detect.locks import WatchedRLock as WatchedRLock
    from outlast.detect.locks import forget_lock_order as forget_lock_order
    from outlast.detect.locks import standing_deadlocks as standing_deadlocks
    from outlast.detect.members import Members as Members
    from outlast.detect.members_events import ConfirmFailed as ConfirmFailed
    from outlast.detect.members_events import EventsMissed as EventsMissed
    from outlast.detect.members_events import SeedsUnanswered as SeedsUnanswered
    from outlast.detect.members_view import ask_members as ask_members
    from outlast.detect.membership_events import MemberAlive as MemberAlive
    from outlast.detect.membership_events import MemberDead as MemberDead
    from outlast.detect.membership_events import MemberJoined as MemberJoined
    from outlast.detect.membership_events import MemberLeft as MemberLeft
    from outlast.detect.membership_events import MemberRejoined as MemberRejoined
    from outlast.detect.membership_events import MemberSuspected as MemberSuspected
    from outlast.detect.membership_events import MemberUnreachable as MemberUnreachable
    from outlast.detect.membership_events import MemberUpdated as MemberUpdated
    from outlast.detect.membership_events import NameConflict as NameConflict
    from outlast.detect.membership_events import PacketDropped as PacketDropped
    from outlast.detect.membership_events import SuspicionRefuted as SuspicionRefuted
    from outlast.detect.stop import Stop as Stop
    from outlast.detect.stop import progress_stamp as progress_stamp
    from outlast.detect.supervisor import Supervisor as Supervisor
    from outlast.detect.supervisor_branch import Ending as Ending
    from outlast.detect.supervisor_file import load_supervisor as load_supervisor
    from outlast.detect.systemd import SystemdNotifier as SystemdNotifier
    from outlast.detect.systemd import notify as notify
    from outlast.detect.watchdog import Watchdog as Watchdog
    from outlast.detect.watchdog import Watchdogs as Watchdogs
    from outlast.detect.watchdog_events import ClockJumped as ClockJumped
    from outlast.detect.watchdog_events import CpuThrottled as CpuThrottled
    from outlast.detect.watchdog_events import DeadlockFound as DeadlockFound
    from outlast.detect.watchdog_events import DumpWritten as DumpWritten
    from outlast.detect.watchdog_events import GuardLost as GuardLost
    from outlast.detect.watchdog_events import GuardReported as GuardReported
    from outlast.detect.watchdog_events import GuardStarted as GuardStarted
    from outlast.detect.watchdog_events import LockOrderReversed as LockOrderReversed
    from outlast.detect.watchdog_events import LockWaited as LockWaited
    from outlast.detect.watchdog_events import LoopRecovered as LoopRecovered
    from outlast.detect.watchdog_events import LoopStalled as LoopStalled
    from outlast.detect.watchdog_events import MachineSuspended as MachineSuspended
    from outlast.detect.watchdog_events import ProcessStalled as ProcessStalled
    from outlast.detect.watchdog_events import ResourceGrew as ResourceGrew
    from outlast.detect.watchdog_events import ResourceNearLimit as ResourceNearLimit
    from outlast.detect.watchdog_events import ResourceRecovered as ResourceRecovered
    from outlast.detect.watchdog_events import RestartForced as RestartForced
    from outlast.detect.watchdog_events import StacksTaken as StacksTaken
    from outlast.detect.watchdog_events import TaskStuck as TaskStuck
    from outlast.detect.watchdog_events import ThreadsStuck as ThreadsStuck
    from outlast.detect.watchdog_events import WatchdogFailed as WatchdogFailed
    from outlast.detect.watchdog_locks import LockWatchdog as LockWatchdog
    from outlast.detect.watchdog_loop import LoopWatchdog as LoopWatchdog
    from outlast.detect.watchdog_loop import ProcessWatchdog as ProcessWatchdog
    from outlast.detect.watchdog_resource import ResourceWatchdog as ResourceWatchdog
    from outlast.detect.watchdog_stuck import TaskWatchdog as TaskWatchdog
    from outlast.detect.watchdog_stuck import ThreadWatchdog as ThreadWatchdog

_NAMES = {
    # detectors
    "outlast.detect.core.detector": "Detector",
    "outlast.detect.core.scale": "LevelName Levels",
    "outlast.detect.core.fixed": "Fixed",
    "outlast.detect.core.chen": "Bertier Chen",
    "outlast.detect.core.phi": "PhiAccrual",
    "outlast.detect.core.quantile": "Quantile",
    "outlast.detect.core.goal": "Plan for_goal",
    "outlast.detect.core.quality": "Quality Score score",
    "outlast.detect.local_health": "LocalHealth",
    "outlast.detect.heartbeat": "Heartbeat",
    "outlast.detect.heartbeat_monitor": "HeartbeatMonitor",
    # membership
    "outlast.detect.core.swim.api": "Evidence EvidenceKind Member MemberState",
    "outlast.detect.core.swim.settings": "SwimSettings",
    "outlast.detect.members": "Members",
    "outlast.detect.members_view": "ask_members",
    # health
    "outlast.detect.health": "CheckResult GroupHealth Health Progress Status",
    "outlast.detect.asgi": "health_routes",
    # serving health
    "outlast.detect.drain_app": "DrainApp",
    "outlast.detect.draining": "Drain",
    "outlast.detect.health_pages": "HealthMiddleware health_app health_wsgi",
    "outlast.detect.health_file": "HealthFile probe_health write_health_file",
    "outlast.detect.core.health_file": "Probed",
    "outlast.detect.health_grpc": "GrpcHealth",
    "outlast.detect.health_server": "HealthServer",
    "outlast.detect.systemd": "SystemdNotifier notify",
    # watchdogs
    "outlast.detect.core.ladder": "Ladder",
    "outlast.detect.core.resource": (
        "CpuLimit DiskLimit FdLimit MemoryLimit ResourceLimit ThreadLimit"
    ),
    "outlast.detect.guard": "Guard",
    "outlast.detect.locks": (
        "WatchedAsyncLock WatchedLock WatchedRLock forget_lock_order standing_deadlocks"
    ),
    "outlast.detect.watchdog": "Watchdog Watchdogs",
    "outlast.detect.watchdog_events": (
        "ClockJumped CpuThrottled DeadlockFound DumpWritten GuardLost GuardReported "
        "GuardStarted LockOrderReversed LockWaited LoopRecovered LoopStalled "
        "MachineSuspended ProcessStalled ResourceGrew ResourceNearLimit ResourceRecovered "
        "RestartForced StacksTaken TaskStuck ThreadsStuck WatchdogFailed"
    ),
    "outlast.detect.watchdog_locks": "LockWatchdog",
    "outlast.detect.watchdog_loop": "LoopWatchdog ProcessWatchdog",
    "outlast.detect.watchdog_resource": "ResourceWatchdog",
    "outlast.detect.watchdog_stuck": "TaskWatchdog ThreadWatchdog",
    # supervision
    "outlast.detect.core.supervisor": (
        "InCrashLoop RestartAfter RestartDecider RestartPolicy StayDown"
    ),
    "outlast.detect.core.restarting": "RestartBackoff",
    "outlast.detect.child": "Child Grace Ready",
    "outlast.detect.child_status": "ChildStatus",
    "outlast.detect.stop": "Stop progress_stamp",
    "outlast.detect.supervisor": "Supervisor",
    "outlast.detect.supervisor_file": "load_supervisor",
    "outlast.detect.supervisor_branch": "Ending",
    # events
    "outlast.detect.detectors_events": (
        "AccusationPostponed HeartbeatFailed HeartbeatsMissed LocalExcuseEnded LocalExcused "
        "LocalPaused PeerSuspected PeerTrusted"
    ),
    "outlast.detect.members_events": "ConfirmFailed EventsMissed SeedsUnanswered",
    "outlast.detect.membership_events": (
        "MemberAlive MemberDead MemberJoined MemberLeft MemberRejoined MemberSuspected"
        " MemberUnreachable MemberUpdated NameConflict PacketDropped SuspicionRefuted"
    ),
    "outlast.detect.draining_events": "DrainEnded DrainStarted",
    "outlast.detect.events": (
        "ChildAbandoned ChildExited ChildReady ChildRestarting ChildStarted ChildStopped"
        " ChildStuck CrashLoop HealthChanged HealthDraining HealthThreadsUsedUp OrphansEnded"
        " SupervisorEscalated"
    ),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [*sorted(_HOME)]  # noqa: PLE0604 - the table's names; checkers read the imports above


def _host_world() -> World:
    from outlast.host import default_world

    return default_world()


# Who uses a part alone has imported no host; the machine is asked for when it begins to work.
offer_default_world(_host_world)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
