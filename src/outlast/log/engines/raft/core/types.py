"""What goes into the Raft core and what comes out of it: events, messages, effects.

``RaftNode.step(event, now_ns) -> Effects`` is the whole interface. The driver hands in one
event at a time and then carries out the effects in this order: start ``persist``, send
``send_now``, carry out the rest; ``send_after_durable`` waits until this and every earlier
``persist`` is durable. The order "on disk before it is said" is thus in the type.

Messages are msgspec structs encoded as arrays: a version 1 peer reads version 2 as long as
fields are only added at the end with defaults.
"""

from dataclasses import dataclass
from enum import IntEnum

import msgspec

from outlast.kernel import Event as KernelEvent
from outlast.kernel import LogIndex, OutlastError, ReplicaId, Term
from outlast.log.api import Member, Membership, SnapshotRef


class EntryKind(IntEnum):
    """What an entry of the Raft log is. Readers of the Log see ``NORMAL`` ones only."""

    NORMAL = 0
    NOOP = 1
    CONFIG = 2
    SEAL = 3


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One entry of the Raft log."""

    index: int
    term: int
    kind: int
    payload: bytes


class Role(IntEnum):
    """What a node is in its term. A node that may not vote yet is ``RECOVERING``."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3
    LEARNER = 4
    RECOVERING = 5


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be durable before it is acted on (Raft paper figure 2)."""

    term: Term
    vote: ReplicaId | None


# --- messages ------------------------------------------------------------------------------


class Message(msgspec.Struct, array_like=True, frozen=True, tag_field="type"):
    """Base of all messages between members; ``term`` is the sender's."""

    term: int


class VoteRequest(Message, frozen=True, tag=1):
    """Asks for a vote (paper 5.2), or whether one would be given (``pre``, thesis 9.6).

    ``transfer`` says that the leader itself asked for this election (thesis 3.10).
    """

    last_index: int
    last_term: int
    pre: bool
    transfer: bool


class VoteResponse(Message, frozen=True, tag=2):
    """Answers a :class:`VoteRequest`; ``request_term`` is the term that was asked for."""

    request_term: int
    pre: bool
    granted: bool


class AppendRequest(Message, frozen=True, tag=3):
    """Replicates entries and is the heartbeat (paper 5.3).

    ``round`` is the newest read round (ReadIndex, thesis 6.4); it comes back in the answer.
    ``commit`` is never above what the receiver is known to match once the entries are in.
    """

    previous_index: int
    previous_term: int
    entries: list[Entry]
    commit: int
    round: int


class AppendResponse(Message, frozen=True, tag=4):
    """Answers an :class:`AppendRequest`.

    On success ``match`` is the last index known durable and equal here. On failure
    ``match`` is the hint: the leader goes on from ``conflict_index``, whose term here is
    ``conflict_term`` (0: the log ends before it), and ``rejected`` repeats the request's
    ``previous_index`` so that a late answer is recognised. ``recovering`` says that the sender
    has not been admitted: the leader feeds it as a learner but counts it for nothing.
    """

    success: bool
    match: int
    conflict_index: int
    conflict_term: int
    round: int
    rejected: int = 0
    recovering: bool = False


class TransferNow(Message, frozen=True, tag=5):
    """The leader tells a caught-up member to start an election at once (thesis 3.10)."""


class SnapshotOffer(Message, frozen=True, tag=6):
    """The leader offers a snapshot to a member whose next entry was trimmed.

    ``membership`` is the configuration in force at ``index`` (``core.config``); a seal at or
    before ``index`` comes as ``seal_index`` (0: none) and ``seal_next``.
    """

    index: int
    index_term: int
    size_bytes: int
    digest: bytes
    chunk_count: int
    membership: bytes
    seal_index: int = 0
    seal_next: bytes = b""


class SnapshotWant(Message, frozen=True, tag=7):
    """The receiver asks for chunks from ``next_chunk`` on; ``done`` says it is installed."""

    index: int
    digest: bytes
    next_chunk: int
    done: bool
    refused: bool


AnyMessage = (
    VoteRequest
    | VoteResponse
    | AppendRequest
    | AppendResponse
    | TransferNow
    | SnapshotOffer
    | SnapshotWant
)


# --- events into the core ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wake:
    """The time asked for in ``Effects.wake_ns`` has come (or earlier; it does no harm)."""


class Receive(msgspec.Struct, frozen=True):
    """A message from another replica has arrived."""

    sender: ReplicaId
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class Propose:
    """Append entries; each has a ticket of the driver's, answered by Accepted or Refused."""

    entries: tuple[tuple[int, EntryKind, bytes], ...]
    """(ticket, ``NORMAL`` or ``SEAL``, payload)"""


@dataclass(frozen=True, slots=True)
class ProposeMembers:
    """Change the members by joint consensus (paper 6, thesis 4.3)."""

    ticket: int
    members: tuple[Member, ...]
    expect_version: int


@dataclass(frozen=True, slots=True)
class ProposeTransfer:
    """Hand leadership over."""

    ticket: int
    target: ReplicaId


@dataclass(frozen=True, slots=True)
class AskTail:
    """Ask for a read index (thesis 6.4); answered by TailReady or Refused."""

    ticket: int


class Persisted(msgspec.Struct, frozen=True):
    """Everything up to and including ``Persist.ticket`` is durable."""

    ticket: int


@dataclass(frozen=True, slots=True)
class PersistStalled:
    """The oldest write has been under way longer than ``RaftSettings.stall``: step down."""


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A connection to a replica is up: resend from what it is known to have."""

    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The connection from a replica broke. From the leader it is a reason to look sooner."""

    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class SnapshotReady:
    """``state`` holds a verified snapshot through ``ref.index``; members may be sent it."""

    ref: SnapshotRef


@dataclass(frozen=True, slots=True)
class ChunkStored:
    """The receiver holds all chunks below ``next_chunk`` of the offered snapshot durably."""

    ref: SnapshotRef
    next_chunk: int


@dataclass(frozen=True, slots=True)
class SnapshotInstalled:
    """The offered snapshot is installed in ``state``: the log continues after it."""

    ref: SnapshotRef


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """The offered snapshot could not be received or installed; ask again later."""

    ref: SnapshotRef


@dataclass(frozen=True, slots=True)
class Trim:
    """Entries below ``before`` are no longer needed here."""

    before: LogIndex


@dataclass(frozen=True, slots=True)
class Stop:
    """Shut down in order: a leader hands over if it can."""


RaftEvent = (
    Wake
    | Receive
    | Propose
    | ProposeMembers
    | ProposeTransfer
    | AskTail
    | Persisted
    | PersistStalled
    | PeerConnected
    | PeerLost
    | SnapshotReady
    | ChunkStored
    | SnapshotInstalled
    | SnapshotFailed
    | Trim
    | Stop
)


# --- effects out of the core ---------------------------------------------------------------


class Persist(msgspec.Struct):
    """Write in this order, as one unit: hard state, snapshot mark, truncation, entries.

    ``truncate_from`` drops entries at and above it; ``reset_to`` (after a snapshot was
    installed) drops the whole log, which then continues after that (index, term). ``mark`` is
    an opaque record of the core (members, seal, admission): the newest durable one is handed
    back as :attr:`Recovered.mark`, and must outlive trimming.
    """

    ticket: int
    hard_state: HardState | None = None
    reset_to: tuple[LogIndex, Term] | None = None
    truncate_from: LogIndex | None = None
    entries: list[Entry] = msgspec.field(default_factory=list)
    mark: bytes | None = None


class Accepted(msgspec.Struct, frozen=True):
    """The proposal has this place in the leader's log; it commits, or is refused, later."""

    ticket: int
    index: LogIndex
    term: Term


@dataclass(frozen=True, slots=True)
class Refused:
    """The request ends with this error (definite, or indefinite as the error says)."""

    ticket: int
    error: OutlastError


@dataclass(frozen=True, slots=True)
class Done:
    """The membership change or transfer with this ticket is complete."""

    ticket: int


@dataclass(frozen=True, slots=True)
class TailReady:
    """The read index: once applied through ``index``, a read is linearizable."""

    ticket: int
    index: LogIndex


@dataclass(frozen=True, slots=True)
class Overwritten:
    """Own proposals at and above ``index`` were replaced by another leader's (LostError)."""

    index: LogIndex


@dataclass(frozen=True, slots=True)
class SendChunks:
    """Send chunks ``first`` to ``last`` of ``ref`` to ``target`` on the bulk connection."""

    target: ReplicaId
    ref: SnapshotRef
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ReceiveSnapshot:
    """Begin, or go on, receiving ``ref`` from ``sender``; answer with ChunkStored."""

    sender: ReplicaId
    ref: SnapshotRef


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """All chunks are here: verify and install; answer SnapshotInstalled or SnapshotFailed."""

    ref: SnapshotRef


Answer = Accepted | Refused | Done | TailReady | Overwritten
Transfer = SendChunks | ReceiveSnapshot | InstallSnapshot


class Effects(msgspec.Struct):
    """What the driver has to do. Empty fields mean nothing to do.

    ``committed`` is the new commit index, or ``None`` if it did not move: the driver delivers
    entries up to it in order. ``role`` and ``leader`` are set when they changed.
    """

    persist: Persist | None = None
    send_now: list[tuple[ReplicaId, AnyMessage]] = msgspec.field(default_factory=list)
    send_after_durable: list[tuple[ReplicaId, AnyMessage]] = msgspec.field(default_factory=list)
    committed: LogIndex | None = None
    answers: list[Answer] = msgspec.field(default_factory=list)
    transfers: list[Transfer] = msgspec.field(default_factory=list)
    authority_changed: bool = False
    membership: Membership | None = None
    sealed: tuple[LogIndex, bytes] | None = None
    wake_ns: int | None = None
    events: list[KernelEvent] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the driver found on disk, handed to the core at construction.

    ``entries`` are those after ``base_index``. For a long log, give ``last_index`` and
    ``last_term`` and only some of the entries, in order: all of kind CONFIG and SEAL, and any
    unbroken run that ends at ``last_index``; the core reads the others through its LogView.

    ``mark`` is the newest durable :attr:`Persist.mark`. ``may_vote`` is false on a node whose
    directory was empty or had lost its vote: it takes no part in elections and acknowledges
    nothing until it is admitted as a new incarnation (which ``mark`` then records).
    """

    hard_state: HardState
    base_index: LogIndex
    base_term: Term
    membership: Membership
    entries: list[Entry]
    commit: LogIndex
    snapshot: SnapshotRef | None
    sealed: tuple[LogIndex, bytes] | None = None
    may_vote: bool = True
    mark: bytes | None = None
    last_index: LogIndex | None = None
    last_term: Term | None = None
