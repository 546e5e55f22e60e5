"""The WSGI middleware in front of plain applications, through httpx and wsgiref's validator."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import httpx
import pytest

from outlast.kernel import DeadlineError, OutlastError, TooLateError, current_world
from outlast.protect.bulkhead import Bulkhead
from outlast.protect.call import current_call
from outlast.protect.idempotent import Idempotent
from outlast.protect.rate import RateLimit
from outlast.protect.store.records import MemoryRecords
from outlast.protect.wsgi import ProtectMiddleware
from outlast.testing import virtual_time

KEY = {"Idempotency-Key": "order-17"}


class Shop:
    """An application that counts what it does, behind the middleware."""

    def __init__(self, body: Callable[[], Iterable[bytes]] | None = None, **settings: Any) -> None:
        self.runs = 0
        self.status = "201 Created"
        self.extra: list[tuple[str, str]] = []
        self.body = body
        self.settings = settings

    def serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.runs += 1
        length = int(environ.get("CONTENT_LENGTH") or 0)
        read = environ["wsgi.input"].read(length) if length else b""
        headers = [("Content-Type", "text/plain"), ("X-Run", str(self.runs)), *self.extra]
        if self.body is None:
            headers.append(("Content-Length", str(4 + len(read))))
        start_response(self.status, headers)
        return [b"got ", read] if self.body is None else self.body()

    def client(self) -> httpx.Client:
        app = validator(ProtectMiddleware(validator(self.serve), **self.settings))
        transport = httpx.WSGITransport(app)
        return httpx.Client(transport=transport, base_url="http://shop")


def told(response: httpx.Response) -> tuple[int, str, bool]:
    body = response.json()
    return response.status_code, body["error"], body["may_have_happened"]


def test_a_request_without_headers_passes_as_it_is() -> None:
    with virtual_time():
        limit = Bulkhead(1)
        shop = Shop(limit=limit, rate=RateLimit(10), idempotent=Idempotent())
        with shop.client() as client:
            for run in ("1", "2"):
                answer = client.post("/", content="x")
                assert (answer.status_code, answer.text) == (201, "got x")
                assert answer.headers["X-Run"] == run
        assert limit.in_flight == 0


def test_work_that_is_already_late_is_refused_before_it_begins() -> None:
    with virtual_time():
        shop = Shop(limit=Bulkhead(1))
        with shop.client() as client:
            assert told(client.get("/", headers={"grpc-timeout": "0n"})) == (
                504, "TooLateError", False
            )  # fmt: skip
        assert shop.runs == 0


def test_the_body_is_made_with_the_callers_key_and_leaves_nothing_behind() -> None:
    def body() -> Iterator[bytes]:
        call = current_call()
        yield repr(None if call is None else call.key).encode()

    with virtual_time():
        with Shop(body).client() as client:
            assert client.get("/", headers=KEY).text == "'order-17'"
        assert current_call() is None


@pytest.mark.parametrize("error", [DeadlineError, TooLateError])
def test_running_out_of_the_callers_time_is_a_gateway_timeout_that_may_have_happened(
    error: type[OutlastError],
) -> None:
    with virtual_time() as clock:

        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            clock.advance(float(environ["QUERY_STRING"]))
            raise error("time is up")

        limit = Bulkhead(1)
        transport = httpx.WSGITransport(ProtectMiddleware(app, limit=limit))
        with httpx.Client(transport=transport, base_url="http://x") as client:
            headers = {"Outlast-Timeout-Ms": "2000"}
            late = client.get("/?2", headers=headers)
            assert told(late) == (504, error.__name__, True)
            with pytest.raises(error):
                client.get("/?1", headers=headers)
        assert limit.in_flight == 0


def test_the_permit_is_held_until_the_body_was_sent() -> None:
    limit = Bulkhead(1)
    held: list[int] = []

    def body() -> Iterator[bytes]:
        held.append(limit.in_flight)
        yield b"x"
        held.append(limit.in_flight)

    with virtual_time():
        shop = Shop(body, limit=limit, priority=lambda environ: None)
        with shop.client() as client:
            assert client.get("/").text == "x"
        assert (held, limit.in_flight) == ([1, 1], 0)
        app = ProtectMiddleware(shop.serve, limit=limit)
        pieces = iter(app({"wsgi.input": None}, lambda *_: None))
        assert limit.in_flight == 1
        assert list(pieces) == [b"x"]
        assert limit.in_flight == 0


def test_load_above_the_limit_is_shed_and_above_the_rate_is_too_many() -> None:
    with virtual_time():
        limit = Bulkhead(1)
        permit = limit.try_acquire()
        assert permit is not None
        with Shop(limit=limit).client() as client:
            assert told(client.get("/")) == (503, "BulkheadFullError", False)
            limit.release(permit)
            assert client.get("/").status_code == 201
        with Shop(rate=RateLimit(1, per=10, burst=1)).client() as client:
            client.get("/")
            refused = client.get("/")
            assert told(refused) == (429, "RateLimitedError", False)
            assert int(refused.headers["Retry-After"]) >= 1


def test_a_repeat_gets_the_first_answer_and_a_header_that_says_so() -> None:
    with virtual_time():
        shop = Shop(idempotent=Idempotent())
        with shop.client() as client:
            first = client.post("/", content="x", headers=KEY)
            again = client.post("/", content="x", headers=KEY)
            assert (again.status_code, again.content) == (201, b"got x")
            assert again.headers.pop("Idempotency-Replayed") == "true"
            assert again.headers == first.headers
            assert told(client.post("/", content="y", headers=KEY))[:2] == (422, "KeyReusedError")
            eve = {**KEY, "Authorization": "Bearer eve"}
            assert client.post("/", content="x", headers=eve).status_code == 422
            assert client.get("/", headers=KEY).status_code == 201
        assert shop.runs == 2


def test_a_repeat_while_the_first_runs_is_a_conflict() -> None:
    with virtual_time():
        inside: list[httpx.Response] = []

        def body() -> Iterable[bytes]:
            if not inside:
                with shop.client() as other:
                    inside.append(other.post("/", headers=KEY))
            return [b"x"]

        shop = Shop(body, idempotent=Idempotent())
        with shop.client() as client:
            assert client.post("/", headers=KEY).text == "x"
        assert told(inside[0]) == (409, "InFlightError", False)


@pytest.mark.parametrize("late_start", [False, True])
def test_a_stream_passes_through_and_its_repeat_is_told_that_it_was_done(late_start: bool) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"a"
        yield b"b"

    def streaming(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"a", b"b"])

    with virtual_time():
        store = MemoryRecords()
        chosen = app if late_start else streaming
        protected = ProtectMiddleware(chosen, idempotent=Idempotent(store))
        transport = httpx.WSGITransport(validator(protected))
        with httpx.Client(transport=transport, base_url="http://x") as client:
            first = client.post("/", headers=KEY)
            assert first.text == "ab"
            assert first.headers["Idempotency-Kept"] == "no"
            assert told(client.post("/", headers=KEY)) == (409, "ReplyLostError", True)
        assert store.snapshot()["in_flight"] == 0


def test_a_generator_that_announces_its_length_is_kept() -> None:
    with virtual_time():
        shop = Shop(lambda: iter([b"ab", b"c"]), idempotent=Idempotent(), body_max=10)
        shop.extra = [("Content-Length", "3")]
        with shop.client() as client:
            assert [client.post("/", headers=KEY).text for _ in range(2)] == ["abc", "abc"]
        assert shop.runs == 1


def test_bodies_above_the_bound_are_refused_or_not_kept() -> None:
    with virtual_time():
        shop = Shop(lambda: [b"x" * 8, b"y" * 8], idempotent=Idempotent(), body_max=10)
        with shop.client() as client:
            assert told(client.post("/", content="x" * 11, headers=KEY)) == (
                413,
                "TooLarge",
                False,
            )
            first = client.post("/", headers=KEY)
            assert (first.text, first.headers["Idempotency-Kept"]) == ("x" * 8 + "y" * 8, "no")


def test_an_exception_under_a_key_is_kept_as_an_answer() -> None:
    with virtual_time():
        runs: list[int] = []

        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            runs.append(1)
            raise ValueError("bug")

        transport = httpx.WSGITransport(ProtectMiddleware(app, idempotent=Idempotent()))
        with httpx.Client(transport=transport, base_url="http://x") as client:
            with pytest.raises(ValueError, match="bug"):
                client.post("/", headers=KEY)
            assert told(client.post("/", headers=KEY)) == (500, "InternalServerError", True)
        assert len(runs) == 1


@pytest.mark.parametrize("body", [None, lambda: iter([b"busy"])])
def test_a_status_that_says_that_nothing_was_done_frees_the_key(body: Any) -> None:
    with virtual_time():
        shop = Shop(body, idempotent=Idempotent())
        shop.status = "503 Service Unavailable"
        with shop.client() as client:
            client.post("/", headers=KEY)
            shop.status = "201 Created"
            assert client.post("/", headers=KEY).status_code == 201
        assert shop.runs == 2


def test_work_that_gave_up_at_the_callers_deadline_frees_the_key() -> None:
    with virtual_time() as clock:

        def body() -> Iterable[bytes]:
            if shop.runs == 1:
                clock.advance(3)
                raise DeadlineError("time is up")
            return [b"x"]

        shop = Shop(body, idempotent=Idempotent())
        shop.extra = [("Content-Length", "1")]
        with shop.client() as client:
            headers = {**KEY, "Outlast-Timeout-Ms": "2000"}
            assert told(client.post("/", headers=headers)) == (504, "DeadlineError", True)
            assert client.post("/", headers=headers).text == "x"
        assert current_world().clock.monotonic_ns() >= 3_000_000_000


def test_a_body_without_a_length_is_read_where_the_server_ends_it() -> None:
    from io import BytesIO

    with virtual_time():
        protected = ProtectMiddleware(Shop().serve, idempotent=Idempotent())
        statuses: list[str] = []

        def post(body: bytes) -> bytes:
            environ = {
                "REQUEST_METHOD": "POST", "HTTP_IDEMPOTENCY_KEY": "k",
                "wsgi.input": BytesIO(body), "wsgi.input_terminated": True,
            }  # fmt: skip
            return b"".join(protected(environ, lambda status, _: statuses.append(status)))

        assert post(b"x") == b"got x"
        assert post(b"x") == b"got x"
        post(b"y")
        assert [status[:3] for status in statuses] == ["201", "201", "422"]
