"""Who belongs: changes by joint consensus, with learners that catch up first (paper 6).

A change goes through up to three configurations, each an entry of the log that holds as soon as
it is *in* the log and is taken back if the entry is truncated:

1. *learners*: members that are to vote are first added without a vote and fed until they have
   caught up (thesis 4.2.1: in rounds, the last of which lasted less than an election timeout);
2. *joint*: old and new voters; every decision needs a majority of each;
3. *final*: the new members. The leader appends it by itself once the joint one is committed.

When voters do not change, one configuration is enough. A leader that is not among the new
voters leads until the final configuration is committed and then hands over. A new leader starts
no change before an entry of its own term is committed, and finishes the change it finds: so two
leaders can never build on different uncommitted configurations, which was the flaw of
single-server changes as first published (2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from outlast.kernel import (
    ConfigError,
    IndefiniteError,
    OutlastError,
    ReplicaId,
    UnavailableError,
    node_of,
)
from outlast.log.api import Member
from outlast.log.engines.raft.core.config import Config, encode_config
from outlast.log.engines.raft.core.events import MembersChanged
from outlast.log.engines.raft.core.progress import Flow, PeerProgress
from outlast.log.engines.raft.core.settings import nanoseconds
from outlast.log.engines.raft.core.state import State
from outlast.log.engines.raft.core.types import (
    Done,
    Entry,
    EntryKind,
    ProposeMembers,
    Role,
    TransferNow,
)


@dataclass(slots=True)
class CatchUp:
    """How one new voter catches up: ``goal`` is the end of the round that began at ``since``."""

    goal: int
    since_ns: int
    done: bool = False


@dataclass(slots=True)
class Change:
    """The change that this leader was asked for."""

    ticket: int
    members: tuple[Member, ...]
    waiting: dict[ReplicaId, CatchUp] = field(default_factory=dict)
    switched: bool = False


class MembershipRules:
    """Rules about configurations."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.change: Change | None = None
        self.silence_ns = nanoseconds(state.settings.catch_up_silence)

    # --- the configuration in force ------------------------------------------------------

    def activate(self) -> None:
        """Put the newest configuration of the log into force (it need not be committed)."""
        s = self.state
        before = s.config
        s.config_index, s.config = s.configs[-1]
        if s.config == before:
            return
        if not s.admitted and s.me in s.config.everyone:
            s.admitted = True  # durable with the entry itself, by the mark in the same write
            s.mark()
        s.out.membership = s.config.membership
        s.emit(
            MembersChanged(
                node=s.me,
                version=s.config.version,
                joint=s.config.joint,
                members=tuple(s.config.everyone),
            )
        )
        if s.role is Role.LEADER:
            self.track()
        elif s.role not in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            self._take_role()

    def _take_role(self) -> None:
        s = self.state
        role = s.passive_role()
        if role is not s.role:
            s.role = role
            s.election.rest()

    def track(self) -> None:
        """Keep a progress for every member; those that leave stay until that is committed."""
        s = self.state
        for replica in s.config.everyone:
            if replica != s.me and replica not in s.progress:
                s.progress[replica] = PeerProgress(replica, s.log.last_index + 1, s.now)

    def everyone(self) -> tuple[Member, ...]:
        """Return all members that messages go to: new, old while joint, and those leaving.

        One that leaves is still answered until its leaving is committed: it may be the leader,
        which needs the answers of the others to commit that.
        """
        s = self.state
        found = dict(s.config.everyone)
        settled = max((at for at, _ in s.configs if at <= s.commit), default=0)
        for at, config in s.configs:
            for replica, member in config.everyone.items():
                if at >= settled or replica in s.progress:
                    found.setdefault(replica, member)
        return tuple(found.values())

    # --- asking for a change -------------------------------------------------------------

    def propose(self, event: ProposeMembers) -> None:
        """Begin a change, or refuse it."""
        s = self.state
        refusal = self._refusal(event)
        if refusal is not None:
            s.refuse(event.ticket, refusal)
            return
        if self.change is not None:
            self.fail("another change took its place")
        if event.members == s.config.members:
            s.out.answers.append(Done(event.ticket))
            return
        self.change = change = Change(event.ticket, event.members)
        self._add_learners(change)
        for member in event.members:
            if member.voter and member.replica not in s.config.voters:
                change.waiting[member.replica] = CatchUp(s.log.last_index, s.now)
        self._switch_if_ready()

    def _refusal(self, event: ProposeMembers) -> OutlastError | None:
        s = self.state
        if s.role is not Role.LEADER:
            return s.elsewhere()
        if s.commit < s.term_start or s.config_index > s.commit or s.config.joint:
            return UnavailableError(
                f"raft: configuration {s.config.version} is not final yet",
                retry_after=s.settings.heartbeat,
            )
        if self.change is not None and self.change.switched:
            return UnavailableError(
                "raft: a membership change is under way", retry_after=s.settings.heartbeat
            )
        if event.expect_version != s.config.version:
            return ConfigError(
                f"raft: members are at version {s.config.version}, "
                f"not {event.expect_version} as expected; read them again"
            )
        return _refuse_members(event.members)

    def _add_learners(self, change: Change) -> None:
        """Add the new members without a vote, so that they are fed."""
        s = self.state
        new = [member for member in change.members if member.replica not in s.config.everyone]
        if any(member.voter for member in new):
            learners = tuple(
                Member(member.replica, member.address, False, member.zone) for member in new
            )
            self._append(Config(s.config.version + 1, (*s.config.members, *learners)))

    def _append(self, config: Config) -> None:
        s = self.state
        entry = Entry(s.log.last_index + 1, s.term, EntryKind.CONFIG, encode_config(config))
        s.append([entry])

    # --- catching up ---------------------------------------------------------------------

    def on_progress(self, peer: PeerProgress) -> None:
        """A member has more: is a new voter's round over, and was it short enough?"""
        s = self.state
        change = self.change
        if change is None or s.role is not Role.LEADER:
            return
        catch_up = change.waiting.get(peer.replica)
        while catch_up is not None and not catch_up.done and peer.match >= catch_up.goal:
            catch_up.done = s.now - catch_up.since_ns < s.timeout_ns
            catch_up.goal, catch_up.since_ns = s.log.last_index, s.now
        self._switch_if_ready()

    def on_heartbeat(self) -> None:
        """Give up on a change whose new voter has been silent too long."""
        s = self.state
        change = self.change
        if change is None or change.switched:
            return
        for replica in change.waiting:
            peer = s.progress.get(replica)
            if peer is not None and s.now - peer.heard_ns >= self.silence_ns:
                self.fail(f"{replica} has not answered for {s.settings.catch_up_silence} s")
                return
        self._switch_if_ready()

    def _switch_if_ready(self) -> None:
        """Enter the joint configuration once all new voters have caught up."""
        s = self.state
        change = self.change
        if change is None or change.switched or s.role is not Role.LEADER:
            return
        if s.config_index > s.commit or any(not item.done for item in change.waiting.values()):
            return
        change.switched = True
        config = Config(s.config.version + 1, change.members)
        if set(config.voters) != set(s.config.voters):
            old = tuple(member for member in s.config.members if member.voter)
            config = Config(config.version, change.members, old)
        self._append(config)

    # --- after commitment ----------------------------------------------------------------

    def start_term(self) -> None:
        """A new leader was asked for nothing yet; it may find a joint configuration."""
        self.change = None

    def on_commit(self) -> None:
        """A configuration is committed: leave the joint one, finish the change."""
        s = self.state
        s.mark()
        before = s.configs[-2][1] if len(s.configs) > 1 else s.config
        if any(replica not in s.config.everyone for replica in before.everyone):
            s.out.membership = s.config.membership  # those that left need not be reached now
        if s.role in (Role.FOLLOWER, Role.LEARNER):
            self._take_role()
        if s.role is not Role.LEADER or s.config_index > s.commit:
            return
        if s.config.joint:
            self._append(Config(s.config.version + 1, s.config.members))
            return
        self._finish()

    def _finish(self) -> None:
        s = self.state
        self._dismiss()
        change = self.change
        if change is not None and change.switched:
            self.change = None
            s.out.answers.append(Done(change.ticket))
        else:
            self._switch_if_ready()
        if s.me not in s.config.voters and s.role is Role.LEADER:
            self._hand_on()

    def _dismiss(self) -> None:
        """Tell those that left the last commit index, and forget them."""
        s = self.state
        for replica in [r for r in s.progress if r not in s.config.everyone]:
            peer = s.progress[replica]
            if peer.flow is Flow.REPLICATE:
                s.replication.send_empty(peer)
            del s.progress[replica]

    def _hand_on(self) -> None:
        """This leader is not among the voters any more (thesis 4.2.2)."""
        s = self.state
        for peer in s.progress.values():
            if peer.flow is Flow.REPLICATE:
                s.replication.send_empty(peer)
        target = s.election.best_successor()
        if target is not None:
            s.send(target, TransferNow(s.term))
        s.election.follow(s.term, None, "it is no longer a voter")

    def fail(self, reason: str) -> None:
        """End the change that was asked for without knowing how it ends."""
        change, self.change = self.change, None
        if change is not None:
            self.state.refuse(
                change.ticket,
                IndefiniteError(f"raft: the membership change was given up: {reason}"),
            )


def _refuse_members(members: Sequence[Member]) -> ConfigError | None:
    replicas = [member.replica for member in members]
    if len(set(replicas)) != len(replicas):
        return ConfigError(f"raft: a replica is listed twice: {', '.join(sorted(replicas))}")
    voters = [node_of(member.replica) for member in members if member.voter]
    if not voters:
        return ConfigError("raft: no voter is left; list at least one member with a vote")
    if len(set(voters)) != len(voters):
        return ConfigError(
            f"raft: two incarnations of one node would vote: {', '.join(sorted(voters))}"
        )
    return None
