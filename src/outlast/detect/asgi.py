"""Health over HTTP: ``/livez``, ``/readyz``, ``/startupz`` for Starlette (extra ``cluster``)."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from outlast.detect.health import Group, GroupHealth, Health, Status

_PATHS: tuple[tuple[str, Group], ...] = (
    ("/livez", "liveness"),
    ("/readyz", "readiness"),
    ("/startupz", "startup"),
)
_SIGNS = {Status.OK: "+", Status.DEGRADED: "~", Status.UNKNOWN: "?", Status.FAILED: "-"}


def health_routes(health: Health) -> list[Route]:
    """Return the three routes: 200 when passing, 503 when not.

    The body is the group's status; with ``?verbose``, or when not passing, one line follows per
    check: ``[+]`` ok, ``[~]`` degraded, ``[?]`` unknown, ``[-]`` failed.
    """
    return [_route(health, path, group) for path, group in _PATHS]


def _route(health: Health, path: str, group: Group) -> Route:
    async def answer(request: Request) -> Response:
        found = health.read(group)
        verbose = "verbose" in request.query_params or not found.passing
        return PlainTextResponse(
            _text(found, verbose=verbose),
            status_code=200 if found.passing else 503,
            headers={"Cache-Control": "no-store"},
        )

    return Route(path, answer, methods=["GET"], name=group)


def _text(found: GroupHealth, *, verbose: bool) -> str:
    lines = [str(found.status)]
    if verbose:
        for result in found.results:
            sign = _SIGNS[result.status]
            detail = f": {' '.join(result.detail.split())}" if result.detail else ""
            lines.append(f"[{sign}]{result.name} {result.status}{detail}")
    return "\n".join(lines) + "\n"
