"""What the ASGI and WSGI middlewares share: refusals, admission, and kept responses."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from outlast.kernel import (
    ConfigError,
    DeadlineError,
    DefiniteError,
    IndefiniteError,
    InFlightError,
    KeyReusedError,
    OutlastError,
    RateLimitedError,
    ReplyLostError,
    TooLateError,
    current_world,
)
from outlast.protect.core.codec import Outcome, Raised, Returned
from outlast.protect.core.idempotency import fingerprint_of
from outlast.protect.headers import Incoming
from outlast.protect.idempotent import Idempotent

UNSAFE: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
NOT_KEPT: Final = frozenset({401, 403, 407, 408, 413, 425, 429, 503})
"""Statuses that say that nothing was done: the key is free again, and a repeat runs."""

REPLAYED: Final = ("Idempotency-Replayed", "true")
KEPT_NO: Final = ("Idempotency-Kept", "no")

Pair = tuple[bytes, bytes]
Ended = Literal["ok", "failed", "cancelled"]


class Response:
    """A whole response."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Iterable[Pair], body: bytes) -> None:
        self.status = status
        self.headers = list(headers)
        self.body = body

    def outcome(self) -> Returned:
        """Return what is kept of it: plain data, for any codec."""
        pairs = [(bytes(name), bytes(value)) for name, value in self.headers]
        size = len(self.body) + sum(len(name) + len(value) for name, value in pairs)
        return Returned((self.status, pairs, self.body), size)


def replay(outcome: Outcome) -> Response:
    """Return the response that was kept, with a header that says so.

    Raises:
        ReplyLostError: It was done, but its answer was not kept.
    """
    if isinstance(outcome, Raised):
        raise outcome.error
    try:
        status, headers, body = outcome.value
        response = Response(int(status), [(bytes(n), bytes(v)) for n, v in headers], bytes(body))
    except (TypeError, ValueError) as error:
        raise ReplyLostError("what was kept of the answer is not a response") from error
    response.headers.append(_encoded(*REPLAYED))
    return response


def refusal(error: OutlastError, *, shed_status: int, begun: bool) -> Response:
    """Return the response that tells of ``error``.

    Args:
        error: Why there is no other response.
        shed_status: For load that was shed.
        begun: Whether the application was called: then it may have happened, whatever the
            error says of itself.
    """
    happened = "maybe" if begun else error.happened
    status = _status(error, shed_status)
    retry_after = getattr(error, "retry_after", None)
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    if retry_after is not None or status in {shed_status, 429, 503}:
        headers.append(("Retry-After", str(_whole_seconds(retry_after))))
    return problem(status, type(error).__name__, str(error), happened, headers)


def _whole_seconds(retry_after: float | None) -> int:
    """Return whole seconds, from 1 to a day, whatever number an error has."""
    if retry_after is None or not retry_after > 1:  # it may be no number at all
        return 1
    return math.ceil(min(retry_after, 86400))


def failed() -> Response:
    """Return the response for an application that raised under an idempotency key."""
    message = "the application failed; the same answer is kept for repeats with this key"
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    return problem(500, "InternalServerError", message, "maybe", headers)


def too_large(body_max: int) -> Response:
    """Return the refusal of a request that is too long to be compared with a repeat."""
    message = f"a request with Idempotency-Key may have a body of {body_max} bytes at most"
    return problem(413, "TooLarge", message, "no", [("Content-Type", "application/json")])


def too_slow(seconds: float) -> Response:
    """Return the refusal of a request that was not whole in time."""
    message = f"a request with Idempotency-Key must be whole after {seconds:g} s"
    return problem(408, "TooSlow", message, "no", [("Content-Type", "application/json")])


def problem(
    status: int, error: str, message: str, happened: str, headers: list[tuple[str, str]]
) -> Response:
    """Return an error as JSON, in the shape that all errors of outlast have over HTTP."""
    import json

    body = {
        "error": error,
        "message": message,
        "happened": happened,
        "may_have_happened": happened != "no",
    }
    raw = json.dumps(body).encode()
    pairs = [*headers, ("Content-Length", str(len(raw)))]
    return Response(status, [_encoded(name, value) for name, value in pairs], raw)


def _status(error: OutlastError, shed_status: int) -> int:
    table: tuple[tuple[type[OutlastError], int], ...] = (
        (TooLateError, 504),
        (DeadlineError, 504),
        (RateLimitedError, 429),
        (InFlightError, 409),
        (ReplyLostError, 409),
        (KeyReusedError, 422),
        (ConfigError, 400),
        (IndefiniteError, 500),
    )
    return next((status for cls, status in table if isinstance(error, cls)), shed_status)


def _encoded(name: str, value: str) -> Pair:
    return name.lower().encode("latin-1"), value.encode("latin-1")


class Settings:
    """The settings of both middlewares, checked."""

    __slots__ = ("body_max", "deadline_cap", "idempotent", "keep", "limit", "principal",
                 "priority", "rate", "shed_status")  # fmt: skip

    def __init__(
        self,
        *,
        limit: Any,
        rate: Any,
        idempotent: Idempotent | None,
        deadline_cap: float,
        shed_status: int,
        body_max: int,
        principal: Callable[[Any], str] | None,
        priority: Callable[[Any], int | None] | None,
        keep: Callable[[int], bool] | None,
    ) -> None:
        where = "ProtectMiddleware"
        if not deadline_cap > 0:
            message = f"{where}: deadline_cap is {deadline_cap!r}; it must be above 0 seconds"
            raise ConfigError(message)
        if not 400 <= shed_status <= 599:
            raise ConfigError(f"{where}: shed_status is {shed_status!r}; it must be 400 to 599")
        if body_max < 0:
            raise ConfigError(f"{where}: body_max is {body_max!r}; it must be 0 bytes or more")
        self.limit = limit
        self.rate = rate
        self.idempotent = idempotent
        self.deadline_cap = deadline_cap
        self.shed_status = shed_status
        self.body_max = body_max
        self.principal = principal
        self.priority = priority
        self.keep = keep or _kept

    def key_of(self, method: str, info: Incoming) -> str | None:
        """Return the idempotency key that counts for this request, if any.

        Raises:
            ConfigError: Definite. The key cannot be used, or is missing and required.
        """
        if self.idempotent is None or method not in UNSAFE:
            return None
        if info.key_refused:
            raise ConfigError("Idempotency-Key must be one text of 1 to 255 visible characters")
        if info.key is None and self.idempotent.required:
            raise ConfigError("Idempotency-Key is missing, and required here")
        return info.key

    def row(
        self, request: Any, key: str, parts: tuple[Any, ...], credentials: Any
    ) -> tuple[str, str]:
        """Return the key of the record and the fingerprint of the request.

        One user's key must not open another's answer. With ``principal`` the user is part of
        the key; without it the credentials are part of the fingerprint, so that a key that
        comes with others is refused.
        """
        name = (self.idempotent.name if self.idempotent else "") or "http"
        if self.principal is None:
            return f"{name}:{key}", fingerprint_of(parts, credentials)
        who = fingerprint_of(str(self.principal(request)))
        return f"{name}:{who}:{key}", fingerprint_of(parts)

    def release(self, permit: Any, begun_ns: int, ended: Ended) -> None:
        """Give back a permit of the limit, with what it learns from the call."""
        limit = self.limit
        if limit is None:
            return
        try:
            if limit.timed:
                now_ns = current_world().clock.monotonic_ns()
                limit.sample(now_ns - begun_ns, ended, now_ns)
        finally:
            limit.push(permit)
        if limit.attention:
            limit.settle_up()

    def judged(self, response: Response) -> Outcome:
        """Return the outcome that a whole response is: kept, or freeing the key."""
        return response.outcome() if self.keep(response.status) else _nothing(response.status)

    def streamed(self, status: int, lost: Outcome) -> Outcome:
        """Return the outcome that a stream is: done without an answer, or freeing the key."""
        return lost if self.keep(status) else _nothing(status)


def _nothing(status: int) -> Raised:
    return Raised(DefiniteError(f"status {status} says that nothing was done"))


def _kept(status: int) -> bool:
    return status not in NOT_KEPT


def content_length(headers: Iterable[Pair]) -> int | None:
    """Return the announced length of a body; ``None`` if there is none that makes sense."""
    for name, value in headers:
        if name.lower() == b"content-length" and value.isdigit() and len(value) < 16:
            return int(value)
    return None
