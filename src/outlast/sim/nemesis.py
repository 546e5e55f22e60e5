"""Injects the faults of a plan, with evidence for each, until the lab is healed.

Every fault is a lease: it ends by itself. A budget keeps the hosts that are down, stand still or
have a bad disk at the same time within what a system claims to survive: a minority, or one host
where there is only one. A fault that names ``@all`` or ``@majority`` has been declared so, and
is not held back.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from outlast.kernel import Fault, Prng
from outlast.sim.core.plan import (
    Cut,
    Plan,
    Step,
    cuts_of,
    kind_of,
    link_weather,
    victims_of,
)
from outlast.sim.dns import DnsFault, DnsKind
from outlast.sim.levers import Levers, draw_drift, draw_skew, draw_step
from outlast.sim.simulation import TEST

if TYPE_CHECKING:
    import asyncio

    from outlast.sim.simulation import Simulation

Budget = Literal["minority", "any"]
"""How many hosts may be lost at the same time: a minority (or the only one), or any number."""

_NS = 1_000_000_000
BY_HAND = -1
"""Index of what the test itself injected."""


@dataclass(slots=True)
class Injected:
    """A fault that was injected.

    Attributes:
        index: The step of the plan, or -1 if the test did it by hand.
        fault: Its name.
        victims: The hosts that it hit.
        at: When it began, in virtual seconds.
        until: When it ended; ``None`` while it goes on.
        evidence: What shows that it was felt, each with a number. Empty: nobody ran into it.
    """

    index: int
    fault: str
    victims: tuple[str, ...]
    at: float
    until: float | None = None
    evidence: dict[str, int] = field(default_factory=dict)

    @property
    def felt(self) -> bool:
        """Whether there is evidence that it happened."""
        return bool(self.evidence)

    def __str__(self) -> str:
        """Tell when, what, whom, how long and what came of it."""
        lasted = "" if self.until is None else f" for {self.until - self.at:.4f} s"
        facts = ", ".join(f"{name} {count}" for name, count in self.evidence.items())
        step = "" if self.index == BY_HAND else f" (step {self.index})"
        hit = " ".join(self.victims)
        return f"{self.at:10.4f} s  {self.fault} {hit}{lasted}: {facts or 'not felt'}{step}"


@dataclass(slots=True)
class _Active:
    record: Injected
    lease: int
    hosts: tuple[str, ...]
    budgeted: bool
    measure: Callable[[], dict[str, int]]


class Nemesis:
    """Lets the faults of a plan strike.

    Args:
        levers: What it pulls.
        plan: What strikes when; ``None`` for nothing.
        roles: Called for who leads and who follows, as far as anybody knows.
        budget: How many hosts may be lost at the same time.
        only: Indices of the steps that strike; ``None`` for all.

    Attributes:
        records: What was injected, in order.
    """

    def __init__(
        self,
        levers: Levers,
        plan: Plan | None,
        *,
        roles: Callable[[], dict[str, str] | None],
        budget: Budget = "minority",
        only: frozenset[int] | None = None,
    ) -> None:
        self.levers = levers
        self.sim: Simulation = levers.sim
        self.plan = plan
        self.records: list[Injected] = []
        self._roles = roles
        self._budget = budget
        self._only = only
        self._active: dict[int, _Active] = {}
        self._steps: Iterator[Step] = iter(())
        self._origin_ns = 0
        self._next: asyncio.Handle | None = None
        self._over = False
        self._rotten: dict[str, None] = {}
        self._aimed: set[str] = set()

    # --- schedule ------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether the plan goes on already."""
        return self._next is not None

    def start(self) -> None:
        """Begin with the plan, unless it is over; its instants count from now."""
        if self.plan is None or self.started or self._over:
            return
        self._origin_ns = self.sim.moment_ns
        self._steps = self.plan.steps()
        self._schedule()

    def _schedule(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._next = self.sim.at(self._origin_ns + step.at_ns, self._due, step)

    def _due(self, step: Step) -> None:
        self._schedule()
        if self._only is not None and step.index not in self._only:
            return
        if self.plan is not None and len(self._active) < self.plan.overlap:
            self.inject(step.fault, step.draw, step.lasts_ns, step.index)

    def stop(self) -> None:
        """Inject nothing more, and end what goes on."""
        self._over = True
        if self._next is not None:
            self._next.cancel()
        self._steps = iter(())
        for lease in tuple(self._active):
            self._end(lease)

    def missing_targets(self) -> tuple[str, ...]:
        """Return the faults that never struck because nobody was their target."""
        chosen = self.plan.chosen if self.plan is not None and self.started else ()
        hosts, roles = self.levers.programs(), self._roles()
        named = [fault for fault in chosen if str(fault) not in self._aimed]
        return tuple(str(fault) for fault in named if not victims_of(fault, hosts, roles, Prng(0)))

    # --- injecting -----------------------------------------------------------------------------

    def inject(
        self, fault: Fault, draw: int, lasts_ns: int, index: int = BY_HAND
    ) -> Injected | None:
        """Inject one fault now, for ``lasts_ns``.

        Returns:
            What was done, whose evidence is complete once it has ended; ``None`` if nobody
            could be hit, or the budget forbids it.
        """
        prng = Prng(draw)
        kind = kind_of(fault)
        victims = victims_of(fault, self.levers.programs(), self._roles(), prng)
        if victims:
            self._aimed.add(str(fault))
        if kind.budgeted:
            victims = self._within_budget(fault, victims)
        if kind.group == "down":
            victims = tuple(name for name in victims if self.sim.hosts[name].up)
        if not victims:
            return None
        record = Injected(index, str(fault), victims, self.sim.moment_ns / _NS)
        lease = self.levers.lease()
        self.sim.note("fault", str(fault), *victims)
        measure = self._strike(lease, fault, victims, prng, lasts_ns)
        if measure is None:
            self.levers.lift(lease)
            return None
        self.records.append(record)
        active = _Active(record, lease, victims, kind.budgeted, measure)
        self._active[lease] = active
        if kind.lasting:
            self.sim.at(self.sim.moment_ns + lasts_ns, self._end, lease)
        else:
            self._end(lease)
        return record

    def _within_budget(self, fault: Fault, victims: tuple[str, ...]) -> tuple[str, ...]:
        if self._budget == "any" or fault.target in {"all", "majority"}:
            return victims
        programs = self.levers.programs()
        allowed = max((len(programs) - 1) // 2, 1)
        lost = dict.fromkeys(self._rotten)
        for active in self._active.values():
            if active.budgeted:
                lost.update(dict.fromkeys(active.hosts))
        lost.update(dict.fromkeys(name for name in programs if self.levers.is_down(name)))
        chosen = []
        for name in victims:
            lost[name] = None
            if len(lost) <= allowed:
                chosen.append(name)
            else:
                del lost[name]
        return tuple(chosen)

    def _end(self, lease: int) -> None:
        active = self._active.pop(lease, None)
        if active is None:
            return
        for name, count in active.measure().items():
            if count:
                active.record.evidence[name] = count
        active.record.until = self.sim.moment_ns / _NS
        self.sim.note("fault-ends", active.record.fault, *active.record.victims)
        self.levers.lift(lease)

    # --- how each is done ----------------------------------------------------------------------

    def _strike(
        self, lease: int, fault: Fault, victims: tuple[str, ...], prng: Prng, lasts_ns: int
    ) -> Callable[[], dict[str, int]] | None:
        """Pull the levers and return what measures the evidence; ``None``: nothing to hit."""
        group = kind_of(fault).group
        if group == "down":
            return self._strike_down(lease, fault, victims)
        if group == "partition":
            return self._strike_partition(lease, fault.variant, victims, prng, lasts_ns)
        if group == "link":
            ways = [way for name in victims for way in self.levers.ways_of(name, prng)]
            self.levers.weather(lease, ways, link_weather(fault.variant, prng))
            return self._ways(ways)
        if group == "disk":
            return self._strike_disk(lease, fault.variant, victims, prng)
        if group == "dns":
            return self._strike_dns(lease, cast("DnsKind", fault.variant), victims)
        if group == "clock":
            return self._strike_clock(lease, fault.variant, victims, prng)
        for name in victims:
            self.levers.slow(lease, name, draw_step(prng))
        return lambda: {"slow hosts": len(victims)}

    def _strike_down(
        self, lease: int, fault: Fault, victims: tuple[str, ...]
    ) -> Callable[[], dict[str, int]]:
        if fault.kind == "pause":
            for name in victims:
                self.levers.pause(name, lease)
            hosts = [self.sim.hosts[name] for name in victims]
            return lambda: {
                "paused": len(victims), "callbacks held": sum(len(h.backlog) for h in hosts),
            }  # fmt: skip
        power = fault.kind == "power-cut"
        ended = "power lost" if power else "programs ended"
        disks = [self.sim.hosts[name].disk for name in victims]
        measure = _difference(lambda: _sum(disk.tally for disk in disks) if power else {})
        for name in victims:
            self.levers.take_down(name, lease, power=power)
        return lambda: {ended: len(victims), **measure()}

    def _strike_partition(
        self, lease: int, variant: str, victims: tuple[str, ...], prng: Prng, lasts_ns: int
    ) -> Callable[[], dict[str, int]]:
        programs = self.levers.programs()
        hosts = programs if len(programs) > 1 else (*programs, TEST)
        ways: tuple[Cut, ...] = tuple(dict.fromkeys(
            way for name in victims for way in cuts_of(variant, name, hosts, prng)
        ))  # fmt: skip
        measure = self._ways(ways)
        if variant == "flapping":
            self.levers.flap(lease, ways, prng, lasts_ns)
        else:
            self.levers.cut(lease, ways)
        return measure

    def _strike_disk(
        self, lease: int, variant: str, victims: tuple[str, ...], prng: Prng
    ) -> Callable[[], dict[str, int]] | None:
        disks = [self.sim.hosts[name].disk for name in victims]
        measure = _difference(lambda: _sum(disk.tally for disk in disks))
        hit = [name for name in victims if self.levers.disk(lease, name, variant, prng)]
        if variant == "rot":
            self._rotten.update(dict.fromkeys(hit))
        return measure if hit else None

    def _strike_dns(
        self, lease: int, kind: DnsKind, victims: tuple[str, ...]
    ) -> Callable[[], dict[str, int]]:
        tally = self.sim.network.dns.tally
        for name in (*victims, TEST):  # clients look names up more often than servers do
            self.levers.dns(lease, name, DnsFault(kind))
        before = getattr(tally, kind)
        return lambda: {f"lookups {kind}": getattr(tally, kind) - before}

    def _strike_clock(
        self, lease: int, variant: str, victims: tuple[str, ...], prng: Prng
    ) -> Callable[[], dict[str, int]]:
        for name in victims:
            if variant == "drift":
                self.levers.drift(lease, name, draw_drift(prng))
            elif variant == "jump":
                self.sim.hosts[name].clock.jump(draw_skew(prng))
            else:
                self.levers.skew(lease, name, draw_skew(prng))
        clocks = [self.sim.hosts[name].clock for name in victims]
        return lambda: {
            "clocks off": len(victims),
            "by ms": max(abs(clock.skew_ns) for clock in clocks) // 1_000_000,
        }

    def _ways(self, ways: "list[Cut] | tuple[Cut, ...]") -> Callable[[], dict[str, int]]:
        network = self.sim.network
        tallies = [network.way(source, target).tally for source, target in ways]
        measure = _difference(lambda: _sum(tallies))
        return lambda: {what: count for what, count in measure().items() if what not in _ROUTINE}


_ROUTINE = frozenset({"segments", "bytes", "datagrams", "lookups", "connects", "refused"})
"""What is counted without any fault, and so is evidence of none."""


def _numbers(tally: Any) -> dict[str, int]:
    if isinstance(tally, dict):
        return dict(tally)
    names = [f.name for f in fields(tally)] if is_dataclass(tally) else tally.__slots__
    return {name: getattr(tally, name) for name in names}


def _sum(tallies: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for tally in tallies:
        for name, count in _numbers(tally).items():
            total[name] = total.get(name, 0) + count
    return total


def _difference(count: Callable[[], dict[str, int]]) -> Callable[[], dict[str, int]]:
    """Return what has been counted from now on."""
    before = count()
    return lambda: {
        name: number - before.get(name, 0)
        for name, number in count().items()
        if number > before.get(name, 0)
    }
