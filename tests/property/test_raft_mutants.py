"""Known bugs of Raft implementations, planted one by one: the random runs must find each.

If a mutant survives, the harness is not finished. Each is a small replacement of one rule.
"""

from collections.abc import Callable
from typing import Any

import pytest

from outlast.kernel import InvariantError, LogIndex, ReplicaId, Term
from outlast.log.engines.raft.core import election, replication
from outlast.log.engines.raft.core.config import Config
from outlast.log.engines.raft.core.election import Election
from outlast.log.engines.raft.core.membership import MembershipRules
from outlast.log.engines.raft.core.quorum import majority, reached, votes_of
from outlast.log.engines.raft.core.reads import Reads
from outlast.log.engines.raft.core.replication import Replication
from outlast.log.engines.raft.core.snapshot import Snapshots
from outlast.log.engines.raft.core.state import State
from outlast.log.engines.raft.core.types import (
    AppendResponse,
    ChunkStored,
    HardState,
    Role,
    TailReady,
)
from tests.support.raft_disk import BrokenError
from tests.support.raft_storm import storm

SEEDS_MAX = 400


def vote_not_persisted(patch: pytest.MonkeyPatch) -> None:
    """The vote lives in memory only: after a restart it is given again (PySyncObj #201)."""

    def set_hard_state(self: State, term: int, vote: ReplicaId | None) -> None:
        self.term, self.vote = term, vote
        self.persist().hard_state = HardState(Term(term), None)
        self.hard_ticket = self.ticket

    patch.setattr(State, "set_hard_state", set_hard_state)


def said_before_durable(patch: pytest.MonkeyPatch) -> None:
    """Votes leave before they are on disk."""
    patch.setattr(State, "send", lambda self, to, m: self.out.send_now.append((to, m)))


def vote_counted_twice(patch: pytest.MonkeyPatch) -> None:
    """Answers are counted, not voters: a repeated message is a second vote."""
    original = Election.count

    def count(self: Election, voter: ReplicaId, *, granted: bool) -> None:
        tally = getattr(self, "tally", (0, 0))
        key = self.state.term * 2 + (self.state.role is Role.PRE_CANDIDATE)
        grants = (tally[1] if tally[0] == key else 0) + granted
        self.tally = (key, grants)  # type: ignore[attr-defined]
        if grants >= majority(len(self.state.config.voters)):
            config = self.state.config
            self.votes.update(dict.fromkeys((*config.voters, *config.old_voters), True))
        original(self, voter, granted=granted)

    patch.setattr(Election, "count", count)


def any_log_will_do(patch: pytest.MonkeyPatch) -> None:
    """Votes go to candidates that lack committed entries (5.4.1 forgotten)."""
    patch.setattr(Election, "up_to_date", lambda self, request: True)


def commits_older_terms(patch: pytest.MonkeyPatch) -> None:
    """A majority of copies commits an entry of an older term (figure 8)."""

    def advance_commit(self: Replication) -> None:
        s = self.state
        index = reached(self._matches(s.config.voters))
        if index > s.commit:
            self.commit_to(index)

    patch.setattr(Replication, "advance_commit", advance_commit)


def acknowledged_before_durable(patch: pytest.MonkeyPatch) -> None:
    """A follower answers for what is only written."""

    def answer(self: Replication, leader: ReplicaId) -> None:
        s = self.state
        self.acknowledged = self.verified
        s.send(leader, AppendResponse(s.term, True, self.verified, 0, 0, self.round))

    patch.setattr(Replication, "answer", answer)


def leader_counts_itself_early(patch: pytest.MonkeyPatch) -> None:
    """A leader counts its own entries before its disk has them."""

    def matches(self: Replication, voters: tuple[ReplicaId, ...]) -> list[int]:
        s = self.state
        return [s.log.last_index if v == s.me else s.progress[v].match for v in voters]

    patch.setattr(Replication, "_matches", matches)


def learner_in_quorum(patch: pytest.MonkeyPatch) -> None:
    """A learner's acknowledgement counts like a voter's."""

    def advance_commit(self: Replication) -> None:
        s = self.state
        everyone = tuple(member.replica for member in s.config.members)
        values = sorted(self._matches(everyone), reverse=True)
        index = values[majority(len(s.config.voters)) - 1]
        if index > s.commit and index >= s.term_start:
            self.commit_to(index)

    patch.setattr(Replication, "advance_commit", advance_commit)


def truncates_without_conflict(patch: pytest.MonkeyPatch) -> None:
    """A late, shorter request cuts off entries that do not conflict with it."""

    def take(self: Replication, entries: list[Any], known: int) -> None:
        s = self.state
        fresh = [entry for entry in entries if entry.index > known]
        if fresh and fresh[0].index <= s.log.last_index:
            s.truncate(fresh[0].index)
        if fresh:
            s.append(fresh)

    patch.setattr(Replication, "_take", take)


def previous_not_compared(patch: pytest.MonkeyPatch) -> None:
    """The consistency check of 5.3 looks at the index only."""
    original = Replication.on_append_request

    def on_append_request(self: Replication, sender: ReplicaId, request: Any) -> None:
        term = self.state.log.term_at(request.previous_index)
        if term is not None:
            fields = {f: getattr(request, f) for f in request.__struct_fields__}
            request = type(request)(**{**fields, "previous_term": term})
        original(self, sender, request)

    patch.setattr(Replication, "on_append_request", on_append_request)


def old_majority_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A joint configuration commits with the new majority alone."""
    patch.setattr(replication, "joint_reached", lambda voters, old: reached(voters))
    patch.setattr(election, "joint_votes", lambda voters, old, votes: votes_of(voters, votes))


def no_joint_step(patch: pytest.MonkeyPatch) -> None:
    """Members change in one step, whatever they are (the flaw that joint consensus avoids)."""

    def switch(self: MembershipRules) -> None:
        s = self.state
        change = self.change
        if change is not None and not change.switched and s.role is Role.LEADER:
            change.switched = True
            self._append(Config(s.config.version + 1, change.members))

    patch.setattr(MembershipRules, "_switch_if_ready", switch)


def reads_without_round(patch: pytest.MonkeyPatch) -> None:
    """A leader answers reads from its own belief that it leads."""

    def ask(self: Reads, event: Any) -> None:
        s = self.state
        if s.role is Role.LEADER:
            s.out.answers.append(TailReady(event.ticket, LogIndex(s.commit)))

    patch.setattr(Reads, "ask", ask)


def reads_before_own_term(patch: pytest.MonkeyPatch) -> None:
    """A new leader answers reads before it knows the commit index of its predecessor."""

    def begin_round(self: Reads, *, wanted: bool) -> None:
        s = self.state
        self.round += 1
        self.starts.append((self.round, s.now))
        if self.waiting:
            self.asked.append((self.round, s.commit, self.waiting))
            self.waiting = []
            self.wanted = self.round
        self.on_answer()

    def serve(self: Reads) -> None:
        if self.waiting and not self.asked:
            self.begin_round(wanted=True)

    patch.setattr(Reads, "begin_round", begin_round)
    patch.setattr(Reads, "serve_waiting", serve)


def lease_outlives_transfer(patch: pytest.MonkeyPatch) -> None:
    """Lease reads go on while leadership is handed over (openraft #1749)."""

    def leased(self: Reads) -> bool:
        s = self.state
        return (
            s.settings.lease_reads
            and self.lease_start is not None
            and s.commit >= s.term_start
            and s.now - self.lease_start < self.lease_ns
        )

    patch.setattr(Reads, "leased", leased)


def installs_incomplete_snapshot(patch: pytest.MonkeyPatch) -> None:
    """The last chunk is not waited for."""
    original = Snapshots.on_stored

    def on_stored(self: Snapshots, event: ChunkStored) -> None:
        original(self, ChunkStored(event.ref, event.next_chunk + 1))

    patch.setattr(Snapshots, "on_stored", on_stored)


def snapshot_forgets_members(patch: pytest.MonkeyPatch) -> None:
    """A node that installs a snapshot keeps the members that it knew before."""
    original = State.reset

    def reset(self: State, index: int, term: int, config: Config) -> None:
        original(self, index, term, self.config)

    patch.setattr(State, "reset", reset)


def members_change_on_commit(patch: pytest.MonkeyPatch) -> None:
    """Followers take a configuration into use when it is committed, not when it is there."""
    original = MembershipRules.activate

    def activate(self: MembershipRules) -> None:
        s = self.state
        if s.role is Role.LEADER or s.configs[-1][0] <= s.commit:
            original(self)

    patch.setattr(MembershipRules, "activate", activate)


MUTANTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    vote_not_persisted,
    said_before_durable,
    vote_counted_twice,
    any_log_will_do,
    commits_older_terms,
    acknowledged_before_durable,
    leader_counts_itself_early,
    learner_in_quorum,
    truncates_without_conflict,
    previous_not_compared,
    old_majority_forgotten,
    no_joint_step,
    reads_without_round,
    reads_before_own_term,
    lease_outlives_transfer,
    installs_incomplete_snapshot,
    snapshot_forgets_members,
    members_change_on_commit,
)


def seeds_to_kill(seeds_max: int = SEEDS_MAX) -> tuple[int, str] | None:
    """Return the first seed that fails and why, or ``None`` if all pass."""
    for seed in range(seeds_max):
        try:
            storm(seed)
        except (BrokenError, InvariantError) as error:
            return seed, str(error)
    return None


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_planted_bug_is_found(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    assert seeds_to_kill() is not None, f"{mutant.__name__} survived {SEEDS_MAX} seeds"
