"""The TCP sockets of this network namespace, asked of the kernel (Linux).

By netlink (sock_diag), which passes over the thousands of connections that only wait for their
end; by ``/proc/net/tcp``, which does not, where netlink is not permitted.
"""

import os
import socket
import struct
from collections.abc import Container, Iterator
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

_FAMILY: Final = socket.AF_INET, socket.AF_INET6
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301
_DONE: Final = 3
_ERROR: Final = 2
_ESTABLISHED: Final = 1
_LISTEN: Final = 10
_HEADER: Final = struct.Struct("=IHHII")
_ASK: Final = struct.Struct("=BBBBI48x")
_ANSWER: Final = struct.Struct("=BBxx2s2s16s16s12x16xI")
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")


class Established(NamedTuple):
    """One end of an established connection.

    Args:
        inode: Of the socket; 0 if no process holds it.
        local_port: Port of this end.
        remote: Address of the other end.
        remote_port: Port of the other end.
        within: Whether both ends are on this machine.
    """

    inode: int
    local_port: int
    remote: str
    remote_port: int
    within: bool


def established(towards: Container[int]) -> list[Established]:
    """Return established TCP connections to remote ports of ``towards``.

    Only ends that a process holds.
    """
    try:
        found = [each for family in _FAMILY for each in _by_netlink(family, towards)]
    except OSError:
        found = list(_by_table(towards))
    return [each for each in found if each.inode]


def listening() -> dict[int, int]:
    """Return the port of every listening TCP socket, by inode."""
    try:
        rows = [row for family in _FAMILY for row in _dump(family, _LISTEN)]
    except OSError:
        rows = list(_rows(_LISTEN))
    return {row.inode: row.local_port for row in rows if row.inode}


class _Row(NamedTuple):
    """A TCP socket as the kernel tells of it."""

    inode: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int


def _end(inode: int, local: bytes, local_port: int, remote: bytes, port: int) -> Established:
    address = ip_address(remote)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    within = address.is_loopback or local == remote
    text = f"[{address}]" if address.version == 6 else str(address)
    return Established(inode, local_port, text, port, within)


def _by_netlink(family: int, towards: Container[int]) -> Iterator[Established]:
    """Yield the connections of one family.

    Raises:
        OSError: The kernel does not answer such questions.
    """
    return (_end(*row) for row in _dump(family, _ESTABLISHED) if row.remote_port in towards)


def _dump(family: int, state: int) -> Iterator[_Row]:
    width = 4 if family == socket.AF_INET else 16
    ask = _ASK.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << state)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(2)
        size = _HEADER.size + len(ask)
        sock.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + ask)
        while True:
            data = sock.recv(1 << 18)
            at = 0
            while at < len(data):
                length, kind, *_ = _HEADER.unpack_from(data, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                    raise OSError(number, os.strerror(number))
                fields = _ANSWER.unpack_from(data, at + _HEADER.size)
                _, _, here, there, local, remote, inode = fields
                ports = int.from_bytes(here, "big"), int.from_bytes(there, "big")
                yield _Row(inode, local[:width], ports[0], remote[:width], ports[1])
                at += (length + 3) & ~3


def _by_table(towards: Container[int]) -> Iterator[Established]:
    return (_end(*row) for row in _rows(_ESTABLISHED) if row.remote_port in towards)


def _rows(state: int) -> Iterator[_Row]:
    for table in _TABLES:
        try:
            with open(table, "rb") as file:
                lines = file.readlines()[1:]
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split(None, 10)
            if int(fields[3], 16) == state:
                (local, here), (remote, there) = (_read(end) for end in fields[1:3])
                yield _Row(int(fields[9]), local, here, remote, there)


def _read(end: bytes) -> tuple[bytes, int]:
    """Return address and port; the table has 32-bit words in the machine's byte order."""
    address, _, port = end.partition(b":")
    words = struct.unpack(f">{len(address) // 8}I", bytes.fromhex(address.decode()))
    return struct.pack(f"={len(words)}I", *words), int(port, 16)
