"""A small replicated service: orders on its nodes, each acknowledged by a majority on disk.

``python -m shop --port 8001 --data shop-1`` with ``OUTLAST_PEERS=n2=127.0.0.1:8002,…``. A PUT is
answered once a majority has fsynced the order; a GET asks a majority and answers with the union,
so that it shows every order that was acknowledged before. ``SHOP_LOSES=1`` answers before
anything is on any disk but the first, which is how such services lose orders.
"""

import argparse
import asyncio
import json
import os
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

PEERS = [p.partition("=")[2] for p in os.environ.get("OUTLAST_PEERS", "").split(",") if p]
NEEDED = (len(PEERS) + 1) // 2 + 1
LOSES = bool(os.environ.get("SHOP_LOSES"))


def keep(folder: Path, order: str) -> bytes:
    with (folder / str(int(order))).open("wb") as file:
        file.write(order.encode())
        file.flush()  # a full disk shows here
        os.fsync(file.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return b""


def orders(folder: Path) -> bytes:
    whole = (path for path in folder.iterdir() if path.stat().st_size)
    return json.dumps(sorted(int(path.name) for path in whole)).encode()


async def here(call: Callable[[], bytes]) -> bytes | None:
    try:
        return await asyncio.to_thread(call)
    except OSError:
        return None


async def ask(peer: str, method: str, path: str) -> bytes | None:
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(*peer.split(":"))
            writer.write(f"{method} /local{path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            return body if b" 200 " in head else None
    except (OSError, TimeoutError):
        return None


async def answer(folder: Path, method: str, path: str) -> bytes | None:
    """Return the body of the answer, None if it cannot be done."""
    if path == "/readyz":
        return b""
    local, path = path.startswith("/local"), path.removeprefix("/local")
    own = (lambda: keep(folder, path[8:])) if method == "PUT" else (lambda: orders(folder))
    if local or (LOSES and method == "PUT"):
        return await here(own)
    calls = [here(own), *(ask(peer, method, path) for peer in PEERS)]
    found: list[bytes] = []
    for call in asyncio.as_completed(calls):
        if (body := await call) is not None:
            found.append(body or b"[]")
        if len(found) >= NEEDED:
            return json.dumps(sorted({n for body in found for n in json.loads(body)})).encode()
    return None


async def main(host: str = "0.0.0.0", port: int = 8080, data: Path = Path("orders")) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(EOFError, ConnectionError):
            head = ""
            while "connection: close" not in head:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                body = await answer(data, method, path)
                status = "503 Service Unavailable" if body is None else "200 OK"
                length = f"Content-Length: {len(body or b'')}"
                writer.write(f"HTTP/1.1 {status}\r\n{length}\r\n\r\n".encode() + (body or b""))
                head = head.lower()

    await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)
    await (await asyncio.start_server(serve, host, port)).serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    asyncio.run(main("127.0.0.1", given.port, given.data))
