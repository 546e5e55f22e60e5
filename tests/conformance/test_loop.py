"""Small programs see the same on the real loop over loopback and on the simulated one.

Each program returns what its protocols were told. Only what both ends agree on by TCP's own
rules is compared, so that no real timing takes part.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.simnet import Recorder, simulate

Program = Callable[[], Coroutine[Any, Any, Any]]
HERE = "127.0.0.1"
pytestmark = pytest.mark.timeout(120)


async def listen(make: Callable[[], Any], **rest: Any) -> tuple[Any, int, list[Any]]:
    """Start a server and return it, its port, and the protocols that it makes."""
    made: list[Any] = []

    def factory() -> Any:
        made.append(make())
        return made[-1]

    server = await asyncio.get_running_loop().create_server(factory, HERE, 0, **rest)
    return server, server.sockets[0].getsockname()[1], made


async def connect(port: int, make: Callable[[], Any] = Recorder, **rest: Any) -> tuple[Any, Any]:
    return await asyncio.get_running_loop().create_connection(make, HERE, port, **rest)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - anything may be waited for
            await asyncio.sleep(0.001)


class Echo(Recorder):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


async def echo() -> Any:
    server, port, made = await listen(Echo)
    transport, client = await connect(port)
    transport.writelines([b"one", bytearray(b" two"), memoryview(b" three")])
    await until(lambda: len(client.data) == 13)
    transport.close()
    await client.lost
    await made[0].lost
    server.close()
    return client.told, bytes(client.data), made[0].told, transport.is_closing()


async def half_close() -> Any:
    server, port, made = await listen(lambda: Recorder(keep_open=True))
    transport, client = await connect(port)
    transport.write(b"question")
    transport.write_eof()
    await until(lambda: made and "eof" in made[0].told)
    made[0].transport.write(b"answer")
    made[0].transport.close()
    await client.lost
    await made[0].lost
    server.close()
    return client.told, bytes(client.data), made[0].told, bytes(made[0].data)


async def write_after_eof() -> Any:
    server, port, _made = await listen(Recorder)
    transport, client = await connect(port)
    transport.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        transport.write(b"late")
    with pytest.raises(TypeError):
        transport.write("text")
    await client.lost
    server.close()
    return client.told, transport.can_write_eof()


async def slow_reader() -> Any:
    size = 6_000_000
    server, port, made = await listen(Recorder)
    transport, client = await connect(port)
    await until(lambda: made and made[0].transport)
    made[0].transport.pause_reading()
    transport.write(bytes(size))
    paused = list(client.told), transport.get_write_buffer_size() > 0, bytes(made[0].data)
    made[0].transport.resume_reading()
    await until(lambda: len(made[0].data) == size)
    await until(lambda: client.told[-1] == "resume")
    transport.close()
    await made[0].lost
    server.close()
    return paused, client.told, made[0].told, made[0].transport.is_reading()


async def close_flushes() -> Any:
    size = 3_000_000
    server, port, made = await listen(Recorder)
    transport, client = await connect(port)
    transport.write(bytes(size))
    transport.close()
    transport.close()
    await client.lost
    await until(lambda: made)
    await made[0].lost
    server.close()
    return client.told[-1], made[0].told, len(made[0].data)


async def abort() -> Any:
    server, port, made = await listen(Recorder)
    transport, client = await connect(port)
    transport.write(b"last words")
    transport.abort()
    closing = transport.is_closing()
    await client.lost
    await until(lambda: made)
    await made[0].lost
    server.close()
    return closing, client.told, made[0].told, bytes(made[0].data)


async def close_with_unread_data() -> Any:
    server, port, made = await listen(Recorder)
    transport, client = await connect(port)
    await until(lambda: made and made[0].transport)
    made[0].transport.pause_reading()
    transport.write(b"never read")
    await asyncio.sleep(0.05)
    made[0].transport.abort()
    await client.lost
    server.close()
    return client.told, made[0].told


async def write_after_the_other_is_gone() -> Any:
    server, port, made = await listen(Recorder)
    transport, client = await connect(port, lambda: Recorder(keep_open=True))
    await until(lambda: made and made[0].transport)
    made[0].transport.close()
    await until(lambda: "eof" in client.told)
    for _ in range(3):
        transport.write(b"anybody there?")
        await asyncio.sleep(0.02)
    error = await client.lost
    server.close()
    return client.told[:2], isinstance(error, ConnectionError)


async def connect_refused() -> Any:
    server, port, _made = await listen(Recorder)
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError) as caught:
        await connect(port)
    return caught.value.errno, str(caught.value).replace(str(port), "PORT")


async def server_closes() -> Any:
    server, port, made = await listen(Echo)
    transport, client = await connect(port)
    serving = server.is_serving()
    await until(lambda: made)
    server.close()
    transport.write(b"still here")
    await until(lambda: client.data)
    transport.close()
    await client.lost
    await made[0].lost
    return serving, server.is_serving(), server.sockets, bytes(client.data)


async def port_in_use() -> Any:
    server, port, _made = await listen(Recorder)
    with pytest.raises(OSError, match="in use") as caught:
        await asyncio.get_running_loop().create_server(Recorder, HERE, port)
    server.close()
    return caught.value.errno, "error while attempting to bind on address" in str(caught.value)


async def not_serving_yet() -> Any:
    server, port, _made = await listen(Recorder, start_serving=False)
    with pytest.raises(ConnectionRefusedError):
        await connect(port)
    before = server.is_serving()
    await server.start_serving()
    transport, client = await connect(port)
    transport.close()
    await client.lost
    server.close()
    return before, client.told


class Small(asyncio.BufferedProtocol):
    """Has room for seven bytes at a time."""

    def __init__(self) -> None:
        self.buffer = bytearray(7)
        self.data = bytearray()
        self.told: list[str] = []
        self.counts: list[int] = []
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.told.append("made")

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.counts.append(nbytes)
        self.data += self.buffer[:nbytes]

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.told.append(f"lost {type(exc).__name__}")
        self.lost.set_result(exc)


async def buffered() -> Any:
    server, port, made = await listen(Small)
    transport, _client = await connect(port)
    transport.write(b"more than seven bytes")
    transport.close()
    await until(lambda: made)
    await made[0].lost
    server.close()
    return made[0].told, bytes(made[0].data), max(made[0].counts)


async def failing_protocol() -> Any:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            message = "cannot read this"
            raise ValueError(message)

    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: told.append(f"{context['message']} {context['exception']!r}")
    )
    server, port, made = await listen(Failing)
    transport, client = await connect(port)
    transport.write(b"x")
    await client.lost
    await made[0].lost
    server.close()
    return told, made[0].told


async def streams() -> Any:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        rest = await reader.read()
        writer.write(line.upper() + rest)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, HERE, 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection(HERE, port)
    peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    writer.write(b"line\nrest")
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    server.close()
    return answer, peer == (HERE, port), own[0], type(own[1])


async def sock_connect() -> Any:
    server, port, _made = await listen(Echo)
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (HERE, port))
        await loop.sock_sendall(sock, b"by hand")
        first = await loop.sock_recv(sock, 2)
        rest = bytearray(10)
        count = await loop.sock_recv_into(sock, rest)
    second = socket.socket()
    second.setblocking(False)
    await loop.sock_connect(second, (HERE, port))
    transport, client = await loop.create_connection(Recorder, sock=second)
    transport.write(b"handed over")
    await until(lambda: len(client.data) == 11)
    transport.close()
    await client.lost
    server.close()
    return first, bytes(rest[:count]), client.told, second.fileno()


async def unix_sockets() -> Any:
    loop = asyncio.get_running_loop()
    path = str(Path(PLACE[0]) / "service.sock")
    with pytest.raises(OSError, match=r".") as caught:
        await loop.create_unix_connection(Recorder, path)
    server = await loop.create_unix_server(Echo, path)
    transport, client = await loop.create_unix_connection(Recorder, path)
    transport.write(b"local")
    await until(lambda: client.data == b"local")
    family = transport.get_extra_info("socket").family
    transport.close()
    await client.lost
    server.close()
    return caught.value.errno, client.told, family


PLACE: list[str] = []


async def sendfile() -> Any:
    path = Path(PLACE[0]) / "file"
    server, port, made = await listen(Recorder)
    transport, client = await connect(port)
    with path.open("rb") as file:
        sent = await asyncio.get_running_loop().sendfile(transport, file, 10, 100_000)
    transport.close()
    await client.lost
    await made[0].lost
    server.close()
    return sent, bytes(made[0].data) == path.read_bytes()[10:100_010], made[0].told


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.transport: Any = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.told.append("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.told.append(data)
        if data.startswith(b"?"):
            self.transport.sendto(b"!" + data, addr)

    def error_received(self, exc: Exception) -> None:
        self.told.append(type(exc).__name__)

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.lost.set_result(exc)


async def datagrams() -> Any:
    loop = asyncio.get_running_loop()
    here, server = await loop.create_datagram_endpoint(Datagrams, local_addr=(HERE, 0))
    address = here.get_extra_info("sockname")
    there, client = await loop.create_datagram_endpoint(Datagrams, remote_addr=address)
    there.sendto(b"?one")
    await until(lambda: b"!?one" in client.told)
    there.sendto(b"x" * 70_000)
    with pytest.raises(ValueError, match="Invalid address"):
        there.sendto(b"y", (HERE, 1))
    here.close()
    await server.lost
    there.sendto(b"?two")
    await until(lambda: "ConnectionRefusedError" in client.told)
    there.close()
    await client.lost
    return server.told, client.told


PROGRAMS: list[Program] = [
    echo, half_close, write_after_eof, slow_reader, close_flushes, abort, close_with_unread_data,
    write_after_the_other_is_gone, connect_refused, server_closes, port_in_use, not_serving_yet,
    buffered, failing_protocol, streams, sock_connect, unix_sockets, sendfile, datagrams,
]  # fmt: skip


def on_real(program: Program) -> Any:
    with asyncio.Runner() as runner:
        return runner.run(program())


def on_simulated(program: Program, seed: int) -> Any:
    return simulate(program, seed)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 1000)
    PLACE[:] = [str(tmp_path)]
    return tmp_path


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_sees_on_the_simulated_loop_what_it_sees_on_a_real_one(
    program: Program, place: Path
) -> None:
    expected = on_real(program)
    for seed in range(5):
        assert on_simulated(program, seed) == expected, f"seed {seed}"


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HERE, "localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def test_tls_is_the_same_from_the_first_byte(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    here, there = contexts

    async def program() -> Any:
        server, port, made = await listen(Echo, ssl=here)
        transport, client = await connect(port, ssl=there, server_hostname="localhost")
        transport.write(b"secret")
        await until(lambda: client.data == b"secret")
        cipher = transport.get_extra_info("cipher") is not None
        subject = transport.get_extra_info("peercert") is not None
        transport.close()
        await client.lost
        await made[0].lost
        server.close()
        return client.told, made[0].told, cipher, subject

    assert on_simulated(program, 1) == on_real(program)


def test_tls_is_the_same_when_it_begins_later(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    here, there = contexts

    async def program() -> Any:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"GO\n")
            await writer.drain()
            await writer.start_tls(here)
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, HERE, 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(HERE, port)
        writer.write(b"STARTTLS\n")
        answer = await reader.readline()
        await writer.start_tls(there, server_hostname="localhost")
        writer.write(b"secret\n")
        secret = await reader.readline()
        version = writer.get_extra_info("ssl_object").version()
        writer.close()
        server.close()
        return answer, secret, version

    assert on_simulated(program, 1) == on_real(program)


def test_a_certificate_for_another_name_is_refused_by_both(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    here, there = contexts

    async def program() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        server, port, made = await listen(Recorder, ssl=here)
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await connect(port, ssl=there, server_hostname="elsewhere")
        server.close()
        return caught.value.verify_code, [one.told for one in made]

    assert on_simulated(program, 1) == on_real(program)
