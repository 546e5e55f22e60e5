"""Members that are too far behind get a snapshot, in chunks, resumed wherever they are.

The leader *offers* the newest snapshot when the entries that a member needs are trimmed. The
receiver answers with the first chunk that it lacks (*want*), and the leader keeps a window of
chunks under way on the bulk connection. Because the receiver says where to go on, a broken
connection, a restart of either side or a new leader that offers the same snapshot costs no
chunk that was already stored (paper 7; chunks and resume are ours).

Before a complete snapshot is installed a mark with its members is made durable: a crash between
installing the state and resetting the log is thus completed at recovery.
"""

from outlast.kernel import LogIndex, ReplicaId, Term
from outlast.log.api import SnapshotRef
from outlast.log.engines.raft.core.config import (
    Incoming,
    config_from,
    decode_config,
    encode_config,
    record_of,
)
from outlast.log.engines.raft.core.events import SnapshotOffered
from outlast.log.engines.raft.core.progress import Flow, PeerProgress
from outlast.log.engines.raft.core.state import State
from outlast.log.engines.raft.core.types import (
    ChunkStored,
    InstallSnapshot,
    ReceiveSnapshot,
    Role,
    SendChunks,
    SnapshotFailed,
    SnapshotInstalled,
    SnapshotOffer,
    SnapshotReady,
    SnapshotWant,
    Trim,
)


class Snapshots:
    """Rules about offering, sending, receiving and installing snapshots."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.receiving: SnapshotRef | None = None
        self.sender: ReplicaId | None = None
        self.offered: SnapshotOffer | None = None
        self.next_chunk = 0
        self.install_after: int | None = None  # ticket of the mark that must be durable first
        self.installing = False

    # --- own snapshots -------------------------------------------------------------------

    def ready(self, event: SnapshotReady) -> None:
        """A newer snapshot of our own state may be offered."""
        s = self.state
        if s.snapshot is None or event.ref.index >= s.snapshot.index:
            s.snapshot = event.ref

    def trim(self, event: Trim) -> None:
        """Let entries below ``before`` go, as far as they are committed and in a snapshot."""
        s = self.state
        covered = s.snapshot.index if s.snapshot is not None else 0
        before = min(event.before, s.commit + 1, covered + 1)
        s.log.trim(before)
        keep = max((at for at, _ in s.configs if at < before), default=0)
        s.configs = [item for item in s.configs if item[0] >= keep]
        s.mark()

    def hold_index(self) -> int | None:
        """Return the lowest index that a snapshot under way makes worth keeping."""
        refs = [p.snapshot.index for p in self.state.progress.values() if p.snapshot is not None]
        return min(refs) + 1 if refs else None

    # --- leader --------------------------------------------------------------------------

    def offer(self, peer: PeerProgress) -> None:
        """Offer the newest snapshot to a member whose next entry is gone."""
        s = self.state
        ref = s.snapshot
        if ref is None or ref.index < peer.match:
            return  # nothing to offer yet; SnapshotReady will come before the next Trim
        peer.offer(ref, s.now)
        s.emit(SnapshotOffered(node=s.me, replica=peer.replica, index=ref.index))
        self._send_offer(peer)

    def _send_offer(self, peer: PeerProgress) -> None:
        s = self.state
        ref = peer.snapshot
        if ref is None:
            return
        peer.offered_ns = s.now
        seal_index, seal_next = s.sealed or (0, b"")
        if seal_index > ref.index:
            seal_index, seal_next = 0, b""
        s.send(
            peer.replica,
            SnapshotOffer(
                s.term, ref.index, ref.term, ref.size_bytes, ref.digest, ref.chunk_count,
                encode_config(s.config_at(ref.index)), seal_index, seal_next,
            ),
        )  # fmt: skip

    def remind(self, peer: PeerProgress) -> None:
        """Offer again to a member that has not asked for one election timeout."""
        s = self.state
        if peer.flow is Flow.SNAPSHOT and s.now - peer.offered_ns >= s.timeout_ns:
            peer.chunks_sent = 0
            self._send_offer(peer)

    def on_peer_connected(self, peer: PeerProgress) -> None:
        """What was under way on the old connection is lost: offer again."""
        if peer.flow is Flow.SNAPSHOT:
            peer.chunks_sent = 0
            self._send_offer(peer)

    def on_want(self, sender: ReplicaId, want: SnapshotWant) -> None:
        """Send the chunks that a member lacks, at most a window ahead of what it has."""
        s = self.state
        peer = s.progress.get(sender)
        if s.role is not Role.LEADER or peer is None:
            return
        peer.heard_ns = s.now
        peer.reachable = True
        ref = peer.snapshot
        if peer.flow is not Flow.SNAPSHOT or ref is None:
            return
        if want.index != ref.index or want.digest != ref.digest:
            return
        if want.done:
            peer.probe(ref.index + 1)
            return
        if want.refused:
            return  # ``remind`` comes back to it
        peer.offered_ns = s.now
        peer.next_chunk = max(peer.next_chunk, want.next_chunk)
        first = max(peer.chunks_sent, want.next_chunk)
        last = min(want.next_chunk + s.settings.chunk_window, ref.chunk_count) - 1
        if first <= last:
            peer.chunks_sent = last + 1
            s.out.transfers.append(SendChunks(sender, ref, first, last))

    def _source_failed(self, ref: SnapshotRef) -> None:
        """``ref`` cannot be read here any more: offer the newest one instead."""
        s = self.state
        if s.snapshot == ref:
            s.snapshot = None
        for peer in s.progress.values():
            if peer.snapshot == ref:
                peer.probe(peer.match + 1)

    # --- receiver ------------------------------------------------------------------------

    def on_offer(self, sender: ReplicaId, offer: SnapshotOffer) -> None:
        """Begin or go on receiving, unless the log already holds what is offered."""
        s = self.state
        s.election.hear(sender)
        if self._has(offer):
            self._want(sender, offer, done=True)
            return
        if self.installing or self.install_after is not None:
            self.sender = sender
            return
        ref = SnapshotRef(
            LogIndex(offer.index), Term(offer.index_term), offer.size_bytes, offer.digest,
            offer.chunk_count,
        )  # fmt: skip
        last = self.offered
        if last is not None and last.term == offer.term and ref.index < last.index:
            return  # late: this leader has offered a newer one since
        if ref == self.receiving and sender == self.sender:
            self._want(sender, offer)
            return
        if ref != self.receiving:
            self.next_chunk = 0
        self.receiving, self.sender, self.offered = ref, sender, offer
        s.out.transfers.append(ReceiveSnapshot(sender, ref))

    def _has(self, offer: SnapshotOffer) -> bool:
        s = self.state
        if offer.index <= s.commit:
            return True
        if s.log.term_at(offer.index) != offer.index_term:
            return False
        s.replication.verified = max(s.replication.verified, offer.index)
        s.replication.commit_to(offer.index)
        return True

    def _want(
        self, target: ReplicaId, offer: SnapshotOffer, *, done: bool = False, refused: bool = False
    ) -> None:
        s = self.state
        s.send(
            target,
            SnapshotWant(s.term, offer.index, offer.digest, self.next_chunk, done, refused),
        )

    def on_stored(self, event: ChunkStored) -> None:
        """Chunks are durable here: ask for more, or prepare to install."""
        s = self.state
        offer = self.offered
        if event.ref != self.receiving or offer is None or self.installing:
            return
        self.next_chunk = event.next_chunk
        if event.next_chunk < event.ref.chunk_count:
            if s.leader is not None:
                self._want(s.leader, offer)
            return
        if self.install_after is None:
            s.incoming = Incoming(
                offer.index,
                offer.index_term,
                record_of(decode_config(offer.membership)),
                offer.seal_index,
                offer.seal_next,
            )
            s.mark()
            self.install_after = s.ticket

    def on_durable(self) -> None:
        """Install once the mark about it is durable."""
        s = self.state
        if self.install_after is None or self.install_after > s.durable_ticket:
            return
        self.install_after = None
        if self.receiving is not None:
            self.installing = True
            s.out.transfers.append(InstallSnapshot(self.receiving))

    def on_installed(self, event: SnapshotInstalled) -> None:
        """The state is the snapshot's: the log goes on after it."""
        s = self.state
        if event.ref != self.receiving:
            return
        offer, target = self.offered, s.leader
        self._forget()
        s.snapshot = event.ref
        if s.incoming is not None and event.ref.index > s.commit:
            self.adopt(s.incoming)
        if offer is not None and target is not None:
            reply = SnapshotWant(s.term, offer.index, offer.digest, offer.chunk_count, True, False)
            s.out.send_after_durable.append((target, reply))

    def adopt(self, incoming: Incoming) -> None:
        """Continue after the installed snapshot; keep the log if it already holds its end."""
        s = self.state
        index, term = incoming.index, incoming.term
        if s.log.term_at(index) != term:
            s.reset(index, term, config_from(incoming.config))
            s.commit = index
        elif index > s.commit:
            s.commit = index
        s.out.committed = LogIndex(s.commit)
        s.replication.verified = max(s.replication.verified, index)
        if incoming.seal_index and s.sealed is None:
            s.sealed = s.out.sealed = (LogIndex(incoming.seal_index), incoming.seal_next)
        s.seals = [] if s.sealed is not None else [seal for seal in s.seals if seal > index]
        s.incoming = None
        s.members.on_commit()

    def on_failed(self, event: SnapshotFailed) -> None:
        """Receiving, installing or (on a leader) reading ``ref`` failed: start over later."""
        s = self.state
        if s.role is Role.LEADER:
            self._source_failed(event.ref)
            return
        if event.ref != self.receiving:
            return
        offer = self.offered
        self._forget()
        s.incoming = None
        if offer is not None and s.leader is not None:
            self.next_chunk = 0
            self._want(s.leader, offer, refused=True)

    def _forget(self) -> None:
        self.receiving = self.sender = self.offered = None
        self.next_chunk = 0
        self.install_after = None
        self.installing = False
