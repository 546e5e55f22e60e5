"""Watches a drill while it runs: what the nodes say, who leads, what goes around the proxy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from outlast.drill.core.detection import sign, who_leads
from outlast.drill.core.witness import Spans, Witness
from outlast.drill.injected import Injected
from outlast.drill.lab import Lab
from outlast.drill.report import NodeState
from outlast.drill.workload import Running
from outlast.kernel import World

_NS = 1_000_000_000
LOOK_SECONDS = 0.12
"""Seconds between two looks at the nodes."""
LOOK_AROUND_EVERY = 4
"""Every so many looks, connections that go around the proxy are searched for."""
LOOK_FOR_LISTENERS_EVERY = 16
"""Every so many looks, ports that nodes have opened besides are searched for."""
_ROLES: Mapping[str, NodeState] = {
    "leader": "leader",
    "follower": "follower",
    "candidate": "candidate",
    "pre_candidate": "candidate",
}


@dataclass(slots=True)
class NodeView:
    """One node while the drill runs."""

    name: str
    state: NodeState = "up"
    term: int | None = None
    applied: int | None = None
    starts: int = 1


@dataclass(slots=True)
class View:
    """What is shown while a drill runs."""

    name: str
    seconds: float
    phase: str = "starting the nodes"
    elapsed: float = 0.0
    fault: str = ""
    victims: tuple[str, ...] = ()
    injected: int = 0
    planned: int = 0
    ok: int = 0
    fail: int = 0
    info: int = 0
    rate: float = 0.0
    nodes: list[NodeView] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """Lines about faults that are over, the newest last."""


@dataclass(slots=True)
class Watcher:
    """Looks at the lab a few times a second, keeps what it saw, and shows it.

    Args:
        world: Clock and timers.
        lab: The nodes.
        running: The workloads.
        view: What is shown.
        show: Called with the view after each look.
        injected: The faults so far; the last one may be in force.
    """

    world: World
    lab: Lab
    running: Sequence[Running]
    view: View
    show: Callable[[View], None]
    injected: Sequence[Injected] = ()
    began_ns: int = 0
    witness: Witness = field(default_factory=Witness)
    spans: Spans = field(default_factory=Spans)
    signs: dict[int, tuple[int, str]] = field(default_factory=dict)
    leader: str = ""
    stall_ns: int = 0
    _term: int = 0
    _terms: dict[int, int] = field(default_factory=dict)
    _statuses: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)

    @property
    def _current(self) -> Injected | None:
        return self.injected[-1] if self.injected and self.injected[-1].active else None

    def now(self) -> int:
        """Return nanoseconds since the load began."""
        return self.world.clock.monotonic_ns() - self.began_ns

    async def run(self) -> None:
        """Look until cancelled.

        Raises:
            ConfigError: A client ended by a defect in the drill's own code.
        """
        number = 0
        while True:
            if number % LOOK_FOR_LISTENERS_EVERY == 0:
                await self.lab.look_for_listeners()
            number += 1
            await self.look(around=number % LOOK_AROUND_EVERY == 1)
            began_ns = self.world.clock.monotonic_ns()
            await self.world.timers.sleep(LOOK_SECONDS)
            late_ns = self.world.clock.monotonic_ns() - began_ns - int(LOOK_SECONDS * _NS)
            self.stall_ns = max(self.stall_ns, late_ns)

    async def look(self, *, around: bool) -> None:
        """Ask the nodes, note what they say, and show it."""
        for running in self.running:
            running.check()
        self._statuses = await self.lab.statuses()
        now = self.now()
        self.leader, term = who_leads(self._statuses)
        self._term = max(term, self._term)
        for name, facts in self._statuses.items():
            if facts is not None:
                self.witness.observe(facts)
            self.spans.sample(name, self._state(name, facts), max(0, now))
        self._notice(now)
        if around:
            self.lab.look_around()
        self._refresh(now)

    def answered(self, node: str, answered: bool) -> None:
        """A pinned client of ``node`` has had an answer, or none in time."""
        current = self._current
        if answered and current is not None and node in current.asked:
            current.asked[node] += 1

    def say_last(self) -> None:
        """Tell about the fault that is over."""
        one = self.injected[-1]
        self.view.said.append(
            f"{one.planned.fault} at {one.start_ns / _NS:.1f} s on {' '.join(one.aim.victims)}:"
            f" {one.evidence or 'NO EVIDENCE'}"
        )

    def tell(self, phase: str) -> None:
        """Show that another phase has begun."""
        self.view.phase = phase
        self.show(self.view)

    def _state(self, name: str, facts: Mapping[str, Any] | None) -> NodeState:
        node = self.lab.nodes[name]
        if not node.running:
            return "down"
        if node.paused:
            return "paused"
        current = self._current
        if current is not None and current.cuts_off and name in current.aim.victims:
            return "cut"
        role = str(facts.get("role", "")) if facts is not None else ""
        return _ROLES.get(role, "up")

    def _notice(self, now: int) -> None:
        """Remember the first sign that the target noticed the fault in force."""
        number = len(self.injected) - 1
        if number < 0 or number in self.signs:
            return
        one = self.injected[number]
        term = self._terms.setdefault(number, self._term)
        found = sign(self._statuses, one.aim.victims, one.leader, term)
        if found and one.active:
            self.signs[number] = (now - one.start_ns, found)

    def _refresh(self, now: int) -> None:
        view, current = self.view, self._current
        elapsed = max(0.0, now / _NS)
        view.elapsed = min(elapsed, view.seconds)
        for kind in ("ok", "fail", "info"):
            setattr(view, kind, sum(r.counts[kind] for r in self.running))
        view.rate = view.ok / elapsed if elapsed > 0 else 0.0
        view.fault = str(current.planned.fault) if current is not None else ""
        view.victims = current.aim.victims if current is not None else ()
        view.injected = len(self.injected)
        view.nodes = [self._node_view(name, facts) for name, facts in self._statuses.items()]
        self.show(view)

    def _node_view(self, name: str, facts: Mapping[str, Any] | None) -> NodeView:
        known = facts or {}
        return NodeView(
            name,
            self._state(name, facts),
            known.get("term"),
            known.get("applied_index"),
            self.lab.nodes[name].starts,
        )
