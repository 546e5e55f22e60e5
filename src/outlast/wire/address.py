"""Addresses: ``host:port`` read, checked and written."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from outlast.kernel import ConfigError


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A host name or IP address, and a port. ``str()`` gives what :func:`parse_address` reads."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return ``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, default_port: int | None = None) -> Address:
    """Read ``"n1:7400"``, ``"10.0.0.1:7400"`` or ``"[::1]:7400"``.

    Args:
        text: What to read.
        default_port: Used when no port is given; without it a port must be given.

    Raises:
        ConfigError: Definite. It is not an address.

    >>> parse_address("[::1]:7400")
    Address(host='::1', port=7400)
    """
    given = text.strip()
    if given.startswith("["):
        host, closed, rest = given[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ConfigError(f'address {text!r}: write an IPv6 address as "[::1]:7400"')
        port = rest[1:] if rest else None
        try:
            IPv6Address(host)
        except ValueError:
            raise ConfigError(f"address {text!r}: {host!r} is not an IPv6 address") from None
    elif given.count(":") > 1:
        raise ConfigError(f'address {text!r}: write an IPv6 address in brackets, "[::1]:7400"')
    else:
        host, colon, tail = given.partition(":")
        port = tail if colon else None
    if not host or any(c.isspace() or c in "/@" for c in host):
        raise ConfigError(f'address {text!r}: the host is {host!r}; write "host:port"')
    return Address(host, _port(text, port, default_port))


def _port(text: str, port: str | None, default_port: int | None) -> int:
    if port is None:
        if default_port is None:
            raise ConfigError(f'address {text!r} has no port; write "host:port", as in "n1:7400"')
        return default_port
    if not (port.isascii() and port.isdigit()) or int(port[:6]) > 65_535:
        raise ConfigError(f"address {text!r}: port {port!r} is not a number from 0 to 65535")
    return int(port)


def parse_addresses(
    text: str | Sequence[str], *, default_port: int | None = None
) -> tuple[Address, ...]:
    """Read a list such as ``"n1:7400,n2:7400"``, or a sequence of addresses.

    Raises:
        ConfigError: Definite. One is not an address, one is given twice, or there is none.
    """
    parts = text.split(",") if isinstance(text, str) else list(text)
    found = [parse_address(part, default_port=default_port) for part in parts if part.strip()]
    if not found:
        raise ConfigError(f'addresses {text!r}: none given; write "n1:7400,n2:7400"')
    seen: dict[Address, None] = {}
    for address in found:
        if address in seen:
            raise ConfigError(f"addresses {text!r}: {address} is given twice")
        seen[address] = None
    return tuple(found)


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be this machine: ``localhost`` or a loopback IP address.

    Other names are not looked up: what they mean may change.
    """
    if host == "localhost":
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
