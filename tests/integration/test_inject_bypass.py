"""Connections that go around the proxy are named; those that may be there are not."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from outlast.inject import bypass, bypasses, find_listeners, process_tree, sockets
from tests.support.inject_echo import HOST, WITHIN, Lab, eventually, lab

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

CONNECT = """
import socket, time
sock = socket.create_connection(("{host}", {port}))
print(1, flush=True)
time.sleep(60)
"""


class Other:
    """A process that is connected to a port."""

    def __init__(self, port: int, host: str = HOST) -> None:
        program = CONNECT.format(host=host, port=port)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.pid = self.process.pid

    def close(self) -> None:
        self.process.kill()
        self.process.wait(WITHIN)
        if self.process.stdout is not None:
            self.process.stdout.close()


async def through(here: Lab, count: int = 1) -> None:
    """Connect clients through the proxy, and wait until it has dialled for each."""
    for _ in range(count):
        await here.client()
    await eventually(lambda: len(here.proxy.dialled_ports() or ()) == count, "all are dialled")


def look(here: Lab, pids: dict[str, list[int]] | None = None) -> list[str]:
    ports = here.proxy.dialled_ports()
    return bypasses({here.server_port: "n1"}, pids or {}, here.proxy.pid, ports)


def test_a_connection_through_the_proxy_is_no_bypass():
    async def story() -> None:
        async with lab() as here:
            reader, writer = await here.client()
            writer.write(b"x")
            await reader.readexactly(1)
            assert look(here) == []
            assert bypasses({here.server_port: "n1"}, {}, here.proxy.pid) == []

    asyncio.run(story())


def test_a_direct_connection_of_another_node_is_named():
    async def story() -> None:
        async with lab() as here:
            other = await asyncio.to_thread(Other, here.server_port)
            try:
                found = look(here, {"n2": [other.pid], "n1": [1]})
                assert found == [
                    f"n2 (pid {other.pid}) is connected to n1 {HOST}:{here.server_port} directly"
                ]
                assert look(here, {"n1": [other.pid]}) == [], "a node may talk to itself"
                (unknown,) = look(here)
                assert f"(pid {other.pid}) is connected to n1" in unknown
            finally:
                other.close()

    asyncio.run(story())


def test_a_client_in_the_proxys_own_process_is_found():
    async def story() -> None:
        async with lab() as here:
            await through(here)
            with socket.create_connection((HOST, here.server_port)):
                (found,) = look(here)
                assert found.startswith(f"the drill itself (pid {here.proxy.pid}) is connected")
            await eventually(lambda: look(here) == [], "nothing is found")

    asyncio.run(story())


def test_a_connection_by_ipv6_to_an_ipv4_listener_is_seen():
    async def story() -> None:
        async with lab() as here:
            with socket.socket(socket.AF_INET6) as sock:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                try:
                    sock.connect(("::ffff:127.0.0.1", here.server_port))
                except OSError:
                    pytest.skip("this machine has no IPv6")
                (found,) = look(here)
                assert f"{HOST}:{here.server_port}" in found

    asyncio.run(story())


def test_connections_that_come_and_go_raise_no_false_alarm():
    async def story() -> None:
        async with lab() as here:
            found = []

            async def churn() -> None:
                for _ in range(30):
                    _, writer = await asyncio.open_connection(HOST, here.link.port)
                    writer.write(b"x")
                    await asyncio.sleep(0)
                    writer.transport.abort()

            task = asyncio.gather(*(churn() for _ in range(4)))
            looks = 0
            while not task.done():
                found += look(here)
                looks += 1
                await asyncio.sleep(0)
            await task
            assert found == []
            assert looks > 5

    asyncio.run(story())


def test_looking_costs_one_question_to_the_kernel_while_all_is_well(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("processes are looked at")

    asked = []

    def ask(towards: dict[int, str]) -> list[sockets.Established]:
        asked.append(towards)
        return sockets.established(towards)

    async def story() -> None:
        async with lab() as here:
            await through(here, 50)
            monkeypatch.setattr(bypass, "established", ask)
            for name in ("_inodes", "_owners", "all_pids"):
                monkeypatch.setattr(bypass, name, refuse)
            assert look(here) == []
            assert len(asked) == 1

    asyncio.run(story())


def test_the_two_ways_to_ask_the_kernel_agree():
    async def story() -> None:
        async with lab() as here:
            await through(here)
            ours = {here.link.port, here.server_port}
            netlink = [
                each for family in sockets._FAMILY for each in sockets._by_netlink(family, ours)
            ]
            assert sorted(netlink) == sorted(sockets._by_table(ours))
            assert len(netlink) == 2
            assert all(each.within and each.remote == HOST for each in netlink)

    asyncio.run(story())


def test_without_netlink_the_table_is_read(monkeypatch):
    def refuse(family: int, towards: object) -> list[sockets.Established]:
        raise PermissionError(family)

    monkeypatch.setattr(sockets, "_by_netlink", refuse)
    test_a_direct_connection_of_another_node_is_named()


# --- ports that the proxy does not lead to -------------------------------------------------------

LISTEN = """
import socket, subprocess, sys, time
sock = socket.create_server(("{host}", 0))
print(sock.getsockname()[1], flush=True)
sock.accept()
time.sleep(60)
"""


def test_all_ports_of_a_node_and_its_children_are_found():
    program = LISTEN.format(host=HOST)
    shell = f"{sys.executable} -c '{program}' & wait"
    process = subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert find_listeners({"n1": process.pid}) == {port: "n1"}
        assert find_listeners({"n1": 1 << 22}) == {}
    finally:
        for each in reversed(process_tree(process.pid)):
            os.kill(each.pid, signal.SIGKILL)
        process.communicate(timeout=WITHIN)


def test_a_connection_of_nodes_to_a_port_beside_the_proxys_is_named_and_a_strangers_is_not():
    async def story() -> None:
        async with lab() as here:
            with socket.create_server((HOST, 0)) as second:
                others = {second.getsockname()[1]: "n1"}
                other = await asyncio.to_thread(Other, *others)

                def seen(pids: dict[str, list[int]]) -> list[str]:
                    ports = here.proxy.dialled_ports()
                    mine = {here.server_port: "n1"}
                    return bypasses(mine, pids, here.proxy.pid, ports, others=others)

                try:
                    (found,) = seen({"n2": [other.pid]})
                    assert found.startswith(f"n2 (pid {other.pid}) is connected to n1 {HOST}:")
                    assert seen({"n1": [other.pid]}) == [], "a node may talk to itself"
                    assert seen({}) == [], "somebody looks at a node"
                finally:
                    other.close()

    asyncio.run(story())


def test_a_connection_that_was_closed_while_its_owner_was_looked_for_is_no_bypass(monkeypatch):
    async def story() -> None:
        async with lab() as here:
            other = await asyncio.to_thread(Other, here.server_port)

            def slow(inodes: object, candidates: object) -> dict[int, list[int]]:
                other.close()
                time.sleep(0.05)
                return {}

            monkeypatch.setattr(bypass, "_owners", slow)
            assert look(here) == []

    asyncio.run(story())
