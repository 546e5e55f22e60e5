"""Who leads: elections, pre-vote, check-quorum and hand-over.

A follower that hears nothing from a leader asks first whether it *would* win (pre-vote, thesis
9.6); only then does it raise its term and ask for votes (paper 5.2). A member that has heard
from a leader within one election timeout refuses both, so that a removed or badly connected
member cannot disturb a working cluster (thesis 4.2.3). A leader that has not heard from a
quorum for one election timeout steps down (thesis 6.2).

States: FOLLOWER -> PRE_CANDIDATE -> CANDIDATE -> LEADER; every higher term leads back to
FOLLOWER. LEARNER and RECOVERING nodes follow, and never stand.

Where we differ from the paper: how long silence is borne is learnt (see ``patience``); a broken
connection from the leader is taken as a hint to look after 5 to 60 ms instead of a whole timeout;
a node whose own timer fired late was paused itself and waits once more before it accuses anyone;
of two simultaneous pre-candidates the one with the smaller name gives way.
"""

from dataclasses import dataclass

from outlast.kernel import (
    ConfigError,
    IndefiniteError,
    ReplicaId,
    Term,
    UnavailableError,
    invariant,
)
from outlast.log.engines.raft.core.events import (
    ElectionStarted,
    LeaderElected,
    LeaderSteppedDown,
)
from outlast.log.engines.raft.core.patience import Patience
from outlast.log.engines.raft.core.quorum import VoteResult, joint_reached, joint_votes
from outlast.log.engines.raft.core.settings import nanoseconds
from outlast.log.engines.raft.core.state import NEVER, State
from outlast.log.engines.raft.core.types import (
    Done,
    ProposeTransfer,
    Role,
    TransferNow,
    VoteRequest,
    VoteResponse,
)

LOOK_SOON_NS = (5_000_000, 60_000_000)
"""How soon a follower looks after its connection from the leader broke: an even draw."""


@dataclass(slots=True)
class Handover:
    """A transfer under way; ``ticket`` is ``None`` when the node itself wants it (Stop)."""

    ticket: int | None
    target: ReplicaId
    until_ns: int
    sent: bool = False


class Election:
    """Rules about terms, votes and leadership."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.votes: dict[ReplicaId, bool] = {}
        self.handover: Handover | None = None
        self.heard_ns = state.now
        self.lost_leader = False
        self.quorum_at = NEVER
        self.lease_spoiled = False
        self.late_ns = nanoseconds(state.settings.late_wake)
        self.started_ns = state.now
        self.patience = Patience(state.settings)
        self.drawn_ns = 0
        self.election_at = self._draw()

    # --- time ----------------------------------------------------------------------------

    def _draw(self) -> int:
        """Draw anew how long to be patient, and return when that ends (paper 5.2, 9.3)."""
        s = self.state
        self.drawn_ns = s.prng.below(s.timeout_ns * 4 // 5 + 1)
        return self._patient_until()

    def _patient_until(self) -> int:
        """Return when to look for a leader: 1 to 1.8 times what silence is borne, from now.

        Where in that range is drawn once a term.
        """
        s = self.state
        if s.role in (Role.LEADER, Role.LEARNER, Role.RECOVERING):
            return NEVER
        silence_ns = self.patience.silence_ns
        return s.now + silence_ns + self.drawn_ns * silence_ns // s.timeout_ns

    def rest(self) -> None:
        """Be patient again: the role changed."""
        self.election_at = self._patient_until()

    def on_late(self) -> None:
        """Our own timer fired late: we were paused, so others' silence proves nothing yet."""
        s = self.state
        if self.election_at < NEVER:
            self.election_at = max(self.election_at, s.now + self.late_ns)
        if s.role is Role.LEADER:
            for peer in s.progress.values():
                peer.heard_ns = s.now  # judged again after a fresh round
            self.quorum_at = s.now + s.timeout_ns

    def on_wake(self) -> None:
        """Act on what is due."""
        s = self.state
        handover = self.handover
        if handover is not None and s.now >= handover.until_ns:
            self._end_handover(
                IndefiniteError(f"raft: {handover.target} did not take over in time")
            )
        if s.role is Role.LEADER:
            if s.now >= self.quorum_at:
                self._check_quorum()
        elif s.now >= self.election_at:
            if self.may_stand():
                self.campaign(pre=True)
            else:
                self.election_at = self._draw()

    def wake_ns(self) -> int:
        """Return when something is due."""
        at = self.quorum_at if self.state.role is Role.LEADER else self.election_at
        return at if self.handover is None else min(at, self.handover.until_ns)

    # --- standing ------------------------------------------------------------------------

    def may_stand(self) -> bool:
        """Return whether this node may ask for votes: an admitted voter with a working disk."""
        s = self.state
        return s.admitted and not s.stalled and not s.stopping and s.needed()

    def campaign(self, *, pre: bool, transfer: bool = False) -> None:
        """Ask for pre-votes, or enter the next term and ask for votes."""
        s = self.state
        s.role = Role.PRE_CANDIDATE if pre else Role.CANDIDATE
        s.set_leader(None)
        if not pre:
            s.set_hard_state(s.term + 1, s.me)
        self.votes = {}
        self.patience.begin(s.timeout_ns)
        self.election_at = self._draw()
        s.emit(ElectionStarted(node=s.me, term=Term(s.term + pre), pre=pre))
        request = VoteRequest(s.term, s.log.last_index, s.log.last_term, pre, transfer)
        for replica in s.config.everyone:
            if replica != s.me and s.config.votes(replica):
                s.send(replica, request)
        if pre or s.hard_ticket <= s.durable_ticket:
            self.own_vote()

    def own_vote(self) -> None:
        """Count the vote for ourselves: at once in a pre-vote, else once it is durable."""
        s = self.state
        if s.role in (Role.PRE_CANDIDATE, Role.CANDIDATE) and s.me not in self.votes:
            self.count(s.me, granted=True)

    def count(self, voter: ReplicaId, *, granted: bool) -> None:
        """Count one answer, each voter once, and act when it decides."""
        s = self.state
        self.votes.setdefault(voter, granted)
        result = joint_votes(s.config.voters, s.config.old_voters, self.votes)
        if result is VoteResult.WON:
            if s.role is Role.PRE_CANDIDATE:
                self.campaign(pre=False)
            else:
                self._lead()
        elif result is VoteResult.LOST:
            self.follow(s.term, None, "lost the election")

    def _lead(self) -> None:
        s = self.state
        s.role = Role.LEADER
        s.set_leader(s.me)
        s.out.authority_changed = True
        self.election_at = NEVER
        self.quorum_at = s.now + s.timeout_ns
        self.lease_spoiled = False
        s.emit(LeaderElected(node=s.me, term=Term(s.term)))
        s.reads.start_term()
        s.replication.start_term()

    # --- votes ---------------------------------------------------------------------------

    def sticky(self) -> bool:
        """Return whether a leader is so recent that no vote may be given against it."""
        s = self.state
        if s.role is Role.LEADER:
            return True
        if s.settings.lease_reads and s.now - self.started_ns < s.timeout_ns:
            return True  # before the restart we may have promised a lease
        borne_ns = min(s.timeout_ns, self.patience.silence_ns)
        return s.leader is not None and not self.lost_leader and s.now - self.heard_ns < borne_ns

    def up_to_date(self, request: VoteRequest) -> bool:
        """Return whether the candidate's log is at least as complete as ours (paper 5.4.1)."""
        log = self.state.log
        return (request.last_term, request.last_index) >= (log.last_term, log.last_index)

    def on_vote_request(self, sender: ReplicaId, request: VoteRequest) -> None:
        """Grant or refuse a vote (paper 5.2, 5.4.1; pre-vote, thesis 9.6).

        At most one grant per term; a grant is sent once it is durable. A sticky node ignores a
        higher term altogether, unless the leader itself asked for the election.
        """
        s = self.state
        if not s.admitted:
            return
        if request.pre:
            self._on_pre_vote(sender, request)
            return
        if request.term < s.term:
            s.send(sender, VoteResponse(s.term, request.term, False, False))
            return
        if request.term > s.term:
            if self.sticky() and not request.transfer:
                return
            self.follow(request.term, None, f"{sender} stands in term {request.term}")
        granted = (
            not s.stalled
            and s.role not in (Role.LEADER, Role.CANDIDATE)
            and s.vote in (None, sender)
            and s.leader is None
            and self.up_to_date(request)
        )
        if granted:
            s.set_hard_state(s.term, sender)
            self.election_at = self._draw()
        s.send(sender, VoteResponse(s.term, request.term, False, granted))

    def _on_pre_vote(self, sender: ReplicaId, request: VoteRequest) -> None:
        s = self.state
        asked = request.term + 1
        granted = (
            asked > s.term
            and not s.stalled
            and not self.sticky()
            and self.up_to_date(request)
            and not self._outranks(sender, request)
        )
        if granted and s.role is Role.FOLLOWER:
            # It is about to win: do not split the vote by our own early look.
            courtesy = s.now + LOOK_SOON_NS[1] + s.prng.below(LOOK_SOON_NS[1])
            self.election_at = max(self.election_at, courtesy)
        s.send(sender, VoteResponse(s.term, asked, True, granted))

    def _outranks(self, sender: ReplicaId, request: VoteRequest) -> bool:
        s = self.state
        return (
            s.role is Role.PRE_CANDIDATE
            and request.term == s.term
            and (request.last_term, request.last_index) == (s.log.last_term, s.log.last_index)
            and s.me < sender
        )

    def on_vote_response(self, sender: ReplicaId, response: VoteResponse) -> None:
        """Count an answer to the election that is under way; others are stale."""
        s = self.state
        wanted = Role.PRE_CANDIDATE if response.pre else Role.CANDIDATE
        asked = s.term + 1 if response.pre else s.term
        if s.role is wanted and response.request_term == asked:
            self.count(sender, granted=response.granted)

    # --- following -----------------------------------------------------------------------

    def follow(self, term: int, leader: ReplicaId | None, reason: str) -> None:
        """Become a follower in ``term`` (paper 5.1: a higher term ends whatever we were)."""
        s = self.state
        was_leader, old_term = s.role is Role.LEADER, s.term
        if term > s.term:
            s.set_hard_state(term, None)
        s.role = s.passive_role()
        if was_leader:
            s.out.authority_changed = True
            s.emit(LeaderSteppedDown(node=s.me, term=Term(old_term), reason=reason))
            self.quorum_at = NEVER
            s.replication.end_term()
        s.set_leader(leader)
        self.lost_leader = False
        self.patience.begin(s.timeout_ns)
        self.election_at = self._draw()
        s.replication.forget_leader_log()
        if was_leader:
            s.reads.fail()
            s.members.fail(reason)

    def hear(self, leader: ReplicaId) -> None:
        """Note a valid message from the leader of the current term."""
        s = self.state
        invariant(
            s.role is not Role.LEADER or leader == s.me,
            f"raft: {s.me} and {leader} both lead term {s.term}",
        )
        if s.role in (Role.PRE_CANDIDATE, Role.CANDIDATE) or s.leader != leader:
            self.follow(s.term, leader, f"{leader} leads")
            self._settle_handover(leader)
        self.heard_ns = s.now
        self.lost_leader = False
        self.patience.hear(s.now)
        self.election_at = self._patient_until()

    def on_peer_lost(self, replica: ReplicaId) -> None:
        """The connection from the leader broke: look soon, and let others win meanwhile.

        With lease reads the promise not to vote must outlast the connection.
        """
        s = self.state
        if replica == s.leader and s.role is Role.FOLLOWER and not s.settings.lease_reads:
            self.lost_leader = True
            self.election_at = min(self.election_at, s.now + s.prng.between(*LOOK_SOON_NS))

    def on_peer_connected(self, replica: ReplicaId) -> None:
        """Ask a member again that could not be reached when the election began."""
        s = self.state
        if s.role not in (Role.PRE_CANDIDATE, Role.CANDIDATE) or replica in self.votes:
            return
        if s.config.votes(replica):
            pre = s.role is Role.PRE_CANDIDATE
            s.send(replica, VoteRequest(s.term, s.log.last_index, s.log.last_term, pre, False))

    def on_stall(self) -> None:
        """The disk does not answer: a leader hands over if it can, and steps down."""
        s = self.state
        if not s.writing:
            return  # it ended meanwhile
        s.stalled = True
        if s.role is Role.LEADER:
            target = self.best_successor()
            if target is not None:
                s.send(target, TransferNow(s.term))
            self.follow(s.term, None, "its disk stalled")
        elif s.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            self.follow(s.term, None, "its disk stalled")

    def _check_quorum(self) -> None:
        """Step down unless a quorum was heard within one election timeout (thesis 6.2)."""
        s = self.state
        heard = joint_reached(self._heard(s.config.voters), self._heard(s.config.old_voters))
        if s.now - heard >= s.timeout_ns:
            self.follow(s.term, None, "no quorum answered within the election timeout")
        else:
            self.quorum_at = heard + s.timeout_ns

    def _heard(self, voters: tuple[ReplicaId, ...]) -> list[int]:
        s = self.state
        return [s.now if v == s.me else s.progress[v].heard_ns for v in voters]

    # --- hand-over (thesis 3.10) -----------------------------------------------------------------

    def transfer(self, event: ProposeTransfer) -> None:
        """Begin to hand leadership to ``event.target``."""
        s = self.state
        if s.role is not Role.LEADER:
            s.refuse(event.ticket, s.elsewhere())
        elif event.target == s.me:
            s.out.answers.append(Done(event.ticket))
        elif event.target not in s.config.voters:
            s.refuse(
                event.ticket,
                ConfigError(
                    f"raft: {event.target} is not a voter; voters are {', '.join(s.config.voters)}"
                ),
            )
        elif self.handover is not None:
            s.refuse(
                event.ticket,
                UnavailableError(
                    f"raft: a hand-over to {self.handover.target} is under way",
                    retry_after=s.settings.election_timeout,
                ),
            )
        else:
            self._begin_handover(event.ticket, event.target)

    def stop(self) -> None:
        """Hand over if this node leads; stand for nothing any more."""
        s = self.state
        s.stopping = True
        if s.role is Role.LEADER and self.handover is None:
            target = self.best_successor()
            if target is not None:
                self._begin_handover(None, target)
        elif s.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            self.follow(s.term, None, "it stops")

    def best_successor(self) -> ReplicaId | None:
        """Return the reachable voter with the longest durable log, or ``None``."""
        s = self.state
        best: ReplicaId | None = None
        for replica in s.config.voters:
            peer = s.progress.get(replica)
            if peer is None or not peer.reachable or peer.ignored:
                continue
            if best is None or peer.match > s.progress[best].match:
                best = replica
        return best

    def _begin_handover(self, ticket: int | None, target: ReplicaId) -> None:
        self.handover = Handover(ticket, target, self.state.now + self.state.timeout_ns)
        self.lease_spoiled = True  # the target's election will not respect the lease
        self.try_handover()

    def try_handover(self) -> None:
        """Tell the target to stand once it has our whole log."""
        s = self.state
        handover = self.handover
        if handover is None or handover.sent or s.role is not Role.LEADER:
            return
        peer = s.progress.get(handover.target)
        if peer is not None and peer.match == s.log.last_index:
            handover.sent = True
            s.send(handover.target, TransferNow(s.term))

    def on_transfer_now(self, sender: ReplicaId) -> None:
        """The leader wants us to lead: stand at once, without a pre-vote."""
        s = self.state
        if s.role is Role.FOLLOWER and sender == s.leader and self.may_stand():
            self.campaign(pre=False, transfer=True)

    def _settle_handover(self, leader: ReplicaId) -> None:
        if self.handover is None:
            return
        if leader == self.handover.target:
            self._end_handover(None)
        else:
            self._end_handover(UnavailableError(f"raft: {leader} took over instead"))

    def _end_handover(self, error: IndefiniteError | UnavailableError | None) -> None:
        handover, self.handover = self.handover, None
        if handover is None or handover.ticket is None:
            return
        if error is None:
            self.state.out.answers.append(Done(handover.ticket))
        else:
            self.state.refuse(handover.ticket, error)
