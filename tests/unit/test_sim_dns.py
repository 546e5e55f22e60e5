"""Looking up hosts by name, and what goes wrong with it."""

import asyncio
import socket
from typing import Any

import pytest

from outlast.kernel import ConfigError
from outlast.sim.dns import DnsFault
from tests.support.simnet import connect, current, network, now, serve_echo, simulate, start


async def look_up(name: Any, port: Any = 80, **rest: Any) -> list[Any]:
    return await asyncio.get_running_loop().getaddrinfo(name, port, **rest)


def test_a_host_is_found_by_name_even_while_it_is_down() -> None:
    async def main() -> None:
        current().add_host("api")
        rows = await look_up("api", "http", type=socket.SOCK_STREAM)
        assert rows == [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("10.0.0.2", 80))
        ]
        assert len(await look_up("API.")) == 3
        assert network().dns.tally.lookups == 2

    simulate(main)


@pytest.mark.parametrize(
    ("name", "rest", "address"),
    [
        ("localhost", {}, ("127.0.0.1", 80)),
        ("localhost", {"family": socket.AF_INET6}, ("::1", 80, 0, 0)),
        (None, {}, ("127.0.0.1", 80)),
        (None, {"flags": socket.AI_PASSIVE}, ("0.0.0.0", 80)),
        ("10.9.8.7", {"flags": socket.AI_NUMERICHOST}, ("10.9.8.7", 80)),
        ("test", {}, ("10.0.0.1", 80)),
        (b"::1", {}, ("::1", 80, 0, 0)),
    ],
)
def test_names_and_addresses_of_its_own_need_no_lookup(
    name: Any, rest: dict[str, Any], address: Any
) -> None:
    async def main() -> None:
        network().dns.fail("test", DnsFault("nxdomain"))
        rows = await look_up(name, type=socket.SOCK_STREAM, **rest)
        assert rows[0][4] == address
        assert network().dns.tally.lookups == 0

    simulate(main)


@pytest.mark.parametrize(
    ("name", "port", "rest", "number"),
    [
        ("nobody", 80, {}, socket.EAI_NONAME),
        ("api", 80, {"flags": socket.AI_NUMERICHOST}, socket.EAI_NONAME),
        ("api", 80, {"family": socket.AF_INET6}, socket.EAI_ADDRFAMILY),
        ("api", "no-such-service", {}, socket.EAI_SERVICE),
        ("api", 80, {"type": socket.SOCK_STREAM, "proto": 17}, socket.EAI_SOCKTYPE),
    ],
)
def test_what_cannot_be_found_is_an_error_as_on_a_real_machine(
    name: str, port: Any, rest: dict[str, Any], number: int
) -> None:
    async def main() -> None:
        current().add_host("api")
        with pytest.raises(socket.gaierror) as caught:
            await look_up(name, port, **rest)
        assert caught.value.errno == number

    simulate(main)


def test_an_unknown_name_fails_a_connection_as_a_lookup() -> None:
    async def main() -> None:
        with pytest.raises(socket.gaierror):
            await connect("nobody")

    simulate(main)


def test_faults_hit_the_host_that_asks_and_are_counted() -> None:
    async def main() -> None:
        start("api", serve_echo)
        current().add_host("db")
        dns = network().dns
        dns.fail("test", DnsFault("nxdomain", name="db"))
        assert (await look_up("api"))[0][4][0] == "10.0.0.2"
        with pytest.raises(socket.gaierror) as caught:
            await look_up("db")
        assert caught.value.errno == socket.EAI_NONAME
        dns.fail("test", DnsFault("timeout"))
        begin = now()
        with pytest.raises(socket.gaierror) as caught:
            await look_up("api")
        assert caught.value.errno == socket.EAI_AGAIN
        assert 5 < now() - begin < 5.1
        dns.fail("test", DnsFault("wrong"))
        assert (await look_up("api"))[0][4][0] in {"10.0.0.1", "10.0.0.3"}
        dns.fail("test", DnsFault("delay", delay_ns=2_000_000_000))
        begin = now()
        assert (await look_up("api"))[0][4][0] == "10.0.0.2"
        assert 2 < now() - begin < 2.1
        dns.clear("test")
        assert (await look_up("api"))[0][4][0] == "10.0.0.2"
        assert dns.tally.facts() == {
            "delay": 1, "lookups": 6, "nxdomain": 1, "timeout": 1, "unknown": 0, "wrong": 1,
        }  # fmt: skip

    simulate(main)


def test_an_alias_stands_for_a_host_until_it_is_taken_away() -> None:
    async def main() -> None:
        current().add_host("db-1")
        dns = network().dns
        dns.alias("db", "db-1")
        assert (await look_up("db"))[0][4][0] == "10.0.0.2"
        dns.unregister("db")
        with pytest.raises(socket.gaierror):
            await look_up("db")
        dns.unregister("db-1")
        with pytest.raises(socket.gaierror):
            await look_up("db-1")
        dns.register("db-1")
        assert (await look_up("db-1"))[0][4][0] == "10.0.0.2"

    simulate(main)


def test_names_are_found_for_addresses() -> None:
    async def main() -> None:
        current().add_host("api")
        loop = asyncio.get_running_loop()
        assert await loop.getnameinfo(("10.0.0.2", 80)) == ("api", "http")
        flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        assert await loop.getnameinfo(("10.0.0.2", 80), flags) == ("10.0.0.2", "80")
        assert await loop.getnameinfo(("10.0.0.9", 4711)) == ("10.0.0.9", "4711")

    simulate(main)


def test_what_makes_no_sense_is_refused_in_one_line() -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="no host 'nobody'; use one of test"):
            network().dns.fail("nobody", DnsFault("timeout"))
        with pytest.raises(ConfigError, match="no host 'nobody'"):
            network().dns.alias("db", "nobody")
        with pytest.raises(ConfigError, match="kind is 'slow'; use one of nxdomain"):
            DnsFault("slow")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="there is no host 'nobody'"):
            network().way("test", "nobody")

    simulate(main)
