"""WSGI middleware: deadlines, load shedding and idempotency for any WSGI application."""

import contextvars
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from outlast.kernel import DeadlineError, OutlastError, TooLateError, current_world
from outlast.protect.blocking import pace
from outlast.protect.core.codec import Outcome, Raised
from outlast.protect.headers import Incoming, extract, incoming
from outlast.protect.http import (
    KEPT_NO,
    Ended,
    Response,
    Settings,
    content_length,
    failed,
    refusal,
    replay,
    too_large,
)
from outlast.protect.idempotent import Flight, Idempotent

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

_PHRASES = {
    400: "Bad Request", 409: "Conflict", 413: "Content Too Large", 422: "Unprocessable Content",
    429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable",
    504: "Gateway Timeout",
}  # fmt: skip


class ProtectMiddleware:
    """Protect a WSGI application; the same as :class:`outlast.protect.asgi.ProtectMiddleware`.

    What differs: nothing interrupts a thread, so the deadline is cooperative. The calls of
    outlast inside read it and keep to it, and a ``DeadlineError`` or ``TooLateError`` that they
    raise after it has passed becomes a 504 with ``may_have_happened: true``. The lease of an
    idempotency key is not renewed: give ``Idempotent`` one longer than a request can take. A
    response is kept if it is a list or tuple, or has a ``Content-Length``; others stream.

    Args:
        app: The application.
        limit: A ``Bulkhead`` or ``AdaptiveLimit``.
        rate: A ``RateLimit`` or ``SlidingWindow``.
        idempotent: How and where answers are kept.
        deadline_cap: The longest time that a caller may ask for, in seconds.
        shed_status: Status for load that is shed.
        body_max: Bodies up to this many bytes can be compared and kept.
        principal: Returns from the environ who asks.
        priority: Returns from the environ the priority handed to ``limit``.
        keep: Whether a response with this status is kept.

    Raises:
        ConfigError: An argument is out of range.
    """

    def __init__(
        self,
        app: App,
        *,
        limit: Any = None,
        rate: Any = None,
        idempotent: Idempotent | None = None,
        deadline_cap: float = 30.0,
        shed_status: int = 503,
        body_max: int = 1 << 20,
        principal: Callable[[Any], str] | None = None,
        priority: Callable[[Any], int | None] | None = None,
        keep: Callable[[int], bool] | None = None,
    ) -> None:
        self.app = app
        self._settings = Settings(
            limit=limit,
            rate=rate,
            idempotent=idempotent,
            deadline_cap=deadline_cap,
            shed_status=shed_status,
            body_max=body_max,
            principal=principal,
            priority=priority,
            keep=keep,
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        # The body is made after this call has returned: all of it runs in one context.
        context = contextvars.copy_context()
        request = _Request(self.app, self._settings, environ, start_response, context)
        return context.run(request.serve)


class _Request:
    """One request, with what is to be given back when its response has been sent."""

    __slots__ = ("_app", "_begun", "_begun_ns", "_block", "_context", "_environ", "_permit",
                 "_permitted", "_settings", "_start_response", "_started")  # fmt: skip

    def __init__(
        self,
        app: App,
        settings: Settings,
        environ: Environ,
        start_response: StartResponse,
        context: contextvars.Context,
    ) -> None:
        self._app = app
        self._settings = settings
        self._environ = environ
        self._start_response = start_response
        self._context = context
        self._block: incoming | None = None
        self._permit: Any = None
        self._permitted = False
        self._begun_ns = 0
        self._begun = False
        self._started = 0

    def serve(self) -> Iterable[bytes]:
        """Admit the request, call the application and return the body."""
        settings = self._settings
        info = extract(_headers(self._environ), cap=settings.deadline_cap)
        block = self._block = incoming(info)
        try:
            if info.timeout is not None and info.timeout <= 0:
                raise TooLateError("the caller's deadline had passed when the request came")
            block.__enter__()
            self._admit()
            body = self._run(info)
        except OutlastError as error:
            late = isinstance(error, DeadlineError | TooLateError)
            passed = block.passed()
            self.close("failed")
            if self._started or (self._begun and not (late and passed)):
                raise
            return self._answer(
                refusal(error, shed_status=settings.shed_status, begun=self._begun)
            )
        except BaseException as error:
            self.close("failed" if isinstance(error, Exception) else "cancelled")
            raise
        return _Body(body, self, self._context)

    def close(self, ended: Ended) -> None:
        """Give the permit back and leave the block; once."""
        try:
            if self._permitted:
                self._permitted = False
                self._settings.release(self._permit, self._begun_ns, ended)
        finally:
            block, self._block = self._block, None
            if block is not None:
                block.__exit__(None, None, None)

    @property
    def ended(self) -> Ended:
        """How the application answered."""
        return "ok" if self._started < 500 else "failed"

    def _admit(self) -> None:
        settings = self._settings
        if settings.rate is not None:
            pace(settings.rate)
        self._permit = self._take()
        self._permitted = settings.limit is not None
        self._begun_ns = current_world().clock.monotonic_ns()

    def _take(self) -> Any:
        limit, priority = self._settings.limit, self._settings.priority
        if limit is None:
            return None
        if priority is not None:
            return limit.acquire_blocking(priority=priority(self._environ))
        try:
            return limit.pop()
        except IndexError:
            return limit.acquire_blocking(priority=None)

    def _run(self, info: Incoming) -> Iterable[bytes]:
        settings, environ = self._settings, self._environ
        method = str(environ.get("REQUEST_METHOD", "GET"))
        key = settings.key_of(method, info)
        if key is None or settings.idempotent is None:
            self._begun = True
            return self._app(environ, self._start)
        asked = _read(environ, settings.body_max)
        if asked is None:
            return self._answer(too_large(settings.body_max))
        path = (environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", ""))
        parts = (method, path, environ.get("QUERY_STRING", ""), asked)
        credentials = [environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_COOKIE")]
        row, print_ = settings.row(environ, key, parts, credentials)
        begun = settings.idempotent.begin(row, print_)
        if not isinstance(begun, Flight):
            return self._answer(replay(begun))
        self._begun = True
        return self._kept(settings.idempotent, begun, asked)

    def _kept(self, idempotent: Idempotent, flight: Flight, asked: bytes) -> Iterable[bytes]:
        """Call the application under its key; keep its response if it is a whole one."""
        from io import BytesIO

        held = _Held()
        body: Iterable[bytes] = ()
        outcome: Outcome | None = None
        try:
            environ = {**self._environ, "wsgi.input": BytesIO(asked)}
            environ["CONTENT_LENGTH"] = str(len(asked))
            body = self._app(environ, held.start)
            response = held.whole(body, self._settings.body_max)
            if response is not None:
                read, body = body, ()
                _close(read)
                outcome = self._settings.judged(response)
        except BaseException as error:
            try:
                _close(body)
            finally:
                kept = isinstance(error, Exception) and idempotent.keeps(error)
                idempotent.settle(flight, failed().outcome() if kept else Raised(error))
            raise
        if response is not None and outcome is not None:
            idempotent.settle(flight, outcome)
            self._start(held.status, held.headers, held.exc_info)
            return [response.body]
        lost = idempotent.lost(flight)
        return _Streamed(
            held,
            body,
            self._start,
            lambda: idempotent.settle(flight, self._settings.streamed(self._started, lost)),
        )

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self._started = int(status[:3])
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def _answer(self, response: Response) -> Iterable[bytes]:
        phrase = _PHRASES.get(response.status, "OK" if response.status < 400 else "Refused")
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in response.headers]
        self._start(f"{response.status} {phrase}", headers)
        return [response.body]


class _Body:
    """The body of a response: made in the context of its request, and closed once."""

    __slots__ = ("_body", "_context", "_failed", "_iterator", "_request")

    def __init__(
        self, body: Iterable[bytes], request: _Request, context: contextvars.Context
    ) -> None:
        self._body = body
        self._request = request
        self._context = context
        self._iterator: Iterator[bytes] | None = None
        self._failed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return self._context.run(self._next)
        except StopIteration:
            # Sent to its end; a server that forgets to close keeps no permit.
            self._context.run(self._request.close, self._request.ended)
            raise
        except BaseException:
            self._failed = True
            raise

    def _next(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._body)
        return next(self._iterator)

    def close(self) -> None:
        """Close what the application returned, and give back the permit."""
        try:
            self._context.run(_close, self._body)
        finally:
            ended: Ended = "failed" if self._failed else self._request.ended
            self._context.run(self._request.close, ended)


class _Held:
    """A response that is held back until it is known to be whole."""

    __slots__ = ("_size", "_start", "exc_info", "headers", "iterator", "pieces", "status")

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.exc_info: Any = None
        self.pieces: list[bytes] = []
        self.iterator: Iterator[bytes] = iter(())
        self._size = 0

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Take the status and headers, as ``start_response`` does."""
        self.status, self.headers, self.exc_info = status, list(headers), exc_info
        return self.pieces.append

    def whole(self, body: Iterable[bytes], body_max: int) -> Response | None:
        """Return the response, or ``None`` if it streams; what was read is in ``pieces``."""
        self.iterator = iter(body)
        listed = isinstance(body, list | tuple)
        if self.status and not listed and not self._bounded(body_max):
            return None
        for piece in self.iterator:
            self.pieces.append(piece)
            self._size += len(piece)
            # A generator tells status and headers no sooner than with its first piece.
            if self._size > body_max or not (listed or self._bounded(body_max)):
                return None
        return Response(int(self.status[:3]), self._pairs(), b"".join(self.pieces))

    def _bounded(self, body_max: int) -> bool:
        length = content_length(self._pairs())
        return length is not None and length <= body_max

    def _pairs(self) -> list[tuple[bytes, bytes]]:
        return [(n.encode("latin-1"), v.encode("latin-1")) for n, v in self.headers]


class _Streamed:
    """A response that is not kept: the flight ends with it, done but without an answer."""

    __slots__ = ("_body", "_held", "_settle", "_settled", "_start")

    def __init__(
        self,
        held: _Held,
        body: Iterable[bytes],
        start: StartResponse,
        settle: Callable[[], None],
    ) -> None:
        self._held = held
        self._body = body
        self._start: StartResponse | None = start
        self._settle = settle
        self._settled = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._start is not None:
            start, self._start = self._start, None
            start(self._held.status, [*self._held.headers, KEPT_NO], self._held.exc_info)
        if self._held.pieces:
            return self._held.pieces.pop(0)
        try:
            return next(self._held.iterator)
        except StopIteration:
            self._end()
            raise

    def close(self) -> None:
        """Close what the application returned."""
        try:
            _close(self._body)
        finally:
            self._end()

    def _end(self) -> None:
        if not self._settled:
            self._settled = True
            self._settle()


def _close(body: Any) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _headers(environ: Environ) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        if name.startswith("HTTP_") and isinstance(value, str):
            yield name[5:].replace("_", "-"), value


def _read(environ: Environ, body_max: int) -> bytes | None:
    """Return the whole body; ``None`` if it is longer than ``body_max``."""
    length = content_length(
        [(b"content-length", str(environ.get("CONTENT_LENGTH") or "").encode())]
    )
    source = environ["wsgi.input"]
    if length is None:
        # No length: a server that ends its input at the end of the body says so.
        if not environ.get("wsgi.input_terminated"):
            return b""
        body = bytes(source.read(body_max + 1))
        return body if len(body) <= body_max else None
    return bytes(source.read(length)) if length <= body_max else None
