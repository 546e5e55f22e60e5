"""Drives one membership core: its effects, its one timer, the hook, and what comes in."""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from outlast.detect.core.swim import api
from outlast.detect.core.swim.api import Member
from outlast.detect.members_events import ConfirmFailed
from outlast.detect.members_feed import REJECTED_EVERY_NS, Audience, Seldom
from outlast.detect.members_net import Net
from outlast.detect.members_pause import LATE_NS, Fitness, OwnPauses
from outlast.detect.members_seal import Purpose, Seal
from outlast.detect.members_view import QUESTION, encode_view, row
from outlast.detect.membership_events import PacketDropped
from outlast.kernel import Event, TaskHandle, TimerHandle, World

Confirm = Callable[[Member], bool | Awaitable[bool]]

_STREAM_SECONDS: Final = 3.0
_HOOK_SECONDS: Final = 10.0
_READ_FIRST_NS: Final = 30_000_000
_SCORE_STEP: Final = 0.05


class Driver:
    """Everything between a core and its machine. Not thread-safe; made on the loop.

    Args:
        name: The member's.
        world: Clock, timers, tasks, events.
        seal: Closes and opens messages.
        audience: Told of all events.
        hook: Says whether an unreachable member is dead; ``None``: it is.
        local: Whether this process is fit to accuse; ``None``: judged by its timer.
    """

    def __init__(
        self,
        name: str,
        world: World,
        seal: Seal,
        audience: Audience,
        *,
        hook: Confirm | None,
        local: Fitness | None,
    ) -> None:
        self.name = name
        self.world = world
        self.net = Net(world, seal, self, stream_timeout=_STREAM_SECONDS)
        self.node: Any = None
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._audience = audience
        self._hook = hook
        self._own_pauses = OwnPauses()
        self._local: Fitness = local or self._own_pauses
        self._fit = (True, 0.0)
        self._rejections = Seldom(REJECTED_EVERY_NS)
        self._todo: deque[api.Effects] = deque()
        self._acting = False
        self._closed = False
        self._timer: TimerHandle | None = None
        self._timer_ns = 0
        self._read_first = False
        self._hooks: dict[str, TaskHandle] = {}
        self._requests: dict[int, asyncio.Future[bytes]] = {}
        self._request = 0
        self._joins: list[Join] = []

    async def close(self) -> None:
        """Let go of everything. A second time does nothing."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in list(self._hooks.values()):
            task.cancel()
        for join in self._joins:
            join.end(answered=False)
        await self.net.close()

    def now_ns(self) -> int:
        """Return the time."""
        return self.world.clock.monotonic_ns()

    def rows(self) -> list[dict[str, Any]]:
        """Return all members as values that JSON knows."""
        now_ns = self.now_ns()
        return [] if self.node is None else [row(one, now_ns) for one in self.node.members()]

    # --- the core and its effects ------------------------------------------------------------

    def feed(self, event: api.Input) -> None:
        """Let the core take one step; effects are carried out in their order, outside of it."""
        if self.node is None or self._closed:
            return
        effects = self.node.step(event, self.now_ns())
        if effects is not api.NOTHING:
            self._todo.append(effects)
        if not self._acting:
            self._act()

    def _act(self) -> None:
        self._acting = True
        try:
            while self._todo:
                self._carry_out(self._todo.popleft())
        finally:
            self._acting = False
        self._arm()

    def _carry_out(self, effects: api.Effects) -> None:
        if self._closed:
            return
        net = self.net
        for packet in effects.packets:
            net.send(packet.target, packet.data)
        for stream in effects.streams:
            if stream.request is None:
                net.ask(stream.target, stream.data)
            elif (waiting := self._requests.get(stream.request)) and not waiting.done():
                waiting.set_result(stream.data)
        for asked in effects.asks:
            self._ask_hook(asked.member)
        for event in effects.events:
            self.tell(event)
        if effects.left and not self.left.done():
            self.left.set_result(None)

    def tell(self, event: Event) -> None:
        """Hand ``event`` to all who listen."""
        self.world.events.emit(event)
        self._audience.tell(event)

    # --- the one timer -----------------------------------------------------------------------

    def _arm(self, at_ns: int | None = None) -> None:
        if self._closed or (self._read_first and not at_ns):
            return
        wanted_ns = at_ns or self.node.deadline_ns
        if self._timer is not None:
            if self._timer_ns == wanted_ns:
                return
            self._timer.cancel()
        self._timer_ns = wanted_ns
        self._timer = self.world.timers.call_at(wanted_ns, self._on_timer)

    def _on_timer(self) -> None:
        """Let the core know the time, unless the answers that it waits for lie unread.

        A process that was stopped, or its loop blocked, finds its timers expired and its socket
        full: what has come in meanwhile is read first, and then judged by.
        """
        self._timer = None
        now_ns = self.now_ns()
        late_ns = now_ns - self._timer_ns
        if late_ns > LATE_NS and not self._read_first:
            self._read_first = True
            self._own_pauses.timer(late_ns, now_ns)
            self._arm(now_ns + _READ_FIRST_NS)
            return
        if not self._read_first:
            self._own_pauses.timer(late_ns, now_ns)
        self._read_first = False
        self._judge_self(now_ns)
        self.feed(api.TimerFired())

    def _judge_self(self, now_ns: int) -> None:
        try:
            allowed, score = self._local.may_accuse(now_ns), self._local.score
        except Exception as error:
            self._local = self._own_pauses
            allowed, score = self._local.may_accuse(now_ns), self._local.score
            context: dict[str, Any] = {
                "message": f"local of Members {self.name} raised, and is not asked again",
                "exception": error,
            }
            asyncio.get_running_loop().call_exception_handler(context)
        was_allowed, was_score = self._fit
        if allowed != was_allowed:
            self._fit = (allowed, was_score)
            self.feed(api.AccusationsAllowed(allowed))
        if abs(score - was_score) >= _SCORE_STEP:
            self._fit = (allowed, score)
            self.feed(api.LocalScore(min(max(score, 0.0), 1.0)))

    # --- the hook ----------------------------------------------------------------------------

    def _ask_hook(self, member: Member) -> None:
        if self._hook is None:
            self.feed(api.Confirmed(member.name, dead=True))
        elif member.name not in self._hooks:
            self._hooks[member.name] = self.world.spawn.task(
                self._confirm(self._hook, member), name=f"members-confirm-{member.name}"
            )

    async def _confirm(self, hook: Confirm, member: Member) -> None:
        dead = False
        try:
            async with asyncio.timeout(_HOOK_SECONDS):
                answer = hook(member)
                dead = bool(await answer) if inspect.isawaitable(answer) else bool(answer)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:200]
            self.tell(ConfirmFailed(node=self.name, member=member.name, reason=reason))
        finally:
            self._hooks.pop(member.name, None)
        self.feed(api.Confirmed(member.name, dead))

    # --- what comes in (members_net.Hearer) ---------------------------------------------------

    def packet(self, data: bytes, source: str) -> None:
        """A datagram has come."""
        self.feed(api.PacketReceived(data, source))

    async def question(self, purpose: Purpose, data: bytes, source: str) -> bytes | None:
        """Somebody asks over TCP."""
        if purpose is Purpose.QUESTION:
            return encode_view(self.name, self.rows()) if data == QUESTION else None
        self._request += 1
        number = self._request
        answer = self._requests[number] = asyncio.get_running_loop().create_future()
        try:
            self.feed(api.StreamReceived(data, source, number))
            return answer.result() if answer.done() else None
        finally:
            del self._requests[number]

    def answered(self, target: str, data: bytes) -> None:
        """Our question to ``target`` was answered."""
        for join in self._joins:
            if target in join.targets:
                join.end(answered=True)
        self.feed(api.StreamReceived(data, target))

    def failed(self, target: str, *, refused: bool) -> None:
        """Our question to ``target`` was not; ``refused``: nobody listens there."""
        if refused:
            self.feed(api.PortRefused(target))
        self.feed(api.StreamFailed(target))
        for join in self._joins:
            join.failed(target)

    def rejected(self, source: str, reason: str) -> None:
        """Something has come that is none of the group's."""
        number = self._rejections.note(reason, self.now_ns())
        if number:
            self.tell(PacketDropped(node=self.name, source=source, reason=reason, count=number))

    # --- joining -----------------------------------------------------------------------------

    def expect(self, seeds: tuple[str, ...], own: str) -> "Join | None":
        """Begin to wait for an answer of one of ``seeds``, ``None`` if all are ``own``."""
        others = [seed for seed in seeds if seed != own]
        if not others:
            return None
        join = Join(others)
        self._joins.append(join)
        return join

    async def joined(self, join: "Join", timeout: float) -> bool:
        """Return whether one has answered in time."""
        try:
            async with asyncio.timeout(timeout):
                return await join.future
        except TimeoutError:
            return False
        finally:
            self._joins.remove(join)


class Join:
    """Waits until one of the seeds has answered, or each of them has failed."""

    __slots__ = ("_left", "future", "targets")

    def __init__(self, targets: Sequence[str]) -> None:
        self.targets = frozenset(targets)
        self._left = dict.fromkeys(targets)
        self.future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def failed(self, target: str) -> None:
        """``target`` has not answered."""
        self._left.pop(target, None)
        if not self._left:
            self.end(answered=False)

    def end(self, *, answered: bool) -> None:
        """It is decided."""
        if not self.future.done():
            self.future.set_result(answered)
