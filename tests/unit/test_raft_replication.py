"""Replication and commitment, by the claims of the Raft paper (5.3, 5.4.2) and thesis (10.2)."""

from outlast.kernel import ConfigError, OverloadedError, SealedError
from outlast.log.engines.raft.core.progress import Flow
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import (
    AppendRequest,
    AppendResponse,
    Entry,
    EntryKind,
    Overwritten,
    Propose,
    Receive,
    Role,
)
from tests.support.raft_sim import Cluster, ids

A, B, C = ids(3)


def elected(settings: RaftSettings | None = None) -> Cluster:
    cluster = Cluster(ids(3), settings=settings)
    cluster.elect(A)
    cluster.settle()
    cluster.sent.clear()
    return cluster


def appends(cluster: Cluster, target: object = None) -> list[AppendRequest]:
    return [
        m
        for _, t, m in cluster.sent
        if isinstance(m, AppendRequest) and m.entries and target in (None, t)
    ]


def entry(index: int, term: int, payload: bytes = b"e") -> Entry:
    return Entry(index, term, EntryKind.NORMAL, payload)


def test_5_3_an_entry_is_committed_once_a_majority_has_it_durably() -> None:
    cluster = elected()
    cluster.hosts[B].slow_disk = cluster.hosts[C].slow_disk = True
    [ticket] = cluster.propose(A, b"x")
    cluster.settle()
    index = cluster.accepted(ticket).index
    assert cluster.node(A).commit == index - 1
    cluster.resume_disk(C)
    cluster.settle()
    assert cluster.node(A).commit == index


def test_5_3_a_leader_counts_itself_only_once_its_own_disk_has_the_entry() -> None:
    cluster = elected()
    cluster.isolate(C)
    cluster.hosts[A].slow_disk = True
    cluster.propose(A, b"x")
    cluster.settle()
    assert cluster.node(B).durable_index == 2
    assert cluster.node(A).commit == 1
    cluster.resume_disk(A)
    assert cluster.node(A).commit == 2


def test_5_3_followers_commit_without_the_leaders_disk() -> None:
    cluster = elected()
    cluster.hosts[A].slow_disk = True
    cluster.propose(A, b"x")
    cluster.settle()
    assert cluster.node(A).commit == 2
    assert cluster.node(A).durable_index == 1


def test_5_3_a_follower_acknowledges_nothing_beyond_what_is_durable() -> None:
    cluster = elected()
    cluster.hosts[B].slow_disk = True
    cluster.propose(A, b"x", b"y")
    cluster.run(0.3)  # heartbeats are answered all the time
    answers = [m for s, _, m in cluster.sent if s == B and isinstance(m, AppendResponse)]
    assert answers
    assert {m.match for m in answers} == {1}


def test_5_3_several_requests_within_one_write_share_one_answer() -> None:
    cluster = elected()
    cluster.hosts[B].slow_disk = True
    for _ in range(5):
        cluster.propose(A, b"x")
    cluster.run(0.004)
    cluster.sent.clear()
    cluster.resume_disk(B)
    answers = [m for s, _, m in cluster.sent if s == B]
    assert [m.match for m in answers if isinstance(m, AppendResponse)] == [6]


def test_5_3_an_idle_follower_learns_the_commit_index_soon() -> None:
    cluster = elected()
    cluster.propose(A, b"x")
    cluster.run(0.009)
    assert cluster.node(B).commit == cluster.node(C).commit == 2


def test_5_3_a_leader_never_overwrites_or_deletes_its_own_entries() -> None:
    cluster = elected()
    before = cluster.node(A).last_index
    cluster.step(A, Receive(B, AppendResponse(1, False, 0, 1, 0, 0, 9)))
    assert cluster.node(A).last_index == before  # and the checker watches every write


def test_5_3_a_gap_is_refused_with_the_end_of_the_log_as_hint() -> None:
    cluster = elected()
    cluster.step(B, Receive(A, AppendRequest(1, 9, 1, [entry(10, 1)], 0, 0)))
    [answer] = [m for s, _, m in cluster.sent if s == B]
    assert answer == AppendResponse(1, False, 0, 2, 0, 0, 9)
    assert cluster.node(B).last_index == 1


def test_5_3_a_conflicting_term_is_refused_as_a_whole() -> None:
    cluster = Cluster(ids(3))
    first = [entry(i, 1) for i in range(1, 3)] + [entry(i, 2) for i in range(3, 7)]
    cluster.step(B, Receive(A, AppendRequest(2, 0, 0, first, 0, 0)))
    cluster.settle()
    cluster.sent.clear()
    cluster.step(B, Receive(C, AppendRequest(5, 6, 4, [], 0, 0)))
    cluster.settle()
    [answer] = [m for s, _, m in cluster.sent if s == B and isinstance(m, AppendResponse)]
    assert (answer.success, answer.conflict_index, answer.conflict_term) == (False, 3, 2)
    assert answer.rejected == 6


def test_5_3_a_leader_skips_a_whole_conflicting_term_at_a_time() -> None:
    cluster = elected()
    for _ in range(20):
        cluster.propose(A, b"mine")
    cluster.settle()
    cluster.isolate(A)
    for _ in range(50):
        cluster.propose(A, b"lost")
    cluster.run(1)
    winner = cluster.leader()
    assert winner in {B, C}
    cluster.commit_one(winner)
    cluster.heal()
    cluster.sent.clear()
    cluster.run(0.5)
    refusals = [
        m for s, _, m in cluster.sent if s == A and isinstance(m, AppendResponse) and not m.success
    ]
    assert len(refusals) <= 4, refusals
    assert cluster.node(A).commit == cluster.node(winner).commit


def test_5_3_a_conflicting_tail_is_replaced_and_its_proposers_are_told() -> None:
    cluster = elected()
    cluster.isolate(A)
    [ticket] = cluster.propose(A, b"lost")
    cluster.run(1)
    winner = cluster.leader()
    assert winner in {B, C}
    cluster.commit_one(winner, b"won")
    cluster.heal()
    cluster.run(0.5)
    assert Overwritten(cluster.accepted(ticket).index) in cluster.answers[-1]
    assert cluster.payloads(A) == [b"won"]


def test_5_3_a_late_shorter_request_truncates_nothing() -> None:
    cluster = elected()
    for _ in range(3):
        cluster.propose(A, b"x")
    cluster.settle()
    late = appends(cluster, B)[0]
    last = cluster.node(B).last_index
    effects = cluster.step(B, Receive(A, late))
    assert effects.persist is None
    assert cluster.node(B).last_index == last


def test_5_3_requests_out_of_order_are_put_right() -> None:
    cluster = elected()
    cluster.net.delay_ms = (1, 20)
    for i in range(30):
        cluster.propose(A, str(i).encode())
    cluster.run(1)
    assert cluster.payloads(B) == [str(i).encode() for i in range(30)]


def test_5_3_lost_requests_are_noticed_by_the_next_heartbeat() -> None:
    cluster = elected()
    cluster.drop = lambda s, t, m: t == B
    cluster.propose(A, b"x")
    cluster.settle()
    cluster.drop = None
    cluster.run(0.1)
    assert cluster.node(B).durable_index == 2


def test_5_3_a_late_refusal_is_ignored() -> None:
    cluster = elected()
    cluster.propose(A, b"x")
    cluster.settle()
    peer = cluster.node(A).state.progress[B]
    cluster.step(A, Receive(B, AppendResponse(1, False, 0, 1, 0, 0, 1)))
    assert peer.flow is Flow.REPLICATE
    assert peer.next == 3


def test_5_4_2_figure_8_an_entry_of_an_older_term_is_not_committed_by_counting() -> None:
    a, b, c, d, e = ids(5)
    cluster = Cluster(ids(5))
    cluster.elect(a)
    cluster.cut([a, b], [c, d, e])
    cluster.propose(a, b"old")  # index 2, term 1, on a and b only
    cluster.settle()
    cluster.crash(a)
    cluster.start(a)
    cluster.heal()
    cluster.drop = lambda s, t, m: isinstance(m, AppendRequest)
    node = cluster.node(a)
    cluster.stand(a)
    assert cluster.run(0.1, until=lambda: node.role is Role.LEADER)
    cluster.settle()
    assert (node.term, node.state.term_start, node.commit) == (2, 3, 0)
    for replica in (b, c):  # a majority has index 2 by now, but not the no-op at 3
        cluster.step(replica, Receive(a, AppendRequest(2, 0, 0, list(_first_two(cluster)), 0, 0)))
    cluster.settle()
    assert node.state.progress[b].match == node.state.progress[c].match == 2
    assert node.commit == 0
    cluster.drop = None
    cluster.run(0.2)
    assert node.commit == 3  # with an entry of its own term it commits all


def _first_two(cluster: Cluster) -> list[Entry]:
    return cluster.hosts[A].durable.entries[:2]


def test_5_4_2_a_new_leader_commits_older_entries_with_its_no_op() -> None:
    cluster = elected()
    cluster.drop = lambda s, t, m: isinstance(m, AppendResponse)
    cluster.propose(A, b"old")
    cluster.settle()
    assert cluster.node(A).commit == 1
    cluster.crash(A)
    cluster.drop = None
    cluster.elect(B)
    assert cluster.payloads(B) == [b"old"]


def test_8_a_leader_appends_a_no_op_of_its_term() -> None:
    cluster = elected()
    assert cluster.hosts[A].written.entries == [Entry(1, 1, EntryKind.NOOP, b"")]


def test_figure_3_leader_completeness_after_many_failovers() -> None:
    cluster = Cluster(ids(3), seed=9)
    for round_number in range(12):
        assert cluster.run(5, until=lambda: cluster.leader() is not None)
        leader = cluster.leader()
        assert leader is not None
        cluster.commit_one(leader, str(round_number).encode())
        cluster.crash(leader)
        cluster.run(1)
        cluster.start(leader)
    cluster.converge()
    for replica in ids(3):
        assert cluster.payloads(replica)[:12] == [str(i).encode() for i in range(12)]


def test_10_2_entries_are_pipelined_without_waiting_for_answers() -> None:
    cluster = elected()
    cluster.hosts[B].slow_disk = True
    for i in range(10):
        cluster.propose(A, str(i).encode())
    assert len(appends(cluster, B)) == 10


def test_10_2_the_window_in_messages_bounds_what_is_under_way() -> None:
    cluster = elected(RaftSettings(inflight_messages_max=3))
    cluster.hosts[B].slow_disk = True
    for i in range(10):
        cluster.propose(A, str(i).encode())
    assert len(appends(cluster, B)) == 3
    cluster.run(0.002)
    cluster.resume_disk(B)
    cluster.settle()
    cluster.resume_disk(B)
    cluster.settle()
    assert cluster.node(B).last_index == 11
    assert len(appends(cluster, B)) == 4  # what waited went in one batch


def test_10_2_the_window_in_bytes_bounds_what_is_under_way() -> None:
    settings = RaftSettings(append_bytes_max=1000, inflight_bytes_max=2000, entry_bytes_max=1000)
    cluster = elected(settings)
    cluster.hosts[B].slow_disk = True
    for _ in range(20):
        cluster.propose(A, bytes(500))
    assert len(appends(cluster, B)) == 4


def test_10_2_a_batch_is_cut_at_append_bytes_max() -> None:
    cluster = elected(RaftSettings(append_bytes_max=1000))
    cluster.propose(A, *[bytes(400)] * 6)
    assert [len(m.entries) for m in appends(cluster, B)] == [2, 2, 2]


def test_one_turns_proposals_make_one_request_per_follower() -> None:
    cluster = elected()
    cluster.propose(A, *[b"x"] * 100)
    assert [len(m.entries) for m in appends(cluster)] == [100, 100]
    first, second = appends(cluster)
    assert first is second  # one object, to be encoded once


def test_the_commit_index_sent_is_never_past_what_the_receiver_matches() -> None:
    cluster = elected(RaftSettings(append_bytes_max=300))
    cluster.isolate(C)
    for _ in range(30):
        cluster.commit_one(A, bytes(200))
    cluster.heal()
    cluster.sent.clear()
    cluster.run(1)
    sent = [m for _, t, m in cluster.sent if t == C and isinstance(m, AppendRequest)]
    assert all(m.commit <= m.previous_index + len(m.entries) for m in sent)
    assert cluster.node(C).commit == cluster.node(A).commit


def test_uncommitted_bytes_are_bounded() -> None:
    cluster = elected(RaftSettings(uncommitted_bytes_max=10_000, entry_bytes_max=5000))
    cluster.hosts[B].slow_disk = cluster.hosts[C].slow_disk = True
    tickets = [cluster.propose(A, bytes(1000))[0] for _ in range(15)]
    cluster.settle()
    refused = [t for t in tickets if "Refused" in type(cluster.answer(t)).__name__]
    assert len(refused) in range(4, 7)
    assert all(isinstance(cluster.error(t), OverloadedError) for t in refused)
    cluster.resume_disk(B)
    cluster.settle()
    cluster.commit_one(A)


def test_the_largest_entry_fits_into_an_idle_log() -> None:
    cluster = elected(RaftSettings(uncommitted_bytes_max=5000, entry_bytes_max=5000))
    cluster.commit_one(A, bytes(5000))


def test_an_entry_that_is_too_large_is_refused_by_size() -> None:
    cluster = elected(RaftSettings(entry_bytes_max=100))
    small, large = cluster.propose(A, bytes(100), bytes(101))
    assert cluster.accepted(small).index == 2
    assert isinstance(cluster.error(large), ConfigError)
    assert "101 bytes is larger than entry_bytes_max 100" in str(cluster.error(large))


def test_a_seal_refuses_what_comes_behind_it_with_its_own_next() -> None:
    cluster = elected()
    ticket = cluster.ticket
    seal, behind, second = ticket(), ticket(), ticket()
    cluster.step(
        A,
        Propose(
            (
                (seal, EntryKind.SEAL, b"next-1"),
                (behind, EntryKind.NORMAL, b"late"),
                (second, EntryKind.SEAL, b"next-2"),
            )
        ),
    )
    cluster.run(0.05)
    for refused in (behind, second, cluster.propose(A, b"later")[0]):
        error = cluster.error(refused)
        assert isinstance(error, SealedError)
        assert error.next == b"next-1"
    assert {cluster.node(r).sealed for r in ids(3)} == {(2, b"next-1")}


def test_a_seal_survives_restart_of_all() -> None:
    cluster = elected()
    cluster.propose(A, b"next", kind=EntryKind.SEAL)
    cluster.run(0.05)
    for replica in ids(3):
        cluster.crash(replica)
    for replica in ids(3):
        cluster.start(replica)
    cluster.elect(B)
    assert cluster.node(B).sealed == (2, b"next")
    error = cluster.error(cluster.propose(B, b"x")[0])
    assert isinstance(error, SealedError)


def test_a_seal_that_was_overwritten_does_not_seal() -> None:
    cluster = elected()
    cluster.isolate(A)
    cluster.propose(A, b"next", kind=EntryKind.SEAL)
    cluster.run(1)
    winner = cluster.leader()
    assert winner in {B, C}
    cluster.commit_one(winner)
    cluster.heal()
    cluster.run(0.5)
    assert cluster.node(A).sealed is None
    cluster.commit_one(winner)


def test_a_reconnected_member_is_resent_what_it_lacks_at_once() -> None:
    cluster = elected()
    cluster.isolate(B)
    cluster.commit_one(A)
    cluster.heal()
    cluster.connect(A, B)
    cluster.run(0.01)
    assert cluster.node(B).durable_index == 2
