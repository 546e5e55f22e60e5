"""Claims of the Raft paper about commitment (5.3, 5.4, figures 3 and 8), one by one."""

import pytest

from outlast.kernel import InvariantError, LogIndex, ReplicaId
from outlast.log.engines.raft.core.quorum import reached
from outlast.log.engines.raft.core.replication import Replication
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import (
    AppendRequest,
    Effects,
    EntryKind,
    RaftEvent,
    Role,
)
from tests.support.raft_disk import BrokenError
from tests.support.raft_paper import terms_of, with_logs
from tests.support.raft_sim import Cluster, ids

S1, S2, S3, S4, S5 = ids(5)


def withhold(cluster: Cluster, first: int) -> None:
    """Let no entry at or above ``first`` through."""
    cluster.drop = lambda s, t, m: (
        isinstance(m, AppendRequest) and any(e.index >= first for e in m.entries)
    )


def figure_8_c() -> Cluster:
    """Play figure 8 to (c): an entry of term 2 lies on a majority, its leader is in term 4."""
    settings = RaftSettings(append_bytes_max=1)  # one entry in each request
    cluster = Cluster(ids(5), settings=settings)
    cluster.elect(S1)
    cluster.run(0.05)
    assert [cluster.node(r).commit for r in ids(5)] == [1] * 5
    cluster.crash(S1)  # (a) S1 leads term 2; its entry 2 reaches S2 only
    cluster.start(S1)
    cluster.drop = lambda s, t, m: isinstance(m, AppendRequest) and S2 not in (s, t)
    cluster.stand(S1)
    cluster.run(0.02)
    assert [terms_of(cluster, r) for r in ids(5)] == [[1, 2], [1, 2], [1], [1], [1]]
    assert cluster.node(S1).commit < 2
    cluster.crash(S1)  # (b) S5 leads term 3 by S3 and S4, with another entry 2
    cluster.drop = lambda s, t, m: isinstance(m, AppendRequest)
    cluster.isolate(S2)
    cluster.stand(S5)
    cluster.run(0.02)
    assert (cluster.node(S5).role, cluster.node(S5).term) == (Role.LEADER, 3)
    assert terms_of(cluster, S5) == [1, 3]
    cluster.crash(S5)  # (c) S1 leads term 4, and its entry of term 2 reaches S3 as well
    cluster.heal()
    cluster.start(S1)
    cluster.cut([S4], [S1, S2, S3])
    withhold(cluster, 3)
    assert cluster.run(5, until=lambda: cluster.leader() == S1 or stand_in_term_4(cluster))
    assert cluster.node(S1).term == 4
    cluster.run(0.2)
    assert [terms_of(cluster, r) for r in (S1, S2, S3)] == [[1, 2, 4], [1, 2], [1, 2]]
    return cluster


def stand_in_term_4(cluster: Cluster) -> bool:
    """Let S1 stand, which learns of term 3 by that; return whether it leads."""
    if cluster.node(S1).role is Role.FOLLOWER:
        cluster.stand(S1)
    return cluster.node(S1).role is Role.LEADER


def figure_8_d(cluster: Cluster) -> None:
    """S1 dies; S5 wins with the votes of those that have the entry of term 2."""
    cluster.crash(S1)
    cluster.heal()
    cluster.start(S5)
    cluster.stand(S5)  # learns the term
    cluster.run(0.02)
    cluster.stand(S5)
    cluster.run(0.5)


def test_figure_8_an_entry_on_a_majority_can_be_overwritten() -> None:
    """An entry of an older term that lies on a majority is not committed, and may be replaced by
    a later leader (paper 5.4.2, figure 8 a to d).
    """
    cluster = figure_8_c()
    assert [cluster.node(r).commit for r in (S2, S3)] == [1, 1]
    assert cluster.node(S1).commit <= 1
    figure_8_d(cluster)
    assert cluster.leader() == S5
    assert all(terms_of(cluster, r)[:2] == [1, 3] for r in (S2, S3, S4, S5))
    assert cluster.node(S2).commit >= 2


def test_figure_8_an_entry_of_the_own_term_protects_the_older_ones() -> None:
    """Once an entry of the leader's own term is on a majority, all before it are committed and
    no log without them can win (paper 5.4.2, figure 8 e).
    """
    cluster = figure_8_c()
    cluster.drop = None
    cluster.run(0.2)
    assert cluster.node(S1).commit == 3
    figure_8_d(cluster)
    assert cluster.leader() != S5
    cluster.run(5)
    assert cluster.leader() in {S2, S3}
    assert all(terms_of(cluster, r)[:3] == [1, 2, 4] for r in (S2, S3, S4, S5))


def test_figure_8_without_the_rule_a_committed_entry_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A leader that counts copies of older terms commits an entry that a later leader replaces:
    the rule is needed (paper 5.4.2, figure 8).
    """

    def advance_commit(self: Replication) -> None:
        index = reached(self._matches(self.state.config.voters))
        if index > self.state.commit:
            self.commit_to(index)

    monkeypatch.setattr(Replication, "advance_commit", advance_commit)
    cluster = figure_8_c()
    assert cluster.node(S1).commit == 2
    with pytest.raises((BrokenError, InvariantError), match=r"leader completeness|committed"):
        figure_8_d(cluster)


def test_not_even_copies_everywhere_commit_an_older_term() -> None:
    """An entry of an older term that lies on every member still waits for one of the leader's
    own term (paper 5.4.2).
    """
    cluster = with_logs({r: [1, 1] for r in ids(3)}, term=1)
    withhold(cluster, 3)
    cluster.stand(S1)
    cluster.run(0.3)
    node = cluster.node(S1)
    assert node.role is Role.LEADER
    assert [p.match for p in node.state.progress.values()] == [2, 2]
    assert node.commit == 0
    cluster.drop = None
    cluster.run(0.2)
    assert node.commit == 3


@pytest.mark.parametrize("count", range(1, 8))
def test_a_commit_needs_a_majority_of_copies(count: int) -> None:
    """An entry is committed when a majority of all members stores it, and not one copy earlier
    (paper 5.3, figure 2).
    """
    cluster = Cluster(ids(count))
    cluster.elect(S1)
    cluster.settle()
    for replica in ids(count):
        cluster.hosts[replica].slow_disk = True
    cluster.propose(S1, b"x")
    cluster.run(0.01)
    needed = count // 2 + 1
    for copies, replica in enumerate(ids(count), 1):
        assert cluster.node(S1).commit == 1 + (copies > needed)
        cluster.resume_disk(replica)
        cluster.run(0.005)
    assert cluster.node(S1).commit == 2


def test_a_commit_takes_in_everything_before_it() -> None:
    """To commit an entry is to commit all before it, of whatever term they are (paper 5.3)."""
    cluster = with_logs({S1: [1, 2, 2, 3], S2: [1], S3: [1]}, term=3)
    told: list[int] = []

    def note(replica: ReplicaId, event: RaftEvent, effects: Effects) -> None:
        if replica == S1 and effects.committed is not None:
            told.append(effects.committed)

    cluster.on_effects = note
    cluster.elect(S1)
    assert told == [5]
    kept = cluster.payloads(S1)
    assert kept == [b"1.1", b"2.2", b"3.2", b"4.3"]


def test_the_commit_index_only_grows() -> None:
    """Each life of a member commits in order and takes nothing back, through any number of
    leaders (paper figure 2, volatile state, and figure 3).
    """
    cluster = Cluster(ids(3), seed=4)
    told: dict[tuple[ReplicaId, int], list[LogIndex]] = {}

    def note(replica: ReplicaId, event: RaftEvent, effects: Effects) -> None:
        if effects.committed is not None:
            life = cluster.hosts[replica].life
            told.setdefault((replica, life), []).append(effects.committed)

    cluster.on_effects = note
    for number in range(6):
        assert cluster.run(5, until=lambda: cluster.leader() is not None)
        leader = cluster.leader()
        assert leader is not None
        cluster.commit_one(leader, str(number).encode())
        cluster.isolate(leader)
        cluster.propose(leader, b"lost")
        cluster.run(1.5)
        cluster.heal()
    assert len(told) == 3
    assert all(found == sorted(set(found)) for found in told.values())


def test_the_commit_index_is_learned_anew_after_a_crash() -> None:
    """The commit index is not kept: after a crash of all it begins at the snapshot or at zero,
    and comes back with the next leader's first commit (paper figure 2, thesis 3.8).
    """
    cluster = with_logs({r: [1, 1, 1] for r in ids(3)}, term=1)
    assert [cluster.node(r).commit for r in ids(3)] == [0, 0, 0]
    cluster.elect(S2)
    cluster.run(0.05)
    assert [cluster.node(r).commit for r in ids(3)] == [4, 4, 4]


def test_followers_commit_the_same_entries_in_the_same_places() -> None:
    """All members commit the same entry at the same place (paper figure 3, state machine
    safety).
    """
    cluster = Cluster(ids(5), seed=8)
    cluster.net.drop = cluster.net.repeat = 50
    cluster.net.delay_ms = (1, 15)
    for number in range(30):
        assert cluster.run(5, until=lambda: cluster.leader() is not None)
        leader = cluster.leader()
        assert leader is not None
        cluster.propose(leader, str(number).encode())
        cluster.run(0.1)
    cluster.converge()
    logs = [cluster.hosts[r].written.entries[: cluster.node(r).commit] for r in ids(5)]
    shortest = min(len(log) for log in logs)
    assert shortest > 20
    assert all(log[:shortest] == logs[0][:shortest] for log in logs)
    assert [e.kind for e in logs[0]].count(EntryKind.NORMAL) > 20
