"""Ways between simulated hosts, and that a seed gives the same run every time."""

import asyncio
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from outlast.kernel import EscapeError
from tests.support.busy_network import digest, storm
from tests.support.simnet import (
    Recorder,
    both,
    connect,
    current,
    network,
    now,
    serve_echo,
    simulate,
    start,
)

ROOT = Path(__file__).parents[2]


def test_the_way_between_two_hosts_takes_some_hundred_microseconds_and_is_longer_at_times() -> (
    None
):
    async def main() -> list[float]:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection("api", 7)
        times = []
        for _ in range(300):
            begin = now()
            writer.write(b"x")
            await reader.readexactly(1)
            times.append(now() - begin)
        writer.close()
        return sorted(times)

    times = simulate(main)
    assert 100e-6 < times[0] < times[150] < 1.3e-3
    assert times[150] * 1.5 < times[-1] < 12e-3


def test_a_host_reaches_itself_in_microseconds() -> None:
    async def main() -> float:
        server = await asyncio.get_running_loop().create_server(Recorder, "127.0.0.1", 7)
        begin = now()
        transport, _ = await connect("localhost")
        transport.close()
        server.close()
        return now() - begin

    assert simulate(main) < 1e-3


def test_all_weather_of_a_way_is_undone_at_once() -> None:
    async def main() -> str:
        current().add_host("api")
        both("test", "api", cut=True, drop=True, reset=True, delay_ns=1, jitter_ns=1, loss_ppm=1)
        both("test", "api", duplicate_ppm=1, reorder_ppm=1, bytes_per_second=1)
        assert "cut" in repr(network().way("test", "api"))
        network().clear()
        return repr(network().way("test", "api"))

    assert simulate(main) == "<Way test to api>"


def test_delay_is_added_to_one_direction() -> None:
    async def main() -> float:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection("api", 7)
        network().way("api", "test").delay_ns = 3_000_000_000
        begin = now()
        writer.write(b"x")
        await reader.readexactly(1)
        writer.close()
        return now() - begin

    assert 3 < simulate(main) < 3.1


def test_an_address_that_nobody_has_is_unreachable() -> None:
    async def main() -> None:
        with pytest.raises(OSError, match=r"192\.168\.1\.1"):
            await connect("192.168.1.1")

    simulate(main)


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("accepted elsewhere", lambda loop: loop.connect_accepted_socket(Recorder, None)),
        ("sock_accept", lambda loop: loop.sock_accept(None)),
        ("unix socket object", lambda loop: loop.create_unix_server(Recorder)),
        ("datagram socket", lambda loop: loop.create_datagram_endpoint(Recorder, sock=1)),
        ("socket object of its own", lambda loop: loop.create_server(Recorder, sock=1)),
        ("connected elsewhere", lambda loop: loop.create_connection(Recorder, sock=sys)),
    ],
)
def test_what_has_no_twin_is_refused_with_advice(what: str, call: Any) -> None:
    async def main() -> None:
        with pytest.raises(EscapeError, match=what):
            await call(asyncio.get_running_loop())

    simulate(main)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_runs_of_a_seed_are_equal_and_those_of_two_seeds_are_not(seed: int) -> None:
    first, second = simulate(storm, seed), simulate(storm, seed)
    assert first == second
    assert digest(seed + 100) != first[0]


@pytest.mark.process
@pytest.mark.timeout(240)
def test_a_run_does_not_depend_on_the_hash_seed() -> None:
    def run(hash_seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "tests.support.busy_network", "7"],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True, text=True, check=True, timeout=100,
        ).stdout  # fmt: skip

    assert run("1") == run("2") == f"{digest(7)}\n"


def test_the_storm_meets_what_should_sometimes_happen() -> None:
    met: dict[str, int] = {}
    for seed in range(6):
        for name, count in simulate(storm, seed)[1].items():
            met[name] = met.get(name, 0) + count
    assert {
        "writer paused", "half-closed connection", "segment retransmitted", "reset in flight",
        "datagram duplicated",
    } <= set(met)  # fmt: skip


def test_runs_with_tls_are_equal_although_certificates_and_signatures_differ() -> None:
    def run() -> int:
        authority = trustme.CA()
        here = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("api").configure_cert(here)
        there = ssl.create_default_context()
        authority.configure_trust(there)

        async def serve() -> None:
            async def handle(reader: Any, writer: Any) -> None:
                while data := await reader.read(100):
                    writer.write(data)
                writer.close()

            server = await asyncio.start_server(handle, None, 7, ssl=here)
            await server.serve_forever()

        async def main() -> int:
            start("api", serve)
            await asyncio.sleep(0.1)
            both("test", "api", bytes_per_second=100_000, loss_ppm=50_000)
            for _ in range(3):
                reader, writer = await asyncio.open_connection("api", 7, ssl=there)
                for _ in range(10):
                    writer.write(b"over tls")
                    assert await reader.readexactly(8) == b"over tls"
                writer.close()
                await writer.wait_closed()
            return current().digest

        return simulate(main)

    assert run() == run() == run()


def test_a_tls_handshake_through_a_cut_ends_by_its_own_timeout() -> None:
    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context()
        begin = now()
        network().way("api", "test").delay_ns = 20_000_000_000
        with pytest.raises(ConnectionAbortedError, match="handshake"):
            await loop.create_connection(Recorder, "api", 7, ssl=context, ssl_handshake_timeout=5)
        assert 25 < now() - begin < 26

    simulate(main)


def test_a_connection_costs_nothing_once_it_is_over() -> None:
    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        for _ in range(50):
            reader, writer = await asyncio.open_connection("api", 7)
            writer.write(b"x")
            await reader.readexactly(1)
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(1)
        for kernel in network().endpoints.values():
            assert not kernel.ends
        assert not network().way("test", "api").ends
        assert len(network().sockets) == 1  # that of the server

    simulate(main)


def test_a_trace_names_who_sent_what_to_whom() -> None:
    lines: list[str] = []

    async def main() -> None:
        start("api", serve_echo)
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection("api", 7)
        writer.write(b"hello")
        await reader.readexactly(5)
        writer.close()
        await asyncio.sleep(0.1)

    simulate(main, trace=lambda at, host, text: lines.append(text))
    assert "connect test api 7" in lines
    assert "deliver test api 5" in lines
    assert "deliver api test 5" in lines
    assert "end test api" in lines
