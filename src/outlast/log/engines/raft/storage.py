"""The Raft log on disk: what the core persists becomes runs of the WAL, and back.

Beside the WAL lies a small file with what the core must not forget when the log is trimmed
(``mark``).

The newest entries stay in memory as the core made them. They are what followers and readers
ask for, and the only copy while the disk is full.
"""

from outlast.kernel import LogIndex, ReplicaId, Storage, Term, World, invariant
from outlast.log.api import Membership, SnapshotRef
from outlast.log.core.hold import Sizes
from outlast.log.engines.raft.core.types import Entry, EntryKind, HardState, Persist, Recovered
from outlast.log.engines.raft.mark import NAME as MARK
from outlast.log.engines.raft.mark import MarkFile
from outlast.log.wal import Run, RunKind, Wal, WalIdentity, WalSettings, has_log

_CACHE_BYTES_MAX = 32 << 20
_RECOVER_BYTES = 4 << 20
_ENTRY_OVERHEAD_BYTES = 64
_PIECE_BYTES_MAX = 2 << 20
_OWN_KINDS = (EntryKind.CONFIG, EntryKind.SEAL)
_WAL = "wal"


def holds_replica(storage: Storage, directory: str) -> bool:
    """Return whether ``directory`` still has both parts of a replica that ran there.

    Without its WAL it has forgotten its votes and what it acknowledged, without its mark who
    the members are: opened again as the same replica it could break promises it has made.
    """
    return storage.exists(f"{directory}/{MARK}") and has_log(storage, f"{directory}/{_WAL}")


class RaftStore:
    """The log of one replica as the core sees it (``LogView``), over a WAL.

    The view runs ahead of the disk: it includes what was handed to the WAL but is not yet
    durable, as the core itself does.
    """

    def __init__(self, wal: Wal, mark: MarkFile) -> None:
        self.wal = wal
        self.mark = mark
        self.base_index, self.base_term = wal.base
        self.last = wal.last[0]
        self.sizes = Sizes(self.base_index)
        self._tail: list[Entry] = []
        self._tail_first = self.last + 1
        self._tail_bytes = 0
        self._durable = self.last
        self._piece_bytes = min(_PIECE_BYTES_MAX, wal.append_bytes_max // 2)

    @classmethod
    async def open(
        cls,
        world: World,
        directory: str,
        identity: WalIdentity,
        settings: WalSettings,
        *,
        bootstrap: Membership,
        lane: str,
    ) -> "RaftStore":
        """Open the log in ``directory``, or begin one whose members are ``bootstrap``.

        Raises:
            CorruptionError: Something acknowledged is damaged; names file and offset.
            DataError: Definite. It belongs to another cluster or replica, or is newer.
        """
        await world.offload.run(lane, lambda: world.storage.makedirs(directory))
        mark = MarkFile(world, directory)
        if not await mark.load():
            # Before the WAL exists, so that a log never lacks its first members.
            await mark.begin(bootstrap)
        return cls(
            await Wal.open(world, f"{directory}/{_WAL}", identity, settings, lane=lane), mark
        )

    def recovered(self, snapshot: SnapshotRef | None, *, may_vote: bool) -> Recovered:
        """Return what the core starts from. Commit starts at the base: a leader knows more.

        Of a long log only the engine's own entries and the newest part are handed over.

        Raises:
            CorruptionError: An entry is damaged on disk.
        """
        term, vote = self.wal.hard_state
        own, tail = self._scan()
        self._tail, self._tail_first = tail, tail[0].index if tail else self.last + 1
        self._tail_bytes = sum(_size(entry) for entry in tail)
        return Recovered(
            hard_state=HardState(Term(term), None if vote is None else ReplicaId(vote)),
            base_index=LogIndex(self.base_index),
            base_term=Term(self.base_term),
            membership=self.mark.bootstrap or Membership(0, ()),
            entries=[*own, *tail],
            commit=LogIndex(self.base_index),
            snapshot=snapshot,
            may_vote=may_vote,
            mark=self.mark.mark,
            last_index=LogIndex(self.last),
            last_term=Term(self.wal.last[1]),
        )

    def _scan(self) -> tuple[list[Entry], list[Entry]]:
        """Return CONFIG and SEAL entries, and the unbroken rest that fits in memory."""
        own: list[Entry] = []
        tail: list[Entry] = []
        index, size = self.base_index + 1, 0
        while index <= self.last:
            found = [Entry(*one) for one in self.wal.entries(index, self.last, _RECOVER_BYTES)]
            invariant(found, f"the WAL ends at {self.last} but does not give entry {index}")
            index = found[-1].index + 1
            found_bytes = sum(_size(entry) for entry in found)
            if size + found_bytes > _CACHE_BYTES_MAX:
                own.extend(entry for entry in tail if entry.kind in _OWN_KINDS)
                tail, size = [], 0
            tail.extend(found)
            size += found_bytes
        return own, tail

    # --- the core's view -------------------------------------------------------------------

    @property
    def first(self) -> LogIndex:
        """First index that is still here; the next index if there is none."""
        return LogIndex(self.base_index + 1)

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at ``index``; ``None`` if it is not here."""
        offset = index - self._tail_first
        if offset >= 0:
            return self._tail[offset].term if offset < len(self._tail) else None
        if index == self.base_index:
            return self.base_term
        return self.wal.term_at(index) if index > self.base_index else None

    def entries(self, first: int, last: int, bytes_max: int) -> list[Entry]:
        """Return entries ``first`` to at most ``last``: one at least, ``bytes_max`` at most.

        Raises:
            CorruptionError: They are damaged on disk.
        """
        last = min(last, self.last)
        offset = first - self._tail_first
        if offset < 0:
            last = min(last, self._tail_first - 1)
            return [Entry(*found) for found in self.wal.entries(first, last, bytes_max)]
        part = self._tail[offset : last - self._tail_first + 1]
        size = 0
        for count, entry in enumerate(part):
            size += len(entry.payload)
            if size > bytes_max and count:
                return part[:count]
        return part

    # --- changes ---------------------------------------------------------------------------

    def apply(self, persist: Persist) -> list[tuple[int, list[Run]]]:
        """Change the view as ``persist`` says and return the runs that make it durable.

        They come in pieces that the WAL takes at once, nearly always one; with each the index
        of the last entry that it brings.
        """
        runs = []
        if persist.hard_state is not None:
            runs.append(_hard_state_run(persist.hard_state))
        if persist.reset_to is not None:
            runs.append(self._reset(*persist.reset_to))
        if persist.truncate_from is not None:
            runs.append(self._truncate(persist.truncate_from))
        entries = persist.entries
        if not entries:
            return [(self.last, runs)]
        invariant(
            entries[0].index == self.last + 1,
            f"entries begin at {entries[0].index}, the log ends at {self.last}",
        )
        self._tail.extend(entries)
        self.last = entries[-1].index
        pieces = []
        for part, size in self._cut(entries):
            kinds = bytes([entry.kind for entry in part])
            payloads = [entry.payload for entry in part]
            run = Run(RunKind.ENTRIES, part[0].index, part[0].term, payloads)
            if kinds.strip(b"\0"):
                run.kinds = kinds
            self._tail_bytes += size
            self.sizes.add(part[-1].index, size)
            runs.append(run)
            pieces.append((part[-1].index, runs))
            runs = []
        return pieces

    def _cut(self, entries: list[Entry]) -> list[tuple[list[Entry], int]]:
        """Cut into parts of one term and bounded size; with each part its size."""
        sizes = [len(entry.payload) + _ENTRY_OVERHEAD_BYTES for entry in entries]
        total = sum(sizes)
        if total <= self._piece_bytes and entries[0].term == entries[-1].term:
            return [(entries, total)]
        parts = []
        start = size = 0
        for place, entry in enumerate(entries):
            full = size + sizes[place] > self._piece_bytes
            if place > start and (full or entry.term != entries[start].term):
                parts.append((entries[start:place], size))
                start, size = place, 0
            size += sizes[place]
        parts.append((entries[start:], size))
        return parts

    def mark_durable(self, last: int) -> None:
        """Everything through ``last`` is on disk: older entries may leave memory."""
        self._durable = max(self._durable, min(last, self.last))
        if self._tail_bytes > _CACHE_BYTES_MAX:
            self._evict()

    def _reset(self, index: int, term: int) -> Run:
        self.base_index, self.base_term = index, term
        self.last = self._durable = index
        self.sizes = Sizes(index)
        self._tail = []
        self._tail_first = index + 1
        self._tail_bytes = 0
        return Run(RunKind.RESET, index, term, [])

    def _truncate(self, index: int) -> Run:
        invariant(index > self.base_index, f"truncation at {index}, base is {self.base_index}")
        offset = index - self._tail_first
        if offset <= 0:
            self._tail = []
            self._tail_first = index
            self._tail_bytes = 0
        else:
            self._tail_bytes -= sum(_size(entry) for entry in self._tail[offset:])
            del self._tail[offset:]
        self.last = index - 1
        self._durable = min(self._durable, self.last)
        return Run(RunKind.TRUNCATE, index, 0, [])

    def _evict(self) -> None:
        keep_bytes = _CACHE_BYTES_MAX // 2
        count = 0
        for entry in self._tail:
            if self._tail_bytes <= keep_bytes or entry.index > self._durable:
                break
            self._tail_bytes -= _size(entry)
            count += 1
        del self._tail[:count]
        self._tail_first += count

    def trim(self, before: int) -> LogIndex:
        """Drop whole segments below ``before``; return the first index still here."""
        first = self.wal.trim(before)
        if first - 1 > self.base_index:
            self.base_index, self.base_term = self.wal.base
            self.sizes.trim(first)
        return self.first


def _size(entry: Entry) -> int:
    return len(entry.payload) + _ENTRY_OVERHEAD_BYTES


def _hard_state_run(state: HardState) -> Run:
    vote = b"" if state.vote is None else state.vote.encode()
    return Run(RunKind.HARD_STATE, 0, state.term, [vote])
