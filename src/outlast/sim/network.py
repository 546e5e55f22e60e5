"""The simulated network: hosts with addresses, the ways between them, and their kernels.

Sending is a call in the life of the sender. Arriving is an event: in the kernel of the receiver,
which goes on while its program is paused, or in the life of its program. A host that lost its
power is silent; one whose program has ended answers with resets and refusals.
"""

import asyncio
import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from outlast.kernel import ConfigError, Prng
from outlast.sim.dial import Dial, failed
from outlast.sim.dns import Dns
from outlast.sim.ports import ANY, LOOPBACK, Address, Kernel
from outlast.sim.segment import DATA, Segment
from outlast.sim.tcp import End
from outlast.sim.weather import SECOND_NS, Way

if TYPE_CHECKING:
    from outlast.sim.hosts import Host, Life
    from outlast.sim.simulation import Simulation
    from outlast.sim.sockets import SimSocket

TCP_TIMEOUT_NS: Final = 120 * SECOND_NS
_BASE_NS = (50_000, 500_000)
_LOOPBACK_NS = (5_000, 20_000)
_FIRST_FD = 1 << 25


class Network:
    """Routes what hosts send to one another.

    Args:
        sim: The simulation whose hosts they are.
        prng: Draws latencies, losses, and the like.

    Attributes:
        dns: Names, and what is wrong with looking them up.
        endpoints: The kernel of each host, by name.
        tcp_timeout_ns: How long a connection waits for what it sent to be acknowledged.
        open_loopback: Whether what hosts that are added from now on listen for on loopback is
            reached from other hosts too, as if all stood on one machine.
    """

    def __init__(self, sim: "Simulation", prng: Prng) -> None:
        self.sim = sim
        self.prng = prng
        self.dns = Dns(self, prng.fork())
        self.endpoints: dict[str, Kernel] = {}
        self.sockets: dict[int, SimSocket] = {}
        self.tcp_timeout_ns = TCP_TIMEOUT_NS
        self.open_loopback = False
        self._ways: dict[tuple[str, str], Way] = {}
        self._next_fd = _FIRST_FD

    # --- hosts ---------------------------------------------------------------------------------

    def host_added(self, host: "Host") -> None:
        """There is one more host."""
        self.endpoints[host.name] = Kernel(host, open_loopback=self.open_loopback)

    def host_started(self, host: "Host") -> None:
        """A new life of ``host`` begins; connections of earlier ones are answered by a reset."""
        kernel = self.endpoints[host.name]
        kernel.powered = True
        waiting = tuple(kernel.mute)
        kernel.mute.clear()
        for end in waiting:
            end.mute = False
            end.go_on(SECOND_NS)

    def host_crashed(self, host: "Host", *, power: bool) -> None:
        """The life of ``host`` has ended: its kernel closes everything, or is silent itself."""
        kernel = self.endpoints[host.name]
        kernel.powered = kernel.powered and not power
        kernel.listeners.clear()
        kernel.datagrams.clear()
        for end in tuple(kernel.ends):
            if end.user is not None:
                end.user.gone()
            _unsay(end, self.sim.moment_ns, power=power)
            if power:
                end.lose_power()
            else:
                end.close()

    def parting(self) -> bool:
        """Whether the end of a connection is under way to somebody who does not know it yet."""
        return any(
            end.closed and end.queue and not end.peer.closed
            for kernel in self.endpoints.values()
            for end in kernel.ends
        )

    # --- ways ----------------------------------------------------------------------------------

    def way(self, a: str, b: str) -> Way:
        """Return the way from host ``a`` to host ``b``.

        Raises:
            ConfigError: Definite. There is no host of one of these names.
        """
        way = self._ways.get((a, b))
        if way is None:
            for name in (a, b):
                if name not in self.endpoints:
                    hosts = ", ".join(self.endpoints)
                    message = f"network: there is no host {name!r}; use one of {hosts}"
                    raise ConfigError(message)
            base_ns = self.prng.between(*(_LOOPBACK_NS if a == b else _BASE_NS))
            way = self._ways[a, b] = Way(self, a, b, base_ns)
            way.back = way
            if a != b:
                way.back = self._ways[b, a] = Way(self, b, a, base_ns)
                way.back.back = way
        return way

    def ways(self) -> Iterator[Way]:
        """Return all ways that were used or asked for, in the order of their first use."""
        return iter(tuple(self._ways.values()))

    def clear(self) -> None:
        """Undo all weather, and all that is wrong with looking up names."""
        self.dns.clear()
        for way in self.ways():
            way.clear()

    def new_fd(self, sock: "SimSocket") -> int:
        """Give a socket a number that no real descriptor has."""
        self._next_fd += 1
        self.sockets[self._next_fd] = sock
        return self._next_fd

    def kernel_of(self, life: "Life") -> Kernel:
        """Return the kernel of the host of ``life``."""
        return self.endpoints[life.host.name]

    def reached(self, source: "Host", address: str) -> "Host | None":
        """Return the host that ``source`` reaches by ``address``."""
        if address in LOOPBACK or address in ANY:
            return source
        return self.sim.host_of(address)

    # --- connecting ----------------------------------------------------------------------------

    async def connect(self, remote: Address, local: Address | None = None) -> End:
        """Open a connection from the host that runs now and return this end of it.

        Raises:
            OSError: Refused, reset, or no answer for 127 seconds.
        """
        sim = self.sim
        life = sim.life
        source = life.host
        address = remote if isinstance(remote, str) else remote[0]
        target = source if isinstance(remote, str) else self.reached(source, str(address))
        if target is None:
            await asyncio.sleep(0)
            raise failed(errno.EHOSTUNREACH, remote)
        kernel = self.endpoints[source.name]
        if local is None:
            local = ""
            if not isinstance(remote, str):
                mine = address if address in LOOPBACK else source.address
                local = (mine, kernel.free_port(), *remote[2:])
        sim.note(
            "connect", source.name, target.name, remote if isinstance(remote, str) else remote[1]
        )
        dial = Dial(self, life, target, local, remote)
        try:
            return await dial.future
        except asyncio.CancelledError:
            dial.give_up()
            raise


def _unsay(end: End, moment_ns: int, *, power: bool) -> None:
    """Take back what an end was to send after the instant of a crash: it was computed ahead.

    What a kernel sends by itself when a program ends, it sends all the same.
    """
    queue = end.queue
    kept: list[Segment] = []
    while queue and queue[-1].sent_ns > moment_ns:
        segment = queue.pop()
        if segment.kind == DATA or power:
            end.flight -= segment.size
        else:
            kept.append(segment)
    queue.extend(reversed(kept))
