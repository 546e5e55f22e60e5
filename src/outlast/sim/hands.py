"""What the test breaks by hand: network, disks, names, clocks."""

from collections.abc import Iterable, Sequence
from types import TracebackType

from outlast.kernel import ConfigError, Prng
from outlast.sim.core.plan import Cut, read_faults
from outlast.sim.dns import DnsFault, DnsKind
from outlast.sim.hosts import Host
from outlast.sim.levers import Levers
from outlast.sim.nemesis import BY_HAND, Injected
from outlast.sim.simulation import TEST, Simulation

_NS = 1_000_000_000
_EVENTS_MAX = 10_000

Names = str | Host | Iterable[str | Host]


class Undo:
    """Something that was broken by hand. Call :meth:`undo`, or use it in a ``with`` statement."""

    __slots__ = ("_lease", "_levers")

    def __init__(self, levers: Levers, lease: int) -> None:
        self._levers = levers
        self._lease = lease

    def undo(self) -> None:
        """Let it be whole again; nothing happens if it is."""
        self._levers.lift(self._lease)

    def __enter__(self) -> "Undo":
        """Leave it broken until the block ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Undo it."""
        self.undo()


class Hands:
    """The part of a lab that breaks things by hand; each stays broken until it is undone.

    Args:
        sim: Whose hosts.
        levers: What is pulled.
    """

    sim: Simulation
    prng: Prng

    def __init__(self, sim: Simulation, levers: Levers) -> None:
        self.sim = sim
        self.prng = Prng(sim.seed ^ 0x6C61625F)
        self._levers = levers

    @property
    def events(self) -> list[Injected]:
        """What was injected so far."""
        raise NotImplementedError

    @property
    def hosts(self) -> dict[str, Host]:
        """The hosts by name, in order of creation, without the test's own."""
        return {name: self.sim.hosts[name] for name in self._levers.programs()}

    # --- breaking by hand ----------------------------------------------------------------------

    def cut(self, a: Names, b: Names | None = None, *, one_way: bool = False) -> Undo:
        """Let nothing pass between hosts. What is sent waits, as on a network without a route.

        Args:
            a: One host or several.
            b: The others; left out: all other hosts, the test's own among them.
            one_way: Whether only the way from ``a`` to ``b`` is cut.
        """
        left, right = _flat(a), None if b is None else _flat(b)
        ways = self._ways(left, right, one_way=one_way)
        lease = self._levers.lease()
        self._by_hand("cut", *left, *(right or ()))
        self._levers.cut(lease, ways)
        return Undo(self._levers, lease)

    def slow(
        self,
        a: Names,
        b: Names | None = None,
        *,
        delay: float = 0.0,
        jitter: float = 0.0,
        loss: float = 0.0,
        bytes_per_second: int = 0,
        drop: bool = False,
        reset: bool = False,
        one_way: bool = False,
    ) -> Undo:
        """Let what is sent between hosts arrive late, or not at all.

        Args:
            a: One host or several.
            b: The others; left out: all other hosts.
            delay: Added to the way of each segment, in seconds.
            jitter: Widest random addition to it, in seconds.
            loss: Share of segments that are lost and sent again; of datagrams, that are lost.
            bytes_per_second: How much passes; 0: no limit.
            drop: Whether what is sent vanishes while its connection stays, half-open.
            reset: Whether connections that send are broken.
            one_way: Whether only the way from ``a`` to ``b`` is slow.

        Raises:
            ConfigError: Definite. There is no such host, or a number makes no sense.
        """
        if min(delay, jitter, loss, bytes_per_second) < 0 or loss > 1:
            message = (
                f"lab.slow: delay {delay:g}, jitter {jitter:g}, loss {loss:g}, bytes_per_second"
                f" {bytes_per_second}: none may be below 0, and loss is at most 1"
            )
            raise ConfigError(message)
        values = (
            ("delay_ns", round(delay * _NS)),
            ("jitter_ns", round(jitter * _NS)),
            ("loss_ppm", round(loss * 1_000_000)),
            ("bytes_per_second", bytes_per_second),
            ("drop", int(drop)),
            ("reset", int(reset)),
        )
        left, right = _flat(a), None if b is None else _flat(b)
        ways = self._ways(left, right, one_way=one_way)
        lease = self._levers.lease()
        self._by_hand("slow", *left, *(right or ()))
        self._levers.weather(lease, ways, [item for item in values if item[1]])
        return Undo(self._levers, lease)

    def disk(self, host: str | Host, fault: str) -> Undo:
        """Let the disk of a host fail: ``eio``, ``full``, ``slow``, ``readonly`` or ``rot``.

        Rot flips one durable bit and is not undone.

        Raises:
            ConfigError: Definite. There is no such fault or host.
        """
        name = self._program(host)
        known = [one for one in read_faults(f"disk:{fault}") if one.variant == fault]
        if len(known) != 1:
            message = f"disk fault {fault!r}: give one, such as eio, without a target"
            raise ConfigError(message)
        lease = self._levers.lease()
        self._by_hand(f"disk:{fault}", name)
        self._levers.disk(lease, name, fault, self.prng.fork())
        return Undo(self._levers, lease)

    def dns(
        self, fault: DnsKind, *, host: str | Host | None = None, name: str = "", wrong: str = ""
    ) -> Undo:
        """Let look-ups of names fail: ``nxdomain``, ``timeout``, ``wrong`` or ``delay``.

        Args:
            fault: Which.
            host: Who asks; left out: everybody.
            name: The name that is hit; left out: every name.
            wrong: The host whose address ``wrong`` gives out; left out: drawn.

        Raises:
            ConfigError: Definite. There is no such fault or host.
        """
        askers = tuple(self.sim.hosts) if host is None else (self._host(host).name,)
        address = self._host(wrong).address if wrong else ""
        made = DnsFault(fault, name=name, address=address)
        lease = self._levers.lease()
        self._by_hand(f"dns:{fault}", *askers)
        for asker in askers:
            self._levers.dns(lease, asker, made)
        return Undo(self._levers, lease)

    def clock(
        self, host: str | Host, *, skew: float = 0.0, jump: float = 0.0, drift_ppm: int = 0
    ) -> Undo:
        """Change the clocks of a host.

        Args:
            host: Whose.
            skew: How far its wall clock is ahead, in seconds, until this is undone.
            jump: How far its wall clock jumps, in seconds, for good.
            drift_ppm: How much too fast both clocks run, in parts per million.

        Raises:
            ConfigError: Definite. There is no such host, or its clocks would run backwards.
        """
        if drift_ppm <= -1_000_000:
            message = f"lab.clock: drift_ppm is {drift_ppm}; give more than -1,000,000"
            raise ConfigError(message)
        name = self._host(host).name
        lease = self._levers.lease()
        self._by_hand("clock", name)
        if jump:
            self.sim.hosts[name].clock.jump(round(jump * _NS))
        if skew:
            self._levers.skew(lease, name, round(skew * _NS))
        if drift_ppm:
            self._levers.drift(lease, name, drift_ppm)
        return Undo(self._levers, lease)

    def burden(self, host: str | Host, *, step: float) -> Undo:
        """Let each callback of a host take ``step`` seconds longer.

        Raises:
            ConfigError: Definite. There is no such host, or ``step`` is below 0.
        """
        if step < 0:
            message = f"lab.burden: step is {step:g}; give 0 or more"
            raise ConfigError(message)
        lease = self._levers.lease()
        name = self._program(host)
        self._by_hand("slow", name)
        self._levers.slow(lease, name, round(step * _NS))
        return Undo(self._levers, lease)

    # --- names ---------------------------------------------------------------------------------

    def _host(self, host: str | Host) -> Host:
        name = host.name if isinstance(host, Host) else host
        found = self.sim.hosts.get(name)
        if found is None:
            message = f"no host {name!r}; there are {', '.join(self.sim.hosts)}"
            raise ConfigError(message)
        return found

    def _program(self, host: str | Host) -> str:
        name = self._host(host).name
        if name == TEST:
            message = "host 'test' runs the test itself; it cannot be stopped or broken"
            raise ConfigError(message)
        return name

    def _programs(self, hosts: tuple[str | Host, ...]) -> list[str]:
        if not hosts:
            message = f"which host? There are {', '.join(self.hosts) or 'none'}"
            raise ConfigError(message)
        return [self._program(host) for host in hosts]

    def _ways(
        self, a: Sequence[str], b: Sequence[str] | None, *, one_way: bool
    ) -> tuple[Cut, ...]:
        left = [self._host(name).name for name in a]
        if b is None:
            right = [name for name in self.sim.hosts if name not in left]
        else:
            right = [self._host(name).name for name in b]
        ways = [(x, y) for x in left for y in right if x != y]
        return tuple(ways if one_way else ways + [(y, x) for x, y in ways])

    def _by_hand(self, what: str, *hosts: str) -> None:
        self.sim.note("by-hand", what, *hosts)
        now = self.sim.moment_ns / _NS
        if len(self.events) < _EVENTS_MAX:
            self.events.append(Injected(BY_HAND, what, hosts, now, None, {"by hand": 1}))


def _flat(names: Names) -> tuple[str, ...]:
    given = (names,) if isinstance(names, str | Host) else names
    return tuple(each.name if isinstance(each, Host) else each for each in given)
