"""HTTP/JSON gateway for ``curl`` and other languages, with health, status and metrics.

Any node's gateway serves any call: it is a client of its own cluster, so it finds the leader,
follows failover and repeats safely. ``Idempotency-Key`` maps to the replicated key table; a
request without it that runs out of time answers 504 with ``"may_have_happened": true``.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from typing import Any, Protocol

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.cluster.metrics import CONTENT_TYPE, Metrics
from outlast.kernel import (
    CommandError,
    CommandTypeError,
    ConfigError,
    KeyReusedError,
    OutlastError,
    RejectedError,
    TooLateError,
)
from outlast.protect import deadline
from outlast.state import MachineSpec, Reply, decode_error, idempotency_key, result_of

_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder().decode
_BODY_BYTES_MAX = 1 << 20
_TIMEOUT_MAX = 60.0
_CONSISTENCIES = ("linearizable", "stale")
_NS = 1_000_000_000


class Calls(Protocol):
    """What the gateway needs of a client."""

    async def reply(
        self, name: str, args: bytes, *, query: bool = False, stale: bool = False
    ) -> Reply:
        """Run an encoded call."""
        ...


Local = Callable[[str, bytes], Awaitable[Reply]]
"""Runs an encoded query on this node's own state, however old that is."""


class _TooLargeError(CommandTypeError):
    """The body has more bytes than one command takes."""


class _TooSlowError(CommandTypeError):
    """The body did not arrive in time."""


def _status_of(error: Exception) -> int:
    if isinstance(error, KeyReusedError):
        return 422
    if isinstance(error, CommandError):
        return 409
    if isinstance(error, _TooLargeError):
        return 413
    if isinstance(error, _TooSlowError):
        return 408
    if isinstance(error, CommandTypeError | ConfigError):
        return 400
    if isinstance(error, TooLateError):
        return 504
    if isinstance(error, RejectedError):
        return 503
    happened = getattr(error, "happened", "maybe")
    return 504 if happened == "maybe" else 503


def _json(
    value: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Encode by msgspec, which knows bytes, dates and decimals that json does not."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def _sorry(status: int, name: str, message: str, happened: str = "no", **headers: str) -> Response:
    """Answer with an error; all errors of the gateway have this shape."""
    body = {
        "error": name,
        "message": message,
        "happened": happened,
        "may_have_happened": happened != "no",
    }
    return _json(body, status, headers)


def _refusal(error: Exception) -> Response:
    happened = getattr(error, "happened", "maybe")
    name = getattr(error, "type_name", "") or type(error).__name__.lstrip("_")
    retry_after = getattr(error, "retry_after", None)
    status = _status_of(error)
    headers = {}
    if retry_after is not None or status == 503:
        headers["Retry-After"] = str(max(1, round(retry_after or 0.0)))
    return _sorry(status, name, str(error), happened, **headers)


async def _no_page(_: Request, error: Exception) -> Response:
    """Answer what no route takes: an unknown path, or another method."""
    if not isinstance(error, HTTPException):
        raise error
    return _sorry(
        error.status_code,
        "MethodNotAllowed" if error.status_code == 405 else "NotFound",
        f"{error.detail}: GET / lists the commands, queries and pages",
        **dict(error.headers or {}),
    )


def _number(request: Request, header: str, default: float) -> float:
    text = request.headers.get(header)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= _TIMEOUT_MAX:
        message = f"{header}: {text!r} is not a number of seconds from 0 to {_TIMEOUT_MAX:g}"
        raise ConfigError(message)
    return value


class Gateway:
    """The ASGI application of one node."""

    def __init__(
        self,
        spec: MachineSpec,
        calls: Callable[[], Calls],
        status: Callable[[], dict[str, Any]],
        health_routes: list[Route],
        *,
        local: Local | None = None,
        token: Callable[[str], bool] | None = None,
        timeout: float = 10.0,
    ) -> None:
        self._spec = spec
        self._calls = calls
        self._local = local
        self._status = status
        self._token = token
        self._timeout = timeout
        self._metrics = Metrics(status)
        self.app = Starlette(
            routes=[
                Route("/", self._index),
                Route("/v1/command/{name}", self._command, methods=["POST"]),
                Route("/v1/query/{name}", self._query, methods=["GET", "POST"]),
                Route("/status", self._show_status),
                Route("/metrics", self._show_metrics),
                *health_routes,
            ],
            exception_handlers={HTTPException: _no_page},
        )

    async def _index(self, _: Request) -> Response:
        return _json(
            {
                "machine": self._spec.name,
                "version": self._spec.version,
                "commands": sorted(self._spec.commands),
                "queries": sorted(self._spec.queries),
                "pages": ["/status", "/metrics", "/livez", "/readyz", "/startupz"],
            }
        )

    async def _show_status(self, request: Request) -> Response:
        return self._refused(request) or _json(self._status())

    async def _show_metrics(self, _: Request) -> Response:
        return Response(self._metrics.render(), media_type=CONTENT_TYPE)

    async def _command(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._spec.commands:
            return self._unknown("command", name, sorted(self._spec.commands))
        return await self._run(request, name, query=False)

    async def _query(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._spec.queries:
            return self._unknown("query", name, sorted(self._spec.queries))
        return await self._run(request, name, query=True)

    @staticmethod
    def _unknown(kind: str, name: str, known: list[str]) -> Response:
        near = get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
        return _sorry(404, "NotFound", f"no {kind} {name!r}; {hint}")

    def _refused(self, request: Request) -> Response | None:
        """Return the answer to a caller without a token that is needed, else ``None``."""
        if self._token is None:
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._token(given.strip()):
            return None
        message = "a token with scope client is needed: Authorization: Bearer TOKEN"
        return _sorry(401, "Unauthorized", message, **{"WWW-Authenticate": "Bearer"})

    async def _run(self, request: Request, name: str, *, query: bool) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        try:
            timeout = _number(request, "outlast-timeout", self._timeout)
            stale = query and _consistency(request) == "stale"
            args = _encoded(await self._arguments(request, timeout))
            self._spec.check_args(name, args)
            key = request.headers.get("idempotency-key")
            keyed = nullcontext() if key is None else idempotency_key(key)
            if stale and self._local is not None:
                reply = await self._local(name, args)
            else:
                with deadline(timeout), keyed:
                    reply = await self._calls().reply(name, args, query=query)
            result = result_of(reply, _DECODE, lambda raw: decode_error(raw, self._spec))
        except (OutlastError, TimeoutError) as error:
            return _refusal(error)
        body = {"result": result, "index": reply.index, "digest": reply.digest.hex()}
        if stale:
            body["age_seconds"] = round(reply.age_ns / _NS, 6)
        return _json(body)

    @staticmethod
    async def _arguments(request: Request, timeout: float) -> dict[str, Any]:
        if request.method == "GET":
            skip = {"consistency"}
            return {k: _loose(v) for k, v in request.query_params.items() if k not in skip}
        raw = bytearray()
        try:
            async with asyncio.timeout(timeout):
                async for piece in request.stream():
                    raw += piece
                    if len(raw) > _BODY_BYTES_MAX:
                        raise _TooLargeError(f"the body is larger than {_BODY_BYTES_MAX} bytes")
        except TimeoutError:
            message = f"the body did not arrive within {timeout:g} s; {len(raw)} bytes of it did"
            raise _TooSlowError(message) from None
        try:
            value = json.loads(bytes(raw) or b"{}")
        except (ValueError, RecursionError) as error:
            raise CommandTypeError(f"body is not JSON: {error}") from error
        if not isinstance(value, dict):
            message = f"body is a JSON {type(value).__name__}: send an object of arguments by name"
            raise CommandTypeError(message)
        return value


def _consistency(request: Request) -> str:
    given = request.query_params.get("consistency", _CONSISTENCIES[0])
    if given not in _CONSISTENCIES:
        message = f"consistency {given!r}: write {' or '.join(_CONSISTENCIES)}"
        raise ConfigError(message)
    return given


def _encoded(arguments: dict[str, Any]) -> bytes:
    try:
        return _ENCODE(arguments)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        message = f"the arguments cannot be sent: {error}; numbers have at most 64 bits"
        raise CommandTypeError(message) from error


def _loose(text: str) -> Any:
    """Read a query parameter: JSON if it is, the plain text otherwise."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class _QuietServer(uvicorn.Server):
    """Uvicorn without its signal handlers: the node decides when it stops."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class GatewayServer:
    """Serves the gateway on the node's own event loop; as HTTPS where the node has TLS.

    Raises:
        ConfigError: Definite. The address is in use or not ours.
    """

    def __init__(
        self, app: Starlette, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> None:
        try:
            self._socket = socket.create_server((host, port), backlog=256)
        except OSError as error:
            message = f"gateway address {host}:{port}: {error.strerror}: choose another --http"
            raise ConfigError(message) from error
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=30,
            limit_concurrency=1024,
        )
        config.load()
        config.ssl = tls
        self._server = _QuietServer(config)
        self.port: int = self._socket.getsockname()[1]

    async def serve(self) -> None:
        """Serve until :meth:`stop`."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Answer what is in flight and stop."""
        self._server.should_exit = True
