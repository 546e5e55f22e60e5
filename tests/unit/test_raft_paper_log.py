"""Claims of the Raft paper about the log and its repair (5.3, 5.5, figures 2 and 7)."""

import pytest

from outlast.kernel import InvariantError, ReplicaId, Term
from outlast.log.engines.raft.core.events import LogTruncated
from outlast.log.engines.raft.core.types import (
    AppendRequest,
    AppendResponse,
    Effects,
    HardState,
    RaftEvent,
    Receive,
)
from tests.support.raft_paper import elected, entry, fed, grants, messages, terms_of, with_logs
from tests.support.raft_sim import MS, Cluster, ids

A, B, C = ids(3)
LEADER = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
FOLLOWERS = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}
NAMES = dict(zip(FOLLOWERS, ids(7)[1:], strict=True))
DROPPED = {"a": None, "b": None, "c": (11, 11), "d": (11, 12), "e": (6, 7), "f": (4, 11)}


def figure_7() -> Cluster:
    return with_logs(dict(zip(ids(7), (LEADER, *FOLLOWERS.values()), strict=True)), term=7)


# --- figure 7 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLLOWERS)
def test_figure_7_every_follower_is_made_equal(name: str) -> None:
    """A new leader makes each of the six kinds of follower logs equal to its own, and each
    drops exactly what conflicts and all behind it (paper 5.3, figure 7).
    """
    cluster = figure_7()
    dropped: dict[ReplicaId, list[tuple[int, int]]] = {}

    def note(replica: ReplicaId, event: RaftEvent, effects: Effects) -> None:
        for found in effects.events:
            if isinstance(found, LogTruncated):
                dropped.setdefault(replica, []).append((found.first, found.last))

    cluster.on_effects = note
    cluster.elect(A)
    cluster.run(0.3)
    follower = NAMES[name]
    assert terms_of(cluster, A) == [*LEADER, 8]
    assert terms_of(cluster, follower) == [*LEADER, 8]
    assert cluster.hosts[follower].durable.entries == cluster.hosts[A].durable.entries
    assert cluster.node(follower).commit == 11
    expected = DROPPED[name]
    assert dropped.get(follower) == (None if expected is None else [expected])


@pytest.mark.parametrize(
    ("name", "wins"),
    [("a", True), ("b", False), ("c", True), ("d", True), ("e", False), ("f", False)],
)
def test_figure_7_who_can_win(name: str, wins: bool) -> None:
    """Of the logs of figure 7 those can win whose last entry is at least as late as that of a
    majority (paper 5.4.1).
    """
    cluster = figure_7()
    cluster.stand(NAMES[name])
    cluster.run(0.02)
    assert (cluster.leader() == NAMES[name]) == wins


def test_figure_7_logs_with_more_refuse_the_leader() -> None:
    """The leader of figure 7 gets the votes of all but those whose logs end later
    (paper 5.4.1).
    """
    cluster = figure_7()
    cluster.elect(A)
    cluster.settle()
    granted = {name: grants(cluster)[replica] for name, replica in NAMES.items()}
    assert granted == {"a": True, "b": True, "c": False, "d": False, "e": True, "f": True}


# --- what a follower does ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("previous", "terms", "said", "known"),
    [(0, [1, 1], 9, 2), (1, [], 3, 1), (1, [1], 3, 2), (3, [], 2, 2)],
)
def test_a_follower_commits_only_what_it_knows_to_match(
    previous: int, terms: list[int], said: int, known: int
) -> None:
    """A follower commits up to what the leader says or to the last entry of the request,
    whichever is lower: what lies behind it in its own log may be wrong (paper figure 2,
    AppendEntries rule 5).
    """
    cluster = with_logs({A: [], B: [1, 1, 1], C: []}, term=1)
    entries = [entry(index, term) for index, term in enumerate(terms, previous + 1)]
    request = AppendRequest(2, previous, 1 if previous else 0, entries, said, 0)
    cluster.node(B).step(Receive(A, request), cluster.now)
    assert cluster.node(B).commit == known


def test_a_conflict_drops_what_follows_and_keeps_what_agrees() -> None:
    """Entries of a request that agree with the log stay; the first that conflicts goes with all
    behind it (paper figure 2, AppendEntries rules 3 and 4).
    """
    cluster = with_logs({A: [], B: [1, 1, 2, 2, 2], C: []}, term=2)
    request = AppendRequest(3, 1, 1, [entry(2, 1), entry(3, 2), entry(4, 3)], 0, 0)
    effects = cluster.step(B, Receive(A, request))
    assert effects.persist is not None
    assert effects.persist.truncate_from == 4
    assert effects.persist.entries == [entry(4, 3)]
    assert terms_of(cluster, B) == [1, 1, 2, 3]


def test_a_request_that_comes_twice_changes_nothing_more() -> None:
    """The same request once more is answered the same and writes nothing (paper 5.5)."""
    cluster = with_logs({A: [], B: [1], C: []}, term=1)
    request = Receive(A, AppendRequest(1, 1, 1, [entry(2, 1), entry(3, 1)], 0, 0))
    cluster.step(B, request)
    cluster.settle()
    [first] = [m for s, _, m in cluster.sent if s == B]
    effects = cluster.step(B, request)
    assert effects.persist is None
    assert messages(effects) == [(A, first)]
    assert isinstance(first, AppendResponse)
    assert first.match == 3


def test_a_follower_that_crashed_before_it_answered_is_asked_again() -> None:
    """A follower that stored entries and crashed before it answered is sent the request again
    and has every entry once (paper 5.5).
    """
    cluster = elected()
    cluster.drop = lambda s, t, m: s == B
    cluster.propose(A, b"x", b"y")
    cluster.settle()
    cluster.crash(B)
    assert terms_of(cluster, B) == [1, 1, 1]
    cluster.start(B)
    cluster.drop = None
    cluster.run(0.2)
    assert cluster.node(A).state.progress[B].match == 3
    assert cluster.payloads(B) == [b"x", b"y"]


def test_the_log_survives_a_crash_of_all() -> None:
    """Term, vote and log are what they were when all members come back from a crash
    (paper figure 2, persistent state).
    """
    cluster = elected(term=3)
    for _ in range(3):
        cluster.commit_one(A)
    cluster.settle()
    before = {r: remembered(cluster, r) for r in ids(3)}
    for replica in ids(3):
        cluster.crash(replica)
    for replica in ids(3):
        cluster.start(replica)
    assert {r: remembered(cluster, r) for r in ids(3)} == before
    assert before[B] == (HardState(Term(3), A), [0, 3, 3, 3, 3])


def remembered(cluster: Cluster, replica: ReplicaId) -> tuple[object, list[int | None]]:
    node = cluster.node(replica)
    return node.hard_state, [node.state.log.term_at(at) for at in range(node.last_index + 1)]


# --- what a leader does --------------------------------------------------------------------------


def test_a_leader_sends_until_every_follower_has_everything() -> None:
    """A leader goes on sending until all followers have all entries, long after they were
    committed and answered (paper 5.3).
    """
    cluster = elected()
    cluster.isolate(C)
    for _ in range(5):
        cluster.commit_one(A)
    cluster.run(30)
    cluster.heal()
    cluster.run(0.2)
    assert cluster.hosts[C].durable.entries == cluster.hosts[A].durable.entries


def test_a_slow_minority_does_not_delay_a_commit() -> None:
    """A commit waits for the quickest majority only: a slow follower costs nothing
    (paper 5.3).
    """
    cluster = elected()
    cluster.hosts[C].slow_disk = True
    start = cluster.now
    for _ in range(10):
        cluster.commit_one(A)
    assert cluster.now - start <= 10 * 2 * MS
    assert cluster.node(C).durable_index == 1


def test_an_acknowledgement_moves_a_member_forward_only() -> None:
    """An acknowledgement sets how far a member is and what it is sent next; one that comes late
    takes nothing back (paper figure 2, leaders).
    """
    cluster = elected()
    for _ in range(3):
        cluster.commit_one(A)
    cluster.settle()
    peer = cluster.node(A).state.progress[B]
    assert (peer.match, peer.next) == (4, 5)
    cluster.step(A, Receive(B, AppendResponse(1, True, 2, 0, 0, 0)))
    assert (peer.match, peer.next) == (4, 5)
    assert cluster.node(A).commit == 4


def test_an_acknowledgement_of_what_was_never_sent_stops_the_node() -> None:
    """Nobody can have more of a leader's log than the leader (paper 5.3, log matching)."""
    cluster = elected()
    with pytest.raises(InvariantError, match="acknowledged 9, past the leader's 1"):
        cluster.step(A, Receive(B, AppendResponse(1, True, 9, 0, 0, 0)))


def test_a_refusal_is_answered_with_earlier_entries() -> None:
    """A refusal makes the leader try an earlier entry, until the logs agree (paper 5.3)."""
    cluster = with_logs({A: [1, 2, 3, 4], B: [1, 2], C: [1, 2, 3, 4]}, term=4)
    cluster.elect(A)
    cluster.run(0.1)
    firsts = [m.previous_index for m in fed(cluster, B)]
    assert firsts[0] == 4
    assert firsts == sorted(firsts, reverse=True)
    assert 2 in firsts
    assert terms_of(cluster, B) == [1, 2, 3, 4, 5]
