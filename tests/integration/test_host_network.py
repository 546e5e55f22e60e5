"""Connections that break at once are errors that callers know how to repeat."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from outlast.host import HostNetwork, new_event_loop
from outlast.host.network import _tune

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]
ROUNDS = 300


@contextlib.contextmanager
def rude_listener() -> Iterator[int]:
    """A listener that resets every connection as soon as it is accepted."""
    server = socket.create_server(("127.0.0.1", 0), backlog=512)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                conn, _ = server.accept()
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                conn.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


class Silent(asyncio.Protocol):
    """Receives and says nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, new_event_loop])
def test_a_connection_that_is_reset_at_once_ends_as_an_os_error(loop: object) -> None:
    """Found by a drill: uvloop raised ValueError, which nobody repeats: the link stayed down."""

    async def dial_again_and_again(port: int) -> set[str]:
        ends = set()
        for _ in range(ROUNDS):
            try:
                made = await HostNetwork().connect(Silent, "127.0.0.1", port, timeout=30.0)
                made.transport.close()
            except OSError as error:
                ends.add(type(error).__name__)
        return ends

    with rude_listener() as port, asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        ends = runner.run(dial_again_and_again(port))
    assert ends <= {"ConnectionResetError", "ConnectionRefusedError"}


class Gone:
    """What uvloop hands out for a connection that is over: any use raises ValueError."""

    family = socket.AF_INET

    def setsockopt(self, *_: int) -> None:
        raise ValueError("negative file descriptor")

    def get_extra_info(self, _: str) -> "Gone":
        return self


def test_a_transport_without_a_descriptor_counts_as_reset() -> None:
    with pytest.raises(ConnectionResetError, match="as soon as it was made"):
        _tune(Gone())


def test_a_caller_taken_in_the_turn_in_which_the_listener_closes_is_handed_over() -> None:
    """asyncio would forget it, with its socket open, which the caller can only wait for."""
    made: list[Silent] = []

    class Kept(Silent):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)

    async def close_while_taking() -> None:
        listener = await HostNetwork().listen(Kept, "127.0.0.1", 0)
        with socket.create_connection(("127.0.0.1", listener.port)):
            await asyncio.sleep(0)  # the loop sees that somebody calls
            await asyncio.sleep(0)  # it has taken the connection, and told nobody yet
            await listener.close()
            await asyncio.sleep(0)
            assert len(made) == 1
            made[0].transport.close()
            await asyncio.sleep(0)

    asyncio.run(close_while_taking())
