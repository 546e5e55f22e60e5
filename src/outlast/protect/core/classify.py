"""What kind of failure an error is.

Told from what an error *has* (a status, headers, a code) and from the name of its class and of
the module that the class comes from: nothing is imported for it, and a library that is not
installed costs nothing.

- ``"transient"``: may pass by itself: a time that was up, a connection that broke, a 500. What is
  not known is taken for this: who names an error for retry means that it may pass.
- ``"throttled"``: the callee works and has too much to do: 429, a full pool.
- ``"unreachable"``: the callee was not reached: connection refused, no such name, no route.
- ``"permanent"``: the same call fails again: 400, a wrong argument, a bug.
- ``"answer"``: no failure of the callee at all: a command said no, a task was cancelled.
"""

import errno
from typing import Any, Final, Literal

from outlast.kernel import (
    CircuitOpenError,
    CommandError,
    ConnectionLostError,
    CorruptionError,
    DeadlineError,
    DefiniteError,
    DiskFullError,
    DivergedError,
    ElsewhereError,
    InvariantError,
    LostError,
    NoEffectError,
    OutlastError,
    RejectedError,
    TooLateError,
    UnavailableError,
    happened,
)
from outlast.protect.core.pushback import (
    called,
    grpc_code,
    headers_of,
    peek,
    pushback_ms,
    retry_after,
)

__all__ = ["Kind", "classify", "classify_response", "retry_after"]

Kind = Literal["transient", "throttled", "permanent", "unreachable", "answer"]

_OURS: Final[tuple[tuple[tuple[type[BaseException], ...], Kind], ...]] = (
    ((CommandError, NoEffectError), "answer"),
    ((InvariantError, CorruptionError, DivergedError, TooLateError), "permanent"),
    ((DiskFullError, ElsewhereError, LostError), "transient"),
    ((CircuitOpenError, UnavailableError), "unreachable"),
    ((RejectedError,), "throttled"),
    ((DefiniteError,), "permanent"),
    ((DeadlineError, ConnectionLostError), "transient"),
)
"""The first that fits counts."""

_PERMANENT_BUILTINS: Final = (
    ArithmeticError, AssertionError, AttributeError, FileExistsError, FileNotFoundError,
    ImportError, IsADirectoryError, LookupError, MemoryError, NameError, NotADirectoryError,
    NotImplementedError, PermissionError, RecursionError, SyntaxError, TypeError, ValueError,
)  # fmt: skip

_UNREACHABLE_ERRNOS: Final = {
    errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
}  # fmt: skip

_KINDS: Final[dict[str, dict[str, Kind]]] = {
    "ssl": {"SSLCertVerificationError": "permanent"},
    "socket": {"gaierror": "unreachable", "herror": "unreachable"},
    "httpx": {
        "ConnectError": "unreachable",
        "ConnectTimeout": "unreachable",
        "InvalidURL": "permanent",
        "LocalProtocolError": "permanent",
        "PoolTimeout": "throttled",
        "ProxyError": "unreachable",
        "TooManyRedirects": "permanent",
        "UnsupportedProtocol": "permanent",
    },
    "httpcore": {
        "ConnectError": "unreachable",
        "ConnectTimeout": "unreachable",
        "LocalProtocolError": "permanent",
        "PoolTimeout": "throttled",
        "ProxyError": "unreachable",
        "UnsupportedProtocol": "permanent",
    },
    "requests": {
        "ConnectTimeout": "unreachable",
        "InvalidHeader": "permanent",
        "InvalidSchema": "permanent",
        "InvalidURL": "permanent",
        "MissingSchema": "permanent",
        "ProxyError": "unreachable",
        "TooManyRedirects": "permanent",
    },
    "urllib3": {
        "EmptyPoolError": "throttled",
        "ConnectTimeoutError": "unreachable",
        "LocationValueError": "permanent",
        "ProxyError": "unreachable",
    },
    "aiohttp": {
        "ClientConnectorCertificateError": "permanent",
        "ServerFingerprintMismatch": "permanent",
        "ClientConnectorError": "unreachable",
        "ConnectionTimeoutError": "unreachable",
        "InvalidURL": "permanent",
        "NonHttpUrlClientError": "permanent",
        "TooManyRedirects": "permanent",
    },
    "redis": {
        "AuthenticationError": "permanent",
        "AuthorizationError": "permanent",
        "BusyLoadingError": "transient",
        "ClusterDownError": "transient",
        "MaxConnectionsError": "throttled",
        "OutOfMemoryError": "throttled",
        "AskError": "transient",
        "ReadOnlyError": "transient",
        "TryAgainError": "transient",
        "WatchError": "answer",
        "LockError": "answer",
        "ResponseError": "permanent",
        "DataError": "permanent",
    },
}
"""Kinds by top-level module and class name; the most derived class that is known counts."""

_GRPC: Final[dict[str, Kind]] = {
    "RESOURCE_EXHAUSTED": "throttled",
    "UNAVAILABLE": "transient",
    "DEADLINE_EXCEEDED": "transient",
    "ABORTED": "transient",
    "INTERNAL": "transient",
    "UNKNOWN": "transient",
    "CANCELLED": "transient",
}
"""Every other code says of the request that it cannot be."""

_GRPC_UNREACHED: Final = (
    "failed to connect to all addresses", "errors resolving", "DNS resolution failed",
)  # fmt: skip
_TRANSIENT_STATUS: Final = {408, 425, 500, 502, 504}
_THROTTLED_CODES: Final = ("Throttl", "TooManyRequests", "SlowDown", "LimitExceeded")
_CHAIN_MAX: Final = 8


def classify(error: BaseException) -> Kind:
    """Return what kind of failure ``error`` is; see the module.

    >>> classify(ConnectionRefusedError()), classify(TimeoutError()), classify(KeyError("x"))
    ('unreachable', 'transient', 'permanent')
    """
    if not isinstance(error, Exception):
        return "answer"
    if isinstance(error, OutlastError):
        return _classify_ours(error)
    from outlast.protect.core.database import database_kind

    return (
        _by_grpc(error)
        or _by_status(error)
        or _by_class(error)
        or database_kind(error)
        or _by_cause(error)
        or _by_builtin(error)
    )


def classify_response(status: int, *, retry_after: float | None = None) -> Kind:
    """Return what kind of failure an HTTP response is; ``"answer"`` if it is none.

    503 with a ``Retry-After`` is an overload that will pass (RFC 9110, 15.6.4); without one it
    may be anything.

    Args:
        status: The status code.
        retry_after: What :func:`retry_after` says of it.

    >>> classify_response(204), classify_response(404), classify_response(429)
    ('answer', 'permanent', 'throttled')
    """
    if status < 400:
        return "answer"
    if status == 429 or (status == 503 and retry_after is not None):
        return "throttled"
    if status in _TRANSIENT_STATUS or status == 503 or 520 <= status < 600:
        return "transient"
    return "permanent"


def _classify_ours(error: OutlastError) -> Kind:
    for family, kind in _OURS:
        if isinstance(error, family):
            return kind
    return "transient"


def _by_class(error: BaseException) -> Kind | None:
    for cls in type(error).__mro__:
        kinds = _KINDS.get(cls.__module__.partition(".")[0])
        if kinds is not None and cls.__name__ in kinds:
            kind = kinds[cls.__name__]
            if kind == "unreachable" and _of_certificate(error):
                return "permanent"
            return kind
        if cls.__name__ == "ConnectionError" and kinds is _KINDS["redis"] and _no_free(error):
            return "throttled"
    return None


def _no_free(error: BaseException) -> bool:
    """Whether all connections of a pool of redis were in use: of a class with nothing else."""
    return bool(error.args) and error.args[0] == "No connection available."


def _of_certificate(error: BaseException) -> bool:
    """Whether the connection failed because the other side's certificate is not good."""
    seen: BaseException | None = error
    for _ in range(_CHAIN_MAX):
        if seen is None:
            return False
        if type(seen).__name__ == "SSLCertVerificationError":
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _by_cause(error: BaseException) -> Kind | None:
    """Look at the error inside where a library wraps one: requests, urllib3 and urllib do."""
    if type(error).__module__.partition(".")[0] not in {"requests", "urllib3", "urllib"}:
        return None
    inner: Any = peek(error, "reason") or (error.args[0] if error.args else None)
    if not isinstance(inner, Exception) or inner is error:
        return None
    return _by_class(inner) or _by_cause(inner) or _by_builtin(inner)


def _by_builtin(error: BaseException) -> Kind:
    if isinstance(error, ConnectionRefusedError):
        return "unreachable"
    if isinstance(error, OSError) and error.errno in _UNREACHABLE_ERRNOS:
        return "unreachable"
    if isinstance(error, _PERMANENT_BUILTINS):
        return "permanent"
    return "unreachable" if happened(error) == "no" else "transient"


def _by_status(error: Exception) -> Kind | None:
    response = peek(error, "response")
    if isinstance(response, dict):
        return _by_aws(response)
    for holder, name in (
        (response, "status_code"), (response, "status"), (error, "status_code"),
        (error, "status"), (error, "code"),
    ):  # fmt: skip
        status = peek(holder, name)
        if isinstance(status, int) and 400 <= status < 600 and headers_of(error) is not None:
            # Only whether there is one counts: dates need a clock, and any will do.
            return classify_response(status, retry_after=retry_after(error, 0))
    return None


def _by_aws(response: dict[str, Any]) -> Kind | None:
    """Look at a response as botocore has it."""
    said, metadata = response.get("Error"), response.get("ResponseMetadata")
    code = said.get("Code") if isinstance(said, dict) else None
    if isinstance(code, str) and any(part in code for part in _THROTTLED_CODES):
        return "throttled"
    status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
    return classify_response(status) if isinstance(status, int) and status >= 400 else None


def _by_grpc(error: Exception) -> Kind | None:
    name = grpc_code(error)
    if name is None:
        return None
    pushback = pushback_ms(error)
    if pushback is not None and pushback < 0:
        return "permanent"  # the server asks not to be called again (gRPC proposal A6)
    details = called(error, "details") if name == "UNAVAILABLE" else None
    if isinstance(details, str) and details.startswith(_GRPC_UNREACHED):
        return "unreachable"
    return _GRPC.get(name, "permanent")
