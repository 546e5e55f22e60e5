"""Mutants of membership and of snapshots in the Raft core."""

from tools.mutants.table import Edit, mutant

_CORE = "log/engines/raft/core"
_MEMBERS = f"{_CORE}/membership.py"
_SNAPSHOT = f"{_CORE}/snapshot.py"
_STATE = f"{_CORE}/state.py"

MEMBERSHIP = (
    mutant(
        "learner-counted-in-quorum", f"{_CORE}/replication.py",
        "        index = joint_reached(self._matches(s.config.voters),"
        " self._matches(s.config.old_voters))\n",
        "        everyone = tuple(member.replica for member in s.config.members)\n"
        "        values = sorted(self._matches(everyone), reverse=True)\n"
        "        index = values[len(s.config.voters) // 2]\n",
        breaks="A learner's disk counts for nothing", section="thesis 4.2.1",
        black_box=True, faults="crash while a learner catches up",
    ),
    mutant(
        "old-majority-forgotten", f"{_CORE}/quorum.py",
        "    return min(reached(voters), reached(old_voters))\n",
        "    return reached(voters)\n",
        breaks="During a change an entry needs both majorities", section="Raft 6",
        faults="cut during a membership change",
    ),
    mutant(
        "members-change-in-one-step", _MEMBERS,
        "        if set(config.voters) != set(s.config.voters):\n",
        "        if not config.voters:\n",
        breaks="No two majorities without a common member: voters change jointly",
        section="Raft 6, figure 10", faults="cut during a change of several members",
    ),
    mutant(
        "joint-members-left-early", _MEMBERS,
        "        if s.role is not Role.LEADER or s.config_index > s.commit:\n",
        "        if s.role is not Role.LEADER:\n",
        breaks="The final members are written once the joint ones are committed, and once",
        section="Raft 6, figure 11", faults="cut during a membership change",
    ),
    mutant(
        "two-changes-at-once", _MEMBERS,
        "        if s.commit < s.term_start or s.config_index > s.commit or s.config.joint:\n",
        "        if s.commit < s.term_start:\n",
        breaks="A change begins only when the one before is final", section="Raft 6",
        faults="changes asked for during a change",
        more=(
            Edit(
                _MEMBERS,
                "        if self.change is not None and self.change.switched:\n",
                "        if self.change is not None and not self.change.members:\n",
            ),
        ),
    ),
    mutant(
        "change-based-on-older-members", _MEMBERS,
        "        if event.expect_version != s.config.version:\n",
        "        if event.expect_version > s.config.version:\n",
        breaks="A change that was made for other members is refused: it is not applied twice",
        section="log interface, change_members", faults="a change repeated after a timeout",
    ),
    mutant(
        "members-change-on-commit", _MEMBERS,
        "        before = s.config\n        s.config_index, s.config = s.configs[-1]\n",
        "        before = s.config\n"
        "        if s.role is not Role.LEADER and s.configs[-1][0] > s.commit:\n"
        "            return\n"
        "        s.config_index, s.config = s.configs[-1]\n",
        breaks="Members hold as soon as they are in the log, committed or not",
        section="Raft 6", faults="crash of a leader during a change",
        more=(
            Edit(
                _MEMBERS,
                "        s.mark()\n        before = s.configs[-2]",
                "        self.activate()\n        s.mark()\n        before = s.configs[-2]",
            ),
        ),
    ),
    mutant(
        "truncated-members-stay", _STATE,
        "            self.configs = [item for item in self.configs if item[0] < index]\n"
        "            self.members.activate()\n",
        "            self.configs = [item for item in self.configs if item[0] < index]\n",
        breaks="Members are taken back with the entry that brought them", section="Raft 6",
        faults="crash of a leader during a change",
    ),
)  # fmt: skip

SNAPSHOTS = (
    mutant(
        "snapshot-forgets-members", _STATE,
        "        self.configs = [(index, config)]\n",
        "        self.configs = [(index, self.config)]\n",
        breaks="A snapshot carries the members at its index", section="Raft 7",
        faults="a member far behind during a membership change",
    ),
    mutant(
        "snapshot-installed-incomplete", _SNAPSHOT,
        "        if event.next_chunk < event.ref.chunk_count:\n",
        "        if event.next_chunk + 1 < event.ref.chunk_count:\n",
        breaks="A snapshot is installed once all of it is there", section="Raft 7, figure 13",
        faults="a member far behind",
    ),
    mutant(
        "lost-tail-taken-for-a-reset", f"{_CORE}/node.py",
        "        elif s.configs[0][0] == s.snapshot.index:",
        "        elif s.log.term_at(s.snapshot.index) is None:",
        breaks="A snapshot that is ahead of a log which lost its end does not replace the log",
        section="Raft 7 (recovery is ours)", faults="power cut after a checkpoint",
    ),
    mutant(
        "snapshot-names-a-higher-index", _SNAPSHOT,
        "                s.term, ref.index, ref.term, ref.size_bytes, ref.digest,"
        " ref.chunk_count,\n",
        "                s.term, ref.index + 1, ref.term, ref.size_bytes, ref.digest,"
        " ref.chunk_count,\n",
        breaks="A snapshot covers the entries through its index and no further",
        section="Raft 7", faults="a member far behind",
    ),
)  # fmt: skip
