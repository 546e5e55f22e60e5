"""Health as an ASGI and a WSGI application, alone and in front of another one."""

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from outlast.detect import Health, HealthMiddleware, HealthServer, Status, health_app, health_wsgi
from outlast.kernel import ConfigError


def registry() -> Health:
    health = Health()
    health.report("db", Status.FAILED, "refused")
    health.report("cache", Status.OK, groups=("startup",))
    return health


def get(app: Any, path: str, method: str = "GET", root_path: str = "", **headers: str) -> Any:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(main())


def call(app: Any, path: str, method: str = "GET", query: str = "", **more: str) -> Any:
    told: list[Any] = []
    environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "QUERY_STRING": query, **more}
    body = b"".join(app(environ, lambda *given: told.extend(given)))
    return told[0], dict(told[1]), body


async def inner(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def test_the_application_answers_the_pages() -> None:
    app = health_app(registry())
    assert get(app, "/livez").status_code == 200
    assert get(app, "/readyz").text == "failed\n[-]db failed: refused\n"
    assert get(app, "/readyz/db").status_code == 503
    assert get(app, "/readyz?exclude=db").status_code == 200
    assert get(app, "/startupz").text == "ok\n"
    assert get(app, "/healthz", accept="application/json").json()["group"] == "health"
    assert get(app, "/readyz", "POST").status_code == 405


def test_the_application_says_which_pages_there_are() -> None:
    given = get(health_app(registry()), "/metrics")
    assert given.status_code == 404
    assert "/readyz" in given.text


def test_the_middleware_hands_on_what_is_not_its_own() -> None:
    app = HealthMiddleware(inner, registry())
    assert get(app, "/orders/7").text == "/orders/7"
    assert get(app, "/readyzz").status_code == 201
    assert get(app, "/readyz").status_code == 503


def test_the_pages_may_stand_below_a_prefix() -> None:
    app = HealthMiddleware(inner, registry(), prefix="/internal")
    assert get(app, "/internal/livez").text == "ok\n"
    assert get(app, "/livez").status_code == 201
    assert get(app, "/internal").status_code == 201


def test_the_application_can_be_mounted() -> None:
    assert get(health_app(registry()), "/mounted/livez", root_path="/mounted").status_code == 200


@pytest.mark.parametrize("prefix", ["internal", "/internal/", "/"])
def test_a_prefix_that_matches_nothing_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="a path such as"):
        health_app(registry(), prefix=prefix)


def test_the_application_takes_part_in_lifespan_and_closes_web_sockets() -> None:
    asked = iter(["lifespan.startup", "lifespan.shutdown"])
    told: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(asked, "websocket.connect")}

    async def send(message: Any) -> None:
        told.append(message["type"])

    async def main() -> None:
        app = health_app(registry())
        await app({"type": "lifespan"}, receive, send)
        await app({"type": "websocket", "path": "/readyz"}, receive, send)

    asyncio.run(main())
    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


def test_details_can_be_kept_from_strangers() -> None:
    assert get(health_app(registry(), details=False), "/readyz?verbose").text == "failed\n"


def test_wsgi_answers_the_pages() -> None:
    app = health_wsgi(registry())
    status, headers, body = call(app, "/readyz")
    assert (status, body) == ("503 Service Unavailable", b"failed\n[-]db failed: refused\n")
    assert headers["Cache-Control"] == "no-store"
    assert call(app, "/livez")[0] == "200 OK"
    assert call(app, "/readyz", query="exclude=db")[0] == "200 OK"
    assert call(app, "/readyz", "POST")[0] == "405 Method Not Allowed"
    assert call(app, "/other")[0] == "404 Not Found"
    answered = call(app, "/readyz", HTTP_ACCEPT="application/json")
    assert answered[1]["Content-Type"] == "application/json"


def test_wsgi_stands_in_front_of_an_application() -> None:
    def behind(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("201 Created", [])
        return [b"behind"]

    app = health_wsgi(registry(), behind)
    assert call(app, "/orders")[2] == b"behind"
    assert call(app, "/livez")[2] == b"ok\n"


@pytest.mark.parametrize(
    "settings",
    [
        {"connections": 0},
        {"header_bytes": 10},
        {"idle": 0.0},
        {"address": "nowhere"},
        {"address": "::1:9090"},
        {"address": "[x]:9090"},
        {"address": "a b:1"},
        {"address": "x:70000"},
        {"address": "x:"},
        {"address": "http://x:1"},
    ],
)
def test_the_server_refuses_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="HealthServer"):
        HealthServer(registry(), **settings)


def test_a_server_that_was_not_started_says_where_it_will_be() -> None:
    server = HealthServer(registry(), "[::1]:9090")
    assert (server.url, server.serving) == ("http://[::1]:9090", False)
    assert "not started" in repr(server)
    server.stop()
