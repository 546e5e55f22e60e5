"""What a simulated node has executed: our system machine with sessions, over a list.

The user's machine appends each command's argument to a list. So a history is judged without a
search: the list of the replica that got furthest is the order of all writes, every read is a
prefix of it, and a command that ran twice stands in it twice.
"""

import zlib
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgspec

from outlast.kernel import LogIndex, Term
from outlast.log.api import SnapshotRef
from outlast.log.engines.raft.core.types import Entry, EntryKind
from outlast.state.core.envelope import unpack_entry
from outlast.state.core.limits import Limits
from outlast.state.core.reply import OK
from outlast.state.core.system import Applied, SystemMachine
from tests.support.raft_disk import BrokenError

_encode = msgspec.msgpack.encode


class _Content(msgspec.Struct, array_like=True):
    """What a snapshot holds."""

    index: int
    sealed: int
    order: list[bytes]
    system: bytes


@dataclass
class Judge:
    """What the first replica to get somewhere computed there; all others must agree.

    ``watch=False`` compares nothing on the way: only outcomes are judged, at the end.
    """

    watch: bool = True
    digests: dict[int, bytes] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    terms: dict[int, int] = field(default_factory=dict)

    def on_applied(self, index: int, term: int, digest: bytes, who: str) -> None:
        """Equal entries give equal digests."""
        self.terms[index] = term
        if self.digests.setdefault(index, digest) != digest and self.watch:
            raise BrokenError(f"replicas differ: {who} computed something else at {index}")

    def on_saved(self, index: int, digest: bytes, who: str) -> None:
        """Equal states give equal bytes."""
        if self.bodies.setdefault(index, digest) != digest and self.watch:
            raise BrokenError(f"replicas differ: {who}'s snapshot at {index} has other bytes")


@dataclass(frozen=True, slots=True)
class Saved:
    """A snapshot as it lies on disk."""

    ref: SnapshotRef
    body: bytes

    def chunk(self, number: int) -> bytes:
        """Return one chunk."""
        size = -(-len(self.body) // self.ref.chunk_count)
        return self.body[number * size : (number + 1) * size]

    @property
    def whole(self) -> bool:
        """Whether the bytes are those that were written."""
        return digest_of(self.body) == self.ref.digest


def digest_of(body: bytes) -> bytes:
    """Return the digest by which a snapshot is known."""
    return blake2b(body, digest_size=16).digest()


class Replica:
    """The state of one life of a node."""

    def __init__(self, name: str, judge: Judge, limits: Limits) -> None:
        self.name = name
        self.judge = judge
        self.index = 0  # entries of every kind count
        self.sealed = 0
        self.order: list[bytes] = []
        self.executed: dict[bytes, int] = {}
        self.hash = 0
        self._changes: list[bytes] = []
        self.system = SystemMachine(self._execute, lambda *facts: facts, limits=limits)

    def _execute(self, name: str, args: bytes, context: Any) -> tuple[int, bytes]:
        """Append ``args``; answer with its place."""
        if args in self.executed and self.judge.watch:
            raise BrokenError(f"sessions apply once: {self.name} executed {args!r} again")
        place = len(self.order)
        self.executed[args] = place
        self.order.append(args)
        self.hash = zlib.crc32(args, self.hash)
        self._changes.append(args)
        return OK, _encode(place)

    def _take_changes(self) -> bytes:
        changes = b"|".join(self._changes)
        self._changes.clear()
        return changes

    def apply(self, entry: Entry) -> Applied | None:
        """Execute the entry after the last one; ``None`` if it holds nothing for the state."""
        index = entry.index
        if index != self.index + 1:
            raise BrokenError(f"{self.name} applied {self.index}, then {index}")
        self.index = index
        if entry.kind != EntryKind.NORMAL:
            if entry.kind == EntryKind.SEAL and not self.sealed:
                self.sealed = index
            return None
        if self.sealed:
            return None  # behind a seal: it has no effect
        header, body = unpack_entry(entry.payload, index)
        applied = self.system.apply(index, header, body, self._take_changes)
        self.judge.on_applied(index, entry.term, self.system.digest, self.name)
        return applied

    def save(self, term: int, chunks: int) -> Saved:
        """Return a snapshot of the state as it is."""
        body = _encode(_Content(self.index, self.sealed, self.order, self.system.dump()))
        digest = digest_of(body)
        self.judge.on_saved(self.index, digest, self.name)
        ref = SnapshotRef(LogIndex(self.index), Term(term), len(body), digest, chunks)
        return Saved(ref, body)

    def load(self, saved: Saved) -> None:
        """Take the state of a snapshot."""
        content = msgspec.msgpack.decode(saved.body, type=_Content)
        if content.index != saved.ref.index:
            raise BrokenError(
                f"{self.name}: the snapshot through {saved.ref.index} holds {content.index}"
            )
        self.index, self.sealed = content.index, content.sealed
        self.order = content.order
        self.executed = {args: place for place, args in enumerate(self.order)}
        self.hash = 0
        for args in self.order:
            self.hash = zlib.crc32(args, self.hash)
        self.system.load(content.system)

    def fingerprint(self) -> bytes:
        """Return what is equal on replicas with equal state."""
        body = _encode(_Content(self.index, self.sealed, self.order, self.system.dump()))
        return digest_of(body)
