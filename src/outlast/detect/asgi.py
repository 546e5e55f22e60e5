"""Health as routes of Starlette: ``/livez``, ``/readyz``, ``/startupz`` (extra ``cluster``).

For every other framework, and for none: :func:`outlast.detect.health_app`.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.detect.core.health_text import PAGES, Asked, answer
from outlast.detect.health import Health
from outlast.kernel import current_world


def health_routes(health: Health) -> list[Route]:
    """Return the three routes: 200 when passing, 503 when not.

    The body is the group's status; with ``?verbose``, or when not passing, one line follows per
    check: ``[+]`` ok, ``[~]`` degraded, ``[?]`` unknown, ``[-]`` failed. ``?exclude=NAME`` leaves
    a check out; ``Accept`` chooses JSON, as for :func:`outlast.detect.health_app`.
    """
    return [_route(health, path) for path, page in PAGES.items() if page != "health"]


def _route(health: Health, path: str) -> Route:
    async def page(request: Request) -> Response:
        asked = Asked(request.method, path, request.url.query, request.headers.get("accept", ""))
        given = answer(health.read, asked, current_world().clock.wall_ns())
        if given is None:  # pragma: no cover - the path is one of the pages
            return Response(status_code=404)
        return Response(given.body, given.status, dict(given.headers))

    return Route(path, page, methods=["GET"], name=PAGES[path])
