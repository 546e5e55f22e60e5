"""Notes and payments over HTTP with aiohttp, server and client, as anybody would write them.

``python -m tests.support.programs.notes --port 8080 --data notes``. Nothing here knows of a
simulator. ``early`` plants a bug in the server, ``careless`` one in the client.
"""

import argparse
import asyncio
import hashlib
import json
import os
import signal
import ssl
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, WSMsgType, web

CHUNK = bytes(range(256)) * 256


def sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write(path: Path, content: bytes) -> None:
    """Replace a file, durably and as a whole."""
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


class Service:
    """What the server keeps, and what it answers."""

    def __init__(self, folder: Path, *, early: bool) -> None:
        self.folder = folder
        self.early = early
        self.file = folder / "payments.json"
        self.payments: dict[str, int] = {}
        self.lock = asyncio.Lock()
        self.later: set[asyncio.Task[None]] = set()
        self.sent = 0

    def load(self) -> None:
        self.folder.mkdir(exist_ok=True)
        sync_folder(self.folder.parent)
        if self.file.exists():
            self.payments = json.loads(self.file.read_bytes())

    async def keep(self, name: str, content: bytes) -> None:
        await asyncio.to_thread(write, self.folder / f"{name}.note", content)

    async def put(self, request: web.Request) -> web.Response:
        name, content = request.match_info["name"], await request.read()
        keeping = asyncio.create_task(self.keep(name, content))
        if self.early:
            self.later.add(keeping)
            keeping.add_done_callback(self.later.discard)
        else:
            try:
                await asyncio.shield(keeping)
            except OSError:
                return web.Response(status=503)
        return web.Response(status=201)

    async def get(self, request: web.Request) -> web.Response:
        path = self.folder / f"{request.match_info['name']}.note"
        try:
            return web.Response(body=await asyncio.to_thread(path.read_bytes))
        except FileNotFoundError:
            raise web.HTTPNotFound from None

    async def names(self, _: web.Request) -> web.Response:
        found = await asyncio.to_thread(lambda: sorted(self.folder.glob("*.note")))
        return web.json_response([path.stem for path in found])

    async def pay(self, request: web.Request) -> web.Response:
        """Take a payment, once for each of its ids."""
        wanted = await request.json()
        async with self.lock:
            if wanted["id"] in self.payments:
                return web.json_response({"seen": True})
            after = {**self.payments, wanted["id"]: wanted["amount"]}
            try:
                await asyncio.to_thread(write, self.file, json.dumps(after).encode())
            except OSError:
                return web.Response(status=503)
            self.payments = after
        return web.json_response({"seen": False})

    async def total(self, _: web.Request) -> web.Response:
        return web.json_response(sum(self.payments.values()))

    async def upload(self, request: web.Request) -> web.Response:
        digest, size = hashlib.sha256(), 0
        async for part in request.content.iter_any():
            digest.update(part)
            size += len(part)
        return web.json_response({"bytes": size, "sha256": digest.hexdigest()})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(int(request.query["chunks"])):
            await answer.write(CHUNK)
            self.sent += len(CHUNK)
        await answer.write_eof()
        return answer

    async def progress(self, _: web.Request) -> web.Response:
        return web.json_response(self.sent)

    async def slow(self, request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.query["seconds"]))
        return web.Response(text="done")

    async def echo(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=10)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data[::-1])
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket


async def main(
    host: str = "0.0.0.0",
    port: int = 8080,
    folder: Path = Path("notes"),
    *,
    tls: ssl.SSLContext | None = None,
    early: bool = False,
) -> None:
    service = Service(folder, early=early)
    await asyncio.to_thread(service.load)
    app = web.Application(client_max_size=2**26)
    app.add_routes(
        [
            web.get("/notes", service.names),
            web.put("/notes/{name}", service.put),
            web.get("/notes/{name}", service.get),
            web.post("/payments", service.pay),
            web.get("/payments", service.total),
            web.post("/upload", service.upload),
            web.get("/stream", service.stream),
            web.get("/progress", service.progress),
            web.get("/slow", service.slow),
            web.get("/echo", service.echo),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=5, keepalive_timeout=120)
    await runner.setup()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await web.TCPSite(runner, host, port, ssl_context=tls).start()
    await stop.wait()
    await runner.cleanup()


# --- the client ----------------------------------------------------------------------------------


def connect(base: str, *, tls: ssl.SSLContext | None = None, timeout: float = 2) -> ClientSession:
    connector = TCPConnector(ssl=tls or True, keepalive_timeout=90)
    return ClientSession(base, connector=connector, timeout=ClientTimeout(total=timeout))


async def pay(session: ClientSession, amount: int, *, careless: bool = False) -> None:
    """Pay until it is acknowledged; a careless client makes another payment of each attempt."""
    payment = uuid.uuid4().hex
    while True:
        if careless:
            payment = uuid.uuid4().hex
        try:
            async with session.post("/payments", json={"id": payment, "amount": amount}) as answer:
                answer.raise_for_status()
                return
        except (ClientError, TimeoutError):
            await asyncio.sleep(0.1)


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield CHUNK
        await asyncio.sleep(0)


async def tour(base: str, tls: ssl.SSLContext | None = None) -> dict[str, Any]:
    """Use everything once, and return what was seen."""
    seen: dict[str, Any] = {}
    async with connect(base, tls=tls, timeout=30) as session:
        for name in ("one", "two"):
            async with session.put(f"/notes/{name}", data=name.encode()) as answer:
                seen[name] = answer.status, answer.version, answer.headers["Server"]
        async with session.get("/notes") as answer:
            seen["names"] = await answer.json()
        async with session.get("/notes/two") as answer:
            seen["two again"] = await answer.text()
        async with session.get("/notes/three") as answer:
            seen["missing"] = answer.status
        async with session.post("/upload", data=chunks(20)) as answer:
            seen["upload"] = await answer.json()
        async with session.get("/stream", params={"chunks": 20}) as answer:
            digest = hashlib.sha256()
            async for part in answer.content.iter_chunked(10_000):
                digest.update(part)
            seen["stream"] = digest.hexdigest()
        await asyncio.gather(*(pay(session, amount) for amount in range(10)))
        async with session.get("/payments") as answer:
            seen["total"] = await answer.json()
        async with session.ws_connect("/echo") as socket:
            await socket.send_str("stressed")
            await socket.send_bytes(CHUNK)
            seen["echo"] = await socket.receive_str(), await socket.receive_bytes() == CHUNK
        seen["closed"] = socket.close_code
        try:
            async with session.get("/slow?seconds=2", timeout=ClientTimeout(total=0.1)):
                pass
        except TimeoutError as error:
            seen["slow"] = type(error).__name__
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    asyncio.run(main("127.0.0.1", given.port, given.data))
