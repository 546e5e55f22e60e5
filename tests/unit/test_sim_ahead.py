"""What a callback computes ahead of a crash has not happened: nothing of it is sent."""

import asyncio
import time

import pytest

from outlast import sim

_BUSY = 0.010
_CRASH = 0.005


async def _late_tcp() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"early")
        time.sleep(_BUSY)  # noqa: ASYNC251 - blocks its host, as writing a file does
        writer.write(b"late")

    await (await asyncio.start_server(serve, "0.0.0.0", 1)).serve_forever()


class _Late(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(b"early", addr)  # type: ignore[attr-defined]
        time.sleep(_BUSY)  # blocks its host, as writing a file does
        self.transport.sendto(b"late", addr)  # type: ignore[attr-defined]


async def _late_udp() -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(_Late, local_addr=("0.0.0.0", 1))
    await asyncio.Event().wait()


class _Heard(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.parts.append(data)


@pytest.mark.parametrize("end", ["crash", "power_cut", "none"])
def test_bytes_that_were_to_be_written_after_a_crash_are_not_sent(end: str) -> None:
    async def main(lab: sim.Lab) -> bytes:
        lab.host("late", _late_tcp)
        await lab.sleep(1)
        reader, writer = await asyncio.open_connection("late", 1)
        writer.write(b"?")
        first = await reader.readexactly(5)
        await lab.sleep(_CRASH)
        if end != "none":
            getattr(lab, end)("late")
        try:
            async with asyncio.timeout(1):
                return first + await reader.read(4)
        except TimeoutError:
            return first

    assert sim.run(main, seed=1) == (b"earlylate" if end == "none" else b"early")


@pytest.mark.parametrize("end", ["crash", "power_cut", "none"])
def test_datagrams_that_were_to_be_sent_after_a_crash_are_not_sent(end: str) -> None:
    async def main(lab: sim.Lab) -> list[bytes]:
        lab.host("late", _late_udp)
        await lab.sleep(1)
        transport, heard = await asyncio.get_running_loop().create_datagram_endpoint(
            _Heard, remote_addr=("late", 1)
        )
        transport.sendto(b"?")
        while not heard.parts:
            await lab.sleep(0.0001)
        await lab.sleep(_CRASH)
        if end != "none":
            getattr(lab, end)("late")
        await lab.sleep(1)
        return heard.parts

    expected = [b"early", b"late"] if end == "none" else [b"early"]
    assert sim.run(main, seed=1) == expected
