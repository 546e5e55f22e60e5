"""Commands that raise, fill memory or answer too much; nonsense on the ports of live nodes."""

import asyncio
import json
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import outlast
from outlast.cluster.messages import Kind
from outlast.host import default_world
from outlast.kernel import (
    CommandError,
    CommandTypeError,
    ConfigError,
    DefiniteError,
    OutlastError,
    ProtocolError,
    ReplyLostError,
)
from outlast.state import decode_reply
from outlast.state.core.reply import DEFINITE, decode_reply_error
from outlast.wire import Connection, Identity, Security, dial
from tests.support.nodes import ROOT, WAIT, Nodes, complaint, until
from tests.support.nodes import outlast as run
from tests.support.odd_machine import Odd, TooOddError

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
TARGET = "tests/support/odd_machine.py:Odd"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    made = Nodes(tmp_path_factory.mktemp("odd"), target=TARGET)
    try:
        made.init().start().serving()
        made.leader()
        yield made
    finally:
        made.close()


def goes_on(nodes: Nodes) -> None:
    """Every node runs, they agree on the state, and a command is taken."""
    assert [process.poll() for process in nodes.processes.values()] == [None, None, None]

    async def use() -> dict[str, int]:
        async with outlast.connect(Odd, nodes.at, timeout=60) as client:
            await client.call(Odd.put, "goes on", 1)
            return await client.call(Odd.all)

    state = asyncio.run(use())
    assert "goes on" in state
    assert "taken back" not in state

    def equal() -> bool:
        facts = [nodes.status(name) or {} for name in nodes.names]
        return len({(one["applied_index"], one["digest"]) for one in facts}) == 1

    until(equal, "equal digests")


# --- commands ------------------------------------------------------------------------------------


def test_what_a_command_raises_is_its_result(nodes: Nodes) -> None:
    async def use() -> None:
        async with outlast.connect(Odd, nodes.at, timeout=60) as client:
            with pytest.raises(TooOddError) as declared:
                await client.call(Odd.refuse, "taken back", 5)
            assert declared.value.args == (5, "odd")
            assert declared.value.happened == "yes"
            with pytest.raises(CommandError) as other:
                await client.call(Odd.undeclared, "taken back")
            assert other.value.type_name == "IndexError"
        async with outlast.connect(None, nodes.at, timeout=60) as stranger:
            with pytest.raises(CommandError) as unknown:
                await stranger.call_json("refuse", {"key": "taken back", "number": 5})
            assert unknown.value.type_name == "TooOddError"

    asyncio.run(use())
    goes_on(nodes)


def test_wrong_arguments_are_named_everywhere(nodes: Nodes) -> None:
    async def use() -> None:
        async with outlast.connect(Odd, nodes.at, timeout=60) as client:
            for args, named in ((("k", "one"), "value"), (("k",), "value"), ((1, 1), "key")):
                with pytest.raises(CommandTypeError, match=named):
                    await client.call(Odd.put, *args)  # type: ignore[arg-type]
            with pytest.raises(CommandTypeError, match="value"):
                await client.call_json("put", {"key": "k", "value": "one"})
            with pytest.raises(CommandTypeError, match="no command 'putt'"):
                await client.call_json("putt", {"key": "k", "value": 1})
            for given in ({"key": object()}, {"key": 1 << 80}, {"key": {1: 2}.items()}):
                with pytest.raises(CommandTypeError):
                    await client.call_json("put", given)
            with pytest.raises(ConfigError, match="bytes"):
                await client.call_json("put", {"key": "k" * (2 << 20), "value": 1})

    asyncio.run(use())
    for arguments, named in (({"key": "k"}, "value"), ({"key": "k", "value": 1, "z": 1}, "z")):
        code, out, err = nodes.call("put", arguments)
        assert (code, out) == (2, "")
        assert named in complaint(err)
    goes_on(nodes)


def test_an_answer_that_is_too_large_is_told_and_stops_nobody(nodes: Nodes) -> None:
    async def use() -> None:
        async with outlast.connect(Odd, nodes.at, timeout=60) as client:
            assert len(await client.call(Odd.large, 1 << 20)) == 1 << 20
            with pytest.raises(ReplyLostError, match="more than one frame takes") as lost:
                await client.call(Odd.large, 9 << 20)
            assert lost.value.happened == "yes"
            with pytest.raises(ProtocolError, match="more than one frame takes"):
                await client.call(Odd.large_query, 9 << 20)

    asyncio.run(use())
    goes_on(nodes)


def test_a_query_that_recurses_for_ever_is_its_callers_problem(nodes: Nodes) -> None:
    async def use() -> None:
        async with outlast.connect(Odd, nodes.at, timeout=60) as client:
            with pytest.raises(DefiniteError, match="RecursionError"):
                await client.call(Odd.deep_query)

    asyncio.run(use())
    goes_on(nodes)


def test_poison_is_left_out_and_its_repeats_too(tmp_path: Path) -> None:
    """A command that stops every node that applies it: nodes return, and skip it by agreement."""
    process = subprocess.Popen(
        [sys.executable, "-m", "outlast", "serve", TARGET, "--data", str(tmp_path / "data"),
         "--port", "0", "--http-port", "0", "--json"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        facts: dict[str, Any] = json.loads(process.stdout.readline())
        at = ",".join(facts["addresses"].values())

        async def use() -> None:
            async with outlast.connect(Odd, at, timeout=120) as client:
                assert await client.call(Odd.put, "before", 1) == 1
                for poison in (Odd.exhaust, Odd.deep):
                    with pytest.raises(OutlastError, match="was left out"):
                        await client.call(poison, "taken back")
                assert await client.call(Odd.put, "after", 1) == 2
                assert await client.call(Odd.all) == {"before": 1, "after": 1}

        asyncio.run(use())
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT)
    said = (tmp_path / "data" / "n1.log").read_text()
    assert "n1 failed: MemoryError: as if there were no more" in said
    assert "n1 failed: RecursionError" in said
    assert "EntrySkipped" in said


# --- the port ------------------------------------------------------------------------------------


def memory(nodes: Nodes) -> dict[str, int]:
    return {name: psutil.Process(p.pid).memory_info().rss for name, p in nodes.processes.items()}


def throw(address: str, data: bytes) -> None:
    """Send ``data`` to a port and wait until the other side has closed it."""
    host, port = address.rsplit(":", 1)
    with (
        suppress(ConnectionError),  # a reset is an end as well; a timeout is not
        socket.create_connection((host, int(port)), timeout=60) as sock,
    ):
        sock.sendall(data)
        while sock.recv(65536):
            pass


def test_garbage_and_oversized_frames_cost_a_node_nothing(nodes: Nodes) -> None:
    before = memory(nodes)
    header = struct.Struct("<IIBBHI")
    for address in nodes.addresses.values():
        throw(address, b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n")
        throw(address, bytes(range(256)) * 4096)
        for length in (0xFFFFFFFF, 1 << 30, 9 << 20, 5000):
            throw(address, header.pack(length, 0, 1, 0, 0, 1) + b"x" * 100_000)
    grown = {name: rss - before[name] for name, rss in memory(nodes).items()}
    assert max(grown.values()) < 32 << 20, grown
    goes_on(nodes)


class Listening:
    """Keeps what a node answers on one connection."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()
        self.end: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def opened(self, connection: Connection) -> None:
        pass

    def frame(self, kind: int, stream: int, body: bytes) -> None:
        if kind != Kind.VIEW:
            self.answers.put_nowait((kind, stream, body))

    def closed(self, error: BaseException | None) -> None:
        self.end.set_result(error)


def test_a_client_that_talks_nonsense_is_told_or_cut_off(nodes: Nodes) -> None:
    async def open_port(handler: Listening) -> Connection:
        host, port = nodes.addresses[nodes.leader()].rsplit(":", 1)
        return await dial(
            default_world(), host, int(port), channel="client",
            identity=Identity(node="odd", purpose="client"), expect_cluster=None,
            expect_node=None, security=Security(), handler=handler, timeout=60.0,
        )  # fmt: skip

    async def use() -> None:
        handler = Listening()
        connection = await open_port(handler)
        for stream, kind in enumerate(
            (Kind.COMMAND, Kind.QUERY, Kind.REGISTER, Kind.RESOLVE, Kind.COMMAND), 1
        ):
            connection.send(kind, stream, b"\xc1nonsense" if stream < 5 else b"")
            async with asyncio.timeout(60):
                answered, to, body = await handler.answers.get()
            assert (answered, to) == (Kind.REPLY, stream)
            reply = decode_reply(body)
            assert reply.status == DEFINITE
            assert isinstance(decode_reply_error(reply), ProtocolError)
        connection.send(77, 9, b"")
        async with asyncio.timeout(60):
            assert await handler.end is not None

    asyncio.run(use())
    goes_on(nodes)


def test_a_command_line_for_a_port_that_speaks_something_else(nodes: Nodes) -> None:
    code, _, err = run("call", "put", "{}", "--at", nodes.http["n1"], "--timeout", "2")
    assert code == 2
    assert nodes.http["n1"] in complaint(err)
