"""What a probe is told over HTTP: one rendering for every server that asks.

A request comes in as four strings, an answer goes out as status, headers and bytes. Whether it
was a framework, a middleware or the server of its own that carried them makes no difference.
Pages: ``/livez``, ``/readyz``, ``/startupz``, ``/healthz`` (all three at once), and
``/readyz/NAME`` for one check. Parameters as in the Kubernetes API server: ``verbose`` lists the
checks, ``exclude=NAME`` leaves one out of the verdict. Bodies are plain text, JSON, or the health
check draft for HTTP APIs (draft-inadarei-api-health-check-06), as ``Accept`` asks.

Differs from the draft: it knows no "unknown". An unknown check that decides its group is a
``fail`` with its reason in ``output``, any other one a ``warn``; never a ``pass``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from outlast.detect.core.health import (
    GROUPS,
    RANK,
    CheckResult,
    Group,
    GroupHealth,
    Status,
    verdict,
)

Page = Literal["startup", "liveness", "readiness", "health"]
Read = Callable[[Group], GroupHealth]
"""Reads one group; never waits."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. ``path`` is decoded; ``query`` is not."""

    method: str
    path: str
    query: str = ""
    accept: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: status, headers with lower-case names, body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is rendered: a verdict, after the exclusions."""

    page: Page
    status: Status
    passing: bool
    results: tuple[CheckResult, ...]
    excluded: tuple[CheckResult, ...] = ()
    unmatched: tuple[str, ...] = ()


PAGES: Final[dict[str, Page]] = {
    "/livez": "liveness",
    "/readyz": "readiness",
    "/startupz": "startup",
    "/healthz": "health",
}
_SAID: Final = f"no such page; there are: {', '.join(PAGES)}\n".encode()
NO_PAGE: Final = Answer(
    404,
    (
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(_SAID))),
        ("cache-control", "no-store"),
    ),
    _SAID,
)
"""What a server answers for a path that is none of ours, if it has nothing else."""
_SIGNS: Final = {
    Status.OK: "+", Status.DEGRADED: "~", Status.UNKNOWN: "?", Status.FAILED: "-",
}  # fmt: skip
_TEXT: Final = "text/plain"
_JSON: Final = "application/json"
_HEALTH: Final = "application/health+json"
_TYPES: Final = {
    _TEXT: _TEXT, "text/*": _TEXT, "*/*": _TEXT,
    _JSON: _JSON, "application/*": _JSON, _HEALTH: _HEALTH,
}  # fmt: skip
_ACCEPT_MAX: Final = 1024
_EXCLUDED_MAX: Final = 64
_NAME_MAX: Final = 200


def answer(read: Read, asked: Asked, wall_ns: int, *, details: bool = True) -> Answer | None:
    """Answer a request for a health page; ``None`` if the path is none of ours.

    Args:
        read: Reads a group.
        asked: The request.
        wall_ns: Now, in nanoseconds since 1970, for the instants in the draft's format.
        details: Whether checks are shown. Without, only the status is told: nothing can be
            excluded, and single checks have no pages.
    """
    at = asked.path.find("/", 1)
    root, name = (asked.path, "") if at < 0 else (asked.path[:at], asked.path[at + 1 :])
    page = PAGES.get(root)
    if page is None:
        return None
    if asked.method not in {"GET", "HEAD"}:
        return _plain(405, "use GET or HEAD", asked, (("allow", "GET, HEAD"),))
    verbose, exclude = _parameters(asked.query) if details else (False, ())
    groups = GROUPS if page == "health" else (page,)
    if name:
        found = _one(read, page, groups, name) if details else None
        if found is None:
            return _plain(404, "no such check", asked)
        verbose = True
    else:
        found = _all(read, page, groups, exclude)
    code = 200 if found.passing else 503
    kind = _negotiate(asked.accept)
    if kind == _TEXT:
        body = _as_text(found, verbose=details and (verbose or not found.passing))
        return _answer(code, "text/plain; charset=utf-8", body, asked)
    value = _as_draft(found, wall_ns) if kind == _HEALTH else _as_json(found)
    if not details:
        value = {key: value[key] for key in ("status", "passing") if key in value}
    from json import dumps

    return _answer(code, kind, dumps(value) + "\n", asked)


# --- verdicts ----------------------------------------------------------------------------------


def _all(read: Read, page: Page, groups: tuple[Group, ...], exclude: tuple[str, ...]) -> _Shown:
    """Read the groups and judge what is left of each; a page passes if all its groups do."""
    if len(groups) == 1 and not exclude:  # nearly always
        whole = read(groups[0])
        return _Shown(page, whole.status, whole.passing, whole.results)
    found = [_without(read(group), exclude) for group in groups]
    left, out = dict[str, CheckResult](), dict[str, CheckResult]()
    for group, excluded in found:
        left.update((result.name, result) for result in group.results)
        out.update((result.name, result) for result in excluded)
    return _Shown(
        page,
        max((group.status for group, _ in found), key=RANK.__getitem__),
        all(group.passing for group, _ in found),
        tuple(left.values()),
        tuple(out.values()),
        tuple(name for name in exclude if name not in out),
    )


def _without(
    found: GroupHealth, names: tuple[str, ...]
) -> tuple[GroupHealth, tuple[CheckResult, ...]]:
    out = tuple(result for result in found.results if result.name in names)
    if not out:
        return found, ()
    left = tuple(result for result in found.results if result.name not in names)
    return verdict(found.group, left, started=found.passing), out


def _one(read: Read, page: Page, groups: tuple[Group, ...], name: str) -> _Shown | None:
    """Judge one check as if its group had no other: it is critical, and nothing has passed yet."""
    for group in groups:
        for result in read(group).results:
            if result.name == name:
                alone = verdict(group, (replace(result, critical=True),))
                return _Shown(page, alone.status, alone.passing, (result,))
    return None


# --- requests ----------------------------------------------------------------------------------


def _parameters(query: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether ``verbose`` is there, and the values of ``exclude``; a bounded number."""
    if not query:
        return False, ()
    from urllib.parse import unquote_plus

    verbose, exclude = False, dict[str, None]()
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if key == "verbose":
            verbose = value.lower() not in {"0", "false", "no"}
        elif key == "exclude" and value and len(exclude) < _EXCLUDED_MAX:
            exclude[unquote_plus(value)[:_NAME_MAX]] = None
    return verbose, tuple(exclude)


def _negotiate(accept: str) -> str:
    """Return the kind of body that is liked best; text when nothing fits: a probe gets its answer.

    Of what is liked equally, the more exactly named, then the first (RFC 9110, 12.5.1).
    """
    if accept in {"", "*/*"}:
        return _TEXT
    best, best_weight = _TEXT, (0.0, 0)
    for part in accept[:_ACCEPT_MAX].split(","):
        given, *parameters = (piece.strip().lower() for piece in part.split(";"))
        kind = _TYPES.get(given)
        weight = (_quality(parameters), 0 if "*" in given else 1)
        if kind is not None and weight[0] > 0 and weight > best_weight:
            best, best_weight = kind, weight
    return best


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 0.0
            return quality if 0 <= quality <= 1 else 0.0
    return 1.0


# --- bodies ------------------------------------------------------------------------------------


def _as_text(found: _Shown, *, verbose: bool) -> str:
    lines = [str(found.status)]
    if verbose:
        for result in found.results:
            detail = f": {_line(result.detail)}" if result.detail else ""
            lines.append(f"[{_SIGNS[result.status]}]{result.name} {result.status}{detail}")
        lines += [f"[ ]{result.name} excluded: {result.status}" for result in found.excluded]
        lines += [f"no check {_line(name)!r} to exclude" for name in found.unmatched]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())


def _as_json(found: _Shown) -> dict[str, Any]:
    value: dict[str, Any] = {
        "group": found.page,
        "status": str(found.status),
        "passing": found.passing,
        "checks": [_fields(result) for result in found.results],
    }
    if found.excluded:
        value["excluded"] = [_fields(result) for result in found.excluded]
    if found.unmatched:
        value["unmatched"] = list(found.unmatched)
    return value


def _fields(result: CheckResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "status": str(result.status),
        "detail": result.detail,
        "critical": result.critical,
        "age": _seconds(result.age),
        "since": _seconds(result.since),
        "took": _seconds(result.took),
        "groups": list(result.groups),
        "kind": result.kind,
    }


def _seconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _as_draft(found: _Shown, wall_ns: int) -> dict[str, Any]:
    checks = {result.name: [_draft_check(found, result, wall_ns)] for result in found.results}
    status = ("pass" if found.status is Status.OK else "warn") if found.passing else "fail"
    return {"status": status, "description": found.page, "checks": checks}


def _draft_check(found: _Shown, result: CheckResult, wall_ns: int) -> dict[str, Any]:
    keeps = result.critical and result.status is Status.UNKNOWN and not found.passing
    bad = "fail" if result.status is Status.FAILED or keeps else "warn"
    value: dict[str, Any] = {
        "componentType": "component",
        "status": "pass" if result.status is Status.OK else bad,
    }
    if result.age is not None:
        value["time"] = _instant(wall_ns - round(result.age * 1e9))
    if result.took is not None:
        value["observedValue"], value["observedUnit"] = round(result.took * 1e3, 3), "ms"
    if result.status is not Status.OK:
        detail = _line(result.detail)
        value["output"] = f"{result.status}: {detail}" if detail else str(result.status)
    return value


def _instant(wall_ns: int) -> str:
    """Return an instant as RFC 3339 writes it, in milliseconds."""
    from datetime import UTC, datetime

    seconds, rest = divmod(wall_ns, 1_000_000_000)
    at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(status: int, text: str, asked: Asked, more: tuple[tuple[str, str], ...] = ()) -> Answer:
    return _answer(status, "text/plain; charset=utf-8", text + "\n", asked, more)


def _answer(
    status: int, kind: str, text: str, asked: Asked, more: tuple[tuple[str, str], ...] = ()
) -> Answer:
    body = text.encode("utf-8", "backslashreplace")
    headers = (
        ("content-type", kind),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        *more,
    )
    return Answer(status, headers, b"" if asked.method == "HEAD" else body)
