"""Claims of the Raft paper about terms and elections (5.1, 5.2, 5.6, figure 2), one by one."""

import itertools
from collections.abc import Callable

import pytest

from outlast.kernel import ReplicaId, Term
from outlast.log.engines.raft.core.config import encode_config
from outlast.log.engines.raft.core.events import ElectionStarted
from outlast.log.engines.raft.core.types import (
    AnyMessage,
    AppendRequest,
    AppendResponse,
    Effects,
    HardState,
    RaftEvent,
    Receive,
    Role,
    SnapshotOffer,
    SnapshotWant,
    TransferNow,
    VoteRequest,
    VoteResponse,
)
from tests.support.raft_paper import candidate, elected, grants, messages, with_logs
from tests.support.raft_sim import MS, SECOND, Cluster, ids

A, B, C = ids(3)
TIMEOUT_NS = SECOND // 2
HEARTBEAT_NS = 60 * MS


def offer(cluster: Cluster, term: int, *, index: int = 9) -> SnapshotOffer:
    members = encode_config(cluster.node(A).state.config)
    return SnapshotOffer(term, index, 1, 10, b"digest", 1, members)


REQUESTS: dict[str, Callable[[Cluster, int], AnyMessage]] = {
    "vote": lambda cluster, term: VoteRequest(term, 99, term, False, False),
    "append": lambda cluster, term: AppendRequest(term, 0, 0, [], 0, 0),
    "snapshot": offer,
}
ANSWERS: dict[str, Callable[[Cluster, int], AnyMessage]] = {
    "appended": lambda cluster, term: AppendResponse(term, True, 99, 0, 0, 99),
    "refused": lambda cluster, term: AppendResponse(term, False, 0, 1, 0, 0, 1),
    "granted": lambda cluster, term: VoteResponse(term, term, False, True),
    "want": lambda cluster, term: SnapshotWant(term, 9, b"digest", 0, False, False),
    "stand now": lambda cluster, term: TransferNow(term),
}


def look(cluster: Cluster, replica: ReplicaId) -> tuple[object, ...]:
    node = cluster.node(replica)
    state = node.state
    return (
        node.role, node.term, state.vote, node.leader, node.last_index, node.commit,
        state.election.election_at, [(p.match, p.next) for p in state.progress.values()],
    )  # fmt: skip


# --- terms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_of_an_older_term_is_refused(kind: str) -> None:
    """A request of an older term changes nothing, not even the timer, and is answered with the
    current term (paper 5.1, figures 2 and 13).
    """
    cluster = elected(term=5)
    cluster.run(0.03)
    before = look(cluster, B)
    effects = cluster.step(B, Receive(C, REQUESTS[kind](cluster, 4)))
    assert look(cluster, B) == before
    assert effects.persist is None
    [(target, answer)] = messages(effects)
    assert (target, answer.term) == (C, 5)
    assert not getattr(answer, "granted", getattr(answer, "success", None))


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_of_an_older_term_is_dropped(kind: str) -> None:
    """An answer that belongs to an older term changes nothing (paper 5.1)."""
    cluster = elected(term=5)
    for replica in (A, B):
        before = look(cluster, replica)
        effects = cluster.step(replica, Receive(C, ANSWERS[kind](cluster, 4)))
        assert look(cluster, replica) == before
        assert not messages(effects)


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER])
@pytest.mark.parametrize("kind", [*REQUESTS, *ANSWERS])
def test_a_later_term_in_any_message_makes_a_follower(kind: str, role: Role) -> None:
    """A later term in any request or answer is taken over, durably, and whoever stood for
    election or led follows (paper 5.1, figure 2).
    """
    cluster = elected(term=5) if role is Role.LEADER else candidate(term=5)
    if role is Role.PRE_CANDIDATE:
        cluster.node(A).state.election.campaign(pre=True)
    assert cluster.node(A).role is role
    ours = cluster.node(A).term
    message = {**REQUESTS, **ANSWERS}[kind](cluster, 9)
    effects = cluster.step(A, Receive(B, message))
    if kind == "vote" and role is Role.LEADER:
        assert (cluster.node(A).role, cluster.node(A).term) == (Role.LEADER, ours)
        return  # where we differ: thesis 4.2.3
    assert (cluster.node(A).role.name, cluster.node(A).term) == ("FOLLOWER", 9)
    assert effects.persist is not None
    assert effects.persist.hard_state is not None
    assert effects.persist.hard_state.term == 9


def test_nothing_is_said_in_a_term_before_it_is_durable() -> None:
    """A new term is on disk before any request is answered in it (paper figure 2, state)."""
    cluster = Cluster(ids(3))
    cluster.hosts[B].slow_disk = True
    effects = cluster.step(B, Receive(A, AppendRequest(5, 0, 0, [], 0, 0)))
    assert effects.persist is not None
    assert effects.persist.hard_state == HardState(Term(5), None)
    assert not effects.send_now
    assert [m.term for _, m in effects.send_after_durable] == [5]
    cluster.run(0.2)
    assert not [m for s, _, m in cluster.sent if s == B]


# --- standing for election -----------------------------------------------------------------------


def test_a_candidate_raises_its_term_and_asks_everybody() -> None:
    """To stand is to raise the own term by one, vote for oneself, start the wait anew, and ask
    every other voter at once (paper 5.2, figure 2).
    """
    cluster = with_logs({A: [1, 3], B: [], C: []}, term=4)
    cluster.drop = lambda s, t, m: True
    cluster.stand(A)
    effects = cluster.step(A, Receive(B, VoteResponse(4, 5, True, True)))
    node = cluster.node(A)
    assert (node.role, node.term, node.state.vote) == (Role.CANDIDATE, 5, A)
    assert node.state.election.election_at >= cluster.now + TIMEOUT_NS
    asked = VoteRequest(5, 2, 3, pre=False, transfer=False)
    assert messages(effects) == [(B, asked), (C, asked)]


def test_a_candidate_asks_only_once_its_own_vote_is_durable() -> None:
    """A candidate asks for votes once its term and its own vote are on disk (paper figure 2)."""
    cluster = Cluster(ids(3))
    cluster.drop = lambda s, t, m: True
    cluster.hosts[A].slow_disk = True
    cluster.stand(A)
    effects = cluster.step(A, Receive(B, VoteResponse(0, 1, True, True)))
    assert effects.persist is not None
    assert effects.persist.hard_state == HardState(Term(1), A)
    assert not effects.send_now
    assert len(effects.send_after_durable) == 2


@pytest.mark.parametrize("count", range(1, 8))
def test_a_majority_of_all_voters_elects(count: int) -> None:
    """A candidate leads once a majority of all members has voted for it in this term, and not
    one vote earlier (paper 5.2).
    """
    cluster = candidate(count)
    needed = count // 2 + 1
    for granted, voter in enumerate(ids(count)[1:], 1):
        assert (cluster.node(A).role is Role.LEADER) == (granted >= needed)
        if granted < needed:
            cluster.step(A, Receive(voter, VoteResponse(1, 1, False, True)))
    assert cluster.node(A).role is Role.LEADER


def test_a_majority_of_refusals_ends_the_election() -> None:
    """Refusals give a candidate nothing, and once it cannot win it follows (paper 5.2)."""
    cluster = candidate(5)
    for voter, role in zip(ids(5)[1:4], ("CANDIDATE", "CANDIDATE", "FOLLOWER"), strict=True):
        cluster.step(A, Receive(voter, VoteResponse(1, 1, False, False)))
        assert cluster.node(A).role.name == role
    assert cluster.node(A).term == 1


def test_a_voter_answers_its_candidate_again() -> None:
    """A candidate that asks twice in a term is granted twice: a vote is for whoever has it
    already (paper figure 2, RequestVote rule 2, and 5.5).
    """
    cluster = Cluster(ids(3))
    for _ in range(2):
        cluster.step(A, Receive(B, VoteRequest(3, 0, 0, False, False)))
    cluster.settle()
    answers = [m for s, _, m in cluster.sent if s == A]
    assert [m.granted for m in answers if isinstance(m, VoteResponse)] == [True, True]


def test_a_candidate_ignores_a_leader_of_an_older_term() -> None:
    """A candidate that hears a leader of an older term refuses it and goes on standing
    (paper 5.2).
    """
    cluster = candidate(term=5)
    effects = cluster.step(A, Receive(C, AppendRequest(4, 0, 0, [], 0, 0)))
    assert cluster.node(A).role is Role.CANDIDATE
    [(target, answer)] = messages(effects)
    assert (target, answer.term) == (C, 5)
    assert isinstance(answer, AppendResponse)
    assert not answer.success


def test_an_election_without_a_winner_is_followed_by_another() -> None:
    """A candidate whose election ends without a winner stands again in a later term (paper 5.2,
    figure 2).
    """
    cluster = Cluster(ids(3))
    cluster.drop = lambda s, t, m: isinstance(m, VoteResponse) and not m.pre
    stood: list[int] = []

    def note(replica: ReplicaId, event: RaftEvent, effects: Effects) -> None:
        found = [e for e in effects.events if isinstance(e, ElectionStarted) and not e.pre]
        stood.extend(e.term for e in found if replica == A)

    cluster.on_effects = note
    cluster.run(8)
    assert len(stood) >= 2
    assert stood == sorted(set(stood))
    cluster.drop = None
    assert cluster.run(3, until=lambda: cluster.leader() is not None)


def test_each_election_draws_its_own_timeout() -> None:
    """The wait is drawn anew for every election, so that a split vote does not repeat itself
    (paper 5.2).
    """
    cluster = Cluster(ids(3))
    cluster.isolate(A)
    times: list[int] = []

    def note(replica: ReplicaId, event: RaftEvent, effects: Effects) -> None:
        if replica == A and any(isinstance(e, ElectionStarted) for e in effects.events):
            times.append(cluster.now)

    cluster.on_effects = note
    cluster.run(15)
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert len(waits) >= 15
    assert len(set(waits)) >= len(waits) - 2
    assert min(waits) >= TIMEOUT_NS
    assert max(waits) <= TIMEOUT_NS * 9 // 5


# --- followers -----------------------------------------------------------------------------------


def test_followers_only_answer() -> None:
    """Followers send no requests of their own: they answer leaders and candidates (paper 5.1)."""
    cluster = elected()
    for _ in range(20):
        cluster.commit_one(A)
        cluster.run(0.05)
    said = {type(m) for s, _, m in cluster.sent if s != A}
    assert said == {AppendResponse}


def test_a_granted_vote_starts_the_wait_anew() -> None:
    """A follower that grants its vote waits a whole timeout more; one that refuses in the same
    term does not (paper figure 2, followers).
    """
    cluster = Cluster(ids(3))
    election = cluster.node(B).state.election
    cluster.step(B, Receive(C, VoteResponse(1, 1, False, False)))  # only the term is news
    cluster.run(0.3)
    cluster.step(B, Receive(A, VoteRequest(1, 0, 0, False, False)))
    assert election.election_at >= cluster.now + TIMEOUT_NS
    cluster.run(0.3)
    before = election.election_at
    cluster.step(B, Receive(C, VoteRequest(1, 9, 1, False, False)))
    cluster.settle()
    assert election.election_at == before
    assert grants(cluster) == {B: False}


def test_a_leaders_request_starts_the_wait_anew() -> None:
    """Each request of the current leader starts the wait anew (paper 5.2)."""
    cluster = elected()
    cluster.isolate(A)
    cluster.run(0.4)
    cluster.step(B, Receive(A, AppendRequest(1, 1, 1, [], 1, 0)))
    assert cluster.node(B).state.election.election_at >= cluster.now + TIMEOUT_NS


# --- leaders -------------------------------------------------------------------------------------


def test_a_new_leader_writes_to_everybody_at_once() -> None:
    """The step that wins the election also sends a request to every other member, so that no
    other election begins (paper 5.2, figure 2).
    """
    cluster = candidate(5)
    cluster.step(A, Receive(B, VoteResponse(1, 1, False, True)))
    effects = cluster.step(A, Receive(C, VoteResponse(1, 1, False, True)))
    told = [(target, m.term) for target, m in messages(effects) if isinstance(m, AppendRequest)]
    assert told == [(replica, 1) for replica in ids(5)[1:]]


def test_an_idle_leader_repeats_itself() -> None:
    """An idle leader writes to every member within each heartbeat interval, well within the
    election timeout (paper 5.2, figure 2).
    """
    cluster = elected(5)
    times: dict[ReplicaId, list[int]] = {replica: [cluster.now] for replica in ids(5)[1:]}

    def note(replica: ReplicaId, event: RaftEvent, effects: Effects) -> None:
        for target, message in messages(effects):
            if isinstance(message, AppendRequest):
                times[target].append(cluster.now)

    cluster.on_effects = note
    cluster.run(2)
    for sent in times.values():
        gaps = [after - before for before, after in itertools.pairwise(sent)]
        assert len(gaps) >= 30
        assert max(gaps) <= HEARTBEAT_NS


def test_a_new_leader_knows_nothing_of_the_others() -> None:
    """A new leader begins every member at the entry after its own last and believes nothing to
    be stored there (paper figure 2, volatile state on leaders).
    """
    cluster = with_logs({A: [1, 1, 2], B: [1, 1, 2], C: [1]}, term=2)
    cluster.drop = lambda s, t, m: isinstance(m, AppendResponse)
    cluster.stand(A)
    cluster.run(0.01)
    node = cluster.node(A)
    assert node.role is Role.LEADER
    assert {(p.match, p.next) for p in node.state.progress.values()} == {(0, 4)}


# --- timing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_safety_does_not_depend_on_timing(seed: int) -> None:
    """While messages take longer than the election timeout nothing wrong is agreed, and once
    they are quick again a leader stays (paper 5.6).
    """
    cluster = Cluster(ids(3), seed=seed)
    cluster.net.delay_ms = (300, 1500)
    cluster.net.repeat = 100
    for _ in range(40):
        cluster.run(0.5)  # the checker judges every step
        leader = cluster.leader()
        if leader is not None:
            cluster.propose(leader, b"x")
    cluster.converge()
    leader = cluster.leader()
    assert leader is not None
    term = cluster.node(leader).term
    cluster.run(10)
    assert (cluster.leader(), cluster.node(leader).term) == (leader, term)
