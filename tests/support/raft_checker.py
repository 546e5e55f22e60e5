"""Judges the node-level Raft harness: the promises of Raft (paper figure 3), after every step.

What can break in any step is compared in any step; it is a handful of integers. What only a
write, a message, an election or a commit can break is looked at when there was one: so nothing
is sampled, and a step that changes little costs little.
"""

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
        self.newest: tuple[int, Config | None] = (0, None)
        self.sealed: tuple[int, bytes] | None = None
        self.gone: dict[ReplicaId, Host] = {}
        """Hosts that lost their disk for good; what they once acknowledged was on it."""

    # --- every step ----------------------------------------------------------------------------

    def after_step(self, host: Host, node: RaftNode, hosts: dict[ReplicaId, Host]) -> None:
        """What holds after any step: monotone numbers, their order, and one leader per term."""
        s = node.state
        term = s.term
        if term != host.term_seen:
            self.on_term(host, term)
        if s.role is Role.LEADER and host.led_term != term:
            host.led_term = term
            self.on_role(host)
            self.on_elected(host)
        if s.commit != host.commit_seen:
            self.on_commit(host, hosts)
        if s.sealed is not None and not host.sealed_seen:
            self.on_sealed(host, s.sealed)
        applied = s.commit if host.applied is None else host.applied
        purged = host.written.base[0]
        snapshot = 0
        if s.snapshot is not None:
            snapshot = s.snapshot.index
        elif host.snapshot is not None:
            snapshot = min(purged, host.snapshot.index)  # the node gives up one that is damaged
        committed = s.commit if s.commit > host.ahead else host.ahead  # a snapshot may be ahead
        if not (purged <= snapshot <= applied <= committed and s.commit <= s.log.last_index):
            self.on_disorder(host, snapshot, applied)
        if host.applied is not None:
            if applied < host.applied_seen:
                raise BrokenError(
                    f"{host.replica} had applied {host.applied_seen}, then only {applied}"
                )
            host.applied_seen = applied

    def on_term(self, host: Host, term: int) -> None:
        """A term never goes back within a life."""
        if term < host.term_seen:
            raise BrokenError(f"term of {host.replica} went back from {host.term_seen} to {term}")
        host.term_seen = term

    def on_disorder(self, host: Host, snapshot: int, applied: int) -> None:
        """``purged ≤ snapshot ≤ applied ≤ committed ≤ last`` does not hold."""
        node = host.alive
        raise BrokenError(
            f"order: {host.replica} purged {host.written.base[0]}, snapshot {snapshot}, applied "
            f"{applied}, committed {node.commit}, last {node.last_index}"
        )

    def on_role(self, host: Host) -> None:
        """Election safety."""
        node = host.alive
        if node.role is Role.LEADER:
            known = self.leaders.setdefault(node.term, node.me)
            if known != node.me:
                raise BrokenError(f"election safety: {known} and {node.me} lead term {node.term}")

    def on_sealed(self, host: Host, sealed: tuple[int, bytes]) -> None:
        """All replicas know the same seal, the first one that was committed."""
        host.sealed_seen = True
        if self.sealed is None:
            self.sealed = sealed
        if self.sealed != sealed:
            raise BrokenError(f"seal: {host.replica} is sealed at {sealed}, others {self.sealed}")

    # --- writes --------------------------------------------------------------------------------

    def on_write(
        self, host: Host, write: Persist, role: Role, hosts: dict[ReplicaId, Host] | None = None
    ) -> None:
        """Log matching, leader append-only, one vote per term, nothing committed is dropped."""
        if self.spy and write.hard_state is not None:
            self._on_hard_state(host, write)
        if write.truncate_from is not None:
            if role is Role.LEADER:
                raise BrokenError(f"leader append-only: {host.replica} dropped its own entries")
            self._on_dropped(host, write.truncate_from, hosts or {})
        if write.reset_to is not None:
            self._on_dropped(host, write.reset_to[0] + 1, hosts or {})
        previous = _term_before(host, write)
        for entry in write.entries:
            mine = (previous, entry.kind, entry.payload)
            known = self.seen.setdefault((entry.index, entry.term), mine)
            if known is not mine and (
                known[1:] != mine[1:]
                or (known[0] is not None and previous is not None and known[0] != previous)
            ):
                raise BrokenError(f"log matching: two entries {entry.index} of term {entry.term}")
            previous = entry.term

    def _on_hard_state(self, host: Host, write: Persist) -> None:
        new, old = write.hard_state, host.written.hard
        if new is None:
            return
        if new.term < old.term:
            raise BrokenError(f"{host.replica} writes term {new.term} after {old.term}")
        if new.term == old.term and old.vote is not None and new.vote != old.vote:
            raise BrokenError(
                f"{host.replica} voted for {old.vote}, writes {new.vote} in term {new.term}"
            )

    def _on_dropped(self, host: Host, first: int, hosts: dict[ReplicaId, Host]) -> None:
        """A committed entry may only go where a quorum keeps it without this host."""
        last = min(len(self.committed), host.written.last)
        for index in range(max(first, host.written.base[0] + 1), last + 1):
            entry = self.committed[index - 1]
            if host.written.get(index) == entry and not self._is_kept(entry, host, hosts):
                raise BrokenError(f"durability: {host.replica} drops committed entry {index}")

    def _is_kept(self, entry: Entry, without: Host, hosts: dict[ReplicaId, Host]) -> bool:
        configs = [h.node.state.config for h in hosts.values() if h.node is not None]
        if self.newest[1] is not None:
            configs.append(self.newest[1])
        for config in configs:
            holders = [
                voter for voter in config.voters
                if voter != without.replica and self._holds(voter, entry, hosts)
            ]  # fmt: skip
            if len(holders) >= len(config.voters) // 2 + 1:
                return True
        return False

    # --- elections and commitment --------------------------------------------------------------

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
        if config.version == 0 or node.state.configs[0][0] > node.commit:
            pass  # it does not know them: it came later, or its record of them begins later
        elif self.configs.setdefault(node.commit, config) != config:
            raise BrokenError(
                f"members: at {node.commit} {node.me} is in {config}, "
                f"others in {self.configs[node.commit]}"
            )
        if node.commit >= self.newest[0]:
            self.newest = node.commit, config
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
                if voters
                and sum(self._holds(v, entry, hosts) for v in voters) < len(voters) // 2 + 1
            ]
            if not short:
                return
        raise BrokenError(
            f"durability: {node.me} committed {entry.index}, not durable on a quorum of {base}"
        )

    def _holds(self, replica: ReplicaId, entry: Entry, hosts: dict[ReplicaId, Host]) -> bool:
        host = hosts.get(replica) or self.gone.get(replica)
        return host is not None and _holds(host, entry)

    # --- messages ------------------------------------------------------------------------------

    def on_send(self, host: Host, target: ReplicaId, message: AnyMessage) -> None:
        """One vote per term; nothing is said before it is durable."""
        me = host.replica
        if message.term > self.said.get(me, 0):
            self.said[me] = message.term
        if not self.spy:
            return
        if isinstance(message, AppendRequest):
            last = message.previous_index + len(message.entries)
            if message.commit > last:
                raise BrokenError(f"{me} told {target} commit {message.commit} past {last}")
        elif isinstance(message, AppendResponse):
            if (
                message.success
                and message.match > host.durable.last
                and (host.snapshot is None or message.match > host.snapshot.index)
            ):
                raise BrokenError(f"{me} acknowledged {message.match} before it was durable")
        elif isinstance(message, VoteResponse):
            if message.granted and not message.pre:
                self._grant(host, message.term, target)
        elif isinstance(message, VoteRequest) and not message.pre:
            self._grant(host, message.term, me)

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


def _term_before(host: Host, write: Persist) -> int | None:
    """Return the term of the entry before the first new one, as far as it is known."""
    if not write.entries:
        return None
    before = write.entries[0].index - 1
    if write.reset_to is not None:
        return write.reset_to[1] if before == write.reset_to[0] else None
    if write.truncate_from is not None and before >= write.truncate_from:
        return None
    return host.written.term_at(before)


def _holds(host: Host, entry: Entry) -> bool:
    disk = host.durable
    covered = host.snapshot is not None and host.snapshot.index >= entry.index
    return covered or entry.index <= disk.base[0] or disk.get(entry.index) == entry
