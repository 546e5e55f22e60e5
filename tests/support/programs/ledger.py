"""A ledger as an ASGI application: Starlette on uvicorn, with httpx as the client.

``python -m tests.support.programs.ledger --port 8080 --data ledger``. Nothing here knows of a
simulator. Endpoints that touch the disk are plain functions: Starlette runs them in the worker
threads of anyio. ``early`` plants a bug: the entry is written after the answer.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

BLOCK = bytes(range(256)) * 64


def sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


class Ledger:
    """Entries in a file, one a line; each is on disk before ``add`` returns."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.jsonl"

    def open(self) -> None:
        """Cut off what a crash has left half-written, and remember that we run."""
        self.path.parent.mkdir(exist_ok=True)
        sync_folder(self.path.parent.parent)  # without it a power cut takes the whole folder
        with self.path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            os.fsync(file.fileno())
        sync_folder(self.path.parent)

    def add(self, entry: Any) -> None:
        with self.path.open("ab") as file:
            end = file.tell()
            try:
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.truncate(self.path, end)
                raise

    def all(self) -> list[Any]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]


def make_app(folder: Path, *, early: bool = False) -> Starlette:
    ledger = Ledger(folder)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(ledger.open)
        yield
        await asyncio.to_thread((folder / "closed").write_text, "yes")

    def add(request: Request) -> Response:
        entry = int(request.path_params["entry"])
        if early:
            return Response(status_code=201, background=BackgroundTask(ledger.add, entry))
        try:
            ledger.add(entry)
        except OSError as error:
            return PlainTextResponse(str(error), status_code=507)
        return Response(status_code=201)

    def entries(_: Request) -> Response:
        return JSONResponse(ledger.all())

    def block(request: Request) -> Response:
        time.sleep(float(request.query_params["seconds"]))
        return PlainTextResponse("done")

    async def wait(request: Request) -> Response:
        await asyncio.sleep(float(request.query_params["seconds"]))
        return PlainTextResponse("done")

    async def ticks(_: Request) -> Response:
        async def tick() -> AsyncIterator[str]:
            for n in range(5):
                yield f"data: {n}\n\n"
                await asyncio.sleep(0.02)

        return StreamingResponse(tick(), media_type="text/event-stream")

    async def measure(request: Request) -> Response:
        digest = hashlib.sha256()
        async for part in request.stream():
            digest.update(part)
        return PlainTextResponse(digest.hexdigest())

    async def blocks(request: Request) -> Response:
        async def produce() -> AsyncIterator[bytes]:
            for n in range(int(request.query_params["count"])):
                app.state.produced = n + 1
                yield BLOCK

        return StreamingResponse(produce())

    async def produced(_: Request) -> Response:
        return JSONResponse(app.state.produced)

    async def broken(_: Request) -> Response:
        raise RuntimeError("on purpose")

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/entries", entries),
            Route("/entries/{entry:int}", add, methods=["PUT"]),
            Route("/block", block),
            Route("/wait", wait),
            Route("/ticks", ticks),
            Route("/measure", measure, methods=["POST"]),
            Route("/blocks", blocks),
            Route("/produced", produced),
            Route("/broken", broken),
        ],
    )
    return app


async def main(
    host: str = "0.0.0.0", port: int = 8080, folder: Path = Path("ledger"), *, early: bool = False
) -> None:
    app = make_app(folder, early=early)
    config = uvicorn.Config(app, host, port, log_config=None, timeout_graceful_shutdown=10)
    await uvicorn.Server(config).serve()


# --- the client ----------------------------------------------------------------------------------


async def parts(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield BLOCK


async def tour(base: str) -> dict[str, Any]:
    """Use everything once, and return what was seen."""
    seen: dict[str, Any] = {}
    async with httpx.AsyncClient(base_url=base, timeout=30) as client:
        seen["added"] = [(await client.put(f"/entries/{n}")).status_code for n in (3, 1, 2)]
        answer = await client.get("/entries")
        seen["entries"] = answer.json(), answer.http_version, answer.headers["server"]
        many = await asyncio.gather(*(client.get("/block?seconds=0.01") for _ in range(10)))
        seen["blocking"] = [answer.text for answer in many]
        async with client.stream("GET", "/ticks") as answer:
            seen["ticks"] = [line async for line in answer.aiter_lines() if line]
        seen["measured"] = (await client.post("/measure", content=parts(50))).text
        async with client.stream("GET", "/blocks?count=50") as answer:
            digest = hashlib.sha256()
            async for part in answer.aiter_bytes():
                digest.update(part)
        seen["blocks"] = digest.hexdigest()
        seen["broken"] = (await client.get("/broken")).status_code
    # Another client: uvicorn closes the connection of the last one, some time soon.
    async with httpx.AsyncClient(base_url=base, timeout=30) as client:
        seen["missing"] = (await client.get("/nowhere")).status_code
        try:
            await client.get("/wait?seconds=2", timeout=0.1)
        except httpx.TimeoutException as error:
            seen["wait"] = type(error).__name__
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    asyncio.run(main("127.0.0.1", given.port, given.data))
