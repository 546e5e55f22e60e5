"""The ASGI middleware in front of Starlette, through httpx, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from outlast import sim
from outlast.kernel import ConfigError, DeadlineError, UnavailableError
from outlast.protect.asgi import ProtectMiddleware, policies_app
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.call import current_attempt, current_call
from outlast.protect.deadline import deadline
from outlast.protect.idempotent import Idempotent
from outlast.protect.policy import Policy
from outlast.protect.rate import RateLimit
from outlast.protect.store.records import MemoryRecords

Endpoint = Callable[[Request], Awaitable[Response]]
KEY = {"Idempotency-Key": "order-17"}


class Shop:
    """An application that counts what it does, behind the middleware."""

    def __init__(self, endpoint: Endpoint | None = None, **settings: Any) -> None:
        self.runs = 0
        self.endpoint = endpoint
        methods = ["GET", "POST"]
        self.inner = Starlette(routes=[Route("/{rest:path}", self.serve, methods=methods)])
        self.app = ProtectMiddleware(self.inner, **settings)  # type: ignore[arg-type]

    async def serve(self, request: Request) -> Response:
        self.runs += 1
        if self.endpoint is not None:
            return await self.endpoint(request)
        body = await request.body()
        headers = {"X-Run": str(self.runs)}
        return JSONResponse({"run": self.runs, "got": body.decode()}, 201, headers)

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url="http://shop")


def told(response: httpx.Response) -> tuple[int, str, bool]:
    body = response.json()
    return response.status_code, body["error"], body["may_have_happened"]


def simulated(main: Callable[[], Any]) -> None:
    sim.run(main)


def test_a_request_without_headers_passes_as_it_is() -> None:
    async def main() -> None:
        shop = Shop(limit=Bulkhead(1), rate=RateLimit(10), idempotent=Idempotent())
        async with shop.client() as client:
            answer = await client.post("/", content="x")
            assert (answer.status_code, answer.json()) == (201, {"run": 1, "got": "x"})
            assert (await client.post("/", content="x")).json()["run"] == 2
        assert shop.app._settings.limit.in_flight == 0

    simulated(main)


def test_a_client_that_stops_in_the_middle_of_a_body_gives_its_permit_up_in_time() -> None:
    """Without a deadline of its own it would keep the permit for ever."""

    async def dribble() -> AsyncIterator[bytes]:
        yield b"half of "
        await asyncio.sleep(3600)
        yield b"it"

    async def main() -> None:
        limit = Bulkhead(1, queue=1, max_wait=10)
        shop = Shop(limit=limit, idempotent=Idempotent(), body_timeout=5)
        async with shop.client() as client:
            slow = asyncio.ensure_future(client.post("/", content=dribble(), headers=KEY))
            await asyncio.sleep(1)
            quick = await client.post("/", content="x", headers={"Idempotency-Key": "b"})
            assert quick.status_code == 201
            assert told(await slow) == (408, "TooSlow", False)
            again = await client.post("/", content="whole", headers=KEY)
            assert (again.status_code, again.json()["got"]) == (201, "whole")
        assert limit.in_flight == 0
        assert shop.runs == 2

    simulated(main)


def test_work_that_is_already_late_is_refused_before_it_begins() -> None:
    async def main() -> None:
        shop = Shop()
        async with shop.client() as client:
            answer = await client.post("/", headers={"grpc-timeout": "0n"})
        assert told(answer) == (504, "TooLateError", False)
        assert shop.runs == 0

    simulated(main)


def test_the_handler_sees_the_callers_time_attempt_and_key() -> None:
    async def see(request: Request) -> Response:
        call = current_call()
        assert call is not None
        return JSONResponse([call.key, current_attempt()])

    async def main() -> None:
        async with Shop(see).client() as client:
            answer = await client.get("/", headers={**KEY, "Outlast-Attempt": "2"})
        assert answer.json() == ["order-17", 2]

    simulated(main)


def test_a_handler_is_cancelled_at_the_callers_deadline() -> None:
    cancelled: list[float] = []

    async def slow(request: Request) -> Response:
        begun = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(asyncio.get_running_loop().time() - begun)
            raise
        return Response()

    async def main() -> None:
        limit = Bulkhead(1)
        async with Shop(slow, limit=limit).client() as client:
            answer = await client.get("/", headers={"Outlast-Timeout-Ms": "1500"})
        assert told(answer) == (504, "DeadlineError", True)
        assert cancelled == [pytest.approx(1.5)]
        assert limit.in_flight == 0

    simulated(main)


def test_a_deadline_that_the_handler_set_itself_is_the_handlers_own_failure() -> None:
    async def impatient(request: Request) -> Response:
        with deadline(1.0):
            await asyncio.sleep(60)
        return Response()

    async def main() -> None:
        async with Shop(impatient).client() as client:
            answer = await client.get("/", headers={"Outlast-Timeout-Ms": "20000"})
        assert answer.status_code == 500

    simulated(main)


def test_the_cap_bounds_what_a_caller_may_ask_for() -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(60)
        return Response()

    async def main() -> None:
        async with Shop(slow, deadline_cap=2.0).client() as client:
            begun = asyncio.get_running_loop().time()
            answer = await client.get("/", headers={"grpc-timeout": "9H"})
            assert asyncio.get_running_loop().time() - begun == pytest.approx(2.0, abs=0.1)
        assert answer.status_code == 504

    simulated(main)


def test_load_above_the_limit_is_shed_and_above_the_rate_is_too_many() -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(5)
        return Response()

    async def main() -> None:
        shop = Shop(slow, limit=Bulkhead(1), shed_status=529)
        async with shop.client() as client:
            first = asyncio.ensure_future(client.get("/"))
            await asyncio.sleep(1)
            shed = await client.get("/")
            assert told(shed) == (529, "BulkheadFullError", False)
            assert int(shed.headers["Retry-After"]) >= 1
            assert (await first).status_code == 200
            assert (await client.get("/")).status_code == 200
        paced = Shop(rate=RateLimit(1, per=10, burst=1))
        async with paced.client() as client:
            assert (await client.get("/")).status_code == 201
            refused = await client.get("/")
            assert told(refused) == (429, "RateLimitedError", False)
            assert 1 <= int(refused.headers["Retry-After"]) <= 10

    simulated(main)


def test_time_that_runs_out_in_the_queue_says_that_nothing_happened() -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(5)
        return Response()

    async def main() -> None:
        shop = Shop(slow, limit=Bulkhead(1, queue=5, max_wait=60), priority=lambda scope: None)
        async with shop.client() as client:
            first = asyncio.ensure_future(client.get("/"))
            await asyncio.sleep(1)
            late = await client.get("/", headers={"Outlast-Timeout-Ms": "1000"})
            assert told(late) == (504, "TooLateError", False)
            await first
        assert shop.runs == 1

    simulated(main)


def test_a_repeat_gets_the_first_answer_and_a_header_that_says_so() -> None:
    async def main() -> None:
        shop = Shop(idempotent=Idempotent())
        async with shop.client() as client:
            first = await client.post("/", content="x", headers=KEY)
            again = await client.post("/", content="x", headers={"Idempotency-Key": '"order-17"'})
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["X-Run"] == "1"
        assert again.headers.pop("Idempotency-Replayed") == "true"
        assert again.headers == first.headers
        assert shop.runs == 1

    simulated(main)


def test_a_safe_method_is_not_kept() -> None:
    async def main() -> None:
        shop = Shop(idempotent=Idempotent())
        async with shop.client() as client:
            await client.get("/", headers=KEY)
            await client.get("/", headers=KEY)
        assert shop.runs == 2

    simulated(main)


def test_a_repeat_while_the_first_runs_is_a_conflict() -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(5)
        return Response("done")

    async def main() -> None:
        shop = Shop(slow, idempotent=Idempotent(lease=6))
        async with shop.client() as client:
            first = asyncio.ensure_future(client.post("/", headers=KEY))
            await asyncio.sleep(1)
            conflict = await client.post("/", headers=KEY)
            assert told(conflict) == (409, "InFlightError", False)
            assert 4 <= int(conflict.headers["Retry-After"]) <= 6
            assert (await first).text == "done"
        assert shop.runs == 1

    simulated(main)


@pytest.mark.parametrize(
    ("path", "content", "headers"),
    [
        ("/", "y", {}),
        ("/other", "x", {}),
        ("/?a=1", "x", {}),
        ("/", "x", {"Authorization": "Bearer eve"}),
        ("/", "x", {"Cookie": "user=eve"}),
    ],
)
def test_another_request_or_another_user_under_a_key_is_refused(
    path: str, content: str, headers: dict[str, str]
) -> None:
    async def main() -> None:
        shop = Shop(idempotent=Idempotent())
        async with shop.client() as client:
            await client.post("/", content="x", headers=KEY)
            other = await client.post(path, content=content, headers={**KEY, **headers})
        assert told(other) == (422, "KeyReusedError", False)
        assert shop.runs == 1

    simulated(main)


def test_with_a_principal_users_have_keys_of_their_own() -> None:
    def user(scope: Any) -> str:
        return dict(scope["headers"])[b"x-user"].decode()

    async def main() -> None:
        shop = Shop(idempotent=Idempotent(), principal=user)
        async with shop.client() as client:
            for name, token in [("ann", "1"), ("bob", "1"), ("ann", "2")]:
                headers = {**KEY, "X-User": name, "Authorization": token}
                assert (await client.post("/", headers=headers)).status_code == 201
        assert shop.runs == 2

    simulated(main)


@pytest.mark.parametrize("key", ["a b", "", "x" * 256])
def test_a_key_that_cannot_be_used_is_a_bad_request(key: str) -> None:
    async def main() -> None:
        shop = Shop(idempotent=Idempotent())
        async with shop.client() as client:
            bad = await client.post("/", headers={"Idempotency-Key": key})
        assert told(bad) == (400, "ConfigError", False)
        assert shop.runs == 0

    simulated(main)


def test_a_missing_key_is_a_bad_request_where_one_is_required() -> None:
    async def main() -> None:
        shop = Shop(idempotent=Idempotent(require=True))
        async with shop.client() as client:
            assert (await client.post("/")).status_code == 400
            assert (await client.get("/")).status_code == 201

    simulated(main)


def test_a_body_too_long_to_compare_is_refused() -> None:
    async def main() -> None:
        shop = Shop(idempotent=Idempotent(), body_max=10)
        async with shop.client() as client:
            long = await client.post("/", content="x" * 11, headers=KEY)
            assert told(long) == (413, "TooLarge", False)
            assert (await client.post("/", content="x" * 11)).status_code == 201

    simulated(main)


@pytest.mark.parametrize("size", [3, 2000])
def test_a_stream_passes_through_and_its_repeat_is_told_that_it_was_done(size: int) -> None:
    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(size):
                yield b"x"

        return StreamingResponse(pieces())

    async def main() -> None:
        shop = Shop(stream, idempotent=Idempotent(), body_max=1000)
        async with shop.client() as client:
            first = await client.post("/", headers=KEY)
            assert first.text == "x" * size
            assert first.headers["Idempotency-Kept"] == "no"
            assert told(await client.post("/", headers=KEY)) == (409, "ReplyLostError", True)
        assert shop.runs == 1

    simulated(main)


def test_pieces_with_an_announced_length_are_kept_and_too_long_ones_are_not() -> None:
    async def main() -> None:
        for length, kept in ((6, True), (60, False)):
            body = b"x" * length

            async def pieced(request: Request, body: bytes = body) -> Response:
                async def pieces() -> AsyncIterator[bytes]:
                    yield body[:3]
                    yield body[3:]

                return StreamingResponse(pieces(), headers={"Content-Length": str(len(body))})

            shop = Shop(pieced, idempotent=Idempotent(), body_max=10)
            async with shop.client() as client:
                first = await client.post("/", headers=KEY)
                again = await client.post("/", headers=KEY)
            assert first.content == body
            assert ("Idempotency-Kept" not in first.headers) is kept
            assert (again.status_code == 200) is kept
            assert shop.runs == 1

    simulated(main)


def test_an_answer_longer_than_it_may_be_passes_through_whole() -> None:
    async def long(request: Request) -> Response:
        return Response("x" * 100)

    async def main() -> None:
        shop = Shop(long, idempotent=Idempotent(), body_max=10)
        async with shop.client() as client:
            first = await client.post("/", headers=KEY)
        assert (first.text, first.headers["Idempotency-Kept"]) == ("x" * 100, "no")

    simulated(main)


@pytest.mark.parametrize(("status", "runs"), [(503, 2), (429, 2), (401, 2), (500, 1), (404, 1)])
def test_statuses_that_say_that_nothing_was_done_free_the_key(status: int, runs: int) -> None:
    async def answer(request: Request) -> Response:
        return Response("no", status)

    async def main() -> None:
        shop = Shop(answer, idempotent=Idempotent())
        async with shop.client() as client:
            for _ in range(2):
                assert (await client.post("/", headers=KEY)).status_code == status
        assert shop.runs == runs

    simulated(main)


def test_an_exception_under_a_key_becomes_an_answer_that_is_kept() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        runs.append(1)
        raise ValueError("bug")

    runs: list[int] = []

    async def main() -> None:
        protected = ProtectMiddleware(app, idempotent=Idempotent())
        transport = httpx.ASGITransport(protected, raise_app_exceptions=False)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            first = await client.post("/", headers=KEY)
            again = await client.post("/", headers=KEY)
        assert told(first) == told(again) == (500, "InternalServerError", True)
        assert len(runs) == 1

    simulated(main)


def test_an_exception_that_surely_did_nothing_frees_the_key() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        runs.append(1)
        raise UnavailableError("no replica")

    runs: list[int] = []

    async def main() -> None:
        protected = ProtectMiddleware(app, idempotent=Idempotent())
        transport = httpx.ASGITransport(protected)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            for _ in range(2):
                with pytest.raises(UnavailableError):
                    await client.post("/", headers=KEY)
        assert len(runs) == 2

    simulated(main)


def test_a_handler_cut_off_at_the_deadline_frees_its_key() -> None:
    async def slow(request: Request) -> Response:
        if shop.runs == 1:
            await asyncio.sleep(60)
        return Response("done")

    shop = Shop(slow, idempotent=Idempotent())

    async def main() -> None:
        async with shop.client() as client:
            headers = {**KEY, "Outlast-Timeout-Ms": "1000"}
            assert told(await client.post("/", headers=headers)) == (504, "DeadlineError", True)
            assert (await client.post("/", headers=headers)).text == "done"

    simulated(main)


def test_an_exception_in_the_middle_of_a_stream_goes_to_the_server() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise DeadlineError("late")

    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def main() -> None:
        protected = ProtectMiddleware(app, idempotent=Idempotent())
        headers = [(b"idempotency-key", b"k")]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        with pytest.raises(DeadlineError):
            await protected(scope, receive, send)
        assert sent == ["http.response.start", "http.response.body"]

    simulated(main)


def test_a_client_that_leaves_before_its_body_is_there_begins_nothing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError

    async def main() -> None:
        store = MemoryRecords()
        protected = ProtectMiddleware(app, idempotent=Idempotent(store))
        headers = [(b"idempotency-key", b"k")]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        await protected(scope, receive, send)
        assert store.snapshot()["in_flight"] == 0

    simulated(main)


def test_other_scopes_pass_through_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], receive, send))

    async def receive() -> Any: ...

    async def send(message: Any) -> None: ...

    async def main() -> None:
        protected = ProtectMiddleware(app, limit=Bulkhead(1))
        for kind in ("lifespan", "websocket"):
            await protected({"type": kind}, receive, send)

    simulated(main)
    assert seen == [("lifespan", receive, send), ("websocket", receive, send)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deadline_cap": 0}, "deadline_cap is 0"),
        ({"shed_status": 200}, "shed_status is 200"),
        ({"body_max": -1}, "body_max is -1"),
        ({"body_timeout": 0}, "body_timeout is 0"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Shop(**settings)


def test_a_stream_whose_status_says_that_nothing_was_done_frees_the_key() -> None:
    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"busy"

        return StreamingResponse(pieces(), 503)

    async def main() -> None:
        shop = Shop(stream, idempotent=Idempotent())
        async with shop.client() as client:
            for _ in range(2):
                assert (await client.post("/", headers=KEY)).status_code == 503
        assert shop.runs == 2

    simulated(main)


async def post(app: Any, key: bytes = b"k") -> list[Any]:
    """Send one bare request with a key, and return the messages of the answer."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"idempotency-key", key)]
    await app({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send)
    return sent


def test_a_file_sent_by_the_server_itself_passes_through_and_is_not_kept() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/x"})
        assert (await receive())["body"] == b""
        assert (await receive())["body"] == b""  # the second one is the server's own

    async def main() -> None:
        protected = ProtectMiddleware(app, idempotent=Idempotent())
        sent = await post(protected)
        kinds = [message["type"].removeprefix("http.response.") for message in sent]
        assert kinds == ["early_hint", "start", "pathsend"]
        assert sent[1]["headers"] == [(b"idempotency-kept", b"no")]
        assert (await post(protected))[0]["status"] == 409

    simulated(main)


def test_an_application_that_answers_nothing_was_done_all_the_same() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        runs.append(1)

    runs: list[int] = []

    async def main() -> None:
        protected = ProtectMiddleware(app, idempotent=Idempotent())
        assert await post(protected) == []
        assert (await post(protected))[0]["status"] == 409
        assert runs == [1]

    simulated(main)


def test_an_exception_after_the_answer_does_not_change_what_is_kept() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        raise ValueError("in the background")

    async def main() -> None:
        protected = ProtectMiddleware(app, idempotent=Idempotent())
        with pytest.raises(ValueError, match="background"):
            await post(protected)
        assert [message.get("body") for message in await post(protected)] == [None, b"done"]

    simulated(main)


def test_what_is_kept_and_is_no_response_is_told_as_an_answer_that_was_lost() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    async def main() -> None:
        idempotent = Idempotent()
        protected = ProtectMiddleware(app, idempotent=idempotent)
        row, print_ = protected._settings.row(None, "k", ("POST", "/", b"", b""), [])
        idempotent.run(row, print_, lambda: "not a response")
        assert (await post(protected))[0]["status"] == 409

    simulated(main)


def test_an_application_shows_its_policies_to_operators() -> None:
    async def ask(method: str) -> httpx.Response:
        transport = httpx.ASGITransport(policies_app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.request(method, "/policies")

    async def main() -> tuple[httpx.Response, httpx.Response]:
        return await ask("GET"), await ask("POST")

    shown = Policy("shown-to-operators", timeout=3.0)
    answer, refused = asyncio.run(main())
    assert answer.json()["schema"] == 1
    assert shown.name in {row["name"] for row in answer.json()["policies"]}
    assert refused.status_code == 405
