"""Health as an ASGI or WSGI application: no framework, nothing to install.

A probe reads the snapshot that the last runs left: it runs no check, starts no thread and waits
for nothing. Served by the application's own loop it still stops answering when that loop is
blocked; :class:`outlast.detect.HealthServer` answers from a thread of its own.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from outlast.detect.core.health_text import NO_PAGE, PAGES, Answer, Asked, answer
from outlast.detect.health import Health
from outlast.kernel import ConfigError, World, current_world

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_PHRASES: Final = {
    200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable",
}  # fmt: skip


class HealthMiddleware:
    """The health pages in front of an ASGI application; all other paths are handed on to it.

    Pages, by path: ``/livez``, ``/readyz``, ``/startupz``, ``/healthz`` (passes when all three
    do), and ``/readyz/NAME`` for one check. 200 when passing, 503 when not, 405 for anything but
    GET and HEAD. ``?verbose`` lists the checks, ``?exclude=NAME`` leaves one out of the verdict
    (again and again for several). ``Accept: application/json`` and ``application/health+json``
    (draft-inadarei-api-health-check-06) are answered in kind, everything else in plain text.

    Safe on any loop and thread: it holds no state. Put it outside of what may refuse or delay
    requests, such as authentication or a limit.

    Args:
        app: The application behind it.
        health: What is read.
        details: Whether checks are shown. Turn it off on a port that strangers reach: then only
            the status is told, nothing can be excluded, and single checks have no pages.
        prefix: What the paths begin with, such as ``"/internal"``.
        world: Clock for the instants in the draft's format; the current world by default.

    Raises:
        ConfigError: Definite. ``prefix`` neither empty nor of the form ``/name``.
    """

    def __init__(
        self,
        app: AsgiApp,
        health: Health,
        *,
        details: bool = True,
        prefix: str = "",
        world: World | None = None,
    ) -> None:
        self.app = app
        self._pages = _Pages(health, details, prefix, world)

    def __repr__(self) -> str:
        """Show where the pages are."""
        return f"<HealthMiddleware {self._pages.prefix}/readyz before {self.app!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a health page, or hand the request on."""
        given = self._pages.of_scope(scope) if scope["type"] == "http" else None
        if given is None:
            await self.app(scope, receive, send)
        else:
            await _send(given, send)


def health_app(
    health: Health, *, details: bool = True, prefix: str = "", world: World | None = None
) -> AsgiApp:
    """Return the health pages as an ASGI application; other paths are 404.

    Serve it on a port of its own, or mount it under a path of another application. Arguments
    and pages as for :class:`HealthMiddleware`.
    """
    return HealthMiddleware(_nothing_else, health, details=details, prefix=prefix, world=world)


def health_wsgi(
    health: Health,
    app: WsgiApp | None = None,
    *,
    details: bool = True,
    prefix: str = "",
    world: World | None = None,
) -> WsgiApp:
    """Return the health pages as a WSGI application, in front of ``app`` if one is given.

    Arguments and pages as for :class:`HealthMiddleware`. In a server that forks workers, each
    answers for itself: start the registry's runner in the worker, not before the fork.
    """
    pages = _Pages(health, details, prefix, world)

    def serve(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        given = pages.of_environ(environ)
        if given is None:
            if app is not None:
                return app(environ, start_response)
            given = NO_PAGE
        headers = [("-".join(p.title() for p in k.split("-")), v) for k, v in given.headers]
        start_response(f"{given.status} {_PHRASES[given.status]}", headers)
        return [given.body]

    return serve


# --- inside ------------------------------------------------------------------------------------


class _Pages:
    """The pages of one registry, for requests of either kind."""

    def __init__(self, health: Health, details: bool, prefix: str, world: World | None) -> None:
        if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
            raise ConfigError(
                f'health pages: prefix is {prefix!r}; "" or a path such as "/internal"'
            )
        self.prefix = prefix
        self._read = health.read
        self._details = details
        self._world = world

    def of_scope(self, scope: Scope) -> Answer | None:
        path, root = scope["path"], scope.get("root_path", "")
        if root and path.startswith(root):  # mounted: servers differ in whether it is cut off
            path = path[len(root) :]
        if not self._ours(path):
            return None
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        query = scope.get("query_string", b"")
        return self._answer(
            scope["method"], path, query.decode("latin-1"), accept.decode("latin-1")
        )

    def of_environ(self, environ: Environ) -> Answer | None:
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        if not self._ours(path):
            return None
        return self._answer(
            environ.get("REQUEST_METHOD", "GET"),
            path,
            environ.get("QUERY_STRING", ""),
            environ.get("HTTP_ACCEPT", ""),
        )

    def _ours(self, path: str) -> bool:
        """Whether it may be a health page: nearly all requests are not, and should not pay."""
        start = len(self.prefix)
        if start and not path.startswith(self.prefix):
            return False
        at = path.find("/", start + 1)
        return (path[start:] if at < 0 else path[start:at]) in PAGES

    def _answer(self, method: str, path: str, query: str, accept: str) -> Answer | None:
        clock = (self._world or current_world()).clock
        asked = Asked(method, path[len(self.prefix) :], query, accept)
        return answer(self._read, asked, clock.wall_ns(), details=self._details)


async def _send(given: Answer, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.headers]
    await send({"type": "http.response.start", "status": given.status, "headers": headers})
    await send({"type": "http.response.body", "body": given.body})


async def _nothing_else(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what is no health page, and take part in the server's start and stop."""
    kind = scope["type"]
    if kind == "http":
        await _send(NO_PAGE, send)
    elif kind == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
    elif kind == "lifespan":
        while True:
            asked = (await receive())["type"]
            await send({"type": f"{asked}.complete"})
            if asked == "lifespan.shutdown":
                return
