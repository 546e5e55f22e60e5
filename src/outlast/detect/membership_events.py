"""Events of membership: who joined, was accused, objected, died, left, and by whose word.

``member`` is the member as the node sees it after the event; ``node`` names the node that says so.
"""

from dataclasses import dataclass

from outlast.detect.core.swim.api import Evidence, Member
from outlast.kernel import Event
from outlast.kernel.events import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberJoined(Event):
    """A member is known that was not known before."""

    member: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSuspected(Event):
    """``by`` could not reach a member, as ``evidence`` tells; each accuser is told once."""

    level: Level = "warning"
    member: Member
    by: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspicionRefuted(Event):
    """A suspected member objected in time, ``after`` seconds; ``accusers`` were wrong or early."""

    member: Member
    accusers: tuple[str, ...]
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberUnreachable(Event):
    """A suspected member did not object in time; the hook decides whether it is dead."""

    level: Level = "warning"
    member: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberDead(Event):
    """A member has been removed: it did not object in ``silence`` seconds, or the hook said so."""

    level: Level = "warning"
    member: Member
    accusers: tuple[str, ...]
    silence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberAlive(Event):
    """A member that was unreachable or dead is heard again: the same process, wrongly removed."""

    level: Level = "warning"
    member: Member
    before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRejoined(Event):
    """A known name runs in a new process, perhaps at another address."""

    member: Member
    before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLeft(Event):
    """A member has said good-bye."""

    member: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberUpdated(Event):
    """A member has changed its metadata or its address."""

    member: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class NameConflict(Event):
    """A second process at ``address`` claims a name whose owner lives; it is not obeyed."""

    level: Level = "error"
    name: str
    address: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketDropped(Event):
    """Packets were dropped, ``count`` since the last such event; ``reason`` is the latest."""

    level: Level = "warning"
    source: str
    reason: str
    count: int
