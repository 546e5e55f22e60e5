"""Gets requests to the leader and answers back, whatever happens to leaders and links.

A request is sent on the link to the leader. When that link breaks, or owes an answer and has
been silent for a quarter of a second, the other members are asked who leads, and everything
unanswered goes to the new leader. A redirect costs no wait; a refusal for lack of room or of a
leader is repeated with growing, jittered waits, until the deadline.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from outlast.cluster.core.call import Fail, Finish, GoTo, Reopen, WaitAndRepeat, next_step
from outlast.cluster.core.routing import Routing, SeatView
from outlast.cluster.links import Link, Links
from outlast.cluster.messages import CLIENT_CHANNEL, Kind, View
from outlast.kernel import (
    ConnectionLostError,
    Deadline,
    DeadlineError,
    OutlastError,
    ProtocolError,
    SessionExpiredError,
    TimerHandle,
    TooLateError,
    UnavailableError,
    World,
    happened,
)
from outlast.protect import Backoff
from outlast.state import Reply, decode_reply, decode_reply_error
from outlast.state.core.reply import COMMAND_ERROR
from outlast.wire import Identity, Security

_REPLY = int(Kind.REPLY)
_NEVER_NS = Deadline.never().at_ns
_SILENCE_NS = 250_000_000
_ASK_AGAIN_NS = 150_000_000
_ASK_ONE_AGAIN_NS = 10_000_000
_REDIRECTS_AT_ONCE = 2
_BACKOFF = Backoff(base=0.01, cap=0.5)
_VIEW = msgspec.msgpack.Decoder(View)


@dataclass(eq=False, slots=True)
class Call:
    """One request under way.

    ``body`` makes the bytes of the next attempt. ``maybe`` is set once an attempt ended without
    an answer. ``pinned`` is the one address that it may go to, once; empty for those that follow
    the leader.
    """

    stream: int
    kind: Kind
    body: Callable[[], bytes]
    future: "asyncio.Future[Any]"
    deadline_ns: int
    repeatable: bool = True
    pinned: str = ""
    maybe: bool = False
    sent_to: Link | None = None
    sent_ns: int = 0
    sends: int = 0
    repeats: int = 0
    waiting: bool = False
    refusal: OutlastError | None = None
    timers: tuple[TimerHandle, ...] = ()


class Courier:
    """Carries the requests of one client. Belongs to one event loop; not thread-safe."""

    def __init__(
        self,
        world: World,
        seeds: Sequence[str],
        *,
        routes: Mapping[str, str] | None = None,
        security: Security | None = None,
        name: str = "client",
    ) -> None:
        self._world = world
        self._clock_ns = world.clock.monotonic_ns
        self.routing = Routing(tuple(seeds), dict(routes or {}))
        self.links = Links(
            world,
            self,
            channel=CLIENT_CHANNEL,
            identity=Identity(node=name, purpose="client"),
            security=security or Security(),
        )
        self._calls: dict[int, Call] = {}
        self._parked: dict[int, Call] = {}
        self._stream = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._current: Link | None = None
        self._alarm: TimerHandle | None = None
        self._alarm_ns = _NEVER_NS
        self._watch: TimerHandle | None = None
        self._asking: TimerHandle | None = None
        self._seeking = False  # somebody wants the leader; who only asks pinned nodes does not
        self._pins: set[str] = set()
        self.view: View | None = None
        self.closed = False

    # --- use ---------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests not yet answered."""
        return len(self._calls)

    async def request(
        self,
        kind: Kind,
        body: Callable[[], bytes],
        deadline: Deadline,
        *,
        repeatable: bool = True,
    ) -> Reply:
        """Carry a request to the leader and return its reply.

        Raises:
            TooLateError: Definite. The deadline had passed.
            UnavailableError: Definite. No leader was found, or all refused, until then.
            DeadlineError: Indefinite. It was sent and not answered.
            OutlastError: What the cluster refused it with.
        """
        if deadline.passed(self._clock_ns()):
            message = "the deadline had passed before the call was sent"
            raise TooLateError(message)
        call = self._new_call(kind, body, deadline)
        call.repeatable = repeatable
        self._seeking = True
        link = self._current
        if link is not None and link.connection is not None:
            self._transmit(call, link)
        else:
            self._route(call)
        try:
            reply: Reply = await call.future
            return reply
        finally:
            self._forget(call)

    async def ask_node(self, address: str, kind: Kind, deadline: Deadline) -> bytes:
        """Send ``kind`` without a body to the node at ``address`` and return its answer.

        Raises:
            UnavailableError: Definite. It could not be reached in time.
            ConnectionLostError: It went away.
        """
        while not deadline.passed(self._clock_ns()):
            try:
                answer: bytes = await self._ask_once(address, kind, b"", deadline)
                return answer
            except UnavailableError:
                # A rest that ends after the deadline would end in its error, which knows less.
                if self.closed or deadline.left_ns(self._clock_ns()) <= _ASK_ONE_AGAIN_NS:
                    raise
                await self._world.timers.sleep(_ASK_ONE_AGAIN_NS / 1e9)
        raise self._unreachable(address)

    async def query_at(self, address: str, body: bytes, deadline: Deadline) -> Reply:
        """Send one query to the node at ``address`` alone and return its reply.

        One dial if there is no connection, one attempt: no redirect, no repeat, and what the
        node answers says nothing to other calls. The connection stays until :meth:`close`.

        Raises:
            TooLateError: Definite. The deadline had passed.
            UnavailableError: Definite. It could not be reached, or it refused.
            ConnectionLostError: It went away.
            DeadlineError: It was sent and not answered in time.
            OutlastError: What the node refused it with, such as ``ElsewhereError``.
        """
        if deadline.passed(self._clock_ns()):
            message = "the deadline had passed before the call was sent"
            raise TooLateError(message)
        self._pins.add(address)
        reply: Reply = await self._ask_once(address, Kind.QUERY, body, deadline)
        return reply

    async def _ask_once(self, address: str, kind: Kind, body: bytes, deadline: Deadline) -> Any:
        call = self._new_call(kind, lambda: body, deadline)
        call.pinned = address
        try:
            link = self.links.by_address.get(address)
            if link is not None and link.open:
                self._transmit(call, link)
            else:
                self.links.want(address)
            return await call.future
        finally:
            self._forget(call)

    def _unreachable(self, address: str) -> UnavailableError:
        return UnavailableError(f"{address}: {self.links.errors.get(address, 'no answer')}")

    def close(self) -> None:
        """Close; what is under way ends with :class:`ConnectionLostError`."""
        self.closed = True
        self.links.close()
        for timer in (self._watch, self._asking, self._alarm):
            if timer is not None:
                timer.cancel()
        for call in list(self._calls.values()):
            self._end(call, ConnectionLostError("the client was closed"))

    def look(self) -> None:
        """Ask around for a leader until one is found; idempotent."""
        self._seeking = True
        if not self.closed and self._asking is None:
            self._ask()

    # --- calls -------------------------------------------------------------------------------

    def _new_call(self, kind: Kind, body: Callable[[], bytes], deadline: Deadline) -> Call:
        if self.closed:
            message = "the client is closed"
            raise UnavailableError(message)
        self._stream = stream = (self._stream + 1) & 0xFFFFFFFF
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        call = Call(stream, kind, body, loop.create_future(), deadline.at_ns)
        self._calls[stream] = call
        if deadline.at_ns < self._alarm_ns:
            self._arm_alarm(deadline.at_ns)
        return call

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.stream, None)
        if self._parked:
            self._parked.pop(call.stream, None)
        for one in call.timers:
            one.cancel()

    def _arm_alarm(self, at_ns: int) -> None:
        """Have one timer for all deadlines, at the nearest that was ever asked for."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_ns = at_ns
        self._alarm = self._world.timers.call_at(at_ns, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm, self._alarm_ns = None, _NEVER_NS
        now = self._clock_ns()
        nearest = _NEVER_NS
        for call in list(self._calls.values()):
            if call.deadline_ns <= now:
                self._late(call)
            else:
                nearest = min(nearest, call.deadline_ns)
        if nearest < _NEVER_NS and not self.closed:
            self._arm_alarm(nearest)

    def _late(self, call: Call) -> None:
        if call.maybe or call.sent_to is not None:
            message = "no answer before the deadline; it may have happened"
            self._end(call, DeadlineError(message))
        elif call.refusal is not None:
            self._end(call, call.refusal)
        elif call.pinned:
            self._end(call, self._unreachable(call.pinned))
        else:
            self._end(call, UnavailableError(self.why_unreachable(), retry_after=1.0))

    def why_unreachable(self) -> str:
        """Say in one line why no leader can be asked."""
        reasons = "; ".join(f"{a}: {e}" for a, e in sorted(self.links.errors.items()))
        known = ", ".join(self.routing.ask())
        return f"no leader found among {known}" + (f" ({reasons})" if reasons else "")

    @staticmethod
    def _end(call: Call, error: BaseException) -> None:
        if not call.future.done():
            call.future.set_exception(error)

    # --- sending -----------------------------------------------------------------------------

    def _leader_link(self) -> Link | None:
        """Return the open link to the leader, and remember it for the calls to come."""
        leader = self.routing.leader
        self._current = self.links.to_node(leader) if leader else None
        return self._current

    def _route(self, call: Call) -> None:
        link = self._leader_link()
        if link is not None:
            self._transmit(call, link)
        else:
            self._parked[call.stream] = call
            self.look()
            self._follow()

    def _transmit(self, call: Call, link: Link) -> None:
        if call.sends:
            self._parked.pop(call.stream, None)
            if call.sent_to is not None:
                call.maybe = True
        elif self._parked:
            self._parked.pop(call.stream, None)
        call.sends += 1
        call.sent_to = link
        call.sent_ns = self._clock_ns()
        call.waiting = False
        try:
            link.send(call.kind, call.stream, call.body())
        except ProtocolError as error:  # too large for a frame: it ends alone, others go on
            call.sent_to = None
            self._end(call, error)
            return
        if self._watch is None and not call.pinned:
            self._watch = self._world.timers.call_at(call.sent_ns + _SILENCE_NS, self._on_watch)

    def _follow(self) -> None:
        """Send the leader everything that it does not have yet."""
        leader = self.routing.leader
        link = self._leader_link()
        if link is None:
            address = self.routing.address_of(leader) if leader else None
            if address is not None and self._seeking:
                self.links.want(address)
            return
        for call in list(self._calls.values()):
            if not call.pinned and not call.waiting and call.sent_to is not link:
                self._transmit(call, link)
        if not self.routing.looking:
            busy = {call.sent_to for call in self._calls.values()}
            for other in self.links.open_links():
                if other is not link and other not in busy and other.address not in self._pins:
                    self.links.drop(other)

    def _ask(self) -> None:
        self._asking = None
        if self.closed or not self.routing.looking:
            return
        for address in self.routing.ask():
            self.links.want(address)
        wait_ns = _ASK_AGAIN_NS + self._world.prng.below(_ASK_AGAIN_NS // 2)
        self._asking = self._world.timers.call_at(self._clock_ns() + wait_ns, self._ask)

    def _on_watch(self) -> None:
        """Doubt a leader that owes an answer and has said nothing for a while."""
        self._watch = None
        link = self._leader_link()
        owed = [c.sent_ns for c in self._calls.values() if c.sent_to is link and not c.pinned]
        if link is None or not owed or self.closed:
            return
        now = self._clock_ns()
        quiet_since = max(min(owed), link.heard_ns)
        if now - quiet_since >= _SILENCE_NS and self.routing.doubt(link.node):
            self.look()
        due = max(now + _SILENCE_NS // 5, quiet_since + _SILENCE_NS)
        self._watch = self._world.timers.call_at(due, self._on_watch)

    # --- what the links say --------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        """Remember who answers at the address; its view follows."""
        self.routing.reached(link.address, link.node)
        for call in list(self._calls.values()):
            if call.pinned == link.address and not call.sends:
                self._transmit(call, link)
        if link.node == self.routing.leader:
            self._follow()

    def link_down(self, link: Link) -> None:
        """Ask the others at once when it was the leader's."""
        self._current = None
        was_leader = bool(link.node) and self.routing.doubt(link.node)
        for call in list(self._calls.values()):
            if call.pinned == link.address and not call.sends:
                # The dial failed; of an older connection it says nothing new.
                if self.links.by_address.get(link.address, link) is link:
                    self._end(call, self._unreachable(link.address))
                continue
            if call.sent_to is not link:
                continue
            call.sent_to = None
            call.maybe = True
            if call.pinned:
                self._end(call, ConnectionLostError(f"connection to {link.address} lost"))
            elif not call.repeatable:
                self._end(call, ConnectionLostError("connection lost; it may have happened"))
            else:
                self._parked[call.stream] = call
        if self._parked or (was_leader and self._seeking):
            self.look()

    def link_frame(self, link: Link, kind: int, stream: int, body: bytes) -> None:
        """Take an answer or a view."""
        call = self._calls.get(stream)
        if kind == _REPLY:
            if call is not None and not call.future.done():
                self._on_reply(call, link, decode_reply(body))
        elif kind == Kind.VIEW:
            self._on_view(link, _VIEW.decode(body))
        elif kind == Kind.ANSWER and call is not None and not call.future.done():
            call.future.set_result(body)

    def _on_view(self, link: Link, view: View) -> None:
        seats = [SeatView(seat.node, seat.address) for seat in view.seats]
        changed = self.routing.learn(view.term, view.leader, seats)
        self._current = None
        if view.term >= self.routing.term:
            self.view = view
        if (
            changed
            or (self._parked and self.routing.leader)
            or (link.node == self.routing.leader and not self.routing.doubted)
        ):
            self._follow()

    def _on_reply(self, call: Call, link: Link, reply: Reply) -> None:
        if call.pinned:
            self._on_pinned_reply(call, reply)
            return
        if reply.status <= COMMAND_ERROR:
            if self.routing.doubted:
                self.routing.trust(link.node)
            call.future.set_result(reply)
            return
        if call.sent_to is not link:
            return
        error = decode_reply_error(reply)
        step = next_step(
            reply.status, error, maybe=call.maybe, repeatable=call.repeatable,
            applied=reply.index > 0,
        )  # fmt: skip
        call.sent_to = None
        if isinstance(step, Finish):
            call.future.set_result(reply)
        elif isinstance(step, Fail):
            self._end(call, step.error)
        elif isinstance(step, Reopen):
            self._end(call, SessionExpiredError(str(error)))
        elif isinstance(step, GoTo):
            call.refusal = error
            self._redirect(call, link, step.hint)
        elif isinstance(step, WaitAndRepeat):
            if happened(error) == "no":
                call.refusal = error
            else:
                call.maybe = True
            if isinstance(error, UnavailableError) and self.routing.doubt(link.node):
                # It leads no more and knows no other: removed, or cut off from the others.
                self.look()
            self._repeat_later(call, step.at_least)

    def _on_pinned_reply(self, call: Call, reply: Reply) -> None:
        if reply.status <= COMMAND_ERROR:
            call.future.set_result(reply)
        else:
            self._end(call, decode_reply_error(reply))

    def _redirect(self, call: Call, link: Link, hint: str) -> None:
        self.routing.redirected(link.node, hint)
        self._current = None
        call.repeats += 1
        if call.repeats > _REDIRECTS_AT_ONCE:
            self._repeat_later(call, 0.0)
            self.look()
            return
        self._parked[call.stream] = call
        self.look()
        self._follow()

    def _repeat_later(self, call: Call, at_least: float) -> None:
        call.repeats += 1
        call.waiting = True
        wait_ns = int(at_least * 1e9) + _BACKOFF.draw_ns(call.repeats + 1, self._world.prng)

        def again() -> None:
            if call.waiting and not call.future.done():
                call.waiting = False
                self._route(call)

        timer = self._world.timers.call_at(self._clock_ns() + wait_ns, again)
        call.timers = (*call.timers, timer)
