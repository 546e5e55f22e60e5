"""The Log: one durable, totally ordered sequence of entries, and what every engine promises.

Everything stateful in outlast reads one log (Schneider 1990; the shared log of Delos, OSDI
2020). The *entry*, one ``bytes``, is the unit of index, size and atomicity. Callers that have
many small commands pack them into one entry; engines put many entries into one fsync.

Promises, each checked by ``outlast.testing.log_suite``:

1. *Durable on return.* An entry whose ``append`` returned is readable at its index for ever,
   through crashes and reopening, until it is trimmed.
2. *Total order.* Every reader on every replica sees the same entry at the same index.
   Indices grow; they may skip. ``Batch.through`` moves a reader over what was skipped.
3. *Whole.* An entry is there entirely or not at all.
4. *Tail is a linearization point.* ``tail`` is above every entry whose append had returned
   before ``tail`` was called, on any replica.
5. *Seal is final.* After a seal no append succeeds; the first ``next`` wins; ``seal`` is
   idempotent, and all callers are told the same ``(tail, next)``, also after reopening.
6. *Trim respects holds.* An entry at or above the lowest hold is never dropped.
7. *Honest endings.* A definite error means that the entry is not and will never be in the log.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from outlast.kernel import Deadline, LogIndex, ReplicaId, Term


class FailureModel(Enum):
    """Which failures of members an engine masks."""

    FAIL_STOP = "fail-stop"
    FAIL_RECOVERY = "fail-recovery"
    BYZANTINE = "byzantine"


@dataclass(frozen=True, slots=True)
class LogTraits:
    """What an engine is; a layer refuses an engine that lacks what it needs.

    Args:
        engine: Its name, such as ``raft``.
        failure_model: Which failures it masks.
        durable: Whether entries survive a power cut of all members.
        shared: Whether one copy serves several replicas (``etcd``) or each has its own.
        entry_bytes_max: Largest entry that ``append`` takes.
        reply_quorum: How many equal replies a client must see; 1 for crash engines.
        lease_reads: Whether ``tail`` may be answered under a lease instead of a round.
    """

    engine: str
    failure_model: FailureModel
    durable: bool
    shared: bool
    entry_bytes_max: int
    reply_quorum: int = 1
    lease_reads: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive committed entries: entry ``i`` of ``entries`` has index ``first + i``.

    The reader's position after the batch is ``through + 1``. Indices from the last entry to
    ``through`` hold nothing for readers (engines use some for themselves), so ``entries`` may
    be empty.
    """

    first: LogIndex
    entries: Sequence[bytes]
    through: LogIndex


@dataclass(frozen=True, slots=True)
class Hold:
    """A named reader that delays ``trim``: nothing at or above ``index`` is dropped.

    ``bytes_max`` bounds what it may keep; a hold that is passed by it is *released* (with a
    ``HoldReleased`` event), and its reader gets ``TrimmedError``.
    """

    name: str
    index: LogIndex
    bytes_max: int


class Log(Protocol):
    """A durable, totally ordered log. Driven from one event loop; not thread-safe."""

    @property
    def traits(self) -> LogTraits:
        """What this engine is."""
        ...

    @property
    def first(self) -> LogIndex:
        """First index that is still readable here; the next index if there is none."""
        ...

    async def append(self, entry: bytes, *, deadline: Deadline) -> LogIndex:
        """Append ``entry`` and return its index once it is committed.

        Raises:
            ConfigError: Definite. Larger than ``traits.entry_bytes_max``, or empty.
            RejectedError: Definite. The byte queue or the disk is full (``DiskFullError``);
                ``retry_after`` says when to come back.
            ElsewhereError: Definite. Another replica takes appends; ``hint`` names it.
            SealedError: Definite. The log is sealed; ``next`` is the seal's.
            LostError: Definite. Known to have been overwritten.
            TooLateError: Definite. The deadline had passed before anything was done.
            DeadlineError: Indefinite. It may be committed now or later.
            LogFailedError: Indefinite. Storage failed while it was under way.

        Cancellation is like ``DeadlineError``: what was handed on is not recalled.
        """
        ...

    async def tail(self, *, deadline: Deadline) -> LogIndex:
        """Return the index after the last committed entry: the point that reads wait for.

        Callers share one round, which starts after they called (Raft: ReadIndex).

        Raises:
            ElsewhereError: Definite. Another replica must be asked.
            UnavailableError: Definite. No majority answers.
            DeadlineError: Nothing was changed.
        """
        ...

    def read(self, start: LogIndex) -> AsyncIterator[Batch]:
        """Yield committed entries from ``start`` on, for ever; waits at the tail.

        Works on any replica. Ends only with the log: a sealed log ends after its last entry.

        Raises:
            TrimmedError: Definite. ``start`` is below ``first``; ``error.first`` is readable.
            CorruptionError: The entries are damaged on this replica.
        """
        ...

    async def trim(self, before: LogIndex) -> LogIndex:
        """Permit dropping entries below ``before`` and return the new ``first``.

        A permission: the caller holds a verified snapshot through ``before - 1``. Engines
        drop what they can (whole segments), never past a hold or past what is committed.
        """
        ...

    def hold(self, hold: Hold) -> None:
        """Set or move the hold named ``hold.name``; it may only move forward.

        Raises:
            TrimmedError: Definite. The index is already trimmed.
        """
        ...

    def release(self, name: str) -> None:
        """Remove the hold ``name``; no error if there is none."""
        ...

    async def seal(self, next: bytes, *, deadline: Deadline) -> tuple[LogIndex, bytes]:
        """End this log for good and return ``(tail, next)`` of the seal that won.

        Idempotent: the first ``next`` wins, decided inside the engine; later callers get it
        too. Errors as in :meth:`append` (a seal is an entry).
        """
        ...

    async def close(self) -> None:
        """Stop, release files and sockets. Pending appends end as ``LogFailedError``."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a replicated engine. ``voter`` is false for a learner."""

    replica: ReplicaId
    address: str
    voter: bool = True
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Membership:
    """Members with the version that :meth:`Replicated.change_members` compares."""

    version: int
    members: tuple[Member, ...]
    joint: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a member is, as the leader sees it. ``match`` is the last index it has durably."""

    replica: ReplicaId
    match: LogIndex
    voter: bool
    reachable: bool
    snapshot_percent: int | None = None


@runtime_checkable
class Replicated(Protocol):
    """An engine with members of its own."""

    @property
    def membership(self) -> Membership:
        """The members in force (the new ones during a joint change)."""
        ...

    async def change_members(
        self, members: Sequence[Member], *, expect_version: int, deadline: Deadline
    ) -> Membership:
        """Change to ``members`` and return once the change is committed and final.

        Raises:
            ConfigError: Definite. No voter, duplicate ids, or the version is not current.
            ElsewhereError: Definite. Ask the leader.
            DeadlineError: Indefinite. Look at :attr:`membership`.
        """
        ...

    async def transfer(self, target: ReplicaId, *, deadline: Deadline) -> None:
        """Hand leadership to ``target``; returns once it leads or raises."""
        ...

    def progress(self) -> Sequence[Progress]:
        """How far each member is; empty on a replica that does not lead."""
        ...


@dataclass(frozen=True, slots=True)
class AuthorityChange:
    """Who may append now. ``holder`` is ``None`` while nobody is known."""

    term: Term
    holder: ReplicaId | None
    mine: bool


@runtime_checkable
class Authority(Protocol):
    """An engine in which one replica at a time takes appends."""

    @property
    def authority(self) -> AuthorityChange:
        """The latest change known here."""
        ...

    def authority_changes(self) -> AsyncIterator[AuthorityChange]:
        """Yield the current authority and then each change; slow readers see the latest only."""
        ...


@dataclass(frozen=True, slots=True)
class SnapshotRef:
    """A verified snapshot: state through ``index``, whose entry had ``term``."""

    index: LogIndex
    term: Term
    size_bytes: int
    digest: bytes
    chunk_count: int


class SnapshotSink(Protocol):
    """Receives a snapshot's chunks in order, and survives a restart of the sender or receiver."""

    @property
    def next_chunk(self) -> int:
        """Number of the first chunk not yet durably held, from 0."""
        ...

    async def write(self, number: int, chunk: bytes) -> None:
        """Keep chunk ``number``; it must be :attr:`next_chunk`. Durable on return.

        Raises:
            ProtocolError: Definite. Wrong number or digest; the chunk was not kept.
        """
        ...

    async def finish(self) -> SnapshotRef:
        """Verify the whole, publish it atomically, and return it."""
        ...

    async def abandon(self) -> None:
        """Forget what was received."""
        ...


class SnapshotStore(Protocol):
    """Snapshots of one replica, owned by ``state`` and given to the engine.

    The engine streams them to members that are too far behind and installs what it is sent.
    """

    def latest(self) -> SnapshotRef | None:
        """The newest verified snapshot, or ``None``."""
        ...

    def read_chunk(self, ref: SnapshotRef, number: int) -> bytes:
        """Return chunk ``number`` of ``ref`` (blocking; at most 1 MiB).

        Raises:
            CorruptionError: The chunk does not match its checksum.
            FileNotFoundError: ``ref`` is no longer kept.
        """
        ...

    def receive(self, ref: SnapshotRef) -> SnapshotSink:
        """Begin, or resume, receiving ``ref`` from another replica."""
        ...

    async def install(self, ref: SnapshotRef) -> None:
        """Replace this replica's state by the received snapshot ``ref``; returns when done."""
        ...
