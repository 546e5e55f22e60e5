"""How long a follower bears silence is learnt from its leader's heartbeats."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.log.engines.raft.core.patience import BEATS_MIN, Patience
from outlast.log.engines.raft.core.settings import RaftSettings
from outlast.log.engines.raft.core.types import Receive, Role, VoteRequest, VoteResponse
from tests.support.raft_sim import MS, SECOND, Cluster, ids

A, B, C = ids(3)
TIMEOUT = SECOND // 2
BEAT = 60 * MS


def after(gaps: list[int], options: RaftSettings | None = None) -> Patience:
    patience = Patience(options or RaftSettings())
    now = SECOND
    for gap in gaps:
        now += gap
        patience.hear(now)
    return patience


def test_before_enough_beats_the_election_timeout_holds() -> None:
    assert after([BEAT] * (BEATS_MIN - 1)).silence_ns == TIMEOUT


def test_regular_beats_make_a_follower_strict_and_never_below_three_fifths() -> None:
    assert after([BEAT] * 100).silence_ns == TIMEOUT * 3 // 5


def test_irregular_beats_make_it_patient() -> None:
    patience = after([20 * MS, 200 * MS, 40 * MS, 180 * MS] * 30)
    assert TIMEOUT < patience.silence_ns <= 4 * TIMEOUT


def test_whatever_was_learnt_four_timeouts_are_the_most() -> None:
    assert after([5 * SECOND] * 60).silence_ns <= 4 * TIMEOUT


def test_entries_between_the_beats_do_not_make_it_stricter() -> None:
    assert after([BEAT // 60] * 6000).silence_ns >= TIMEOUT * 3 // 5


def test_a_freeze_is_not_learnt() -> None:
    quiet = after([BEAT] * 100).silence_ns
    assert after([BEAT] * 100 + [3 * SECOND] + [BEAT] * 3).silence_ns == quiet


def test_of_another_leader_nothing_is_known() -> None:
    patience = after([BEAT] * 100)
    patience.begin(TIMEOUT)
    assert patience.silence_ns == TIMEOUT
    patience.hear(100 * SECOND)
    assert patience.silence_ns == TIMEOUT


@pytest.mark.parametrize(
    "options",
    [RaftSettings(accrual=False), RaftSettings(lease_reads=True)],
    ids=["switched off", "lease reads"],
)
def test_a_promise_of_known_length_learns_nothing(options: RaftSettings) -> None:
    assert after([BEAT] * 100, options).silence_ns == TIMEOUT


def test_a_slow_heartbeat_is_given_four_of_them() -> None:
    slow = RaftSettings(heartbeat=0.16)
    assert after([160 * MS] * 100, slow).silence_ns >= 640 * MS


def steady(seed: int = 0) -> Cluster:
    cluster = Cluster(ids(3), seed=seed)
    cluster.elect(A)
    cluster.run(5)
    assert cluster.leader() == A
    return cluster


def silence(cluster: Cluster) -> None:
    """Let A neither speak nor hear, without a connection breaking."""
    cluster.drop = lambda sender, target, _: A in (sender, target)


@pytest.mark.parametrize("seed", range(10))
def test_after_steady_beats_a_silent_leader_is_replaced_sooner(seed: int) -> None:
    cluster = steady(seed)
    begun = cluster.now
    silence(cluster)
    assert cluster.run(2.0, until=lambda: any(cluster.node(r).role is Role.LEADER for r in (B, C)))
    assert cluster.now - begun <= 2 * 540 * MS
    assert cluster.now - begun >= 290 * MS - BEAT


def test_nobody_votes_against_a_leader_whose_silence_is_still_borne() -> None:
    cluster = steady()
    silence(cluster)
    node = cluster.node(B)
    request = VoteRequest(node.term, 99, node.term, True, False)

    def asked() -> bool:
        cluster.sent.clear()
        cluster.step(B, Receive(C, request))
        return next(m.granted for _, _, m in cluster.sent if isinstance(m, VoteResponse))

    heard = node.state.election.heard_ns
    cluster.now = heard + 299 * MS
    assert not asked()
    cluster.now = heard + 301 * MS
    assert asked()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 290), min_size=20, max_size=120))
def test_beats_that_come_within_the_least_patience_never_start_an_election(
    gaps: list[int],
) -> None:
    patience = Patience(RaftSettings())
    now = SECOND
    for gap in gaps:
        assert gap * MS < patience.silence_ns
        now += gap * MS
        patience.hear(now)
