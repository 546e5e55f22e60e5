"""Whether a call that raised an error of another library may have had an effect.

``"no"`` is said only where it is sure: the request was not sent, or it was answered by a refusal
that means, in its protocol, that it was not carried out. Two things make an error that says "I
could not connect" unsure: an earlier attempt within the same call (several libraries repeat
requests by themselves) and a redirect that was followed. Neither is in the error; both are in its
traceback, in the variables of the library's own loop. So that is where they are looked up. Where
a library repeats by default and the traceback is gone (after pickling), the answer is "maybe".

Classes are known by the name of their library and their own: nothing is imported.
"""

from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

_DEPTH_MAX: Final = 1_000
_REFUSED: Final = {401, 405, 407, 411, 412, 413, 414, 415, 417, 421, 425, 426, 428, 429, 431}
"""HTTP statuses whose definition says that the request was not carried out (RFC 9110, 6585, 8470).

Not 400, 403, 404, 409, 422: applications send them in the middle of their work, too. Not 408 and
5xx: a proxy sends them about requests that it has handed on.
"""
_HTTPX: Final = {
    "ConnectError", "ConnectTimeout", "InvalidURL", "PoolTimeout", "ProxyError",
    "UnsupportedProtocol",
}  # fmt: skip
_REQUESTS: Final = {
    "ConnectTimeout", "InvalidHeader", "InvalidSchema", "InvalidURL", "MissingSchema",
    "URLRequired",
}  # fmt: skip
_URLLIB3: Final = {
    "ClosedPoolError", "ConnectTimeoutError", "EmptyPoolError", "HostChangedError",
    "LocationValueError", "NewConnectionError", "ProxySchemeUnsupported",
}  # fmt: skip
_AIOHTTP: Final = {
    "ClientConnectorError", "ClientHttpProxyError", "ConnectionTimeoutError", "InvalidURL",
    "NonHttpUrlClientError", "ServerFingerprintMismatch",
}  # fmt: skip
_REDIS_UNSENT: Final = {"DataError", "MaxConnectionsError"}
_REDIS_REFUSED: Final = {
    "AskError", "AuthenticationError", "AuthenticationWrongNumberOfArgsError",
    "AuthorizationError", "BusyLoadingError", "ClusterDownError", "ExecAbortError",
    "NoScriptError", "OutOfMemoryError", "ReadOnlyError", "TryAgainError", "WatchError",
}  # fmt: skip
"""Replies that mean that nothing was done: Redis checks for them before it runs a command, and
before the first write of a script. Any other reply with an error may come from the middle of a
script that has written."""
_GRPC_REFUSED: Final = {"UNAUTHENTICATED", "UNIMPLEMENTED"}
"""What the framework itself refuses before the method runs. ``INVALID_ARGUMENT`` and the like come
from applications, ``RESOURCE_EXHAUSTED`` also from an answer that is too large,
``UNAVAILABLE`` also from a connection that broke while the method ran."""
_AIOHTTP_REPEATED: Final = {"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"}


def surely_not(error: BaseException) -> bool:
    """Whether the call that raised ``error``, of another library, surely had no effect."""
    if isinstance(error, ConnectionRefusedError):
        return True
    library, names = _descent(error)
    judge = _JUDGES.get(library)
    try:
        return judge is not None and judge(error, names)
    except Exception:  # a foreign object may do anything when it is looked at
        return False


def _descent(error: BaseException) -> tuple[str, set[str]]:
    """Return the library that the error's class comes from, and the class names within it."""
    library, names = "", set[str]()
    for cls in type(error).__mro__:
        home = cls.__module__.partition(".")[0]
        if not library and home in _JUDGES:
            library = home
        if home == library:
            names.add(cls.__name__)
    return library, names


def _frames(error: BaseException, library: str) -> Iterator[tuple[str, str, FrameType]]:
    """Yield module, function and frame of the library's part of the traceback, outermost first."""
    trace = error.__traceback__
    for _ in range(_DEPTH_MAX):
        if trace is None:
            return
        frame = trace.tb_frame
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] == library:
            yield module, frame.f_code.co_name, frame
        trace = trace.tb_next


def _refused(error: BaseException) -> bool:
    """Whether an HTTP response is a refusal, and the first response to this call."""
    response: Any = getattr(error, "response", None)
    if response is None:
        response = error
    status = getattr(response, "status_code", None) or getattr(response, "status", None)
    if status is None:
        status = getattr(response, "code", None)
    return status in _REFUSED and not getattr(response, "history", ())


def _ssl(error: BaseException, names: set[str]) -> bool:
    """Certificates are verified before anything is sent."""
    return "SSLCertVerificationError" in names


def _socket(error: BaseException, names: set[str]) -> bool:
    return "gaierror" in names


def _http(error: BaseException, names: set[str]) -> bool:
    return "InvalidURL" in names


def _httpx(error: BaseException, names: set[str]) -> bool:
    for _, function, frame in _frames(error, "httpx"):
        if function == "_send_handling_redirects" and frame.f_locals.get("history"):
            return False
    if "HTTPStatusError" in names:
        return _refused(error)
    return not names.isdisjoint(_HTTPX)


def _httpcore(error: BaseException, names: set[str]) -> bool:
    return not names.isdisjoint(_HTTPX)


def _requests(error: BaseException, names: set[str]) -> bool:
    for _, function, _ in _frames(error, "requests"):
        # A hook runs after a response: this one has sent the request again.
        if function in {"resolve_redirects", "dispatch_hook"}:
            return False
    if "HTTPError" in names:
        return _refused(error)
    inner = error.args[0] if error.args else None
    if isinstance(inner, BaseException):
        return surely_not(inner)
    return not names.isdisjoint(_REQUESTS)


def _urllib3(error: BaseException, names: set[str]) -> bool:
    history: Any = None
    for module, function, frame in _frames(error, "urllib3"):
        if module == "urllib3.connectionpool" and function == "urlopen":
            history = getattr(frame.f_locals.get("retries"), "history", None)
    if history is not None and not all(_unsent(entry.error) for entry in history):
        return False
    if "MaxRetryError" in names:
        # It repeats by default: without its loop there is no telling.
        return history is not None and _unsent(getattr(error, "reason", None))
    return _unsent(error)


def _unsent(error: object) -> bool:
    """Whether an error of urllib3 about one attempt says that nothing was sent."""
    if not isinstance(error, BaseException):
        return False
    library, names = _descent(error)
    if library != "urllib3":
        return surely_not(error)
    if "ProxyError" in names:
        return _unsent(getattr(error, "original_error", None))
    if "SSLError" in names:
        return bool(error.args) and _unsent(error.args[0])
    return not names.isdisjoint(_URLLIB3)


def _aiohttp(error: BaseException, names: set[str]) -> bool:
    for module, function, frame in _frames(error, "aiohttp"):
        if module == "aiohttp.client" and function == "_request":
            seen = frame.f_locals
            if seen.get("history"):
                return False
            # A request on a connection that was open before is repeated once.
            repeats = getattr(seen.get("self"), "_retry_connection", True)
            method = str(seen.get("method")).upper()
            left = seen.get("retry_persistent_connection", True)  # unset: not begun
            if repeats and method in _AIOHTTP_REPEATED and not left:
                return False
    if "RedirectClientError" in names:
        return False
    if not names.isdisjoint(_AIOHTTP):
        return True
    return "ClientResponseError" in names and _refused(error)


def _redis(error: BaseException, names: set[str]) -> bool:
    connecting, counted, first = False, False, True
    for module, function, frame in _frames(error, "redis"):
        if "cluster" in module or "multidb" in module:
            return False  # they repeat on other nodes
        if function == "get_connection":
            connecting = True
        if function == "call_with_retry" and not connecting:
            counted = True
            seen = frame.f_locals
            once = getattr(seen.get("self"), "_retries", None) == 0
            first = first and (once or seen.get("failures") == 0)
    if connecting:
        return first  # a connection is had before the command is sent
    if "of pipeline caused error" in str(error):
        return False  # the others of the pipeline may have been carried out
    if not names.isdisjoint(_REDIS_UNSENT):
        return first
    return counted and first and not names.isdisjoint(_REDIS_REFUSED)


def _grpc(error: BaseException, names: set[str]) -> bool:
    if any("Rendezvous" in name for name in names):
        return False  # a stream: messages before this one were handled
    code: Any = getattr(error, "code", None)
    return callable(code) and getattr(code(), "name", "") in _GRPC_REFUSED


def _sqlalchemy(error: BaseException, names: set[str]) -> bool:
    # A connection is had, made or waited for, before anything is executed on it.
    return any(
        function == "_checkout" and module.startswith("sqlalchemy.pool.")
        for module, function, _ in _frames(error, "sqlalchemy")
    )


def _urllib(error: BaseException, names: set[str]) -> bool:
    for _, function, _ in _frames(error, "urllib"):
        if function.startswith("http_error_3"):
            return False
    if "HTTPError" in names:
        return _refused(error)
    inner = getattr(error, "reason", None)
    return isinstance(inner, Exception) and surely_not(inner)


_JUDGES: Final[dict[str, Callable[[BaseException, set[str]], bool]]] = {
    "ssl": _ssl,
    "socket": _socket,
    "http": _http,
    "httpx": _httpx,
    "httpcore": _httpcore,
    "requests": _requests,
    "urllib3": _urllib3,
    "aiohttp": _aiohttp,
    "redis": _redis,
    "sqlalchemy": _sqlalchemy,
    "grpc": _grpc,
    "urllib": _urllib,
}
