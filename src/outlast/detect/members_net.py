"""What a member sends and hears: datagrams, and questions over TCP on the same port.

Whether a process is gone, or only silent, is told by its machine: a TCP connection to a port on
which nobody listens is refused at once, while a process that is stopped, starved or cut off
refuses nothing. That is asked only once a probe has gone unanswered, so it costs nothing while
all is well, and unlike the ICMP message that a lost datagram may cause, the answer names whom it
is about.
"""

import asyncio
import errno
import socket
from collections import OrderedDict
from ipaddress import ip_address
from typing import Any, Final, Protocol

from outlast.detect.members_seal import Purpose, Seal
from outlast.detect.members_stream import BODY_BYTES_MAX, Listener, ask, text_of
from outlast.kernel import ProtocolError, TaskHandle, World
from outlast.wire.address import parse_address

DATAGRAM_BYTES_MAX: Final = 1400
"""A longer datagram is none of ours: it would not reach everybody in one piece."""
DIALS_MAX: Final = 32
"""How many questions one member has open over TCP at once."""
UNSENT_BYTES_MAX: Final = 1 << 18
"""Datagrams beyond this wait for no socket buffer: they are dropped, as a network would."""

_NAMES_KEPT: Final = 4096
_PORT_TRIES: Final = 16


class Hearer(Protocol):
    """What is told of what comes in. Called on the loop; must not wait."""

    def packet(self, data: bytes, source: str) -> None:
        """A datagram of the group has come."""
        ...

    async def question(self, purpose: Purpose, data: bytes, source: str) -> bytes | None:
        """A question has come over TCP; return its answer, or ``None`` for none."""
        ...

    def answered(self, target: str, data: bytes) -> None:
        """Our question to ``target`` was answered."""
        ...

    def failed(self, target: str, *, refused: bool) -> None:
        """Our question to ``target`` was not; ``refused`` says that nobody listens there."""
        ...

    def rejected(self, source: str, reason: str) -> None:
        """Something has come that is none of the group's."""
        ...


class Net:
    """One datagram socket and one TCP listener on one port. Not thread-safe.

    Args:
        world: Starts tasks.
        seal: Closes and opens all messages.
        hearer: Told of what comes in.
        stream_timeout: Seconds that a question over TCP may take, answer included.
    """

    __slots__ = (
        "_dialled_count", "_dials", "_hearer", "_known", "_listener", "_seal", "_stream_timeout",
        "_udp", "_world", "dropped", "port", "received_bytes", "received_packets", "sent_bytes",
        "sent_packets",
    )  # fmt: skip

    def __init__(self, world: World, seal: Seal, hearer: Hearer, *, stream_timeout: float) -> None:
        self._world = world
        self._seal = seal
        self._hearer = hearer
        self._stream_timeout = stream_timeout
        self._udp: Any = None
        self._listener = Listener(seal, hearer.question, hearer.rejected, timeout=stream_timeout)
        self._dialled_count = 0
        self._dials: dict[int, TaskHandle] = {}
        self._known: OrderedDict[str, tuple[str, int] | None] = OrderedDict()
        self.port = 0
        self.sent_bytes = self.sent_packets = 0
        self.received_bytes = self.received_packets = 0
        self.dropped = 0

    async def open(self, host: str, port: int) -> None:
        """Take the port for both; 0 takes one that is free for both.

        Raises:
            OSError: The port is in use, or the address is not ours.
        """
        for left in reversed(range(_PORT_TRIES if port == 0 else 1)):
            taken = await self._listener.open(host, port)
            try:
                await self._open_datagrams(host, taken)
            except OSError as error:
                await self._listener.close()
                if not left or error.errno != errno.EADDRINUSE:
                    raise
                continue
            self.port = taken
            return

    async def _open_datagrams(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(host, port)
        )

    async def close(self) -> None:
        """Let go of the port, and give up what is under way."""
        udp, self._udp = self._udp, None
        if udp is not None:
            udp.close()
        for task in list(self._dials.values()):
            task.cancel()
        await self._listener.close()

    def send(self, target: str, data: bytes) -> None:
        """Send a datagram, which may be lost, or dropped here."""
        address = self._address(target)
        udp = self._udp
        if udp is None or address is None or udp.get_write_buffer_size() > UNSENT_BYTES_MAX:
            self.dropped += 1
            return
        sealed = self._seal.close(Purpose.PACKET, data)
        self.sent_packets += 1
        self.sent_bytes += len(sealed)
        udp.sendto(sealed, address)

    def ask(self, target: str, data: bytes) -> None:
        """Put a question over TCP; the hearer is told how it ended."""
        if len(self._dials) >= DIALS_MAX or self._udp is None or len(data) > BODY_BYTES_MAX:
            self.dropped += 1
            # Told later, as every other end is: whoever asks may not expect it in the call.
            asyncio.get_running_loop().call_soon(self._fail, target)
            return
        self._dialled_count += 1
        number = self._dialled_count
        self._dials[number] = self._world.spawn.task(
            self._ask(number, target, data), name=f"members-ask-{target}"
        )

    def _fail(self, target: str) -> None:
        if self._udp is not None:
            self._hearer.failed(target, refused=False)

    async def _ask(self, number: int, target: str, data: bytes) -> None:
        try:
            answer = await self._answer_of(target, data)
        except ConnectionRefusedError:
            self._hearer.failed(target, refused=True)
        except ProtocolError as error:
            self._hearer.rejected(target, str(error))
            self._hearer.failed(target, refused=False)
        except (OSError, TimeoutError):
            self._hearer.failed(target, refused=False)
        else:
            self._hearer.answered(target, answer)
        finally:
            del self._dials[number]

    async def _answer_of(self, target: str, data: bytes) -> bytes:
        address = self._address(target)
        if address is None:
            raise OSError(errno.EADDRNOTAVAIL, f"{target} is no IP address and port")
        host, port = address
        timeout = self._stream_timeout
        return await ask(host, port, self._seal, Purpose.EXCHANGE, data, timeout=timeout)

    def heard(self, data: bytes, address: Any) -> None:
        """Take a datagram from the socket."""
        source = text_of(address)
        self.received_packets += 1
        self.received_bytes += len(data)
        if len(data) > DATAGRAM_BYTES_MAX:
            self._hearer.rejected(source, "oversized")
            return
        try:
            body = self._seal.open(Purpose.PACKET, data)
        except ProtocolError as error:
            self._hearer.rejected(source, str(error))
            return
        self._hearer.packet(body, source)

    def _address(self, target: str) -> tuple[str, int] | None:
        """Return the socket address of ``host:port``, ``None`` for what is none.

        Only numbers are dialled: what members say of each other must not look up names. The
        zone of an IPv6 address is one, means nothing to others, and may be what no socket takes.
        """
        known = self._known
        if target in known:
            known.move_to_end(target)
            return known[target]
        found: tuple[str, int] | None = None
        try:
            address = parse_address(target)
            ip_address(address.host)
            if address.port and "%" not in address.host:
                found = address.host, address.port
        except ValueError:
            pass
        known[target] = found
        if len(known) > _NAMES_KEPT:
            known.popitem(last=False)
        return found


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams on. An error of the socket is a lost datagram, and whose is not known."""

    def __init__(self, net: Net) -> None:
        self._net = net

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._net.heard(data, addr)


async def resolve(host: str, port: int, *, family: int = 0) -> str:
    """Return ``host:port`` with the first IP address that ``host`` stands for.

    Raises:
        OSError: The name is not found.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM, family=family)
    if not found:
        raise OSError(errno.ENOENT, f"{host} has no address")
    return text_of((str(found[0][4][0]), port))
