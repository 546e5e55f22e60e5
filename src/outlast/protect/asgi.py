"""ASGI middleware: deadlines, load shedding and idempotency for any ASGI 3 application."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from outlast.kernel import DeadlineError, OutlastError, TooLateError, current_world
from outlast.protect.aio import pace
from outlast.protect.checks import DAY, NS, check_ns
from outlast.protect.core.codec import Raised
from outlast.protect.headers import Incoming, extract, incoming
from outlast.protect.http import (
    KEPT_NO,
    Ended,
    Pair,
    Response,
    Settings,
    content_length,
    failed,
    refusal,
    replay,
    too_large,
    too_slow,
)
from outlast.protect.idempotent import Flight, Idempotent

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class ProtectMiddleware:
    """Protect an ASGI application: ``app = ProtectMiddleware(app, limit=AdaptiveLimit())``.

    What a request meets, in this order; each refusal is JSON with ``error``, ``message``,
    ``happened`` and ``may_have_happened``:

    - its own deadline (the headers that :func:`outlast.protect.headers.extract` reads): 504 if it
      has passed already; later the application is cancelled, and 504 with
      ``may_have_happened: true`` is sent if no response has begun;
    - ``rate``: 429 with ``Retry-After``;
    - ``limit``: ``shed_status`` with ``Retry-After``;
    - ``idempotent``, for POST, PUT, PATCH and DELETE with ``Idempotency-Key``: the first
      request runs, repeats get its status, headers and body and ``Idempotency-Replayed: true``;
      409 with ``Retry-After`` while it runs, 422 for another request under that key, 400 for a
      key that cannot be used, 413 for a body above ``body_max``, 408 for one that is not whole
      after ``body_timeout``.

    A response that streams (without a length, in several pieces) or is above ``body_max``
    passes through with ``Idempotency-Kept: no``: repeats are told 409 with
    ``may_have_happened: true``. An exception under a key becomes a kept 500 (see
    ``Idempotent(errors=…)``) and goes on to the server. Statuses that say that nothing was done
    (401, 403, 407, 408, 413, 425, 429, 503) free the key.

    Inside, ``current_call()`` and the deadline are those of the request. Other scopes (lifespan,
    websocket) pass through.

    Args:
        app: The application.
        limit: A ``Bulkhead`` or ``AdaptiveLimit``.
        rate: A ``RateLimit`` or ``SlidingWindow``.
        idempotent: How and where answers are kept.
        deadline_cap: The longest time that a caller may ask for, in seconds.
        shed_status: Status for load that is shed.
        body_max: Bodies up to this many bytes can be compared and kept.
        body_timeout: Seconds within which a request under a key must be whole: until then it
            holds its permit and the application has not begun.
        principal: Returns from the scope who asks, such as a user's id: keys of different users
            are then different keys. By default a key that comes again with another
            ``Authorization`` or ``Cookie`` header is refused with 422.
        priority: Returns from the scope the priority handed to ``limit``.
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
        body_timeout: float = 30.0,
        principal: Callable[[Any], str] | None = None,
        priority: Callable[[Any], int | None] | None = None,
        keep: Callable[[int], bool] | None = None,
    ) -> None:
        self.app = app
        self._body_ns = check_ns("ProtectMiddleware", "body_timeout", body_timeout, 1e-3, DAY)
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        info = extract(scope["headers"], cap=self._settings.deadline_cap)
        exchange = _Exchange(self.app, scope, receive, send)
        block = incoming(info)
        try:
            if info.timeout is not None and info.timeout <= 0:
                raise TooLateError("the caller's deadline had passed when the request came")
            with block:
                await self._admitted(exchange, info)
        except OutlastError as error:
            late = isinstance(error, DeadlineError | TooLateError)
            if exchange.started or (
                exchange.begun and not (late and (block.expired or block.passed()))
            ):
                raise
            if late and not exchange.begun:
                error = TooLateError(f"the deadline passed before the work began: {error}")
            answer = refusal(error, shed_status=self._settings.shed_status, begun=exchange.begun)
            await exchange.answer(answer)

    async def _admitted(self, exchange: "_Exchange", info: Incoming) -> None:
        """Serve the request with a slot of the rate and a permit of the limit."""
        settings = self._settings
        if settings.rate is not None:
            await pace(settings.rate)
        permit = await self._permit(exchange.scope)
        begun_ns = current_world().clock.monotonic_ns()
        ended: Ended = "cancelled"
        try:
            await self._serve(exchange, info)
            ended = "ok" if exchange.status < 500 else "failed"
        except Exception:
            ended = "failed"
            raise
        finally:
            settings.release(permit, begun_ns, ended)

    async def _permit(self, scope: Scope) -> Any:
        limit, priority = self._settings.limit, self._settings.priority
        if limit is None:
            return None
        if priority is not None:
            return await limit.acquire(priority=priority(scope))
        try:
            return limit.pop()
        except IndexError:
            return await limit.acquire(priority=None)

    async def _serve(self, exchange: "_Exchange", info: Incoming) -> None:
        """Call the application, once for each idempotency key."""
        settings, scope = self._settings, exchange.scope
        key = settings.key_of(scope["method"], info)
        if key is None or settings.idempotent is None:
            await exchange.run()
            return
        try:
            async with asyncio.timeout(self._body_ns / NS):
                body = await _read(exchange.receive, settings.body_max)
        except TimeoutError:
            body = too_slow(self._body_ns / NS)
        if body is None:
            return  # the client went away before it had asked for anything
        if isinstance(body, Response):
            await exchange.answer(body)
            return
        parts = (scope["method"], scope["path"], bytes(scope.get("query_string", b"")), body)
        row, print_ = settings.row(scope, key, parts, _credentials(scope["headers"]))
        begun = await settings.idempotent.abegin(row, print_)
        if isinstance(begun, Flight):
            await _Keeper(exchange, settings, settings.idempotent, begun, body).run()
        else:
            await exchange.answer(replay(begun))


async def policies_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with configuration and live state of all named policies, as JSON.

    To be mounted in an application, for ``outlast policies --url``. It tells names and settings:
    put it where only operators come.
    """
    if scope["type"] != "http":
        return
    from outlast.protect.overview import overview_json

    body, status = overview_json(), 200
    if scope["method"] not in {"GET", "HEAD"}:
        body, status = b'{"error": "GET is answered here"}', 405
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class _Exchange:
    """One request and its response, with what has happened so far."""

    __slots__ = ("app", "begun", "receive", "scope", "send_on", "started", "status")

    def __init__(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        self.app = app
        self.scope = scope
        self.receive = receive
        self.send_on = send
        self.begun = False
        self.started = False
        self.status = 500

    async def run(self, receive: Receive | None = None, send: Send | None = None) -> None:
        """Call the application."""
        self.begun = True
        await self.app(self.scope, receive or self.receive, send or self.send)

    async def send(self, message: Message) -> None:
        """Pass a message on to the server."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
        await self.send_on(message)

    async def answer(self, response: Response) -> None:
        """Send a whole response."""
        await self.send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": response.headers,
            }
        )
        await self.send({"type": "http.response.body", "body": response.body})


class _Keeper:
    """Runs the application under a key and keeps its response, if it is a whole one."""

    __slots__ = ("_asked", "_body", "_exchange", "_flight", "_idempotent", "_pieces", "_settings",
                 "_settled", "_size", "_start", "_through")  # fmt: skip

    def __init__(
        self,
        exchange: _Exchange,
        settings: Settings,
        idempotent: Idempotent,
        flight: Flight,
        body: bytes,
    ) -> None:
        self._exchange = exchange
        self._settings = settings
        self._idempotent = idempotent
        self._flight = flight
        self._body = body
        self._asked = False
        self._start: Message | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._settled = False
        self._through = False

    async def run(self) -> None:
        """Call the application; on return the flight is settled."""
        try:
            await self._exchange.run(self._receive, self._send)
        except Exception as error:
            await self._raised(error)
            raise
        except BaseException as error:
            await self._settle(Raised(error))
            raise
        if not self._settled:
            # Streamed, or ended without a whole response: done, but there is nothing to give.
            lost = self._idempotent.lost(self._flight)
            await self._settle(self._settings.streamed(self._exchange.status, lost))

    async def _raised(self, error: Exception) -> None:
        if self._settled:
            return
        if not self._idempotent.keeps(error):
            await self._settle(Raised(error))
        elif self._through:
            await self._settle(self._idempotent.lost(self._flight))
        else:
            response = failed()
            await self._settle(response.outcome())
            await self._exchange.answer(response)

    async def _settle(self, outcome: Any) -> None:
        if not self._settled:
            self._settled = True
            await self._idempotent.asettle(self._flight, outcome)

    async def _receive(self) -> Message:
        if self._asked:
            return await self._exchange.receive()
        self._asked = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._through:
            await self._exchange.send(message)
        elif kind == "http.response.start":
            self._start = message
        elif self._start is None:
            await self._exchange.send(message)
        elif kind == "http.response.body":
            await self._take(message, self._start)
        else:
            await self._pass_through(self._start, message)

    async def _take(self, message: Message, start: Message) -> None:
        """Hold the body back until it is whole; not where it streams or is too long."""
        piece, more = bytes(message.get("body", b"")), bool(message.get("more_body", False))
        length = content_length(start.get("headers", ()))
        self._size += len(piece)
        fits = self._size <= self._settings.body_max
        if not fits or (more and (length is None or length > self._settings.body_max)):
            await self._pass_through(start, message)
            return
        self._pieces.append(piece)
        if more:
            return
        pairs = [(bytes(name), bytes(value)) for name, value in start.get("headers", ())]
        response = Response(start["status"], pairs, b"".join(self._pieces))
        # Kept before it is sent: what the client has seen, a repeat will see.
        await self._settle(self._settings.judged(response))
        self._through = True
        await self._exchange.send(start)
        await self._exchange.send({"type": "http.response.body", "body": response.body})

    async def _pass_through(self, start: Message, message: Message) -> None:
        self._through = True
        note: Pair = (KEPT_NO[0].lower().encode(), KEPT_NO[1].encode())
        await self._exchange.send({**start, "headers": [*start.get("headers", ()), note]})
        for piece in self._pieces:
            await self._exchange.send(
                {"type": "http.response.body", "body": piece, "more_body": True}
            )
        self._pieces.clear()
        await self._exchange.send(message)


async def _read(receive: Receive, body_max: int) -> bytes | Response | None:
    """Return the whole body, or its refusal; ``None`` if the client went away."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > body_max:
            return too_large(body_max)
        if not message.get("more_body", False):
            return bytes(body)


def _credentials(headers: Iterable[Pair]) -> list[Pair]:
    wanted = {b"authorization", b"cookie"}
    return [(bytes(n).lower(), bytes(v)) for n, v in headers if bytes(n).lower() in wanted]
