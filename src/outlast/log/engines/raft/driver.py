"""Drives one Raft core: carries its effects to disk, peers and callers, and its events back.

Everything happens on one event loop, and only :meth:`RaftDriver.step` calls the core. Order is
the point of this file: writes start before messages leave, what may be said only once it is
durable waits for its write, and a write that fails stops the engine instead of the truth.

Nothing here waits for a disk: the WAL answers by a future, and several writes may be under
way. What one turn of the loop proposed is one proposal; what it wrote is one group.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

from outlast.kernel import (
    Event,
    Level,
    LogFailedError,
    LogIndex,
    OutlastError,
    OverloadedError,
    ProtocolError,
    ReplicaId,
    TimerHandle,
    UnavailableError,
    World,
    invariant,
)
from outlast.log.api import SnapshotStore
from outlast.log.engines.raft.core.node import RaftNode
from outlast.log.engines.raft.core.types import (
    Accepted,
    Answer,
    AnyMessage,
    AskTail,
    Done,
    Effects,
    EntryKind,
    PeerConnected,
    PeerLost,
    Persist,
    Persisted,
    PersistStalled,
    Propose,
    RaftEvent,
    Receive,
    Refused,
    Role,
    Stop,
    TailReady,
    Wake,
)
from outlast.log.engines.raft.disk import DiskQueue
from outlast.log.engines.raft.pending import Pending, Waiter
from outlast.log.engines.raft.snapshots import SnapshotTransfers
from outlast.log.engines.raft.storage import RaftStore
from outlast.log.engines.raft.transport import (
    BULK_CHANNEL,
    RAFT_CHANNEL,
    FrameKind,
    PeerTransport,
    decode_message,
    encode_message,
)
from outlast.log.reader import Waiters

_RETRY_AFTER = 0.1
_NEVER = 1 << 63


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStopped(Event):
    """A replica of a Raft log stopped because its disk or its core failed."""

    level: Level = "error"
    replica: ReplicaId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRefused(Event):
    """A frame from another replica could not be read and was dropped."""

    level: Level = "warning"
    sender: ReplicaId
    reason: str


class RaftDriver:
    """Runs one :class:`RaftNode` over a :class:`RaftStore` and a :class:`PeerTransport`.

    Args:
        world: Clock, timers, events.
        me: This replica.
        node: The core, fresh.
        store: Its log; the core's view of it.
        transport: Reaches the other replicas.
        snapshots: Where snapshots are kept.
        stall_ns: How long a write may be under way before the core is told.
        queue_bytes_max: Bytes of proposals whose fate is open; more are refused.
    """

    def __init__(
        self,
        world: World,
        me: ReplicaId,
        node: RaftNode,
        store: RaftStore,
        *,
        transport: PeerTransport,
        snapshots: SnapshotStore,
        stall_ns: int,
        queue_bytes_max: int,
    ) -> None:
        self.me = me
        self.node = node
        self.store = store
        self.commit: LogIndex = node.commit
        self.sealed: tuple[LogIndex, bytes] | None = node.sealed
        self.stopped: OutlastError | None = None
        self.progress = Waiters()
        self.authority_moved = Waiters()
        self.pending = Pending()
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[BaseException] = self._loop.create_future()
        self.disk = DiskQueue(world, store, self._persisted, self.fail)
        self.transfers = SnapshotTransfers(world, snapshots, transport, self._post, self.fail)
        self._world = world
        self._now = world.clock.monotonic_ns
        self._transport = transport
        self._stall_ns = stall_ns
        self._queue_bytes_max = queue_bytes_max
        self._ticket = 0
        self._proposals: list[tuple[int, EntryKind, bytes]] = []
        self._tails: list[asyncio.Future[LogIndex]] = []
        self._asks: dict[int, list[asyncio.Future[LogIndex]]] = {}
        self._flush_planned = False
        self._held: deque[tuple[int, list[tuple[ReplicaId, AnyMessage]]]] = deque()
        self._wake_ns = _NEVER
        self._armed_ns = _NEVER
        self._timer: TimerHandle | None = None
        self._deadline_timer: TimerHandle | None = None
        self._stepping = False

    def start(self) -> None:
        """Begin: listen to peers and let the core ask for its first wake."""
        self._transport.update(self.node.everyone)
        self._transport.set_handler(self)
        self.step(Wake())

    # --- callers ---------------------------------------------------------------------------

    def propose(
        self, kind: EntryKind, payload: bytes, deadline_ns: int
    ) -> asyncio.Future[LogIndex]:
        """Queue an entry for this turn's proposal; the future ends as ``append`` does."""
        if self.stopped is not None:
            raise UnavailableError(str(self.stopped))
        if self.disk.full:
            raise self.disk.refuse(_RETRY_AFTER)
        pending = self.pending
        if pending.size_bytes + len(payload) > self._queue_bytes_max:
            raise OverloadedError(
                f"{pending.size_bytes} bytes of entries wait to be committed; "
                f"at most {self._queue_bytes_max} may",
                retry_after=_RETRY_AFTER,
            )
        self._ticket = ticket = self._ticket + 1
        future: asyncio.Future[LogIndex] = self._loop.create_future()
        if pending.add(Waiter(ticket, future, len(payload), deadline_ns)):
            self._arm_deadline(deadline_ns)
        self._proposals.append((ticket, kind, payload))
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush)
        return future

    def ask_tail(self) -> asyncio.Future[LogIndex]:
        """Join this turn's question for the read index; the future ends as ``tail`` does."""
        if self.stopped is not None:
            raise UnavailableError(str(self.stopped))
        future: asyncio.Future[LogIndex] = self._loop.create_future()
        self._tails.append(future)
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush)
        return future

    def ask(self, make: Callable[[int], RaftEvent]) -> asyncio.Future[LogIndex]:
        """Hand in a request with a ticket of its own; the future ends when it is done."""
        if self.stopped is not None:
            raise UnavailableError(str(self.stopped))
        self._ticket = ticket = self._ticket + 1
        future: asyncio.Future[LogIndex] = self._loop.create_future()
        self._asks[ticket] = [future]
        self.step(make(ticket))
        return future

    def _flush(self) -> None:
        self._flush_planned = False
        if self._proposals:
            proposals, self._proposals = self._proposals, []
            self.step(Propose(tuple(proposals)))
        if self._tails:
            tails, self._tails = self._tails, []
            self._ticket = ticket = self._ticket + 1
            self._asks[ticket] = tails
            self.step(AskTail(ticket))

    # --- the core --------------------------------------------------------------------------

    def step(self, event: RaftEvent) -> None:
        """Hand ``event`` to the core and carry out what it decides."""
        if self.stopped is not None:
            return
        invariant(not self._stepping, "the Raft core was called from inside its own step")
        self._stepping = True
        try:
            self._carry_out(self.node.step(event, self._now()))
        except ProtocolError as error:
            sender = event.sender if isinstance(event, Receive) else self.me
            self._refuse_frame(sender, error)
        except Exception as error:
            # Whatever it is, going on could act on half a step: the replica stops.
            self.fail(error)
        finally:
            self._stepping = False

    def _post(self, event: RaftEvent) -> None:
        self._loop.call_soon(self.step, event)

    def _carry_out(self, effects: Effects) -> None:
        if effects.persist is not None:
            self._persist(effects.persist)
        if effects.send_now:
            self._send(effects.send_now)
        if effects.send_after_durable:
            if self.disk.durable_ticket < self.disk.ticket:
                self._held.append((self.disk.ticket, effects.send_after_durable))
            else:
                self._send(effects.send_after_durable)
        for answer in effects.answers:
            self._answer(answer)
        if effects.sealed is not None:
            self.sealed = effects.sealed
        if effects.committed is not None:
            self.commit = effects.committed
            self.pending.commit(effects.committed, self.store.term_at, self.sealed)
            self.progress.wake()
        for transfer in effects.transfers:
            self.transfers.carry_out(transfer)
        if effects.membership is not None:
            self._transport.update(self.node.everyone)
        if effects.authority_changed:
            self.authority_moved.wake()
        if effects.wake_ns is not None:
            self._arm(effects.wake_ns)
        for event in effects.events:
            self._world.events.emit(event)

    def _answer(self, answer: Answer) -> None:
        if type(answer) is Accepted:
            self.pending.place(answer.ticket, answer.index, answer.term)
        elif type(answer) is Refused:
            asked = self._asks.pop(answer.ticket, None)
            if asked is None:
                self.pending.refuse(answer.ticket, copy(answer.error))
            else:
                for future in asked:
                    if not future.done():
                        future.set_exception(copy(answer.error))
        elif type(answer) is TailReady:
            for future in self._asks.pop(answer.ticket, ()):
                if not future.done():
                    future.set_result(LogIndex(answer.index + 1))
        elif type(answer) is Done:
            for future in self._asks.pop(answer.ticket, ()):
                if not future.done():
                    future.set_result(LogIndex(0))
        # Overwritten is no proof that an entry is lost; Pending waits for the commit instead.

    # --- peers -----------------------------------------------------------------------------

    def received(self, sender: ReplicaId, channel: str, kind: int, body: bytes) -> None:
        """Take a frame from the transport."""
        try:
            if channel == RAFT_CHANNEL and kind == FrameKind.MESSAGE:
                message = decode_message(body)
            elif channel == BULK_CHANNEL:
                self.transfers.received(kind, body)
                return
            else:
                raise ProtocolError(f"frame of kind {kind} on channel {channel!r}")
        except ProtocolError as error:
            self._refuse_frame(sender, error)
            return
        self.step(Receive(sender, message))

    def _refuse_frame(self, sender: ReplicaId, error: ProtocolError) -> None:
        self._world.events.emit(FrameRefused(sender=sender, reason=str(error)))

    def connected(self, replica: ReplicaId, channel: str) -> None:
        """A connection is up: the core goes on from what the peer is known to have."""
        self.step(PeerConnected(replica))

    def lost(self, replica: ReplicaId, channel: str) -> None:
        """A connection is gone."""
        if channel == BULK_CHANNEL:
            self.transfers.lost(replica)
        else:
            self.step(PeerLost(replica))

    def _send(self, messages: list[tuple[ReplicaId, AnyMessage]]) -> None:
        send = self._transport.send
        last: AnyMessage | None = None
        body = b""
        for target, message in messages:
            if message is not last and message != last:
                body = encode_message(message)
                last = message
            send(target, RAFT_CHANNEL, FrameKind.MESSAGE, body)

    # --- disk ------------------------------------------------------------------------------

    def _persist(self, persist: Persist) -> None:
        if persist.truncate_from is not None:
            self.pending.truncate(persist.truncate_from)
        if persist.reset_to is not None:
            self.pending.reset()
        self.disk.put(persist)

    def _persisted(self, ticket: int) -> None:
        """Everything through ``ticket`` is on disk: say what waited for it, tell the core."""
        held = self._held
        while held and held[0][0] <= ticket:
            self._send(held.popleft()[1])
        self.step(Persisted(ticket))

    # --- time ------------------------------------------------------------------------------

    def _arm(self, wake_ns: int) -> None:
        """Remember when the core wants to be woken; most wakes only move away."""
        self._wake_ns = wake_ns
        if wake_ns < self._armed_ns:
            if self._timer is not None:
                self._timer.cancel()
            self._armed_ns = wake_ns
            self._timer = self._world.timers.call_at(wake_ns, self._woken)

    def _woken(self) -> None:
        if not self.running:
            return
        self._timer = None
        self._armed_ns = _NEVER
        now = self._now()
        if self.disk.oldest_write_ns(now) > self._stall_ns:
            # A leader whose disk hangs must not go on: its heartbeats would hide it.
            self.step(PersistStalled())
        if now >= self._wake_ns:
            self._wake_ns = now + self._stall_ns
            self.step(Wake())
        if self._armed_ns == _NEVER and self.running:
            self._arm(self._wake_ns)

    def _arm_deadline(self, deadline_ns: int) -> None:
        if deadline_ns >= _NEVER - 1:
            return
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_timer = self._world.timers.call_at(deadline_ns, self._expire)

    def _expire(self) -> None:
        self._deadline_timer = None
        again = self.pending.expire(self._now())
        if again is not None:
            self._arm_deadline(again)

    # --- end -------------------------------------------------------------------------------

    async def hand_over(self, wait_ns: int) -> None:
        """Leave in order: a leader lets another one take over, for at most ``wait_ns``."""
        others = (one for one in self.node.progress() if one.replica != self.me)
        if not self.leads or not any(one.voter and one.reachable for one in others):
            return
        until_ns = self._now() + wait_ns
        self.step(Stop())
        timer = self._world.timers.call_at(until_ns, self.authority_moved.wake)
        try:
            while self._now() < until_ns and self.leads:
                await self.authority_moved.wait()
        finally:
            timer.cancel()

    @property
    def leads(self) -> bool:
        """Whether this replica leads, and runs."""
        return self.running and self.node.role == Role.LEADER

    @property
    def running(self) -> bool:
        """Whether this replica has neither failed nor been closed."""
        return self.stopped is None

    def fail(self, error: BaseException) -> None:
        """Stop because of ``error``: nothing more is written, sent, or answered."""
        if self.stopped is not None:
            return
        reason = str(error) or type(error).__name__
        self._stop(LogFailedError(f"replica {self.me} stopped: {reason}"))
        self._world.events.emit(ReplicaStopped(replica=self.me, reason=reason))
        if not self.failed.done():
            self.failed.set_result(error)

    def stop(self) -> None:
        """Stop because the log is closed."""
        if self.stopped is None:
            self._stop(LogFailedError("the log was closed"))

    def _stop(self, why: LogFailedError) -> None:
        self.stopped = why
        self._transport.set_handler(None)
        self.transfers.close()
        for timer in (self._timer, self._deadline_timer):
            if timer is not None:
                timer.cancel()
        self.pending.fail(lambda: LogFailedError(str(why)))
        for futures in (*self._asks.values(), self._tails):
            for future in futures:
                if not future.done():
                    future.set_exception(LogFailedError(str(why)))
        self._asks.clear()
        self._tails = []
        self.progress.wake()
        self.authority_moved.wake()
        self.disk.stop()
