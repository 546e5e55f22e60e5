"""Protect a Starlette application: deadlines come in, load is shed, payments are made once."""

import asyncio
import socket

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from outlast import Bulkhead, Policy
from outlast.protect import AsyncHttpxTransport, Idempotency, Idempotent
from outlast.protect.asgi import ProtectMiddleware

paid: list[str] = []


async def pay(request: Request) -> JSONResponse:
    paid.append((await request.body()).decode())
    return JSONResponse({"payments": len(paid)})


async def think(request: Request) -> JSONResponse:
    await asyncio.sleep(float(request.query_params["seconds"]))
    return JSONResponse({"thought": True})


routes = [Route("/pay", pay, methods=["POST"]), Route("/think", think)]
app = ProtectMiddleware(Starlette(routes=routes), limit=Bulkhead(1), idempotent=Idempotent())


async def use(url: str) -> None:
    orders = Policy("orders", idempotency=Idempotency())
    transport = AsyncHttpxTransport(orders)  # tells deadline, attempt and key in headers
    async with httpx.AsyncClient(base_url=url, transport=transport) as client:
        key = {"Idempotency-Key": "order-17"}
        for _ in range(2):
            answer = await client.post("/pay", content=b"30 EUR", headers=key)
            print("pay:", answer.json(), answer.headers.get("Idempotency-Replayed", ""))
        answer = await client.post("/pay", content=b"99 EUR", headers=key)
        print("another payment under this key:", answer.status_code, answer.json()["error"])
        both = await asyncio.gather(*(client.get("/think?seconds=0.1") for _ in "ab"))
        print("two at a time:", sorted(answer.status_code for answer in both))
        told = {"Outlast-Timeout-Ms": "100"}  # as every policy with a deadline tells
        late = await client.get("/think?seconds=60", headers=told)
        print("too slow:", late.status_code, late.json()["error"])


async def main() -> None:
    paid.clear()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server.serve([listening]))
        await use(f"http://127.0.0.1:{listening.getsockname()[1]}")
        server.should_exit = True
        await serving


def test_it_runs() -> None:
    asyncio.run(main())


if __name__ == "__main__":
    asyncio.run(main())
