"""Counting the requests of an ASGI or WSGI application for a :class:`outlast.detect.Drain`."""

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from outlast.detect.core.health_text import PAGES
from outlast.detect.health_pages import AsgiApp, Environ, Receive, Scope, Send, WsgiApp

if TYPE_CHECKING:
    from outlast.detect.draining import Drain

_BODY: Final = b"going to stop\n"
_REFUSAL: Final = (
    ("content-type", "text/plain; charset=utf-8"),
    ("content-length", str(len(_BODY))),
    ("retry-after", "1"),
    ("connection", "close"),
)


class DrainApp:
    """An ASGI application with its HTTP requests counted as work of a drain.

    Once the drain has begun, responses over HTTP/1 carry ``Connection: close``, so that clients
    which keep connections come back elsewhere; when no more work is taken, requests are answered
    503 with ``Retry-After`` and never reach the application. The health pages are neither counted
    nor refused. Web sockets are not counted, since they may last for ever: end them on
    ``drain.phase``.

    Args:
        app: The application.
        drain: Whose work its requests are.
        passing: First parts of paths that are handed on whatever the phase.
    """

    def __init__(self, app: AsgiApp, drain: "Drain", passing: Iterable[str] = PAGES) -> None:
        self.app = app
        self._drain = drain
        self._passing = frozenset(passing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http" or _first(scope["path"]) in self._passing:
            await self.app(scope, receive, send)
            return
        drain = self._drain
        closes = scope.get("http_version", "1.1").startswith("1")
        if not drain.try_enter():
            headers = [
                (k.encode(), v.encode()) for k, v in _REFUSAL if closes or k != "connection"
            ]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": _BODY})
            return

        async def parting(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and drain.phase != "serving":
                headers = [(k, v) for k, v in message.get("headers", ()) if k != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
            await send(message)

        try:
            await self.app(scope, receive, parting if closes else send)
        finally:
            drain.leave()


def drain_wsgi(app: WsgiApp, drain: "Drain", passing: Iterable[str] = PAGES) -> WsgiApp:
    """Return a WSGI application with its requests counted; as :class:`DrainApp`.

    A request is over when its body was sent. ``Connection: close`` is the server's business
    there, and no header that an application may set (PEP 3333).
    """
    passed = frozenset(passing)

    def serve(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if _first(environ.get("PATH_INFO", "")) in passed:
            return app(environ, start_response)
        if not drain.try_enter():
            headers = [(k.title(), v) for k, v in _REFUSAL if k != "connection"]
            start_response("503 Service Unavailable", headers)
            return [_BODY]
        try:
            return _Counted(app(environ, start_response), drain)
        except BaseException:
            drain.leave()
            raise

    return serve


class _Counted:
    """The body of a response that counts until it is closed."""

    def __init__(self, body: Iterable[bytes], drain: "Drain") -> None:
        self._body, self._drain = body, drain
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            if self._open:
                self._open = False
                self._drain.leave()


def _first(path: str) -> str:
    at = path.find("/", 1)
    return path if at < 0 else path[:at]
