"""Reads that chase writes: a counter is read at the very moment at which an addition is answered.

Stale reads hide in windows of a round trip. The workloads of a drill, a few operations a second,
hardly ever hit one; so here every answered write is followed at once by reads, by other clients
and at single nodes. It is judged as clients can: a read shows at least what was answered before
it began, at least what an earlier read had shown, and at most what was asked for and not surely
refused. Some calls have so little time that their answers come too late.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from outlast.cluster import Client
from outlast.cluster.connect import connect
from outlast.drill.replicas import LAB
from outlast.kernel import OutlastError, Prng, happened
from outlast.protect import deadline

_NAME = "chase"
_SECONDS = 2.0


class Chase:
    """One writer, and readers at its heels.

    Args:
        addresses: Of the nodes, by name; looked at again for every read.
        prng: Draws pauses and whom to read from.
        sleep: Waits for virtual seconds.
    """

    def __init__(
        self,
        addresses: Mapping[Any, str],
        prng: Prng,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._addresses = addresses
        self._prng = prng
        self._sleep = sleep
        self._pause_ms = prng.choice(((5, 150), (5, 150), (0, 30)))
        self._known = 0
        self._begun = 0
        self._answered = 0
        self._refused = 0
        self._reads: dict[asyncio.Task[None], None] = {}
        self.problems: list[str] = []
        self.read_count = 0

    async def run(self) -> None:
        """Write and read until cancelled."""
        at = list(self._addresses.values())
        clients = [
            connect(None, at, timeout=_SECONDS, security=LAB, name=f"{_NAME} {number}")
            for number in range(3)
        ]
        try:
            for client in clients:
                await client.__aenter__()
            while True:
                if self._prng.chance(1, 2):
                    self._follow(self._pad(clients[2]))
                await self._write(clients[0])
                for reader in clients[1:]:
                    self._follow(self._read(reader, ""))
                pinned = self._prng.choice(list(self._addresses.values()))
                self._follow(self._read(clients[1], pinned))
                await self._sleep(self._prng.between(*self._pause_ms) / 1000)
        finally:
            for task in self._reads:
                task.cancel()
            for client in clients:
                await client.close()

    async def _write(self, writer: Client[Any]) -> None:
        self._begun += 1
        try:
            with self._hurry():
                await writer.call_json("count", {"name": _NAME, "value": 1})
        except (OutlastError, OSError) as error:
            self._refused += happened(error) == "no"
        else:
            self._answered += 1
            self._known = max(self._known, self._answered)

    async def _pad(self, writer: Client[Any]) -> None:
        """Write something of several sectors, of which a power cut may keep some."""
        value = "pad " * self._prng.between(1, 1000)
        with suppress(OutlastError, OSError):
            await writer.call_json("put", {"key": f"{_NAME} pad", "value": value})

    def _hurry(self) -> AbstractContextManager[object]:
        """Give some calls so little time that their answers may come too late."""
        short_ms = self._prng.choice((0, 0, 20, 60, 200))
        return deadline(short_ms / 1000) if short_ms else nullcontext()

    def _follow(self, read: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(read)
        self._reads[task] = None
        task.add_done_callback(lambda done: self._reads.pop(done, None))

    async def _read(self, reader: Client[Any], address: str) -> None:
        wait_ms = self._prng.choice((0, 0, 0, 1, 3))
        if wait_ms:
            await self._sleep(wait_ms / 1000)
        least = self._known
        ask = {"name": _NAME}
        with suppress(OutlastError, OSError):
            with self._hurry():
                if address:
                    found = int(await reader.read_at(address, "total", ask))
                else:
                    found = int(await reader.call_json("total", ask, query=True))
            self._judge(least, found, address)

    def _judge(self, least: int, found: int, address: str) -> None:
        self.read_count += 1
        where = f" at {address}" if address else ""
        if found < least:
            self.problems.append(f"stale read{where}: {found}, {least} was known before it began")
        most = self._begun - self._refused
        if found > most:
            self.problems.append(
                f"read{where} of {found}: {self._begun} were asked for, {self._refused} refused"
            )
        self._known = max(self._known, found)
