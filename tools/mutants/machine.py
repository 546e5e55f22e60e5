"""Mutants of the state on top of the log: sessions, system machine, snapshots of the state."""

from tools.mutants.table import Edit, mutant

_SESSION = "state/core/session.py"
_SYSTEM = "state/core/system.py"
_REPEAT = (
    "        kept = row.replies.get(seq)\n"
    "        if kept is not None:\n"
    "            return _repeat("
)
_UNKNOWN = "        if row is None:\n            return refusal(expired(session), index, print_)\n"

SESSIONS = (
    mutant(
        "replies-not-recorded", _SYSTEM,
        "            keep(row, command.seq, kept)\n",
        "            keep(row, 0, kept)\n",
        breaks="A repeated command is answered from the session and applied once",
        section="Raft 8, thesis 6.3", black_box=True, faults="answers lost",
    ),
    mutant(
        "replies-forgotten-at-failover", _SYSTEM,
        "            case TakeEpoch(role, expect, holder):\n",
        "            case TakeEpoch(role, expect, holder):\n"
        "                for row in self.sessions.rows():\n"
        "                    row.replies.clear()\n",
        breaks="A command repeated at a new leader is applied once",
        section="Raft 8, thesis 6.3", black_box=True, faults="crash of a leader, repeats",
    ),
    mutant(
        "repeat-below-the-window-runs-again", _SESSION,
        "        if seq < row.ack_below:\n"
        "            return refusal(_stale(session, seq, row.ack_below), index, print_)\n",
        "        if seq < 0:\n"
        "            return refusal(_stale(session, seq, row.ack_below), index, print_)\n",
        breaks="A late copy of an answered command is not run again", section="thesis 6.3",
        black_box=True, faults="messages delayed past the answer to a repeat",
    ),
    mutant(
        "unknown-session-is-opened", _SESSION,
        _UNKNOWN,
        '        if row is None:\n'
        '            self.register(session, 0, "", now_ns)\n'
        '            row = self._rows[session]\n',
        breaks="A command of an expired session is refused, not run as new",
        section="thesis 6.3", black_box=True, faults="sessions expire or are evicted",
    ),
    mutant(
        "reply-of-the-request-before", _SESSION,
        _REPEAT,
        "        kept = row.replies.get(seq) or row.replies.get(seq - 1)\n"
        "        if kept is not None:\n"
        "            return _sendable(session, seq, kept) or _repeat(",
        breaks="Each request gets its own answer", section="thesis 6.3", black_box=True,
        faults="several requests under way",
    ),
    mutant(
        "repeat-answered-as-the-last-one", _SESSION,
        "        row = self._rows.get(session)\n"
        "        kept = None if row is None else row.replies.get(seq)\n"
        "        return None if kept is None else"
        " _repeat(session, seq, kept, print_, kept.index)\n",
        "        row = self._rows.get(session)\n"
        "        kept = None if row is None else row.replies.get(max(row.replies, default=0))\n"
        "        return None if kept is None else _sendable(session, seq, kept)\n",
        breaks="A repeat gets the answer of the request that it repeats", section="thesis 6.3",
        black_box=True, faults="answers lost, several requests under way",
    ),
    mutant(
        "sessions-lost-in-snapshot", _SYSTEM,
        "        self.sessions.restore(state.sessions)\n",
        "        self.sessions.restore([])\n",
        breaks="A snapshot carries the sessions", section="Raft 8, thesis 6.3", black_box=True,
        faults="restart or install from a snapshot",
    ),
    mutant(
        "replies-lost-in-snapshot", _SESSION,
        "        self._rows = OrderedDict((row.id, row) for row in rows)\n",
        "        for row in rows:\n"
        "            row.replies.clear()\n"
        "        self._rows = OrderedDict((row.id, row) for row in rows)\n",
        breaks="A snapshot carries the answers that sessions hold", section="Raft 8, thesis 6.3",
        black_box=True, faults="restart or install from a snapshot, repeats",
    ),
    mutant(
        "session-order-lost-in-snapshot", _SESSION,
        "        self._rows = OrderedDict((row.id, row) for row in rows)\n",
        "        rows = sorted(rows, key=lambda row: row.id)\n"
        "        self._rows = OrderedDict((row.id, row) for row in rows)\n",
        breaks="All replicas evict the same session, from a snapshot or not",
        section="thesis 6.3", black_box=True, faults="restart from a snapshot, many sessions",
    ),
    mutant(
        "keys-lost-in-snapshot", _SYSTEM,
        "        self.keys.restore(state.keys)\n",
        "        self.keys.restore([])\n",
        breaks="A snapshot carries the idempotency keys", section="sessions (ours)",
        black_box=True, faults="restart or install from a snapshot, keyed repeats",
    ),
    mutant(
        "log-time-lost-in-snapshot", _SYSTEM,
        "        self.time = LogTime(state.log_time_ns, state.wall_ns)\n",
        "        self.time = LogTime()\n",
        breaks="All replicas expire a session at the same entry, from a snapshot or not",
        section="log time (ours)", black_box=True, faults="restart from a snapshot",
    ),
    mutant(
        "session-expiry-by-local-clock", "state/applier.py",
        "        applied = self._system.apply(index, header, body, self._take_changes)\n",
        "        header = header._replace(log_time_ns=self._world.clock.monotonic_ns())\n"
        "        applied = self._system.apply(index, header, body, self._take_changes)\n",
        breaks="Sessions expire by log time, at the same entry on all replicas",
        section="log time (ours)", level="cluster", black_box=True,
        faults="clock skew, short sessions",
    ),
    mutant(
        "answers-handed-out-shifted", "state/batcher.py",
        "        for command, kept in zip(commands, replies, strict=True):\n",
        "        for command, kept in zip(commands, reversed(replies), strict=True):\n",
        breaks="Each command of an entry gets its own answer", section="batching (ours)",
        level="cluster", black_box=True, faults="none: many clients at once",
    ),
)  # fmt: skip

REPLICA = (
    mutant(
        "applied-before-commit", "log/engines/raft/engine.py",
        "        if driver.sealed is None:\n            return driver.commit\n",
        "        if driver.sealed is None:\n            return LogIndex(driver.store.last)\n",
        breaks="Only what is committed is applied and answered", section="Raft 5.3",
        level="cluster", black_box=True, faults="a leader that is cut off",
    ),
    mutant(
        "read-before-applied", "state/reads.py",
        "        await self._applier.wait(index)\n",
        "",
        breaks="A read waits until all that was committed before it is applied here",
        section="thesis 6.4, step 4", level="cluster", black_box=True,
        faults="crash of a leader: the new one has not applied all",
    ),
    mutant(
        "read-joins-a-running-round", "state/reads.py",
        "        for future in asked:\n"
        "            if not future.done():\n"
        "                future.set_result(tail - 1)",
        "        for future in [*asked, *self._next]:\n"
        "            if not future.done():\n"
        "                future.set_result(tail - 1)",
        breaks="A read is not answered by a round that began before it", section="thesis 6.4",
        level="cluster", black_box=True, faults="latency between nodes",
    ),
    mutant(
        "snapshot-without-its-index", _SYSTEM,
        "        self.index, self.digest = state.index, state.digest\n",
        "        self.digest = state.digest\n",
        breaks="A replica that starts from a snapshot goes on behind it", section="Raft 7",
        level="cluster", black_box=True, faults="restart after a checkpoint",
    ),
    mutant(
        "snapshot-index-one-too-high", "state/snapshotter.py",
        "        index = LogIndex(self._system.index)\n        if self._busy",
        "        index = LogIndex(self._system.index + 1)\n        if self._busy",
        breaks="A snapshot covers the entries through its index and no further",
        section="Raft 7", level="cluster", black_box=True,
        faults="restart after a checkpoint, a member far behind",
    ),
    mutant(
        "checkpoint-sees-later-commands", "state/runner.py",
        "                    if shadow:\n",
        "                    if shadow and not name:\n",
        breaks="A checkpoint holds the state at its index, while commands go on",
        section="Raft 7 (copy on write)", level="cluster", black_box=True,
        faults="checkpoints under load, restart",
    ),
    mutant(
        "checkpoint-not-synced", "state/snapshot_store.py",
        "    def _sync(self, file: File) -> None:\n        file.fsync()\n",
        "    def _sync(self, file: File) -> None:\n        file.size()\n",
        breaks="The log goes below a checkpoint only once that is on disk", section="Raft 7",
        level="cluster", black_box=True, faults="power cut after a checkpoint",
    ),
    mutant(
        "log-trimmed-before-the-checkpoint-is-whole", "state/snapshotter.py",
        "        self._busy = True\n        spec = self._runner.spec\n",
        "        self._busy = True\n"
        "        trim = self._log.trim(LogIndex(index + 1))\n"
        '        self._world.spawn.task(trim, name="state-trim")\n'
        "        spec = self._runner.spec\n",
        breaks="The log is trimmed only as far as a checkpoint reaches that was read back",
        section="Raft 7", level="cluster", black_box=True,
        faults="a full or failing disk during a checkpoint, then a crash",
        more=(
            Edit(
                "log/engines/raft/engine.py",
                "min(self.through, driver.transfers.covered) + 1)",
                "self.through + 1)",
            ),
        ),
    ),
)  # fmt: skip
