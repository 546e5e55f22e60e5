"""Broken nodes: each kind breaks one promise of a cluster, and a drill must condemn it.

``BROKEN`` is the table. Nothing is broken by importing it: :attr:`Breakage.apply` puts the fault
into this process, and ``python -m outlast.testing.broken.node`` does that before a node starts.
All nodes of a cluster run the same broken program, as they would after a bad release.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import msgspec
from crc32c import crc32c

from outlast.cluster import process
from outlast.host import HostStorage, LossyStorage
from outlast.kernel import ConfigError, Storage
from outlast.log.engines.raft.core.quorum import joint_reached
from outlast.log.engines.raft.core.replication import Replication
from outlast.log.engines.raft.core.state import State
from outlast.log.engines.raft.core.types import HardState
from outlast.state import Replica, Reply
from outlast.state.batcher import Answer, Batcher
from outlast.state.context import Context
from outlast.state.core.envelope import decode_command
from outlast.state.core.session import Kept, SessionRow, SessionTable
from outlast.state.runner import Runner
from outlast.state.table import roll_back

FORGOTTEN_OF = 500
"""``forgets-writes`` skips one command in so many."""

Patch = Callable[[Any, str, Any], None]
"""Sets an attribute of a module or class: ``setattr``, or a test's that takes it back."""


@dataclass(frozen=True, slots=True)
class Breakage:
    """One way in which a node is broken.

    Args:
        name: What ``OUTLAST_BROKEN`` and ``--target broken-NAME`` say.
        breaks: The promise that it breaks, in one line.
        condemned_by: Faults likely to show it, the best first; empty when it shows without any.
        apply: Breaks this process, for good unless ``patch`` is one that is taken back.
    """

    name: str
    breaks: str
    condemned_by: tuple[str, ...]
    apply: Callable[[Patch], None]


def find_breakage(name: str) -> Breakage:
    """Return the breakage called ``name``.

    Raises:
        ConfigError: Definite. There is none; near names are offered.
    """
    found = BROKEN.get(name)
    if found is None:
        near = get_close_matches(name, BROKEN, 2, 0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(f"OUTLAST_BROKEN={name}: {hint}There are {', '.join(BROKEN)}")
    return found


def forgetful_storage(name: str) -> Storage:
    """Return a storage that acknowledges every fsync and carries out none."""
    return LossyStorage(HostStorage(), sync_is_noop=True)


def _forget_fsync(patch: Patch) -> None:
    patch(process, "choose_storage", forgetful_storage)


# --- the log ---------------------------------------------------------------------------------


def _acknowledge_early(patch: Patch) -> None:
    """Commit what the leader's own disk has; a majority is only waited for in truth.

    A deposed leader takes its commit index back to what a majority had, so that its log can be
    repaired: the cluster goes on, and what was acknowledged is gone.
    """
    start_term, end_term = Replication.start_term, Replication.end_term
    agreed: dict[int, int] = {}

    def advance_commit(self: Replication) -> None:
        s = self.state
        if s.durable > s.commit and s.durable >= s.term_start:
            self.commit_to(s.durable)
            s.reads.serve_waiting()

    def start(self: Replication) -> None:
        agreed[id(self)] = self.state.commit
        start_term(self)

    def end(self: Replication) -> None:
        s = self.state
        had = joint_reached(self._matches(s.config.voters), self._matches(s.config.old_voters))
        s.commit = min(s.commit, max(had, agreed.pop(id(self), s.commit)))
        end_term(self)

    patch(Replication, "advance_commit", advance_commit)
    patch(Replication, "start_term", start)
    patch(Replication, "end_term", end)


def _forget_vote(patch: Patch) -> None:
    """Begin in the term of the newest entry, without a vote, whatever was written down."""
    init = State.__init__

    def forgetful(self: State, me: Any, settings: Any, recovered: Any, *rest: Any) -> None:
        term = recovered.base_term
        if recovered.last_term is not None:
            term = recovered.last_term
        elif recovered.entries:
            term = recovered.entries[-1].term
        recovered = replace(recovered, hard_state=HardState(term, None))
        init(self, me, settings, recovered, *rest)

    patch(State, "__init__", forgetful)


# --- the state -------------------------------------------------------------------------------


def _read_stale(patch: Patch) -> None:
    """Answer every query from what is applied here, whoever leads."""
    query = Replica.query

    async def stale(
        self: Replica, name: str, args: bytes, consistency: str = "", **more: Any
    ) -> Reply:
        found = await query(self, name, args, "stale", **more)
        return Reply(found.status, found.index, found.digest, found.body)

    patch(Replica, "query", stale)


def _drop_sessions(patch: Patch) -> None:
    """Record no reply and know no request under way, so that a repeat looks like a new one."""
    submit = Batcher.submit

    def keep(self: SessionTable, row: SessionRow, seq: int, kept: Kept) -> None:
        pass

    def submit_anew(self: Batcher, body: bytes, answer: Answer, sessions: SessionTable) -> None:
        with suppress(msgspec.MsgspecError):
            command = decode_command(body)
            self._waiting.pop((command.session, command.seq), None)
        submit(self, body, answer, sessions)

    patch(SessionTable, "keep", keep)
    patch(Batcher, "submit", submit_anew)


def _is_forgotten(context: Context) -> bool:
    return crc32c(context.seed.to_bytes(16, "big")) % FORGOTTEN_OF == 0


def _forget_writes(patch: Patch) -> None:
    """Answer some commands as ever and take back what they did, on every replica alike."""
    execute, commit = Runner.execute, Runner._commit
    forgetting: list[Runner] = []

    def forgetful(self: Runner, name: str, args: bytes, context: Context) -> tuple[int, bytes]:
        if not _is_forgotten(context):
            return execute(self, name, args, context)
        before = {field.name: getattr(self.machine, field.name) for field in self._plain}
        forgetting.append(self)
        try:
            return execute(self, name, args, context)
        finally:
            forgetting.remove(self)
            for field, value in before.items():
                setattr(self.machine, field, value)

    def take_back(self: Runner, undo: Any) -> tuple[bytes, list[Any]]:
        if self not in forgetting:
            return commit(self, undo)
        roll_back(undo)
        return b"", []

    patch(Runner, "execute", forgetful)
    patch(Runner, "_commit", take_back)


BROKEN: dict[str, Breakage] = {
    one.name: one
    for one in (
        Breakage(
            "forgets-fsync",
            "what was acknowledged survives a power cut of all nodes",
            ("crash@all",),
            _forget_fsync,
        ),
        Breakage(
            "acks-early",
            "what was acknowledged is on a majority of nodes",
            ("partition:isolate@leader", "partition:halves@leader", "partition:one-way@leader"),
            _acknowledge_early,
        ),
        Breakage(
            "forgets-vote",
            "a node votes once in a term, and its term never goes back",
            ("crash@follower", "crash@all"),
            _forget_vote,
        ),
        Breakage(
            "stale-reads",
            "a read sees every write that was acknowledged before it began",
            ("partition:isolate@leader", "partition:halves@leader", "pause@follower"),
            _read_stale,
        ),
        Breakage(
            "drops-sessions",
            "a command that is sent again is applied once",
            ("partition:one-way@leader", "link:reset", "crash@leader"),
            _drop_sessions,
        ),
        Breakage(
            "forgets-writes",
            "what was acknowledged took effect",
            (),
            _forget_writes,
        ),
    )
}
"""Every kind of broken node, by name."""
