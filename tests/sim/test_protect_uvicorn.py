"""The middleware between a real uvicorn and a real Starlette application, in the simulator."""

import asyncio

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from outlast import sim
from outlast.kernel import current_deadline
from outlast.protect.asgi import ProtectMiddleware
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.deadline import deadline
from outlast.protect.headers import inject
from outlast.protect.idempotent import Idempotent

RUNS: list[str] = []


async def pay(request: Request) -> Response:
    RUNS.append(request.headers["Idempotency-Key"])
    await asyncio.sleep(float(request.query_params.get("takes", "0")))
    return JSONResponse({"run": len(RUNS), "bounded": current_deadline.get() is not None})


async def serve() -> None:
    shop = Starlette(routes=[Route("/pay", pay, methods=["POST"])])
    app = ProtectMiddleware(shop, limit=Bulkhead(2), idempotent=Idempotent())  # type: ignore[arg-type]
    config = uvicorn.Config(app, host="0.0.0.0", port=8080, log_config=None)  # type: ignore[arg-type]
    await uvicorn.Server(config).serve()


def test_a_payment_is_made_once_and_a_late_one_is_told_apart_over_real_servers() -> None:
    async def main(lab: sim.Lab) -> None:
        RUNS.clear()
        lab.host("shop", serve)
        await lab.sleep(0.5)
        async with httpx.AsyncClient(base_url="http://shop:8080", timeout=30) as client:
            headers = {"Idempotency-Key": "order-17"}
            with deadline(5.0):
                inject(headers)
            first = await client.post("/pay", headers=headers)
            again = await client.post("/pay", headers=headers)
            assert first.json() == {"run": 1, "bounded": True}
            assert (again.json(), again.headers["Idempotency-Replayed"]) == (first.json(), "true")
            assert again.headers["Content-Length"] == first.headers["Content-Length"]

            slow = {"Idempotency-Key": "order-18", "Outlast-Timeout-Ms": "1000"}
            late = await client.post("/pay?takes=60", headers=slow)
            assert (late.status_code, late.json()["may_have_happened"]) == (504, True)

            other = await client.post("/pay?takes=1", headers=headers)
            assert other.status_code == 422
        assert RUNS == ["order-17", "order-18"]

    sim.run(main)
