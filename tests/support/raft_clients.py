"""Clients with sessions over the simulated cluster: they write, read, and repeat what is unknown.

A client registers, numbers its requests and sends one again, under the same number, until it is
answered; the replica that leads answers a repeat from its session table if it can. Answers get
lost, so most repeats are of requests that ran. A client whose session is gone gives its requests
up, or, if they have an idempotency key, sends them again in its next session.
"""

from dataclasses import dataclass, field

import msgspec

from outlast.kernel import Prng, ReplicaId, ReplyLostError, SealedError, SessionExpiredError
from outlast.log.engines.raft.core.types import Accepted, Answer, Entry, EntryKind, Refused, Role
from outlast.state.core.authority import SYSTEM
from outlast.state.core.envelope import Header, Kind, encode_command, pack_commands, pack_entry
from outlast.state.core.operation import Register, SystemBody, TakeEpoch, encode_body
from outlast.state.core.reply import OK, Reply, decode_reply_error
from outlast.state.core.session import Kept, fingerprint
from outlast.state.core.system import Applied
from tests.support.raft_disk import BrokenError, Host
from tests.support.raft_full import FullCluster
from tests.support.raft_history import History
from tests.support.raft_machine import Machine
from tests.support.raft_machines import MS

_NAME = "add"


@dataclass(slots=True)
class Request:
    """One command, until it is answered or given up. ``seq`` 0: the Register itself."""

    client: "Client"
    seq: int
    args: bytes
    key: str = ""
    sent_ns: int = 0
    tries: int = 0
    done: bool = False


@dataclass(slots=True)
class Client:
    """One client and the session that it has."""

    name: str
    session: int = 0
    seq: int = 0
    open: dict[int, Request] = field(default_factory=dict)
    registering: Request | None = None
    carried: list[Request] = field(default_factory=list)

    @property
    def ack_below(self) -> int:
        """All answers below this number are here."""
        return min(self.open, default=self.seq + 1)


class ClientCluster(FullCluster):
    """A full cluster with clients."""

    def __init__(
        self, *args: object, clients: int = 3, reply_loss: int = 0, keyed: bool = False,
        per_entry: int = 1, **others: object,
    ) -> None:  # fmt: skip
        self.history = History()
        self.clients = [Client(f"c{number}") for number in range(clients)]
        self.reply_loss = reply_loss
        self.keyed = keyed
        self.per_entry = per_entry
        self.patience_ns = 150 * MS
        self.ended = False  # the log is sealed: nothing more is taken
        self.proposed: dict[int, tuple[object, ...]] = {}
        self.client_prng = Prng(0)
        self._number = 0
        super().__init__(*args, **others)  # type: ignore[arg-type]
        self.client_prng = self.prng.fork()

    # --- what clients do -----------------------------------------------------------------------

    def act(self) -> None:
        """Let each client repeat what waits too long."""
        for client in self.clients:
            waiting = client.registering
            if waiting is not None and self._is_late(waiting):
                client.registering = None
            for request in list(client.open.values()):
                if self._is_late(request):
                    self.send_requests([request])

    def _is_late(self, request: Request) -> bool:
        return self.now - request.sent_ns > self.patience_ns

    def write(self, count: int) -> None:
        """Let clients want ``count`` new things."""
        batch: list[Request] = []
        for _ in range(count):
            client = self.client_prng.choice(self.clients)
            if not client.session:
                self._register(client)
            elif len(client.open) < 4 and client.seq + 1 < client.ack_below + self.limits.window:
                batch.append(self._new_request(client))
        for at in range(0, len(batch), self.per_entry):
            self.send_requests(batch[at : at + self.per_entry])

    def _new_request(self, client: Client) -> Request:
        client.seq += 1
        if client.carried:
            request = client.carried.pop()
            request.seq, request.tries = client.seq, 0
        else:
            self._number += 1
            args = msgspec.msgpack.encode(f"{client.name}-{self._number}")
            key = ""
            if self.keyed and self.client_prng.chance(1, 3):
                key = f"k{self._number}"
            request = Request(client, client.seq, args, key)
            self.history.write_begins(args)
        client.open[client.seq] = request
        return request

    def _register(self, client: Client) -> None:
        if client.registering is None:
            client.registering = Request(client, 0, b"", sent_ns=self.now)
            body = encode_body(SystemBody(1, Register()))
            target = self._target()
            if target is not None:
                self._propose(target, (client.registering,), Kind.SYSTEM, body)

    def send_requests(self, requests: list[Request], target: ReplicaId | None = None) -> None:
        """Send requests, as one entry, to ``target`` or to who seems to lead."""
        target = target or self._target()
        fresh = []
        for request in requests:
            request.sent_ns = self.now
            request.tries += 1
            if target is not None and not (request.tries > 1 and self._recorded(target, request)):
                fresh.append(request)
        if target is None or not fresh:
            return
        bodies = [
            encode_command(r.client.session, r.seq, r.client.ack_below, _NAME, r.args, r.key)
            for r in fresh
        ]
        self._propose(target, tuple(fresh), Kind.COMMANDS, bodies)

    def _recorded(self, target: ReplicaId, request: Request) -> bool:
        """Answer a repeat from the session table of a leader, without a new entry."""
        host = self.hosts[target]
        if host.state is None or self.now < host.paused_until:
            return False
        print_ = fingerprint(_NAME, request.args, request.key)
        kept = host.state.system.sessions.recorded(request.client.session, request.seq, print_)
        if kept is None:
            return False
        self._reply(host, request, kept, host.running.index + 1)
        return True

    def _target(self) -> ReplicaId | None:
        up = self.up()
        leaders = [r for r in up if self.hosts[r].alive.role is Role.LEADER]
        if leaders and self.client_prng.chance(9, 10):
            return self.client_prng.choice(leaders)
        return self.client_prng.choice(up) if up else None

    def _propose(
        self, target: ReplicaId, who: tuple[object, ...], kind: Kind, body: bytes | list[bytes]
    ) -> None:
        host = self.hosts[target]
        holder = host.holder
        stamp = holder.stamp(self.local(host))
        wall = max(0, self.now + host.wall_ns)
        if isinstance(body, bytes):
            payload = pack_entry(Header(kind, 1, 0, holder.epoch, stamp, wall), body)
        else:
            payload = pack_commands(
                body, machine_version=1, system_epoch=holder.epoch, log_time_ns=stamp,
                wall_ns=wall,
            )  # fmt: skip
        ticket = self._tickets + 1
        self.proposed[ticket] = who
        self.propose(target, payload)

    def hold_role(self, replica: ReplicaId) -> None:
        """Let a leader take the role that measures log time."""
        host = self.hosts[replica]
        if host.state is not None:
            current = host.state.system.authority.current(SYSTEM)
            body = encode_body(SystemBody(2, TakeEpoch(SYSTEM, current, replica)))
            self._propose(replica, (replica,), Kind.SYSTEM, body)

    def tick(self, replica: ReplicaId) -> None:
        """Let a leader append a TICK: what ended by log time goes."""
        self._propose(replica, (), Kind.TICK, b"")

    # --- what comes back -----------------------------------------------------------------------

    def _answer(self, host: Host, answer: Answer) -> None:
        if isinstance(host, Machine):
            if isinstance(answer, Accepted):
                who = self.proposed.pop(answer.ticket, None)
                if who:
                    host.waiting[answer.index] = answer.term, who
            elif isinstance(answer, Refused):
                self.proposed.pop(answer.ticket, None)
                if isinstance(answer.error, SealedError):
                    self.ended = True
        super()._answer(host, answer)

    def on_applied(
        self, host: Machine, entry: Entry, applied: object, found: tuple[int, object] | None
    ) -> None:
        if entry.kind == EntryKind.SEAL:
            self.ended = True
        if found is None or found[0] != entry.term or not isinstance(applied, Applied):
            return
        who = found[1]
        if not isinstance(who, tuple):
            raise BrokenError(f"{who!r} waits for {entry.index}")
        for request, kept in zip(who, applied.replies, strict=True):
            if isinstance(request, Request):
                self._reply(host, request, kept, entry.index)
            elif kept.status == OK:  # the role that measures log time
                epoch = msgspec.msgpack.decode(kept.body)
                host.holder.begin(epoch, host.running.system.time.ns, self.local(host))

    def _reply(self, host: Machine, request: Request, kept: Kept, index: int) -> None:
        if request.done or self.client_prng.chance(self.reply_loss, 1000):
            return
        client = request.client
        if request.seq == 0:
            if client.registering is request and kept.status == OK:
                client.registering = None
                client.session, client.seq = msgspec.msgpack.decode(kept.body), 0
                client.open = {}
            return
        if client.open.get(request.seq) is not request:
            return  # its session is over; it was given up
        if kept.status == OK:
            if kept.index < index:
                self._note_duplicate(host, kept)
            self._end(request)
            self.history.write_ends(request.args, msgspec.msgpack.decode(kept.body))
            return
        error = decode_reply_error(Reply(kept.status, kept.index, b"", kept.body))
        self.counts[type(error).__name__] += 1
        if isinstance(error, SessionExpiredError):
            self._begin_anew(client)
        elif isinstance(error, ReplyLostError):
            self._end(request)  # it ran; its answer is gone
        else:
            raise BrokenError(f"sessions: {client.name}'s request {request.seq} got {error!r}")

    def _end(self, request: Request) -> None:
        request.done = True
        request.client.open.pop(request.seq, None)

    def _begin_anew(self, client: Client) -> None:
        client.carried += [r for r in client.open.values() if r.key]
        client.session, client.open, client.registering = 0, {}, None

    def _note_duplicate(self, host: Machine, kept: Kept) -> None:
        self.counts["duplicate_answered"] += 1
        first_term = self.judge.terms.get(kept.index, 0)
        if first_term < host.alive.term:
            self.counts["duplicate_after_failover"] += 1

    # --- reads ---------------------------------------------------------------------------------

    def on_ask(self, ticket: int) -> None:
        self.history.read_begins(ticket)

    def on_read(self, host: Machine, ticket: int) -> None:
        state = host.running
        self.history.read_ends(ticket, len(state.order), state.hash)

    # --- the end -------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Return whether no client waits for anything."""
        return all(not client.open and client.registering is None for client in self.clients)

    def converge(self, seconds: float = 60.0) -> None:
        """Undo all faults; there must be progress, and all replicas must end up equal."""
        self.mend()
        self.reply_loss = 0
        last = None
        for turn in range(round(seconds / 0.05)):
            self.run(0.05)
            self.tend(eager=True)
            for replica in [r for r, h in self.hosts.items() if h.node is None]:
                self.start(replica)
            if not self.ended:
                self.act()
                if last is None and turn > 2:
                    last = self._last_words()
            if self.settled() and self._all_members_live():
                if self.ended or (last is not None and self._is_answered(last) and self.idle()):
                    self._compare()
                    return
                if last is None or self._is_stuck(last):
                    last = self._last_words()
        seen = {
            r: (self.node(r).role.name, self.node(r).term, self.node(r).commit) for r in self.up()
        }
        raise BrokenError(f"no progress within {seconds} s of healing: {seen}")

    def _last_words(self) -> Client:
        """A fresh client writes once more, behind everything else."""
        client = Client(f"z{self._number}")
        self.clients.append(client)
        self._register(client)
        return client

    def _is_answered(self, client: Client) -> bool:
        if client.session and not client.seq:
            self.send_requests([self._new_request(client)])
        return client.seq > 0 and not client.open

    def _is_stuck(self, client: Client) -> bool:
        return client.session == 0 and client.registering is None

    def _all_members_live(self) -> bool:
        leader = self.leader()
        if leader is None:
            return False
        return self._lost_node(self.node(leader).membership) is None

    def _compare(self) -> None:
        """All members have executed the same, and what clients saw fits it."""
        leader = self.leader()
        if leader is None:
            raise BrokenError("the leader is gone")
        members = self.node(leader).state.config.everyone
        configs = {r: self.node(r).state.config for r in members}
        if any(config != configs[leader] for config in configs.values()):
            raise BrokenError(f"members differ at the end: {configs}")
        seals = {r: self.node(r).sealed for r in members}
        if any(seal != seals[leader] for seal in seals.values()):
            raise BrokenError(f"seals differ at the end: {seals}")
        prints = {r: self.hosts[r].running.fingerprint() for r in members}
        if len(set(prints.values())) != 1:
            short = {r: p.hex()[:8] for r, p in prints.items()}
            raise BrokenError(f"replicas differ at the end: {short}")
        self.history.judge(self.hosts[leader].running.order)
