"""Addresses are read, written and refused with what to write instead."""

import pytest

from outlast.kernel import ConfigError
from outlast.wire import Address, is_loopback, parse_address, parse_addresses


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("n1:7400", "n1", 7400),
        (" 127.0.0.1:1 ", "127.0.0.1", 1),
        ("[::1]:7400", "::1", 7400),
        ("db.example:65535", "db.example", 65535),
        ("n1:0", "n1", 0),
    ],
)
def test_addresses_are_read_and_written_back(text: str, host: str, port: int) -> None:
    address = parse_address(text)
    assert address == Address(host, port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("n1", "has no port"),
        (":7400", "the host is ''"),
        ("n1:x", "port 'x'"),
        ("n1:65536", "port '65536'"),
        ("n1:", "port ''"),
        ("n1:٣", "is not a number"),
        ("::1:7400", "in brackets"),
        ("[::1:7400", "IPv6"),
        ("[::1]7400", "IPv6"),
        ("[n1]:7400", "'n1' is not an IPv6 address"),
        ("http://n1:7400", "address"),
        ("user@n1:7400", "the host is"),
    ],
)
def test_what_is_no_address_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("[", r"\[")) as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)


def test_lists() -> None:
    assert parse_addresses("n1:1, n2:2") == (Address("n1", 1), Address("n2", 2))
    assert parse_addresses(["n1", "n2:9"], default_port=7) == (Address("n1", 7), Address("n2", 9))
    with pytest.raises(ConfigError, match="none given"):
        parse_addresses(" , ")
    with pytest.raises(ConfigError, match="n1:1 is given twice"):
        parse_addresses("n1:1,n1:1")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("", False),
    ],
)
def test_loopback_is_only_what_cannot_be_anything_else(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
