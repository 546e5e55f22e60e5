"""Names of hosts, and what may be wrong with looking them up.

There is no name server: a host asks and has its answer after a drawn time. Its own name,
``localhost`` and numeric addresses need no lookup and cannot fail. A host that is down keeps
its name.
"""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from outlast.kernel import ConfigError, Prng
from outlast.sim.weather import SECOND_NS

if TYPE_CHECKING:
    from outlast.sim.hosts import Host
    from outlast.sim.network import Network

DnsKind = Literal["nxdomain", "timeout", "wrong", "delay"]
KINDS: Final[tuple[DnsKind, ...]] = ("nxdomain", "timeout", "wrong", "delay")
TIMEOUT_NS: Final = 5 * SECOND_NS
_LOOKUP_NS = (100_000, 1_000_000)
PORTS: Final = {
    "ftp": 21, "ssh": 22, "smtp": 25, "domain": 53, "http": 80, "pop3": 110, "ntp": 123,
    "imap2": 143, "ldap": 389, "https": 443, "ldaps": 636, "mysql": 3306, "postgresql": 5432,
    "amqp": 5672, "redis": 6379, "http-alt": 8080,
}  # fmt: skip
"""Ports that may be asked for by name."""

Row = tuple[int, int, int, str, tuple[Any, ...]]
"""One answer of ``getaddrinfo``."""


@dataclass(frozen=True, slots=True)
class DnsFault:
    """What is wrong with the lookups of one host.

    Args:
        kind: ``nxdomain``: the name is unknown; ``timeout``: no answer for 5 seconds;
            ``wrong``: the address of another host; ``delay``: the answer is late.
        name: Only this name is hit; empty: every name.
        delay_ns: How late the answer is, for ``delay``.
        address: The wrong address; empty: that of another host, drawn.
    """

    kind: DnsKind
    name: str = ""
    delay_ns: int = SECOND_NS
    address: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"DnsFault: kind is {self.kind!r}; use one of {', '.join(KINDS)}")
        if self.delay_ns < 0:
            raise ConfigError(f"DnsFault: delay_ns is {self.delay_ns}; use 0 or more")


class DnsTally:
    """How often hosts looked up names, and how often that went wrong."""

    __slots__ = ("delay", "lookups", "nxdomain", "timeout", "unknown", "wrong")

    def __init__(self) -> None:
        self.lookups = self.unknown = 0
        self.nxdomain = self.timeout = self.wrong = self.delay = 0

    def facts(self) -> dict[str, int]:
        """Return all counts by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Dns:
    """The names that hosts of one simulation can look up.

    Attributes:
        faults: What is wrong, by the name of the host that asks.
        tally: Lookups and the faults that hit them.
    """

    def __init__(self, network: "Network", prng: Prng) -> None:
        self._network = network
        self._prng = prng
        self._aliases: dict[str, str] = {}
        self._gone: dict[str, None] = {}
        self.faults: dict[str, DnsFault] = {}
        self.tally = DnsTally()

    def alias(self, name: str, host: str) -> None:
        """Let ``name`` stand for ``host`` as well.

        Raises:
            ConfigError: Definite. There is no such host.
        """
        if host not in self._network.endpoints:
            hosts = ", ".join(self._network.endpoints)
            raise ConfigError(f"dns: there is no host {host!r}; use one of {hosts}")
        self._gone.pop(name, None)
        self._aliases[name] = host

    def unregister(self, name: str) -> None:
        """Let ``name`` be unknown, be it an alias or a host."""
        if self._aliases.pop(name, None) is None:
            self._gone[name] = None

    def register(self, name: str) -> None:
        """Let the name of a host be known again."""
        self._gone.pop(name, None)

    def fail(self, asker: str, fault: DnsFault) -> None:
        """Let the lookups of host ``asker`` go wrong from now on.

        Raises:
            ConfigError: Definite. There is no such host.
        """
        if asker not in self._network.endpoints:
            hosts = ", ".join(self._network.endpoints)
            raise ConfigError(f"dns: there is no host {asker!r}; use one of {hosts}")
        self.faults[asker] = fault
        self._network.sim.note("dns fault", asker, fault.kind, fault.name)

    def clear(self, asker: str | None = None) -> None:
        """Undo what is wrong for ``asker``, or for all hosts."""
        if asker is None:
            self.faults.clear()
        else:
            self.faults.pop(asker, None)

    def find(self, name: str) -> "Host | None":
        """Return the host that ``name`` stands for."""
        if name in self._gone:
            return None
        return self._network.sim.hosts.get(self._aliases.get(name, name))

    async def lookup(self, name: str) -> str:
        """Return the address of ``name`` as the host that runs now sees it.

        Raises:
            socket.gaierror: The name is unknown, or there was no answer.
        """
        sim = self._network.sim
        asker = sim.here
        name = name.rstrip(".").lower()
        if name == "localhost":
            return "127.0.0.1"
        if name == asker.name and name not in self._gone:
            return asker.address
        self.tally.lookups += 1
        sim.note("lookup", asker.name, name)
        await self._wait(self._prng.between(*_LOOKUP_NS))
        host = self.find(name)
        fault = self.faults.get(asker.name)
        if fault is not None and fault.name in ("", name):
            address = await self._faulty(asker, name, host, fault)
            if address:
                return address
        if host is None:
            self.tally.unknown += 1
            raise unknown(name)
        return host.address

    async def _faulty(self, asker: "Host", name: str, host: "Host | None", fault: DnsFault) -> str:
        sim, tally = self._network.sim, self.tally
        sim.note("dns", asker.name, name, fault.kind)
        setattr(tally, fault.kind, getattr(tally, fault.kind) + 1)
        if fault.kind == "nxdomain":
            raise unknown(name)
        if fault.kind == "timeout":
            await self._wait(TIMEOUT_NS)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if fault.kind == "delay":
            await self._wait(fault.delay_ns)
            return ""
        others = [other for other in sim.hosts.values() if other is not host]
        return fault.address or self._prng.choice(others).address

    async def _wait(self, delay_ns: int) -> None:
        sim = self._network.sim
        future: asyncio.Future[None] = sim.loop.create_future()
        sim.at_host(sim.moment_ns + delay_ns, sim.life, _set, future)
        await future

    async def rows(
        self, host: str | bytes | None, port: str | bytes | int | None, *, family: int = 0,
        type: int = 0, proto: int = 0, flags: int = 0,
    ) -> list[Row]:  # fmt: skip
        """Answer as ``socket.getaddrinfo`` does.

        Raises:
            socket.gaierror: The name or the port is unknown, or there was no answer.
        """
        number = port_number(port)
        if isinstance(host, bytes):
            host = host.decode("ascii")
        if host in (None, ""):
            passive = flags & socket.AI_PASSIVE
            if family == socket.AF_INET6:
                address = "::" if passive else "::1"
            else:
                address = "0.0.0.0" if passive else "127.0.0.1"  # noqa: S104 - simulated
        elif is_numeric(str(host)):
            address = str(host).partition("%")[0]
        elif flags & socket.AI_NUMERICHOST:
            raise unknown(str(host))
        else:
            address = await self.lookup(str(host))
            if address == "127.0.0.1" and family == socket.AF_INET6:
                address = "::1"
        six = ":" in address
        if family not in (0, socket.AF_INET6 if six else socket.AF_INET):
            raise socket.gaierror(
                socket.EAI_ADDRFAMILY, "Address family for hostname not supported"
            )
        found = (address, number, 0, 0) if six else (address, number)
        kinds = [
            (kind, protocol)
            for kind, protocol in (
                (socket.SOCK_STREAM, socket.IPPROTO_TCP),
                (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
                (socket.SOCK_RAW, 0),
            )
            if type in (0, kind) and proto in (0, protocol)
        ]
        if not kinds:
            raise socket.gaierror(socket.EAI_SOCKTYPE, "ai_socktype not supported")
        canonical = str(host or "") if flags & socket.AI_CANONNAME else ""
        rank = socket.AF_INET6 if six else socket.AF_INET
        return [(rank, kind, protocol, canonical, found) for kind, protocol in kinds]


def unknown(name: str) -> socket.gaierror:
    """Return the error for a name that nobody has."""
    return socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {name!r}")


def is_numeric(host: str) -> bool:
    """Tell whether ``host`` is an address rather than a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def port_number(port: str | bytes | int | None) -> int:
    """Return the number of a port that may be given by name.

    Raises:
        socket.gaierror: The name is not in the table.
    """
    if port in {None, "", b""}:
        return 0
    if isinstance(port, bytes):
        port = port.decode("ascii")
    if isinstance(port, str):
        if port.isdigit():
            return int(port)
        if port not in PORTS:
            raise socket.gaierror(socket.EAI_SERVICE, f"Servname not supported: {port!r}")
        return PORTS[port]
    return port


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
