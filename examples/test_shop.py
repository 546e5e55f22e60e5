from contextlib import suppress

import httpx
import shop  # your asyncio program, unmodified
from outlast import sim


@sim.test(seeds=200, faults=["crash", "partition:halves", "link:slow"])
async def test_acknowledged_orders_survive(lab: sim.Lab) -> None:
    lab.host("api", shop.main)  # by hand: lab.crash, restart, pause, cut, heal
    acked: set[int] = set()
    async with httpx.AsyncClient(base_url="http://api:8080") as client:
        for n in range(100):
            with suppress(httpx.HTTPError):
                (await client.put(f"/orders/{n}")).raise_for_status()
                acked.add(n)
        await lab.heal()
        assert acked <= set((await client.get("/orders")).json())
