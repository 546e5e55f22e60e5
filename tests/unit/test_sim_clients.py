"""Clients and servers of others, unmodified, on the simulated network."""

import asyncio
from typing import Any

import aiohttp
import httpx
import pytest
import redis.asyncio
from aiohttp import web

from tests.support.simnet import both, current, network, now, simulate, start


async def serve_http() -> None:
    """Program of a host: an aiohttp server on port 80 that says who asked."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"from": request.remote, "body": await request.text()})

    app = web.Application()
    app.router.add_route("*", "/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 80).start()
    await asyncio.Event().wait()


async def serve_redis() -> None:
    """Program of a host: as much of a Redis server as SET and GET need."""
    stored: dict[bytes, bytes] = {}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                if words[0] == b"SET":
                    stored[words[1]] = words[2]
                if words[0] == b"GET":
                    value = stored.get(words[1])
                    answer = (
                        b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
                    )
                else:
                    answer = b"-ERR unknown\r\n" if words[0] == b"HELLO" else b"+OK\r\n"
                writer.write(answer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, None, 6379)
    await server.serve_forever()


def test_aiohttp_asks_again_after_a_cut_and_a_crash() -> None:
    async def main() -> int:
        api = start("api", serve_http)
        await asyncio.sleep(1)
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=timeout) as session:

            async def ask(body: str) -> Any:
                async with session.post("http://api/", data=body) as response:
                    return await response.json()

            assert await ask("one") == {"from": "10.0.0.1", "body": "one"}
            assert await ask("two") == {"from": "10.0.0.1", "body": "two"}
            assert network().endpoints["test"].next_port == 32_769  # one connection for both
            both("test", "api", cut=True)
            with pytest.raises(TimeoutError):
                await ask("three")
            network().clear()
            assert (await ask("four"))["body"] == "four"
            current().end_life(api)
            with pytest.raises(aiohttp.ClientError):
                await ask("five")
            start("api", serve_http)
            await asyncio.sleep(1)
            assert (await ask("six"))["body"] == "six"
        return current().digest

    assert simulate(main) == simulate(main)


def test_httpx_uses_an_idle_connection_again_unless_the_server_has_closed_it() -> None:
    async def main() -> None:
        api = start("api", serve_http)
        await asyncio.sleep(1)
        async with httpx.AsyncClient(limits=httpx.Limits(keepalive_expiry=3600)) as client:
            for body in ("one", "two"):
                assert (await client.post("http://api/", content=body)).json()["body"] == body
            assert network().endpoints["test"].next_port == 32_769
            await asyncio.sleep(2000)  # aiohttp keeps a connection for an hour
            await client.post("http://api/", content="three")
            assert network().endpoints["test"].next_port == 32_769
            current().end_life(api)
            start("api", serve_http)
            await asyncio.sleep(1)
            assert (await client.post("http://api/", content="four")).status_code == 200
            assert network().endpoints["test"].next_port == 32_770
        assert now() > 2000

    simulate(main)


def test_redis_reconnects_after_a_reset() -> None:
    async def main() -> None:
        start("cache", serve_redis)
        await asyncio.sleep(1)
        async with redis.asyncio.Redis(host="cache", protocol=2) as client:
            await client.set("key", "value")
            assert await client.get("key") == b"value"
            network().way("test", "cache").reset = True
            await asyncio.sleep(0.1)
            network().clear()
            assert await client.get("key") == b"value"

    simulate(main)
