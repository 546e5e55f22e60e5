"""A whole membership in one thread: seeded network, machines that die, stop or read late.

Node level: it calls ``SwimNode.step`` directly and carries the effects out itself. Times are
virtual. A *killed* process's machine refuses its port; one that lost *power* is silent. A *frozen*
one does nothing, and then all that waited. A *slow* one has timers that run but neither sends nor
reads, as in the experiments of the Lifeguard paper (section V). Everything is drawn from one seed.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from outlast.detect.core.swim import wire
from outlast.detect.core.swim.api import (
    Effects,
    Input,
    Me,
    MemberState,
    PacketReceived,
    PortRefused,
    Started,
    StreamFailed,
    StreamReceived,
    TimerFired,
)
from outlast.detect.core.swim.node import SwimNode
from outlast.detect.core.swim.settings import SwimSettings
from outlast.kernel import Event, Prng

MS = 1_000_000
SECOND = 1_000 * MS
STREAM_NS = 3 * SECOND
INBOX_MAX = 8192


class BrokenError(AssertionError):
    """A promise of the membership does not hold."""


@dataclass
class Net:
    """How datagrams and streams travel."""

    low_ns: int = MS // 5
    high_ns: int = 2 * MS
    lost_per_mille: int = 0
    icmp: bool = True
    """Whether a refused datagram is seen by the sender; a refused stream always is."""
    groups: dict[str, int] = field(default_factory=dict)
    cut: set[tuple[str, str]] = field(default_factory=set)

    def passes(self, source: str, target: str) -> bool:
        if self.groups and self.groups.get(source, 0) != self.groups.get(target, 0):
            return False
        return (source, target) not in self.cut


class Machine:
    """One place where a process of one name may run."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.node: SwimNode | None = None
        self.refuses = True
        self.stopped = False  # frozen: nothing runs
        self.slow = False  # messages wait in both directions
        self.inbox: list[Input] = []
        self.outbox: list[Effects] = []
        self.wake_ns = -1
        self.life = 0
        self.seen: dict[str, int] = {}


@dataclass(frozen=True)
class Said:
    """An event, when, and whose."""

    at_ns: int
    by: str
    event: Event


class Swim:
    """The cluster. ``run`` goes on in virtual time; ``at`` plans what is done to it."""

    def __init__(
        self,
        size: int,
        settings: SwimSettings | None = None,
        *,
        seed: int = 1,
        net: Net | None = None,
        keep: tuple[type, ...] | None = None,
    ) -> None:
        self.settings = settings or SwimSettings.lan()
        self.prng = Prng(seed)
        self.net = net or Net()
        self.now_ns = 0
        self.keep = keep
        self.said: list[Said] = []
        self.packets = self.bytes = self.steps = 0
        self.sent: Counter[str] = Counter()
        self.machines = [Machine(f"n{i}", f"h{i}:7946") for i in range(size)]
        self.by_address = {one.address: one for one in self.machines}
        self.by_name = {one.name: one for one in self.machines}
        self._heap: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = count()
        self._requests: dict[int, tuple[Machine, int, str, list[bool]]] = {}
        self._request = count(1)

    # --- what is done to it ----------------------------------------------------------------

    def at(self, when_ns: int, call: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._heap, (when_ns, next(self._order), call, arguments))

    def start(self, index: int, seeds: Iterable[int] = (0,), **me: object) -> None:
        """Start a process that joins through the machines ``seeds``."""
        machine = self.machines[index]
        machine.life += 1
        machine.seen = {}
        machine.stopped = machine.slow = False
        machine.inbox, machine.outbox, machine.wake_ns = [], [], -1
        who = Me(machine.name, machine.address, **me)  # type: ignore[arg-type]
        machine.node = SwimNode(self.settings, who, self.prng.fork())
        self._step(machine, Started(tuple(self.machines[one].address for one in seeds)))

    def start_all(self, spread_ns: int = SECOND) -> None:
        """Start everybody through the first, one after the other within ``spread_ns``."""
        self.start(0, ())
        for index in range(1, len(self.machines)):
            self.at(self.now_ns + self.prng.below(spread_ns) + 1, self.start, index)

    def start_joined(self) -> None:
        """Start everybody as if all had long joined: quick for many members."""
        for index in range(len(self.machines)):
            self.start(index, ())
        entries = []
        for one in self.machines:
            assert one.node is not None
            context = one.node._context
            entries.append(wire.Entry(one.name, one.address, 0, context.session, 0, {}, []))
        for one in self.machines:
            body = wire.encode(wire.ExchangeAnswer("bootstrap", entries))
            self._step(one, StreamReceived(body, "bootstrap:1"))
            assert one.node is not None
            for waiting in self.machines:
                one.node._context.queue.drop(waiting.name)
        self.said.clear()

    def kill(self, index: int, refuses: bool = True) -> None:
        """End a process; ``refuses``: its machine lives and says that nobody listens."""
        machine = self.machines[index]
        machine.node, machine.refuses = None, refuses
        machine.life += 1

    def freeze(self, index: int, for_ns: int) -> None:
        machine = self.machines[index]
        machine.stopped = True
        self.at(self.now_ns + for_ns, self._thaw, machine, machine.life)

    def slow_down(self, index: int, for_ns: int) -> None:
        machine = self.machines[index]
        machine.slow = True
        self.at(self.now_ns + for_ns, self._hurry, machine, machine.life)

    def tell(self, index: int, event: Input) -> None:
        self._step(self.machines[index], event)

    def partition(self, groups: dict[int, int]) -> None:
        self.net.groups = {self.machines[i].address: group for i, group in groups.items()}

    def heal(self) -> None:
        self.net.groups = {}
        self.net.cut = set()

    def run(self, for_ns: int) -> None:
        end = self.now_ns + for_ns
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now_ns, _, call, arguments = heapq.heappop(heap)
            call(*arguments)
        self.now_ns = end

    # --- what it looks like ----------------------------------------------------------------

    def live(self) -> list[Machine]:
        return [one for one in self.machines if one.node is not None]

    def view(self, observer: int, subject: int) -> MemberState | None:
        node = self.machines[observer].node
        assert node is not None
        member = node.member(self.machines[subject].name)
        return None if member is None else member.state

    def events(self, kind: type, about: str = "", by: str = "") -> list[Said]:
        return [
            one
            for one in self.said
            if isinstance(one.event, kind)
            and (not by or one.by == by)
            and (not about or getattr(one.event, "member").name == about)  # noqa: B009
        ]

    def check_agreed(self) -> None:
        """All that live know all that live, and nobody who does not."""
        names = {one.name for one in self.live()}
        for one in self.live():
            assert one.node is not None
            states = {member.name: member.state for member in one.node.members()}
            wrong = {
                name: states.get(name)
                for name in sorted(names)
                if states.get(name) is not MemberState.ALIVE
            }
            ghosts = {
                name: state
                for name, state in states.items()
                if name not in names and state not in {MemberState.DEAD, MemberState.LEFT}
            }
            if wrong or ghosts:
                raise BrokenError(
                    f"at {self.now_ns / 1e9:.2f} s {one.name} sees {wrong or ghosts} wrongly"
                )

    # --- inside ----------------------------------------------------------------------------

    def _step(self, machine: Machine, event: Input) -> None:
        node = machine.node
        if node is None:
            return
        self.steps += 1
        effects = node.step(event, self.now_ns)
        deadline = node.deadline_ns
        if deadline != machine.wake_ns and deadline < 1 << 61:
            machine.wake_ns = deadline
            self.at(max(deadline, self.now_ns), self._wake, machine, machine.life, deadline)
        if effects.events:
            self._listen(machine, effects)
        if machine.slow:
            machine.outbox.append(effects)
        else:
            self._send(machine, effects)
        if effects.left:
            self.kill(self.machines.index(machine))

    def _listen(self, machine: Machine, effects: Effects) -> None:
        for event in effects.events:
            member = getattr(event, "member", None)
            if member is not None:
                before = machine.seen.get(member.name, 0)
                if member.incarnation < before:
                    raise BrokenError(
                        f"{machine.name} saw incarnation {member.incarnation} of "
                        f"{member.name} after {before}"
                    )
                machine.seen[member.name] = member.incarnation
            if self.keep is None or isinstance(event, self.keep):
                self.said.append(Said(self.now_ns, machine.name, event))

    def _send(self, machine: Machine, effects: Effects) -> None:
        net, prng, now = self.net, self.prng, self.now_ns
        for packet in effects.packets:
            self.packets += 1
            self.bytes += len(packet.data)
            self.sent[machine.name] += len(packet.data)
            if len(packet.data) > self.settings.packet_bytes_max:
                raise BrokenError(f"a packet of {len(packet.data)} bytes")
            if net.lost_per_mille and prng.below(1000) < net.lost_per_mille:
                continue
            if not net.passes(machine.address, packet.target):
                continue
            target = self.by_address.get(packet.target)
            if target is not None:
                arrives = now + net.low_ns + prng.below(net.high_ns - net.low_ns)
                self.at(arrives, self._arrive, machine, target, packet.data)
        for stream in effects.streams:
            self._stream(machine, stream.target, stream.data, stream.request)

    def _arrive(self, source: Machine, target: Machine, data: bytes) -> None:
        if target.node is None:
            if target.refuses and self.net.icmp:
                self._input(source, PortRefused(target.address))
            return
        self._input(target, PacketReceived(data, source.address))

    def _input(self, machine: Machine, event: Input) -> None:
        if machine.stopped or machine.slow:
            if len(machine.inbox) < INBOX_MAX and machine.node is not None:
                machine.inbox.append(event)
            return
        self._step(machine, event)

    def _wake(self, machine: Machine, life: int, deadline: int) -> None:
        if machine.life == life and machine.wake_ns == deadline and not machine.stopped:
            machine.wake_ns = -1
            self._step(machine, TimerFired())

    def _thaw(self, machine: Machine, life: int) -> None:
        if machine.life != life:
            return
        machine.stopped = False
        machine.wake_ns = -1
        timer_first = self.prng.chance(1, 2)
        if timer_first:
            self._step(machine, TimerFired())
        self._drain(machine)
        if not timer_first:
            self._step(machine, TimerFired())

    def _hurry(self, machine: Machine, life: int) -> None:
        if machine.life != life:
            return
        machine.slow = False
        outbox, machine.outbox = machine.outbox, []
        for effects in outbox:
            self._send(machine, effects)
        self._drain(machine)

    def _drain(self, machine: Machine) -> None:
        inbox, machine.inbox = machine.inbox, []
        for event in inbox:
            self._step(machine, event)

    # --- streams ---------------------------------------------------------------------------

    def _stream(self, machine: Machine, target: str, data: bytes, request: int | None) -> None:
        now, net, prng = self.now_ns, self.net, self.prng
        if request is not None:
            asker, life, asked, done = self._requests.pop(request)
            if not done[0] and asker.life == life:
                trip = net.low_ns + prng.below(net.high_ns - net.low_ns)
                self.at(now + trip, self._answered, asker, life, asked, data, done)
            return
        other = self.by_address.get(target)
        done = [False]
        self.at(now + STREAM_NS, self._stream_late, machine, machine.life, target, done)
        if other is None or not (
            net.passes(machine.address, target) and net.passes(target, machine.address)
        ):
            return
        trip = 2 * net.high_ns
        self.at(now + trip, self._stream_arrives, machine, machine.life, other, data, done)

    def _stream_arrives(
        self, machine: Machine, life: int, other: Machine, data: bytes, done: list[bool]
    ) -> None:
        if other.node is None:
            if other.refuses and machine.life == life:
                done[0] = True
                self._input(machine, PortRefused(other.address))
                self._input(machine, StreamFailed(other.address))
            return
        request = next(self._request)
        self._requests[request] = (machine, life, other.address, done)
        self._input(other, StreamReceived(data, machine.address, request))

    def _answered(
        self, machine: Machine, life: int, target: str, data: bytes, done: list[bool]
    ) -> None:
        if not done[0] and machine.life == life:
            done[0] = True
            self._input(machine, StreamReceived(data, target))

    def _stream_late(self, machine: Machine, life: int, target: str, done: list[bool]) -> None:
        if not done[0] and machine.life == life:
            done[0] = True
            self._input(machine, StreamFailed(target))


def grown(size: int, settings: SwimSettings | None = None, seed: int = 1, **net: object) -> Swim:
    """Everybody has joined and five seconds have gone."""
    sim = Swim(size, settings, seed=seed, net=Net(**net))  # type: ignore[arg-type]
    sim.start_all()
    sim.run(6 * SECOND)
    sim.check_agreed()
    sim.said.clear()
    return sim
