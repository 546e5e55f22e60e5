"""What a fault does to simulated hosts, each change under a lease that ends it.

The lab's methods and the faults by name both pull these levers. A host is down, or stands still,
as long as any lease says so.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from outlast.kernel import Prng
from outlast.sim.core.plan import Cut, Weather, log_between
from outlast.sim.dns import DnsFault
from outlast.sim.hosts import Host
from outlast.sim.leases import Leases
from outlast.sim.simulation import TEST

if TYPE_CHECKING:
    from outlast.sim.simulation import Simulation

_US = 1_000
_MS = 1_000_000
_NS = 1_000_000_000
_DRIFT_PPM_MAX = 20_000


class _Drift:
    """A host's drift as an attribute."""

    __slots__ = ("_host", "_sim")

    def __init__(self, sim: "Simulation", host: Host) -> None:
        self._sim = sim
        self._host = host

    @property
    def drift_ppm(self) -> int:
        return self._host.clock.drift_ppm

    @drift_ppm.setter
    def drift_ppm(self, ppm: int) -> None:
        self._host.clock.drift(ppm, self._sim.moment_ns)


class Levers:
    """Changes hosts, network, disks, names and clocks, and undoes it.

    Args:
        sim: Of which simulation.

    Attributes:
        ports: On which ports each host listened when its program last ended.
    """

    def __init__(self, sim: "Simulation") -> None:
        self.sim = sim
        self.leases = Leases()
        self.ports: dict[str, tuple[int, ...]] = {}
        self._down: dict[str, dict[int, None]] = {}
        self._still: dict[str, dict[int, None]] = {}
        self._names: dict[str, dict[int, DnsFault]] = {}
        self._undo: dict[int, list[Callable[[], None]]] = {}

    def lease(self) -> int:
        """Return a new lease."""
        return self.leases.new()

    def lift(self, lease: int) -> None:
        """Undo what a lease holds."""
        self.leases.lift(lease)
        for undo in reversed(self._undo.pop(lease, [])):
            undo()
        for name in [name for name, leases in self._still.items() if lease in leases]:
            self.resume(name, lease)
        for name in [name for name, leases in self._down.items() if lease in leases]:
            self.bring_up(name, lease)

    def clear(self) -> None:
        """Undo everything, and start what is down."""
        self.leases.clear()
        for lease in tuple(self._undo):
            self.lift(lease)
        for name in tuple(self._still):
            self.resume(name)
        for name in tuple(self._down):
            self.bring_up(name)

    def _later(self, lease: int, undo: Callable[[], None]) -> None:
        self._undo.setdefault(lease, []).append(undo)

    # --- lives ---------------------------------------------------------------------------------

    def take_down(self, name: str, lease: int, *, power: bool = False) -> None:
        """End the host's program at once, and keep the host down."""
        host = self.sim.hosts[name]
        self.remember_ports(host)
        self._still.pop(name, None)
        self._down.setdefault(name, {})[lease] = None
        if host.life is not None:
            self.sim.note("power-cut" if power else "crash", name)
            self.sim.end_life(host, power=power)

    def bring_up(self, name: str, lease: int | None = None) -> None:
        """Start the host's program once no other lease keeps it down; ``None``: at once."""
        leases = self._down.get(name)
        if leases is not None:
            leases.pop(lease, None) if lease is not None else leases.clear()
            if leases:
                return
            del self._down[name]
        host = self.sim.hosts[name]
        if host.life is None and host.main is not None:
            self.sim.start(host)

    def is_down(self, name: str) -> bool:
        """Whether a lease keeps the host down."""
        return name in self._down

    def pause(self, name: str, lease: int) -> None:
        """Let the host's program stand still."""
        host = self.sim.hosts[name]
        if host.life is None:
            return
        self._still.setdefault(name, {})[lease] = None
        if not host.paused:
            self.sim.note("pause", name)
            self.sim.pause(host)

    def resume(self, name: str, lease: int | None = None) -> None:
        """Let it go on once no other lease keeps it still; ``None``: at once."""
        leases = self._still.get(name, {})
        leases.pop(lease, None) if lease is not None else leases.clear()
        host = self.sim.hosts[name]
        if leases:
            return
        self._still.pop(name, None)
        if host.paused:
            self.sim.note("resume", name)
            self.sim.resume(host)

    def remember_ports(self, host: Host) -> None:
        """Keep in mind where the host listens, unless it has not come that far."""
        ports = self.listening(host)
        if ports:
            self.ports[host.name] = ports

    def listening(self, host: Host) -> tuple[int, ...]:
        """Return the ports on which others can reach the host."""
        listeners = self.sim.network.endpoints[host.name].listeners
        return tuple(
            port
            for port, bound in listeners.items()
            if isinstance(port, int) and any(one.listening for one in bound)
        )

    # --- network -------------------------------------------------------------------------------

    def weather(self, lease: int, ways: Iterable[Cut], items: Iterable[Weather]) -> None:
        """Change properties of ways between hosts."""
        items = tuple(items)
        for source, target in ways:
            way = self.sim.network.way(source, target)
            for name, value in items:
                now = getattr(way, name)
                self.leases.put(lease, f"{source}>{target}", way, name, type(now)(value))

    def cut(self, lease: int, ways: Iterable[Cut]) -> None:
        """Let nothing pass."""
        self.weather(lease, ways, (("cut", 1),))

    def flap(self, lease: int, ways: tuple[Cut, ...], prng: Prng, lasts_ns: int) -> None:
        """Cut the ways and let them be whole in turns, while the lease lasts."""
        inner = self.lease()
        state = {"over": False, "cut": False}
        turn_ns = max(lasts_ns // 4, _US)

        def turn() -> None:
            if state["over"]:
                return
            state["cut"] = not state["cut"]
            self.cut(inner, ways) if state["cut"] else self.leases.lift(inner)
            self.sim.at(self.sim.moment_ns + prng.between(1, turn_ns), turn)

        def over() -> None:
            state["over"] = True
            self.leases.lift(inner)

        self._later(lease, over)
        turn()

    # --- disks, names, clocks ------------------------------------------------------------------

    def disk(self, lease: int, name: str, variant: str, prng: Prng) -> str:
        """Let the host's disk fail; return what was hit, for what happens at an instant."""
        disk = self.sim.hosts[name].disk
        if variant == "rot":
            return disk.rot(prng)
        for field, value in _disk_values(variant, prng):
            self.leases.put(lease, f"disk {name}", disk.faults, field, value)
        return variant

    def dns(self, lease: int, name: str, fault: DnsFault) -> None:
        """Let the host's look-ups of names fail; of several faults the last counts."""
        leases = self._names.setdefault(name, {})
        leases[lease] = fault
        self.sim.network.dns.fail(name, fault)
        self._later(lease, lambda: self._dns_again(lease, name))

    def _dns_again(self, lease: int, name: str) -> None:
        leases = self._names[name]
        leases.pop(lease, None)
        self.sim.network.dns.clear(name)
        for fault in tuple(leases.values())[-1:]:
            self.sim.network.dns.fail(name, fault)

    def skew(self, lease: int, name: str, ns: int) -> None:
        """Let the host's wall clock be off by ``ns``."""
        clock = self.sim.hosts[name].clock
        clock.jump(ns)
        self._later(lease, lambda: clock.jump(-ns))

    def drift(self, lease: int, name: str, ppm: int) -> None:
        """Let the host's clocks run ``ppm`` too fast."""
        target = _Drift(self.sim, self.sim.hosts[name])
        self.leases.put(lease, f"clock {name}", target, "drift_ppm", ppm)

    def slow(self, lease: int, name: str, ns: int) -> None:
        """Let each of the host's callbacks take ``ns`` longer."""
        self.leases.put(lease, f"host {name}", self.sim.hosts[name], "step_ns", ns)

    # --- whom ----------------------------------------------------------------------------------

    def programs(self) -> tuple[str, ...]:
        """Return the hosts with a program, the test's own left out."""
        return tuple(name for name in self.sim.hosts if name != TEST)

    def ways_of(self, name: str, prng: Prng) -> tuple[Cut, ...]:
        """Return the ways between a host and all others: both, or sometimes one direction."""
        others = [other for other in self.sim.hosts if other != name]
        inward = tuple((other, name) for other in others)
        outward = tuple((name, other) for other in others)
        return (inward, outward, inward + outward, inward + outward)[prng.below(4)]


def _disk_values(variant: str, prng: Prng) -> tuple[tuple[str, Any], ...]:
    if variant == "eio":
        ppm = log_between(prng, 10_000, 1_000_000)
        what = prng.choice((("sync_eio_ppm",), ("write_eio_ppm",), ("read_eio_ppm",), _ANY_EIO))
        return tuple((field, ppm) for field in what)
    if variant == "slow":
        ns = log_between(prng, _MS, _NS)
        return (("slow_ns", (ns // 4, ns)),)
    return ((variant, True),)


_ANY_EIO = ("read_eio_ppm", "write_eio_ppm", "sync_eio_ppm")


def draw_skew(prng: Prng) -> int:
    """Draw how far a wall clock is off, in nanoseconds: up to an hour, ahead or behind."""
    ns = log_between(prng, _MS, 3_600 * _NS)
    return ns if prng.chance(1, 2) else -ns


def draw_drift(prng: Prng) -> int:
    """Draw how much too fast clocks run, in parts per million; below 0: too slowly."""
    ppm = log_between(prng, 10, _DRIFT_PPM_MAX)
    return ppm if prng.chance(1, 2) else -ppm


def draw_step(prng: Prng) -> int:
    """Draw how much longer each callback of a slow host takes, in nanoseconds."""
    return log_between(prng, 20 * _US, 50 * _MS)
