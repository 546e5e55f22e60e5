"""The words of a membership node: what it is told and what it asks for.

A node is a state machine without I/O: ``step(event, now_ns)`` takes one of the inputs below and
returns `Effects`, and its ``deadline_ns`` says when it wants `TimerFired`. Times are nanoseconds
of a monotonic clock. A driver owns sockets, keys and streams.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from outlast.kernel import Event


class MemberState(StrEnum):
    """What one node believes of a member. Only ``LEFT`` comes from the member itself."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    """Somebody could not reach it; it has time to object."""
    UNREACHABLE = "unreachable"
    """It did not object in time; the hook has not yet said that it is dead."""
    DEAD = "dead"
    LEFT = "left"


class EvidenceKind(StrEnum):
    """Why a member was accused."""

    SILENCE = "silence"
    """It did not answer, and neither did its machine: slow, frozen, cut off or gone."""
    REFUSED = "refused"
    """Its machine answered that nobody listens on its port: the process is gone."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an accuser saw.

    Attributes:
        kind: Silence, or a refused port.
        silence: Seconds since the accuser last heard the member itself.
        asked: How many others the accuser asked to try.
        nacks: How many of them answered that they could not reach it either.
        observers: How many saw the port refuse: the accuser and those that it asked.
        score: The accuser's local health multiplier, 0 (well) to 8 (hardly to be believed).
    """

    kind: EvidenceKind
    silence: float
    asked: int = 0
    nacks: int = 0
    observers: int = 0
    score: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """One member as one node sees it.

    Attributes:
        name: Its identity; never two live members with one.
        address: Where it listens, ``host:port``.
        incarnation: Grows with each objection, change of metadata and restart.
        state: What this node believes.
        metadata: What the member says of itself; at most 512 bytes as sent.
        accusers: Who could not reach it, in the order of their accusations; empty when alive.
        since_ns: When this node began to believe ``state``.
        rtt_ns: Smoothed round trip from this node; ``None`` before the first answer.
    """

    name: str
    address: str
    incarnation: int
    state: MemberState
    metadata: Mapping[str, str]
    accusers: tuple[str, ...]
    since_ns: int
    rtt_ns: int | None


@dataclass(frozen=True, slots=True)
class Me:
    """This node: what `SwimNode` is made with. A `Member` will do as well."""

    name: str
    address: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    incarnation: int = 0


# --- inputs --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """Begin: join through ``seeds``, addresses of any members. Own addresses are skipped."""

    seeds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PacketReceived:
    """One datagram, already authenticated and decrypted by the driver; 1200 bytes at most."""

    data: bytes
    source: str


@dataclass(frozen=True, slots=True)
class StreamReceived:
    """The whole body of a stream, authenticated and decrypted.

    ``request`` is the driver's handle when somebody asks us: the answer is a `Stream` with the
    same ``request``, at most one, possibly none (then close). ``None``: the answer to our own
    `Stream`.
    """

    data: bytes
    source: str
    request: int | None = None


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """A stream to ``target`` could not be opened, broke or timed out before the answer.

    Give `PortRefused` first if it was refused.
    """

    target: str


@dataclass(frozen=True, slots=True)
class PortRefused:
    """``target``'s machine says that nobody listens there (ICMP port unreachable, TCP reset).

    Evidence that the process is gone rather than slow. Give it whenever it is seen, for a
    datagram or a stream, asked for or not; give it never for another reason.
    """

    target: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """``now_ns`` has reached the node's ``deadline_ns``. Too early is harmless."""


@dataclass(frozen=True, slots=True)
class LocalScore:
    """How bad this process itself is doing, measured: 0.0 well, 1.0 as starved as can be.

    Multiplies timeouts as Lifeguard's local health multiplier does: ``score * 8`` is a floor
    for it.
    """

    score: float


@dataclass(frozen=True, slots=True)
class AccusationsAllowed:
    """Whether this process is fit to accuse. While not, probes fail without a consequence.

    Running suspicions are held, and get some clean time once it is allowed again.
    """

    allowed: bool


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The hook's answer about an unreachable member: dead, or to be kept for now.

    Kept: the hook is asked again after ``confirm_again`` seconds if nothing has changed.
    """

    name: str
    dead: bool


@dataclass(frozen=True, slots=True)
class SetMetadata:
    """Replace what this member says of itself.

    Raises:
        ConfigError: From ``step``: more than 512 bytes as sent. Nothing has changed.
    """

    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Leave:
    """Say good-bye. `Effects.left` turns true once some others have acknowledged, or in time."""


Input: TypeAlias = (
    Started
    | PacketReceived
    | StreamReceived
    | StreamFailed
    | PortRefused
    | TimerFired
    | LocalScore
    | AccusationsAllowed
    | Confirmed
    | SetMetadata
    | Leave
)


# --- effects -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Packet:
    """Send one datagram; it may be lost. At most ``packet_bytes_max`` bytes."""

    target: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """Send one body over a stream.

    ``request`` is ``None``: connect to ``target``, send, read one answer, and give it as
    `StreamReceived` without a request, or say `StreamFailed` after a timeout of the driver's
    (a few seconds). Otherwise: the answer to that request; close afterwards.
    """

    target: str
    data: bytes
    request: int | None = None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Ask the hook about ``member`` and give its answer as `Confirmed`."""

    member: Member


@dataclass(frozen=True, slots=True)
class Effects:
    """What a step asks for. ``left``: this node has said good-bye and may be closed."""

    packets: tuple[Packet, ...] = ()
    streams: tuple[Stream, ...] = ()
    asks: tuple[Unreachable, ...] = ()
    events: tuple[Event, ...] = ()
    left: bool = False


NOTHING = Effects()
"""No effects, shared by all steps that have none."""
