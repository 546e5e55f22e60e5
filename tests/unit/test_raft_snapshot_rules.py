"""Snapshots to members that are too far behind (Raft paper 7; chunks and resume are ours)."""

from outlast.kernel import LogIndex, Term
from outlast.log.api import Member, SnapshotRef
from outlast.log.engines.raft.core.config import decode_mark
from outlast.log.engines.raft.core.progress import Flow
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import (
    EntryKind,
    InstallSnapshot,
    Role,
    SendChunks,
    SnapshotFailed,
    SnapshotOffer,
    Trim,
)
from tests.support.raft_sim import Cluster, ids, members_of

A, B, C, D, E = ids(5)


def behind(chunks: int = 20, count: int = 3) -> Cluster:
    """C missed 30 entries that A and B have in a snapshot and trimmed."""
    cluster = Cluster(ids(count))
    cluster.elect(A)
    cluster.settle()
    cluster.isolate(C)
    for i in range(30):
        cluster.commit_one(A, str(i).encode())
    cluster.settle()
    for replica in cluster.up():
        if replica != C:
            cluster.take_snapshot(replica, chunks=chunks)
    cluster.heal()
    return cluster


def test_7_a_member_whose_entries_were_trimmed_gets_a_snapshot() -> None:
    cluster = behind()
    cluster.commit_one(A, b"after")
    cluster.run(1)
    assert cluster.hosts[C].snapshot is not None
    assert cluster.node(C).commit == cluster.node(A).commit
    assert cluster.payloads(C) == [b"after"]
    assert cluster.node(A).state.progress[C].flow is Flow.REPLICATE


def test_7_chunks_are_sent_a_window_at_a_time() -> None:
    cluster = behind(chunks=50)
    windows: list[SendChunks] = []
    cluster.on_effects = lambda r, ev, ef: windows.extend(
        t for t in ef.transfers if isinstance(t, SendChunks)
    )
    cluster.run(1)
    assert sum(t.last - t.first + 1 for t in windows) == 50  # each chunk once
    assert max(t.last - t.first + 1 for t in windows) <= 8
    assert [n for _, _, n in cluster.chunk_log] == list(range(50))


def test_7_a_new_leader_resumes_at_the_receivers_chunk() -> None:
    cluster = behind(chunks=60)
    assert cluster.run(1, until=lambda: len(cluster.chunk_log) >= 25)
    cluster.crash(A)
    cluster.lose_connection(B, A)
    cluster.lose_connection(C, A)
    assert cluster.run(3, until=lambda: cluster.node(C).commit >= 30)
    assert [n for _, _, n in cluster.chunk_log] == list(range(60))
    assert {s for s, _, _ in cluster.chunk_log} == {A, B}


def test_7_a_receiver_that_restarts_resumes_at_its_chunk() -> None:
    cluster = behind(chunks=60)
    assert cluster.run(1, until=lambda: len(cluster.chunk_log) >= 25)
    cluster.crash(C)
    cluster.run(0.05)
    cluster.start(C)
    cluster.connect(A, C)
    assert cluster.run(3, until=lambda: cluster.node(C).commit >= 30)
    assert [n for _, _, n in cluster.chunk_log] == list(range(60))


def test_7_a_broken_bulk_connection_is_offered_again() -> None:
    cluster = behind(chunks=60)
    assert cluster.run(1, until=lambda: len(cluster.chunk_log) >= 10)
    cluster.cut([A], [C], both=False)
    cluster.run(0.1)
    cluster.heal()
    assert cluster.run(3, until=lambda: cluster.node(C).commit >= 30)


def test_7_an_offer_of_what_the_log_has_is_declined_as_done() -> None:
    cluster = Cluster(ids(3))
    cluster.elect(A)
    index = cluster.commit_one(A)
    cluster.run(0.1)
    effects = cluster.step(
        B, _receive(A, SnapshotOffer(1, index, 1, 9, b"d", 9, _config(cluster)))
    )
    [(_, want)] = effects.send_now
    assert want.done  # type: ignore[union-attr]
    assert not effects.transfers


def test_7_a_snapshot_is_installed_only_once_its_members_are_durable() -> None:
    cluster = behind(chunks=5)
    installs: list[InstallSnapshot] = []
    cluster.on_effects = lambda r, ev, ef: installs.extend(
        t for t in ef.transfers if isinstance(t, InstallSnapshot)
    )
    assert cluster.run(1, until=lambda: len(cluster.chunk_log) == 4)
    cluster.hosts[C].slow_disk = True
    cluster.run(0.1)
    assert len(cluster.chunk_log) == 5
    assert not installs
    cluster.resume_disk(C)
    assert len(installs) == 1


def test_7_a_crash_between_install_and_reset_is_completed_at_recovery() -> None:
    cluster = behind(chunks=5)
    host = cluster.hosts[C]
    assert cluster.run(1, until=lambda: host.snapshot is not None)
    host.pending.clear()
    cluster.crash(C)  # installed in the state, the log not yet reset
    assert host.durable.base == (0, 0)
    cluster.start(C)
    assert host.snapshot is not None
    assert cluster.node(C).commit == host.snapshot.index
    cluster.run(1)
    assert cluster.node(C).commit == cluster.node(A).commit


def test_7_a_failed_install_is_tried_again() -> None:
    cluster = behind(chunks=5)
    host = cluster.hosts[C]
    assert cluster.run(1, until=lambda: len(cluster.chunk_log) >= 2)
    ref = cluster.node(C).state.snapshots.receiving
    assert ref is not None
    host.chunks.clear()
    cluster.step(C, SnapshotFailed(ref))
    assert cluster.run(3, until=lambda: cluster.node(C).commit >= 30)


def test_7_a_snapshot_carries_members_and_seal() -> None:
    cluster = Cluster(ids(3))
    cluster.elect(A)
    cluster.settle()
    cluster.isolate(C)
    ticket = cluster.change(A, [*members_of([A, B, C]), Member(D, "d:1", False)])
    assert cluster.run(1, until=lambda: cluster.done(ticket))
    cluster.propose(A, b"next", kind=EntryKind.SEAL)
    cluster.run(0.05)
    for replica in (A, B):
        cluster.take_snapshot(replica)
    cluster.heal()
    assert cluster.run(2, until=lambda: cluster.node(C).sealed is not None)
    assert cluster.node(C).membership == cluster.node(A).membership
    assert cluster.node(C).sealed == cluster.node(A).sealed
    cluster.settle()
    cluster.crash(C)
    cluster.start(C)
    assert cluster.node(C).membership == cluster.node(A).membership
    assert cluster.node(C).sealed == cluster.node(A).sealed


def test_7_a_joining_replica_is_admitted_by_a_snapshot() -> None:
    cluster = behind()
    cluster.add_host(D, may_vote=False)
    ticket = cluster.change(A, members_of([A, B, C, D]))
    cluster.run(0.01)
    assert cluster.node(A).state.progress[D].flow is Flow.SNAPSHOT
    assert cluster.run(3, until=lambda: cluster.done(ticket))
    cluster.run(0.1)
    assert cluster.node(D).role is Role.FOLLOWER


def test_progress_shows_how_much_of_a_snapshot_arrived() -> None:
    cluster = behind(chunks=50)
    assert cluster.run(1, until=lambda: len(cluster.chunk_log) == 25)
    cluster.run(0.002)
    [item] = [p for p in cluster.node(A).progress() if p.replica == C]
    assert item.snapshot_percent is not None
    assert 40 <= item.snapshot_percent <= 60
    assert cluster.node(A).hold_index == 32


def test_trim_goes_no_further_than_what_is_committed_and_in_a_snapshot() -> None:
    cluster = Cluster(ids(3))
    cluster.elect(A)
    cluster.commit_one(A)
    cluster.step(A, Trim(LogIndex(99)))
    assert cluster.node(A).state.log.base_index == 0
    cluster.take_snapshot(A)
    assert cluster.node(A).state.log.base_index == 2


def test_the_mark_keeps_members_that_the_trimmed_log_held() -> None:
    cluster = Cluster(ids(3))
    cluster.elect(A)
    ticket = cluster.change(A, members_of([A, B]))
    assert cluster.run(1, until=lambda: cluster.done(ticket))
    cluster.take_snapshot(A)
    cluster.settle()
    mark = cluster.hosts[A].durable.mark
    assert mark is not None
    assert decode_mark(mark).configs[-1][1].version == 3
    cluster.crash(A)
    cluster.start(A)
    assert cluster.node(A).state.config.voters == (A, B)


def test_a_source_that_lost_its_snapshot_offers_the_newest() -> None:
    cluster = behind(chunks=50)
    assert cluster.run(1, until=lambda: len(cluster.chunk_log) == 10)
    ref = cluster.node(A).state.progress[C].snapshot
    assert ref is not None
    cluster.commit_one(A)
    cluster.take_snapshot(A, chunks=30)
    cluster.step(A, SnapshotFailed(ref))
    assert cluster.run(5, until=lambda: cluster.node(C).commit == cluster.node(A).commit)
    newest = cluster.hosts[C].snapshot
    assert isinstance(newest, SnapshotRef)
    assert newest.index == ref.index + 1
    assert newest.term == Term(1)
    assert RaftSettings().chunk_window == 8


def _receive(sender: str, message: SnapshotOffer) -> object:
    from outlast.log.engines.raft.core.types import Receive

    return Receive(sender, message)  # type: ignore[arg-type]


def _config(cluster: Cluster) -> bytes:
    from outlast.log.engines.raft.core.config import encode_config

    return encode_config(cluster.node(A).state.config)
