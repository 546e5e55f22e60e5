"""Events of watchdogs, of the outside guard and of watched locks."""

from dataclasses import dataclass

from outlast.kernel import Event
from outlast.kernel.events import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopStalled(Event):
    """An event loop has not run for ``seconds``; ``stack`` is what its thread does instead."""

    level: Level = "error"
    loop: str
    seconds: float
    stack: str
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopRecovered(Event):
    """An event loop runs again after a stall of ``seconds``."""

    loop: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStalled(Event):
    """The process did not run for ``seconds``; ``cause`` is ``gil`` or ``not running``.

    It is told afterwards; while it lasts only an outside guard sees it. ``gil`` means that one
    thread kept all others from running: ``stack`` was written meanwhile, by a thread in C.
    """

    level: Level = "error"
    cause: str
    seconds: float
    stack: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadsStuck(Event):
    """Threads have waited for a lock for ``seconds`` without running once in between."""

    level: Level = "warning"
    threads: tuple[str, ...]
    seconds: float
    stacks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStuck(Event):
    """A task waits for what nobody will give, for its own end, or for longer than allowed.

    ``reason`` is ``orphaned`` (nothing else knows what it waits for), ``circle`` (tasks that
    await each other) or ``long``.
    """

    level: Level = "warning"
    task: str
    reason: str
    seconds: float
    stack: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlockFound(Event):
    """Threads or tasks wait for each other's locks: ``circle`` says who waits for which."""

    level: Level = "error"
    circle: tuple[str, ...]
    stacks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockOrderReversed(Event):
    """Locks are taken in an order that can deadlock, because elsewhere it is the other way."""

    level: Level = "warning"
    locks: tuple[str, ...]
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockWaited(Event):
    """``waiter`` has waited ``seconds`` for a lock, and still does; ``stack`` is its holder's."""

    level: Level = "warning"
    lock: str
    waiter: str
    holder: str
    seconds: float
    stack: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceGrew(Event):
    """A resource grows as a leak does, by ``slope`` units a second; ``top`` may say what."""

    level: Level = "warning"
    resource: str
    value: float
    slope: float
    limit: float | None
    seconds_to_limit: float | None
    top: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceNearLimit(Event):
    """Most of a resource is used: ``value`` of ``limit``."""

    level: Level = "error"
    resource: str
    value: float
    limit: float
    top: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRecovered(Event):
    """A resource is neither near its limit nor growing towards it any more."""

    resource: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuThrottled(Event):
    """The cgroup has held the process back for ``share`` of the time."""

    level: Level = "warning"
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockJumped(Event):
    """The wall clock was set: it moved by ``seconds`` against the monotonic one."""

    level: Level = "warning"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSuspended(Event):
    """The machine was suspended for ``seconds``, in which the monotonic clock stood still."""

    level: Level = "warning"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StacksTaken(Event):
    """The stacks of all threads, because of ``reason``; bounded."""

    level: Level = "warning"
    reason: str
    stacks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpWritten(Event):
    """A file with all stacks and what memory is used for was written, because of ``reason``."""

    level: Level = "warning"
    reason: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartForced(Event):
    """This process ends itself now with ``code``, because of ``reason``."""

    level: Level = "error"
    reason: str
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardStarted(Event):
    """The outside guard of this process runs; ``restarts`` counts how often it was replaced."""

    pid: int
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLost(Event):
    """The outside guard has ended with ``code``; another one is started."""

    level: Level = "warning"
    pid: int
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardReported(Event):
    """What the outside guard saw of ``slot``, told now that the process runs again."""

    level: Level = "error"
    kind: str
    slot: str
    seconds: float
    stack: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogFailed(Event):
    """A watchdog or one of its actions raised or took too long; it is tried again later."""

    level: Level = "warning"
    watchdog: str
    reason: str
