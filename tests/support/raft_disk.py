"""A machine of the node-level Raft harness: what lies on its disk, durable or only written."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from outlast.kernel import NodeId, ReplicaId, Term, replica_id
from outlast.log.api import Member, Membership, SnapshotRef
from outlast.log.engines.raft.core.node import RaftNode
from outlast.log.engines.raft.core.types import AnyMessage, Entry, HardState, Persist


class BrokenError(AssertionError):
    """A promise of Raft does not hold."""


def ids(count: int) -> list[ReplicaId]:
    """Return ``n1#1``, ``n2#1``, …"""
    return [replica_id(NodeId(f"n{i + 1}"), 1) for i in range(count)]


def members_of(voters: Sequence[ReplicaId], learners: Sequence[ReplicaId] = ()) -> list[Member]:
    """Return voters and learners as members."""
    return [Member(r, f"{r}:1") for r in voters] + [Member(r, f"{r}:1", False) for r in learners]


@dataclass
class Image:
    """A log as it lies on disk."""

    hard: HardState = field(default_factory=lambda: HardState(Term(0), None))
    base: tuple[int, int] = (0, 0)
    entries: list[Entry] = field(default_factory=list)
    mark: bytes | None = None

    def apply(self, write: Persist) -> None:
        """Carry out one write."""
        if write.hard_state is not None:
            self.hard = write.hard_state
        if write.mark is not None:
            self.mark = write.mark
        if write.reset_to is not None:
            self.base, self.entries = write.reset_to, []
        if write.truncate_from is not None:
            del self.entries[max(0, write.truncate_from - self.base[0] - 1) :]
        new = [entry for entry in write.entries if entry.index > self.base[0]]
        if new:
            if new[0].index != self.last + 1:
                raise BrokenError(f"write of {new[0].index} does not follow {self.last}")
            self.entries += new

    def trim(self, before: int) -> None:
        """Drop entries below ``before``."""
        count = before - 1 - self.base[0]
        if count > 0:
            self.base = (before - 1, self.entries[count - 1].term)
            del self.entries[:count]

    def copy(self) -> "Image":
        """Return a copy that later writes do not touch."""
        return Image(self.hard, self.base, list(self.entries), self.mark)

    @property
    def last(self) -> int:
        """Index of the last entry."""
        return self.base[0] + len(self.entries)

    def term_at(self, index: int) -> int | None:
        """Return the term at ``index``."""
        if index == self.base[0]:
            return self.base[1]
        entry = self.get(index)
        return None if entry is None else entry.term

    def get(self, index: int) -> Entry | None:
        """Return the entry at ``index``."""
        at = index - self.base[0] - 1
        return self.entries[at] if 0 <= at < len(self.entries) else None


class View:
    """The LogView over what was written, durable or not."""

    def __init__(self, image: Image) -> None:
        self.image = image

    @property
    def first(self) -> int:
        return self.image.base[0] + 1

    def term_at(self, index: int) -> int | None:
        return self.image.term_at(index)

    def entries(self, first: int, last: int, bytes_max: int) -> list[Entry]:
        found: list[Entry] = []
        size = 0
        for index in range(first, last + 1):
            entry = self.image.get(index)
            if entry is None or (found and size + len(entry.payload) > bytes_max):
                break
            size += len(entry.payload)
            found.append(entry)
        return found


@dataclass(slots=True)
class Clock:
    """A host's monotonic clock: ``rate_ppm`` is 1,000,000 for one that runs true."""

    base_ns: int
    since_ns: int
    rate_ppm: int = 1_000_000

    def read(self, now_ns: int) -> int:
        """Return what it shows at ``now_ns``."""
        return self.base_ns + (now_ns - self.since_ns) * self.rate_ppm // 1_000_000

    def when(self, local_ns: int) -> int:
        """Return the first instant at which it shows ``local_ns`` or more."""
        return self.since_ns - (self.base_ns - local_ns) * 1_000_000 // self.rate_ppm

    def change(self, now_ns: int, *, rate_ppm: int = 0, jump_ns: int = 0) -> None:
        """Go on at another rate, or from ``jump_ns`` later; never backwards."""
        self.base_ns = self.read(now_ns) + jump_ns
        self.since_ns = now_ns
        self.rate_ppm = rate_ppm or self.rate_ppm


@dataclass
class Host:
    """One machine: its disk, and the node while it runs."""

    replica: ReplicaId
    genesis: Membership
    may_vote: bool = True
    durable: Image = field(default_factory=Image)
    written: Image = field(default_factory=Image)
    node: RaftNode | None = None
    pending: deque[Persist] = field(default_factory=deque)
    held: deque[tuple[int, ReplicaId, AnyMessage]] = field(default_factory=deque)
    snapshot: SnapshotRef | None = None
    chunks: dict[bytes, int] = field(default_factory=dict)
    life: int = 0
    wake_ns: int | None = None
    disk_free_ns: int = 0
    slow_disk: bool = False
    paused_until: int = 0
    clock: Clock | None = None
    commit_seen: int = 0
    term_seen: int = 0
    led_term: int = 0
    applied: int | None = None
    applied_seen: int = 0
    sealed_seen: bool = False
    ahead: int = 0
    """Index through which the state was executed when this life began."""

    def forget(self) -> None:
        """A new life begins: what the last one had reached no longer binds."""
        self.wake_ns = None
        self.commit_seen = self.term_seen = self.led_term = self.applied_seen = 0
        self.sealed_seen = False

    @property
    def alive(self) -> RaftNode:
        """The running node."""
        if self.node is None:
            raise BrokenError(f"{self.replica} is down")
        return self.node


@dataclass
class Net:
    """How badly the network behaves; probabilities in 1/1000."""

    delay_ms: tuple[int, int] = (1, 1)
    drop: int = 0
    repeat: int = 0
    cuts: dict[tuple[ReplicaId, ReplicaId], None] = field(default_factory=dict)
