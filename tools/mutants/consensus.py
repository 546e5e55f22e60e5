"""Mutants of the Raft core: elections, replication, commitment, reads."""

from tools.mutants.table import Edit, mutant

_CORE = "log/engines/raft/core"
_ELECTION = f"{_CORE}/election.py"
_REPLICATION = f"{_CORE}/replication.py"
_READS = f"{_CORE}/reads.py"
_STATE = f"{_CORE}/state.py"

ELECTION = (
    mutant(
        "vote-not-persisted", _STATE,
        "            self.persist().hard_state = self.hard_wanted = HardState(Term(term), vote)\n",
        "            self.hard_wanted = HardState(Term(term), vote)\n"
        "            self.persist().hard_state = HardState(Term(term), None)\n",
        breaks="A vote outlives a restart: one vote per term",
        section="Raft 5.2, figure 2", faults="crash between two requests of one term",
    ),
    mutant(
        "vote-forgotten-at-restart", _STATE,
        "self.vote: ReplicaId | None = recovered.hard_state.vote",
        "self.vote: ReplicaId | None = None",
        breaks="A restarted node remembers the vote on its disk",
        section="Raft 5.2, figure 2", faults="crash between two requests of one term",
    ),
    mutant(
        "said-before-durable", _STATE,
        "        if self.hard_ticket > self.durable_ticket:\n"
        "            self.out.send_after_durable",
        "        if self.hard_ticket < 0:\n"
        "            self.out.send_after_durable",
        breaks="Votes and terms leave only once they are on disk",
        section="Raft figure 2", faults="power cut with a write under way",
    ),
    mutant(
        "second-vote-in-a-term", _ELECTION,
        "            and s.vote in (None, sender)\n"
        "            and s.leader is None\n"
        "            and self.up_to_date(request)\n"
        "        )\n"
        "        if granted:\n",
        "            and s.leader is None\n"
        "            and self.up_to_date(request)\n"
        "        )\n"
        "        if granted and s.vote in (None, sender):\n",
        breaks="A node gives one vote per term, first come first served",
        section="Raft 5.2", faults="two candidates of one term",
    ),
    mutant(
        "vote-counted-twice", _ELECTION,
        "        self.votes.setdefault(voter, granted)\n",
        "        silent = [v for v in s.config.voters if v not in self.votes]\n"
        "        self.votes[silent[0] if voter in self.votes and silent else voter] = granted\n",
        breaks="Voters are counted, not answers: a repeated message is no second vote",
        section="Raft 5.2", faults="messages repeated",
    ),
    mutant(
        "vote-for-any-log", _ELECTION,
        "        return (request.last_term, request.last_index)"
        " >= (log.last_term, log.last_index)\n",
        "        return bool(log)\n",
        breaks="Only a candidate with an up-to-date log gets a vote",
        section="Raft 5.4.1", black_box=True, faults="elections while a member is behind",
    ),
    mutant(
        "vote-compares-terms-only", _ELECTION,
        "        return (request.last_term, request.last_index)"
        " >= (log.last_term, log.last_index)\n",
        "        return request.last_term >= log.last_term\n",
        breaks="Of two logs that end in the same term the longer is more up to date",
        section="Raft 5.4.1", black_box=True, faults="elections while a member is behind",
    ),
    mutant(
        "vote-compares-length-only", _ELECTION,
        "        return (request.last_term, request.last_index)"
        " >= (log.last_term, log.last_index)\n",
        "        return request.last_index >= log.last_index\n",
        breaks="A longer log of an older term is not more up to date",
        section="Raft 5.4.1", faults="an isolated leader that goes on appending",
    ),
    mutant(
        "votes-of-old-members-forgotten", f"{_CORE}/quorum.py",
        "    return VoteResult.WON if new is old is VoteResult.WON else VoteResult.PENDING\n",
        "    return new\n",
        breaks="During a change an election needs both majorities",
        section="Raft 6", faults="election during a membership change",
    ),
)  # fmt: skip

REPLICATION = (
    mutant(
        "older-term-committed-by-counting", _REPLICATION,
        "        if index > s.commit and index >= s.term_start:\n",
        "        if index > s.commit:\n",
        breaks="Entries of older terms are committed only along with one of the own term",
        section="Raft 5.4.2, figure 8", faults="leaders that crash right after an election",
    ),
    mutant(
        "majority-counted-one-short", f"{_CORE}/quorum.py",
        "    return count // 2 + 1\n",
        "    return (count + 1) // 2\n",
        breaks="Half of an even number of voters is no majority",
        section="Raft 5.2", faults="cuts while the number of voters is even",
    ),
    mutant(
        "acknowledged-before-durable", _REPLICATION,
        "        match = min(s.durable, self.verified)\n        self.acknowledged",
        "        match = self.verified\n        self.acknowledged",
        breaks="A follower acknowledges what is on its disk, not what is on its way there",
        section="Raft 5.3, figure 2", black_box=True, faults="power cut",
    ),
    mutant(
        "leader-counts-itself-early", _REPLICATION,
        "        return [s.durable if v == s.me else",
        "        return [s.log.last_index if v == s.me else",
        breaks="A leader's own disk counts like any other member's",
        section="thesis 10.2.1", black_box=True, faults="power cut of a leader",
    ),
    mutant(
        "log-matching-not-checked", _REPLICATION,
        "        if previous >= s.commit and s.log.term_at(previous) != request.previous_term:\n",
        "        if previous < 0:\n",
        breaks="Entries are taken only behind an entry that both logs have",
        section="Raft 5.3", faults="messages lost or reordered",
    ),
    mutant(
        "previous-term-not-compared", _REPLICATION,
        "        if previous >= s.commit and s.log.term_at(previous) != request.previous_term:\n",
        "        if previous >= s.commit and s.log.term_at(previous) is None:\n",
        breaks="The entry before must have the same term, not only the same index",
        section="Raft 5.3", black_box=True, faults="an isolated leader that comes back",
    ),
    mutant(
        "truncated-without-conflict", _REPLICATION,
        "            if s.log.term_at(entry.index) != entry.term:\n",
        "            if s.log.term_at(entry.index) is not None:\n",
        breaks="A late, shorter request does not cut off entries that agree with it",
        section="Raft 5.3, figure 2", faults="messages delayed and reordered",
    ),
    mutant(
        "truncated-below-commit", _REPLICATION,
        "            self._take(entries, max(previous, s.commit))\n",
        "            self._take(entries, previous)\n",
        breaks="What is committed is never cut off",
        section="Raft 5.4, state machine safety", faults="messages delayed and reordered",
        more=(
            Edit(
                _REPLICATION,
                "            if s.log.term_at(entry.index) != entry.term:\n",
                "            if entries[-1].index < s.log.last_index:\n",
            ),
            Edit(_STATE, "        invariant(index > self.commit, f", "        invariant(True, f"),
        ),
    ),
    mutant(
        "follower-commits-what-it-has", _REPLICATION,
        "        commit = min(request.commit, last)\n",
        "        commit = min(request.commit, s.log.last_index)\n",
        breaks="A follower commits only as far as its log is known to equal the leader's",
        section="Raft figure 2 (index of last new entry)", black_box=True,
        faults="a follower with a stale tail hears a heartbeat",
        more=(
            Edit(_REPLICATION, "entries, min(s.commit, last), s.r", "entries, s.commit, s.r"),
            Edit(
                _REPLICATION,
                "        commit = min(s.commit, previous)\n",
                "        commit = s.commit\n",
            ),
        ),
    ),
    mutant(
        "follower-commits-what-it-gets", _REPLICATION,
        "        commit = min(request.commit, last)\n",
        "        commit = last\n",
        breaks="A follower commits what the leader has committed, not what it sends",
        section="Raft 5.3", black_box=True, faults="a leader that is cut off",
    ),
    mutant(
        "commit-index-goes-back", _REPLICATION,
        "        if commit > s.commit:\n            self.commit_to(commit)\n"
        "        if not entries",
        "        if commit > s.commit:\n            self.commit_to(commit)\n"
        "        s.commit = commit\n"
        "        if not entries",
        breaks="The commit index only grows", section="Raft figure 2",
        faults="messages delayed and reordered",
    ),
    mutant(
        "match-of-an-older-term-counts", _REPLICATION,
        "        self.verified = self.acknowledged = 0\n",
        "        self.acknowledged = 0\n",
        breaks="In a new term nothing of the leader's log is known but what is committed",
        section="Raft 5.3", black_box=True, faults="a change of leader while logs differ",
    ),
    mutant(
        "durable-index-outlives-truncation", _STATE,
        "        self.durable = min(self.durable, index)\n",
        "",
        breaks="An entry that replaces another is not durable because that one was",
        section="Raft 5.3", faults="power cut soon after a conflicting tail was dropped",
    ),
    mutant(
        "older-write-counts-for-newer-entry", _STATE,
        "deque((ticket, min(last, index)) for ticket, last in self.writing)",
        "deque(self.writing)",
        breaks="A write that ends after a truncation says nothing of the entries put in place",
        section="Raft 5.3", faults="slow disk and a conflicting tail",
    ),
    mutant(
        "sealed-log-takes-entries", _REPLICATION,
        "        if s.sealed is not None:\n            return _sealed(*s.sealed)\n",
        "",
        breaks="A log whose seal is committed takes no more entries",
        section="log interface, seal", faults="proposals behind a seal",
    ),
    mutant(
        "last-seal-wins", _REPLICATION,
        "        index = s.seals[0]\n        entry",
        "        index = max(seal for seal in s.seals if seal <= s.commit)\n        entry",
        breaks="Of two seals the first one in the log counts, on every replica",
        section="log interface, seal", faults="two seals at once",
    ),
)  # fmt: skip

READS = (
    mutant(
        "read-without-round", _READS,
        "        elif self.leased():\n",
        "        elif s.commit >= s.term_start:\n",
        breaks="A leader answers a read only once a quorum still follows it",
        section="thesis 6.4", black_box=True, faults="a leader that is cut off or paused",
    ),
    mutant(
        "older-round-proves-younger-read", _READS,
        "        while self.asked and self.asked[0][0] <= answered:\n",
        "        while self.asked and self.asked[0][0] <= answered + 1:\n",
        breaks="An answer to a round from before a read proves nothing for it",
        section="thesis 6.4", black_box=True, faults="slow answers and a leader that is cut off",
    ),
    mutant(
        "read-before-own-term", _READS,
        "        if self.waiting and s.commit >= s.term_start:\n",
        "        if self.waiting:\n",
        breaks="A new leader reads only behind the first entry of its own term",
        section="thesis 6.4, step 1", black_box=True, faults="reads right after an election",
        more=(
            Edit(
                _READS,
                "        if self.waiting and not self.asked"
                " and self.state.commit >= self.state.term_start:\n",
                "        if self.waiting and not self.asked:\n",
            ),
        ),
    ),
    mutant(
        "lease-ignores-drift", _READS,
        "int(state.timeout_ns * (1 - state.settings.lease_drift))",
        "int(state.timeout_ns)",
        breaks="A lease is shorter than the promise by what clocks may differ",
        section="thesis 6.4.1", faults="clock drift and a leader that is cut off",
    ),
    mutant(
        "lease-counted-from-the-answer", _READS,
        "            self.lease_start = self.starts.popleft()[1]\n",
        "            self.lease_start = self.starts.popleft()[1] and s.now\n",
        breaks="A lease begins when the round was sent, not when it was answered",
        section="thesis 6.4.1", faults="slow answers and a leader that is cut off",
    ),
    mutant(
        "lease-outlives-transfer", _READS,
        "            and not s.election.lease_spoiled\n",
        "",
        breaks="A leader that hands over has no lease any more",
        section="thesis 6.4.1 and 3.10 (openraft #1749)", faults="hand-over",
    ),
    mutant(
        "lease-promise-forgotten-at-restart", _ELECTION,
        "        if s.settings.lease_reads and s.now - self.started_ns < s.timeout_ns:\n",
        "        if s.settings.lease_reads and s.now < self.started_ns:\n",
        breaks="A follower that restarts keeps the promise not to vote against a lease",
        section="thesis 6.4.1", faults="crash of followers, the leader cut off",
    ),
    mutant(
        "lease-promise-ends-with-connection", _ELECTION,
        " and s.role is Role.FOLLOWER and not s.settings.lease_reads:\n",
        " and s.role is Role.FOLLOWER:\n",
        breaks="The promise not to vote against a lease outlasts a broken connection",
        section="thesis 6.4.1", faults="connections reset, lease reads on",
    ),
)  # fmt: skip
