"""Judges the node-level Raft harness: the promises of Raft (paper figure 3), after every step."""

from outlast.kernel import ReplicaId
from outlast.log.engines.raft.core.config import Config
from outlast.log.engines.raft.core.node import RaftNode
from outlast.log.engines.raft.core.types import (
    AnyMessage,
    AppendRequest,
    AppendResponse,
    Entry,
    Persist,
    Role,
    VoteRequest,
    VoteResponse,
)
from tests.support.raft_disk import BrokenError, Host


class Checker:
    """Knows everything that was ever written, committed and said.

    ``spy=False`` judges outcomes only, not the messages themselves.
    """

    def __init__(self, *, spy: bool = True) -> None:
        self.spy = spy
        self.leaders: dict[int, ReplicaId] = {}
        self.seen: dict[tuple[int, int], tuple[int | None, int, bytes]] = {}
        self.committed: list[Entry] = []
        self.commit_terms: list[int] = []
        self.grants: dict[tuple[ReplicaId, int], ReplicaId] = {}
        self.said: dict[ReplicaId, int] = {}
        self.asked: dict[int, int] = {}
        self.configs: dict[int, Config] = {}

    def on_write(self, host: Host, write: Persist, role: Role) -> None:
        """Log matching, leader append-only."""
        if role is Role.LEADER and write.truncate_from is not None:
            raise BrokenError(f"leader append-only: {host.replica} dropped its own entries")
        previous: int | None = None
        if write.entries and write.truncate_from is None and write.reset_to is None:
            previous = host.written.term_at(write.entries[0].index - 1)
        for entry in write.entries:
            mine = (previous, entry.kind, entry.payload)
            known = self.seen.setdefault((entry.index, entry.term), mine)
            if known[1:] != mine[1:] or (
                known[0] is not None and previous is not None and known[0] != previous
            ):
                raise BrokenError(f"log matching: two entries {entry.index} of term {entry.term}")
            previous = entry.term

    def on_role(self, host: Host) -> None:
        """Election safety."""
        node = host.alive
        if node.role is Role.LEADER:
            known = self.leaders.setdefault(node.term, node.me)
            if known != node.me:
                raise BrokenError(f"election safety: {known} and {node.me} lead term {node.term}")

    def on_elected(self, host: Host) -> None:
        """Leader completeness: whoever wins has all that earlier terms committed."""
        node = host.alive
        for at in range(len(self.committed) - 1, -1, -1):
            if self.commit_terms[at] < node.term:
                entry = self.committed[at]
                found = node.state.log.term_at(entry.index)
                if entry.index >= host.written.base[0] and found != entry.term:
                    raise BrokenError(
                        f"leader completeness: {node.me} leads term {node.term} without "
                        f"{entry.index} of term {entry.term}"
                    )
                return

    def on_commit(self, host: Host, hosts: dict[ReplicaId, Host]) -> None:
        """State machine safety; what is committed is durable on a quorum and never changes."""
        node = host.alive
        if node.commit < host.commit_seen:
            raise BrokenError(f"commit of {node.me} went back to {node.commit}")
        first = max(host.commit_seen, host.written.base[0]) + 1
        host.commit_seen = node.commit
        if host.written.base[0] > len(self.committed):
            raise BrokenError(f"{node.me} begins after {host.written.base[0]}, not yet committed")
        news = False
        for index in range(first, node.commit + 1):
            entry = host.written.get(index)
            if entry is None:
                raise BrokenError(f"{node.me} committed {index}, which it does not have")
            if index > len(self.committed):
                if node.role is not Role.LEADER and self.leaders.get(node.term) == node.me:
                    pass  # it led until this very step
                elif node.role is not Role.LEADER:
                    raise BrokenError(f"{node.me} committed {index} before any leader did")
                self.committed.append(entry)
                self.commit_terms.append(node.term)
                news = True
            elif self.committed[index - 1] != entry:
                raise BrokenError(
                    f"state machine safety: {node.me} committed {entry}, "
                    f"others {self.committed[index - 1]}"
                )
        config = node.state.config_at(node.commit)
        if self.configs.setdefault(node.commit, config) != config:
            raise BrokenError(
                f"members: at {node.commit} {node.me} is in {config}, "
                f"others in {self.configs[node.commit]}"
            )
        if news:
            self._check_quorum(node, hosts)

    def _check_quorum(self, node: RaftNode, hosts: dict[ReplicaId, Host]) -> None:
        """A quorum of a configuration that held in this step has it (the newest one decides)."""
        entry = self.committed[-1]
        base = node.state.config_at(entry.index)
        newer = [config for at, config in node.state.configs if at > entry.index]
        for config in (base, *newer):
            short = [
                voters
                for voters in (config.voters, config.old_voters)
                if voters and sum(_holds(hosts[v], entry) for v in voters) < len(voters) // 2 + 1
            ]
            if not short:
                return
        raise BrokenError(
            f"durability: {node.me} committed {entry.index}, not durable on a quorum of {base}"
        )

    def on_send(self, host: Host, target: ReplicaId, message: AnyMessage) -> None:
        """One vote per term; nothing is said before it is durable."""
        me = host.replica
        self.said[me] = max(self.said.get(me, 0), message.term)
        if not self.spy:
            return
        if isinstance(message, VoteResponse) and message.granted and not message.pre:
            self._grant(host, message.term, target)
        elif isinstance(message, VoteRequest) and not message.pre:
            self._grant(host, message.term, me)
        elif isinstance(message, AppendResponse) and message.success:
            if message.match > host.durable.last and host.snapshot is None:
                raise BrokenError(f"{me} acknowledged {message.match} before it was durable")
        elif isinstance(message, AppendRequest):
            last = message.previous_index + len(message.entries)
            if message.commit > last:
                raise BrokenError(f"{me} told {target} commit {message.commit} past {last}")

    def _grant(self, host: Host, term: int, candidate: ReplicaId) -> None:
        known = self.grants.setdefault((host.replica, term), candidate)
        if known != candidate:
            raise BrokenError(f"{host.replica} voted for {known} and {candidate} in term {term}")
        if host.durable.hard.term < term:
            raise BrokenError(f"{host.replica} voted in term {term} before that was durable")

    def on_restart(self, host: Host) -> None:
        """A node never comes back in a term below one that it spoke in."""
        said = self.said.get(host.replica, 0)
        if self.spy and host.alive.term < said:
            raise BrokenError(f"{host.replica} spoke in term {said}, is back in {host.alive.term}")


def _holds(host: Host, entry: Entry) -> bool:
    disk = host.durable
    covered = host.snapshot is not None and host.snapshot.index >= entry.index
    return covered or entry.index <= disk.base[0] or disk.get(entry.index) == entry
