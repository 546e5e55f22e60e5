"""Stop a web service without dropping a request: not ready, finish what runs, then exit.

``python health_drain.py``, then in another terminal ``curl :8000/work``, ``curl :9090/readyz`` and
``kill -TERM PID``: readiness is 503 at once, the request is answered, then the process exits 0.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from outlast.detect import Drain, Health, HealthServer

health = Health(name="shop")
drain = Drain(health, delay=float(os.environ.get("DRAIN_DELAY", "5")), within=25.0)


@health.check("database", every=2, timeout=1)
async def database() -> None:
    """Ask it: ``await connection.execute("SELECT 1")``."""


async def work(request: Request) -> PlainTextResponse:
    await asyncio.sleep(float(request.query_params.get("seconds", 1)))
    return PlainTextResponse("done\n")


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    # The server has installed its signal handlers: the drain's come first, and hand on to them.
    async with health, drain:
        with HealthServer(health, os.environ.get("HEALTH_ADDRESS", ":9090")) as pages:
            print(f"process {os.getpid()}, health on {pages.url}", flush=True)
            yield


app = drain.asgi(Starlette(routes=[Route("/work", work)], lifespan=lifespan))


async def ask() -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        print((await client.get("/work?seconds=0")).text)


def test_it_runs() -> None:
    asyncio.run(ask())


def main(port: int = 8000) -> None:
    # uvicorn ends by the signal that stopped it; with a handler of its own that is an exit of 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(app, port=port, access_log=False)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
