"""One question and one answer over TCP: what is too long or too sure to need for a datagram.

A connection carries one frame there and one back: four bytes of length and a sealed message.
Both sides are bounded in bytes and in time, and a listener also in connections, so that whoever
connects and sends slowly, much or nothing costs little and not for long.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from outlast.detect.members_seal import OVERHEAD_MAX, Purpose, Seal, purpose_of
from outlast.host.network import close_server
from outlast.kernel import ProtocolError

BODY_BYTES_MAX: Final = 1 << 20
"""The longest body of a question or an answer."""
CONNECTIONS_MAX: Final = 32
"""How many connections a listener serves at once; it closes further ones."""

_ANSWERS: Final = {
    Purpose.EXCHANGE: Purpose.EXCHANGE_ANSWER,
    Purpose.QUESTION: Purpose.QUESTION_ANSWER,
}
_BOUND: Final = 16
"""The end of a question, to which its answer is bound: with a key, its tag."""


async def ask(
    host: str, port: int, seal: Seal, purpose: Purpose, body: bytes, *, timeout: float
) -> bytes:
    """Send one question and return the answer.

    Raises:
        ConnectionRefusedError: Definite. Nobody listens there: the machine itself says so.
        OSError: It cannot be reached, or closed the connection without an answer.
        TimeoutError: Not answered within ``timeout`` seconds.
        ProtocolError: What came is no answer of this group.
    """
    question = seal.close(purpose, body)
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(_framed(question))
            await writer.drain()
            answer = await _read(reader)
        except BaseException:
            # Closing would wait until the peer has read everything, which it may never do.
            writer.transport.abort()
            raise
        writer.close()
    return seal.open(_ANSWERS[purpose], answer, bound=question[-_BOUND:])


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(4, "big") + message


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > BODY_BYTES_MAX + OVERHEAD_MAX:
            raise ProtocolError("oversized")
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        message = "closed without an answer"
        raise ConnectionResetError(message) from error


class Listener:
    """Answers questions on one TCP port.

    Args:
        seal: Opens questions and closes answers.
        answer: Called with purpose, body and where it came from; returns the answer, or ``None``
            for none. It may wait.
        rejected: Called with where it came from and a word, for what is no question.
        timeout: Seconds from the connection to the last byte of the answer.
    """

    __slots__ = ("_answer", "_rejected", "_seal", "_server", "_tasks", "_timeout")

    def __init__(
        self,
        seal: Seal,
        answer: Callable[[Purpose, bytes, str], Awaitable[bytes | None]],
        rejected: Callable[[str, str], None],
        *,
        timeout: float,
    ) -> None:
        self._seal = seal
        self._answer = answer
        self._rejected = rejected
        self._timeout = timeout
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}

    async def open(self, host: str, port: int) -> int:
        """Listen, and return the port in use.

        Raises:
            OSError: The address is in use, or not ours.
        """
        server = self._server = await asyncio.start_server(
            self._serve, host, port, backlog=128, start_serving=False
        )
        try:
            await server.start_serving()
        except BaseException:
            # Cancelled while asyncio listens already; with nobody to close it, it would for ever.
            self._server = None
            server.close()
            raise
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def close(self) -> None:
        """Stop listening, and end what is under way."""
        server, self._server = self._server, None
        try:
            if server is not None:
                await close_server(server)
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; an exception of it ends nothing else."""
        peer = writer.get_extra_info("peername")
        source = "unknown" if not peer else text_of(peer)
        task = asyncio.current_task()
        if len(self._tasks) >= CONNECTIONS_MAX or self._server is None or task is None:
            self._rejected(source, "too many connections")
            writer.transport.abort()
            return
        self._tasks[task] = None
        try:
            async with asyncio.timeout(self._timeout):
                await self._converse(reader, writer, source)
        except ProtocolError as error:
            self._rejected(source, str(error))
            writer.transport.abort()
        except TimeoutError:
            self._rejected(source, "slow")
            writer.transport.abort()
        except OSError:
            writer.transport.abort()
        except asyncio.CancelledError:
            # Only close() cancels it, and waits: a task that ended so would be told as an error.
            writer.transport.abort()
        finally:
            self._tasks.pop(task, None)
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str
    ) -> None:
        question = await _read(reader)
        purpose = purpose_of(question)
        if purpose not in _ANSWERS:
            raise ProtocolError("purpose")
        body = self._seal.open(purpose, question)
        answer = await self._answer(purpose, body, source)
        if answer is None:
            return
        sealed = self._seal.close(_ANSWERS[purpose], answer, bound=question[-_BOUND:])
        writer.write(_framed(sealed))
        await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def text_of(address: tuple[str, int]) -> str:
    """Return a socket's address as ``host:port``."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
